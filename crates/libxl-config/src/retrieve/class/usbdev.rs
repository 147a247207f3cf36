//! USB devices: what is plugged into the ports of a controller.
//!
//! Xenstore has the bus id that the host's Linux gave the device, configurations have bus and address, so a device that
//! only Xenstore knows takes somebody to translate.

use super::usbctrl::Usbctrls;
use super::{Class, ClassInfo, Identity, Layout, Live, Rule, Taken, directory_number};
use crate::DomainConfig;
use crate::model::{ConfigDomid, DevId, UsbHostdev, Usbdev, UsbdevKind};
use crate::retrieve::hypervisor::HypervisorView;
use crate::retrieve::report::{BadValue, DeviceClass};
use crate::retrieve::view::{Keys, SeenDevice, Text};

pub(in crate::retrieve) struct Usbdevs;

impl Class for Usbdevs {
    type Device = Usbdev;

    /// Nothing is read for this class: the controllers' has it all.
    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Usbdev,
        kinds: Usbctrls::INFO.kinds,
        backend_kinds: Usbctrls::INFO.backend_kinds,
        keys: &[],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: true,
        scripted: &[],
    };

    const RULES: &'static [Rule<Usbdev>] = &[];

    fn list_mut(config: &mut DomainConfig) -> &mut Vec<Usbdev> {
        &mut config.usbdevs
    }

    fn identity(usbdev: &Usbdev, _position: usize) -> Identity {
        Identity::plain(format_args!("{}.{}", usbdev.ctrl, usbdev.port))
    }

    /// One for each port that something is plugged into.
    fn entries(seen: &SeenDevice) -> Vec<Live<'_>> {
        if seen.info.class != DeviceClass::Usbctrl {
            return Vec::new();
        }
        let trees = [seen.backend.as_ref().map(|backend| &backend.keys), seen.toolstack.as_ref()];
        let mut ports: Vec<u32> =
            trees.into_iter().flatten().flat_map(Keys::keys).filter_map(|key| port(key)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
            .into_iter()
            .map(|port| Live { device: seen, slot: Some(port) })
            .filter(|live| plugged(live).is_some_and(|text| *text != Text::Good(String::new())))
            .collect()
    }

    fn live_identity(live: &Live<'_>) -> Identity {
        let port = live.slot.unwrap_or_default();
        Identity::plain(format_args!("{}.{port}", live.device.devid))
    }

    fn new(live: &Live<'_>, hypervisor: Option<&dyn HypervisorView>) -> Result<Usbdev, BadValue> {
        let bus_id = match plugged(live) {
            Some(Text::Good(bus_id)) => bus_id,
            Some(Text::Bad(bad)) => return Err(bad.clone().into()),
            None => return Err(BadValue::Missing),
        };
        let address = hypervisor.and_then(|hypervisor| hypervisor.usb_address(bus_id));
        let (hostbus, hostaddr) = address.ok_or_else(|| {
            BadValue::not_a(bus_id, "a device of the host whose bus and address can be told here")
        })?;
        let port = live.slot.and_then(|port| i32::try_from(port).ok()).ok_or(BadValue::Missing)?;
        let kind = UsbdevKind::Hostdev(UsbHostdev { hostbus, hostaddr, ..UsbHostdev::default() });
        Ok(Usbdev { ctrl: directory_number(live)?, port, kind, ..Usbdev::default() })
    }

    /// The controller's.
    fn backend_domid(_usbdev: &mut Usbdev) -> Option<(&mut ConfigDomid, bool)> {
        None
    }

    fn is_placed(usbdev: &Usbdev) -> bool {
        usbdev.ctrl != DevId::UNSET && usbdev.port != 0
    }

    /// An occupied port is all that a template's entry needs; what occupies it has to be text nevertheless.
    fn take_lists(_usbdev: &mut Usbdev, live: &Live<'_>, taken: &mut Taken) {
        taken.text(&port_key(live), plugged(live));
    }
}

fn port(key: &str) -> Option<u32> {
    let port: u32 = key.strip_prefix("port/")?.parse().ok()?;
    (port > 0 && key == format!("port/{port}")).then_some(port)
}

fn port_key(live: &Live<'_>) -> String {
    format!("port/{}", live.slot.unwrap_or_default())
}

/// What is plugged into the port: the backend follows the toolstack's changes, and an emulated controller has none.
fn plugged<'a>(live: &Live<'a>) -> Option<&'a Text> {
    let key = port_key(live);
    let of_backend = live.device.backend.as_ref().and_then(|backend| backend.keys.get(&key));
    of_backend.or_else(|| live.device.toolstack.as_ref()?.get(&key))
}
