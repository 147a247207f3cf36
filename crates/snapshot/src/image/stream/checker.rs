//! What a stream has to be beyond its framing.

use std::io::Read;

use super::record::{LibxcBody, LibxlBody};
use super::{
    Content, DomainHeader, Event, GuestType, ImageHeader, ImageVersion, LibxcRecord, LibxcType,
    LibxlRecord, LibxlType, PageEntry, Part, Place, Start, StreamError, StreamFailure,
    StreamReader,
};
use crate::image::limits::Limits;

/// Reads a saved domain and refuses what is none, record by record.
///
/// Beyond what [`StreamReader`] sees to: bodies are what their types say, padding is zero, records come in the order that
/// libxc needs, as often as they may and only in the kind of guest that has them, pages are within the guest's memory, and
/// nothing belongs to a stream of checkpoints. Unknown optional records are let through.
#[derive(Debug)]
pub struct CheckedReader<R> {
    reader: StreamReader<R>,
    checker: Checker,
}

/// What there is in a stream, so far or in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSummary {
    /// What it starts with.
    pub start: Option<Start>,
    /// Octets.
    pub len: u64,
    /// The kind of guest, and the Xen that saved it.
    pub domain: Option<DomainHeader>,
    /// Version of the libxc image.
    pub image: Option<ImageHeader>,
    /// Octets of the configuration in an xl header.
    pub configuration_len: u64,
    /// Records of libxl.
    pub libxl_records: u64,
    /// Records of libxc.
    pub libxc_records: u64,
    /// Records of either that are optional and of a type not known; libxl itself refuses such.
    pub unknown_records: u64,
    /// Pages that have content.
    pub pages: u64,
    /// Pages that are told of and have none.
    pub empty_entries: u64,
    /// One more than the highest number of a page.
    pub pfn_end: u64,
}

impl<R: Read> CheckedReader<R> {
    /// A reader; nothing is read yet.
    pub fn new(input: R, limits: Limits) -> Self {
        Self::of(StreamReader::new(input, limits), limits)
    }

    pub(crate) fn of(reader: StreamReader<R>, limits: Limits) -> Self {
        Self { reader, checker: Checker::new(limits) }
    }

    /// The next piece; `None` behind the end.
    ///
    /// # Errors
    ///
    /// If the stream is cut, or anything in it is not what it has to be. There is nothing more to be had after that.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, StreamError> {
        if self.checker.broken {
            let place = Place { part: Part::Start, offset: self.reader.position() };
            return Err(StreamError::new(place, StreamFailure::AfterError));
        }
        let Some(event) = self.reader.next_event()? else { return Ok(None) };
        self.checker.check(&event)?;
        Ok(Some(event))
    }

    /// What there was in the events given so far.
    pub fn summary(&self) -> StreamSummary {
        StreamSummary { start: self.reader.start(), ..self.checker.summary }
    }

    /// The input, which stands behind the stream if all events have been read.
    pub fn into_inner(self) -> R {
        self.reader.into_inner()
    }
}

/// What has been seen of the current image, and which is needed to judge what comes.
#[derive(Debug, Default)]
struct Seen {
    libxc_context: bool,
    pv_info: bool,
    frames: bool,
    static_data_end: bool,
    shared_info: bool,
    tsc_info: bool,
    pages: bool,
}

#[derive(Debug)]
struct Checker {
    limits: Limits,
    summary: StreamSummary,
    seen: Seen,
    /// The highest number that a page can have.
    pfn_max: u64,
    broken: bool,
}

impl Checker {
    fn new(limits: Limits) -> Self {
        let pfn_max = limits.pfn_max;
        let (summary, seen) = (StreamSummary::default(), Seen::default());
        Self { limits, summary, seen, pfn_max, broken: false }
    }

    fn check(&mut self, event: &Event<'_>) -> Result<(), StreamError> {
        let checked = self.event(event);
        self.broken = checked.is_err();
        checked.map_err(|failure| StreamError::new(event.place, failure))
    }

    fn event(&mut self, event: &Event<'_>) -> Result<(), StreamFailure> {
        self.summary.len += event.raw.len() as u64;
        if self.summary.len > self.limits.stream_max {
            return Err(StreamFailure::StreamTooLong { max: self.limits.stream_max });
        }
        match &event.content {
            Content::XlHeader(header) => {
                let configuration = header.configuration()?.unwrap_or_default();
                self.summary.configuration_len = configuration.len() as u64;
                Ok(())
            }
            Content::LibxlHeader(_) => Ok(()),
            Content::LibxlRecord(record) => {
                padding_is_zero(event.raw, record.body.len())?;
                self.libxl_record(record)
            }
            Content::ImageHeader(header) => {
                self.summary.image = Some(*header);
                Ok(())
            }
            Content::DomainHeader(header) => {
                self.summary.domain = Some(*header);
                Ok(())
            }
            Content::LibxcRecord(record) => {
                padding_is_zero(event.raw, record.body.len())?;
                self.libxc_record(record)
            }
            Content::PageBatch(entries) => self.page_batch(entries),
            Content::Pages { .. } => Ok(()),
        }
    }

