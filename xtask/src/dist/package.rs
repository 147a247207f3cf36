//! What is in the package, and where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::{Build, Built};
use super::copyright;
use super::programs::{answer, command};
use super::release::Release;
use super::tree::Tree;
use super::{emptied, failed};
use crate::command::{Failure, execute};

/// The daemon's name here: `/usr/sbin/xenstored` is a link of Debian's xen-utils-common, and stays what it is.
pub(super) const DAEMON: &str = "usr/sbin/domkeep-xenstored";
pub(super) const COMMAND: &str = "usr/bin/domkeep";
pub(super) const HEADER: &str = "usr/include/domkeep.h";
pub(super) const UNIT: &str = "usr/lib/systemd/system/domkeep-xenstored.service";
pub(super) const BASH_COMPLETIONS: &str = "usr/share/bash-completion/completions/domkeep";
pub(super) const ZSH_COMPLETIONS: &str = "usr/share/zsh/vendor-completions/_domkeep";
pub(super) const FISH_COMPLETIONS: &str = "usr/share/fish/vendor_completions.d/domkeep.fish";
const DOCUMENTATION: &str = "usr/share/doc/domkeep";

/// What Debian installs beside the files of a package.
const CONTROL: &str = "DEBIAN";

/// Builds all, lays it out in a tree, and packs that.
pub(super) fn make(
    build: &Build,
    release: &Release,
    directory: &Path,
    package: &Path,
) -> Result<(), Failure> {
    let built = build.run()?;
    let tree = Tree::new(directory)?;
    programs(&tree, &built)?;
    library(&tree, &built, build, release)?;
    manual(&tree)?;
    completions(&tree)?;
    documentation(&tree, build, release)?;
    tree.copy(UNIT, &build.source.join("packaging/systemd/domkeep-xenstored.service"))?;
    tree.copy(
        "usr/share/lintian/overrides/domkeep",
        &build.source.join("packaging/debian/lintian-overrides"),
    )?;
    holds_no_paths(&tree, build)?;
    control(&tree, build, release)?;
    pack(&tree, release, package)
}

fn programs(tree: &Tree, built: &Built) -> Result<(), Failure> {
    tree.program(COMMAND, &built.directory.join("domkeep"))?;
    tree.program(DAEMON, &built.directory.join("xenstored"))
}

/// The shared library under its full version, as its soname, and as linkers look for it; the static one; how to use them.
fn library(tree: &Tree, built: &Built, build: &Build, release: &Release) -> Result<(), Failure> {
    let directory = format!("usr/lib/{}", release.multiarch);
    let file = format!("libdomkeep.so.{}", release.upstream);
    tree.copy(&format!("{directory}/{file}"), &built.directory.join("libdomkeep.so"))?;
    let soname = soname(&tree.path(&format!("{directory}/{file}")))?;
    tree.link(&format!("{directory}/{soname}"), &file)?;
    tree.link(&format!("{directory}/libdomkeep.so"), &file)?;
    let archive = format!("{directory}/libdomkeep.a");
    tree.copy(&archive, &built.directory.join("libdomkeep.a"))?;
    // The profile strips what a linker makes; that is no archive.
    let mut strip = command("strip", &["--strip-debug", "--enable-deterministic-archives"]);
    strip.arg(tree.path(&archive));
    answer(strip)?;
    let source = build.source.join("crates/domkeep-capi");
    tree.copy(HEADER, &source.join("include/domkeep.h"))?;
    let template = source.join("domkeep.pc.in");
    let template = fs::read_to_string(&template).map_err(failed("read", &template))?;
    let needs = template.lines().find_map(|line| line.strip_prefix("Libs.private: "));
    if needs.map(sorted) != Some(sorted(&built.native_libraries)) {
        return Err(format!(
            "domkeep.pc.in has Libs.private: {}, and a program that is linked with the static library needs {}",
            needs.unwrap_or("nothing"),
            built.native_libraries
        ));
    }
    let filled = template
        .replace("@prefix@", "/usr")
        .replace("@libdir@", &format!("${{prefix}}/lib/{}", release.multiarch))
        .replace("@version@", &release.upstream);
    tree.file(&format!("{directory}/pkgconfig/domkeep.pc"), filled.as_bytes())
}

