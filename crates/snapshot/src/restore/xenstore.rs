//! Giving a new domain what its guest had in Xenstore.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::time::Instant;

use xenstore_migration::domain_state::{DomainState, RestorePolicy, Translation};
use xenstore_migration::{ReadOptions, StreamReader};
use xsclient::Path;

use super::RestoredXenstore;
use super::error::XenstoreFailure;
use super::memory::FromStart;
use crate::HostAccess;
use crate::control::DomainIdentity;
use crate::disk::image::Digest;
use crate::manifest::XenstoreArtifact;
use crate::xenstore_state::{ApplyRequest, apply};

/// Applies what `file` holds of domain `from` to domain `to`.
pub(super) fn restore(
    access: &HostAccess<'_>,
    artifact: &XenstoreArtifact,
    file: &File,
    from: DomainIdentity,
    to: DomainIdentity,
    policy: &RestorePolicy,
    deadline: Instant,
) -> Result<RestoredXenstore, XenstoreFailure> {
    let state = read(artifact, file)?;
    if state.domid != from.domid {
        let (found, saved) = (state.domid, from.domid);
        return Err(XenstoreFailure::OtherDomain { found, saved });
    }
    let vm = |uuid: uuid::Uuid| -> Result<Path, XenstoreFailure> {
        format!("/vm/{uuid}").parse().map_err(|source| XenstoreFailure::Path { source })
    };
    let translation = Translation::new(from.domid, to.domid).tree(vm(from.uuid)?, vm(to.uuid)?);
    let wanted =
        translation.apply(&state).map_err(|source| XenstoreFailure::Translate { source })?;
    let mut client =
        (access.xenstore)(deadline).map_err(|source| XenstoreFailure::Connect { source })?;
    let request = ApplyRequest::new(policy.clone(), deadline);
    let applied = apply(&mut client, &wanted, &request)
        .map_err(|source| XenstoreFailure::Apply { source })?;
    if !applied.strangers.is_empty() {
        let domids = applied.strangers.into_iter().collect();
        return Err(XenstoreFailure::Strangers { domids });
    }
    let unapplied: BTreeSet<String> = applied.unapplied.iter().map(ToString::to_string).collect();
    Ok(RestoredXenstore {
        changes: applied.plan.changes.len() as u64,
        unapplied: unapplied.into_iter().collect(),
    })
}

/// The saved state, from the octets whose digest was saved.
fn read(artifact: &XenstoreArtifact, file: &File) -> Result<DomainState, XenstoreFailure> {
    let mut octets = Vec::new();
    FromStart { file, next: 0 }
        .take(artifact.octets.saturating_add(1))
        .read_to_end(&mut octets)
        .map_err(|source| XenstoreFailure::Read { source })?;
    if octets.len() as u64 != artifact.octets || Digest::of(&octets) != artifact.digest {
        return Err(XenstoreFailure::Changed);
    }
    let mut reader = StreamReader::open(&octets[..], ReadOptions::default())
        .map_err(|source| XenstoreFailure::Open { source })?;
    let contents = DomainState::from_stream(&mut reader)
        .map_err(|source| XenstoreFailure::State { source })?;
    Ok(contents.state)
}
