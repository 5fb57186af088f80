//! Where a run took place, and what speaks against believing it.

use std::{fs, thread};

use serde::Serialize;

use crate::cpu::Placement;

/// A record of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Memory.
    pub memory_mib: u64,
    /// Frequency governor of the proxy's CPU, if the machine tells.
    pub governor: Option<String>,
    /// Runnable threads, averaged over the last minute, before the run.
    pub load_average: f64,
    /// Who runs where.
    pub placement: Placement,
    /// Reasons to take the numbers with care.
    pub caveats: Vec<String>,
}

impl Machine {
    /// Looks around.
    pub fn look(placement: Placement) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let governor = read(&format!(
            "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor",
            placement.proxy
        ));
        let load_average = read("/proc/loadavg")
            .split_ascii_whitespace()
            .next()
            .and_then(|value| value.parse().ok())
            .unwrap_or(0.0);
        let mut machine = Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cpus,
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .trim_end_matches(" kB")
                .parse::<u64>()
                .map_or(0, |kib| kib / 1024),
            governor: (!governor.is_empty()).then(|| governor.trim().to_owned()),
            load_average,
            placement,
            caveats: Vec::new(),
        };
        machine.caveats = machine.judge();
        machine
    }

    fn judge(&self) -> Vec<String> {
        let mut caveats =
            vec!["loopback: no network card, no interrupts of one, no other machine".to_owned()];
        if self.cpus < 4 {
            caveats.push(format!(
                "{} CPUs: origin and generator share one, so wall-clock throughput is often theirs",
                self.cpus
            ));
        }
        if self.load_average > 0.5 {
            caveats.push(format!(
                "the machine was not idle before the run (load average {})",
                self.load_average
            ));
        }
        if let Some(governor) = self.governor.as_ref().filter(|name| *name != "performance") {
            caveats.push(format!("the frequency governor is `{governor}`"));
        }
        caveats
    }
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

    /// Both `/proc` styles of "name: value" are read.
    #[test]
    fn fields() {
        assert_eq!(
            field("a\t: 1\nmodel name\t: Some CPU\n", "model name"),
            "Some CPU"
        );
        assert_eq!(field("MemTotal:  2048 kB\n", "MemTotal"), "2048 kB");
        assert_eq!(field("", "MemTotal"), "");
    }
}
