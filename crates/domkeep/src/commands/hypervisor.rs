//! The hypervisor behind `retrieve` and `list`, if there is one to ask.

use std::io::{self, Write};

use libxl_config::retrieve::HypervisorView;
use libxl_control::{Libxl, LibxlOptions, LoadError, is_xen_host};
use xsclient::Endpoint;

use crate::arguments::HypervisorChoice;
use crate::exit::{CommandError, on_one_line};
use crate::places::Places;

/// What answers for the hypervisor; `None` if nothing does, of which people have been told.
pub(super) fn open(
    choice: HypervisorChoice,
    places: &Places,
) -> Result<Option<Libxl>, CommandError> {
    match choice {
        HypervisorChoice::Never => Ok(None),
        HypervisorChoice::Always => Ok(Some(load(places)?)),
        // In another Xenstore the same numbers are other domains.
        HypervisorChoice::Auto if *places.endpoint() != Endpoint::Search || !is_xen_host() => {
            Ok(None)
        }
        HypervisorChoice::Auto => Ok(load(places).inspect_err(tell).ok()),
    }
}

/// As what retrieves takes it.
pub(super) fn view(libxl: Option<&Libxl>) -> Option<&dyn HypervisorView> {
    libxl.map(|libxl| libxl as &dyn HypervisorView)
}

fn load(places: &Places) -> Result<Libxl, LoadError> {
    let mut options = LibxlOptions::default();
    options.xenstore = places.endpoint().clone();
    Libxl::open(options)
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
