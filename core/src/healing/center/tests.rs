//! Verdicts and remedies on a virtual clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::healing::{
    directive::Fronted,
    ejection::{Cause, Guard},
    report::{DirectiveAck, Finding, Outcome, Overload},
};

const START: Duration = Duration::from_secs(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn subject(port: u16) -> Subject {
    Subject {
        cluster: "pay".into(),
        service: "pay".into(),
        endpoint: address(port),
        unit: "".into(),
    }
}

fn finding(group: u32) -> Finding {
    Finding {
        reason: Cause::Run,
        window: SECOND,
        calls: 20,
        errors: vec![("connect_refused".into(), 5)],
        local_rate: 1.0,
        peer_rate: 0.0,
        group,
    }
}

fn ejected(port: u16) -> Body {
    Body::Ejected {
        subject: subject(port),
        finding: finding(10),
        enforced: true,
        times: 1,
        cool_down: SECOND,
    }
}

/// A center, its clock, and what it stored.
struct World {
    center: Center,
    now: Duration,
    store: BTreeMap<String, String>,
    sequences: BTreeMap<Box<str>, u64>,
}

impl World {
    fn new(settings: Settings) -> World {
        World {
            center: Center::new(settings, 1, []).0,
            now: START,
            store: BTreeMap::new(),
            sequences: BTreeMap::new(),
        }
    }

    /// `callers` call `pay`; `fronts` front one endpoint of it each, by port.
    fn with(callers: usize, fronts: &[u16], settings: Settings) -> World {
        let mut world = World::new(settings);
        (0..callers).for_each(|k| world.open(&format!("c{k}"), &["pay"], &[]));
        fronts
            .iter()
            .for_each(|port| world.open(&format!("f{port}"), &[], &[*port]));
        world
    }

    fn open(&mut self, id: &str, calls: &[&str], ports: &[u16]) {
        let node = Node {
            id: id.into(),
            incarnation: 1,
            application: if ports.is_empty() {
                "shop".into()
            } else {
                "pay".into()
            },
            fronts: ports.iter().map(|port| address(*port)).collect(),
            zone: "".into(),
            calls: calls.iter().map(|service| (*service).into()).collect(),
        };
        let sequence = self.center.open(self.now, node, self.now - START).unwrap();
        self.sequences.insert(id.into(), sequence);
    }

    fn report(&mut self, id: &str, body: Body) {
        let sequence = self.sequences.get_mut(id).unwrap();
        *sequence += 1;
        let arrival = Arrival {
            sequence: *sequence,
            sent: self.now - START,
            age: Duration::ZERO,
            body,
        };
        self.center.receive(self.now, id, arrival);
    }

    fn acknowledge(&mut self, directive: &Directive, outcome: Outcome) {
        let ack = DirectiveAck {
            id: directive.id,
            outcome,
            detail: "".into(),
        };
        self.report(&directive.node.clone(), Body::DirectiveAck(ack));
    }

    /// The directives that one tick after `time` leads to.
    fn after(&mut self, time: Duration) -> Vec<Directive> {
        self.now += time;
        self.center.tick(self.now);
        for change in self.center.take_changes() {
            match change.value {
                Some(value) => self.store.insert(change.key, value),
                None => self.store.remove(&change.key),
            };
        }
        self.center.take_directives()
    }

    fn verdict(&self, port: u16) -> &'static str {
        self.center.endpoints[&address(port)].verdict.word()
    }

    /// Another center takes over with what this one stored.
    fn fail_over(&mut self) {
        let saved: Vec<_> = self.store.clone().into_iter().collect();
        let epoch = self.center.epoch + 1;
        let (center, strange) = Center::new(self.center.settings.clone(), epoch, saved);
        assert!(strange.is_empty(), "{strange:?}");
        self.center = center;
    }
}

fn words(directives: &[Directive]) -> Vec<(&str, &'static str)> {
    directives
        .iter()
        .map(|d| (&*d.node, d.action.word()))
        .collect()
}

