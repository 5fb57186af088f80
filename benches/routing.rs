//! What finding a route costs, with one route and with a thousand of which the last one matches: the
//! two must not differ by more than noise.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_core::{
    config::model::{
        HeaderEdits, HostPattern, PathPattern, Respond, Route, RouteAction, RouteMatch,
    },
    id::RouteId,
    steering::{RequestView, RouteScratch, RouteTable},
};

struct Get {
    host: &'static str,
    path: String,
}

impl RequestView for Get {
    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn header(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

fn route(i: usize, hosts: Vec<HostPattern>, path: PathPattern) -> Route {
    Route {
        name: format!("r{i}").into(),
        matches: RouteMatch {
            hosts,
            path,
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
        origin: Arc::from("bench:1:1"),
    }
}

/// One kind of pattern, as a route that matches the paths and hosts of its number only.
type Kind = fn(usize) -> Route;

fn find(c: &mut Criterion) {
    let kinds: [(&str, Kind); 4] = [
        ("exact", |i| {
            route(
                i,
                vec![],
                PathPattern::Exact(format!("/api/{i}/items").into()),
            )
        }),
        ("prefix", |i| {
            route(i, vec![], PathPattern::Prefix(format!("/api/{i}").into()))
        }),
        ("template", |i| {
            let path = format!("/api/{i}/{{name}}");
            route(i, vec![], PathPattern::Template(path.into()))
        }),
        ("host", |i| {
            let host = HostPattern::Exact(format!("h{i}.example").into());
            route(i, vec![host], PathPattern::Any)
        }),
    ];
    for (name, kind) in kinds {
        let mut group = c.benchmark_group(format!("find/{name}"));
        for count in [1, 1000] {
            // Numbered downwards, so that the last route is the one that matches.
            let routes: Vec<Route> = (0..count).rev().map(kind).collect();
            let table = RouteTable::compile(&routes);
            let request = Get {
                host: "h0.example",
                path: "/api/0/items".into(),
            };
            let mut scratch = RouteScratch::default();
            let last = RouteId(count as u32 - 1);
            assert_eq!(table.find(&mut scratch, &request), Some(last));
            group.bench_function(count.to_string(), |b| {
                b.iter(|| table.find(&mut scratch, black_box(&request)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, find);
criterion_main!(benches);
