//! Reads the files of a secret: bounded, without ever waiting, and without leaving copies of keys behind
//! (E9).

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use nix::fcntl::OFlag;
use tidegate_core::{
    config::model::Secret,
    encryption::secret::{Material, SecretFault, SecretPart},
};
use zeroize::Zeroizing;

/// Bytes of a file of certificates or of a key. The bundle that browsers ship has 200 KiB.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// Bytes of a file of revocations; those of large public authorities have a few MiB.
const CRL_BYTES_MAX: u64 = 64 << 20;

/// Permission bits of others to read.
const OTHERS_READ: u32 = 0o004;

/// What a secret's files hold, and what is doubtful about them.
#[derive(Debug)]
pub(super) struct Content {
    /// Unchecked.
    pub(super) material: Material,
    /// For the log.
    pub(super) warnings: Vec<String>,
}

/// Reads all files of `secret`.
pub(super) fn read(secret: &Secret) -> Result<Content, SecretFault> {
    let mut warnings = Vec::new();
    let material = match secret {
        Secret::Certificate {
            certificate,
            private_key,
        } => {
            let key = read_part(SecretPart::PrivateKey, private_key)?;
            if key.mode & OTHERS_READ != 0 {
                warnings.push(format!(
                    "`{private_key}` holds a private key and every user of this host may read it \
                     (mode {:04o}): chmod o= it",
                    key.mode & 0o7777
                ));
            }
            let chain = read_part(SecretPart::Certificate, certificate)?;
            Material::Certificate {
                chain: without_keys(&chain.bytes),
                private_key: Arc::new(key.bytes),
            }
        }
        Secret::TrustedCa {
            certificates,
            crl,
            expired_crl,
        } => Material::TrustedCa {
            certificates: without_keys(&read_part(SecretPart::TrustedCa, certificates)?.bytes),
            crl: match crl {
                Some(crl) => Some(read_part(SecretPart::Crl, crl)?.bytes.as_slice().into()),
                None => None,
            },
            expired_crl: *expired_crl,
        },
    };
    Ok(Content { material, warnings })
}

struct Part {
    bytes: Zeroizing<Vec<u8>>,
    mode: u32,
}

fn read_part(part: SecretPart, path: &str) -> Result<Part, SecretFault> {
    let limit = match part {
        SecretPart::Crl => CRL_BYTES_MAX,
        _ => PEM_BYTES_MAX,
    };
    read_file(Path::new(path), limit).map_err(|(cause, remedy)| SecretFault {
        part,
        cause,
        remedy,
    })
}

/// Cause and remedy.
type Unreadable = (String, String);

fn read_file(path: &Path, limit: u64) -> Result<Part, Unreadable> {
    // Without waiting: opening a named pipe would, until somebody writes to it.
    let opened = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let mut file = opened.map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err((
            "it is not a regular file".into(),
            "name a file; pipes and directories cannot be watched".into(),
        ));
    }
    if metadata.len() > limit {
        return Err((
            format!("it has {} bytes, more than {limit}", metadata.len()),
            "name the PEM file itself".into(),
        ));
    }
    let bytes = read_exactly(&mut file, metadata.len()).map_err(|error| unreadable(&error))?;
    Ok(Part {
        bytes,
        mode: metadata.mode(),
    })
}

