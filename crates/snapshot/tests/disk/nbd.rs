//! As much of an NBD client as writes a disk: the fixed newstyle handshake and the simple replies of the protocol's
//! specification (NetworkBlockDevice/nbd, doc/proto.md).

use std::io::{Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const FIXED_NEWSTYLE_NO_ZEROES: u32 = 3;
const OPTION_EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const WRITE: u16 = 1;

pub(crate) struct NbdDisk {
    stream: UnixStream,
    cookie: u64,
}

impl NbdDisk {
    pub(crate) fn open(socket: &Path, export: &str) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        let mut request = FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes().to_vec();
        request.extend(b"IHAVEOPT");
        request.extend(OPTION_EXPORT_NAME.to_be_bytes());
        request.extend(u32::try_from(export.len()).unwrap().to_be_bytes());
        request.extend(export.as_bytes());
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap(); // size and flags
        Self { stream, cookie: 0 }
    }

    /// Writes and waits until it is done.
    pub(crate) fn write(&mut self, at: u64, octets: &[u8]) -> Result<()> {
        self.cookie += 1;
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend(0_u16.to_be_bytes());
        request.extend(WRITE.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(at.to_be_bytes());
        request.extend(u32::try_from(octets.len()).unwrap().to_be_bytes());
        request.extend(octets);
        self.stream.write_all(&request)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        assert_eq!(reply[..4], REPLY_MAGIC.to_be_bytes());
        assert_eq!(reply[8..], self.cookie.to_be_bytes());
        match &reply[4..8] {
            [0, 0, 0, 0] => Ok(()),
            error => Err(std::io::Error::other(format!("the server tells error {error:?}"))),
        }
    }
}