/// Goal: enough reporters convict, who had ejected is confirmed, and who fronts is asked to restart,
/// nobody else (H5). Method: three of ten callers.
#[test]
fn quorum_convicts() {
    let mut world = World::with(10, &[1, 2], Settings::default());
    world.report("c0", ejected(1));
    world.report("c1", ejected(1));
    world.after(SECOND);
    assert_eq!(world.verdict(1), "probing");
    world.report("c2", ejected(1));
    let directives = world.after(SECOND);
    assert_eq!(world.verdict(1), "sick");
    let said = words(&directives);
    assert_eq!(
        said,
        [
            ("c0", "confirm"),
            ("c1", "confirm"),
            ("c2", "confirm"),
            ("f1", "restart")
        ]
    );
    let expected = Action::Restart(Fronted {
        application: "pay".into(),
        endpoint: address(1),
    });
    assert_eq!(directives[3].action, expected);
    assert_eq!(directives[3].ttl, Settings::default().ttl);
    assert_eq!(
        world.center.endpoints().next().unwrap().1.health_status(),
        "UNHEALTHY"
    );
}

/// Goal: a share of the callers convicts too, from the limit on, and one caller alone never (H5). Method:
/// two of four, two of five, one of one.
#[test]
fn percent_convicts() {
    for (callers, reporters, verdict) in [(4, 2, "sick"), (5, 2, "probing"), (1, 1, "unsettled")] {
        let mut world = World::with(callers, &[], Settings::default());
        (0..reporters).for_each(|k| world.report(&format!("c{k}"), ejected(1)));
        world.after(SECOND);
        assert_eq!(world.verdict(1), verdict, "{reporters} of {callers}");
    }
}

/// Goal: claims count for their time and no longer. Method: two reporters, the second one within the
/// window and after it.
#[test]
fn claims_end() {
    let window = Settings::default().window;
    for (later, verdict) in [
        (window, "sick"),
        (window + Duration::from_nanos(1), "probing"),
    ] {
        let mut world = World::with(2, &[], Settings::default());
        world.report("c0", ejected(1));
        world.now += later;
        world.report("c1", ejected(1));
        world.center.tick(world.now);
        assert_eq!(world.verdict(1), verdict, "{later:?}");
    }
}

/// Goal: a lone reporter is checked by probes: well ones clear, and failed ones are claims (H5). Method:
/// both answers, and none.
#[test]
fn probes_decide() {
    for (outcome, verdict) in [
        (Some(Outcome::ProbeSucceeded), "well"),
        (Some(Outcome::ProbeFailed), "sick"),
        (Some(Outcome::Refused), "unsettled"),
        (None, "unsettled"),
    ] {
        let mut world = World::with(4, &[], Settings::default());
        world.report("c0", ejected(1));
        let probes = world.after(SECOND);
        assert_eq!(
            words(&probes),
            [
                ("c1", "probe_now"),
                ("c2", "probe_now"),
                ("c3", "probe_now")
            ]
        );
        if let Some(outcome) = outcome {
            probes
                .iter()
                .for_each(|probe| world.acknowledge(probe, outcome));
        }
        let directives = world.after(Settings::default().probe_patience);
        assert_eq!(world.verdict(1), verdict, "{outcome:?}");
        let cleared = words(&directives).contains(&("c0", "clear"));
        assert_eq!(cleared, verdict == "well", "{outcome:?}");
    }
}

/// Goal: an answer counts from whom was asked only. Method: another node acknowledges a probe and a
/// restart.
#[test]
fn acknowledgements_of_others_are_ignored() {
    let mut world = World::with(4, &[1], Settings::default());
    world.report("c0", ejected(1));
    let probe = world.after(SECOND).remove(0);
    let forged = Directive {
        node: "c0".into(),
        ..probe
    };
    world.acknowledge(&forged, Outcome::ProbeSucceeded);
    world.report("c1", ejected(1));
    world.report("c2", ejected(1));
    let restart = world.after(SECOND).pop().unwrap();
    let forged = Directive {
        node: "c0".into(),
        ..restart
    };
    world.acknowledge(&forged, Outcome::Failed);
    assert!(
        world.center.endpoints[&address(1)]
            .treatment
            .running
            .is_some()
    );
}

