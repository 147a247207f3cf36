//! What can go wrong, and the exit status for it.

mod advice;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use libxl_config::ReadError;
use libxl_config::retrieve::RetrieveError;
use libxl_config::template::{
    CreateError, ListError, LoadError, OpenDirError, OpenStoreError, StoreFault, TextError,
};
use libxl_control::LoadError as LoadLibxlError;
use snapshot::CompleteFileError;
use snapshot::control::{ChangeError, ChangeFailure, QueryError};
use snapshot::simulated::{CallError, OperatorError};
use snapshot::xenstore_state::{ApplyError, ExtractError};
use xenstore_migration as migration;
use xenstore_migration::domain_state::{FromStreamError, ToStreamError, TranslateError};
use xenstore_migration::json::DocumentError;
use xenstored::{LoadError as StoreLoadError, ServeError};
pub(crate) use xsclient::on_one_line;
use xsclient::{DomId, Failure, OpenError, OperationError};

use crate::commands::{DeviceError, SnapshotError};

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Done, and the answer is bad news: a finding, a difference, a domain or node that is not there or failed.
    BadNews,
    /// What was typed makes no sense. clap ends the process with the same status.
    Usage,
    /// Xenstore, the template store or a file is out of reach.
    OutOfReach,
}

impl Exit {
    /// [`Exit::BadNews`] if there is any.
    pub(crate) fn bad_news_if(bad: bool) -> Self {
        if bad { Self::BadNews } else { Self::Done }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::BadNews => 1,
            Exit::Usage => 2,
            Exit::OutOfReach => 3,
        })
    }
}

