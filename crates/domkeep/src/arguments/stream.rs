//! `stream`: exactly what was typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use xenstore_migration::domain_state::NodePattern;
use xenstore_migration::{ByteOrder, Peer, StreamKind, Version};
use xsclient::{DomId, Path};

#[derive(Debug, Subcommand)]
pub(crate) enum Stream {
    /// Print a stream record by record; exit status 1 if it breaks off
    Inspect {
        /// The stream, or - for stdin
        file: PathBuf,
    },
    /// Say what is wrong with a stream; exit status 1 if there is anything
    Verify {
        /// The stream, or - for stdin
        file: PathBuf,
        /// What the stream is for [default: what it looks like]
        #[arg(long, value_enum)]
        kind: Option<KindChoice>,
        /// Say also what this server would refuse, lose or get wrong
        #[arg(long = "for", value_enum, value_name = "PEER")]
        peer: Option<PeerChoice>,
        /// Deviations from the specification, and octets behind the end, count as wrong
        #[arg(long)]
        strict: bool,
    },
    /// Write a stream in another version, byte order or form; exit status 1 if something was lost
    Convert {
        /// The stream, or - for stdin
        file: PathBuf,
        /// The new stream, or - for stdout; never replaces a file
        out: PathBuf,
        #[command(flatten)]
        form: Form,
        /// What to do with records of unknown types
        #[arg(long, value_enum, default_value_t = UnknownChoice::Keep)]
        unknown: UnknownChoice,
    },
    /// Write the stream that a JSON document describes, or the lines of `stream inspect --json`
    Encode {
        /// The JSON, or - for stdin
        file: PathBuf,
        /// The stream, or - for stdout; never replaces a file
        out: PathBuf,
        /// What the stream is for [default: what it looks like]
        #[arg(long, value_enum)]
        kind: Option<KindChoice>,
        /// What to do with records of unknown types
        #[arg(long, value_enum, default_value_t = UnknownChoice::Keep)]
        unknown: UnknownChoice,
        /// Also records that do not go together
        #[arg(long, conflicts_with = "kind")]
        unchecked: bool,
    },
    /// Write what a domain has in Xenstore as a stream; exit status 1 if not all of it could be read
    Extract(Extract),
    /// Put the nodes of a stream of one domain back, into a domain that has been created and does not run yet
    Apply(Apply),
}

#[derive(Debug, Args)]
pub(crate) struct Extract {
    /// Name or id of the domain
    pub(crate) domain: String,
    /// The stream, or - for stdout; never replaces a file
    pub(crate) out: PathBuf,
    /// Also the tree at this path; as often as needed
    #[arg(long = "root", value_name = "PATH")]
    pub(crate) roots: Vec<Path>,
    /// Version of the stream [default: 2, or 1 for a server that knows no other]
    #[arg(long, value_enum)]
    pub(crate) version: Option<VersionChoice>,
    /// Byte order of the records
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = ByteOrderChoice::Native)]
    pub(crate) byte_order: ByteOrderChoice,
    /// For which server
    #[arg(long = "for", value_enum, value_name = "PEER", default_value_t = PeerChoice::Specification)]
    pub(crate) peer: PeerChoice,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The stream, or - for stdin
    pub(crate) file: PathBuf,
    /// Name or id of the domain that gets the nodes
    pub(crate) domain: String,
    /// Change nothing, and say what would be changed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// All that the guest owns becomes exactly as saved, for one that does not know that it was restored
    #[arg(long)]
    pub(crate) exact: bool,
    /// Also these nodes, whoever owns them: a path, or one below the domain's own (data/**, /vm/*/x); as often as needed
    #[arg(long, value_name = "PATTERN")]
    pub(crate) allow: Vec<NodePattern>,
    /// Another domain that has rights in the stream has another id here; as often as needed
    #[arg(long = "domid", value_name = "FROM=TO")]
    pub(crate) domids: Vec<Renumbering>,
}

/// A domain that has another id here, or the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renumbering {
    pub(crate) from: DomId,
    pub(crate) to: DomId,
}

#[derive(Debug, thiserror::Error)]
#[error("not two domain ids as in 3=5")]
pub(crate) struct RenumberingError;

impl std::str::FromStr for Renumbering {
    type Err = RenumberingError;

    fn from_str(text: &str) -> Result<Self, RenumberingError> {
        let (from, to) = text.split_once('=').ok_or(RenumberingError)?;
        let domid = |text: &str| text.parse().map_err(|_| RenumberingError);
        Ok(Self { from: domid(from)?, to: domid(to)? })
    }
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Form {
    /// Version of the stream [default: that of the original]
    #[arg(long, value_enum)]
    pub(crate) version: Option<VersionChoice>,
    /// Byte order of the records [default: that of the original]
    #[arg(long, value_enum, value_name = "ORDER")]
    pub(crate) byte_order: Option<ByteOrderChoice>,
    /// For which server
    #[arg(long = "for", value_enum, value_name = "PEER", default_value_t = PeerChoice::Specification)]
    pub(crate) peer: PeerChoice,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KindChoice {
    /// All that a server knows
    LiveUpdate,
    /// What one domain owns
    Domain,
}

impl From<KindChoice> for StreamKind {
    fn from(choice: KindChoice) -> Self {
        match choice {
            KindChoice::LiveUpdate => Self::LiveUpdate,
            KindChoice::Domain => Self::Domain,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PeerChoice {
    /// Whoever follows the specification
    Specification,
    /// C xenstored of Xen 4.17, which knows version 1 only
    #[value(name = "c-4.17")]
    C417,
    /// C xenstored of 2026 (Xen 4.22), as it reads
    #[value(name = "c-2026")]
    C2026,
    /// C xenstored of 2026 (Xen 4.22), as it writes
    #[value(name = "c-2026-written")]
    C2026Written,
}

impl From<PeerChoice> for Peer {
    fn from(choice: PeerChoice) -> Self {
        match choice {
            PeerChoice::Specification => Self::Specification,
            PeerChoice::C417 => Self::C417,
            PeerChoice::C2026 => Self::C2026,
            PeerChoice::C2026Written => Self::C2026Written,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum VersionChoice {
    #[value(name = "1")]
    V1,
    #[value(name = "2")]
    V2,
}

impl From<VersionChoice> for Version {
    fn from(choice: VersionChoice) -> Self {
        match choice {
            VersionChoice::V1 => Self::V1,
            VersionChoice::V2 => Self::V2,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ByteOrderChoice {
    Little,
    Big,
    /// That of this machine
    Native,
}

impl From<ByteOrderChoice> for ByteOrder {
    fn from(choice: ByteOrderChoice) -> Self {
        match choice {
            ByteOrderChoice::Little => Self::Little,
            ByteOrderChoice::Big => Self::Big,
            ByteOrderChoice::Native => Self::NATIVE,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnknownChoice {
    /// Copy them
    Keep,
    /// Give up
    Refuse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renumbering_is_two_domain_ids() {
        let renumbering = Renumbering { from: DomId::new(3), to: DomId::new(5) };
        assert_eq!("3=5".parse::<Renumbering>().unwrap(), renumbering);
        for wrong in ["", "3", "3=", "=5", "3=5=6", "3=x", "3=70000"] {
            assert!(wrong.parse::<Renumbering>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_peer_can_be_asked_for_by_the_name_it_has_in_reports() {
        for peer in Peer::ALL {
            let choice = PeerChoice::from_str(peer.name(), false).unwrap();
            assert_eq!(Peer::from(choice), peer);
        }
        assert_eq!(PeerChoice::value_variants().len(), Peer::ALL.len());
    }
}
