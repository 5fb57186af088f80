//! The files that bring resources: looks whether they changed, and reads those that did on a thread for such things.
//!
//! A change is found by looking, not by notifications, so that it is found on every file system and behind the links of
//! a mounted ConfigMap. A file that was put in its place by a rename is read at once, as by Envoy, which goes by renames
//! alone; one that is written in place is read once two looks saw the same, when its writer is done. Where a
//! `watched_directory` is named only that is looked at: what moves into it comes into use together.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    ads,
    resources::RawResponse,
    response,
    source::{FileSource, OfFile},
};

/// Bytes of a file: those of a message of a stream.
const BYTES_MAX: usize = ads::MESSAGE_MAX;

/// All files of a client.
pub(crate) struct Files {
    /// Between two looks.
    pause: Duration,
    look_at: Instant,
    watched: BTreeMap<OfFile, Watch>,
    /// To be read.
    due: VecDeque<OfFile>,
    /// Is being read.
    reading: Option<(OfFile, JoinHandle<Result<RawResponse, String>>)>,
}

/// What was seen of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    read: Option<Stamp>,
    seen: Option<Stamp>,
}

/// What tells one content from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    bytes: u64,
    changed: (i64, i64),
}

impl Files {
    /// None yet.
    pub(crate) fn new(pause: Duration) -> Files {
        Files {
            pause,
            look_at: Instant::now(),
            watched: BTreeMap::new(),
            due: VecDeque::new(),
            reading: None,
        }
    }

    /// Watches these from now on, and reads those that are due, whether they have changed or not.
    pub(crate) fn follow<'a>(
        &mut self,
        wanted: impl Iterator<Item = &'a OfFile>,
        due: Vec<OfFile>,
    ) {
        let mut before = std::mem::take(&mut self.watched);
        let wanted = wanted.map(|of| {
            // What is not due was read a moment ago.
            let watch = before.remove(of).unwrap_or_else(|| Watch::of(&of.file));
            (of.clone(), watch)
        });
        self.watched = wanted.collect();
        for of in due {
            let now = stamp(of.file.watched());
            if let Some(watch) = self.watched.get_mut(&of) {
                (watch.read, watch.seen) = (now, now);
                self.due.push_back(of);
            }
        }
    }

    /// The next file that was read, and what it holds. Never comes back if there are none; may be dropped at any time.
    pub(crate) async fn next(&mut self) -> (OfFile, Result<RawResponse, String>) {
        loop {
            if let Some((of, reading)) = &mut self.reading {
                let read = reading.await.unwrap_or_else(|e| Err(e.to_string()));
                let of = of.clone();
                self.reading = None;
                return (of, read);
            }
            if let Some(of) = self.due.pop_front() {
                let file = of.file.clone();
                self.reading = Some((of, tokio::task::spawn_blocking(move || read(&file))));
                continue;
            }
            if self.watched.is_empty() {
                std::future::pending::<()>().await;
            }
            sleep_until(self.look_at).await;
            self.look();
            self.look_at = Instant::now() + self.pause;
        }
    }

    fn look(&mut self) {
        for (of, watch) in &mut self.watched {
            if watch.changed(stamp(of.file.watched())) {
                self.due.push_back(of.clone());
            }
        }
    }
}

impl Watch {
    /// Of a file that was just read.
    fn of(file: &FileSource) -> Watch {
        let now = stamp(file.watched());
        Watch {
            read: now,
            seen: now,
        }
    }

    /// Whether there is a finished change to read. Each is told once.
    fn changed(&mut self, now: Option<Stamp>) -> bool {
        let is_settled = now == self.seen;
        self.seen = now;
        // One that is gone is about to come back: what it held stays.
        let Some(stamp) = now else { return false };
        let is_another = self.read.is_none_or(|read| read.inode != stamp.inode);
        if self.read == now || !(is_settled || is_another) {
            return false;
        }
        self.read = now;
        true
    }
}

