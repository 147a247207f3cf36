//! The manual: a page for the command and for each of its subcommands, `domkeep-snapshot-save.1` and so on.

mod examples;

use clap::{Command, CommandFactory};

use crate::arguments::Arguments;
use crate::manual_page::{Page, Section};

/// The page of the command that these words name, or `None` if there is no such command.
pub(crate) fn page(words: &[String]) -> Option<Page> {
    let root = defined();
    let mut found = &root;
    for word in words {
        found = found.find_subcommand(word)?;
    }
    Some(page_of(&root, found))
}

/// Every page with the name of its file.
pub(crate) fn pages() -> Vec<(String, Page)> {
    let root = defined();
    let mut pages = Vec::new();
    let mut left = vec![&root];
    while let Some(command) = left.pop() {
        left.extend(children(command));
        pages.push((format!("{}.1", name(command)), page_of(&root, command)));
    }
    pages.sort_by(|(one, _), (other, _)| one.cmp(other));
    pages
}

/// With full names of subcommands and the global options in each, and without those that only say what the pages say.
fn defined() -> Command {
    let mut root = Arguments::command().disable_help_subcommand(true);
    root.build();
    root
}

fn children(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|child| !child.is_hide_set())
}

/// `domkeep-config-check`
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page_of(root: &Command, command: &Command) -> Page {
    let name = name(command);
    // The name without that of the program: "", "config", "config-check".
    let below = name.strip_prefix("domkeep").unwrap_or(&name).trim_start_matches('-');
    let reach = Reach::of(below);
    let more = vec![
        Section::terms("EXIT STATUS", EXIT_STATUS),
        Section::terms("FILES", reach.files(below)),
        Section::terms("ENVIRONMENT", reach.environment(below)),
        Section::examples(examples::of(below)),
        Section::see_also(&see_also(root, command, below)),
    ];
    Page { command: command.clone(), section: "1", more }
}

/// What the command asks, which says whose files and variables matter to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// A Xenstore, and with it templates.
    Host,
    /// Files that are named on the command line.
    Files,
}

impl Reach {
    fn of(below: &str) -> Self {
        match below {
            "stream-extract" | "stream-apply" => Self::Host,
            "snapshot-plan" | "snapshot-save" | "snapshot-restore" | "snapshot-recover" => {
                Self::Host
            }
            "" | "retrieve" | "list" => Self::Host,
            _ => {
                let family = below.split('-').next().unwrap_or_default();
                match family {
                    "template" | "device" | "xenstore" => Self::Host,
                    _ => Self::Files,
                }
            }
        }
    }

    fn files(self, below: &str) -> Vec<(&'static str, &'static str)> {
        let mut files = Vec::new();
        if self == Self::Host {
            files.extend(XENSTORE_FILES);
            files.push(TEMPLATE_FILES);
        }
        match below {
            "device-attach" | "device-detach" | "device-repair" => files.push(SCRIPT_FILES),
            "snapshot-save" | "snapshot-plan" => files.push(QMP_FILES),
            "simulate-serve" => files.extend(SIMULATED_FILES),
            "demo" => files.push(DEMO_FILES),
            _ => {}
        }
        files
    }

    fn environment(self, below: &str) -> Vec<(&'static str, &'static str)> {
        let mut variables = Vec::new();
        if self == Self::Host {
            variables.extend(XENSTORE_VARIABLES);
        }
        if below == "demo" {
            variables.push((
                "TMPDIR",
                "Where the demonstration's own directory is made; /tmp without it.",
            ));
        }
        // Of options that every command takes.
        variables.extend([TEMPLATES_VARIABLE, LOG_VARIABLE]);
        variables
    }
}

const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "Done."),
    (
        "1",
        "Done, and the answer is bad news: a finding, a difference, a loss, something that is not there, is refused or \
         has failed.",
    ),
    ("2", "What was typed makes no sense."),
    (
        "3",
        "Out of reach: Xenstore, the template store or a file cannot be opened, read or written, or gave no answer in \
         time.",
    ),
];

const XENSTORE_FILES: [(&str, &str); 2] = [
    (
        "/run/xenstored/socket",
        "The socket of the Xenstore, where neither --xenstore nor a variable names another.",
    ),
    ("/dev/xen/xenbus", "The device that is tried where nobody serves the socket."),
];

