//! Records, and what is in them.

use super::fields::{array, u32_at, u64_at};
use super::{LibxcType, LibxlType, PAGE_LEN};

/// Octets of a record's type and length.
pub(crate) const RECORD_HEADER_LEN: usize = 8;

/// A record of a libxl stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibxlRecord<'a> {
    /// What it is.
    pub record_type: LibxlType,
    /// Its octets, without padding.
    pub body: &'a [u8],
}

/// What a record of a libxl stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibxlBody<'a> {
    /// The stream ends.
    End,
    /// A libxc image follows.
    LibxcContext,
    /// What the emulator has in Xenstore: pairs of key and value, each with a NUL behind it.
    EmulatorXenstoreData {
        /// Which emulator.
        emulator: EmulatorId,
        /// The pairs.
        pairs: &'a [u8],
    },
    /// The emulator's state.
    EmulatorContext {
        /// Which emulator.
        emulator: EmulatorId,
        /// What only the emulator understands.
        context: &'a [u8],
    },
    /// A checkpoint ends.
    CheckpointEnd,
    /// How far the receiver of checkpoints is.
    CheckpointState {
        /// 0 new, 1 suspended, 2 ready, 3 resumed.
        control: u32,
    },
    /// A type that is not known.
    Unknown,
}

/// Which emulator a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmulatorId {
    /// 0 not known, 1 qemu-traditional, 2 QEMU.
    pub id: u32,
    /// Which of several.
    pub index: u32,
}

impl<'a> LibxlRecord<'a> {
    /// What the record says.
    ///
    /// # Errors
    ///
    /// If the body has another length than the type has, or is not what the type says.
    pub fn decode(&self) -> Result<LibxlBody<'a>, BodyError> {
        let Self { record_type, body } = *self;
        Ok(match record_type {
            LibxlType::END => exact(body, 0, LibxlBody::End)?,
            LibxlType::LIBXC_CONTEXT => exact(body, 0, LibxlBody::LibxcContext)?,
            LibxlType::CHECKPOINT_END => exact(body, 0, LibxlBody::CheckpointEnd)?,
            LibxlType::CHECKPOINT_STATE => {
                exact(body, 8, LibxlBody::CheckpointState { control: u32_at(body, 0) })?
            }
            LibxlType::EMULATOR_XENSTORE_DATA => {
                let (emulator, pairs) = emulator(body)?;
                let texts = pairs.iter().filter(|octet| **octet == 0).count();
                if pairs.last().is_some_and(|last| *last != 0) || texts % 2 != 0 {
                    return Err(BodyError::Pairs);
                }
                LibxlBody::EmulatorXenstoreData { emulator, pairs }
            }
            LibxlType::EMULATOR_CONTEXT => {
                let (emulator, context) = emulator(body)?;
                LibxlBody::EmulatorContext { emulator, context }
            }
            _ => LibxlBody::Unknown,
        })
    }
}

fn emulator(body: &[u8]) -> Result<(EmulatorId, &[u8]), BodyError> {
    let (head, rest) = at_least(body, 8)?;
    Ok((EmulatorId { id: u32_at(head, 0), index: u32_at(head, 4) }, rest))
}

/// A record of a libxc image. The reader gives PAGE_DATA otherwise, without holding the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibxcRecord<'a> {
    /// What it is.
    pub record_type: LibxcType,
    /// Its octets, without padding.
    pub body: &'a [u8],
}

