//! What a domain's configuration is now: its template, with the live Xenstore laid over it.
//!
//! ```no_run
//! use libxl_config::retrieve::Retriever;
//! use libxl_config::template::UserdataDir;
//! use xsclient::{Client, DomId, Endpoint, Options};
//!
//! let mut client = Client::open(Endpoint::Search, Options::default())?;
//! let templates = UserdataDir::open("/var/lib/xen")?;
//! let retrieved = Retriever::new(&mut client, &templates).retrieve(DomId::new(7))?;
//! for device in &retrieved.report.devices {
//!     println!("{} {}: {}", device.class, device.id, device.attachment);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A read passes through these modules in this order:
//!
//! ```text
//! plan        what to read next, from what was read so far: four levels, whatever the devices
//! consistent  the round trips, and whether all of it is of one moment
//! observed    what was read, untouched
//! view        the same, by knob and device
//! merge       template and view to one configuration, by the tables in class/ and the rules in knobs
//! report      where every value came from, and every disagreement
//! ```

mod attachment;
mod class;
mod consistent;
pub(crate) mod disks;
mod hypervisor;
mod knobs;
mod merge;
mod observed;
mod plan;
mod report;
mod retriever;
mod revision;
mod vdev;
mod view;

pub use consistent::Means;
pub use hypervisor::{HypervisorDomain, HypervisorView};
pub use report::{
    Attachment, BackendState, BadValue, Consistency, DeviceClass, DeviceNote, DeviceReport,
    FieldChange, KnobReport, Missing, Presence, Problem, Report, Source, TemplateSource, Unseen,
};
pub use retriever::{ATTEMPTS_DEFAULT, Policy, RetrieveError, Retrieved, Retriever};
pub use revision::ConfigurationRevision;
pub use view::{BadText, VALUE_LEN_MAX};
