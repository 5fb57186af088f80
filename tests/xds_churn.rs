//! A control plane that never rests, and one that goes: routes and endpoints change without end under traffic, the
//! control plane is frozen, killed and comes back, and no request fails.
//!
//! `TIDEGATE_TEST_LONG=1` makes the run as long as the requirement says: 1,000 changes at 100 a second under 5,000
//! requests a second.
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
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, Origin, Proxy,
    control_plane::{ControlPlane, World, cluster, endpoints, listener, listening, routes, to},
    eventually, pause,
    proxy::Setup,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Clients at a time, each with a connection of its own.
const CLIENTS: usize = 8;

/// How much is done.
struct Plan {
    changes: u32,
    between: Duration,
    requests_per_s: usize,
}

fn plan() -> Plan {
    match std::env::var_os("TIDEGATE_TEST_LONG") {
        Some(_) => Plan {
            changes: 1_000,
            between: Duration::from_millis(10),
            requests_per_s: 5_000,
        },
        None => Plan {
            changes: 100,
            between: Duration::from_millis(10),
            requests_per_s: 400,
        },
    }
}

/// What has come of the requests so far.
#[derive(Default)]
struct Tally {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

impl Tally {
    /// Asks at an even pace until it is over.
    fn ask(&self, web: SocketAddr, per_s: usize) {
        let mut client = Client::connect(web);
        let pace = Duration::from_secs(1) / u32::try_from(per_s).unwrap();
        let mut next = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            let well = client.get("/").status == 200;
            let counter = if well { &self.answered } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            next += pace;
            let left = next.saturating_duration_since(Instant::now());
            pause(left.as_millis() as u64);
        }
    }

    /// Returns when so many more requests have been answered.
    fn pass(&self, n: usize) {
        let until = self.answered.load(Ordering::Relaxed) + n;
        eventually("requests that are answered", || {
            (self.answered.load(Ordering::Relaxed) >= until).then_some(())
        });
    }
}

/// The world after `number` changes: endpoints come and go, and routes with them.
fn world(number: u32, origins: &[Origin; 4]) -> World {
    let bits = number % 15 + 1;
    let chosen = origins.iter().enumerate();
    let chosen: Vec<SocketAddr> = chosen
        .filter(|(i, _)| bits & (1 << i) != 0)
        .map(|(_, origin)| origin.address)
        .collect();
    let route: Value = match number % 2 {
        0 => to("a"),
        _ => json!([
            { "match": { "path": format!("/{number}") }, "direct_response": { "status": 204 } },
            { "match": { "prefix": "/" }, "route": { "weighted_clusters": { "clusters": [
                { "name": "a", "weight": 1 }, { "name": "b", "weight": number % 7 + 1 } ] } } },
        ]),
    };
    World::default()
        .with("cluster", 1, cluster("a"))
        .with("cluster", 1, cluster("b"))
        .with("endpoint", number + 1, endpoints("a", &chosen))
        .with("endpoint", 1, endpoints("b", &[origins[0].address]))
        .with("listener", 1, listener("web", ANYWHERE, "r"))
        .with("route", number + 1, routes("r", route))
}

/// The version of the routes that are in use.
fn version(proxy: &Proxy) -> u32 {
    let shown: Value = serde_json::from_str(&proxy.admin_get("/xds").text()).unwrap();
    let version = shown["types"][3]["resources"][0]["version"].as_str();
    version.and_then(|one| one.parse().ok()).unwrap_or(0)
}

/// Goal: no request fails while routes and endpoints change without end, nor while the control plane is frozen, gone, and
/// back with news. Method: clients at an even pace; grpcio, which is stopped, continued, killed, and started again.
#[test]
fn no_request_fails_while_the_control_plane_does() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let plan = plan();
    let origins = ["a", "b", "c", "d"].map(Origin::named);
    plane.serve(&world(0, &origins));
    let setup = Setup {
        shards: Some(2),
        unlogged: true,
        ..Setup::default()
    };
    let address = plane.address;
    let proxy = Proxy::start_with(&setup, format!("xds: {{ addresses: [\"{address}\"] }}\n"));
    let web = listening(&proxy, "web");
    let tally = Tally::default();
    let some = plan.requests_per_s / 5;
    let mut changes = 0..;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| tally.ask(web, plan.requests_per_s.div_ceil(CLIENTS)));
        }
        let mut change = |plane: &mut ControlPlane, count: u32| {
            let mut last = 0;
            for number in changes.by_ref().take(count as usize) {
                plane.serve(&world(number, &origins));
                pause(plan.between.as_millis() as u64);
                last = number;
            }
            last
        };
        let in_use = |number: u32| {
            eventually("the last change", || {
                (version(&proxy) == number + 1).then_some(())
            });
        };
        in_use(change(&mut plane, plan.changes));
        tally.pass(some);

        plane.signal(Signal::SIGSTOP);
        tally.pass(some);
        plane.signal(Signal::SIGCONT);
        in_use(change(&mut plane, 10));

        plane.kill();
        tally.pass(some);
        let mut plane = ControlPlane::on(address).unwrap();
        in_use(change(&mut plane, 10));
        tally.pass(some);
        assert_eq!(plane.errors(), Vec::<String>::new());
        tally.is_over.store(true, Ordering::Relaxed);
    });
    let answered = tally.answered.load(Ordering::Relaxed);
    let failed = tally.failed.load(Ordering::Relaxed);
    println!("{answered} requests, {failed} failed");
    assert_eq!(failed, 0, "of {answered}\n{}", proxy.stderr());
}
