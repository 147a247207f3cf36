//! Devices put into the text of a template and taken out of it.

use super::{Device, DeviceId};
use crate::json::{self, Layout, Object};
use crate::model::DevId;
use crate::retrieve::{DeviceClass, disks};
use crate::{DomainConfig, Mode};

/// Why a device cannot be put into a template, or taken out of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// libxl's two JSON readers would take different lists.
    #[error(
        "its text has {count} members \"{list}\", of which libxl's readers take different ones"
    )]
    SeveralLists {
        /// The name of the list.
        list: &'static str,
        /// How many there are.
        count: usize,
    },
    /// The device says no place of its own: it needs a vdev or a devid.
    #[error("a {class} without {}", if *class == DeviceClass::Disk { "a vdev" } else { "a devid" })]
    NoPlace {
        /// Its class.
        class: DeviceClass,
    },
    /// The changed text does not read as it was meant.
    #[error(
        "its text deviates from JSON so far that it does not read as meant once a device is changed"
    )]
    Spelling,
}

/// The name of a class's list.
pub(super) fn list_of(class: DeviceClass) -> &'static str {
    match class {
        DeviceClass::Disk => "disks",
        DeviceClass::Nic => "nics",
        _ => "p9s",
    }
}

/// The entry of a device, by the rules of `retrieve`: by the number of a vdev, by devid, or by the place that stands for a
/// devid.
pub(super) fn find(config: &DomainConfig, id: DeviceId) -> Option<usize> {
    match id.class {
        DeviceClass::Disk => config
            .disks
            .iter()
            .position(|disk| disk.vdev.as_deref().and_then(disks::number) == Some(id.devid)),
        DeviceClass::Nic => numbered(config.nics.iter().map(|nic| nic.devid), id.devid),
        _ => numbered(config.p9s.iter().map(|p9| p9.devid), id.devid),
    }
}

fn numbered(mut devids: impl Iterator<Item = DevId>, wanted: u32) -> Option<usize> {
    let mut position = 0;
    devids.position(|devid| {
        let at = position;
        position += 1;
        place_of(devid, at) == Some(wanted)
    })
}

/// The devid, or the position that stands for it.
fn place_of(devid: DevId, position: usize) -> Option<u32> {
    match devid.get() {
        Some(devid) => u32::try_from(devid).ok(),
        None => u32::try_from(position).ok(),
    }
}

/// The places that a class's entries take.
pub(super) fn places(config: &DomainConfig, class: DeviceClass) -> Vec<u32> {
    let of = |devids: Vec<DevId>| {
        devids.into_iter().enumerate().filter_map(|(at, devid)| place_of(devid, at)).collect()
    };
    match class {
        DeviceClass::Disk => {
            config.disks.iter().filter_map(|disk| disks::number(disk.vdev.as_deref()?)).collect()
        }
        DeviceClass::Nic => of(config.nics.iter().map(|nic| nic.devid).collect()),
        _ => of(config.p9s.iter().map(|p9| p9.devid).collect()),
    }
}

/// The entry at a position.
pub(super) fn at(config: &DomainConfig, class: DeviceClass, position: usize) -> Option<Device> {
    match class {
        DeviceClass::Disk => config.disks.get(position).cloned().map(Device::Disk),
        DeviceClass::Nic => config.nics.get(position).cloned().map(Device::from),
        _ => config.p9s.get(position).cloned().map(Device::P9),
    }
}

/// Puts an entry in the place of the one that the device has, or at the end of the list. Gives what it replaced.
pub(super) fn put(
    config: &mut DomainConfig,
    device: &Device,
) -> Result<Option<Device>, EntryError> {
    let class = device.class();
    let id = device.devid().and_then(|devid| DeviceId::new(class, devid));
    let id = id.ok_or(EntryError::NoPlace { class })?;
    let position = find(config, id);
    let before = position.and_then(|position| at(config, class, position));
    match device {
        Device::Disk(disk) => set(&mut config.disks, position, disk.clone()),
        Device::Nic(nic) => set(&mut config.nics, position, (**nic).clone()),
        Device::P9(p9) => set(&mut config.p9s, position, p9.clone()),
    }
    Ok(before)
}

fn set<T>(list: &mut Vec<T>, position: Option<usize>, entry: T) {
    match position.and_then(|position| list.get_mut(position)) {
        Some(place) => *place = entry,
        None => list.push(entry),
    }
}

/// Takes a device's entry out. Those behind it that were known by their position get it as their devid.
pub(super) fn take(config: &mut DomainConfig, id: DeviceId) -> Option<Device> {
    let position = find(config, id)?;
    let taken = at(config, id.class, position);
    let keep_places = |devid: &mut DevId, at: usize| {
        if devid.get().is_none()
            && let Ok(at) = i32::try_from(at)
        {
            *devid = DevId::new(at);
        }
    };
    match id.class {
        DeviceClass::Disk => drop(config.disks.remove(position)),
        DeviceClass::Nic => {
            for (at, nic) in config.nics.iter_mut().enumerate().skip(position) {
                keep_places(&mut nic.devid, at);
            }
            config.nics.remove(position);
        }
        _ => {
            for (at, p9) in config.p9s.iter_mut().enumerate().skip(position) {
                keep_places(&mut p9.devid, at);
            }
            config.p9s.remove(position);
        }
    }
    taken
}

