//! What a server has done and holds, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use xenstore_proto::{Errno, MessageType, Reply};

use crate::accounts::Usage;
use crate::server::Server;

/// What has been done since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// By number; numbers without a meaning are counted together, so that nobody can make this long.
    requests: BTreeMap<Option<u32>, u64>,
    /// By name, of those that the server itself answers with.
    errors: BTreeMap<String, u64>,
    events: u64,
    conflicts: u64,
}

impl Counters {
    pub(crate) fn count_request(&mut self, ty: MessageType, reply: &Reply) {
        let known = ty.name().map(|_| ty.0);
        *self.requests.entry(known).or_default() += 1;
        if let Reply::Error(errno) = reply {
            *self.errors.entry(errno.name().to_owned()).or_default() += 1;
            self.conflicts +=
                u64::from(ty == MessageType::TRANSACTION_END && *errno == Errno::EAGAIN);
        }
    }

    pub(crate) fn count_event(&mut self) {
        self.events += 1;
    }
}

impl Server {
    /// What the server has done since its start and what it holds now, in the text form that Prometheus reads.
    ///
    /// Its names start with `xenstored_`. What single domains use is given for the sixteen that use the most memory.
    pub fn metrics(&self) -> String {
        let mut text = Text::default();
        let counters = &self.counters;
        text.head("requests_total", "counter", "Requests answered, by operation.");
        for (ty, count) in &counters.requests {
            let name = ty.and_then(|ty| MessageType(ty).name()).unwrap_or("unknown");
            text.row("requests_total", &[("operation", name)], count);
        }
        text.head("errors_total", "counter", "Requests answered with an error, by its name.");
        for (name, count) in &counters.errors {
            text.row("errors_total", &[("errno", name)], count);
        }
        text.single(
            "conflicts_total",
            "counter",
            "Commits refused for a conflict.",
            counters.conflicts,
        );
        text.single("events_total", "counter", "Watch events queued.", counters.events);
        let connections = self.connections.len();
        text.single("connections", "gauge", "Open connections.", connections);
        let mut domains: Vec<_> = self.usage().collect();
        let sum = |of: fn(&Usage) -> u64| domains.iter().map(|(_, usage)| of(usage)).sum::<u64>();
        text.single("nodes", "gauge", "Nodes of the store.", sum(|usage| usage.nodes));
        text.single("watches", "gauge", "Watches set.", sum(|usage| usage.watches));
        text.single("transactions", "gauge", "Open transactions.", sum(|usage| usage.transactions));
        text.single(
            "unread_replies",
            "gauge",
            "Replies not read yet.",
            sum(|usage| usage.outstanding),
        );
        text.single(
            "accounted_bytes",
            "gauge",
            "Octets that domains are charged for.",
            sum(|usage| usage.memory),
        );
        domains.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.memory));
        domains.truncate(DOMAINS_SHOWN);
        for (name, help, of) in OF_A_DOMAIN {
            text.head(name, "gauge", help);
            for (domid, usage) in &domains {
                text.row(name, &[("domid", &domid.to_string())], of(usage));
            }
        }
        text.0
    }
}

/// Domains come and go; a series for each that ever was would be without end.
const DOMAINS_SHOWN: usize = 16;

/// Name, help and what it is, of what is given for single domains.
type OfADomain = (&'static str, &'static str, fn(&Usage) -> u64);

const OF_A_DOMAIN: [OfADomain; 2] = [
    ("domain_nodes", "Nodes that a domain owns.", |usage| usage.nodes),
    ("domain_accounted_bytes", "Octets that a domain is charged for.", |usage| usage.memory),
];

#[derive(Default)]
struct Text(String);

// Writing to a String cannot fail.
impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP xenstored_{name} {help}\n# TYPE xenstored_{name} {kind}");
    }

    /// Labels are of letters, digits and underscores, so that nothing has to be escaped.
    fn row(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let _ = match &*labels {
            [] => writeln!(self.0, "xenstored_{name} {value}"),
            labels => writeln!(self.0, "xenstored_{name}{{{}}} {value}", labels.join(",")),
        };
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.row(name, &[], value);
    }
}
