//! HTTP/1.1 messages through the proxy, over real sockets: framing both ways, keep-alive on both sides,
//! pipelining, statuses without a body, interim answers, trailers, HTTP/1.0.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Client, Origin, Proxy, assert_same_bytes, pattern};

/// Goal: a request reaches the origin and its answer the client. Method: both ends' view of one GET.
#[test]
fn a_request_and_its_answer() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let response = proxy.client().get("/some/path?a=1&b=2");
    assert_eq!(response.status, 200);
    let request = origin.request();
    assert_eq!(request.head.start, "GET /some/path?a=1&b=2 HTTP/1.1");
    assert_eq!(request.head.get("host"), Some("a.example"));
    assert_eq!(response.text(), request.head.raw);
}

/// Goal: a connection serves many requests on both sides. Method: 50 requests on one client connection
/// meet one connection at the origin.
#[test]
fn keep_alive_on_both_sides() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for i in 0..50 {
        let response = client.get(&format!("/{i}"));
        assert_eq!(response.status, 200);
        assert!(response.head.get("connection").is_none(), "{response:?}");
    }
    assert_eq!(origin.connections(), 1);
}

/// Goal: a kept upstream connection serves other clients too. Method: clients one after the other.
#[test]
fn upstream_connections_are_shared_by_clients() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    for i in 0..10 {
        assert_eq!(
            common::client::get(proxy.web(), &format!("/{i}")).status,
            200
        );
    }
    assert_eq!(origin.connections(), 1);
}

/// Goal: bodies of every size and framing arrive whole, in both directions. Method: sizes around those
/// of the buffers, with length and chunked, echoed and compared.
#[test]
fn bodies_of_every_size_and_framing() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for size in [
        0, 1, 2, 511, 4095, 4096, 4097, 8192, 16_383, 65_535, 65_536, 65_537, 262_144, 1_000_000,
    ] {
        let body = pattern(size);
        let response = client.post("/body", &body);
        assert_same_bytes(&response.body, &body);

        let mut request =
            b"POST /body HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec();
        for chunk in body.chunks(7919) {
            common::origin::send_chunk(&mut request, chunk).unwrap();
        }
        request.extend_from_slice(b"0\r\n\r\n");
        assert_same_bytes(&client.exchange(&request).body, &body);

        for target in [format!("/bytes/{size}"), format!("/chunked/{size}")] {
            assert_same_bytes(&client.get(&target).body, &body);
        }
    }
    assert_eq!(origin.connections(), 1);
}

/// Goal: a body that ends with the connection is passed on whole, and the client can tell its end.
/// Method: such answers of several sizes; the client's connection ends too, or the body is chunked.
#[test]
fn bodies_until_close() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    for size in [0, 1, 5000, 300_000] {
        let mut client = proxy.client();
        let response = client.get(&format!("/close/{size}"));
        assert_same_bytes(&response.body, &pattern(size));
        if response.head.get("transfer-encoding").is_none() {
            client.expect_close();
        }
    }
}

/// Goal: where segments end means nothing. Method: a pipeline of a chunked and a plain request sent byte
/// by byte is answered as if it came whole.
#[test]
fn byte_by_byte() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let request = "POST /body HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nX-T: 1\r\n\r\n\
                   GET /bytes/10 HTTP/1.1\r\nHost: a.example\r\n\r\n";
    client.send_bytewise(request).unwrap();
    assert_eq!(client.answer_to(b"POST").text(), "hello world");
    assert_same_bytes(&client.answer_to(b"GET").body, &pattern(10));
}