    fn libxl_record(&mut self, record: &LibxlRecord<'_>) -> Result<(), StreamFailure> {
        self.summary.libxl_records += 1;
        match record.decode()? {
            LibxlBody::LibxcContext => once(&mut self.seen.libxc_context),
            LibxlBody::End
            | LibxlBody::EmulatorXenstoreData { .. }
            | LibxlBody::EmulatorContext { .. } => {
                needs(self.seen.libxc_context, LibxlType::LIBXC_CONTEXT.name())
            }
            LibxlBody::CheckpointEnd | LibxlBody::CheckpointState { .. } => {
                Err(StreamFailure::Checkpoint)
            }
            LibxlBody::Unknown => {
                self.summary.unknown_records += 1;
                Ok(())
            }
        }
    }

    fn libxc_record(&mut self, record: &LibxcRecord<'_>) -> Result<(), StreamFailure> {
        self.summary.libxc_records += 1;
        match record.decode()? {
            LibxcBody::X86PvInfo { .. } => {
                self.only(GuestType::X86Pv)?;
                once(&mut self.seen.pv_info)
            }
            LibxcBody::X86PvP2mFrames { end, .. } => {
                self.only(GuestType::X86Pv)?;
                needs(self.seen.pv_info, LibxcType::X86_PV_INFO.name())?;
                self.static_data_ended()?;
                if self.seen.pages {
                    return Err(StreamFailure::After { other: "PAGE_DATA" });
                }
                once(&mut self.seen.frames)?;
                let (pfn, max) = (u64::from(end), self.limits.pfn_max);
                if pfn > max {
                    return Err(StreamFailure::PfnBeyond { pfn, max });
                }
                self.pfn_max = pfn;
                Ok(())
            }
            LibxcBody::X86PvVcpu { .. } => {
                self.only(GuestType::X86Pv)?;
                needs(self.seen.pv_info, LibxcType::X86_PV_INFO.name())?;
                self.static_data_ended()
            }
            LibxcBody::SharedInfo { .. } => {
                self.only(GuestType::X86Pv)?;
                self.static_data_ended()?;
                once(&mut self.seen.shared_info)
            }
            LibxcBody::X86TscInfo { .. } => {
                self.static_data_ended()?;
                once(&mut self.seen.tsc_info)
            }
            LibxcBody::HvmContext { .. } | LibxcBody::HvmParams { .. } => {
                self.only(GuestType::X86Hvm)?;
                self.static_data_ended()
            }
            LibxcBody::StaticDataEnd => once(&mut self.seen.static_data_end),
            LibxcBody::X86CpuidPolicy { .. } | LibxcBody::X86MsrPolicy { .. } => {
                if self.seen.static_data_end {
                    return Err(StreamFailure::After { other: "STATIC_DATA_END" });
                }
                Ok(())
            }
            LibxcBody::End => {
                needs(self.seen.pages, LibxcType::PAGE_DATA.name())?;
                if self.guest() == Some(GuestType::X86Pv) {
                    needs(self.seen.shared_info, LibxcType::SHARED_INFO.name())?;
                }
                Ok(())
            }
            LibxcBody::Checkpoint | LibxcBody::CheckpointDirtyPfnList { .. } => {
                Err(StreamFailure::Checkpoint)
            }
            LibxcBody::Unknown => {
                self.summary.unknown_records += 1;
                Ok(())
            }
            LibxcBody::PageData | LibxcBody::Toolstack | LibxcBody::Verify => Ok(()),
        }
    }

    fn page_batch(&mut self, entries: &[PageEntry]) -> Result<(), StreamFailure> {
        self.summary.libxc_records += 1;
        self.seen.pages = true;
        self.static_data_ended()?;
        if self.guest() == Some(GuestType::X86Pv) {
            needs(self.seen.frames, LibxcType::X86_PV_P2M_FRAMES.name())?;
        }
        for entry in entries {
            let (pfn, max) = (entry.pfn(), self.pfn_max);
            if pfn > max {
                return Err(StreamFailure::PfnBeyond { pfn, max });
            }
            self.summary.pfn_end = self.summary.pfn_end.max(pfn + 1);
            if entry.page_type().has_content() {
                self.summary.pages += 1;
            } else {
                self.summary.empty_entries += 1;
            }
        }
        Ok(())
    }

    fn guest(&self) -> Option<GuestType> {
        self.summary.domain.map(|domain| domain.guest)
    }

    fn only(&self, guest: GuestType) -> Result<(), StreamFailure> {
        match self.guest() {
            Some(other) if other != guest => Err(StreamFailure::OtherGuest { guest: other }),
            _ => Ok(()),
        }
    }

    /// In version 2 nothing marks the end.
    fn static_data_ended(&self) -> Result<(), StreamFailure> {
        let marked = self.summary.image.is_some_and(|image| image.version >= ImageVersion::V3);
        needs(!marked || self.seen.static_data_end, LibxcType::STATIC_DATA_END.name())
    }
}

fn once(seen: &mut bool) -> Result<(), StreamFailure> {
    if std::mem::replace(seen, true) { Err(StreamFailure::Twice) } else { Ok(()) }
}

fn needs(seen: bool, name: Option<&'static str>) -> Result<(), StreamFailure> {
    if seen { Ok(()) } else { Err(StreamFailure::Before { missing: name.unwrap_or_default() }) }
}

fn padding_is_zero(raw: &[u8], body: usize) -> Result<(), StreamFailure> {
    if raw[super::record::RECORD_HEADER_LEN + body..].iter().all(|octet| *octet == 0) {
        Ok(())
    } else {
        Err(StreamFailure::Padding)
    }
}
