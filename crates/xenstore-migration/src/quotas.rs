//! The quotas of a server: those it acts on, and those it only hands on.

use std::collections::BTreeMap;

use xenstore_proto::QuotaName;

use crate::record::{DomainData, GlobalQuotaData, QuotaTable, Quotas};

/// The quotas of a server, by name; 0 means unlimited. What the server does not know itself is among them.
///
/// A server that is updated to an older one, or to another implementation, and back, must not lose the quotas that the
/// one in between does not know. So each keeps what it was told: a quota that applies per domain belongs to every domain
/// made meanwhile ([`ServerQuotas::of_new_domain`]) and to the stream of every domain that moves on
/// ([`ServerQuotas::complete`]); one that applies globally, to the next live update.
///
/// ```
/// use xenstore_migration::ServerQuotas;
///
/// let mut quotas = ServerQuotas::default();
/// quotas.per_domain.insert("nodes".parse()?, 1000);
/// let told = ServerQuotas {
///     per_domain: [("nodes".parse()?, 500), ("new".parse()?, 7)].into(),
///     global: [("clients".parse()?, 9)].into(),
/// };
/// quotas.take_over(&told);
/// assert_eq!(quotas, told);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerQuotas {
    /// What every new domain starts with.
    pub per_domain: BTreeMap<QuotaName, u32>,
    /// What applies to the server as a whole.
    pub global: BTreeMap<QuotaName, u32>,
}

impl ServerQuotas {
    /// What a record says.
    ///
    /// # Errors
    ///
    /// If a name is none, or comes twice.
    pub fn from_record(record: &GlobalQuotaData<'_>) -> Result<Self, QuotasError> {
        let (per_domain, global) = (by_name(&record.per_domain)?, by_name(&record.global)?);
        if let Some(name) = per_domain.keys().find(|name| global.contains_key(*name)) {
            return Err(QuotasError::Repeated { name: name.clone() });
        }
        Ok(Self { per_domain, global })
    }

    /// The two tables of a record: per domain, and global.
    pub fn to_tables(&self) -> (QuotaTable, QuotaTable) {
        (to_table(&self.per_domain), to_table(&self.global))
    }

    /// Takes over what another server has told: its values for what it names, whether known here or not. What it does not
    /// name stays.
    ///
    /// A name that has changed its kind is of the kind told last.
    pub fn take_over(&mut self, told: &Self) {
        for name in told.per_domain.keys() {
            self.global.remove(name);
        }
        for name in told.global.keys() {
            self.per_domain.remove(name);
        }
        self.per_domain.extend(told.per_domain.iter().map(|(name, value)| (name.clone(), *value)));
        self.global.extend(told.global.iter().map(|(name, value)| (name.clone(), *value)));
    }

    /// The quotas of a domain that is made now.
    pub fn of_new_domain(&self) -> BTreeMap<QuotaName, u32> {
        self.per_domain.clone()
    }

    /// Gives a domain what applies per domain and was never told for it.
    pub fn complete(&self, domain: &mut BTreeMap<QuotaName, u32>) {
        for (name, value) in &self.per_domain {
            domain.entry(name.clone()).or_insert(*value);
        }
    }
}

impl DomainData<'_> {
    /// The quotas by name.
    ///
    /// # Errors
    ///
    /// If a name is none, or comes twice.
    pub fn quotas_by_name(&self) -> Result<BTreeMap<QuotaName, u32>, QuotasError> {
        by_name(&self.quotas)
    }
}

impl QuotaTable {
    /// The quotas of a domain, for its record.
    pub fn of_domain(quotas: &BTreeMap<QuotaName, u32>) -> Self {
        to_table(quotas)
    }
}

fn by_name(quotas: &Quotas<'_>) -> Result<BTreeMap<QuotaName, u32>, QuotasError> {
    let mut found = BTreeMap::new();
    for (octets, value) in quotas.iter() {
        let name = QuotaName::from_octets(octets)
            .map_err(|_| QuotasError::Name { name: octets.into() })?;
        if found.insert(name.clone(), value).is_some() {
            return Err(QuotasError::Repeated { name });
        }
    }
    Ok(found)
}

