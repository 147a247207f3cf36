/* A toolstack in C, as libvirt's Xen driver might do it: it has a hypervisor of its own, and hands Domkeep callbacks to it.
 *
 *     toolstack save-and-restore HOST NAME    a domain of `domkeep simulate serve HOST`, saved and restored beside itself
 *     toolstack retrieve XENSTORE TEMPLATES   the configurations of a captured host: its nodes as `xenstore-ls -fp` prints them,
 *                                             and its directory of templates
 *
 * Built with: gcc toolstack.c $(pkg-config --cflags --libs domkeep)
 */
#include <domkeep.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_MS 60000

/* Tells of an error and frees it. */
static int failed(dk_error *error)
{
    fprintf(stderr, "%s: %s", dk_error_operation(error), dk_error_message(error));
    if (dk_error_cause(error))
        fprintf(stderr, ": %s", dk_error_cause(error));
    if (dk_error_details(error))
        fprintf(stderr, "\n%s", dk_error_details(error));
    fputc('\n', stderr);
    dk_error_free(error);
    return 1;
}

/* The driver's own hypervisor. Here it is a simulated host; libvirt has its libxl context in this place. */
struct driver {
    dk_control *hypervisor;
};

/* Domkeep is told in the same words how a call of the driver's ended. */
static int ended(dk_status status, dk_error *error, dk_call *call)
{
    if (error) {
        snprintf(call->message, call->message_size, "%s", dk_error_message(error));
        dk_error_free(error);
    }
    return status;
}

/* The callbacks get a domid: that it is still the same domain has been looked at. */
static int with_domain(struct driver *driver, uint32_t domid, dk_domain *domain, dk_call *call)
{
    dk_error *error;
    dk_status status = dk_control_find(driver->hypervisor, domid, (uint32_t)call->left_ms, domain, &error);
    return ended(status, error, call);
}

static int driver_find(void *user, uint32_t domid, dk_domain *domain, dk_call *call)
{
    return with_domain(user, domid, domain, call);
}

static int driver_list(void *user, void (*tell)(void *, const dk_domain *), void *teller, dk_call *call)
{
    struct driver *driver = user;
    dk_domain *domains;
    size_t count;
    dk_error *error;
    dk_status status = dk_control_list(driver->hypervisor, (uint32_t)call->left_ms, &domains, &count, &error);
    for (size_t i = 0; status == DK_STATUS_OK && i < count; i++)
        tell(teller, &domains[i]);
    free(domains);
    return ended(status, error, call);
}

static int driver_suspend(void *user, uint32_t domid, int fd, bool live, dk_call *call)
{
    struct driver *driver = user;
    dk_domain domain;
    dk_error *error;
    int status = with_domain(driver, domid, &domain, call);
    if (status)
        return status;
    printf("suspend domain %u%s\n", domid, fd < 0 ? "" : " and write its memory");
    status = dk_control_suspend(driver->hypervisor, &domain, fd, live, (uint32_t)call->left_ms, call->cancel, &error);
    return ended(status, error, call);
}

static int driver_resume(void *user, uint32_t domid, dk_call *call)
{
    struct driver *driver = user;
    dk_domain domain;
    dk_error *error;
    int status = with_domain(driver, domid, &domain, call);
    if (status)
        return status;
    printf("resume domain %u\n", domid);
    status = dk_control_resume(driver->hypervisor, &domain, (uint32_t)call->left_ms, &error);
    return ended(status, error, call);
}

static int driver_build(void *user, const char *configuration, int fd, uint32_t *domid, dk_call *call)
{
    struct driver *driver = user;
    dk_domain built;
    dk_error *error;
    dk_status status = dk_control_build(driver->hypervisor, configuration, fd, (uint32_t)call->left_ms, call->cancel,
                                        &built, &error);
    if (status == DK_STATUS_OK) {
        *domid = built.domid;
        printf("build domain %u, %s\n", built.domid, built.name);
    }
    return ended(status, error, call);
}

/* Pausing, unpausing and destroying are alike. */
static int change(struct driver *driver, uint32_t domid, dk_call *call, const char *what,
                  dk_status (*act)(const dk_control *, const dk_domain *, uint32_t, dk_error **))
{
    dk_domain domain;
    dk_error *error;
    int status = with_domain(driver, domid, &domain, call);
    if (status)
        return status;
    printf("%s domain %u\n", what, domid);
    status = act(driver->hypervisor, &domain, (uint32_t)call->left_ms, &error);
    return ended(status, error, call);
}

