//! What a decision of steering costs: with one rule, and with a thousand beside it that cannot match. The two must
//! not differ by more than noise.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_core::{
    config,
    id::{ClusterId, Epoch},
    snapshot::Snapshot,
    steering::{
        RequestView, RouteScratch,
        program::{Asked, CompiledRule, Surroundings},
    },
};

struct Call;

impl RequestView for Call {
    fn method(&self) -> &[u8] {
        b"POST"
    }

    fn host(&self) -> &[u8] {
        b"pay.example"
    }

    fn path(&self) -> &[u8] {
        b"/pay.Transfer/Create"
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        (name == "x-request-id").then_some(b"4bf92f3577b34da6")
    }
}

struct Around;

impl Surroundings for Around {
    fn is_usable(&self, _: ClusterId) -> bool {
        true
    }

    fn take_token(&self, _: &CompiledRule) -> Option<Duration> {
        None
    }
}

fn snapshot(others: usize) -> Snapshot {
    let mut text = "version: 1\nclusters:\n  one: { endpoints: { static: [10.0.0.1:80] } }\n  \
        two: { endpoints: { static: [10.0.0.2:80] } }\nsteering:\n  \
        applications: { pay: { units: { u1: one, u2: two } } }\n  rules:\n    \
        - { id: mine, owner: o, match: { application: pay, interface: pay.Transfer/Create }, shift: { to: u2, share: 30% } }\n"
        .to_owned();
    for i in 0..others {
        text += &format!(
            "    - {{ id: r{i}, owner: o, match: {{ application: pay, interface: other.S{i} }}, set_unit: u2 }}\n"
        );
    }
    let config = Arc::new(config::parse("bench.yaml", &text).unwrap().0);
    Snapshot::compile(config, &Default::default(), None, 1, Epoch(1))
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("steering");
    for others in [0, 1_000] {
        let snapshot = snapshot(others);
        let table = &snapshot.steering.as_ref().unwrap().table;
        let mut scratch = RouteScratch::default();
        let asked = Asked {
            request: &Call,
            client: None,
            random: 1,
            now_unix_s: 1,
            is_moved: false,
        };
        group.bench_function(format!("beside-{others}"), |b| {
            b.iter(|| {
                let decided = table.decide(ClusterId(0), black_box(&asked), &mut scratch, &Around);
                decided.unwrap().unwrap().to.cluster
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
