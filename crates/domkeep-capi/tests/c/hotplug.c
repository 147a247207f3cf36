/* A toolstack that plugs devices itself: the template changes with its own Xenstore transaction, or not at all. */
#include "check.h"

#define DISK "{\"pdev_path\": \"/srv/data.img\", \"vdev\": \"xvdb\", \"format\": \"raw\", \"readwrite\": 1}"
#define BACKEND "/local/domain/0/backend/vbd/7/51728"
#define FRONTEND "/local/domain/7/device/vbd/51728"

static dk_node node(const char *path, const char *value)
{
    dk_node made = { .path = path, .value = (const uint8_t *)value, .length = value ? strlen(value) : 0 };
    return made;
}

/* As a toolstack does it: both ends of the device, connected already. */
static void plug(dk_ctx *ctx)
{
    dk_node nodes[] = {
        node(BACKEND "/frontend", FRONTEND), node(BACKEND "/frontend-id", "7"),
        node(BACKEND "/params", "/srv/data.img"), node(BACKEND "/type", "phy"),
        node(BACKEND "/dev", "xvdb"), node(BACKEND "/mode", "w"),
        node(BACKEND "/device-type", "disk"), node(BACKEND "/online", "1"),
        node(BACKEND "/removable", "1"), node(BACKEND "/state", "4"),
        node("/libxl/7/device/vbd/51728/frontend", FRONTEND), node("/libxl/7/device/vbd/51728/backend", BACKEND),
        node("/libxl/7/device/vbd/51728/params", "/srv/data.img"), node("/libxl/7/device/vbd/51728/dev", "xvdb"),
        node("/libxl/7/device/vbd/51728/type", "phy"), node("/libxl/7/device/vbd/51728/mode", "w"),
        node("/libxl/7/device/vbd/51728/device-type", "disk"), node("/libxl/7/device/vbd/51728/removable", "1"),
        node(FRONTEND "/backend", BACKEND), node(FRONTEND "/backend-id", "0"),
        node(FRONTEND "/state", "4"), node(FRONTEND "/virtual-device", "51728"),
        node(FRONTEND "/device-type", "disk"),
    };
    DONE(dk_xenstore_change(ctx, nodes, sizeof nodes / sizeof *nodes, &error));
}

static void unplug(dk_ctx *ctx)
{
    dk_node nodes[] = { node(BACKEND, NULL), node(FRONTEND, NULL), node("/libxl/7/device/vbd/51728", NULL) };
    DONE(dk_xenstore_change(ctx, nodes, 3, &error));
}

static char *retrieved(dk_ctx *ctx, int policy)
{
    char *configuration;
    DONE(dk_retrieve_domain_configuration(ctx, 7, policy, &configuration, NULL, &error));
    return configuration;
}

static void has(dk_ctx *ctx, int policy, const char *part, int wanted)
{
    char *configuration = retrieved(ctx, policy);
    if (wanted)
        CONTAINS(configuration, part);
    else
        LACKS(configuration, part);
    free(configuration);
}

static void committed(dk_ctx *ctx)
{
    dk_hotplug *hotplug;
    char *replaced, *configuration, *removed;
    uint32_t *devids;
    size_t count;

    DONE(dk_hotplug_begin(ctx, 7, UUID, &hotplug, &error));
    DONE(dk_hotplug_devids(hotplug, DK_DEVICE_CLASS_DISK, &devids, &count, &error));
    CHECK(count == 0 && devids == NULL);
    DONE(dk_hotplug_add(hotplug, DK_DEVICE_CLASS_DISK, DISK, &replaced, &error));
    CHECK(replaced == NULL);
    DONE(dk_hotplug_devids(hotplug, DK_DEVICE_CLASS_DISK, &devids, &count, &error));
    CHECK(count == 1 && devids[0] == 51728);
    free(devids);
    DONE(dk_hotplug_configuration(hotplug, &configuration, &error));
    CONTAINS(configuration, "xvdb");
    free(configuration);
    DONE(dk_hotplug_check(hotplug, &error));
    /* Nobody else begins meanwhile, and nobody reads a template that is about to change. */
    dk_hotplug *other;
    dk_ctx_set_timeout(ctx, 50);
    EXPECT(DK_STATUS_BUSY, dk_hotplug_begin(ctx, 7, UUID, &other, &error));
    CHECK(other == NULL);
    dk_ctx_set_timeout(ctx, DK_TIMEOUT_DEFAULT_MS);
    plug(ctx);
    DONE(dk_hotplug_commit(hotplug, &error));
    has(ctx, DK_POLICY_TEMPLATE, "/srv/data.img", 1);
    has(ctx, DK_POLICY_LIVE, "/srv/data.img", 1);

    /* The same device again takes its own place. */
    DONE(dk_hotplug_begin(ctx, 7, NULL, &hotplug, &error));
    DONE(dk_hotplug_add(hotplug, DK_DEVICE_CLASS_DISK, "vdev=xvdb,format=raw,target=/srv/other.img", &replaced, &error));
    CONTAINS(replaced, "/srv/data.img");
    free(replaced);
    dk_hotplug_abort(hotplug);

    DONE(dk_hotplug_begin(ctx, 7, NULL, &hotplug, &error));
    EXPECT(DK_STATUS_NOT_FOUND, dk_hotplug_remove(hotplug, DK_DEVICE_CLASS_DISK, "xvdc", NULL, &error));
    EXPECT(DK_STATUS_NOT_FOUND, dk_hotplug_remove(hotplug, DK_DEVICE_CLASS_NIC, "0", NULL, &error));
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_hotplug_remove(hotplug, DK_DEVICE_CLASS_DISK, "sofa", NULL, &error));
    DONE(dk_hotplug_remove(hotplug, DK_DEVICE_CLASS_DISK, "xvdb", &removed, &error));
    CONTAINS(removed, "/srv/data.img");
    free(removed);
    unplug(ctx);
    DONE(dk_hotplug_commit(hotplug, &error));
    has(ctx, DK_POLICY_TEMPLATE, "xvdb", 0);
}

