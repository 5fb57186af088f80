//! What the machine has left: CPU, memory and time spent waiting for them, of the host or of a control group
//! (version 2, or 1), read from procfs and cgroupfs at each tick; and how late the shards' loops are.
//!
//! Reading is blocking and takes microseconds: these files are the kernel's own counters. What cannot be read
//! is left out and told (L1): it is never taken for zero.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tidegate_core::{
    config::model::{Config, Scope},
    coordinator::Samples,
    limiter::watermark::{Sample, Signal},
    sketch,
    stats::{PerShard, ShardCounters},
};

/// Ticks of the kernel's clock in `/proc/stat`, per second: USER_HZ, which is 100 on every architecture
/// that we run on.
const USER_HZ: f64 = 100.0;

/// Where the kernel shows itself.
#[derive(Clone, Debug)]
struct Roots {
    proc: PathBuf,
    cgroup: PathBuf,
}

/// Reads what the scopes of the configuration have left.
#[derive(Debug)]
pub(crate) struct Monitor {
    roots: Roots,
    cpus: f64,
    scopes: BTreeMap<Scope, Seen>,
    lag: [u64; sketch::BUCKETS],
}

/// What one scope said at the last look.
#[derive(Debug, Default)]
struct Seen {
    at: Duration,
    totals: Totals,
    /// What could not be measured, as told.
    missing: BTreeSet<&'static str>,
}

/// Counters that only grow, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    /// CPU time used.
    cpu_s: Option<f64>,
    /// Time in which some task waited for a CPU.
    psi_cpu_s: Option<f64>,
    /// Time in which some task waited for memory.
    psi_memory_s: Option<f64>,
}

impl Monitor {
    /// Of this machine, with so many CPUs.
    pub(crate) fn new(cpus: usize) -> Monitor {
        Monitor::of(Path::new("/proc"), Path::new("/sys/fs/cgroup"), cpus)
    }

    fn of(proc: &Path, cgroup: &Path, cpus: usize) -> Monitor {
        Monitor {
            roots: Roots {
                proc: proc.into(),
                cgroup: cgroup.into(),
            },
            cpus: cpus.max(1) as f64,
            scopes: BTreeMap::new(),
            lag: [0; sketch::BUCKETS],
        }
    }

    /// Measures the scopes that `config` limits by, and no others.
    pub(crate) fn follow(&mut self, config: &Config) {
        let limits = config.clusters.values();
        let wanted: BTreeSet<Scope> = limits
            .filter_map(|cluster| Some(cluster.adaptive_limit.as_ref()?.scope.clone()))
            .collect();
        self.scopes.retain(|scope, _| wanted.contains(scope));
        for scope in wanted {
            self.scopes.entry(scope).or_default();
        }
    }

    /// What is in use at `now`, since the last look.
    pub(crate) fn sample(&mut self, now: Duration, counters: &PerShard<ShardCounters>) -> Samples {
        if self.scopes.is_empty() {
            return Samples::new();
        }
        let lag_s = self.lag(counters);
        let (roots, host_cpus) = (&self.roots, self.cpus);
        let scopes = self.scopes.iter_mut();
        scopes
            .map(|(scope, seen)| {
                let group = Group::find(scope, roots);
                let mut sample = look(&group, roots, host_cpus, seen, now);
                if let Some(lag_s) = lag_s {
                    sample.set(Signal::LoopLag, lag_s);
                }
                tell_missing(scope, &sample, seen);
                (scope.clone(), sample)
            })
            .collect()
    }

    /// How late 99 of 100 timers were at most, over all shards.
    fn lag(&mut self, counters: &PerShard<ShardCounters>) -> Option<f64> {
        let mut now = [0; sketch::BUCKETS];
        for shard in counters.iter() {
            for (sum, count) in now.iter_mut().zip(&shard.loop_lag) {
                *sum += count.get();
            }
        }
        let mut since = now;
        for (count, before) in since.iter_mut().zip(&self.lag) {
            *count = count.saturating_sub(*before);
        }
        self.lag = now;
        sketch::quantile_s(&since, 0.99)
    }
}

