//! What can be attached, and what an attached device is called.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::model::{Disk, Mac, Nic, P9};
use crate::retrieve::DeviceClass;
use crate::retrieve::disks;

/// A device to attach: an entry of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// A disk.
    Disk(Disk),
    /// A network card.
    Nic(Box<Nic>),
    /// A 9pfs share.
    P9(P9),
}

impl Device {
    /// Its class.
    pub fn class(&self) -> DeviceClass {
        match self {
            Self::Disk(_) => DeviceClass::Disk,
            Self::Nic(_) => DeviceClass::Nic,
            Self::P9(_) => DeviceClass::P9,
        }
    }

    /// The number of its directory, as far as the entry says it: that of the vdev, or the devid.
    pub fn devid(&self) -> Option<u32> {
        let number = |devid: &crate::model::DevId| devid.get().and_then(|n| u32::try_from(n).ok());
        match self {
            Self::Disk(disk) => disks::number(disk.vdev.as_deref()?),
            Self::Nic(nic) => number(&nic.devid),
            Self::P9(p9) => number(&p9.devid),
        }
    }
}

impl From<Disk> for Device {
    fn from(disk: Disk) -> Self {
        Self::Disk(disk)
    }
}

impl From<Nic> for Device {
    fn from(nic: Nic) -> Self {
        Self::Nic(Box::new(nic))
    }
}

impl From<P9> for Device {
    fn from(p9: P9) -> Self {
        Self::P9(p9)
    }
}

/// What a device that is there is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
pub struct DeviceId {
    /// Disk, nic or p9.
    pub class: DeviceClass,
    /// The number of its directory: that of a disk's vdev (51712 for `xvda`), the devid of the others.
    pub devid: u32,
}

impl DeviceId {
    /// A device of one of the classes that this module plugs; `None` for another class.
    pub fn new(class: DeviceClass, devid: u32) -> Option<Self> {
        let plugged = matches!(class, DeviceClass::Disk | DeviceClass::Nic | DeviceClass::P9);
        plugged.then_some(Self { class, devid })
    }

    /// What reports call it: the vdev of a disk, the devid of the others.
    pub fn label(&self) -> String {
        match self.class {
            DeviceClass::Disk => disks::name(self.devid).unwrap_or_else(|| self.devid.to_string()),
            _ => self.devid.to_string(),
        }
    }
}

/// `disk xvda`, `nic 0`
impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.class, self.label())
    }
}

/// How a person names a device of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceName {
    /// By the number of its directory.
    Id(DeviceId),
    /// A network card by its address.
    Mac(Mac),
    /// A share by its tag in the template.
    Tag(String),
}

impl DeviceName {
    /// Reads a name: a vdev, or its number; a devid or a MAC address; a devid or a tag.
    ///
    /// # Errors
    /// If no device of that class can be called so.
    pub fn parse(class: DeviceClass, text: &str) -> Result<Self, DeviceNameError> {
        let wrong = || DeviceNameError { class, text: text.to_owned() };
        let id = |devid| DeviceId::new(class, devid).map(Self::Id).ok_or_else(wrong);
        match class {
            DeviceClass::Disk => id(disks::number(text).ok_or_else(wrong)?),
            DeviceClass::Nic => match u32::from_str(text) {
                Ok(devid) => id(devid),
                Err(_) => Mac::parse_text(text).map(Self::Mac).ok_or_else(wrong),
            },
            DeviceClass::P9 => match u32::from_str(text) {
                Ok(devid) => id(devid),
                Err(_) if text.is_empty() => Err(wrong()),
                Err(_) => Ok(Self::Tag(text.to_owned())),
            },
            _ => Err(wrong()),
        }
    }
}

impl From<DeviceId> for DeviceName {
    fn from(id: DeviceId) -> Self {
        Self::Id(id)
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Mac(mac) => write!(f, "nic {mac}"),
            Self::Tag(tag) => write!(f, "p9 {tag}"),
        }
    }
}

/// A text that names no device of a class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" names no {class}: {}", wanted(*class))]
pub struct DeviceNameError {
    /// The class.
    pub class: DeviceClass,
    /// What was given.
    pub text: String,
}

fn wanted(class: DeviceClass) -> &'static str {
    match class {
        DeviceClass::Disk => "give its vdev (xvdb) or the number of that",
        DeviceClass::Nic => "give its devid or its MAC address",
        DeviceClass::P9 => "give its devid or its tag",
        _ => "such devices are not plugged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_called_as_reports_call_it() {
        let parse = |class, text| DeviceName::parse(class, text).unwrap().to_string();
        for vdev in ["xvdb", "51728", "d1p0"] {
            assert_eq!(parse(DeviceClass::Disk, vdev), "disk xvdb");
        }
        assert_eq!(parse(DeviceClass::Nic, "3"), "nic 3");
        assert_eq!(parse(DeviceClass::Nic, "00:16:3E:00:00:01"), "nic 00:16:3e:00:00:01");
        assert_eq!(parse(DeviceClass::P9, "share"), "p9 share");
    }

    #[test]
    fn what_names_no_device_is_refused() {
        for (class, text) in [
            (DeviceClass::Disk, "vda"),
            (DeviceClass::Disk, ""),
            (DeviceClass::Nic, "eth0"),
            (DeviceClass::Nic, "-1"),
            (DeviceClass::P9, ""),
            (DeviceClass::Vtpm, "0"),
        ] {
            assert!(DeviceName::parse(class, text).is_err(), "{class} {text}");
        }
    }
}
