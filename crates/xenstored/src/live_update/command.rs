//! CONTROL `live-update`: what is to succeed, and when.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use xenstore_migration::Version;
use xenstore_proto::{Errno, Message, MessageType, Reply, RequestId, TxId};

use crate::server::{ConnectionId, Server};

/// How long an update waits for transactions that its successor would not have, if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What has been said of an update.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) program: Option<PathBuf>,
    pub(crate) arguments: Option<String>,
    pub(crate) started: Option<Started>,
}

/// An update that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// Who has asked for it, and is answered when it is made.
    pub(crate) caller: ConnectionId,
    pub(crate) request_id: RequestId,
    pub(crate) tx_id: TxId,
    /// How long open transactions are waited for.
    pub(crate) timeout: Duration,
    /// Since when: known once the carrier has looked.
    pub(crate) since: Option<Instant>,
    /// Whether it is made although it loses transactions.
    pub(crate) forced: bool,
    /// The version of the stream that is asked for.
    pub(crate) version: Option<Version>,
}

/// What is to be done about an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// There is none.
    None,
    /// To be looked at again after so long, or when a transaction ends.
    In(Duration),
    Now,
    /// Transactions stay open.
    TooLate,
}

impl Server {
    /// Has CONTROL `live-update` answered with more than EINVAL: for a carrier that makes updates.
    pub(crate) fn offer_live_update(&mut self) {
        self.update = Some(Update::default());
    }

    /// Carries `live-update` out. `None` if the answer has to wait until the update is made.
    pub(crate) fn live_update(
        &mut self,
        connection: ConnectionId,
        message: &Message,
        words: &[&str],
    ) -> Option<Reply> {
        let Some(update) = &mut self.update else { return Some(Reply::Error(Errno::EINVAL)) };
        if update.started.is_some() {
            return Some(Reply::Error(Errno::EBUSY));
        }
        match *words {
            ["-f", file] => {
                let program = PathBuf::from(file);
                if !program.is_file() {
                    return Some(said(format!("{file} is not there or no file\n")));
                }
                *update = Update { program: Some(program), ..Update::default() };
                Some(Reply::Ok)
            }
            ["-c", arguments] => {
                update.arguments = Some(arguments.to_owned());
                Some(Reply::Ok)
            }
            ["-a"] => {
                *update = Update::default();
                Some(Reply::Ok)
            }
            ["-s", ref options @ ..] => {
                let Some(mut started) = read_options(options) else {
                    return Some(Reply::Error(Errno::EINVAL));
                };
                started.caller = connection;
                (started.request_id, started.tx_id) = (message.request_id, message.tx_id);
                update.started = Some(started);
                None
            }
            _ => Some(Reply::Error(Errno::EINVAL)),
        }
    }

    /// Whether a request has to wait until an update is made, or given up: no transaction starts before one that would lose
    /// it.
    pub(crate) fn is_held(&self, ty: MessageType) -> bool {
        ty == MessageType::TRANSACTION_START
            && self.update.as_ref().is_some_and(|update| update.started.is_some())
    }

    /// What is to be done about an update whose successor takes open transactions over, or does not.
    pub(crate) fn update_due(&mut self, now: Instant, takes_transactions: bool) -> Due {
        let open = self.open_transactions;
        let Some(started) = self.update.as_mut().and_then(|update| update.started.as_mut()) else {
            return Due::None;
        };
        let waited = now.duration_since(*started.since.get_or_insert(now));
        if takes_transactions || open == 0 {
            Due::Now
        } else if waited < started.timeout {
            Due::In(started.timeout - waited)
        } else if started.forced {
            Due::Now
        } else {
            Due::TooLate
        }
    }

    /// Whether an update is to be made.
    pub(crate) fn has_update(&self) -> bool {
        self.update.as_ref().is_some_and(|update| update.started.is_some())
    }

    /// Ends an update that is not made, and tells why.
    pub(crate) fn refuse_update(&mut self, why: String) {
        let Some(started) = self.update.as_mut().and_then(|update| {
            let started = update.started.take();
            *update = Update::default();
            started
        }) else {
            return;
        };
        tracing::warn!(why, "live update not made");
        let message = started.answers();
        self.reply(started.caller, &message, &said(why + "\n"));
    }
}

impl Started {
    /// The request that waits for an answer.
    fn answers(&self) -> Message {
        let (ty, payload) = (MessageType::CONTROL, Vec::new());
        Message { ty, request_id: self.request_id, tx_id: self.tx_id, payload }
    }

    /// The answer that the successor gives, as it stands on the wire.
    pub(crate) fn farewell(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        let max = crate::limits::PAYLOAD_MAX;
        let message = self.answers();
        // An answer of three octets fits.
        let _ = Reply::Ok.encode(message.ty, message.request_id, message.tx_id, max, &mut octets);
        octets
    }
}

fn read_options(words: &[&str]) -> Option<Started> {
    let mut started = Started {
        caller: ConnectionId::NONE,
        request_id: RequestId(0),
        tx_id: TxId::NONE,
        timeout: TIMEOUT,
        since: None,
        forced: false,
        version: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-F" => started.forced = true,
            "-t" => {
                started.timeout = Duration::from_secs(words.next()?.parse::<u32>().ok()?.into())
            }
            "-v" => {
                started.version = match *words.next()? {
                    "1" => Some(Version::V1),
                    "2" => Some(Version::V2),
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    Some(started)
}

fn said(text: String) -> Reply {
    Reply::Text(text.into_bytes())
}
