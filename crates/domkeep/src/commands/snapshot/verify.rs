//! `snapshot verify`: what was saved, compared with what is there.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use snapshot::control::CancelToken;
use snapshot::image::Limits;
use snapshot::image::passthrough::{self, SideDigest};
use snapshot::restore::{Depth, Source};
use snapshot::verify::{
    Artifact, Checked, How, Note, Sources, Uncovered, Verified, VerifyError, verify,
};
use snapshot::{Observer, Progress};

use super::bar::Bar;
use super::error::SnapshotError;
use super::memory::{Saved, Stream, Watch};
use super::{manifest, new_file, told};
use crate::arguments::{DepthChoice, Verify};
use crate::commands::whole;
use crate::exit::{CommandError, Exit, on_one_line};
use crate::explain::printable;
use crate::output::Output;

/// Octets of a side digest at most: that of the longest stream that is taken.
const SIDE_MAX: u64 = 16 << 20;

/// What was found, for a program.
#[derive(Default, Serialize)]
struct Found {
    file: String,
    depth: &'static str,
    problems: Vec<String>,
    checked: Vec<Checked>,
    uncovered: Vec<Uncovered>,
    notes: Vec<Note>,
    /// Octets that were read for digests.
    octets: u64,
}

pub(super) fn run(asked: &Verify, output: &mut Output) -> Result<Exit, CommandError> {
    let cancel = told::cancelled_by_signals()?;
    let mut bar = Bar::new(output);
    let mut first = Vec::new();
    let opened =
        File::open(&asked.file).and_then(|file| file.take(SNIFF_LEN).read_to_end(&mut first));
    opened.map_err(|source| new_file::unread(&asked.file, source))?;
    let found = if manifest::is_one(&first) {
        of_manifest(asked, &mut bar, &cancel)?
    } else {
        of_image(asked, &mut bar, &cancel)?
    };
    drop(bar);
    if output.is_json() {
        output.document(&found)?;
    } else {
        output.text(found.in_words())?;
    }
    Ok(Exit::bad_news_if(!found.problems.is_empty()))
}

/// Enough to see whether it is a manifest.
const SNIFF_LEN: u64 = 4096;

fn of_manifest(asked: &Verify, bar: &mut Bar, cancel: &CancelToken) -> Result<Found, CommandError> {
    if asked.side_digest.is_some() {
        return Err(SnapshotError::ForImages { option: "--side-digest" }.into());
    }
    let snapshot = manifest::read(&asked.file)?;
    let sources = Sources {
        memory: asked.memory.clone().map(Source::Path),
        xenstore: asked.xenstore_state.clone().map(Source::Path),
    };
    let mut show = |progress: &Progress| bar.show(progress);
    let mut observer = Observer::none().progress(&mut show).cancel(cancel);
    let (verified, problems) =
        match verify(&snapshot, &sources, Depth::from(asked.depth), &mut observer) {
            Ok(verified) => (verified, Vec::new()),
            Err(VerifyError::Different { problems, verified }) => {
                (*verified, problems.iter().map(ToString::to_string).collect())
            }
            Err(VerifyError::Cancelled) => return Err(SnapshotError::Cancelled.into()),
            Err(error) => return Err(SnapshotError::Verify { source: error }.into()),
        };
    let Verified { checked, uncovered, notes, octets, .. } = verified;
    Ok(Found { problems, checked, uncovered, notes, octets, ..Found::of(asked) })
}

