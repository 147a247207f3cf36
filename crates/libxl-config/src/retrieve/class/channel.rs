//! Channels: consoles with a name. In the directory `console`, beside the consoles that libxl makes by itself.

use super::{Absence, Class, ClassInfo, Expected, Identity, Layout, Live, Rule, directory_number};
use crate::DomainConfig;
use crate::model::{Channel, ChannelKind, ChannelSocket, ConfigDomid};
use crate::retrieve::hypervisor::HypervisorView;
use crate::retrieve::report::{BadValue, DeviceClass};
use crate::retrieve::view::{SeenDevice, Text};

pub(in crate::retrieve) struct Channels;

impl Class for Channels {
    type Device = Channel;

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Channel,
        kinds: &["console"],
        backend_kinds: &["console"],
        keys: &["name", "connection", "path"],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: false,
        scripted: &[],
    };

    const RULES: &'static [Rule<Channel>] = &[
        Rule {
            key: "connection",
            field: "connection",
            expected: |channel, _| match &channel.kind {
                ChannelKind::Pty => Expected::text("pty"),
                ChannelKind::Socket(_) => Expected::text("socket"),
                _ => Expected::Anything,
            },
            take: |channel, live, _| {
                channel.kind = match live {
                    "pty" => ChannelKind::Pty,
                    "socket" => ChannelKind::Socket(ChannelSocket::default()),
                    _ => return Err(BadValue::not_a(live, "pty or socket")),
                };
                Ok(())
            },
            absent: Absence::Keep,
        },
        // After the kind, which it is a part of.
        Rule {
            key: "path",
            field: "connection.socket.path",
            expected: |channel, _| match &channel.kind {
                ChannelKind::Socket(socket) => Expected::optional(socket.path.as_deref()),
                _ => Expected::Anything,
            },
            take: |channel, live, _| {
                if let ChannelKind::Socket(socket) = &mut channel.kind {
                    socket.path = Some(live.to_owned());
                }
                Ok(())
            },
            absent: Absence::Keep,
        },
    ];

    fn list_mut(config: &mut DomainConfig) -> &mut Vec<Channel> {
        &mut config.channels
    }

    /// The name, since libxl 4.17 counts channels from 0 as it does the main console, which then has the directory.
    fn identity(channel: &Channel, position: usize) -> Identity {
        match &channel.name {
            Some(name) => Identity::plain(name),
            None => Identity::devid(channel.devid, position),
        }
    }

    fn entries(seen: &SeenDevice) -> Vec<Live<'_>> {
        let is_channel = seen.info.class == DeviceClass::Channel && seen.created("name").is_some();
        is_channel.then(|| Live::whole(seen)).into_iter().collect()
    }

    fn live_identity(live: &Live<'_>) -> Identity {
        Identity::plain(live.text("name").unwrap_or(&live.device.devid))
    }

    fn new(live: &Live<'_>, _hypervisor: Option<&dyn HypervisorView>) -> Result<Channel, BadValue> {
        let name = match live.value("name") {
            Some(Text::Good(name)) => Some(name.clone()),
            // Only the name tells a guest which of its channels this is.
            Some(Text::Bad(bad)) => return Err(bad.clone().into()),
            None => return Err(BadValue::Missing),
        };
        Ok(Channel { devid: directory_number(live)?, name, ..Channel::default() })
    }

    fn backend_domid(channel: &mut Channel) -> Option<(&mut ConfigDomid, bool)> {
        Some((&mut channel.backend_domid, channel.backend_domname.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use crate::retrieve::report::{DeviceClass, DeviceNote};

    fn scene() -> Scene {
        Scene::new(
            "channels",
            r#"{ "devid": 1, "name": "org.lab.sock", "connection.socket": { "path": "/run/c" } }"#,
            r#"
            /libxl/7/device/console/1
                backend = "/local/domain/0/backend/console/7/1"
                protocol = "vt100"
                name = "org.lab.sock"
                connection = "socket"
                path = "/run/c"
            /local/domain/0/backend/console/7/1
                state = "4"
            /local/domain/7/device/console/1
                name = "org.other"
                output = "chardev:libxl-channel1"
            "#,
        )
    }

    fn pty() -> Scene {
        let pty = r#"{ "connection.socket": null, "connection.pty": {} }"#;
        scene().live("connection", "pty").gone("path").entry(pty)
    }

    #[test]
    fn a_channel_stays_under_any_number() {
        scene().stays();
        scene().entry(r#"{ "devid": 5 }"#).stays();
        pty().stays();
    }

    #[test]
    fn each_key_of_a_channel_changes_its_field() {
        scene().turns(
            "path",
            "/run/d",
            "connection.socket.path",
            r#"{ "connection.socket": { "path": "/run/d" } }"#,
        );
        scene().turns(
            "connection",
            "pty",
            "connection",
            r#"{ "connection.socket": null, "connection.pty": {} }"#,
        );
        pty().turns(
            "connection",
            "socket",
            "connection",
            r#"{ "connection.pty": null, "connection.socket": {} }"#,
        );
    }

    #[test]
    fn a_channel_is_built() {
        scene().is_built_as(
            r#"{ "devid": 1, "name": "org.lab.sock", "connection.socket": { "path": "/run/c" } }"#,
        );
        pty().is_built_as(r#"{ "devid": 1, "name": "org.lab.sock", "connection.pty": {} }"#);
    }

    #[test]
    fn a_channel_whose_name_is_no_text_is_reported_and_not_built() {
        let outcome = scene().entries(&[]).live("name", b"\xff").merge();
        assert!(outcome.config.channels.is_empty());
        assert_eq!(outcome.only().note, Some(DeviceNote::TooLittleKnown));
        assert_eq!((outcome.only().id.as_str(), outcome.only().problems.len()), ("1", 1));
    }

    #[test]
    fn what_is_no_value_of_a_channel_leaves_the_template() {
        scene().refuses("connection", &["", "tcp"]);
        scene().refuses("path", &[]);
    }

    /// libxl 4.17 gives the first channel the number of the main console, which then overwrites it.
    #[test]
    fn a_channel_that_the_main_console_has_displaced_is_kept() {
        let outcome = scene().gone("name").gone("connection").gone("path").merge();
        assert_eq!(outcome.config.channels.len(), 1);
        let [channel, console] = &outcome.reports[..] else { panic!("{:#?}", outcome.reports) };
        assert_eq!((channel.class, channel.note), (DeviceClass::Channel, Some(DeviceNote::Kept)));
        let made = Some(DeviceNote::MadeByLibxl);
        assert_eq!((console.class, console.note), (DeviceClass::Console, made));
    }
}
