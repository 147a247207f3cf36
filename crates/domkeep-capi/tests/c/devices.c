/* devices SOCKET TEMPLATES SCRIPTS IMAGE: devices plugged and unplugged, all of it by the library. */
#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc == 5);
    dk_ctx *ctx;
    uint32_t db;
    char spec[4096], *told;
    dk_plugging plugging = { .size = sizeof plugging, .wait_ms = 20000, .script_ms = 20000, .scripts = argv[3] };
    snprintf(spec, sizeof spec, "vdev=xvdz,format=raw,access=ro,target=%s", argv[4]);

    DONE(dk_ctx_open(&ctx, argv[1], argv[2], &error));
    DONE(dk_find_domain(ctx, "db", &db, &error));
    DONE(dk_attach_device(ctx, db, DK_DEVICE_CLASS_DISK, spec, &plugging, &told, &error));
    CONTAINS(told, "\"connected\"");
    free(told);
    EXPECT(DK_STATUS_EXISTS, dk_attach_device(ctx, db, DK_DEVICE_CLASS_DISK, spec, &plugging, NULL, &error));
    dk_error *error;
    CHECK(dk_attach_device(ctx, db, DK_DEVICE_CLASS_DISK, "vdev=xvdy,format=raw,target=/no/such/image", &plugging,
                           NULL, &error) == DK_STATUS_REFUSED);
    CONTAINS(dk_error_details(error), "/no/such/image");
    CHECK(dk_error_domid(error) == (int)db);
    dk_error_free(error);
    EXPECT(DK_STATUS_NOT_FOUND, dk_attach_device(ctx, 999, DK_DEVICE_CLASS_DISK, spec, &plugging, NULL, &error));

    char *configuration;
    DONE(dk_retrieve_domain_configuration(ctx, db, DK_POLICY_LIVE, &configuration, NULL, &error));
    CONTAINS(configuration, "xvdz");
    free(configuration);

    DONE(dk_detach_device(ctx, db, DK_DEVICE_CLASS_DISK, "xvdz", &plugging, &told, &error));
    CONTAINS(told, "\"was_in_xenstore\":true");
    CONTAINS(told, "\"was_in_template\":true");
    free(told);
    EXPECT(DK_STATUS_NOT_FOUND,
           dk_detach_device(ctx, db, DK_DEVICE_CLASS_DISK, "xvdz", &plugging, NULL, &error));
    EXPECT(DK_STATUS_INVALID_ARGUMENT,
           dk_detach_device(ctx, db, DK_DEVICE_CLASS_NIC, "eth0", &plugging, NULL, &error));
    /* The demonstration's host was left with a device half attached. */
    DONE(dk_repair_devices(ctx, db, false, &plugging, &told, &error));
    CONTAINS(told, "\"mended\"");
    free(told);
    DONE(dk_repair_devices(ctx, db, false, &plugging, &told, &error));
    CHECK(strcmp(told, "[]") == 0);
    free(told);
    dk_ctx_free(ctx);
    return 0;
}
