//! The domkeep command: what a Xen domain's configuration is now.
//!
//! It parses arguments, calls the libraries, and prints: answers on stdout, everything else on stderr. What is asked of a
//! domain, a template store, a Xenstore or a stream is done by `libxl-config`, `xsclient`, `xenstored`, `xenstore-migration` and
//! `snapshot`.
//!
//! ```text
//! arguments   exactly what was typed
//! places      where Xenstore and the templates are
//! commands/   one module a subcommand
//! domains     a name or a number to a domain
//! changes     waits until a domain's configuration may have changed
//! explain     a report in words
//! manual      manual pages, made from the arguments
//! output      for people or for programs
//! exit        what can go wrong, and the exit status for it
//! ```

#![forbid(unsafe_code)]

mod arguments;
mod changes;
mod commands;
mod domains;
mod exit;
mod explain;
mod logs;
mod manual;
mod manual_page;
mod output;
mod places;

use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    logs::start(arguments.global.verbose);
    let mut output = Output::stdout(arguments.global.json);
    match commands::run(arguments, &mut output) {
        Ok(exit) => exit.into(),
        Err(error) => error.tell(),
    }
}