/// Goal: pipelined requests are answered in order. Method: a hundred in one write, each with its own
/// body, some with request bodies.
#[test]
fn pipelining_in_order() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let mut batch = String::new();
    for i in 0..100 {
        if i % 3 == 0 {
            batch.push_str(&format!(
                "POST /body HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\n{i:04}"
            ));
        } else {
            batch.push_str(&format!("GET /{i:04} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        }
    }
    client.send(&batch).unwrap();
    for i in 0..100 {
        let response = client.answer_to(if i % 3 == 0 { b"POST" } else { b"GET" });
        assert_eq!(response.status, 200);
        assert!(response.text().contains(&format!("{i:04}")), "answer {i}");
    }
}

/// Goal: an answer without a body leaves the connection in step (RFC 9112, 6.3). Method: HEAD, 204 and
/// 304 between ordinary requests on one connection, pipelined.
#[test]
fn answers_without_a_body() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let requests = [
        ("HEAD", "/bytes/5000"),
        ("GET", "/status/204"),
        ("GET", "/bytes/7"),
        ("HEAD", "/chunked/100"),
        ("GET", "/status/304"),
        ("POST", "/bytes/9"),
    ];
    for (method, target) in requests {
        let length = if method == "POST" {
            "Content-Length: 0\r\n"
        } else {
            ""
        };
        client
            .send(format!(
                "{method} {target} HTTP/1.1\r\nHost: a.example\r\n{length}\r\n"
            ))
            .unwrap();
    }
    let answers: Vec<_> = requests
        .iter()
        .map(|(method, _)| client.answer_to(method.as_bytes()))
        .collect();
    assert_eq!(answers[0].head.get("content-length"), Some("5000"));
    assert_eq!(answers[1].status, 204);
    assert!(answers[1].head.get("content-length").is_none());
    assert!(answers[1].head.get("transfer-encoding").is_none());
    assert_eq!(answers[2].body, pattern(7));
    assert_eq!(answers[3].status, 200);
    assert_eq!(answers[4].status, 304);
    assert_eq!(answers[4].head.get("etag"), Some("\"x\""));
    assert_eq!(answers[5].body, pattern(9));
    assert_eq!(origin.connections(), 1);
}

/// Goal: trailers pass in both directions (RFC 9110, 6.5). Method: chunked messages with trailers.
#[test]
fn trailers_pass() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let response = client.exchange(
        "POST /trailers HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\n\
         Transfer-Encoding: chunked\r\nTrailer: X-Digest\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Digest: 900150983cd24fb0\r\n\r\n",
    );
    assert_eq!(response.text(), "hello world");
    assert_eq!(response.trailers, [("X-Sum".to_owned(), "42".to_owned())]);
    let request = origin.request();
    assert_eq!(request.body, b"abc");
    assert_eq!(
        request.trailers,
        [("X-Digest".to_owned(), "900150983cd24fb0".to_owned())]
    );
    assert_eq!(client.get("/bytes/3").status, 200);
}

