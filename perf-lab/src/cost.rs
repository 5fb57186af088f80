//! What a process tree has consumed, from `/proc`.
//!
//! CPU time is the sum of the threads' `schedstat` run times: nanoseconds, where `utime` and `stime`
//! are sampled by the tick; those give only the split. It is what the scheduler charged to the peer:
//! interrupts served on its core in other threads' time are not in it, so the core's own busy share
//! is read beside it, as a check from another source.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{clock::Nanos, cpu::Cpu};

/// A process tree's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Run time by process and thread, so that a thread that began later counts from zero.
    run: BTreeMap<(u32, u32), Nanos>,
    user_ticks: u64,
    system_ticks: u64,
    switches: Switches,
    /// Resident memory of all processes; pages that they share count for each.
    pub rss_kib: u64,
    core: CoreTicks,
}

/// Context switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switches {
    /// The thread had nothing to do.
    pub voluntary: u64,
    /// Something else was to run.
    pub involuntary: u64,
}

/// The difference of two samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time in microseconds.
    pub cpu_us: f64,
    /// The part of it in user space, 0 to 1; sampled, so a run of seconds knows it to a few percent.
    pub user_share: f64,
    /// Context switches.
    pub switches: Switches,
    /// At the end.
    pub rss_kib: u64,
    /// Share of the time in which the proxy's core was not idle, whoever used it.
    pub core_busy: f64,
    /// Share of the time that the hypervisor gave to others.
    pub core_steal: f64,
}

impl Sample {
    /// Reads the tree below `root`, and the core that it runs on.
    pub fn of_tree(root: u32, cpu: Cpu) -> io::Result<Sample> {
        Sample::of_trees(&[root], cpu)
    }

