//! Back-pressure and slow peers: a body is never collected, whoever is slow.
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
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use common::{Client, Origin, Proxy, assert_same_bytes, pattern, settled};

/// What one stalled body may cost the process, in KiB: the provided buffers that were never touched
/// before (2 MiB of them for bodies), the connection's budget (32 KiB), and room for the allocator. The
/// bodies below are 60 times as large.
const STALLED_BODY_KIB: u64 = 3 << 10;

/// Goal: a client that does not read stalls the origin, not the proxy's memory. Method: an answer of
/// 200 MiB of which the client reads only the head; the origin gets stuck early, the process stays small;
/// then the client reads on and gets every byte.
#[test]
fn a_client_that_does_not_read() {
    const LEN: usize = 200 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let origin = Origin::start(move |peer| {
        peer.next_request()?;
        peer.wire
            .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n"))?;
        let piece = pattern(64 << 10);
        for _ in 0..LEN / piece.len() {
            peer.wire.send(&piece)?;
            counter.fetch_add(piece.len(), Ordering::SeqCst);
        }
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    proxy.client().get("/warm-up").body.clear();
    let before = proxy.rss_kib();
    sent.store(0, Ordering::SeqCst);
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    client.head().unwrap();
    let stalled_at = settled(&sent);
    assert!(stalled_at < LEN / 4, "the proxy took {stalled_at} bytes");
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < STALLED_BODY_KIB, "grown by {grown} KiB");

    let piece = pattern(64 << 10);
    for _ in 0..LEN / piece.len() {
        assert_same_bytes(&client.exactly(piece.len()).unwrap(), &piece);
    }
}

/// Goal: an origin that does not read stalls the client, not the proxy's memory. Method: the mirror image.
#[test]
fn an_origin_that_does_not_read() {
    const LEN: usize = 200 << 20;
    let (read_on, wait_for_go) = mpsc::channel::<()>();
    let wait_for_go = Mutex::new(wait_for_go);
    let origin = Origin::start(move |peer| {
        peer.next_head()?;
        wait_for_go.lock().unwrap().recv().unwrap();
        let piece = pattern(64 << 10);
        for _ in 0..LEN / piece.len() {
            assert_same_bytes(&peer.wire.exactly(piece.len())?, &piece);
        }
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let proxy = Proxy::before(&origin);
    let before = proxy.rss_kib();
    let mut client = proxy.client();
    let mut sender = client.stream.try_clone().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let thread = std::thread::spawn(move || {
        write!(
            sender,
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {LEN}\r\n\r\n"
        )
        .unwrap();
        let piece = pattern(64 << 10);
        for _ in 0..LEN / piece.len() {
            sender.write_all(&piece).unwrap();
            counter.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let stalled_at = settled(&sent);
    assert!(stalled_at < LEN / 4, "the proxy took {stalled_at} bytes");
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < STALLED_BODY_KIB, "grown by {grown} KiB");
    read_on.send(()).unwrap();
    assert_eq!(client.answer_to(b"POST").text(), "ok");
    thread.join().unwrap();
}

/// Goal: stalled clients do not stall others, though they may hold every provided buffer. Method: 40
/// clients that read nothing of a large answer; a good client is served a large body all the while.
#[test]
fn stalled_clients_leave_others_unhurt() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut stalled: Vec<Client> = (0..40).map(|_| proxy.client()).collect();
    for client in &mut stalled {
        client
            .send("GET /bytes/20000000 HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .unwrap();
    }
    for client in &mut stalled {
        client.head().unwrap();
    }
    let body = pattern(3_000_000);
    let mut good = proxy.client();
    for _ in 0..5 {
        assert_same_bytes(&good.get("/bytes/3000000").body, &body);
        assert_same_bytes(&good.post("/body", &body).body, &body);
    }
    drop(stalled);
    proxy.wait_for_metric("tidegate_shard_connections_open", |open| open == 1.0);
    assert_eq!(good.get("/").status, 200);
}

/// Goal: slow writers are served as well as quick ones. Method: an origin that sends its head and body
/// byte by byte, and a client that does.
#[test]
fn byte_by_byte_on_both_sides() {
    let origin = Origin::start(|peer| {
        while peer.next_request()?.is_some() {
            peer.wire.send_bytewise(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Slow: yes\r\n\r\n\
                 3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
            )?;
        }
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..5 {
        client
            .send_bytewise("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nxyz")
            .unwrap();
        let response = client.answer_to(b"POST");
        assert_eq!(response.text(), "abc0123456789");
        assert_eq!(response.trailers.len(), 1);
    }
    assert_eq!(origin.requests()[4].body, b"xyz");
}

/// Goal: large bodies arrive whole under load in both directions. Method: 8 clients, 10 MB each way.
#[test]
fn large_bodies_at_once() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let address = proxy.web();
    let threads: Vec<_> = (0..8)
        .map(|i| {
            std::thread::spawn(move || {
                let body = pattern(10_000_000 + i);
                let mut client = Client::connect(address);
                let mut sender = client.stream.try_clone().unwrap();
                let mut request = format!(
                    "POST /body HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                )
                .into_bytes();
                request.extend_from_slice(&body);
                let sending = std::thread::spawn(move || sender.write_all(&request).unwrap());
                let response = client.answer_to(b"POST");
                sending.join().unwrap();
                assert_same_bytes(&response.body, &body);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Goal: many small pipelined requests whose answers are not read do not grow the process. Method: a
/// client that only sends, until it is held up; then it reads all answers.
#[test]
fn pipelining_without_reading() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    assert_eq!(proxy.client().get("/").status, 200);
    let before = proxy.rss_kib();
    let client = proxy.client();
    client
        .stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut sender = client.stream.try_clone().unwrap();
    let request = b"GET /bytes/2000 HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let mut sent = 0;
    // 20,000 answers of 2 KB are more than the sockets hold.
    while sent < 20_000 * request.len() {
        match sender.write(&request.repeat(100)[sent % request.len()..]) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown < STALLED_BODY_KIB, "grown by {grown} KiB");
    let whole = sent / request.len();
    assert!(whole > 10, "{whole}");
    let mut client = client;
    let expected = pattern(2000);
    for _ in 0..whole {
        assert_same_bytes(&client.answer_to(b"GET").body, &expected);
    }
}
