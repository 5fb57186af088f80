//! What changes by a control plane cost a proxy: from the receipt of a response until every shard uses it, the memory of
//! large configurations, and what requests wait meanwhile.
//!
//! ```text
//! cargo bench --bench control_plane      a table in Markdown
//! ```
//!
//! The control plane is gRPC's own server in Python, which is slow: its time is not counted. All endpoints are the same
//! origin by different addresses of the loopback network.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, Origin, Proxy,
    control_plane::{ControlPlane, World, cluster, endpoints, listener, listening, routes, to},
    eventually, pause,
    proxy::Setup,
};
use serde_json::{Value, json};

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Changes of each kind that are timed: the control plane takes seconds for one of the largest.
const CHANGES: u32 = 20;

/// Clients at a time, and what they ask for together.
const CLIENTS: u32 = 4;
const REQUESTS_PER_S: u32 = 2_000;

fn main() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // A connection for each request: ten thousand endpoints would be as many threads here otherwise.
    let origin = Origin::on(listener, |peer| {
        peer.next_request()?;
        peer.wire
            .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(())
    });
    let port = origin.address.port();
    println!(
        "| | to all shards, median | longest | p99 of requests, calm | meanwhile | failed | memory |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, endpoints, routes) in [
        ("100 endpoints", 100, 1),
        ("1,000 endpoints", 1_000, 1),
        ("10,000 endpoints", 10_000, 1),
        ("10,000 routes", 1, 10_000),
        ("10,000 endpoints, 10,000 routes", 10_000, 10_000),
    ] {
        row(name, port, endpoints, routes);
    }
}

/// `count` endpoints, the first of which changes with the version.
fn addresses(port: u16, count: u32, version: u32) -> Vec<SocketAddr> {
    let skipped = version % 2;
    let numbers = 1 + skipped..=count + skipped;
    numbers
        .map(|n| {
            let [_, a, b, c] = n.to_be_bytes();
            (Ipv4Addr::new(127, a, b, c), port).into()
        })
        .collect()
}

fn world(port: u16, count: u32, routed: u32, version: u32) -> World {
    let mut all: Vec<Value> = (1..routed)
        .map(|n| json!({ "match": { "path": format!("/{n}/{}", version % 2) }, "route": { "cluster": "a" } }))
        .collect();
    all.push(to("a")[0].clone());
    World::default()
        .with("cluster", 1, cluster("a"))
        .with(
            "endpoint",
            version,
            endpoints("a", &addresses(port, count, version)),
        )
        .with("listener", 1, listener("web", ANYWHERE, "r"))
        .with("route", version, routes("r", Value::Array(all)))
}

fn row(name: &str, port: u16, count: u32, routed: u32) {
    let mut plane = ControlPlane::start().expect("a Python with grpcio and xds-protos");
    plane.serve(&world(port, count, routed, 1));
    let setup = Setup {
        unlogged: true,
        ..Setup::default()
    };
    let proxy = Proxy::start_with(
        &setup,
        format!("xds: {{ addresses: [\"{}\"] }}\n", plane.address),
    );
    let web = listening(&proxy, "web");
    let applied = |proxy: &Proxy| proxy.metric("tidegate_xds_applied_total");
    let load = Load::default();
    let mut times = Vec::new();
    let (calm, meanwhile) = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.ask(web));
        }
        pause(2_000);
        let calm = load.p99();
        for version in 2..2 + CHANGES {
            let before = applied(&proxy);
            plane.serve(&world(port, count, routed, version));
            eventually("a change", || (applied(&proxy) > before).then_some(()));
            // Endpoints and routes may come as two.
            pause(100);
            times.push(proxy.metric("tidegate_xds_apply_seconds"));
        }
        let meanwhile = load.p99();
        load.is_over.store(true, Ordering::Relaxed);
        (calm, meanwhile)
    });
    times.sort_by(f64::total_cmp);
    println!(
        "| {name} | {:.1} ms | {:.1} ms | {:.2} ms | {:.2} ms | {} | {:.1} MiB |",
        times[times.len() / 2] * 1e3,
        times[times.len() - 1] * 1e3,
        calm.as_secs_f64() * 1e3,
        meanwhile.as_secs_f64() * 1e3,
        load.failed.lock().unwrap(),
        rss_kib(&proxy) as f64 / 1024.0,
    );
}

/// Requests at an even pace, and what they waited.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    waits: Mutex<Vec<Duration>>,
    failed: Mutex<usize>,
}

impl Load {
    fn ask(&self, web: SocketAddr) {
        let mut client = Client::connect(web);
        let pace = Duration::from_secs(1) * CLIENTS / REQUESTS_PER_S;
        let mut next = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let well = client.get("/").status == 200;
            self.waits.lock().unwrap().push(began.elapsed());
            *self.failed.lock().unwrap() += usize::from(!well);
            next += pace;
            let left = next.saturating_duration_since(Instant::now());
            pause(left.as_millis() as u64);
        }
    }

    /// Of the requests since the last time that it was asked for.
    fn p99(&self) -> Duration {
        let mut waits = std::mem::take(&mut *self.waits.lock().unwrap());
        waits.sort_unstable();
        waits
            .get(waits.len() * 99 / 100)
            .copied()
            .unwrap_or_default()
    }
}

fn rss_kib(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
