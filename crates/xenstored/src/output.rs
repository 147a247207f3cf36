//! What a connection has still to be told.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Messages not yet taken, in order.
///
/// An event that is waiting already is not queued again, unless a reply stands between the two: a client that reads
/// the reply may rely on hearing of every change after it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    queue: VecDeque<(Kind, Arc<[u8]>)>,
    octets: usize,
    replies: usize,
    /// The events behind the last reply.
    trailing: HashSet<Arc<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reply,
    Event,
}

impl Output {
    pub(crate) fn push_reply(&mut self, message: Vec<u8>) {
        self.trailing.clear();
        self.replies += 1;
        self.push(Kind::Reply, message.into());
    }

    /// Queues an event, unless it `may_merge` and the same one is waiting that may.
    pub(crate) fn push_event(&mut self, message: Vec<u8>, may_merge: bool) {
        let message: Arc<[u8]> = message.into();
        if !may_merge || self.trailing.insert(Arc::clone(&message)) {
            self.push(Kind::Event, message);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Arc<[u8]>> {
        let (kind, message) = self.queue.pop_front()?;
        self.octets -= message.len();
        match kind {
            Kind::Reply => self.replies -= 1,
            Kind::Event => {
                self.trailing.remove(&message);
            }
        }
        Some(message)
    }

    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    /// How many replies are waiting.
    pub(crate) fn replies(&self) -> usize {
        self.replies
    }

    fn push(&mut self, kind: Kind, message: Arc<[u8]>) {
        self.octets += message.len();
        self.queue.push_back((kind, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(output: &mut Output) -> Vec<u8> {
        std::iter::from_fn(|| output.pop()).map(|message| message[0]).collect()
    }

    #[test]
    fn a_waiting_event_is_not_queued_again_until_a_reply_follows_it() {
        let mut output = Output::default();
        for event in *b"eefe" {
            output.push_event(vec![event], true);
        }
        output.push_reply(b"R".to_vec());
        output.push_event(b"e".to_vec(), true);
        output.push_event(b"e".to_vec(), true);
        assert_eq!((output.octets(), output.replies()), (4, 1));
        assert_eq!(drain(&mut output), b"efRe");
        output.push_event(b"e".to_vec(), true);
        output.push_event(b"e".to_vec(), false);
        assert_eq!(drain(&mut output), b"ee");
        assert_eq!((output.octets(), output.replies()), (0, 0));
    }
}
