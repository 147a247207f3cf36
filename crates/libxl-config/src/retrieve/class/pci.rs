//! PCI functions passed through: all of a domain's in one backend directory, `pci/DOMID/0`, with a number behind each key.

use std::fmt;

use super::rule::{flag, hexadecimal, text_rule};
use super::{Absence, Class, ClassInfo, Expected, Identity, Layout, Live, Rule, Taken};
use crate::DomainConfig;
use crate::model::{ConfigDomid, Pci, RdmPolicy};
use crate::retrieve::attachment;
use crate::retrieve::hypervisor::HypervisorView;
use crate::retrieve::report::{Attachment, BackendState, BadValue, DeviceClass, Missing};
use crate::retrieve::view::{SeenDevice, Text};

/// Most functions in one directory: as many as there are on a bus.
const SLOTS_MAX: usize = 256;

pub(in crate::retrieve) struct Pcis;

impl Class for Pcis {
    type Device = Pci;

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Pci,
        kinds: &["pci"],
        backend_kinds: &["pci"],
        keys: &["num_devs", "dev-", "vdevfn-", "name-", "opts-", "state-"],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: true,
        scripted: &[],
    };

    const RULES: &'static [Rule<Pci>] = &[
        Rule {
            key: "vdevfn",
            field: "vdevfn",
            // 0 leaves the place in the guest to libxl and QEMU.
            expected: |pci, _| match pci.vdevfn {
                0 => Expected::Anything,
                vdevfn => Expected::text(format_args!("{vdevfn:x}")),
            },
            take: |pci, live, _| {
                pci.vdevfn = hexadecimal(live)
                    .and_then(|vdevfn| vdevfn.try_into().ok())
                    .ok_or_else(|| BadValue::not_a(live, "a device and function in hexadecimal"))?;
                Ok(())
            },
            absent: Absence::Keep,
        },
        Rule { absent: Absence::Keep, ..text_rule!(Pci, "name", name) },
    ];

    fn list_mut(config: &mut DomainConfig) -> &mut Vec<Pci> {
        &mut config.pcidevs
    }

    fn identity(pci: &Pci, _position: usize) -> Identity {
        Identity::plain(Address::of(pci))
    }

    /// One for each slot with a function; the toolstack leaves gaps when it takes functions away.
    fn entries(seen: &SeenDevice) -> Vec<Live<'_>> {
        let Some(backend) = seen.backend.as_ref().filter(|_| seen.info.class == DeviceClass::Pci)
        else {
            return Vec::new();
        };
        let mut slots: Vec<u32> = backend
            .keys
            .keys()
            .filter_map(|key| {
                let slot: u32 = key.strip_prefix("dev-")?.parse().ok()?;
                (*key == format!("dev-{slot}")).then_some(slot)
            })
            .collect();
        slots.sort_unstable();
        slots.truncate(SLOTS_MAX);
        slots.into_iter().map(|slot| Live { device: seen, slot: Some(slot) }).collect()
    }

    fn live_identity(live: &Live<'_>) -> Identity {
        let told = live.text("dev").unwrap_or_default();
        match Address::parse(told) {
            Some(address) => Identity::plain(address),
            None => Identity::plain(live.key("dev")),
        }
    }

    fn new(live: &Live<'_>, _hypervisor: Option<&dyn HypervisorView>) -> Result<Pci, BadValue> {
        let told = match live.value("dev") {
            Some(Text::Good(told)) => told,
            Some(Text::Bad(bad)) => return Err(bad.clone().into()),
            None => return Err(BadValue::Missing),
        };
        let Address { domain, bus, dev, func } = Address::parse(told)
            .ok_or_else(|| BadValue::not_a(told, "a PCI address as 0000:03:00.0"))?;
        // In an entry that is not the template's, what says nothing leaves nothing to libxl.
        let options = live.text("opts").unwrap_or_default().split(',');
        let mut policies =
            options.filter_map(|option| policy(option.strip_prefix("rdm_policy=")?).ok());
        let rdm_policy = policies.next_back().unwrap_or_default();
        Ok(Pci { domain, bus, dev, func, rdm_policy, ..Pci::default() })
    }

    fn backend_domid(_pci: &mut Pci) -> Option<(&mut ConfigDomid, bool)> {
        None
    }

    /// Each function has a state of its own, beside the backend's, which is that of the bus they are on.
    fn judge(live: &Live<'_>, is_hvm: bool) -> Option<Attachment> {
        let backend_state = BackendState(live.text("state")?.parse().ok()?);
        let of_bus = attachment::judge(live.device, is_hvm);
        Some(match (backend_state, of_bus) {
            (BackendState(5 | 6), _) => {
                Attachment::HalfDetached { backend_state: Some(backend_state) }
            }
            (_, half @ Attachment::HalfDetached { .. }) => half,
            (BackendState(0..=2), _) => {
                Attachment::HalfAttached { backend_state, missing: Missing::BackendDriver }
            }
            // The backend is ready first, and without a driver in the guest the bus gets no further: in an HVM guest QEMU
            // shows the function instead.
            (_, Attachment::HalfAttached { missing: Missing::BackendConnection, .. }) if is_hvm => {
                Attachment::Emulated
            }
            (_, Attachment::HalfAttached { missing: Missing::BackendConnection, .. })
                if !attachment::is_frontend_ready(live.device) =>
            {
                Attachment::WaitingForFrontend
            }
            (_, of_bus) => of_bus,
        })
    }

    /// The functions of a device of which the template names all at once.
    fn is_made_by_libxl(live: &Live<'_>, config: &DomainConfig) -> bool {
        let Some(function) = live.text("dev").and_then(Address::parse) else { return false };
        config.pcidevs.iter().any(|pci| {
            Address { func: function.func, ..Address::of(pci) } == function
                && pci.vfunc_mask >> function.func & 1 == 1
        })
    }

    fn take_lists(pci: &mut Pci, live: &Live<'_>, taken: &mut Taken) {
        let key = live.key("opts");
        let Some(options) = taken.text(&key, live.value("opts")) else { return };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            if let Err(bad) = take_option(pci, &key, option, taken) {
                taken.problem(&key, bad);
            }
        }
    }
}

