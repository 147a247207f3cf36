//! Template and view to one configuration: the rules, applied in the same way to every class.

use xsclient::Path;

use super::attachment;
use super::class::{self, Absence, Class, ClassInfo, Expected, Identity, Live, Taken};
use super::hypervisor::HypervisorView;
use super::knobs;
use super::report::{
    Attachment, BadValue, DeviceClass, DeviceNote, DeviceReport, FieldChange, KnobReport, Presence,
    Problem, Unseen,
};
use super::view::{DomainView, SeenDevice, Text};
use super::{HypervisorDomain, Policy};
use crate::DomainConfig;
use crate::model::{ConfigDomid, DomainType};

/// What came out of a merge.
pub(super) struct Merged {
    pub(super) config: DomainConfig,
    pub(super) knobs: Vec<KnobReport>,
    pub(super) devices: Vec<DeviceReport>,
    pub(super) unseen: Vec<Unseen>,
}

/// Everything a merge decides by.
#[derive(Clone, Copy)]
pub(super) struct Views<'a> {
    pub(super) view: &'a DomainView,
    pub(super) domain: Option<&'a HypervisorDomain>,
    pub(super) hypervisor: Option<&'a dyn HypervisorView>,
    pub(super) policy: Policy,
    /// Whether the view has what attachments are judged by.
    pub(super) attachments: bool,
}

/// Merges; `template` is `None` if there is none that can be read.
pub(super) fn merge(template: Option<DomainConfig>, views: Views<'_>) -> Merged {
    let from_template = template.is_some();
    let mut config = template.unwrap_or_default();
    let mut unseen: Vec<Unseen> =
        views.view.refused.iter().map(|(path, errno)| Unseen::refused(path, errno)).collect();
    if views.domain.is_none() {
        unseen.push(Unseen::Hypervisor { fields: knobs::HYPERVISOR_FIELDS.to_vec() });
    }
    if views.view.exists && !views.view.has_toolstack && !views.view.devices.is_empty() {
        unseen.push(Unseen::NoToolstackTree);
    }
    unseen.extend(
        views
            .view
            .unknown_kinds
            .iter()
            .map(|(kind, devices)| Unseen::UnknownKind { kind: kind.clone(), devices: *devices }),
    );
    unseen.extend(views.view.crowded.iter().map(Unseen::crowded));
    let knobs = knobs::merge(&mut config, from_template, views);
    let mut devices = Devices { views, is_hvm: is_hvm(&config), reports: Vec::new() };
    class::for_each(&mut Pass { config: &mut config, devices: &mut devices });
    devices.report_consoles();
    let reports = devices.reports;
    Merged { config, knobs, devices: reports, unseen }
}

/// Stands in reports where a password would.
const SECRET: &str = "(not shown)";

pub(super) fn is_hvm(config: &DomainConfig) -> bool {
    config.c_info.domain_type == DomainType::Hvm
}

/// One pass over all classes.
pub(super) struct Pass<'p, 'a> {
    config: &'p mut DomainConfig,
    devices: &'p mut Devices<'a>,
}

impl Pass<'_, '_> {
    pub(super) fn class<C: Class>(&mut self) {
        self.devices.merge_class::<C>(self.config);
    }
}

struct Devices<'a> {
    views: Views<'a>,
    is_hvm: bool,
    reports: Vec<DeviceReport>,
}

