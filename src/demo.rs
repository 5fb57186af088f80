//! `tidegate demo`: a gateway in front of three applications, gentle load, a failure and the recovery from
//! it, told as it happens. Everything is in this process; nothing needs to be installed.
//!
//! The story follows the share of the time that has passed, so that a short run shows the same.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tidegate_core::{
    message::Availability,
    stats::{HistogramCounts, Phase},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    apps::{self, App, Apps},
    exit::Failure,
    logging,
    service::{Handle, Service},
    source::Source,
    status::{Command, Request, State, Status},
    text::Span,
};

/// The load is gentle: it shares the machine with what it loads.
pub(crate) const RATE_MAX: i64 = 2000;

/// Connections of the load; the requests are spread over them.
const CLIENTS: u32 = 8;

/// For one request of the load.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two lines of numbers.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Bytes of an answer's head that the load reads before it gives up.
const HEAD_MAX: usize = 16 << 10;

/// Runs the demonstration for `time`, with `rate` requests a second.
pub(crate) fn run(time: Duration, rate: u32) -> Result<(), Failure> {
    let log = logging::start();
    // The story is on standard output; of the log only what went wrong.
    let _ = log.set("error");
    let apps = apps::start()?;
    let service = Service {
        source: Source::Embedded(configuration(&apps)),
        announce: None,
        unsafe_key_log: None,
        log,
        program: None,
    };
    let mut story = None;
    let told = &mut story;
    let outcome = service.run(move |handle| {
        let spawned = thread::Builder::new()
            .name("demo".into())
            .spawn(move || tell(&apps, &handle, time, rate));
        *told = spawned.ok();
    });
    if let Some(story) = story {
        // A panic in it has already ended the process.
        let _ = story.join();
    }
    outcome
}

