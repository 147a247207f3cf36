/* What the test programs have in common: a check that fails ends the program and says where. */
#ifndef CHECK_H
#define CHECK_H

#include <domkeep.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(value) ((value) ? (value) : "NULL")

#define CHECK(condition)                                                                             \
    do {                                                                                             \
        if (!(condition)) {                                                                          \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                  \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

/* The call ends with this status, and its error, which is freed, says so as well. */
#define EXPECT(wanted, call)                                                                         \
    do {                                                                                             \
        dk_error *error = (dk_error *)&error;                                                        \
        dk_status got = (call);                                                                      \
        if (got != (wanted) || dk_error_status(error) != got) {                                      \
            fprintf(stderr, "%s:%d: %s: %d instead of %d: %s: %s: %s %s\n", __FILE__, __LINE__,      \
                    #call, got, (wanted), TEXT(dk_error_operation(error)),                           \
                    TEXT(dk_error_message(error)), TEXT(dk_error_cause(error)),                      \
                    TEXT(dk_error_details(error)));                                                  \
            exit(1);                                                                                 \
        }                                                                                            \
        CHECK((error == NULL) == (got == DK_STATUS_OK));                                             \
        dk_error_free(error);                                                                        \
    } while (0)

#define DONE(call) EXPECT(DK_STATUS_OK, call)

#define CONTAINS(text, part)                                                                         \
    do {                                                                                             \
        const char *whole = (text);                                                                  \
        if (!whole || !strstr(whole, (part))) {                                                      \
            fprintf(stderr, "%s:%d: no \"%s\" in %s\n", __FILE__, __LINE__, (part), TEXT(whole));    \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

#define LACKS(text, part)                                                                            \
    do {                                                                                             \
        const char *whole = (text);                                                                  \
        if (!whole || strstr(whole, (part))) {                                                       \
            fprintf(stderr, "%s:%d: \"%s\" in %s\n", __FILE__, __LINE__, (part), TEXT(whole));       \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

/* A guest and its template, for contexts of their own. */
#define UUID "7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01"
#define NODES                                                                                        \
    "/local/domain/0/name = \"Domain-0\"   (n0)\n"                                                    \
    "/local/domain/7 = \"\"   (n0,r7)\n"                                                              \
    "/local/domain/7/name = \"web\"   (n0,r7)\n"                                                      \
    "/local/domain/7/vm = \"/vm/" UUID "\"   (n0,r7)\n"                                               \
    "/vm/" UUID "/name = \"web\"   (n0,r7)\n"
#define TEMPLATE                                                                                     \
    "{\"c_info\": {\"type\": \"pv\", \"name\": \"web\", \"uuid\": \"" UUID "\"},"                      \
    " \"b_info\": {\"max_vcpus\": 2, \"target_memkb\": 262144, \"type.pv\": {}}}"

#endif
