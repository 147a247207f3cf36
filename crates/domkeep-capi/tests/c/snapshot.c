/* snapshot HOST NAME: snapshots through callbacks that do what they are told to, and through some that do not.
 *
 * HOST is the directory of a simulated host, NAME its running domain with the raw disks xvda and xvdb. */
#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_MS 60000

/* What stands for the caller's hypervisor, and what it is to do wrong. */
static struct {
    dk_control *real;
    enum { NOTHING, REFUSES, LIES, BREAKS, SAYS_NOTHING, FINDS_NONSENSE, FINDS_ANOTHER, WAITS, DIES } fault;
    dk_cancel *cancel;
    atomic_bool waits;
    int freed;
} stand;

static int done(dk_status status, dk_error *error, dk_call *call)
{
    if (error)
        snprintf(call->message, call->message_size, "%s", dk_error_message(error));
    dk_error_free(error);
    return status;
}

static int find(void *user, uint32_t domid, dk_domain *domain, dk_call *call)
{
    CHECK(user == &stand && call->left_ms > 0);
    dk_error *error;
    dk_status status = dk_control_find(stand.real, domid, TIMEOUT_MS, domain, &error);
    if (stand.fault == FINDS_NONSENSE)
        domain->state = 99;
    if (stand.fault == FINDS_ANOTHER)
        domain->domid++;
    return done(status, error, call);
}

static int list(void *user, void (*tell)(void *, const dk_domain *), void *teller, dk_call *call)
{
    (void)user;
    dk_domain *domains;
    size_t count;
    dk_error *error;
    dk_status status = dk_control_list(stand.real, TIMEOUT_MS, &domains, &count, &error);
    for (size_t i = 0; i < count; i++)
        tell(teller, &domains[i]);
    free(domains);
    return done(status, error, call);
}

static dk_domain of(uint32_t domid)
{
    dk_domain domain;
    DONE(dk_control_find(stand.real, domid, TIMEOUT_MS, &domain, &error));
    return domain;
}

static int suspend(void *user, uint32_t domid, int fd, bool live, dk_call *call)
{
    (void)user;
    dk_domain domain = of(domid);
    dk_error *error;
    switch (stand.fault) {
    case REFUSES:
        snprintf(call->message, call->message_size, "the guest is busy");
        return DK_STATUS_FAILED;
    case SAYS_NOTHING:
        memset(call->message, 'x', call->message_size);
        return -1234;
    case LIES:
        return DK_STATUS_OK;
    case BREAKS:
        /* Suspended, and then the stream ends. */
        DONE(dk_control_suspend(stand.real, &domain, -1, false, TIMEOUT_MS, NULL, &error));
        call->errnum = 28; /* ENOSPC */
        snprintf(call->message, call->message_size, "the export web-3 has gone");
        return DK_STATUS_IO;
    case WAITS: {
        /* Until it is cancelled, by another thread or by the observer. */
        struct pollfd cancelled = { .fd = call->cancel_fd, .events = POLLIN };
        stand.waits = true;
        CHECK(poll(&cancelled, 1, TIMEOUT_MS) == 1);
        EXPECT(DK_STATUS_CANCELLED, dk_control_suspend(stand.real, &domain, fd, live, TIMEOUT_MS, call->cancel, &error));
        return DK_STATUS_CANCELLED;
    }
    default:
        break;
    }
    dk_status status = dk_control_suspend(stand.real, &domain, fd, live, TIMEOUT_MS, call->cancel, &error);
    return done(status, error, call);
}

#define CHANGE(name)                                                                                 \
    static int name##_it(void *user, uint32_t domid, dk_call *call)                                  \
    {                                                                                                \
        (void)user;                                                                                  \
        dk_domain domain = of(domid);                                                                \
        dk_error *error;                                                                             \
        if (stand.fault == DIES)                                                                     \
            raise(SIGKILL);                                                                          \
        dk_status status = dk_control_##name(stand.real, &domain, TIMEOUT_MS, &error);               \
        return done(status, error, call);                                                            \
    }

CHANGE(resume)
CHANGE(pause)
CHANGE(unpause)
CHANGE(destroy)

