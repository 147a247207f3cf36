//! The manual page.

use std::env;
use std::io;
use std::path::Path;

use clap::CommandFactory;

use crate::manual_page::{Page, Section};
use crate::options::Options;

/// The name that the program has where nobody has installed it under another.
const NAME: &str = "xenstored";

/// The page in roff. It bears the name under which this program was started, since a package may give it another than the
/// stock daemon's.
pub(crate) fn page() -> io::Result<Vec<u8>> {
    let started = env::args_os().next();
    let name = started.as_deref().and_then(|path| Path::new(path).file_name()?.to_str());
    of(name.unwrap_or(NAME)).text()
}

fn of(name: &str) -> Page {
    let mut command = Options::command().bin_name(name).display_name(name);
    command.build();
    let more = vec![
        Section::terms("SIGNALS", SIGNALS),
        Section::terms("EXIT STATUS", EXIT_STATUS),
        Section::terms("FILES", FILES),
        Section::terms("ENVIRONMENT", ENVIRONMENT),
        Section::examples(EXAMPLES),
        Section::see_also(&SEE_ALSO.map(str::to_owned)),
    ];
    Page { command, section: "8", more }
}

const SIGNALS: [(&str, &str); 2] = [
    (
        "SIGTERM, SIGINT",
        "The daemon ends. On a Xen host nothing that uses Xenstore works from then on.",
    ),
    ("SIGHUP", "Nothing: a terminal that goes away is no reason to end."),
];

const EXIT_STATUS: [(&str, &str); 3] = [
    ("0", "It was told to end, or has started in the background."),
    ("1", "It cannot serve; standard error or the log says why."),
    ("2", "What was typed makes no sense."),
];

const FILES: [(&str, &str); 4] = [
    (
        "/run/xenstored/socket",
        "The socket that clients connect to, where no variable names another.",
    ),
    (
        "/run/xenstored/state_dump",
        "What goes to the successor of a live update, beside the socket.",
    ),
    ("/dev/xen/evtchn, gntdev, privcmd, hypercall", "How domains are reached on a Xen host."),
    (
        "/usr/share/doc/domkeep/docs/xenstored-guide.md",
        "Changing over on a host with running guests, and back; xenstored-behaviour.md beside it says what is different \
         from the stock daemon.",
    ),
];

const ENVIRONMENT: [(&str, &str); 3] = [
    ("XENSTORED_PATH", "The socket."),
    (
        "XENSTORED_RUNDIR",
        "The directory of the socket, which is then called socket; /run/xenstored without it.",
    ),
    ("XENSTORED_TRACE", "The file that the log is appended to, as with --trace-file."),
];

const EXAMPLES: [(&str, &str); 3] = [
    (
        "domkeep-xenstored --no-fork --no-rings",
        "A Xenstore for clients on the socket, in the foreground, on a machine without Xen.",
    ),
    (
        "xenstore-control live-update -c \"--no-fork --database /run/xenstored/store\" /usr/sbin/domkeep-xenstored",
        "On a Xen host, in the place of the running stock daemon; no guest and no client notices.",
    ),
    (
        "systemctl enable domkeep-xenstored",
        "From the next boot on, in the place of the stock daemon; on Debian not without the lines in /etc/default/xen that the \
         guide has. Installing the package does not do that.",
    ),
];

const SEE_ALSO: [&str; 3] = ["domkeep(1)", "domkeep-xenstore(1)", "xenstore(1)"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_bears_the_name_of_the_program_and_has_words_for_every_option() {
        let page = of("domkeep-xenstored");
        let text = String::from_utf8(page.text().unwrap()).unwrap();
        // Where hyphens are escaped is clap_mangen's affair.
        let plain = text.replace("\\-", "-");
        assert!(plain.contains(".TH domkeep-xenstored 8 "), "{text}");
        assert!(plain.contains("\ndomkeep-xenstored - A Xenstore daemon"), "{text}");
        for argument in page.command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let words = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!words.trim().is_empty(), "{}", argument.get_id());
        }
        for heading in ["SIGNALS", "FILES", "ENVIRONMENT", "EXAMPLES"] {
            assert_eq!(text.matches(&format!(".SH {heading}\n")).count(), 1, "{heading}: {text}");
        }
    }
}
