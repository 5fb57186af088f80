//! TCP: a byte relay with half-close, time-outs and back-pressure.
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
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{Client, Origin, Proxy, assert_same_bytes, eventually, pattern};

/// A TCP listener before `origin`, with more keys of listener and cluster.
fn relay(origin: &Origin, listener: &str, cluster: &str) -> Proxy {
    Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, protocol: tcp, to: app{listener} }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}{cluster} }}\n"
    ))
}

/// An origin that echoes what comes, as it comes.
fn echoing() -> Origin {
    Origin::start(|peer| {
        let mut from = peer.wire.stream.try_clone()?;
        std::io::copy(&mut from, &mut peer.wire.stream)?;
        peer.wire.finish()
    })
}

/// Goal: bytes pass in both directions, whole and in order. Method: 20 MB echoed.
#[test]
fn bytes_both_ways() {
    let origin = echoing();
    let proxy = relay(&origin, "", "");
    let body = pattern(20_000_000);
    let mut client = proxy.client();
    let mut sender = client.stream.try_clone().unwrap();
    let to_send = body.clone();
    let thread = std::thread::spawn(move || {
        sender.write_all(&to_send).unwrap();
        sender.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let back = client.rest().unwrap();
    thread.join().unwrap();
    assert_same_bytes(&back, &body);
}

/// Goal: an origin that speaks first is heard before the client says a word. Method: a banner.
#[test]
fn the_origin_speaks_first() {
    let origin = Origin::start(|peer| {
        peer.wire.send("220 ready\r\n")?;
        let line = peer.wire.until(b"\r\n")?;
        peer.wire.send(line)
    });
    let proxy = relay(&origin, "", "");
    let mut client = proxy.client();
    assert_eq!(client.until(b"\r\n").unwrap(), b"220 ready\r\n");
    client.send("EHLO\r\n").unwrap();
    assert_eq!(client.until(b"\r\n").unwrap(), b"EHLO\r\n");
    client.expect_close();
}

/// Goal: each direction ends by itself (half-close). Method: the client ends first and still reads; then
/// the origin ends first and still reads.
#[test]
fn half_close_both_ways() {
    let origin = Origin::start(|peer| {
        let all = peer.wire.rest()?;
        peer.wire.send(all)
    });
    let proxy = relay(&origin, "", "");
    let mut client = proxy.client();
    client.send("all of it").unwrap();
    client.finish().unwrap();
    assert_eq!(client.rest().unwrap(), b"all of it");

    let read = Arc::new(AtomicUsize::new(0));
    let counter = read.clone();
    let origin = Origin::start(move |peer| {
        peer.wire.send("bye")?;
        peer.wire.finish()?;
        counter.store(peer.wire.rest()?.len(), Ordering::SeqCst);
        Ok(())
    });
    let proxy = relay(&origin, "", "");
    let mut client = proxy.client();
    assert_eq!(client.rest().unwrap(), b"bye");
    client.send(pattern(100_000)).unwrap();
    client.finish().unwrap();
    eventually("all bytes after the half-close", || {
        (read.load(Ordering::SeqCst) == 100_000).then_some(())
    });
}

/// Goal: a reset on one side ends the other. Method: each side in turn.
#[test]
fn resets_pass() {
    let origin = echoing();
    let proxy = relay(&origin, "", "");
    let mut client = proxy.client();
    client.send("x").unwrap();
    assert_eq!(client.exactly(1).unwrap(), b"x");
    client.into_wire().reset();
    origin.wait_until_idle();

    let origin = Origin::start(|peer| {
        peer.wire.exactly(1)?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let other = std::net::TcpStream::connect(listener.local_addr()?)?;
        std::mem::replace(&mut peer.wire, common::Wire::new(other)).reset();
        Ok(())
    });
    let proxy = relay(&origin, "", "");
    let mut client = proxy.client();
    client.send("x").unwrap();
    client.expect_close();
}

/// Goal: a silent relay is closed after `idle`, a moving one is not. Method: bytes for longer than the
/// time-out, then silence.
#[test]
fn idle_time_out() {
    let origin = echoing();
    let proxy = relay(&origin, ", timeouts: { idle: 1s }", "");
    let mut client = proxy.client();
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        client.send("x").unwrap();
        assert_eq!(client.exactly(1).unwrap(), b"x");
        common::pause(50);
    }
    client.expect_close();
    origin.wait_until_idle();
    let line = proxy.access_log(1).remove(0);
    assert!(line.to_string().contains("idle_timeout"), "{line}");
}

/// Goal: a relay is closed at its maximum age, however busy. Method: bytes without pause.
#[test]
fn maximum_age() {
    let origin = echoing();
    let proxy = relay(&origin, ", timeouts: { max_age: 1s }", "");
    let mut client = proxy.client();
    let started = std::time::Instant::now();
    while client.send("x").is_ok() && client.exactly(1).is_ok() {
        assert!(started.elapsed() < common::PATIENCE);
    }
    assert!(started.elapsed() >= Duration::from_millis(900));
    origin.wait_until_idle();
    let line = proxy.access_log(1).remove(0);
    assert!(line.to_string().contains("max_age"), "{line}");
}

/// Goal: an endpoint that refuses ends the client's connection. Method: a closed port.
#[test]
fn connection_refused() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, protocol: tcp, to: app }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{closed}'] }} }}\n"
    ));
    proxy.client().expect_close();
    let line = proxy.access_log(1).remove(0);
    assert!(line.to_string().contains("connect_refused"), "{line}");
}

/// Goal: a side that does not read stalls the other, not the proxy's memory. Method: the client reads
/// nothing of what the origin sends without end.
#[test]
fn back_pressure() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let origin = Origin::start(move |peer| {
        let piece = pattern(64 << 10);
        loop {
            peer.wire.send(&piece)?;
            counter.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let proxy = relay(&origin, "", "");
    let before = proxy.rss_kib();
    let _client = proxy.client();
    let mut last = (0, 0);
    let stalled_at = eventually("a stalled relay", || {
        common::pause(20);
        let now = sent.load(Ordering::SeqCst);
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
        (last.1 >= 25 && now > 0).then_some(now)
    });
    assert!(stalled_at < 50 << 20, "the proxy took {stalled_at} bytes");
    let grown = proxy.rss_kib().saturating_sub(before);
    // The provided buffers for bodies, touched for the first time, are 2 MiB.
    assert!(grown < 3 << 10, "grown by {grown} KiB");
}

/// Goal: many relays at once keep their bytes apart. Method: 100 connections, own patterns.
#[test]
fn many_at_once() {
    let origin = echoing();
    let proxy = relay(&origin, "", "");
    let mut clients: Vec<Client> = (0..100).map(|_| proxy.client()).collect();
    for round in 0..10 {
        for (i, client) in clients.iter_mut().enumerate() {
            client.send(format!("{round}/{i};").repeat(500)).unwrap();
        }
        for (i, client) in clients.iter_mut().enumerate() {
            let expected = format!("{round}/{i};").repeat(500);
            assert_same_bytes(
                &client.exactly(expected.len()).unwrap(),
                expected.as_bytes(),
            );
        }
    }
}
