//! Memory images beside copies of the same memory, out of the page cache.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use snapshot::image::mapped::{self, MappedOptions, MappedReader};
use snapshot::image::packed::{self, Codec, PackedOptions, PackedReader};
use snapshot::image::stream::PAGE_LEN;
use snapshot::image::{Complete, Limits, Unmarked};

use super::guest::Memory;
use super::plain_zstd;
use crate::measure::ratio;

/// 1 GiB.
const PAGES: u64 = 1 << 18;

/// Few, since a disk that is written to without end is a slower one.
const ROUNDS: usize = 5;

/// The two cores that the budget of packed images is about.
const WORKERS: usize = 2;

type Outcome = Result<(), Box<dyn Error>>;

/// What is measured, and how long it took each time.
struct Contestant<'a> {
    name: &'static str,
    run: Box<dyn Fn() -> Outcome + 'a>,
    times: Vec<Duration>,
}

impl<'a> Contestant<'a> {
    fn new(name: &'static str, run: impl Fn() -> Outcome + 'a) -> Self {
        Self { name, run: Box::new(run), times: Vec::new() }
    }

    fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    fn best(&self) -> Duration {
        self.times.iter().min().copied().unwrap_or_default()
    }
}

pub(super) fn run() -> Outcome {
    let program = std::env::current_exe()?;
    let beside = program.parent().ok_or("the program is in no directory")?;
    let directory = tempfile::Builder::new().prefix("bench-snapshot-").tempdir_in(beside)?;
    let memory = Memory::half_zero(PAGES);
    println!("1 GiB of memory, half of its pages zero; median (best) of {ROUNDS} rounds");
    measure(&Files::new(directory.path(), memory)?, memory)
}

/// The memory as it is saved and as it is, and where copies of it go.
struct Files {
    stream: PathBuf,
    memory: PathBuf,
    copy: PathBuf,
}

impl Files {
    fn new(directory: &Path, memory: Memory) -> Result<Self, Box<dyn Error>> {
        let files = Self {
            stream: directory.join("guest.save"),
            memory: directory.join("guest.memory"),
            copy: directory.join("copy"),
        };
        let mut stream = File::create(&files.stream)?;
        io::copy(&mut BufReader::with_capacity(1 << 20, memory.stream()?), &mut stream)?;
        let mut flat = BufWriter::with_capacity(1 << 20, File::create(&files.memory)?);
        let mut page = [0; PAGE_LEN];
        for pfn in 0..memory.pages {
            memory.page(pfn, &mut page);
            flat.write_all(&page)?;
        }
        let flat = flat.into_inner()?;
        stream.sync_all()?;
        flat.sync_all()?;
        Ok(files)
    }

    fn mapped(&self) -> Result<File, Box<dyn Error>> {
        let file = File::options().read(true).write(true).create_new(true).open(&self.copy)?;
        Ok(synced(mapped::write(File::open(&self.stream)?, file, &MappedOptions::default())?)?.file)
    }

    /// It is not synced: what is measured is the processor.
    fn packed(&self, codec: Codec) -> Result<File, Box<dyn Error>> {
        let file = File::options().read(true).write(true).create_new(true).open(&self.copy)?;
        let options = PackedOptions::default().codec(codec).workers(WORKERS);
        Ok(packed::write(File::open(&self.stream)?, file, &options)?.mark_complete()?.file)
    }

    /// How long the copy is that is made, which is removed.
    fn len_of(&self, make: impl Fn() -> Outcome) -> Result<u64, Box<dyn Error>> {
        make()?;
        let len = std::fs::metadata(&self.copy)?.len();
        self.clear()?;
        Ok(len)
    }

    /// Removes the copy.
    fn clear(&self) -> Outcome {
        Ok(std::fs::remove_file(&self.copy)?)
    }
}

/// All the syncs that a caller has to do.
fn synced(written: Unmarked) -> Result<Complete, Box<dyn Error>> {
    written.file().sync_all()?;
    let complete = written.mark_complete()?;
    complete.file.sync_all()?;
    Ok(complete)
}

