//! Limits of the process: connections, files, memory. After every storm, what was taken is given back.
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
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{Client, Origin, Proxy, assert_same_bytes, eventually, pattern, proxy, small_ring};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process have as many connections as its hard limit allows; says how many.
fn raise_open_files() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

/// Waits until the proxy holds what it held before a storm: files, buffers, connections.
fn wait_until_back(proxy: &Proxy, files: usize) {
    proxy.wait_for_metric("tidegate_shard_connections_open", |open| open == 0.0);
    eventually("the files of before", || {
        (proxy.open_files() <= files).then_some(())
    });
    let (heads, bodies) = if small_ring() {
        (4.0, 4.0)
    } else {
        (256.0, 32.0)
    };
    proxy.wait_for_metric("tidegate_shard_buffers_heads_free", |free| free == heads);
    proxy.wait_for_metric("tidegate_shard_buffers_bodies_free", |free| free == bodies);
    proxy.wait_for_metric("tidegate_shard_buffers_heap_bytes", |bytes| bytes == 0.0);
    proxy.wait_for_metric("tidegate_shard_requests_active", |active| active == 0.0);
}

/// Goal: a storm of aborted connections leaves nothing behind. Method: 3,000 connections, aborted in every
/// phase: unused, in the head, in the body, while the answer flows; by close and by reset. Then files,
/// buffers and memory are those of before, and requests are served.
#[test]
fn a_storm_of_aborted_connections() {
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, timeout: 5s }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}, idle_timeout: 1s }}\n"
    ));
    let storm = |n: usize| {
        for i in 0..n {
            let mut client = proxy.client();
            let bytes: &str = match i % 6 {
                0 => "",
                1 => "GET / HT",
                2 => "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
                3 => "GET /bytes/2000000 HTTP/1.1\r\nHost: a\r\n\r\n",
                4 => "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
                _ => "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            };
            let _ = client.send(bytes);
            // Some are aborted when the answer has begun.
            if i % 6 == 3 && i % 4 == 3 {
                let _ = client.exactly(1);
            }
            if i % 2 == 0 {
                client.into_wire().reset();
            }
        }
    };
    // The first storm lets the allocator and the kernel reach the size that they keep.
    assert_eq!(proxy.client().get("/").status, 200);
    eventually("an idle pool closed", || {
        (origin.open_connections() == 0).then_some(())
    });
    let files = proxy.open_files();
    storm(3000);
    wait_until_back(&proxy, files);
    let memory = proxy.rss_kib();
    storm(3000);
    wait_until_back(&proxy, files);
    let grown = proxy.rss_kib().saturating_sub(memory);
    assert!(grown < 1024, "3,000 aborted connections left {grown} KiB");
    assert_eq!(proxy.client().get("/").status, 200);
}

/// Goal: connections up to `limits.connections` are served, one more is closed at once and counted, and
/// room is given back. Method: at the limit, one above, one below.
#[test]
fn connections_of_a_shard() {
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "limits: {{ connections: 20 }}\n{}",
        proxy::web("{ to: app }", &[("app", &origin)])
    ));
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    let mut surplus = proxy.client();
    let _ = surplus.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(surplus.response("GET").is_err());
    proxy.wait_for_metric("tidegate_shard_connections_refused_total", |n| n == 1.0);
    drop(clients.pop());
    eventually("room for one more", || {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        client.response("GET").ok()
    });
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
}

/// Goal: out of files, the proxy neither spins nor dies nor forgets its listeners (EMFILE). Method: a limit
/// of 64 files, 100 clients; those who are in are served, admin's counter tells, the processor is not
/// burnt, and when clients leave the waiting ones are served.
#[test]
fn out_of_files() {
    let origin = Origin::echo();
    let setup = proxy::Setup {
        open_files: Some(64),
        ..Default::default()
    };
    let proxy = Proxy::start_with(&setup, proxy::web("{ to: app }", &[("app", &origin)]));
    let mut served = proxy.client();
    assert_eq!(served.get("/").status, 200);
    let clients: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    // Whoever is in, with a pooled connection behind, is served all the while.
    let used = cpu_ticks(&proxy);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        assert_eq!(served.get("/").status, 200);
        common::pause(20);
    }
    let ticks = cpu_ticks(&proxy) - used;
    assert!(
        ticks < 60,
        "{ticks} of 100 ticks of a second were used to wait"
    );
    drop(clients);
    eventually("service after the clients have left", || {
        let mut client = proxy.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        (client.response("GET").ok()?.status == 200).then_some(())
    });
    proxy.wait_for_metric("tidegate_shard_accept_errors_total", |n| n > 0.0);
}

