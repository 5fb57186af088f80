//! The access log's writer: one thread that takes records off the shards' rings, formats them and writes
//! them in batches. A shard never waits for it: when a ring is full the record is dropped and counted.

#[cfg(test)]
pub(crate) mod fields;
mod format;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tidegate_core::{
    config::model::{AccessLog as Settings, AccessLogFormat},
    message::AccessRecord,
};

use crate::exit::{Exit, Failure};

/// Records that one shard may be ahead of the writer: 4096 × ~250 bytes are 1 MiB a shard, and at
/// 100,000 requests/s they last 40 ms, four of the writer's pauses under load.
const RING_RECORDS: usize = 4096;

/// A batch is written when it has grown this large, or when the rings are empty.
const BATCH_BYTES: usize = 64 << 10;

/// The writer's pause when all rings are empty. It bounds how late a line is, and what idling costs.
const PAUSE: Duration = Duration::from_millis(10);

/// The pause once nothing has come for a while: 20 wake-ups a second.
const PAUSE_IDLE: Duration = Duration::from_millis(50);

/// The running writer.
pub(crate) struct AccessLog {
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    reopen: AtomicBool,
    stop: AtomicBool,
}

impl AccessLog {
    /// Opens the log and starts the thread; returns one producer a shard beside the handle.
    pub(crate) fn start(
        settings: &Settings,
        shards: usize,
    ) -> Result<(AccessLog, Vec<rtrb::Producer<AccessRecord>>), Failure> {
        let target = Target::open(settings.path.as_deref()).map_err(|e| {
            Failure::new(
                Exit::HostUnfit,
                format!(
                    "cannot open the access log `{}`: {e}",
                    settings.path.as_deref().unwrap_or("standard output")
                ),
                "create its directory, or give this user the right to write there",
            )
        })?;
        let (producers, consumers) = (0..shards)
            .map(|_| rtrb::RingBuffer::new(RING_RECORDS))
            .unzip();
        let shared = Arc::new(Shared::default());
        let mut writer = Writer {
            target,
            path: settings.path.clone(),
            format: settings.format,
            rings: consumers,
            batch: Vec::with_capacity(BATCH_BYTES + 4096),
            failing: false,
        };
        let thread = thread::Builder::new().name("access-log".into()).spawn({
            let shared = shared.clone();
            move || writer.run(&shared)
        })?;
        Ok((AccessLog { thread, shared }, producers))
    }

    /// Opens the file anew, after a rotation has renamed it.
    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// Writes what is still in the rings and ends the thread. The shards must have stopped.
    pub(crate) fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A panic in the writer has already ended the process.
        let _ = self.thread.join();
    }
}

enum Target {
    Stdout,
    File(File),
}

impl Target {
    fn open(path: Option<&str>) -> io::Result<Target> {
        let Some(path) = path else {
            return Ok(Target::Stdout);
        };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Target::File(file))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Target::File(file) => file.write_all(bytes),
        }
    }
}

struct Writer {
    target: Target,
    path: Option<String>,
    format: AccessLogFormat,
    rings: Vec<rtrb::Consumer<AccessRecord>>,
    batch: Vec<u8>,
    /// The last write failed: said once, not once a batch.
    failing: bool,
}

impl Writer {
    fn run(&mut self, shared: &Shared) {
        let mut empty_turns = 0u32;
        loop {
            // Read before draining: what was pushed before the stop is then still written.
            let stop = shared.stop.load(Ordering::Acquire);
            let records = self.drain();
            self.write();
            if shared.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            if records > 0 {
                empty_turns = 0;
                continue;
            }
            if stop {
                return;
            }
            empty_turns = empty_turns.saturating_add(1);
            thread::park_timeout(if empty_turns < 100 { PAUSE } else { PAUSE_IDLE });
        }
    }

    /// Formats what the rings hold; returns how many records that were.
    fn drain(&mut self) -> usize {
        let mut records = 0;
        for i in 0..self.rings.len() {
            while let Some(record) = self.rings.get_mut(i).and_then(|ring| ring.pop().ok()) {
                format::line(self.format, &record, &mut self.batch);
                records += 1;
                if self.batch.len() >= BATCH_BYTES {
                    self.write();
                }
            }
        }
        records
    }

    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.target.write(&self.batch) {
            Ok(()) => self.failing = false,
            Err(e) if !self.failing => {
                self.failing = true;
                tracing::error!("access log: writing failed, lines are lost until it works: {e}");
            }
            Err(_) => {}
        }
        self.batch.clear();
    }

    fn reopen(&mut self) {
        match Target::open(self.path.as_deref()) {
            Ok(target) => {
                self.target = target;
                tracing::info!("access log reopened");
            }
            Err(e) => tracing::error!("access log: cannot reopen, the old file stays in use: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{fs, path::PathBuf};

    fn record(target: &str) -> AccessRecord {
        AccessRecord {
            method: "GET".into(),
            target: target.into(),
            status: 200,
            ..AccessRecord::default()
        }
    }

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tidegate-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    /// Goal: no record is lost between two shards, a rotation and a stop. Method: push, rename and
    /// reopen, push more, stop; both files together hold every line once.
    #[test]
    fn records_survive_rotation_and_stop() {
        let path = temporary("access.log");
        let rotated = temporary("access.log.1");
        let settings = Settings {
            path: Some(path.to_str().unwrap().into()),
            format: AccessLogFormat::Short,
        };
        let (log, mut producers) = AccessLog::start(&settings, 2).unwrap();
        for (i, producer) in producers.iter_mut().enumerate() {
            producer.push(record(&format!("/before/{i}"))).unwrap();
        }
        fs::rename(&path, &rotated).unwrap();
        log.reopen();
        while !path.exists() {
            thread::yield_now();
        }
        for (i, producer) in producers.iter_mut().enumerate() {
            producer.push(record(&format!("/after/{i}"))).unwrap();
        }
        log.stop();
        let lines = fs::read_to_string(&rotated).unwrap() + &fs::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().count(), 4, "{lines}");
        for target in ["/before/0", "/before/1", "/after/0", "/after/1"] {
            assert!(lines.contains(target), "{target}");
        }
        let _ = (fs::remove_file(&path), fs::remove_file(&rotated));
    }

    /// Goal: a log that cannot be opened is the host's fault, with a remedy. Method: no such directory.
    #[test]
    fn unopenable_log_is_host_unfit() {
        let settings = Settings {
            path: Some("/nonexistent/directory/access.log".into()),
            format: AccessLogFormat::Json,
        };
        let failure = AccessLog::start(&settings, 1).err().unwrap();
        assert_eq!(failure.exit, Exit::HostUnfit);
        assert!(!failure.remedy.is_empty());
    }
}