/// What a record of a libxc image says, other than PAGE_DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibxcBody<'a> {
    /// The image ends.
    End,
    /// Pages; [`Content::PageBatch`](super::Content::PageBatch) tells of them.
    PageData,
    /// How wide a PV guest is.
    X86PvInfo {
        /// Octets of an address: 4 or 8.
        width: u8,
        /// Levels of page tables: 3 or 4.
        levels: u8,
    },
    /// The frames of a PV guest's table of its memory.
    X86PvP2mFrames {
        /// The first page that the table tells of.
        start: u32,
        /// The last one.
        end: u32,
        /// One for each 4096 octets of the table; little-endian u64.
        frames: &'a [u8],
    },
    /// State of one processor of a PV guest, of the kind that the type says.
    X86PvVcpu {
        /// Which processor.
        vcpu: u32,
        /// What only Xen understands.
        context: &'a [u8],
    },
    /// The page that a PV guest shares with Xen.
    SharedInfo {
        /// Its octets.
        page: &'a [u8],
    },
    /// The guest's clock.
    X86TscInfo {
        /// How it is kept.
        mode: u32,
        /// Its frequency.
        khz: u32,
        /// Nanoseconds that have elapsed.
        nsec: u64,
        /// How often the guest has been moved.
        incarnation: u32,
    },
    /// Xen's own state of an HVM guest.
    HvmContext {
        /// What only Xen understands.
        context: &'a [u8],
    },
    /// Parameters of an HVM guest: pairs of little-endian u64, index and value.
    HvmParams {
        /// 16 octets for each.
        pairs: &'a [u8],
    },
    /// Not written any more.
    Toolstack,
    /// The pages that follow were sent before.
    Verify,
    /// A checkpoint.
    Checkpoint,
    /// What has changed since a checkpoint: little-endian u64.
    CheckpointDirtyPfnList {
        /// 8 octets for each page.
        pfns: &'a [u8],
    },
    /// What does not change ends here.
    StaticDataEnd,
    /// What the guest sees of CPUID.
    X86CpuidPolicy {
        /// 24 octets for each leaf.
        leaves: &'a [u8],
    },
    /// What the guest sees of MSRs.
    X86MsrPolicy {
        /// 16 octets for each.
        entries: &'a [u8],
    },
    /// A type that is not known.
    Unknown,
}

impl<'a> LibxcRecord<'a> {
    /// What the record says. Records of processors, contexts and policies may be empty: older versions of Xen wrote such.
    ///
    /// # Errors
    ///
    /// If the body has another length than the type can have, or reserved octets are not zero.
    pub fn decode(&self) -> Result<LibxcBody<'a>, BodyError> {
        let Self { record_type, body } = *self;
        Ok(match record_type {
            LibxcType::END => exact(body, 0, LibxcBody::End)?,
            LibxcType::PAGE_DATA => LibxcBody::PageData,
            LibxcType::X86_PV_INFO => {
                let [width, levels, reserved @ ..] = array::<8>(body, 0);
                let info = exact(body, 8, LibxcBody::X86PvInfo { width, levels })?;
                reserved_zero(&reserved)?;
                if !matches!((width, levels), (4, 3) | (8, 4)) {
                    return Err(BodyError::PvInfo { width, levels });
                }
                info
            }
            LibxcType::X86_PV_P2M_FRAMES => {
                let (head, frames) = at_least(body, 8)?;
                multiple(frames, 8)?;
                let (start, end) = (u32_at(head, 0), u32_at(head, 4));
                if start > end {
                    return Err(BodyError::Frames { start, end });
                }
                LibxcBody::X86PvP2mFrames { start, end, frames }
            }
            LibxcType::X86_PV_VCPU_BASIC
            | LibxcType::X86_PV_VCPU_EXTENDED
            | LibxcType::X86_PV_VCPU_XSAVE
            | LibxcType::X86_PV_VCPU_MSRS => {
                let (head, context) = at_least(body, 8)?;
                reserved_zero(&head[4..])?;
                LibxcBody::X86PvVcpu { vcpu: u32_at(head, 0), context }
            }
            LibxcType::SHARED_INFO => exact(body, PAGE_LEN, LibxcBody::SharedInfo { page: body })?,
            LibxcType::X86_TSC_INFO => {
                let info = LibxcBody::X86TscInfo {
                    mode: u32_at(body, 0),
                    khz: u32_at(body, 4),
                    nsec: u64_at(body, 8),
                    incarnation: u32_at(body, 16),
                };
                let info = exact(body, 24, info)?;
                reserved_zero(&body[20..])?;
                info
            }
            LibxcType::HVM_CONTEXT => LibxcBody::HvmContext { context: body },
            LibxcType::HVM_PARAMS => {
                let (head, pairs) = at_least(body, 8)?;
                reserved_zero(&head[4..])?;
                let count = u64::from(u32_at(head, 0));
                if pairs.len() as u64 != count * 16 {
                    return Err(BodyError::Count { count, len: body.len() });
                }
                LibxcBody::HvmParams { pairs }
            }
            LibxcType::TOOLSTACK => LibxcBody::Toolstack,
            LibxcType::VERIFY => exact(body, 0, LibxcBody::Verify)?,
            LibxcType::CHECKPOINT => exact(body, 0, LibxcBody::Checkpoint)?,
            LibxcType::CHECKPOINT_DIRTY_PFN_LIST => {
                multiple(body, 8)?;
                LibxcBody::CheckpointDirtyPfnList { pfns: body }
            }
            LibxcType::STATIC_DATA_END => exact(body, 0, LibxcBody::StaticDataEnd)?,
            LibxcType::X86_CPUID_POLICY => {
                multiple(body, 24)?;
                LibxcBody::X86CpuidPolicy { leaves: body }
            }
            LibxcType::X86_MSR_POLICY => {
                multiple(body, 16)?;
                LibxcBody::X86MsrPolicy { entries: body }
            }
            _ => LibxcBody::Unknown,
        })
    }
}

