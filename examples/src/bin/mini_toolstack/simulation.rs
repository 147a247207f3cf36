//! What a Xen host has already, played: a hypervisor, a guardian for its domains, and the drivers at both ends of a device.

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path as FilePath;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libxl_config::hotplug::spec;
use libxl_config::model::Disk;
use snapshot::guard;
use snapshot::simulated::{Host, HostProcess, SimulatedDomain, listener_on_stdin};
use xsclient::{Client, Nodes, Path};

/// Octets of an image.
const DISK_OCTETS: u64 = 8 << 20;

/// How long a driver waits for its next event: nothing happens when it is over.
const LONG: Duration = Duration::from_secs(3600);

/// Starts the hypervisor, tied to this process: a domain outlives whoever saves it, so it is in another process.
///
/// The library has no program for that, since a program would bring its own Xenstore along. So this one is started again, and told
/// by its arguments what it is.
pub(crate) fn start(directory: &FilePath, by: Instant) -> Result<HostProcess, Box<dyn Error>> {
    let mut program = Command::new(env::current_exe()?);
    program.arg("simulated-host").arg(directory);
    Ok(HostProcess::start(program, directory.join("host"), by)?)
}

/// In the process that [`start`] has started. Nodes and templates are not its own business, but the toolstack's.
pub(crate) fn host(directory: &FilePath) -> Result<(), Box<dyn Error>> {
    let host = Host::new(directory, None)?;
    Ok(host.serve(&listener_on_stdin()?)?)
}

/// In the process that a save starts as its guardian: `domkeep guard` does the same.
pub(crate) fn guardian() -> Result<(), Box<dyn Error>> {
    let mut saver = BufReader::new(io::stdin());
    let needs = guard::read_needs(&mut saver)?;
    let control = SimulatedDomain::from_guardian(&needs)?;
    guard::run(&control, &needs.domain, saver, io::stdout())?;
    Ok(())
}

/// Plays the drivers at both ends of every disk, until Xenstore is gone.
pub(crate) fn play_drivers(mut client: Client) {
    let played = "/local/domain/0/backend".parse::<Path>().map_err(Into::into).and_then(|all| {
        let watch = client.watch(all, None)?;
        loop {
            if let Some(event) = client.next_event(&watch, LONG)? {
                step(&mut client, event.path.as_str())?;
            }
        }
    });
    let Err::<(), Box<dyn Error>>(error) = played else { return };
    eprintln!("mini_toolstack: the drivers have ended: {error}");
}

/// What follows from a change: a connection in two steps, and an end that both agree to.
fn step(client: &mut Client, changed: &str) -> Result<(), Box<dyn Error>> {
    let Some(backend) = changed.strip_suffix("/state") else { return Ok(()) };
    let state: Path = changed.parse()?;
    let (Some(now), Some(frontend)) = (
        client.read_optional(&state)?,
        client.read_optional(&format!("{backend}/frontend").parse()?)?,
    ) else {
        return Ok(());
    };
    let frontend = Path::from_octets(&frontend)?.join("state")?;
    match now.as_slice() {
        b"1" => client.write(&state, b"2")?,
        b"2" => {
            client.write(&frontend, b"4")?;
            client.write(&state, b"4")?;
        }
        b"5" => {
            client.write(&frontend, b"6")?;
            client.write(&state, b"6")?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether images can be qcow2 ones, behind a real QEMU.
pub(crate) fn has_qemu() -> bool {
    ["qemu-img", "qemu-storage-daemon", "setpriv"].into_iter().all(|program| {
        let mut asked = Command::new(program);
        asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    })
}

/// A disk on a new image.
pub(crate) fn new_disk(vdev: &str, format: &str, image: &FilePath) -> Result<Disk, Box<dyn Error>> {
    if format == "raw" {
        File::create_new(image)?.set_len(DISK_OCTETS)?;
    } else {
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", format]).arg(image).arg(DISK_OCTETS.to_string());
        let status = create.status()?;
        if !status.success() {
            return Err(format!("qemu-img create: {status}").into());
        }
    }
    disk(vdev, format, image)
}

/// A disk as `xl` has it written, served by QEMU.
pub(crate) fn disk(vdev: &str, format: &str, image: &FilePath) -> Result<Disk, Box<dyn Error>> {
    let image = image.display();
    Ok(spec::disk(&format!(
        "vdev={vdev},format={format},access=rw,backendtype=qdisk,target={image}"
    ))?)
}
