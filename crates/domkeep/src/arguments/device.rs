//! `device`: devices plugged and unplugged.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use libxl_config::retrieve::DeviceClass;

use super::seconds;

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Attach a device to a running domain: nodes, template, hotplug script, connection
    Attach(Attach),
    /// Detach a device from a running domain
    Detach(Detach),
    /// List the devices of domains, what each is doing, and who is plugging it; exit status 1 if any is half plugged
    List {
        /// Only of these domains, by name or id
        domains: Vec<String>,
    },
    /// Finish or undo what a killed or failed attach or detach has left
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Name or id of the domain
    pub(crate) domain: String,
    /// What it is
    #[arg(value_enum)]
    pub(crate) class: ClassChoice,
    /// As xl has it written: `vdev=xvdb,format=raw,target=/srv/data.img`, `mac=...,bridge=xenbr0`,
    /// `tag=share,path=/srv/share,security_model=none`; several are joined with commas
    #[arg(required_unless_present = "entry", conflicts_with = "entry")]
    pub(crate) spec: Vec<String>,
    /// The device as an entry of a configuration instead, in JSON: of this file, or - for stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) entry: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// Name or id of the domain
    pub(crate) domain: String,
    /// What it is
    #[arg(value_enum)]
    pub(crate) class: ClassChoice,
    /// Which: the vdev of a disk; devid or MAC of a nic; devid or tag of a share
    pub(crate) device: String,
    /// Take it away from a guest that does not let it go; what it has not written yet is lost
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Name or id of the domain
    pub(crate) domain: String,
    /// What it is; without it, every device that is not settled
    #[arg(value_enum, requires = "device")]
    pub(crate) class: Option<ClassChoice>,
    /// Which
    pub(crate) device: Option<String>,
    /// Detach what is half attached, instead of finishing it
    #[arg(long)]
    pub(crate) undo: bool,
    /// Take what is half detached away from a guest that does not let it go
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// How long the guest may take to connect to the device or to let it go
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub(crate) wait: Duration,
    /// How long a hotplug script may take; then it is killed
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "40")]
    pub(crate) script_limit: Duration,
    /// Where hotplug scripts are that are given without a path
    #[arg(long, value_name = "DIR", default_value = "/etc/xen/scripts")]
    pub(crate) scripts: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ClassChoice {
    /// A disk
    #[value(alias = "block", alias = "vbd")]
    Disk,
    /// A network card
    #[value(alias = "network", alias = "vif")]
    Nic,
    /// A 9pfs share
    #[value(alias = "9pfs", alias = "share")]
    P9,
}

impl From<ClassChoice> for DeviceClass {
    fn from(choice: ClassChoice) -> Self {
        match choice {
            ClassChoice::Disk => Self::Disk,
            ClassChoice::Nic => Self::Nic,
            ClassChoice::P9 => Self::P9,
        }
    }
}
