/* daemon SOCKET: a daemon that dies and comes back is an error and then none, and never a signal. */
#include "check.h"

#include <signal.h>

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dk_ctx *daemon, *ctx;
    char *configuration;
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    DONE(dk_ctx_open_in_process(&daemon, NODES, NULL, &error));
    DONE(dk_ctx_serve(daemon, argv[1], &error));
    EXPECT(DK_STATUS_INVALID_DATA, dk_ctx_open_in_process(&ctx, "/a = 1", NULL, &error));
    DONE(dk_ctx_open(&ctx, argv[1], "memory", &error));
    EXPECT(DK_STATUS_INVALID_ARGUMENT, dk_ctx_serve(ctx, argv[1], &error));
    DONE(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_LIVE, &configuration, NULL, &error));
    free(configuration);

    dk_ctx_free(daemon);
    EXPECT(DK_STATUS_UNREACHABLE,
           dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_LIVE, &configuration, NULL, &error));

    /* The connection that is kept between calls is one to the daemon before. */
    DONE(dk_ctx_open_in_process(&daemon, NODES, NULL, &error));
    DONE(dk_ctx_serve(daemon, argv[1], &error));
    DONE(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_LIVE, &configuration, NULL, &error));
    free(configuration);
    dk_ctx_free(daemon);
    DONE(dk_ctx_open_in_process(&daemon, NODES, NULL, &error));
    DONE(dk_ctx_serve(daemon, argv[1], &error));
    DONE(dk_retrieve_domain_configuration(ctx, 7, DK_POLICY_LIVE, &configuration, NULL, &error));
    free(configuration);
    dk_ctx_free(ctx);
    dk_ctx_free(daemon);
    return 0;
}
