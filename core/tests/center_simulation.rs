//! The center's policy against random fleets: seeded reports, deaths of centers, virtual time. A failing
//! seed is in the message of the assertion, and is all that it takes to see it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    missing_docs,
    unreachable_pub
)]

mod simulation;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use simulation::{Random, seeds};
use tidegate_core::healing::{
    center::{Arrival, Center, Remedy, Settings},
    directive::{Action, Directive, Gate},
    ejection::Cause,
    report::{
        Body, DirectiveAck, Finding, Next, Node, Outbox, OutboxLimits, Outcome, Report, Subject,
    },
};

const TICK: Duration = Duration::from_millis(200);
const START: Duration = Duration::from_secs(1_800_000_000);
const ENDPOINTS: u16 = 10;

fn endpoint(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// A proxy with its queue, its gate and what it was made to do.
struct Proxy {
    node: Node,
    outbox: Outbox,
    gate: Gate,
    connected: bool,
}

/// One center at a time, its store, and the proxies.
struct World {
    random: Random,
    now: Duration,
    center: Center,
    store: BTreeMap<String, String>,
    proxies: Vec<Proxy>,
    settings: Settings,
    /// Restarts under way, by the time at which their effect was waited for.
    restarting: BTreeMap<SocketAddr, Duration>,
    reported: u64,
    obeyed: BTreeSet<u64>,
}

impl World {
    fn new(seed: u64) -> World {
        let settings = Settings {
            remedy: Remedy::Offline,
            ..Settings::default()
        };
        let callers = (0..8).map(|k| (format!("c{k}"), "shop", Vec::new()));
        let fronts = (1..=ENDPOINTS).map(|port| (format!("f{port}"), "pay", vec![endpoint(port)]));
        let proxies = callers.chain(fronts).map(|(id, application, fronts)| {
            let node = Node {
                id: id.into(),
                incarnation: 1,
                application: application.into(),
                calls: if fronts.is_empty() {
                    vec!["pay".into()]
                } else {
                    vec![]
                },
                fronts,
                zone: "".into(),
            };
            Proxy {
                outbox: Outbox::new(OutboxLimits::default()),
                gate: Gate::new(node.clone()),
                node,
                connected: false,
            }
        });
        World {
            random: Random::new(seed),
            now: Duration::ZERO,
            center: Center::new(settings.clone(), 1, []).0,
            store: BTreeMap::new(),
            proxies: proxies.collect(),
            settings,
            restarting: BTreeMap::new(),
            reported: 0,
            obeyed: BTreeSet::new(),
        }
    }

    fn tick(&mut self, seed: u64) {
        self.now += TICK;
        self.strike();
        self.reconnect();
        self.deliver();
        self.center.tick(START + self.now);
        if self.random.below(200) == 0 {
            // It dies before anything of this tick is stored or said.
            return self.fail_over();
        }
        self.save();
        // Some deaths come between storing and saying: whatever was to be said is lost.
        if self.random.below(200) == 0 {
            return self.fail_over();
        }
        let directives = self.center.take_directives();
        for proxy in self.proxies.iter_mut().filter(|proxy| proxy.connected) {
            proxy
                .outbox
                .acknowledge(self.center.sequence(&proxy.node.id));
        }
        for directive in directives {
            self.obey(directive, seed);
        }
    }

    /// Something happens to an endpoint in the eyes of some caller.
    fn strike(&mut self) {
        if self.random.below(4) > 0 {
            return;
        }
        let caller = self.random.below(8);
        let port = 1 + self.random.below(4) as u16;
        let subject = Subject {
            cluster: "pay".into(),
            service: "pay".into(),
            endpoint: endpoint(port),
            unit: "".into(),
        };
        let body = match self.random.below(3) {
            0 => Body::Recovered(subject),
            _ => Body::Ejected {
                subject,
                finding: Finding {
                    reason: Cause::Run,
                    window: Duration::from_secs(1),
                    calls: 10,
                    errors: Vec::new(),
                    local_rate: 1.0,
                    peer_rate: 0.0,
                    group: u32::from(ENDPOINTS),
                },
                enforced: true,
                times: 1,
                cool_down: Duration::from_secs(1),
            },
        };
        self.reported += 1;
        self.proxies[caller].outbox.push(self.now, body);
    }

    fn reconnect(&mut self) {
        for proxy in &mut self.proxies {
            if proxy.connected && self.random.below(500) == 0 {
                proxy.connected = false;
                proxy.outbox.disconnected();
                self.center.close(START + self.now, &proxy.node.id);
            } else if !proxy.connected && self.random.below(5) == 0 {
                let opened = self
                    .center
                    .open(START + self.now, proxy.node.clone(), self.now);
                // What is not stored is not acknowledged.
                self.center.take_changes().into_iter().for_each(|change| {
                    self.store.insert(change.key, change.value.unwrap());
                });
                assert!(proxy.gate.hear(self.center.epoch()));
                proxy.outbox.connected(opened.unwrap());
                proxy.connected = true;
            }
        }
    }

    fn deliver(&mut self) {
        let (now, center) = (self.now, &mut self.center);
        for proxy in self.proxies.iter_mut().filter(|proxy| proxy.connected) {
            let mut say = |report: Report| {
                let arrival = Arrival {
                    sequence: report.sequence,
                    sent: now,
                    age: now - report.at,
                    body: report.body,
                };
                center.receive(START + now, &proxy.node.id, arrival);
            };
            while let Next::Send(report) = proxy.outbox.next(now) {
                say(report);
            }
            say(Report {
                sequence: 0,
                at: now,
                body: Body::KeepAlive,
            });
        }
    }

    fn save(&mut self) {
        for change in self.center.take_changes() {
            match change.value {
                Some(value) => self.store.insert(change.key, value),
                None => self.store.remove(&change.key),
            };
        }
    }

    fn fail_over(&mut self) {
        let saved: Vec<_> = self.store.clone().into_iter().collect();
        let epoch = self.center.epoch() + 1;
        let (center, strange) = Center::new(self.settings.clone(), epoch, saved);
        assert!(strange.is_empty());
        self.center = center;
        for proxy in &mut self.proxies {
            proxy.connected = false;
            proxy.outbox.disconnected();
        }
    }

    fn obey(&mut self, directive: Directive, seed: u64) {
        let proxies = self.proxies.iter_mut();
        let mut addressed = proxies.filter(|proxy| proxy.node.id == directive.node);
        let proxy = addressed.next().unwrap();
        if !proxy.connected {
            return;
        }
        assert!(
            proxy.gate.judge(self.now, &directive).is_ok(),
            "seed {seed}: {directive:?}"
        );
        assert!(
            self.obeyed.insert(directive.id),
            "seed {seed}: twice: {directive:?}"
        );
        let outcome = match &directive.action {
            Action::Restart(fronted) | Action::Offline(fronted) => {
                let now = self.now;
                self.restarting.retain(|_, until| now < *until);
                assert!(
                    self.restarting.is_empty(),
                    "seed {seed}: at {now:?} beside {:?}: {directive:?}",
                    self.restarting
                );
                self.restarting
                    .insert(fronted.endpoint, now + self.settings.settle / 2);
                Outcome::Done
            }
            Action::ProbeNow { .. } if self.random.below(2) == 0 => Outcome::ProbeFailed,
            Action::ProbeNow { .. } => Outcome::ProbeSucceeded,
            _ => Outcome::Done,
        };
        self.reported += 1;
        proxy.outbox.push(
            self.now,
            Body::DirectiveAck(DirectiveAck {
                id: directive.id,
                outcome,
                detail: "".into(),
            }),
        );
    }
}

/// Goal: whatever happens, whenever centers die: no report is lost or counts twice, what was said is obeyed
/// once and passes the proxies' gates, and an application's restarts do not overlap (H4, H5, H12). Method:
/// ten virtual minutes for each seed, then calm, then count.
#[test]
fn nothing_is_lost_and_nothing_is_done_twice() {
    let mut obeyed = 0;
    for seed in 0..seeds(10) {
        let mut world = World::new(seed);
        let minutes_10 = 3000;
        (0..minutes_10).for_each(|_| world.tick(seed));
        assert!(world.center.epoch() > 3, "seed {seed}: too calm");
        for proxy in &mut world.proxies {
            proxy.connected = false;
            proxy.outbox.disconnected();
        }
        let mut stored = BTreeMap::new();
        for _ in 0..600 {
            world.now += TICK;
            world.reconnect();
            world.deliver();
            world.save();
            for proxy in world.proxies.iter_mut().filter(|proxy| proxy.connected) {
                proxy
                    .outbox
                    .acknowledge(world.center.sequence(&proxy.node.id));
            }
        }
        for proxy in &world.proxies {
            assert!(
                proxy.outbox.is_empty(),
                "seed {seed}: {} waits",
                proxy.node.id
            );
            assert_eq!(proxy.outbox.counts().dropped, 0);
        }
        let words = ["ejected", "recovered", "directive_ack"];
        for event in world
            .center
            .events(0)
            .filter(|event| words.contains(&&*event.what))
        {
            *stored.entry(event.node.clone()).or_insert(0) += 1;
        }
        let counted: u64 = stored.values().sum();
        assert_eq!(counted, world.reported, "seed {seed}");
        obeyed += world.obeyed.len() as u64;
    }
    assert!(obeyed > 10 * seeds(10), "little was done: {obeyed}");
}
