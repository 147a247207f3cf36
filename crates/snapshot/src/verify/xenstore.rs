//! The Xenstore state.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read};

use xenstore_migration::domain_state::DomainState;
use xenstore_migration::{ReadOptions, StreamReader};

use super::watch::{Octets, Watch};
use super::{Artifact, Findings, How, Problem, source};
use crate::manifest::XenstoreArtifact;
use crate::restore::Source;

pub(super) fn check(
    xenstore: &XenstoreArtifact,
    given: Option<&Source>,
    watch: &Watch<'_, '_>,
    findings: &mut Findings,
) {
    let compared = source::open(Artifact::Xenstore, given, &xenstore.location)
        .and_then(|file| compare(xenstore, &file, watch));
    match compared {
        Ok(()) => findings.checked(Artifact::Xenstore, How::Octets),
        Err(problem) => findings.problems.push(problem),
    }
}

/// Its digest first: only what has the right one is looked into.
fn compare(xenstore: &XenstoreArtifact, file: &File, watch: &Watch<'_, '_>) -> Result<(), Problem> {
    let artifact = Artifact::Xenstore;
    let failed = |source| Problem::Read { artifact: Artifact::Xenstore, source };
    let (has, saved) = (file.metadata().map_err(failed)?.len(), xenstore.octets);
    if has != saved {
        return Err(Problem::Length { artifact, has, saved });
    }
    watch.start();
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(Octets::of(file, watch).take(saved)).map_err(failed)?;
    let (has, saved) = (hasher.finalize().to_hex().to_string(), xenstore.digest.to_string());
    if has != saved {
        return Err(Problem::Digest { artifact, has, saved });
    }
    read(Octets::of(file, watch)).map_err(|source| Problem::NoState { source })
}

fn read(octets: impl Read) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut stream = StreamReader::open(BufReader::new(octets), ReadOptions::default())?;
    DomainState::from_stream(&mut stream)?;
    Ok(())
}
