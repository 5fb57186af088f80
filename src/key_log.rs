//! The file of `--unsafe-key-log`: the secrets of all TLS connections, for whoever captures packets on this host.
//! Written by a thread of its own; there is no other way to switch it on.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
    thread,
};

use nix::fcntl::OFlag;
use serde_json::{Value, json};
use tidegate_shard::tls::{KeyLog, KeyLogLine};

use crate::exit::{Exit, Failure};

/// For this user alone.
const MODE: u32 = 0o600;

/// What is written, and where.
#[derive(Clone, Debug)]
pub(crate) struct KeyLogFile {
    path: PathBuf,
    log: KeyLog,
    lines: Arc<AtomicU64>,
}

impl KeyLogFile {
    /// Opens the file, behind what is in it, and says loudly what that means.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or made this user's alone.
    pub(crate) fn open(path: &Path) -> Result<KeyLogFile, Failure> {
        let file = open(path).map_err(|error| {
            Failure::new(
                Exit::Runtime,
                format!(
                    "--unsafe-key-log: cannot write `{}`: {error}",
                    path.display()
                ),
                "name a regular file of this user's, in a directory where it may write",
            )
        })?;
        let (log, received) = KeyLog::new();
        let lines = Arc::default();
        let opened = KeyLogFile {
            path: path.to_owned(),
            log,
            lines,
        };
        let writer = opened.clone();
        thread::Builder::new()
            .name("key-log".into())
            .spawn(move || writer.write(file, received))?;
        tracing::warn!(
            "UNSAFE: the keys of all TLS connections are written to `{}`: who reads it reads everything that is \
             sent; restart without --unsafe-key-log and delete the file",
            path.display()
        );
        Ok(opened)
    }

    /// Where connections leave their secrets.
    pub(crate) fn log(&self) -> &KeyLog {
        &self.log
    }

    /// For `/encryption`.
    pub(crate) fn view(&self) -> Value {
        json!({
            "path": self.path.display().to_string(),
            "lines": self.lines.load(Ordering::Relaxed),
            "lines_dropped": self.log.dropped(),
        })
    }

    fn write(&self, mut file: File, received: Receiver<KeyLogLine>) {
        for line in received {
            if let Err(error) = file.write_all(line.as_bytes()) {
                tracing::error!("key log `{}` ends: {error}", self.path.display());
                return;
            }
            self.lines.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    // Not through a link that somebody else may have laid, and not waiting for the reader of a pipe.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(flags.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: the file is this user's alone, whatever it was before, and nothing but a regular file is taken. Method:
    /// one that is not there, one that all may read, a link, a device.
    #[test]
    fn the_file_is_private() {
        let folder = std::env::temp_dir().join(format!("tidegate-key-log-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (new, open_to_all, link) =
            (folder.join("new"), folder.join("old"), folder.join("link"));
        fs::write(&open_to_all, "kept\n").unwrap();
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o644)).unwrap();
        for path in [&new, &open_to_all] {
            open(path).unwrap().write_all(b"line\n").unwrap();
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                MODE
            );
        }
        assert_eq!(fs::read_to_string(&open_to_all).unwrap(), "kept\nline\n");
        std::os::unix::fs::symlink(&new, &link).unwrap();
        assert!(open(&link).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
