//! Buffers that the kernel receives in are few, so no exchange may keep one while it waits for somebody. Four are
//! there for heads in each of these tests, and more exchanges than that wait.
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
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    Origin, Proxy,
    frames::{self, Frames, frame, get},
    http2::{Http2, read_body, request, run, websocket},
    http2_origin::Http2Origin,
    origin::send_chunk,
    proxy, settled,
};

/// More than there are buffers.
const WAITING: usize = 8;

/// RFC 9113, 6.5.2 and 6.9.1.
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW_MAX: u32 = 0x7fff_ffff;

/// One answers while others wait.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(config: &str) -> Proxy {
    let setup = proxy::Setup {
        small_ring: true,
        ..Default::default()
    };
    Proxy::start_with(&setup, config)
}

/// Closed until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let (is_open, changed) = &*self.0;
        let closed = is_open.lock().unwrap();
        drop(changed.wait_while(closed, |is_open| !*is_open).unwrap());
    }
}

/// Goal: an answer whose head came alone keeps no buffer while its body is waited for. Method: eight such answers,
/// whose bodies come when the gate opens; another request is answered meanwhile, and then each of them.
#[test]
fn heads_without_bodies() {
    let gate = Gate::default();
    let at_origin = gate.clone();
    let origin = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            if request.head.target() == "/quick" {
                peer.wire
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
                continue;
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            at_origin.pass();
            peer.wire.send("4\r\nlate\r\n0\r\n\r\n")?;
        }
        Ok(())
    });
    let proxy = start(&proxy::web(
        "{ to: app, timeout: off }",
        &[("app", &origin)],
    ));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let mut late = Vec::new();
        for _ in 0..WAITING {
            let (answer, _) = client.begin(request("GET", "/late"), false).await.unwrap();
            late.push(answer.await.unwrap());
        }
        let quick = tokio::time::timeout(PATIENCE, client.get("/quick"));
        assert_eq!(quick.await.unwrap().unwrap().text(), "ok");
        gate.open();
        for answer in late {
            let answer = read_body(answer).await.unwrap();
            assert_eq!(answer.text(), "late");
        }
    });
}

/// Goal: a tunnel keeps no buffer of the head that opened it. Method: eight of them, quiet, on an HTTP/1 and on an
/// HTTP/2 client's side; another request is answered.
#[test]
fn quiet_tunnels() {
    let origin = Http2Origin::with_tunnels();
    let plain = Origin::start(|peer| {
        while let Some(request) = peer.next_request()? {
            if request.head.get("upgrade").is_some() {
                peer.wire.send(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: quiet\r\nConnection: Upgrade\r\n\r\n",
                )?;
                peer.wire.exactly(1)?;
                return Ok(());
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(())
    });
    let proxy = start(&format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ match: {{ path: /chat }}, to: calls }}, {{ to: app }}] }}\n\
         clusters:\n  calls: {{ endpoints: {{ static: ['{origin}'] }}, protocol: http2 }}\n  \
         app: {{ endpoints: {{ static: ['{plain}'] }} }}\n"
    ));
    let mut quiet = Vec::new();
    for _ in 0..WAITING {
        let mut client = proxy.client();
        client
            .send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: quiet\r\n\r\n")
            .unwrap();
        assert_eq!(client.head().unwrap().status().unwrap(), 101);
        quiet.push(client);
    }
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        client.tunnels().await;
        let mut open = Vec::new();
        for _ in 0..WAITING {
            let (answer, stream) = client.begin(websocket("/chat"), true).await.unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            open.push((answer, stream));
        }
        let quick = tokio::time::timeout(PATIENCE, client.get("/quick"));
        assert_eq!(quick.await.unwrap().unwrap().text(), "ok");
    });
}

/// Goal: heads that wait for a client which does not read its socket keep no buffers. Method: windows that are open
/// to the end, a large answer until it gets stuck, and small ones behind it; another client is answered.
#[test]
fn a_client_that_does_not_read() {
    const PIECE: usize = 64 << 10;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let origin = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            if request.head.target() == "/small" {
                peer.wire
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
                continue;
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let piece = vec![b'x'; PIECE];
            loop {
                send_chunk(&mut peer.wire.stream, &piece)?;
                counter.fetch_add(PIECE, Ordering::SeqCst);
            }
        }
        Ok(())
    });
    let proxy = start(&proxy::web(
        "{ to: app, timeout: off }",
        &[("app", &origin)],
    ));
    let mut deaf = Frames::connect_with(proxy.web(), &[(INITIAL_WINDOW_SIZE, WINDOW_MAX)]);
    let more = (WINDOW_MAX - 65_535).to_be_bytes();
    deaf.send(frame(frames::WINDOW_UPDATE, 0, 0, &more));
    deaf.send(get(1, "/large"));
    settled(&sent);
    for number in 1..=WAITING as u32 {
        deaf.send(get(2 * number + 1, "/small"));
    }
    origin.wait_for_requests(1 + WAITING);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let quick = tokio::time::timeout(PATIENCE, client.get("/small"));
        assert_eq!(quick.await.unwrap().unwrap().text(), "ok");
        // Not because others were given up.
        let waiting = proxy.metric("tidegate_shard_http2_streams_open");
        assert_eq!(waiting, 1.0 + WAITING as f64);
    });
}