/// In which order a linker is told of system libraries does not matter.
fn sorted(libraries: &str) -> Vec<&str> {
    let mut libraries: Vec<_> = libraries.split_whitespace().collect();
    libraries.sort_unstable();
    libraries
}

fn soname(library: &Path) -> Result<String, Failure> {
    let mut objdump = command("objdump", &["--private-headers"]);
    objdump.arg(library);
    let told = answer(objdump)?;
    let name = told.lines().find_map(|line| line.trim().strip_prefix("SONAME"));
    name.map(|name| name.trim().to_owned())
        .ok_or_else(|| format!("{} has no soname", library.display()))
}

/// Both programs have their own pages.
fn manual(tree: &Tree) -> Result<(), Failure> {
    let pages = emptied(tree.root().with_extension("pages"))?;
    let mut domkeep = Command::new(tree.path(COMMAND));
    answer_of(domkeep.args(["man", "--all"]).arg(&pages))?;
    let mut names: Vec<_> = fs::read_dir(&pages)
        .map_err(failed("read", &pages))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    for name in names {
        let page = pages.join(&name);
        let text = fs::read(&page).map_err(failed("read", &page))?;
        tree.compressed(&format!("usr/share/man/man1/{name}"), &text)?;
    }
    let page = answer_of(Command::new(tree.path(DAEMON)).arg("--man"))?;
    tree.compressed("usr/share/man/man8/domkeep-xenstored.8", page.as_bytes())
}

fn completions(tree: &Tree) -> Result<(), Failure> {
    for (shell, name) in
        [("bash", BASH_COMPLETIONS), ("zsh", ZSH_COMPLETIONS), ("fish", FISH_COMPLETIONS)]
    {
        let text = answer_of(Command::new(tree.path(COMMAND)).args(["completions", shell]))?;
        tree.file(name, text.as_bytes())?;
    }
    Ok(())
}

/// What a built program prints, whatever this machine's environment says.
fn answer_of(program: &mut Command) -> Result<String, Failure> {
    let mut clean = Command::new(program.get_program());
    clean.args(program.get_args()).env_clear().env("LC_ALL", "C.UTF-8");
    answer(clean)
}

/// README, ARCHITECTURE.md and docs/, each as named in the package and where it is in the sources. They lie beside each other as
/// there, so that their links to each other hold; those to sources, CONTRIBUTING.md and the licences' own files do not.
fn pages(source: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut pages = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md"] {
        pages.push((format!("{DOCUMENTATION}/{name}"), source.join(name)));
    }
    let docs = source.join("docs");
    for entry in fs::read_dir(&docs).map_err(failed("read", &docs))? {
        let path = entry.map_err(failed("read", &docs))?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            pages.push((format!("{DOCUMENTATION}/docs/{name}"), path));
        }
    }
    Ok(pages)
}

fn documentation(tree: &Tree, build: &Build, release: &Release) -> Result<(), Failure> {
    for (name, path) in pages(&build.source)? {
        tree.copy(&name, &path)?;
    }
    tree.compressed(
        &format!("{DOCUMENTATION}/changelog.Debian"),
        release.debian_changelog()?.as_bytes(),
    )?;
    let copyright = copyright::text(&build.source)?;
    tree.file(&format!("{DOCUMENTATION}/copyright"), copyright.as_bytes())
}

