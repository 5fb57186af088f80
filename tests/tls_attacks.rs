//! What hostile or broken clients do to a TLS port, byte by byte: each gets an end with a reason, and the
//! next client is served.
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
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
};

use common::{
    Client, Origin, Proxy, eventually, pattern, pause,
    proxy::{self, Setup},
    tls::{self, Authority, Leaf, SERVER_NAME, Session},
};
use rustls::ClientConfig;

/// The largest payload of a record that is not encrypted, such as a hello's (RFC 8446, 5.1).
const RECORD_MAX: usize = 16 << 10;
/// What encryption may add to it (RFC 5246, 6.2.3; less in TLS 1.3, which is not agreed on yet).
const EXPANSION_MAX: usize = 2048;

/// A TLS listener before an echoing origin, and a client that trusts it.
struct Target {
    _authority: Authority,
    _origin: Origin,
    proxy: Proxy,
    client: ClientConfig,
}

impl Target {
    /// An HTTP listener with these more keys of `tls`.
    #[track_caller]
    fn start(tls: &str) -> Target {
        Self::start_as("http", tls)
    }

    #[track_caller]
    fn start_as(protocol: &str, tls: &str) -> Target {
        Self::start_with(&Setup::default(), protocol, tls)
    }

    #[track_caller]
    fn start_with(setup: &Setup, protocol: &str, tls: &str) -> Target {
        let authority = Authority::new();
        let server = authority.issue(&Leaf::server(SERVER_NAME));
        let origin = Origin::echo();
        let to = match protocol {
            "tcp" => "to: app",
            _ => "routes: [{ to: app }]",
        };
        let config = format!(
            "secrets:\n{}listeners:\n  web: {{ bind: 127.0.0.1:0, protocol: {protocol}, \
             tls: {{ certificates: own, {tls} }}, {to} }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n",
            server.secret("own"),
        );
        let proxy = Proxy::start_with(setup, config);
        let client = tls::client_config(&authority, None);
        Target {
            _authority: authority,
            _origin: origin,
            proxy,
            client,
        }
    }

    fn socket(&self) -> TcpStream {
        let stream = TcpStream::connect(self.proxy.web()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        stream
    }

    #[track_caller]
    fn session(&self) -> Session {
        Session::connect(self.proxy.web(), SERVER_NAME, &self.client).unwrap()
    }

    /// An ordinary client is served, now.
    #[track_caller]
    fn serves(&self) {
        let answer = self.session().get("/fine").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// Refusals of this reason.
    #[track_caller]
    fn refused(&self, reason: &str, count: usize) {
        let metric = format!("tidegate_refused_total{{reason=\"{reason}\"}}");
        self.proxy
            .wait_for_metric(&metric, |value| value as usize == count);
    }

    /// The detail of the only line of the access log with this reason.
    #[track_caller]
    fn logged(&self, reason: &str) -> String {
        eventually(&format!("a line about {reason}"), || {
            let lines = self.proxy.access_log(1);
            let line = lines.iter().find(|line| line.to_string().contains(reason));
            line.map(ToString::to_string)
        })
    }
}

/// What the server says until the end of the connection, orderly or not.
fn last_words(mut stream: &TcpStream) -> Vec<u8> {
    let mut words = Vec::new();
    match stream.read_to_end(&mut words) {
        Ok(_) => words,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => words,
        Err(error) => panic!("no end of the connection: {error}"),
    }
}

/// Whether the server has ended the connection, orderly or not.
fn has_ended(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// A record of this type.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3], &len[..], payload].concat()
}

/// The handshake message in whole records, such as a hello: type, length of 3 bytes, body.
fn message_of(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [22, 3, _, high, low, rest @ ..] = records {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        message.extend_from_slice(&rest[..len]);
        records = &rest[len..];
    }
    message
}

/// A fatal alert in plaintext: record header, level 2, and the number.
fn alert(number: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, number]
}

/// Goal: garbage is answered or not, but always ended, and harms nobody. Method: a table of beginnings, each
/// followed by the end of the client's bytes.
#[test]
fn garbage() {
    let target = Target::start("handshake_timeout: 30s");
    let hello = tls::hello(SERVER_NAME, &target.client);
    let mut corrupt = hello.clone();
    corrupt[9..60].fill(0xff);
    let mut cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0],
        vec![22],
        vec![22, 3, 1],
        vec![22, 3, 1, 0, 0],
        vec![22, 3, 1, 0, 0, 22, 3, 1, 0, 0],
        vec![0; 4096],
        vec![0xff; 4096],
        pattern(100_000),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        // The hello of SSL 2.
        [&[0x80, 0x2e, 1, 0, 2], &[0; 43][..]].concat(),
        // An alert, data, a heartbeat, a change of cipher before anything else.
        record(21, &[2, 40]),
        record(23, &[1, 2, 3]),
        record(24, &[1, 0x40, 0]),
        record(20, &[1]),
        record(22, &[1, 0, 0, 0]),
        // A message that a client never begins with.
        record(22, &[2, 0, 0, 1, 0]),
        record(22, &[0xff; 64]),
        corrupt,
        // The hello twice, and its first half only.
        [&hello[..], &hello].concat(),
        hello[..hello.len() / 2].to_vec(),
    ];
    for kind in 0..=255 {
        cases.push(record(kind, &[kind; 5]));
    }
    for case in &cases {
        let mut stream = target.socket();
        // It may have closed before everything was sent.
        let _ = stream.write_all(case);
        let _ = stream.shutdown(Shutdown::Write);
        let words = last_words(&stream);
        let is_clear = words.is_empty() || words[0] == 21 || words[0] == 22;
        let is_told = words.starts_with(b"HTTP/1.1 400 ");
        assert!(is_clear || is_told, "{case:?}: {words:?}");
    }
    target.serves();
}

