//! Links to endpoints that are switched, rotated and retired under load: a whole shard before an origin that
//! takes plaintext and TLS on one port.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tidegate_core::{
    config::model::{self, ExpiredCrl},
    encryption::secret::Material,
    id::{Epoch, ShardId},
    message::{AccessRecord, Directive, TlsContexts},
    reason::Reason,
    snapshot::{Resolution, Snapshot},
    stats::{PerShard, ShardCounters},
};

use super::fixtures::*;
use crate::{Shard, ShardSettings, bind, tls};

/// Clients that send one request after the other.
const CLIENTS: usize = 8;

/// An origin that tells in each answer how it was asked: `plain` or `in tls`.
struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    /// Handshakes end in nothing.
    broken: AtomicBool,
    /// `/slow` is answered, in plaintext.
    released: AtomicBool,
    plain: Kind,
    tls: Kind,
}

#[derive(Default)]
struct Kind {
    made: AtomicU64,
    open: AtomicU64,
}

impl Origin {
    fn start(authority: &Authority) -> Origin {
        let (chain, key) = authority.issue(&["127.0.0.1"]).der();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let ours = shared.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                if ours.stopped.load(SeqCst) {
                    return;
                }
                let (ours, config) = (ours.clone(), config.clone());
                thread::spawn(move || ours.serve(socket.unwrap(), config));
            }
        });
        Origin { address, shared }
    }

    fn made(&self) -> (u64, u64) {
        let shared = &self.shared;
        (shared.plain.made.load(SeqCst), shared.tls.made.load(SeqCst))
    }

    fn open(&self) -> (u64, u64) {
        let shared = &self.shared;
        (shared.plain.open.load(SeqCst), shared.tls.open.load(SeqCst))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream, config: Arc<ServerConfig>) {
        let mut first = [0];
        if socket.peek(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let (kind, body) = match first[0] {
            0x16 => (&self.tls, "in tls"),
            _ => (&self.plain, "plain"),
        };
        kind.made.fetch_add(1, SeqCst);
        kind.open.fetch_add(1, SeqCst);
        let connection = ServerConnection::new(config).unwrap();
        let _ = match first[0] {
            0x16 if self.broken.load(SeqCst) => Ok(()),
            0x16 => self.answer(StreamOwned::new(connection, socket), body),
            _ => self.answer(socket, body),
        };
        kind.open.fetch_sub(1, SeqCst);
    }

    /// Answers requests until the connection ends.
    fn answer(&self, mut stream: impl Read + Write, body: &str) -> io::Result<()> {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        loop {
            let head = read_head(&mut stream)?;
            let slow = head.starts_with("get /slow") && body == "plain";
            while slow && !self.released.load(SeqCst) {
                thread::yield_now();
            }
            stream.write_all(answer.as_bytes())?;
        }
    }
}

fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).to_lowercase())
}

/// A shard whose policy and secrets change while it runs.
struct Switched {
    shard: Option<Shard>,
    address: SocketAddr,
    counters: Arc<PerShard<ShardCounters>>,
    log: rtrb::Consumer<AccessRecord>,
    contexts: Option<TlsContexts>,
    snapshot: Option<Arc<Snapshot>>,
    listener: Option<TcpListener>,
}

impl Switched {
    fn start() -> Switched {
        let listener = TcpListener::from(bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap());
        let counters = Arc::new(PerShard::new(1));
        let (producer, log) = rtrb::RingBuffer::new(1 << 16);
        let settings = ShardSettings {
            id: ShardId(0),
            cpu: None,
            ring: model::Ring::default(),
            seed: 1,
            hash_key: 1,
        };
        Switched {
            shard: Some(Shard::spawn(settings, counters.clone(), Some(producer)).unwrap()),
            address: listener.local_addr().unwrap(),
            counters,
            log,
            contexts: None,
            snapshot: None,
            listener: Some(listener),
        }
    }

