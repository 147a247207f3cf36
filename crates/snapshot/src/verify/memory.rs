//! The memory image.

use std::fs::File;
use std::io::{self, Read};

use super::watch::{Octets, Watch, Watched};
use super::{Artifact, Findings, How, Problem, source};
use crate::image::mapped::MappedReader;
use crate::image::packed::PackedReader;
use crate::image::passthrough::{self, SideDigest};
use crate::image::{ImageInfo, ImageOpenError, Limits};
use crate::manifest::{Location, MemoryArtifact, SavedMemoryFormat};
use crate::restore::{Depth, Source};

/// Octets of a side digest at most: that of the longest stream that is taken.
const SIDE_MAX: u64 = 16 << 20;

/// Octets that are read.
pub(super) fn octets(memory: &MemoryArtifact, depth: Depth) -> u64 {
    if depth == Depth::Full { memory.file_octets } else { 0 }
}

pub(super) fn check(
    memory: &MemoryArtifact,
    given: Option<&Source>,
    depth: Depth,
    watch: &Watch<'_, '_>,
    findings: &mut Findings,
) {
    let before = findings.problems.len();
    let file = match source::open(Artifact::Memory, given, &memory.location) {
        Ok(file) => Some(file),
        Err(problem) => {
            findings.problems.push(problem);
            None
        }
    };
    let side = side_digest(memory, given.is_some(), watch, findings);
    let Some(file) = file else { return };
    let how = if depth == Depth::Full { How::Octets } else { How::Header };
    let checked = match memory.format {
        SavedMemoryFormat::Stream => stream(memory, &file, side.as_ref(), depth, watch),
        SavedMemoryFormat::Mapped => mapped(memory, &file, depth, watch),
        SavedMemoryFormat::Packed => packed(memory, &file, depth, watch),
    };
    if let Err(problem) = checked {
        findings.problems.push(problem);
    }
    if findings.problems.len() == before {
        findings.checked(Artifact::Memory, how);
        if depth < Depth::Full {
            findings.uncovered(Artifact::Memory, "its pages are compared at full depth only");
        }
    }
}

/// As the stream goes: with the digests of its mebibytes, if they are there, it is known where it differs.
fn stream(
    memory: &MemoryArtifact,
    file: &File,
    side: Option<&SideDigest>,
    depth: Depth,
    watch: &Watch<'_, '_>,
) -> Result<(), Problem> {
    let failed = |source| Problem::Read { artifact: Artifact::Memory, source };
    let has = file.metadata().map_err(failed)?.len();
    let length = length(has, memory.stream_octets);
    if depth < Depth::Full || length.is_err() {
        return length;
    }
    watch.start();
    let octets = Octets::of(file, watch);
    if let Some(side) = side {
        return side.verify(octets).map_err(|source| Problem::Side { source });
    }
    let (side, _) = passthrough::copy(octets, io::sink(), limits(memory))
        .map_err(|source| Problem::NoStream { source })?;
    same(Artifact::Memory, memory, side.info())
}

fn mapped(
    memory: &MemoryArtifact,
    file: &File,
    depth: Depth,
    watch: &Watch<'_, '_>,
) -> Result<(), Problem> {
    let image = MappedReader::open(Watched { file, watch }, limits(memory)).map_err(none)?;
    same(Artifact::Memory, memory, image.info())?;
    length(image.info().file_len, memory.file_octets)?;
    if depth < Depth::Full {
        return Ok(());
    }
    watch.start();
    image.verify().map(drop).map_err(|source| Problem::Content { source })
}

fn packed(
    memory: &MemoryArtifact,
    file: &File,
    depth: Depth,
    watch: &Watch<'_, '_>,
) -> Result<(), Problem> {
    let image = PackedReader::open(Watched { file, watch }, limits(memory)).map_err(none)?;
    same(Artifact::Memory, memory, image.info())?;
    length(image.info().file_len, memory.file_octets)?;
    if depth < Depth::Full {
        return Ok(());
    }
    watch.start();
    image.verify().map(drop).map_err(|source| Problem::Content { source })
}

/// The side digest, if it is there and is of this stream. That it is missing is a problem only where the stream was not moved
/// either: nothing needs it.
fn side_digest(
    memory: &MemoryArtifact,
    moved: bool,
    watch: &Watch<'_, '_>,
    findings: &mut Findings,
) -> Option<SideDigest> {
    let artifact = Artifact::SideDigest;
    let location = memory.side_digest.as_ref()?;
    if *location == Location::Descriptor {
        findings.uncovered(artifact, "it was written to a descriptor");
        return None;
    }
    let file = match source::open(artifact.clone(), None, location) {
        Ok(file) => file,
        Err(_) if moved => {
            findings.uncovered(artifact, "it is not where it was saved, nor is the stream");
            return None;
        }
        Err(problem) => {
            findings.problems.push(problem);
            return None;
        }
    };
    match read_side(memory, &file, watch) {
        Ok(side) => {
            findings.checked(artifact, How::Octets);
            Some(side)
        }
        Err(problem) => {
            findings.problems.push(problem);
            None
        }
    }
}

fn read_side(
    memory: &MemoryArtifact,
    file: &File,
    watch: &Watch<'_, '_>,
) -> Result<SideDigest, Problem> {
    let artifact = Artifact::SideDigest;
    let mut octets = Vec::new();
    let read = Octets::of(file, watch).take(SIDE_MAX).read_to_end(&mut octets);
    read.map_err(|source| Problem::Read { artifact: artifact.clone(), source })?;
    let side = SideDigest::from_octets(&octets, limits(memory))
        .map_err(|source| Problem::Image { artifact: artifact.clone(), source })?;
    same(artifact, memory, side.info())?;
    Ok(side)
}

/// Whether an image is of the stream that was saved.
fn same(artifact: Artifact, memory: &MemoryArtifact, info: &ImageInfo) -> Result<(), Problem> {
    if info.stream_len != memory.stream_octets {
        let (has, saved) = (info.stream_len, memory.stream_octets);
        return Err(Problem::Length { artifact, has, saved });
    }
    let (has, saved) = (info.stream_digest.to_string(), memory.stream_digest.to_string());
    if has == saved { Ok(()) } else { Err(Problem::Stream { artifact, has, saved }) }
}

fn length(has: u64, saved: u64) -> Result<(), Problem> {
    let artifact = Artifact::Memory;
    if has == saved { Ok(()) } else { Err(Problem::Length { artifact, has, saved }) }
}

fn none(source: ImageOpenError) -> Problem {
    Problem::Image { artifact: Artifact::Memory, source }
}

/// What the manifest says was written once, and can be read again.
fn limits(memory: &MemoryArtifact) -> Limits {
    let limits = Limits::default();
    let stream_max = limits.stream_max.max(memory.stream_octets);
    limits.stream_max(stream_max)
}
