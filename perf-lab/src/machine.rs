//! Where a run took place, and what speaks against believing it.

use std::{collections::BTreeMap, fmt, fs, process::Command, thread};

use serde::{Deserialize, Serialize};

use crate::cpu::{Cpu, Placement};

/// A record of the machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// Its microcode, if the machine tells.
    pub microcode: Option<String>,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Memory.
    pub memory_mib: u64,
    /// Frequency governor of the proxy's CPU, if the machine tells.
    pub governor: Option<String>,
    /// Whether clocks may rise above the nominal one.
    pub boost: Option<bool>,
    /// CPUs that share a core with the proxy's, itself included.
    pub siblings: Option<String>,
    /// Whether it is a virtual machine.
    pub is_virtual: bool,
    /// CPUs' worth of time that the control group allows, if it limits it.
    pub quota_cpus: Option<f64>,
    /// Transparent huge pages.
    pub huge_pages: Option<String>,
    /// Against which flaws of the CPU the kernel works around, and how.
    pub mitigations: BTreeMap<String, String>,
    /// Of the kernel's command line what bears on speed; the rest is nobody's business.
    pub command_line: String,
    /// Settings of the kernel that a proxy feels.
    pub settings: BTreeMap<String, String>,
    /// Descriptors a process may open.
    pub descriptors: u64,
    /// Runnable threads, averaged over the last minute, before the run.
    pub load_average: f64,
    /// Part of the last ten seconds in which something waited for a CPU, before the run.
    pub pressure: Option<f64>,
    /// Whether the lab was built without optimization, which makes a slow generator.
    pub debug_build: bool,
    /// Commit of the working directory, with `-dirty` if it has changes.
    pub commit: Option<String>,
    /// Who runs where.
    pub placement: Placement,
    /// Whether the figures may be shown to others.
    pub fitness: Fitness,
    /// Why not, or why with care.
    pub caveats: Vec<String>,
}

/// Whether figures from a machine may be shown to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fitness {
    /// Yes.
    #[default]
    Publishable,
    /// Ratios between peers hold; absolute figures are this machine's.
    Indicative,
    /// No.
    Unfit,
}

/// Threads that wait on top of those that run make every figure somebody else's.
const LOAD_PER_CPU_MAX: f64 = 0.5;
/// A machine is idle below this.
const LOAD_IDLE_MAX: f64 = 0.5;
/// The part of ten seconds in which something had to wait for a CPU, before anything was started.
const PRESSURE_MAX: f64 = 0.10;

/// Less of the proxy's core in others' hands is what a kernel does for itself.
const FOREIGN_NOTED: f64 = 0.05;
/// More of it is somebody else's work.
const FOREIGN_MAX: f64 = 0.20;

const SETTINGS: [&str; 7] = [
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "kernel/io_uring_disabled",
    "kernel/numa_balancing",
];

