//! `snapshot restore` and `snapshot recover`: exactly what was typed.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use snapshot::disk::image::ImageFormat;
use uuid::Uuid;
use xsclient::DomId;

use super::save::path_of;
use super::{ControlAt, DepthChoice, control};

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The manifest of the snapshot
    pub(crate) manifest: PathBuf,
    /// The hypervisor: libxl (this Xen host's), libxl:FILE, or simulated:SOCKET, a simulated host
    #[arg(long, value_name = "KIND[:ADDRESS]", default_value = "libxl", value_parser = control())]
    pub(crate) control: ControlAt,
    /// The new domain's name, if not the saved one
    #[arg(long, value_name = "NAME")]
    pub(crate) as_name: Option<String>,
    /// The new domain's uuid: a new one, the saved one, or this one
    #[arg(long, value_name = "new|keep|UUID", default_value = "keep")]
    pub(crate) uuid: UuidSpec,
    /// What a disk is in. IMAGE is overlay:PATH (a new one over what was frozen), frozen (read-only), active (with what was
    /// written since), configured, or image:PATH,format=raw|qcow2 (a copy of what was
    /// frozen; with `,verify` behind it compared with its digest)
    #[arg(long = "disk", value_name = "VDEV=IMAGE", value_parser = disk())]
    pub(crate) disks: Vec<RestoreDiskSpec>,
    /// Another MAC address for a network interface
    #[arg(long = "mac", value_name = "DEVID=MAC")]
    pub(crate) macs: Vec<MacSpec>,
    /// Another bridge for a network interface
    #[arg(long = "bridge", value_name = "DEVID=BRIDGE")]
    pub(crate) bridges: Vec<BridgeSpec>,
    /// In the place of this domain, which is destroyed once the new one is built
    #[arg(long, value_name = "DOMID")]
    pub(crate) replace: Option<DomId>,
    /// Destroy it first: where there is not memory for both, or the new one takes over its images
    #[arg(long, requires = "replace")]
    pub(crate) free_first: bool,
    /// Leave the new domain paused
    #[arg(long)]
    pub(crate) paused: bool,
    /// How thoroughly disks are compared before; memory and Xenstore state are compared whole in any case
    #[arg(long, value_enum, default_value_t = DepthChoice::Chain)]
    pub(crate) verify: DepthChoice,
    /// Where the memory image is, if not where the manifest says
    #[arg(long, value_name = "PATH")]
    pub(crate) memory: Option<PathBuf>,
    /// Where the Xenstore state is, if not where the manifest says
    #[arg(long, value_name = "PATH")]
    pub(crate) xenstore_state: Option<PathBuf>,
    /// A new file for what was done, which `snapshot recover` reads if this process dies
    #[arg(long, value_name = "PATH")]
    pub(crate) journal: Option<PathBuf>,
    /// Change nothing, and say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The journal of the save or restore that died
    pub(crate) journal: PathBuf,
    /// The hypervisor: libxl (this Xen host's), libxl:FILE, or simulated:SOCKET, a simulated host
    #[arg(long, value_name = "KIND[:ADDRESS]", default_value = "libxl", value_parser = control())]
    pub(crate) control: ControlAt,
    /// A new file for the manifest, if the save is completed
    #[arg(long, value_name = "PATH")]
    pub(crate) manifest: Option<PathBuf>,
}

/// The uuid of a restored domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UuidSpec {
    New,
    Keep,
    This(Uuid),
}

#[derive(Debug, thiserror::Error)]
#[error("not new, keep or a uuid")]
pub(crate) struct UuidError;

impl FromStr for UuidSpec {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, UuidError> {
        match text {
            "new" => Ok(Self::New),
            "keep" => Ok(Self::Keep),
            text => text.parse().map(Self::This).map_err(|_| UuidError),
        }
    }
}

/// Which image a disk gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RestoreDiskSpec {
    pub(crate) vdev: String,
    pub(crate) image: ImageSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageSpec {
    Overlay(PathBuf),
    Frozen,
    Active,
    Configured,
    Image { path: PathBuf, format: ImageFormat, verify: bool },
}

#[derive(Debug, thiserror::Error)]
#[error(
    "not VDEV=IMAGE with overlay:PATH, frozen, active, configured or image:PATH,format=raw|qcow2[,verify] as IMAGE"
)]
struct DiskError;

fn disk() -> impl TypedValueParser<Value = RestoreDiskSpec> {
    OsStringValueParser::new().try_map(|typed| disk_of(typed.as_bytes()).ok_or(DiskError))
}

