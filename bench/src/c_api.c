/* c_api SOCKET TEMPLATES DOMID ROUNDS: for each line on stdin, retrieves so often and prints how many nanoseconds a call took. */
#include <domkeep.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    dk_ctx *ctx;
    dk_error *error;
    if (argc != 5 || dk_ctx_open(&ctx, argv[1], argv[2], &error)) {
        fprintf(stderr, "%s\n", argc == 5 ? dk_error_message(error) : "usage");
        return 1;
    }
    uint32_t domid = (uint32_t)atoi(argv[3]);
    long rounds = atol(argv[4]);
    while (getchar() != EOF) {
        struct timespec begin, end;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        for (long i = 0; i < rounds; i++) {
            char *configuration, *report;
            if (dk_retrieve_domain_configuration(ctx, domid, DK_POLICY_LIVE, &configuration, &report, &error)) {
                fprintf(stderr, "%s\n", dk_error_message(error));
                return 1;
            }
            free(configuration);
            free(report);
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        double nanoseconds = 1e9 * (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec);
        printf("%.0f\n", nanoseconds / (double)rounds);
        fflush(stdout);
    }
    dk_ctx_free(ctx);
    return 0;
}
