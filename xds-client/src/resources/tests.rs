//! A stream as a script: what a server sends, what is answered and asked for, and what may be used. Time is a number
//! that the tests choose.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod files;

use serde_json::{Value as Json, json};

use super::*;
use crate::subscription::Wanted;

const NOW: Duration = Duration::from_secs(100);

fn new(variant: Variant) -> Resources {
    let mut resources = Resources::new(variant, Arc::default());
    resources.connected(Claim::Versions);
    resources
}

impl Resources {
    fn hear(&mut self, response: RawResponse) -> Result<Verdict, String> {
        self.receive(response, NOW)
    }
}

fn raw(resource_type: ResourceType, name: &str, mut json: Json) -> RawResource {
    json["@type"] = resource_type.url().into();
    let (_, bytes) = translate::from_json(&json).unwrap();
    RawResource {
        name: name.into(),
        version: "1".into(),
        type_url: resource_type.url().into(),
        bytes,
        ..RawResource::default()
    }
}

fn cluster(name: &str) -> RawResource {
    let source = json!({ "eds_config": { "ads": {} } });
    raw(
        ResourceType::Cluster,
        name,
        json!({ "name": name, "type": "EDS", "eds_cluster_config": source }),
    )
}

fn bad_cluster(name: &str) -> RawResource {
    raw(
        ResourceType::Cluster,
        name,
        json!({ "name": name, "connect_timeout": "-1s" }),
    )
}

fn endpoints(name: &str) -> RawResource {
    raw(
        ResourceType::Endpoint,
        name,
        json!({ "cluster_name": name }),
    )
}

fn response(resource_type: ResourceType, nonce: &str, resources: Vec<RawResource>) -> RawResponse {
    RawResponse {
        type_url: resource_type.url().into(),
        version: "v".into(),
        nonce: nonce.into(),
        resources,
        removed: Vec::new(),
    }
}

/// Every request that is due, as `type nonce +subscribed -unsubscribed !error`.
fn said(resources: &mut Resources) -> Vec<String> {
    let requests = std::iter::from_fn(|| resources.poll_request(NOW));
    let put = |request: Request| {
        let mut text = format!("{} {}", request.resource_type.word(), request.nonce);
        match request.wanted {
            Wanted::Names { names, .. } => {
                names.iter().for_each(|name| text += &format!(" ={name}"))
            }
            Wanted::Changes {
                subscribe,
                unsubscribe,
                ..
            } => {
                subscribe
                    .iter()
                    .for_each(|name| text += &format!(" +{name}"));
                unsubscribe
                    .iter()
                    .for_each(|name| text += &format!(" -{name}"));
            }
        }
        if let Some(error) = request.error {
            text += &format!(" !{error}");
        }
        text
    };
    requests.map(put).collect()
}

/// Goal: both variants ask for everything at first, then for what that refers to, and answer each response. Method: a
/// server that sends two clusters, their endpoints, and then takes one away.
#[test]
fn a_stream_asks_for_what_is_referred_to() {
    let mut delta = new(Variant::Delta);
    assert_eq!(said(&mut delta), ["cluster ", "listener "]);
    delta
        .hear(response(
            ResourceType::Cluster,
            "n1",
            vec![cluster("a"), cluster("b")],
        ))
        .unwrap();
    assert_eq!(said(&mut delta), ["cluster n1", "endpoint  +a +b"]);
    delta
        .hear(response(
            ResourceType::Endpoint,
            "n2",
            vec![endpoints("a"), endpoints("b")],
        ))
        .unwrap();
    assert_eq!(said(&mut delta), ["endpoint n2"]);
    assert_eq!(delta.poll(NOW).unwrap().clusters.len(), 2);
    let mut gone = response(ResourceType::Cluster, "n3", vec![]);
    gone.removed = vec!["b".into()];
    delta.hear(gone).unwrap();
    assert_eq!(said(&mut delta), ["cluster n3", "endpoint  -b"]);
    assert_eq!(delta.poll(NOW).unwrap().clusters.len(), 1);

    let mut world = new(Variant::StateOfTheWorld);
    assert_eq!(said(&mut world), ["cluster ", "listener "]);
    world
        .hear(response(
            ResourceType::Cluster,
            "n1",
            vec![cluster("a"), cluster("b")],
        ))
        .unwrap();
    assert_eq!(said(&mut world), ["cluster n1", "endpoint  =a =b"]);
    world
        .hear(response(ResourceType::Cluster, "n2", vec![cluster("a")]))
        .unwrap();
    assert_eq!(said(&mut world), ["cluster n2", "endpoint  =a"]);
}