fn convict(world: &mut World, port: u16) -> Vec<Directive> {
    (0..3).for_each(|k| world.report(&format!("c{k}"), ejected(port)));
    world.after(SECOND)
}

/// Goal: one restart of an application at a time, then the next; off line when restarts do not help, and
/// only while another endpoint is well (H5). Method: follow one endpoint that never recovers.
#[test]
fn treatment_escalates() {
    let settings = Settings {
        remedy: Remedy::Offline,
        ..Settings::default()
    };
    let settle = settings.settle;
    let mut world = World::with(10, &[1, 2], settings);
    let mut actions = Vec::new();
    for _ in 0..5 {
        let directives = convict(&mut world, 1);
        for directive in directives.iter().filter(|d| &*d.node == "f1") {
            actions.push(directive.action.word());
            world.acknowledge(directive, Outcome::Done);
        }
        assert!(world.after(settle / 2).is_empty(), "two at once");
        world.now += settle / 2;
    }
    assert_eq!(actions, ["restart", "restart", "offline"]);
    let record = &world.center.endpoints[&address(1)];
    assert_eq!(record.health_status(), "DRAINING");
}

/// Goal: an endpoint that falls sick again right after its restart is not restarted again before that had
/// its time. Method: recover and convict within the time, and after it. Found by simulation.
#[test]
fn relapse_waits_for_the_restart() {
    let mut world = World::with(10, &[1], Settings::default());
    let first = convict(&mut world, 1);
    assert_eq!(first.last().unwrap().action.word(), "restart");
    (0..3).for_each(|k| world.report(&format!("c{k}"), Body::Recovered(subject(1))));
    world.after(SECOND);
    assert_eq!(world.verdict(1), "none");
    let relapse = convict(&mut world, 1);
    assert!(
        relapse
            .iter()
            .all(|directive| directive.action.word() == "confirm")
    );
    let later = world.after(Settings::default().settle);
    assert_eq!(words(&later), [("f1", "restart")]);
}

/// Goal: the limit of restarts is by application (H5). Method: two endpoints convicted together, of a
/// group so large that it is no common mode; limits of one and of two.
#[test]
fn restarts_are_limited_by_application() {
    for at_once in [1, 2] {
        let settings = Settings {
            restarts_at_once: at_once,
            ..Settings::default()
        };
        let mut world = World::with(10, &[1, 2, 3], settings);
        let mut directives = convict(&mut world, 1);
        directives.extend(convict(&mut world, 2));
        let restarts = directives.iter().filter(|d| d.action.word() == "restart");
        assert_eq!(restarts.count(), at_once);
    }
}

/// Goal: what strikes many is not treated (H10). Method: of ten endpoints, three sick (30 %), then a
/// fourth.
#[test]
fn common_mode_is_not_treated() {
    let mut world = World::with(10, &[1, 2, 3, 4], Settings::default());
    for port in [1, 2, 3] {
        convict(&mut world, port);
        assert_eq!(world.verdict(port), "sick");
    }
    let directives = convict(&mut world, 4);
    assert!(directives.is_empty(), "{:?}", words(&directives));
    assert!((1..=4).all(|port| world.verdict(port) == "dependency"));
}

fn overload(watermark: f64) -> Body {
    Body::Overload(Overload {
        watermark,
        dominant_signal: "cpu".into(),
        shed_rate: 0.2,
        top_interfaces: Vec::new(),
    })
}