fn measure(files: &Files, memory: Memory) -> Outcome {
    let mut writing = [
        Contestant::new("mapped", || files.mapped().map(drop)),
        Contestant::new("dd conv=fsync", || {
            let operand = |name: &str, path: &Path| format!("{name}={}", path.display());
            let mut dd = Command::new("dd");
            dd.args([operand("if", &files.memory), operand("of", &files.copy)]);
            succeed(dd.args(["bs=1M", "conv=fsync", "status=none"]))
        }),
        Contestant::new("cp --sparse=always, fsync", || {
            let mut cp = Command::new("cp");
            succeed(cp.arg("--sparse=always").args([&files.memory, &files.copy]))?;
            Ok(File::open(&files.copy)?.sync_all()?)
        }),
    ];
    alternate(&mut writing, || files.clear())?;
    print("written and synced", &writing, memory);
    let [mapped, dd, cp] = &writing;
    budget("mapped is faster than dd", ratio(dd.median(), mapped.median()), 1.5);
    budget("mapped is faster than cp", ratio(cp.median(), mapped.median()), 1.0);

    let mut packing = [
        Contestant::new("packed zstd-1", || files.packed(Codec::default()).map(drop)),
        Contestant::new("plain zstd-1 of the same frames", || {
            plain_zstd::compress(&files.stream, &files.copy, WORKERS)
        }),
        Contestant::new("packed lz4", || files.packed(Codec::Lz4).map(drop)),
    ];
    alternate(&mut packing, || files.clear())?;
    print("written, not synced", &packing, memory);
    let [packed, plain, _] = &packing;
    budget("packed zstd-1, GB/s of memory", rate(memory, packed.median()), 1.5);
    let faster = ratio(plain.median(), packed.median());
    println!("  packed zstd-1 is {faster:.2} times as fast as plain zstd-1");
    for (name, octets) in [
        ("packed zstd-1", files.len_of(|| files.packed(Codec::default()).map(drop))?),
        (
            "plain zstd-1",
            files.len_of(|| plain_zstd::compress(&files.stream, &files.copy, WORKERS))?,
        ),
    ] {
        println!("  {name} takes {} MB", octets / 1_000_000);
    }

    let mapped = MappedReader::open(files.mapped()?, Limits::default())?;
    std::fs::remove_file(&files.copy)?;
    let zstd = PackedReader::open(files.packed(Codec::default())?, Limits::default())?;
    std::fs::remove_file(&files.copy)?;
    let lz4 = PackedReader::open(files.packed(Codec::Lz4)?, Limits::default())?;
    let mut verifying = [
        Contestant::new("mapped", || Ok(mapped.verify().map(drop)?)),
        Contestant::new("packed zstd-1", || Ok(zstd.verify().map(drop)?)),
        Contestant::new("packed lz4", || Ok(lz4.verify().map(drop)?)),
    ];
    alternate(&mut verifying, || Ok(()))?;
    print("verified from the page cache", &verifying, memory);
    budget("mapped verified, GB/s of memory", rate(memory, verifying[0].median()), 3.0);
    Ok(())
}

/// Runs all in turn, each round beginning with another one. The first round, which fills caches, is not counted.
fn alternate(contestants: &mut [Contestant<'_>], after: impl Fn() -> Outcome) -> Outcome {
    for round in 0..=ROUNDS {
        for turn in 0..contestants.len() {
            let contestant = &mut contestants[(round + turn) % contestants.len()];
            let start = Instant::now();
            (contestant.run)().map_err(|error| format!("{}: {error}", contestant.name))?;
            let took = start.elapsed();
            if round > 0 {
                contestant.times.push(took);
            }
            after()?;
        }
    }
    Ok(())
}

fn succeed(command: &mut Command) -> Outcome {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn print(what: &str, contestants: &[Contestant<'_>], memory: Memory) {
    println!("  {what:<32} {:>14} {:>16}", "ms", "GB/s of memory");
    for contestant in contestants {
        let (median, best) = (contestant.median(), contestant.best());
        println!(
            "  {:<32} {:>14} {:>16}",
            contestant.name,
            format!("{} ({})", median.as_millis(), best.as_millis()),
            format!("{:.2} ({:.2})", rate(memory, median), rate(memory, best))
        );
    }
}

fn budget(what: &str, has: f64, at_least: f64) {
    let kept = if has >= at_least { "kept" } else { "NOT kept" };
    println!("  {what}: {has:.2}; budget: at least {at_least:.1}, {kept}");
}

#[expect(clippy::cast_precision_loss, reason = "a guest's memory is far below 2^52 octets")]
fn rate(memory: Memory, took: Duration) -> f64 {
    memory.octets() as f64 / took.as_secs_f64() / 1e9
}