fn look(group: &Group, roots: &Roots, host_cpus: f64, seen: &mut Seen, now: Duration) -> Sample {
    let totals = group.totals(roots);
    let passed_s = now.saturating_sub(seen.at).as_secs_f64();
    let mut sample = Sample::default();
    let mut rate = |signal, now: Option<f64>, before: Option<f64>, of: f64| {
        // The first look has nothing to compare with.
        if let (Some(now), Some(before)) = (now, before)
            && passed_s > 0.0
        {
            sample.set(signal, (now - before).max(0.0) / passed_s / of);
        }
    };
    let cpus = group.quota().unwrap_or(host_cpus).min(host_cpus);
    rate(Signal::Cpu, totals.cpu_s, seen.totals.cpu_s, cpus);
    rate(Signal::PsiCpu, totals.psi_cpu_s, seen.totals.psi_cpu_s, 1.0);
    let before = seen.totals.psi_memory_s;
    rate(Signal::PsiMemory, totals.psi_memory_s, before, 1.0);
    if let Some(memory) = group.memory(roots) {
        sample.set(Signal::Memory, memory);
    }
    (seen.at, seen.totals) = (now, totals);
    sample
}

/// Says once what a scope does not tell.
fn tell_missing(scope: &Scope, sample: &Sample, seen: &mut Seen) {
    for signal in [
        Signal::Cpu,
        Signal::PsiCpu,
        Signal::PsiMemory,
        Signal::Memory,
    ] {
        let is_missing = sample.get(signal).is_none() && seen.at != Duration::ZERO;
        if !is_missing {
            seen.missing.remove(signal.word());
        } else if seen.missing.insert(signal.word()) {
            tracing::debug!(
                "{scope:?}: `{}` cannot be measured and is left out",
                signal.word()
            );
        }
    }
}

/// Whose files are read.
#[derive(Debug, PartialEq, Eq)]
enum Group {
    Host,
    V2(PathBuf),
    /// By controller: `cpu` and `cpuacct` may be mounted apart.
    V1 {
        cpu: PathBuf,
        cpuacct: PathBuf,
        memory: PathBuf,
        /// The group in the hierarchy of version 2 that may be mounted beside: only that knows pressure.
        unified: Option<PathBuf>,
    },
    /// There is no such group.
    Gone,
}

impl Group {
    fn find(scope: &Scope, roots: &Roots) -> Group {
        match scope {
            Scope::Host => Group::Host,
            Scope::Own => Group::of_process("self", roots),
            Scope::Pid(pid) => Group::of_process(&pid.to_string(), roots),
            Scope::Cgroup(path) => Group::at(|_| Some(path.to_string()), roots),
        }
    }

    fn of_process(pid: &str, roots: &Roots) -> Group {
        let Some(text) = read(&roots.proc.join(pid).join("cgroup")) else {
            return Group::Gone;
        };
        Group::at(|controller| path_in(&text, controller), roots)
    }

    /// `path` gives the group's path in the hierarchy of a controller; of none in that of version 2.
    fn at(path: impl Fn(Option<&str>) -> Option<String>, roots: &Roots) -> Group {
        let below = |mount: PathBuf, path: String| mount.join(path.trim_start_matches('/'));
        if roots.cgroup.join("cgroup.controllers").exists() {
            let group = path(None).map(|path| below(roots.cgroup.clone(), path));
            return group.filter(|g| g.is_dir()).map_or(Group::Gone, Group::V2);
        }
        let v1 = |controller: &str| {
            Some(below(
                roots.cgroup.join(controller),
                path(Some(controller))?,
            ))
        };
        match (v1("cpu"), v1("cpuacct"), v1("memory")) {
            (Some(cpu), Some(cpuacct), Some(memory)) => Group::V1 {
                cpu,
                cpuacct,
                memory,
                unified: path(None)
                    // The root is the host, which is not what is protected.
                    .filter(|path| path != "/")
                    .map(|path| below(roots.cgroup.join("unified"), path)),
            },
            _ => Group::Gone,
        }
    }

