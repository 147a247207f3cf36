//! The package in a clean Debian 12: it is installed, used and removed, and lintian reads it.

use std::fs;
use std::path::Path;

use super::package::{BASH_COMPLETIONS, COMMAND, DAEMON, HEADER, UNIT};
use super::programs::{Program, answer, command, need};
use super::release::Release;
use super::root::Root;
use super::{Places, failed};
use crate::command::{Failure, execute};

const PROGRAMS: [Program; 4] = [
    Program { name: "lintian", package: "lintian" },
    Program { name: "debootstrap", package: "debootstrap" },
    Program { name: "unshare", package: "util-linux" },
    Program { name: "chroot", package: "coreutils" },
];

/// What the demonstration prints where there is no QEMU.
const DEMONSTRATED: [&str; 6] = [
    "    c_info.name: db-new -> db",
    "    xvdc after:  connected; in the template and in Xenstore",
    "Without qemu-img and qemu-storage-daemon, which cannot be started here (Debian: qemu-utils), the disks are raw and are copied:",
    "consistency: complete",
    "web.snapshot: as it was saved",
    "On a Xen host: `domkeep list`, `domkeep retrieve DOMAIN --report`, `domkeep retrieve DOMAIN --watch`.",
];

/// A program of somebody who links with the library.
const PROGRAM: &str = "#include <domkeep.h>\n#include <stdio.h>\n\nint main(void)\n{\n    puts(dk_version());\n    return 0;\n}\n";

/// How it is linked, as docs/c-api.md says.
const SHARED: &str = "$(pkg-config --cflags --libs domkeep)";
/// All that the archive needs, and the archive by its name: the linker would take the shared one.
const STATIC: &str = "$(pkg-config --cflags domkeep) -Wl,-Bstatic -ldomkeep -Wl,-Bdynamic \
                      $(pkg-config --static --libs domkeep | sed s/-ldomkeep//)";

/// Fails unless all that the check takes is there.
pub(super) fn need_programs() -> Result<(), Failure> {
    need(&PROGRAMS)?;
    if answer(command("id", &["-u"]))?.trim() == "0" {
        Ok(())
    } else {
        Err("a root to install in is made by root only: run it as root".to_owned())
    }
}

/// Checks the package; the first thing that is not as it should be is the failure.
pub(super) fn check(release: &Release, places: &Places, package: &Path) -> Result<(), Failure> {
    let mut lintian = command("lintian", &["--fail-on", "error,warning", "--allow-root"]);
    lintian.arg("--tag-display-limit=0").arg(package);
    execute(lintian)?;
    println!("lintian: no errors, no warnings");

    let root = Root::clean(&places.packages)?;
    let before = root.listing()?;
    let octets = fs::read(package).map_err(failed("read", package))?;
    root.put("tmp/domkeep.deb", &octets)?;
    root.run("apt-get install --yes --no-install-recommends /tmp/domkeep.deb 2>&1")?;
    println!("installed: {}", root.run("dpkg-query --show domkeep")?.trim());
    root.run("dpkg --verify domkeep")?;
    starts_nothing(&root)?;
    programs_run(&root, release)?;
    completions_load(&root)?;
    root.run("dpkg --purge domkeep")?;
    same(&before, &root.listing()?)?;
    println!("removed: nothing is left of it");

    root.run("apt-get install --yes --no-install-recommends /tmp/domkeep.deb 2>&1")?;
    manual_is_found(&root)?;
    programs_link(&root, release)
}

/// The unit is there for who wants it, and nobody else notices.
fn starts_nothing(root: &Root) -> Result<(), Failure> {
    root.run(&format!("test -f /{UNIT}"))?;
    let enabled =
        root.run("find /etc /run /var/lib/systemd -name '*xenstored*' 2>/dev/null || true")?;
    let scripts =
        root.run("ls /var/lib/dpkg/info | grep -E '^domkeep.*[.](pre|post)(inst|rm)$' || true")?;
    if !(enabled + &scripts).trim().is_empty() {
        return Err("installing the package enables or starts something".to_owned());
    }
    println!("unit: /{UNIT}, neither enabled nor started");
    Ok(())
}

