//! `device`: devices plugged into running domains and unplugged.

mod list;
mod plug;

use libxl_config::hotplug::{AttachError, DetachError, DeviceNameError, spec::SpecError};
use libxl_config::retrieve::RetrieveError;

use crate::arguments::Device;
use crate::exit::{CommandError, Exit, exit_of};
use crate::output::Output;
use crate::places::Places;

pub(super) fn run(
    asked: &Device,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    match asked {
        Device::Attach(asked) => plug::attach(asked, places, output),
        Device::Detach(asked) => plug::detach(asked, places, output),
        Device::List { domains } => list::run(domains, places, output),
        Device::Repair(asked) => plug::repair(asked, places, output),
    }
}

/// Why nothing, or not everything, was plugged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("the device cannot be read as it is written")]
    Spec(#[source] SpecError),
    #[error("the device's entry cannot be read")]
    Entry(#[source] serde_json::Error),
    #[error(transparent)]
    Name(#[from] DeviceNameError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Detach(#[from] DetachError),
}

impl DeviceError {
    pub(crate) fn exit(&self) -> Exit {
        use libxl_config::DomainError;
        use libxl_config::hotplug::BeginError;
        use libxl_config::template::LoadError;
        let domain = |error: &DomainError| match error {
            DomainError::Xenstore { source, .. } => exit_of(source),
            DomainError::Hypervisor { .. } | DomainError::Templates { .. } => Exit::OutOfReach,
            _ => Exit::BadNews,
        };
        let begin = |error: &BeginError| match error {
            BeginError::Lock(_)
            | BeginError::Load(LoadError::Locked { .. } | LoadError::Store { .. }) => {
                Exit::OutOfReach
            }
            _ => Exit::BadNews,
        };
        match self {
            Self::Spec(_) | Self::Entry(_) | Self::Name(_) => Exit::Usage,
            Self::Attach(AttachError::Domain(error)) | Self::Detach(DetachError::Domain(error)) => {
                domain(error)
            }
            Self::Attach(AttachError::Begin(error)) | Self::Detach(DetachError::Begin(error)) => {
                begin(error)
            }
            Self::Attach(AttachError::Xenstore { source, .. })
            | Self::Detach(
                DetachError::Xenstore { source, .. }
                | DetachError::Retrieve(RetrieveError::Xenstore { source, .. }),
            ) => exit_of(source),
            Self::Attach(_) | Self::Detach(_) => Exit::BadNews,
        }
    }

    pub(crate) fn advice(&self) -> Option<&'static str> {
        use libxl_config::DomainError;
        use libxl_config::hotplug::{BeginError, Left, Refusal, StepError};
        Some(match self {
            Self::Attach(AttachError::Domain(DomainError::NoSuchDomain { .. }))
            | Self::Detach(DetachError::Domain(DomainError::NoSuchDomain { .. })) => {
                "`domkeep list` shows the domains"
            }
            Self::Attach(AttachError::Refused { refusals, .. })
                if refusals.iter().any(|one| matches!(one, Refusal::NoDeviceModel { .. })) =>
            {
                "create the domain with a qcow2 disk or a share, so that it has a QEMU, or give a raw image"
            }
            Self::Attach(AttachError::Failed { left: Left::Some { .. }, .. })
            | Self::Attach(AttachError::Occupied { .. }) => {
                "`domkeep device repair DOMAIN` finishes or undoes it"
            }
            Self::Attach(AttachError::Claimed { .. })
            | Self::Detach(DetachError::Claimed { .. }) => {
                "wait until that is done; what a process left that is gone, `domkeep device repair DOMAIN` mends"
            }
            Self::Attach(AttachError::Begin(BeginError::Lock(_)))
            | Self::Detach(DetachError::Begin(BeginError::Lock(_))) => {
                "wait until whoever holds it is done, or allow more with --timeout SECONDS"
            }
            Self::Detach(DetachError::NoSuchDevice { .. }) => {
                "`domkeep device list DOMAIN` shows the devices"
            }
            Self::Detach(DetachError::Failed { source, .. })
                if matches!(**source, StepError::NotLetGo { .. }) =>
            {
                "let the guest unmount it and detach it again, or take it away with --force"
            }
            Self::Detach(DetachError::Failed { .. }) => "try it again, or repair it",
            _ => return None,
        })
    }
}