    fn totals(&self, roots: &Roots) -> Totals {
        let micros = |value: u64| value as f64 / 1e6;
        match self {
            Group::Host => Totals {
                cpu_s: read(&roots.proc.join("stat")).and_then(|text| busy_s(&text)),
                psi_cpu_s: stalled_s(&roots.proc.join("pressure/cpu")),
                psi_memory_s: stalled_s(&roots.proc.join("pressure/memory")),
            },
            Group::V2(group) => Totals {
                cpu_s: read(&group.join("cpu.stat"))
                    .and_then(|text| field(&text, "usage_usec"))
                    .map(micros),
                psi_cpu_s: stalled_s(&group.join("cpu.pressure")),
                psi_memory_s: stalled_s(&group.join("memory.pressure")),
            },
            Group::V1 {
                cpuacct, unified, ..
            } => {
                let pressure = |file| stalled_s(&unified.as_ref()?.join(file));
                Totals {
                    cpu_s: number(&cpuacct.join("cpuacct.usage")).map(|ns| ns as f64 / 1e9),
                    psi_cpu_s: pressure("cpu.pressure"),
                    psi_memory_s: pressure("memory.pressure"),
                }
            }
            Group::Gone => Totals::default(),
        }
    }

    /// CPUs that the group may use, if that is limited.
    fn quota(&self) -> Option<f64> {
        match self {
            Group::V2(group) => quota_v2(&read(&group.join("cpu.max"))?),
            Group::V1 { cpu, .. } => {
                // -1 is without limit, and no number here.
                let quota = number(&cpu.join("cpu.cfs_quota_us"))?;
                let period = number(&cpu.join("cpu.cfs_period_us"))?;
                (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
            }
            Group::Host | Group::Gone => None,
        }
    }

    /// The part of its memory that is in use, and that dropping file pages would not give back.
    fn memory(&self, roots: &Roots) -> Option<f64> {
        let info = read(&roots.proc.join("meminfo"))?;
        let total = 1024 * field(&info, "MemTotal:")?;
        let (used, limit) = match self {
            Group::Host => {
                let available = 1024 * field(&info, "MemAvailable:")?;
                (total.saturating_sub(available), total)
            }
            Group::V2(group) => {
                let stat = read(&group.join("memory.stat"))?;
                let used = number(&group.join("memory.current"))?;
                // `max` is no number.
                let limit = number(&group.join("memory.max")).unwrap_or(total);
                (used.saturating_sub(field(&stat, "inactive_file")?), limit)
            }
            Group::V1 { memory, .. } => {
                let stat = read(&memory.join("memory.stat"))?;
                let used = number(&memory.join("memory.usage_in_bytes"))?;
                let limit = number(&memory.join("memory.limit_in_bytes"))?;
                (
                    used.saturating_sub(field(&stat, "total_inactive_file")?),
                    limit,
                )
            }
            Group::Gone => return None,
        };
        // The root of version 1 says 2^63 and a bit.
        Some(used as f64 / limit.min(total).max(1) as f64)
    }
}

/// The path of a process's group in the hierarchy of a controller; of none in that of version 2
/// (cgroups(7), `/proc/pid/cgroup`).
fn path_in(text: &str, controller: Option<&str>) -> Option<String> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match controller {
            None => controllers.is_empty(),
            Some(wanted) => controllers.split(',').any(|name| name == wanted),
        };
        is_it.then(|| path.to_owned())
    })
}

/// CPU time of the host, in seconds: everything but idle and waiting for disks (proc_stat(5)).
fn busy_s(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u64> = line
        .split_whitespace()
        .map_while(|n| n.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; what guests use is in user already.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|k| times.get(*k));
    (times.len() >= 7).then(|| busy.sum::<u64>() as f64 / USER_HZ)
}

