//! One run of the host: QEMU, its share, its end.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use stock_xenstore::{spawn_bound, wait};

use super::{Image, LabError, initramfs};
use crate::dom0;
use crate::xenstored::Xenstored;

/// What one boot is asked to do.
pub(super) struct Job<'a> {
    /// A script of bash that the host runs when it is up.
    pub(super) script: &'a str,
    /// Programs that it finds in /lab/bin.
    pub(super) programs: &'a [PathBuf],
    /// The program of the guests.
    pub(super) guest: &'a Path,
    /// The module by which the guests can spoil their rings, for scenarios that have them do so.
    pub(super) ring_module: Option<&'a Path>,
    /// The Xenstore daemon that the host starts.
    pub(super) xenstored: Xenstored,
    /// For all of it, from the start of QEMU.
    pub(super) limit: Duration,
}

/// How a boot ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The script ended with this status.
    Script(i32),
    /// The host did not come up, or went down before the script ended.
    NoStatus(String),
    /// The time was up.
    TimeUp { booted: bool },
}

/// dom0's standard output and errors, in the share.
const OUTPUT: &str = "output";
/// How often it is looked for more output: what QEMU writes for the guest cannot be watched cheaper.
const LOOK: Duration = Duration::from_millis(200);

/// Boots the host with `share` as its share and passes its output on as it comes. What it leaves is in `share`: `output`,
/// `logs/`, and what the script wrote.
pub(super) fn run(image: &Image, share: &Path, job: &Job<'_>) -> Result<Ended, LabError> {
    prepare(image, share, job)?;
    let mut qemu = start(image, share)?;
    let deadline = Instant::now() + job.limit;
    let mut shown = 0;
    let ended = loop {
        let look = deadline.min(Instant::now() + LOOK);
        let ended = wait(&mut qemu, look).map_err(LabError::file(share))?;
        shown += show(&share.join(OUTPUT), shown);
        if ended.is_some() {
            break true;
        }
        if Instant::now() >= deadline {
            break false;
        }
    };
    if !ended {
        qemu.kill().and_then(|()| qemu.wait()).map_err(LabError::file(share))?;
    }
    let _ = fs::remove_dir_all(share.join("bin")); // large, and known
    let _ = fs::remove_dir_all(share.join("guest"));
    let _ = fs::remove_dir_all(share.join("project"));
    Ok(outcome(share, ended))
}

fn outcome(share: &Path, ended: bool) -> Ended {
    let read = |file: &str| fs::read_to_string(share.join(file)).ok();
    if let Some(status) = read("status").and_then(|text| text.trim().parse().ok()) {
        return Ended::Script(status);
    }
    if !ended {
        return Ended::TimeUp { booted: share.join("booted").exists() };
    }
    Ended::NoStatus(
        read("boot-failed").unwrap_or_else(|| "the host went down by itself".into()).trim().into(),
    )
}

/// Fills the share, and what is beside it.
fn prepare(image: &Image, share: &Path, job: &Job<'_>) -> Result<(), LabError> {
    for directory in ["bin", "guest", "logs/xen", "logs/console"] {
        let directory = share.join(directory);
        fs::create_dir_all(&directory).map_err(LabError::file(&directory))?;
    }
    let write = |name: &str, contents: &[u8]| {
        let file = share.join(name);
        fs::write(&file, contents).map_err(LabError::file(&file))
    };
    write("job", job.script.as_bytes())?;
    write(dom0::XENSTORED, job.xenstored.name().as_bytes())?;
    write("dom0.initrd", &initramfs::of_dom0(image)?)?;
    copy_pages(&share.join("project"))?;
    for program in job.programs {
        let name = program.file_name().unwrap_or_default();
        strip(program, &share.join("bin").join(name))?;
        check_libraries(image, program)?;
    }
    let guest = share.join("bin/guest-program");
    strip(job.guest, &guest)?;
    write("guest/initrd", &initramfs::of_guest(image, &guest, job.ring_module)?)?;
    fs::remove_file(&guest).map_err(LabError::file(&guest))?;
    let kernel = share.join("guest/vmlinuz");
    fs::copy(image.kernel(), &kernel).map(drop).map_err(LabError::file(&kernel))
}

