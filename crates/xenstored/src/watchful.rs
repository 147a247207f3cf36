//! Whether a loop that has nothing to do sleeps or looks again.

use std::time::{Duration, Instant};

/// How long to look before sleeping.
const LOOKS_FOR: Duration = Duration::from_micros(100);

/// It pays to look if the last thing came sooner than this: the time to look, and that which being woken takes.
const PAYS_WITHIN: Duration = Duration::from_micros(250);

/// Says when a loop that waits for requests looks again at once instead of sleeping.
///
/// To be woken takes a processor that idles tens of microseconds, a virtual one more: as long as twenty requests. A client that asks
/// again as soon as it is answered waits for that every time. So where the last request came soon after the one before, the next
/// one is looked for; where it did not, the loop sleeps at once, and costs nothing.
#[derive(Debug)]
pub(crate) struct Watchful {
    /// Somebody else can work meanwhile.
    has_room: bool,
    idle_since: Option<Instant>,
    pays: bool,
}

impl Watchful {
    pub(crate) fn new(processors: usize) -> Self {
        Self { has_room: processors > 1, idle_since: None, pays: false }
    }

    /// There is nothing to do: whether to look again at once.
    pub(crate) fn looks_again(&mut self, now: Instant) -> bool {
        let since = *self.idle_since.get_or_insert(now);
        self.pays && now.duration_since(since) < LOOKS_FOR
    }

    /// There is something to do.
    pub(crate) fn found(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(since) = self.idle_since.take() {
            self.pays = self.has_room && now().duration_since(since) < PAYS_WITHIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it looks at first, after so long, and where it stops.
    fn looks(watchful: &mut Watchful, from: Instant) -> [bool; 3] {
        [Duration::ZERO, LOOKS_FOR / 2, LOOKS_FOR].map(|after| watchful.looks_again(from + after))
    }

    #[test]
    fn it_looks_for_a_while_where_requests_come_close_together_and_nowhere_else() {
        let begin = Instant::now();
        let mut watchful = Watchful::new(2);
        assert_eq!(looks(&mut watchful, begin), [false; 3], "nothing has come yet");
        watchful.found(|| begin + PAYS_WITHIN / 2);
        assert_eq!(looks(&mut watchful, begin + PAYS_WITHIN), [true, true, false]);
        // What comes while there is something to do says nothing.
        watchful.found(|| begin + PAYS_WITHIN + LOOKS_FOR);
        watchful.found(|| begin + 10 * PAYS_WITHIN);
        assert_eq!(looks(&mut watchful, begin + 10 * PAYS_WITHIN), [true, true, false]);
        watchful.found(|| begin + 20 * PAYS_WITHIN);
        assert_eq!(looks(&mut watchful, begin + 20 * PAYS_WITHIN), [false; 3], "long silence");
    }

    #[test]
    fn on_a_single_processor_it_leaves_that_to_the_others() {
        let begin = Instant::now();
        let mut watchful = Watchful::new(1);
        watchful.looks_again(begin);
        watchful.found(|| begin);
        assert_eq!(looks(&mut watchful, begin), [false; 3]);
    }
}
