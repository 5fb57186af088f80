//! What one request costs in the HTTP/1.1 codec: parse its head, write the head for the next hop, follow
//! the body. Wall time on a quiet machine only; CI compiles it and runs each case once.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod messages;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_codecs::{
    http1::{
        BodyTracker, ForwardedFor, Framing, RequestEdits, RequestHead, RequestKind, ResponseEdits,
        ResponseHead, forward_request, forward_response,
    },
    limits::Http1Limits,
};

use messages::{ANSWER, BROWSER, SHORT};

fn requests(c: &mut Criterion) {
    let limits = Http1Limits::default();
    let mut group = c.benchmark_group("request");
    for (name, bytes) in [("short", SHORT), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut head = RequestHead::default();
        group.bench_function(format!("parse/{name}"), |b| {
            b.iter(|| head.parse(black_box(bytes), &limits).unwrap());
        });
        head.parse(bytes, &limits).unwrap();
        let edits = RequestEdits {
            forwarded_for: ForwardedFor::Append(b"203.0.113.7"),
            proto: "http",
            ..RequestEdits::default()
        };
        let mut out = Vec::with_capacity(4096);
        group.bench_function(format!("forward/{name}"), |b| {
            b.iter(|| {
                out.clear();
                forward_request(black_box(bytes), &head, &edits, &mut out);
            });
        });
    }
    group.finish();
}

fn responses(c: &mut Criterion) {
    let limits = Http1Limits::default();
    let mut group = c.benchmark_group("response");
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    let mut head = ResponseHead::default();
    group.bench_function("parse", |b| {
        b.iter(|| {
            head.parse(black_box(ANSWER), RequestKind::Other, &limits)
                .unwrap()
        });
    });
    head.parse(ANSWER, RequestKind::Other, &limits).unwrap();
    let mut out = Vec::with_capacity(4096);
    group.bench_function("forward", |b| {
        b.iter(|| {
            out.clear();
            forward_response(
                black_box(ANSWER),
                &head,
                &ResponseEdits::default(),
                &mut out,
            );
        });
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let limits = Http1Limits::default();
    let mut chunked = Vec::new();
    for _ in 0..16 {
        chunked.extend_from_slice(b"1000\r\n");
        chunked.extend_from_slice(&[b'x'; 4096]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut group = c.benchmark_group("body");
    group.throughput(Throughput::Bytes(chunked.len() as u64));
    group.bench_function("chunked/16x4KiB", |b| {
        b.iter(|| {
            let mut body = BodyTracker::new(Framing::Chunked, &limits);
            body.advance(black_box(&chunked)).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, requests, responses, bodies);
criterion_main!(benches);
