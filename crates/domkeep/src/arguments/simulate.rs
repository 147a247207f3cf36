//! `simulate`: exactly what was typed.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, StringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(crate) enum Simulate {
    /// Run a host until SIGINT or SIGTERM: its socket DIR/host, its Xenstore DIR/xenstore, its templates DIR/templates
    Serve {
        /// Its directory; the domains' memory is in files without names there
        #[arg(value_name = "DIR", value_parser = text_path())]
        directory: PathBuf,
        /// Its socket, if it is to be another
        #[arg(long, value_parser = text_path())]
        socket: Option<PathBuf>,
    },
    /// Make a domain, paused before it has run
    Create(NewDomain),
    /// List the domains
    List {
        /// The host's socket
        host: PathBuf,
    },
    /// Destroy a domain
    Destroy {
        /// The host's socket
        host: PathBuf,
        /// Name or id of the domain
        domain: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewDomain {
    /// The host's socket
    pub(crate) host: PathBuf,
    /// Its name
    #[arg(long)]
    pub(crate) name: String,
    /// Its uuid [default: a random one]
    #[arg(long)]
    pub(crate) uuid: Option<Uuid>,
    /// Its memory
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) memory_mib: u64,
    /// Its virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) vcpus: u32,
    /// What all of its content is derived from
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// A disk, in the order in which the guest writes to them; FORMAT is raw or qcow2, and the image must exist
    #[arg(long = "disk", value_name = "VDEV=PATH:FORMAT", value_parser = disk())]
    pub(crate) disks: Vec<NewDisk>,
    /// Let it run
    #[arg(long)]
    pub(crate) start: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewDisk {
    pub(crate) vdev: String,
    pub(crate) path: PathBuf,
    pub(crate) format: ImageFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageFormat {
    Raw,
    Qcow2,
}

#[derive(Debug, thiserror::Error)]
#[error("not VDEV=PATH:FORMAT with raw or qcow2 as FORMAT")]
struct DiskError;

/// Hosts tell their clients about their paths in JSON, which holds text only.
fn text_path() -> impl TypedValueParser<Value = PathBuf> {
    StringValueParser::new().map(PathBuf::from)
}

fn disk() -> impl TypedValueParser<Value = NewDisk> {
    OsStringValueParser::new().try_map(|typed| parsed(typed.as_bytes()).ok_or(DiskError))
}

/// The path may hold any octet: the vdev ends at the first `=`, and the format begins after the last colon.
fn parsed(typed: &[u8]) -> Option<NewDisk> {
    let equals = typed.iter().position(|octet| *octet == b'=')?;
    let colon = typed.iter().rposition(|octet| *octet == b':').filter(|colon| *colon > equals)?;
    let vdev = str::from_utf8(&typed[..equals]).ok()?.to_owned();
    let path = PathBuf::from(OsString::from_vec(typed[equals + 1..colon].to_vec()));
    let format = match &typed[colon + 1..] {
        b"raw" => ImageFormat::Raw,
        b"qcow2" => ImageFormat::Qcow2,
        _ => return None,
    };
    (!vdev.is_empty() && !path.as_os_str().is_empty()).then_some(NewDisk { vdev, path, format })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_vdev_a_path_with_anything_in_it_and_a_format() {
        let path = OsString::from_vec(b"/a=b:c,\xff".to_vec()).into();
        let expected = NewDisk { vdev: "xvda".into(), path, format: ImageFormat::Qcow2 };
        assert_eq!(parsed(b"xvda=/a=b:c,\xff:qcow2"), Some(expected));
        for wrong in
            [&b"xvda"[..], b"=/a:raw", b"xvda=:raw", b"xvda=/a", b"xvda=/a:vhd", b"a:raw=/b", b""]
        {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }
}