impl Devices<'_> {
    fn merge_class<C: Class>(&mut self, config: &mut DomainConfig) {
        let view = self.views.view;
        let mut live: Vec<Option<(Live<'_>, Identity)>> = view
            .devices
            .iter()
            .filter(|device| !self.is_leftover(device))
            .flat_map(|device| C::entries(device))
            .map(|live| Some((live, C::live_identity(&live))))
            .collect();
        let unseen = self.is_unseen(C::INFO);
        let entries = std::mem::take(C::list_mut(config));
        let mut met = counterparts::<C>(&entries, &mut live);
        let mut kept = Vec::with_capacity(entries.len());
        for (position, mut entry) in entries.into_iter().enumerate() {
            let identity = C::identity(&entry, position);
            if let Some((live, live_identity)) = met[position].take() {
                // Where libxl chose the place, the place it chose is the name.
                let chosen = C::may_be(&entry, &live);
                let identity = if chosen { live_identity } else { identity };
                let report = self.both::<C>(&mut entry, &live, identity);
                self.reports.push(report);
                kept.push(entry);
                continue;
            }
            let note = match self.views.policy {
                Policy::LiveWins if C::INFO.compared && unseen => DeviceNote::KeptUnseen,
                Policy::LiveWins if C::INFO.compared => DeviceNote::LeftOut,
                _ => DeviceNote::Kept,
            };
            let in_configuration = note != DeviceNote::LeftOut;
            let attachment = self
                .leftover_of::<C>(&identity)
                .map_or(Attachment::Absent, |device| self.attachment_of(device));
            self.reports.push(DeviceReport {
                presence: Presence::TemplateOnly,
                in_configuration,
                note: Some(note),
                ..report::<C>(identity, attachment)
            });
            if in_configuration {
                kept.push(entry);
            }
        }
        *C::list_mut(config) = kept;
        for (live, identity) in live.into_iter().flatten() {
            let made = self.xenstore_only::<C>(&live, identity, config);
            C::list_mut(config).extend(made);
        }
    }

    fn both<C: Class>(
        &self,
        entry: &mut C::Device,
        live: &Live<'_>,
        identity: Identity,
    ) -> DeviceReport {
        let mut report = DeviceReport {
            presence: Presence::Both,
            in_configuration: true,
            ..report::<C>(identity, self.judge::<C>(live))
        };
        if self.views.policy == Policy::Template {
            // Still said, but not done.
            apply::<C>(&mut entry.clone(), live, Basis::Template, &mut report);
        } else {
            apply::<C>(entry, live, Basis::Template, &mut report);
        }
        report
    }

    fn xenstore_only<C: Class>(
        &mut self,
        live: &Live<'_>,
        identity: Identity,
        config: &DomainConfig,
    ) -> Option<C::Device> {
        let mut report = DeviceReport {
            presence: Presence::XenstoreOnly,
            ..report::<C>(identity, self.judge::<C>(live))
        };
        let made = if C::is_made_by_libxl(live, config) {
            report.note = Some(DeviceNote::MadeByLibxl);
            None
        } else if self.views.policy == Policy::Template {
            report.note = Some(DeviceNote::NotAsked);
            None
        } else {
            match self.build::<C>(live) {
                Ok(mut entry) => {
                    let mut taken = Taken::default();
                    C::take_guests_word(&mut entry, live, &mut taken);
                    taken.into_report(&mut report);
                    apply::<C>(&mut entry, live, Basis::Nothing, &mut report);
                    // All of it is from Xenstore: nothing to compare.
                    report.changes.clear();
                    report.note = Some(DeviceNote::Built);
                    report.in_configuration = true;
                    Some(entry)
                }
                Err(bad) => {
                    report.note = Some(DeviceNote::TooLittleKnown);
                    report.problems.push(Problem::new(report.id.clone(), bad));
                    None
                }
            }
        };
        self.reports.push(report);
        made
    }

    /// A frontend alone is only what the guest says.
    fn build<C: Class>(&self, live: &Live<'_>) -> Result<C::Device, BadValue> {
        if live.device.toolstack.is_none() && live.device.backend.is_none() {
            return Err(BadValue::NoBackend);
        }
        C::new(live, self.views.hypervisor)
    }

    fn judge<C: Class>(&self, live: &Live<'_>) -> Attachment {
        if !self.views.attachments {
            return Attachment::Unknown;
        }
        C::judge(live, self.is_hvm).unwrap_or_else(|| self.attachment_of(live.device))
    }

    fn attachment_of(&self, device: &SeenDevice) -> Attachment {
        if !self.views.attachments {
            return Attachment::Unknown;
        }
        attachment::judge(device, self.is_hvm)
    }

    /// Whether the toolstack has removed the device, and only the ends are left.
    ///
    /// PCI devices have no entry in the toolstack's tree, nor has any device where there is no such tree.
    fn is_leftover(&self, device: &SeenDevice) -> bool {
        self.views.view.has_toolstack
            && device.toolstack.is_none()
            && !device.info.changes_in_backend()
    }

    fn leftover_of<C: Class>(&self, identity: &Identity) -> Option<&SeenDevice> {
        let leftovers = self.views.view.devices.iter().filter(|device| self.is_leftover(device));
        leftovers.filter(|device| device.info.class == C::INFO.class).find(|device| {
            C::entries(device).iter().any(|live| C::live_identity(live).key == identity.key)
        })
    }

    /// Whether the server refused to show devices of this class.
    fn is_unseen(&self, info: &ClassInfo) -> bool {
        let refused = |path: &Path| {
            let names: Vec<&str> = path.components().collect();
            match names[..] {
                ["libxl", _]
                | ["libxl", _, "device"]
                | ["local", "domain", _, "device" | "backend"] => true,
                ["libxl", _, "device", kind, ..] => info.kinds.contains(&kind),
                ["local", "domain", _, "device", kind] => info.kinds.contains(&kind),
                ["local", "domain", _, "backend", kind, ..] => info.backend_kinds.contains(&kind),
                _ => false,
            }
        };
        self.views.view.refused.iter().any(|(path, _)| refused(path))
    }

    /// Devices that no class took: what is left of detached ones, and the consoles that are no channels.
    fn report_consoles(&mut self) {
        for device in &self.views.view.devices {
            let (class, id) = (device.info.class, &device.devid);
            if class::is_console(device) {
                self.reports.push(DeviceReport {
                    note: Some(DeviceNote::MadeByLibxl),
                    ..blank(DeviceClass::Console, id.clone(), Attachment::Unknown)
                });
            } else if self.is_leftover(device) {
                let attachment = match self.attachment_of(device) {
                    half @ Attachment::HalfDetached { .. } => half,
                    _ => Attachment::HalfDetached {
                        backend_state: attachment::backend_state(device),
                    },
                };
                let id = class::label_of(device);
                let known =
                    self.reports.iter_mut().find(|report| report.class == class && report.id == id);
                match known {
                    Some(report) => report.attachment = attachment,
                    None => self.reports.push(DeviceReport {
                        note: Some(DeviceNote::Leftover),
                        ..blank(class, id, attachment)
                    }),
                }
            }
        }
    }
}

