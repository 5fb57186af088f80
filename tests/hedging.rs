//! Requests that are tried on another endpoint while a try goes on: the first good answer wins, and the others are
//! given up. Endpoints are held, so that nothing depends on how fast anything is.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{
    Origin, Proxy, assert_same_bytes, eventually,
    http2::{Http2, read, request, run, send_all, until, with},
    http2_origin::{Failing, Http2Origin},
    pattern,
};
use h2::client::ResponseFuture;
use tokio::sync::watch::Sender;

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// Endpoints that answer when they are told to, and a proxy in front of them.
struct Held {
    origins: Vec<(Http2Origin, Sender<bool>)>,
    proxy: Proxy,
}

impl Held {
    fn new(endpoints: usize, route: &str) -> Held {
        let start = |_| {
            let origin = Http2Origin::start(100);
            let gate = origin.hold();
            (origin, gate)
        };
        let origins: Vec<_> = (0..endpoints).map(start).collect();
        let addresses: Vec<_> = origins.iter().map(|(o, _)| format!("'{o}'")).collect();
        let proxy = Proxy::start(format!(
            "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, {route} }}] }}\nclusters:\n  \
             app: {{ endpoints: {{ static: [{}] }}, protocol: http2, balance: round_robin }}\n",
            addresses.join(", ")
        ));
        Held { origins, proxy }
    }

    fn requests(&self) -> usize {
        self.origins.iter().map(|(o, _)| o.requests()).sum()
    }

    /// Puts the endpoints in the order in which they have been asked, once `asked` of them have.
    async fn sort(&mut self, asked: usize) {
        until(|| self.requests() >= asked).await;
        let order = |(origin, _): &(Http2Origin, _)| origin.first_request().unwrap_or(usize::MAX);
        self.origins.sort_by_key(order);
    }

    fn release(&self, at: usize) {
        self.origins[at].1.send(true).unwrap();
    }

    fn metric(&self, name: &str) -> f64 {
        self.proxy.metric(&format!("tidegate_shard_{name}_total"))
    }
}

async fn call(client: &mut Http2, body: &[u8]) -> ResponseFuture {
    let call = with("POST", "/body", &[GRPC, ("grpc-timeout", "1H")]);
    let (answer, stream) = client.begin(call, true).await.unwrap();
    send_all(stream, body, None).await.unwrap();
    answer
}

/// Goal: the other endpoint's answer is taken, and the first one's is given up. Method: the second answers, in HTTP/2;
/// then in HTTP/1, where giving up is closing.
#[test]
fn the_second_answers() {
    let mut held = Held::new(
        2,
        "timeout: off, hedge: { delay: 30ms, unsafe_methods: true }",
    );
    run(async {
        let (mut client, _) = Http2::connect(held.proxy.web()).await;
        let answer = call(&mut client, b"message").await;
        held.sort(2).await;
        held.release(1);
        assert_eq!(read(answer).await.unwrap().text(), "message");
        until(|| held.origins[0].0.resets() == 1).await;
    });
    let (first, second) = (&held.origins[0].0, &held.origins[1].0);
    assert_eq!(first.seen("grpc-previous-rpc-attempts"), [""]);
    assert_eq!(second.seen("grpc-previous-rpc-attempts"), ["1"]);
    assert_eq!(first.seen("grpc-timeout"), ["1H"]);
    // What is left of it has no room in microseconds.
    assert!(second.seen("grpc-timeout")[0].ends_with('m'));
    let log = &held.proxy.access_log(1)[0];
    assert_eq!(log["tidegate.hedges"], 1);
    assert_eq!(log["network.peer.port"], second.address.port());
    assert_eq!(
        (held.metric("hedges"), held.metric("hedges_won")),
        (1.0, 1.0)
    );
    held.proxy
        .wait_for_metric("tidegate_shard_replay_bytes", |n| n == 0.0);

    let silent = Origin::start(|peer| {
        peer.next_request()?;
        let _ = peer.wire.rest();
        Ok(())
    });
    let speaking = Origin::start(|peer| {
        while let Some(request) = peer.next_request()? {
            peer.wire.send(format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                request.body.len()
            ))?;
            peer.wire.send(&request.body)?;
        }
        Ok(())
    });
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: \
         [{{ to: app, hedge: {{ delay: 30ms, unsafe_methods: true }} }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{silent}', '{speaking}'] }}, balance: round_robin }}\n"
    ));
    let mut client = proxy.client();
    let body = pattern(30_000);
    for _ in 0..4 {
        assert_same_bytes(&client.post("/", &body).body, &body);
    }
    // Tries beside another take their turns, too.
    let asked = silent.requests().len() as f64;
    assert!(asked >= 2.0);
    assert_eq!(proxy.metric("tidegate_shard_hedges_won_total"), asked);
    silent.wait_until_idle();
}

/// Goal: the first endpoint's answer is taken though another was asked, which is given up. Method: the first answers
/// when the second has been asked; a body beyond a window.
#[test]
fn the_first_answers() {
    let route = "hedge: { delay: 30ms, unsafe_methods: true, buffer: 1MiB }, timeout: off";
    let mut held = Held::new(2, route);
    let body = pattern(200_000);
    run(async {
        let (mut client, _) = Http2::connect(held.proxy.web()).await;
        let answer = call(&mut client, &body).await;
        held.sort(2).await;
        held.release(0);
        assert_same_bytes(&read(answer).await.unwrap().body, &body);
        until(|| held.origins[1].0.answered() == 1).await;
    });
    assert_eq!(
        (held.metric("hedges"), held.metric("hedges_won")),
        (1.0, 0.0)
    );
}

