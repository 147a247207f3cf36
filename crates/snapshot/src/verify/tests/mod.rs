mod disks;

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use tempfile::TempDir;
use xenstore_migration::domain_state::DomainState;
use xenstore_migration::{ByteOrder, Peer, Preamble, StreamWriter, Version};
use xsclient::DomId;

use super::*;
use crate::control::CancelToken;
use crate::disk::image::{Digest, ImageFormat, ImageRef};
use crate::disk::{DiskAction, DiskSnapshot};
use crate::image::packed::{PackedOptions, WORKERS_DEFAULT};
use crate::image::{Limits, mapped, packed, passthrough};
use crate::manifest::{Location, MemoryArtifact, SavedMemoryFormat, XenstoreArtifact, sample};

const DEPTHS: [Depth; 3] = [Depth::Header, Depth::Chain, Depth::Full];

/// A directory with what was saved in it.
struct Saved {
    directory: TempDir,
    snapshot: Snapshot,
}

impl Saved {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), snapshot: sample::empty() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn with_memory(mut self, format: SavedMemoryFormat) -> Self {
        let stream = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/hvm.libxl");
        let path = self.path("memory");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let input = || File::open(&stream).unwrap();
        let (side, _) = passthrough::copy(input(), std::io::sink(), Limits::default()).unwrap();
        let mut side_digest = None;
        match format {
            SavedMemoryFormat::Stream => {
                fs::copy(&stream, &path).unwrap();
                fs::write(self.path("side"), side.to_octets()).unwrap();
                side_digest = Some(Location::Path(self.path("side")));
            }
            SavedMemoryFormat::Mapped => {
                let written = mapped::write(input(), file, &mapped::MappedOptions::default());
                written.unwrap().mark_complete().unwrap();
            }
            SavedMemoryFormat::Packed => {
                let options = PackedOptions::default().workers(WORKERS_DEFAULT);
                packed::write(input(), file, &options).unwrap().mark_complete().unwrap();
            }
        }
        self.snapshot.memory = Some(MemoryArtifact {
            format,
            stream_octets: stream.metadata().unwrap().len(),
            file_octets: path.metadata().unwrap().len(),
            stored_octets: None,
            stream_digest: serde_json::from_value(side.stream_digest().to_string().into()).unwrap(),
            side_digest,
            location: Location::Path(path),
        });
        self
    }

    fn with_xenstore(mut self) -> Self {
        let state = DomainState {
            domid: DomId::new(7),
            roots: [xsclient::Path::of_domain(DomId::new(7))].into(),
            nodes: [(
                xsclient::Path::of_domain(DomId::new(7)),
                xenstore_migration::domain_state::NodeState {
                    value: b"value".to_vec(),
                    perms: "n7".parse().unwrap(),
                },
            )]
            .into(),
            connection: None,
            quotas: Default::default(),
            features: None,
        };
        let mut writer = StreamWriter::create(
            Vec::new(),
            Preamble::new(Version::V2, ByteOrder::Little),
            Peer::default(),
        )
        .unwrap();
        state.to_stream(&mut writer).unwrap();
        let octets = writer.finish().unwrap();
        fs::write(self.path("xenstore"), &octets).unwrap();
        self.snapshot.xenstore = Some(XenstoreArtifact {
            location: Location::Path(self.path("xenstore")),
            octets: octets.len() as u64,
            digest: Digest::of(&octets),
            nodes: 1,
            missing: Vec::new(),
        });
        self
    }

    /// A raw disk of two mebibytes, frozen.
    fn with_raw_disk(mut self, digest: bool) -> Self {
        let path = self.path("disk.raw");
        let octets = vec![0x5a; 2 << 20];
        fs::write(&path, &octets).unwrap();
        let frozen = ImageRef::read(&path, ImageFormat::Raw).unwrap();
        let digest = digest.then(|| Digest::of(&octets));
        self.add_disk("xvda", &frozen, vec![frozen.clone()], digest);
        self
    }

    /// `top.qcow2` over `middle.qcow2` over `disk.raw`, the uppermost frozen.
    fn with_chain(mut self) -> Self {
        fs::write(self.path("disk.raw"), vec![1; 1 << 20]).unwrap();
        self.overlay("middle.qcow2", "disk.raw", "raw");
        self.overlay("top.qcow2", "middle.qcow2", "qcow2");
        let names = [("top.qcow2", ImageFormat::Qcow2), ("middle.qcow2", ImageFormat::Qcow2)];
        let names = names.into_iter().chain([("disk.raw", ImageFormat::Raw)]);
        let chain: Vec<_> =
            names.map(|(name, format)| ImageRef::read(self.path(name), format).unwrap()).collect();
        self.add_disk("xvda", &chain[0].clone(), chain, None);
        self
    }

    fn overlay(&self, name: &str, over: &str, format: &str) {
        self.qemu_img(&["create", "-q", "-f", "qcow2", "-F", format, "-b", over, name]);
    }

    fn qemu_img(&self, arguments: &[&str]) {
        let status = Command::new("qemu-img").args(arguments).current_dir(&self.directory).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }

    fn add_disk(
        &mut self,
        vdev: &str,
        frozen: &ImageRef,
        chain: Vec<ImageRef>,
        digest: Option<Digest>,
    ) {
        self.snapshot.disks.push(DiskSnapshot {
            vdev: vdev.to_owned(),
            action: DiskAction::ExternalQcow2 { overlay: self.path("overlay") },
            frozen: frozen.clone(),
            active: frozen.clone(),
            chain,
            digest,
            warnings: Vec::new(),
        });
    }

    fn verify(&self, depth: Depth) -> Result<Verified, VerifyError> {
        verify(&self.snapshot, &Sources::default(), depth, &mut Observer::none())
    }

    fn problems(&self, depth: Depth) -> Vec<Problem> {
        match self.verify(depth) {
            Ok(_) => Vec::new(),
            Err(VerifyError::Different { problems, .. }) => problems,
            Err(VerifyError::Cancelled) => panic!("nobody cancels"),
        }
    }

    /// Changes an octet, and leaves everything else but the time as it was.
    fn flip(&self, name: &str, at: u64) {
        let file = File::options().read(true).write(true).open(self.path(name)).unwrap();
        let mut octet = [0];
        file.read_exact_at(&mut octet, at).unwrap();
        file.write_all_at(&[octet[0] ^ 0x10], at).unwrap();
    }

    fn set_mtime(&self, name: &str, time: SystemTime) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_modified(time).unwrap();
    }
}

