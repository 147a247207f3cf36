//! A clean Debian 12, in a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::{answer, command};
use super::{emptied, failed};
use crate::command::{Failure, describe, execute};

const SUITE: &str = "bookworm";

/// Where packages come from if this machine's apt does not say.
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A root to work in; it is removed with this value.
pub(super) struct Root {
    directory: PathBuf,
}

impl Root {
    /// A copy of a minimal Debian 12, which is made once and kept in this directory.
    pub(super) fn clean(packages: &Path) -> Result<Self, Failure> {
        let kept = packages.join(SUITE);
        // The last step of debootstrap removes its own directory.
        if !kept.join("etc/debian_version").is_file() || kept.join("debootstrap").exists() {
            let made = emptied(kept.clone())?;
            let mut debootstrap = command("debootstrap", &["--variant=minbase"]);
            debootstrap.arg(format!("--keyring={KEYRING}")).arg(SUITE).arg(&made).arg(mirror());
            execute(debootstrap)?;
        }
        let directory = emptied(packages.join("root"))?;
        let mut copy = command("cp", &["--archive", "--reflink=auto"]);
        answer_of(copy.arg(kept.join(".")).arg(&directory))?;
        let root = Self { directory };
        // Names are looked up as they are here.
        root.put("etc/resolv.conf", &fs::read("/etc/resolv.conf").unwrap_or_default())?;
        Ok(root)
    }

    /// Runs a shell command inside, in a world of its own: with no process, mount or variable of this machine.
    pub(super) fn run(&self, line: &str) -> Result<String, Failure> {
        answer(self.inside(line)).map_err(|error| format!("in the clean root: {line}\n{error}"))
    }

    fn inside(&self, line: &str) -> Command {
        let mut unshare = command("unshare", &["--mount", "--pid", "--fork", "--kill-child"]);
        let mut proc = std::ffi::OsString::from("--mount-proc=");
        proc.push(self.directory.join("proc"));
        unshare.arg(proc).args(["--", "chroot"]).arg(&self.directory);
        unshare.args(["/usr/bin/env", "-i", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"]);
        unshare.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        unshare.args(["DEBIAN_FRONTEND=noninteractive", "sh", "-euc", line]);
        unshare
    }

    /// Writes a file inside.
    pub(super) fn put(&self, name: &str, octets: &[u8]) -> Result<(), Failure> {
        let path = self.directory.join(name);
        fs::write(&path, octets).map_err(failed("write", &path))
    }

    /// Every file, directory and link inside, but for what the system itself keeps account in.
    pub(super) fn listing(&self) -> Result<Vec<String>, Failure> {
        let pruned = ["proc", "dev", "tmp", "var/lib/dpkg", "var/lib/apt", "var/cache", "var/log"];
        let pruned = pruned.map(|name| format!("-path ./{name}")).join(" -o ");
        let found = self.run(&format!("cd / && find . \\( {pruned} \\) -prune -o -print"))?;
        let mut names: Vec<_> = found.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Nothing is mounted below it here.
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} is left behind: {error}", self.directory.display());
        }
    }
}

fn answer_of(command: &mut Command) -> Result<(), Failure> {
    let output = command.output().map_err(|error| format!("{}: {error}", describe(command)))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{} failed: {}", describe(command), String::from_utf8_lossy(&output.stderr)))
}

/// The mirror that this machine's apt uses for Debian 12.
fn mirror() -> String {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten();
    let mut parts: Vec<_> = parts.filter_map(|entry| Some(entry.ok()?.path())).collect();
    parts.sort();
    let known = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    };
    texts.extend(
        parts.iter().filter(|path| known(path)).filter_map(|path| fs::read_to_string(path).ok()),
    );
    texts.iter().find_map(|text| mirror_in(text)).unwrap_or_else(|| MIRROR.to_owned())
}

/// Of one file, in either of apt's forms: where the suite itself comes from, not its updates.
fn mirror_in(text: &str) -> Option<String> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "deb").then_some(())?;
        let mut words = words.skip_while(|word| word.starts_with('[') || word.ends_with(']'));
        let uri = words.next()?;
        (words.next()? == SUITE).then(|| uri.to_owned())
    };
    let stanza = |stanza: &str| {
        let field =
            |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let suites = field("Suites")?;
        suites.split_whitespace().find(|suite| *suite == SUITE)?;
        field("URIs")?.split_whitespace().next().map(str::to_owned)
    };
    text.lines().find_map(line).or_else(|| text.split("\n\n").find_map(stanza))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_both_forms_of_apts_sources() {
        let stanzas = "Types: deb\nURIs: http://a/debian-security\nSuites: bookworm-security\n\n\
                       Types: deb\n# words\nURIs: http://b/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        assert_eq!(mirror_in(stanzas).as_deref(), Some("http://b/debian"));
        let lines = "# deb http://no/debian bookworm main\ndeb http://a/s bookworm-security main\n\
                     deb [arch=amd64 signed-by=/k] https://c/debian bookworm main\n";
        assert_eq!(mirror_in(lines).as_deref(), Some("https://c/debian"));
        assert_eq!(mirror_in("deb http://d/ubuntu noble main\n"), None);
    }
}