fn of_image(asked: &Verify, bar: &mut Bar, cancel: &CancelToken) -> Result<Found, CommandError> {
    if asked.memory.is_some() || asked.xenstore_state.is_some() {
        return Err(SnapshotError::ForManifests.into());
    }
    bar.name("verify");
    let watch = Watch { counter: bar.counter(), cancel: cancel.clone() };
    let side = asked.side_digest.as_deref().map(side_digest).transpose()?;
    let mut found = Found::of(asked);
    let compared = match Saved::open(&asked.file, &watch) {
        Ok(saved) => compared(saved, side.as_ref(), asked.depth)?,
        Err(CommandError::Snapshot(SnapshotError::DigestsAlone { .. })) => {
            side_digest(&asked.file)?;
            found.checked.push(Checked { artifact: Artifact::SideDigest, how: How::Octets });
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    if cancel.is_cancelled() {
        return Err(SnapshotError::Cancelled.into());
    }
    match compared {
        Ok(how) => found.checked.push(Checked { artifact: Artifact::Memory, how }),
        Err(problem) => found.problems.push(problem),
    }
    if asked.depth != DepthChoice::Full && side.is_none() {
        let reason = "its pages are compared at full depth only".to_owned();
        found.uncovered.push(Uncovered { artifact: Artifact::Memory, reason });
    }
    Ok(found)
}

/// How an image was compared, or what is wrong with it in words.
fn compared(
    saved: Saved,
    side: Option<&SideDigest>,
    depth: DepthChoice,
) -> Result<Result<How, String>, CommandError> {
    let full = depth == DepthChoice::Full;
    let how = if full || side.is_some() { How::Octets } else { How::Header };
    let checked: Result<(), Box<dyn std::error::Error>> = match saved {
        _ if !full && side.is_none() => Ok(()),
        Saved::Stream(mut stream) => of_stream(&mut stream, side),
        Saved::Mapped(_) | Saved::Packed(_) if side.is_some() => {
            return Err(SnapshotError::ForStreams { option: "--side-digest" }.into());
        }
        Saved::Mapped(image) => image.verify().map(drop).map_err(Into::into),
        Saved::Packed(image) => image.verify().map(drop).map_err(Into::into),
    };
    Ok(checked.map(|()| how).map_err(|error| on_one_line(error.as_ref())))
}

fn of_stream(
    stream: &mut Stream,
    side: Option<&SideDigest>,
) -> Result<(), Box<dyn std::error::Error>> {
    match side {
        Some(side) => Ok(side.verify(stream)?),
        None => {
            passthrough::copy(&mut *stream, io::sink(), Limits::default())?;
            Ok(())
        }
    }
}

fn side_digest(path: &Path) -> Result<SideDigest, CommandError> {
    let octets = whole::read_file(path, SIDE_MAX)?;
    let side = SideDigest::from_octets(&octets, Limits::default());
    Ok(side.map_err(|source| SnapshotError::ImageOpen { path: path.to_owned(), source })?)
}

impl Found {
    fn of(asked: &Verify) -> Self {
        let depth = match asked.depth {
            DepthChoice::Header => "header",
            DepthChoice::Chain => "chain",
            DepthChoice::Full => "full",
        };
        Self { file: asked.file.display().to_string(), depth, ..Self::default() }
    }

    fn in_words(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&format!("wrong: {}\n", printable(problem)));
        }
        for Checked { artifact, how } in &self.checked {
            let how = match how {
                How::Header => "its header",
                How::Chain => "the headers of its images",
                How::Tag => "the snapshot is in the image",
                How::Octets => "every octet",
                _ => "compared",
            };
            text.push_str(&format!("as saved: {}: {how}\n", printable(&artifact.to_string())));
        }
        for Note { artifact, path, changes } in &self.notes {
            let changes = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let line = format!("note: {artifact}: {}: {changes}", path.display());
            text.push_str(&format!("{}\n", printable(&line)));
        }
        for Uncovered { artifact, reason } in &self.uncovered {
            text.push_str(&format!(
                "not compared: {}\n",
                printable(&format!("{artifact}: {reason}"))
            ));
        }
        let problems = self.problems.len();
        let end = if problems == 0 {
            "as it was saved".to_owned()
        } else {
            format!("problems: {problems}")
        };
        text.push_str(&format!("{}: {end}\n", printable(&self.file)));
        text
    }
}
