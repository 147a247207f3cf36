//! The package once more, from sources at another path and into another target directory: the same octets come out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::Build;
use super::programs::answer;
use super::release::Release;
use super::{Places, failed, package, sha256, told};
use crate::command::{Failure, root};

/// Builds it again and compares.
pub(super) fn check(release: &Release, places: &Places, first: &Path) -> Result<(), Failure> {
    copy_sources(&root(), &places.copy)?;
    let build = Build { source: places.copy.clone(), target: places.second.clone() };
    let second = places.packages.join("second").join(release.file_name());
    let above = second.parent().map(Path::to_owned).unwrap_or_default();
    fs::create_dir_all(&above).map_err(failed("make", &above))?;
    package::make(&build, release, &above.join("tree"), &second)?;
    println!("{}", told(&second)?);
    if sha256(first)? != sha256(&second)? {
        return Err(format!(
            "the two builds differ; compare with: diffoscope {} {}",
            first.display(),
            second.display()
        ));
    }
    println!("reproducible: both builds are the same, octet for octet");
    Ok(())
}

/// What git knows or would add. What is there already and the same is left alone, so that it is not built again.
fn copy_sources(from: &Path, to: &Path) -> Result<(), Failure> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(from);
    let listed = answer(git)?;
    let wanted: BTreeSet<PathBuf> = listed
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|name| from.join(name).is_file())
        .collect();
    for name in &wanted {
        let (source, copy) = (from.join(name), to.join(name));
        let octets = fs::read(&source).map_err(failed("read", &source))?;
        if fs::read(&copy).is_ok_and(|there| there == octets) {
            continue;
        }
        let above = copy.parent().map(Path::to_owned).unwrap_or_default();
        fs::create_dir_all(&above).map_err(failed("make", &above))?;
        fs::copy(&source, &copy).map_err(failed("copy", &source))?;
    }
    let mut left = vec![to.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).map_err(failed("read", &directory))? {
            let path = entry.map_err(failed("read", &directory))?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.strip_prefix(to).is_ok_and(|name| !wanted.contains(name)) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_sources_has_no_file_that_the_sources_have_not() {
        let copy = std::env::temp_dir().join(format!("domkeep-copy-{}", std::process::id()));
        fs::create_dir_all(copy.join("crates")).expect("a directory in /tmp");
        fs::write(copy.join("crates/old.rs"), "old").expect("a file in /tmp");
        fs::write(copy.join("Cargo.toml"), "old").expect("a file in /tmp");
        let copied = copy_sources(&root(), &copy);
        let old = copy.join("crates/old.rs").exists();
        let manifest = fs::read(copy.join("Cargo.toml"));
        let built = copy.join("target").exists();
        fs::remove_dir_all(&copy).expect("the copy is removed");
        copied.expect("the sources are a checkout");
        assert!(!old && !built);
        let original = fs::read(root().join("Cargo.toml")).expect("there is a manifest");
        assert_eq!(manifest.expect("it was copied"), original);
    }
}