/// Goal: one bad resource in ten, a thousand times: the good ones are used, each response is answered, and what is
/// told stays bounded (the first slice of what a control plane may do wrong). Method: a flood, in both variants.
#[test]
fn a_flood_with_bad_resources_is_taken_in() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let mut resources = new(variant);
        said(&mut resources);
        for round in 0..1000 {
            let mut sent: Vec<RawResource> = (0..9).map(|i| cluster(&format!("c{i}"))).collect();
            sent.push(bad_cluster("c9"));
            let nonce = format!("n{round}");
            resources
                .hear(response(ResourceType::Cluster, &nonce, sent))
                .unwrap();
            let answers = said(&mut resources);
            let error = format!(
                "cluster {nonce} !c9: connect_timeout: -1.000000000s is negative or malformed"
            );
            assert_eq!(answers.first(), Some(&error));
        }
        let status = &resources.status()[0];
        assert_eq!(
            (status.responses, status.accepted, status.rejected),
            (1000, 9000, 1000)
        );
        assert_eq!(status.resources.len(), 10);
        let bad = &status.resources[9];
        assert_eq!((bad.state, bad.version.as_str()), (None, ""));
        assert!(bad.error.as_ref().unwrap().contains("connect_timeout"));
        resources.elapsed(NOW + Duration::from_secs(15));
        assert_eq!(
            resources.poll(NOW).unwrap().clusters.len(),
            9,
            "without endpoints, which are missing"
        );
    }
}

/// Goal: a good version outlives a bad one, and an error ends with the next good one. Method: good, bad, good.
#[test]
fn the_last_good_version_is_kept() {
    let mut resources = new(Variant::Delta);
    let fixed = |timeout: &str| {
        raw(
            ResourceType::Cluster,
            "a",
            json!({ "name": "a", "connect_timeout": timeout, "alt_stat_name": "x" }),
        )
    };
    resources
        .hear(response(ResourceType::Cluster, "n1", vec![fixed("1s")]))
        .unwrap();
    assert_eq!(
        resources.poll(NOW).unwrap().clusters["a"]
            .connect_timeout
            .as_secs(),
        1
    );
    resources
        .hear(response(
            ResourceType::Cluster,
            "n2",
            vec![bad_cluster("a")],
        ))
        .unwrap();
    assert_eq!(resources.poll(NOW), None);
    let status = resources.status()[0].resources[0].clone();
    assert_eq!(
        (status.state, status.error.is_some()),
        (Some(State::Active), true)
    );
    resources
        .hear(response(ResourceType::Cluster, "n3", vec![fixed("2s")]))
        .unwrap();
    assert_eq!(
        resources.poll(NOW).unwrap().clusters["a"]
            .connect_timeout
            .as_secs(),
        2
    );
    let status = &resources.status()[0];
    assert_eq!(status.resources[0].error, None);
    assert_eq!(
        status.resources[0].warnings,
        ["alt_stat_name: is ignored: only shown by Envoy itself"]
    );
    assert!(
        status
            .last_error
            .as_ref()
            .unwrap()
            .starts_with("a: connect_timeout")
    );
}

/// Goal: a broken stream takes nothing away, and its end is no news for whoever waits. Method: disconnect while
/// endpoints are waited for, for a long time; reconnect, and let them be missing.
#[test]
fn nothing_is_missing_while_nobody_can_answer() {
    let mut resources = new(Variant::Delta);
    resources
        .hear(response(ResourceType::Cluster, "n1", vec![cluster("a")]))
        .unwrap();
    said(&mut resources);
    resources.disconnected();
    let late = NOW + Duration::from_secs(3600);
    resources.elapsed(late);
    assert_eq!(resources.poll(late), None);
    assert_eq!(
        resources.status()[0].resources[0].state,
        Some(State::Warming)
    );
    resources.connected(Claim::Versions);
    assert_eq!(
        said(&mut resources),
        ["cluster ", "endpoint  +a", "listener "]
    );
    resources.elapsed(NOW + Duration::from_secs(15));
    assert_eq!(resources.poll(late).unwrap().clusters.len(), 1);
    assert_eq!(
        resources.status()[1].resources[0].state,
        Some(State::Missing)
    );
}