static int build(void *user, const char *configuration, int fd, uint32_t *domid, dk_call *call)
{
    (void)user;
    dk_domain built;
    dk_error *error;
    dk_status status = dk_control_build(stand.real, configuration, fd, TIMEOUT_MS, call->cancel, &built, &error);
    if (stand.fault == LIES)
        built.domid = 4000;
    if (stand.fault == BREAKS) {
        /* It is there, and the driver does not know it. */
        snprintf(call->message, call->message_size, "lost it");
        return DK_STATUS_FAILED;
    }
    *domid = built.domid;
    return done(status, error, call);
}

static int rename_to(void *user, uint32_t domid, const char *name, dk_call *call)
{
    (void)user;
    dk_domain domain = of(domid);
    dk_error *error;
    dk_status status = dk_control_rename(stand.real, &domain, name, TIMEOUT_MS, &error);
    return done(status, error, call);
}

static void freed(void *user)
{
    CHECK(user == &stand);
    stand.freed++;
}

static bool never_mind(void *user, const dk_progress *told)
{
    CHECK(told->phase && *told->phase);
    return strcmp(told->phase, user) != 0;
}

static dk_ctx *ctx;
static dk_control *control;
static const char *host;
static dk_domain domain;

/* A request that saves the memory to a new file, and copies the disks; with more members. */
static const char *saving_with(const char *name, const char *more)
{
    static char request[4096];
    char uuid[37];
    int at = 0;
    for (int i = 0; i < 16; i++) {
        at += sprintf(uuid + at, "%02x", domain.uuid[i]);
        if (i == 3 || i == 5 || i == 7 || i == 9)
            at += sprintf(uuid + at, "-");
    }
    snprintf(request, sizeof request,
             "{\"domain\": {\"domid\": %u, \"uuid\": \"%s\"},"
             " \"memory\": {\"target\": {\"path\": \"%s/%s.memory\"}, \"format\": \"mapped\"},"
             " \"disks\": [{\"vdev\": \"xvda\", \"action\": {\"copy\": {\"destination\": {\"path\": \"%s/%s-a\"},"
             "   \"method\": \"sparse\", \"digest\": true}}},"
             "  {\"vdev\": \"xvdb\", \"action\": {\"copy\": {\"destination\": {\"path\": \"%s/%s-b\"},"
             "   \"method\": \"sparse\", \"digest\": true}}}]%s}",
             domain.domid, uuid, host, name, host, name, host, name, more);
    return request;
}

static const char *saving(const char *name)
{
    return saving_with(name, "");
}

static const char *journaled(const char *name)
{
    char more[2048];
    snprintf(more, sizeof more, ", \"journal\": {\"path\": \"%s/%s.journal\"}", host, name);
    return saving_with(name, more);
}

static const char *restoring(const char *name, const char *as)
{
    static char request[4096];
    snprintf(request, sizeof request,
             "{\"verify\": \"full\", \"identity\": {\"name\": \"%s\", \"uuid\": {\"new\": \"0c7a63d1-4f1e-4a51-8b6d-7d1c2a90f3%02x\"}},"
             " \"disks\": {\"xvda\": {\"image\": {\"path\": \"%s/%s-a\", \"format\": \"raw\", \"verify\": true}},"
             "  \"xvdb\": {\"image\": {\"path\": \"%s/%s-b\", \"format\": \"raw\", \"verify\": true}}}}",
             as, *as, host, name, host, name);
    return request;
}

static int exists(const char *name, const char *end)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", host, name, end);
    return access(path, F_OK) == 0;
}

static size_t domains(void)
{
    dk_domain *all;
    size_t count;
    DONE(dk_control_list(stand.real, TIMEOUT_MS, &all, &count, &error));
    free(all);
    return count;
}