fn disk_of(typed: &[u8]) -> Option<RestoreDiskSpec> {
    const FORMAT: &[u8] = b",format=";
    const VERIFY: &[u8] = b",verify";
    let (vdev, rest) = super::vdev_and_rest(typed)?;
    let image = match rest {
        b"frozen" => ImageSpec::Frozen,
        b"active" => ImageSpec::Active,
        b"configured" => ImageSpec::Configured,
        rest => {
            if let Some(path) = rest.strip_prefix(b"overlay:") {
                ImageSpec::Overlay(path_of(path)?)
            } else {
                let rest = rest.strip_prefix(b"image:")?;
                let (rest, verify) = match rest.strip_suffix(VERIFY) {
                    Some(rest) => (rest, true),
                    None => (rest, false),
                };
                let at = rest.windows(FORMAT.len()).rposition(|octets| octets == FORMAT)?;
                let name = str::from_utf8(&rest[at + FORMAT.len()..]).ok()?;
                let (path, format) = (path_of(&rest[..at])?, ImageFormat::from_name(name)?);
                ImageSpec::Image { path, format, verify }
            }
        }
    };
    Some(RestoreDiskSpec { vdev, image })
}

/// Another MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MacSpec {
    pub(crate) devid: u32,
    pub(crate) mac: [u8; 6],
}

#[derive(Debug, thiserror::Error)]
#[error("not an interface and an address as in 0=00:16:3e:01:02:03")]
pub(crate) struct MacError;

impl FromStr for MacSpec {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let (devid, mac) = text.split_once('=').ok_or(MacError)?;
        let octets: Vec<u8> = mac
            .split(':')
            .map(|octet| {
                let digits =
                    octet.len() == 2 && octet.bytes().all(|digit| digit.is_ascii_hexdigit());
                digits.then(|| u8::from_str_radix(octet, 16).ok()).flatten()
            })
            .collect::<Option<_>>()
            .ok_or(MacError)?;
        let mac = octets.try_into().map_err(|_| MacError)?;
        Ok(Self { devid: devid.parse().map_err(|_| MacError)?, mac })
    }
}

/// Another bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgeSpec {
    pub(crate) devid: u32,
    pub(crate) bridge: String,
}

#[derive(Debug, thiserror::Error)]
#[error("not an interface and a bridge as in 0=xenbr1")]
pub(crate) struct BridgeError;

impl FromStr for BridgeSpec {
    type Err = BridgeError;

    fn from_str(text: &str) -> Result<Self, BridgeError> {
        let (devid, bridge) = text.split_once('=').ok_or(BridgeError)?;
        let devid = devid.parse().map_err(|_| BridgeError)?;
        if bridge.is_empty() {
            return Err(BridgeError);
        }
        Ok(Self { devid, bridge: bridge.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_vdev_and_an_image() {
        let image = |typed: &[u8]| disk_of(typed).map(|disk| disk.image);
        assert_eq!(image(b"xvda=overlay:/a,b"), Some(ImageSpec::Overlay("/a,b".into())));
        assert_eq!(image(b"xvda=frozen"), Some(ImageSpec::Frozen));
        let (path, format) = ("/a,format=x".into(), ImageFormat::Raw);
        assert_eq!(
            image(b"xvda=image:/a,format=x,format=raw"),
            Some(ImageSpec::Image { path, format, verify: false })
        );
        let (path, format) = ("/a".into(), ImageFormat::Qcow2);
        assert_eq!(
            image(b"xvda=image:/a,format=qcow2,verify"),
            Some(ImageSpec::Image { path, format, verify: true })
        );
        for wrong in [
            &b"xvda"[..],
            b"xvda=",
            b"xvda=image:/a",
            b"xvda=image:/a,format=vhd",
            b"xvda=overlay:",
            b"=frozen",
        ] {
            assert_eq!(image(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_address_is_six_octets() {
        let mac = "1=00:16:3e:0a:Fb:ff".parse::<MacSpec>().unwrap();
        assert_eq!(mac, MacSpec { devid: 1, mac: [0, 0x16, 0x3e, 0x0a, 0xfb, 0xff] });
        for wrong in [
            "",
            "1",
            "00:16:3e:0a:fb:ff",
            "1=0:16:3e:0a:fb:ff",
            "1=00:16:3e:0a:fb",
            "1=00:16:3e:0a:fb:+f",
        ] {
            assert!(wrong.parse::<MacSpec>().is_err(), "{wrong}");
        }
        assert!("0=".parse::<BridgeSpec>().is_err());
    }

    #[test]
    fn a_uuid_is_new_kept_or_given() {
        assert_eq!("new".parse::<UuidSpec>().unwrap(), UuidSpec::New);
        assert_eq!("keep".parse::<UuidSpec>().unwrap(), UuidSpec::Keep);
        assert!("other".parse::<UuidSpec>().is_err());
    }
}
