//! What saving and restoring work with: the hypervisor, Xenstore, the templates, and the programs of a host.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use libxl_config::retrieve::HypervisorView;
use libxl_config::template::TemplateStore;
use xsclient::{Client, OpenError};

use crate::control::DomainControl;
use crate::disk::DiskSnapshotter;
use crate::disk::qemu_img::QemuImg;

/// A host, as a caller gives it to [`crate::save()`], [`crate::restore()`], [`crate::recover()`] and their plans.
pub struct HostAccess<'a> {
    /// The hypervisor.
    pub control: &'a dyn DomainControl,
    /// Connects to Xenstore, with privileges, before a deadline.
    pub xenstore: &'a dyn Fn(Instant) -> Result<Client, OpenError>,
    /// Where the domains' templates are. An empty [`MemoryStore`](libxl_config::template::MemoryStore) if there are none.
    pub templates: &'a dyn TemplateStore,
    /// What only the hypervisor knows of a configuration.
    pub hypervisor: Option<&'a dyn HypervisorView>,
    /// The `qemu-img` to make overlays with.
    pub qemu_img: QemuImg,
    /// What resumes the domain if this process dies; without it a killed saver leaves its guest suspended.
    pub guardian: Option<GuardianProgram>,
    /// The caller's own ways to snapshot disks, by the name that requests have for them.
    pub hooks: BTreeMap<String, Box<dyn DiskSnapshotter + 'a>>,
    /// The caller's ways to quiesce a guest, by the name that requests have for them.
    pub quiescers: BTreeMap<String, Box<dyn Quiescer + 'a>>,
}

impl fmt::Debug for HostAccess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostAccess")
            .field("qemu_img", &self.qemu_img)
            .field("guardian", &self.guardian)
            .field("hooks", &self.hooks.keys())
            .field("quiescers", &self.quiescers.keys())
            .finish_non_exhaustive()
    }
}

/// The program that resumes a domain whose saver has died: `domkeep guard`, or one of the caller's that calls
/// [`crate::guard::run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardianProgram {
    /// The program. It is executed, not forked alone: the caller may have threads.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Has a guest bring its file systems into a state in which a snapshot of its disks is of use, and lets it go on.
///
/// A guest agent, or a script. Freezing a guest that does not run must do nothing and succeed.
pub trait Quiescer {
    /// Freezes. On failure nothing may stay frozen; [`thaw`](Self::thaw) is called all the same.
    ///
    /// # Errors
    ///
    /// Why the guest is not quiesced.
    fn freeze(&mut self, deadline: Instant) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Thaws. It is called once for every freeze, whatever became of that.
    ///
    /// # Errors
    ///
    /// Why the guest may still be frozen.
    fn thaw(&mut self, deadline: Instant) -> Result<(), Box<dyn Error + Send + Sync>>;
}
