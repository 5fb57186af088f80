//! The end of connections in HTTP/2: nothing that was taken is lost.
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
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{
    Origin, Proxy,
    frames::{self, Frames},
    http2::{Http2, request, run, until},
    pattern, proxy,
};
use nix::sys::signal::Signal;

/// Whether the client may send the request again, as nothing was done of it.
fn is_refused(error: &h2::Error) -> bool {
    error.reason() == Some(h2::Reason::REFUSED_STREAM)
        || error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
}

/// Goal: a drain under load loses no request: each is answered, or refused in a way that says that nothing
/// was done of it. Method: streams without pause on several connections while the process is told to
/// end, whose endpoint counts what it has answered.
#[test]
fn a_drain_under_load_loses_nothing() {
    const CONNECTIONS: usize = 4;
    const STREAMS: usize = 10;
    let origin = Origin::echo();
    let mut proxy = Proxy::before(&origin);
    let address = proxy.web();
    let (answered, refused) = run(async {
        let (answered, refused) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let tasks = tokio::task::LocalSet::new();
        for _ in 0..CONNECTIONS {
            let (client, _) = tasks.run_until(Http2::connect(address)).await;
            for _ in 0..STREAMS {
                let mut client = client.clone();
                let (answered, refused) = (answered.clone(), refused.clone());
                tasks.spawn_local(async move {
                    loop {
                        match client.get("/bytes/5000").await {
                            Ok(answer) => {
                                assert_eq!(answer.body, pattern(5000));
                                answered.set(answered.get() + 1);
                            }
                            Err(error) => {
                                assert!(is_refused(&error), "{error:?}");
                                refused.set(refused.get() + 1);
                                return;
                            }
                        }
                    }
                });
            }
        }
        let counted = answered.clone();
        tasks.spawn_local({
            let pid = proxy.pid();
            async move {
                until(|| counted.get() > 500).await;
                nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
            }
        });
        tasks.await;
        (answered.get(), refused.get())
    });
    assert!(proxy.wait().success());
    assert_eq!(refused, CONNECTIONS * STREAMS);
    assert_eq!(origin.requests().len(), answered);
}

/// Goal: a drain tells clients in two steps (RFC 9113, 6.8), serves what is on its way between them, and
/// waits for what is under way. Method: a request before, one after the first GOAWAY.
#[test]
fn a_drain_has_two_steps() {
    let may_answer = Arc::new(AtomicBool::new(false));
    let gate = may_answer.clone();
    let origin = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            while !gate.load(Ordering::SeqCst) {
                common::pause(5);
            }
            common::origin::answer(&mut peer.wire, &request)?;
        }
        Ok(())
    });
    let mut proxy = Proxy::before(&origin);
    let mut client = Frames::connect(proxy.web());
    client.send(frames::get(1, "/bytes/3"));
    origin.wait_for_requests(1);
    proxy.signal(Signal::SIGTERM);
    let notice = client.until_kind(frames::GO_AWAY);
    assert_eq!(
        (notice.last_stream(), notice.code()),
        ((1 << 31) - 1, frames::NO_ERROR)
    );
    client.send(frames::get(3, "/bytes/4"));
    let end = client.until_kind(frames::GO_AWAY);
    assert_eq!((end.last_stream(), end.code()), (3, frames::NO_ERROR));
    client.send(frames::get(5, "/"));
    let refused = client.until_end(5);
    assert_eq!(
        (refused.kind, refused.code()),
        (frames::RESET, frames::REFUSED_STREAM)
    );
    may_answer.store(true, Ordering::SeqCst);
    let mut bodies = Vec::new();
    while let Some(got) = client.next() {
        if got.kind == frames::DATA {
            bodies.push((got.stream, got.payload));
        }
    }
    bodies.sort();
    assert_eq!(bodies, [(1, pattern(3)), (3, pattern(4))]);
    assert!(proxy.wait().success());
}

/// Goal: the connections of a listener that is taken away end politely. Method: a reload without it, while
/// a connection is idle.
#[test]
fn a_listener_that_goes_takes_its_connections_along() {
    let origin = Origin::echo();
    let config = proxy::web("{ to: app }", &[("app", &origin)]);
    let proxy = Proxy::start(&config);
    run(async {
        let (mut client, connection) = Http2::connect(proxy.web()).await;
        assert_eq!(client.get("/bytes/3").await.unwrap().body, pattern(3));
        let other = config.replace("  web:\n", "  other:\n");
        proxy.reload(other.replace("bind: 127.0.0.1", "bind: 127.0.0.2"));
        connection.await.unwrap().unwrap();
        assert!(client.begin(request("GET", "/"), false).await.is_err());
    });
}
