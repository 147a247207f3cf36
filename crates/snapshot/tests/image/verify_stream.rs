//! What comes out of our images is what Xen's own verifier accepts.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use snapshot::image::Limits;
use snapshot::image::mapped::MappedReader;
use snapshot::image::packed::{Codec, PackedReader};
use snapshot::image::stream::{GuestType, ImageVersion, Start};
use stock_xenstore::Packages;

use crate::synthetic::{Guest, captured, mapped, packed};

/// The stock verifier; `None`, with a note, where it or what it runs on is not there.
fn verifier(test: &str) -> Option<impl Fn(&str, &Path) -> Result<(), String>> {
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            return None;
        }
    };
    let xen = packages.root().join("usr/lib/xen-4.17");
    let program = xen.join("bin/verify-stream-v2");
    if !program.exists() {
        println!("skipped: {test}: the packages have no verify-stream-v2");
        return None;
    }
    if let Err(error) = Command::new("python3").arg("--version").output() {
        println!("skipped: {test}: python3: {error}");
        return None;
    }
    Some(move |format: &str, file: &Path| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", xen.join("lib/python")).env("PYTHONDONTWRITEBYTECODE", "1");
        let output = command.arg(&program).args(["-f", format, "-i"]).arg(file).output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
}

fn accepts_what_comes_out(
    verify: &impl Fn(&str, &Path) -> Result<(), String>,
    format: &str,
    stream: &File,
) {
    use std::io::Seek;
    let rewound = || {
        let mut stream = stream.try_clone().unwrap();
        stream.rewind().unwrap();
        stream
    };
    let mut out = tempfile::NamedTempFile::new().unwrap();
    let image = mapped(rewound()).unwrap();
    let image = MappedReader::open(&image, Limits::default()).unwrap();
    image.write_stream(out.as_file_mut()).unwrap();
    verify(format, out.path()).unwrap();
    for codec in [Codec::default(), Codec::Lz4] {
        let mut out = tempfile::NamedTempFile::new().unwrap();
        let image = packed(rewound(), codec).unwrap();
        let image = PackedReader::open(&image, Limits::default()).unwrap();
        image.write_stream(out.as_file_mut()).unwrap();
        verify(format, out.path()).unwrap();
    }
}

#[test]
fn the_stock_verifier_accepts_a_real_file_that_was_through_our_images() {
    let test = "the_stock_verifier_accepts_a_real_file_that_was_through_our_images";
    let (Some(file), Some(verify)) = (captured(test), verifier(test)) else { return };
    accepts_what_comes_out(&verify, "xl", &file);
}

#[test]
fn the_stock_verifier_accepts_synthetic_streams_and_refuses_what_we_refuse() {
    let test = "the_stock_verifier_accepts_synthetic_streams_and_refuses_what_we_refuse";
    let Some(verify) = verifier(test) else { return };
    for (start, format) in [(Start::Xl, "xl"), (Start::Libxl, "libxl"), (Start::Libxc, "libxc")] {
        for kind in [GuestType::X86Pv, GuestType::X86Hvm] {
            for version in [ImageVersion::V2, ImageVersion::V3] {
                let mut guest = Guest::of_pages(kind, 100);
                (guest.start, guest.version) = (start, version);
                // Under Python 3 that verifier takes no EMULATOR_XENSTORE_DATA that holds anything.
                guest.physmap.clear();
                let mut file = tempfile::NamedTempFile::new().unwrap();
                let stream = guest.stream();
                file.write_all(&stream).unwrap();
                accepts_what_comes_out(&verify, format, file.as_file());
                file.as_file().set_len(stream.len() as u64 - 1).unwrap();
                verify(format, file.path()).unwrap_err();
            }
        }
    }
}
