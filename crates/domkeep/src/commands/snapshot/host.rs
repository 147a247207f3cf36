//! The host whose domains are saved and restored.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use libxl_config::retrieve::HypervisorView;
use libxl_config::template::{MemoryStore, TemplateStore, UserdataDir};
use libxl_control::{LibraryAt, Libxl, LibxlOptions, Xenctrl};
use snapshot::control::{DomainControl, DomainIdentity, DomainView};
use snapshot::disk::qemu_img::QemuImg;
use snapshot::simulated::{Operator, SimulatedDomain};
use snapshot::{GuardianProgram, HostAccess};
use xsclient::{Client, DomId, Endpoint, OpenError, Options};

use super::error::SnapshotError;
use crate::arguments::{ControlAt, Global};
use crate::exit::CommandError;
use crate::places::{Opening, Places};

/// Where libxl keeps the sockets of its QEMUs.
const RUN_DIRECTORY: &str = "/var/run/xen";

/// What connects to Xenstore before a deadline.
type Connect = Box<dyn Fn(Instant) -> Result<Client, OpenError>>;

/// A host: what decides about its domains, and where its Xenstore and templates are.
pub(super) struct Host {
    pub(super) control: Box<dyn DomainControl>,
    /// The hypervisor behind `control` on a Xen host.
    xenctrl: Option<Xenctrl>,
    connect: Connect,
    templates: Box<dyn TemplateStore>,
    places: Places,
}

impl Host {
    /// The one way to a host. What the global options leave open, the host itself tells.
    pub(super) fn open(
        at: &ControlAt,
        global: &Global,
        places: &Places,
    ) -> Result<Self, CommandError> {
        match at {
            ControlAt::Libxl(library) => {
                let mut options = LibxlOptions::default();
                options.library = library.clone();
                options.xenstore = places.endpoint().clone();
                let libxl = Libxl::open(options)?;
                // By its soname, which is that of the one that libxl itself uses and has loaded.
                let xenctrl = Xenctrl::open(&LibraryAt::Host)?;
                Ok(Self {
                    control: Box::new(libxl),
                    xenctrl: Some(xenctrl),
                    connect: connect(places.endpoint().clone()),
                    templates: places.templates(Opening::Existing)?,
                    places: places.clone(),
                })
            }
            ControlAt::Simulated(socket) => {
                let told = Operator::new(socket).host(places.deadline())?;
                let endpoint = match (&global.xenstore, told.xenstore) {
                    (None, Some(own)) => Endpoint::UnixSocket(own),
                    _ => places.endpoint().clone(),
                };
                let templates: Box<dyn TemplateStore> = match (&global.templates, told.templates) {
                    (Some(_), _) => places.templates(Opening::Existing)?,
                    (None, Some(own)) => Box::new(UserdataDir::open(&own)?),
                    (None, None) => Box::new(MemoryStore::new()),
                };
                Ok(Self {
                    control: Box::new(SimulatedDomain::new(socket)),
                    xenctrl: None,
                    connect: connect(endpoint),
                    templates,
                    places: places.clone(),
                })
            }
        }
    }

    /// The host as the library takes it. What guards a domain is this program.
    pub(super) fn access(&self) -> HostAccess<'_> {
        let guardian = match env::current_exe() {
            Ok(program) => Some(GuardianProgram { program, arguments: vec!["guard".to_owned()] }),
            Err(error) => {
                tracing::warn!(%error, "where this program is cannot be told: there is no guardian");
                None
            }
        };
        HostAccess {
            control: self.control.as_ref(),
            xenstore: self.connect.as_ref(),
            templates: self.templates.as_ref(),
            hypervisor: self.xenctrl.as_ref().map(|xenctrl| xenctrl as &dyn HypervisorView),
            qemu_img: QemuImg::default(),
            guardian,
            hooks: BTreeMap::new(),
            quiescers: BTreeMap::new(),
        }
    }

    /// Where libxl has the QEMU of a domain listen, if it has one. A guest without qcow2 disks may have none.
    pub(super) fn qmp_of(&self, domain: &DomainIdentity) -> Option<PathBuf> {
        self.xenctrl.as_ref()?;
        let socket = Path::new(RUN_DIRECTORY).join(format!("qmp-libxl-{}", domain.domid));
        socket.exists().then_some(socket)
    }

    /// The domain that was meant: a number is an id, everything else a name.
    pub(super) fn find(&self, typed: &str) -> Result<DomainIdentity, CommandError> {
        let domid = typed.parse().ok();
        let is_meant = |view: &DomainView| match domid {
            Some(domid) => view.identity.domid == domid,
            None => view.name.as_deref() == Some(typed),
        };
        let views = self.control.list(self.places.deadline())?;
        let found: Vec<_> = views.into_iter().filter(is_meant).map(|view| view.identity).collect();
        match found[..] {
            [identity] => Ok(identity),
            [] => Err(SnapshotError::NoSuchDomain { which: typed.to_owned() }.into()),
            _ => {
                let domids: Vec<DomId> = found.iter().map(|identity| identity.domid).collect();
                Err(CommandError::SeveralOfThatName { name: typed.to_owned(), domids })
            }
        }
    }
}

fn connect(endpoint: Endpoint) -> Connect {
    Box::new(move |deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        Client::open(endpoint.clone(), Options::with_timeout(left))
    })
}
