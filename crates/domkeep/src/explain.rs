//! A report in words.

use std::fmt::Write as _;

use libxl_config::retrieve::{
    Consistency, DeviceReport, KnobReport, Presence, Problem, Report, Retrieved, Source,
    TemplateSource, Unseen,
};

/// All that a report says, a line for each thing.
pub(crate) fn report(retrieved: &Retrieved) -> String {
    let report = &retrieved.report;
    let mut words = Words::default();
    let name = retrieved.config.c_info.name.as_deref().unwrap_or("without a name");
    words.line(0, format_args!("domain {} ({})", retrieved.domid, printable(name)));
    words.line(0, format_args!("revision {}", retrieved.revision));
    words.template(&report.template);
    words.consistency(&report.consistency);
    words.knobs(report);
    words.devices(report);
    if !report.unseen.is_empty() {
        words.line(0, "could not be seen:");
        report.unseen.iter().for_each(|unseen| words.unseen(unseen));
    }
    words.0
}

/// What is to say about a device, on one line: its state, and which view knows it.
pub(crate) fn device(device: &DeviceReport) -> String {
    let known = match (device.presence, &device.note) {
        (Presence::Both, None) => "in the template and in Xenstore".to_owned(),
        (_, Some(note)) => note.to_string(),
        (Presence::TemplateOnly, None) => "in the template only".to_owned(),
        (Presence::XenstoreOnly, None) => "in Xenstore only".to_owned(),
    };
    format!("{}; {known}", device.attachment)
}

/// Text that a guest or a file may have chosen, safe to show on a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = !c.is_control();
            let escaped = (!plain).then(|| c.escape_default());
            plain.then_some(c).into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

#[derive(Default)]
struct Words(String);

impl Words {
    fn line(&mut self, indent: usize, text: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{:indent$}{}", "", printable(&text.to_string()));
    }

    fn template(&mut self, template: &TemplateSource) {
        match template {
            TemplateSource::Found { revision, findings } => {
                self.line(0, format_args!("template: found, revision {revision}"));
                findings.iter().for_each(|finding| self.line(4, finding));
            }
            TemplateSource::Missing => {
                self.line(0, "template: none; the configuration is built from Xenstore alone");
            }
            TemplateSource::OfAnotherDomain { uuids } => {
                let uuids: Vec<String> = uuids.iter().map(ToString::to_string).collect();
                let uuids = uuids.join(", ");
                self.line(0, format_args!(
                    "template: none of this domain, only of earlier ones with its id ({uuids}); the configuration is \
                     built from Xenstore alone"
                ));
            }
            TemplateSource::Unreadable { error } => {
                self.line(
                    0,
                    "template: cannot be used; the configuration is built from Xenstore alone",
                );
                self.line(4, error);
            }
            _ => self.line(0, "template: of a kind this version does not know"),
        }
    }

    fn consistency(&mut self, consistency: &Consistency) {
        match consistency {
            Consistency::Consistent { attempts: 1 } => {
                self.line(0, "consistency: all of it is of one moment");
            }
            Consistency::Consistent { attempts } => self.line(
                0,
                format_args!("consistency: all of it is of one moment, at attempt {attempts}"),
            ),
            Consistency::Changing { attempts, changed } => {
                self.line(0, format_args!(
                    "consistency: something changed during each of {attempts} attempts; in the last:"
                ));
                changed.iter().for_each(|what| self.line(4, what));
            }
            _ => self.line(0, "consistency: of a kind this version does not know"),
        }
    }

    fn knobs(&mut self, report: &Report) {
        let (changed, same): (Vec<_>, Vec<_>) =
            report.knobs.iter().partition(|knob| knob.live.is_some() || knob.problem.is_some());
        self.line(
            0,
            if changed.is_empty() { "knobs: none changed" } else { "knobs that changed:" },
        );
        changed.into_iter().for_each(|knob| self.knob(knob));
        for (source, what) in [
            (Source::Both, "the same in both"),
            (Source::Template, "from the template"),
            (Source::Xenstore, "from Xenstore"),
            (Source::Hypervisor, "from the hypervisor"),
            (Source::Nowhere, "in neither"),
        ] {
            let fields: Vec<&str> = same
                .iter()
                .filter(|knob| knob.source == source)
                .map(|knob| knob.field.as_str())
                .collect();
            if !fields.is_empty() {
                self.line(4, format_args!("{what}: {}", fields.join(", ")));
            }
        }
    }

    fn knob(&mut self, knob: &KnobReport) {
        if let Some(live) = &knob.live {
            let field = &knob.field;
            let template = knob.template.as_deref().unwrap_or("nothing");
            let kept =
                if knob.source == Source::Template { " (the template's was kept)" } else { "" };
            self.line(4, format_args!("{field}: {template} -> {live}{kept}"));
        }
        if let Some(problem) = &knob.problem {
            self.problem(4, &format!("{}: ", knob.field), problem);
        }
    }

    fn devices(&mut self, report: &Report) {
        self.line(0, if report.devices.is_empty() { "devices: none" } else { "devices:" });
        let name = |device: &DeviceReport| format!("{} {}", device.class, device.id);
        let width = report.devices.iter().map(|device| name(device).len()).max().unwrap_or(0);
        for known in &report.devices {
            self.line(4, format_args!("{:width$}  {}", name(known), device(known)));
            for change in &known.changes {
                let nothing = || "nothing".to_owned();
                let quoted = |value: &String| format!("\"{value}\"");
                self.line(
                    8,
                    format_args!(
                        "{}: {} -> {} (key {})",
                        change.field,
                        change.template.as_ref().map_or_else(nothing, quoted),
                        change.live.as_ref().map_or_else(nothing, quoted),
                        change.key,
                    ),
                );
            }
            known.problems.iter().for_each(|problem| self.problem(8, "", problem));
        }
    }

    fn problem(&mut self, indent: usize, of: &str, problem: &Problem) {
        self.line(indent, format_args!("problem: {of}{}: {}", problem.at, problem.what));
    }

    fn unseen(&mut self, unseen: &Unseen) {
        match unseen {
            Unseen::Refused { path, error } => self.line(4, format_args!("{path}: refused with {error}")),
            Unseen::UnknownKind { kind, devices } => self.line(4, format_args!(
                "{kind}: {devices} of a kind of device that this version does not know"
            )),
            Unseen::Hypervisor { fields } => self.line(4, format_args!(
                "what only the hypervisor knows, as in the template: {}",
                fields.join(", ")
            )),
            Unseen::NoToolstackTree => self.line(4, format_args!(
                "the toolstack's own tree: there is none, so devices were found where others may write too"
            )),
            Unseen::Unread { path } => self.line(4, format_args!("{path}: came too late to be read")),
            Unseen::Crowded { path, read } => self.line(4, format_args!(
                "{path}: the guest has filled it, and only {read} of its directories were read"
            )),
            Unseen::HypervisorFailed { error } => {
                self.line(4, format_args!("the hypervisor: {error}"));
            }
            _ => self.line(4, "something of a kind that this version does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_writes_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{9b}"), "a\\u{1b}[2Jb\\nc\\u{9b}");
        assert_eq!(printable("grün"), "grün");
    }
}
