//! Screens, keyboards and pointers.

use super::enumeration::enumerations;
use super::scalar::{ConfigDomid, DefBool, DevId};
use super::table::records;

records! {
    /// The emulated graphics card.
    Vga = "vga_interface_info" {
        /// Which card.
        kind: VgaKind,
    }

    /// A VNC server for the screen.
    Vnc = "vnc_info" {
        /// Whether it is there.
        enable: DefBool,
        /// Address to listen on.
        listen: Option<String>,
        /// Password to ask for.
        passwd: Option<String>,
        /// Number of the display; the port is 5900 and this.
        display: i32,
        /// Whether another display is taken if this one is in use.
        findunused: DefBool,
    }

    /// A local SDL window for the screen.
    Sdl = "sdl_info" {
        /// Whether it is there.
        enable: DefBool,
        /// Whether it uses OpenGL.
        opengl: DefBool,
        /// The X display it opens on.
        display: Option<String>,
        /// The X authority file it uses.
        xauthority: Option<String>,
    }

    /// A SPICE server for the screen.
    Spice = "spice_info" {
        /// Whether it is there.
        enable: DefBool,
        /// Port without encryption.
        port: i32,
        /// Port with encryption.
        tls_port: i32,
        /// Address to listen on.
        host: Option<String>,
        /// Whether clients need no password.
        disable_ticketing: DefBool,
        /// Password to ask for.
        passwd: Option<String>,
        /// Whether the agent moves the pointer.
        agent_mouse: DefBool,
        /// Whether the agent's channel is there.
        vdagent: DefBool,
        /// Whether the clipboard is shared.
        clipboard_sharing: DefBool,
        /// How many USB redirection channels there are.
        usbredirection: i32,
        /// Image compression.
        image_compression: Option<String>,
        /// Detection of video streams.
        streaming_video: Option<String>,
    }

    /// One paravirtual screen, identified by `devid`.
    Vfb = "device_vfb" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// VNC server.
        vnc: Vnc,
        /// SDL window.
        sdl: Sdl,
        /// Keyboard layout.
        keymap: Option<String>,
    }

    /// One paravirtual keyboard and pointer, identified by `devid`.
    Vkb = "device_vkb" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// What serves it.
        backend_type: VkbBackend,
        /// Name that backend and frontend agree on.
        unique_id: Option<String>,
        /// Whether there is no keyboard.
        feature_disable_keyboard: bool,
        /// Whether there is no pointer.
        feature_disable_pointer: bool,
        /// Whether positions are absolute.
        feature_abs_pointer: bool,
        /// Whether absolute positions are not scaled.
        feature_raw_pointer: bool,
        /// Whether there is a touch screen.
        feature_multi_touch: bool,
        /// Width, in pixels.
        width: u32,
        /// Height, in pixels.
        height: u32,
        /// Width of the touch screen.
        multi_touch_width: u32,
        /// Height of the touch screen.
        multi_touch_height: u32,
        /// How many fingers it can tell.
        multi_touch_num_contacts: u32,
    }

    /// One paravirtual display, identified by `devid`.
    Vdispl = "device_vdispl" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// Whether the backend allocates buffers.
        be_alloc: bool,
        /// Its connectors.
        connectors: Vec<Connector>,
    }

    /// One connector of a display.
    Connector = "connector_param" {
        /// Name that backend and frontend agree on.
        unique_id: Option<String>,
        /// Width, in pixels.
        width: u32,
        /// Height, in pixels.
        height: u32,
    }
}

enumerations! {
    /// Emulated graphics card.
    VgaKind = "vga_interface_type", default Unknown {
        Unknown = "unknown" 0,
        Cirrus = "cirrus" 1,
        Std = "std" 2,
        None = "none" 3,
        Qxl = "qxl" 4,
    }

    /// What serves a keyboard and pointer.
    VkbBackend = "vkb_backend", default Unknown {
        Unknown = "unknown" 0,
        Qemu = "qemu" 1,
        Linux = "linux" 2,
    }
}
