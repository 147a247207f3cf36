//! Disks: `format=raw,vdev=xvdb,access=rw,target=/srv/data.img`, or `/srv/data.img,raw,xvdb,rw`.

use super::{SpecError, backend, defbool, once};
use crate::model::{Disk, DiskBackend, DiskFormat, DiskSpecification};
use crate::retrieve::disks;

const KNOWN: &str = "known are target, format, vdev, access, backend, backendtype, devtype, specification, script, cdrom, \
                     direct-io-safe, discard, no-discard, trusted, untrusted";

/// Formats that stand before the target, as xl once had it.
const FORMATS: [&str; 5] = ["raw", "qcow", "qcow2", "vhd", "qed"];

/// Words before the target that say nothing any more.
const IGNORED: [&str; 7] = ["phy", "file", "tap", "tap2", "tapdisk", "aio", "ioemu"];

/// Words before the target that stand for a script, `block-WORD`.
const SCRIPTED: [&str; 4] = ["iscsi", "nbd", "enbd", "drbd"];

/// Reads a disk.
///
/// # Errors
/// What is wrong with it.
pub fn disk(text: &str) -> Result<Disk, SpecError> {
    let mut parts = Parts::default();
    let mut rest = text.trim();
    while !rest.is_empty() {
        // A target may hold commas, so it takes all that is left.
        if let Some(target) = rest.strip_prefix("target=") {
            once(&mut parts.target, "target", target)?;
            break;
        }
        let (item, behind) = rest.split_once(',').unwrap_or((rest, ""));
        parts.item(item.trim())?;
        rest = behind.trim_start();
    }
    parts.disk()
}

#[derive(Default)]
struct Parts {
    target: Option<String>,
    format: Option<String>,
    vdev: Option<String>,
    access: Option<String>,
    backend: Option<String>,
    backendtype: Option<String>,
    specification: Option<String>,
    script: Option<String>,
    devtype: Option<String>,
    discard: Option<String>,
    trusted: Option<String>,
    direct_io_safe: bool,
    /// How many items without a key there were.
    bare: usize,
}

