//! A control plane and a client of it, in random orders: whatever happens on the way, the client never has routes to a
//! cluster that was taken from it, and in the end it has what is served.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tidegate_xds::{
    server::{
        session::{Asked, Request, Response, Session},
        world::{Resource, World},
    },
    subscription::{ResourceType, Variant},
};

/// Names of clusters. There is one route configuration, whose version is the cluster that it leads to.
const CLUSTERS: [&str; 4] = ["a", "b", "c", "d"];

/// Runs of each variant, and steps of a run.
const RUNS: u64 = 2_000;
const STEPS: usize = 60;

/// xorshift: the same run each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

fn resource(kind: ResourceType, name: &str, version: String) -> (ResourceType, Arc<Resource>) {
    let resource = Resource {
        name: name.into(),
        version: version.into(),
        bytes: Vec::new(),
    };
    (kind, Arc::new(resource))
}

/// Some clusters in some versions, and routes that lead to one of them.
fn world(random: &mut Random) -> Arc<World> {
    let to = random.below(CLUSTERS.len());
    let clusters = CLUSTERS.iter().enumerate().filter_map(|(index, name)| {
        let is_there = index == to || random.below(2) == 0;
        let version = random.below(2).to_string();
        is_there.then(|| resource(ResourceType::Cluster, name, version))
    });
    let mut resources: Vec<_> = clusters.collect();
    resources.push(resource(ResourceType::Route, "r", CLUSTERS[to].into()));
    Arc::new(World::new(resources, |text| text.into()))
}

/// A client that takes a response when it comes and answers it later, in order.
struct Client {
    variant: Variant,
    clusters: BTreeMap<String, String>,
    /// The cluster that its routes lead to.
    route: Option<String>,
    /// Nonces that it has not answered, and whether it refused.
    unanswered: VecDeque<(ResourceType, String, bool)>,
}

impl Client {
    fn new(variant: Variant) -> Client {
        Client {
            variant,
            clusters: BTreeMap::new(),
            route: None,
            unanswered: VecDeque::new(),
        }
    }

    fn request(&self, kind: ResourceType, nonce: String, is_refused: bool) -> Request {
        let name = (kind == ResourceType::Route).then(|| "r".to_owned());
        let asked = match self.variant {
            Variant::StateOfTheWorld => Asked::Names(name.into_iter().collect()),
            Variant::Delta => Asked::Changes {
                subscribe: name.filter(|_| nonce.is_empty()).into_iter().collect(),
                unsubscribe: Vec::new(),
                held: Vec::new(),
            },
        };
        Request {
            kind,
            nonce,
            error: is_refused.then(|| "refused".to_owned()),
            asked,
        }
    }

    /// `is_refused`: if it brings routes, they are.
    fn take(&mut self, response: Response, is_refused: bool) {
        let is_refused = is_refused && response.kind == ResourceType::Route;
        let kind = response.kind;
        if kind == ResourceType::Cluster {
            if self.variant == Variant::StateOfTheWorld {
                self.clusters.clear();
            }
            for one in &response.resources {
                self.clusters
                    .insert(one.name.to_string(), one.version.to_string());
            }
            for name in &response.removed {
                assert!(
                    self.clusters.remove(&**name).is_some(),
                    "{name} is not there"
                );
            }
        } else if !is_refused && let Some(routes) = response.resources.first() {
            self.route = Some(routes.version.to_string());
        }
        if let Some(to) = &self.route {
            assert!(self.clusters.contains_key(to), "routes lead to {to}");
        }
        self.unanswered
            .push_back((kind, response.nonce, is_refused));
    }

    fn answer(&mut self, session: &mut Session) {
        if let Some((kind, nonce, is_refused)) = self.unanswered.pop_front() {
            let request = self.request(kind, nonce, is_refused);
            session.receive(request).unwrap();
        }
    }
}

fn run(variant: Variant, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut session = Session::new(variant, world(&mut random));
    let mut client = Client::new(variant);
    for kind in [ResourceType::Cluster, ResourceType::Route] {
        let request = client.request(kind, String::new(), false);
        session.receive(request).unwrap();
    }
    for _ in 0..STEPS {
        match random.below(5) {
            0 => session.publish(world(&mut random)),
            1 | 2 => client.answer(&mut session),
            _ => {
                if let Some(response) = session.poll_response() {
                    let is_refused = random.below(3) == 0;
                    client.take(response, is_refused);
                }
            }
        }
    }
    // First other routes than the last, with every cluster: what is refused is sent again when it was another meanwhile.
    let end = world(&mut random);
    let to = end.resource(ResourceType::Route, "r").unwrap();
    let other = CLUSTERS.iter().find(|name| **name != &*to.version).unwrap();
    let clusters = CLUSTERS.map(|name| resource(ResourceType::Cluster, name, "0".into()));
    let routes = resource(ResourceType::Route, "r", (*other).into());
    let other = World::new(clusters.into_iter().chain([routes]), |text| text.into());
    for world in [Arc::new(other), end.clone()] {
        session.publish(world);
        loop {
            while let Some(response) = session.poll_response() {
                client.take(response, false);
            }
            if client.unanswered.is_empty() {
                break;
            }
            client.answer(&mut session);
        }
    }
    let clusters = end.resources(ResourceType::Cluster);
    let clusters = clusters.map(|one| (one.name.to_string(), one.version.to_string()));
    assert_eq!(client.clusters, clusters.collect());
    let route = end.resource(ResourceType::Route, "r").unwrap();
    assert_eq!(client.route.as_deref(), Some(&*route.version));
    assert!(session.status().iter().all(|one| one.settled));
}

/// Goal: make before break holds in every order of changes, late answers and refusals, and nothing is forgotten. Method:
/// random runs with a client that refuses routes now and then; a violation says its seed.
#[test]
fn clients_are_whole_and_converge() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        for seed in 1..=RUNS {
            let ran = std::panic::catch_unwind(|| run(variant, seed));
            assert!(ran.is_ok(), "seed {seed} of {variant:?}");
        }
    }
}