/// Goal: a hello is understood however it is cut. Method: a byte at a time; a record for each byte; with
/// the rest of the handshake and a request behind it.
#[test]
fn hello_byte_by_byte() {
    let target = Target::start("handshake_timeout: 30s");
    for in_records in [false, true] {
        let mut session = Session::silent(target.socket(), SERVER_NAME, &target.client);
        let hello = session.outgoing();
        let bytes: Vec<Vec<u8>> = match in_records {
            false => hello.iter().map(|byte| vec![*byte]).collect(),
            true => message_of(&hello)
                .iter()
                .map(|byte| record(22, &[*byte]))
                .collect(),
        };
        for byte in bytes {
            session.socket().write_all(&byte).unwrap();
        }
        let answer = session.get("/cut").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    target.serves();
}

/// Goal: everything after the hello may be cut as well. Method: a client's flight and its request, a byte at
/// a time.
#[test]
fn the_rest_byte_by_byte() {
    let target = Target::start("handshake_timeout: 30s");
    let mut session = Session::silent(target.socket(), SERVER_NAME, &target.client);
    let mut flight = session.outgoing();
    loop {
        for byte in &flight {
            session.socket().write_all(&[*byte]).unwrap();
        }
        session.receive_flight().unwrap();
        flight = session.outgoing();
        if flight.is_empty() {
            break;
        }
    }
    let answer = session.get("/cut").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Goal: a record longer than the largest is refused by its header, before its payload. Method: the largest
/// length is waited for, one more is not: in the first record, which is then not TLS by RFC 8446, and in
/// the second.
#[test]
fn oversized_record() {
    let target = Target::start("handshake_timeout: 500ms");
    let header = |len: usize| {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        [22, 3, 1, high, low, 1, 0, 1]
    };
    let ends = |bytes: &[u8]| {
        let mut stream = target.socket();
        stream.write_all(bytes).unwrap();
        last_words(&stream)
    };
    ends(&header(RECORD_MAX));
    target.refused("tls_handshake_timeout", 1);
    for len in [RECORD_MAX + 1, 0xffff] {
        let words = ends(&header(len));
        assert!(words.starts_with(b"HTTP/1.1 400 "), "{len}: {words:?}");
    }
    target.refused("plaintext_on_tls", 2);
    let first = record(22, &[1, 0, 0x20, 0]);
    for len in [RECORD_MAX + EXPANSION_MAX + 1, 0xffff] {
        let words = ends(&[&first[..], &header(len)].concat());
        // rustls says decode_error where RFC 8446 has record_overflow.
        assert_eq!(words, alert(50), "{len}");
    }
    target.refused("tls_handshake", 2);
    target.serves();
}

/// Goal: a message of the handshake cannot grow without bound. Method: a hello that claims 16 MiB, and its
/// bytes in whole records until the connection ends: soon after 64 KiB.
#[test]
fn oversized_message() {
    let target = Target::start("handshake_timeout: 30s");
    let mut stream = target.socket();
    stream
        .write_all(&record(22, &[1, 0xff, 0xff, 0xff]))
        .unwrap();
    let more = record(22, &pattern(16 << 10));
    let mut sent = 0;
    // The kernels' buffers take some megabytes.
    while sent < 64 << 20 && stream.write_all(&more).is_ok() {
        sent += more.len();
    }
    assert!(sent < 64 << 20, "it takes everything");
    last_words(&stream);
    target.refused("tls_handshake", 1);
    target.serves();
}

/// Goal: whoever stalls is closed after `handshake_timeout`, however far it came and though bytes keep
/// coming. Method: nothing, a part of the header, half a hello, a hello without what must follow, and a byte
/// now and then.
#[test]
fn stalls() {
    let target = Target::start("handshake_timeout: 300ms");
    let hello = tls::hello(SERVER_NAME, &target.client);
    for cut in [0, 1, 4, 6, hello.len() / 2, hello.len()] {
        let mut stream = target.socket();
        stream.write_all(&hello[..cut]).unwrap();
        last_words(&stream);
    }
    let dripping = target.socket();
    for byte in hello.iter().cycle() {
        if (&dripping).write_all(&[*byte]).is_err() {
            break;
        }
        pause(10);
        assert!(!hello.is_empty());
    }
    last_words(&dripping);
    target.refused("tls_handshake_timeout", 7);
    target.serves();
}

/// Goal: a flood of handshakes is bounded, and others are served meanwhile. Method: more half-open
/// handshakes than are kept at once (1,024); the oldest give way, an ordinary client gets its answer, and
/// memory stays in bounds.
#[test]
fn handshake_flood() {
    const MORE: usize = 200;
    let target = Target::start("handshake_timeout: 60s");
    let hello = tls::hello(SERVER_NAME, &target.client);
    target.serves();
    let before_kib = target.proxy.rss_kib();
    let flood: Vec<TcpStream> = (0..1024 + MORE)
        .map(|i| {
            let mut stream = target.socket();
            // Half of them stop before the end of the hello, half after.
            let cut = if i % 2 == 0 { hello.len() } else { 100 };
            stream.write_all(&hello[..cut]).unwrap();
            stream
        })
        .collect();
    target.serves();
    // On a small ring they are not begun in the order in which they came.
    eventually("the end of those that gave way", || {
        let ended = flood.iter().filter(|stream| has_ended(stream)).count();
        (ended >= MORE).then_some(())
    });
    let grown_kib = target.proxy.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 64 << 10, "{grown_kib} KiB");
    drop(flood);
    target.serves();
}

/// Goal: floods keep nobody out whose session is there, on no shard (E14). Method: two shards; half-open handshakes
/// beyond what both keep at once, then whole ones by several clients, while sessions from before ask on.
#[test]
fn floods_over_shards() {
    const HALF_OPEN: usize = 2 * 1024 + 200;
    let setup = Setup {
        shards: Some(2),
        ..Setup::default()
    };
    let target = Target::start_with(&setup, "http", "handshake_timeout: 60s");
    // Enough for both shards to have some.
    let mut kept: Vec<Session> = (0..16).map(|_| target.session()).collect();
    let mut ask_all = || {
        for session in &mut kept {
            let (head, _) = session.ask("/kept").unwrap();
            assert_eq!(head.status().unwrap(), 200);
        }
    };
    ask_all();
    let hello = tls::hello(SERVER_NAME, &target.client);
    let mut flood = Vec::with_capacity(HALF_OPEN);
    for i in 0..HALF_OPEN {
        let mut stream = target.socket();
        let cut = if i % 2 == 0 { hello.len() } else { 100 };
        stream.write_all(&hello[..cut]).unwrap();
        flood.push(stream);
        if i % 400 == 0 {
            ask_all();
        }
    }
    ask_all();
    target.serves();
    drop(flood);
    thread::scope(|scope| {
        let floods: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..100).for_each(|_| drop(target.session()))))
            .collect();
        while floods.iter().any(|flood| !flood.is_finished()) {
            ask_all();
        }
    });
    target.serves();
}