/// One of `msitranslate=0,power_mgmt=1,permissive=0,rdm_policy=strict`; those of later versions are passed over.
fn take_option(pci: &mut Pci, key: &str, option: &str, taken: &mut Taken) -> Result<(), BadValue> {
    let (name, value) =
        option.split_once('=').ok_or_else(|| BadValue::not_a(option, "OPTION=VALUE"))?;
    let (field, ours) = match name {
        "msitranslate" => ("msitranslate", &mut pci.msitranslate),
        "power_mgmt" => ("power_mgmt", &mut pci.power_mgmt),
        "permissive" => ("permissive", &mut pci.permissive),
        "rdm_policy" => return take_policy(pci, key, value, taken),
        _ => return Ok(()),
    };
    let live = flag(value)?;
    if live != *ours {
        taken.change(field, key, if *ours { "1" } else { "0" }, value);
        *ours = live;
    }
    Ok(())
}

/// A template that names no policy leaves it to libxl.
fn take_policy(pci: &mut Pci, key: &str, value: &str, taken: &mut Taken) -> Result<(), BadValue> {
    let live = policy(value)?;
    if live != pci.rdm_policy && pci.rdm_policy != RdmPolicy::Invalid {
        taken.change("rdm_policy", key, pci.rdm_policy.name(), value);
        pci.rdm_policy = live;
    }
    Ok(())
}

fn policy(text: &str) -> Result<RdmPolicy, BadValue> {
    match text {
        "strict" => Ok(RdmPolicy::Strict),
        "relaxed" => Ok(RdmPolicy::Relaxed),
        "invalid" => Ok(RdmPolicy::Invalid),
        _ => Err(BadValue::not_a(text, "strict or relaxed")),
    }
}

/// Where a function is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    domain: i32,
    bus: u8,
    dev: u8,
    func: u8,
}

/// Devices on a bus, and functions of a device.
const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;

