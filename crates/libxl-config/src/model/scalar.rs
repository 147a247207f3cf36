//! Plain types of the schema that are more than a number or a string.

use std::fmt;

use uuid::Uuid;

use super::field::{
    Field, Style, array, in_range, integer, lexeme, string, unsigned32, wrong_type,
};
use crate::finding::FindingKind;
use crate::json::{Object, Place, Value, shorten};
use crate::sink::Sink;

/// A boolean that may be left to libxl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DefBool {
    /// libxl decides.
    #[default]
    Default,
    /// Yes.
    True,
    /// No.
    False,
}

impl DefBool {
    const ALL: [DefBool; 3] = [DefBool::Default, DefBool::True, DefBool::False];

    /// As libxl spells it: `<default>`, `True` or `False`.
    pub fn name(self) -> &'static str {
        match self {
            DefBool::Default => "<default>",
            DefBool::True => "True",
            DefBool::False => "False",
        }
    }

    /// The value, or `otherwise` where it is left to libxl.
    pub fn unwrap_or(self, otherwise: bool) -> bool {
        match self {
            DefBool::Default => otherwise,
            DefBool::True => true,
            DefBool::False => false,
        }
    }
}

impl From<bool> for DefBool {
    fn from(value: bool) -> DefBool {
        if value { DefBool::True } else { DefBool::False }
    }
}

impl fmt::Display for DefBool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// libxl compares only as many letters as the name has.
impl Field for DefBool {
    fn schema_type() -> String {
        "defbool".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<DefBool> {
        let text = string(raw, place, sink)?;
        let found = DefBool::ALL.into_iter().find(|value| text.starts_with(value.name()));
        match found {
            None => sink.note(place, FindingKind::BadDefBool { text: shorten(text) }),
            Some(value) if value.name() != text => {
                sink.note(place, FindingKind::DefBoolPrefix { text: shorten(text) });
            }
            Some(_) => {}
        }
        found
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        self.name().into()
    }
}

/// An amount of memory in KiB, or none given (~0 in libxl). 0 KiB is an amount, and is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemKb(u64);

impl MemKb {
    /// None given: libxl decides.
    pub const UNSET: MemKb = MemKb(u64::MAX);

    /// That many KiB; `u64::MAX` is [`MemKb::UNSET`], as in libxl.
    pub const fn new(kib: u64) -> MemKb {
        MemKb(kib)
    }

    /// The amount in KiB, if one is given.
    pub const fn get(self) -> Option<u64> {
        if self.0 == u64::MAX { None } else { Some(self.0) }
    }
}

impl Default for MemKb {
    fn default() -> MemKb {
        MemKb::UNSET
    }
}

impl fmt::Debug for MemKb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(kib) => write!(f, "MemKb({kib})"),
            None => f.write_str("MemKb::UNSET"),
        }
    }
}

impl Field for MemKb {
    fn schema_type() -> String {
        "u64".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<MemKb> {
        u64::parse(raw, place, sink).map(MemKb)
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        self.0.into()
    }
}

/// The number of a device within its class, or -1: libxl chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevId(i32);

impl DevId {
    /// Not chosen yet.
    pub const UNSET: DevId = DevId(-1);

    /// That number; -1 is [`DevId::UNSET`].
    pub const fn new(devid: i32) -> DevId {
        DevId(devid)
    }

    /// The number, if one was chosen.
    pub const fn get(self) -> Option<i32> {
        if self.0 == -1 { None } else { Some(self.0) }
    }
}

impl Default for DevId {
    fn default() -> DevId {
        DevId::UNSET
    }
}

impl fmt::Display for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Field for DevId {
    fn schema_type() -> String {
        "devid".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<DevId> {
        let value = integer(raw, place, sink)?;
        in_range(i32::try_from(value).ok(), "devid", raw, place, sink).map(DevId)
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        i64::from(self.0).into()
    }
}

/// A domid as configurations hold it: 32 bits, with two values that are no domain's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigDomid(u32);

impl ConfigDomid {
    /// Dom0, and the value that is not written.
    pub const DOM0: ConfigDomid = ConfigDomid(0);
    /// None: create under any free one.
    pub const INVALID: ConfigDomid = ConfigDomid(u32::MAX);
    /// Create under a random free one.
    pub const RANDOM: ConfigDomid = ConfigDomid(u32::MAX - 1);

