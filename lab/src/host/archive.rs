//! The cpio archives ("newc") that Linux unpacks into its first file system.
//!
//! The format is in Linux's `Documentation/driver-api/early-userspace/buffer-format.rst`.

/// Files and directories, in the order in which they are given.
#[derive(Debug, Default)]
pub(super) struct Archive {
    octets: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TRAILER: &str = "TRAILER!!!";
/// Of a header, of its name, and of the file's octets.
const ALIGNMENT: usize = 4;

impl Archive {
    /// A directory; its parent must have been added.
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, &[]);
    }

    /// A file that may be run; its directory must have been added.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, PROGRAM, contents);
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.octets
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(contents.len()).expect("files of an initramfs are below 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("paths are short");
        self.octets.extend(b"070701");
        // ino, mode, uid, gid, nlink, mtime, filesize, dev and rdev as major and minor, namesize, check
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0] {
            self.octets.extend(format!("{field:08x}").as_bytes());
        }
        self.octets.extend(path.as_bytes());
        self.octets.push(0);
        self.align();
        self.octets.extend(contents);
        self.align();
    }

    fn align(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_as_the_kernel_reads_them() {
        let mut archive = Archive::default();
        archive.directory("d");
        archive.file("d/init", b"hello");
        let octets = archive.finish();
        let text = String::from_utf8(octets.clone()).unwrap();
        // One header a record: magic and 13 fields of 8 digits.
        let headers: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(headers.len(), 3);
        assert!(headers.iter().all(|at| at % 4 == 0), "{headers:?}");
        assert_eq!(octets.len() % 4, 0);
        let field = |record: usize, number: usize| {
            let start = headers[record] + 6 + 8 * number;
            u32::from_str_radix(&text[start..start + 8], 16).unwrap()
        };
        let (mode, size, name_size) = (1, 6, 11);
        assert_eq!([field(0, mode), field(1, mode)], [0o040_755, 0o100_755]);
        assert_eq!([field(1, size), field(1, name_size)], [5, 7]);
        assert_ne!(field(0, 0), field(1, 0), "two files of one number are links to each other");
        let name = headers[1] + 110;
        assert_eq!(&text[name..name + 7], "d/init\0");
        let contents = (name + 7).next_multiple_of(4);
        assert_eq!(&text[contents..contents + 8], "hello\0\0\0");
        assert!(text[headers[2]..].contains("TRAILER!!!\0"));
    }
}