/// Why a command did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Connect(#[from] OpenError),
    #[error(transparent)]
    Xenstore(#[from] OperationError),
    #[error(transparent)]
    Retrieve(#[from] RetrieveError),
    #[error("no domain is called {name}")]
    NoSuchName { name: String },
    #[error("{} domains are called {name}: {}", domids.len(), list(domids))]
    SeveralOfThatName { name: String, domids: Vec<DomId> },
    #[error(transparent)]
    Userdata(#[from] OpenDirError),
    #[error(transparent)]
    Sled(#[from] OpenStoreError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("no template of {which}")]
    NoTemplate { which: String },
    #[error("several templates of {which}: {found}")]
    SeveralTemplates { which: String, found: String },
    #[error("{}: the configuration has no uuid", path.display())]
    NoUuid { path: PathBuf },
    #[error("{}: cannot be a template", path.display())]
    NotATemplate { path: PathBuf, source: TextError },
    #[error("{}: cannot be {action}", path.display())]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error("{}: longer than the {limit} octets that are read", path.display())]
    FileTooLong { path: PathBuf, limit: u64 },
    #[error("{}: cannot be read as a configuration", path.display())]
    Configuration { path: PathBuf, source: ReadError },
    #[error("{}: cannot be read as the nodes of a Xenstore", path.display())]
    Nodes { path: PathBuf, source: StoreLoadError },
    #[error("{}: is no stream of Xenstore state", path.display())]
    StreamOpen { path: PathBuf, source: migration::OpenError },
    #[error("{}: cannot be read to its end", path.display())]
    StreamRead { path: PathBuf, source: migration::ReadError },
    #[error("{}: cannot be written", path.display())]
    StreamCreate { path: PathBuf, source: migration::CreateError },
    #[error("{}: cannot be written", path.display())]
    StreamWrite { path: PathBuf, source: migration::WriteError },
    #[error("{}: cannot be converted", path.display())]
    StreamConvert { path: PathBuf, source: migration::ConvertError },
    #[error("{}: cannot be made a stream", path.display())]
    StreamEncode { path: PathBuf, source: DocumentError },
    #[error("{}: is no stream of one domain", path.display())]
    DomainStream { path: PathBuf, source: FromStreamError },
    #[error("{}: cannot be for domain {domid}", path.display())]
    Translate { path: PathBuf, domid: DomId, source: TranslateError },
    #[error("domain 0 takes no other domain's state: what it owns is the host's")]
    ApplyToHost,
    #[error(
        "domain {domid} is given two new ids; that of the stream itself becomes that of DOMAIN"
    )]
    RenumberedTwice { domid: DomId },
    #[error("{}: cannot hold the state of domain {domid}", path.display())]
    ToStream { path: PathBuf, domid: DomId, source: ToStreamError },
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    NewFile(#[from] CompleteFileError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("{}: another simulated host listens there", socket.display())]
    SimulatedHostRuns { socket: PathBuf },
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Domains(#[from] QueryError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("no simulated domain is {which}")]
    NoSimulatedDomain { which: String },
    #[error(transparent)]
    Libxl(#[from] LoadLibxlError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("PATH and VALUE come in pairs, and the last PATH has no VALUE")]
    Unpaired,
    #[error("{typed:?} is no Xenstore path")]
    NotAPath { typed: std::ffi::OsString },
    #[error("no subcommand {typed}")]
    NoSuchCommand { typed: String },
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
    #[error("the demonstration's own host is broken")]
    Demo(#[source] Box<dyn Error + Send + Sync>),
}

impl CommandError {
    /// Says on stderr what went wrong and what to do about it, and gives the exit status.
    pub(crate) fn tell(&self) -> ExitCode {
        if let Self::Output(error) = self
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            // Whoever read our output has had enough of it.
            return Exit::Done.into();
        }
        // If stderr is closed there is nobody to tell.
        let _ = io::stderr().write_all(self.in_words().as_bytes());
        self.exit().into()
    }

    fn in_words(&self) -> String {
        let mut words = format!("domkeep: {self}\n");
        let mut last = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if text != last {
                words.push_str(&format!("  because: {text}\n"));
            }
            (last, cause) = (text, error.source());
        }
        if let Some(advice) = self.advice() {
            words.push_str(&format!("  what to do: {advice}\n"));
        }
        words
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Xenstore(error) => exit_of(error),
            Self::Retrieve(RetrieveError::Xenstore { source, .. }) => exit_of(source),
            Self::Retrieve(RetrieveError::Templates { .. })
            | Self::Retrieve(RetrieveError::Template { .. }) => Exit::OutOfReach,
            Self::Retrieve(_)
            | Self::NoSuchName { .. }
            | Self::SeveralOfThatName { .. }
            | Self::NoTemplate { .. }
            | Self::SeveralTemplates { .. }
            | Self::NotATemplate { .. }
            | Self::Configuration { .. }
            | Self::Nodes { .. }
            | Self::StreamCreate { .. }
            | Self::StreamWrite { .. }
            | Self::StreamConvert { .. }
            | Self::StreamEncode { .. }
            | Self::Translate { .. }
            | Self::ToStream { .. }
            | Self::NewFile(CompleteFileError::Exists { .. })
            | Self::Create(CreateError::Exists { .. }) => Exit::BadNews,
            Self::StreamOpen { source: migration::OpenError::Io { .. }, .. } => Exit::OutOfReach,
            Self::StreamOpen { .. } => Exit::BadNews,
            Self::StreamRead { source, .. }
            | Self::DomainStream { source: FromStreamError::Read { source }, .. } => {
                match source.failure {
                    migration::ReadFailure::Io { .. } => Exit::OutOfReach,
                    _ => Exit::BadNews,
                }
            }
            Self::DomainStream { .. } => Exit::BadNews,
            Self::Extract(ExtractError::RelativeRoot { .. }) => Exit::Usage,
            Self::Extract(ExtractError::Xenstore { source, .. })
            | Self::Apply(
                ApplyError::Xenstore { source, .. }
                | ApplyError::Unreadable { source, .. }
                | ApplyError::Refused { source, .. },
            ) => exit_of(source),
            Self::Apply(ApplyError::OutcomeUnknown { .. }) => Exit::OutOfReach,
            Self::Extract(_) | Self::Apply(_) => Exit::BadNews,
            // The host has answered.
            Self::Operator(error) if !error.source.is::<CallError>() => Exit::BadNews,
            Self::Change(ChangeError { reason: ChangeFailure::Refused(_), .. })
            | Self::NoSimulatedDomain { .. } => Exit::BadNews,
            Self::Load(error) if !is_out_of_reach(error) => Exit::BadNews,
            Self::Snapshot(error) => error.exit(),
            Self::Device(error) => error.exit(),
            Self::NoUuid { .. }
            | Self::NewFile(CompleteFileError::NoName { .. })
            | Self::ApplyToHost
            | Self::RenumberedTwice { .. }
            | Self::Unpaired
            | Self::NotAPath { .. }
            | Self::NoSuchCommand { .. } => Exit::Usage,
            _ => Exit::OutOfReach,
        }
    }
}

/// What the server refuses is an answer; that it gives none is not.
pub(crate) fn exit_of(error: &OperationError) -> Exit {
    match error.failure() {
        Failure::Timeout { .. } | Failure::Lost(_) => Exit::OutOfReach,
        _ => Exit::BadNews,
    }
}

fn is_out_of_reach(error: &LoadError) -> bool {
    matches!(error, LoadError::Locked { .. } | LoadError::Store { source: StoreFault { .. }, .. })
}

fn list(domids: &[DomId]) -> String {
    let domids: Vec<String> = domids.iter().map(ToString::to_string).collect();
    domids.join(", ")
}
