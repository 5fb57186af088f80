//! A proxy's client against a center that the test plays, over real sockets: what it believes, what it
//! refuses, and what its hooks do.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tidegate_core::healing::{
    directive::{Action, Directive, Fronted, TTL_MAX},
    report::{Body, DirectiveAck, Node, OutboxLimits, Outcome, Subject},
};
use tidegate_xds::healing::{
    client::{Client, Order, Settings, Status, Times},
    lifecycle::{Hook, Lifecycle},
    server::{self, Answer, Event, Limits},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
    time::timeout,
};

/// How long a test waits for what must come: generous, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

const EPOCH: u64 = 7;

fn endpoint(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn settings(centers: &[SocketAddr]) -> Settings {
    Settings {
        centers: centers
            .iter()
            .map(|center| center.to_string().into())
            .collect(),
        node: Node {
            id: "a".into(),
            incarnation: 1,
            application: "pay".into(),
            fronts: vec![endpoint(80)],
            ..Node::default()
        },
        token: None,
        lifecycle: None,
        outbox: OutboxLimits::default(),
        times: Times {
            answer: Duration::from_millis(500),
            keep_alive: Duration::from_millis(50),
            silence: Duration::from_secs(5),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(50),
        },
    }
}

/// A center that the test plays.
struct Center {
    address: SocketAddr,
    events: flume::Receiver<Event>,
}

impl Center {
    async fn start() -> Center {
        Self::within(Limits::default()).await
    }

    async fn within(limits: Limits) -> Center {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, events) = flume::bounded(64);
        tokio::spawn(server::serve(listener, None, limits, sender));
        Center { address, events }
    }

    async fn event(&self) -> Event {
        timeout(PATIENCE, self.events.recv_async())
            .await
            .unwrap()
            .unwrap()
    }

    /// The next stream that opens.
    async fn opened(&self) -> (mpsc::Sender<Answer>, Duration) {
        loop {
            if let Event::Opened { answers, clock, .. } = self.event().await {
                return (answers, clock);
            }
        }
    }

    /// The next stream, welcomed in `epoch`, with `sequence` stored.
    async fn welcome(&self, sequence: u64, epoch: u64) -> (mpsc::Sender<Answer>, Duration) {
        let (answers, clock) = self.opened().await;
        answers
            .send(Answer::Acknowledge { sequence, epoch })
            .await
            .unwrap();
        (answers, clock)
    }

    /// The next report that is not a keep-alive: its sequence and what it says.
    async fn report(&self) -> (u64, Body) {
        loop {
            if let Event::Arrived { arrival, .. } = self.event().await
                && arrival.body != Body::KeepAlive
            {
                return (arrival.sequence, arrival.body);
            }
        }
    }

    async fn acknowledged(&self) -> DirectiveAck {
        match self.report().await.1 {
            Body::DirectiveAck(ack) => ack,
            other => panic!("{other:?}"),
        }
    }
}

struct Proxy {
    reports: flume::Sender<Body>,
    orders: flume::Receiver<Order>,
    status: watch::Receiver<Status>,
}

impl Proxy {
    fn start(settings: Settings) -> Proxy {
        let (reports, taken) = flume::unbounded();
        let (given, orders) = flume::bounded(4);
        let (client, status) = Client::new(settings, taken, given).unwrap();
        tokio::spawn(client.run());
        Proxy {
            reports,
            orders,
            status,
        }
    }

    async fn wait(&mut self, condition: impl FnMut(&Status) -> bool) -> Status {
        let status = timeout(PATIENCE, self.status.wait_for(condition)).await;
        status.unwrap().unwrap().clone()
    }
}

fn recovered(port: u16) -> Body {
    Body::Recovered(Subject {
        cluster: "pay".into(),
        service: "pay".into(),
        endpoint: endpoint(port),
        unit: "".into(),
    })
}

fn directive(id: u64, as_of: Duration, action: Action) -> Directive {
    Directive {
        id,
        node: "a".into(),
        epoch: EPOCH,
        as_of,
        ttl: Duration::from_secs(60),
        action,
    }
}

fn restart(application: &str, port: u16) -> Action {
    Action::Restart(Fronted {
        application: application.into(),
        endpoint: endpoint(port),
    })
}

fn direct(directive: Directive) -> Answer {
    Answer::Direct {
        sequence: 0,
        directive,
    }
}

