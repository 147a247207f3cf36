/* libdomkeep: configuration and snapshots of Xen domains. MIT OR Apache-2.0.
 *
 * Made by `cargo xtask header` from crates/domkeep-capi; do not edit. */

#ifndef DOMKEEP_H
#define DOMKEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, such as `0.1.0`. It is valid for ever and must not be freed.
const char *dk_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DOMKEEP_H */
