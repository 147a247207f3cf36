//! Octets into lines.

/// Most octets of a line. The longest answer describes every node with all it rests on: under 1 KiB an image and, since every image
/// of a chain is told again under each above it, some 3 MiB for four disks with 32 images each.
pub const LINE_MAX: usize = 16 << 20;

/// Cuts what comes from a socket into lines, holding no more than came and no more than [`LINE_MAX`].
#[derive(Debug, Default)]
pub struct LineDecoder {
    held: Vec<u8>,
    /// Octets of `held` in which no end of line is.
    searched: usize,
}

/// A line is longer than [`LINE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {LINE_MAX} octets")]
pub struct LineTooLong;

impl LineDecoder {
    /// Takes what came.
    pub fn push(&mut self, octets: &[u8]) {
        self.held.extend_from_slice(octets);
    }

    /// The next complete line, without its end. Empty lines are passed over.
    ///
    /// # Errors
    ///
    /// If there is more than [`LINE_MAX`] without an end.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        loop {
            let found = self.held[self.searched..].iter().position(|octet| *octet == b'\n');
            let Some(end) = found.map(|found| self.searched + found) else {
                self.searched = self.held.len();
                return if self.searched > LINE_MAX { Err(LineTooLong) } else { Ok(None) };
            };
            if end > LINE_MAX {
                return Err(LineTooLong);
            }
            let rest = self.held.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.held, rest);
            self.searched = 0;
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_without_an_end_is_not_held_for_ever() {
        let mut decoder = LineDecoder::default();
        let piece = vec![b'x'; LINE_MAX];
        decoder.push(&piece);
        assert_eq!(decoder.next_line(), Ok(None));
        decoder.push(b"x");
        assert_eq!(decoder.next_line(), Err(LineTooLong));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_come(
            lines in prop::collection::vec("[a-z{}\"]{1,40}", 0..20),
            cuts in prop::collection::vec(1_usize..50, 1..10),
        ) {
            let octets: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\r\n\n").into_bytes()).collect();
            let mut decoder = LineDecoder::default();
            let (mut rest, mut cuts, mut found) = (&octets[..], cuts.iter().cycle(), Vec::new());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                decoder.push(piece);
                rest = later;
                while let Some(line) = decoder.next_line().unwrap() {
                    found.push(String::from_utf8(line).unwrap());
                }
            }
            prop_assert_eq!(found, lines);
        }

        #[test]
        fn any_octets_come_out_as_they_went_in(octets: Vec<u8>) {
            let mut decoder = LineDecoder::default();
            decoder.push(&octets);
            decoder.push(b"\n");
            let mut found = Vec::new();
            while let Some(line) = decoder.next_line().unwrap() {
                prop_assert!(!line.contains(&b'\n'));
                found.push(line);
            }
            let expected: Vec<_> = octets
                .split(|octet| *octet == b'\n')
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
                .filter(|line| !line.is_empty())
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
