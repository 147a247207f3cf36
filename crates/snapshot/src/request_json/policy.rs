//! Restore policies in JSON: by name, or rule by rule.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xenstore_migration::domain_state::{NodePattern, Owner, RestorePolicy, RestoreRule, Treatment};

/// `"cooperative"`, or`{ "rules": { "list": [{ "pattern": "data/**", "owner": "guest", "treatment": "merge" }], "attachments": false } }`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PolicyWire {
    Nothing,
    Cooperative,
    Exact,
    Rules(Rules),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    /// The first that names a node decides.
    list: Vec<RuleWire>,
    /// Whether watches, transactions, quotas and features are wanted.
    #[serde(default)]
    attachments: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleWire {
    #[serde(serialize_with = "pattern_text", deserialize_with = "pattern")]
    pattern: NodePattern,
    owner: OwnerWire,
    treatment: TreatmentWire,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OwnerWire {
    Guest,
    Anybody,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum TreatmentWire {
    Leave,
    Merge,
    Replace,
}

fn pattern_text<S: Serializer>(pattern: &NodePattern, to: S) -> Result<S::Ok, S::Error> {
    pattern.as_str().serialize(to)
}

fn pattern<'de, D: Deserializer<'de>>(from: D) -> Result<NodePattern, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

impl From<PolicyWire> for RestorePolicy {
    fn from(wire: PolicyWire) -> Self {
        match wire {
            PolicyWire::Nothing => Self::nothing(),
            PolicyWire::Cooperative => Self::cooperative(),
            PolicyWire::Exact => Self::exact(),
            PolicyWire::Rules(Rules { list, attachments }) => {
                let rules = list.into_iter().map(|RuleWire { pattern, owner, treatment }| {
                    let owner = match owner {
                        OwnerWire::Guest => Owner::Guest,
                        OwnerWire::Anybody => Owner::Anybody,
                    };
                    let treatment = match treatment {
                        TreatmentWire::Leave => Treatment::Leave,
                        TreatmentWire::Merge => Treatment::Merge,
                        TreatmentWire::Replace => Treatment::Replace,
                    };
                    RestoreRule { pattern, owner, treatment }
                });
                rules.fold(Self::nothing().with_attachments(attachments), Self::after)
            }
        }
    }
}

impl From<&RestorePolicy> for PolicyWire {
    fn from(policy: &RestorePolicy) -> Self {
        let named = [Self::Nothing, Self::Cooperative, Self::Exact];
        let known = named.into_iter().find(|wire| RestorePolicy::from(wire.clone()) == *policy);
        known.unwrap_or_else(|| {
            let list = policy.rules().iter().map(|RestoreRule { pattern, owner, treatment }| {
                let owner = match owner {
                    Owner::Guest => OwnerWire::Guest,
                    Owner::Anybody => OwnerWire::Anybody,
                };
                let treatment = match treatment {
                    Treatment::Leave => TreatmentWire::Leave,
                    Treatment::Merge => TreatmentWire::Merge,
                    Treatment::Replace => TreatmentWire::Replace,
                };
                RuleWire { pattern: pattern.clone(), owner, treatment }
            });
            Self::Rules(Rules { list: list.collect(), attachments: policy.wants_attachments() })
        })
    }
}
