//! The public way in: one domain, many, or all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;
use xsclient::{Batch, Client, DomId, Errno, Name, Nodes, OperationError, Path};

use super::consistent::{self, Means, Read};
use super::hypervisor::{HypervisorDomain, HypervisorView};
use super::knobs;
use super::merge::{self, Views};
use super::plan::Trees;
use super::report::{Consistency, Report, TemplateSource, Unseen};
use super::revision::ConfigurationRevision;
use super::view::DomainView;
use crate::template::{ListError, LoadError, Template, TemplateKey, TemplateStore};
use crate::{DomainConfig, Mode};

/// How often a domain is read, when nothing else is said, before its configuration is given as not consistent.
pub const ATTEMPTS_DEFAULT: u32 = 5;

/// How many domains are read in lockstep: enough to keep a server busy while the next level is worked out, few enough
/// that a change somewhere seldom falls into the read.
const DOMAINS_AT_ONCE: usize = 32;

/// How long a whole call may take, when nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Which view decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Xenstore: a device that is in the template only is left out in the classes that libxl compares, and kept in the
    /// others.
    #[default]
    LiveWins,
    /// Both: every device that either view knows.
    Union,
    /// The template alone; the report still says what Xenstore has otherwise.
    Template,
}

/// A configuration and where it came from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Retrieved {
    /// The domain.
    pub domid: DomId,
    /// What it is made of now.
    pub config: DomainConfig,
    /// Changes when template or view change.
    pub revision: ConfigurationRevision,
    /// Where every value came from, and every disagreement.
    pub report: Report,
}

/// Why a domain's configuration could not be retrieved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetrieveError {
    /// Xenstore has no such domain.
    #[error("no domain {domid}: Xenstore has no /local/domain/{domid}")]
    NoSuchDomain {
        /// Which.
        domid: DomId,
    },
    /// Xenstore has something there, or nothing, and does not show it to this domain.
    #[error("domain {domid}: Xenstore refuses to show /local/domain/{domid} ({errno})")]
    Refused {
        /// Which.
        domid: DomId,
        /// With which error.
        errno: Errno,
    },
    /// The id is one of those that never name a domain.
    #[error("{domid} is no domain's id: ids from {} are reserved", DomId::FIRST_RESERVED)]
    ReservedDomId {
        /// Which.
        domid: DomId,
    },
    /// Xenstore could not be read.
    #[error("domain {domid}: cannot read Xenstore")]
    Xenstore {
        /// Of which domain.
        domid: DomId,
        /// Why.
        source: OperationError,
    },
    /// The template store could not be searched.
    #[error("domain {domid}: cannot search the template store")]
    Templates {
        /// For which domain.
        domid: DomId,
        /// Why.
        source: ListError,
    },
    /// Somebody held the domain's template until the deadline.
    #[error("domain {domid}: cannot load the template")]
    Template {
        /// Of which domain.
        domid: DomId,
        /// Why.
        source: LoadError,
    },
}

/// Retrieves configurations, from one Xenstore and one template store.
pub struct Retriever<'a> {
    client: &'a mut Client,
    templates: &'a dyn TemplateStore,
    hypervisor: Option<&'a dyn HypervisorView>,
    policy: Policy,
    means: Means,
    attachments: bool,
    attempts: u32,
    timeout: Duration,
}

impl<'a> Retriever<'a> {
    /// With live values deciding, at most [`ATTEMPTS_DEFAULT`] reads of a domain, and 30 seconds for a call.
    pub fn new(client: &'a mut Client, templates: &'a dyn TemplateStore) -> Self {
        Self {
            client,
            templates,
            hypervisor: None,
            policy: Policy::default(),
            means: Means::default(),
            attachments: true,
            attempts: ATTEMPTS_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
        }
    }

    /// Asks this about what only the hypervisor knows.
    #[must_use]
    pub fn hypervisor(mut self, hypervisor: &'a dyn HypervisorView) -> Self {
        self.hypervisor = Some(hypervisor);
        self
    }

    /// Another policy.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Another means of consistency than the transport suggests.
    #[must_use]
    pub fn means(mut self, means: Means) -> Self {
        self.means = means;
        self
    }