impl Machine {
    /// Looks around.
    pub fn look(placement: Placement) -> Machine {
        let cpuinfo = text("/proc/cpuinfo").unwrap_or_default();
        let of_cpu = |file: &str| cpu_file(placement.proxy, file);
        let memory = field(&text("/proc/meminfo").unwrap_or_default(), "MemTotal");
        let descriptors =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
                .map_or(0, |(soft, _)| soft);
        let mut machine = Machine {
            kernel: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
            cpu: field(&cpuinfo, "model name"),
            microcode: Some(field(&cpuinfo, "microcode")).filter(|code| !code.is_empty()),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory
                .trim_end_matches(" kB")
                .parse::<u64>()
                .map_or(0, |kib| kib / 1024),
            governor: of_cpu("cpufreq/scaling_governor"),
            boost: boost(),
            siblings: of_cpu("topology/thread_siblings_list"),
            is_virtual: field(&cpuinfo, "flags")
                .split_ascii_whitespace()
                .any(|flag| flag == "hypervisor"),
            quota_cpus: text("/sys/fs/cgroup/cpu.max").and_then(|text| quota(&text)),
            huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled"),
            mitigations: mitigations(),
            command_line: relevant(&text("/proc/cmdline").unwrap_or_default()),
            settings: SETTINGS
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), text(&format!("/proc/sys/{name}"))?)))
                .collect(),
            descriptors,
            load_average: text("/proc/loadavg")
                .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
                .unwrap_or(0.0),
            pressure: text("/proc/pressure/cpu").and_then(|text| pressure(&text)),
            debug_build: cfg!(debug_assertions),
            commit: commit(),
            placement,
            ..Machine::default()
        };
        let reasons = machine.judge();
        machine.fitness = reasons
            .iter()
            .map(|(fitness, _)| *fitness)
            .max()
            .unwrap_or_default();
        machine.caveats = reasons.into_iter().map(|(_, reason)| reason).collect();
        machine
    }

    /// Takes in what was seen during the run: the part of the proxy's core that others took, and the
    /// part of the time that the host did, each in the middle measurement.
    pub fn note_run(&mut self, foreign: Option<f64>, stolen: Option<f64>) {
        let seen = [
            (foreign, "of the proxy's core went to others"),
            (stolen, "of the time was taken by the host"),
        ];
        for (part, what) in seen {
            let Some(part) = part.filter(|part| *part > FOREIGN_NOTED) else {
                continue;
            };
            self.fitness = self.fitness.max(match part > FOREIGN_MAX {
                true => Fitness::Unfit,
                false => Fitness::Indicative,
            });
            let percent = part * 100.0;
            self.caveats
                .push(format!("during the run {percent:.0} % {what}"));
        }
    }

    /// What makes two runs comparable in their noise: the hardware and the kernel.
    pub fn fingerprint(&self) -> String {
        format!("{} × {}, kernel {}", self.cpus, self.cpu, self.kernel)
    }

    fn judge(&self) -> Vec<(Fitness, String)> {
        use Fitness::{Indicative, Publishable, Unfit};
        let mut reasons = vec![(
            Publishable,
            "loopback: no network card, no interrupts of one, no other machine".to_owned(),
        )];
        let mut say = |fitness, reason: String| reasons.push((fitness, reason));
        if self.debug_build {
            say(Unfit, "the lab was built without --release".to_owned());
        }
        let cpus = self.cpus.max(1) as f64;
        let load = self.load_average;
        if load > LOAD_IDLE_MAX {
            // It remembers a run that ended a minute ago; where the kernel tells how much waits for a
            // CPU now, that decides.
            let fitness = match self.pressure.is_none() && load > LOAD_PER_CPU_MAX * cpus {
                true => Unfit,
                false => Indicative,
            };
            say(
                fitness,
                format!("the machine was not idle before the run (load average {load})"),
            );
        }
        if let Some(pressure) = self.pressure.filter(|part| *part > PRESSURE_MAX) {
            let percent = pressure * 100.0;
            say(
                Unfit,
                format!("something waited for a CPU {percent:.0} % of the time before the run"),
            );
        }
        if let Some(quota) = self.quota_cpus.filter(|quota| *quota < cpus) {
            say(
                Unfit,
                format!("the control group allows {quota} CPUs' worth of time on {cpus} CPUs"),
            );
        }
        if self.cpus < 4 {
            say(
                Indicative,
                format!(
                    "{} CPUs: origin and generator share one, so wall-clock throughput is often \
                     theirs",
                    self.cpus
                ),
            );
        }
        if self.is_virtual {
            say(
                Indicative,
                "a virtual machine: the host may take the CPU away".to_owned(),
            );
        }
        if let Some(governor) = self.governor.as_ref().filter(|name| *name != "performance") {
            say(
                Indicative,
                format!("the frequency governor is `{governor}`"),
            );
        }
        if let Some(siblings) = &self.siblings
            && holds(siblings, self.placement.load)
        {
            say(
                Indicative,
                "the proxy and the load share one core's two threads".to_owned(),
            );
        }
        reasons
    }
}

impl fmt::Display for Fitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fitness::Publishable => "publishable",
            Fitness::Indicative => "indicative",
            Fitness::Unfit => "unfit",
        })
    }
}

/// A small file's text, trimmed; `None` if it is not there or empty.
fn text(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn cpu_file(cpu: Cpu, file: &str) -> Option<String> {
    text(&format!("/sys/devices/system/cpu/cpu{cpu}/{file}"))
}

/// Two drivers, two files, opposite meanings.
fn boost() -> Option<bool> {
    if let Some(value) = text("/sys/devices/system/cpu/cpufreq/boost") {
        return Some(value == "1");
    }
    text("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|value| value == "0")
}

/// The first line of what each flaw's file says, where the CPU has it.
fn mitigations() -> BTreeMap<String, String> {
    let directory = "/sys/devices/system/cpu/vulnerabilities";
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let value = text(&format!("{directory}/{name}"))?;
            (value != "Not affected").then_some((name, value))
        })
        .collect()
}

/// Parameters of the kernel that change what it costs.
const PARAMETERS: [&str; 16] = [
    "amd_pstate",
    "clocksource",
    "hugepages",
    "idle",
    "intel_idle.",
    "intel_pstate",
    "irqaffinity",
    "isolcpus",
    "mitigations",
    "nohz",
    "nosmt",
    "preempt",
    "processor.",
    "rcu_nocbs",
    "transparent_hugepage",
    "tsc",
];

