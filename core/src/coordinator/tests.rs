//! What the coordinator decides, tick by tick.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use super::*;
use crate::{
    config::model::{
        Balance, Circuit, Cluster, Config, Endpoints, Heal, Limits, Node, Probe, Ring, Shards,
        StaticEndpoint,
    },
    healing::{counter::Fault, ejection::Guard},
    snapshot::Snapshot,
    stats::EndpointCounters,
};

const NOW: Duration = Duration::from_secs(100);

fn snapshot(epoch: u64, addresses: &[&str], checked: bool) -> Arc<Snapshot> {
    snapshot_of(epoch, addresses, checked, false)
}

fn snapshot_of(epoch: u64, addresses: &[&str], checked: bool, heals: bool) -> Arc<Snapshot> {
    let endpoints = addresses
        .iter()
        .map(|address| StaticEndpoint::new(address.parse().unwrap(), 1));
    let second = Duration::from_secs(1);
    let cluster = Cluster {
        endpoints: Endpoints::Static(endpoints.collect()),
        balance: Balance::RoundRobin,
        failover: Default::default(),
        subsets: None,
        slow_start: Duration::ZERO,
        connect_timeout: second,
        idle_timeout: second,
        idle_connections: 1,
        requests_per_connection: None,
        protocol: Default::default(),
        circuit: Circuit::default(),
        health: checked.then_some(HealthCheck {
            probe: Probe::Tcp,
            interval: second,
            timeout: second,
            healthy_after: 2,
            unhealthy_after: 2,
        }),
        proxy_protocol: None,
        tls: None,
        max_connection_age: None,
        heal: heals.then(Heal::default),
        adaptive_limit: None,
    };
    let config = Config {
        node: Node::default(),
        shards: Shards {
            cpus: Vec::new(),
            count: None,
            ring: Ring::default(),
        },
        admin: None,
        access_log: None,
        limits: Limits::default(),
        drain_timeout: second,
        upgrade_timeout: second,
        listeners: BTreeMap::new(),
        clusters: BTreeMap::from([("c".into(), cluster)]),
        secrets: BTreeMap::new(),
        center: None,
        rate_limit_service: None,
        xds: None,
        steering: None,
    };
    let none = Resolution::new();
    Arc::new(Snapshot::compile(
        Arc::new(config),
        &none,
        None,
        2,
        Epoch(epoch),
    ))
}

fn tick<const N: usize>(
    coordinator: &mut Coordinator,
    now: Duration,
    reports: [Report; N],
) -> Vec<Order> {
    coordinator.tick(now, &Samples::new(), reports, &mut || 0)
}

fn probed(address: &str, succeeded: bool) -> Report {
    Report::Probed {
        cluster: "c".into(),
        address: address.parse().unwrap(),
        succeeded,
    }
}

fn health(epoch: u64, verdicts: &[(u32, Availability)]) -> Order {
    let ids = verdicts
        .iter()
        .map(|(e, v)| (ClusterId(0), EndpointId(*e), *v));
    Order::Health {
        epoch: Epoch(epoch),
        verdicts: ids.collect(),
    }
}

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
use Availability::{Available, Unavailable};

/// Goal: changed verdicts are told once, together, and again under a new epoch with new ids.
/// Method: two endpoints fail, the snapshot is replaced by one where one of them moved.
#[test]
fn verdicts_follow_the_epoch() {
    let mut coordinator = Coordinator::new(0);
    coordinator.installed(snapshot(1, &[A, B], true), NOW);
    let applied = |epoch| Order::Applied {
        epoch: Epoch(epoch),
        after: Duration::ZERO,
    };
    assert_eq!(
        tick(&mut coordinator, NOW, [probed(A, false), probed(B, false)]),
        [applied(1), health(1, &[(0, Unavailable), (1, Unavailable)])]
    );
    assert_eq!(
        tick(&mut coordinator, NOW, [probed(A, true), probed(B, false)]),
        []
    );
    assert_eq!(
        tick(
            &mut coordinator,
            NOW,
            [probed(A, true), probed("10.9.9.9:1", true)]
        ),
        [health(1, &[(0, Available)])]
    );
    coordinator.installed(snapshot(2, &[B], true), NOW);
    assert_eq!(
        tick(&mut coordinator, NOW, []),
        [applied(2), health(2, &[(0, Unavailable)])]
    );
    // Checks are switched off: the endpoint comes back.
    coordinator.installed(snapshot(3, &[B], false), NOW);
    assert_eq!(
        tick(&mut coordinator, NOW, []),
        [applied(3), health(3, &[(0, Available)])]
    );
    assert_eq!(tick(&mut coordinator, NOW, [probed(B, false)]), []);
}

