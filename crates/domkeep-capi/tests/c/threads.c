/* threads TEMPLATES: calls from several threads on one context. */
#include "check.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS 5

static dk_ctx *ctx;

static void *reads(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        char *configuration, *report, *list;
        DONE(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_LIVE, &configuration, &report, &error));
        CONTAINS(configuration, "web");
        DONE(dk_list_domain_configurations(ctx, DK_POLICY_UNION, &list, &error));
        free(configuration);
        free(report);
        free(list);
        EXPECT(DK_STATUS_NOT_FOUND, dk_retrieve_domain_configuration(ctx, 8, 0, &configuration, NULL, &error));
    }
    return NULL;
}

/* Each adds a disk of its own. */
static void *plugs(void *number)
{
    for (int i = 0; i < ROUNDS; i++) {
        char disk[128];
        dk_hotplug *hotplug;
        DONE(dk_hotplug_begin(ctx, 7, NULL, &hotplug, &error));
        snprintf(disk, sizeof disk, "{\"pdev_path\": \"/srv/%d\", \"vdev\": \"xvd%c\", \"format\": \"raw\"}", i,
                 'b' + *(int *)number);
        DONE(dk_hotplug_add(hotplug, DK_DEVICE_CLASS_DISK, disk, NULL, &error));
        DONE(dk_hotplug_commit(hotplug, &error));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    pthread_t threads[2 * THREADS];
    int numbers[THREADS];
    DONE(dk_ctx_open_in_process(&ctx, NODES, argv[1], &error));
    DONE(dk_template_create(ctx, 7, UUID, TEMPLATE, &error));
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, reads, NULL) == 0);
        CHECK(pthread_create(&threads[THREADS + i], NULL, plugs, &numbers[i]) == 0);
    }
    for (int i = 0; i < 2 * THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    char *configuration;
    DONE(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_TEMPLATE, &configuration, NULL, &error));
    for (int i = 0; i < THREADS; i++) {
        char vdev[] = "xvd?";
        vdev[3] = (char)('b' + i);
        CONTAINS(configuration, vdev);
    }
    free(configuration);
    dk_ctx_free(ctx);
    return 0;
}
