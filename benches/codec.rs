//! What one request costs in the codecs. HTTP/1.1: parse its head, write the head for the next hop, follow
//! the body. HTTP/2: its fields to a block and back, when all are new and when they were sent before. Wall
//! time on a quiet machine only; CI compiles it and runs each case once.
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
    http2::{
        FieldLine,
        hpack::{Decoder, Encoder},
    },
    limits::Http1Limits,
};

use messages::{ANSWER, BROWSER, SHORT};

/// Bytes of the tables of HPACK (RFC 9113, 6.5.2).
const TABLE_BYTES: usize = 4096;

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

/// The fields of a request, as they stand in HTTP/1.
fn fields(bytes: &'static [u8]) -> Vec<FieldLine<'static>> {
    let mut head = RequestHead::default();
    head.parse(bytes, &Http1Limits::default()).unwrap();
    let of = |span: tidegate_codecs::http1::Span| span.of(bytes);
    let pseudo = [
        FieldLine::new(b":method", of(head.method)),
        FieldLine::new(b":scheme", b"https"),
        FieldLine::new(b":authority", of(head.authority)),
        FieldLine::new(b":path", of(head.target)),
    ];
    let rest = head.fields.iter();
    let rest = rest.map(|field| FieldLine::new(of(field.name), of(field.value)));
    pseudo.into_iter().chain(rest).collect()
}

fn encode(encoder: &mut Encoder, fields: &[FieldLine<'_>], out: &mut Vec<u8>) {
    out.clear();
    encoder.begin(out);
    fields.iter().for_each(|line| encoder.encode(*line, out));
}

fn hpack(c: &mut Criterion) {
    let mut group = c.benchmark_group("hpack");
    for (name, bytes) in [("short", SHORT), ("browser", BROWSER)] {
        let fields = fields(bytes);
        let mut new = Vec::new();
        encode(&mut Encoder::new(TABLE_BYTES), &fields, &mut new);
        group.throughput(Throughput::Elements(fields.len() as u64));
        let mut out = Vec::with_capacity(4096);
        group.bench_function(format!("encode/{name}/new"), |b| {
            b.iter(|| encode(&mut Encoder::new(TABLE_BYTES), black_box(&fields), &mut out));
        });
        let mut encoder = Encoder::new(TABLE_BYTES);
        encode(&mut encoder, &fields, &mut out);
        group.bench_function(format!("encode/{name}/again"), |b| {
            b.iter(|| encode(&mut encoder, black_box(&fields), &mut out));
        });
        group.bench_function(format!("decode/{name}/new"), |b| {
            b.iter(|| {
                let mut decoder = Decoder::default();
                decoder.decode(black_box(&new), |line| _ = black_box(line))
            });
        });
        let mut decoder = Decoder::default();
        decoder.decode(&new, |line| _ = black_box(line)).unwrap();
        group.bench_function(format!("decode/{name}/again"), |b| {
            b.iter(|| decoder.decode(black_box(&out), |line| _ = black_box(line)));
        });
    }
    group.finish();
}

criterion_group!(benches, requests, responses, bodies, hpack);
criterion_main!(benches);
