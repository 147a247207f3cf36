//! What `stream apply` has done, or would do, in words and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use snapshot::xenstore_state::{Applied, StatePart, Unapplied};
use xenstore_migration::domain_state::{
    Attachment, Change, Left, LeftReason, StalePerm, UnknownRecord,
};
use xenstore_migration::{Place, WatchDepth};
use xenstored::escape_value;
use xsclient::{DomId, Path};

use super::findings::plural;
use crate::commands::octets::Octets;
use crate::explain::printable;

pub(super) struct Report {
    pub(super) file: String,
    /// Whose state it was.
    pub(super) from: DomId,
    pub(super) domid: DomId,
    pub(super) dry_run: bool,
    pub(super) applied: Applied,
    /// The tree below `/vm` that had nowhere to go.
    pub(super) vm_left_out: Option<Path>,
    pub(super) unknown: Vec<UnknownRecord>,
    pub(super) stale: Vec<StalePerm>,
}

impl Report {
    /// Whether something was wanted and not done. What the policy leaves, and what a merge keeps, was not wanted.
    pub(super) fn is_bad(&self) -> bool {
        let plan = &self.applied.plan;
        let undone = |left: &Left| {
            !matches!(
                left.reason,
                LeftReason::Toolstack
                    | LeftReason::NotCovered
                    | LeftReason::Rule
                    | LeftReason::OtherOwner { .. }
                    | LeftReason::Differs
            )
        };
        plan.left.iter().any(undone)
            || !plan.attachments.is_empty()
            || !self.unknown.is_empty()
            || !self.applied.strangers.is_empty()
    }

    pub(super) fn in_words(&self) -> String {
        let plan = &self.applied.plan;
        let mut words = String::new();
        plan.changes.iter().for_each(|change| change_in_words(change, &mut words));
        let mut line = |text: String| {
            words.push_str(&printable(&text));
            words.push('\n');
        };
        for (reason, left) in by_reason(&plan.left) {
            let nodes = left.iter().map(|left| left.nodes as u64).sum();
            line(format!("left, {reason}: {}", plural(nodes, "node", "nodes")));
            for Left { path, nodes, .. } in left {
                match nodes {
                    1 => line(format!("    {path}")),
                    _ => line(format!("    {path} and {} below", nodes - 1)),
                }
            }
        }
        if let Some(root) = &self.vm_left_out {
            line(format!("left, the domain has no tree below /vm: {root}"));
        }
        for StalePerm { path, perm, .. } in &self.stale {
            line(format!("without the permission {perm} of {path}: whom it names is gone"));
        }
        for UnknownRecord { place, .. } in &self.unknown {
            line(format!("left, its type is not known: {place}"));
        }
        let given = if self.dry_run { "to be given" } else { "given" };
        for what in attachments_in_words(self.applied.given.iter()) {
            line(format!("{given}: {what}"));
        }
        for Unapplied { part, reason } in &self.applied.unapplied {
            let all = plan.attachments.iter().chain(&plan.attachments_left);
            let of_part = all.filter(|of| StatePart::of(of).as_ref() == Some(part));
            for what in attachments_in_words(of_part) {
                line(format!("not restored, {reason}: {what}"));
            }
        }
        for domid in &self.applied.strangers {
            line(format!(
                "domain {domid} would get rights that a domain of that id had: --domid {domid}=ID says who that is here"
            ));
        }
        let changes = plural(plan.changes.len() as u64, "change", "changes");
        let done = match (self.dry_run, plan.changes.is_empty()) {
            (_, true) => "nothing to change".to_owned(),
            (true, false) => format!("{changes} to be made"),
            (false, false) if !self.applied.strangers.is_empty() => format!("{changes} not made"),
            (false, false) => format!("{changes} made"),
        };
        line(format!("domain {}, with the state of domain {}: {done}", self.domid, self.from));
        words
    }

    pub(super) fn document(&self) -> Document<'_> {
        let plan = &self.applied.plan;
        let left = |left: &Left| LeftDocument {
            path: left.path.to_string(),
            nodes: left.nodes,
            reason: left.reason.to_string(),
        };
        let stale = |stale: &StalePerm| StaleDocument {
            path: stale.path.to_string(),
            perm: stale.perm.to_string(),
        };
        let attachment = |wanted| {
            move |of: &Attachment| {
                let part = StatePart::of(of);
                let mut unapplied = self.applied.unapplied.iter();
                let why = unapplied.find(|unapplied| Some(&unapplied.part) == part.as_ref());
                AttachmentDocument::of(
                    of,
                    wanted,
                    why.map(|unapplied| unapplied.reason.to_string()),
                )
            }
        };
        Document {
            file: &self.file,
            from: self.from.get(),
            domid: self.domid.get(),
            dry_run: self.dry_run,
            committed: self.applied.committed,
            attempts: self.applied.attempts,
            changes: plan.changes.iter().map(ChangeDocument::from).collect(),
            left: plan.left.iter().map(left).collect(),
            vm_left_out: self.vm_left_out.as_ref().map(ToString::to_string),
            stale_perms: self.stale.iter().map(stale).collect(),
            strangers: self.applied.strangers.iter().map(|domid| domid.get()).collect(),
            unknown: self.unknown.iter().map(|unknown| unknown.place).collect(),
            given: self
                .applied
                .given
                .iter()
                .map(|of| AttachmentDocument::of(of, true, None))
                .collect(),
            not_restored: plan
                .attachments
                .iter()
                .map(attachment(true))
                .chain(plan.attachments_left.iter().map(attachment(false)))
                .collect(),
        }
    }
}

