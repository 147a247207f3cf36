//! Exactly what was typed.

mod device;
mod parse;
mod simulate;
mod snapshot;
mod stream;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use libxl_config::template::UserdataDir;
use uuid::Uuid;
use xsclient::{DomId, Path, PathOrSpecial};

pub(crate) use device::{Attach, ClassChoice, Detach, Device, How, Repair};
pub(crate) use simulate::{ImageFormat, NewDomain, Simulate};
pub(crate) use snapshot::{
    Asked, CodecChoice, ControlAt, DepthChoice, DiskSpecAction, FormatChoice, ImageSpec,
    MemorySpec, Packing, Recover, Restore, RestoreDiskSpec, Save, SaveWhat, Snapshot, Transcode,
    UuidSpec, Verify,
};
pub(crate) use stream::{Apply, Extract, Form, Renumbering, Stream, UnknownChoice};

/// Most seconds that may be asked for: a year, so that no sum of times overflows.
const SECONDS_MAX: f64 = 366.0 * 24.0 * 3600.0;

/// Says what a Xen domain's configuration is now: its template, with the live Xenstore laid over it.
#[derive(Debug, Parser)]
#[command(
    name = "domkeep",
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 done; 1 done, and the answer is bad news (a finding, a difference, a loss, a domain or \
                  node that is not there or failed); 2 usage; 3 out of reach (Xenstore, template store, file)."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Socket (or xenbus device) of the Xenstore; without it, where libxenstore searches
    #[arg(long, global = true, value_name = "SOCKET")]
    pub(crate) xenstore: Option<PathBuf>,
    /// Where the templates are: userdata:DIR (libxl's own directory), sled:DIR, or none [default: userdata:/var/lib/xen]
    #[arg(
        long,
        global = true,
        value_name = "KIND:DIR",
        value_parser = templates(),
        env = "DOMKEEP_TEMPLATES",
        hide_env_values = true
    )]
    pub(crate) templates: Option<TemplatesAt>,
    /// How long an operation may take [default: 30, and for `xenstore watch` without end]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show logs on stderr; more often shows more (also: DOMKEEP_LOG=debug)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the configuration of a domain as it is now
    Retrieve(Retrieve),
    /// List the domains
    List(List),
    /// Check, rewrite and compare configuration files
    #[command(subcommand)]
    Config(Config),
    /// Show and create templates
    #[command(subcommand)]
    Template(Template),
    /// Attach and detach devices, list them, and repair what is half plugged
    #[command(subcommand)]
    Device(Device),
    /// Serve a Xenstore, or talk to one
    #[command(subcommand)]
    Xenstore(Xenstore),
    /// Look at, check and rewrite streams of Xenstore state (xenstore-migration)
    #[command(subcommand)]
    Stream(Stream),
    /// Run a host of simulated domains, whose memory and disks are real, and make such domains
    #[command(subcommand)]
    Simulate(Simulate),
    /// Save, verify and restore whole domains: memory, disks, configuration and Xenstore state
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Show the main job on a machine without Xen
    Demo,
    /// Resume a domain whose saver has died; a save starts it, with what it needs on its stdin
    #[command(hide = true)]
    Guard,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of a subcommand
    Man {
        /// The subcommand: `retrieve`, `config check`, ...
        #[arg(conflicts_with = "all")]
        command: Vec<String>,
        /// Write the pages of all commands into this directory instead
        #[arg(long, value_name = "DIR")]
        all: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Retrieve {
    /// Name or id of the domain
    pub(crate) domain: String,
    /// Which view decides
    #[arg(long, value_enum, default_value_t = PolicyChoice::Live)]
    pub(crate) policy: PolicyChoice,
    /// Whether the hypervisor is asked for what only it knows: uuid and scheduler parameters
    #[arg(long, value_enum, default_value_t = HypervisorChoice::Auto)]
    pub(crate) hypervisor: HypervisorChoice,
    /// Say where every value came from, instead of (with --json: beside) the configuration
    #[arg(long)]
    pub(crate) report: bool,
    /// Print another answer whenever there is one, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// End after so many answers
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) watch_count: Option<u64>,
    /// End after this time; exit status 1 if --watch-count was not reached
    #[arg(long, value_name = "SECONDS", requires = "watch", value_parser = seconds)]
    pub(crate) watch_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyChoice {
    /// Xenstore: what is only in the template is left out where libxl leaves it out
    Live,
    /// Both: every device that either knows
    Union,
    /// The template alone
    Template,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HypervisorChoice {
    /// If this is a Xen host and the Xenstore is its own; what cannot be found out is told
    Auto,
    /// In any case; without an answer there is no configuration
    Always,
    /// Never: what the templates say stands
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Whole configurations, as `xl list -l` prints them
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Whether the hypervisor is asked for what only it knows: uuid and scheduler parameters
    #[arg(long, value_enum, default_value_t = HypervisorChoice::Auto)]
    pub(crate) hypervisor: HypervisorChoice,
    /// Only these, by name or id
    pub(crate) domains: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say what is odd about a configuration file; exit status 1 if libxl would read it otherwise than it says, or not
    Check {
        /// libxl-json, or - for stdin
        file: PathBuf,
        /// The file is one of libxl's userdata directory, which ends in NUL
        #[arg(long)]
        stored: bool,
    },
    /// Read a configuration file and write it again
    Print {
        /// libxl-json, or - for stdin
        file: PathBuf,
        /// In the layout of which of libxl's JSON libraries
        #[arg(long, value_enum, default_value_t = LayoutChoice::Yajl)]
        layout: LayoutChoice,
    },
    /// Compare two configuration files by meaning; exit status 1 if they differ
    Diff {
        /// libxl-json
        a: PathBuf,
        /// libxl-json
        b: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LayoutChoice {
    Yajl,
    JsonC,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Template {
    /// List the templates
    Ls,
    /// Print a template
    Show {
        /// Domain id or uuid
        #[arg(value_name = "DOMID|UUID")]
        which: Which,
    },
    /// Create a template from a configuration file; never replaces one
    Import {
        /// libxl-json, or - for stdin
        file: PathBuf,
        /// The domain's id
        #[arg(long)]
        domid: DomId,
        /// The domain's uuid, if it is not that in the file
        #[arg(long)]
        uuid: Option<Uuid>,
    },
}

/// One template, or several with one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Domid(DomId),
    Uuid(Uuid),
}

#[derive(Debug, thiserror::Error)]
#[error("neither a domain id nor a uuid")]
pub(crate) struct WhichError;

impl std::str::FromStr for Which {
    type Err = WhichError;

    fn from_str(text: &str) -> Result<Self, WhichError> {
        let domid = text.parse().map(Self::Domid);
        domid.or_else(|_| text.parse().map(Self::Uuid)).map_err(|_| WhichError)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Xenstore {
    /// Run the embedded Xenstore on a socket until SIGINT or SIGTERM
    Serve {
        /// Where; without it --xenstore, else where clients search first
        #[arg(long)]
        socket: Option<PathBuf>,
        /// Start with these nodes, as `ls -fp` prints them
        #[arg(long, value_name = "FILE")]
        load: Option<PathBuf>,
        /// Save all nodes here at the end
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        /// Serve metrics for Prometheus on this Unix socket
        #[arg(long, value_name = "SOCKET")]
        metrics: Option<PathBuf>,
    },
    /// Print the nodes below a path
    Ls {
        /// With permissions
        #[arg(short, long)]
        perms: bool,
        /// With the full path on each line
        #[arg(short, long)]
        full: bool,
        /// Below which node
        #[arg(default_value = "/")]
        path: Path,
    },
    /// Print values
    Read {
        /// Of which nodes
        #[arg(required = true)]
        paths: Vec<Path>,
    },
    /// Set values, several in one transaction
    Write {
        /// Each path with its value, which may be any octets
        #[arg(required = true, num_args = 2.., value_names = ["PATH", "VALUE"])]
        pairs: Vec<OsString>,
    },
    /// Remove nodes and all below
    Rm {
        /// Which
        #[arg(required = true)]
        paths: Vec<Path>,
    },
    /// Print what changes, a line an event; the first event of each path comes at once
    Watch {
        /// Paths, or @introduceDomain and @releaseDomain
        #[arg(required = true)]
        paths: Vec<PathOrSpecial>,
        /// End after so many events; with --timeout, exit status 1 if there were fewer
        #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
}

/// Where the templates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TemplatesAt {
    Userdata(PathBuf),
    Sled(PathBuf),
    Nowhere,
}

impl Default for TemplatesAt {
    fn default() -> Self {
        Self::Userdata(UserdataDir::HOST_PATH.into())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not one of userdata:DIR, sled:DIR, none")]
struct TemplatesError;

fn templates() -> impl TypedValueParser<Value = TemplatesAt> {
    OsStringValueParser::new().try_map(|typed| {
        let directory = |octets: &[u8]| {
            let directory = PathBuf::from(OsString::from_vec(octets.to_vec()));
            (!octets.is_empty()).then_some(directory).ok_or(TemplatesError)
        };
        let octets = typed.as_bytes();
        if let Some(rest) = octets.strip_prefix(b"userdata:") {
            directory(rest).map(TemplatesAt::Userdata)
        } else if let Some(rest) = octets.strip_prefix(b"sled:") {
            directory(rest).map(TemplatesAt::Sled)
        } else if octets == b"none" {
            Ok(TemplatesAt::Nowhere)
        } else {
            Err(TemplatesError)
        }
    })
}

#[derive(Debug, thiserror::Error)]
#[error("not a number of seconds from 0 to {SECONDS_MAX}")]
struct SecondsError;

fn seconds(typed: &str) -> Result<Duration, SecondsError> {
    let seconds: f64 = typed.parse().map_err(|_| SecondsError)?;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(SecondsError);
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_agree_with_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_that_no_clock_has_are_refused() {
        for typed in ["-1", "nan", "inf", "1e300", "", "1s"] {
            assert!(seconds(typed).is_err(), "{typed}");
        }
        assert_eq!(seconds("0.5").unwrap(), Duration::from_millis(500));
    }

    #[test]
    fn a_template_store_is_a_kind_and_a_directory_of_any_octets() {
        let parse = |octets: &[u8]| {
            let at = OsString::from_vec(octets.to_vec());
            Arguments::try_parse_from(["domkeep".into(), "list".into(), "--templates".into(), at])
                .map(|arguments| arguments.global.templates.unwrap())
        };
        let odd = PathBuf::from(OsString::from_vec(b"/a/\xff".to_vec()));
        assert_eq!(parse(b"sled:/a/\xff").unwrap(), TemplatesAt::Sled(odd));
        assert_eq!(parse(b"userdata:.").unwrap(), TemplatesAt::Userdata(".".into()));
        for wrong in [&b"sled:"[..], b"/var/lib/xen", b"etcd:x", b""] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