/// One cluster over all three applications, so that what the bad ones do has to be survived.
fn configuration(apps: &Apps) -> String {
    format!(
        "\
version: 1
admin: 127.0.0.1:0
drain_timeout: 2s
listeners:
  edge:
    bind: 127.0.0.1:0
    routes:
      - {{ name: all, to: apps, timeout: 2s, retry: {{ on: [connect, 503], times: 3, budget: 100%, backoff: 0s }} }}
clusters:
  apps:
    endpoints: {{ static: [ \"{}\", \"{}\", \"{}\" ] }}
    health: {{ http: {{ path: /health }}, interval: 500ms, timeout: 250ms, healthy_after: 2, unhealthy_after: 2 }}
",
        apps.steady.address, apps.slow.address, apps.flaky.address
    )
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    failures: AtomicU64,
}

fn tell(apps: &Apps, handle: &Handle, time: Duration, rate: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(story(apps, handle, time, rate)),
        Err(e) => eprintln!("the demonstration cannot start: {e}"),
    }
    // The coordinator may be gone already, after Ctrl-C.
    let (done, _) = flume::bounded(1);
    let command = Command::Quit;
    let _ = handle.requests.send(Request { command, done });
}

async fn story(apps: &Apps, handle: &Handle, time: Duration, rate: u32) {
    let status = &handle.status;
    let Some(gateway) = introduce(apps, status, time, rate) else {
        eprintln!("the gateway has no listener");
        return;
    };
    let seen = Arc::new(Seen::default());
    for _ in 0..CLIENTS {
        let pause = Duration::from_secs_f64(f64::from(CLIENTS) / f64::from(rate));
        tokio::spawn(client(gateway, pause, seen.clone()));
    }
    let began = Instant::now();
    let mut narrator = Narrator::new(began, status.clone(), seen);
    let mut chapter = 0;
    let mut tick = interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The end of the time, or Ctrl-C.
    while began.elapsed() < time && status.state() != State::Stopping {
        tick.tick().await;
        let share = began.elapsed().as_secs_f64() / time.as_secs_f64();
        if chapter == 0 && share >= 0.3 {
            chapter = 1;
            apps.slow.set_up(false);
            narrator
                .say("application b goes down: it answers 503 to everything, health checks too");
        }
        if chapter == 1 && share >= 0.6 {
            chapter = 2;
            apps.slow.set_up(true);
            narrator.say("application b is up again");
        }
        narrator.watch_health(&apps.slow, "b");
        narrator.report_if_due();
    }
    narrator.conclude();
}

/// Prints what is running; returns where the gateway listens.
fn introduce(apps: &Apps, status: &Status, time: Duration, rate: u32) -> Option<SocketAddr> {
    let live = status.live();
    let gateway = *live.bound.values().next()?;
    println!(
        "tidegate {}  {} shards",
        env!("CARGO_PKG_VERSION"),
        status.cpus.len()
    );
    println!("  gateway       http://{gateway}/");
    if let Some(admin) = live.admin {
        println!("  dashboard     http://{admin}/");
    }
    println!(
        "  applications  a {} steady   b {} takes {} ms   c {} fails 1 in {}",
        apps.steady.address,
        apps.slow.address,
        apps::SLOW.as_millis(),
        apps.flaky.address,
        apps::FLAKY_EVERY
    );
    println!(
        "  load          {rate} requests/s for {} s over {CLIENTS} connections; Ctrl-C ends it\n",
        time.as_secs()
    );
    Some(gateway)
}

/// Tells what the gateway counts, as differences.
struct Narrator {
    began: Instant,
    status: Arc<Status>,
    seen: Arc<Seen>,
    reported: Instant,
    before: Numbers,
    out: bool,
}

#[derive(Clone, Default)]
struct Numbers {
    answers: u64,
    failures: u64,
    retries: u64,
    added: HistogramCounts,
    total: HistogramCounts,
}

impl Narrator {
    fn new(began: Instant, status: Arc<Status>, seen: Arc<Seen>) -> Self {
        Narrator {
            began,
            status,
            seen,
            reported: began,
            before: Numbers::default(),
            out: false,
        }
    }

    fn say(&self, what: &str) {
        let s = self.began.elapsed().as_secs();
        println!("  {:02}:{:02}  {what}", s / 60, s % 60);
    }

    fn numbers(&self) -> Numbers {
        Numbers {
            answers: self.seen.answers.load(Ordering::Relaxed),
            failures: self.seen.failures.load(Ordering::Relaxed),
            retries: self.status.counters.sum(|shard| shard.retries.get()),
            added: self.status.phase(Phase::Added),
            total: self.status.phase(Phase::Total),
        }
    }

    /// Says when health checks take the application out and let it in again.
    fn watch_health(&mut self, app: &App, name: &str) {
        let out = {
            let live = self.status.live();
            live.health.iter().any(|((_, address), health)| {
                *address == app.address && health.availability == Availability::Unavailable
            })
        };
        if out != self.out {
            self.out = out;
            self.say(&match out {
                true => format!("health checks take {name} out: it gets no more requests"),
                false => format!("health checks let {name} in again"),
            });
        }
    }

    fn report_if_due(&mut self) {
        if self.reported.elapsed() < REPORT_EVERY {
            return;
        }
        let now = self.numbers();
        let (added, total) = (
            now.added.since(&self.before.added),
            now.total.since(&self.before.total),
        );
        self.say(&format!(
            "{} answers, {} failed for clients, {} retries   total p50 {} p99 {}   added by us p50 {} p99 {}",
            now.answers - self.before.answers,
            now.failures - self.before.failures,
            now.retries - self.before.retries,
            Span::ns(total.quantile_ns(0.5)),
            Span::ns(total.quantile_ns(0.99)),
            Span::ns(added.quantile_ns(0.5)),
            Span::ns(added.quantile_ns(0.99)),
        ));
        self.before = now;
        self.reported = Instant::now();
    }

    fn conclude(&self) {
        let all = self.numbers();
        println!(
            "\n{} answers, {} of them failures that a client saw; {} retries hid the others.",
            all.answers, all.failures, all.retries
        );
        println!(
            "The gateway added {} to the median request and {} to the slowest in a hundred.",
            Span::ns(all.added.quantile_ns(0.5)),
            Span::ns(all.added.quantile_ns(0.99)),
        );
    }
}

/// Asks again and again over one connection, once every `pause`; connects anew when it breaks.
async fn client(gateway: SocketAddr, pause: Duration, seen: Arc<Seen>) {
    let mut connection = None;
    let mut due = interval(pause);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let answered = timeout(PATIENCE, ask(gateway, &mut connection)).await;
        let status = match answered {
            Ok(Ok(status)) => status,
            Ok(Err(_)) | Err(_) => {
                connection = None;
                seen.failures.fetch_add(1, Ordering::Relaxed);
                sleep(pause).await;
                continue;
            }
        };
        seen.answers.fetch_add(1, Ordering::Relaxed);
        if status >= 500 {
            seen.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One request; returns the status of its answer. Reads answers with a `Content-Length` only, which is
/// what the built-in applications and the gateway send.
async fn ask(gateway: SocketAddr, connection: &mut Option<TcpStream>) -> std::io::Result<u16> {
    let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(gateway).await?,
    };
    stream
        .write_all(b"GET /demo HTTP/1.1\r\nHost: demo.example\r\n\r\n")
        .await?;
    let mut answer = Vec::with_capacity(1024);
    let (status, whole, closes) = loop {
        if stream.read_buf(&mut answer).await? == 0 || answer.len() > HEAD_MAX {
            return Err(broken());
        }
        if let Some(head) = parse_head(&answer) {
            break head.ok_or_else(broken)?;
        }
    };
    while answer.len() < whole {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(broken());
        }
    }
    if !closes {
        *connection = Some(stream);
    }
    Ok(status)
}

/// Status, length of the whole answer and whether the connection ends with it; the outer `None` asks for
/// more bytes, the inner one says that this is not an answer we read.
fn parse_head(bytes: &[u8]) -> Option<Option<(u16, usize, bool)>> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let parse = || {
        let head = std::str::from_utf8(bytes.get(..end)?)
            .ok()?
            .to_ascii_lowercase();
        let status = head.strip_prefix("http/1.1 ")?.get(..3)?.parse().ok()?;
        let field = |name: &str| {
            head.lines()
                .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        let body: usize = field("content-length")?.parse().ok()?;
        Some((status, end + body, field("connection") == Some("close")))
    };
    Some(parse())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the load reads answers as they are framed. Method: whole, cut and foreign heads.
    #[test]
    fn heads_are_read() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(parse_head(whole), Some(Some((200, whole.len(), false))));
        let closing = b"HTTP/1.1 503 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(parse_head(closing), Some(Some((503, closing.len(), true))));
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nContent-"), None);
        assert_eq!(parse_head(b"SSH-2.0\r\n\r\n"), Some(None));
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n"), Some(None));
    }
}