/// Goal: what was not asked for, and what contradicts itself, is refused. Method: a type of another's, a resource of
/// another type than its response, and one whose name is not the one beside it.
#[test]
fn contradictions_are_refused() {
    let mut resources = new(Variant::Delta);
    said(&mut resources);
    let mut foreign = response(ResourceType::Cluster, "n0", vec![]);
    foreign.type_url = "type.googleapis.com/x.Y".into();
    assert_eq!(
        resources.hear(foreign),
        Err("type.googleapis.com/x.Y".into())
    );
    let mut other = endpoints("a");
    other.name = "b".into();
    let sent = vec![
        other,
        RawResource {
            name: "c".into(),
            ..cluster("a")
        },
    ];
    resources
        .hear(response(ResourceType::Cluster, "n1", sent))
        .unwrap();
    assert_eq!(
        said(&mut resources),
        [
            "cluster n1 !b: is a envoy.config.endpoint.v3.ClusterLoadAssignment, not a cluster\nc: calls itself `a`"
        ]
    );
}

/// Goal: endpoints with an end are an override that goes by itself, and are not kept for the next start; a malformed end
/// is refused. Method: an assignment for five seconds, prolonged once, with a cache; then one with a negative end.
#[test]
fn what_has_an_end_goes_and_is_not_kept() {
    let mut resources = new(Variant::Delta);
    let clusters = response(ResourceType::Cluster, "c", vec![cluster("a")]);
    resources.hear(clusters).unwrap();
    let end = Some((5, 0));
    let brief = RawResource {
        ttl: end,
        ..endpoints("a")
    };
    resources
        .hear(response(ResourceType::Endpoint, "e1", vec![brief]))
        .unwrap();
    assert!(resources.poll(NOW).is_some());
    assert_eq!(resources.kept().endless().len(), 1, "the cluster alone");
    let beat = RawResource {
        name: "a".into(),
        version: "1".into(),
        ttl: end,
        is_heartbeat: true,
        ..RawResource::default()
    };
    let later = NOW + Duration::from_secs(4);
    let prolonged = response(ResourceType::Endpoint, "e2", vec![beat.clone()]);
    resources.receive(prolonged, later).unwrap();
    resources.elapsed(NOW + Duration::from_secs(8));
    let left = resources.kept().left(NOW + Duration::from_secs(8));
    let ends: Vec<_> = left.iter().map(|one| one.ttl).collect();
    assert_eq!(ends, [None, Some((1, 0))], "for who takes over");
    let state = |resources: &Resources| resources.graph.state(ResourceType::Endpoint, "a");
    assert_eq!(state(&resources), State::Active);
    resources.elapsed(NOW + Duration::from_secs(9));
    assert_eq!(state(&resources), State::Missing);
    assert_eq!(resources.kept().left(NOW).len(), 1);

    let mut heir = new(Variant::Delta);
    assert_eq!(heir.restore(left, NOW), 2);
    assert_eq!(heir.deadline(), Some(NOW + Duration::from_secs(1)));
    heir.elapsed(NOW + Duration::from_secs(1));
    assert_eq!(state(&heir), State::Missing);

    said(&mut resources);
    let negative = Some((-1, 0));
    let bad = |one: RawResource| RawResource {
        ttl: negative,
        ..one
    };
    for one in [bad(endpoints("a")), bad(beat)] {
        resources
            .hear(response(ResourceType::Endpoint, "e3", vec![one]))
            .unwrap();
        assert_eq!(
            said(&mut resources),
            ["endpoint e3 !a: ttl: -1.000000000s is negative or malformed"]
        );
    }
}