/// Goal: forged, stale, old and foreign directives are refused, each with its reason, and nothing comes of
/// them (H5). Method: a center that sends each kind; a good one comes through.
#[tokio::test]
async fn wrong_directives_are_refused() {
    let center = Center::start().await;
    let proxy = Proxy::start(settings(&[center.address]));
    let (answers, clock) = center.welcome(0, EPOCH).await;
    let clear = Action::Clear {
        endpoint: endpoint(81),
    };
    let good = directive(1, clock, clear.clone());
    let hour = Duration::from_secs(3600);
    let wrong = [
        (
            "misaddressed",
            Directive {
                node: "b".into(),
                ..directive(2, clock, clear.clone())
            },
        ),
        (
            "expired",
            Directive {
                ttl: Duration::ZERO,
                ..directive(3, Duration::ZERO, clear.clone())
            },
        ),
        (
            "out_of_range",
            Directive {
                ttl: TTL_MAX * 2,
                ..directive(4, clock, clear.clone())
            },
        ),
        ("out_of_range", directive(5, clock + hour, clear.clone())),
        ("foreign", directive(6, clock, restart("shop", 80))),
        ("foreign", directive(7, clock, restart("pay", 81))),
        (
            "no hook is configured",
            directive(8, clock, restart("pay", 80)),
        ),
        ("repeated", good.clone()),
    ];
    answers.send(direct(good)).await.unwrap();
    for (why, wrong) in wrong {
        let id = wrong.id;
        answers.send(direct(wrong)).await.unwrap();
        let ack = center.acknowledged().await;
        assert_eq!(
            (ack.id, ack.outcome, &*ack.detail),
            (id, Outcome::Refused, why)
        );
    }
    let orders: Vec<Order> = proxy.orders.drain().collect();
    assert_eq!(orders.len(), 1);
    assert_eq!(
        (orders[0].directive.id, &orders[0].directive.action),
        (1, &clear)
    );
    let status = proxy.status.borrow().clone();
    assert_eq!((status.obeyed, status.refused), (1, 8));
}

/// Goal: a directive of another epoch than the stream's ends the stream; a center that led before is left,
/// for the one that leads (H5). Method: two centers.
#[tokio::test]
async fn stale_center_is_left() {
    let (new, old) = (Center::start().await, Center::start().await);
    let mut proxy = Proxy::start(settings(&[new.address, old.address]));
    let (answers, clock) = new.welcome(0, EPOCH).await;
    proxy.wait(|status| status.epoch == EPOCH).await;
    let clear = Action::Clear {
        endpoint: endpoint(81),
    };
    let forged = Directive {
        epoch: EPOCH + 1,
        ..directive(1, clock, clear)
    };
    answers.send(direct(forged)).await.unwrap();
    old.welcome(0, EPOCH - 1).await;
    let status = proxy.wait(|status| {
        let error = status.last_error.as_deref().unwrap_or_default();
        error.contains("led before")
    });
    assert_eq!(status.await.epoch, EPOCH);
    new.welcome(0, EPOCH).await;
    proxy.wait(|status| status.streams == 2).await;
    assert!(proxy.orders.is_empty());
}

/// Goal: what was not acknowledged is sent again on the next stream, what the center has is not (H12).
/// Method: a center that ends the stream after two of three reports.
#[tokio::test]
async fn next_stream_goes_on() {
    let center = Center::start().await;
    let mut proxy = Proxy::start(settings(&[center.address]));
    let (answers, _) = center.welcome(0, EPOCH).await;
    (1..=3).for_each(|port| proxy.reports.send(recovered(port)).unwrap());
    for sequence in 1..=3 {
        assert_eq!(
            center.report().await,
            (sequence, recovered(sequence as u16))
        );
    }
    let sequence = 1;
    let epoch = EPOCH;
    answers
        .send(Answer::Acknowledge { sequence, epoch })
        .await
        .unwrap();
    proxy.wait(|status| status.waiting == 2).await;
    drop(answers);
    // It had stored the second one as well.
    let (answers, _) = center.welcome(2, EPOCH).await;
    assert_eq!(center.report().await, (3, recovered(3)));
    let sequence = 3;
    answers
        .send(Answer::Acknowledge { sequence, epoch })
        .await
        .unwrap();
    let status = proxy.wait(|status| status.waiting == 0).await;
    assert_eq!((status.counts.acknowledged, status.counts.resent), (3, 1));
}

