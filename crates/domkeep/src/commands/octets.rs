//! Octets that a guest or a file chose, for a program.

use std::fmt::Write;

use serde::Serialize;

/// A value for a program: text as text, other octets in hexadecimal.
#[derive(Serialize)]
pub(super) enum Octets {
    #[serde(rename = "value")]
    Text(String),
    #[serde(rename = "value_hex")]
    Hex(String),
}

impl From<&[u8]> for Octets {
    fn from(octets: &[u8]) -> Self {
        match str::from_utf8(octets) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(hex(octets)),
        }
    }
}

/// Two digits an octet.
pub(super) fn hex(octets: &[u8]) -> String {
    let mut text = String::with_capacity(2 * octets.len());
    for octet in octets {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}
