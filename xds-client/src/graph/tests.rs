//! What may be used, in every order in which it can come. Time is a number that the tests choose.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use serde_json::{Value as Json, json};

use super::*;

const NOW: Duration = Duration::from_secs(100);

/// A graph, the clusters of the file, and the time.
#[derive(Default)]
struct World {
    graph: Graph,
    of_file: BTreeSet<Arc<str>>,
    now: Duration,
}

impl World {
    fn new() -> World {
        World {
            now: NOW,
            ..World::default()
        }
    }

    fn set(&mut self, resource_type: ResourceType, mut json: Json) {
        json["@type"] = resource_type.url().into();
        let (_, bytes) = translate::from_json(&json).unwrap();
        let made = translate::translate(resource_type, resource_type.url(), &bytes);
        let value = made.resource.unwrap();
        self.graph.apply(
            resource_type,
            Update::Set {
                name: made.name,
                value,
            },
        );
    }

    /// A cluster whose endpoints come by an assignment.
    fn cluster(&mut self, name: &str) {
        self.cluster_with(name, name);
    }

    fn cluster_with(&mut self, name: &str, assignment: &str) {
        let source = json!({ "eds_config": { "ads": {} }, "service_name": assignment });
        self.set(
            ResourceType::Cluster,
            json!({ "name": name, "type": "EDS", "eds_cluster_config": source }),
        );
    }

    fn endpoints(&mut self, name: &str, ports: &[u16]) {
        let lb = |port: &u16| json!({ "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": port } } } });
        let all: Vec<Json> = ports.iter().map(lb).collect();
        self.set(
            ResourceType::Endpoint,
            json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": all }] }),
        );
    }

    /// A listener whose routes come by a route configuration.
    fn listener(&mut self, name: &str, routes: &str) {
        let hcm = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "rds": { "route_config_name": routes, "config_source": { "ads": {} } },
            "http_filters": [{ "name": "router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }] });
        self.set(
            ResourceType::Listener,
            json!({ "name": name,
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 80 } },
            "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": hcm }] }] }),
        );
    }

    fn routes(&mut self, name: &str, cluster: &str) {
        let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": cluster } });
        let host = json!({ "name": "v", "domains": ["*"], "routes": [route] });
        self.set(
            ResourceType::Route,
            json!({ "name": name, "virtual_hosts": [host] }),
        );
    }

    fn removed(&mut self, resource_type: ResourceType, name: &str) {
        self.graph
            .apply(resource_type, Update::Removed { name: name.into() });
    }

    fn missing(&mut self, resource_type: ResourceType, name: &str) {
        self.graph
            .apply(resource_type, Update::Missing { name: name.into() });
    }

    fn poll(&mut self) -> Option<Part> {
        self.graph.poll(self.now, &self.of_file)
    }

    /// A listener `l` with routes `r` to cluster `a` with an endpoint.
    fn serving() -> World {
        let mut world = World::new();
        world.cluster("a");
        world.endpoints("a", &[1]);
        world.listener("l", "r");
        world.routes("r", "a");
        assert_eq!(shape(&world.poll().unwrap()), ["a:1", "l->a"]);
        world
    }
}

/// `cluster:ports` and `listener->clusters`.
fn shape(part: &Part) -> Vec<String> {
    let clusters = part.clusters.iter().map(|(name, cluster)| {
        let model::Endpoints::Static(endpoints) = &cluster.endpoints else {
            panic!()
        };
        let ports: Vec<String> = endpoints
            .iter()
            .map(|one| one.address.port().to_string())
            .collect();
        format!("{name}:{}", ports.join(","))
    });
    let listeners = part.listeners.iter().map(|(name, listener)| {
        let names: Vec<String> = clusters_of(listener)
            .iter()
            .map(|name| name.to_string())
            .collect();
        format!("{name}->{}", names.join(","))
    });
    clusters.chain(listeners).collect()
}

/// Goal: nothing is used before what it refers to is there, whatever the order. Method: every order of the four
/// resources: only the last one brings the listener.
#[test]
fn a_listener_comes_last_in_every_order() {
    let steps: [fn(&mut World); 4] = [
        |world| world.cluster("a"),
        |world| world.endpoints("a", &[1]),
        |world| world.listener("l", "r"),
        |world| world.routes("r", "a"),
    ];
    for order in 0..256_usize {
        let order: Vec<usize> = (0..4).map(|i| order >> (2 * i) & 3).collect();
        if (0..4).any(|step| !order.contains(&step)) {
            continue;
        }
        let mut world = World::new();
        for (position, step) in order.iter().enumerate() {
            steps[*step](&mut world);
            let part = world.poll();
            let listens = part.as_ref().is_some_and(|part| !part.listeners.is_empty());
            assert_eq!(listens, position == 3, "{order:?}");
        }
        assert_eq!(world.poll(), None, "nothing changed since");
        assert_eq!(shape(&world.graph.active), ["a:1", "l->a"]);
    }
}

/// Goal: what is wanted follows what is held. Method: a cluster and a listener come and go.
#[test]
fn wanted_names_follow_their_parents() {
    let mut world = World::serving();
    world.cluster_with("b", "service");
    let names = |set: BTreeSet<Arc<str>>| set.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        names(world.graph.wanted(ResourceType::Endpoint)),
        ["a", "service"]
    );
    assert_eq!(names(world.graph.wanted(ResourceType::Route)), ["r"]);
    world.removed(ResourceType::Listener, "l");
    world.removed(ResourceType::Cluster, "a");
    assert!(world.graph.wanted(ResourceType::Route).is_empty());
    assert_eq!(
        names(world.graph.wanted(ResourceType::Endpoint)),
        ["service"]
    );
    assert!(world.graph.assignments.is_empty() && world.graph.routes.is_empty());
}

