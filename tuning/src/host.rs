//! What is read of a host: a handful of small files, each optional, since a container or an old kernel
//! may hide any of them. What is not there is `None`, never a default.

use std::{fs, io::Read, path::Path};

/// Bytes read of one file. The largest that is read (`/proc/self/limits`) is some 1.5 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At most this many (files, bytes).
    AtMost(u64),
    /// Without limit.
    Unlimited,
}

/// The facts that the checks judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Major and minor version of the kernel, from `/proc/sys/kernel/osrelease`.
    pub kernel: Option<(u32, u32)>,
    /// `kernel.io_uring_disabled`: 0 allowed, 1 for members of a group, 2 for nobody. The file exists
    /// since Linux 6.6; before, io_uring is allowed.
    pub io_uring_disabled: Option<u32>,
    /// Bytes of memory that may be locked (soft), from `/proc/self/limits`.
    pub locked_bytes: Option<Limit>,
    /// Files that may be open: soft and hard, from `/proc/self/limits`.
    pub open_files: Option<(Limit, Limit)>,
    /// The longest accept queue, `net.core.somaxconn`.
    pub accept_queue_len: Option<u64>,
    /// The kernel's clock source, e.g. `tsc`.
    pub clock_source: Option<String>,
    /// First and last port of outgoing connections, `net.ipv4.ip_local_port_range`.
    pub local_ports: Option<(u16, u16)>,
}

impl Host {
    /// Reads the host below `root`: `/` for the one this runs on.
    pub fn read(root: &Path) -> Host {
        let text = |path: &str| read(&root.join(path));
        let limits = text("proc/self/limits");
        let limits = limits.as_deref().unwrap_or_default();
        Host {
            kernel: text("proc/sys/kernel/osrelease").and_then(|t| kernel_version(&t)),
            io_uring_disabled: text("proc/sys/kernel/io_uring_disabled")
                .and_then(|t| t.trim().parse().ok()),
            locked_bytes: limit(limits, "Max locked memory").map(|(soft, _)| soft),
            open_files: limit(limits, "Max open files"),
            accept_queue_len: text("proc/sys/net/core/somaxconn")
                .and_then(|t| t.trim().parse().ok()),
            clock_source: text("sys/devices/system/clocksource/clocksource0/current_clocksource")
                .map(|t| t.trim().to_owned())
                .filter(|t| !t.is_empty()),
            local_ports: text("proc/sys/net/ipv4/ip_local_port_range").and_then(|t| {
                let mut words = t.split_whitespace();
                Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
            }),
        }
    }
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// `6.18.4-arch1` is `(6, 18)`.
fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Soft and hard value of one line of `/proc/self/limits`, whose columns are aligned with spaces.
fn limit(limits: &str, name: &str) -> Option<(Limit, Limit)> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::AtMost),
    });
    Some((words.next()??, words.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the words of the kernel are understood. Method: releases as distributions write them.
    #[test]
    fn kernel_versions() {
        for (text, expected) in [
            ("6.1.0-13-amd64\n", Some((6, 1))),
            ("6.18.44+", Some((6, 18))),
            ("5.15", Some((5, 15))),
            ("6", None),
            ("linux", None),
            ("", None),
        ] {
            assert_eq!(kernel_version(text), expected, "{text}");
        }
    }

    /// Goal: limits are found by name and read in full. Method: lines as the kernel aligns them.
    #[test]
    fn limit_lines() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 1048576              files     \n\
                    Max locked memory         unlimited            unlimited            bytes     \n";
        assert_eq!(
            limit(text, "Max open files"),
            Some((Limit::AtMost(1024), Limit::AtMost(1_048_576)))
        );
        assert_eq!(
            limit(text, "Max locked memory"),
            Some((Limit::Unlimited, Limit::Unlimited))
        );
        assert_eq!(limit(text, "Max nice priority"), None);
    }

    /// Goal: a host that shows nothing is not a host that is fine. Method: an empty root.
    #[test]
    fn nothing_there_is_nothing_known() {
        let nowhere = Path::new("/nonexistent/host");
        assert_eq!(Host::read(nowhere), Host::default());
    }

    /// Goal: the files are where this looks for them. Method: the host that runs the test.
    #[test]
    fn this_host_is_readable() {
        let host = Host::read(Path::new("/"));
        assert!(host.kernel.is_some());
        assert!(host.open_files.is_some());
        assert!(host.locked_bytes.is_some());
    }
}
