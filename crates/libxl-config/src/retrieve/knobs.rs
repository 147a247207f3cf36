//! What is no device: name, uuid, type, memory, virtual CPUs, scheduler.

use super::merge::Views;
use super::report::{KnobReport, Problem, Source};
use super::view::Text;
use super::{HypervisorDomain, Policy};
use crate::DomainConfig;
use crate::model::{Bitmap, BuildKind, DomainType, MemKb, SchedParams};

/// What only the hypervisor knows.
pub(super) const HYPERVISOR_FIELDS: [&str; 2] = ["c_info.uuid", "b_info.sched_params"];

/// What libxl takes from the memory of an HVM guest that may grow, beside its video memory, in KiB.
const HVM_GROWTH_FUDGE: u64 = 1024;

/// Most virtual CPUs a domain can have: what a guest's tree claims beyond is no CPU.
const VCPUS_MAX: u32 = 8192;

/// Takes the live values into the configuration, each only where it differs from what libxl would have written for the
/// template's.
pub(super) fn merge(
    config: &mut DomainConfig,
    from_template: bool,
    views: Views<'_>,
) -> Vec<KnobReport> {
    let mut knobs = Knobs { config, from_template, views, reports: Vec::new() };
    if !from_template {
        knobs.domain_type();
    }
    knobs.name();
    knobs.uuid();
    knobs.vcpus();
    knobs.memory();
    knobs.scheduler();
    knobs.reports
}

struct Knobs<'c, 'a> {
    config: &'c mut DomainConfig,
    from_template: bool,
    views: Views<'a>,
    reports: Vec<KnobReport>,
}

/// A live value that may replace the template's.
struct Candidate<T> {
    field: &'static str,
    template: Option<String>,
    live: T,
    shown: String,
    source: Source,
}

impl Knobs<'_, '_> {
    /// The text of a knob; a value that is none is reported and left.
    fn text(&mut self, field: &'static str, key: &str) -> Option<String> {
        match self.views.view.knobs.get(key) {
            Some(Text::Good(text)) => Some(text.clone()),
            Some(Text::Bad(bad)) => {
                self.problem(field, key, bad);
                None
            }
            None => {
                self.note(field, self.otherwise());
                None
            }
        }
    }

