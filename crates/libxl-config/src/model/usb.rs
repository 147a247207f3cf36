//! USB controllers and devices.

use super::enumeration::enumerations;
use super::keyed_union::keyed_union;
use super::scalar::{ConfigDomid, DevId};
use super::table::records;

records! {
    /// One USB controller, identified by `devid`.
    Usbctrl = "device_usbctrl" {
        /// Which kind.
        controller as "type": UsbctrlType,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// USB version.
        version: i32,
        /// How many ports it has.
        ports: i32,
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
    }

    /// One USB device, identified by `ctrl` and `port`.
    Usbdev = "device_usbdev" {
        /// The controller it hangs on.
        ctrl: DevId,
        /// The port it hangs on, from 1.
        port: i32,
        /// What it is.
        kind as "type": UsbdevKind,
    }

    /// A USB device of the host.
    UsbHostdev = "device_usbdev.hostdev" {
        /// Bus number on the host.
        hostbus: u8,
        /// Device number on that bus.
        hostaddr: u8,
    }
}

keyed_union! {
    /// What a USB device is, under the key `type.` and its name.
    UsbdevKind = "type" of "usbdev_type", default (UsbdevKind::Hostdev(UsbHostdev::default())) {
        /// A device of the host.
        Hostdev = "hostdev" 1: UsbHostdev,
    }
}

enumerations! {
    /// Kind of USB controller.
    UsbctrlType = "usbctrl_type", default Auto {
        Auto = "auto" 0,
        Pv = "pv" 1,
        Devicemodel = "devicemodel" 2,
        Qusb = "qusb" 3,
    }
}