const TEMPLATE_FILES: (&str, &str) = (
    "/var/lib/xen",
    "The templates, as libxl keeps them, where neither --templates nor a variable names another place.",
);

const SCRIPT_FILES: (&str, &str) =
    ("/etc/xen/scripts", "Hotplug scripts that are named without a path.");

const QMP_FILES: (&str, &str) = (
    "/run/xen/qmp-libxl-DOMID",
    "The QMP socket of a domain's QEMU as libxl names it, where --qmp names no other.",
);

const SIMULATED_FILES: [(&str, &str); 3] = [
    ("DIR/host", "The socket of the simulated host."),
    ("DIR/xenstore", "The socket of its Xenstore."),
    ("DIR/templates", "Its templates."),
];

const DEMO_FILES: (&str, &str) = (
    "qemu-img, qemu-storage-daemon",
    "Programs of QEMU (Debian: qemu-utils), searched in PATH. Without them the demonstration says so and uses raw images.",
);

const XENSTORE_VARIABLES: [(&str, &str); 2] = [
    ("XENSTORED_PATH", "The socket of the Xenstore."),
    ("XENSTORED_RUNDIR", "The directory of that socket, which is then called socket."),
];

const TEMPLATES_VARIABLE: (&str, &str) =
    ("DOMKEEP_TEMPLATES", "Where the templates are, as with --templates, which goes before it.");

const LOG_VARIABLE: (&str, &str) =
    ("DOMKEEP_LOG", "How much is logged to stderr: error, warn, info, debug or trace.");

/// The page above, those beside, and what is of the same subject elsewhere.
fn see_also(root: &Command, command: &Command, below: &str) -> Vec<String> {
    let own = name(command);
    let mut names = Vec::new();
    if let Some((above, _)) = own.rsplit_once('-') {
        names.push(above.to_owned());
        let family = root.get_subcommands().find(|family| name(family) == above);
        let beside = family.into_iter().flat_map(children).map(name);
        names.extend(beside.filter(|beside| *beside != own));
    }
    let mut pages: Vec<_> = names.into_iter().map(|name| format!("{name}(1)")).collect();
    pages.extend(elsewhere(below).iter().map(|page| (*page).to_owned()));
    pages
}

