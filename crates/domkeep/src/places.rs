//! Where Xenstore and the templates are.

use std::path::Path;
use std::time::{Duration, Instant};

use libxl_config::template::{MemoryStore, SledStore, TemplateStore, UserdataDir};
use xsclient::{Client, Endpoint, Options};

use crate::arguments::{Global, TemplatesAt};
use crate::exit::CommandError;

/// How long an operation may take when nothing else is said: as long as `retrieve` allows by itself.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// What the global options say, with the defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    endpoint: Endpoint,
    templates: TemplatesAt,
    timeout: Duration,
}

/// Whether a template store may be made where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Existing,
    OrCreate,
}

impl Places {
    pub(crate) fn of(global: &Global) -> Self {
        Self {
            endpoint: global.xenstore.as_deref().map_or(Endpoint::Search, Endpoint::at),
            templates: global.templates.clone().unwrap_or_default(),
            timeout: global.timeout.unwrap_or(TIMEOUT_DEFAULT),
        }
    }

    /// Where Xenstore is.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How long an operation may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When an operation that starts now has to end.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Connects to Xenstore.
    pub(crate) fn client(&self) -> Result<Client, CommandError> {
        Ok(Client::open(self.endpoint.clone(), Options::with_timeout(self.timeout))?)
    }

    /// Opens the template store.
    pub(crate) fn templates(
        &self,
        opening: Opening,
    ) -> Result<Box<dyn TemplateStore>, CommandError> {
        let deadline = self.deadline();
        Ok(match (&self.templates, opening) {
            (TemplatesAt::Userdata(directory), _) => Box::new(UserdataDir::open(directory)?),
            (TemplatesAt::Sled(directory), Opening::Existing) => {
                Box::new(SledStore::open(directory, deadline)?)
            }
            (TemplatesAt::Sled(directory), Opening::OrCreate) => {
                Box::new(SledStore::open_or_create(directory, deadline)?)
            }
            (TemplatesAt::Nowhere, _) => Box::new(MemoryStore::new()),
        })
    }

    /// The directory in which others may change templates at any time.
    pub(crate) fn shared_directory(&self) -> Option<&Path> {
        match &self.templates {
            TemplatesAt::Userdata(directory) => Some(directory),
            TemplatesAt::Sled(_) | TemplatesAt::Nowhere => None,
        }
    }
}
