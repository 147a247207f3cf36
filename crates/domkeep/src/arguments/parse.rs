//! From words to [`Arguments`], with no more of the definition than the words need.
//!
//! The whole definition, with all that help says, is some hundred kibibytes on the heap, and every page of it is a fault. So
//! the words are parsed with the global options and the one subcommand that they name first. What that understands, the whole
//! definition understands in the same way: the part has nothing that the whole has not, and a word that only the whole knows is
//! an error in the part. Of any error and of help, the whole definition has the words.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches, Parser, Subcommand};

use super::{
    Arguments, Config, Device, Global, List, Retrieve, Simulate, Snapshot, Stream, Template,
    Xenstore,
};

/// What somebody sees who types the name of the program alone: where to begin, not everything that there is.
const OVERVIEW: &str = concat!(
    "domkeep ",
    env!("CARGO_PKG_VERSION"),
    ": what a Xen domain's configuration is now, and whole domains saved and brought back

  domkeep demo                       the main job, on a machine without Xen
  domkeep list                       every domain of this host
  domkeep retrieve DOMAIN --report   one of them, and where every value came from
  domkeep device list                devices, and which of them are half plugged
  domkeep snapshot plan DOMAIN ...   what saving it would do

`domkeep help` lists all commands, `domkeep help COMMAND` describes one, `man domkeep` and `domkeep man` tell more.
"
);

/// The exit status of clap for words that make no sense.
const USAGE: i32 = 2;

impl Arguments {
    /// What this process was asked for. Ends it, as clap does, after help, the version, or what is wrong with the words.
    pub(crate) fn of_process() -> Self {
        let words: Vec<OsString> = std::env::args_os().collect();
        if words.len() < 2 {
            // If stderr is closed there is nobody to tell.
            let _ = io::stderr().write_all(OVERVIEW.as_bytes());
            std::process::exit(USAGE);
        }
        match in_part(&words) {
            Some(Ok(arguments)) => arguments,
            Some(Err(version)) => version.exit(),
            None => Self::parse_from(words),
        }
    }
}

/// What the words ask for, or the version if they ask for that; `None` if only the whole definition can tell.
fn in_part(words: &[OsString]) -> Option<Result<Arguments, clap::Error>> {
    let program = Command::new("domkeep").version(env!("CARGO_PKG_VERSION"));
    let mut program = Global::augment_args(program);
    if let Some(named) = words.iter().skip(1).find_map(|word| subcommand(word.to_str()?)) {
        program = program.subcommand(named);
    }
    match program.try_get_matches_from(words) {
        Ok(mut matches) => Arguments::from_arg_matches_mut(&mut matches).ok().map(Ok),
        Err(error) if error.kind() == ErrorKind::DisplayVersion => Some(Err(error)),
        Err(_) => None,
    }
}

/// The subcommand of that name, but for what help says of it.
fn subcommand(name: &str) -> Option<Command> {
    let (name, define) = SUBCOMMANDS.into_iter().find(|(known, _)| *known == name)?;
    Some(define(Command::new(name)))
}

/// What gives a subcommand its arguments.
type Define = fn(Command) -> Command;

/// Those with arguments for whose answer somebody may wait.
const SUBCOMMANDS: [(&str, Define); 9] = [
    ("retrieve", Retrieve::augment_args),
    ("list", List::augment_args),
    ("config", Config::augment_subcommands),
    ("template", Template::augment_subcommands),
    ("device", Device::augment_subcommands),
    ("xenstore", Xenstore::augment_subcommands),
    ("stream", Stream::augment_subcommands),
    ("simulate", Simulate::augment_subcommands),
    ("snapshot", Snapshot::augment_subcommands),
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_part_understands_words_as_the_whole_does() {
        for line in [
            "domkeep list",
            "domkeep list -l web 7",
            "domkeep --json list --hypervisor never -v",
            "domkeep list --json --timeout 3 -vv",
            "domkeep --templates none retrieve web --report",
            "domkeep --templates=userdata:list list",
            "domkeep config diff a b",
            "domkeep template show 7",
            "domkeep xenstore read /a /b",
            "domkeep device list",
            "domkeep list list",
            "domkeep list -- config",
        ] {
            let part =
                in_part(&words(line)).unwrap_or_else(|| panic!("{line}: only the whole can"));
            let whole = Arguments::try_parse_from(words(line));
            match (part, whole) {
                (Ok(part), Ok(whole)) => assert_eq!(format!("{part:?}"), format!("{whole:?}")),
                (part, whole) => panic!("{line}: {part:?}, {whole:?}"),
            }
        }
    }

    #[test]
    fn what_the_part_does_not_know_is_left_to_the_whole() {
        for line in [
            "domkeep",
            "domkeep demo",
            "domkeep lists",
            "domkeep --help",
            "domkeep help list",
            "domkeep list --help",
            "domkeep list --version",
            "domkeep list --longer",
            "domkeep --long",
            "domkeep config",
            "domkeep retrieve",
            "domkeep --templates etcd:x list",
            // The first subcommand that is named need not be the one that is meant.
            "domkeep --xenstore config list",
        ] {
            assert!(in_part(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn the_version_is_told_without_any_subcommand() {
        let version = |line| in_part(&words(line)).unwrap().unwrap_err().to_string();
        let whole = Arguments::try_parse_from(words("domkeep --version")).unwrap_err().to_string();
        assert_eq!(version("domkeep --version"), whole);
        assert_eq!(version("domkeep -V"), whole);
    }

    #[test]
    fn a_subcommand_has_the_same_arguments_in_the_part() {
        fn same(part: &Command, whole: &Command) {
            let arguments = |of: &Command| format!("{:?}", of.get_arguments().collect::<Vec<_>>());
            assert_eq!(arguments(part), arguments(whole), "{}", whole.get_name());
            assert_eq!(part.get_subcommands().count(), whole.get_subcommands().count());
            for (part, whole) in part.get_subcommands().zip(whole.get_subcommands()) {
                assert_eq!(part.get_name(), whole.get_name());
                same(part, whole);
            }
        }
        let whole = Arguments::command();
        let mut left = Vec::new();
        for whole in whole.get_subcommands() {
            match subcommand(whole.get_name()) {
                Some(part) => same(&part, whole),
                None => left.push(whole.get_name()),
            }
        }
        assert_eq!(left, ["demo", "guard", "completions", "man"]);
    }
}