fn has_qemu_img(test: &str) -> bool {
    let found = Command::new("qemu-img").arg("--version").output().is_ok();
    if !found {
        println!("skipped: {test}: qemu-img cannot be started");
    }
    found
}

fn checked(verified: &Verified) -> Vec<(Artifact, How)> {
    verified.checked.iter().map(|it| (it.artifact.clone(), it.how)).collect()
}

#[test]
fn every_format_of_memory_is_as_it_was_saved_at_every_depth() {
    use SavedMemoryFormat::{Mapped, Packed, Stream};
    for format in [Stream, Mapped, Packed] {
        let saved = Saved::new().with_memory(format);
        for depth in DEPTHS {
            let verified = saved.verify(depth).unwrap();
            let how = if depth == Depth::Full { How::Octets } else { How::Header };
            assert!(checked(&verified).contains(&(Artifact::Memory, how)), "{verified:?}");
            let pages_left = verified.uncovered.iter().any(|it| it.artifact == Artifact::Memory);
            assert_eq!(pages_left, depth < Depth::Full, "{verified:?}");
            assert_eq!(verified.octets > 0, depth == Depth::Full, "{verified:?}");
        }
    }
}

#[test]
fn an_octet_that_changed_anywhere_in_a_memory_image_is_found_at_full_depth() {
    use SavedMemoryFormat::{Mapped, Packed, Stream};
    for format in [Stream, Mapped, Packed] {
        let saved = Saved::new().with_memory(format);
        let len = saved.path("memory").metadata().unwrap().len();
        for at in (0..len).step_by(97).chain([len - 1]) {
            saved.flip("memory", at);
            let problems = saved.problems(Depth::Full);
            assert_eq!(problems.len(), 1, "{format:?} at {at}: {problems:?}");
            saved.flip("memory", at);
        }
        assert!(saved.verify(Depth::Full).is_ok());
    }
}