/// Goal: a center that does not lead is believed when it says who does, and two that name each other are no
/// trap. Method: a follower that names the leader; then two that name each other, and a third that leads.
#[tokio::test]
async fn followers_name_the_leader() {
    let (follower, leader) = (Center::start().await, Center::start().await);
    let mut proxy = Proxy::start(settings(&[follower.address]));
    let named = Answer::NotLeading(Some(leader.address.to_string().into()));
    follower.opened().await.0.send(named).await.unwrap();
    let _held = leader.welcome(0, EPOCH).await;
    let status = proxy.wait(|status| status.center.is_some()).await;
    assert_eq!(status.center.as_deref(), Some(&*leader.address.to_string()));

    let pair = [Center::start().await, Center::start().await];
    let addresses = [pair[0].address, pair[1].address, leader.address];
    for (center, other) in [(0, 1), (1, 0)] {
        let named = Answer::NotLeading(Some(addresses[other].to_string().into()));
        let events = pair[center].events.clone();
        tokio::spawn(async move {
            while let Ok(event) = events.recv_async().await {
                if let Event::Opened { answers, .. } = event {
                    let _ = answers.send(named.clone()).await;
                }
            }
        });
    }
    let mut proxy = Proxy::start(settings(&addresses));
    let _held = leader.welcome(0, EPOCH).await;
    proxy.wait(|status| status.center.is_some()).await;
}

/// Goal: who obeys too slowly is not drowned: what does not fit is refused. Method: one directive more than
/// the queue holds.
#[tokio::test]
async fn orders_are_bounded() {
    let center = Center::start().await;
    let proxy = Proxy::start(settings(&[center.address]));
    let (answers, clock) = center.welcome(0, EPOCH).await;
    for id in 1..=5 {
        let probe = Action::ProbeNow {
            endpoint: endpoint(81),
        };
        answers
            .send(direct(directive(id, clock, probe)))
            .await
            .unwrap();
    }
    let ack = center.acknowledged().await;
    assert_eq!((ack.id, &*ack.detail), (5, "busy"));
    assert_eq!(proxy.orders.len(), 4);
}

/// Goal: a center reads no stream faster than its rate, and loses nothing by it (H4). Method: fifteen reports
/// at once against a burst of five and twenty per second, the first message included.
#[tokio::test]
async fn streams_are_read_within_a_rate() {
    let center = Center::within(Limits {
        burst: 5,
        rate: 20.0,
        ..Limits::default()
    });
    let center = center.await;
    let mut quiet = settings(&[center.address]);
    quiet.times.keep_alive = PATIENCE;
    let proxy = Proxy::start(quiet);
    let _held = center.welcome(0, EPOCH).await;
    let began = tokio::time::Instant::now();
    (1..=15).for_each(|port| proxy.reports.send(recovered(port)).unwrap());
    for sequence in 1..=15 {
        assert_eq!(center.report().await.0, sequence);
    }
    // Fifteen less the burst, at twenty per second.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(490), "{took:?}");
}

/// Goal: connections beyond the limit wait, and have their turn. Method: two clients and a limit of one.
#[tokio::test]
async fn connections_are_limited() {
    let center = Center::within(Limits {
        connections: 1,
        ..Limits::default()
    });
    let center = center.await;
    let first = Proxy::start(settings(&[center.address]));
    let held = center.welcome(0, EPOCH).await;
    let mut second = Proxy::start(settings(&[center.address]));
    let status = second.wait(|status| status.last_error.is_some()).await;
    assert_eq!(status.streams, 0);
    drop((first, held));
    let _held = center.welcome(0, EPOCH).await;
    second.wait(|status| status.center.is_some()).await;
}

/// Goal: a stream on which nothing is said gives its place back. Method: a client that is silent for
/// longer than it may.
#[tokio::test]
async fn silent_streams_end() {
    let center = Center::within(Limits {
        silence: Duration::from_millis(100),
        ..Limits::default()
    });
    let center = center.await;
    let mut silent = settings(&[center.address]);
    silent.times.keep_alive = PATIENCE;
    let mut proxy = Proxy::start(silent);
    let _held = center.welcome(0, EPOCH).await;
    let status = proxy.wait(|status| status.last_error.is_some()).await;
    let error = status.last_error.unwrap();
    assert!(error.contains("silent for too long"), "{error}");
    loop {
        if let Event::Closed { .. } = center.event().await {
            return;
        }
    }
}