impl Parts {
    fn item(&mut self, item: &str) -> Result<(), SpecError> {
        let Some((key, value)) = item.split_once('=') else { return self.word(item) };
        let (key, value) = (key.trim(), value.trim());
        match key {
            "format" => once(&mut self.format, "format", value),
            "vdev" => self.vdev(value),
            "access" => once(&mut self.access, "access", value),
            "backend" => once(&mut self.backend, "backend", value),
            "backendtype" => once(&mut self.backendtype, "backendtype", value),
            "devtype" => once(&mut self.devtype, "devtype", value),
            "specification" => once(&mut self.specification, "specification", value),
            "script" => once(&mut self.script, "script", value),
            _ if self.bare == 0 && item.contains('/') => self.word(item),
            _ => Err(SpecError::UnknownKey { key: key.to_owned(), known: KNOWN }),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), SpecError> {
        match word {
            "cdrom" => return once(&mut self.devtype, "devtype", "cdrom"),
            "direct-io-safe" => {
                self.direct_io_safe = true;
                return Ok(());
            }
            "discard" => return once(&mut self.discard, "discard", "on"),
            "no-discard" => return once(&mut self.discard, "discard", "off"),
            "trusted" => return once(&mut self.trusted, "trusted", "yes"),
            "untrusted" => return once(&mut self.trusted, "trusted", "no"),
            "colo" | "no-colo" => {
                return Err(SpecError::UnknownKey { key: word.to_owned(), known: KNOWN });
            }
            _ => {}
        }
        self.bare += 1;
        if word.is_empty() {
            return Ok(());
        }
        match self.bare {
            1 => self.bare_target(word),
            2 => once(&mut self.format, "format", word),
            3 => self.vdev(word),
            4 => once(&mut self.access, "access", word),
            _ => Err(SpecError::TooMany { item: word.to_owned() }),
        }
    }

    fn bare_target(&mut self, word: &str) -> Result<(), SpecError> {
        let mut target = word;
        while let Some((prefix, rest)) = target.split_once(':') {
            if FORMATS.contains(&prefix) {
                once(&mut self.format, "format", prefix)?;
            } else if SCRIPTED.contains(&prefix) {
                once(&mut self.script, "script", &format!("block-{prefix}"))?;
                target = rest;
                break;
            } else if !IGNORED.contains(&prefix) {
                break;
            }
            target = rest;
        }
        if target.is_empty() { Ok(()) } else { once(&mut self.target, "target", target) }
    }

    fn vdev(&mut self, value: &str) -> Result<(), SpecError> {
        let (vdev, kind) = value.split_once(':').unwrap_or((value, "disk"));
        match kind {
            "cdrom" => once(&mut self.devtype, "devtype", "cdrom")?,
            "disk" => {}
            _ => {
                return Err(SpecError::Value {
                    key: "vdev",
                    value: value.to_owned(),
                    wanted: "a vdev with nothing, :disk or :cdrom behind it",
                });
            }
        }
        once(&mut self.vdev, "vdev", vdev)
    }

    fn disk(self) -> Result<Disk, SpecError> {
        let is_cdrom = match self.devtype.as_deref() {
            None | Some("disk" | "") => false,
            Some("cdrom") => true,
            Some(other) => return Err(wrong("devtype", other, "disk or cdrom")),
        };
        let vdev = self.vdev.filter(|vdev| !vdev.is_empty());
        let vdev = vdev.ok_or(SpecError::Missing { key: "vdev", hint: ": give vdev=xvdb" })?;
        if disks::number(&vdev).is_none() {
            return Err(wrong("vdev", &vdev, "the name of a disk, like xvdb"));
        }
        let target = self.target.filter(|target| !target.is_empty());
        if target.is_none() && !is_cdrom {
            return Err(SpecError::Missing {
                key: "target",
                hint: ": give target=PATH, at the end",
            });
        }
        let format = match self.format.as_deref() {
            _ if is_cdrom && target.is_none() => DiskFormat::Empty,
            None | Some("" | "raw") => DiskFormat::Raw,
            Some("qcow") => DiskFormat::Qcow,
            Some("qcow2") => DiskFormat::Qcow2,
            Some("vhd") => DiskFormat::Vhd,
            Some("qed") => DiskFormat::Qed,
            Some("empty") => DiskFormat::Empty,
            Some(other) => {
                return Err(wrong("format", other, "one of raw, qcow, qcow2, vhd, qed, empty"));
            }
        };
        let is_writable = match self.access.as_deref() {
            None | Some("" | "w" | "rw") => true,
            Some("r" | "ro") => false,
            Some(other) => return Err(wrong("access", other, "one of r, ro, w, rw")),
        };
        let served = match self.backendtype.as_deref() {
            None | Some("") => DiskBackend::Unknown,
            Some("phy") => DiskBackend::Phy,
            Some("tap") => DiskBackend::Tap,
            Some("qdisk") => DiskBackend::Qdisk,
            Some("standalone" | "other") => DiskBackend::Standalone,
            Some(other) => {
                return Err(wrong("backendtype", other, "one of phy, tap, qdisk, standalone"));
            }
        };
        let specification = match self.specification.as_deref() {
            None | Some("") => DiskSpecification::Unknown,
            Some("xen") => DiskSpecification::Xen,
            Some("virtio") => DiskSpecification::Virtio,
            Some(other) => return Err(wrong("specification", other, "xen or virtio")),
        };
        let (backend_domid, backend_domname) = backend(self.backend.as_deref().unwrap_or_default());
        Ok(Disk {
            backend_domid,
            backend_domname,
            pdev_path: Some(target.unwrap_or_default()),
            vdev: Some(vdev),
            backend: served,
            format,
            script: self.script.filter(|script| !script.is_empty()),
            removable: i32::from(is_cdrom),
            readwrite: i32::from(is_writable && !is_cdrom),
            is_cdrom: i32::from(is_cdrom),
            direct_io_safe: self.direct_io_safe,
            discard_enable: self.discard.map(|on| defbool(on == "on")).unwrap_or_default(),
            specification,
            trusted: self.trusted.map(|yes| defbool(yes == "yes")).unwrap_or_default(),
            ..Disk::default()
        })
    }
}

fn wrong(key: &'static str, value: &str, wanted: &'static str) -> SpecError {
    SpecError::Value { key, value: value.to_owned(), wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DefBool;

    fn entry(text: &str) -> String {
        let disk = disk(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        serde_json::to_string(&disk).unwrap()
    }

    const DATA: &str =
        r#"{"pdev_path":"/srv/data.img","vdev":"xvdb","format":"raw","readwrite":1}"#;

    #[test]
    fn one_disk_is_written_in_many_ways() {
        for text in [
            "format=raw,vdev=xvdb,access=rw,target=/srv/data.img",
            "vdev=xvdb,target=/srv/data.img",
            "/srv/data.img,raw,xvdb,w",
            "/srv/data.img,,xvdb",
            " /srv/data.img , raw , xvdb , rw ",
            "raw:/srv/data.img,,xvdb,w",
            "phy:/srv/data.img,,xvdb,w",
            "file:/srv/data.img,raw,xvdb:disk",
            "/srv/data.img, vdev=xvdb, format=raw, format=raw",
        ] {
            assert_eq!(entry(text), DATA, "{text}");
        }
    }

    #[test]
    fn a_target_takes_all_that_is_left_of_the_text() {
        let disk = disk("vdev=xvdb,target=/srv/a,b,access=r").unwrap();
        assert_eq!(disk.pdev_path.as_deref(), Some("/srv/a,b,access=r"));
        assert_eq!(disk.readwrite, 1);
    }

    #[test]
    fn each_key_has_its_field() {
        let made = disk(
            "vdev=xvdc,format=qcow2,access=ro,backendtype=qdisk,script=block-x,direct-io-safe,no-discard,untrusted,\
             backend=storage,specification=xen,target=/srv/q",
        )
        .unwrap();
        assert_eq!(made.format, DiskFormat::Qcow2);
        assert_eq!((made.readwrite, made.direct_io_safe), (0, true));
        assert_eq!((made.discard_enable, made.trusted), (DefBool::False, DefBool::False));
        assert_eq!(made.backend_domname.as_deref(), Some("storage"));
        assert_eq!(made.script.as_deref(), Some("block-x"));
        assert_eq!(disk("nbd:host:8000,,xvdb").unwrap().script.as_deref(), Some("block-nbd"));
        assert_eq!(disk("backend=4,vdev=xvdb,target=/a").unwrap().backend_domid.get(), 4);
    }

    #[test]
    fn an_empty_drive_needs_no_target() {
        for text in [",empty,hdc:cdrom,r", "vdev=hdc,cdrom", "devtype=cdrom,vdev=hdc"] {
            let drive = disk(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((drive.is_cdrom, drive.removable, drive.readwrite), (1, 1, 0), "{text}");
            assert_eq!(drive.format, DiskFormat::Empty);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("", "vdev is missing"),
            ("vdev=xvdb", "target is missing"),
            ("target=/srv/a", "vdev is missing"),
            ("vdev=vdb,target=/a", "\"vdb\" is not the name of a disk"),
            ("vdev=xvdb,format=vmdk,target=/a", "format: \"vmdk\" is not one of raw"),
            ("vdev=xvdb,access=x,target=/a", "access: \"x\" is not one of r, ro"),
            ("vdev=xvdb,vdev=xvdc,target=/a", "vdev is given twice, as \"xvdb\" and as \"xvdc\""),
            ("/a,raw,xvdb,vdev=xvdc", "given twice"),
            ("/a,raw,xvdb,w,more", "\"more\" is one too many"),
            ("vdev=xvdb,mode=w,target=/a", "\"mode\" is not known here"),
            ("vdev=xvdb:tape,target=/a", "vdev: \"xvdb:tape\""),
            ("colo,vdev=xvdb,target=/a", "\"colo\" is not known here"),
        ] {
            let error = disk(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
