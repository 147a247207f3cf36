//! What a process holds that writes and checks the image of a large guest, in children of their own.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use snapshot::image::Limits;
use snapshot::image::mapped::{self, MappedOptions, MappedReader};
use snapshot::image::packed::{self, PackedOptions, PackedReader};

use super::guest::Memory;

/// What this program is called with to write an image of a format, made of a guest of so many GiB.
pub(crate) const CHILD: &str = "snapshot-memory-child";

const MAX_KIB: u64 = 64 << 10;

const PAGES_OF_GIB: u64 = 1 << 18;

pub(super) fn run() -> Result<(), Box<dyn Error>> {
    println!(
        "peak memory of a process that writes and verifies the image of a sparse guest, out of a pipe"
    );
    println!("budget: under {} MiB each, whatever the guest's size", MAX_KIB >> 10);
    println!("  {:<8} {:>8} {:>8} {:>8}", "", "GiB", "KiB", "s");
    for format in ["mapped", "packed"] {
        for gib in [1, 4, 16] {
            let start = Instant::now();
            let kib = peak_of(format, gib)?;
            let kept = if kib < MAX_KIB { "kept" } else { "NOT kept" };
            let seconds = start.elapsed().as_secs_f64();
            println!("  {format:<8} {gib:>8} {kib:>8} {seconds:>8.1} {kept}");
        }
    }
    Ok(())
}

fn peak_of(format: &str, gib: u64) -> Result<u64, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(&program)
        .args([CHILD, format])
        .current_dir(program.parent().ok_or("the program is in no directory")?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("the child has no input")?;
    let given = io::copy(&mut Memory::sparse(gib * PAGES_OF_GIB).stream()?, &mut input).map(|_| ());
    drop(input);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("{format} of {gib} GiB: {}", output.status).into());
    }
    given?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Writes and verifies an image of the stream that is its input, and prints the most KiB that were resident.
pub(crate) fn child(format: &str) -> Result<(), Box<dyn Error>> {
    let (input, limits) = (io::stdin().lock(), Limits::default());
    // It has no name, so that nothing is left behind.
    let file: File = tempfile::tempfile_in(".")?;
    match format {
        "mapped" => {
            let written = mapped::write(input, file, &MappedOptions::default())?;
            MappedReader::open(written.mark_complete()?.file, limits)?.verify()?;
        }
        "packed" => {
            let written = packed::write(input, file, &PackedOptions::default())?;
            PackedReader::open(written.mark_complete()?.file, limits)?.verify()?;
        }
        _ => return Err(format!("no format {format}").into()),
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("{}", peak.ok_or("no VmHWM in the status")?.trim().trim_end_matches(" kB"));
    Ok(())
}