/// A folder of one test, gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("healing-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a hook that hears of one restart makes of it.
async fn through(hook: Hook, time: Duration) -> DirectiveAck {
    let center = Center::start().await;
    let mut settings = settings(&[center.address]);
    settings.lifecycle = Some(Lifecycle {
        hook,
        timeout: time,
    });
    let _proxy = Proxy::start(settings);
    let (answers, clock) = center.welcome(0, EPOCH).await;
    answers
        .send(direct(directive(9, clock, restart("pay", 80))))
        .await
        .unwrap();
    center.acknowledged().await
}

fn shell(script: &str) -> Hook {
    Hook::Command(vec!["sh".into(), "-c".into(), script.into()])
}

/// Goal: a command hears what is asked, and its end is what the center hears (H5). Method: one that checks
/// its environment, one that fails, one that is not there, one that takes too long.
#[tokio::test]
async fn commands_are_hooks() {
    let checks = r#"[ "$TIDEGATE_ACTION $TIDEGATE_APPLICATION $TIDEGATE_ENDPOINT $TIDEGATE_DIRECTIVE" \
        = "restart pay 10.0.0.1:80 9" ]"#;
    let nowhere = Hook::Command(vec!["/does/not/exist".into()]);
    for (hook, time, outcome, detail) in [
        (shell(checks), PATIENCE, Outcome::Done, ""),
        (shell("exit 3"), PATIENCE, Outcome::Failed, "exit status: 3"),
        (nowhere, PATIENCE, Outcome::Failed, "No such file"),
        (
            shell("exec sleep 60"),
            Duration::from_millis(50),
            Outcome::Failed,
            "not done within",
        ),
        (
            Hook::Command(Vec::new()),
            PATIENCE,
            Outcome::Failed,
            "empty command",
        ),
    ] {
        let ack = through(hook, time).await;
        assert_eq!((ack.id, ack.outcome), (9, outcome), "{}", ack.detail);
        assert!(ack.detail.contains(detail), "{}", ack.detail);
    }
}

/// Reads one request that ends with `}`, and answers with `status`.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &str) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

/// Goal: an agent beside the application can be the hook, over TCP or a Unix socket (H5). Method: each,
/// with a good and a bad status; and one that closes without an answer.
#[tokio::test]
async fn agents_are_hooks() {
    let folder = Folder::new();
    for (k, (status, outcome)) in [
        ("204 No Content", Outcome::Done),
        ("500 No", Outcome::Failed),
    ]
    .into_iter()
    .enumerate()
    {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = Hook::Http(tcp.local_addr().unwrap(), "/life".into());
        let agent = async { answer(tcp.accept().await.unwrap().0, status).await };
        let (ack, heard) = tokio::join!(through(hook, PATIENCE), agent);
        assert_eq!(ack.outcome, outcome, "{}", ack.detail);
        assert!(heard.starts_with("POST /life HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains(r#""action":"restart""#), "{heard}");

        let path = folder.0.join(format!("agent-{k}"));
        let unix = UnixListener::bind(&path).unwrap();
        let hook = Hook::Unix(path, "/life".into());
        let agent = async { answer(unix.accept().await.unwrap().0, status).await };
        let (ack, heard) = tokio::join!(through(hook, PATIENCE), agent);
        assert_eq!(ack.outcome, outcome, "{}", ack.detail);
        assert!(heard.contains(r#""endpoint":"10.0.0.1:80""#), "{heard}");
    }
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = Hook::Http(tcp.local_addr().unwrap(), "/".into());
    let (ack, _) = tokio::join!(through(hook, PATIENCE), async { drop(tcp.accept().await) });
    assert_eq!(ack.outcome, Outcome::Failed);
}

/// Goal: one hook runs at a time. Method: a second restart while the first runs.
#[tokio::test]
async fn one_hook_at_a_time() {
    let folder = Folder::new();
    let go_on = folder.0.join("go-on");
    let center = Center::start().await;
    let mut settings = settings(&[center.address]);
    settings.lifecycle = Some(Lifecycle {
        hook: shell(&format!(
            "until [ -e {} ]; do sleep 0.01; done",
            go_on.display()
        )),
        timeout: PATIENCE,
    });
    let _proxy = Proxy::start(settings);
    let (answers, clock) = center.welcome(0, EPOCH).await;
    for id in [1, 2] {
        answers
            .send(direct(directive(id, clock, restart("pay", 80))))
            .await
            .unwrap();
    }
    let ack = center.acknowledged().await;
    assert_eq!((ack.id, &*ack.detail), (2, "a hook is running"));
    fs::write(go_on, "").unwrap();
    let ack = center.acknowledged().await;
    assert_eq!((ack.id, ack.outcome), (1, Outcome::Done));
}
