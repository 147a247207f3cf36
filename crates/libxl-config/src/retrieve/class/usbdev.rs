//! USB devices: what is plugged into the ports of a controller.
//!
//! Xenstore has the bus id that the host's Linux gave the device, configurations have bus and address, so a device that
//! only Xenstore knows takes somebody to translate.

use xsclient::DomId;

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
        // A driver domain's bus ids are those of its own Linux.
        let backend = live.device.backend.as_ref();
        let of_host = backend.is_none_or(|backend| backend.domid == Some(DomId::DOM0));
        let address =
            hypervisor.filter(|_| of_host).and_then(|hypervisor| hypervisor.usb_address(bus_id));
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

    /// libxl chooses a port, or a controller as well.
    fn may_be(usbdev: &Usbdev, live: &Live<'_>) -> bool {
        let on_controller =
            usbdev.ctrl == DevId::UNSET || usbdev.ctrl.to_string() == live.device.devid;
        usbdev.port == 0 && on_controller
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

#[cfg(test)]
mod tests {
    use super::super::scene::{Host, Outcome, Scene};
    use crate::retrieve::Policy;
    use crate::retrieve::report::{DeviceClass, DeviceNote, DeviceReport, Presence};

    const ENTRY: &str =
        r#"{ "ctrl": 0, "port": 1, "type.hostdev": { "hostbus": 1, "hostaddr": 7 } }"#;

    fn scene() -> Scene {
        Scene::new(
            "usbdevs",
            ENTRY,
            r#"
            /libxl/7/device/vusb/0
                backend = "/local/domain/0/backend/vusb/7/0"
                type = "pv"
                port/1 = ""
                port/2 = ""
            /local/domain/0/backend/vusb/7/0
                port/1 = "1-1.2"
                port/2 = ""
                state = "4"
            "#,
        )
    }

    const BACKEND_PORT: &str = "/local/domain/0/backend/vusb/7/0/port/";

    /// With no backend: QEMU emulates the controller.
    fn emulated() -> Scene {
        scene().gone("backend").gone("/local/domain/0").live("port/1", "1-1.2")
    }

    fn usbdevs(outcome: &Outcome) -> Vec<&DeviceReport> {
        outcome.reports.iter().filter(|report| report.class == DeviceClass::Usbdev).collect()
    }

    fn ports(outcome: &Outcome) -> Vec<(String, i32)> {
        let usbdevs = outcome.config.usbdevs.iter();
        usbdevs.map(|usbdev| (usbdev.ctrl.to_string(), usbdev.port)).collect()
    }

    #[test]
    fn a_device_stays_while_its_port_is_occupied() {
        for scene in [scene(), emulated()] {
            let outcome = scene.merge();
            assert_eq!(ports(&outcome), [("0".to_owned(), 1)]);
            let [report] = usbdevs(&outcome)[..] else { panic!("{:#?}", outcome.reports) };
            assert_eq!((report.id.as_str(), report.presence), ("0.1", Presence::Both));
            assert!(report.changes.is_empty() && report.problems.is_empty());
        }
    }

    #[test]
    fn a_device_whose_port_is_free_is_left_out() {
        for port in ["", "2"] {
            let scene = scene().live(&format!("{BACKEND_PORT}1"), "");
            let scene = if port.is_empty() { scene } else { scene.entry(r#"{ "port": 2 }"#) };
            let outcome = scene.merge();
            assert!(outcome.config.usbdevs.is_empty());
            let [report] = usbdevs(&outcome)[..] else { panic!("{:#?}", outcome.reports) };
            assert_eq!(report.note, Some(DeviceNote::LeftOut));
        }
    }

    /// libxl chooses the port of a device that names none, and does not write the choice into the template.
    #[test]
    fn a_device_that_names_no_port_meets_one_that_nobody_else_names() {
        let anywhere = r#"{ "type.hostdev": { "hostbus": 2, "hostaddr": 3 } }"#;
        let outcome =
            scene().live(&format!("{BACKEND_PORT}2"), "2-4").entries(&[anywhere, ENTRY]).merge();
        assert_eq!(ports(&outcome), [("-1".to_owned(), 0), ("0".to_owned(), 1)]);
        let ids: Vec<&str> = usbdevs(&outcome).iter().map(|report| report.id.as_str()).collect();
        assert_eq!(ids, ["0.2", "0.1"]);
        assert!(usbdevs(&outcome).iter().all(|report| report.presence == Presence::Both));

        for (ctrl, met) in [(0, 1), (1, 0)] {
            let some_port = format!(r#"{{ "ctrl": {ctrl}, "type.hostdev": {{ "hostbus": 1 }} }}"#);
            let outcome = scene().entries(&[&some_port]).merge();
            assert_eq!(outcome.config.usbdevs.len(), met, "controller {ctrl}");
        }

        let unplugged = scene().entries(&[anywhere, ENTRY]).merge();
        assert_eq!(ports(&unplugged), [("0".to_owned(), 1)]);
    }

    #[test]
    fn a_device_is_built_where_somebody_knows_its_address() {
        let host = Host { bus_id: "1-1.2", address: (1, 7) };
        for scene in [scene(), emulated()] {
            let outcome = scene.clone().host(host.clone()).entries(&[]).merge();
            assert_eq!(
                outcome.entries("usbdevs"),
                serde_json::from_str::<serde_json::Value>(&format!("[{ENTRY}]")).unwrap()
            );
            assert_eq!(usbdevs(&outcome)[0].note, Some(DeviceNote::Built));

            let other = Host { bus_id: "3-1", address: (1, 7) };
            for unknown in [scene.clone(), scene.host(other)] {
                let outcome = unknown.entries(&[]).merge();
                assert!(outcome.config.usbdevs.is_empty());
                let [report] = usbdevs(&outcome)[..] else { panic!("{:#?}", outcome.reports) };
                assert_eq!(report.note, Some(DeviceNote::TooLittleKnown));
                assert!(report.problems[0].what.contains("1-1.2"), "{:?}", report.problems);
            }
        }
    }

    /// The bus id is one of the driver domain's, or whatever it writes there.
    #[test]
    fn a_device_of_a_driver_domain_is_not_taken_for_one_of_the_host() {
        let driver = "/local/domain/4/backend/vusb/7/0";
        let far = scene()
            .gone("/local/domain/0")
            .live("backend", driver)
            .live(&format!("{driver}/port/1"), "1-1.2")
            .live(&format!("{driver}/state"), "4");
        let host = Host { bus_id: "1-1.2", address: (1, 7) };
        let outcome = far.host(host).entries(&[]).merge();
        assert!(outcome.config.usbdevs.is_empty());
        assert_eq!(usbdevs(&outcome)[0].note, Some(DeviceNote::TooLittleKnown));
    }

    #[test]
    fn what_is_plugged_in_has_to_be_text() {
        let bad = scene().live(&format!("{BACKEND_PORT}1"), b"\xff");
        let outcome = bad.clone().merge();
        assert_eq!(ports(&outcome), [("0".to_owned(), 1)]);
        assert_eq!(usbdevs(&outcome)[0].problems[0].at, "port/1");

        let outcome = bad.entries(&[]).merge();
        assert!(outcome.config.usbdevs.is_empty());
        assert!(usbdevs(&outcome)[0].problems[0].what.contains("not UTF-8"));
    }

    #[test]
    fn ports_that_are_no_numbers_hold_no_devices() {
        for port in ["0", "01", "x", "99999999999"] {
            let outcome =
                scene().entries(&[]).live(&format!("{BACKEND_PORT}{port}"), "9-9").merge();
            assert_eq!(usbdevs(&outcome).len(), 1, "{port}");
        }
    }

    #[test]
    fn the_template_alone_keeps_a_device_whose_port_is_free() {
        let free = scene().policy(Policy::Template).live(&format!("{BACKEND_PORT}1"), "");
        assert_eq!(ports(&free.merge()), [("0".to_owned(), 1)]);
    }
}
