//! GLOBAL_QUOTA_DATA and DOMAIN_DATA.

use std::fmt;

use xenstore_proto::{DomId, Features};

use crate::fields::{Body, BodyError, EncodeError, Fields, len_u16};
use crate::preamble::Version;

/// The quotas of a server, for a live update.
///
/// ```text
/// octet  0                2                 4
///        n-dom-quota u16  n-glob-quota u16  values u32 each, the per-domain ones first; names in the same order, NUL after each
/// ```
///
/// The two kinds are apart so that a server can pass on quotas it does not know: one that applies per domain belongs to
/// every new domain, and in the stream of every domain that moves to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalQuotaData<'a> {
    /// What every new domain starts with.
    pub per_domain: Quotas<'a>,
    /// What applies to the server as a whole.
    pub global: Quotas<'a>,
}

impl<'a> GlobalQuotaData<'a> {
    pub(super) fn decode(
        fields: &mut Fields<'a>,
        scratch: &'a mut Vec<u32>,
    ) -> Result<Self, BodyError> {
        let per_domain = fields.len("n-dom-quota")?;
        let global = fields.len("n-glob-quota")?;
        decode_values(per_domain + global, fields, scratch)?;
        let (first, second) = scratch.split_at(per_domain);
        Ok(Self {
            per_domain: Quotas::of_parts(first, decode_names(0, per_domain, fields)?),
            global: Quotas::of_parts(second, decode_names(per_domain, global, fields)?),
        })
    }

    pub(super) fn encode(&self, body: &mut Body<'_>) -> Result<(), EncodeError> {
        body.u16(len_u16(self.per_domain.len(), "per-domain quotas")?);
        body.u16(len_u16(self.global.len(), "global quotas")?);
        for quotas in [&self.per_domain, &self.global] {
            quotas.values.iter().for_each(|value| body.u32(*value));
        }
        body.octets(self.per_domain.names);
        body.octets(self.global.names);
        Ok(())
    }
}

/// Features and quotas of one domain.
///
/// ```text
/// octet  0          2            4             8
///        domid u16  n-quota u16  features u32  values u32 each; names in the same order, NUL after each
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainData<'a> {
    /// Which domain.
    pub domid: DomId,
    /// What the ring page offers the guest. Not told in version 1, where the field is zero.
    pub features: Option<Features>,
    /// Its quotas.
    pub quotas: Quotas<'a>,
}

impl<'a> DomainData<'a> {
    pub(super) fn decode(
        fields: &mut Fields<'a>,
        scratch: &'a mut Vec<u32>,
    ) -> Result<Self, BodyError> {
        let domid = DomId::new(fields.u16("domain-id")?);
        let quotas = fields.len("n-quota")?;
        let features = Features(fields.u32("features")?);
        decode_values(quotas, fields, scratch)?;
        let quotas = Quotas::of_parts(scratch, decode_names(0, quotas, fields)?);
        let features = if fields.version() >= Version::V2 {
            Some(features)
        } else {
            fields.ignored(features == Features::default());
            None
        };
        Ok(Self { domid, features, quotas })
    }

    pub(super) fn encode(&self, body: &mut Body<'_>) -> Result<(), EncodeError> {
        let features = self.features.filter(|_| body.version() >= Version::V2);
        body.u16(self.domid.get());
        body.u16(len_u16(self.quotas.len(), "quotas")?);
        body.u32(features.unwrap_or_default().0);
        self.quotas.values.iter().for_each(|value| body.u32(*value));
        body.octets(self.quotas.names);
        Ok(())
    }
}

fn decode_values(
    count: usize,
    fields: &mut Fields<'_>,
    scratch: &mut Vec<u32>,
) -> Result<(), BodyError> {
    scratch.clear();
    for _ in 0..count {
        scratch.push(fields.u32("quota-val")?);
    }
    Ok(())
}

/// So many names that each end in NUL. `before` are the ones before them in the record.
fn decode_names<'a>(
    before: usize,
    count: usize,
    fields: &mut Fields<'a>,
) -> Result<&'a [u8], BodyError> {
    let rest = &fields.body()[fields.at()..];
    let mut len = 0;
    for number in 0..count {
        let name = rest[len..].split(|octet| *octet == 0).next().unwrap_or_default();
        if name.is_empty() && len < rest.len() {
            return Err(BodyError::NoQuotaName { number: before + number });
        }
        if len + name.len() == rest.len() {
            let at = fields.at() + rest.len();
            return Err(BodyError::NotTerminated { field: "quota-names", at });
        }
        len += name.len() + 1;
    }
    fields.octets(len, "quota-names")
}

/// Quotas in the order of a record: names, and values of which 0 means unlimited. At most 65535.
#[derive(Clone, Copy, Default)]
pub struct Quotas<'a> {
    values: &'a [u32],
    /// As many names as values, each with its NUL.
    names: &'a [u8],
}

impl<'a> Quotas<'a> {
    /// No quotas.
    pub const NONE: Self = Self { values: &[], names: &[] };

    /// The caller knows that `names` holds as many NULs as there are values, the last of them at its end.
    const fn of_parts(values: &'a [u32], names: &'a [u8]) -> Self {
        Self { values, names }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Each name, without its NUL, with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], u32)> + use<'a> {
        self.names.split(|octet| *octet == 0).zip(self.values.iter().copied())
    }
}

impl PartialEq for Quotas<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values && self.names == other.names
    }
}

impl Eq for Quotas<'_> {}

impl fmt::Debug for Quotas<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |(name, value)| (String::from_utf8_lossy(name).into_owned(), value);
        f.debug_map().entries(self.iter().map(named)).finish()
    }
}

/// Quotas for a record to be written: what [`Quotas`] borrows from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaTable {
    values: Vec<u32>,
    names: Vec<u8>,
}

impl QuotaTable {
    /// An empty table.
    pub const fn new() -> Self {
        Self { values: Vec::new(), names: Vec::new() }
    }

    /// Adds a quota; 0 means unlimited.
    ///
    /// # Errors
    ///
    /// If the name is empty or holds a NUL, so that no record can carry it.
    pub fn push(&mut self, name: &[u8], value: u32) -> Result<(), QuotaTableError> {
        if name.is_empty() || name.contains(&0) {
            return Err(QuotaTableError);
        }
        self.values.push(value);
        self.names.extend_from_slice(name);
        self.names.push(0);
        Ok(())
    }

    /// The quotas as records hold them.
    pub fn quotas(&self) -> Quotas<'_> {
        Quotas::of_parts(&self.values, &self.names)
    }
}

/// A name of a quota that no record can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a quota is empty or holds a NUL")]
pub struct QuotaTableError;