    fn number(&mut self, field: &'static str, key: &str) -> Option<u64> {
        let text = self.text(field, key)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.problem(field, key, format_args!("\"{text}\" is not a number of KiB"));
        }
        number
    }

    /// Where a value comes from that no live one replaces.
    fn otherwise(&self) -> Source {
        if self.from_template { Source::Template } else { Source::Nowhere }
    }

    fn note(&mut self, field: &'static str, source: Source) {
        self.reports.push(KnobReport {
            field: field.to_owned(),
            source,
            template: None,
            live: None,
            problem: None,
        });
    }

    fn problem(&mut self, field: &'static str, key: &str, what: impl std::fmt::Display) {
        let problem = Some(Problem::new(key, what));
        self.reports.push(KnobReport {
            field: field.to_owned(),
            source: self.otherwise(),
            template: None,
            live: None,
            problem,
        });
    }

    /// Reports a live value that differs, and says whether the policy lets it in.
    fn takes<T>(&mut self, candidate: &Candidate<T>) -> bool {
        let taken = self.views.policy != Policy::Template;
        self.reports.push(KnobReport {
            field: candidate.field.to_owned(),
            source: if taken { candidate.source } else { self.otherwise() },
            template: candidate.template.clone(),
            live: Some(candidate.shown.clone()),
            problem: None,
        });
        taken
    }

    fn domain_type(&mut self) {
        const FIELD: &str = "c_info.type";
        let told = self.views.view.toolstack_key("type");
        let (domain_type, kind) = match told {
            Some("hvm") => (DomainType::Hvm, BuildKind::Hvm(Box::default())),
            Some("pv") => (DomainType::Pv, BuildKind::Pv(Default::default())),
            Some("pvh") => (DomainType::Pvh, BuildKind::Pvh(Default::default())),
            Some(other) => {
                self.problem(FIELD, "type", format_args!("\"{other}\" is not one of hvm, pv, pvh"));
                return;
            }
            None => return self.note(FIELD, Source::Nowhere),
        };
        (self.config.c_info.domain_type, self.config.b_info.kind) = (domain_type, kind);
        self.note(FIELD, Source::Xenstore);
    }

    fn name(&mut self) {
        const FIELD: &str = "c_info.name";
        let Some(live) = self.text(FIELD, "name") else { return };
        if self.config.c_info.name.as_ref() == Some(&live) {
            return self.note(FIELD, Source::Both);
        }
        let template = self.config.c_info.name.clone();
        let candidate = Candidate {
            field: FIELD,
            template,
            shown: live.clone(),
            live,
            source: Source::Xenstore,
        };
        if self.takes(&candidate) {
            self.config.c_info.name = Some(candidate.live);
        }
    }

    /// The hypervisor's handle; without anybody to ask it, the uuid of `/vm`.
    fn uuid(&mut self) {
        const FIELD: &str = "c_info.uuid";
        let told =
            self.views.domain.map(|domain: &HypervisorDomain| (domain.uuid, Source::Hypervisor));
        let (live, source) = match told {
            Some(told) => told,
            None => {
                let Some(vm) = self.text(FIELD, "vm") else { return };
                let Some(uuid) = uuid_of_vm(&vm) else {
                    return self.problem(FIELD, "vm", format_args!("\"{vm}\" is not /vm/UUID"));
                };
                (uuid, Source::Xenstore)
            }
        };
        let ours = self.config.c_info.uuid;
        if live == ours {
            return self.note(FIELD, Source::Both);
        }
        let template = (!ours.is_nil()).then(|| ours.to_string());
        let candidate = Candidate { field: FIELD, template, live, shown: live.to_string(), source };
        if self.takes(&candidate) {
            self.config.c_info.uuid = live;
        }
    }

    /// Which virtual CPUs are online. Xenstore has what the toolstack asked for; an HVM guest's QEMU is not asked.
    fn vcpus(&mut self) {
        const FIELD: &str = "b_info.avail_vcpus";
        const MAX_FIELD: &str = "b_info.max_vcpus";
        let mut cpus = Vec::new();
        for (key, text) in &self.views.view.knobs {
            let Some(cpu) =
                key.strip_prefix("cpu/").and_then(|rest| rest.strip_suffix("/availability"))
            else {
                continue;
            };
            match (cpu.parse::<u32>(), text) {
                (Ok(cpu), Text::Good(text))
                    if cpu < VCPUS_MAX && matches!(text.as_str(), "online" | "offline") =>
                {
                    cpus.push((cpu, text == "online"));
                }
                (_, text) => {
                    let what = match text {
                        Text::Good(text) => {
                            format!("\"{text}\" is not online or offline, or there is no such CPU")
                        }
                        Text::Bad(bad) => bad.to_string(),
                    };
                    let problem = Some(Problem::new(key.clone(), what));
                    let field = format!("{FIELD}[{cpu}]");
                    self.reports.push(KnobReport {
                        field,
                        source: self.otherwise(),
                        template: None,
                        live: None,
                        problem,
                    });
                }
            }
        }
        if cpus.is_empty() {
            return self.note(FIELD, self.otherwise());
        }
        if !self.from_template {
            let count = cpus.iter().map(|(cpu, _)| cpu + 1).max().unwrap_or(0);
            self.config.b_info.max_vcpus = i32::try_from(count).unwrap_or(i32::MAX);
            self.note(MAX_FIELD, Source::Xenstore);
        }
        // The guest's tree may list more CPUs than the domain was made with.
        let max = u32::try_from(self.config.b_info.max_vcpus).unwrap_or(0);
        let mut live = self.config.b_info.avail_vcpus.clone();
        for (cpu, online) in cpus.into_iter().filter(|(cpu, _)| *cpu < max) {
            if online { live.insert(cpu) } else { live.remove(cpu) }
        }
        let ours = &self.config.b_info.avail_vcpus;
        if live == *ours {
            return self.note(FIELD, Source::Both);
        }
        let template = self.from_template.then(|| shown(ours));
        let candidate = Candidate {
            field: FIELD,
            template,
            shown: shown(&live),
            live,
            source: Source::Xenstore,
        };
        if self.takes(&candidate) {
            self.config.b_info.avail_vcpus = candidate.live;
        }
    }

    fn memory(&mut self) {
        const MAX: &str = "b_info.max_memkb";
        const TARGET: &str = "b_info.target_memkb";
        let max_of_template = self.config.b_info.max_memkb;
        if let Some(live) = self.number(MAX, "memory/static-max") {
            self.memory_field(MAX, max_of_template, MemKb::new(live), |config, kib| {
                config.b_info.max_memkb = kib
            });
        }
        let Some(live) = self.number(TARGET, "memory/target") else { return };
        let video = match self.config.b_info.video_memkb.get() {
            Some(video) => video,
            // What libxl chose.
            None => self
                .views
                .view
                .knob("memory/videoram")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
        };
        let target = self.config.b_info.target_memkb;
        let grows = self.config.c_info.domain_type == DomainType::Hvm
            && target.get().zip(max_of_template.get()).is_some_and(|(target, max)| max > target);
        let fudge = video.saturating_add(if grows { HVM_GROWTH_FUDGE } else { 0 });
        // As created; later changes are written without the fudge for growth.
        let untouched = target.get().is_some_and(|target| target.checked_sub(fudge) == Some(live));
        let live = if untouched { target } else { MemKb::new(live.saturating_add(video)) };
        self.memory_field(TARGET, target, live, |config, kib| config.b_info.target_memkb = kib);
    }

    fn memory_field(
        &mut self,
        field: &'static str,
        ours: MemKb,
        live: MemKb,
        set: fn(&mut DomainConfig, MemKb),
    ) {
        if ours == live {
            return self.note(field, Source::Both);
        }
        let shown = live.get().unwrap_or_default().to_string();
        let template = ours.get().map(|kib| kib.to_string());
        let candidate = Candidate { field, template, live, shown, source: Source::Xenstore };
        if self.takes(&candidate) {
            set(self.config, candidate.live);
        }
    }

    fn scheduler(&mut self) {
        const FIELD: &str = "b_info.sched_params";
        let Some(domain) = self.views.domain else { return self.note(FIELD, self.otherwise()) };
        if self.config.b_info.sched_params == domain.sched_params {
            return self.note(FIELD, Source::Both);
        }
        let candidate = Candidate {
            field: FIELD,
            template: Some(parameters(&self.config.b_info.sched_params)),
            shown: parameters(&domain.sched_params),
            live: domain.sched_params.clone(),
            source: Source::Hypervisor,
        };
        if self.takes(&candidate) {
            self.config.b_info.sched_params = candidate.live;
        }
    }
}

/// The uuid in `/vm/UUID`; a rename can put a number behind it.
pub(super) fn uuid_of_vm(vm: &str) -> Option<uuid::Uuid> {
    let rest = vm.strip_prefix("/vm/")?;
    uuid::Uuid::try_parse(rest.get(..36)?).ok()
}

fn shown(cpus: &Bitmap) -> String {
    cpus.iter().map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",")
}

/// The parameters that are set, as people write them.
fn parameters(params: &SchedParams) -> String {
    let values = [
        ("weight", params.weight),
        ("cap", params.cap),
        ("period", params.period),
        ("budget", params.budget),
        ("extratime", params.extratime),
        ("slice", params.slice),
        ("latency", params.latency),
    ];
    let set = values
        .iter()
        .filter(|(_, value)| *value != -1)
        .map(|(name, value)| format!(" {name} {value}"));
    params.sched.name().to_owned() + &set.collect::<String>()
}
