//! The hypervisor behind `retrieve` and `list`, if there is one to ask.

use std::io::{self, Write};

use libxl_config::retrieve::HypervisorView;
use libxl_control::{LibraryAt, LoadError, Xenctrl};
use xsclient::Endpoint;

use crate::arguments::HypervisorChoice;
use crate::exit::{CommandError, on_one_line};
use crate::places::Places;

/// What answers for the hypervisor; `None` if nothing does, of which people have been told unless this is no Xen host.
pub(super) fn open(
    choice: HypervisorChoice,
    places: &Places,
) -> Result<Option<Xenctrl>, CommandError> {
    match choice {
        HypervisorChoice::Never => Ok(None),
        HypervisorChoice::Always => Ok(Some(Xenctrl::open(&LibraryAt::Host)?)),
        // In another Xenstore the same numbers are other domains.
        HypervisorChoice::Auto if *places.endpoint() != Endpoint::Search => Ok(None),
        HypervisorChoice::Auto => match Xenctrl::open(&LibraryAt::Host) {
            Ok(xenctrl) => Ok(Some(xenctrl)),
            Err(LoadError::NotAXenHost { .. }) => Ok(None),
            Err(error) => {
                tell(&error);
                Ok(None)
            }
        },
    }
}

/// As what retrieves takes it.
pub(super) fn view(xenctrl: Option<&Xenctrl>) -> Option<&dyn HypervisorView> {
    xenctrl.map(|xenctrl| xenctrl as &dyn HypervisorView)
}

fn tell(error: &LoadError) {
    let told = format!(
        "domkeep: uuids and scheduler parameters are as the templates have them: {}\n  what to do: {}, or say --hypervisor never\n",
        on_one_line(error),
        error.advice()
    );
    // If stderr is closed there is nobody to tell.
    let _ = io::stderr().write_all(told.as_bytes());
}
