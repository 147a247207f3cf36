//! Why a device cannot be plugged, said before anything is changed.

use std::fmt;
use std::io;

/// What Xenstore and the host say about the QEMU of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceModel {
    /// It runs.
    Running {
        /// Its process, if the toolstack has noted it.
        pid: Option<u32>,
    },
    /// It ran, and its process is gone.
    Dead {
        /// What its process was.
        pid: u32,
    },
    /// It has not come up.
    NotRunning {
        /// What `/local/domain/0/device-model/DOMID/state` says.
        state: String,
    },
    /// The domain has none.
    None,
}

impl DeviceModel {
    /// Whether it can serve a device that comes now.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

impl fmt::Display for DeviceModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { pid: Some(pid) } => write!(f, "it is process {pid}"),
            Self::Running { pid: None } => f.write_str("it runs"),
            Self::Dead { pid } => write!(f, "it was process {pid}, which is gone"),
            Self::NotRunning { state } => write!(f, "its state is \"{state}\""),
            Self::None => f.write_str("it was created without one"),
        }
    }
}

/// One thing that speaks against attaching a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nothing would ever serve the device: it needs a QEMU, and none is started for a domain that runs.
    #[error("{served} {what} needs a QEMU that serves the domain already, and none does ({found})")]
    NoDeviceModel {
        /// `a disk of format`, `the share`
        served: &'static str,
        /// Which format, which share.
        what: String,
        /// What there is instead.
        found: DeviceModel,
    },
    /// The backend is another domain's: that domain's own toolstack would have to run the script.
    #[error("the backend is to be in domain {domain}; only backends in domain 0 are plugged")]
    DriverDomain {
        /// Its id or name.
        domain: String,
    },
    /// Devices like that are not plugged by this library.
    #[error("{field} is {value}, which is not plugged into a running domain")]
    Unsupported {
        /// The field of the entry.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// A field that the device cannot be without.
    #[error("{field} is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// The vdev names no disk.
    #[error("\"{vdev}\" is no vdev: give one like xvdb")]
    NotAVdev {
        /// What was given.
        vdev: String,
    },
    /// The kernel's backend does not know image formats.
    #[error("the kernel's backend (phy) serves raw images only, not {format}")]
    NotRaw {
        /// What was given.
        format: String,
    },
    /// The image cannot be looked at.
    #[error("image {path}: {kind}")]
    NoImage {
        /// Its path.
        path: String,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The image is neither a file nor a block device.
    #[error("image {path}: neither a file nor a block device")]
    NotAnImage {
        /// Its path.
        path: String,
    },
    /// What is to be shared is no directory.
    #[error("{path}: no such directory")]
    NoDirectory {
        /// Its path.
        path: String,
    },
    /// The hotplug script is not there.
    #[error("hotplug script {script}: no such file")]
    NoScript {
        /// Its path.
        script: String,
    },
}
