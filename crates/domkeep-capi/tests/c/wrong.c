/* Wrong arguments are errors that name the argument, and leave nothing that cannot be freed. */
#include "check.h"

#include <fcntl.h>
#include <unistd.h>

#define WRONG(call) EXPECT(DK_STATUS_INVALID_ARGUMENT, call)

static void says(dk_status status, dk_error *error, const char *words)
{
    CHECK(status == DK_STATUS_INVALID_ARGUMENT);
    CONTAINS(dk_error_message(error), words);
    CHECK(dk_error_cause(error) == NULL && dk_error_domid(error) == -1);
    dk_error_free(error);
}

static void null_pointers(dk_ctx *ctx)
{
    dk_ctx *none = NULL;
    char *text = (char *)1;
    uint8_t *octets;
    uint32_t *domids, domid;
    size_t count;
    dk_hotplug *hotplug;
    dk_control *control;
    dk_cancel *cancel;
    dk_domain domain;

    WRONG(dk_ctx_open(NULL, NULL, NULL, &error));
    WRONG(dk_ctx_open_in_process(NULL, NULL, NULL, &error));
    WRONG(dk_ctx_serve(NULL, "socket", &error));
    WRONG(dk_ctx_serve(ctx, NULL, &error));
    WRONG(dk_ctx_set_hypervisor(NULL, DK_HYPERVISOR_NEVER, &error));
    WRONG(dk_ctx_set_guardian(NULL, NULL, 0, &error));
    WRONG(dk_ctx_set_guardian(ctx, NULL, 1, &error));
    WRONG(dk_retrieve_domain_configuration(none, 7, DK_POLICY_LIVE, &text, NULL, &error));
    CHECK(text == NULL);
    WRONG(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_LIVE, NULL, NULL, &error));
    text = (char *)1;
    WRONG(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_LIVE, NULL, &text, &error));
    CHECK(text == NULL);
    WRONG(dk_list_domains(ctx, NULL, &count, &error));
    WRONG(dk_list_domains(ctx, &domids, NULL, &error));
    WRONG(dk_list_domains(NULL, &domids, &count, &error));
    WRONG(dk_list_domain_configurations(ctx, DK_POLICY_LIVE, NULL, &error));
    WRONG(dk_find_domain(ctx, NULL, &domid, &error));
    WRONG(dk_find_domain(ctx, "web", NULL, &error));
    WRONG(dk_config_check(NULL, &text, &error));
    WRONG(dk_config_check("{}", NULL, &error));
    WRONG(dk_config_print(NULL, DK_LAYOUT_YAJL, &text, &error));
    WRONG(dk_config_diff("{}", NULL, &text, &error));
    WRONG(dk_xenstore_read(ctx, NULL, &octets, &count, &error));
    WRONG(dk_xenstore_read(ctx, "/tool", &octets, NULL, &error));
    WRONG(dk_xenstore_change(ctx, NULL, 1, &error));
    WRONG(dk_template_create(ctx, 7, NULL, "{}", &error));
    WRONG(dk_template_create(ctx, 7, UUID, NULL, &error));
    WRONG(dk_template_forget(ctx, 7, NULL, &error));
    WRONG(dk_hotplug_begin(ctx, 7, NULL, NULL, &error));
    WRONG(dk_hotplug_begin(NULL, 7, NULL, &hotplug, &error));
    CHECK(hotplug == NULL);
    WRONG(dk_hotplug_add(NULL, DK_DEVICE_CLASS_DISK, "{}", NULL, &error));
    WRONG(dk_hotplug_remove(NULL, DK_DEVICE_CLASS_DISK, "xvda", NULL, &error));
    WRONG(dk_hotplug_configuration(NULL, &text, &error));
    WRONG(dk_hotplug_devids(NULL, DK_DEVICE_CLASS_DISK, &domids, &count, &error));
    WRONG(dk_hotplug_check(NULL, &error));
    WRONG(dk_hotplug_commit(NULL, &error));
    WRONG(dk_attach_device(ctx, 7, DK_DEVICE_CLASS_DISK, NULL, NULL, NULL, &error));
    WRONG(dk_detach_device(ctx, 7, DK_DEVICE_CLASS_DISK, NULL, NULL, NULL, &error));
    WRONG(dk_repair_devices(ctx, 7, false, NULL, NULL, &error));
    WRONG(dk_cancel_new(NULL, &error));
    WRONG(dk_control_new(&control, NULL, NULL, &error));
    WRONG(dk_control_simulated(&control, NULL, &error));
    WRONG(dk_control_find(NULL, 7, 100, &domain, &error));
    WRONG(dk_control_suspend(NULL, &domain, -1, false, 100, NULL, &error));
    WRONG(dk_snapshot_plan_save(ctx, NULL, "{}", NULL, 0, NULL, &error));
    WRONG(dk_snapshot_save(ctx, NULL, NULL, NULL, 0, NULL, &text, &error));
    WRONG(dk_snapshot_verify(NULL, DK_DEPTH_FULL, -1, -1, NULL, NULL, &error));
    WRONG(dk_snapshot_restore(ctx, NULL, NULL, NULL, NULL, 0, NULL, &text, &error));
    WRONG(dk_snapshot_recover(ctx, NULL, NULL, NULL, &text, NULL, &error));
    WRONG(dk_stream_decode(NULL, 1, &text, &error));
    WRONG(dk_stream_encode(NULL, &octets, &count, &error));

    /* Nobody to tell is no reason to fail otherwise. */
    CHECK(dk_find_domain(ctx, NULL, &domid, NULL) == DK_STATUS_INVALID_ARGUMENT);
    DONE(dk_cancel_new(&cancel, &error));
    dk_cancel_free(cancel);

    dk_ctx_set_timeout(NULL, 1);
    dk_cancel_now(NULL);
    dk_ctx_free(NULL);
    dk_hotplug_abort(NULL);
    dk_control_free(NULL);
    dk_cancel_free(NULL);
    dk_error_free(NULL);
    CHECK(dk_error_status(NULL) == DK_STATUS_OK && dk_error_message(NULL) == NULL && dk_error_domid(NULL) == -1);
}