/// Goal: a node that is full alone gets less, as long as it is (H13). Method: one of four at 2 and then at
/// 1.25 of its watermark, then quiet.
#[test]
fn overload_alone_is_relieved() {
    let mut world = World::with(2, &[1, 2, 3, 4], Settings::default());
    let weights = |directives: &[Directive]| -> Vec<(Box<str>, f64)> {
        let weights = directives.iter().map(|directive| match directive.action {
            Action::Prior { weight, .. } => (directive.node.clone(), weight),
            _ => panic!("{directive:?}"),
        });
        weights.collect()
    };
    let to_both = |weight| vec![("c0".into(), weight), ("c1".into(), weight)];
    world.report("f1", overload(2.0));
    assert_eq!(weights(&world.after(SECOND)), to_both(0.5));
    assert_eq!(world.verdict(1), "overloaded");
    world.report("f1", overload(2.1));
    assert_eq!(world.after(SECOND), []);
    // It is told again before it ends.
    assert_eq!(
        weights(&world.after(Settings::default().ttl / 2)),
        to_both(1.0 / 2.1)
    );
    world.report("f1", overload(1.25));
    assert_eq!(weights(&world.after(SECOND)), to_both(0.8));
    assert_eq!(
        weights(&world.after(Settings::default().window)),
        to_both(1.0)
    );
    assert_eq!(world.verdict(1), "none");
    // However full it is, something is sent.
    world.report("f1", overload(1000.0));
    assert_eq!(weights(&world.after(SECOND)), to_both(0.1));
}

/// Goal: overload is evidence like any other beside that of callers, and is a lack of capacity where all
/// suffer (H10, H13). Method: one of four, whom a caller has ejected as well; two of four; the only one.
#[test]
fn overload_beside_others() {
    let mut world = World::with(2, &[1, 2, 3, 4], Settings::default());
    world.report("f1", overload(1.3));
    world.report("c0", ejected(1));
    world.after(SECOND);
    assert_eq!(world.verdict(1), "sick");

    let mut world = World::with(2, &[1, 2, 3, 4], Settings::default());
    world.report("f1", overload(1.3));
    world.report("f2", overload(1.3));
    assert_eq!(world.after(SECOND), []);
    assert_eq!(
        (world.verdict(1), world.verdict(2)),
        ("capacity", "capacity")
    );

    let mut world = World::with(2, &[1], Settings::default());
    world.report("f1", overload(1.3));
    assert_eq!(world.after(SECOND), []);
    assert_eq!(world.verdict(1), "capacity");
}

/// Goal: a report that arrives twice counts once, gaps are seen, and a new run of a node begins anew
/// (H4). Method: sequences by hand.
#[test]
fn reports_count_once() {
    let mut world = World::with(1, &[], Settings::default());
    world.report("c0", ejected(1));
    world.sequences.insert("c0".into(), 0);
    world.report("c0", ejected(1));
    let counts = world.center.counts();
    assert_eq!((counts.reports, counts.repeated, counts.lost), (1, 1, 0));
    world.sequences.insert("c0".into(), 4);
    world.report("c0", ejected(1));
    assert_eq!(world.center.counts().lost, 3);
    let node = world.center.nodes["c0"].node.clone();
    let later = Node {
        incarnation: 2,
        ..node.clone()
    };
    assert_eq!(world.center.open(world.now, node.clone(), SECOND), Ok(5));
    assert_eq!(world.center.open(world.now, later, SECOND), Ok(0));
    let refused = world.center.open(world.now, node, SECOND);
    assert_eq!(refused, Err(NotAdmitted::OldIncarnation));
}

/// Goal: a center that takes over knows everything that was stored, orders nothing twice, and its
/// directives are fenced (H12). Method: fail over after a restart was ordered.
#[test]
fn fail_over_repeats_nothing() {
    let mut world = World::with(10, &[1, 2], Settings::default());
    let first = convict(&mut world, 1);
    assert_eq!(first.last().unwrap().action.word(), "restart");
    let before = world.center.clone();
    world.fail_over();
    assert_eq!(world.center.endpoints, before.endpoints);
    assert!(world.center.events.iter().eq(before.events.iter()));
    world.open("f1", &[], &[1]);
    assert_eq!(
        world.center.nodes["f1"].sequence,
        before.nodes["f1"].sequence
    );
    assert!(world.after(SECOND).is_empty());
    let again = world.after(Settings::default().settle);
    assert_eq!(words(&again), [("f1", "restart")]);
    assert_eq!(again[0].epoch, 2);
    assert!(first.iter().all(|directive| directive.id != again[0].id));
}

