//! What a record says: a list of fields, for people. For programs it is `xenstore_migration::json`.

use std::fmt::Write;

use xenstore_migration::json::{access_to_text, perms_to_text};
use xenstore_migration::{ConnectionData, ConnectionSpec, NodeScope, Quotas, Record, WatchDepth};
use xenstored::escape_value;
use xsclient::DomId;

use crate::commands::octets::hex;

/// The fields of a record with their names, in the order in which they are told.
pub(super) fn fields<'a>(record: &Record<'a>) -> Vec<(&'static str, Field<'a>)> {
    match *record {
        Record::Global(global) => vec![
            ("socket_fd", Field::told(global.socket_fd, "none")),
            ("event_channel_fd", Field::told(global.event_channel_fd, "none")),
        ],
        Record::Connection(connection) => of_connection(&connection),
        Record::Watch(watch) => vec![
            ("connection", Field::of(watch.connection.get())),
            ("path", Field::Name(watch.path)),
            ("token", Field::Octets(watch.token)),
        ],
        Record::WatchExtended(watch) => vec![
            ("connection", Field::of(watch.connection.get())),
            ("depth", depth(watch.depth)),
            ("path", Field::Name(watch.path)),
            ("token", Field::Octets(watch.token)),
        ],
        Record::Transaction(transaction) => vec![
            ("connection", Field::of(transaction.connection.get())),
            ("transaction", Field::of(transaction.transaction.0)),
        ],
        Record::Node(node) => {
            let mut fields = match node.scope {
                NodeScope::Committed => Vec::new(),
                NodeScope::Pending { connection, transaction, access } => vec![
                    ("connection", Field::of(connection.get())),
                    ("transaction", Field::of(transaction.0)),
                    ("access", Field::Word(access_to_text(access))),
                ],
            };
            fields.push(("path", Field::Name(node.path)));
            fields.push(("perms", Field::Word(perms_to_text(node.perms))));
            fields.push(("value", Field::Value(node.value)));
            fields
        }
        Record::GlobalQuota(quota) => vec![
            ("per_domain", Field::Quotas(quota.per_domain)),
            ("global", Field::Quotas(quota.global)),
        ],
        Record::Domain(domain) => vec![
            ("domid", Field::of(domain.domid.get())),
            ("features", Field::told(domain.features.map(|features| features.0), "untold")),
            ("quotas", Field::Quotas(domain.quotas)),
        ],
        Record::Unknown(unknown) => vec![("body", Field::Octets(unknown.body))],
    }
}

fn of_connection<'a>(connection: &ConnectionData<'a>) -> Vec<(&'static str, Field<'a>)> {
    let mut fields = vec![("connection", Field::of(connection.id.get()))];
    match connection.spec {
        ConnectionSpec::Ring { domid, target, port } => fields.extend([
            ("kind", Field::Word("ring".to_owned())),
            ("domid", Field::of(domid.get())),
            ("target", Field::told(target.map(DomId::get), "none")),
            ("port", Field::of(port)),
        ]),
        ConnectionSpec::Socket { fd } => {
            fields.extend([("kind", Field::Word("socket".to_owned())), ("fd", Field::of(fd))]);
        }
        ConnectionSpec::Unknown { kind, octets } => {
            fields.extend([("kind", Field::of(kind)), ("spec", Field::Word(hex(&octets)))])
        }
    }
    fields.extend([
        ("unique_id", Field::told(connection.unique_id, "none")),
        ("output_rest", Field::of(connection.output_rest)),
        ("input", Field::Octets(connection.input)),
        ("output", Field::Octets(connection.output)),
    ]);
    fields
}

/// What a field says.
#[derive(Clone, Debug)]
pub(super) enum Field<'a> {
    Number(i128),
    /// Our own words.
    Word(String),
    /// Nothing, and how people are told so.
    Absent(&'static str),
    /// A path, as it stands in the stream.
    Name(&'a [u8]),
    Octets(&'a [u8]),
    /// The value of a node. It is the last field, so that it can be printed as everywhere else, with quotes in it.
    Value(&'a [u8]),
    Quotas(Quotas<'a>),
}

impl Field<'_> {
    fn of(number: impl Into<i128>) -> Self {
        Self::Number(number.into())
    }

    fn told(number: Option<impl Into<i128>>, absent: &'static str) -> Self {
        number.map_or(Self::Absent(absent), Self::of)
    }

    /// For people: all on one line, and nothing in it that a terminal would obey.
    pub(super) fn in_words(&self, words: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Number(number) => write!(words, "{number}"),
            Self::Word(word) => words.write_str(word),
            Self::Absent(word) => words.write_str(word),
            Self::Name(name) => {
                escape(name, b" \"", words);
                Ok(())
            }
            Self::Octets(octets) => {
                words.push('"');
                escape(octets, b"\"", words);
                words.push('"');
                Ok(())
            }
            Self::Value(octets) => {
                words.push('"');
                escape_value(octets, words);
                words.push('"');
                Ok(())
            }
            Self::Quotas(quotas) if quotas.is_empty() => words.write_str("none"),
            Self::Quotas(quotas) => {
                for (number, (name, value)) in quotas.iter().enumerate() {
                    if number > 0 {
                        words.push(',');
                    }
                    escape(name, b" \",:", words);
                    let _ = write!(words, ":{value}");
                }
                Ok(())
            }
        };
    }
}

/// As [`escape_value`], and these octets too.
fn escape(octets: &[u8], also: &[u8], words: &mut String) {
    for &octet in octets {
        if also.contains(&octet) {
            // Writing to a String cannot fail.
            let _ = write!(words, "\\x{octet:02x}");
        } else {
            escape_value(&[octet], words);
        }
    }
}

fn depth(depth: WatchDepth) -> Field<'static> {
    match depth {
        WatchDepth::Levels(levels) => Field::of(levels),
        WatchDepth::Unlimited => Field::Word("unlimited".to_owned()),
        WatchDepth::Untold => Field::Absent("untold"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xenstore_migration::{NodeData, NodePerm, QuotaTable};
    use xsclient::Access;

    fn words(field: &Field<'_>) -> String {
        let mut words = String::new();
        field.in_words(&mut words);
        words
    }

    #[test]
    fn a_path_that_is_none_makes_no_other_fields() {
        assert_eq!(words(&Field::Name(b"/a perms=\"n0\"\x1b")), "/a\\x20perms=\\x22n0\\x22\\x1b");
        assert_eq!(words(&Field::Octets(b"t\" path=/b")), "\"t\\x22 path=/b\"");
        assert_eq!(words(&Field::Value(b"a\"b\n")), "\"a\"b\\n\"");
    }

    #[test]
    fn quotas_keep_their_order_and_their_doubles() {
        let mut table = QuotaTable::new();
        for (name, value) in [(&b"nodes"[..], 1), (b"a,b", 2), (b"nodes", 3)] {
            table.push(name, value).unwrap();
        }
        let quotas = Field::Quotas(table.quotas());
        assert_eq!(words(&quotas), "nodes:1,a\\x2cb:2,nodes:3");
        assert_eq!(words(&Field::Quotas(Quotas::NONE)), "none");
    }

    #[test]
    fn the_value_of_a_node_is_its_last_field() {
        let node = NodeData {
            scope: NodeScope::Committed,
            perms: &[NodePerm::new(Access::None, DomId::DOM0)],
            path: b"/a",
            value: b"v",
        };
        let fields = fields(&Record::Node(node));
        assert!(matches!(fields.last(), Some(("value", Field::Value(b"v")))));
    }
}
