//! What a connection has still to be told.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Octets that a connection without output keeps room for.
const KEPT_OCTETS: usize = 16 << 10;

/// Messages not yet taken, in order.
///
/// An event that is waiting already is not queued again, unless a reply stands between the two: a client that reads
/// the reply may rely on hearing of every change after it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The messages one after the other, as they stand on the wire; those before `taken` are gone.
    octets: Vec<u8>,
    taken: usize,
    queue: VecDeque<(Kind, usize)>,
    replies: usize,
    /// The events behind the last reply.
    trailing: HashSet<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reply,
    Event,
}

impl Output {
    /// Queues the reply that `encode` appends.
    pub(crate) fn push_reply(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        self.trailing.clear();
        self.replies += 1;
        let start = self.octets.len();
        encode(&mut self.octets);
        self.queue.push_back((Kind::Reply, self.octets.len() - start));
    }

    /// Queues an event, unless it `may_merge` and the same one is waiting that may.
    pub(crate) fn push_event(&mut self, message: &[u8], may_merge: bool) {
        if may_merge {
            if self.trailing.contains(message) {
                return;
            }
            self.trailing.insert(message.into());
        }
        self.octets.extend_from_slice(message);
        self.queue.push_back((Kind::Event, message.len()));
    }

    /// Takes the next message.
    pub(crate) fn pop(&mut self) -> Option<Arc<[u8]>> {
        let (kind, len) = self.queue.pop_front()?;
        let end = self.taken + len;
        let message = Arc::from(&self.octets[self.taken..end]);
        self.count_out(kind, end);
        self.tidy();
        Some(message)
    }

    /// Takes messages as long as there are fewer than `enough` octets.
    pub(crate) fn take_into(&mut self, out: &mut Vec<u8>, enough: usize) {
        let start = self.taken;
        let mut end = start;
        while out.len() + end - start < enough
            && let Some((kind, len)) = self.queue.pop_front()
        {
            end += len;
            self.count_out(kind, end);
        }
        out.extend_from_slice(&self.octets[start..end]);
        self.tidy();
    }

    /// What waits, as it stands on the wire.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.octets[self.taken..]
    }

    /// Octets waiting.
    pub(crate) fn octets(&self) -> usize {
        self.octets.len() - self.taken
    }

    /// How many replies are waiting.
    pub(crate) fn replies(&self) -> usize {
        self.replies
    }

    /// The message that ends at `end` is taken.
    fn count_out(&mut self, kind: Kind, end: usize) {
        match kind {
            Kind::Reply => self.replies -= 1,
            Kind::Event if !self.trailing.is_empty() => {
                self.trailing.remove(&self.octets[self.taken..end]);
            }
            Kind::Event => {}
        }
        self.taken = end;
    }

    fn tidy(&mut self) {
        if self.queue.is_empty() {
            self.octets.clear();
            self.octets.shrink_to(KEPT_OCTETS);
            self.taken = 0;
        } else if self.taken >= self.octets.len() / 2 {
            self.octets.drain(..self.taken);
            self.taken = 0;
        }
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
            output.push_event(&[event], true);
        }
        output.push_reply(|out| out.push(b'R'));
        output.push_event(b"e", true);
        output.push_event(b"e", true);
        assert_eq!((output.octets(), output.replies()), (4, 1));
        assert_eq!(drain(&mut output), b"efRe");
        output.push_event(b"e", true);
        output.push_event(b"e", false);
        assert_eq!(drain(&mut output), b"ee");
        assert_eq!((output.octets(), output.replies()), (0, 0));
    }

    #[test]
    fn messages_taken_together_are_those_taken_one_by_one() {
        let fill = || {
            let mut output = Output::default();
            for number in 0..9 {
                output.push_event(b"event", true);
                output.push_reply(|out| out.extend_from_slice(&[number; 3]));
                output.push_event(b"event", true);
            }
            output
        };
        let mut one_by_one = Vec::new();
        let mut output = fill();
        while let Some(message) = output.pop() {
            one_by_one.extend_from_slice(&message);
        }
        for enough in [1, 7, 1000] {
            let (mut output, mut together) = (fill(), Vec::new());
            while output.octets() > 0 {
                let mut part = Vec::new();
                output.take_into(&mut part, enough);
                assert!(part.len() < enough + 5 && !part.is_empty());
                together.append(&mut part);
            }
            assert_eq!(together, one_by_one);
            assert_eq!(output.replies(), 0);
            output.push_event(b"event", true);
            assert_eq!(output.octets(), 5, "what was taken is not waiting");
        }
    }
}