static void aborted(dk_ctx *ctx)
{
    dk_hotplug *hotplug;
    char *before = retrieved(ctx, DK_POLICY_TEMPLATE);
    DONE(dk_hotplug_begin(ctx, 7, NULL, &hotplug, &error));
    DONE(dk_hotplug_add(hotplug, DK_DEVICE_CLASS_DISK, DISK, NULL, &error));
    DONE(dk_hotplug_add(hotplug, DK_DEVICE_CLASS_NIC, "{\"devid\": 0, \"mac\": \"00:16:3e:00:00:01\"}", NULL, &error));
    EXPECT(DK_STATUS_INVALID_DATA, dk_hotplug_add(hotplug, DK_DEVICE_CLASS_DISK, "{\"pdev_path\": \"/x\"}", NULL, &error));
    EXPECT(DK_STATUS_INVALID_DATA, dk_hotplug_add(hotplug, DK_DEVICE_CLASS_DISK, "{", NULL, &error));
    EXPECT(DK_STATUS_INVALID_DATA, dk_hotplug_add(hotplug, DK_DEVICE_CLASS_DISK, "no=such,option", NULL, &error));
    dk_hotplug_abort(hotplug);
    char *after = retrieved(ctx, DK_POLICY_TEMPLATE);
    CHECK(strcmp(before, after) == 0);
    free(before);
    free(after);
}

/* The handle keeps what it needs: a context may go first. */
static void outlived(const char *templates)
{
    dk_ctx *ctx;
    dk_hotplug *hotplug;
    DONE(dk_ctx_open_in_process(&ctx, NODES, templates, &error));
    DONE(dk_hotplug_begin(ctx, 7, UUID, &hotplug, &error));
    dk_ctx_free(ctx);
    DONE(dk_hotplug_add(hotplug, DK_DEVICE_CLASS_DISK, DISK, NULL, &error));
    DONE(dk_hotplug_commit(hotplug, &error));
    DONE(dk_ctx_open_in_process(&ctx, NODES, templates, &error));
    has(ctx, DK_POLICY_TEMPLATE, "/srv/data.img", 1);
    DONE(dk_template_forget(ctx, 7, UUID, &error));
    EXPECT(DK_STATUS_NOT_FOUND, dk_template_forget(ctx, 7, UUID, &error));
    EXPECT(DK_STATUS_NOT_FOUND, dk_hotplug_begin(ctx, 7, UUID, &hotplug, &error));
    EXPECT(DK_STATUS_NOT_FOUND, dk_hotplug_begin(ctx, 9, NULL, &hotplug, &error));
    dk_ctx_free(ctx);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dk_ctx *ctx;
    DONE(dk_ctx_open_in_process(&ctx, NODES, argv[1], &error));
    DONE(dk_template_create(ctx, 7, UUID, TEMPLATE, &error));
    EXPECT(DK_STATUS_EXISTS, dk_template_create(ctx, 7, UUID, TEMPLATE, &error));
    EXPECT(DK_STATUS_INVALID_DATA, dk_template_create(ctx, 8, UUID, "nothing", &error));
    committed(ctx);
    aborted(ctx);
    dk_ctx_free(ctx);
    outlived(argv[1]);
    return 0;
}
