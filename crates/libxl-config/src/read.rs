//! Reading a configuration: the text, the fields, and what only shows when they are seen together.

use crate::finding::{Finding, FindingKind};
use crate::json::{self, Object, Place, Value};
use crate::model::field::Field;
use crate::model::{BuildKind, DomainConfig};
use crate::read_error::ReadError;
use crate::sink::Sink;

/// How much a read puts up with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Any deviation is an error that carries all of them.
    Strict,
    /// What libxl reads, and what libxl writes but cannot read, is read; deviations are findings beside the result.
    #[default]
    Lenient,
}

/// How many structs a configuration may hold. Each takes up to 1.5 KiB, however short its text (`0,` in a list of
/// devices is one to libxl); the largest honest configurations have a few thousand devices. libxl has no limit of its
/// own.
pub const MAX_STRUCTS: usize = 1 << 16;

/// A configuration that was read, and what there is to say about its text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadConfig {
    /// The configuration.
    pub config: DomainConfig,
    /// Deviations and notes, in the order of the text. In strict mode there are only notes.
    pub findings: Vec<Finding>,
}

impl DomainConfig {
    /// Reads a configuration as libxl stores it (with a NUL at the end) or as `xl create -n` prints it (without).
    ///
    /// # Errors
    /// [`ReadError`]; in [`Mode::Lenient`] only for what is no JSON by either of libxl's readers, or beyond this
    /// crate's limits.
    pub fn read(text: &[u8], mode: Mode) -> Result<ReadConfig, ReadError> {
        read(text, mode, false)
    }

    /// Reads a file of libxl's userdata store, which must end in NUL.
    ///
    /// # Errors
    /// As [`DomainConfig::read`]; without the NUL, strict mode refuses the file, as libxl does.
    pub fn read_userdata(text: &[u8], mode: Mode) -> Result<ReadConfig, ReadError> {
        read(text, mode, true)
    }

    /// Reads a configuration from a document, such as a `config` in the output of `xl list -l`.
    ///
    /// Findings have no position.
    ///
    /// # Errors
    /// [`ReadError::TooManyStructs`], and [`ReadError::Deviations`] in strict mode.
    pub fn read_value(value: &Value, mode: Mode) -> Result<ReadConfig, ReadError> {
        let mut sink = Sink::collecting();
        let config = from_document(value, &mut sink);
        finish(config, sink, None, mode)
    }
}

fn read(text: &[u8], mode: Mode, stored: bool) -> Result<ReadConfig, ReadError> {
    let mut sink = Sink::collecting();
    let value = json::parse_into(text, &mut sink)?;
    if stored && text.last() != Some(&0) {
        let end = Place::root().at(u32::try_from(text.len()).unwrap_or(u32::MAX));
        sink.note(&end, FindingKind::MissingNul);
    }
    let config = from_document(&value, &mut sink);
    finish(config, sink, Some(text), mode)
}

fn finish(
    config: DomainConfig,
    sink: Sink,
    text: Option<&[u8]>,
    mode: Mode,
) -> Result<ReadConfig, ReadError> {
    let findings = sink.finish_records(text)?;
    if mode == Mode::Strict && findings.iter().any(Finding::is_deviation) {
        return Err(ReadError::Deviations { findings });
    }
    Ok(ReadConfig { config, findings })
}

fn from_document(value: &Value, sink: &mut Sink) -> DomainConfig {
    let root = Place::root();
    let config = DomainConfig::parse(value, &root, sink).unwrap_or_default();
    if let Value::Object(object) = value {
        check_kind(&config, object, sink);
        check_deprecated(&config, object, sink);
    }
    config
}

/// `c_info.type` and the variant in `b_info` say the same thing twice.
fn check_kind(config: &DomainConfig, object: &Object, sink: &mut Sink) {
    let (c_info, b_info) = (&config.c_info.domain_type, config.b_info.kind.name());
    if c_info.name() != b_info {
        let kind = FindingKind::TypeDisagrees { c_info: json::shorten(c_info.name()), b_info };
        note_at(object, &["c_info", "type"], kind, sink);
    }
}

/// Fields that have moved out of the variants: what was set in the old place, and whether the new one agrees.
fn check_deprecated(config: &DomainConfig, object: &Object, sink: &mut Sink) {
    let b_info = &config.b_info;
    macro_rules! check {
        ($variant:literal, $old:expr; $($field:ident),*) => { $(
            let instead = concat!("b_info.", stringify!($field));
            if let Some(kind) = deprecated(&$old.$field, &b_info.$field, instead) {
                note_at(object, &["b_info", $variant, stringify!($field)], kind, sink);
            }
        )* };
    }
    match &b_info.kind {
        BuildKind::Hvm(hvm) => {
            check!("type.hvm", hvm; apic, timer_mode, nested_hvm);
        }
        BuildKind::Pv(pv) => {
            check!("type.pv", pv; kernel, bootloader, bootloader_args, cmdline, ramdisk);
        }
        BuildKind::Invalid | BuildKind::Pvh(_) => {}
    }
}

fn deprecated<T: Default + PartialEq>(
    old: &T,
    new: &T,
    instead: &'static str,
) -> Option<FindingKind> {
    let unset = T::default();
    if *old == unset {
        None
    } else if *new != unset && new != old {
        Some(FindingKind::DeprecatedDisagrees { instead })
    } else {
        Some(FindingKind::Deprecated { instead })
    }
}

/// Notes something at the member these keys lead to, or as far as they lead.
fn note_at(object: &Object, keys: &[&str], kind: FindingKind, sink: &mut Sink) {
    fn walk(
        object: Option<&Object>,
        place: &Place<'_>,
        keys: &[&str],
        kind: FindingKind,
        sink: &mut Sink,
    ) {
        let Some((key, rest)) = keys.split_first() else {
            return sink.note(place, kind);
        };
        let member =
            object.and_then(|object| object.members().iter().find(|member| *member.key == **key));
        let place = place.key(key, member.map_or(place.offset, |member| member.at));
        walk(member.and_then(|member| member.value.as_object()), &place, rest, kind, sink);
    }
    walk(Some(object), &Place::root(), keys, kind, sink);
}