    /// Uses a cluster with these lines of YAML, and `ca` as its authority, and waits until it is in use.
    fn install(&mut self, cluster: &str, ca: &Material) {
        let yaml = format!(
            "{}listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes: [{{ to: app }}]\n\
             clusters:\n  app:\n{cluster}",
            if cluster.contains("trusted_ca") {
                secrets_yaml(&["ca"])
            } else {
                String::new()
            }
        );
        let mut config = config(&yaml);
        for listener in config.listeners.values_mut() {
            listener.bind = self.address;
        }
        let epoch = self.snapshot.as_ref().map_or(1, |s| s.epoch.0 + 1);
        let secrets = secrets(&[("ca", ca.clone())]);
        let previous = self.contexts.as_ref();
        let keys = lasting(1);
        let (contexts, faults) = tls::build(&config, &secrets, &keys, epoch, previous);
        assert!(faults.is_empty(), "{faults:?}");
        let previous = self.snapshot.as_deref();
        let snapshot = Arc::new(Snapshot::compile(
            Arc::new(config),
            &Resolution::default(),
            previous,
            1,
            Epoch(epoch),
        ));
        let socket = self.listener.take().map(|l| (self.address, l.into()));
        let install = Directive::Install {
            snapshot: snapshot.clone(),
            sockets: socket.into_iter().collect(),
        };
        let shard = self.shard.as_mut().unwrap();
        let taken = self.counters.get(ShardId(0)).unwrap().tls_installs.get();
        shard.send(Directive::Tls(contexts.clone())).unwrap();
        // Apart, as they may be: requests go on in between.
        let counters = self.counters.get(ShardId(0)).unwrap();
        eventually("the contexts", || counters.tls_installs.get() > taken);
        shard.send(install).unwrap();
        (self.contexts, self.snapshot) = (Some(contexts), Some(snapshot));
        eventually("the snapshot in use", || {
            self.counters().epoch.get() == epoch
        });
    }

    fn counters(&self) -> &ShardCounters {
        self.counters.get(ShardId(0)).unwrap()
    }

    fn client(&self) -> Client {
        let socket = TcpStream::connect(self.address).unwrap();
        let timeout = Some(Duration::from_secs(20));
        socket.set_read_timeout(timeout).unwrap();
        Client(socket)
    }

