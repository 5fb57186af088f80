//! The attacks on HTTP/2 that are known by name, against Tidegate and the proxies of others, one after the
//! other: what each costs the proxy in processor and memory, and what a client beside it waits.
//!
//! ```text
//! cargo bench --bench attacks [NAME]      a table in Markdown; NAME is a part of an attack's name
//! ```
//!
//! TIDEGATE_ATTACKED names another binary of Tidegate. The attacker's pace is bounded, so that what is
//! compared is what its frames cost, and not who reads faster.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod set;
mod target;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    frames::{ACK, DATA, END_STREAM, GO_AWAY, PREFACE, RESET, SETTINGS, WINDOW_UPDATE, frame, get},
    pause,
};
use set::{ATTACKS, Attack};
use target::Target;

/// How long each attack lasts.
const SPAN: Duration = Duration::from_secs(2);
/// After each, so that what one proxy leaves behind at the origin is not the next one's.
const SETTLING_MILLIS: u64 = 700;
/// Steps of the attacker for each millisecond, on all its connections.
const STEPS_PER_MILLISECOND: u32 = 50;
/// Of one read or write of the victim; a request that takes longer has failed.
const VICTIM_PATIENCE: Duration = Duration::from_secs(2);

/// What an attack has done to a proxy.
struct Outcome {
    /// Of one core.
    cpu_percent: u64,
    /// More than before, at its most.
    memory_kib: u64,
    /// Connections of the attacker that the proxy has closed.
    closed: u32,
    /// Of the victim's requests, sorted.
    waits: Vec<Duration>,
    failed: u32,
}

fn main() {
    // Cargo's own argument, and perhaps a name.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let origin = target::origin();
    let targets = Target::start_all(origin.address);
    print!("| attack |");
    targets
        .iter()
        .for_each(|target| print!(" {} |", target.name));
    println!("\n|---|{}", "---|".repeat(targets.len()));
    let calm = Attack {
        name: "none",
        known_as: "",
        connections: 0,
        ..ATTACKS[0]
    };
    let is_wanted = |attack: &&Attack| {
        let wanted = wanted.as_deref().unwrap_or_default();
        attack.name.contains(wanted)
    };
    for attack in [&calm].into_iter().chain(ATTACKS.iter().filter(is_wanted)) {
        print!("| {}", attack.name);
        if !attack.known_as.is_empty() {
            print!(" ({})", attack.known_as);
        }
        for target in &targets {
            print!(" | {}", cell(&carry_out(attack, target)));
            io::stdout().flush().unwrap();
        }
        println!(" |");
    }
}

/// Processor, memory, what the victim waited, and how often the attacker was cut off.
fn cell(outcome: &Outcome) -> String {
    let at = outcome.waits.len() * 99 / 100;
    let p99 = match outcome.waits.get(at) {
        Some(wait) => format!("{:.1} ms", wait.as_secs_f64() * 1e3),
        None => "–".to_owned(),
    };
    let failed = match outcome.failed {
        0 => String::new(),
        failed => format!(", **{failed} failed**"),
    };
    format!(
        "{} %, {:.1} MiB, {p99}{failed}, {} cut",
        outcome.cpu_percent,
        outcome.memory_kib as f64 / 1024.0,
        outcome.closed
    )
}

fn carry_out(attack: &Attack, target: &Target) -> Outcome {
    let is_over = AtomicBool::new(false);
    let memory_before = target.rss_kib();
    let ticks_before = target.cpu_ticks();
    let began = Instant::now();
    let mut memory_most = memory_before;
    let (closed, (mut waits, failed)) = thread::scope(|scope| {
        let attacker = scope.spawn(|| attack_until(attack, target.address, &is_over));
        let victim = scope.spawn(|| ask_until(target.address, &is_over));
        while began.elapsed() < SPAN {
            memory_most = memory_most.max(target.rss_kib());
            pause(20);
        }
        is_over.store(true, Ordering::Relaxed);
        (attacker.join().unwrap(), victim.join().unwrap())
    });
    waits.sort_unstable();
    let ticks = target.cpu_ticks() - ticks_before;
    let cpu_percent = ticks * 1000 / began.elapsed().as_millis() as u64;
    pause(SETTLING_MILLIS);
    Outcome {
        cpu_percent,
        memory_kib: memory_most - memory_before,
        closed,
        waits,
        failed,
    }
}

/// One connection of the attacker.
struct Line {
    stream: TcpStream,
    steps: u32,
}