#[test]
fn a_stream_without_its_side_digest_is_compared_with_the_manifest() {
    let mut saved = Saved::new().with_memory(SavedMemoryFormat::Stream);
    saved.snapshot.memory.as_mut().unwrap().side_digest = None;
    assert!(saved.verify(Depth::Full).is_ok());
    // In the pages, so that the stream is still one.
    saved.flip("memory", 5000);
    let problems = saved.problems(Depth::Full);
    assert!(matches!(&problems[..], [Problem::Stream { .. }]), "{problems:?}");
    assert!(saved.verify(Depth::Chain).is_ok(), "the pages are compared at full depth only");
}

#[test]
fn a_side_digest_that_is_missing_or_broken_is_told_of_unless_the_stream_was_moved() {
    let saved = Saved::new().with_memory(SavedMemoryFormat::Stream);
    saved.flip("side", 4096);
    let problems = saved.problems(Depth::Header);
    let [Problem::Image { artifact: Artifact::SideDigest, .. }] = &problems[..] else {
        panic!("{problems:?}")
    };
    fs::remove_file(saved.path("side")).unwrap();
    let problems = saved.problems(Depth::Header);
    let [Problem::Open { artifact: Artifact::SideDigest, .. }] = &problems[..] else {
        panic!("{problems:?}")
    };
    fs::rename(saved.path("memory"), saved.path("moved")).unwrap();
    let memory = Some(Source::Path(saved.path("moved")));
    let sources = Sources { memory, ..Sources::default() };
    let verified = verify(&saved.snapshot, &sources, Depth::Full, &mut Observer::none()).unwrap();
    assert!(verified.uncovered.iter().any(|it| it.artifact == Artifact::SideDigest));
}

#[test]
fn an_image_that_is_partial_cut_or_of_another_domain_is_refused_at_every_depth() {
    use SavedMemoryFormat::{Mapped, Packed};
    for format in [Mapped, Packed] {
        let saved = Saved::new().with_memory(format);
        let whole = fs::read(saved.path("memory")).unwrap();
        let mut partial = whole.clone();
        partial[8..16].copy_from_slice(b"PARTIAL\0");
        let cut = whole[..whole.len() - 1].to_vec();
        for depth in DEPTHS {
            for (octets, name) in [(&partial, "partial"), (&cut, "cut")] {
                fs::write(saved.path("memory"), octets).unwrap();
                let problems = saved.problems(depth);
                let found = matches!(&problems[..], [Problem::Image { .. }]);
                assert!(found, "{name} at {depth:?}: {problems:?}");
            }
        }
        fs::write(saved.path("memory"), &whole).unwrap();
        let mut other = saved.snapshot.clone();
        other.memory.as_mut().unwrap().stream_digest = Digest::of(b"another");
        let error = verify(&other, &Sources::default(), Depth::Header, &mut Observer::none());
        let error = error.unwrap_err();
        assert!(matches!(error.problems(), [Problem::Stream { .. }]), "{error}");
    }
}

#[test]
fn what_was_written_to_a_descriptor_has_to_be_given_and_is_read_from_its_beginning() {
    let mut saved = Saved::new().with_memory(SavedMemoryFormat::Mapped).with_xenstore();
    saved.snapshot.memory.as_mut().unwrap().location = Location::Descriptor;
    saved.snapshot.xenstore.as_mut().unwrap().location = Location::Descriptor;
    let problems = saved.problems(Depth::Full);
    assert!(problems.iter().all(|it| matches!(it, Problem::NotGiven { .. })), "{problems:?}");
    assert_eq!(problems.len(), 2, "{problems:?}");
    let open = |name| {
        let mut file = File::open(saved.path(name)).unwrap();
        file.seek(std::io::SeekFrom::Start(77)).unwrap();
        Some(Source::Descriptor(Arc::new(file.into())))
    };
    let sources = Sources { memory: open("memory"), xenstore: open("xenstore") };
    verify(&saved.snapshot, &sources, Depth::Full, &mut Observer::none()).unwrap();
}