    /// Runs `f` while clients send requests, each of which must be answered with 200.
    fn under_load(&mut self, f: impl FnOnce(&mut Switched)) {
        let stop = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (mut client, stop) = (self.client(), stop.clone());
                thread::spawn(move || {
                    let mut requests = 0u64;
                    while !stop.load(SeqCst) {
                        let answer = client.get("/");
                        assert!(answer.starts_with("http/1.1 200"), "{answer}");
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        f(self);
        stop.store(true, SeqCst);
        let requests: u64 = load.into_iter().map(|l| l.join().unwrap()).sum();
        assert!(requests > 0);
        assert_eq!(self.counters().link_requests_lost.get(), 0);
    }

    /// The last record of the access log.
    fn logged(&mut self) -> AccessRecord {
        let mut last = None;
        eventually("a record", || {
            while let Ok(record) = self.log.pop() {
                last = Some(record);
            }
            last.is_some()
        });
        last.unwrap()
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        if let Some(mut shard) = self.shard.take() {
            let _ = shard.send(Directive::Stop);
            let ended = shard.join();
            if !thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

struct Client(TcpStream);

impl Client {
    /// Head, lower case, and body of the answer.
    fn get(&mut self, target: &str) -> String {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        self.0.write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut self.0).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        head + &String::from_utf8_lossy(&body)
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "it never came: {what}");
        thread::yield_now();
    }
}

/// A cluster of one endpoint.
fn cluster(origin: &Origin, mode: &str, endpoint: &str) -> String {
    let tls = match mode {
        "" => String::new(),
        mode => format!(
            "    tls: {{ mode: {mode}, trusted_ca: ca, warm_up: 20ms, drain_timeout: 100ms }}\n"
        ),
    };
    let address = origin.address;
    format!("{tls}    endpoints: {{ static: [{{ address: \"{address}\"{endpoint} }}] }}\n")
}

/// Goal: switched to TLS and back under load, no request is lost or refused, and the old links are gone each
/// time (E6, E12). Method: ten rounds; the origin tells what is open.
#[test]
fn switches_lose_nothing() {
    let authority = Authority::new("ca");
    let origin = Origin::start(&authority);
    let ca = authority.material();
    let mut shard = Switched::start();
    let on = |on: bool| cluster(&origin, "follow_peer", if on { ", tls: on" } else { "" });
    shard.install(&on(false), &ca);
    shard.under_load(|shard| {
        for _ in 0..10 {
            shard.install(&on(true), &ca);
            eventually("TLS alone", || origin.open().0 == 0 && origin.open().1 > 0);
            shard.install(&on(false), &ca);
            eventually("plaintext alone", || origin.open().1 == 0);
        }
    });
    let counters = shard.counters();
    assert_eq!(counters.link_switches.get(), 20);
    assert_eq!(counters.link_warm_ups_failed.get(), 0);
    assert_eq!(counters.links_forced.get(), 0);
    assert_eq!(
        (counters.links_tls.get(), counters.links_warming.get()),
        (0, 0)
    );
    eventually("no link drains", || {
        shard.counters().links_draining.get() == 0
    });
}

/// Goal: TLS may be taken out of the policy altogether under load, though contexts and snapshots come one after
/// the other (E6). Method: ten rounds with connections of one request each, so that one is made at
/// every moment.
#[test]
fn taking_the_policy_away_loses_nothing() {
    let authority = Authority::new("ca");
    let origin = Origin::start(&authority);
    let ca = authority.material();
    let mut shard = Switched::start();
    let policy = |mode: &str| {
        let cluster = cluster(&origin, mode, ", tls: on");
        format!("    requests_per_connection: 1\n{cluster}")
    };
    shard.install(&policy(""), &ca);
    shard.under_load(|shard| {
        for _ in 0..10 {
            let before = origin.made();
            shard.install(&policy("follow_peer"), &ca);
            eventually("TLS", || origin.made().1 > before.1 + 9);
            let before = origin.made();
            shard.install(&policy(""), &ca);
            eventually("plaintext", || origin.made().0 > before.0 + 9);
        }
    });
}

/// Goal: an endpoint that announces what it cannot do is served as before, until it can (E12). Method:
/// handshakes that end in nothing, then such that work.
#[test]
fn failed_warm_ups_change_nothing() {
    let authority = Authority::new("ca");
    let origin = Origin::start(&authority);
    origin.shared.broken.store(true, SeqCst);
    let ca = authority.material();
    let mut shard = Switched::start();
    shard.install(&cluster(&origin, "follow_peer", ""), &ca);
    shard.under_load(|shard| {
        shard.install(&cluster(&origin, "follow_peer", ", tls: on"), &ca);
        eventually("failures", || {
            shard.counters().link_warm_ups_failed.get() > 2
        });
        assert_eq!(shard.counters().link_switches.get(), 0);
        assert!(shard.client().get("/").ends_with("plain"));
        origin.shared.broken.store(false, SeqCst);
        eventually("TLS alone", || origin.open().0 == 0);
    });
    assert!(shard.client().get("/").ends_with("in tls"));
}

/// Goal: where TLS is required a failed handshake is a failed connection, and plaintext that was there before
/// ends within `drain_timeout` (E16). Method: an origin whose handshakes fail, before and after the
/// policy; no plaintext connection comes after it.
#[test]
fn required_never_falls_back() {
    let authority = Authority::new("ca");
    let origin = Origin::start(&authority);
    origin.shared.broken.store(true, SeqCst);
    let ca = authority.material();
    let mut shard = Switched::start();
    shard.install(&cluster(&origin, "", ""), &ca);
    assert!(shard.client().get("/").ends_with("plain"));
    shard.install(&cluster(&origin, "required", ""), &ca);
    let before = origin.made().0;
    eventually("the end of plaintext", || origin.open().0 == 0);
    let answer = shard.client().get("/");
    assert!(answer.starts_with("http/1.1 502"), "{answer}");
    assert!(answer.contains("upstream_tls"), "{answer}");
    let record = shard.logged();
    assert_eq!(record.reason, Some(Reason::UpstreamTls));
    assert!(!record.detail.is_empty());
    assert_eq!(origin.made().0, before);
    let snapshot = shard.snapshot.as_ref().unwrap();
    let endpoint = &snapshot.clusters[0].endpoints[0].counters;
    assert!(endpoint.sum(|c| c.failed_tls.get()) > 0);
    origin.shared.broken.store(false, SeqCst);
    assert!(shard.client().get("/").ends_with("in tls"));
    assert_eq!(origin.made().0, before);
}

/// Goal: when a secret changes, links of the old one are replaced without loss (E17). Method: another set of
/// authorities, five times, under load; every time the origin sees links made anew. (How many there are
/// to replace depends on the load at that moment; that none of the old ones stays is the ledger's to show.)
#[test]
fn rotations_replace_links() {
    let authority = Authority::new("ca");
    let origin = Origin::start(&authority);
    let bundle = |i: usize| {
        let others: String = (0..i)
            .map(|i| Authority::new(&i.to_string()).pem())
            .collect();
        Material::TrustedCa {
            certificates: (authority.pem() + &others).into_bytes().into(),
            crl: None,
            expired_crl: ExpiredCrl::Use,
        }
    };
    let mut shard = Switched::start();
    let policy = cluster(&origin, "required", "");
    shard.install(&policy, &bundle(0));
    shard.under_load(|shard| {
        eventually("links", || origin.open().1 >= 2);
        for i in 1..=5 {
            let before = origin.made().1;
            shard.install(&policy, &bundle(i));
            eventually("new links", || origin.made().1 > before);
        }
    });
    assert_eq!(shard.counters().links_forced.get(), 0);
}

/// Goal: what has nothing to do with TLS makes no new connection (E11). Method: weight, zone, labels and a
/// newer epoch of the same capability; ten requests each.
#[test]
fn unrelated_changes_churn_nothing() {
    let authority = Authority::new("ca");
    let origin = Origin::start(&authority);
    let ca = authority.material();
    let mut shard = Switched::start();
    shard.install(&cluster(&origin, "follow_peer", ", tls: on"), &ca);
    let mut client = shard.client();
    assert!(client.get("/").ends_with("in tls"));
    let before = origin.made();
    for change in [
        ", tls: on, weight: 7",
        ", tls: on, zone: z9",
        ", tls: on, labels: { version: canary }",
        ", tls: { state: on, epoch: 9 }",
    ] {
        shard.install(&cluster(&origin, "follow_peer", change), &ca);
        for _ in 0..10 {
            assert!(client.get("/").ends_with("in tls"));
        }
    }
    assert_eq!(origin.made(), before);
    assert_eq!(shard.counters().link_warm_ups.get(), 0);
}

/// Goal: a request that outlasts `drain_timeout` is cut, counted, and tried again where it may be. Method: a
/// repeatable request that hangs on a plaintext link, which is switched.
#[test]
fn drains_end_in_time() {
    let authority = Authority::new("ca");
    let origin = Origin::start(&authority);
    let ca = authority.material();
    let mut shard = Switched::start();
    shard.install(&cluster(&origin, "follow_peer", ""), &ca);
    let mut client = shard.client();
    assert!(client.get("/").ends_with("plain"));
    let slow = thread::spawn(move || client.get("/slow"));
    eventually("the request", || {
        let snapshot = shard.snapshot.as_ref().unwrap();
        let endpoint = &snapshot.clusters[0].endpoints[0].counters;
        endpoint.sum(|c| c.requests.get()) == 2
    });
    shard.install(&cluster(&origin, "follow_peer", ", tls: on"), &ca);
    let answer = slow.join().unwrap();
    assert!(answer.ends_with("in tls"), "{answer}");
    assert_eq!(shard.counters().links_forced.get(), 1);
    assert_eq!(shard.counters().link_requests_lost.get(), 0);
    origin.shared.released.store(true, SeqCst);
}

/// Goal: links do not grow old, in plaintext either, and nothing is lost by it (E17). Method: an age of a second,
/// under load, until as many were made beside others as twice the clients.
#[test]
fn links_come_of_age() {
    let authority = Authority::new("ca");
    let origin = Origin::start(&authority);
    let ca = authority.material();
    let mut shard = Switched::start();
    let policy = format!("    max_connection_age: 1s\n{}", cluster(&origin, "", ""));
    shard.install(&policy, &ca);
    shard.under_load(|shard| {
        eventually("links", || origin.open().0 >= 2);
        let warm_ups = || shard.counters().link_warm_ups.get();
        eventually("replacements", || warm_ups() >= 2 * CLIENTS as u64);
        assert_eq!(shard.counters().link_switches.get(), 0);
    });
    assert!(origin.made().0 >= 2 * CLIENTS as u64);
    assert_eq!(shard.counters().link_warm_ups_failed.get(), 0);
}
