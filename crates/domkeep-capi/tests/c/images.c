/* images TEMPLATES: disks that QEMU has moved to other images, said in both views. */
#include "check.h"

#define LIBXL "/libxl/7/device/vbd/51712"
#define BACKEND "/local/domain/0/backend/qdisk/7/51712"
#define FRONTEND "/local/domain/7/device/vbd/51712"
#define DISK(at, more)                                                                               \
    at " = \"\"   (n0)\n"                                                                            \
    at "/frontend = \"" FRONTEND "\"   (n0)\n"                                                        \
    at "/params = \"aio:/srv/root.img\"   (n0)\n"                                                     \
    at "/frontend-id = \"7\"   (n0)\n"                                                                \
    at "/online = \"1\"   (n0)\n"                                                                     \
    at "/removable = \"0\"   (n0)\n"                                                                  \
    at "/bootable = \"1\"   (n0)\n"                                                                   \
    at "/dev = \"xvda\"   (n0)\n"                                                                     \
    at "/type = \"qdisk\"   (n0)\n"                                                                   \
    at "/mode = \"w\"   (n0)\n"                                                                       \
    at "/device-type = \"disk\"   (n0)\n" more

static const char nodes[] = NODES DISK(LIBXL, LIBXL "/backend = \"" BACKEND "\"   (n0)\n")
    DISK(BACKEND, BACKEND "/state = \"4\"   (n0)\n" BACKEND "/hotplug-status = \"connected\"   (n0)\n")
    FRONTEND " = \"\"   (n7,r0)\n"
    FRONTEND "/backend = \"" BACKEND "\"   (n7,r0)\n"
    FRONTEND "/backend-id = \"0\"   (n7,r0)\n"
    FRONTEND "/state = \"4\"   (n7,r0)\n"
    FRONTEND "/virtual-device = \"51712\"   (n7,r0)\n"
    FRONTEND "/device-type = \"disk\"   (n7,r0)\n";

static const char template[] =
    "{\"c_info\": {\"type\": \"pv\", \"name\": \"web\", \"uuid\": \"" UUID "\"},"
    " \"b_info\": {\"max_vcpus\": 2, \"target_memkb\": 262144, \"type.pv\": {}},"
    " \"disks\": [{\"pdev_path\": \"/srv/root.img\", \"vdev\": \"xvda\", \"backend\": \"qdisk\", \"format\": \"raw\","
    "   \"readwrite\": 1}]}";

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dk_ctx *ctx;
    char *told, *configuration;
    uint8_t *params;
    size_t length;
    dk_error *error;
    DONE(dk_ctx_open_in_process(&ctx, nodes, argv[1], &error));
    DONE(dk_template_create(ctx, 7, UUID, template, &error));

    dk_image overlay = { .vdev = "xvda", .path = "/srv/overlay.qcow2", .format = "qcow2" };
    DONE(dk_replace_images(ctx, 7, &overlay, 1, &told, &error));
    CONTAINS(told, "\"live\":{\"path\":\"/srv/root.img\",\"format\":\"raw\"}");
    CONTAINS(told, "\"image\":{\"path\":\"/srv/overlay.qcow2\",\"format\":\"qcow2\"}");
    free(told);
    DONE(dk_xenstore_read(ctx, BACKEND "/params", &params, &length, &error));
    CHECK(length == strlen("qcow2:/srv/overlay.qcow2") && memcmp(params, "qcow2:/srv/overlay.qcow2", length) == 0);
    free(params);
    DONE(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_TEMPLATE, &configuration, NULL, &error));
    CONTAINS(configuration, "/srv/overlay.qcow2");
    LACKS(configuration, "/srv/root.img");
    free(configuration);
    /* What is so already stays so. */
    DONE(dk_replace_images(ctx, 7, &overlay, 1, NULL, &error));

    dk_image wrong[] = { { "xvdb", "/srv/b", "raw" }, { "xvda", "relative", "qcow2" } };
    CHECK(dk_replace_images(ctx, 7, wrong, 2, &told, &error) == DK_STATUS_REFUSED && told == NULL);
    CONTAINS(dk_error_details(error), "xvdb");
    CONTAINS(dk_error_details(error), "relative");
    dk_error_free(error);
    CHECK(dk_replace_images(ctx, 8, &overlay, 1, &told, &error) == DK_STATUS_NOT_FOUND);
    CONTAINS(dk_error_details(error), "\"live\":\"old\"");
    dk_error_free(error);
    dk_image none = { .vdev = "xvda", .path = NULL, .format = "raw" };
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_replace_images(ctx, 7, &none, 1, NULL, &error));
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_replace_images(NULL, 7, &overlay, 1, NULL, &error));
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_replace_images(ctx, 7, NULL, 1, NULL, &error));
    dk_ctx_free(ctx);
    return 0;
}