impl Address {
    fn of(pci: &Pci) -> Self {
        Self { domain: pci.domain, bus: pci.bus, dev: pci.dev, func: pci.func }
    }

    /// From `DDDD:BB:DD.F`, in hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let (domain, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (dev, func) = rest.split_once('.')?;
        let (domain, bus) = (hexadecimal(domain)?, hexadecimal(bus)?);
        let (dev, func) = (hexadecimal(dev)?, hexadecimal(func)?);
        let address = Self {
            domain: i32::try_from(domain).ok()?,
            bus: u8::try_from(bus).ok()?,
            dev: u8::try_from(dev).ok()?,
            func: u8::try_from(func).ok()?,
        };
        (address.dev < DEVICES && address.func < FUNCTIONS).then_some(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.dev, self.func)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use crate::model::RdmPolicy;
    use crate::retrieve::report::{Attachment, BackendState, DeviceNote, Missing};

    const ENTRY: &str = r#"{ "bus": 3, "power_mgmt": true, "vfunc_mask": 1, "vdevfn": 40 }"#;

    fn scene() -> Scene {
        Scene::new(
            "pcidevs",
            ENTRY,
            r#"
            /local/domain/0/backend/pci/7/0
                frontend = "/local/domain/7/device/pci/0"
                frontend-id = "7"
                online = "1"
                state = "4"
                domain = "d"
                num_devs = "1"
                key-0 = "0000:03:00.0"
                dev-0 = "0000:03:00.0"
                vdevfn-0 = "28"
                opts-0 = "msitranslate=0,power_mgmt=1,permissive=0,rdm_policy=strict"
                state-0 = "3"
            /local/domain/7/device/pci/0
                backend = "/local/domain/0/backend/pci/7/0"
                state = "4"
            "#,
        )
    }

    fn attachment(scene: &Scene) -> Attachment {
        scene.merge().only().attachment.clone()
    }