/// PROXY protocol version 2: 203.0.113.7:4711 to 198.51.100.1:443.
const PROXY_V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc6\x33\x64\x01\x12\x67\x01\xbb";
/// The same in version 1.
const PROXY_V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A permissive port behind a balancer that sends PROXY headers.
#[track_caller]
fn proxied() -> Target {
    Target::start_with(
        &Setup::default(),
        "http, proxy_protocol: require",
        "mode: permissive, inspect_timeout: 300ms, handshake_timeout: 300ms",
    )
}

/// Goal: a PROXY header before TLS or plaintext on one port is understood however it is cut, and only it says who
/// the client is. Method: both versions byte by byte, and cut around its end, before a hello and before a request.
#[test]
fn proxy_headers_before_either_kind() {
    let target = proxied();
    let seen_as = |answer: &str| {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.contains("X-Forwarded-For: 203.0.113.7\r\n"),
            "{answer}"
        );
    };
    for header in [PROXY_V1, PROXY_V2] {
        let around = header.len() - 2..header.len() + 7;
        for cut in around.map(Some).chain([None]) {
            let send = |mut stream: &TcpStream, bytes: &[u8]| match cut {
                Some(cut) => {
                    let (first, second) = bytes.split_at(cut);
                    stream.write_all(first).unwrap();
                    stream.write_all(second).unwrap();
                }
                None => bytes.iter().for_each(|b| stream.write_all(&[*b]).unwrap()),
            };
            let stream = target.socket();
            send(&stream, &[header, GET].concat());
            seen_as(&String::from_utf8_lossy(&last_words(&stream)));

            let mut session = Session::silent(target.socket(), SERVER_NAME, &target.client);
            let hello = session.outgoing();
            send(session.socket(), &[header, &hello].concat());
            seen_as(&session.get("/").unwrap());
        }
    }
}

