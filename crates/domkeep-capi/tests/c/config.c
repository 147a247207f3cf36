/* Texts without a domain: configurations and streams; and what is logged. */
#include "check.h"

static int lines;

static void count(void *user, const char *line)
{
    CHECK(user == &lines && *line);
    lines++;
}

int main(void)
{
    char *text, *again;
    DONE(dk_config_print(TEMPLATE, DK_LAYOUT_YAJL, &text, &error));
    CONTAINS(text, "\"max_vcpus\": 2");
    DONE(dk_config_diff(TEMPLATE, text, &again, &error));
    CHECK(strcmp(again, "[]") == 0);
    free(again);
    DONE(dk_config_print(text, DK_LAYOUT_JSON_C, &again, &error));
    CONTAINS(again, "\"max_vcpus\":2");
    free(again);
    DONE(dk_config_diff(text, "{\"c_info\": {\"type\": \"pv\", \"name\": \"db\"}, \"b_info\": {\"type.pv\": {}}}", &again,
                        &error));
    CONTAINS(again, "$.c_info.name");
    free(again);
    free(text);

    DONE(dk_config_check("{\"c_info\": {\"type\": \"pv\", \"colour\": 1}, \"b_info\": {\"type.pv\": {}}}", &text, &error));
    CONTAINS(text, "\"path\":\"$.c_info.colour\"");
    CONTAINS(text, "\"severity\"");
    free(text);
    EXPECT(DK_STATUS_INVALID_DATA, dk_config_check("{", &text, &error));
    CHECK(text == NULL);
    EXPECT(DK_STATUS_INVALID_DATA, dk_config_print("[1", DK_LAYOUT_YAJL, &text, &error));

    /* 'x', version 1, big endian: no more than a preamble and an end. */
    static const uint8_t stream[] = { 'x', 'e', 'n', 's', 't', 'o', 'r', 'e', 0, 0, 0, 1, 0, 0, 0, 1,
                                      0,   0,   0,   0,   0,   0,   0,   0 };
    uint8_t *octets;
    size_t length;
    DONE(dk_stream_decode(stream, sizeof stream, &text, &error));
    CONTAINS(text, "\"version\":1");
    CONTAINS(text, "\"big\"");
    DONE(dk_stream_encode(text, &octets, &length, &error));
    CHECK(length == sizeof stream && memcmp(octets, stream, length) == 0);
    free(octets);
    free(text);
    EXPECT(DK_STATUS_INVALID_DATA, dk_stream_decode(stream, 20, &text, &error));
    EXPECT(DK_STATUS_INVALID_DATA, dk_stream_encode("{\"version\": 9}", &octets, &length, &error));

    dk_ctx *ctx;
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_set_logger(9, count, &lines, &error));
    DONE(dk_set_logger(DK_LOG_LEVEL_TRACE, count, &lines, &error));
    DONE(dk_ctx_open_in_process(&ctx, NODES, NULL, &error));
    DONE(dk_template_create(ctx, 7, UUID, TEMPLATE, &error));
    char *configuration;
    DONE(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_LIVE, &configuration, NULL, &error));
    free(configuration);
    EXPECT(DK_STATUS_NOT_FOUND, dk_template_forget(ctx, 8, UUID, &error));
    dk_ctx_free(ctx);
    CHECK(lines > 0);
    DONE(dk_set_logger(DK_LOG_LEVEL_TRACE, NULL, NULL, &error));
    return 0;
}
