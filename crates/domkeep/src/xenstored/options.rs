//! The stock daemon's options, as far as they mean something here.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Parser};
use xenstored::{Quota, Quotas, SyncMode};

/// A Xenstore daemon: domains' settings in a tree of nodes, for clients on a Unix socket.
///
/// It takes the stock daemon's options. XENSTORED_PATH names the socket; without it that is `socket` in
/// XENSTORED_RUNDIR, or in /run/xenstored.
#[derive(Debug, Parser)]
#[command(name = "xenstored", version, disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct Options {
    /// Stay in the foreground, and log to standard error
    #[arg(short = 'N', long)]
    pub(crate) no_fork: bool,
    /// Write the process id to this file, which is removed at the end
    #[arg(short = 'F', long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Print the process id
    #[arg(short = 'P', long)]
    pub(crate) output_pid: bool,
    /// Append the log to this file
    #[arg(short = 'T', long, value_name = "FILE", env = "XENSTORED_TRACE")]
    pub(crate) trace_file: Option<PathBuf>,
    /// Log more
    #[arg(short = 'V', long)]
    pub(crate) verbose: bool,
    /// Serve metrics for Prometheus on this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) metrics: Option<PathBuf>,
    /// Keep the store in a database in this directory; without it, it is in memory only
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) database: Option<PathBuf>,
    /// Sync the database at the latest after so many milliseconds; without it, before every answer
    #[arg(long, value_name = "MS", requires = "database", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sync_interval: Option<u32>,
    /// Keep domains that have seen data of one company away from its competitors': this JSON file lists classes of companies
    #[arg(long, value_name = "FILE")]
    pub(crate) chinese_wall: Option<PathBuf>,

    /// Do not serve the ring of the domain in which this runs
    #[arg(short = 'D', long)]
    pub(crate) no_domain_init: bool,
    /// Serve no domains on their rings, on a Xen host neither
    #[arg(long)]
    pub(crate) no_rings: bool,

    /// Nodes a domain may own
    #[arg(short = 'E', long, value_name = "NB")]
    pub(crate) entry_nb: Option<u32>,
    /// Octets of a node that a domain writes
    #[arg(short = 'S', long, value_name = "SIZE")]
    pub(crate) entry_size: Option<u32>,
    /// Watches a domain may have
    #[arg(short = 'W', long, value_name = "NB")]
    pub(crate) watch_nb: Option<u32>,
    /// Transactions a domain may have open
    #[arg(short = 't', long, value_name = "NB")]
    pub(crate) transaction: Option<u32>,
    /// Entries of a node's permissions
    #[arg(short = 'A', long, value_name = "NB")]
    pub(crate) perm_nb: Option<u32>,
    /// Octets of a path
    #[arg(short = 'M', long, value_name = "CHARS")]
    pub(crate) path_max: Option<u32>,
    /// Any quota, by its name; 0 for no limit
    #[arg(short = 'Q', long = "quota", value_name = "WHAT=NB")]
    pub(crate) quotas: Vec<Limit>,
    /// Soft quota: memory
    #[arg(short = 'q', long = "quota-soft", value_name = "memory=NB")]
    pub(crate) soft_quotas: Vec<SoftLimit>,

    /// Accepted, and without a meaning here: there is nothing to recover
    #[arg(short = 'R', long, hide = true)]
    no_recovery: bool,
    /// Accepted, and without a meaning here: see --database
    #[arg(short = 'I', long, hide = true, num_args = 0..=1, default_missing_value = "on", value_parser = ["on", "off"])]
    internal_db: Option<String>,
    /// Accepted, and without a meaning here: no event is given up for its age
    #[arg(short = 'w', long, hide = true, value_name = "WHAT=SECONDS")]
    timeout: Vec<String>,
    /// Go on from the state that a predecessor has written, with the clients it had
    #[arg(short = 'U', long)]
    pub(crate) live_update: bool,
    /// This is the process that a daemon in the background is
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
    /// Print the manual page, for man -l -
    #[arg(long)]
    pub(crate) man: bool,
    /// Print help
    #[arg(short = 'H', long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// `name=number`
#[derive(Clone, Debug)]
pub(crate) struct Limit(Quota, u32);

/// `memory=number`
#[derive(Clone, Debug)]
pub(crate) struct SoftLimit(u32);

/// A quota that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("want NAME=NUMBER, where NAME is {allowed}")]
pub(crate) struct LimitError {
    allowed: String,
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let read = || {
            let (name, limit) = text.split_once('=')?;
            Some(Self(Quota::named(&name.parse().ok()?)?, limit.parse().ok()?))
        };
        read().ok_or_else(|| LimitError { allowed: Quota::ALL.map(Quota::name).join(", ") })
    }
}

impl FromStr for SoftLimit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let limit = text.strip_prefix("memory=").and_then(|limit| limit.parse().ok());
        limit.map(Self).ok_or_else(|| LimitError { allowed: "memory".to_owned() })
    }
}

impl Options {
    /// When the database is synced.
    pub(crate) fn sync_mode(&self) -> SyncMode {
        let interval = self.sync_interval.map(|ms| Duration::from_millis(ms.into()));
        interval.map_or(SyncMode::Always, SyncMode::Interval)
    }

    /// The limits of new domains.
    pub(crate) fn limits(&self) -> Quotas {
        let mut limits = Quotas::default();
        for (quota, limit) in [
            (Quota::Nodes, self.entry_nb),
            (Quota::NodeSize, self.entry_size),
            (Quota::Watches, self.watch_nb),
            (Quota::Transactions, self.transaction),
            (Quota::NodePermissions, self.perm_nb),
            (Quota::PathMax, self.path_max),
        ] {
            limit.into_iter().for_each(|limit| limits.set(quota, limit));
        }
        self.quotas.iter().for_each(|Limit(quota, limit)| limits.set(*quota, *limit));
        self.soft_quotas.iter().for_each(|SoftLimit(limit)| limits.set(Quota::SoftMemory, *limit));
        limits
    }
}
