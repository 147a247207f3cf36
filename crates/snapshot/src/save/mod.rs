//! Saving a domain as a whole: memory, disks, configuration and Xenstore state of one moment.

mod request;

pub(crate) use request::milliseconds;
pub use request::{
    After, ConfigUpdate, Consistency, DiskRequest, DiskRequestAction, Durability, Hold,
    MemoryFormat, MemoryRequest, OnQuiesceFailure, QuiesceRequest, SaveDeadlines, SaveRequest,
};