/// Goal: a change replaces nothing that works before it is whole (make before break). Method: routes move to a
/// cluster that is not there yet, whose endpoints come last, and the old cluster goes first.
#[test]
fn routes_wait_for_their_clusters() {
    let mut world = World::serving();
    world.removed(ResourceType::Cluster, "a");
    assert_eq!(world.poll(), None, "it is named");
    world.routes("r", "b");
    assert_eq!(world.poll(), None);
    assert_eq!(
        world.graph.state(ResourceType::Listener, "l"),
        State::Warming
    );
    world.cluster("b");
    assert_eq!(world.poll(), None);
    assert_eq!(
        world.graph.state(ResourceType::Cluster, "b"),
        State::Warming
    );
    world.endpoints("b", &[2]);
    assert_eq!(shape(&world.poll().unwrap()), ["b:2", "l->b"]);
    assert_eq!(
        world.graph.state(ResourceType::Listener, "l"),
        State::Active
    );
    assert_eq!(world.graph.deadline(), None);
}

/// Goal: an updated cluster goes on with the endpoints that are known; with another assignment it waits for that one.
/// Method: both.
#[test]
fn an_updated_cluster_keeps_its_endpoints() {
    let mut world = World::serving();
    let source = json!({ "eds_config": { "ads": {} } });
    let json = json!({ "name": "a", "type": "EDS", "eds_cluster_config": source, "connect_timeout": "1s" });
    world.set(ResourceType::Cluster, json);
    let part = world.poll().unwrap();
    assert_eq!(shape(&part), ["a:1", "l->a"]);
    assert_eq!(part.clusters["a"].connect_timeout.as_secs(), 1);
    world.cluster_with("a", "other");
    assert_eq!(world.poll(), None);
    world.endpoints("other", &[7]);
    assert_eq!(shape(&world.poll().unwrap()), ["a:7", "l->a"]);
}

/// Goal: waiting is bounded: routes to a cluster that never comes are used with one that answers 503, and the cluster
/// that comes after all is used. Method: just before the bound, at it, and after.
#[test]
fn waiting_for_a_cluster_is_bounded() {
    let mut world = World::serving();
    world.routes("r", "b");
    assert_eq!(world.poll(), None);
    assert_eq!(world.graph.deadline(), Some(NOW + CLUSTER_WAIT));
    world.now = NOW + CLUSTER_WAIT - Duration::from_millis(1);
    world.routes("r", "b");
    assert_eq!(world.poll(), None, "the same again does not wait anew");
    world.now = NOW + CLUSTER_WAIT;
    assert_eq!(shape(&world.poll().unwrap()), ["a:1", "b:", "l->b"]);
    assert_eq!(world.graph.placeholders().len(), 1);
    assert_eq!(world.graph.deadline(), None);
    world.cluster("b");
    assert_eq!(world.poll(), None, "it has no endpoints yet");
    world.endpoints("b", &[2]);
    assert_eq!(shape(&world.poll().unwrap()), ["a:1", "b:2", "l->b"]);
    assert!(world.graph.placeholders().is_empty());
}

/// Goal: a removed cluster that is named for ever goes after the bound. Method: the same times.
#[test]
fn a_removed_cluster_stays_for_a_while() {
    let mut world = World::serving();
    world.removed(ResourceType::Cluster, "a");
    assert_eq!(world.poll(), None);
    assert_eq!(world.graph.deadline(), Some(NOW + CLUSTER_WAIT));
    world.now = NOW + CLUSTER_WAIT;
    assert_eq!(shape(&world.poll().unwrap()), ["a:", "l->a"]);
    world.cluster("a");
    world.endpoints("a", &[3]);
    assert_eq!(shape(&world.poll().unwrap()), ["a:3", "l->a"]);
}

/// Goal: what does not exist holds nobody up who has nothing to lose. Method: endpoints and routes that are missing,
/// of a new cluster and a new listener; then routes that are missing for a listener that serves.
#[test]
fn what_is_missing_counts_as_empty_for_what_is_new() {
    let mut world = World::new();
    world.cluster("a");
    world.listener("l", "r");
    assert_eq!(world.poll(), None);
    world.missing(ResourceType::Endpoint, "a");
    world.missing(ResourceType::Route, "r");
    assert_eq!(shape(&world.poll().unwrap()), ["a:", "l->"]);
    assert_eq!(world.graph.state(ResourceType::Route, "r"), State::Missing);
    world.routes("r", "a");
    world.endpoints("a", &[1]);
    assert_eq!(shape(&world.poll().unwrap()), ["a:1", "l->a"]);
    // Late news of absence takes nothing away.
    world.missing(ResourceType::Endpoint, "a");
    world.removed(ResourceType::Route, "r");
    assert_eq!(world.poll(), None);
    world.listener("l", "gone");
    world.missing(ResourceType::Route, "gone");
    assert_eq!(world.poll(), None);
    assert_eq!(
        world.graph.state(ResourceType::Listener, "l"),
        State::Warming
    );
}

/// Goal: routes may lead to clusters of the file. Method: such a route, and a file that loses the cluster.
#[test]
fn clusters_of_the_file_count() {
    let mut world = World::new();
    world.of_file.insert("local".into());
    world.listener("l", "r");
    world.routes("r", "local");
    assert_eq!(shape(&world.poll().unwrap()), ["l->local"]);
    world.of_file.clear();
    world.graph.file_changed();
    assert_eq!(shape(&world.poll().unwrap()), ["local:", "l->local"]);
}