/// For each entry of the template its device in Xenstore, taken out of `live`: by its name, else, for an entry that left
/// its place to libxl, any it may be that no other entry names.
fn counterparts<'a, C: Class>(
    entries: &[C::Device],
    live: &mut [Option<(Live<'a>, Identity)>],
) -> Vec<Option<(Live<'a>, Identity)>> {
    let mut met: Vec<_> = entries
        .iter()
        .enumerate()
        .map(|(position, entry)| {
            let key = C::identity(entry, position).key;
            take_where(live, |_, identity| identity.key == key)
        })
        .collect();
    for (entry, met) in entries.iter().zip(&mut met) {
        if met.is_none() {
            *met = take_where(live, |live, _| C::may_be(entry, live));
        }
    }
    met
}

fn take_where<'a>(
    live: &mut [Option<(Live<'a>, Identity)>],
    is_it: impl Fn(&Live<'a>, &Identity) -> bool,
) -> Option<(Live<'a>, Identity)> {
    live.iter_mut()
        .find(|slot| slot.as_ref().is_some_and(|(live, identity)| is_it(live, identity)))?
        .take()
}

fn report<C: Class>(identity: Identity, attachment: Attachment) -> DeviceReport {
    blank(C::INFO.class, identity.label, attachment)
}

fn blank(class: DeviceClass, id: String, attachment: Attachment) -> DeviceReport {
    DeviceReport {
        class,
        id,
        presence: Presence::XenstoreOnly,
        attachment,
        in_configuration: false,
        changes: Vec::new(),
        problems: Vec::new(),
        note: None,
    }
}

/// What an entry is before Xenstore's values are taken into it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// The template's: what it leaves to libxl stays so.
    Template,
    /// No entry at all: every value counts.
    Nothing,
}

/// Takes over what Xenstore has otherwise than libxl would have written for the entry.
fn apply<C: Class>(
    entry: &mut C::Device,
    live: &Live<'_>,
    basis: Basis,
    report: &mut DeviceReport,
) {
    for rule in C::RULES {
        let key = live.key(rule.key);
        let expected = (rule.expected)(entry, live);
        let text = match live.value(rule.key) {
            None => None,
            Some(Text::Good(text)) => Some(text.as_str()),
            Some(Text::Bad(_)) if rule.is_secret() => {
                report.problems.push(Problem::new(key, format_args!("no text {SECRET}")));
                continue;
            }
            Some(Text::Bad(bad)) => {
                report.problems.push(Problem::new(key, bad));
                continue;
            }
        };
        let is_open = expected == Expected::Anything && basis == Basis::Nothing && text.is_some();
        if expected.is_met_by(text) && !is_open {
            continue;
        }
        let outcome = match (text, &rule.absent) {
            (Some(text), _) => (rule.take)(entry, text, live),
            (None, Absence::Clear(clear)) => {
                clear(entry);
                Ok(())
            }
            (None, Absence::Keep) => continue,
        };
        match outcome {
            Ok(()) => {
                let shown = |text: String| if rule.is_secret() { SECRET.to_owned() } else { text };
                report.changes.push(FieldChange {
                    field: rule.field,
                    key,
                    template: expected.shown().map(shown),
                    live: text.map(str::to_owned).map(shown),
                });
            }
            Err(bad) => report.problems.push(Problem::new(key, bad)),
        }
    }
    take_backend::<C>(entry, live, report);
    let mut taken = Taken::default();
    C::take_lists(entry, live, &mut taken);
    taken.into_report(report);
}

/// The domain of the backend, which every class has in the same field.
fn take_backend<C: Class>(entry: &mut C::Device, live: &Live<'_>, report: &mut DeviceReport) {
    let Some(told) = live.device.backend.as_ref().and_then(|backend| backend.domid) else { return };
    let Some((field, named)) = C::backend_domid(entry) else { return };
    // A name in the template stands for whatever number that domain has now.
    if named || field.get() == u32::from(told.get()) {
        return;
    }
    report.changes.push(FieldChange {
        field: "backend_domid",
        key: "backend".to_owned(),
        template: Expected::text(*field).shown(),
        live: Some(told.to_string()),
    });
    *field = ConfigDomid::new(u32::from(told.get()));
}