/// README and docs/, which one scenario plays.
fn copy_pages(to: &Path) -> Result<(), LabError> {
    let root = documents::project();
    let pages = documents::pages(&root).map_err(LabError::file(&root))?;
    fs::create_dir_all(to.join("docs")).map_err(LabError::file(to))?;
    for page in pages {
        let file = to.join(&page.name);
        fs::write(&file, page.text).map_err(LabError::file(&file))?;
    }
    Ok(())
}

/// Copies a program without its debug information, of which there is ten times as much; all of it, where binutils are not
/// installed.
fn strip(program: &Path, to: &Path) -> Result<(), LabError> {
    let mut strip = std::process::Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(to).arg(program);
    if strip.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    fs::copy(program, to).map(drop).map_err(LabError::file(program))
}

/// A program built on a newer Debian may want more of libc than the host's.
fn check_libraries(image: &Image, program: &Path) -> Result<(), LabError> {
    let mut list = image.loader();
    let output = list.arg("--list").arg(program).output().map_err(LabError::file(program))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(LabError::Libraries { program: program.to_owned(), reason })
}

fn start(image: &Image, share: &Path) -> Result<Child, LabError> {
    let root = image.root();
    let mut qemu = image.program("usr/bin/qemu-system-x86_64");
    // Its accelerators and devices are modules beside the other libraries.
    qemu.env("QEMU_MODULE_DIR", image.libraries().join("qemu"));
    qemu.env("TMPDIR", share); // of what snapshot=on keeps; unlinked at once
    for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        qemu.arg("-L").arg(root.join(data));
    }
    // iret in ring 3 trips SMAP, MWAIT faults, rdtscp below a hypervisor breaks PVH guests, and XSAVE loses registers where there are any:
    // AVX is an invalid instruction after some switches between domains, and what was in an SSE register is zero. Hence the processor.
    qemu.args(["-accel", "tcg,thread=multi"]);
    qemu.args(["-cpu", "EPYC,+svm,-smap,-smep,-monitor,-rdtscp,-xsave,-xsaveopt,-xsavec,-xgetbv1,-avx,-avx2,-fma,-f16c"]);
    qemu.args(["-smp", "2", "-m", "4096"]);
    qemu.args(["-no-reboot", "-display", "none", "-nodefaults"]);
    qemu.arg("-kernel").arg(image.hypervisor()).arg("-append").arg(
        "dom0_mem=1536M,max:1536M dom0_max_vcpus=1 console=com1 com1=115200,8n1 loglvl=warning cpuidle=0",
    );
    // Where the machine has other work to do, Xen may measure the TSC wrong by a factor of ten at its start, and Linux would
    // trust that for good. Xen itself corrects its clock every second.
    qemu.arg("-initrd").arg(format!(
        "{} console=hvc0 quiet rdinit=/init clocksource=xen,{}",
        option(&image.kernel()),
        option(&share.join("dom0.initrd"))
    ));
    qemu.arg("-drive");
    qemu.arg(format!("file={},format=raw,if=virtio,snapshot=on", option(&image.disk())));
    qemu.arg("-fsdev");
    qemu.arg(format!("local,id=share,path={},security_model=none", option(share)));
    qemu.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]);
    qemu.arg("-serial").arg(format!("file:{}", option(&share.join("logs/dom0-console.log"))));
    let log = share.join("logs/machine.log");
    let output = File::create(&log).map_err(LabError::file(&log))?;
    let errors = output.try_clone().map_err(LabError::file(&log))?;
    qemu.stdin(std::process::Stdio::null()).stdout(output).stderr(errors);
    spawn_bound(qemu).map_err(LabError::file(&image.hypervisor()))
}

/// A comma ends a part of QEMU's options; two are one.
fn option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Prints what the file has beyond `from`, and tells how much that was.
fn show(file: &Path, from: u64) -> u64 {
    use std::io::Seek;
    let more = File::open(file).and_then(|mut file| {
        file.seek(std::io::SeekFrom::Start(from))?;
        let mut more = Vec::new();
        file.read_to_end(&mut more)?;
        let mut terminal = std::io::stdout().lock();
        terminal.write_all(&more)?;
        terminal.flush()?;
        Ok(more.len() as u64)
    });
    more.unwrap_or(0) // not there yet
}
