//! Tunnels: CONNECT (RFC 9113, 8.5), and extended CONNECT for other protocols (RFC 8441).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod http2_common;

use http2_common::*;
use tidegate_codecs::{
    http1::{HeadError, RequestKind, ResponseHead},
    http2::{Connection, ErrorCode, MessageError, Options, PREFACE, RequestLine, SendError},
};

const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "a:80")];

const WEBSOCKET: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":path", "/chat"),
    (":authority", "a"),
];

fn offering() -> Options {
    Options {
        extended_connect: true,
        ..Options::default()
    }
}

fn request(protocol: Option<&'static [u8]>) -> RequestLine<'static> {
    RequestLine {
        method: b"CONNECT",
        scheme: b"https",
        authority: b"a:80",
        path: b"/chat",
        protocol,
    }
}

/// A client with a tunnel asked for on stream 1, whose server offers extended CONNECT.
fn asking(protocol: Option<&'static [u8]>) -> Wire {
    let mut wire = Wire::new(Connection::client(&Options::default(), 0));
    wire.feed(&settings(&[(8, 1)]));
    wire.feed(&frame(SETTINGS, ACK, 0, &[]));
    wire.connection
        .send_request(request(protocol), [], false)
        .unwrap();
    wire.start_over();
    wire
}

/// Goal: extended CONNECT works where it is offered, and not elsewhere (RFC 8441). Method: a client's
/// request to a server that does, and to one that does not.
#[test]
fn extended_connect() {
    let line = request(Some(b"websocket"));
    let mut client = Wire::client(&Options::default());
    let refused = client.connection.send_request(line, [], false);
    assert_eq!(refused, Err(SendError::ExtendedConnectNotOffered));

    let mut server = Wire::new(Connection::server(&offering(), 0));
    server.take_output();
    client.feed(&core::mem::take(&mut server.sent));
    assert!(client.connection.peer().extended_connect);
    client.connection.send_request(line, [], false).unwrap();
    client.take_output();
    server.feed(PREFACE);
    server.feed(&settings(&[]));
    server.feed(&core::mem::take(&mut client.sent));
    let text = "GET /chat HTTP/1.1\r\nhost: a:80\r\nupgrade: websocket\r\n\r\n";
    let expected = Seen::Request(1, text.into(), false);
    assert_eq!(server.seen.last(), Some(&expected));
    let block = server.connection.head();
    assert_eq!(block.protocol(), Some(&b"websocket"[..]));
    let (mut head, mut text) = Default::default();
    block.take_request(true, &mut head, &mut text);
    assert_eq!(head.upgrade.unwrap().of(&text), b"websocket");
    assert_eq!(head.framing, tidegate_codecs::http1::Framing::None);
}

/// Goal: what an extended CONNECT must say, and where it may be said (RFC 8441, 4). Method: a table of heads to a
/// server that offers it, and to one that does not.
#[test]
fn extended_connect_is_checked() {
    use MessageError::*;
    let without = |left_out: &str| -> Vec<(&str, &str)> {
        let kept = WEBSOCKET.iter().filter(|field| field.0 != left_out);
        kept.copied().collect()
    };
    let with = |name: &'static str, value: &'static str| -> Vec<(&str, &str)> {
        [&without(name)[..2], &[(name, value)], &without(name)[2..]].concat()
    };
    let twice = [&WEBSOCKET[..], &[(":protocol", "websocket")]].concat();
    for (what, fields, expected) in [
        ("whole", WEBSOCKET.to_vec(), None),
        ("another protocol", with(":protocol", "connect-udp"), None),
        ("no :scheme", without(":scheme"), Some(PseudoMissing)),
        ("no :path", without(":path"), Some(PseudoMissing)),
        (
            "no :authority",
            without(":authority"),
            Some(Head(HeadError::HostMissing)),
        ),
        (
            "a path of *",
            with(":path", "*"),
            Some(Head(HeadError::AsteriskForm)),
        ),
        ("no :protocol", without(":protocol"), Some(PseudoUnknown)),
        (
            "another method",
            with(":method", "GET"),
            Some(ProtocolUnexpected),
        ),
        (
            "no token",
            with(":protocol", "web socket"),
            Some(ProtocolUnexpected),
        ),
        (
            "an empty one",
            with(":protocol", ""),
            Some(ProtocolUnexpected),
        ),
        (
            "a line end",
            with(":protocol", "a\r\nb"),
            Some(ValueInvalid),
        ),
        ("twice", twice, Some(PseudoRepeated)),
    ] {
        let mut wire = Wire::server(&offering());
        wire.feed(&headers(1, 0, &fields));
        let broken = expected.map(|error| Seen::Broken(1, error));
        match broken {
            Some(broken) => assert_eq!(wire.seen, [broken], "{what}"),
            None => assert!(
                matches!(wire.seen[..], [Seen::Request(1, _, false)]),
                "{what}"
            ),
        }
    }
    let mut wire = Wire::server(&Options::default());
    wire.feed(&headers(1, 0, &WEBSOCKET));
    assert_eq!(wire.seen, [Seen::Broken(1, ProtocolUnexpected)]);
    // An answer has none.
    let mut wire = asking(Some(b"websocket"));
    wire.feed(&headers(
        1,
        0,
        &[(":status", "200"), (":protocol", "websocket")],
    ));
    assert_eq!(wire.seen, [Seen::Broken(1, PseudoUnknown)]);
}

/// Goal: a tunnel has no length, whatever its head says (RFC 9110, 9.3.6). Method: CONNECT of both kinds with
/// a length, and more DATA than that, towards a server and towards a client.
#[test]
fn tunnels_have_no_length() {
    let length = [("content-length", "1")];
    for fields in [&CONNECT[..], &WEBSOCKET] {
        let mut wire = Wire::server(&offering());
        wire.feed(&headers(1, 0, &[fields, &length].concat()));
        wire.feed(&frame(DATA, 0, 1, b"four"));
        wire.feed(&frame(DATA, END_STREAM, 1, b"five"));
        assert_eq!(wire.seen[1..], [Seen::Data(1, b"fourfive".to_vec(), true)]);
    }
    for protocol in [None, Some(&b"websocket"[..])] {
        let mut wire = asking(protocol);
        wire.feed(&headers(
            1,
            0,
            &[&[(":status", "200")], &length[..]].concat(),
        ));
        let (mut head, mut text) = (ResponseHead::default(), Vec::new());
        let block = wire.connection.head();
        block.take_response(true, RequestKind::Connect, &mut head, &mut text);
        assert!(head.tunnel);
        wire.feed(&frame(DATA, 0, 1, b"four"));
        assert_eq!(wire.seen[1..], [Seen::Data(1, b"four".to_vec(), false)]);
    }
}

/// Goal: a refused tunnel is an answer like others. Method: 403 with a length that its DATA exceeds, and one
/// with trailers.
#[test]
fn refused_tunnels() {
    let refusal = headers(1, 0, &[(":status", "403"), ("content-length", "1")]);
    for protocol in [None, Some(&b"websocket"[..])] {
        let mut wire = asking(protocol);
        wire.feed(&refusal);
        wire.feed(&frame(DATA, 0, 1, b"four"));
        assert_eq!(
            wire.seen[1..],
            [Seen::Broken(1, MessageError::LengthDiffers)]
        );
        let mut wire = asking(protocol);
        wire.feed(&refusal);
        wire.feed(&frame(DATA, 0, 1, b"1"));
        wire.feed(&headers(1, END_STREAM, &[("x-a", "b")]));
        assert_eq!(wire.seen[2..], [Seen::Trailers(1, "x-a: b\r\n\r\n".into())]);
    }
}

/// Goal: a tunnel carries nothing but DATA (RFC 9113, 8.5). Method: trailers towards a server and towards a
/// client; the connection goes on.
#[test]
fn tunnels_have_no_trailers() {
    let trailers = headers(1, END_STREAM, &[("x-a", "b")]);
    let broken = Seen::Broken(1, MessageError::HeadersInTunnel);
    for fields in [&CONNECT[..], &WEBSOCKET] {
        let mut wire = Wire::server(&offering());
        wire.feed(&headers(1, 0, fields));
        wire.feed(&trailers);
        wire.feed(&headers(3, END_STREAM, &GET));
        assert_eq!(wire.seen[1], broken);
        assert!(matches!(wire.seen[2], Seen::Request(3, _, true)));
        let sent = wire.take_frames();
        assert_eq!((sent[0].kind, sent[0].stream), (RST_STREAM, 1));
        assert_eq!(sent[0].payload, ErrorCode::PROTOCOL_ERROR.0.to_be_bytes());
    }
    for protocol in [None, Some(&b"websocket"[..])] {
        let mut wire = asking(protocol);
        wire.feed(&headers(1, 0, &[(":status", "200")]));
        wire.feed(&trailers);
        assert_eq!(wire.seen.last(), Some(&broken));
    }
}