fn relevant(command_line: &str) -> String {
    let bears = |word: &&str| PARAMETERS.iter().any(|name| word.starts_with(name));
    let words: Vec<&str> = command_line.split_whitespace().filter(bears).collect();
    words.join(" ")
}

/// `max 100000`, or microseconds and their period.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    Some(quota / period)
}

/// `some avg10=12.34 avg60=…`: percent of ten seconds.
fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let percent = some
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?;
    Some(percent.parse::<f64>().ok()? / 100.0)
}

/// Whether a list like `0,2-3` holds a CPU.
fn holds(list: &str, cpu: Cpu) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&cpu.0),
            _ => false,
        }
    })
}

/// Of the directory that the lab is run in, if git knows it.
fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's many styles of telling things are read.
    #[test]
    fn files_parse() {
        assert_eq!(
            field("a\t: 1\nmodel name\t: Some CPU\n", "model name"),
            "Some CPU"
        );
        assert_eq!(field("MemTotal:  2048 kB\n", "MemTotal"), "2048 kB");
        assert_eq!(field("", "MemTotal"), "");
        assert_eq!(quota("max 100000"), None);
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        let psi = "some avg10=12.50 avg60=1.00 avg300=0.1 total=5\nfull avg10=0.00";
        let words = "quiet isolcpus=2-3 console=ttyS0 mitigations=off root=/dev/x";
        assert_eq!(relevant(words), "isolcpus=2-3 mitigations=off");
        assert_eq!(pressure(psi), Some(0.125));
        assert_eq!(pressure("full avg10=0.00"), None);
        for (list, cpu, expected) in [("0-1", 1, true), ("0,2", 1, false), ("0,2-4", 3, true)] {
            assert_eq!(holds(list, Cpu(cpu)), expected, "{list} {cpu}");
        }
    }

    /// The worst reason decides, and an idle machine of eight CPUs has none but the loopback.
    #[test]
    fn fitness_follows_the_worst_reason() {
        let good = Machine {
            cpus: 8,
            load_average: 0.1,
            governor: Some("performance".to_owned()),
            siblings: Some("0,8".to_owned()),
            pressure: Some(0.0),
            placement: Placement {
                proxy: Cpu(0),
                load: Cpu(1),
            },
            ..Machine::default()
        };
        let fitness = |machine: &Machine| machine.judge().iter().map(|reason| reason.0).max();
        assert_eq!(fitness(&good), Some(Fitness::Publishable));
        let changed = |change: &dyn Fn(&mut Machine)| {
            let mut machine = good.clone();
            change(&mut machine);
            fitness(&machine)
        };
        for (expected, change) in [
            (
                Fitness::Indicative,
                &(|m: &mut Machine| m.cpus = 2) as &dyn Fn(&mut Machine),
            ),
            (Fitness::Indicative, &|m| m.load_average = 1.5),
            (Fitness::Indicative, &|m| m.is_virtual = true),
            (Fitness::Indicative, &|m| {
                m.siblings = Some("0-1".to_owned())
            }),
            (Fitness::Indicative, &|m| m.load_average = 4.5),
            (Fitness::Unfit, &|m| {
                (m.load_average, m.pressure) = (4.5, None);
            }),
            (Fitness::Unfit, &|m| m.debug_build = true),
            (Fitness::Unfit, &|m| m.quota_cpus = Some(2.0)),
            (Fitness::Unfit, &|m| m.pressure = Some(0.2)),
        ] {
            assert_eq!(changed(change), Some(expected));
        }
    }

    /// What others took during the run counts as well, and a good machine stays good without it.
    #[test]
    fn the_run_itself_is_judged() {
        for (foreign, stolen, expected, caveats) in [
            (Some(0.01), None, Fitness::Publishable, 0),
            (Some(0.1), Some(0.0), Fitness::Indicative, 1),
            (Some(0.1), Some(0.3), Fitness::Unfit, 2),
        ] {
            let mut machine = Machine::default();
            machine.note_run(foreign, stolen);
            assert_eq!(
                (machine.fitness, machine.caveats.len()),
                (expected, caveats)
            );
        }
    }

    /// This machine can be looked at, and has a name.
    #[test]
    fn looks_at_a_real_machine() {
        let machine = Machine::look(Placement::default());
        assert!(!machine.kernel.is_empty() && machine.cpus > 0 && machine.memory_mib > 0);
        assert!(machine.fingerprint().contains(&machine.kernel));
    }
}
