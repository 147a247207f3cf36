/* retrieve SOCKET TEMPLATES NAME: what a domain's configuration is, and what of it cannot be told. */
#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    dk_ctx *ctx;
    DONE(dk_ctx_open(&ctx, argv[1], argv[2], &error));
    uint32_t domid = 0;
    DONE(dk_find_domain(ctx, argv[3], &domid, &error));
    EXPECT(DK_STATUS_NOT_FOUND, dk_find_domain(ctx, "nobody", &domid, &error));

    char *configuration, *report;
    DONE(dk_retrieve_domain_configuration(ctx, domid, DK_POLICY_LIVE, &configuration, &report, &error));
    CONTAINS(report, "\"revision\"");
    CONTAINS(report, "\"devices\"");
    char *alone;
    DONE(dk_retrieve_domain_configuration(ctx, domid, DK_POLICY_LIVE, &alone, NULL, &error));
    CHECK(strcmp(configuration, alone) == 0);
    free(alone);
    puts(configuration);

    char *list;
    DONE(dk_list_domain_configurations(ctx, DK_POLICY_LIVE, &list, &error));
    CONTAINS(list, argv[3]);
    uint32_t *domids;
    size_t count, found = 0;
    DONE(dk_list_domains(ctx, &domids, &count, &error));
    for (size_t i = 0; i < count; i++)
        found += domids[i] == domid;
    CHECK(found == 1);

    dk_error *error;
    char *nothing;
    CHECK(dk_retrieve_domain_configuration(ctx, 999, DK_POLICY_LIVE, &nothing, NULL, &error) == DK_STATUS_NOT_FOUND);
    CHECK(nothing == NULL);
    CHECK(strcmp(dk_error_operation(error), "dk_retrieve_domain_configuration") == 0);
    CHECK(dk_error_domid(error) == 999);
    CONTAINS(dk_error_message(error), "no domain 999");
    dk_error_free(error);

    free(configuration);
    free(report);
    free(list);
    free(domids);
    dk_ctx_free(ctx);
    return 0;
}