/// Goal: whatever stands where a PROXY header should, or behind it, reaches no origin, and ends (with a reason, if it
/// is TLS or none). Method: headers that are missing, too long, broken or doubled, in the clear and within TLS; garbage,
/// half of a record and nothing at all behind a good one.
#[test]
fn attacks_around_proxy_headers() {
    let target = proxied();
    let hello = tls::hello(SERVER_NAME, &target.client);
    let ends = |bytes: &[u8]| {
        let mut stream = target.socket();
        // It may have closed before everything was sent.
        let _ = stream.write_all(bytes);
        last_words(&stream)
    };
    let too_long = [&PROXY_V2[..14], &[0xff, 0xff], &[0; 8192]].concat();
    let no_line_end = [b"PROXY TCP4 ".as_slice(), &[b'1'; 300]].concat();
    let other_version = [&PROXY_V2[..12], &[0x31], &PROXY_V2[13..]].concat();
    let bad: [&[u8]; 6] = [
        &hello,
        GET,
        &too_long,
        &no_line_end,
        &other_version,
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\nGET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in bad {
        assert!(ends(bytes).is_empty());
    }
    target.refused("proxy_header", bad.len());

    for behind in [
        PROXY_V1,
        PROXY_V2,
        &[0xff; 4096],
        &pattern(100_000),
        &record(21, &[2, 40]),
        &record(22, &[2, 0, 0, 1, 0]),
    ] {
        let words = ends(&[PROXY_V2, behind, GET].concat());
        let is_refused = words.is_empty() || words.starts_with(b"HTTP/1.1 400 ");
        assert!(is_refused, "{words:?}");
    }
    for half in [&[][..], &hello[..3], &hello[..100], &hello] {
        ends(&[PROXY_V2, half].concat());
    }
    target.refused("tls_handshake_timeout", 4);

    let mut session = Session::silent(target.socket(), SERVER_NAME, &target.client);
    let hello = session.outgoing();
    let opening = [PROXY_V2, &hello].concat();
    session.socket().write_all(&opening).unwrap();
    session.send([PROXY_V1, GET].concat()).unwrap();
    let words = session.rest().unwrap();
    assert!(words.starts_with(b"HTTP/1.1 400 "), "{words:?}");

    assert!(target._origin.requests().is_empty());
    assert!(ends(&[PROXY_V1, GET].concat()).starts_with(b"HTTP/1.1 200 "));
}

/// Goal: plaintext on a strict port is told so, on both sides. Method: HTTP gets 400 in the clear with its
/// reason; a TCP listener just closes; both are counted and logged.
#[test]
fn plaintext_on_a_strict_port() {
    let target = Target::start("handshake_timeout: 30s");
    let answer = Client::connect(target.proxy.web()).get("/");
    assert_eq!(
        (answer.status, answer.reason()),
        (400, Some("plaintext_on_tls"))
    );
    assert_eq!(answer.head.get("connection"), Some("close"));
    let mut slow = Client::connect(target.proxy.web());
    slow.send_bytewise("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok();
    let words = last_words(&slow.stream);
    assert!(words.starts_with(b"HTTP/1.1 400 "), "{words:?}");
    target.refused("plaintext_on_tls", 2);
    target.logged("plaintext_on_tls");
    target.serves();

    let target = Target::start_as("tcp", "handshake_timeout: 30s");
    let mut stream = target.socket();
    stream.write_all(b"anything in the clear").unwrap();
    assert!(last_words(&stream).is_empty());
    target.refused("plaintext_on_tls", 1);
}

/// Goal: TLS to a plaintext port is refused and counted: nothing of the hello reaches an origin. Method: a
/// hello; the client sees that it is not TLS that answers.
#[test]
fn tls_to_a_plaintext_port() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let authority = Authority::new();
    let client = tls::client_config(&authority, None);
    let Err(error) = Session::connect(proxy.web(), SERVER_NAME, &client) else {
        panic!("a handshake with a plaintext port");
    };
    assert!(!error.to_string().is_empty());
    let bad_request = "tidegate_refused_total{reason=\"bad_request\"}";
    proxy.wait_for_metric(bad_request, |value| value == 1.0);
    assert_eq!(origin.connections(), 0);
    assert_eq!(proxy::Proxy::client(&proxy).get("/").status, 200);
}

/// Goal: an end of a request's body without a close_notify is not taken for its end. Method: a part of the
/// announced body, then only TCP's end; the origin must not see a whole request.
#[test]
fn truncated_request() {
    let target = Target::start("handshake_timeout: 30s");
    let mut session = target.session();
    session
        .send("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        .unwrap();
    session.socket().shutdown(Shutdown::Write).unwrap();
    let words = session.rest().unwrap_or_default();
    assert!(!words.starts_with(b"HTTP/1.1 200 "), "{words:?}");
    target.serves();
    assert!(
        target
            ._origin
            .requests()
            .iter()
            .all(|r| r.head.method() == "GET")
    );
}

/// Goal: an answer that ends with the connection is whole only after a close_notify: a cut one must not look
/// whole to the client. Method: a TLS origin that says goodbye, and one that is cut; chunks to the client.
#[test]
fn truncated_answer() {
    let authority = Authority::new();
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let origin = tls::Origin::start(&server, None, |stream| {
        let head = tls::read_head(stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall that there is")?;
        if head.target() == "/whole" {
            stream.conn.send_close_notify();
        }
        stream.flush()?;
        stream.sock.shutdown(Shutdown::Write)
    });
    let proxy = Proxy::start(format!(
        "secrets:\n{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ tls: {{ trusted_ca: ca, server_name: {SERVER_NAME} }}, \
         endpoints: {{ static: ['{origin}'] }} }}\n",
        authority.secret("ca")
    ));
    let whole = proxy.client().get("/whole");
    assert_eq!(whole.text(), "all that there is");
    let mut client = proxy.client();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let cut = client.response("GET");
    let is_told = cut.as_ref().map_or(true, |answer| answer.status == 502);
    assert!(is_told, "it looks whole: {cut:?}");
    // To HTTP/1.0 there is only the connection to tell with: a reset.
    let mut old = proxy.client();
    old.send("GET /cut HTTP/1.0\r\n\r\n").unwrap();
    let is_told = match old.rest() {
        Ok(words) => !words.ends_with(b"all that there is"),
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    };
    assert!(is_told, "an HTTP/1.0 client would take it for whole");
}

/// Goal: records that break encryption end the connection, with what was read so far dropped. Method: a
/// request whose last record has a flipped bit, and one that is replayed.
#[test]
fn broken_records() {
    let target = Target::start("handshake_timeout: 30s");
    let request = b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n";
    for replay in [false, true] {
        let mut session = target.session();
        let mut sealed = session.seal(request);
        if replay {
            sealed = sealed.repeat(2);
        } else {
            *sealed.last_mut().unwrap() ^= 1;
        }
        session.socket().write_all(&sealed).unwrap();
        let seen = target._origin.requests().len();
        let words = session.rest();
        // A replayed request is refused by its second copy, the first is good.
        let answers = words.map_or(0, |words| {
            String::from_utf8_lossy(&words).matches("200 OK").count()
        });
        assert!(answers <= usize::from(replay), "{replay}");
        assert!(target._origin.requests().len() <= seen + 1);
    }
    target.serves();
}
