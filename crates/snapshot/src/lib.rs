//! Save and restore of Xen domains.
#![forbid(unsafe_code)]