    #[test]
    fn a_function_stays() {
        scene().stays();
        scene().entry(r#"{ "vdevfn": null }"#).stays();
        scene().entry(r#"{ "rdm_policy": "strict", "seize": true }"#).stays();
        // Without the policy, as older versions write it, and with what a later one may.
        scene().live("opts-0", "msitranslate=0,power_mgmt=1,permissive=0").stays();
        scene().live("opts-0", "msitranslate=0,power_mgmt=1,permissive=0,new=1").stays();
    }

    /// Functions come and go in the backend's directory only, so no copy of it can be trusted to be whole.
    #[test]
    fn a_copy_in_the_toolstacks_tree_hides_no_function() {
        let copied = scene().live("/libxl/7/device/pci/0/num_devs", "1");
        let backend = "/local/domain/0/backend/pci/7/0";
        copied.live("/libxl/7/device/pci/0/backend", backend).stays();
    }

    #[test]
    fn each_key_of_a_function_changes_its_field() {
        scene().turns("vdevfn-0", "30", "vdevfn", r#"{ "vdevfn": 48 }"#);
        scene().turns("name-0", "gpu", "name", r#"{ "name": "gpu" }"#);
        scene().entry(r#"{ "name": "gpu" }"#).stays();
        for (option, live, change) in [
            ("msitranslate", "1", r#"{ "msitranslate": true }"#),
            ("power_mgmt", "0", r#"{ "power_mgmt": null }"#),
            ("permissive", "1", r#"{ "permissive": true }"#),
        ] {
            let outcome = scene().live("opts-0", format!("{option}={live}")).merge();
            let expected = scene().entry(change).live("opts-0", "").merge();
            assert_eq!(outcome.config, expected.config);
            let [change] = &outcome.only().changes[..] else { panic!("{:?}", outcome.only()) };
            assert_eq!((change.field, change.live.as_deref()), (option, Some(live)));
        }
        let strict = scene().entry(r#"{ "rdm_policy": "strict" }"#);
        let outcome = strict.live("opts-0", "rdm_policy=relaxed").merge();
        assert_eq!(outcome.config.pcidevs[0].rdm_policy, RdmPolicy::Relaxed);
    }

    #[test]
    fn functions_are_built_from_their_slots() {
        scene().is_built_as(
            r#"{ "bus": 3, "power_mgmt": true, "vdevfn": 40, "rdm_policy": "strict" }"#,
        );
        // The toolstack leaves a gap where it took a function away.
        let gap = scene().live("num_devs", "3").live("dev-2", "0001:ff:1f.7").live("state-2", "3");
        let outcome = gap.merge();
        let ids: Vec<&str> = outcome.reports.iter().map(|report| report.id.as_str()).collect();
        assert_eq!(ids, ["0000:03:00.0", "0001:ff:1f.7"]);
        let built = &outcome.config.pcidevs[1];
        assert_eq!((built.domain, built.bus, built.dev, built.func), (1, 255, 31, 7));
    }

    #[test]
    fn the_functions_of_a_device_that_the_template_has_whole_are_not_built_again() {
        let whole = scene()
            .entry(r#"{ "vfunc_mask": 4294967295 }"#)
            .live("dev-1", "0000:03:00.1")
            .live("dev-2", "0000:04:00.1");
        let outcome = whole.merge();
        let notes: Vec<_> = outcome.reports.iter().map(|report| report.note).collect();
        assert_eq!(notes, [None, Some(DeviceNote::MadeByLibxl), Some(DeviceNote::Built)]);
        assert_eq!(outcome.config.pcidevs.len(), 2);
    }

    #[test]
    fn a_function_that_is_gone_is_left_out() {
        let outcome = scene().gone("/local/domain/0").gone("/local/domain/7/device").merge();
        assert!(outcome.config.pcidevs.is_empty());
        assert_eq!(outcome.only().note, Some(DeviceNote::LeftOut));
    }

    #[test]
    fn each_state_of_a_function_is_told_apart() {
        let half = |state| Attachment::HalfAttached {
            backend_state: BackendState(state),
            missing: Missing::BackendDriver,
        };
        let detached =
            |state| Attachment::HalfDetached { backend_state: Some(BackendState(state)) };
        let ready = scene().live("state", "3");
        let frontend = "/local/domain/7/device/pci/0/state";
        for (scene, expected) in [
            (scene(), Attachment::Connected),
            (scene().live("state", "7"), Attachment::Connected),
            (scene().live("state-0", "1"), half(1)),
            (scene().live("state-0", "5"), detached(5)),
            (scene().live("state-0", "6"), detached(6)),
            (scene().live("state", "5"), detached(5)),
            (ready.clone().live(frontend, "1"), Attachment::WaitingForFrontend),
            (ready.hvm(), Attachment::Emulated),
            (scene().gone("state-0"), Attachment::Connected),
        ] {
            assert_eq!(attachment(&scene), expected);
        }
    }

    #[test]
    fn what_is_no_value_of_a_function_leaves_the_template() {
        scene().refuses("vdevfn-0", &["", "0x28", "+1", "123456789"]);
        scene().refuses("opts-0", &["permissive", "permissive=yes", "rdm_policy=maybe"]);
        scene().refuses("name-0", &[]);
    }

    #[test]
    fn one_bad_option_does_not_hide_the_others() {
        let outcome = scene().live("opts-0", "power_mgmt=no,permissive=1").merge();
        let function = &outcome.config.pcidevs[0];
        assert!(function.power_mgmt && function.permissive);
        assert_eq!(outcome.only().problems[0].at, "opts-0");
    }

    #[test]
    fn an_address_that_is_none_is_reported() {
        for bad in ["", "03:00.0", "0000:03:20.0", "0000:03:00.8", "0000:03:00", "+000:03:00.0"] {
            let outcome = scene().entries(&[]).live("dev-0", bad).merge();
            assert!(outcome.config.pcidevs.is_empty(), "{bad}");
            assert_eq!(outcome.only().note, Some(DeviceNote::TooLittleKnown), "{bad}");
            assert_eq!(outcome.only().id, "dev-0");
            assert_eq!(outcome.only().problems.len(), 1, "{bad}");
        }
    }
}
