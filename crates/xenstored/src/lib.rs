//! An embeddable Xenstore server.
