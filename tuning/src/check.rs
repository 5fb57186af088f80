//! Judges a [`Host`]: one function a check, each returning what was found, what is wanted, and the
//! remedy. A fact that could not be read is `Unknown`, never `Fit`.

use crate::host::{Host, Limit};

/// The least kernel: provided-buffer rings and multishot receive are complete since 6.1.
pub const KERNEL_LEAST: (u32, u32) = (6, 1);

/// Bytes that a shard's ring and its provided buffers may lock. Since 5.12 the kernel accounts them to
/// the cgroup, not to this limit; but registered buffers still count, so a small limit is worth a word.
pub const LOCKED_BYTES_LEAST: u64 = 8 << 20;

/// Open files wanted: two a connection at 10,000 connections, and some to spare.
pub const OPEN_FILES_WANTED: u64 = 65_536;

/// Length of the accept queue wanted: Linux's own default since 5.4.
pub const ACCEPT_QUEUE_WANTED: u64 = 4096;

/// Ports for outgoing connections wanted: Linux's default range has 28,232.
pub const LOCAL_PORTS_WANTED: u32 = 28_000;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check's name, one word for scripts.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found, for a person.
    pub found: String,
    /// What to do about it; empty when fit.
    pub remedy: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fit,
    /// Could not be read.
    Unknown,
    /// Works, with less than it could.
    Limited,
    /// Tidegate will not start, or fail under load.
    Unfit,
}

/// Every check, the gravest matters first.
pub fn all(host: &Host) -> Vec<Finding> {
    vec![
        kernel(host),
        io_uring(host),
        locked_memory(host),
        open_files(host),
        accept_queue(host),
        local_ports(host),
        clock_source(host),
    ]
}

/// Whether the kernel is new enough.
pub fn kernel(host: &Host) -> Finding {
    const NAME: &str = "kernel";
    let Some((major, minor)) = host.kernel else {
        return unknown(NAME, "the kernel's release");
    };
    let found = format!("Linux {major}.{minor}");
    if (major, minor) >= KERNEL_LEAST {
        return fit(NAME, found);
    }
    let (least_major, least_minor) = KERNEL_LEAST;
    Finding {
        name: NAME,
        verdict: Verdict::Unfit,
        found,
        remedy: format!("install Linux {least_major}.{least_minor} or newer"),
    }
}