static int driver_pause(void *user, uint32_t domid, dk_call *call)
{
    return change(user, domid, call, "pause", dk_control_pause);
}

static int driver_unpause(void *user, uint32_t domid, dk_call *call)
{
    return change(user, domid, call, "unpause", dk_control_unpause);
}

static int driver_destroy(void *user, uint32_t domid, dk_call *call)
{
    return change(user, domid, call, "destroy", dk_control_destroy);
}

static int driver_rename(void *user, uint32_t domid, const char *name, dk_call *call)
{
    struct driver *driver = user;
    dk_domain domain;
    dk_error *error;
    int status = with_domain(driver, domid, &domain, call);
    if (status)
        return status;
    printf("rename domain %u to %s\n", domid, name);
    status = dk_control_rename(driver->hypervisor, &domain, name, (uint32_t)call->left_ms, &error);
    return ended(status, error, call);
}

static const dk_control_ops driver_ops = {
    .size = sizeof(dk_control_ops),
    .find = driver_find,
    .list = driver_list,
    .suspend = driver_suspend,
    .resume = driver_resume,
    .build = driver_build,
    .pause = driver_pause,
    .unpause = driver_unpause,
    .destroy = driver_destroy,
    .rename = driver_rename,
};

/* What is going on, a line a phase. */
static bool progress(void *user, const dk_progress *told)
{
    char *last = user;
    if (strcmp(last, told->phase) != 0) {
        snprintf(last, 32, "%s", told->phase);
        printf("[%s]\n", told->phase);
    }
    return true; /* false would cancel */
}

/* The domain of this name. */
static int named(dk_control *control, const char *name, dk_domain *found)
{
    dk_domain *domains;
    size_t count;
    dk_error *error;
    if (dk_control_list(control, TIMEOUT_MS, &domains, &count, &error))
        return failed(error);
    found->domid = 0;
    for (size_t i = 0; i < count; i++)
        if (strcmp(domains[i].name, name) == 0)
            *found = domains[i];
    free(domains);
    if (!found->domid)
        fprintf(stderr, "no domain %s\n", name);
    return !found->domid;
}

static void uuid_text(const dk_domain *domain, char text[37])
{
    for (int i = 0, at = 0; i < 16; i++) {
        at += sprintf(text + at, "%02x", domain->uuid[i]);
        if (i == 3 || i == 5 || i == 7 || i == 9)
            text[at++] = '-';
    }
    text[36] = '\0';
}

/* Saves a running domain. Its memory goes to a descriptor of ours, its disk is copied while it is suspended. */
static char *save(dk_ctx *ctx, dk_control *control, const dk_domain *domain, const char *host)
{
    char request[4096], uuid[37], last[32] = "", *manifest;
    dk_observer observer = { .size = sizeof observer, .progress = progress, .user = last };
    dk_error *error;
    uuid_text(domain, uuid);
    snprintf(request, sizeof request, "%s/web.memory", host);
    int fds[] = { open(request, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) };
    if (fds[0] < 0) {
        perror(request);
        return NULL;
    }
    snprintf(request, sizeof request,
             "{ \"domain\": { \"domid\": %u, \"uuid\": \"%s\" },"
             "  \"memory\": { \"target\": { \"fd\": 0 }, \"format\": { \"stream\": { \"side_digest\": null } } },"
             "  \"disks\": [{ \"vdev\": \"xvda\", \"action\": { \"copy\": {"
             "    \"destination\": { \"path\": \"%s/root-saved.img\" }, \"method\": \"reflink_or_sparse\", \"digest\": true } } }],"
             "  \"journal\": { \"path\": \"%s/web.journal\" } }",
             domain->domid, uuid, host, host);
    if (dk_snapshot_save(ctx, control, request, fds, 1, &observer, &manifest, &error))
        failed(error); /* the manifest may be there all the same */
    close(fds[0]);
    return manifest;
}

/* What is frozen is never written: a guest that is restored beside the first gets a copy of it. */
static int copy(const char *host, const char *from, const char *to)
{
    char buffer[65536], path[4096];
    size_t octets;
    int failed = 1;
    snprintf(path, sizeof path, "%s/%s", host, from);
    FILE *in = fopen(path, "r");
    snprintf(path, sizeof path, "%s/%s", host, to);
    FILE *out = fopen(path, "wx");
    if (in && out) {
        while ((octets = fread(buffer, 1, sizeof buffer, in)) > 0 && fwrite(buffer, 1, octets, out) == octets)
            ;
        failed = ferror(in) || ferror(out);
    }
    if (in)
        fclose(in);
    if (out && fclose(out) != 0)
        failed = 1;
    if (failed)
        perror(path);
    return failed;
}