static void callbacks_that_fail(void)
{
    static const struct {
        int fault;
        dk_status status;
        const char *says;
    } faults[] = {
        { REFUSES, DK_STATUS_FAILED, "the guest is busy" },
        { SAYS_NOTHING, DK_STATUS_FAILED, "returned -1234" },
        { LIES, DK_STATUS_FAILED, "it was reported as suspended, and is not" },
        { BREAKS, DK_STATUS_IO, "the export web-3 has gone: No space left on device" },
        { FINDS_NONSENSE, DK_STATUS_UNREACHABLE, "99 is no dk_domain_state" },
        { FINDS_ANOTHER, DK_STATUS_UNREACHABLE, "id is" },
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        char *manifest;
        dk_error *error;
        stand.fault = faults[i].fault;
        dk_status status = dk_snapshot_save(ctx, control, saving("failed"), NULL, 0, NULL, &manifest, &error);
        stand.fault = NOTHING;
        char all[8192];
        snprintf(all, sizeof all, "%s: %s", TEXT(dk_error_message(error)), TEXT(dk_error_cause(error)));
        CONTAINS(all, faults[i].says);
        if (status != faults[i].status) {
            fprintf(stderr, "fault %zu: %d: %s\n", i, status, all);
            exit(1);
        }
        CHECK(dk_error_domid(error) == (int)domain.domid);
        dk_error_free(error);
        /* All of it was undone, and the guest goes on. */
        CHECK(manifest == NULL && !exists("failed", ".memory") && !exists("failed", "-a"));
        CHECK(of(domain.domid).state == DK_DOMAIN_STATE_RUNNING);
    }
}

/* Once the call is under way. */
static void *cancels(void *unused)
{
    (void)unused;
    while (!stand.waits)
        usleep(1000);
    dk_cancel_now(stand.cancel);
    return NULL;
}

static void cancelled(void)
{
    char *manifest;
    char phase[] = "memory";
    DONE(dk_cancel_new(&stand.cancel, &error));
    dk_observer observer = { .size = sizeof observer, .progress = never_mind, .user = phase, .cancel = stand.cancel };
    EXPECT(DK_STATUS_CANCELLED,
           dk_snapshot_save(ctx, control, saving("cancelled"), NULL, 0, &observer, &manifest, &error));
    CHECK(manifest == NULL && !exists("cancelled", ".memory"));
    CHECK(of(domain.domid).state == DK_DOMAIN_STATE_RUNNING);

    /* That was this call alone: the same cancel serves others. */
    dk_observer other = { .size = sizeof other, .cancel = stand.cancel };
    DONE(dk_snapshot_save(ctx, control, saving("goes-on"), NULL, 0, &other, &manifest, &error));
    free(manifest);

    pthread_t thread;
    stand.fault = WAITS;
    CHECK(pthread_create(&thread, NULL, cancels, NULL) == 0);
    EXPECT(DK_STATUS_CANCELLED,
           dk_snapshot_save(ctx, control, saving("cancelled"), NULL, 0, &other, &manifest, &error));
    CHECK(pthread_join(thread, NULL) == 0);
    stand.fault = NOTHING;
    CHECK(manifest == NULL && !exists("cancelled", ".memory"));
    CHECK(of(domain.domid).state == DK_DOMAIN_STATE_RUNNING);
    EXPECT(DK_STATUS_CANCELLED,
           dk_snapshot_save(ctx, control, saving("cancelled"), NULL, 0, &other, &manifest, &error));
    dk_cancel_free(stand.cancel);

    const char *late =
        saving_with("late", ", \"deadlines\": {\"suspend_ms\": 60000, \"disks_ms\": 30000, \"total_ms\": 1}");
    EXPECT(DK_STATUS_TIMED_OUT, dk_snapshot_save(ctx, control, late, NULL, 0, NULL, &manifest, &error));
    CHECK(manifest == NULL && !exists("late", ".memory"));
    dk_observer wrong = { .size = 1 };
    EXPECT(DK_STATUS_INVALID_ARGUMENT,
           dk_snapshot_save(ctx, control, saving("cancelled"), NULL, 0, &wrong, &manifest, &error));
}

