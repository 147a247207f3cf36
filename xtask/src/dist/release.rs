//! What is released: version, date, and what has changed, as Debian writes it.

use std::path::Path;
use std::process::Command;

use super::failed;
use super::programs::{answer, command};
use crate::command::Failure;

/// Debian's own part of the version: how often this version was packed.
const REVISION: u32 = 1;

/// Who packs, as in packaging/debian/control.in.
const FIELD: &str = "Maintainer: ";

/// A version of the project.
pub(super) struct Release {
    /// As cargo knows it.
    pub(super) upstream: String,
    /// As Debian names this machine's kind of processor.
    pub(super) architecture: String,
    /// The directory in which Debian keeps its libraries.
    pub(super) multiarch: String,
    /// Seconds since 1970: the date of everything in the package.
    pub(super) epoch: u64,
    maintainer: String,
    changelog: String,
}

impl Release {
    /// That of the sources in this directory. The date is `SOURCE_DATE_EPOCH`, else that of the last commit.
    pub(super) fn of_sources(source: &Path) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = source.join(name);
            std::fs::read_to_string(&path).map_err(failed("read", &path))
        };
        let manifest = read("Cargo.toml")?;
        let upstream = manifest
            .lines()
            .find_map(|line| line.strip_prefix("version = \"")?.split('"').next())
            .ok_or("Cargo.toml has no version")?
            .to_owned();
        let control = read("packaging/debian/control.in")?;
        let maintainer = control.lines().find_map(|line| line.strip_prefix(FIELD));
        let asked = |program: &str, arguments: &[&str]| {
            answer(command(program, arguments)).map(|text| text.trim_end().to_owned())
        };
        Ok(Self {
            upstream,
            architecture: asked("dpkg", &["--print-architecture"])?,
            multiarch: asked("dpkg-architecture", &["-qDEB_HOST_MULTIARCH"])?,
            epoch: epoch(source)?,
            maintainer: maintainer.ok_or("control.in has no maintainer")?.to_owned(),
            changelog: read("CHANGELOG.md")?,
        })
    }

    /// As dpkg knows it.
    pub(super) fn version(&self) -> String {
        format!("{}-{REVISION}", self.upstream)
    }

    pub(super) fn file_name(&self) -> String {
        format!("domkeep_{}_{}.deb", self.version(), self.architecture)
    }

    /// CHANGELOG.md as a Debian changelog: each of its versions an entry, what is not released being that of this package.
    pub(super) fn debian_changelog(&self) -> Result<String, Failure> {
        let date = answer(command("date", &["-u", "-R", "-d", &format!("@{}", self.epoch)]))?;
        let signed = format!("\n -- {}  {}\n", self.maintainer, date.trim_end());
        let mut text = String::new();
        for part in self.changelog.split("\n## ").skip(1) {
            let (heading, body) = part.split_once('\n').unwrap_or((part, ""));
            let named =
                heading.trim_start_matches('[').split([']', ' ']).next().unwrap_or_default();
            let upstream = if named == "Unreleased" { &self.upstream } else { named };
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("domkeep ({upstream}-{REVISION}) unstable; urgency=medium\n"));
            text.push_str(&entries(body));
            text.push_str(&signed);
        }
        if text.is_empty() { Err("CHANGELOG.md has no version".to_owned()) } else { Ok(text) }
    }
}

fn epoch(source: &Path) -> Result<u64, Failure> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let mut git = Command::new("git");
            git.args(["log", "-1", "--format=%ct"]).current_dir(source);
            answer(git).map_err(|error| {
                format!(
                    "SOURCE_DATE_EPOCH is not set, and there is no commit to take it from: {error}"
                )
            })?
        }
    };
    text.trim().parse().map_err(|_| format!("SOURCE_DATE_EPOCH is no number: {text:?}"))
}

/// What a version has brought: sections and items, in lines that are short enough.
fn entries(body: &str) -> String {
    const WIDTH: usize = 78;
    let mut text = String::new();
    let mut items: Vec<(&str, String)> = Vec::new();
    for line in body.lines() {
        if let Some(section) = line.strip_prefix("### ") {
            items.push(("", format!("[ {section} ]")));
        } else if let Some(item) = line.strip_prefix("- ") {
            items.push(("* ", item.to_owned()));
        } else if let (Some((_, item)), true) = (items.last_mut(), line.starts_with("  ")) {
            item.push(' ');
            item.push_str(line.trim());
        }
    }
    for (bullet, item) in items {
        text.push('\n');
        let mut line = format!("  {bullet}");
        for word in plain(&item).split_whitespace() {
            if line.chars().count() + word.chars().count() > WIDTH {
                text.push_str(line.trim_end());
                text.push('\n');
                line = format!("  {}", " ".repeat(bullet.len()));
            }
            line.push_str(word);
            line.push(' ');
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Without the marks of Markdown: of a link the words, of code its text.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, behind)) = rest.split_once("](") {
        let Some((before, words)) = before.rsplit_once('[') else { break };
        let Some((_, after)) = behind.split_once(')') else { break };
        text.push_str(before);
        text.push_str(words);
        rest = after;
    }
    text.push_str(rest);
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(changelog: &str) -> Release {
        Release {
            upstream: "0.2.0".into(),
            architecture: "amd64".into(),
            multiarch: "x86_64-linux-gnu".into(),
            epoch: 1_700_000_000,
            maintainer: "A Name <a@b.invalid>".into(),
            changelog: changelog.into(),
        }
    }

    #[test]
    fn a_changelog_becomes_one_that_debian_reads() {
        let text = "# Changelog\n\nWords.\n\n## Unreleased\n\n### Added\n\n- `one` thing, which takes more than a line to be told \
                    ([here](docs/one.md)), and\n  goes on.\n- another\n\n## 0.1.0 - 2026-01-01\n\n### Fixed\n\n- a fault\n";
        let expected = "domkeep (0.2.0-1) unstable; urgency=medium\n\n  [ Added ]\n\n  * one thing, which takes more than a line \
                        to be told (here), and goes on.\n\n  * another\n\n -- A Name <a@b.invalid>  Tue, 14 Nov 2023 22:13:20 +0000\n\n\
                        domkeep (0.1.0-1) unstable; urgency=medium\n\n  [ Fixed ]\n\n  * a fault\n\n -- A Name <a@b.invalid>  Tue, \
                        14 Nov 2023 22:13:20 +0000\n";
        assert_eq!(release(text).debian_changelog().expect("there are versions"), expected);
        assert!(release("# Changelog\n").debian_changelog().is_err());
    }

    #[test]
    fn no_line_of_a_changelog_is_too_long_for_debian() {
        let changelog = Path::new(env!("CARGO_MANIFEST_DIR")).join("../CHANGELOG.md");
        let changelog = std::fs::read_to_string(changelog).expect("it is in the repository");
        let text = release(&changelog).debian_changelog().expect("there is a version");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("  * domkeep retrieve and domkeep list say what"), "{text}");
    }
}
