//! Domkeep for programs in C: `libdomkeep`, whose header is `include/domkeep.h`.

mod version;
