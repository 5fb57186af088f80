//! What a request costs in our own code, from end to end: the path that `request.rs` of the shard runs,
//! without the ring, the connections and the tasks around it, over bytes that lie in memory.
//!
//! Parse the head → find the route → pick a cluster → pick an endpoint → rewrite the path → write the head
//! for the next hop; then the same back: parse the answer's head, write it for the client, follow its body.
//! The steps are the same calls in the same order, from a compiled snapshot; what is left out (timers, the
//! pool, counters, copies between buffers) is not in the figure.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod messages;

use std::{fmt::Write, hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_codecs::{
    http1::{
        BodyTracker, ForwardedFor, RequestEdits, RequestHead, RequestKind, ResponseEdits,
        ResponseHead, forward_request, forward_response,
    },
    limits::Http1Limits,
};
use tidegate_core::{
    balancer::{Balancer, EndpointInput, Outcome},
    config,
    id::Epoch,
    snapshot::{Action, Http, Protocol, Resolution, Route, Snapshot},
    steering::{RequestView, RouteScratch},
};

use messages::{ANSWER, BROWSER, SHORT};

/// The same request, for the last of the routes.
fn at_last_route(request: &[u8]) -> Vec<u8> {
    [b"GET /route-0999/", request.strip_prefix(b"GET /").unwrap()].concat()
}

/// The parsed head with the bytes that it points into.
struct View<'a> {
    head: &'a RequestHead,
    bytes: &'a [u8],
}

impl RequestView for View<'_> {
    fn method(&self) -> &[u8] {
        self.head.method.of(self.bytes)
    }

    fn host(&self) -> &[u8] {
        self.head.host.of(self.bytes)
    }

    fn path(&self) -> &[u8] {
        self.head.path.of(self.bytes)
    }

    fn query(&self) -> Option<&[u8]> {
        self.head.query.map(|query| query.of(self.bytes))
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.head.field(self.bytes, name)
    }
}

/// A listener with so many routes, of which the last one matches, to three endpoints.
fn snapshot(routes: usize, rewrite: &str) -> Snapshot {
    let mut text = String::from(
        "version: 1\nclusters:\n  origin:\n    endpoints: { static: [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"] }\n\
         listeners:\n  bench:\n    bind: 127.0.0.1:8000\n    routes:\n",
    );
    for i in (1_000 - routes)..1_000 {
        let matches = format!("match: {{ path: \"/route-{i:04}/**\" }}");
        writeln!(text, "      - {{ {matches}, to: origin{rewrite} }}").unwrap();
    }
    let (config, _) = config::parse("bench.yaml", &text).unwrap();
    Snapshot::compile(Arc::new(config), &Resolution::new(), None, 1, Epoch(1))
}

/// What a shard keeps from request to request.
struct Shard<'a> {
    http: &'a Http,
    balancer: Balancer,
    random: u64,
    scratch: RouteScratch,
    request: RequestHead,
    response: ResponseHead,
    target: Vec<u8>,
    limits: Http1Limits,
}

impl<'a> Shard<'a> {
    fn new(snapshot: &'a Snapshot) -> Shard<'a> {
        let listener = snapshot.listener_by_name("bench").unwrap();
        let Protocol::Http(http) = &listener.protocol else {
            panic!("the listener speaks HTTP")
        };
        let cluster = snapshot.cluster_by_name("origin").unwrap();
        let endpoints = cluster.endpoints.iter().zip(0..);
        let endpoints: Vec<EndpointInput> = endpoints
            .map(|(endpoint, key)| EndpointInput::new(key, endpoint.weight))
            .collect();
        Shard {
            http,
            balancer: Balancer::new(&cluster.rules(), &endpoints, &[], Duration::ZERO),
            random: 1,
            scratch: RouteScratch::default(),
            request: RequestHead::default(),
            response: ResponseHead::default(),
            target: Vec::new(),
            limits: Http1Limits::default(),
        }
    }

    fn random(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.random
    }

    /// From the client's bytes to the endpoint's.
    fn ask(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> &'a Route {
        self.request.parse(bytes, &self.limits).unwrap();
        let head = &self.request;
        let found = self
            .http
            .table
            .find(&mut self.scratch, &View { head, bytes });
        let route = self.http.routes.get(found.unwrap().index()).unwrap();
        let Action::Forward(forward) = &route.action else {
            panic!("the route forwards")
        };
        let random = self.random();
        black_box(forward.split.pick(random).unwrap());
        let now = Duration::from_secs(1);
        let endpoint = self.balancer.pick(None, random, &[], now).unwrap();
        self.balancer.started(endpoint);
        self.target.clear();
        if let Some(rewrite) = &forward.path_rewrite {
            let path = self.request.path.of(bytes);
            rewrite.rewrite(&mut self.scratch, path, &mut self.target);
            if let Some(query) = self.request.query {
                self.target.push(b'?');
                self.target.extend_from_slice(query.of(bytes));
            }
        }
        let edits = RequestEdits {
            target: forward.path_rewrite.as_ref().map(|_| &*self.target),
            forwarded_for: ForwardedFor::Append(b"203.0.113.7"),
            proto: "http",
            remove: &route.request_headers.remove,
            set: &route.request_headers.set,
            append: &route.request_headers.append,
            ..RequestEdits::default()
        };
        forward_request(bytes, &self.request, &edits, out);
        self.balancer
            .finished(endpoint, Outcome::Success, Duration::from_millis(1), now);
        route
    }

    /// From the endpoint's bytes to the client's.
    fn answer(&mut self, bytes: &[u8], body: &[u8], route: &Route, out: &mut Vec<u8>) {
        self.response
            .parse(bytes, RequestKind::Other, &self.limits)
            .unwrap();
        let edits = ResponseEdits {
            remove: &route.response_headers.remove,
            set: &route.response_headers.set,
            append: &route.response_headers.append,
            ..ResponseEdits::default()
        };
        forward_response(bytes, &self.response, &edits, out);
        let mut tracker = BodyTracker::new(self.response.framing, &self.limits);
        let taken = tracker.advance(body).unwrap();
        out.extend_from_slice(body.get(..taken).unwrap());
        assert!(tracker.is_done());
    }
}

fn spine(c: &mut Criterion) {
    let body = [b'x'; 128];
    let mut group = c.benchmark_group("spine");
    group.throughput(Throughput::Elements(1));
    for (name, routes, rewrite, request) in [
        ("short", 1, "", SHORT),
        ("browser", 1, "", BROWSER),
        ("short, last of 1000 routes", 1_000, "", SHORT),
        (
            "short, rewritten",
            1,
            ", rewrite: { prefix: \"/x\" }",
            SHORT,
        ),
    ] {
        let snapshot = snapshot(routes, rewrite);
        let request = at_last_route(request);
        let mut shard = Shard::new(&snapshot);
        let (mut up, mut down) = (Vec::with_capacity(4_096), Vec::with_capacity(4_096));
        group.bench_function(name, |b| {
            b.iter(|| {
                up.clear();
                down.clear();
                let route = shard.ask(black_box(&request), &mut up);
                shard.answer(black_box(ANSWER), &body, route, &mut down);
                black_box((&up, &down));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, spine);
criterion_main!(benches);
