//! What to do about an error.

use std::error::Error;
use std::io;

use libxl_config::retrieve::RetrieveError;
use libxl_config::template::{CreateError, LoadError};
use snapshot::CompleteFileError;
use snapshot::control::{ChangeError, ChangeFailure, QueryError};
use snapshot::simulated::CallError;
use snapshot::xenstore_state::{ApplyError, ExtractError};
use xenstore_migration as migration;
use xenstore_migration::domain_state::FromStreamError;
use xenstore_migration::json::DocumentError;
use xenstored::ServeError;
use xsclient::OpenError;

use super::CommandError;

const START_A_HOST: &str = "start one with `domkeep simulate serve DIR`; its socket is DIR/host";
const BE_ROOT: &str = "become root: what belongs to the host is not for everybody";
const ALLOW_MORE: &str = "allow more with --timeout SECONDS";
const LIST_DOMAINS: &str = "`domkeep list` shows the domains";
const CHECK_CONFIGURATION: &str = "`domkeep config check FILE` says all that is wrong with it";

impl CommandError {
    /// What whoever typed the command can do, where that is not clear from the error itself.
    pub(super) fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Connect(error) if is_denied(error) => BE_ROOT,
            Self::Connect(_) => "start xenstored, or say with --xenstore SOCKET where it is",
            Self::Retrieve(RetrieveError::NoSuchDomain { .. })
            | Self::Extract(ExtractError::NoSuchDomain { .. })
            | Self::Retrieve(RetrieveError::ReservedDomId { .. })
            | Self::NoSuchName { .. } => LIST_DOMAINS,
            Self::Retrieve(RetrieveError::Refused { .. }) => {
                "ask from the control domain, which may read everything"
            }
            Self::Apply(ApplyError::NoSuchDomain { .. }) => {
                "create the domain first, paused: a state goes into a domain that is there"
            }
            Self::Apply(ApplyError::OutcomeUnknown { .. }) => {
                "apply it again: what has been made already is not made twice"
            }
            Self::Apply(ApplyError::Conflict { .. }) => "apply it while the domain does not run",
            Self::Apply(ApplyError::Xenstore { source, .. })
            | Self::Extract(ExtractError::Xenstore { source, .. })
            | Self::Retrieve(RetrieveError::Xenstore { source, .. })
                if source.is_timeout() =>
            {
                ALLOW_MORE
            }
            Self::ApplyToHost => "name the domain that is to have the state",
            Self::RenumberedTwice { .. } => "leave out --domid of the stream's own domain",
            Self::DomainStream { source: FromStreamError::Read { .. }, .. } => {
                "`domkeep stream inspect FILE` prints what can be read"
            }
            Self::DomainStream { .. } => {
                "`domkeep stream verify FILE --kind domain` says all that is wrong with it"
            }
            Self::Snapshot(error) => return error.advice(),
            Self::Device(error) => return error.advice(),
            Self::NoSimulatedDomain { .. } => "`domkeep simulate list HOST` shows the domains",
            Self::SimulatedHostRuns { .. } => "use that host, or another directory",
            Self::Operator(error) if error.source.is::<CallError>() => START_A_HOST,
            Self::Domains(error) if is_of_simulated_host(error) => START_A_HOST,
            Self::Libxl(error) => return Some(error.advice()),
            Self::SeveralOfThatName { .. } => "give the id instead of the name",
            Self::SeveralTemplates { .. } => "give the uuid instead of the id",
            Self::Userdata(error) if is_denied(error) => BE_ROOT,
            Self::Sled(error) if is_denied(error) => BE_ROOT,
            Self::List(error) if is_denied(error) => BE_ROOT,
            Self::Load(error) if is_denied(error) => BE_ROOT,
            Self::Userdata(_) | Self::Sled(_) => {
                "say with --templates userdata:DIR, sled:DIR or none where the templates are"
            }
            Self::NoTemplate { .. } => "`domkeep template ls` shows the templates",
            Self::NoUuid { .. } => "give it with --uuid UUID",
            Self::Configuration { .. } | Self::NotATemplate { .. } => CHECK_CONFIGURATION,
            Self::Nodes { .. } => "give a file that `domkeep xenstore ls -fp` has printed",
            Self::StreamOpen {
                source: migration::OpenError::Preamble { source: migration::PreambleError::Ident },
                ..
            } => "give a xenstore-migration stream, as xenstored dumps for a live update",
            Self::StreamRead { source, .. } => match source.failure {
                migration::ReadFailure::UnknownType => "keep such records with --unknown keep",
                migration::ReadFailure::Io { .. } => return None,
                _ => "`domkeep stream inspect FILE` prints what can be read",
            },
            Self::StreamCreate { source: migration::CreateError::Version { .. }, .. } => {
                "ask for a version that it knows, with --version"
            }
            Self::StreamEncode { source, .. } => match source {
                DocumentError::Order { reason, .. } if is_of_unknown_kind(reason) => {
                    "keep such records with --unknown keep"
                }
                DocumentError::Order { .. } => {
                    "put it right, or write the stream as it is with --unchecked"
                }
                DocumentError::NoEnd | DocumentError::BrokenOff => {
                    "give all lines that `domkeep stream inspect FILE --json` prints of a whole stream"
                }
                _ => return None,
            },
            Self::NewFile(CompleteFileError::Exists { .. }) => {
                "give a name that is free; a file is never replaced"
            }
            Self::NewFile(CompleteFileError::NoName { .. }) => "name the file itself",
            Self::Load(LoadError::Locked { .. })
            | Self::Retrieve(RetrieveError::Template {
                source: LoadError::Locked { .. }, ..
            }) => "wait until whoever holds it is done, or allow more with --timeout SECONDS",
            Self::Xenstore(error) if error.is_timeout() => ALLOW_MORE,
            Self::Domains(QueryError::DeadlinePassed { .. })
            | Self::Change(ChangeError { reason: ChangeFailure::DeadlinePassed, .. }) => ALLOW_MORE,
            Self::Serve(ServeError::Io { source, .. }) if refused(source) => {
                "become root, or choose another path with --socket PATH"
            }
            Self::Unpaired => "give each PATH its VALUE; '' is an empty one",
            Self::NotAPath { .. } => {
                "a path is names with slashes between, such as /local/domain/7/name"
            }
            Self::NoSuchCommand { .. } => "`domkeep help` lists the commands",
            Self::Create(CreateError::Exists { .. }) => {
                "a template is changed by hotplug only; import under another domid or uuid"
            }
            _ => return None,
        })
    }
}

