//! Request smuggling: what two parsers could read in two ways never reaches an origin. Each case is
//! judged from the text of RFC 9110 and RFC 9112, and sent through the proxy to an origin that records
//! what it gets.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Client, Origin, Proxy};

/// A request that must be refused: what it tries, its bytes (completed by `Host: a.example` where
/// `{H}` stands), and the statuses that are right.
type Refused = (&'static str, &'static str, &'static [u16]);

const REFUSED: &[Refused] = &[
    // RFC 9112, 6.1 and 6.3: both framings.
    (
        "CL.TE",
        "POST / HTTP/1.1\r\n{H}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        &[400],
    ),
    (
        "TE.CL",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n\
         1e\r\nGET /smuggled HTTP/1.1\r\nX: \r\n\r\n0\r\n\r\n",
        &[400],
    ),
    // RFC 9112, 6.3: lengths that differ, repeat or are none.
    (
        "two lengths",
        "POST / HTTP/1.1\r\n{H}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        &[400],
    ),
    (
        "length list",
        "POST / HTTP/1.1\r\n{H}Content-Length: 5, 6\r\n\r\nhello!",
        &[400],
    ),
    (
        "plus sign",
        "POST / HTTP/1.1\r\n{H}Content-Length: +5\r\n\r\nhello",
        &[400],
    ),
    (
        "minus sign",
        "POST / HTTP/1.1\r\n{H}Content-Length: -5\r\n\r\nhello",
        &[400],
    ),
    (
        "hexadecimal length",
        "POST / HTTP/1.1\r\n{H}Content-Length: 0x5\r\n\r\nhello",
        &[400],
    ),
    (
        "space in a length",
        "POST / HTTP/1.1\r\n{H}Content-Length: 1 0\r\n\r\n0123456789",
        &[400],
    ),
    (
        "length beyond 64 bits",
        "POST / HTTP/1.1\r\n{H}Content-Length: 18446744073709551621\r\n\r\nhello",
        &[400, 413],
    ),
    (
        "empty length",
        "POST / HTTP/1.1\r\n{H}Content-Length: \r\n\r\n",
        &[400],
    ),
    // RFC 9112, 6.1: codings whose end cannot be told.
    (
        "chunked is not last",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "chunked in two fields",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\n",
        &[400, 501],
    ),
    (
        "unknown coding",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "identity",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        &[400, 501],
    ),
    (
        "known coding before chunked",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "quoted chunked",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "vertical tab before chunked",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    (
        "TE in HTTP/1.0",
        "POST / HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    // RFC 9112, 5.1, 5.2 and 2.2: lines that are read in two ways.
    (
        "space before the colon",
        "POST / HTTP/1.1\r\n{H}Content-Length : 5\r\n\r\nhello",
        &[400],
    ),
    (
        "space before the colon of TE",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "folded TE",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "folded value",
        "GET / HTTP/1.1\r\n{H}X-A: one\r\n two\r\n\r\n",
        &[400],
    ),
    (
        "space before the first field",
        "GET / HTTP/1.1\r\n {H}\r\n",
        &[400],
    ),
    ("bare LF ends a line", "GET / HTTP/1.1\n{H}X: 1\n\n", &[400]),
    (
        "bare LF in a field",
        "GET / HTTP/1.1\r\n{H}X-A: 1\nContent-Length: 30\r\n\r\n",
        &[400],
    ),
    (
        "bare CR in a value",
        "GET / HTTP/1.1\r\n{H}X-A: 1\rContent-Length: 30\r\n\r\n",
        &[400],
    ),
    (
        "NUL in a value",
        "GET / HTTP/1.1\r\n{H}X-A: 1\x002\r\n\r\n",
        &[400],
    ),
    (
        "NUL in a name",
        "GET / HTTP/1.1\r\n{H}X\x00A: 1\r\n\r\n",
        &[400],
    ),
    ("no colon", "GET / HTTP/1.1\r\n{H}X-A 1\r\n\r\n", &[400]),
    ("empty name", "GET / HTTP/1.1\r\n{H}: 1\r\n\r\n", &[400]),
    (
        "space in a name",
        "GET / HTTP/1.1\r\n{H}X A: 1\r\n\r\n",
        &[400],
    ),
    // RFC 9112, 3: request lines.
    ("no version", "GET /\r\n{H}\r\n", &[400, 505]),
    ("HTTP/2 in text", "GET / HTTP/2.0\r\n{H}\r\n", &[400, 505]),
    ("HTTP/1.2", "GET / HTTP/1.2\r\n{H}\r\n", &[400, 505]),
    (
        "lower-case version",
        "GET / http/1.1\r\n{H}\r\n",
        &[400, 505],
    ),
    (
        "space in the target",
        "GET /a b HTTP/1.1\r\n{H}\r\n",
        &[400],
    ),
    ("two spaces", "GET  / HTTP/1.1\r\n{H}\r\n", &[400]),
    ("tab", "GET\t/\tHTTP/1.1\r\n{H}\r\n", &[400]),
    ("method with a colon", "GE:T / HTTP/1.1\r\n{H}\r\n", &[400]),
    ("relative target", "GET a HTTP/1.1\r\n{H}\r\n", &[400]),
    ("fragment", "GET /a#b HTTP/1.1\r\n{H}\r\n", &[400]),
    ("asterisk with GET", "GET * HTTP/1.1\r\n{H}\r\n", &[400]),
    (
        "scheme of another world",
        "GET ftp://a.example/ HTTP/1.1\r\n{H}\r\n",
        &[400],
    ),
    (
        "user in the authority",
        "GET http://u:p@a.example/ HTTP/1.1\r\n{H}\r\n",
        &[400],
    ),
    // RFC 9112, 3.2: hosts.
    ("no host", "GET / HTTP/1.1\r\nX: 1\r\n\r\n", &[400]),
    (
        "two hosts",
        "GET / HTTP/1.1\r\n{H}Host: b.example\r\n\r\n",
        &[400],
    ),
    (
        "the same host twice",
        "GET / HTTP/1.1\r\n{H}{H}\r\n",
        &[400],
    ),
    (
        "list of hosts",
        "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
        &[400],
    ),
    (
        "host with a path",
        "GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n",
        &[400],
    ),
    (
        "host with a user",
        "GET / HTTP/1.1\r\nHost: u@a.example\r\n\r\n",
        &[400],
    ),
];

/// Bodies whose framing breaks: the head may have been passed on, so that the origin sees a request that
/// never completes; what follows must never be read as one.
const BROKEN_BODIES: &[(&str, &str)] = &[
    ("bare LF after a size", "5\nhello\r\n0\r\n\r\n"),
    ("bare LF after a chunk", "5\r\nhello\n0\r\n\r\n"),
    ("chunk longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
    ("negative size", "-5\r\nhello\r\n0\r\n\r\n"),
    ("0x size", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("empty size", "\r\nhello\r\n0\r\n\r\n"),
    (
        "size beyond 64 bits",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    ("space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
    ("bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("LF in an extension", "5;a\n\r\nhello\r\n0\r\n\r\n"),
    ("NUL after the size", "5\0\r\nhello\r\n0\r\n\r\n"),
    ("bare LF ends the trailers", "0\r\nX: 1\n\r\n"),
    ("trailer without a colon", "0\r\nX\r\n\r\n"),
    ("trailer that frames", "0\r\nContent-Length: 50\r\n\r\n"),
    (
        "trailer that codes",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
];

/// What an attacker would have the origin see.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Goal: ambiguous requests are refused, and what follows them is not read. Method: each of the table,
/// followed by a request that must never arrive.
#[test]
fn ambiguous_requests_are_refused() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut wrong = Vec::new();
    for (name, request, statuses) in REFUSED {
        let request = request.replace("{H}", "Host: a.example\r\n");
        let mut client = proxy.client();
        let _ = client.send(format!("{request}{SMUGGLED}"));
        let method = request.split(' ').next().unwrap();
        match client.response(method) {
            Ok(response) if statuses.contains(&response.status) => {
                // Only the routing of a well-framed request keeps the connection.
                if client.rest().is_ok_and(|rest| !rest.is_empty()) {
                    wrong.push(format!("{name}: something follows the refusal"));
                }
            }
            Ok(response) => wrong.push(format!("{name}: {}", response.status)),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let requests = origin.requests();
    assert!(requests.is_empty(), "{requests:#?}");
}

/// Goal: a body whose framing breaks ends both connections. Method: each of the table, followed by a
/// request that must never arrive; the origin connection is not used again.
#[test]
fn broken_bodies_end_both_connections() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    for (name, body) in BROKEN_BODIES {
        let mut client = proxy.client();
        let _ = client.send(format!(
            "POST /body HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
             {body}{SMUGGLED}"
        ));
        let rest = client.rest().unwrap_or_default();
        let rest = String::from_utf8_lossy(&rest);
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 400"),
            "{name}: {rest}"
        );
        assert!(rest.matches("HTTP/1.1").count() <= 1, "{name}: {rest}");
    }
    origin.wait_until_idle();
    let requests = origin.requests();
    assert!(requests.is_empty(), "{requests:#?}");
    assert_eq!(proxy.client().get("/fine").status, 200);
}

/// Goal: what is unusual and clear is passed on, in one spelling. Method: each with what the origin must
/// see of it.
#[test]
fn clear_requests_pass_in_one_spelling() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let cases: [(&str, &str, &str); 6] = [
        (
            "upper-case coding",
            "Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "upper-case name",
            "TRANSFER-ENCODING: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "leading zeros",
            "Content-Length: 0005\r\n\r\nhello",
            "hello",
        ),
        (
            "leading zeros of a chunk",
            "Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n000\r\n\r\n",
            "hello",
        ),
        (
            "upper-case size",
            "Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "0123456789",
        ),
        (
            "extensions",
            "Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d;e\"\r\nhello\r\n0;x\r\n\r\n",
            "hello",
        ),
    ];
    for (name, rest, body) in cases {
        let response = proxy
            .client()
            .exchange(format!("POST /body HTTP/1.1\r\nHost: a.example\r\n{rest}"));
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, body),
            "{name}"
        );
    }
    for request in origin.requests() {
        let head = &request.head;
        let framings = head.all("content-length").len() + head.all("transfer-encoding").len();
        assert_eq!(framings, 1, "{}", head.raw);
        if let Some(coding) = head.get("transfer-encoding") {
            assert_eq!(coding, "chunked");
        }
        if let Some(length) = head.get("content-length") {
            assert_eq!(length, "5");
        }
    }
}

/// Goal: bytes after a message are the next message, wherever the segments end. Method: a body that
/// looks like a request, and a request in the same write, for both framings.
#[test]
fn bodies_that_look_like_requests() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let inner = SMUGGLED;
    let length = inner.len();
    let mut batch = format!(
        "POST /body HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n{inner}"
    );
    batch.push_str(&format!(
        "POST /body HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
         {length:x}\r\n{inner}\r\n0\r\n\r\nGET /last HTTP/1.1\r\nHost: a.example\r\n\r\n"
    ));
    client.send(&batch).unwrap();
    assert_eq!(client.answer_to(b"POST").text(), inner);
    assert_eq!(client.answer_to(b"POST").text(), inner);
    assert!(client.answer_to(b"GET").text().starts_with("GET /last"));
    let targets: Vec<_> = origin
        .requests()
        .iter()
        .map(|r| r.head.target().to_owned())
        .collect();
    assert_eq!(targets, ["/body", "/body", "/last"]);
}

/// Goal: a body announced with GET is a body (RFC 9110, 9.3.1). Method: what looks like a second request
/// is inside of it.
#[test]
fn get_with_a_body() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client
        .send(format!(
            "GET /body HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n{SMUGGLED}",
            SMUGGLED.len()
        ))
        .unwrap();
    assert_eq!(client.answer_to(b"GET").text(), SMUGGLED);
    assert_eq!(origin.request().head.target(), "/body");
}

/// Goal: a refused CONNECT ends the connection: what a client sent behind it in hope of a tunnel must not
/// be read as a request. Method: one behind the other.
#[test]
fn a_refused_connect_ends_the_connection() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client
        .send(format!(
            "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n{SMUGGLED}"
        ))
        .unwrap();
    let response = client.answer_to(b"GET");
    assert!([400, 405, 501].contains(&response.status), "{response:?}");
    client.expect_close();
    assert!(origin.requests().is_empty());
}

/// Goal: an upgrade that the origin refuses leaves no tunnel. Method: a request hidden behind a refused
/// upgrade is read by the proxy as the next request, routed and recorded as such.
#[test]
fn a_refused_upgrade_is_no_tunnel() {
    let origin = Origin::echo();
    let proxy = Proxy::start(common::proxy::web(
        "{ match: { path: /ws }, to: app }, { match: { path: /private/** }, respond: { status: 403 } }",
        &[("app", &origin)],
    ));
    let mut client: Client = proxy.client();
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
             GET /private/keys HTTP/1.1\r\nHost: a.example\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.answer_to(b"GET").status, 200);
    // Either the second request meets its own route, or the connection was closed before it.
    if let Ok(response) = client.response("GET") {
        assert_eq!(response.status, 403);
    }
    assert_eq!(origin.request().head.target(), "/ws");
}
