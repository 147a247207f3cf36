//! The domkeep command: what a Xen domain's configuration is now.
fn main() {}