/// Nobody who reads the package learns where it was built, and it is the same wherever that was.
fn holds_no_paths(tree: &Tree, build: &Build) -> Result<(), Failure> {
    let mut grep = command("grep", &["--recursive", "--fixed-strings", "--files-with-matches"]);
    for path in build.private_paths()? {
        grep.arg("-e").arg(path);
    }
    let output = grep.arg(tree.root()).output().map_err(|error| format!("grep: {error}"))?;
    match output.status.code() {
        Some(1) => Ok(()),
        _ => Err(format!(
            "paths of this machine are in\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn control(tree: &Tree, build: &Build, release: &Release) -> Result<(), Failure> {
    let packaging = build.source.join("packaging/debian");
    let read = |name: &str| {
        let path = packaging.join(name);
        fs::read_to_string(&path).map_err(failed("read", &path))
    };
    let files = tree.files()?;
    let mut octets = 0;
    let mut sums = String::new();
    for name in &files {
        let path = tree.path(name);
        octets += fs::metadata(&path).map_err(failed("look at", &path))?.len();
        let sum = answer(command("md5sum", &[&path]))?;
        sums.push_str(&format!("{}  {name}\n", sum.split(' ').next().unwrap_or_default()));
    }
    let text = read("control.in")?
        .replace("@version@", &release.version())
        .replace("@architecture@", &release.architecture)
        .replace("@installed-size@", &octets.div_ceil(1024).to_string())
        .replace("@depends@", &depends(tree, release)?);
    tree.file(&format!("{CONTROL}/control"), text.as_bytes())?;
    tree.file(&format!("{CONTROL}/md5sums"), sums.as_bytes())?;
    tree.file(&format!("{CONTROL}/triggers"), read("triggers")?.as_bytes())?;
    let shlibs = read("shlibs.in")?.replace("@upstream@", &release.upstream);
    tree.file(&format!("{CONTROL}/shlibs"), shlibs.as_bytes())
}

/// What the binaries are linked with, as packages with the versions that they need.
fn depends(tree: &Tree, release: &Release) -> Result<String, Failure> {
    // Without a source package in the current directory it does not work.
    let place = emptied(tree.root().with_extension("shlibdeps"))?;
    let debian = emptied(place.join("debian"))?;
    let control = debian.join("control");
    fs::write(&control, "Source: domkeep\n\nPackage: domkeep\nArchitecture: any\n")
        .map_err(failed("write", &control))?;
    let mut shlibdeps = command("dpkg-shlibdeps", &["-O"]);
    let library = format!("usr/lib/{}/libdomkeep.so.{}", release.multiarch, release.upstream);
    for name in [COMMAND, DAEMON, &library] {
        shlibdeps.arg("-e").arg(tree.path(name));
    }
    shlibdeps.current_dir(&place);
    let told = answer(shlibdeps)?;
    let depends = told.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    depends.map(str::to_owned).ok_or_else(|| format!("dpkg-shlibdeps says {told:?}"))
}

/// Sorted, with one owner and one date, and compressed by one thread: how many there are shows in what comes out.
fn pack(tree: &Tree, release: &Release, package: &Path) -> Result<(), Failure> {
    let mut deb =
        command("dpkg-deb", &["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]);
    deb.arg(tree.root()).arg(package).env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    execute(deb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;

    #[test]
    fn the_unit_and_the_guide_name_the_daemon_as_it_is_installed() {
        let read = |name: &str| fs::read_to_string(root().join(name)).expect("it is shipped");
        let unit = read("packaging/systemd/domkeep-xenstored.service");
        let daemon = format!("/{DAEMON}");
        // What prepares the host before is about other programs.
        let commands = unit
            .lines()
            .filter(|line| ["ExecStart=", "ExecReload="].iter().any(|key| line.starts_with(key)));
        for command in commands {
            let named = command.split(['=', ' ']).any(|word| word == daemon);
            assert!(named, "{command} is not about {daemon}");
        }
        assert!(unit.contains("\nExecStart="), "{unit}");
        let guide = read("docs/xenstored-guide.md");
        assert!(guide.contains(&daemon), "the guide does not name {daemon}");
        // That is another package's.
        for text in [&unit, &guide] {
            assert!(!text.contains(" /usr/sbin/xenstored\n"), "{text}");
        }
    }

    #[test]
    fn the_pages_that_the_unit_and_the_manual_name_are_in_the_package() {
        let pages = pages(&root()).expect("the sources are here");
        for file in [
            "packaging/systemd/domkeep-xenstored.service",
            "crates/domkeep/src/xenstored/manual.rs",
        ] {
            let text = fs::read_to_string(root().join(file)).expect("it is in the sources");
            let mut named = text
                .split(|end: char| end.is_whitespace() || end == '"')
                .filter_map(|word| Some(&word[word.find(&format!("/{DOCUMENTATION}/"))? + 1..]))
                .peekable();
            assert!(named.peek().is_some(), "{file} names no page");
            for name in named {
                assert!(pages.iter().any(|(page, _)| page == name), "{file}: {name}");
            }
        }
    }
}
