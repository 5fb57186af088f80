//! What a typical head costs, in nanoseconds: `cargo run --release -p tidegate-codecs --example head_cost`.
//!
//! A first look while working on the codec; the tracked numbers are instruction counts, elsewhere.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::{hint::black_box, time::Instant};

use tidegate_codecs::{
    http1::{
        BodyTracker, ForwardedFor, Framing, RequestEdits, RequestHead, RequestKind, ResponseEdits,
        ResponseHead, forward_request, forward_response,
    },
    limits::Http1Limits,
};

/// What `curl` and load generators send.
const SMALL: &[u8] = b"GET /api/v1/items?id=42 HTTP/1.1\r\nHost: shop.example:8080\r\n\
    User-Agent: bench/1.0\r\nAccept: */*\r\n\r\n";

/// What a browser sends: 12 fields, some 700 bytes.
const BROWSER: &[u8] = b"GET /account/orders?page=2&sort=date HTTP/1.1\r\nHost: shop.example\r\n\
    Connection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; cart=17\r\n\r\n";

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: endpoint\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 128\r\nConnection: keep-alive\r\n\r\n";

fn main() {
    let limits = Http1Limits::default();
    let edits = RequestEdits {
        forwarded_for: ForwardedFor::Append(b"192.0.2.17"),
        proto: "http",
        ..RequestEdits::default()
    };
    let mut out = Vec::with_capacity(4096);
    for (name, bytes) in [("small", SMALL), ("browser", BROWSER)] {
        let mut head = RequestHead::default();
        measure(&format!("{name} request, parse"), || {
            let _ = black_box(head.parse(black_box(bytes), &limits));
        });
        measure(&format!("{name} request, forward"), || {
            out.clear();
            forward_request(black_box(bytes), &head, &edits, &mut out);
            black_box(&out);
        });
    }
    let mut head = ResponseHead::default();
    measure("answer, parse", || {
        let _ = black_box(head.parse(black_box(ANSWER), RequestKind::Other, &limits));
    });
    measure("answer, forward", || {
        out.clear();
        forward_response(
            black_box(ANSWER),
            &head,
            &ResponseEdits::default(),
            &mut out,
        );
        black_box(&out);
    });
    let chunk = [b"4000\r\n".as_slice(), &[0; 0x4000], b"\r\n0\r\n\r\n"].concat();
    measure("chunked body of 16 KiB, follow", || {
        let mut tracker = BodyTracker::new(Framing::Chunked, &limits);
        let _ = black_box(tracker.advance(black_box(&chunk)));
    });
}

/// Prints the best of a few rounds, which is the one least disturbed.
fn measure(name: &str, mut work: impl FnMut()) {
    const ROUNDS: u32 = 20;
    const CALLS: u32 = 100_000;
    let best = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                work();
            }
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    println!(
        "{name:32} {:7.1} ns",
        best.as_secs_f64() * 1e9 / f64::from(CALLS)
    );
}
