//! The last good resources on disk, for a start while no control plane answers. The file is a
//! `DeltaDiscoveryResponse` of resources of every type, with their names and versions: what anybody can read who can
//! read the protocol. There are no secrets in it, since none are taken.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{pb, resources::RawResource};

/// Bytes of a file that is believed to be one of ours: all the resources that may be held take less.
const BYTES_MAX: u64 = 1 << 30;

/// Reads what was written.
///
/// # Errors
///
/// It cannot be read, or is something else.
pub(crate) fn read(path: &Path) -> io::Result<Vec<RawResource>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    decode(&bytes)
}

/// The same from bytes.
///
/// # Errors
///
/// They are something else.
pub(crate) fn decode(bytes: &[u8]) -> io::Result<Vec<RawResource>> {
    pb::decode_kept(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes all or nothing: whoever reads sees one state or the next. Not synced: a machine that loses its power has
/// the state before, or an empty file, and asks its control plane.
///
/// # Errors
///
/// It cannot be written.
pub(crate) fn write(path: &Path, resources: Vec<RawResource>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&temporary)?
        .write_all(&pb::encode_kept(resources))?;
    fs::rename(&temporary, path)
}
