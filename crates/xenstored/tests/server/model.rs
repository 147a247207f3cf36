//! A store as simple as can be, with the rules written down again, plainly: what the server is compared with.

use std::collections::BTreeMap;

use xenstore_proto::{Access, Errno, Reply};
use xenstored::Store;

/// A request that the model knows.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Read(String),
    Directory(String),
    GetPerms(String),
    Write(String, String),
    Mkdir(String),
    Rm(String),
    SetPerms(String, String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    value: String,
    perms: String,
    born: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    nodes: BTreeMap<String, Entry>,
    births: u64,
}

impl Model {
    pub(crate) fn new() -> Self {
        let root = Entry { value: String::new(), perms: "n0".into(), born: 0 };
        Self { nodes: BTreeMap::from([("/".into(), root)]), births: 0 }
    }

    /// What the server has to answer, and what it has to have changed.
    pub(crate) fn apply(&mut self, domid: u16, op: &Op) -> Reply {
        self.try_apply(domid, op).unwrap_or_else(Reply::Error)
    }

    fn try_apply(&mut self, domid: u16, op: &Op) -> Result<Reply, Errno> {
        match op {
            Op::Read(at) => {
                Ok(Reply::Value(self.find(domid, at, Access::can_read)?.value.clone().into()))
            }
            Op::Directory(at) => {
                self.find(domid, at, Access::can_read)?;
                Ok(Reply::Names(
                    self.children(at).iter().map(|name| name.parse().unwrap()).collect(),
                ))
            }
            Op::GetPerms(at) => {
                Ok(Reply::Perms(self.find(domid, at, Access::can_read)?.perms.parse().unwrap()))
            }
            Op::Write(at, value) => {
                self.make(domid, at)?;
                self.nodes.get_mut(at).unwrap().value.clone_from(value);
                Ok(Reply::Ok)
            }
            Op::Mkdir(at) => self.make(domid, at).map(|()| Reply::Ok),
            Op::Rm(at) => {
                let found = self.find(domid, at, Access::can_write).map(|_| ());
                if at == "/" {
                    return found.and(Err(Errno::EINVAL));
                }
                if found == Err(Errno::ENOENT) && self.nodes.contains_key(&above(at)) {
                    return Ok(Reply::Ok);
                }
                found?;
                let below = format!("{at}/");
                self.nodes.retain(|path, _| path != at && !path.starts_with(&below));
                Ok(Reply::Ok)
            }
            Op::SetPerms(at, perms) => {
                let old = owner(&self.find(domid, at, Access::can_write)?.perms);
                if domid != 0 && old != domid {
                    return Err(Errno::EACCES);
                }
                if domid != 0 && owner(perms) != old {
                    return Err(Errno::EPERM);
                }
                self.nodes.get_mut(at).unwrap().perms.clone_from(perms);
                Ok(Reply::Ok)
            }
        }
    }

    fn make(&mut self, domid: u16, at: &str) -> Result<(), Errno> {
        match self.find(domid, at, Access::can_write).map(|_| ()) {
            Err(errno) if errno == Errno::ENOENT => {}
            other => return other,
        }
        let mut missing = vec![at.to_owned()];
        while !self.nodes.contains_key(&above(&missing[missing.len() - 1])) {
            missing.push(above(&missing[missing.len() - 1]));
        }
        let from = &self.nodes[&above(&missing[missing.len() - 1])].perms;
        let perms = match from.split_once(',') {
            _ if domid == 0 => from.clone(),
            Some((first, rest)) => format!("{}{domid},{rest}", &first[..1]),
            None => format!("{}{domid}", &from[..1]),
        };
        for path in missing.into_iter().rev() {
            self.births += 1;
            let entry = Entry { value: String::new(), perms: perms.clone(), born: self.births };
            self.nodes.insert(path, entry);
        }
        Ok(())
    }

    fn find(&self, domid: u16, at: &str, allows: impl Fn(Access) -> bool) -> Result<&Entry, Errno> {
        let mut nearest = at.to_owned();
        while !self.nodes.contains_key(&nearest) {
            nearest = above(&nearest);
        }
        let entry = &self.nodes[&nearest];
        match (allows(access(domid, &entry.perms)), nearest == at) {
            (false, _) => Err(Errno::EACCES),
            (true, false) => Err(Errno::ENOENT),
            (true, true) => Ok(entry),
        }
    }

    fn children(&self, at: &str) -> Vec<&str> {
        let here = self.nodes.iter().filter(|(path, _)| *path != "/" && above(path) == at);
        let mut children: Vec<_> =
            here.map(|(path, entry)| (entry.born, path.rsplit('/').next().unwrap())).collect();
        children.sort_unstable();
        children.into_iter().map(|(_, name)| name).collect()
    }

    /// The nodes that a domain hears of when they change: it may read them or what is above.
    pub(crate) fn hears(&self, domid: u16, at: &str) -> bool {
        let own = self.nodes.get(at);
        let parent = if at == "/" { None } else { self.nodes.get(&above(at)) };
        own.into_iter().chain(parent).any(|entry| access(domid, &entry.perms).can_read())
    }

    pub(crate) fn exists(&self, at: &str) -> bool {
        self.nodes.contains_key(at)
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Panics unless the store holds the same.
    pub(crate) fn assert_is(&self, store: &Store) {
        let held: BTreeMap<String, (String, String)> = store
            .nodes()
            .map(|node| {
                let value = String::from_utf8(node.value.to_vec()).unwrap();
                (node.path.to_string(), (value, node.perms.to_string()))
            })
            .collect();
        let expected: BTreeMap<String, (String, String)> = (self.nodes.iter())
            .map(|(path, entry)| (path.clone(), (entry.value.clone(), entry.perms.clone())))
            .collect();
        assert_eq!(held, expected);
        for path in self.nodes.keys() {
            assert_eq!(
                store.children(&path.parse().unwrap()).unwrap(),
                self.children(path),
                "children of {path}"
            );
        }
    }
}

impl Op {
    /// The path that is changed, if one is.
    pub(crate) fn changes(&self) -> Option<&str> {
        match self {
            Self::Read(_) | Self::Directory(_) | Self::GetPerms(_) => None,
            Self::Write(at, _) | Self::Mkdir(at) | Self::Rm(at) | Self::SetPerms(at, _) => Some(at),
        }
    }
}

pub(crate) fn above(at: &str) -> String {
    match at.rsplit_once('/') {
        Some(("", _)) | None => "/".into(),
        Some((above, _)) => above.into(),
    }
}

fn owner(perms: &str) -> u16 {
    perms.split(',').next().unwrap()[1..].parse().unwrap()
}

fn access(domid: u16, perms: &str) -> Access {
    let entries: Vec<(char, u16)> = perms
        .split(',')
        .map(|entry| (entry.chars().next().unwrap(), entry[1..].parse().unwrap()))
        .collect();
    if domid == 0 || entries[0].1 == domid {
        return Access::Both;
    }
    match entries[1..].iter().find(|entry| entry.1 == domid).unwrap_or(&entries[0]).0 {
        'n' => Access::None,
        'r' => Access::Read,
        'w' => Access::Write,
        _ => Access::Both,
    }
}
