//! The life of the process as clients feel it: reload under load, drain, signals.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use common::{Client, Origin, Proxy, eventually, proxy};
use nix::sys::signal::Signal;

/// Clients that ask without pause until told to stop; a request that fails ends the test.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Half of the clients keep their connections, the others make one for each request.
    fn start(address: std::net::SocketAddr, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let threads = (0..clients)
            .map(|i| {
                let (stop, served) = (stop.clone(), served.clone());
                std::thread::spawn(move || {
                    let mut client = Client::connect(address);
                    while !stop.load(Ordering::SeqCst) {
                        let response = client.get("/");
                        assert_eq!(response.status, 200);
                        served.fetch_add(1, Ordering::SeqCst);
                        let closing = response.head.get("connection") == Some("close");
                        if i % 2 == 0 || closing {
                            client = Client::connect(address);
                        }
                    }
                })
            })
            .collect();
        Load {
            stop,
            served,
            threads,
        }
    }

    /// Waits for so many more answers.
    fn wait_for(&self, more: usize) {
        let goal = self.served.load(Ordering::SeqCst) + more;
        eventually("answers under load", || {
            let failed = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a client under load failed");
            (self.served.load(Ordering::SeqCst) >= goal).then_some(())
        });
    }

    fn finish(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.served.load(Ordering::SeqCst)
    }
}

/// Goal: a reload fails no request, and takes effect. Method: 20 reloads between two clusters under load
/// on two shards; afterwards a third configuration is in force.
#[test]
fn reload_under_load() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let config = |name: &str| {
        proxy::web(
            &format!("{{ to: {name} }}"),
            &[("a", &a), ("b", &b), ("c", &c)],
        )
    };
    let setup = proxy::Setup {
        shards: Some(2),
        ..Default::default()
    };
    let proxy = Proxy::start_with(&setup, config("a"));
    let load = Load::start(proxy.web(), 8);
    for i in 0..20 {
        load.wait_for(20);
        proxy.reload(config(if i % 2 == 0 { "b" } else { "a" }));
    }
    proxy.reload(config("c"));
    assert_eq!(proxy.client().get("/").text(), "c");
    assert!(load.finish() >= 400);
}

/// Goal: an invalid file changes nothing. Method: a file that names an unknown cluster, a signal, and the
/// old routes still answer; then a good one is taken.
#[test]
fn an_invalid_file_is_refused() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let proxy = Proxy::start(proxy::web("{ to: a }", &[("a", &a)]));
    let epoch = proxy.epoch();
    proxy.write_config("listeners:\n  web: { bind: 127.0.0.1:0, routes: [{ to: nowhere }] }\n");
    proxy.signal(Signal::SIGHUP);
    eventually("a word about the invalid file", || {
        proxy.stderr().contains("nowhere").then_some(())
    });
    assert_eq!(proxy.epoch(), epoch);
    assert_eq!(proxy.client().get("/").text(), "a");
    proxy.reload(proxy::web("{ to: b }", &[("b", &b)]));
    assert_eq!(proxy.client().get("/").text(), "b");
}

/// Goal: the file is watched: a change needs no signal. Method: it is replaced.
#[test]
fn a_changed_file_is_taken_without_a_signal() {
    let [a, b] = ["a", "b"].map(Origin::named);
    let proxy = Proxy::start(proxy::web("{ to: a }", &[("a", &a)]));
    proxy.write_config(proxy::web("{ to: b }", &[("b", &b)]));
    eventually("the changed file in force", || {
        (proxy.client().get("/").text() == "b").then_some(())
    });
}

/// Goal: a request is decided by one epoch: an exchange under way ends as it began (S14). Method: the
/// origin answers only after the reload has taken its cluster away.
#[test]
fn an_exchange_outlives_a_reload() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let held = Origin::start(move |peer| {
        peer.next_request()?;
        gate.lock().unwrap().recv().unwrap();
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld")
    });
    let other = Origin::named("other");
    let proxy = Proxy::start(proxy::web("{ to: held }", &[("held", &held)]));
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    held.wait_for_requests(1);
    proxy.reload(proxy::web("{ to: other }", &[("other", &other)]));
    release.send(()).unwrap();
    assert_eq!(client.answer_to(b"GET").text(), "held");
    assert_eq!(client.get("/").text(), "other");
}

/// Goal: listeners come and go with the file, and the others notice nothing. Method: a second one is
/// added and taken away while the first keeps a connection.
#[test]
fn listeners_come_and_go() {
    let origin = Origin::named("a");
    // The address has to be known beforehand, so that it is found free.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let second = free.local_addr().unwrap();
    drop(free);
    let one = proxy::web("{ to: a }", &[("a", &origin)]);
    let two = one.replace(
        "listeners:\n",
        &format!("listeners:\n  second: {{ bind: '{second}', routes: [{{ to: a }}] }}\n"),
    );
    let proxy = Proxy::start(&one);
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").text(), "a");
    assert!(std::net::TcpStream::connect(second).is_err());
    proxy.reload(&two);
    assert_eq!(common::client::get(second, "/").text(), "a");
    assert_eq!(kept.get("/").text(), "a");
    proxy.reload(&one);
    eventually("a closed listener", || {
        std::net::TcpStream::connect(second).err().map(drop)
    });
    assert_eq!(kept.get("/").text(), "a");
    assert_eq!(proxy.client().get("/").text(), "a");
}