/// The text of a changed configuration, in the layout of the text it was read from.
pub(super) fn text(
    before: &[u8],
    after: &DomainConfig,
    classes: &[DeviceClass],
) -> Result<Vec<u8>, EntryError> {
    let document = json::parse(before, Mode::Lenient).map_err(|_| EntryError::Spelling)?;
    for class in classes {
        let list = list_of(*class);
        let members = document.value.as_object().into_iter().flat_map(Object::members);
        let count = members.filter(|member| &*member.key == list).count();
        if count > 1 {
            return Err(EntryError::SeveralLists { list, count });
        }
    }
    let is_json_c = document.value.to_octets(Layout::JsonC) == before;
    let layout = if is_json_c { Layout::JsonC } else { Layout::Yajl };
    let octets = after.to_value().to_octets(layout);
    // Whatever the text looked like: it must read as meant.
    let read = DomainConfig::read(&octets, Mode::Lenient).map_err(|_| EntryError::Spelling)?;
    if read.config == *after { Ok(octets) } else { Err(EntryError::Spelling) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Disk, P9};

    const TEXT: &str = r#"{
    "c_info": { "type": "pv", "name": "web" },
    "b_info": { "type.pv": { }, "max_memkb": 262144 },
    "disks": [
        { "pdev_path": "/srv/a.img", "vdev": "xvda", "format": "raw", "tier": 1.50 }
    ],
    "p9s": [ { "tag": "a" }, { "tag": "b", "mine": true }, { "tag": "c", "devid": 7 } ],
    "owner": "ops"
}"#;

    fn read(text: &[u8]) -> DomainConfig {
        DomainConfig::read(text, Mode::Lenient).unwrap().config
    }

    fn id(class: DeviceClass, devid: u32) -> DeviceId {
        DeviceId::new(class, devid).unwrap()
    }

    fn disk(vdev: &str, path: &str) -> Device {
        Device::Disk(Disk {
            vdev: Some(vdev.into()),
            pdev_path: Some(path.into()),
            ..Disk::default()
        })
    }

    #[test]
    fn an_added_entry_leaves_all_others_and_unknown_keys_alone() {
        let mut config = read(TEXT.as_bytes());
        assert_eq!(put(&mut config, &disk("xvdb", "/srv/b.img")), Ok(None));
        let octets = text(TEXT.as_bytes(), &config, &[DeviceClass::Disk]).unwrap();
        let written = String::from_utf8(octets.clone()).unwrap();
        for kept in ["\"tier\": 1.50", "\"mine\": true", "\"owner\": \"ops\""] {
            assert!(written.contains(kept), "{kept} in {written}");
        }
        let again = read(&octets);
        assert_eq!(again.disks.len(), 2);
        assert_eq!(again.disks[1].pdev_path.as_deref(), Some("/srv/b.img"));
    }

    #[test]
    fn one_disk_under_two_names_has_one_entry() {
        let mut config = read(TEXT.as_bytes());
        let before = put(&mut config, &disk("51712", "/srv/new.img")).unwrap();
        assert!(matches!(before, Some(Device::Disk(disk)) if disk.vdev.as_deref() == Some("xvda")));
        assert_eq!(config.disks.len(), 1);
    }

    #[test]
    fn those_behind_a_removed_entry_keep_their_places() {
        let mut config = read(TEXT.as_bytes());
        assert!(take(&mut config, id(DeviceClass::P9, 0)).is_some());
        let devids: Vec<_> = config.p9s.iter().map(|p9| p9.devid.get()).collect();
        assert_eq!(devids, [Some(1), Some(7)]);
        assert_eq!(find(&config, id(DeviceClass::P9, 1)), Some(0));
        assert_eq!(take(&mut config, id(DeviceClass::P9, 2)), None);
    }

    #[test]
    fn a_device_without_a_place_and_a_list_that_is_there_twice_are_refused() {
        let mut config = read(TEXT.as_bytes());
        let placeless = put(&mut config, &Device::P9(P9::default()));
        assert_eq!(placeless, Err(EntryError::NoPlace { class: DeviceClass::P9 }));
        let twice = TEXT.replace("\"owner\": \"ops\"", "\"disks\": []");
        let config = read(twice.as_bytes());
        let refused = text(twice.as_bytes(), &config, &[DeviceClass::Disk]);
        assert_eq!(refused, Err(EntryError::SeveralLists { list: "disks", count: 2 }));
    }

    #[test]
    fn the_layout_of_json_c_stays() {
        let config = read(TEXT.as_bytes());
        let before = config.to_value().to_octets(Layout::JsonC);
        let mut config = read(&before);
        put(&mut config, &disk("xvdb", "/srv/b.img")).unwrap();
        let octets = text(&before, &config, &[DeviceClass::Disk]).unwrap();
        assert_eq!(octets, config.to_value().to_octets(Layout::JsonC));
        assert!(String::from_utf8(octets).unwrap().contains("\\/srv\\/b.img"));
    }
}