/// Goal: an epoch is applied when the last shard uses it, and the time is measured (S14). Method:
/// two shards acknowledge at different times, one of them late for another epoch.
#[test]
fn epoch_is_applied_by_the_last_shard() {
    let acknowledged = |shard, epoch| Report::Acknowledged {
        shard: ShardId(shard),
        epoch: Epoch(epoch),
    };
    let mut coordinator = Coordinator::new(2);
    coordinator.installed(snapshot(5, &[A], true), NOW);
    assert_eq!(
        tick(
            &mut coordinator,
            NOW,
            [acknowledged(0, 5), acknowledged(1, 4)]
        ),
        []
    );
    let later = NOW + Duration::from_millis(7);
    assert_eq!(
        tick(
            &mut coordinator,
            later,
            [acknowledged(1, 5), acknowledged(9, 5)]
        ),
        [Order::Applied {
            epoch: Epoch(5),
            after: Duration::from_millis(7)
        }]
    );
    assert_eq!(tick(&mut coordinator, later, [acknowledged(1, 5)]), []);
    assert_eq!(coordinator.epochs(), [Epoch(5), Epoch(5)]);
}

/// Goal: only a real change of addresses asks for a snapshot. Method: rotated, repeated and empty
/// answers between two that differ.
#[test]
fn resolution_changes_are_told_once() {
    let resolved = |addresses: &[&str]| Report::Resolved {
        cluster: "c".into(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    let mut coordinator = Coordinator::new(1);
    assert_eq!(
        tick(&mut coordinator, NOW, [resolved(&[B, A])]),
        [Order::Recompile]
    );
    assert_eq!(
        tick(&mut coordinator, NOW, [resolved(&[A, B, A]), resolved(&[])]),
        []
    );
    assert_eq!(coordinator.resolution().get("c").unwrap().len(), 2);
    assert_eq!(
        tick(&mut coordinator, NOW, [resolved(&[A])]),
        [Order::Recompile]
    );
}

fn counters(snapshot: &Snapshot, endpoint: usize, shard: u16) -> &EndpointCounters {
    let counters = &snapshot.clusters[0].endpoints[endpoint].counters;
    counters.get(ShardId(shard)).unwrap()
}

fn healing(orders: &[Order]) -> Vec<&Event> {
    let mut found = Vec::new();
    for order in orders {
        if let Order::Healing(healing) = order {
            found.push(&healing.event);
        }
    }
    found
}

/// Goal: a node that fails in a row is out on all shards at the next tick, is tried by the shard that
/// has traffic, and back after its trial (H3, H11). Method: counters of two shards, tick by tick.
#[test]
fn ejections_are_told_at_once() {
    let (mut coordinator, tick_of) = (Coordinator::new(2), Duration::from_millis(100));
    let snapshot = snapshot_of(1, &[A, B], false, true);
    coordinator.installed(snapshot.clone(), NOW);
    let mut now = NOW;
    let mut next = |coordinator: &mut Coordinator| {
        now += tick_of;
        counters(&snapshot, 0, 1).succeed(1_000_000);
        tick(coordinator, now, [])
    };
    next(&mut coordinator);
    (0..5).for_each(|_| _ = counters(&snapshot, 1, 0).fail(Fault::Reset));
    let orders = next(&mut coordinator);
    assert!(matches!(
        healing(&orders)[..],
        [Event::Ejected { node: 1, .. }]
    ));
    assert_eq!(orders[1..], [health(1, &[(1, Unavailable)])]);
    // 1 s, as the jitter of zeros is none.
    let orders: Vec<Order> = (0..10).flat_map(|_| next(&mut coordinator)).collect();
    assert!(matches!(
        healing(&orders)[..],
        [Event::Probation { node: 1 }]
    ));
    let trial = health(1, &[(1, Availability::Trial(ShardId(1)))]);
    assert_eq!(orders.get(1), Some(&trial));
    // Nothing came of it within a second: another request gets it.
    let orders: Vec<Order> = (0..10).flat_map(|_| next(&mut coordinator)).collect();
    assert_eq!(orders, [trial]);
    counters(&snapshot, 1, 1).trials_succeeded.add(1);
    let orders = next(&mut coordinator);
    assert!(matches!(
        healing(&orders)[..],
        [Event::Recovered { node: 1 }]
    ));
    assert_eq!(orders[1..], [health(1, &[(1, Available)])]);
}

/// Goal: what a shard does alone is reverted when others see the node well (H3). Method: a quarantine on
/// one shard while the other has answers.
#[test]
fn quarantine_of_one_shard_is_reverted() {
    let mut coordinator = Coordinator::new(2);
    let snapshot = snapshot_of(1, &[A, B], false, true);
    coordinator.installed(snapshot.clone(), NOW);
    tick(&mut coordinator, NOW, []);
    (0..5).for_each(|_| _ = counters(&snapshot, 1, 0).fail(Fault::Reset));
    counters(&snapshot, 1, 0).quarantined.set(1);
    (0..20).for_each(|_| counters(&snapshot, 1, 1).succeed(1_000_000));
    let orders = tick(&mut coordinator, NOW + Duration::from_millis(100), []);
    assert_eq!(orders, [health(1, &[(1, Available)])]);
}

/// Goal: a node that checks find dead stays out whatever its calls say, and does not stand in for
/// another (H10, H14). Method: one of two fails its check, then the other one fails its calls.
#[test]
fn checks_and_calls_are_one_verdict() {
    let mut coordinator = Coordinator::new(2);
    let snapshot = snapshot_of(1, &[A, B], true, true);
    coordinator.installed(snapshot.clone(), NOW);
    let orders = tick(&mut coordinator, NOW, [probed(A, false)]);
    assert!(orders.contains(&health(1, &[(0, Unavailable)])));
    (0..5).for_each(|_| _ = counters(&snapshot, 1, 0).fail(Fault::Connect));
    let orders = tick(&mut coordinator, NOW + Duration::from_millis(100), []);
    let [Event::Suspected { node: 1, guard, .. }] = healing(&orders)[..] else {
        panic!("{orders:?}");
    };
    assert_eq!(*guard, Guard::LastNode);
}

/// Goal: the center keeps an ejected node out for longer, or has it tried out at once, and nothing else (H5).
/// Method: one of two nodes is ejected; directives for it and for the other.
#[test]
fn the_center_extends_and_clears() {
    let mut coordinator = Coordinator::new(2);
    let snapshot = snapshot_of(1, &[A, B], false, true);
    coordinator.installed(snapshot.clone(), NOW);
    tick(&mut coordinator, NOW, []);
    (0..5).for_each(|_| _ = counters(&snapshot, 1, 0).fail(Fault::Reset));
    let mut now = NOW + Duration::from_millis(100);
    tick(&mut coordinator, now, []);
    let failures = coordinator.wards()["c"].failures(1);
    assert_eq!(failures, [(Fault::Reset, 5)]);
    let confirm = |endpoint: &str| Action::Confirm {
        endpoint: endpoint.parse().unwrap(),
        extend: Duration::from_secs(60),
    };
    assert!(!coordinator.obey(&confirm(A), now, now));
    assert!(coordinator.obey(&confirm(B), now, now));
    now += Duration::from_secs(30);
    assert_eq!(
        healing(&tick(&mut coordinator, now, [])),
        [&Event::Probation { node: 9 }; 0]
    );
    let clear = Action::Clear {
        endpoint: B.parse().unwrap(),
    };
    assert!(coordinator.obey(&clear, now, now));
    now += Duration::from_millis(100);
    let orders = tick(&mut coordinator, now, []);
    assert_eq!(healing(&orders), [&Event::Probation { node: 1 }]);
    assert!(
        !coordinator.obey(&clear, now, now),
        "it is not ejected any more"
    );
}

/// Goal: shards are told what part of its load an endpoint is to get, under its id of each epoch, and of the end of
/// it; one that is nowhere is said to be so (H5). Method: a prior, a snapshot in which the endpoint moves, time.
#[test]
fn priors_follow_the_epoch() {
    let mut coordinator = Coordinator::new(0);
    coordinator.installed(snapshot(1, &[A, B], false), NOW);
    tick(&mut coordinator, NOW, []);
    let prior = |address: &str| Action::Prior {
        endpoint: address.parse().unwrap(),
        weight: 0.3,
    };
    let until = NOW + Duration::from_secs(30);
    assert!(!coordinator.obey(&prior("10.9.9.9:80"), NOW, until));
    assert!(coordinator.obey(&prior(B), NOW, until));
    let told = |epoch, endpoint, share| Order::Priors {
        epoch: Epoch(epoch),
        priors: vec![(ClusterId(0), EndpointId(endpoint), share)],
    };
    assert_eq!(tick(&mut coordinator, NOW, []), [told(1, 1, 3_000)]);
    assert_eq!(tick(&mut coordinator, NOW, []), []);
    coordinator.installed(snapshot(2, &[B], false), NOW);
    let orders = tick(&mut coordinator, NOW, []);
    assert!(orders.contains(&told(2, 0, 3_000)), "{orders:?}");
    assert_eq!(tick(&mut coordinator, until, []), [told(2, 0, 10_000)]);
    assert_eq!(tick(&mut coordinator, until, []), []);
}