    /// Whether it is asked how far attaching each device has come; otherwise the report has [`Attachment::Unknown`](super::Attachment) for every
    /// device that Xenstore has, and neither a state's change nor its value touches the revision. The configuration is the same.
    #[must_use]
    pub fn attachments(mut self, asked: bool) -> Self {
        self.attachments = asked;
        self
    }

    /// How often a domain is read at most; at least once.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// How long a call may take; at most half of it waiting for locked templates.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The configuration of one domain, in at most four round trips, read again while it changes.
    ///
    /// # Errors
    ///
    /// If there is no such domain, or Xenstore or the template store cannot be read at all. What is wrong with single
    /// values, devices or the template's text is in the report instead.
    pub fn retrieve(&mut self, domid: DomId) -> Result<Retrieved, RetrieveError> {
        let mut answers = self.retrieve_all(&[domid]);
        answers.pop().map_or(Err(RetrieveError::NoSuchDomain { domid }), |(_, answer)| answer)
    }

    /// The configurations of several domains, each with an answer of its own, in the order given.
    ///
    /// Up to 32 domains share their round trips.
    pub fn retrieve_all(
        &mut self,
        domids: &[DomId],
    ) -> Vec<(DomId, Result<Retrieved, RetrieveError>)> {
        let now = Instant::now();
        let deadlines = Deadlines { end: now + self.timeout, locks: now + self.timeout / 2 };
        let keys = self.keys(domids, deadlines);
        domids
            .chunks(DOMAINS_AT_ONCE)
            .flat_map(|some| self.retrieve_some(some, &keys, deadlines))
            .collect()
    }

    /// The domains that have this name, in ascending order, in two round trips: a toolstack lets no two have the same.
    ///
    /// # Errors
    ///
    /// If Xenstore cannot be read.
    pub fn named(&mut self, name: &str) -> Result<Vec<DomId>, OperationError> {
        let mut batch = Batch::new();
        let mut slots = Vec::new();
        for domid in self.domains()? {
            if let Ok(path) = Path::of_domain(domid).join("name") {
                slots.push((domid, batch.read(path)));
            }
        }
        let end = Instant::now() + self.timeout;
        let mut replies = self.client.with_deadline(end).run(batch)?;
        let mut found = Vec::new();
        for (domid, slot) in slots {
            // A domain may go at any time.
            if replies.take_optional(slot)?.is_some_and(|found| found == name.as_bytes()) {
                found.push(domid);
            }
        }
        Ok(found)
    }

    /// The domains that Xenstore has, in ascending order. A directory of more than one reply is read in parts.
    ///
    /// # Errors
    ///
    /// If Xenstore cannot be read.
    pub fn domains(&mut self) -> Result<Vec<DomId>, OperationError> {
        let all: Path = "/local/domain".parse().expect("written out here");
        let names = match self.client.with_deadline(Instant::now() + self.timeout).directory(&all) {
            Err(error) if error.is_not_found() => Vec::new(),
            names => names?,
        };
        let number = |name: &Name| {
            let domid: DomId = name.as_str().parse().ok()?;
            // 007 is a node, and no domain's.
            (domid.to_string() == name.as_str()).then_some(domid)
        };
        let mut domids: Vec<DomId> = names.iter().filter_map(number).collect();
        domids.sort_unstable();
        Ok(domids)
    }

    fn retrieve_some(
        &mut self,
        domids: &[DomId],
        keys: &Keys,
        deadlines: Deadlines,
    ) -> Vec<(DomId, Result<Retrieved, RetrieveError>)> {
        let mut answers: BTreeMap<usize, Result<Retrieved, RetrieveError>> = BTreeMap::new();
        let mut open: Vec<usize> = Vec::new();
        for (at, &domid) in domids.iter().enumerate() {
            if domid.is_real() {
                open.push(at);
            } else {
                answers.insert(at, Err(RetrieveError::ReservedDomId { domid }));
            }
        }
        let mut attempt = 0;
        while !open.is_empty() {
            attempt += 1;
            let last = attempt >= self.attempts || Instant::now() >= deadlines.end;
            let trees: Vec<Trees> = open.iter().map(|at| self.trees(domids[*at])).collect();
            let first = Some(keys).filter(|_| attempt == 1);
            let before: Vec<_> = trees
                .iter()
                .map(|trees| self.templates_of(trees.domid, first, deadlines))
                .collect();
            let mut client = self.client.with_deadline(deadlines.end);
            let reads = consistent::read(&mut client, &trees, self.means);
            drop(client);
            let reads = match reads {
                Ok(reads) => reads,
                Err(source) => {
                    // An answer that kept changing until now says more than that there was no time for another.
                    for at in open {
                        let (domid, source) = (domids[at], source.clone());
                        answers.entry(at).or_insert(Err(RetrieveError::Xenstore { domid, source }));
                    }
                    break;
                }
            };
            let mut again = Vec::new();
            for (((at, trees), read), templates) in open.iter().zip(&trees).zip(reads).zip(before) {
                let answer = self.answer(trees, read, templates, attempt, deadlines);
                let is_changing = answer.as_ref().is_ok_and(|retrieved| {
                    matches!(retrieved.report.consistency, Consistency::Changing { .. })
                });
                if is_changing && !last {
                    again.push(*at);
                }
                answers.insert(*at, answer);
            }
            open = again;
        }
        answers.into_iter().map(|(at, answer)| (domids[at], answer)).collect()
    }

