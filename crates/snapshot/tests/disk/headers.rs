//! The header reader beside `qemu-img`.

use std::fs;
use std::path::Path;

use snapshot::disk::image::{ImageFormat, ImageRef, Qcow2Header};
use snapshot::disk::qemu_img::{QemuImg, QemuImgError};

use crate::programs::{available, deadline, qemu_img};

/// That both tell the same of an image, if `qemu-img` takes it.
fn compare(image: &Path, what: &str) -> bool {
    let own = Qcow2Header::parse(&fs::read(image).unwrap());
    let theirs = QemuImg::default().info(image, ImageFormat::Qcow2, true, deadline());
    match (own, theirs) {
        (Ok(own), Ok(theirs)) => {
            // QEMU forgets what is no whole sector.
            assert_eq!(own.virtual_size / 512, theirs.virtual_size / 512, "{what}");
            let (name, format) = own.backing.map_or((None, None), |it| (Some(it.name), it.format));
            let name = name.map(|name| String::from_utf8_lossy(&name).into_owned());
            assert_eq!(name, theirs.backing.map(|it| it.to_string_lossy().into_owned()), "{what}");
            assert_eq!(format, theirs.backing_format, "{what}");
            true
        }
        // It looks further than into the header.
        (Ok(_), Err(QemuImgError::Failed { .. })) | (Err(_), _) => false,
        (Ok(_), Err(error)) => panic!("{what}: {error}"),
    }
}

#[test]
fn what_qemu_img_makes_is_read_as_qemu_img_reads_it() {
    const TEST: &str = "what_qemu_img_makes_is_read_as_qemu_img_reads_it";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image, with a comma");
    let name = image.to_str().unwrap();
    let long = format!("/{}", "b".repeat(1000));
    for options in [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=2M,extended_l2=on",
        "compression_type=zstd",
        "lazy_refcounts=on,refcount_bits=1",
    ] {
        for backing in ["", "base", "/images/base, raw", &long] {
            if options == "cluster_size=512" && backing == long {
                continue; // it has no room in the first cluster
            }
            let backing =
                if backing.is_empty() { vec![] } else { vec!["-u", "-F", "raw", "-b", backing] };
            let create = ["create", "-q", "-f", "qcow2", "-o", options];
            qemu_img(directory.path(), &[&create[..], &backing, &[name, "1G"]].concat());
            assert!(compare(&image, &format!("{options} {backing:?}")));
        }
    }
}

/// Whatever bit of a header is flipped, the image is refused, or is known for another than it was.
#[test]
fn a_flipped_bit_in_a_header_is_noticed() {
    const TEST: &str = "a_flipped_bit_in_a_header_is_noticed";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    let create =
        ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/images/base", "image", "64M"];
    qemu_img(directory.path(), &create);
    let sound = fs::read(&image).unwrap();
    let before = ImageRef::read(&image, ImageFormat::Qcow2).unwrap();
    let (mut refused, mut compared) = (0, 0);
    // The name of the backing file ends within the first 600 octets.
    for bit in 0..600 * 8 {
        let mut octets = sound.clone();
        octets[bit / 8] ^= 1 << (bit % 8);
        fs::write(&image, &octets).unwrap();
        match ImageRef::read(&image, ImageFormat::Qcow2) {
            Err(_) => refused += 1,
            Ok(now) => assert_ne!(now.header_digest, before.header_digest, "bit {bit}"),
        }
        // A program a bit would take minutes.
        if bit % 23 == 0 {
            compared += usize::from(compare(&image, &format!("bit {bit}")));
        }
    }
    println!("{TEST}: {refused} refused at once; {compared} read as qemu-img reads them");
    assert!(refused > 300, "{refused}");
}
