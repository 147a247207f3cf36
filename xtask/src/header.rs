//! `cargo xtask header`: `domkeep.h`, as cbindgen makes it from the C library's source.

use std::path::PathBuf;

use crate::command::{Failure, root};

/// Writes the header that is committed.
pub(crate) fn write() -> Result<(), Failure> {
    let path = committed();
    std::fs::write(&path, generate()?)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn committed() -> PathBuf {
    root().join("crates/domkeep-capi/include/domkeep.h")
}

fn generate() -> Result<String, Failure> {
    let source = root().join("crates/domkeep-capi");
    let config = cbindgen::Config::from_file(source.join("cbindgen.toml"))?;
    let bindings = cbindgen::Builder::new()
        .with_crate(&source)
        .with_config(config)
        .generate()
        .map_err(|error| format!("cannot make the header: {error}"))?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text =
        String::from_utf8(text).map_err(|error| format!("the header is not text: {error}"))?;
    // As Rust calls it.
    Ok(text.replace("// # Safety\n//\n// ", "// Pointers: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_header_is_what_the_source_makes() {
        let committed =
            std::fs::read_to_string(committed()).expect("the header is in the repository");
        assert!(
            committed == generate().expect("the source can be read"),
            "include/domkeep.h is not up to date: run `cargo xtask header`"
        );
    }
}
