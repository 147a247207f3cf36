//! A Chinese wall: who has seen one company's data does not get to its competitor's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xenstore_proto::{Access, DomId, Path};

use super::{AccessPolicy, Changed, Object, Standard, Subject};

/// The policy of Brewer and Nash on top of another one: a domain that has touched data of one company cannot reach data
/// of another company of the same class of conflicting interests. It is free to choose until then, and in every
/// class anew.
///
/// Data of a company is what lies at or below one of its paths, and what one of its domains owns. A company's domain
/// has touched its company's data from the start. A domain and its target are one party: what either has touched
/// binds both.
///
/// - Reading, listing, changing and hearing of a change all touch, also in a transaction that is dropped later: it has
///   been seen.
/// - A removal needs every node below to be within reach. It learns nothing of them, and touches what was
///   named only.
/// - The names of children belong to the directory that lists them, as in the standard model.
/// - The control domain is outside all walls.
/// - The wall does not stop data that flows through nodes of no company, or through a third company that two domains
///   may both reach.
///
/// A released domain's number is forgotten, with what it touched and whose it was.
///
/// ```
/// use std::sync::Arc;
/// use xenstore_proto::DomId;
/// use xenstored::{ChineseWall, Company, ConflictClass, Server, Store};
///
/// let company = |name: &str, path: &str, domain: u16| -> Result<_, Box<dyn std::error::Error>> {
///     let (paths, domains) = (vec![path.parse()?], vec![DomId::new(domain)]);
///     Ok(Company { name: name.into(), paths, domains })
/// };
/// let banks = ConflictClass {
///     name: "banks".into(),
///     companies: vec![company("north", "/banks/north", 3)?, company("south", "/banks/south", 4)?],
/// };
/// let wall = Arc::new(ChineseWall::new(&[banks])?);
/// let server = Server::new(Store::new()).with_policy(wall.clone());
/// assert_eq!(wall.touched_by(DomId::new(3)), [("banks".to_owned(), "north".to_owned())]);
/// # drop(server);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ChineseWall {
    base: Arc<dyn AccessPolicy>,
    /// Names of the classes and of their companies.
    classes: Vec<(String, Vec<String>)>,
    paths: Vec<(Path, Label)>,
    state: Mutex<State>,
}

/// How lines of a wall's memory begin.
const BELONGS: &str = "belongs";
const TOUCHED: &str = "touched";

/// Companies that must not learn of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConflictClass {
    /// What it is called.
    pub name: String,
    /// Its companies.
    pub companies: Vec<Company>,
}

/// Whose data something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// What it is called.
    pub name: String,
    /// What is at or below these absolute paths is this company's.
    pub paths: Vec<Path>,
    /// What these domains own is this company's.
    pub domains: Vec<DomId>,
}

/// A company: its class, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Label {
    class: usize,
    company: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Whose a domain is: of one company in each class at most.
    belongs: BTreeMap<DomId, BTreeSet<Label>>,
    touched: BTreeMap<DomId, BTreeSet<Label>>,
}

impl ChineseWall {
    /// A wall on top of the standard model.
    pub fn new(classes: &[ConflictClass]) -> Result<Self, WallError> {
        Self::on(Arc::new(Standard), classes)
    }

    /// A wall on top of another policy: what both allow is allowed.
    pub fn on(base: Arc<dyn AccessPolicy>, classes: &[ConflictClass]) -> Result<Self, WallError> {
        let mut names = Vec::new();
        let mut paths: Vec<(Path, Label)> = Vec::new();
        let mut state = State::default();
        for (at, class) in classes.iter().enumerate() {
            if classes[..at].iter().any(|other| other.name == class.name) {
                return Err(WallError::ClassTwice { class: class.name.clone() });
            }
            for (place, company) in class.companies.iter().enumerate() {
                let named = || (class.name.clone(), company.name.clone());
                if class.companies[..place].iter().any(|other| other.name == company.name) {
                    let (class, company) = named();
                    return Err(WallError::CompanyTwice { class, company });
                }
                let label = Label { class: at, company: place };
                for path in &company.paths {
                    if !path.is_absolute() {
                        return Err(WallError::Relative { path: path.clone() });
                    }
                    let meets = |(other, of): &(Path, Label)| {
                        label.competes(*of)
                            && (other.is_at_or_below(path) || path.is_at_or_below(other))
                    };
                    if paths.iter().any(meets) {
                        return Err(WallError::PathShared { path: path.clone() });
                    }
                    paths.push((path.clone(), label));
                }
                for domid in &company.domains {
                    if !state.assign(*domid, label) {
                        return Err(WallError::DomainShared { domid: *domid });
                    }
                }
            }
            let companies = class.companies.iter().map(|company| company.name.clone());
            names.push((class.name.clone(), companies.collect()));
        }
        Ok(Self { base, classes: names, paths, state: Mutex::new(state) })
    }

