#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    config::model::{
        Balance, Circuit, Cluster, Config, Endpoints, Forward, Forwarded, HashOn, HeaderEdits,
        HostPattern, HttpLimits, HttpTimeouts, Limits, Node, PathPattern, PathRewrite,
        ProxyProtocolIn, Redirect, Respond, Retry, RetryOn, Ring, Route, RouteAction, RouteMatch,
        Shards, StaticEndpoint, Tcp, ValuePattern, WeightedCluster,
    },
    id::Epoch,
    snapshot::Resolution,
};

/// Goal: people read why each route is taken or not, and what becomes of the request. Method: the whole
/// text for a request that passes every kind of route, and of the parts for others.
#[test]
fn text_says_why() {
    let snapshot = snapshot();
    let circumstances = Circumstances {
        client: None,
        now_unix_s: 0,
        unavailable: BTreeSet::from([("pay".into(), "10.0.0.2:80".parse().unwrap())]),
    };
    let request = Typed::new("GET", "Pay.example", "/%70ay/7", &[("cookie", "user=7")]);
    let why = explain(&snapshot, None, &request, &circumstances).unwrap();
    assert_eq!(
        why.to_string(),
        "\
GET Pay.example/%70ay/7
listener  edge on 127.0.0.1:1, epoch 3
host      claimed by pay.example
path      matched as /pay/7
routes
    health    path is not /health  (f.yaml:1:1)
    wild      host matches *.example, but pay.example is more specific  (f.yaml:2:1)
    canary    header x-canary is absent, not `1`  (f.yaml:3:1)
    write     method is not POST or PUT  (f.yaml:4:1)
    debug     query parameter debug is absent, not present  (f.yaml:5:1)
  > pay       taken  (f.yaml:6:1)
    old       path is not /old/**  (f.yaml:7:1)
    fallback  matches, but comes later  (f.yaml:8:1)
sticky    by cookie user: hash b89cce279e7f3f80 falls at 56.44 %
cluster   pay 90 % [0, 3865470566), chosen, maglev
        > 10.0.0.1:80 weight 3, 100 %
          10.0.0.2:80 weight 1, 0 %, unavailable
cluster   pay-v2 10 % [3865470566, 4294967296), not chosen
sent as   inner/v1/7
request   remove x-debug
request   set x-by: gate
answer    append via: gate
timeout   800 ms
retry     at most 1, on connect, 503; budget 10 %; 200 ms per try; after 25 ms and more
hedge     at most 1, of any method, each 50 ms behind the try before; budget 10 %
"
    );
}

/// Goal: every outcome is told. Method: a request for each.
#[test]
fn outcomes_are_told() {
    let snapshot = snapshot();
    let none = Circumstances::default();
    let text = |host: &str, target: &str| {
        let request = Typed::new("GET", host, target, &[]);
        let why = explain(&snapshot, Some("edge"), &request, &none).unwrap();
        assert!(why.consistent);
        why.to_string()
    };
    assert!(text("x", "/health").contains("answer    200 with 2 bytes of text/plain\n"));
    assert!(
        text("pay.example", "/old/x?a=1")
            .contains("answer    301 to https://new.example/old/x?a=1\n")
    );
    let fallback = text("x", "/fallback");
    assert!(fallback.contains("host      claimed by no route; routes without host take part\n"));
    assert!(fallback.contains(
        "cluster   empty 100 %, round_robin\n          no endpoints (no_endpoint, 503)\n"
    ));
    assert!(text("a.example", "/wild/..").contains("path      refused: it has a dot segment\n"));
    assert!(text("a.example", "/wild/..").contains("answer    404: no route matches (no_route)\n"));
}

/// Goal: programs read the same. Method: parts of the JSON.
#[test]
fn json_says_why() {
    let request = Typed::new("GET", "pay.example", "/pay", &[]);
    let why = explain(&snapshot(), None, &request, &Circumstances::default()).unwrap();
    let json = serde_json::to_value(&why).unwrap();
    assert_eq!(json["listener"], "edge");
    assert_eq!(json["routes"][2]["verdict"], "unmatched");
    assert_eq!(json["routes"][2]["part"], "header");
    assert_eq!(json["routes"][5]["verdict"], "taken");
    assert_eq!(json["outcome"]["outcome"], "forward");
    assert_eq!(json["outcome"]["sticky"]["hash"], serde_json::Value::Null);
    assert_eq!(
        json["outcome"]["clusters"][0]["chosen"],
        serde_json::Value::Null
    );
    assert_eq!(
        json["outcome"]["clusters"][0]["share"],
        0.899_999_999_906_867_7
    );
    assert_eq!(json["outcome"]["timeout_ms"], 800);
}

/// Goal: what cannot be explained is said. Method: a missing and a relaying listener, and none for HTTP.
#[test]
fn nothing_to_explain() {
    let mut snapshot = snapshot();
    let request = Typed::new("GET", "x", "/", &[]);
    let none = Circumstances::default();
    let refusal = |snapshot: &Snapshot, name| {
        let explained = explain(snapshot, name, &request, &none);
        explained.unwrap_err().to_string()
    };
    assert_eq!(refusal(&snapshot, Some("x")), "there is no listener `x`");
    assert_eq!(
        refusal(&snapshot, Some("raw")),
        "listener `raw` relays bytes and has no routes"
    );
    snapshot.listeners.retain(|l| &*l.name == "raw");
    assert_eq!(refusal(&snapshot, None), "no listener speaks HTTP");
}

/// A request as typed.
struct Typed {
    method: &'static str,
    host: String,
    path: String,
    query: Option<String>,
    headers: &'static [(&'static str, &'static str)],
}

impl Typed {
    fn new(
        method: &'static str,
        host: &str,
        target: &str,
        headers: &'static [(&'static str, &'static str)],
    ) -> Typed {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Typed {
            method,
            host: host.to_owned(),
            path: path.to_owned(),
            query,
            headers,
        }
    }
}

impl RequestView for Typed {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.headers.iter();
        fields.find(|(n, _)| *n == name).map(|(_, v)| v.as_bytes())
    }
}

fn snapshot() -> Snapshot {
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
        drain_timeout: Duration::ZERO,
        upgrade_timeout: Duration::ZERO,
        listeners: BTreeMap::from([
            ("edge".into(), listener("127.0.0.1:1", http())),
            ("raw".into(), listener("127.0.0.1:2", tcp())),
        ]),
        clusters: BTreeMap::from([
            (
                "pay".into(),
                cluster(Balance::Maglev, &[("10.0.0.1:80", 3), ("10.0.0.2:80", 1)]),
            ),
            (
                "pay-v2".into(),
                cluster(Balance::Random, &[("10.0.1.1:80", 1)]),
            ),
            ("empty".into(), cluster(Balance::RoundRobin, &[])),
        ]),
        secrets: BTreeMap::new(),
        center: None,
        rate_limit_service: None,
        xds: None,
        steering: None,
    };
    let none = Resolution::new();
    Snapshot::compile(Arc::new(config), &none, None, 1, Epoch(3))
}

fn http() -> model::Protocol {
    let pay = || vec![HostPattern::Exact("pay.example".into())];
    let prefix = |prefix: &str| PathPattern::Prefix(prefix.into());
    let matches = |hosts: Vec<HostPattern>, path: PathPattern| RouteMatch {
        hosts,
        path,
        ..RouteMatch::default()
    };
    let empty = || to(&[("empty", 10_000)]);
    let mut canary = matches(pay(), PathPattern::Any);
    canary.headers = vec![("x-canary".into(), ValuePattern::Exact("1".into()))];
    let mut write = matches(pay(), PathPattern::Any);
    write.methods = vec!["POST".into(), "PUT".into()];
    let mut debug = matches(vec![], PathPattern::Any);
    debug.query = vec![("debug".into(), ValuePattern::Present)];
    let health = RouteAction::Respond(Respond {
        status: 200,
        body: "ok".into(),
        content_type: "text/plain".into(),
    });
    let old = RouteAction::Redirect(Redirect {
        status: 301,
        scheme: Some("https".into()),
        host: Some("new.example".into()),
        path: None,
        strip_query: false,
    });
    let routes = [
        (
            "health",
            matches(vec![], PathPattern::Exact("/health".into())),
            health,
        ),
        (
            "wild",
            matches(
                vec![HostPattern::Suffix(".example".into())],
                PathPattern::Any,
            ),
            empty(),
        ),
        ("canary", canary, empty()),
        ("write", write, empty()),
        ("debug", debug, empty()),
        ("pay", matches(pay(), prefix("/pay")), pay_action()),
        ("old", matches(pay(), prefix("/old")), old),
        ("fallback", matches(vec![], PathPattern::Any), empty()),
    ];
    let routes = (1..).zip(routes).map(|(line, (name, matches, action))| {
        let mut route = Route {
            name: name.into(),
            matches,
            rate_limits: Vec::new(),
            global_rate_limits: Vec::new(),
            fault: None,
            action,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            origin: format!("f.yaml:{line}:1").into(),
        };
        if name == "pay" {
            route.request_headers.remove = vec!["x-debug".into()];
            route.request_headers.set = vec![("x-by".into(), "gate".into())];
            route.response_headers.append = vec![("via".into(), "gate".into())];
        }
        route
    });
    model::Protocol::Http(model::Http {
        routes: routes.collect(),
        timeouts: HttpTimeouts::default(),
        limits: HttpLimits::default(),
        forwarded: Forwarded::default(),
    })
}

fn pay_action() -> RouteAction {
    let RouteAction::Forward(forward) = to(&[("pay", 9000), ("pay-v2", 1000)]) else {
        panic!("not a forward");
    };
    RouteAction::Forward(Forward {
        hash: Some(HashOn::Cookie("user".into())),
        path_rewrite: Some(PathRewrite::Prefix("/v1".into())),
        host_rewrite: Some("inner".into()),
        timeout: Some(Duration::from_millis(800)),
        mirrors: Vec::new(),
        retry: Some(Retry {
            on: RetryOn {
                connect: true,
                statuses: vec![503],
                ..RetryOn::default()
            },
            times: 1,
            budget: 1000,
            per_try_timeout: Some(Duration::from_millis(200)),
            backoff: Duration::from_millis(25),
            buffer: 64 << 10,
        }),
        hedge: Some(model::Hedge {
            delay: Duration::from_millis(50),
            times: 1,
            budget: 1000,
            unsafe_methods: true,
            buffer: 64 << 10,
        }),
        ..forward
    })
}

fn to(shares: &[(&str, u32)]) -> RouteAction {
    let shares = shares.iter().map(|(cluster, share)| WeightedCluster {
        cluster: (*cluster).into(),
        share: *share,
        subset: Default::default(),
    });
    RouteAction::Forward(Forward {
        to: shares.collect(),
        hash: None,
        path_rewrite: None,
        host_rewrite: None,
        timeout: None,
        retry: None,
        mirrors: Vec::new(),
        hedge: None,
        grpc_statistics: false,
        priority: Some(crate::limiter::Priority::Normal),
    })
}

fn tcp() -> model::Protocol {
    model::Protocol::Tcp(Tcp {
        to: vec![WeightedCluster {
            cluster: "pay".into(),
            share: 10_000,
            subset: Default::default(),
        }],
        idle_timeout: Duration::ZERO,
        max_age: None,
    })
}

fn listener(bind: &str, protocol: model::Protocol) -> model::Listener {
    model::Listener {
        bind: bind.parse().unwrap(),
        proxy_protocol: ProxyProtocolIn::Off,
        tls: None,
        protocol,
    }
}

fn cluster(balance: Balance, endpoints: &[(&str, u32)]) -> Cluster {
    let endpoints = endpoints
        .iter()
        .map(|(address, weight)| StaticEndpoint::new(address.parse().unwrap(), *weight));
    Cluster {
        endpoints: Endpoints::Static(endpoints.collect()),
        balance,
        failover: Default::default(),
        subsets: None,
        slow_start: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        idle_connections: 1,
        requests_per_connection: None,
        protocol: Default::default(),
        circuit: Circuit::default(),
        health: None,
        proxy_protocol: None,
        tls: None,
        max_connection_age: None,
        heal: None,
        adaptive_limit: None,
    }
}
