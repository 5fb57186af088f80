//! What a resource means, and how it is refused: each from JSON, as an operator would read it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod own;
mod tls;

use std::time::Duration;

use serde_json::{Value as Json, json};
use tidegate_core::config::model::{
    Balance, Endpoints, HashOn, HostPattern, PathPattern, PathRewrite, Probe, Protocol,
    ProxyProtocolIn, RouteAction, ValuePattern,
};

use super::*;

mod balance;

fn of(resource_type: ResourceType, mut json: Json) -> Translated {
    json["@type"] = resource_type.url().into();
    let (found, bytes) = from_json(&json).unwrap();
    assert_eq!(found, resource_type);
    translate(resource_type, resource_type.url(), &bytes)
}

/// What is wrong with a resource, one line each.
fn refused(translated: &Translated) -> Vec<String> {
    let faults = translated.resource.as_ref().expect_err("it was taken");
    faults.iter().map(ToString::to_string).collect()
}

fn warned(translated: &Translated) -> Vec<&str> {
    translated
        .warnings
        .iter()
        .map(|fault| fault.path.as_str())
        .collect()
}

fn cluster(json: Json) -> Cluster {
    match of(ResourceType::Cluster, json).resource.unwrap() {
        Resource::Cluster(cluster) => *cluster,
        other => panic!("{other:?}"),
    }
}

fn routes(json: Json) -> Vec<model::Route> {
    let configuration = json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": json }] });
    match of(ResourceType::Route, configuration).resource.unwrap() {
        Resource::Routes(routes) => routes,
        other => panic!("{other:?}"),
    }
}

fn listener(json: Json) -> Listener {
    match of(ResourceType::Listener, json).resource.unwrap() {
        Resource::Listener(listener) => *listener,
        other => panic!("{other:?}"),
    }
}

fn socket(port: u16) -> Json {
    json!({ "socket_address": { "address": "10.0.0.1", "port_value": port } })
}

fn lb(port: u16) -> Json {
    json!({ "endpoint": { "address": socket(port) } })
}

/// Goal: a cluster means what it says. Method: one with all that is taken.
#[test]
fn a_cluster_is_taken() {
    let made = cluster(json!({
        "name": "outbound|80||pay", "type": "EDS",
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" }, "service_name": "pay" },
        "connect_timeout": "0.5s", "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": { "slow_start_config": { "slow_start_window": "30s" } },
        "circuit_breakers": { "thresholds": [
            { "max_connections": 7, "max_requests": 8 }, { "priority": "HIGH", "max_requests": 1 } ] },
        "health_checks": [{ "timeout": "1s", "interval": "2s", "healthy_threshold": 2, "unhealthy_threshold": 3,
            "http_health_check": { "path": "/up", "expected_statuses": [{ "start": 200, "end": 300 }] } }],
        "outlier_detection": { "base_ejection_time": "7s", "max_ejection_percent": 30, "interval": "1s" },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http_protocol_options": {} },
            "common_http_protocol_options": { "idle_timeout": "9s", "max_requests_per_connection": 5 } } },
    }));
    assert_eq!(made.assignment.as_deref(), Some("pay"));
    let config = made.config;
    assert_eq!(config.connect_timeout.as_millis(), 500);
    assert_eq!(config.balance, Balance::LeastRequest);
    assert_eq!(config.slow_start.as_secs(), 30);
    assert_eq!(
        (config.circuit.connections, config.circuit.requests),
        (7, 8)
    );
    let health = config.health.unwrap();
    assert_eq!((health.healthy_after, health.unhealthy_after), (2, 3));
    assert!(matches!(health.probe, Probe::Http { expect, .. } if expect == [(200, 299)]));
    let heal = config.heal.unwrap();
    let outlier = heal.ejection.outlier.as_ref().unwrap();
    assert_eq!(
        (outlier.interval.as_secs(), outlier.consecutive_5xx),
        (1, 5)
    );
    assert_eq!(
        (
            heal.ejection.base_ejection.as_secs(),
            heal.ejection.max_ejection_percent
        ),
        (7, 30)
    );
    assert_eq!(
        (
            config.idle_timeout.as_secs(),
            config.requests_per_connection
        ),
        (9, Some(5))
    );
}

