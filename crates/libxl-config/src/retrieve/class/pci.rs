//! PCI functions passed through: all of a domain's in one backend directory, `pci/DOMID/0`, with a number behind each key.

use std::fmt;

use super::rule::{flag, text_rule};
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
        Ok(Pci { domain, bus, dev, func, ..Pci::default() })
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
    let live = match value {
        "strict" => RdmPolicy::Strict,
        "relaxed" => RdmPolicy::Relaxed,
        "invalid" => RdmPolicy::Invalid,
        _ => return Err(BadValue::not_a(value, "strict or relaxed")),
    };
    if live != pci.rdm_policy && pci.rdm_policy != RdmPolicy::Invalid {
        taken.change("rdm_policy", key, pci.rdm_policy.name(), value);
        pci.rdm_policy = live;
    }
    Ok(())
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

fn hexadecimal(digits: &str) -> Option<u32> {
    let all_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if all_digits { u32::from_str_radix(digits, 16).ok() } else { None }
}