    fn trees(&self, domid: DomId) -> Trees {
        Trees { progress: self.attachments, ..Trees::of(domid) }
    }

    /// The keys of all templates, listed once for all domains: a store may have to search a directory for it.
    fn keys(&self, domids: &[DomId], deadlines: Deadlines) -> Keys {
        if domids.len() == 1 {
            return Keys::Unlisted;
        }
        match self.templates.keys(deadlines.locks) {
            Ok(all) => Keys::Listed(all),
            // Each domain has an error of its own to give.
            Err(_) => Keys::Unlisted,
        }
    }

    /// All templates of a domain, as they are before Xenstore is read: which of them counts, only Xenstore tells.
    fn templates_of(
        &self,
        domid: DomId,
        keys: Option<&Keys>,
        deadlines: Deadlines,
    ) -> Result<Templates, ListError> {
        let keys = match keys {
            Some(Keys::Listed(all)) => {
                let from = all.partition_point(|key| key.domid < domid);
                all[from..].iter().take_while(|key| key.domid == domid).copied().collect()
            }
            _ => self.templates.keys_of(domid, deadlines.locks)?,
        };
        let load = |key| (key, self.templates.load(&key, deadlines.locks));
        Ok(keys.into_iter().map(load).collect())
    }

    fn answer(
        &self,
        trees: &Trees,
        read: Read,
        templates: Result<Templates, ListError>,
        attempt: u32,
        deadlines: Deadlines,
    ) -> Result<Retrieved, RetrieveError> {
        let domid = trees.domid;
        let view = DomainView::of(trees, &read.seen);
        let templates = templates.map_err(|source| RetrieveError::Templates { domid, source })?;
        if !view.exists && (self.policy != Policy::Template || templates.is_empty()) {
            let refused = view.refused.iter().find(|(path, _)| *path == trees.domain);
            return Err(match refused {
                Some((_, errno)) => RetrieveError::Refused { domid, errno: errno.clone() },
                None => RetrieveError::NoSuchDomain { domid },
            });
        }
        let asked = self.hypervisor.map(|hypervisor| hypervisor.domain(domid));
        let (domain, failed) = match asked {
            None => (None, None),
            Some(Ok(domain)) => (domain, None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        let mut changed = read.changed;
        let chosen = choose(&view, domain.as_ref(), templates);
        let (template, source) = self.read_template(domid, chosen, deadlines, &mut changed)?;
        if !view.exists && matches!(source, TemplateSource::OfAnotherDomain { .. }) {
            // Of several former domains' templates, none is more this domain's than another.
            return Err(RetrieveError::NoSuchDomain { domid });
        }
        let revision = match &source {
            TemplateSource::Found { revision, .. } => Some(*revision),
            _ => None,
        };
        let views = Views {
            view: &view,
            domain: domain.as_ref(),
            hypervisor: self.hypervisor,
            policy: self.policy,
            attachments: self.attachments,
        };
        let merged = merge::merge(template, views);
        let mut unseen = merged.unseen;
        unseen.extend(failed.map(|error| Unseen::HypervisorFailed { error }));
        unseen.extend(read.unread.iter().map(|path| Unseen::Unread { path: path.to_string() }));
        let consistency = if changed.is_empty() {
            Consistency::Consistent { attempts: attempt }
        } else {
            Consistency::Changing { attempts: attempt, changed }
        };
        Ok(Retrieved {
            domid,
            config: merged.config,
            revision: ConfigurationRevision::of(revision.as_ref(), &read.seen),
            report: Report {
                template: source,
                consistency,
                knobs: merged.knobs,
                devices: merged.devices,
                unseen,
            },
        })
    }

    /// Whether a template that counts may be there by now.
    fn has_appeared(
        &self,
        domid: DomId,
        uuid: Option<Uuid>,
        others: &[Uuid],
        deadlines: Deadlines,
    ) -> bool {
        let locks = deadlines.locks;
        match uuid {
            // One that cannot be loaded is being written.
            Some(uuid) => {
                !matches!(self.templates.load(&TemplateKey::new(domid, uuid), locks), Ok(None))
            }
            None => self
                .templates
                .keys_of(domid, locks)
                .is_ok_and(|keys| !keys.iter().map(|key| &key.uuid).eq(others)),
        }
    }

    /// Parses the template that counts, and notes if it is another by now.
    fn read_template(
        &self,
        domid: DomId,
        chosen: Chosen,
        deadlines: Deadlines,
        changed: &mut Vec<String>,
    ) -> Result<(Option<DomainConfig>, TemplateSource), RetrieveError> {
        let (key, loaded) = match chosen {
            Chosen::One(key, loaded) => (key, loaded),
            Chosen::NoneYet(uuid, others) => {
                if self.has_appeared(domid, uuid, &others, deadlines) {
                    changed.push("the template".to_owned());
                }
                let source = if others.is_empty() {
                    TemplateSource::Missing
                } else {
                    TemplateSource::OfAnotherDomain { uuids: others }
                };
                return Ok((None, source));
            }
        };
        let template = match loaded {
            Ok(Some(template)) => template,
            Ok(None) => {
                changed.push("the template".to_owned());
                return Ok((None, TemplateSource::Missing));
            }
            Err(source @ LoadError::Locked { .. }) => {
                return Err(RetrieveError::Template { domid, source });
            }
            Err(error) => {
                return Ok((None, TemplateSource::Unreadable { error: error.to_string() }));
            }
        };
        let now = self.templates.load(&key, deadlines.locks);
        if !now.is_ok_and(|now| now.is_some_and(|now| now.revision == template.revision)) {
            changed.push("the template".to_owned());
        }
        Ok(match DomainConfig::read(&template.octets, Mode::Lenient) {
            Ok(read) => {
                let findings = read.findings.iter().map(ToString::to_string).collect();
                (Some(read.config), TemplateSource::Found { revision: template.revision, findings })
            }
            Err(error) => (None, TemplateSource::Unreadable { error: error.to_string() }),
        })
    }
}

/// Until when a call may take its time.
///
/// Locks of templates may use half of it, all together: a template that somebody holds must not leave no time to read
/// Xenstore for the domains beside it.
#[derive(Clone, Copy)]
struct Deadlines {
    end: Instant,
    locks: Instant,
}

/// What templates there are, in ascending order.
enum Keys {
    Listed(Vec<TemplateKey>),
    Unlisted,
}

/// The templates under one domid, each as it was loaded.
type Templates = Vec<(TemplateKey, Result<Option<Template>, LoadError>)>;

enum Chosen {
    /// The template of this domain.
    One(TemplateKey, Result<Option<Template>, LoadError>),
    /// None is; the uuid it would have if that is known, and those of other domains that had the domid before.
    NoneYet(Option<Uuid>, Vec<Uuid>),
}

/// Of several templates with one domid, the one that belongs to the domain that has it now.
///
/// The hypervisor's handle decides, else `/local/domain/DOMID/vm`. Dom0 has neither, and a single template then.
fn choose(
    view: &DomainView,
    domain: Option<&HypervisorDomain>,
    mut templates: Templates,
) -> Chosen {
    let uuid = domain.map(|domain| domain.uuid).or_else(|| knobs::uuid_of_vm(view.knob("vm")?));
    let at = match uuid {
        Some(uuid) => templates.iter().position(|(key, _)| key.uuid == uuid),
        None if templates.len() == 1 => Some(0),
        None => None,
    };
    match at {
        Some(at) => {
            let (key, loaded) = templates.swap_remove(at);
            Chosen::One(key, loaded)
        }
        None => Chosen::NoneYet(uuid, templates.iter().map(|(key, _)| key.uuid).collect()),
    }
}
