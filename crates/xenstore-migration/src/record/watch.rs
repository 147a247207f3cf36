//! WATCH_DATA and WATCH_DATA_EXTENDED.

use super::ConnectionId;

/// A watch of a connection that has been told of before, on everything at and below its path.
///
/// ```text
/// octet  0            4              6              8
///        conn-id u32  wpath-len u16  token-len u16  wpath, token; both with NUL, which the lengths count
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchData<'a> {
    /// Whose.
    pub connection: ConnectionId,
    /// What is watched, as WATCH was given it: absolute, relative or special. Without the NUL; at most 65534 octets.
    pub path: &'a [u8],
    /// What comes with each event. Without the NUL; at most 65534 octets.
    pub token: &'a [u8],
}

/// A watch with a depth, in version 2.
///
/// ```text
/// octet  0            4              6              8          10      12
///        conn-id u32  wpath-len u16  token-len u16  depth u16  zeros   wpath, token; both with NUL
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchExtendedData<'a> {
    /// Whose.
    pub connection: ConnectionId,
    /// How far below the path.
    pub depth: WatchDepth,
    /// What is watched. Without the NUL; at most 65534 octets.
    pub path: &'a [u8],
    /// What comes with each event. Without the NUL; at most 65534 octets.
    pub token: &'a [u8],
}

/// How many levels below its path a watch covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchDepth {
    /// So many; 0 is the node itself alone. 65535 cannot be written and is taken for no limit.
    Levels(u16),
    /// All; on the wire 65535.
    Unlimited,
    /// The record did not say: C xenstored writes extended watches without the field.
    Untold,
}