fn exact<T>(body: &[u8], needs: usize, value: T) -> Result<T, BodyError> {
    if body.len() == needs { Ok(value) } else { Err(BodyError::Length { len: body.len(), needs }) }
}

fn at_least(body: &[u8], needs: usize) -> Result<(&[u8], &[u8]), BodyError> {
    body.split_at_checked(needs).ok_or(BodyError::Short { len: body.len(), needs })
}

fn multiple(body: &[u8], of: usize) -> Result<(), BodyError> {
    if body.len().is_multiple_of(of) {
        Ok(())
    } else {
        Err(BodyError::Multiple { len: body.len(), of })
    }
}

fn reserved_zero(octets: &[u8]) -> Result<(), BodyError> {
    if octets.iter().all(|octet| *octet == 0) { Ok(()) } else { Err(BodyError::Reserved) }
}

/// Why a record's body does not make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It has another length than all of its type.
    #[error("the body has {len} octets, not {needs}")]
    Length {
        /// Its own.
        len: usize,
        /// That of the type.
        needs: usize,
    },
    /// It is shorter than what every record of its type has.
    #[error("the body has {len} octets, and needs at least {needs}")]
    Short {
        /// Its own.
        len: usize,
        /// Octets of the fixed part.
        needs: usize,
    },
    /// Its entries do not come out even.
    #[error("{len} octets are no multiple of {of}")]
    Multiple {
        /// Octets of all entries.
        len: usize,
        /// Octets of one.
        of: usize,
    },
    /// It counts other than it has.
    #[error("the body has {len} octets, which is not what {count} entries have")]
    Count {
        /// What it says.
        count: u64,
        /// Octets of the body.
        len: usize,
    },
    /// No pages at all.
    #[error("the record has no pages")]
    NoPages,
    /// A page's entry has reserved bits or a type that is not in use.
    #[error("entry {index}, {bits:#018x}, has reserved bits or a type that is not in use")]
    PageEntry {
        /// Which entry.
        index: usize,
        /// The entry.
        bits: u64,
    },
    /// Reserved octets are not zero.
    #[error("reserved octets of the body are not zero")]
    Reserved,
    /// Neither a 32-bit nor a 64-bit guest.
    #[error("no PV guest has addresses of {width} octets and {levels} levels of page tables")]
    PvInfo {
        /// Octets of an address.
        width: u8,
        /// Levels of page tables.
        levels: u8,
    },
    /// The table of memory ends before it starts.
    #[error("the frames are those of pages {start:#x} to {end:#x}")]
    Frames {
        /// The first page.
        start: u32,
        /// The last page.
        end: u32,
    },
    /// Keys and values do not come in pairs.
    #[error("the body does not hold pairs of texts")]
    Pairs,
}
