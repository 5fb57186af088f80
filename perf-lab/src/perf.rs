//! System calls of a process tree for each exchange, counted by the kernel's tracepoint for them, and its
//! instructions where the machine counts them: most virtual ones do not.
//!
//! `perf stat` does the counting: a counter needs a system call that only unsafe code can make. Each
//! counted call costs some tens of nanoseconds, so this is a pass of its own, and its costs and latencies
//! are thrown away. `strace` would see the same and slow the peer down tenfold.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{control::Control, cost, error::Error};

const CALLS: &str = "raw_syscalls:sys_enter";
const INSTRUCTIONS: &str = "instructions";

/// What was counted, for each exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counts {
    /// System calls.
    pub calls: f64,
    /// Instructions of user space and kernel; `None` where the machine does not count them.
    pub instructions: Option<f64>,
}

/// A count under way, on a thread of its own. It ends by itself.
#[derive(Debug)]
pub(crate) struct Counting(JoinHandle<Result<Counts, Error>>);

impl Counting {
    /// Begins to count what the trees below `roots` do, for a while.
    pub(crate) fn start(
        roots: &[u32],
        time: Duration,
        control: Arc<Control>,
    ) -> Result<Counting, Error> {
        let mut pids = Vec::new();
        for root in roots {
            let tree = cost::tree(Path::new("/proc"), *root);
            pids.extend(tree.map_err(Error::io(format!("looking for process {root}")))?);
        }
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        thread::Builder::new()
            .name("lab-perf".to_owned())
            .spawn(move || per_exchange(&pids.join(","), time, &control))
            .map(Counting)
            .map_err(Error::io("starting a thread"))
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Result<Counts, Error> {
        let wrong = || Err(Error::Load("the counting thread panicked".to_owned()));
        self.0.join().unwrap_or_else(|_| wrong())
    }
}

/// perf counts while its child sleeps, and lives a little longer than that: exchanges are taken as a
/// rate over its whole life.
fn per_exchange(pids: &str, time: Duration, control: &Control) -> Result<Counts, Error> {
    let (began, completed) = (Instant::now(), control.completed());
    let output = Command::new("perf")
        .args([
            "stat",
            "-x",
            ",",
            "-e",
            CALLS,
            "-e",
            INSTRUCTIONS,
            "-p",
            pids,
        ])
        .args(["--", "sleep", &time.as_secs_f64().to_string()])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io("starting perf, which counts system calls"))?;
    let exchanges = (control.completed() - completed) as f64 / began.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    let Some(calls) = count(&said, CALLS) else {
        let said = said.trim();
        return Err(Error::Host(format!(
            "perf did not count system calls: {said}"
        )));
    };
    if exchanges <= 0.0 {
        return Err(Error::Load("nothing was completed meanwhile".to_owned()));
    }
    let each = |count: u64| count as f64 / time.as_secs_f64() / exchanges;
    // A tree that answers executes some: zero is a counter that never ran.
    let instructions = count(&said, INSTRUCTIONS).filter(|count| *count > 0);
    Ok(Counts {
        calls: each(calls),
        instructions: instructions.map(each),
    })
}

/// The first field of an event's line. A process that slept throughout is "not counted": none.
fn count(said: &str, event: &str) -> Option<u64> {
    let is_its = |line: &&str| line.split(',').any(|field| field == event);
    let line = said.lines().find(is_its)?;
    match line.split(',').next()? {
        "<not counted>" => Some(0),
        count => count.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What perf prints is read, and what it prints instead is not taken for a number.
    #[test]
    fn counts_are_read() {
        let line = "2901,,raw_syscalls:sys_enter,727301,100.00,,\n";
        assert_eq!(count(line, CALLS), Some(2_901));
        assert_eq!(count(line, INSTRUCTIONS), None);
        let warned = format!("Warning: no instructions here\n{line}");
        assert_eq!(count(&warned, CALLS), Some(2_901));
        assert_eq!(count(&warned, INSTRUCTIONS), None);
        let both = format!("{line}81234567,,instructions,727301,100.00,1.02,insn per cycle\n");
        assert_eq!(count(&both, INSTRUCTIONS), Some(81_234_567));
        let virtual_machine = format!("{line}<not supported>,,instructions,0,100.00,,\n");
        assert_eq!(count(&virtual_machine, CALLS), Some(2_901));
        assert_eq!(count(&virtual_machine, INSTRUCTIONS), None);
        let slept = "<not counted>,,raw_syscalls:sys_enter,0,100.00,,";
        assert_eq!(count(slept, CALLS), Some(0));
        for wrong in [
            "<not supported>,,raw_syscalls:sys_enter,0,100.00,,",
            "event syntax error: 'raw_syscalls:sys_enter'",
            "",
        ] {
            assert_eq!(count(wrong, CALLS), None, "{wrong}");
        }
    }
}