fn programs_run(root: &Root, release: &Release) -> Result<(), Failure> {
    let demonstrated = root.run("domkeep demo")?;
    for line in DEMONSTRATED {
        if !demonstrated.lines().any(|found| found == line) {
            return Err(format!("domkeep demo does not print {line:?}:\n{demonstrated}"));
        }
    }
    println!("domkeep demo: status 0, {} lines", demonstrated.lines().count());
    for (program, name) in [(COMMAND, "domkeep"), (DAEMON, "xenstored")] {
        let told = root.run(&format!("/{program} --version"))?;
        if told.trim() != format!("{name} {}", release.upstream) {
            return Err(format!("/{program} --version prints {told:?}"));
        }
        println!("/{program} --version: {}", told.trim());
    }
    // In the background it returns once it can be asked.
    let said = root.run(
        "export XENSTORED_PATH=/tmp/xs\n\
         domkeep-xenstored --pid-file /tmp/pid --trace-file /tmp/log\n\
         domkeep xenstore write /tool/a one\n\
         domkeep xenstore read /tool/a\n\
         kill $(cat /tmp/pid)",
    )?;
    if said.trim() == "one" { Ok(()) } else { Err(format!("the daemon answers {said:?}")) }
}

/// Bash offers what fits, as it does when somebody presses the tab key.
fn completions_load(root: &Root) -> Result<(), Failure> {
    let script = format!(
        "bash -n /{BASH_COMPLETIONS}\n\
         bash -c '. /{BASH_COMPLETIONS}\n\
         COMP_WORDS=(domkeep sn); COMP_CWORD=1; _domkeep domkeep sn domkeep; echo \"${{COMPREPLY[@]}}\"'"
    );
    let offered = root.run(&script)?;
    if offered.trim() != "snapshot" {
        return Err(format!("bash completes `domkeep sn` to {offered:?}"));
    }
    println!("bash: `domkeep sn` is completed to `snapshot`");
    Ok(())
}

fn manual_is_found(root: &Root) -> Result<(), Failure> {
    root.run("apt-get update 2>&1")?;
    root.run("apt-get install --yes --no-install-recommends man-db 2>&1")?;
    let pages = root.run("dpkg --listfiles domkeep | grep '/man/man./.*[.]gz$'")?;
    for page in pages.lines() {
        let name = page.rsplit('/').next().unwrap_or_default().trim_end_matches(".gz");
        let (name, section) = name.rsplit_once('.').ok_or("a page without a section")?;
        root.run(&format!("test $(man -w {section} {name}) = {page}"))?;
        let said =
            root.run(&format!("MANWIDTH=100 man --warnings {section} {name} 2>&1 >/dev/null"))?;
        if !said.trim().is_empty() {
            return Err(format!("man has something to say about {page}: {said}"));
        }
    }
    println!("man: finds and shows all {} pages", pages.lines().count());
    Ok(())
}

/// Both ways in which a program in C uses the library.
fn programs_link(root: &Root, release: &Release) -> Result<(), Failure> {
    root.run("apt-get install --yes --no-install-recommends gcc libc6-dev pkgconf 2>&1")?;
    root.put("tmp/program.c", PROGRAM.as_bytes())?;
    root.run(&format!("test -f /{HEADER}"))?;
    println!("pkg-config: {}", root.run("pkg-config --cflags --libs domkeep")?.trim());
    let strict = "gcc -Wall -Wextra -Werror -o /tmp/program /tmp/program.c";
    for (how, link, linked) in [("shared", SHARED, true), ("static", STATIC, false)] {
        root.run(&format!("{strict} {link}"))?;
        let version = root.run("/tmp/program")?;
        let needs = root.run("objdump -p /tmp/program | grep -c libdomkeep.so.0 || true")?;
        if version.trim() != release.upstream || (needs.trim() == "1") != linked {
            return Err(format!("a program that is linked {how} prints {version:?}"));
        }
        println!("a program in C, {how}: {}", version.trim());
    }
    Ok(())
}

fn same(before: &[String], after: &[String]) -> Result<(), Failure> {
    let new: Vec<_> = after.iter().filter(|name| !before.contains(name)).collect();
    let gone: Vec<_> = before.iter().filter(|name| !after.contains(name)).collect();
    if new.is_empty() && gone.is_empty() {
        return Ok(());
    }
    Err(format!("after it was removed there are {new:?}, and there are no more {gone:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;

    #[test]
    fn the_page_on_c_links_as_the_check_does() {
        let page = fs::read_to_string(root().join("docs/c-api.md")).expect("it is in the sources");
        for link in [SHARED, STATIC] {
            assert!(page.contains(&format!("`gcc program.c {link}`")), "{link}");
        }
    }
}
