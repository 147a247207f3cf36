//! Which CPU features a domain sees.

use super::field::{Field, Style, array, string, unsigned32, wrong_type};
use crate::finding::FindingKind;
use crate::json::{Object, Place, Value};
use crate::sink::Sink;

/// CPUID and MSR policy.
///
/// In JSON an object of two lists since Xen 4.18 and the updates of older releases; a bare list of leaves before.
/// What was read keeps its form; what is new is written as the bare list, which every release reads, unless there are
/// MSRs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuidPolicy {
    /// CPUID leaves.
    pub leaves: Vec<CpuidLeaf>,
    /// Model specific registers.
    pub msrs: Vec<MsrPolicy>,
}

/// One CPUID leaf. Each register is 32 characters, the highest bit first: `0`, `1`, or a letter libxl gives a meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuidLeaf {
    /// Value of EAX that selects the leaf.
    pub leaf: u32,
    /// Value of ECX, where the leaf has more than one part.
    pub subleaf: Option<u32>,
    /// Mask of EAX.
    pub eax: Option<String>,
    /// Mask of EBX.
    pub ebx: Option<String>,
    /// Mask of ECX.
    pub ecx: Option<String>,
    /// Mask of EDX.
    pub edx: Option<String>,
}

/// One model specific register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MsrPolicy {
    /// Number of the register.
    pub index: u32,
    /// Mask, 64 characters, the highest bit first.
    pub policy: Option<String>,
}

impl Field for CpuidPolicy {
    fn schema_type() -> String {
        "cpuid_policy_list".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<CpuidPolicy> {
        match raw {
            Value::Array(_) => {
                Some(CpuidPolicy { leaves: entries(raw, place, sink, leaf), msrs: Vec::new() })
            }
            Value::Object(object) => {
                let mut policy = CpuidPolicy::default();
                for member in object.members() {
                    let place = place.key(&member.key, member.at);
                    match &*member.key {
                        "cpuid" if policy.leaves.is_empty() => {
                            policy.leaves = entries(&member.value, &place, sink, leaf);
                        }
                        "msr" if policy.msrs.is_empty() => {
                            policy.msrs = entries(&member.value, &place, sink, msr);
                        }

                        "cpuid" | "msr" => sink.note(&place, FindingKind::DuplicateKey),
                        _ => sink.note(&place, FindingKind::UnknownKey),
                    }
                }
                Some(policy)
            }
            _ => wrong_type(raw, "an object or array", place, sink),
        }
    }

    fn emit(&self, raw: Option<&Value>, _style: Style) -> Value {
        let leaves: Value = self.leaves.iter().map(CpuidLeaf::to_value).collect();
        if self.msrs.is_empty() && !matches!(raw, Some(Value::Object(_))) {
            return leaves;
        }
        let msrs: Value = self.msrs.iter().map(MsrPolicy::to_value).collect();
        Object::from_iter([("cpuid", leaves), ("msr", msrs)]).into()
    }
}

impl CpuidLeaf {
    fn to_value(&self) -> Value {
        let mut object = Object::new();
        object.push("leaf", u64::from(self.leaf));
        if let Some(subleaf) = self.subleaf {
            object.push("subleaf", u64::from(subleaf));
        }
        for (name, mask) in
            [("eax", &self.eax), ("ebx", &self.ebx), ("ecx", &self.ecx), ("edx", &self.edx)]
        {
            if let Some(mask) = mask {
                object.push(name, mask.as_str());
            }
        }
        object.into()
    }
}

impl MsrPolicy {
    fn to_value(&self) -> Value {
        let mut object = Object::new();
        object.push("index", u64::from(self.index));
        if let Some(policy) = &self.policy {
            object.push("policy", policy.as_str());
        }
        object.into()
    }
}

/// The entries that are objects; the others are noted and left out.
fn entries<T>(
    raw: &Value,
    place: &Place<'_>,
    sink: &mut Sink,
    read: fn(&Object, &Place<'_>, &mut Sink) -> T,
) -> Vec<T> {
    let mut list = Vec::new();
    for (index, element) in array(raw, place, sink).unwrap_or_default().iter().enumerate() {
        if !sink.admit_struct() {
            break;
        }
        let place = place.index(index, element.offset().unwrap_or(place.offset));
        match element {
            Value::Object(object) => list.push(read(object, &place, sink)),
            _ => list.extend(wrong_type::<T>(element, "an object", &place, sink)),
        }
    }
    list
}

fn leaf(object: &Object, place: &Place<'_>, sink: &mut Sink) -> CpuidLeaf {
    let mut leaf = CpuidLeaf::default();
    for member in object.members() {
        let place = place.key(&member.key, member.at);
        match &*member.key {
            "leaf" => {
                leaf.leaf = unsigned32(&member.value, "u32", &place, sink).unwrap_or_default();
            }
            "subleaf" => leaf.subleaf = unsigned32(&member.value, "u32", &place, sink),
            "eax" => leaf.eax = mask(&member.value, &place, sink),
            "ebx" => leaf.ebx = mask(&member.value, &place, sink),
            "ecx" => leaf.ecx = mask(&member.value, &place, sink),
            "edx" => leaf.edx = mask(&member.value, &place, sink),
            _ => sink.note(&place, FindingKind::UnknownKey),
        }
    }
    leaf
}

fn msr(object: &Object, place: &Place<'_>, sink: &mut Sink) -> MsrPolicy {
    let mut msr = MsrPolicy::default();
    for member in object.members() {
        let place = place.key(&member.key, member.at);
        match &*member.key {
            "index" => {
                msr.index = unsigned32(&member.value, "u32", &place, sink).unwrap_or_default();
            }
            "policy" => msr.policy = mask(&member.value, &place, sink),
            _ => sink.note(&place, FindingKind::UnknownKey),
        }
    }
    msr
}

fn mask(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<String> {
    string(raw, place, sink).map(str::to_owned)
}