    /// That number.
    pub const fn new(domid: u32) -> ConfigDomid {
        ConfigDomid(domid)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ConfigDomid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Field for ConfigDomid {
    fn schema_type() -> String {
        "domid".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<ConfigDomid> {
        unsigned32(raw, "domid", place, sink).map(ConfigDomid)
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        u64::from(self.0).into()
    }
}

/// Five groups of hexadecimal digits; nil stands for unset.
impl Field for Uuid {
    fn schema_type() -> String {
        "uuid".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<Uuid> {
        let text = string(raw, place, sink)?;
        let uuid = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
        note_text("uuid", text, uuid.map(|uuid| uuid.to_string()), place, sink);
        uuid
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        self.to_string().into()
    }
}

/// A MAC address; all zero stands for unset.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Unset.
    pub const UNSET: Mac = Mac([0; 6]);

    /// From its octets.
    pub const fn new(octets: [u8; 6]) -> Mac {
        Mac(octets)
    }

    /// Its octets.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// From six pairs of hexadecimal digits with colons between, as libxl reads it.
    pub fn parse_text(text: &str) -> Option<Mac> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|d| d.is_ascii_hexdigit()))?;
            *octet = u8::from_str_radix(pair, 16).ok()?;
        }
        if pairs.next().is_none() { Some(Mac(octets)) } else { None }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl Field for Mac {
    fn schema_type() -> String {
        "mac".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<Mac> {
        let text = string(raw, place, sink)?;
        let mac = Mac::parse_text(text);
        note_text("mac", text, mac.map(|mac| mac.to_string()), place, sink);
        mac
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        self.to_string().into()
    }
}

/// Text that is no value, or is one written otherwise than libxl would.
fn note_text(
    expected: &'static str,
    text: &str,
    canonical: Option<String>,
    place: &Place<'_>,
    sink: &mut Sink,
) {
    match canonical {
        None => sink.note(place, FindingKind::BadText { expected, text: shorten(text) }),
        Some(canonical) if canonical != text => {
            sink.note(place, FindingKind::TextCase { canonical });
        }
        Some(_) => {}
    }
}

/// A list of strings.
pub type StringList = Vec<String>;

/// Keys with values, each of which may be missing, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyValueList(pub Vec<(String, Option<String>)>);

impl KeyValueList {
    /// The value of the first pair with that key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key)?.1.as_deref()
    }

    /// Sets the value of the first pair with that key, or adds one.
    pub fn insert(&mut self, key: &str, value: &str) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, slot)) => *slot = Some(value.to_owned()),
            None => self.0.push((key.to_owned(), Some(value.to_owned()))),
        }
    }
}

/// An object of strings and nulls.
impl Field for KeyValueList {
    fn schema_type() -> String {
        "key_value_list".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<KeyValueList> {
        let Value::Object(object) = raw else {
            return wrong_type(raw, "an object", place, sink);
        };
        let mut pairs = Vec::with_capacity(object.len());
        for member in object.members() {
            let value = match &member.value {
                Value::String(text) => Some(text.to_string()),
                Value::Null => None,
                other => {
                    let kind = FindingKind::WrongElement {
                        expected: "a string or null",
                        found: other.type_name(),
                    };
                    sink.note(&place.key(&member.key, member.at), kind);
                    continue;
                }
            };
            pairs.push((member.key.to_string(), value));
        }
        Some(KeyValueList(pairs))
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        let mut object = Object::new();
        for (key, value) in &self.0 {
            object.push(key.as_str(), value.as_deref().map_or(Value::Null, Value::from));
        }
        object.into()
    }
}

/// A Windows generation id; all zero stands for unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VmGenId(pub [u8; 16]);

/// Sixteen integers.
impl Field for VmGenId {
    fn schema_type() -> String {
        "ms_vm_genid".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<VmGenId> {
        let elements = array(raw, place, sink)?;
        if elements.len() != 16 {
            sink.note(place, FindingKind::GenIdLength { count: elements.len() });
        }
        let mut id = VmGenId::default();
        for (index, (element, octet)) in elements.iter().zip(&mut id.0).enumerate() {
            let place = place.index(index, place.offset);
            let value = integer(element, &place, sink)?;
            *octet = u8::try_from(value & 0xff).unwrap_or_default();
            if i128::from(*octet) != value {
                sink.note(&place, FindingKind::GenIdRange { lexeme: lexeme(element) });
            }
        }
        if elements.len() < 16 { None } else { Some(id) }
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        self.0.iter().map(|octet| Value::from(u64::from(*octet))).collect()
    }
}
