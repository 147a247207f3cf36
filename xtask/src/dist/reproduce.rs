//! The package once more, from sources at another path and into another target directory: the same octets come out.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::build::Build;
use super::programs::answer;
use super::release::Release;
use super::{Places, emptied, failed, package, sha256, told};
use crate::command::{Failure, root};

/// Builds it again and compares.
pub(super) fn check(release: &Release, places: &Places, first: &Path) -> Result<(), Failure> {
    copy_sources(&root(), &places.copy)?;
    // Of what an earlier check has compiled nothing would be compared.
    let target = emptied(places.second.clone())?;
    let build = Build { source: places.copy.clone(), target };
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

/// What git knows or would add, and nothing else.
fn copy_sources(from: &Path, to: &Path) -> Result<(), Failure> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(from);
    let listed = answer(git)?;
    let to = emptied(to.to_owned())?;
    // What is staged and removed has a name and no file.
    let names = listed.split_terminator('\0').filter(|name| from.join(name).is_file());
    for name in names {
        let (source, copy) = (from.join(name), to.join(name));
        let above = copy.parent().map(Path::to_owned).unwrap_or_default();
        fs::create_dir_all(&above).map_err(failed("make", &above))?;
        fs::copy(&source, &copy).map_err(failed("copy", &source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_sources_has_no_file_that_the_sources_have_not() {
        const NAME: &str = "a_copy_of_the_sources_has_no_file_that_the_sources_have_not";
        // Sources without git can lie in somebody else's checkout, which does not know them.
        let mut git = Command::new("git");
        git.args(["ls-files", "--error-unmatch", "Cargo.toml"]).current_dir(root());
        if answer(git).is_err() {
            println!("skipped: {NAME}: no git checkout");
            return;
        }
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
