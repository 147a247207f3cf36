//! Configuration of Xen domains: libxl's JSON, template stores, and retrieve.

pub mod template;