/// Goal: interim answers reach the client before the final one (RFC 9110, 15.2). Method: an origin that
/// sends 103 twice.
#[test]
fn early_hints_pass() {
    let origin = Origin::saying(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..2 {
        let response = client.get("/");
        let links: Vec<_> = response
            .interim
            .iter()
            .map(|head| head.get("link").unwrap())
            .collect();
        assert_eq!(links, ["</a.css>", "</b.css>"]);
        assert_eq!(response.text(), "ok");
    }
    assert_eq!(origin.connections(), 1);
}

/// Goal: HTTP/1.0 clients never see a 1xx (RFC 9110, 15.2). Method: the same origin.
#[test]
fn no_interim_answers_for_http_1_0() {
    let origin = Origin::saying(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = Proxy::before(&origin);
    let response = proxy
        .client()
        .exchange("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n");
    assert!(response.interim.is_empty());
    assert_eq!(response.text(), "ok");
}

/// Goal: `Expect: 100-continue` works end to end (RFC 9110, 10.1.1). Method: the client sends its body
/// only once told to; the origin gets it whole.
#[test]
fn expect_continue() {
    let origin = Origin::start(|peer| {
        while let Ok(request) = peer.next_head() {
            if request.head.get("expect").is_some() {
                peer.wire.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let (body, _) = peer.wire.body(&request.head, false)?;
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            peer.wire.send(reply)?;
            peer.wire.send(body)?;
        }
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for _ in 0..3 {
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\n\
                 Content-Length: 5\r\n\r\n",
            )
            .unwrap();
        let interim = client.head().unwrap();
        assert_eq!(interim.status().unwrap(), 100);
        client.send("hello").unwrap();
        let response = client.answer_to(b"POST");
        assert!(response.interim.is_empty(), "one 100 is enough");
        assert_eq!(response.text(), "hello");
    }
}

/// Goal: a refused expectation saves the body (RFC 9110, 10.1.1). Method: the origin answers 403 to the
/// head; the client gets it without having sent its body.
#[test]
fn expect_continue_refused() {
    let origin = Origin::start(|peer| {
        peer.next_head()?;
        peer.wire
            .send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\n\
             Content-Length: 500000\r\n\r\n",
        )
        .unwrap();
    // The proxy may have invited the body by itself; the final answer is what counts.
    let response = client.answer_to(b"POST");
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

/// Goal: another expectation is refused with 417 (RFC 9110, 10.1.1). Method: one.
#[test]
fn unknown_expectation() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let response = proxy.client().exchange(
        "POST / HTTP/1.1\r\nHost: a.example\r\nExpect: coffee\r\nContent-Length: 1\r\n\r\nx",
    );
    assert_eq!(response.status, 417);
    assert_eq!(response.reason(), Some("expectation_failed"));
    assert!(origin.requests().is_empty());
}

/// Goal: HTTP/1.0 clients are served: closed by default, kept if they ask, never chunked (RFC 9112, 6.1
/// and 9.3). Method: each against chunked and plain answers.
#[test]
fn http_1_0_clients() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    for target in ["/bytes/100", "/chunked/100"] {
        let mut client = proxy.client();
        let request = format!("GET {target} HTTP/1.0\r\nHost: a.example\r\n\r\n");
        let response = client.exchange(&request);
        assert!(response.head.get("transfer-encoding").is_none());
        assert_eq!(response.body, pattern(100));
        client.expect_close();
    }
    let mut client = proxy.client();
    for _ in 0..3 {
        let response = client.exchange(
            "GET /bytes/10 HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n",
        );
        assert_eq!(response.body, pattern(10));
        let connection = response.head.get("connection").unwrap_or_default();
        assert!(connection.eq_ignore_ascii_case("keep-alive"));
    }
}

/// Goal: `Connection: close` is honoured and said. Method: a client that asks for it, then one whose
/// origin says it.
#[test]
fn connection_close() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let response =
        client.exchange("GET /bytes/10 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    assert_eq!(response.body, pattern(10));
    assert_eq!(response.head.get("connection"), Some("close"));
    client.expect_close();
    // The upstream connection was not asked to close.
    assert_eq!(common::client::get(proxy.web(), "/").status, 200);
    assert_eq!(origin.connections(), 1);

    let closing =
        Origin::saying_once("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let proxy = Proxy::before(&closing);
    let mut client = proxy.client();
    for _ in 0..5 {
        // What an origin does with its connection is no business of the client's.
        let response = client.get("/");
        assert_eq!(response.text(), "ok");
        assert!(response.head.get("connection").is_none());
    }
    assert_eq!(closing.connections(), 5);
}

/// Goal: origins that speak HTTP/1.0 work. Method: one answers with and one without a length, both close.
#[test]
fn http_1_0_origins() {
    for answer in [
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nok",
    ] {
        let origin = Origin::saying_once(answer);
        let proxy = Proxy::before(&origin);
        for _ in 0..2 {
            let response = proxy.client().get("/");
            assert_eq!(response.text(), "ok");
            assert!(response.head.start.starts_with("HTTP/1.1 200"));
        }
        assert_eq!(origin.connections(), 2);
    }
}

/// Goal: a client that ends its sending direction after its request still gets the answer. Method: shut
/// down for writing, then read.
#[test]
fn half_closed_client_is_answered() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client
        .send("GET /bytes/100000 HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    client.finish().unwrap();
    assert_same_bytes(&client.answer_to(b"GET").body, &pattern(100_000));
    client.expect_close();
}

/// Goal: a few empty lines before a request are tolerated (RFC 9112, 2.2). Method: one CRLF between
/// pipelined requests.
#[test]
fn empty_lines_before_a_request() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client
        .send(
            "\r\nGET /bytes/1 HTTP/1.1\r\nHost: a.example\r\n\r\n\
             \r\nGET /bytes/2 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.answer_to(b"GET").body, pattern(1));
    assert_eq!(client.answer_to(b"GET").body, pattern(2));
}

/// Goal: many clients at once get their own answers. Method: 40 threads, 25 requests each, bodies that
/// say whose they are.
#[test]
fn answers_go_to_who_asked() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let address = proxy.web();
    let threads: Vec<_> = (0..40)
        .map(|t| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for i in 0..25 {
                    let body = format!("{t}/{i}/").repeat(1 + (t * 37 + i * 101) % 3000);
                    let response = client.post("/body", body.as_bytes());
                    assert_same_bytes(&response.body, body.as_bytes());
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
