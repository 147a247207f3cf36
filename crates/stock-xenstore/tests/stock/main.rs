//! Stock daemons and tools, fetched, started and filled. A test prints `skipped: NAME: reason` where they cannot be had.

// Under cfg(test), so that the lints see the helpers, too, as part of the tests.
#[cfg(test)]
mod daemons;
#[cfg(test)]
mod fetching;
#[cfg(test)]
mod filling;
#[cfg(test)]
mod guests;
#[cfg(test)]
mod live_update;
#[cfg(test)]
mod started;