/// Follows symbolic links: one that points elsewhere is another file.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: (metadata.dev(), metadata.ino()),
        bytes: metadata.len(),
        // Moves with every change, of permissions too: a file that could not be read is tried again.
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Reads a whole file, but never more than a response may have and a byte: `/dev/zero` must not fill the memory.
pub(crate) fn read(file: &FileSource) -> Result<RawResponse, String> {
    let mut bytes = Vec::new();
    File::open(&*file.path)
        .and_then(|file| file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() > BYTES_MAX {
        return Err(format!("is larger than {} MiB", BYTES_MAX >> 20));
    }
    if file.is_binary() {
        return response::of_bytes(&bytes);
    }
    let text = String::from_utf8(bytes).map_err(|e| format!("is no text: {e}"))?;
    response::of_text(&text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        os::unix::fs::symlink,
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;
    use crate::subscription::ResourceType;

    /// An empty directory that is gone with its owner.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("tidegate-xds-files-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn put(&self, name: &str, text: &str) {
            fs::write(self.file(".new"), text).unwrap();
            fs::rename(self.file(".new"), self.file(name)).unwrap();
        }

        fn source(&self, name: &str, watched: Option<&str>) -> FileSource {
            let path = |name: &str| self.file(name).to_str().unwrap().into();
            FileSource {
                path: path(name),
                watched_directory: watched.map(path),
            }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Goal: a rename is seen at the next look, writing in place when it is done, a link that points elsewhere as
    /// another file, and what is gone is no change. Method: a file, looked at after each of these.
    #[test]
    fn changes_are_told_once() {
        let folder = Folder::new();
        let path = folder.file("a");
        let mut watch = Watch::default();
        let mut look = || watch.changed(stamp(&path));
        assert!(!look());
        folder.put("a", "1");
        assert!(look());
        assert!(!look());
        folder.put("a", "2");
        assert!(look(), "renamed");
        fs::write(&path, "three").unwrap();
        assert!(!look(), "is being written, perhaps");
        assert!(look());
        assert!(!look());
        fs::remove_file(&path).unwrap();
        assert!(!look());
        assert!(!look());
        fs::write(folder.file("v1"), "1").unwrap();
        symlink("v1", &path).unwrap();
        // It may have got the number of the one that is gone.
        assert!(look() || look(), "another file");
    }

    /// Goal: where a directory is watched, what is written into the file beside it is no change, and a move into the
    /// directory is one. Method: a file outside of the directory that is watched.
    #[test]
    fn directories_are_watched_instead() {
        let folder = Folder::new();
        fs::create_dir(folder.file("watched")).unwrap();
        folder.put("a", "1");
        let source = folder.source("a", Some("watched"));
        let mut watch = Watch::default();
        let mut look = || watch.changed(stamp(source.watched()));
        assert!(look());
        folder.put("a", "2");
        assert!(!look());
        assert!(!look());
        folder.put("watched/..data", "");
        assert!(!look());
        assert!(look());
    }

    /// Goal: what cannot be read is told, and nothing endless is read. Method: no file, a directory, an endless file,
    /// and files that end in what they are not.
    #[test]
    fn what_cannot_be_read_is_told() {
        let folder = Folder::new();
        let told = |path: &Path| {
            let source = FileSource {
                path: path.to_str().unwrap().into(),
                watched_directory: None,
            };
            read(&source).unwrap_err()
        };
        folder.put("text.pb", "resources: []");
        folder.put("bytes.yaml", "");
        fs::write(folder.file("bytes.yaml"), [0xff, 0xfe]).unwrap();
        for (path, why) in [
            (folder.file("none"), "cannot be read"),
            (folder.0.clone(), "cannot be read"),
            ("/dev/zero".into(), "is larger than 64 MiB"),
            (folder.file("text.pb"), "is no response"),
            (folder.file("bytes.yaml"), "is no text"),
        ] {
            let told = told(&path);
            assert!(told.starts_with(why), "{}: {told}", path.display());
        }
    }

    /// Goal: a file is read when it is first wanted, when it changed, and when it is asked for again. Method: one
    /// watcher, a file that changes, and one that is not wanted any more.
    #[tokio::test]
    async fn files_are_read_when_they_are_due() {
        let folder = Folder::new();
        folder.put("a", "version_info: '1'");
        let of = OfFile {
            resource_type: ResourceType::Cluster,
            file: folder.source("a", None),
        };
        let mut files = Files::new(Duration::from_millis(1));
        files.follow([&of].into_iter(), vec![of.clone()]);
        let version = |(read, response): (OfFile, Result<RawResponse, String>)| {
            assert_eq!(read, of);
            response.unwrap().version
        };
        assert_eq!(version(files.next().await), "1");
        folder.put("a", "version_info: '2'");
        assert_eq!(version(files.next().await), "2");
        files.follow([&of].into_iter(), vec![of.clone()]);
        assert_eq!(version(files.next().await), "2");
        files.follow([].into_iter(), Vec::new());
        folder.put("a", "version_info: '3'");
        let next = tokio::time::timeout(Duration::from_millis(20), files.next()).await;
        assert!(next.is_err());
    }
}