#[test]
fn every_octet_of_xenstore_state_is_compared_at_every_depth() {
    let saved = Saved::new().with_xenstore();
    let len = saved.path("xenstore").metadata().unwrap().len();
    for depth in DEPTHS {
        assert_eq!(checked(&saved.verify(depth).unwrap()), [(Artifact::Xenstore, How::Octets)]);
        for at in 0..len {
            saved.flip("xenstore", at);
            let problems = saved.problems(depth);
            assert!(matches!(&problems[..], [Problem::Digest { .. }]), "{at}: {problems:?}");
            saved.flip("xenstore", at);
        }
    }
    let mut file = File::options().append(true).open(saved.path("xenstore")).unwrap();
    file.write_all(b"x").unwrap();
    assert!(matches!(&saved.problems(Depth::Header)[..], [Problem::Length { .. }]));
}

#[test]
fn xenstore_state_that_is_no_stream_is_refused_though_its_digest_is_right() {
    let mut saved = Saved::new().with_xenstore();
    fs::write(saved.path("xenstore"), b"no stream").unwrap();
    let artifact = saved.snapshot.xenstore.as_mut().unwrap();
    (artifact.octets, artifact.digest) = (9, Digest::of(b"no stream"));
    let problems = saved.problems(Depth::Header);
    assert!(matches!(&problems[..], [Problem::NoState { .. }]), "{problems:?}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_what_is_right_beside_it() {
    let mut saved =
        Saved::new().with_memory(SavedMemoryFormat::Mapped).with_xenstore().with_raw_disk(true);
    saved.snapshot.skipped = sample::snapshot().skipped;
    let missing = ImageRef { path: saved.path("gone"), ..saved.snapshot.disks[0].frozen.clone() };
    saved.add_disk("xvdb", &missing, vec![missing.clone()], Some(Digest::of(b"")));
    fs::remove_file(saved.path("memory")).unwrap();
    saved.flip("xenstore", 3);
    let error = saved.verify(Depth::Full).unwrap_err();
    let VerifyError::Different { problems, verified } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(checked(verified).len(), 2, "{verified:?}");
    for part in ["the memory image", "the Xenstore state", "disk xvdb"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let skipped = verified.uncovered.iter().find(|it| it.artifact == Artifact::disk("xvdc"));
    assert_eq!(skipped.unwrap().reason, "it was not saved");
}

#[test]
fn a_directory_or_a_fifo_in_the_place_of_a_file_is_refused_without_waiting() {
    let mut saved = Saved::new().with_memory(SavedMemoryFormat::Mapped).with_xenstore();
    let fifo = saved.path("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
    saved.snapshot.memory.as_mut().unwrap().location = Location::Path(fifo);
    let directory = saved.directory.path().to_owned();
    saved.snapshot.xenstore.as_mut().unwrap().location = Location::Path(directory);
    let problems = saved.problems(Depth::Full);
    assert_eq!(problems.len(), 2);
    assert!(problems.iter().all(|it| matches!(it, Problem::NotAFile { .. })), "{problems:?}");
}

#[test]
fn progress_grows_up_to_the_total_and_a_cancelled_comparison_ends() {
    let mut saved = Saved::new().with_xenstore();
    let octets = vec![0x5a; 64 << 20];
    fs::write(saved.path("disk.raw"), &octets).unwrap();
    let frozen = ImageRef::read(saved.path("disk.raw"), ImageFormat::Raw).unwrap();
    saved.add_disk("xvda", &frozen, vec![frozen.clone()], Some(Digest::of(&octets)));
    let total = octets.len() as u64 + saved.snapshot.xenstore.as_ref().unwrap().octets;
    let mut told = Vec::new();
    let mut callback = |it: &crate::Progress| told.push((it.phase, it.done, it.total));
    let mut observer = Observer::none().progress(&mut callback);
    verify(&saved.snapshot, &Sources::default(), Depth::Full, &mut observer).unwrap();
    assert!(told.len() > 10, "{told:?}");
    assert!(told.is_sorted_by_key(|it| it.1), "{told:?}");
    assert_eq!(told.last(), Some(&(Phase::Verify, total, Some(total))));

    let token = CancelToken::new().unwrap();
    let mut last = 0;
    let mut callback = |it: &crate::Progress| {
        last = it.done;
        if it.done > 8 << 20 {
            token.cancel();
        }
    };
    let mut observer = Observer::none().progress(&mut callback).cancel(&token);
    let ended = verify(&saved.snapshot, &Sources::default(), Depth::Full, &mut observer);
    assert!(matches!(ended, Err(VerifyError::Cancelled)), "{ended:?}");
    assert!(last < 32 << 20, "it went on to {last}");
}