fn elsewhere(below: &str) -> &'static [&'static str] {
    match below.split('-').next().unwrap_or_default() {
        "xenstore" => &["domkeep-xenstored(8)", "xenstore(1)"],
        "stream" => &["domkeep-xenstored(8)"],
        "snapshot" => &["qemu-img(1)", "xl(1)"],
        "simulate" => &["domkeep-snapshot(1)", "qemu-storage-daemon(1)"],
        "config" | "template" | "completions" | "man" => &["xl(1)"],
        "demo" => &["domkeep-simulate(1)", "domkeep-snapshot(1)"],
        "" => &["domkeep-xenstored(8)", "xl(1)"],
        _ => &["xl(1)", "xl-disk-configuration(5)"],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::process::{Command as Process, Stdio};

    use clap::Parser;

    use super::*;
    use crate::manual_page::Entry;

    fn every_command() -> Vec<Command> {
        let root = defined();
        let mut commands = vec![root];
        let mut next = 0;
        while next < commands.len() {
            let below: Vec<_> = children(&commands[next]).cloned().collect();
            commands.extend(below);
            next += 1;
        }
        commands
    }

    #[test]
    fn every_subcommand_has_its_page() {
        let pages: BTreeSet<_> = pages().into_iter().map(|(file, _)| file).collect();
        for expected in ["domkeep.1", "domkeep-retrieve.1", "domkeep-snapshot-save.1"] {
            assert!(pages.contains(expected), "{expected} is not in {pages:?}");
        }
        let expected: BTreeSet<_> =
            every_command().iter().map(|command| format!("{}.1", name(command))).collect();
        assert_eq!(pages, expected);
        assert!(!pages.contains("domkeep-guard.1"), "nobody types that");
        assert!(pages.iter().all(|file| !file.contains("-help")), "{pages:?}");
    }

    #[test]
    fn no_page_has_an_option_or_an_argument_without_words() {
        for command in every_command() {
            assert!(command.get_about().is_some(), "{}", name(&command));
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let words = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!words.trim().is_empty(), "{}: {}", name(&command), argument.get_id());
            }
        }
    }

    #[test]
    fn every_command_that_does_something_has_examples_and_it_understands_them() {
        for command in every_command() {
            let name = name(&command);
            let below = name.strip_prefix("domkeep").unwrap().trim_start_matches('-');
            if command.has_subcommands() && !below.is_empty() {
                assert_eq!(examples::of(below).len(), 0, "{name}");
                continue;
            }
            assert!(!examples::of(below).is_empty(), "{name} has no example");
            for (line, words) in examples::of(below) {
                assert!(words.ends_with('.'), "{words:?}");
                // The first command of the line; what is behind is the shell's.
                let typed = line.split(" | ").find(|part| part.starts_with("domkeep ")).unwrap();
                let typed = typed.split(" > ").next().unwrap().trim_end_matches(" &");
                let typed: Vec<_> = typed.split_whitespace().filter(|word| *word != "\\").collect();
                let parsed = Arguments::try_parse_from(&typed);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                let named = below.replace('-', " ");
                assert!(typed.join(" ").contains(&named), "{line} is no example of {named}");
            }
        }
    }

    #[test]
    fn a_page_names_only_pages_that_there_are() {
        let own: BTreeSet<_> = pages()
            .into_iter()
            .map(|(file, _)| format!("{}(1)", file.strip_suffix(".1").unwrap()))
            .collect();
        let root = defined();
        for command in every_command() {
            let name = name(&command);
            let below = name.strip_prefix("domkeep").unwrap().trim_start_matches('-');
            for page in see_also(&root, &command, below) {
                let ours = page.starts_with("domkeep") && page != "domkeep-xenstored(8)";
                assert!(!ours || own.contains(&page), "{name}: {page}");
                assert_ne!(page, format!("{name}(1)"));
            }
        }
    }

    #[test]
    fn every_variable_that_an_option_is_read_from_is_in_the_page() {
        let root = defined();
        let mut known = 0;
        for command in every_command() {
            let page = page_of(&root, &command);
            let section = page.more.iter().find(|section| section.heading == "ENVIRONMENT");
            let entries = &section.unwrap().entries;
            for variable in command.get_arguments().filter_map(|argument| argument.get_env()) {
                let told = entries
                    .iter()
                    .any(|entry| matches!(entry, Entry::Term(term, _) if variable == *term));
                assert!(told, "{}: {}", name(&command), variable.display());
                known += 1;
            }
        }
        assert!(known > 0, "clap does not tell");
    }

    #[test]
    fn groff_has_nothing_to_say_about_any_page() {
        const NAME: &str = "groff_has_nothing_to_say_about_any_page";
        if Process::new("groff").arg("--version").output().is_err() {
            println!("skipped: {NAME}: groff is not installed");
            return;
        }
        for (file, page) in pages() {
            let mut groff = Process::new("groff");
            groff.args(["-man", "-Tutf8", "-ww", "-z"]);
            groff.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut groff = groff.spawn().unwrap();
            groff.stdin.take().unwrap().write_all(&page.text().unwrap()).unwrap();
            let said = groff.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!(said, "", "{file}");
        }
    }

    #[test]
    fn a_page_has_the_sections_that_clap_does_not_know() {
        let words = ["snapshot", "save"].map(str::to_owned);
        let text = String::from_utf8(page(&words).unwrap().text().unwrap()).unwrap();
        for heading in ["NAME", "SYNOPSIS", "OPTIONS", "FILES", "ENVIRONMENT", "EXAMPLES"] {
            assert_eq!(text.matches(&format!(".SH {heading}\n")).count(), 1, "{heading}: {text}");
        }
        for heading in ["EXIT STATUS", "SEE ALSO"] {
            assert!(text.contains(&format!(".SH \"{heading}\"\n")), "{heading}: {text}");
        }
        assert!(text.contains("domkeep\\-snapshot\\-restore(1)"), "{text}");
        assert!(page(&["nosuch".to_owned()]).is_none());
    }
}