/// Goal: what Envoy has as a default is its default here. Method: the shortest cluster.
#[test]
fn defaults_are_envoys() {
    let made = cluster(json!({ "name": "a", "type": "STATIC" }));
    assert_eq!(made.config.connect_timeout.as_secs(), 5);
    assert_eq!(made.config.balance, Balance::RoundRobin);
    assert_eq!(
        (
            made.config.circuit.connections,
            made.config.circuit.requests
        ),
        (1024, 1024)
    );
    assert_eq!(made.config.endpoints, Endpoints::Static(Vec::new()));
    let Protocol::Http(http) = listener(http(json!([]))).config.protocol else {
        panic!()
    };
    assert_eq!(http.forwarded.x_forwarded, model::XForwarded::Preserve);
    let RouteAction::Forward(forward) = &routes(json!([
        { "match": { "prefix": "/" }, "route": { "cluster": "a" } } ]))[0]
        .action
        .clone()
    else {
        panic!()
    };
    assert_eq!(forward.timeout.unwrap().as_secs(), 15);
    assert_eq!(forward.retry, None);
}

/// Goal: endpoints are spoken to in HTTP/2 where a cluster says so, and asked for their health by gRPC. Method: such a
/// cluster, and one that asks by gRPC without HTTP/2.
#[test]
fn endpoints_in_http2_are_taken() {
    let mut json = json!({ "name": "a", "type": "STATIC",
        "health_checks": [{ "timeout": "1s", "interval": "2s", "healthy_threshold": 1, "unhealthy_threshold": 1,
            "grpc_health_check": { "service_name": "pay", "authority": "pay.example" } }] });
    let without = refused(&of(ResourceType::Cluster, json.clone()));
    assert_eq!(
        without,
        ["health_checks: gRPC needs `http2_protocol_options` towards the endpoints"]
    );
    json["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} } } });
    let config = cluster(json).config;
    assert_eq!(config.protocol, model::UpstreamProtocol::Http2);
    let probe = config.health.unwrap().probe;
    assert_eq!(
        probe,
        Probe::Grpc {
            service: "pay".into(),
            host: Some("pay.example".into())
        }
    );
}

/// Goal: names are looked up, one a cluster; addresses are not. Method: each.
#[test]
fn names_are_looked_up() {
    let dns = |endpoints: Json| {
        json!({ "name": "a", "type": "STRICT_DNS", "dns_refresh_rate": "7s",
        "load_assignment": { "cluster_name": "a", "endpoints": [{ "lb_endpoints": endpoints }] } })
    };
    let name = json!({ "endpoint": { "address": { "socket_address": { "address": "pay.internal", "port_value": 80 } } } });
    let made = cluster(dns(json!([name])));
    let Endpoints::Dns {
        host,
        port,
        refresh,
    } = made.config.endpoints
    else {
        panic!()
    };
    assert_eq!((&*host, port, refresh.as_secs()), ("pay.internal", 80, 7));
    assert!(
        matches!(cluster(dns(json!([lb(1), lb(2)]))).config.endpoints, Endpoints::Static(two) if two.len() == 2)
    );
    let two = refused(&of(ResourceType::Cluster, dns(json!([name, lb(1)]))));
    assert_eq!(
        two,
        ["load_assignment.endpoints: only one name can be looked up for a cluster"]
    );
}

/// Goal: endpoints come with weight, zone and labels, and it is known who is out of rotation. Method: one of each, and
/// weights beyond the model's.
#[test]
fn an_assignment_is_taken() {
    let assignment = |endpoints: Json| json!({ "cluster_name": "a", "endpoints": endpoints });
    let made = of(
        ResourceType::Endpoint,
        assignment(json!([
        { "locality": { "zone": "z1", "region": "r" }, "lb_endpoints": [
            { "endpoint": { "address": socket(1) }, "load_balancing_weight": 1000,
              "metadata": { "filter_metadata": { "envoy.lb": { "version": "v2", "n": 1 }, "istio": {} } } },
            { "endpoint": { "address": socket(2) }, "load_balancing_weight": 500 },
            { "endpoint": { "address": socket(3) }, "load_balancing_weight": 1 },
            { "endpoint": { "address": socket(4) }, "health_status": "DRAINING" },
            { "endpoint": { "address": socket(1) } },
        ] } ])),
    );
    assert_eq!(made.name, "a");
    assert_eq!(
        warned(&made),
        [
            "endpoints[0].locality.region",
            "endpoints[0].lb_endpoints[4].endpoint"
        ]
    );
    let Resource::Assignment(taken) = made.resource.unwrap() else {
        panic!()
    };
    assert_eq!(taken.overprovisioning, None);
    let endpoints = taken.endpoints;
    let weights: Vec<_> = endpoints
        .iter()
        .map(|one| (one.address.port(), one.weight))
        .collect();
    assert_eq!(weights, [(1, 128), (2, 64), (3, 1), (4, 1)]);
    let out: Vec<_> = endpoints.iter().map(|one| one.is_out).collect();
    assert_eq!(out, [false, false, false, true]);
    assert_eq!(&*endpoints[0].zone, "z1");
    let labels: Vec<_> = endpoints[0]
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(labels, ["version=v2"]);
    let refusal = of(
        ResourceType::Endpoint,
        assignment(json!([{ "priority": 128, "lb_endpoints": [
        { "endpoint": { "address": { "pipe": { "path": "/a" } } } } ] }])),
    );
    assert_eq!(
        refused(&refusal),
        [
            "endpoints[0].lb_endpoints[0].endpoint.address.pipe: is not supported",
            "endpoints[0].priority: is more than 127",
            "endpoints[0].lb_endpoints[0].endpoint: has no address",
        ]
    );
}

/// A listener with HTTP and inline routes.
fn http(routes: Json) -> Json {
    json!({ "name": "edge", "address": { "socket_address": { "address": "127.0.0.1", "port_value": 80 } },
        "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "s",
            "route_config": { "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": routes }] },
            "http_filters": [{ "name": "router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }] } }] }] })
}

/// Goal: an HTTP listener means what it says; its routes come from the stream or stand in it. Method: both.
#[test]
fn an_http_listener_is_taken() {
    let mut json = http(json!([{ "match": { "prefix": "/" }, "route": { "cluster": "a" } }]));
    json["listener_filters"] = json!([{ "name": "p", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" } }]);
    let made = listener(json.clone());
    assert_eq!(made.routes, None);
    assert_eq!(made.config.bind.to_string(), "127.0.0.1:80");
    assert_eq!(made.config.proxy_protocol, ProxyProtocolIn::Require);
    let Protocol::Http(http) = made.config.protocol else {
        panic!()
    };
    assert_eq!(http.routes.len(), 1);
    let hcm = &mut json["filter_chains"][0]["filters"][0]["typed_config"];
    hcm.as_object_mut().unwrap().remove("route_config");
    hcm["rds"] = json!({ "route_config_name": "r1", "config_source": { "ads": {} } });
    hcm["use_remote_address"] = true.into();
    hcm["stream_idle_timeout"] = "3s".into();
    hcm["request_headers_timeout"] = "4s".into();
    hcm["common_http_protocol_options"] = json!({ "idle_timeout": "5s", "max_headers_count": 50 });
    hcm["max_request_headers_kb"] = 16.into();
    let made = listener(json);
    assert_eq!(made.routes.as_deref(), Some("r1"));
    let Protocol::Http(http) = made.config.protocol else {
        panic!()
    };
    let times = [
        http.timeouts.idle,
        http.timeouts.header,
        http.timeouts.keep_alive,
    ];
    assert_eq!(times.map(|time| time.as_secs()), [3, 4, 5]);
    assert_eq!(
        (http.limits.header_fields, http.limits.header_list),
        (50, 16 << 10)
    );
    assert_eq!(http.forwarded.x_forwarded, model::XForwarded::Append);
}

/// Goal: a byte relay is taken with its split. Method: weights that do not divide.
#[test]
fn a_relay_is_taken() {
    let made = listener(
        json!({ "name": "db", "address": socket(5432), "filter_chains": [{ "filters": [{ "name": "t",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "s", "weighted_clusters": { "clusters": [
                { "name": "a", "weight": 1 }, { "name": "b", "weight": 1 }, { "name": "c", "weight": 1 } ] } } }] }] }),
    );
    let Protocol::Tcp(tcp) = made.config.protocol else {
        panic!()
    };
    let shares: Vec<u32> = tcp.to.iter().map(|one| one.share).collect();
    assert_eq!(shares, [3334, 3333, 3333]);
    assert_eq!(tcp.idle_timeout.as_secs(), 3600);
}

/// Goal: every kind of path matches the bytes that Envoy's does. Method: table.
#[test]
fn paths_are_matched_as_by_envoy() {
    let regex = |text: &str| PathPattern::Regex(text.into());
    for (path, expected) in [
        (json!({ "prefix": "/" }), PathPattern::Any),
        (json!({ "prefix": "/a.b" }), regex(r"(?s)/a\.b.*")),
        (
            json!({ "prefix": "/a", "case_sensitive": false }),
            regex("(?s)(?i)/a.*"),
        ),
        (json!({ "path": "/a" }), PathPattern::Exact("/a".into())),
        (
            json!({ "path": "/a", "case_sensitive": false }),
            regex("(?i)/a"),
        ),
        (
            json!({ "path_separated_prefix": "/a" }),
            PathPattern::Prefix("/a".into()),
        ),
        (
            json!({ "safe_regex": { "regex": "/v[12]/.*" } }),
            regex("/v[12]/.*"),
        ),
    ] {
        let made = routes(json!([{ "match": path, "route": { "cluster": "a" } }]));
        assert_eq!(made[0].matches.path, expected);
        assert_eq!(made[0].matches.hosts, [HostPattern::Any]);
    }
}

/// Goal: conditions on headers and parameters are those of the model, or refused. Method: table.
#[test]
fn conditions_are_taken() {
    let made = routes(json!([{ "match": { "prefix": "/", "headers": [
            { "name": ":method", "string_match": { "exact": "POST" } },
            { "name": "X-A", "string_match": { "prefix": "p" } },
            { "name": "x-b", "present_match": true, "invert_match": true },
            { "name": "x-c", "string_match": { "contains": "C", "ignore_case": true } },
            { "name": "x-d" },
        ], "query_parameters": [ { "name": "q", "string_match": { "exact": "1" } } ],
        "runtime_fraction": { "default_value": { "numerator": 100 } } }, "route": { "cluster": "a" } }]));
    let matches = &made[0].matches;
    assert_eq!(matches.methods, [Arc::<str>::from("POST")]);
    assert_eq!(
        matches.headers,
        [
            ("x-a".into(), ValuePattern::Prefix("p".into())),
            ("x-b".into(), ValuePattern::Absent),
            ("x-c".into(), ValuePattern::Regex("(?is).*C.*".into())),
            ("x-d".into(), ValuePattern::Present),
        ]
    );
    assert_eq!(
        matches.query,
        [("q".into(), ValuePattern::Exact("1".into()))]
    );
}

/// Goal: retries by statuses of gRPC and hedging mean what they say. Method: a route with both, one whose hedging can do
/// nothing, and one without a policy for it.
#[test]
fn tries_of_calls_are_taken() {
    let route = |name: &str, retry: Json, hedge: Json| {
        json!({ "name": name, "match": { "path": format!("/{name}") },
                "route": { "cluster": "a", "retry_policy": retry, "hedge_policy": hedge } })
    };
    let on = "unavailable,cancelled,unavailable,deadline-exceeded,internal,resource-exhausted";
    let hedge = json!({ "hedge_on_per_try_timeout": true });
    let timed = json!({ "retry_on": on, "num_retries": 9, "per_try_timeout": "0.1s" });
    let configuration = json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [
        route("both", timed.clone(), hedge.clone()),
        route("untimed", json!({ "retry_on": on }), hedge),
        route("off", timed, json!({})),
    ] }] });
    let Resource::Routes(made) = of(ResourceType::Route, configuration).resource.unwrap() else {
        panic!()
    };
    let forwards: Vec<_> = made
        .iter()
        .map(|route| match &route.action {
            RouteAction::Forward(forward) => forward,
            _ => panic!(),
        })
        .collect();
    for forward in &forwards {
        let retry = forward.retry.as_ref().unwrap();
        assert_eq!(retry.on.grpc_statuses, [1, 4, 8, 13, 14]);
    }
    let hedge = forwards[0].hedge.as_ref().unwrap();
    assert_eq!((hedge.delay, hedge.times), (Duration::from_millis(100), 4));
    assert!(hedge.unsafe_methods);
    let per_try = |at: usize| forwards[at].retry.as_ref().unwrap().per_try_timeout;
    assert_eq!((per_try(0), per_try(1)), (None, None));
    assert_eq!(per_try(2), Some(Duration::from_millis(100)));
    assert_eq!((&forwards[1].hedge, &forwards[2].hedge), (&None, &None));
}

/// Goal: actions mean what they say. Method: a split with rewrite, hash, retries and headers of three levels; a
/// redirect; an answer.
#[test]
fn actions_are_taken() {
    let configuration = json!({
        "name": "r",
        "response_headers_to_add": [{ "header": { "key": "X-L", "value": "config 100%%" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }],
        "virtual_hosts": [{
            "name": "v", "domains": ["a.example", "a.example:443", "*.b.example"],
            "retry_policy": { "retry_on": "connect-failure,retriable-status-codes", "retriable_status_codes": [503], "num_retries": 2 },
            "request_headers_to_add": [{ "header": { "key": "x-v", "value": "1" } }],
            "routes": [
                { "name": "split", "match": { "prefix": "/a/" },
                  "route": { "weighted_clusters": { "clusters": [
                      { "name": "b", "weight": 30 }, { "name": "a", "weight": 10 }, { "name": "c", "weight": 0 } ] },
                      "prefix_rewrite": "/$x/", "timeout": "0s", "hash_policy": [{ "cookie": { "name": "s" } }] },
                  "response_headers_to_add": [{ "header": { "key": "x-l", "value": "route" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }],
                  "request_headers_to_remove": ["x-secret"] },
                { "match": { "path": "/b" }, "redirect": { "https_redirect": true, "response_code": "FOUND", "host_redirect": "c.example", "port_redirect": 8443 } },
                { "match": { "safe_regex": { "regex": "/c/(.*)" } }, "route": { "cluster": "a", "host_rewrite_literal": "in.example",
                  "regex_rewrite": { "pattern": { "regex": "/c/(.*)" }, "substitution": "/d/\\1" } } },
                { "match": { "prefix": "/" }, "direct_response": { "status": 418, "body": { "inline_string": "tea" } } },
            ] },
            { "name": "empty", "domains": ["empty.example"] }],
    });
    let Resource::Routes(made) = of(ResourceType::Route, configuration).resource.unwrap() else {
        panic!()
    };
    let names: Vec<&str> = made.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["split", "v/2", "v/3", "v/4", "empty/1"]);
    assert_eq!(
        made[0].matches.hosts,
        [
            HostPattern::Exact("a.example".into()),
            HostPattern::Suffix(".b.example".into())
        ]
    );
    let RouteAction::Forward(forward) = &made[0].action else {
        panic!()
    };
    let split: Vec<_> = forward
        .to
        .iter()
        .map(|one| (&*one.cluster, one.share))
        .collect();
    assert_eq!(split, [("a", 2500), ("b", 7500)]);
    assert_eq!(forward.timeout, None);
    assert_eq!(forward.hash, Some(HashOn::Cookie("s".into())));
    assert_eq!(
        forward.path_rewrite,
        Some(PathRewrite::Regex {
            pattern: "^/a/".into(),
            replacement: "/$$x/".into()
        })
    );
    let retry = forward.retry.as_ref().unwrap();
    assert_eq!(
        (retry.times, retry.on.connect, &retry.on.statuses[..]),
        (2, true, &[503][..])
    );
    assert_eq!(
        made[0].response_headers.set,
        [("x-l".into(), "config 100%".into())]
    );
    assert_eq!(made[0].request_headers.append, [("x-v".into(), "1".into())]);
    assert_eq!(
        made[0].request_headers.remove,
        [Arc::<str>::from("x-secret")]
    );
    assert_eq!(&*made[0].origin, "xds:r:virtual_hosts[0].routes[0]");
    let RouteAction::Redirect(redirect) = &made[1].action else {
        panic!()
    };
    assert_eq!(
        (
            redirect.status,
            redirect.scheme.as_deref(),
            redirect.host.as_deref()
        ),
        (302, Some("https"), Some("c.example:8443"))
    );
    let RouteAction::Forward(forward) = &made[2].action else {
        panic!()
    };
    assert_eq!(
        forward.path_rewrite,
        Some(PathRewrite::Regex {
            pattern: "/c/(.*)".into(),
            replacement: "/d/${1}".into()
        })
    );
    assert_eq!(forward.host_rewrite.as_deref(), Some("in.example"));
    assert!(
        matches!(&made[3].action, RouteAction::Respond(respond) if respond.status == 418 && &*respond.body == "tea")
    );
    assert!(matches!(&made[4].action, RouteAction::Respond(respond) if respond.status == 404));
}

/// Goal: what is not supported is refused by name, with its path, and all of it at once; what may be ignored is told.
/// Method: table.
#[test]
fn what_is_not_supported_is_named() {
    let route = |fields: Json| {
        let mut route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "a" } });
        for (key, value) in fields.as_object().unwrap() {
            route[key] = value.clone();
        }
        json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [route] }] })
    };
    let at = "virtual_hosts[0].routes[0]";
    for (resource_type, json, faults) in [
        (ResourceType::Cluster, json!({ "name": "a", "connect_timeout": "-1s" }), vec!["connect_timeout: -1.000000000s is negative or malformed".to_owned()]),
        (ResourceType::Cluster, json!({ "name": "a", "lb_policy": "CLUSTER_PROVIDED", "filters": [{}] }), vec!["filters: is not supported".into(), "lb_policy: CLUSTER_PROVIDED is not supported".into()]),
        (ResourceType::Cluster, json!({ "type": "EDS" }), vec!["name: is empty".into(), "eds_cluster_config: is missing: the type is EDS".into()]),
        (ResourceType::Cluster, json!({ "name": "a", "type": "EDS", "eds_cluster_config": { "eds_config": { "api_config_source": {} } } }),
            vec!["eds_cluster_config.eds_config.api_config_source: is not supported".into(), "eds_cluster_config.eds_config: is none of `ads`, `self` and `path_config_source`: resources come by the stream, or from a file".into()]),
        (ResourceType::Cluster, json!({ "name": "a", "type": "EDS", "eds_cluster_config": { "eds_config": { "path": "/x.pb_text" } } }),
            vec!["eds_cluster_config.eds_config.path: is protobuf in text, which is not supported: write YAML, JSON or `.pb`".into()]),
        (ResourceType::Route, route(json!({ "route": { "cluster_header": "x" } })), vec![format!("{at}.route.cluster_header: is not supported"), format!("{at}.route: names no cluster")]),
        (ResourceType::Route, route(json!({ "match": { "path": "a" } })), vec![format!("{at}.match.path: does not begin with `/`")]),
        (ResourceType::Route, route(json!({ "match": { "safe_regex": { "regex": "(?=a)" } } })), vec![format!("{at}.match.safe_regex.regex: look-around, including look-ahead and look-behind, is not supported")]),
        (ResourceType::Route, route(json!({ "typed_per_filter_config": { "x": { "@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s" } } })), vec![format!("{at}.typed_per_filter_config[\"x\"]: google.protobuf.Duration is not supported"), format!("{at}.typed_per_filter_config[\"x\"]: Duration is not supported")]),
        (ResourceType::Route, route(json!({ "request_headers_to_add": [{ "header": { "key": "x", "value": "%START_TIME%" } }] })),
            vec![format!("{at}.request_headers_to_add[0].header.value: substitutions between percent signs are not supported")]),
        (ResourceType::Route, route(json!({ "match": { "prefix": "/", "headers": [{ "name": "a", "invert_match": true, "string_match": { "exact": "x" } }] } })),
            vec![format!("{at}.match.headers[0].invert_match: is only supported with `present_match`")]),
        (ResourceType::Route, json!({ "name": "r", "virtual_hosts": [ { "name": "v", "domains": ["a"] }, { "name": "w", "domains": ["A"] } ] }),
            vec!["virtual_hosts[1].domains[0]: `A` is a domain of virtual host `v`, too".into()]),
    ] {
        assert_eq!(refused(&of(resource_type, json)), faults);
    }
    let mut filters = http(json!([]));
    let hcm = &mut filters["filter_chains"][0]["filters"][0]["typed_config"];
    hcm["tracing"] = json!({});
    let router = hcm["http_filters"][0].clone();
    // Of a type that the descriptors do know, so that it can be written as JSON here.
    let other = json!({ "name": "x", "typed_config": { "@type": "type.googleapis.com/envoy.config.core.v3.Locality", "region": "r" } });
    let mut optional = other.clone();
    optional["is_optional"] = true.into();
    hcm["http_filters"] = json!([optional, router]);
    let made = of(ResourceType::Listener, filters.clone());
    let hcm_at = "filter_chains[0].filters[0].typed_config";
    let warnings =
        ["tracing", "http_filters[0]", "stat_prefix"].map(|field| format!("{hcm_at}.{field}"));
    let mut told = warned(&made);
    told.sort_unstable();
    let mut expected: Vec<&str> = warnings.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(told, expected);
    filters["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"] =
        json!([other, router]);
    let made = refused(&of(ResourceType::Listener, filters));
    assert!(
        made.contains(&format!(
            "{hcm_at}.http_filters[0].typed_config: Locality is not supported"
        )),
        "{made:?}"
    );
}

/// Goal: a resource of another type, bytes that are none, and a flood of faults are refused within bounds. Method:
/// one of each.
#[test]
fn foreign_bytes_are_refused() {
    let url = ResourceType::Cluster.url();
    let made = translate(ResourceType::Listener, url, &[]);
    assert_eq!(
        refused(&made),
        ["is a envoy.config.cluster.v3.Cluster, not a listener"]
    );
    let made = translate(ResourceType::Cluster, url, &[0xff]);
    assert!(
        refused(&made)[0].starts_with("cannot be decoded"),
        "{made:?}"
    );
    let many = json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"],
        "routes": vec![json!({ "match": { "prefix": "x" } }); 100] }] });
    let faults = refused(&of(ResourceType::Route, many));
    assert_eq!(faults.len(), FAULTS_MAX + 1);
    assert_eq!(faults.last().map(String::as_str), Some("and more"));
}