/// Goal: a person's word outweighs reports, both ways. Method: confirm, recover, clear.
#[test]
fn people_decide() {
    let mut world = World::with(10, &[1], Settings::default());
    assert!(!world.center.confirm(world.now, address(1)));
    world.report("c0", ejected(1));
    assert!(world.center.confirm(world.now, address(1)));
    let said = world.after(SECOND);
    assert_eq!(words(&said), [("c0", "confirm"), ("f1", "restart")]);
    world.report("c0", Body::Recovered(subject(1)));
    world.after(Settings::default().window);
    assert_eq!(world.verdict(1), "sick");
    world.report("c0", ejected(1));
    assert!(world.center.clear(world.now, address(1)));
    assert_eq!(words(&world.after(SECOND)), [("c0", "clear")]);
    assert_eq!(world.verdict(1), "well");
}

/// Goal: the state machine of an endpoint is followed, with times (H5). Method: one endpoint's life.
#[test]
fn states_follow_reports() {
    let mut world = World::with(2, &[], Settings::default());
    let suspect = Body::Suspect {
        subject: subject(1),
        finding: finding(3),
        guard: Guard::LastNode,
    };
    let steps = [
        (suspect.clone(), State::Suspect),
        (ejected(1), State::Ejected),
        (suspect, State::Ejected),
        (Body::Probation(subject(1)), State::Probation),
        (Body::Recovered(subject(1)), State::Healthy),
    ];
    for (body, state) in steps {
        world.now += SECOND;
        world.report("c0", body);
        let record = &world.center.endpoints[&address(1)];
        assert_eq!(record.state, state);
        if state != State::Ejected {
            assert_eq!(record.state_since, world.now);
        }
    }
}

/// Goal: whatever a peer can grow has a limit. Method: each at its limit and one above.
#[test]
fn growth_is_bounded() {
    let settings = Settings {
        events_max: 10,
        ..Settings::default()
    };
    let mut world = World::new(settings);
    (0..NODES_MAX).for_each(|k| world.open(&format!("n{k:05}"), &[], &[]));
    let one_more = Node {
        id: "more".into(),
        ..Node::default()
    };
    let refused = world.center.open(world.now, one_more.clone(), SECOND);
    assert_eq!(refused, Err(NotAdmitted::TooMany));
    world.center.close(world.now, "n00007");
    assert_eq!(world.center.open(world.now, one_more, SECOND), Ok(0));
    assert_eq!(world.center.nodes().count(), NODES_MAX);

    for k in 0..CLAIMS_MAX {
        world.report(&format!("n{k:05}").replace("n00007", "n09999"), ejected(1));
    }
    let ignored = world.center.counts().ignored;
    world.report("n09998", ejected(1));
    assert_eq!(world.center.counts().ignored, ignored + 1);

    for k in 1..ENDPOINTS_MAX {
        let mut body = ejected(1);
        if let Body::Ejected { subject, .. } = &mut body {
            let [high, low] = (k as u16).to_be_bytes();
            subject.endpoint = SocketAddr::from(([10, 1, high, low], 80));
        }
        world.report("n00000", body);
    }
    assert_eq!(world.center.endpoints().count(), ENDPOINTS_MAX);
    world.report("n00000", ejected(2));
    assert_eq!(world.center.endpoints().count(), ENDPOINTS_MAX);
    assert_eq!(world.center.events(0).count(), 10);
    world.after(SECOND);
    let stored = world.store.keys().filter(|key| key.starts_with("event/"));
    assert_eq!(stored.count(), 10);
}

/// Goal: quiet nodes and endpoints are forgotten, in the store as well. Method: after their times, and
/// just before.
#[test]
fn quiet_ones_are_forgotten() {
    let mut world = World::with(1, &[], Settings::default());
    world.report("c0", ejected(1));
    world.after(ENDPOINT_QUIET);
    assert_eq!(world.center.endpoints().count(), 1);
    world.after(SECOND);
    assert_eq!(world.center.endpoints().count(), 0);
    world.center.close(world.now, "c0");
    world.after(NODE_QUIET);
    assert_eq!(world.center.nodes().count(), 1);
    world.after(SECOND);
    assert_eq!(world.center.nodes().count(), 0);
    let left: Vec<_> = world
        .store
        .keys()
        .filter(|key| !key.starts_with("event/"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
