//! What the next hop gets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use proptest::prelude::*;
use tidegate_codecs::{
    http1::{
        FieldKind, ForwardedFor, Framing, Progress, RequestEdits, RequestHead, RequestKind,
        ResponseEdits, ResponseHead, forward_request, forward_response, write_reply,
    },
    http2::{Connection, Event, FieldLine, Options, RequestLine},
    limits::Http1Limits,
};

fn parse_request(bytes: &[u8]) -> RequestHead {
    let mut head = RequestHead::default();
    let outcome = head.parse(bytes, &Http1Limits::default());
    assert_eq!(outcome, Ok(Progress::Complete), "{}", bytes.escape_ascii());
    head
}

fn parse_response(bytes: &[u8], kind: RequestKind) -> ResponseHead {
    let mut head = ResponseHead::default();
    let outcome = head.parse(bytes, kind, &Http1Limits::default());
    assert_eq!(outcome, Ok(Progress::Complete), "{}", bytes.escape_ascii());
    head
}

fn forwarded(request: &str, edits: &RequestEdits<'_>) -> String {
    let mut out = Vec::new();
    forward_request(
        request.as_bytes(),
        &parse_request(request.as_bytes()),
        edits,
        &mut out,
    );
    String::from_utf8(out).unwrap()
}

fn answered(response: &str, kind: RequestKind, edits: &ResponseEdits<'_>) -> String {
    let mut out = Vec::new();
    let head = parse_response(response.as_bytes(), kind);
    forward_response(response.as_bytes(), &head, edits, &mut out);
    String::from_utf8(out).unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

/// Goal: without edits only what ends at this hop goes, and framing is spelled one way. Method: a table.
#[test]
fn requests_without_edits() {
    for (request, expected) in [
        (
            "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nx_y: z\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nx_y: z\r\n\r\n",
        ),
        // Empty lines before the request stay behind.
        (
            "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        // RFC 9110, 7.6.1.
        (
            "GET / HTTP/1.1\r\nConnection: keep-alive, X-A, host\r\nHost: x\r\nX-A: 1\r\nKeep-Alive: 5\r\nB: c\r\nx-a: 2\r\nProxy-Connection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nB: c\r\n\r\n",
        ),
        // An option cannot take away framing, or what others vouch for.
        (
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: content-length, x-forwarded-for\r\nContent-Length:   07 \r\nX-Forwarded-For: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nX-Forwarded-For: 1\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding:\tChunked\r\nTrailer: d\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: d\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        ),
        // RFC 9112, 3.2.2: the authority takes the place of Host.
        (
            "GET http://y:8/p?q HTTP/1.1\r\nA: b\r\nHost: x\r\n\r\n",
            "GET /p?q HTTP/1.1\r\nHost: y:8\r\nA: b\r\n\r\n",
        ),
        (
            "GET http://y HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: y\r\n\r\n",
        ),
        (
            "GET http://y?q HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /?q HTTP/1.1\r\nHost: y\r\n\r\n",
        ),
        // RFC 9112, 3.2.4.
        (
            "OPTIONS http://y HTTP/1.1\r\nHost: x\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: y\r\n\r\n",
        ),
        (
            "OPTIONS http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
            "OPTIONS / HTTP/1.1\r\nHost: y\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        // HTTP/1.0 becomes 1.1, with a Host, and without what 1.0 does not know.
        (
            "GET / HTTP/1.0\r\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\nA: b\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        (
            "GET http://y/ HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: y\r\n\r\n",
        ),
        (
            "POST / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
        ),
        // RFC 9110, 10.1.1.
        (
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        // RFC 9110, 10.1.4.
        (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: TE\r\nTE: gzip;q=0.5, trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nTE: gzip\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        // No upgrade unless it was decided.
        (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
    ] {
        assert_eq!(forwarded(request, &RequestEdits::default()), expected);
    }
}

/// Goal: target, host and upgrade are replaced as asked. Method: one request of each kind.
#[test]
fn request_line_and_host_edits() {
    let edits = RequestEdits {
        target: Some(b"/new?x"),
        host: Some(b"other:8"),
        ..RequestEdits::default()
    };
    for request in [
        "GET /old HTTP/1.1\r\nA: b\r\nHost: x\r\n\r\n",
        "GET http://x/old HTTP/1.1\r\nA: b\r\nHost: x\r\n\r\n",
        "GET /old HTTP/1.0\r\nA: b\r\n\r\n",
    ] {
        assert_eq!(
            forwarded(request, &edits),
            "GET /new?x HTTP/1.1\r\nHost: other:8\r\nA: b\r\n\r\n"
        );
    }
    let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let edits = RequestEdits {
        upgrade: true,
        ..RequestEdits::default()
    };
    assert_eq!(
        forwarded(upgrade, &edits),
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: upgrade\r\n\r\n"
    );
}

/// Goal: the client's address and scheme are told by the policy. Method: a table.
#[test]
fn forwarded_for() {
    let bare = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let told = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-proto: http\r\nA: b\r\nx-forwarded-for: 2.2.2.2\r\n\r\n";
    for (request, policy, expected) in [
        (
            bare,
            ForwardedFor::Append(b"9.9.9.9"),
            "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nVia: 1.1 me\r\n\r\n",
        ),
        (
            told,
            ForwardedFor::Append(b"9.9.9.9"),
            "GET / HTTP/1.1\r\nHost: x\r\nx-forwarded-proto: http\r\nA: b\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 9.9.9.9\r\nVia: 1.1 me\r\n\r\n",
        ),
        (
            told,
            ForwardedFor::Replace(b"9.9.9.9"),
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nVia: 1.1 me\r\n\r\n",
        ),
        (
            told,
            ForwardedFor::Preserve,
            "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-proto: http\r\nA: b\r\nx-forwarded-for: 2.2.2.2\r\nVia: 1.1 me\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nForwarded: for=1\r\nX-Forwarded-Host: y\r\n\r\n",
            ForwardedFor::Replace(b"9.9.9.9"),
            "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nVia: 1.1 me\r\n\r\n",
        ),
        (
            bare,
            ForwardedFor::Preserve,
            "GET / HTTP/1.1\r\nHost: x\r\nVia: 1.1 me\r\n\r\n",
        ),
    ] {
        let edits = RequestEdits {
            forwarded_for: policy,
            proto: "https",
            via: Some("me"),
            ..RequestEdits::default()
        };
        assert_eq!(forwarded(request, &edits), expected, "{policy:?}");
    }
}

/// Goal: remove, set and append reach ordinary fields and nothing of framing. Method: edits that try both.
#[test]
fn field_edits() {
    let remove: Vec<Arc<str>> = ["a", "content-length", "host", "x-forwarded-for"]
        .map(Into::into)
        .into();
    let set = pairs(&[
        ("b", "2"),
        ("transfer-encoding", "chunked"),
        ("host", "evil"),
        ("x-forwarded-proto", "set"),
    ]);
    let append = pairs(&[("c", "3"), ("connection", "close"), ("content-length", "9")]);
    let edits = RequestEdits {
        remove: &remove,
        set: &set,
        append: &append,
        forwarded_for: ForwardedFor::Append(b"9.9.9.9"),
        proto: "https",
        ..RequestEdits::default()
    };
    assert_eq!(
        forwarded(
            "POST / HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 1\r\nC: 1\r\nb: 1\r\nX-Forwarded-For: 1.1.1.1\r\nContent-Length: 5\r\n\r\n",
            &edits
        ),
        "POST / HTTP/1.1\r\nHost: x\r\nC: 1\r\nContent-Length: 5\r\nX-Forwarded-For: 9.9.9.9\r\nb: 2\r\nx-forwarded-proto: set\r\nc: 3\r\n\r\n"
    );
    let edits = ResponseEdits {
        remove: &remove,
        set: &set,
        append: &append,
        extra: &[("X-Extra", "4")],
        ..ResponseEdits::default()
    };
    assert_eq!(
        answered(
            "HTTP/1.1 200 OK\r\nA: 1\r\nB: 1\r\nC: 1\r\nContent-Length: 5\r\n\r\n",
            RequestKind::Other,
            &edits
        ),
        "HTTP/1.1 200 OK\r\nC: 1\r\nContent-Length: 5\r\nb: 2\r\nx-forwarded-proto: set\r\nc: 3\r\nX-Extra: 4\r\n\r\n"
    );
}

/// Goal: an answer keeps its meaning and loses what ends at this hop. Method: a table.
#[test]
fn responses() {
    let plain = ResponseEdits::default();
    let close = ResponseEdits {
        close: true,
        ..plain
    };
    let kept_10 = ResponseEdits {
        keep_alive_10: true,
        ..plain
    };
    let dechunk = ResponseEdits {
        dechunk: true,
        close: true,
        ..plain
    };
    let upgrade = ResponseEdits {
        upgrade: true,
        ..plain
    };
    let (other, head) = (RequestKind::Other, RequestKind::Head);
    for (response, kind, edits, expected) in [
        (
            "HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 05\r\n\r\n",
            other,
            plain,
            "HTTP/1.1 200 OK\r\nServer: a\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            other,
            plain,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "HTTP/1.1 200\r\nA: b\r\n\r\n",
            other,
            close,
            "HTTP/1.1 200 \r\nA: b\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            other,
            kept_10,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: a\r\n\r\n",
            other,
            plain,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n",
            other,
            dechunk,
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            head,
            plain,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            head,
            plain,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            other,
            plain,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            other,
            plain,
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\n",
            other,
            plain,
            "HTTP/1.1 100 Continue\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            RequestKind::Connect,
            plain,
            "HTTP/1.1 200 OK\r\n\r\n",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nA: b\r\n\r\n",
            other,
            upgrade,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nA: b\r\nConnection: upgrade\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: A, close\r\nUpgrade: h2c\r\nA: b\r\nContent-Length: 0\r\n\r\n",
            other,
            plain,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        assert_eq!(answered(response, kind, &edits), expected);
    }
}

/// Goal: own answers are well-formed and framed as their status and method ask. Method: each is parsed
/// back.
#[test]
fn replies() {
    for (status, body, close, kind) in [
        (200, "hello", false, RequestKind::Other),
        (200, "hello", true, RequestKind::Head),
        (503, "", true, RequestKind::Other),
        (204, "ignored", false, RequestKind::Other),
        (304, "ignored", false, RequestKind::Other),
        (599, "x", false, RequestKind::Other),
    ] {
        let mut out = Vec::new();
        let is_head = kind == RequestKind::Head;
        write_reply(
            &mut out,
            status,
            &[("A", "b")],
            "text/plain",
            body.as_bytes(),
            close,
            is_head,
        );
        let head = parse_response(&out, kind);
        assert_eq!(head.status, status);
        assert_eq!(head.keep_alive, !close);
        assert_eq!(head.field(&out, "a"), Some(b"b".as_slice()));
        let has_body = !matches!(status, 204 | 304);
        assert_eq!(head.content_length, has_body.then_some(body.len() as u64));
        let sent = if has_body && !is_head { body } else { "" };
        assert_eq!(&out[head.len..], sent.as_bytes());
    }
}

/// A field that is nobody's on the way.
fn ordinary_field() -> impl Strategy<Value = (String, String)> {
    ("x-[a-z0-9_-]{1,12}", "([!-~]([ -~\t]{0,20}[!-~])?)?")
}

/// A line that ends at this hop, or that is spelled anew.
fn passing_field() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "Connection: keep-alive",
        "Connection: close, upgrade",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Upgrade: websocket",
        "Proxy-Connection: keep-alive",
    ])
    .prop_map(str::to_owned)
}

fn framing_lines() -> impl Strategy<Value = (&'static str, Framing)> {
    prop::sample::select(vec![
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::None),
        ("content-length:\t0012 \r\n", Framing::Length(12)),
        ("TRANSFER-encoding:  CHUNKED\r\n", Framing::Chunked),
    ])
}

proptest! {
    /// Goal: a forwarded request means the same to the endpoint: same end-to-end fields in order, same
    /// framing, nothing of the connection; and forwarding it again changes nothing more. Method: random
    /// heads, parsed, forwarded and parsed again.
    #[test]
    fn request_round_trip(
        ordinary in prop::collection::vec(ordinary_field(), 0..8),
        passing in prop::collection::vec(passing_field(), 0..3),
        (framing_line, framing) in framing_lines(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut lines: Vec<String> =
            ordinary.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        for line in passing {
            lines.insert(at.index(lines.len() + 1), line);
        }
        let fields: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("PUT /a?b HTTP/1.1\r\n{fields}Host: x:1\r\n{framing_line}\r\n");

        let edits = RequestEdits::default();
        let once = forwarded(&request, &edits);
        let head = parse_request(once.as_bytes());
        prop_assert_eq!(head.framing, framing);
        prop_assert_eq!(head.host.of(once.as_bytes()), b"x");
        prop_assert_eq!(head.target.of(once.as_bytes()), b"/a?b");
        let kept: Vec<(String, String)> = head
            .fields
            .iter()
            .filter(|field| field.kind == FieldKind::EndToEnd)
            .map(|field| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                (text(field.name.of(once.as_bytes())), text(field.value.of(once.as_bytes())))
            })
            .collect();
        prop_assert_eq!(kept, ordinary);
        prop_assert_eq!(forwarded(&once, &edits), once);
    }
}

/// A request in HTTP/2, forwarded.
fn forwarded_from_http2(fields: &[(&str, &str)], has_body: bool) -> String {
    let options = Options::default();
    let (mut client, mut server) = (
        Connection::client(&options, 0),
        Connection::server(&options, 0),
    );
    let line = RequestLine {
        method: b"POST",
        scheme: b"https",
        authority: b"a.example:1",
        path: b"/p?q",
        protocol: None,
    };
    let fields = fields
        .iter()
        .map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
    client.send_request(line, fields, !has_body).unwrap();
    let mut bytes = Vec::new();
    client.take_output(&mut bytes);
    let mut input = bytes.as_slice();
    while !input.is_empty() {
        let step = server.receive(input, 0).unwrap();
        input = &input[step.consumed..];
        if let Some(Event::Request { end_stream, .. }) = step.event {
            let (mut head, mut text, mut out) = (RequestHead::default(), Vec::new(), Vec::new());
            server
                .head()
                .take_request(!end_stream, &mut head, &mut text);
            let edits = RequestEdits {
                via: Some("gw"),
                ..RequestEdits::default()
            };
            forward_request(&text, &head, &edits, &mut out);
            return String::from_utf8(out).unwrap();
        }
    }
    panic!("no request");
}

/// Goal: a request in HTTP/2 goes on as the HTTP/1 request that it stands for, framed once. Method: without a
/// body, with a length, without one, with trailers asked for.
#[test]
fn requests_in_http2() {
    let head = "POST /p?q HTTP/1.1\r\nhost: a.example:1\r\n";
    for (fields, has_body, rest) in [
        (&[][..], false, "Via: 2.0 gw\r\n\r\n"),
        (
            &[("content-length", "3")],
            true,
            "Content-Length: 3\r\nVia: 2.0 gw\r\n\r\n",
        ),
        (
            &[("x", "1")],
            true,
            "x: 1\r\nVia: 2.0 gw\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            &[("te", "trailers")],
            false,
            "Via: 2.0 gw\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
        ),
    ] {
        assert_eq!(
            forwarded_from_http2(fields, has_body),
            format!("{head}{rest}")
        );
    }
}