fn change_in_words(change: &Change, words: &mut String) {
    // Writing to a String cannot fail.
    let _ = match change {
        Change::Create { path, value, perms } => {
            let _ = write!(words, "create {path} = \"");
            escape_value(value, words);
            writeln!(words, "\"   ({perms})")
        }
        Change::SetValue { path, value } => {
            let _ = write!(words, "set {path} = \"");
            escape_value(value, words);
            writeln!(words, "\"")
        }
        Change::SetPerms { path, perms } => writeln!(words, "perms {path}   ({perms})"),
        Change::Remove { path } => writeln!(words, "remove {path}"),
    };
}

fn by_reason(left: &[Left]) -> BTreeMap<String, Vec<&Left>> {
    let mut groups: BTreeMap<String, Vec<&Left>> = BTreeMap::new();
    for left in left {
        groups.entry(left.reason.to_string()).or_default().push(left);
    }
    groups
}

/// Each kind on a line, watches and transactions counted.
fn attachments_in_words<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> Vec<String> {
    let (mut watches, mut transactions, mut words) = (0, 0, Vec::new());
    for attachment in attachments {
        match attachment {
            Attachment::Watch(_) => watches += 1,
            Attachment::Transaction(_) => transactions += 1,
            Attachment::Target(domid) => words.push(format!("acting for domain {domid}")),
            Attachment::Messages { input, output } => words.push(format!(
                "messages on the way, {input} octets from the domain and {output} to it"
            )),
            Attachment::Quota { name, value } => words.push(format!("quota {name}, {value}")),
            Attachment::Features(features) => words.push(format!("features {:#x}", features.0)),
            other => words.push(format!("{other:?}")),
        }
    }
    if transactions > 0 {
        words.insert(0, plural(transactions, "open transaction", "open transactions"));
    }
    if watches > 0 {
        words.insert(0, plural(watches, "watch", "watches"));
    }
    words
}

#[derive(Serialize)]
pub(super) struct Document<'r> {
    file: &'r str,
    from: u16,
    domid: u16,
    dry_run: bool,
    /// Whether anything was written.
    committed: bool,
    attempts: u32,
    changes: Vec<ChangeDocument>,
    left: Vec<LeftDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm_left_out: Option<String>,
    stale_perms: Vec<StaleDocument>,
    /// Domains that would get rights by their number alone. If there is one, nothing was changed.
    strangers: Vec<u16>,
    unknown: Vec<Place>,
    /// What the domain has got, or would.
    given: Vec<AttachmentDocument>,
    not_restored: Vec<AttachmentDocument>,
}

#[derive(Serialize)]
struct ChangeDocument {
    change: &'static str,
    path: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    value: Option<Octets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    perms: Option<String>,
}

impl From<&Change> for ChangeDocument {
    fn from(change: &Change) -> Self {
        let (name, value, perms) = match change {
            Change::Create { value, perms, .. } => ("create", Some(value), Some(perms)),
            Change::SetValue { value, .. } => ("set", Some(value), None),
            Change::SetPerms { perms, .. } => ("perms", None, Some(perms)),
            Change::Remove { .. } => ("remove", None, None),
        };
        Self {
            change: name,
            path: change.path().to_string(),
            value: value.map(|value| value.as_slice().into()),
            perms: perms.map(ToString::to_string),
        }
    }
}

#[derive(Serialize)]
struct LeftDocument {
    path: String,
    /// It and those below that are left for the same reason.
    nodes: usize,
    reason: String,
}

#[derive(Serialize)]
struct StaleDocument {
    path: String,
    perm: String,
}

/// What the domain had besides nodes.
#[derive(Serialize)]
struct AttachmentDocument {
    what: &'static str,
    /// Whether it was wanted; if it was not restored then, that is why the exit status is 1.
    wanted: bool,
    /// Why it was not restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    details: Details,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Details {
    Watch {
        path: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// Instead of the token, if that is no text.
        #[serde(skip_serializing_if = "Option::is_none")]
        token_hex: Option<String>,
        depth: Option<u16>,
    },
    Transaction {
        transaction: u32,
        nodes: usize,
    },
    Target {
        domid: u16,
    },
    Messages {
        input: usize,
        output: usize,
    },
    Quota {
        name: String,
        value: u32,
    },
    Features {
        features: u32,
    },
    Other {},
}

impl AttachmentDocument {
    fn of(attachment: &Attachment, wanted: bool, reason: Option<String>) -> Self {
        let (what, details) = match attachment {
            Attachment::Watch(watch) => {
                let (token, token_hex) = match watch.token.as_octets().into() {
                    Octets::Text(text) => (Some(text), None),
                    Octets::Hex(hex) => (None, Some(hex)),
                };
                let depth = match watch.depth {
                    Some(WatchDepth::Levels(levels)) => Some(levels),
                    _ => None,
                };
                let path = watch.path.to_string();
                ("watch", Details::Watch { path, token, token_hex, depth })
            }
            Attachment::Transaction(open) => {
                let (transaction, nodes) = (open.id.0, open.nodes.len());
                ("transaction", Details::Transaction { transaction, nodes })
            }
            Attachment::Target(domid) => ("target", Details::Target { domid: domid.get() }),
            Attachment::Messages { input, output } => {
                ("messages", Details::Messages { input: *input, output: *output })
            }
            Attachment::Quota { name, value } => {
                ("quota", Details::Quota { name: name.to_string(), value: *value })
            }
            Attachment::Features(features) => {
                ("features", Details::Features { features: features.0 })
            }
            _ => ("other", Details::Other {}),
        };
        Self { what, wanted, reason, details }
    }
}