/// Reads a file of `len` bytes into memory that is wiped. The buffer never grows: a growing vector leaves
/// copies of what it held behind.
fn read_exactly(file: &mut impl Read, len: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    // One byte more shows whether the file goes on.
    let mut bytes = Zeroizing::new(vec![0; len + 1]);
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled != len {
        return Err(io::Error::other("it is being written just now"));
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> Unreadable {
    match error.kind() {
        io::ErrorKind::NotFound => (
            "there is no such file".into(),
            "write it, or correct the path".into(),
        ),
        io::ErrorKind::PermissionDenied => (
            "this process may not read it".into(),
            "give its user or group the right to read it: chgrp, then chmod 0640".into(),
        ),
        _ => (
            format!("it cannot be read: {error}"),
            "look at the file".into(),
        ),
    }
}

/// PEM without its private keys. Files that hold a certificate and its key together are named twice; only
/// what is read as the key lies in memory that is wiped.
fn without_keys(pem: &[u8]) -> Arc<[u8]> {
    let mut kept = Vec::with_capacity(pem.len());
    let mut in_key = false;
    for line in pem.split_inclusive(|byte| *byte == b'\n') {
        let trimmed = line.trim_ascii();
        let is_key = trimmed.ends_with(b"PRIVATE KEY-----");
        in_key |= is_key && trimmed.starts_with(b"-----BEGIN ");
        if !in_key {
            kept.extend_from_slice(line);
        }
        in_key &= !(is_key && trimmed.starts_with(b"-----END "));
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn temporary(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("tidegate-{}-files-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    /// Goal: what is no readable file is refused in words, and nothing ever waits or fills the memory. Method:
    /// a missing file, a directory, a pipe that nobody writes, a device and a file above the limit.
    #[test]
    fn unreadable_files_are_refused() {
        let pipe = temporary("pipe");
        mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
        let large = temporary("large");
        let file = File::create(&large).unwrap();
        for (path, cause) in [
            (Path::new("/nonexistent.pem"), "there is no such file"),
            (&std::env::temp_dir(), "it is not a regular file"),
            (&pipe, "it is not a regular file"),
            (Path::new("/dev/zero"), "it is not a regular file"),
        ] {
            let Err((said, remedy)) = read_file(path, 10) else {
                panic!("{} was read", path.display());
            };
            assert_eq!(said, cause);
            assert!(!remedy.is_empty());
        }
        for (bytes, fits) in [(0, true), (10, true), (11, false)] {
            file.set_len(bytes).unwrap();
            assert_eq!(read_file(&large, 10).is_ok(), fits, "{bytes}");
        }
        fs::remove_file(pipe).unwrap();
        fs::remove_file(large).unwrap();
    }

    /// Goal: a file that grows or shrinks while it is read is not taken for whole. Method: readers of
    /// another length than announced.
    #[test]
    fn half_written_files_are_not_taken() {
        for (held, announced, is_whole) in [(4, 4, true), (3, 4, false), (5, 4, false)] {
            let read = read_exactly(&mut &vec![7; held][..], announced);
            assert_eq!(read.is_ok(), is_whole, "{held} of {announced}");
        }
    }

    /// Goal: a key that stands beside a certificate stays out of memory that is not wiped. Method: PEM with
    /// keys of every name, in both line endings, one of them without an end.
    #[test]
    fn keys_are_left_out_of_chains() {
        let pem = "# leaf\n-----BEGIN CERTIFICATE-----\nC1\n-----END CERTIFICATE-----\n\
                   -----BEGIN EC PRIVATE KEY-----\r\nK1\r\n-----END EC PRIVATE KEY-----\r\n\
                   -----BEGIN PRIVATE KEY-----\nK2\n-----END PRIVATE KEY-----\n\
                   -----BEGIN CERTIFICATE-----\nC2\n-----END CERTIFICATE-----\n\
                   -----BEGIN RSA PRIVATE KEY-----\nK3\n";
        let kept = without_keys(pem.as_bytes());
        let kept = std::str::from_utf8(&kept).unwrap();
        assert!(kept.contains("C1") && kept.contains("C2"), "{kept}");
        assert!(!kept.contains('K'), "{kept}");
        assert_eq!(&*without_keys(b"no PEM at all"), b"no PEM at all");
    }

    /// Goal: a key that everybody may read is served, with a warning that says how to mend it. Method: two
    /// permissions.
    #[test]
    fn readable_keys_are_warned_of() {
        let (certificate, key) = (temporary("certificate"), temporary("key"));
        fs::write(&certificate, "chain").unwrap();
        fs::write(&key, "key").unwrap();
        let secret = Secret::Certificate {
            certificate: certificate.to_str().unwrap().into(),
            private_key: key.to_str().unwrap().into(),
        };
        for (mode, warns) in [(0o640, false), (0o644, true)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            let content = read(&secret).unwrap();
            assert_eq!(content.warnings.len(), usize::from(warns), "{mode:o}");
            assert!(content.warnings.iter().all(|w| w.contains("0644")));
        }
        fs::remove_file(certificate).unwrap();
        fs::remove_file(key).unwrap();
    }
}