static void values(dk_ctx *ctx)
{
    dk_error *error;
    char *text;
    dk_control *control;
    dk_ctx *other;

    dk_status status = dk_retrieve_domain_configuration(ctx, 7, 17, &text, NULL, &error);
    says(status, error, "17 is no dk_policy");
    status = dk_retrieve_domain_configuration(ctx, 70000, DK_POLICY_LIVE, &text, NULL, &error);
    says(status, error, "70000 is no domain's id");
    status = dk_config_print("{}", -1, &text, &error);
    says(status, error, "-1 is no dk_layout");
    status = dk_config_print("\xff\xfe", DK_LAYOUT_YAJL, &text, &error);
    says(status, error, "`json` is not UTF-8");
    status = dk_ctx_set_hypervisor(ctx, 3, &error);
    says(status, error, "3 is no dk_hypervisor");
    status = dk_ctx_open_in_process(&other, NULL, "etcd:somewhere", &error);
    says(status, error, "say \"userdata:DIRECTORY\"");
    CHECK(other == NULL);
    status = dk_template_create(ctx, 7, "no-uuid", "{}", &error);
    says(status, error, "\"no-uuid\" is no uuid");
    status = dk_attach_device(ctx, 7, 9, "{}", NULL, NULL, &error);
    says(status, error, "9 is no dk_device_class");
    dk_plugging plugging = { .size = 3 };
    status = dk_attach_device(ctx, 7, DK_DEVICE_CLASS_NIC, "", &plugging, NULL, &error);
    says(status, error, "`plugging->size` is 3");
    dk_control_ops ops = { .size = sizeof(ops) };
    status = dk_control_new(&control, &ops, NULL, &error);
    says(status, error, "`ops->find` must not be NULL");
    ops.size = 1;
    status = dk_control_new(&control, &ops, NULL, &error);
    says(status, error, "`ops->size` is 1");
    CHECK(control == NULL);

    DONE(dk_control_simulated(&control, "/nonexistent/host", &error));
    int fds[] = { -5 };
    status = dk_snapshot_plan_save(ctx, control, "{}", fds, 1, &text, &error);
    says(status, error, "`fds[0]` is -5");
    fds[0] = open("/dev/null", O_RDONLY);
    close(fds[0]);
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_snapshot_plan_save(ctx, control, "{}", fds, 1, &text, &error));
    dk_domain domain;
    EXPECT(DK_STATUS_UNREACHABLE, dk_control_find(control, 7, 1000, &domain, &error));
    dk_control_free(control);
}

static void places(dk_ctx *ctx)
{
    dk_ctx *other;
    uint8_t *octets;
    size_t length;
    EXPECT(DK_STATUS_UNREACHABLE, dk_ctx_open(&other, "/nonexistent/socket", "memory", &error));
    EXPECT(DK_STATUS_UNREACHABLE, dk_ctx_open_in_process(&other, NULL, "userdata:/nonexistent", &error));
    EXPECT(DK_STATUS_INVALID_DATA, dk_ctx_open_in_process(&other, "no node", NULL, &error));
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_xenstore_read(ctx, "not//a path", &octets, &length, &error));
    dk_error *error;
    CHECK(dk_xenstore_read(ctx, "/no/such/node", &octets, &length, &error) == DK_STATUS_NOT_FOUND);
    CHECK(strcmp(dk_error_path(error), "/no/such/node") == 0);
    CHECK(octets == NULL && length == 0);
    dk_error_free(error);
}

int main(void)
{
    dk_ctx *ctx;
    DONE(dk_ctx_open_in_process(&ctx, NODES, NULL, &error));
    null_pointers(ctx);
    values(ctx);
    places(ctx);
    dk_ctx_free(ctx);
    return 0;
}
