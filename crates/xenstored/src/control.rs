//! CONTROL: commands to the daemon itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use xenstore_proto::{DomId, Errno, QuotaName, Reply};

use crate::accounts::{Accounts, Usage};
use crate::quota::Quota;
use crate::server::{ConnectionId, Server};

/// The command that its carrier has to make possible.
pub(crate) const LIVE_UPDATE: &str = "live-update";

/// The commands with their arguments, as `help` lists them.
const COMMANDS: [(&str, &str); 10] = [
    ("check", ""),
    ("domain-state", "<domid> [<offset>]"),
    ("domain-state-set", "<domid> <octets>|<domid> <offset> <hex>"),
    (LIVE_UPDATE, "[-f <file>|-c <cmdline>|-s [-t <sec>] [-F] [-v <version>]|-a]"),
    ("log", "[on|off]"),
    ("memreport", ""),
    ("print", "<string>"),
    ("quota", "[set <name> <val>|<domid>]"),
    ("quota-soft", "[set memory <val>]"),
    ("help", ""),
];

impl Server {
    /// Carries a command out. What it is not is answered with EINVAL: the stock tool then shows the help.
    pub(crate) fn control(
        &mut self,
        from: ConnectionId,
        words: &[Vec<u8>],
    ) -> Result<Reply, Errno> {
        let words: Result<Vec<_>, _> = words.iter().map(|word| str::from_utf8(word)).collect();
        match *words.map_err(|_| Errno::EINVAL)? {
            ["help"] => Ok(text(self.help())),
            ["check"] => self.check().map(|()| Reply::Ok),
            ["domain-state", domid] => self.domain_state_page(from, domid, "0"),
            ["domain-state", domid, offset] => self.domain_state_page(from, domid, offset),
            ["domain-state-set", domid, total] => self.begin_domain_state(from, domid, total),
            ["domain-state-set", domid, offset, page] => {
                self.take_domain_state_page(from, domid, offset, page)
            }
            ["log"] => Ok(text(if self.log_requests { "on\n" } else { "off\n" }.to_owned())),
            ["log", "on"] => {
                self.log_requests = true;
                Ok(Reply::Ok)
            }
            ["log", "off"] => {
                self.log_requests = false;
                Ok(Reply::Ok)
            }
            ["memreport"] => Ok(text(self.memory_report())),
            ["print", line] => {
                tracing::info!(target: "xenstored::control", line, "print");
                Ok(Reply::Ok)
            }
            ["quota"] => Ok(text(
                self.quota_report(|quota| !matches!(quota, Quota::SoftMemory), Quota::name),
            )),
            ["quota", "set", name, limit] => {
                let name: QuotaName = name.parse().map_err(|_| Errno::EINVAL)?;
                self.set_quota_named(None, &name, limit.parse().map_err(|_| Errno::EINVAL)?)
            }
            ["quota", domid] => {
                let domid: DomId = domid.parse().map_err(|_| Errno::EINVAL)?;
                self.accounts.get(domid).ok_or(Errno::ENOENT)?;
                Ok(text(usage_report(domid, &self.usage_of(domid))))
            }
            ["quota-soft"] => Ok(text(
                self.quota_report(|quota| matches!(quota, Quota::SoftMemory), |_| "memory"),
            )),
            ["quota-soft", "set", "memory", limit] => {
                let limit = limit.parse().map_err(|_| Errno::EINVAL)?;
                self.set_quota(None, Quota::SoftMemory, limit);
                Ok(Reply::Ok)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Counts again what is counted all the time. EIO if something is not as it should be; what, says the log.
    fn check(&self) -> Result<(), Errno> {
        let counted = Accounts::of(&self.store, self.accounts.defaults.clone());
        let nodes = |accounts: &Accounts| -> BTreeMap<DomId, u64> {
            let owned = accounts.iter().map(|(domid, account)| (domid, account.usage().nodes));
            owned.filter(|(_, nodes)| *nodes > 0).collect()
        };
        let (counted, kept) = (nodes(&counted), nodes(&self.accounts));
        if counted != kept {
            tracing::error!(?counted, ?kept, "nodes are not those that domains are charged for");
            return Err(Errno::EIO);
        }
        let (watches, indexed) = (self.watches.owned(), self.watches.indexed());
        if watches != indexed {
            tracing::error!(watches, indexed, "watches are not those of the connections");
            return Err(Errno::EIO);
        }
        tracing::info!(owners = counted.len(), watches, "checked");
        Ok(())
    }

    fn help(&self) -> String {
        let offered =
            |(command, _): &&(&str, &str)| *command != LIVE_UPDATE || self.update.is_some();
        let line = |(command, arguments): &(&str, &str)| format!("{command}\t{arguments}\n");
        COMMANDS.iter().filter(offered).map(line).collect()
    }

    fn memory_report(&self) -> String {
        let mut total = Usage::default();
        for (_, usage) in self.usage() {
            total.nodes += usage.nodes;
            total.watches += usage.watches;
            total.transactions += usage.transactions;
            total.outstanding += usage.outstanding;
            total.memory += usage.memory;
        }
        let mut report = String::new();
        row(&mut report, "connections", self.connections.len());
        rows(&mut report, &total);
        report
    }

    fn quota_report(
        &self,
        shown: impl Fn(&Quota) -> bool,
        name: impl Fn(Quota) -> &'static str,
    ) -> String {
        let mut report = "Quota settings:\n".to_owned();
        for quota in Quota::ALL.into_iter().filter(shown) {
            row(&mut report, name(quota), self.accounts.defaults.get(quota));
        }
        report
    }
}

fn usage_report(domid: DomId, usage: &Usage) -> String {
    let mut report = format!("Domain {domid}:\n");
    rows(&mut report, usage);
    report
}

fn rows(report: &mut String, usage: &Usage) {
    row(report, "nodes", usage.nodes);
    row(report, "watches", usage.watches);
    row(report, "transactions", usage.transactions);
    row(report, "outstanding", usage.outstanding);
    row(report, "memory", usage.memory);
}

fn row(report: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(report, "{name:<17}: {value:>8}");
}

fn text(text: String) -> Reply {
    Reply::Text(text.into_bytes())
}