impl Line {
    fn open(address: SocketAddr, attack: &Attack) -> io::Result<Line> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut payload = Vec::new();
        for (id, value) in attack.settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let settings = frame(SETTINGS, 0, 0, &payload);
        stream.write_all(&[PREFACE, &settings, &frame(SETTINGS, ACK, 0, &[])].concat())?;
        stream.set_nonblocking(true)?;
        Ok(Line { stream, steps: 0 })
    }

    /// Sends some steps, as far as the proxy takes them, and takes what has come.
    fn go_on(&mut self, attack: &Attack, steps: u32) -> io::Result<()> {
        let mut bytes = Vec::new();
        for step in self.steps..self.steps.saturating_add(steps) {
            bytes.extend((attack.step)(step));
        }
        if !bytes.is_empty() {
            self.steps += steps;
            self.send(&bytes)?;
        }
        match attack.reads {
            true => self.take_what_is_there(),
            false => Ok(()),
        }
    }

    fn take_what_is_there(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Frames must be whole, so that what does not fit waits a little: who is not read for a second is cut off.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream
            .set_write_timeout(Some(Duration::from_secs(1)))?;
        self.stream.write_all(bytes)?;
        self.stream.set_nonblocking(true)
    }
}

/// Attacks at a bounded pace; returns how often the proxy has closed a connection.
fn attack_until(attack: &Attack, address: SocketAddr, is_over: &AtomicBool) -> u32 {
    let mut lines: Vec<Line> = Vec::new();
    let mut closed = 0;
    while !is_over.load(Ordering::Relaxed) {
        if lines.len() < attack.connections
            && let Ok(line) = Line::open(address, attack)
        {
            lines.push(line);
        }
        let steps = STEPS_PER_MILLISECOND / lines.len().max(1) as u32;
        let before = lines.len();
        lines.retain_mut(|line| line.go_on(attack, steps.max(1)).is_ok());
        closed += (before - lines.len()) as u32;
        pause(1);
    }
    closed
}

/// A client that means well: one request after the other. Returns how long each took, and how many failed.
fn ask_until(address: SocketAddr, is_over: &AtomicBool) -> (Vec<Duration>, u32) {
    let (mut waits, mut failed) = (Vec::new(), 0);
    let mut victim = None;
    while !is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        // A proxy may end a connection after so many requests: that is no failure.
        match ask(&mut victim, address).or_else(|_| ask(&mut victim, address)) {
            Ok(()) => waits.push(began.elapsed()),
            Err(_) => failed += 1,
        }
        pause(2);
    }
    (waits, failed)
}

/// A connection and the next stream.
struct Victim {
    stream: TcpStream,
    next: u32,
}

/// A request over a connection that is made if there is none, and forgotten if it fails.
fn ask(kept: &mut Option<Victim>, address: SocketAddr) -> io::Result<()> {
    let mut victim = match kept.take() {
        Some(victim) => victim,
        None => Victim::connect(address)?,
    };
    victim.get()?;
    *kept = Some(victim);
    Ok(())
}

impl Victim {
    fn connect(address: SocketAddr) -> io::Result<Victim> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(VICTIM_PATIENCE))?;
        stream.set_write_timeout(Some(VICTIM_PATIENCE))?;
        let settings = frame(SETTINGS, 0, 0, &[]);
        stream.write_all(&[PREFACE, &settings].concat())?;
        Ok(Victim { stream, next: 1 })
    }

    /// The connection's window, by what was taken from it.
    fn reopen(&mut self, bytes: usize) -> io::Result<()> {
        let increment = (bytes as u32).to_be_bytes();
        match bytes {
            0 => Ok(()),
            _ => self
                .stream
                .write_all(&frame(WINDOW_UPDATE, 0, 0, &increment)),
        }
    }

    fn get(&mut self) -> io::Result<()> {
        let id = self.next;
        self.next += 2;
        self.stream.write_all(&get(id, "/bytes/128"))?;
        let mut has_data = false;
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head)?;
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
            self.stream.read_exact(&mut payload)?;
            let is_ours = u32::from_be_bytes([s0, s1, s2, s3]) == id;
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    self.stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
                }
                RESET if is_ours => return Err(io::ErrorKind::ConnectionReset.into()),
                GO_AWAY => return Err(io::ErrorKind::ConnectionAborted.into()),
                DATA => {
                    has_data |= is_ours && payload.len() == 128;
                    self.reopen(payload.len())?;
                }
                _ => {}
            }
            if is_ours && flags & END_STREAM != 0 && kind <= 1 {
                return match has_data {
                    true => Ok(()),
                    false => Err(io::ErrorKind::InvalidData.into()),
                };
            }
        }
    }
}