/// Goal: an answer that the route does not want is no answer while another try goes on. Method: the first is
/// unavailable when the second has been asked, and the other way round; then both, which is what the client is told.
#[test]
fn the_good_answer_wins() {
    let failing = Failing {
        status: "14",
        ..Failing::default()
    };
    let route = "timeout: off, hedge: { delay: 30ms, unsafe_methods: true }, \
                 retry: { on: [unavailable], times: 1, budget: 0% }";
    for (bad, good) in [(0, 1), (1, 0)] {
        let mut held = Held::new(2, route);
        run(async {
            let (mut client, _) = Http2::connect(held.proxy.web()).await;
            let answer = call(&mut client, b"message").await;
            held.sort(2).await;
            held.origins[bad].0.fail(1, failing);
            held.release(bad);
            until(|| held.origins[bad].0.answered() == 1).await;
            held.release(good);
            assert_eq!(read(answer).await.unwrap().text(), "message");
        });
        assert_eq!(held.metric("retries"), 0.0);
        assert_eq!(held.requests(), 2);
    }
    let mut held = Held::new(
        2,
        "timeout: off, hedge: { delay: 30ms, unsafe_methods: true }, \
                 retry: { on: [503], times: 1 }",
    );
    run(async {
        let (mut client, _) = Http2::connect(held.proxy.web()).await;
        let answer = call(&mut client, b"message").await;
        held.sort(2).await;
        held.origins[1].0.fail(1, failing);
        held.release(1);
        let answer = read(answer).await.unwrap();
        assert_eq!(
            answer.field("grpc-status"),
            "14",
            "no status that this route names"
        );
    });
}

/// Goal: nothing is done twice that must not be, and what is not kept is not sent twice. Method: a POST on a route that
/// does not allow it, a body above what is kept, one that has not come to its end; each begins before a GET that is
/// hedged, so that its time has come as well.
#[test]
fn what_is_not_hedged() {
    for (key, body, ends) in [
        ("", &b"x"[..], true),
        ("unsafe_methods: true, buffer: 100B", &[b'x'; 200], true),
        ("unsafe_methods: true", b"x", false),
    ] {
        let mut held = Held::new(2, &format!("timeout: off, hedge: {{ delay: 30ms, {key} }}"));
        run(async {
            let (mut client, _) = Http2::connect(held.proxy.web()).await;
            let (answer, mut stream) = client.begin(request("POST", "/body"), true).await.unwrap();
            stream.send_data(body.to_vec().into(), ends).unwrap();
            held.sort(1).await;
            let get = client
                .begin(request("GET", "/bytes/3"), false)
                .await
                .unwrap()
                .0;
            until(|| held.requests() == 3).await;
            assert_eq!(held.origins[1].0.requests(), 1, "{key}");
            assert_eq!(held.metric("hedges"), 1.0, "{key}");
            held.release(0);
            held.release(1);
            assert_eq!(read(get).await.unwrap().body, pattern(3));
            if !ends {
                // From here on it could be, and is.
                stream.send_data(Default::default(), true).unwrap();
            }
            assert_eq!(read(answer).await.unwrap().body, body);
        });
    }
}

/// Goal: as many tries as were asked for, on as many endpoints; and no more than the budget has, which is three at
/// least. Method: two beside the first, with an endpoint more than that; then four requests that are held at once.
#[test]
fn tries_are_bounded() {
    let mut held = Held::new(4, "timeout: off, hedge: { delay: 30ms, times: 2 }");
    run(async {
        let (mut client, _) = Http2::connect(held.proxy.web()).await;
        let get = client
            .begin(request("GET", "/bytes/3"), false)
            .await
            .unwrap()
            .0;
        held.sort(3).await;
        // The next one's second is asked behind what would have been the first one's third.
        let other = client
            .begin(request("GET", "/bytes/4"), false)
            .await
            .unwrap()
            .0;
        until(|| held.requests() == 6).await;
        (0..4).for_each(|at| held.release(at));
        assert_eq!(read(get).await.unwrap().body, pattern(3));
        assert_eq!(read(other).await.unwrap().body, pattern(4));
    });
    assert_eq!((held.requests(), held.metric("hedges")), (6, 4.0));

    let held = Held::new(2, "timeout: off, hedge: { delay: 30ms, budget: 0% }");
    run(async {
        let (mut client, _) = Http2::connect(held.proxy.web()).await;
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(
                client
                    .begin(request("GET", "/bytes/3"), false)
                    .await
                    .unwrap()
                    .0,
            );
        }
        until(|| held.metric("retries_over_budget") == 1.0).await;
        held.release(0);
        held.release(1);
        for answer in answers {
            assert_eq!(read(answer).await.unwrap().body, pattern(3));
        }
    });
    assert_eq!((held.requests(), held.metric("hedges")), (7, 3.0));
}

/// Goal: a client that gives up ends every try, and a time-out does. Method: two tries that are held; the client resets
/// its stream, or the route's time is over.
#[test]
fn all_tries_end_with_the_request() {
    for timeout in ["off", "300ms"] {
        let route = format!("timeout: {timeout}, hedge: {{ delay: 30ms }}");
        let mut held = Held::new(2, &route);
        run(async {
            let (mut client, _) = Http2::connect(held.proxy.web()).await;
            let get = client
                .begin(request("GET", "/bytes/3"), false)
                .await
                .unwrap()
                .0;
            held.sort(2).await;
            match timeout {
                "off" => drop(get),
                _ => assert_eq!(read(get).await.unwrap().status, 504),
            }
        });
        for (origin, _gate) in &held.origins {
            eventually("the end of a try", || (origin.resets() == 1).then_some(()));
        }
        held.proxy
            .wait_for_metric("tidegate_shard_requests_active", |n| n == 0.0);
    }
}