/// Goal: a second INT ends at once. Method: a request in flight that would hold up the drain.
#[test]
fn a_second_interrupt_ends_at_once() {
    let origin = Origin::start(|peer| {
        peer.next_request()?;
        peer.wire.rest()?;
        Ok(())
    });
    let mut proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    origin.wait_for_requests(1);
    let started = std::time::Instant::now();
    proxy.signal(Signal::SIGINT);
    eventually("the drain", || {
        proxy.stderr().contains("draining").then_some(())
    });
    proxy.signal(Signal::SIGINT);
    proxy.wait();
    // The route's own time-out is 15 s, the drain's 25 s.
    assert!(started.elapsed() < std::time::Duration::from_secs(10));
}

/// Goal: TERM drains: no accepted request fails, connections are told to close, the process ends with 0.
/// Method: clients under load that stop when told to close or refused a connection.
#[test]
fn graceful_drain_fails_no_request() {
    let origin = Origin::echo();
    let setup = proxy::Setup {
        shards: Some(2),
        ..Default::default()
    };
    let mut proxy = Proxy::start_with(&setup, proxy::web("{ to: app }", &[("app", &origin)]));
    let address = proxy.web();
    let served = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let served = served.clone();
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                loop {
                    // From the first byte of a request on, it is answered.
                    let sent = client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
                    let answer = client.response("GET");
                    let Ok(response) = answer else {
                        // An idle kept connection may be closed as the request leaves: only if nothing
                        // of an answer came, and never before the drain.
                        return (sent.is_ok(), answer.err());
                    };
                    assert_eq!(response.status, 200);
                    served.fetch_add(1, Ordering::SeqCst);
                    if response.head.get("connection") == Some("close") {
                        return (true, None);
                    }
                }
            })
        })
        .collect();
    eventually("load", || {
        (served.load(Ordering::SeqCst) > 200).then_some(())
    });
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    for thread in threads {
        let (_, error) = thread.join().unwrap();
        assert!(error.is_none(), "a busy client was cut: {error:?}");
    }
    assert!(std::net::TcpStream::connect(address).is_err());
}

/// Goal: a drain waits for what is in flight, and cuts it at its deadline. Method: an origin that holds
/// its answer: released in time, the client has it; never released, the process ends all the same.
#[test]
fn drain_waits_and_then_cuts() {
    for released in [true, false] {
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let origin = Origin::start(move |peer| {
            peer.next_request()?;
            let _ = gate.lock().unwrap().recv();
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        });
        let timeout = if released { "25s" } else { "500ms" };
        let mut proxy = Proxy::start(format!(
            "drain_timeout: {timeout}\n{}",
            proxy::web("{ to: app }", &[("app", &origin)])
        ));
        let mut client = proxy.client();
        client
            .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .unwrap();
        origin.wait_for_requests(1);
        proxy.signal(Signal::SIGTERM);
        eventually("a closed listener", || {
            std::net::TcpStream::connect(proxy.web()).err().map(drop)
        });
        assert!(proxy.is_running() || !released);
        if released {
            release.send(()).unwrap();
            let response = client.answer_to(b"GET");
            assert_eq!(response.text(), "late");
            assert_eq!(response.head.get("connection"), Some("close"));
        }
        proxy.wait();
        drop(release);
    }
}

/// Goal: idle connections do not hold up a drain. Method: kept connections without a request in flight;
/// the process ends long before the drain's deadline.
#[test]
fn idle_connections_do_not_hold_up_a_drain() {
    let origin = Origin::echo();
    let mut proxy = Proxy::start(proxy::web("{ to: app }", &[("app", &origin)]));
    let mut clients: Vec<Client> = (0..50).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    let started = std::time::Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(started.elapsed() < std::time::Duration::from_secs(15));
    for client in &mut clients {
        client.expect_close();
    }
}

/// Goal: admin can drain and undrain. Method: POST; a drained listener says `Connection: close`, an
/// undrained one does not.
#[test]
fn drain_by_admin() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").status, 200);
    assert_eq!(proxy.admin_post("/drain").status / 100, 2);
    eventually("a closed or closing connection", || {
        if kept
            .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .is_err()
        {
            return Some(());
        }
        match kept.response("GET") {
            Ok(response) => (response.head.get("connection") == Some("close")).then_some(()),
            Err(_) => Some(()),
        }
    });
    assert_eq!(proxy.admin_post("/undrain").status / 100, 2);
    eventually("service after the drain was undone", || {
        // The address is listened on again a moment after the command.
        drop(std::net::TcpStream::connect(proxy.web()).ok()?);
        let mut client = proxy.client();
        client
            .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .ok()?;
        let response = client.response("GET").ok()?;
        (response.status == 200 && response.head.get("connection").is_none()).then_some(())
    });
}

/// Goal: `/ready` follows the life of the process. Method: ready, draining.
#[test]
fn readiness() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    assert_eq!(proxy.admin_get("/ready").status, 200);
    assert_eq!(proxy.admin_get("/live").status, 200);
    proxy.admin_post("/drain");
    eventually("not ready", || {
        (proxy.admin_get("/ready").status == 503).then_some(())
    });
    assert_eq!(proxy.admin_get("/live").status, 200);
}
