//! Writing a configuration.

use crate::json::Layout;
use crate::model::DomainConfig;

impl DomainConfig {
    /// As JSON text. What was read and has not changed is written as it was, unknown keys included.
    ///
    /// Strings that were no valid UTF-8 show U+FFFD; [`DomainConfig::to_userdata`] gives their octets back.
    pub fn to_json(&self, layout: Layout) -> String {
        self.to_value().to_text(layout)
    }

    /// As libxl stores it: the text and a NUL, which its reader requires.
    pub fn to_userdata(&self, layout: Layout) -> Vec<u8> {
        let mut octets = self.to_value().to_octets(layout);
        octets.push(0);
        octets
    }
}