/// Seconds in which some task was stalled (Documentation/accounting/psi.rst).
fn stalled_s(file: &Path) -> Option<f64> {
    let text = read(file)?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let total = some
        .split(' ')
        .find_map(|part| part.strip_prefix("total="))?;
    total.parse::<u64>().ok().map(|us| us as f64 / 1e6)
}

/// `200000 100000` is two CPUs, `max 100000` all of them (cgroup-v2, `cpu.max`).
fn quota_v2(text: &str) -> Option<f64> {
    let mut parts = text.split_whitespace();
    let quota: f64 = parts.next()?.parse().ok()?;
    let period: f64 = parts.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The number after a word at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

fn number(file: &Path) -> Option<u64> {
    read(file)?.trim().parse().ok()
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tidegate_core::config;

    /// A folder of the kernel's files.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let folder = format!("tidegate-monitor-{}-{name}", std::process::id());
            Tree(std::env::temp_dir().join(folder))
        }

        fn write(&self, path: &str, text: &str) {
            let file = self.0.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }

        fn monitor(&self, limit: &str) -> Monitor {
            let text = format!(
                "version: 1\nclusters: {{ a: {{ endpoints: {{ static: [127.0.0.1:1] }}, adaptive_limit: {limit} }} }}\n"
            );
            let (config, _) = config::parse("test", &text).unwrap();
            let mut monitor = Monitor::of(&self.0.join("proc"), &self.0.join("cgroup"), 4);
            monitor.follow(&config);
            monitor
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn sample(monitor: &mut Monitor, at_ms: u64) -> Sample {
        let counters = PerShard::new(1);
        let samples = monitor.sample(Duration::from_millis(at_ms), &counters);
        samples.into_values().next().unwrap()
    }

    #[track_caller]
    fn near(sample: &Sample, signal: Signal, expected: f64) {
        let found = sample.get(signal).unwrap();
        assert!(
            (found - expected).abs() < 1e-6,
            "{}: {found}",
            signal.word()
        );
    }

    const MEMINFO: &str = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\n";

    /// Goal: the host's CPU, pressure and memory are read as the kernel documents them (L1). Method: two
    /// looks at a tree of files, 100 ms apart.
    #[test]
    fn host_is_measured() {
        let tree = Tree::new("host");
        tree.write("proc/meminfo", MEMINFO);
        tree.write("proc/stat", "cpu  100 0 50 900 30 5 5 7 0 0\ncpu0 1 1\n");
        tree.write(
            "proc/pressure/cpu",
            "some avg10=0.00 total=1000000\nfull total=0\n",
        );
        let mut monitor = tree.monitor("{}");
        let first = sample(&mut monitor, 1000);
        assert_eq!(first.get(Signal::Cpu), None, "nothing to compare with");
        near(&first, Signal::Memory, 0.6);
        tree.write("proc/stat", "cpu  110 0 60 900 30 5 5 9 0 0\n");
        tree.write("proc/pressure/cpu", "some avg10=0.00 total=1025000\n");
        let second = sample(&mut monitor, 1100);
        // 20 ticks of 10 ms in 100 ms, of four CPUs.
        near(&second, Signal::Cpu, 0.5);
        near(&second, Signal::PsiCpu, 0.25);
        assert_eq!(second.get(Signal::PsiMemory), None, "not there is not zero");
    }

    /// Goal: a group of version 2 is measured against its own limits. Method: a quota of half a CPU and of
    /// memory, by path and by process.
    #[test]
    fn groups_of_version_2_are_measured() {
        let tree = Tree::new("v2");
        tree.write("proc/meminfo", MEMINFO);
        tree.write("proc/4711/cgroup", "0::/app.slice/a\n");
        tree.write("cgroup/cgroup.controllers", "cpu memory\n");
        let group = "cgroup/app.slice/a";
        tree.write(&format!("{group}/cpu.max"), "50000 100000\n");
        tree.write(&format!("{group}/memory.max"), "400000\n");
        tree.write(&format!("{group}/memory.current"), "300000\n");
        tree.write(
            &format!("{group}/memory.stat"),
            "anon 1\ninactive_file 100000\n",
        );
        for limit in ["{ cgroup: /app.slice/a }", "{ pid: 4711 }"] {
            tree.write(
                &format!("{group}/cpu.stat"),
                "usage_usec 1000000\nuser_usec 1\n",
            );
            let mut monitor = tree.monitor(limit);
            sample(&mut monitor, 1000);
            tree.write(&format!("{group}/cpu.stat"), "usage_usec 1040000\n");
            let second = sample(&mut monitor, 1100);
            near(&second, Signal::Cpu, 0.8);
            near(&second, Signal::Memory, 0.5);
        }
        let mut gone = tree.monitor("{ cgroup: /none }");
        assert_eq!(sample(&mut gone, 1000), Sample::default());
    }

    /// Goal: version 1 as well, with the pressure of the group in version 2 beside it. Method: controllers
    /// mounted apart, without and with limits.
    #[test]
    fn groups_of_version_1_are_measured() {
        let tree = Tree::new("v1");
        tree.write("proc/meminfo", MEMINFO);
        tree.write("proc/self/cgroup", "4:memory:/m\n2:cpu,cpuacct:/c\n0::/u\n");
        tree.write("proc/pressure/cpu", "some total=0\n");
        tree.write("cgroup/unified/u/cpu.pressure", "some total=0\n");
        tree.write("cgroup/cpuacct/c/cpuacct.usage", "1000000000\n");
        tree.write("cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
        tree.write("cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
        tree.write("cgroup/memory/m/memory.usage_in_bytes", "512000\n");
        tree.write(
            "cgroup/memory/m/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        tree.write("cgroup/memory/m/memory.stat", "total_inactive_file 0\n");
        let mut monitor = tree.monitor("{ scope: own }");
        sample(&mut monitor, 1000);
        tree.write("cgroup/cpuacct/c/cpuacct.usage", "1100000000\n");
        tree.write("cgroup/unified/u/cpu.pressure", "some total=10000\n");
        let second = sample(&mut monitor, 1100);
        near(&second, Signal::Cpu, 0.25);
        near(&second, Signal::PsiCpu, 0.1);
        near(&second, Signal::Memory, 0.5);
        tree.write("cgroup/cpu/c/cpu.cfs_quota_us", "200000\n");
        tree.write("cgroup/cpuacct/c/cpuacct.usage", "1200000000\n");
        near(&sample(&mut monitor, 1200), Signal::Cpu, 0.5);
    }

    /// Goal: this machine can be measured. Method: two looks at the real files.
    #[test]
    fn this_machine_is_measured() {
        let tree = Tree::new("real");
        let mut monitor = tree.monitor("{}");
        monitor.roots = Monitor::new(1).roots;
        sample(&mut monitor, 1000);
        let second = sample(&mut monitor, 1100);
        assert!(second.get(Signal::Cpu).is_some());
        assert!(
            second
                .get(Signal::Memory)
                .is_some_and(|m| m > 0.0 && m < 1.0)
        );
    }

    /// Goal: a late loop shows. Method: what timers of two shards were late by, look by look.
    #[test]
    fn late_loops_are_measured() {
        let tree = Tree::new("lag");
        let mut monitor = tree.monitor("{}");
        let counters: PerShard<ShardCounters> = PerShard::new(2);
        let shard = counters.iter().nth(1).unwrap();
        let bucket = |ms: u64| shard.loop_lag.get(sketch::bucket(ms * 1_000_000)).unwrap();
        bucket(1).set(10);
        assert!(monitor.lag(&counters).unwrap() < 0.002);
        assert_eq!(monitor.lag(&counters), None);
        bucket(50).set(1);
        assert!(monitor.lag(&counters).unwrap() >= 0.05);
    }
}