static void requests_that_are_wrong(void)
{
    char *text;
    dk_error *error;
    CHECK(dk_snapshot_plan_save(ctx, control, "{\"domain\": {\"domid\": 1, \"uuid\": \"" UUID "\"}, \"colour\": 1}", NULL, 0,
                                &text, &error) == DK_STATUS_INVALID_DATA);
    CONTAINS(dk_error_message(error), "colour");
    CHECK(dk_error_path(error) != NULL && text == NULL);
    dk_error_free(error);
    CHECK(dk_snapshot_plan_save(ctx, control, "{\"domain\": {\"domid\": 999, \"uuid\": \"" UUID "\"}}", NULL, 0, &text,
                                &error) == DK_STATUS_REFUSED);
    CONTAINS(dk_error_details(error), "999");
    dk_error_free(error);
    EXPECT(DK_STATUS_INVALID_DATA, dk_snapshot_verify("{}", DK_DEPTH_FULL, -1, -1, NULL, &text, &error));
    EXPECT(DK_STATUS_INVALID_DATA,
           dk_snapshot_plan_restore(ctx, control, "{}", "{\"snapshot\": \"\"}", NULL, 0, &text, &error));
    EXPECT(DK_STATUS_INVALID_DATA, dk_snapshot_plan_restore(ctx, control, "{}", "[]", NULL, 0, &text, &error));
    char journal[4096];
    snprintf(journal, sizeof journal, "%s/no-journal", host);
    EXPECT(DK_STATUS_IO, dk_snapshot_recover(ctx, control, journal, NULL, &text, NULL, &error));
    CHECK(text == NULL);
    FILE *file = fopen(journal, "w");
    CHECK(file && fputs("not one\nat all\n", file) >= 0 && fclose(file) == 0);
    EXPECT(DK_STATUS_INVALID_DATA, dk_snapshot_recover(ctx, control, journal, NULL, &text, NULL, &error));
}

static void copied(const char *from, const char *to)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", host, from);
    FILE *in = fopen(path, "r");
    snprintf(path, sizeof path, "%s/%s", host, to);
    FILE *out = fopen(path, "w");
    CHECK(in && out);
    for (int octet; (octet = fgetc(in)) != EOF;)
        CHECK(fputc(octet, out) != EOF);
    CHECK(fclose(in) == 0 && fclose(out) == 0);
}

static void saved_and_restored(void)
{
    char *plan, *manifest, *report, *restored, path[4096];
    DONE(dk_snapshot_plan_save(ctx, control, saving("saved"), NULL, 0, &plan, &error));
    CONTAINS(plan, "saved.memory");
    CHECK(!exists("saved", ".memory"));
    free(plan);
    DONE(dk_snapshot_save(ctx, control, saving("saved"), NULL, 0, NULL, &manifest, &error));
    CHECK(of(domain.domid).state == DK_DOMAIN_STATE_RUNNING);
    DONE(dk_snapshot_verify(manifest, DK_DEPTH_FULL, -1, -1, NULL, &report, &error));
    CONTAINS(report, "\"checked\"");
    free(report);

    /* What is frozen is not written: a new guest gets a copy of it. */
    copied("saved-a", "new-a");
    copied("saved-b", "new-b");
    copied("saved-a", "late-a");
    copied("saved-b", "late-b");

    /* A build that loses its domain leaves none, and one that names another domain does not pass. */
    size_t before = domains();
    stand.fault = BREAKS;
    EXPECT(DK_STATUS_FAILED,
           dk_snapshot_restore(ctx, control, manifest, restoring("new", "lost"), NULL, 0, NULL, &restored, &error));
    stand.fault = LIES;
    EXPECT(DK_STATUS_FAILED,
           dk_snapshot_restore(ctx, control, manifest, restoring("new", "lied"), NULL, 0, NULL, &restored, &error));
    stand.fault = NOTHING;
    CHECK(restored == NULL && domains() == before);

    DONE(dk_snapshot_plan_restore(ctx, control, manifest, restoring("new", "again"), NULL, 0, &plan, &error));
    free(plan);
    DONE(dk_snapshot_restore(ctx, control, manifest, restoring("new", "again"), NULL, 0, NULL, &restored, &error));
    CONTAINS(restored, "\"name\":\"again\"");
    free(restored);
    CHECK(domains() == before + 1);

    /* One octet that is not as it was saved. */
    snprintf(path, sizeof path, "%s/saved.memory", host);
    FILE *memory = fopen(path, "r+");
    CHECK(memory && fseek(memory, 1 << 20, SEEK_SET) == 0);
    int octet = fgetc(memory);
    CHECK(fseek(memory, 1 << 20, SEEK_SET) == 0 && fputc(octet ^ 1, memory) != EOF && fclose(memory) == 0);
    dk_error *error;
    CHECK(dk_snapshot_verify(manifest, DK_DEPTH_FULL, -1, -1, NULL, &report, &error) == DK_STATUS_DIFFERENT);
    CHECK(report == NULL);
    CONTAINS(dk_error_details(error), "[");
    dk_error_free(error);
    dk_status status =
        dk_snapshot_restore(ctx, control, manifest, restoring("late", "differs"), NULL, 0, NULL, &restored, &error);
    CONTAINS(dk_error_message(error), "what was saved is not what is there");
    CHECK(status == DK_STATUS_DIFFERENT);
    CONTAINS(dk_error_details(error), "\"reasons\":[\"");
    dk_error_free(error);
    CHECK(restored == NULL && domains() == before + 1);
    free(manifest);
}