    /// Makes a domain a company's: for domains that are created later than the wall.
    ///
    /// # Errors
    ///
    /// If there is no such company, or if the domain is a competitor's or has touched a competitor's data.
    pub fn assign(&self, domid: DomId, class: &str, company: &str) -> Result<(), WallError> {
        let Some(label) = self.label(class, company) else {
            let (class, company) = (class.into(), company.into());
            return Err(WallError::Unknown { class, company });
        };
        if self.state().assign(domid, label) {
            Ok(())
        } else {
            Err(WallError::DomainShared { domid })
        }
    }

    /// The companies whose data a domain has touched: names of class and company.
    pub fn touched_by(&self, domid: DomId) -> Vec<(String, String)> {
        let name = |label: Label| {
            let (class, companies) = &self.classes[label.class];
            (class.clone(), companies[label.company].clone())
        };
        self.state().behind(domid).map(name).collect()
    }

    fn label(&self, class: &str, company: &str) -> Option<Label> {
        self.classes.iter().enumerate().find_map(|(at, (name, companies))| {
            let place = companies.iter().position(|name| name == company)?;
            (name == class).then_some(Label { class: at, company: place })
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose data a path is by where it lies.
    fn labels_of_path<'a>(&'a self, path: &'a str) -> impl Iterator<Item = Label> + 'a {
        let covers = move |prefix: &Path| {
            let below = path.strip_prefix(prefix.as_str());
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_root())
        };
        self.paths.iter().filter(move |(prefix, _)| covers(prefix)).map(|(_, label)| *label)
    }

    fn labels(&self, state: &State, object: Object<'_>) -> BTreeSet<Label> {
        let owners = state.belongs.get(&object.perms.owner()).into_iter().flatten().copied();
        self.labels_of_path(object.path).chain(owners).collect()
    }

    /// Whether the subject may come in touch with all of these together.
    fn admits(state: &State, subject: &Subject, labels: &BTreeSet<Label>) -> bool {
        let competes = |label: Label| labels.iter().any(|wanted| wanted.competes(label));
        !labels.iter().any(|label| competes(*label))
            && !parties(subject).any(|domid| state.behind(domid).any(competes))
    }
}

impl AccessPolicy for ChineseWall {
    fn access(&self, subject: &Subject, object: Object<'_>) -> Access {
        let state = self.state();
        if subject.privileged || Self::admits(&state, subject, &self.labels(&state, object)) {
            self.base.access(subject, object)
        } else {
            Access::None
        }
    }

    fn owns(&self, subject: &Subject, object: Object<'_>) -> bool {
        self.base.owns(subject, object)
    }

    fn hears(&self, subject: &Subject, changed: &Changed<'_>) -> bool {
        let state = self.state();
        let mut labels: BTreeSet<_> = self.labels_of_path(changed.path).collect();
        for perms in changed.node {
            labels.extend(self.labels(&state, Object { path: changed.path, perms }));
        }
        (subject.privileged || Self::admits(&state, subject, &labels))
            && self.base.hears(subject, changed)
    }

    fn touched(&self, subject: &Subject, object: Object<'_>) {
        self.base.touched(subject, object);
        if subject.privileged {
            return;
        }
        let mut state = self.state();
        let labels = self.labels(&state, object);
        if labels.is_empty() {
            return;
        }
        for domid in parties(subject) {
            state.touched.entry(domid).or_default().extend(labels.iter().copied());
        }
    }

    fn guards_below(&self) -> bool {
        true
    }

    /// A line for each company that a domain belongs to or has touched: `belongs` or `touched`, domid, class, company, with tabs.
    fn memory(&self) -> String {
        let state = self.state();
        let mut memory = String::new();
        for (what, known) in [(BELONGS, &state.belongs), (TOUCHED, &state.touched)] {
            for (domid, labels) in known {
                for label in labels {
                    let (class, companies) = &self.classes[label.class];
                    let company = &companies[label.company];
                    memory += &format!("{what}\t{domid}\t{class}\t{company}\n");
                }
            }
        }
        memory
    }

    fn remember(&self, memory: &str) -> Vec<String> {
        let mut state = self.state();
        let mut take = |line: &str| {
            let mut words = line.split('\t');
            let (what, domid) = (words.next()?, words.next()?.parse().ok()?);
            let label = self.label(words.next()?, words.next()?)?;
            let known = match what {
                BELONGS => &mut state.belongs,
                TOUCHED => &mut state.touched,
                _ => return None,
            };
            known.entry(domid).or_default().insert(label);
            Some(())
        };
        memory.lines().filter(|line| take(line).is_none()).map(str::to_owned).collect()
    }

    fn released(&self, domid: DomId) {
        self.base.released(domid);
        let mut state = self.state();
        state.touched.remove(&domid);
        state.belongs.remove(&domid);
    }
}

impl Label {
    fn competes(self, other: Self) -> bool {
        self.class == other.class && self.company != other.company
    }
}

impl State {
    /// What a domain has touched.
    fn behind(&self, domid: DomId) -> impl Iterator<Item = Label> + '_ {
        let own = self.belongs.get(&domid).into_iter().flatten();
        let touched = self.touched.get(&domid).into_iter().flatten();
        own.chain(touched).copied().collect::<BTreeSet<_>>().into_iter()
    }

    /// `false` if the domain is on another side already.
    fn assign(&mut self, domid: DomId, label: Label) -> bool {
        let free = !self.behind(domid).any(|known| known.competes(label));
        if free {
            self.belongs.entry(domid).or_default().insert(label);
        }
        free
    }
}

/// The domain and its target, which see with the same eyes.
fn parties(subject: &Subject) -> impl Iterator<Item = DomId> {
    std::iter::once(subject.domid).chain(subject.target)
}

/// Why walls cannot be put up like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WallError {
    /// Two classes have this name.
    #[error("two classes are called {class}")]
    ClassTwice {
        /// The name.
        class: String,
    },
    /// Two companies of a class have this name.
    #[error("two companies of the class {class} are called {company}")]
    CompanyTwice {
        /// Their class.
        class: String,
        /// The name.
        company: String,
    },
    /// There is no such company.
    #[error("no company {company} in a class {class}")]
    Unknown {
        /// The class asked for.
        class: String,
        /// The company asked for.
        company: String,
    },
    /// A path that does not say where it is.
    #[error("path {path} of a company does not start with /")]
    Relative {
        /// The path.
        path: Path,
    },
    /// A path that is, or lies above or below, a competitor's.
    #[error("path {path} is shared by competitors")]
    PathShared {
        /// The path.
        path: Path,
    },
    /// A domain of two competitors.
    #[error("domain {domid} belongs to a competitor, or has touched its data")]
    DomainShared {
        /// The domain.
        domid: DomId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn company(name: &str, path: &str, domid: u16) -> Company {
        let (paths, domains) = (vec![path.parse().unwrap()], vec![DomId::new(domid)]);
        Company { name: name.into(), paths, domains }
    }

    fn class(name: &str, companies: &[Company]) -> ConflictClass {
        ConflictClass { name: name.into(), companies: companies.to_vec() }
    }

    #[test]
    fn configurations_that_contradict_themselves_are_refused() {
        let error = |classes: &[ConflictClass]| ChineseWall::new(classes).unwrap_err();
        let (a, b) = (company("a", "/a", 1), company("b", "/b", 2));
        let twice = [class("x", &[]), class("x", &[])];
        assert_eq!(error(&twice), WallError::ClassTwice { class: "x".into() });
        let same = class("x", &[a.clone(), company("a", "/c", 3)]);
        assert!(matches!(error(&[same]), WallError::CompanyTwice { .. }));
        for shared in ["/a", "/a/below", "/"] {
            let shared = class("x", &[a.clone(), company("b", shared, 2)]);
            assert!(matches!(error(&[shared]), WallError::PathShared { .. }));
        }
        let relative = class("x", &[company("a", "a", 1)]);
        assert!(matches!(error(&[relative]), WallError::Relative { .. }));
        let domid = DomId::new(1);
        let shared = class("x", &[a.clone(), company("b", "/b", 1)]);
        assert_eq!(error(&[shared]), WallError::DomainShared { domid });
        // In another class, both may be anybody's.
        ChineseWall::new(&[class("x", &[a.clone(), b]), class("y", &[a])]).unwrap();
    }

    #[test]
    fn a_domain_is_assigned_to_one_side_until_it_is_released() {
        let wall = ChineseWall::new(&[class("x", &[company("a", "/a", 1), company("b", "/b", 2)])])
            .unwrap();
        let seven = DomId::new(7);
        wall.assign(seven, "x", "a").unwrap();
        assert_eq!(wall.assign(seven, "x", "b"), Err(WallError::DomainShared { domid: seven }));
        assert!(matches!(wall.assign(seven, "x", "c"), Err(WallError::Unknown { .. })));
        wall.released(seven);
        wall.assign(seven, "x", "b").unwrap();
        assert_eq!(wall.touched_by(seven), [("x".to_owned(), "b".to_owned())]);
    }
}