fn to_table(quotas: &BTreeMap<QuotaName, u32>) -> QuotaTable {
    let mut table = QuotaTable::new();
    for (name, value) in quotas {
        table
            .push(name.as_str().as_bytes(), *value)
            .expect("a QuotaName is neither empty nor has it a NUL");
    }
    table
}

/// Why the quotas of a record are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuotasError {
    /// A name that is none.
    #[error("{} is no name of a quota", name.escape_ascii())]
    Name {
        /// As it stands in the record.
        name: Box<[u8]>,
    },
    /// Two values for one name.
    #[error("quota {name} comes twice")]
    Repeated {
        /// The name.
        name: QuotaName,
    },
}

#[cfg(test)]
mod tests {
    use xenstore_proto::DomId;

    use super::*;

    fn quotas(quotas: &[(&str, u32)]) -> BTreeMap<QuotaName, u32> {
        let parsed = quotas.iter().map(|(name, value)| (name.parse().unwrap(), *value));
        parsed.collect()
    }

    /// What another server reads of what this one writes.
    fn handed_on(server: &ServerQuotas) -> ServerQuotas {
        let (per_domain, global) = server.to_tables();
        let record = GlobalQuotaData { per_domain: per_domain.quotas(), global: global.quotas() };
        ServerQuotas::from_record(&record).unwrap()
    }

    #[test]
    fn quotas_that_the_server_in_between_does_not_know_come_back() {
        let a = ServerQuotas {
            per_domain: quotas(&[("nodes", 1000), ("d", 5)]),
            global: quotas(&[("g", 6)]),
        };
        let old_domain = quotas(&[("nodes", 2000), ("d", 50)]);

        // B knows neither d nor g, and has a quota of its own.
        let mut b =
            ServerQuotas { per_domain: quotas(&[("nodes", 1), ("b", 8)]), ..Default::default() };
        b.take_over(&handed_on(&a));
        let new_domain = b.of_new_domain();
        assert_eq!(new_domain, quotas(&[("nodes", 1000), ("d", 5), ("b", 8)]));
        let mut moved = old_domain.clone();
        b.complete(&mut moved);
        assert_eq!(moved, quotas(&[("nodes", 2000), ("d", 50), ("b", 8)]));

        // Back to A: nothing of A's is lost, and B's is kept.
        let mut back = a.clone();
        back.take_over(&handed_on(&b));
        assert_eq!(back.global, a.global);
        assert_eq!(back.per_domain, quotas(&[("nodes", 1000), ("d", 5), ("b", 8)]));
        let table = QuotaTable::of_domain(&new_domain);
        let record = DomainData { domid: DomId::new(7), features: None, quotas: table.quotas() };
        assert_eq!(record.quotas_by_name(), Ok(new_domain));
    }

    #[test]
    fn a_quota_that_changes_its_kind_has_one() {
        let mut server = ServerQuotas { per_domain: quotas(&[("q", 1)]), ..Default::default() };
        server.take_over(&ServerQuotas { global: quotas(&[("q", 2)]), ..Default::default() });
        assert_eq!((server.per_domain.len(), &server.global), (0, &quotas(&[("q", 2)])));
    }

    #[test]
    fn names_that_are_none_or_come_twice_are_refused() {
        let record = |names: &[&[u8]]| {
            let mut table = QuotaTable::new();
            names.iter().for_each(|name| table.push(name, 1).unwrap());
            let record =
                DomainData { domid: DomId::new(7), features: None, quotas: table.quotas() };
            record.quotas_by_name().unwrap_err().to_string()
        };
        assert_eq!(record(&[b"a\xff"]), "a\\xff is no name of a quota");
        assert_eq!(record(&[b"a", b"a"]), "quota a comes twice");
        let mut table = QuotaTable::new();
        table.push(b"a", 1).unwrap();
        let both = GlobalQuotaData { per_domain: table.quotas(), global: table.quotas() };
        assert!(ServerQuotas::from_record(&both).is_err());
    }
}