/* Another process saves, and is killed when it lets the guest go on: the snapshot is whole, and only the journal tells. */
static void recovered(char *program, char *name)
{
    extern char **environ;
    char journal[4096], die[] = "die", *const arguments[] = { program, (char *)host, name, die, NULL };
    char *recovered, *manifest, *report;
    pid_t child;
    int ended;
    CHECK(posix_spawn(&child, program, NULL, NULL, arguments, environ) == 0);
    CHECK(waitpid(child, &ended, 0) == child && WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
    CHECK(of(domain.domid).state == DK_DOMAIN_STATE_SUSPENDED);

    snprintf(journal, sizeof journal, "%s/killed.journal", host);
    DONE(dk_snapshot_recover(ctx, control, journal, NULL, &recovered, &manifest, &error));
    CONTAINS(recovered, "\"recovered\":\"saved\"");
    free(recovered);
    CHECK(of(domain.domid).state == DK_DOMAIN_STATE_RUNNING);
    DONE(dk_snapshot_verify(manifest, DK_DEPTH_FULL, -1, -1, NULL, &report, &error));
    free(report);
    free(manifest);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3 || (argc == 4 && strcmp(argv[3], "die") == 0));
    host = argv[1];
    char xenstore[4096], templates[4096], socket[4096];
    snprintf(xenstore, sizeof xenstore, "%s/xenstore", host);
    snprintf(templates, sizeof templates, "userdata:%s/templates", host);
    snprintf(socket, sizeof socket, "%s/host", host);
    DONE(dk_ctx_open(&ctx, xenstore, templates, &error));
    DONE(dk_control_simulated(&stand.real, socket, &error));
    const dk_control_ops ops = {
        .size = sizeof ops, .find = find, .list = list, .suspend = suspend, .resume = resume_it, .build = build,
        .pause = pause_it, .unpause = unpause_it, .destroy = destroy_it, .rename = rename_to, .free = freed,
    };
    DONE(dk_control_new(&control, &ops, &stand, &error));

    dk_domain *all;
    size_t count;
    DONE(dk_control_list(control, TIMEOUT_MS, &all, &count, &error));
    CHECK(count == 1 && strcmp(all[0].name, argv[2]) == 0);
    domain = all[0];
    free(all);
    if (argc == 4) {
        char *manifest;
        stand.fault = DIES;
        dk_snapshot_save(ctx, control, journaled("killed"), NULL, 0, NULL, &manifest, NULL);
        return 1;
    }
    dk_domain other = domain;
    other.uuid[0] ^= 1;
    EXPECT(DK_STATUS_REFUSED, dk_control_suspend(control, &other, -1, false, TIMEOUT_MS, NULL, &error));
    EXPECT(DK_STATUS_REFUSED, dk_control_resume(control, &domain, TIMEOUT_MS, &error));
    other.domid = 0;
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_control_destroy(control, &other, TIMEOUT_MS, &error));

    requests_that_are_wrong();
    callbacks_that_fail();
    cancelled();
    recovered(argv[0], argv[2]);
    saved_and_restored();

    dk_control_free(control);
    CHECK(stand.freed == 1);
    dk_control_free(stand.real);
    dk_ctx_free(ctx);
    return 0;
}
