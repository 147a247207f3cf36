//! Gives the shared library its soname: programs linked with it look for that name, not for the file.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libdomkeep.so.0");
}