    /// Reads several trees as one. Each must have a process left.
    pub fn of_trees(roots: &[u32], cpu: Cpu) -> io::Result<Sample> {
        let proc = Path::new("/proc");
        let mut sample = Sample {
            core: core_ticks(&fs::read_to_string(proc.join("stat"))?, cpu)
                .ok_or_else(|| malformed("stat"))?,
            ..Sample::default()
        };
        for root in roots {
            let before = sample.run.len();
            for pid in tree(proc, *root)? {
                // A process that ends meanwhile is none of the tree any more.
                match sample.add_process(&proc.join(pid.to_string()), pid) {
                    Err(error) if !is_gone(&error) => return Err(error),
                    _ => {}
                }
            }
            if sample.run.len() == before {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        Ok(sample)
    }

    fn add_process(&mut self, directory: &Path, pid: u32) -> io::Result<()> {
        let stat = fs::read_to_string(directory.join("stat"))?;
        let stat = ProcessStat::parse(&stat).ok_or_else(|| malformed("stat"))?;
        let status = fs::read_to_string(directory.join("status"))?;
        self.user_ticks += stat.user_ticks;
        self.system_ticks += stat.system_ticks;
        self.rss_kib += status_field(&status, "VmRSS").unwrap_or(0);
        for thread in numbered(&directory.join("task"))? {
            match self.add_thread(&thread.1, (pid, thread.0)) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_thread(&mut self, directory: &Path, id: (u32, u32)) -> io::Result<()> {
        let schedstat = fs::read_to_string(directory.join("schedstat"))?;
        let status = fs::read_to_string(directory.join("status"))?;
        let run = run_time(&schedstat).ok_or_else(|| malformed("schedstat"))?;
        self.run.insert(id, run);
        self.switches.voluntary += status_field(&status, "voluntary_ctxt_switches").unwrap_or(0);
        self.switches.involuntary +=
            status_field(&status, "nonvoluntary_ctxt_switches").unwrap_or(0);
        Ok(())
    }

    /// What was consumed from `self` to `later`.
    pub fn until(&self, later: &Sample) -> Cost {
        let run: u64 = later
            .run
            .iter()
            .map(|(id, &run)| (run - self.run.get(id).copied().unwrap_or_default()).0)
            .sum();
        let user = later.user_ticks.saturating_sub(self.user_ticks) as f64;
        let system = later.system_ticks.saturating_sub(self.system_ticks) as f64;
        let core = |ticks: fn(&CoreTicks) -> u64| {
            ticks(&later.core).saturating_sub(ticks(&self.core)) as f64
        };
        let all = core(|ticks| ticks.all);
        Cost {
            cpu_us: Nanos(run).as_micros(),
            user_share: share(user, user + system),
            switches: Switches {
                voluntary: later
                    .switches
                    .voluntary
                    .saturating_sub(self.switches.voluntary),
                involuntary: later
                    .switches
                    .involuntary
                    .saturating_sub(self.switches.involuntary),
            },
            rss_kib: later.rss_kib,
            core_busy: share(core(|ticks| ticks.busy), all),
            core_steal: share(core(|ticks| ticks.steal), all),
        }
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// `root` and everything below it.
pub fn tree(proc: &Path, root: u32) -> io::Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, directory) in numbered(proc)? {
        if let Ok(stat) = fs::read_to_string(directory.join("stat"))
            && let Some(stat) = ProcessStat::parse(&stat)
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(pid) = tree.get(at).copied() {
        tree.extend(children.remove(&pid).unwrap_or_default());
        at += 1;
    }
    Ok(tree)
}

/// The entries of a directory whose names are numbers.
fn numbered(directory: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = fs::read_dir(directory)?;
    Ok(entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect())
}

#[derive(Debug, PartialEq, Eq)]
struct ProcessStat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl ProcessStat {
    /// proc_pid_stat(5): the second field is the name in parentheses, which may itself hold spaces
    /// and parentheses, so the fields are counted from the last of them: 3 is the state, 4 the
    /// parent, 14 and 15 the times.
    fn parse(text: &str) -> Option<ProcessStat> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        Some(ProcessStat {
            parent: fields.nth(1)?.parse().ok()?,
            user_ticks: fields.nth(9)?.parse().ok()?,
            system_ticks: fields.next()?.parse().ok()?,
        })
    }
}

/// The first number of a `schedstat`: time spent on the CPU.
fn run_time(schedstat: &str) -> Option<Nanos> {
    let first = schedstat.split_ascii_whitespace().next()?;
    Some(Nanos(first.parse().ok()?))
}

/// The number of a line `Name:   123 kB`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CoreTicks {
    all: u64,
    busy: u64,
    steal: u64,
}

/// The line of one CPU in `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn core_ticks(stat: &str, cpu: Cpu) -> Option<CoreTicks> {
    let name = format!("cpu{cpu}");
    let mut fields = stat
        .lines()
        .map(str::split_ascii_whitespace)
        .find_map(|mut fields| (fields.next()? == name).then_some(fields))?;
    let mut next = || fields.next()?.parse::<u64>().ok();
    let working = next()? + next()? + next()?;
    let idle = next()? + next()?;
    let interrupts = next()? + next()?;
    let steal = next()?;
    Some(CoreTicks {
        all: working + idle + interrupts + steal,
        busy: working + interrupts,
        steal,
    })
}

fn is_gone(error: &io::Error) -> bool {
    // Reading the files of a thread that has just ended gives ESRCH.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

fn malformed(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {file}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The files parse, a name with spaces and parentheses included.
    #[test]
    fn files_parse() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 111 222 0 0 20 0 1 0 5 6 7";
        assert_eq!(
            ProcessStat::parse(stat),
            Some(ProcessStat {
                parent: 7,
                user_ticks: 111,
                system_ticks: 222
            })
        );
        assert_eq!(run_time("123456789 55 66\n"), Some(Nanos(123_456_789)));
        assert_eq!(run_time(""), None);
        let status = "Name:\tx\nVmRSS:\t   5320 kB\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(status_field(status, "VmRSS"), Some(5320));
        assert_eq!(status_field(status, "voluntary_ctxt_switches"), None);
        let stat =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 100 4 5 6 7 0 0\ncpu10 8 0 0 1 0 0 0 0 0 0\n";
        assert_eq!(
            core_ticks(stat, Cpu(0)),
            Some(CoreTicks {
                all: 128,
                busy: 17,
                steal: 7
            })
        );
        assert_eq!(core_ticks(stat, Cpu(1)), None);
        assert_eq!(core_ticks(stat, Cpu(10)).map(|ticks| ticks.busy), Some(8));
    }

    /// Threads that began between the samples count in full, threads that ended are left out.
    #[test]
    fn differences_follow_threads() {
        let sample = |run: &[((u32, u32), u64)], user, system, busy| Sample {
            run: run.iter().map(|&(id, ns)| (id, Nanos(ns))).collect(),
            user_ticks: user,
            system_ticks: system,
            core: CoreTicks {
                all: busy * 2,
                busy,
                steal: 0,
            },
            ..Sample::default()
        };
        let before = sample(&[((1, 1), 5_000), ((1, 2), 9_000)], 10, 20, 50);
        let after = sample(&[((1, 1), 8_000), ((2, 2), 4_000)], 11, 23, 80);
        let cost = before.until(&after);
        assert!((cost.cpu_us - 7.0).abs() < 1e-9);
        assert!((cost.user_share - 0.25).abs() < 1e-9);
        assert!((cost.core_busy - 0.5).abs() < 1e-9);
    }

    /// This process has itself in its tree, memory, and a run time that grows as it computes.
    #[test]
    fn reads_the_real_proc() {
        let pid = std::process::id();
        let cpu = crate::cpu::allowed().unwrap().first().copied().unwrap();
        let before = Sample::of_tree(pid, cpu).unwrap();
        assert!(before.rss_kib > 100);
        assert!(tree(Path::new("/proc"), 1).unwrap().contains(&pid));
        // Bounded by the condition itself: computing is what makes it true.
        let mut number = 1u64;
        while before.until(&Sample::of_tree(pid, cpu).unwrap()).cpu_us < 100.0 {
            for i in 0..10_000u64 {
                number = std::hint::black_box(number.wrapping_mul(31).wrapping_add(i));
            }
        }
        assert!(Sample::of_tree(u32::MAX, cpu).is_err());
    }
}
