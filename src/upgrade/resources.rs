//! What a control plane brought, as a file that is in memory alone: it may be many megabytes, which no message holds.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::OwnedFd,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes that are believed to be such resources: all that may be held take less.
const BYTES_MAX: u64 = 1 << 30;

/// A file with these bytes.
///
/// # Errors
///
/// The system has no room for them.
pub(crate) fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("tidegate-xds", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// The bytes of such a file.
///
/// # Errors
///
/// It is no file, or holds more than it can.
pub(crate) fn from_memory(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > BYTES_MAX {
        true => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "more than 1 GiB",
        )),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: bytes of any number arrive, and what is no file is refused. Method: none, many, and a socket.
    #[test]
    fn bytes_arrive() {
        for len in [0, 1, 1 << 20] {
            let bytes = vec![7; len];
            assert_eq!(from_memory(in_memory(&bytes).unwrap()).unwrap(), bytes);
        }
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(from_memory(socket.into()).is_err());
    }
}