/* Brings it back under another name, on a copy of its disk. */
static int restore(dk_ctx *ctx, dk_control *control, const char *manifest, const char *host)
{
    char request[4096], last[32] = "", *restored;
    dk_observer observer = { .size = sizeof observer, .progress = progress, .user = last };
    dk_error *error;
    snprintf(request, sizeof request, "%s/web.memory", host);
    int fds[] = { open(request, O_RDONLY | O_CLOEXEC) };
    if (dk_snapshot_verify(manifest, DK_DEPTH_FULL, fds[0], -1, NULL, NULL, &error)) {
        close(fds[0]);
        return failed(error);
    }
    puts("what was saved is as it was saved");
    if (copy(host, "root-saved.img", "root-again.img")) {
        close(fds[0]);
        return 1;
    }
    snprintf(request, sizeof request,
             "{ \"memory\": { \"fd\": 0 },"
             "  \"identity\": { \"name\": \"web-again\", \"uuid\": { \"new\": \"0c7a63d1-4f1e-4a51-8b6d-7d1c2a90f3b4\" } },"
             "  \"disks\": { \"xvda\": { \"image\": { \"path\": \"%s/root-again.img\", \"format\": \"raw\", \"verify\": true } } } }",
             host);
    dk_status status = dk_snapshot_restore(ctx, control, manifest, request, fds, 1, &observer, &restored, &error);
    close(fds[0]);
    free(restored);
    return status ? failed(error) : 0;
}

static int save_and_restore(const char *host, const char *name)
{
    struct driver driver = { 0 };
    char xenstore[4096], templates[4096], socket[4096], *manifest = NULL;
    dk_control *control = NULL;
    dk_ctx *ctx = NULL;
    dk_domain domain, again;
    dk_error *error;
    int end = 1;
    snprintf(xenstore, sizeof xenstore, "%s/xenstore", host);
    snprintf(templates, sizeof templates, "userdata:%s/templates", host);
    snprintf(socket, sizeof socket, "%s/host", host);
    if (dk_ctx_open(&ctx, xenstore, templates, &error) || dk_control_simulated(&driver.hypervisor, socket, &error) ||
        dk_control_new(&control, &driver_ops, &driver, &error)) {
        failed(error);
    } else if (named(control, name, &domain) == 0 && (manifest = save(ctx, control, &domain, host)) != NULL &&
               restore(ctx, control, manifest, host) == 0 && named(control, "web-again", &again) == 0) {
        printf("domain %u was saved, and domain %u goes on from there\n", domain.domid, again.domid);
        end = 0;
    }
    free(manifest);
    dk_control_free(control);
    dk_control_free(driver.hypervisor);
    dk_ctx_free(ctx);
    return end;
}

/* The configurations of a captured host, from a Xenstore inside this process. */
static int retrieve(const char *nodes, const char *directory)
{
    char templates[4096], *contents = NULL, *configuration, *report;
    uint32_t *domids;
    size_t count, length = 0;
    dk_ctx *ctx;
    dk_error *error;
    FILE *file = fopen(nodes, "r");
    ssize_t got = file ? getdelim(&contents, &length, '\0', file) : -1;
    if (file)
        fclose(file);
    if (got < 0) {
        fprintf(stderr, "%s: %s\n", nodes, strerror(errno));
        free(contents);
        return 1;
    }
    snprintf(templates, sizeof templates, "userdata:%s", directory);
    dk_status status = dk_ctx_open_in_process(&ctx, contents, templates, &error);
    free(contents);
    if (status)
        return failed(error);
    if (dk_list_domains(ctx, &domids, &count, &error)) {
        dk_ctx_free(ctx);
        return failed(error);
    }
    for (size_t i = 0; i < count && status == DK_STATUS_OK; i++) {
        status = dk_retrieve_domain_configuration(ctx, domids[i], DK_POLICY_LIVE, &configuration, &report, &error);
        if (status)
            failed(error);
        else
            printf("%s\n", configuration);
        free(configuration);
        free(report);
    }
    free(domids);
    dk_ctx_free(ctx);
    return status != DK_STATUS_OK;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "save-and-restore") == 0)
        return save_and_restore(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "retrieve") == 0)
        return retrieve(argv[2], argv[3]);
    fprintf(stderr, "usage: %s save-and-restore HOST NAME | retrieve XENSTORE TEMPLATES\n", argv[0]);
    return 2;
}
