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