/// User and system time of the process, in ticks of 10 ms.
fn cpu_ticks(proxy: &Proxy) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Goal: slow clients hurt nobody else. Method: as many as the test may open (up to 5,000) send heads byte
/// by byte, never ending; a good client's requests, large and small, go on all the while; then the slow
/// ones are cut by the header time-out and everything is given back.
#[test]
fn slow_clients_leave_a_good_one_unhurt() {
    let slow_count = (raise_open_files().saturating_sub(200) / 2).min(5000) as usize;
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web_with(
        "    timeouts: { header: 8s }\n",
        "{ to: app }",
        &[("app", &origin)],
    ));
    let mut good = proxy.client();
    assert_eq!(good.get("/").status, 200);
    let body = pattern(300_000);
    let mut slow: Vec<TcpStream> = Vec::with_capacity(slow_count);
    let mut waits = Vec::new();
    for i in 0..slow_count {
        let mut stream = TcpStream::connect(proxy.web()).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nX: ")
            .unwrap();
        slow.push(stream);
        if i % 50 == 0 {
            let asked = Instant::now();
            assert_eq!(good.get("/").status, 200);
            waits.push(asked.elapsed());
        }
        if i % 500 == 0 {
            assert_same_bytes(&good.get("/bytes/300000").body, &body);
        }
    }
    for round in 0..3 {
        for stream in &mut slow {
            let _ = stream.write_all(b"y");
        }
        assert_same_bytes(&good.post("/body", &body).body, &body);
        assert_eq!(good.get(&format!("/{round}")).status, 200);
    }
    waits.sort();
    let median = waits[waits.len() / 2];
    // On a busy machine of two cores; unhurt is a few hundred microseconds.
    assert!(median < Duration::from_millis(50), "median {median:?}");
    proxy.wait_for_metric("tidegate_shard_connections_open", |open| open == 1.0);
    assert_eq!(good.get("/").status, 200);
}

/// Goal: connections opened and closed by the thousand leave memory where it was. Method: 10,000
/// connections with one request each (100,000 with TIDEGATE_TEST_LONG), after half as many have filled the
/// rings and caches that are kept.
#[test]
fn many_short_connections() {
    let count = if std::env::var_os("TIDEGATE_TEST_LONG").is_some() {
        100_000
    } else {
        10_000
    };
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let round = |n: usize| {
        for _ in 0..n {
            let response = proxy
                .client()
                .exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            assert_eq!(response.status, 200);
        }
    };
    round(count / 2);
    // Metrics are rendered once as well, before and after: their text has its memory, too.
    let all_closed =
        || proxy.wait_for_metric("tidegate_shard_connections_open", |open| open == 0.0);
    all_closed();
    let before = proxy.rss_kib();
    round(count);
    all_closed();
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < 512, "{count} connections left {grown} KiB");
}

/// Goal: an idle connection costs less than 1 KiB in user space. Method: 10,000 idle connections that have
/// each served a request, the growth of the process divided by their number. The kernel's own memory is
/// not part of it.
#[test]
fn idle_connections_are_cheap() {
    let may_open = raise_open_files().saturating_sub(200);
    let count = may_open.min(10_000) as usize;
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let open = |n: usize| -> Vec<Client> {
        (0..n)
            .map(|_| {
                let mut client = proxy.client();
                assert_eq!(client.get("/").status, 200);
                client
            })
            .collect()
    };
    let warm = open(count / 10);
    let before = proxy.rss_kib();
    let idle = open(count);
    let each = proxy.rss_kib().saturating_sub(before) * 1024 / count as u64;
    println!("{each} bytes for each of {count} idle connections");
    assert!(each < 1024, "{each} bytes for each idle connection");
    drop((warm, idle));
}

/// Goal: a started process with one shard is small. Method: after some traffic, what it holds for itself, and
/// for the release build all that is resident with its code, too. How much of a file's pages are resident is
/// the page cache's choice, and the test build's code is several times that of a release.
#[test]
fn an_idle_process_is_small() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..100 {
        assert_eq!(client.get("/").status, 200);
    }
    let own = proxy.memory_kib("RssAnon") + proxy.memory_kib("RssShmem");
    println!(
        "{own} KiB of its own, {} KiB with its code",
        proxy.rss_kib()
    );
    assert!(own < 6 << 10, "{own} KiB");
    if !cfg!(debug_assertions) {
        assert!(proxy.rss_kib() < 15 << 10, "{} KiB", proxy.rss_kib());
    }
}

/// Goal: the budget of a shard's buffers holds, and whoever it is taken from is told why. Method: the
/// smallest budget, 200 clients that do not read large answers: the process does not grow beyond it; then
/// each is served right, refused, or cut with `buffer_budget` in the log, and a new client is served. The
/// route has no time-out, which would cut the last of them first on a slow machine.
#[test]
fn buffers_of_a_shard() {
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "limits: {{ buffers: 1MiB }}\n{}",
        proxy::web("{ to: app, timeout: off }", &[("app", &origin)])
    ));
    assert_eq!(proxy.client().get("/bytes/3000000").status, 200);
    let before = proxy.rss_kib();
    let mut clients: Vec<Client> = (0..200).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client
            .send("GET /bytes/5000000 HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
    }
    let heap = proxy.metric("tidegate_shard_buffers_heap_bytes");
    // One more buffer may be on its way when the budget is found used up.
    assert!(
        heap <= f64::from((1 << 20) + (64 << 10)),
        "{heap} bytes over the budget"
    );
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < 6 << 10, "grown by {grown} KiB");
    let expected = pattern(5_000_000);
    let mut cut = 0;
    for client in &mut clients {
        match client.response("GET") {
            Ok(response) if response.status == 200 => {
                assert_same_bytes(&response.body, &expected);
            }
            Ok(response) => assert_eq!(response.reason(), Some("buffer_budget")),
            Err(_) => cut += 1,
        }
    }
    assert_same_bytes(&proxy.client().get("/bytes/5000000").body, &expected);
    let log = proxy.access_log(202);
    let told = log
        .iter()
        .filter(|line| line.to_string().contains("buffer_budget"))
        .count();
    assert!(told >= cut, "{cut} were cut, {told} told why");
}