/// Whether the system lets processes have an io_uring. A seccomp filter may still refuse it: only
/// trying tells, which `tidegate version` does.
pub fn io_uring(host: &Host) -> Finding {
    const NAME: &str = "io_uring";
    let (verdict, found, remedy) = match host.io_uring_disabled {
        // The switch came with 6.6; a host without it has nothing that forbids.
        None if host.kernel.is_some_and(|version| version < (6, 6)) => {
            (Verdict::Fit, "allowed (no switch before Linux 6.6)", "")
        }
        None => return unknown(NAME, "kernel.io_uring_disabled"),
        Some(0) => (Verdict::Fit, "allowed", ""),
        Some(1) => (
            Verdict::Limited,
            "for privileged processes and one group only",
            "sysctl kernel.io_uring_disabled=0, or run in the group of kernel.io_uring_group",
        ),
        Some(_) => (
            Verdict::Unfit,
            "switched off",
            "sysctl kernel.io_uring_disabled=0",
        ),
    };
    Finding {
        name: NAME,
        verdict,
        found: found.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// Whether enough memory may be locked for rings and buffers.
pub fn locked_memory(host: &Host) -> Finding {
    const NAME: &str = "locked_memory";
    match host.locked_bytes {
        None => unknown(NAME, "the limit of locked memory"),
        Some(Limit::Unlimited) => fit(NAME, "unlimited".to_owned()),
        Some(Limit::AtMost(bytes)) if bytes >= LOCKED_BYTES_LEAST => {
            fit(NAME, format!("{} KiB", bytes >> 10))
        }
        Some(Limit::AtMost(bytes)) => Finding {
            name: NAME,
            verdict: Verdict::Limited,
            found: format!("{} KiB", bytes >> 10),
            remedy: format!(
                "LimitMEMLOCK={}M in the unit, or ulimit -l {}",
                LOCKED_BYTES_LEAST >> 20,
                LOCKED_BYTES_LEAST >> 10
            ),
        },
    }
}

/// Whether enough files may be open. The process raises its soft limit to the hard one by itself, so
/// that the hard one decides.
pub fn open_files(host: &Host) -> Finding {
    const NAME: &str = "open_files";
    match host.open_files {
        None => unknown(NAME, "the limit of open files"),
        Some((_, Limit::Unlimited)) => fit(NAME, "unlimited".to_owned()),
        Some((_, Limit::AtMost(files))) if files >= OPEN_FILES_WANTED => {
            fit(NAME, files.to_string())
        }
        Some((_, Limit::AtMost(files))) => Finding {
            name: NAME,
            verdict: Verdict::Limited,
            found: format!("{files}: about {} connections", files / 2),
            remedy: format!("LimitNOFILE={OPEN_FILES_WANTED} in the unit, or ulimit -Hn"),
        },
    }
}

/// Whether a burst of connections finds room in the accept queue.
pub fn accept_queue(host: &Host) -> Finding {
    const NAME: &str = "accept_queue";
    match host.accept_queue_len {
        None => unknown(NAME, "net.core.somaxconn"),
        Some(len) if len >= ACCEPT_QUEUE_WANTED => fit(NAME, len.to_string()),
        Some(len) => Finding {
            name: NAME,
            verdict: Verdict::Limited,
            found: len.to_string(),
            remedy: format!("sysctl net.core.somaxconn={ACCEPT_QUEUE_WANTED}"),
        },
    }
}

/// Whether there are ports enough for connections to one endpoint.
pub fn local_ports(host: &Host) -> Finding {
    const NAME: &str = "local_ports";
    let Some((first, last)) = host.local_ports else {
        return unknown(NAME, "net.ipv4.ip_local_port_range");
    };
    let count = (u32::from(last) + 1).saturating_sub(u32::from(first));
    if count >= LOCAL_PORTS_WANTED {
        return fit(NAME, format!("{count} ports"));
    }
    Finding {
        name: NAME,
        verdict: Verdict::Limited,
        found: format!("{count} ports, so as many connections to one endpoint"),
        remedy: "sysctl net.ipv4.ip_local_port_range='32768 60999'".to_owned(),
    }
}

/// Whether reading the clock is cheap: a shard does it several times a turn. Sources other than these
/// cost a system call, a hundred times as much.
pub fn clock_source(host: &Host) -> Finding {
    const NAME: &str = "clock_source";
    let Some(source) = &host.clock_source else {
        return unknown(NAME, "the clock source");
    };
    match source.as_str() {
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter" => {
            fit(NAME, source.clone())
        }
        _ => Finding {
            name: NAME,
            verdict: Verdict::Limited,
            found: source.clone(),
            remedy: "boot with clocksource=tsc if the processor's counter is stable".to_owned(),
        },
    }
}

fn fit(name: &'static str, found: String) -> Finding {
    Finding {
        name,
        verdict: Verdict::Fit,
        found,
        remedy: String::new(),
    }
}

fn unknown(name: &'static str, what: &str) -> Finding {
    Finding {
        name,
        verdict: Verdict::Unknown,
        found: format!("{what} could not be read"),
        remedy: "run the check on the host itself, outside of the container".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host on which nothing is wrong.
    fn fit_host() -> Host {
        Host {
            kernel: Some((6, 18)),
            io_uring_disabled: Some(0),
            locked_bytes: Some(Limit::AtMost(8 << 20)),
            open_files: Some((Limit::AtMost(1024), Limit::AtMost(OPEN_FILES_WANTED))),
            accept_queue_len: Some(4096),
            clock_source: Some("tsc".into()),
            local_ports: Some((32_768, 60_999)),
        }
    }

    /// Goal: a good host has nothing to read. Method: every check is fit and has no remedy.
    #[test]
    fn a_fit_host() {
        for finding in all(&fit_host()) {
            assert_eq!(finding.verdict, Verdict::Fit, "{finding:?}");
            assert!(finding.remedy.is_empty(), "{finding:?}");
        }
    }

    /// Goal: each check fires alone, one step below its threshold. Method: one fact of a fit host is
    /// changed at a time; exactly the named check changes its verdict and gives a remedy.
    #[test]
    fn one_fault_at_a_time() {
        type Change = fn(&mut Host);
        let faults: [(&str, Verdict, Change); 13] = [
            ("kernel", Verdict::Unfit, |h| h.kernel = Some((6, 0))),
            ("kernel", Verdict::Unfit, |h| h.kernel = Some((5, 19))),
            ("kernel", Verdict::Unknown, |h| h.kernel = None),
            ("io_uring", Verdict::Unfit, |h| {
                h.io_uring_disabled = Some(2)
            }),
            ("io_uring", Verdict::Limited, |h| {
                h.io_uring_disabled = Some(1);
            }),
            ("io_uring", Verdict::Unknown, |h| h.io_uring_disabled = None),
            ("locked_memory", Verdict::Limited, |h| {
                h.locked_bytes = Some(Limit::AtMost(LOCKED_BYTES_LEAST - 1));
            }),
            ("open_files", Verdict::Limited, |h| {
                h.open_files = Some((Limit::AtMost(1024), Limit::AtMost(OPEN_FILES_WANTED - 1)));
            }),
            ("open_files", Verdict::Unknown, |h| h.open_files = None),
            ("accept_queue", Verdict::Limited, |h| {
                h.accept_queue_len = Some(ACCEPT_QUEUE_WANTED - 1);
            }),
            ("local_ports", Verdict::Limited, |h| {
                h.local_ports = Some((60_000, 60_999));
            }),
            ("clock_source", Verdict::Limited, |h| {
                h.clock_source = Some("hpet".into());
            }),
            ("clock_source", Verdict::Unknown, |h| h.clock_source = None),
        ];
        for (name, verdict, change) in faults {
            let mut host = fit_host();
            change(&mut host);
            for finding in all(&host) {
                if finding.name == name {
                    assert_eq!(finding.verdict, verdict, "{finding:?}");
                    assert!(!finding.remedy.is_empty(), "{finding:?}");
                } else {
                    assert_eq!(finding.verdict, Verdict::Fit, "{name}: {finding:?}");
                }
            }
        }
    }

    /// Goal: a kernel from before the switch is not called unknown. Method: Linux 6.1 without it.
    #[test]
    fn io_uring_before_its_switch() {
        let host = Host {
            kernel: Some((6, 1)),
            io_uring_disabled: None,
            ..fit_host()
        };
        assert_eq!(io_uring(&host).verdict, Verdict::Fit);
    }
}