fn is_of_unknown_kind(violation: &migration::Violation) -> bool {
    use migration::Violation;
    matches!(violation, Violation::UnknownType { .. } | Violation::ConnectionKind { .. })
}

fn is_of_simulated_host(error: &QueryError) -> bool {
    matches!(error, QueryError::Hypervisor { source, .. } if source.is::<CallError>())
}

/// Whether the system has refused something to this user.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(current) = error {
        let denied = match current.downcast_ref::<OpenError>() {
            // They are in its text, and so not among its sources.
            Some(OpenError::Unreachable(one)) => refused(&one.error),
            Some(OpenError::NoServer { tried }) => tried.iter().any(|one| refused(&one.error)),
            _ => current.downcast_ref::<io::Error>().is_some_and(refused),
        };
        if denied {
            return true;
        }
        error = current.source();
    }
    false
}

fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use xsclient::{DomId, Errno, Unreachable};

    use super::*;

    fn unreachable(kind: io::ErrorKind) -> Unreachable {
        Unreachable { path: PathBuf::from("/run/xenstored/socket"), error: kind.into() }
    }

    #[test]
    fn whoever_may_not_open_the_socket_is_told_to_become_root() {
        use io::ErrorKind::{NotFound, PermissionDenied};
        let connect = |error| CommandError::Connect(error).advice().unwrap();
        assert_eq!(connect(OpenError::Unreachable(unreachable(PermissionDenied))), BE_ROOT);
        let tried = vec![unreachable(PermissionDenied), unreachable(NotFound)];
        assert_eq!(connect(OpenError::NoServer { tried }), BE_ROOT);
        let absent = connect(OpenError::Unreachable(unreachable(NotFound)));
        assert!(absent.starts_with("start xenstored"), "{absent}");
    }

    #[test]
    fn an_error_of_what_was_typed_says_what_to_type() {
        let path = PathBuf::from("/run/x");
        let denied = io::ErrorKind::PermissionDenied.into();
        let serve = ServeError::Io { action: "make", path, source: denied };
        for (error, told) in [
            (CommandError::NoSuchCommand { typed: "x".into() }, "domkeep help"),
            (CommandError::Unpaired, "VALUE"),
            (CommandError::NotAPath { typed: "a//b".into() }, "/local/domain/7/name"),
            (CommandError::ApplyToHost, "name the domain"),
            (CommandError::Serve(serve), "--socket PATH"),
            (
                CommandError::Retrieve(RetrieveError::Refused {
                    domid: DomId::new(7),
                    errno: Errno::EACCES,
                }),
                "control domain",
            ),
        ] {
            let advice = error.advice().unwrap_or_default();
            assert!(advice.contains(told), "{error}: {advice:?}");
            assert!(error.in_words().ends_with(&format!("  what to do: {advice}\n")));
        }
    }
}
