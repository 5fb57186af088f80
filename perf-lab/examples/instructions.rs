//! Work whose instructions are counted: `instructions CASE TIMES` does one case so often, inside a
//! function that callgrind can be told to watch. Without arguments it lists the cases.
//!
//! What is counted is the public interface of the codecs and the policy: what a request costs there is
//! ours, apart from the kernel. No case reads a clock, a file or the environment, so that the same
//! build counts the same.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::{fmt::Write, hint::black_box, process::ExitCode, sync::Arc, time::Duration};

use tidegate_codecs::{
    http1::{
        BodyTracker, ForwardedFor, Framing, RequestEdits, RequestHead, RequestKind, ResponseEdits,
        ResponseHead, forward_request, forward_response,
    },
    http2::{
        Connection, Event, FieldLine, Options, RequestLine,
        hpack::{Decoder, Encoder},
    },
    limits::Http1Limits,
};
use tidegate_core::{
    balancer::{Balancer, EndpointInput, Outcome, Rules},
    config::{
        self,
        model::{Balance, HeaderEdits, PathPattern, Respond, Route, RouteAction, RouteMatch},
    },
    steering::{RequestView, RouteScratch, RouteTable},
};

type Work = Box<dyn FnMut()>;
type Prepare = fn() -> Work;

/// The cases by name; a name stands in the baselines.
const CASES: [(&str, Prepare); 10] = [
    ("request-short", || request(SHORT)),
    ("request-browser", || request(BROWSER)),
    ("answer", answer),
    ("chunked-64k", chunked),
    ("hpack-encode", hpack_encode),
    ("hpack-decode", hpack_decode),
    ("http2-exchange", http2_exchange),
    ("route-last-of-1000", route),
    ("balancer-pick", balancer),
    ("config-100-routes", configuration),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = arguments.as_slice() else {
        for (name, _) in CASES {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let (Some((_, prepare)), Ok(times)) = (CASES.iter().find(|case| case.0 == name), times.parse())
    else {
        eprintln!("usage: instructions CASE TIMES");
        return ExitCode::from(2);
    };
    let mut work = prepare();
    // Once outside of the count: whatever grows on first use has grown.
    work();
    measured(&mut work, times);
    ExitCode::SUCCESS
}

/// The only function that is watched.
#[inline(never)]
fn measured(work: &mut Work, times: u32) {
    for _ in 0..times {
        work();
    }
}

/// As load generators send.
const SHORT: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n";

/// As a browser sends behind a login.
const BROWSER: &[u8] = b"GET /static/app/main.js?v=20260101 HTTP/1.1\r\n\
Host: shop.example\r\n\
Connection: keep-alive\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Referer: https://shop.example/basket\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1; basket=42\r\n\
X-Request-Id: 6f9619ff-8b86-d011-b42d-00c04fc964ff\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx\r\n\
Date: Mon, 05 Jan 2026 10:00:00 GMT\r\n\
Content-Type: application/json\r\n\
Content-Length: 128\r\n\
Connection: keep-alive\r\n\
Vary: Accept-Encoding\r\n\
Cache-Control: no-store\r\n\r\n";

/// Parse a head and write it for the next hop.
fn request(bytes: &'static [u8]) -> Work {
    let (limits, mut head) = (Http1Limits::default(), RequestHead::default());
    let mut out = Vec::with_capacity(4096);
    Box::new(move || {
        head.parse(black_box(bytes), &limits).unwrap();
        let edits = RequestEdits {
            forwarded_for: ForwardedFor::Append(b"203.0.113.7"),
            proto: "http",
            ..RequestEdits::default()
        };
        out.clear();
        forward_request(black_box(bytes), &head, &edits, &mut out);
        black_box(&out);
    })
}

/// The same of an answer.
fn answer() -> Work {
    let (limits, mut head) = (Http1Limits::default(), ResponseHead::default());
    let mut out = Vec::with_capacity(4096);
    Box::new(move || {
        head.parse(black_box(ANSWER), RequestKind::Other, &limits)
            .unwrap();
        out.clear();
        forward_response(
            black_box(ANSWER),
            &head,
            &ResponseEdits::default(),
            &mut out,
        );
        black_box(&out);
    })
}

/// Follow a body of sixteen chunks.
fn chunked() -> Work {
    let limits = Http1Limits::default();
    let mut body = Vec::new();
    for _ in 0..16 {
        body.extend_from_slice(b"1000\r\n");
        body.extend_from_slice(&[b'x'; 4096]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    Box::new(move || {
        let mut tracker = BodyTracker::new(Framing::Chunked, &limits);
        black_box(tracker.advance(black_box(&body)).unwrap());
    })
}

/// The fields of `BROWSER` as they are in HTTP/2, but for the pseudo-fields.
const FIELDS: [(&str, &str); 7] = [
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("referer", "https://shop.example/basket"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark; consent=1; basket=42",
    ),
    ("x-request-id", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
];

const LINE: RequestLine<'static> = RequestLine {
    method: b"GET",
    scheme: b"https",
    authority: b"shop.example",
    path: b"/static/app/main.js?v=20260101",
    protocol: None,
};

/// Bytes of the tables of HPACK (RFC 9113, 6.5.2).
const TABLE_BYTES: usize = 4096;

fn field_lines() -> Vec<FieldLine<'static>> {
    let pseudo = [
        FieldLine::new(b":method", LINE.method),
        FieldLine::new(b":scheme", LINE.scheme),
        FieldLine::new(b":authority", LINE.authority),
        FieldLine::new(b":path", LINE.path),
    ];
    let rest = FIELDS.iter();
    let rest = rest.map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
    pseudo.into_iter().chain(rest).collect()
}

fn encode(lines: &[FieldLine<'_>], out: &mut Vec<u8>) {
    let mut encoder = Encoder::new(TABLE_BYTES);
    out.clear();
    encoder.begin(out);
    lines.iter().for_each(|line| encoder.encode(*line, out));
}

/// Encode the fields of a request for a new connection: text, most of it.
fn hpack_encode() -> Work {
    let lines = field_lines();
    let mut out = Vec::with_capacity(4096);
    Box::new(move || {
        encode(black_box(&lines), &mut out);
        black_box(&out);
    })
}

/// Decode them.
fn hpack_decode() -> Work {
    let mut block = Vec::new();
    encode(&field_lines(), &mut block);
    Box::new(move || {
        let mut decoder = Decoder::default();
        let decoded = decoder.decode(black_box(&block), |line| _ = black_box(line));
        decoded.unwrap();
    })
}

/// A request and its answer, between a client's and a server's end of a kept connection.
fn http2_exchange() -> Work {
    let options = Options::default();
    let mut client = Connection::client(&options, 0);
    let mut server = Connection::server(&options, 0);
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let fields = field_lines().split_off(4);
    let answer = [
        FieldLine::new(b"content-type", b"application/json"),
        FieldLine::new(b"content-length", b"128"),
        FieldLine::new(b"cache-control", b"no-store"),
    ];
    Box::new(move || {
        let asked = client.send_request(LINE, fields.iter().copied(), true);
        let id = asked.unwrap();
        client.take_output(&mut there);
        black_box(receive(&mut server, &mut there));
        server
            .send_response(id, 200, answer.iter().copied(), false)
            .unwrap();
        let granted = server.send_data(id, 128, true, 0);
        assert_eq!(granted, Ok(128));
        server.take_output(&mut back);
        back.extend_from_slice(&[b'x'; 128]);
        let received = receive(&mut client, &mut back);
        client.consume(id, received);
    })
}

/// Reads all of `wire`; how much of it were bodies.
fn receive(side: &mut Connection, wire: &mut Vec<u8>) -> usize {
    let (mut rest, mut bodies) = (wire.as_slice(), 0);
    while !rest.is_empty() {
        let received = side.receive(rest, 0).unwrap();
        if let Some(Event::Data { payload, .. }) = received.event {
            bodies += payload.len();
        }
        rest = &rest[received.consumed..];
    }
    wire.clear();
    bodies
}

struct Get(&'static str);

impl RequestView for Get {
    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn host(&self) -> &[u8] {
        b"lab.example"
    }

    fn path(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn header(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

/// Find the last of a thousand routes by prefix.
fn route() -> Work {
    let routes: Vec<Route> = (0..1_000)
        .map(|i| Route {
            name: format!("r{i}").into(),
            matches: RouteMatch {
                path: PathPattern::Prefix(format!("/route-{i:04}").into()),
                ..RouteMatch::default()
            },
            rate_limits: Vec::new(),
            global_rate_limits: Vec::new(),
            fault: None,
            action: RouteAction::Respond(Respond {
                status: 200,
                body: Arc::from(""),
                content_type: Arc::from("text/plain"),
            }),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            origin: Arc::from("lab:1:1"),
        })
        .collect();
    let table = RouteTable::compile(&routes);
    let mut scratch = RouteScratch::default();
    Box::new(move || {
        let found = table.find(&mut scratch, black_box(&Get("/route-0999/b/128")));
        black_box(found.expect("the last route matches"));
    })
}

/// Pick one of ten endpoints, and tell how it went.
fn balancer() -> Work {
    let endpoints: Vec<EndpointInput> = (0..10).map(|key| EndpointInput::new(key, 1)).collect();
    let rules = Rules::new(Balance::LeastRequest);
    let mut balancer = Balancer::new(&rules, &endpoints, &[], Duration::ZERO);
    let mut random = 1u64;
    Box::new(move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let now = Duration::from_secs(1);
        let endpoint = balancer.pick(None, black_box(random), &[], now);
        let endpoint = endpoint.expect("there are endpoints");
        balancer.started(endpoint);
        balancer.finished(endpoint, Outcome::Success, Duration::from_millis(1), now);
    })
}

/// Read a file with a hundred routes.
fn configuration() -> Work {
    let mut text = String::from(
        "version: 1\nclusters:\n  origin: { endpoints: { static: [\"127.0.0.1:9000\"] } }\n\
         listeners:\n  lab:\n    bind: 127.0.0.1:8000\n    routes:\n",
    );
    for i in 0..100 {
        writeln!(
            text,
            "      - {{ match: {{ path: \"/route-{i:04}/**\" }}, to: origin }}"
        )
        .unwrap();
    }
    Box::new(move || {
        let (config, _) = config::parse("lab.yaml", black_box(&text)).expect("it is right");
        black_box(config);
    })
}
