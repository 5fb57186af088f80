//! Watches files by looking at them: works on every file system, with every editor and with the symbolic
//! links of a mounted ConfigMap or Secret, where notifications do not.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Files that are used together.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    paths: Vec<PathBuf>,
    gone: Gone,
    /// What is in use was read from these.
    used: Vec<Option<Stamp>>,
    /// What the last look saw; a change counts once two looks saw the same, when its writer is done.
    seen: Vec<Option<Stamp>>,
}

/// What it means that a file is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It is being replaced: no change until it is back.
    Replaced,
    /// A change like others.
    Changed,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    /// Also moves when permissions do: a file that could not be read is tried again.
    changed: (i64, i64),
    bytes: u64,
    device: u64,
    inode: u64,
}

impl Watch {
    /// Begins to watch `paths`; what they hold now counts as used.
    pub(crate) fn new(paths: Vec<PathBuf>, gone: Gone) -> Watch {
        let now = stamps(&paths);
        Watch {
            paths,
            gone,
            used: now.clone(),
            seen: now,
        }
    }

    /// What the files hold now is about to be loaded. Called before the loading: a change in between is then
    /// told.
    pub(crate) fn taken(&mut self) {
        self.used = stamps(&self.paths);
        self.seen.clone_from(&self.used);
    }

    /// Looks once; whether there is a finished change to load. Each change is told once.
    pub(crate) fn changed(&mut self) -> bool {
        let now = stamps(&self.paths);
        let settled = now == self.seen;
        self.seen = now;
        let gone = self.gone == Gone::Replaced && self.seen.contains(&None);
        if !settled || gone || self.seen == self.used {
            return false;
        }
        self.used.clone_from(&self.seen);
        true
    }

    /// Whether the files have moved on since [`Self::taken`] or [`Self::changed`]: what was read in
    /// between may be a mixture.
    pub(crate) fn has_moved(&self) -> bool {
        stamps(&self.paths) != self.used
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

/// Follows symbolic links: one that points elsewhere is another content.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        bytes: metadata.len(),
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// An empty directory that is gone with its owner.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("tidegate-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Goal: a change is told once, and only when its writer is done. Method: write, look and write
    /// again in every order that matters.
    #[test]
    fn changes_are_told_once_and_settled() {
        let folder = Folder::new("watch");
        let path = folder.file("a");
        fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(vec![path.clone()], Gone::Replaced);
        assert!(!watch.changed());
        fs::write(&path, "ab").unwrap();
        assert!(!watch.changed(), "still being written, perhaps");
        fs::write(&path, "abc").unwrap();
        assert!(!watch.changed(), "was being written");
        assert!(watch.changed());
        assert!(!watch.changed(), "told already");
        fs::remove_file(&path).unwrap();
        assert!(!watch.changed());
        assert!(!watch.changed(), "gone is not a change");
        fs::write(&path, "abcd").unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
        fs::write(&path, "abcde").unwrap();
        watch.taken();
        assert!(!watch.changed());
        assert!(!watch.changed(), "loaded for another cause");
    }

    /// Goal: files that are used together change together, and one that is gone is told where that matters.
    /// Method: a pair of which one is renamed over, removed, and given other permissions.
    #[test]
    fn any_of_several_is_a_change() {
        let folder = Folder::new("watch-pair");
        let (a, b) = (folder.file("a"), folder.file("b"));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        let mut watch = Watch::new(vec![a.clone(), b.clone()], Gone::Changed);
        let mut told = |what: &str| {
            assert!(!watch.changed(), "{what}");
            assert!(watch.changed(), "{what}");
            assert!(!watch.changed(), "{what}");
        };
        fs::write(folder.file("new"), "b").unwrap();
        fs::rename(folder.file("new"), &b).unwrap();
        told("renamed over, with the same content");
        fs::remove_file(&a).unwrap();
        told("gone");
        fs::write(&a, "a").unwrap();
        told("back");
        fs::set_permissions(&a, fs::Permissions::from_mode(0o600)).unwrap();
        told("may be read now");
        assert!(!watch.has_moved());
        fs::write(&a, "aa").unwrap();
        assert!(watch.has_moved());
    }

    /// Goal: the swap of a mounted Secret is seen: the files are links through a directory that is itself a
    /// link, and only that is replaced. Method: such a tree, swapped by a rename.
    #[test]
    fn swapped_links_are_a_change() {
        let folder = Folder::new("watch-links");
        for version in ["v1", "v2"] {
            fs::create_dir(folder.file(version)).unwrap();
            fs::write(folder.file(version).join("key"), "same length").unwrap();
        }
        symlink("v1", folder.file("..data")).unwrap();
        symlink("..data/key", folder.file("key")).unwrap();
        let mut watch = Watch::new(vec![folder.file("key")], Gone::Changed);
        symlink("v2", folder.file("..data_tmp")).unwrap();
        fs::rename(folder.file("..data_tmp"), folder.file("..data")).unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
        assert!(!watch.changed());
    }
}
