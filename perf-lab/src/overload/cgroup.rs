//! A control group with a CPU quota for the application, where the machine lets us make one: version 2,
//! or the hierarchies of version 1, where what limits CPU time, what counts it and what tells of pressure
//! are mounted apart.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Where the kernel shows them.
const MOUNT: &str = "/sys/fs/cgroup";
/// A tenth of the usual: the application stands still for milliseconds and not for a twentieth of a second,
/// as on a machine of its own that is as slow.
const PERIOD_US: u32 = 10_000;
/// A hundred times of what groups and processes have by default: the quota is what the application gets,
/// whoever else wants the core. The most that version 2 has.
const WEIGHT_V2: &str = "10000";
const SHARES_V1: &str = "102400";
/// A process that has ended leaves its group a moment later.
const EMPTY_TRIES: u32 = 50;

/// Which kind of groups there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One hierarchy for everything.
    V1,
    /// One for each controller.
    V2,
}

/// A group, in each hierarchy that is of use. Removed when dropped; by then it must be empty.
#[derive(Debug)]
pub struct Group {
    /// Which kind.
    pub version: Version,
    directories: Vec<PathBuf>,
}

impl Group {
    /// A group whose processes get so many CPUs' worth of time; an error if the machine refuses.
    pub fn create(name: &str, cpus: f64) -> io::Result<Group> {
        Group::create_below(Path::new(MOUNT), name, cpus)
    }

    fn create_below(mount: &Path, name: &str, cpus: f64) -> io::Result<Group> {
        let quota_us = (cpus * f64::from(PERIOD_US)).round();
        if mount.join("cgroup.controllers").exists() {
            // Where it is on already, or may not be switched on, the next step tells.
            let _ = fs::write(mount.join("cgroup.subtree_control"), "+cpu");
            let group = Group::made(Version::V2, vec![mount.join(name)])?;
            group.write("cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
            group.write("cpu.weight", WEIGHT_V2)?;
            return Ok(group);
        }
        let below = |controller: &str| mount.join(controller);
        // Pressure is only known in the hierarchy of version 2, which may be mounted beside.
        let hierarchies = ["cpu", "cpuacct", "unified"].map(below);
        let there = hierarchies
            .into_iter()
            .filter(|hierarchy| hierarchy.is_dir());
        let group = Group::made(Version::V1, there.map(|it| it.join(name)).collect())?;
        group.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        group.write("cpu.cfs_quota_us", &quota_us.to_string())?;
        group.write("cpu.shares", SHARES_V1)?;
        Ok(group)
    }

    fn made(version: Version, directories: Vec<PathBuf>) -> io::Result<Group> {
        let group = Group {
            version,
            directories,
        };
        for directory in &group.directories {
            match fs::create_dir(directory) {
                // `cpu` and `cpuacct` are often two names of one.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(group)
    }

    /// The controller of CPU time comes first.
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        match self.directories.first() {
            Some(directory) => fs::write(directory.join(file), text),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Moves a process into it, with all its threads.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        for directory in &self.directories {
            fs::write(directory.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in &self.directories {
            for _ in 0..EMPTY_TRIES {
                match fs::remove_dir(directory) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        thread::sleep(Duration::from_millis(10));
                    }
                    // Gone, or never to go: an empty group harms no one.
                    _ => break,
                }
            }
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V1 => "control group (version 1)",
            Version::V2 => "control group (version 2)",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::peer::process::Workplace;

    fn text(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    /// Goal: a quota of two fifths of a CPU stands where each version has it, and the process is in every
    /// hierarchy. Method: directories that look like the kernel's, in which files can be made.
    #[test]
    fn both_versions_are_written() {
        let work = Workplace::create().unwrap();
        let (v1, v2) = (work.dir.join("v1"), work.dir.join("v2"));
        for hierarchy in ["cpu", "cpuacct", "unified", "memory"] {
            fs::create_dir_all(v1.join(hierarchy)).unwrap();
        }
        let group = Group::create_below(&v1, "app", 0.4).unwrap();
        group.add(7).unwrap();
        assert_eq!(group.version, Version::V1);
        assert_eq!(text(v1.join("cpu/app/cpu.cfs_quota_us")), "4000");
        assert_eq!(text(v1.join("cpu/app/cpu.cfs_period_us")), "10000");
        assert_eq!(text(v1.join("cpu/app/cpu.shares")), "102400");
        for hierarchy in ["cpu", "cpuacct", "unified"] {
            assert_eq!(text(v1.join(hierarchy).join("app/cgroup.procs")), "7");
        }
        assert!(!v1.join("memory/app").exists());

        fs::create_dir_all(&v2).unwrap();
        fs::write(v2.join("cgroup.controllers"), "cpu memory").unwrap();
        let group = Group::create_below(&v2, "app", 0.4).unwrap();
        group.add(8).unwrap();
        assert_eq!(group.version, Version::V2);
        assert_eq!(text(v2.join("app/cpu.max")), "4000 10000");
        assert_eq!(text(v2.join("app/cpu.weight")), "10000");
        assert_eq!(text(v2.join("app/cgroup.procs")), "8");
        assert_eq!(text(v2.join("cgroup.subtree_control")), "+cpu");
    }

    /// Where there is nothing of the kind, that is an error and not a group without a quota.
    #[test]
    fn nothing_is_an_error() {
        let work = Workplace::create().unwrap();
        assert!(Group::create_below(&work.dir, "app", 0.4).is_err());
    }
}
