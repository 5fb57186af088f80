//! Good files mean what they say: defaults, shorthands, every key; and the model says it back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{collections::BTreeMap, time::Duration};

use tidegate_core::{
    config::{self, Diagnostic, model::*},
    healing::{ejection, outlier::Outlier},
    limiter::{Policy, Priority, bucket::Rate, watermark::Signal},
};

const EVERYTHING: &str = include_str!("config/everything.yaml");

const EXAMPLES: &[(&str, &str)] = &[
    ("gateway.yaml", include_str!("../../examples/gateway.yaml")),
    ("sidecar.yaml", include_str!("../../examples/sidecar.yaml")),
    ("tcp.yaml", include_str!("../../examples/tcp.yaml")),
    (
        "encryption.yaml",
        include_str!("../../examples/encryption.yaml"),
    ),
    (
        "static-answers.yaml",
        include_str!("../../examples/static-answers.yaml"),
    ),
];

fn parse(text: &str) -> (Config, Vec<Diagnostic>) {
    config::parse("test.yaml", text).unwrap_or_else(|found| panic!("{found:#?}"))
}

fn http<'c>(config: &'c Config, listener: &str) -> &'c Http {
    match &config.listeners[listener].protocol {
        Protocol::Http(http) => http,
        Protocol::Tcp(_) => panic!("{listener} is tcp"),
    }
}

fn forward(route: &Route) -> &Forward {
    match &route.action {
        RouteAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

/// Goal: what ships as an example, and what runs without a file, is without fault. Method: no error and
/// no warning.
#[test]
fn examples_are_without_fault() {
    let endpoints = [
        "127.0.0.1:5001".parse().unwrap(),
        "[::1]:5002".parse().unwrap(),
    ];
    let demo = config::demo_config(&endpoints, "127.0.0.1:5003".parse().unwrap());
    let built_in = [("default", config::embedded_default()), ("demo", &demo)];
    for (name, text) in EXAMPLES.iter().chain(&built_in) {
        let (_, warnings) = parse(text);
        assert_eq!(warnings, [], "{name}");
    }
    let (demo, _) = parse(&demo);
    let Endpoints::Static(shop) = &demo.clusters["shop"].endpoints else {
        panic!()
    };
    assert_eq!(
        shop.iter().map(|one| one.address).collect::<Vec<_>>(),
        endpoints
    );
}

/// Goal: a file without settings has the defaults of the model. Method: the smallest listener and
/// cluster, compared with `Default` where the model has one.
#[test]
fn defaults_are_the_models() {
    let text = "version: 1\nlisteners:\n  web: { bind: 127.0.0.1:80, routes: [ { to: a, retry: {} } ] }\n  \
                db: { bind: 127.0.0.1:81, protocol: tcp, to: a }\nclusters: { a: { endpoints: { static: [10.0.0.1:80] } } }\n";
    let (config, warnings) = parse(text);
    assert_eq!(warnings, []);
    assert_eq!(config.node, Node::default());
    assert_eq!(
        config.shards,
        Shards {
            cpus: vec![],
            count: None,
            ring: Ring::default()
        }
    );
    assert_eq!(config.admin, Some("127.0.0.1:9901".parse().unwrap()));
    assert_eq!(
        (config.access_log.clone(), config.limits),
        (None, Limits::default())
    );
    assert_eq!(config.drain_timeout, Duration::from_secs(25));
    assert_eq!(config.upgrade_timeout, Duration::from_secs(20));
    let web = http(&config, "web");
    assert_eq!(
        (web.timeouts, web.limits),
        (HttpTimeouts::default(), HttpLimits::default())
    );
    assert_eq!(web.forwarded, Forwarded::default());
    let route = &web.routes[0];
    assert_eq!((&*route.name, &*route.origin), ("web/1", "test.yaml:3:40"));
    assert_eq!(route.matches, RouteMatch::default());
    let retry = Retry {
        on: RetryOn {
            connect: true,
            reset: true,
            ..RetryOn::default()
        },
        times: 1,
        budget: 2000,
        per_try_timeout: None,
        backoff: Duration::from_millis(25),
        buffer: 64 << 10,
    };
    let to = vec![WeightedCluster {
        cluster: "a".into(),
        share: 10_000,
        subset: Default::default(),
    }];
    let expected = Forward {
        to: to.clone(),
        hash: None,
        path_rewrite: None,
        host_rewrite: None,
        timeout: Some(Duration::from_secs(15)),
        retry: Some(retry),
        mirrors: Vec::new(),
        hedge: None,
        grpc_statistics: false,
        priority: Some(Priority::Normal),
    };
    assert_eq!(forward(route), &expected);
    let db = Tcp {
        to,
        idle_timeout: Duration::from_secs(3600),
        max_age: None,
    };
    assert_eq!(config.listeners["db"].protocol, Protocol::Tcp(db));
    assert_eq!(config.listeners["db"].proxy_protocol, ProxyProtocolIn::Off);
    let cluster = Cluster {
        endpoints: Endpoints::Static(vec![StaticEndpoint::new("10.0.0.1:80".parse().unwrap(), 1)]),
        balance: Balance::RoundRobin,
        failover: Default::default(),
        subsets: None,
        slow_start: Duration::ZERO,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        idle_connections: 1024,
        requests_per_connection: None,
        protocol: Default::default(),
        circuit: Circuit::default(),
        health: None,
        proxy_protocol: None,
        tls: None,
        max_connection_age: None,
        heal: None,
        adaptive_limit: None,
    };
    assert_eq!(config.clusters["a"], cluster);
}

/// Goal: every key lands in its field. Method: a file with all of them, field by field.
#[test]
fn every_key_of_the_process_lands_in_its_field() {
    let (config, mut warnings) = parse(EVERYTHING);
    // A route leads to the exclusive group of the steering program.
    warnings.retain(|found| found.code != "TG-C120");
    assert_eq!(warnings, []);
    let node = Node {
        id: "gw-1".into(),
        app: "pay-gateway".into(),
        zone: "hz-a".into(),
        labels: BTreeMap::from([("stage".into(), "canary".into())]),
    };
    assert_eq!(config.node, node);
    let ring = Ring {
        submission_entries: 512,
        completion_entries: 2048,
        head_buffers: 128,
        head_buffer_bytes: 2048,
        body_buffers: 16,
        body_buffer_bytes: 32 << 10,
        busy_poll: Duration::from_micros(50),
    };
    assert_eq!(
        config.shards,
        Shards {
            cpus: vec![2, 3, 4, 8],
            count: Some(3),
            ring
        }
    );
    assert_eq!(config.admin, Some("[::1]:9901".parse().unwrap()));
    let path = Some("/var/log/tidegate/access.log".to_owned());
    assert_eq!(
        config.access_log,
        Some(AccessLog {
            path,
            format: AccessLogFormat::Json
        })
    );
    let limits = Limits {
        connections: 1000,
        buffers: 128 << 20,
        connection_buffer: 64 << 10,
    };
    assert_eq!(config.limits, limits);
    let center = Center {
        addresses: vec!["center.internal:9902".into(), "10.0.0.9:9902".into()],
        token_file: Some("/etc/tidegate/token".into()),
        fronts: vec!["10.0.0.1:8080".parse().unwrap()],
        restart: Some(Restart {
            hook: Hook::Unix("/run/app.sock".into(), "/restart".into()),
            timeout: Duration::from_secs(10),
        }),
    };
    assert_eq!(config.center.as_deref(), Some(&center));
    let hooks = [
        (
            "command: [systemctl, restart, app]",
            Hook::Command(vec!["systemctl".into(), "restart".into(), "app".into()]),
        ),
        (
            "http: 127.0.0.1:9000",
            Hook::Http("127.0.0.1:9000".parse().unwrap(), "/".into()),
        ),
    ];
    for (text, hook) in hooks {
        let text = format!("version: 1\ncenter: {{ addresses: [a:1], restart: {{ {text} }} }}\n");
        let center = parse(&text).0.center.unwrap();
        let expected = Restart {
            hook,
            timeout: Duration::from_secs(30),
        };
        assert_eq!(center.restart, Some(expected), "{text}");
        assert_eq!((center.fronts.len(), center.token_file), (0, None));
    }
    assert_eq!(config.drain_timeout, Duration::from_secs(90));
    let pay = &config.clusters["pay"];
    assert_eq!((pay.balance, pay.idle_connections), (Balance::Maglev, 64));
    assert_eq!(pay.requests_per_connection, Some(500));
    assert_eq!(
        pay.circuit,
        Circuit {
            connections: 200,
            requests: 400
        }
    );
    let probe = Probe::Http {
        path: "/health?deep=1".into(),
        host: Some("pay.internal".into()),
        expect: vec![(200, 299), (304, 304)],
    };
    let health = HealthCheck {
        probe,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        healthy_after: 1,
        unhealthy_after: 5,
    };
    assert_eq!(pay.health.as_ref(), Some(&health));
    let heal = Heal {
        mode: PolicyMode::Shadow,
        ejection: ejection::Settings {
            max_ejection_percent: 20,
            common_mode_percent: 40,
            base_ejection: Duration::from_secs(2),
            max_ejection: Duration::from_secs(600),
            forgive_after: Duration::from_secs(90),
            ..ejection::Settings::default()
        },
        slow_start: Duration::from_secs(7),
    };
    assert_eq!(pay.heal.as_ref(), Some(&heal));
    let mut policy = Policy {
        trigger_ticks: 3,
        floor: 2,
        ..Policy::default()
    };
    for (signal, target) in [
        (Signal::Cpu, 0.7),
        (Signal::PsiCpu, 0.3),
        (Signal::PsiMemory, 0.0),
        (Signal::Memory, 0.85),
        (Signal::LoopLag, 0.005),
        (Signal::InFlight, 500.0),
        (Signal::App, 0.95),
    ] {
        policy.targets.set(signal, target);
    }
    let limit = AdaptiveLimit {
        canary: Some(Canary {
            basis_points: 2_500,
            labels: BTreeMap::from([("stage".into(), "canary".into())]),
        }),
        mode: PolicyMode::Shadow,
        scope: Scope::Cgroup("/app.slice".into()),
        policy,
        priority_header: Some("x-priority".into()),
        caller_header: Some("x-caller".into()),
    };
    assert_eq!(pay.adaptive_limit.as_deref(), Some(&limit));
    let named = config.clusters["named"].adaptive_limit.as_deref();
    assert_eq!(named.map(|limit| &limit.scope), Some(&Scope::Pid(4711)));
    let share = named.and_then(|limit| limit.canary.as_ref());
    assert_eq!(share.map(|c| c.basis_points), Some(500));
    let pay_v2 = config.clusters["pay-v2"].adaptive_limit.as_deref();
    let defaults = AdaptiveLimit {
        scope: Scope::Own,
        ..AdaptiveLimit::default()
    };
    assert_eq!(pay_v2, Some(&defaults));
    let all_defaults =
        parse("version: 1\nclusters: { a: { endpoints: { static: [10.0.0.1:80] }, heal: {} } }\n")
            .0
            .clusters["a"]
            .heal
            .clone();
    let defaults = Heal {
        slow_start: Duration::from_secs(5),
        ..Heal::default()
    };
    assert_eq!(all_defaults, Some(defaults));
    let named = Endpoints::Dns {
        host: "db.internal".into(),
        port: 5432,
        refresh: Duration::from_secs(5),
    };
    assert_eq!(config.clusters["named"].endpoints, named);
    let database = &config.clusters["database"];
    let outlier = Outlier {
        consecutive_5xx: 7,
        enforcing_consecutive_5xx: 90,
        consecutive_gateway_failure: 4,
        enforcing_consecutive_gateway_failure: 80,
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: 3,
        enforcing_consecutive_local_origin_failure: 70,
        interval: Duration::from_secs(2),
        success_rate_minimum_hosts: 3,
        success_rate_request_volume: 60,
        success_rate_stdev_factor: 1500,
        enforcing_success_rate: 60,
        enforcing_local_origin_success_rate: 50,
        failure_percentage_threshold: 75,
        failure_percentage_minimum_hosts: 2,
        failure_percentage_request_volume: 30,
        enforcing_failure_percentage: 40,
        enforcing_failure_percentage_local_origin: 30,
    };
    let as_envoy = |outlier| Heal {
        ejection: ejection::Settings {
            max_ejection_percent: 25,
            base_ejection: Duration::from_secs(4),
            backoff: ejection::Backoff::Multiplied {
                jitter: Duration::from_millis(500),
            },
            max_ejection: Duration::from_secs(60),
            forgive_after: Duration::from_secs(2),
            outlier: Some(outlier),
            ..ejection::Settings::default()
        },
        ..Heal::default()
    };
    assert_eq!(database.heal, Some(as_envoy(outlier)));
    let all_defaults = parse(
        "version: 1\nclusters: { a: { endpoints: { static: [10.0.0.1:80] }, outlier_detection: { \
         base_ejection_time: 10m } } }\n",
    );
    let heal = all_defaults.0.clusters["a"].heal.clone().unwrap();
    assert_eq!(heal.ejection.outlier, Some(Outlier::default()));
    let times = (
        heal.ejection.max_ejection,
        heal.ejection.max_ejection_percent,
    );
    assert_eq!(times, (Duration::from_secs(600), 10));
    let (_, warnings) = parse(
        "version: 1\nclusters: { a: { endpoints: { static: [10.0.0.1:80] }, outlier_detection: { \
         max_ejection_time: 1s } } }\n",
    );
    assert!(warnings.iter().any(|found| found.code == "TG-C105"));
    assert_eq!(database.proxy_protocol, Some(ProxyProtocolOut::V2));
    assert_eq!(
        (database.balance, database.slow_start),
        (Balance::RoundRobin, Duration::from_secs(10))
    );
}

/// Goal and method as above, for routes.
#[test]
fn every_key_of_a_route_lands_in_its_field() {
    let (config, _) = parse(EVERYTHING);
    let edge = http(&config, "edge");
    let priorities = [0, 1, 2].map(|k| forward(&edge.routes[k]).priority);
    let expected = [Some(Priority::Critical), None, Some(Priority::Normal)];
    assert_eq!(priorities, expected);
    let limits = HttpLimits {
        header_list: 32 << 10,
        header_fields: 64,
        target: 4 << 10,
        body: Some(10 << 20),
        requests_per_connection: Some(1000),
        http2: Http2Limits {
            streams: 50,
            stream_window: 128 << 10,
            connection_window: 4 << 20,
            resets: 100,
            stream_errors: 50,
            settings: 25,
            pings: 100,
            empty_frames: 100,
            idle_frames: 500,
            window_updates: 500,
            tiny_frames: 100,
        },
    };
    assert_eq!(edge.limits, limits);
    assert_eq!(
        edge.forwarded,
        Forwarded {
            x_forwarded: XForwarded::Replace,
            via: Some("gw-1".into())
        }
    );
    let route = &edge.routes[0];
    let hosts = vec![
        HostPattern::Exact("pay.example".into()),
        HostPattern::Suffix(".pay.example".into()),
        HostPattern::Prefix("pay.".into()),
        HostPattern::Any,
    ];
    assert_eq!(route.matches.hosts, hosts);
    assert_eq!(route.matches.path, PathPattern::Prefix("/transfer".into()));
    assert_eq!(route.matches.methods, ["GET".into(), "POST".into()]);
    let headers = [
        ("x-absent", ValuePattern::Absent),
        ("x-canary", ValuePattern::Exact("1".into())),
        ("x-contains", ValuePattern::Contains("c".into())),
        ("x-exact", ValuePattern::Exact("".into())),
        ("x-prefix", ValuePattern::Prefix("a".into())),
        ("x-present", ValuePattern::Present),
        ("x-regex", ValuePattern::Regex("d+".into())),
        ("x-suffix", ValuePattern::Suffix("b".into())),
    ];
    assert_eq!(
        route.matches.headers,
        headers.map(|(name, value)| (name.into(), value))
    );
    let query = [
        ("debug", ValuePattern::Exact("true".into())),
        ("trace", ValuePattern::Absent),
    ];
    assert_eq!(
        route.matches.query,
        query.map(|(name, value)| (name.into(), value))
    );
    let action = forward(route);
    assert_eq!(
        action.to.iter().map(|to| to.share).collect::<Vec<_>>(),
        [9950, 50]
    );
    assert_eq!(action.hash, Some(HashOn::Cookie("session".into())));
    assert_eq!(action.path_rewrite, Some(PathRewrite::Prefix("/v2".into())));
    assert_eq!(action.host_rewrite.as_deref(), Some("pay.internal:8080"));
    let retry = action.retry.as_ref().unwrap();
    assert!(retry.on.connect && retry.on.reset && retry.on.timeout);
    assert_eq!(retry.on.statuses, (500..=599).collect::<Vec<u16>>());
    assert_eq!((retry.times, retry.budget), (2, 1000));
    assert_eq!(route.request_headers.remove, ["x-debug".into()]);
    assert_eq!(
        route.request_headers.set,
        [("x-gateway".into(), "gw-1".into())]
    );
    assert_eq!(
        route.response_headers.append,
        [("vary".into(), "Origin".into())]
    );
    let template = &edge.routes[1];
    assert_eq!(
        template.matches.path,
        PathPattern::Template("/users/{id}/{rest=**}".into())
    );
    assert_eq!(forward(template).timeout, None);
    assert_eq!(
        edge.routes[2].matches.path,
        PathPattern::Regex("^/v([12])/.*".into())
    );
    let redirect = Redirect {
        status: 302,
        scheme: Some("https".into()),
        host: Some("pay.example:8443".into()),
        path: Some("/new?x=1".into()),
        strip_query: false,
    };
    assert_eq!(edge.routes[3].action, RouteAction::Redirect(redirect));
    let respond = Respond {
        status: 200,
        body: "pong\n".into(),
        content_type: "text/plain".into(),
    };
    assert_eq!(edge.routes[5].action, RouteAction::Respond(respond));
    let rate = |requests, per_s, burst| Rate {
        requests,
        per: Duration::from_secs(per_s),
        burst,
    };
    let limits = [
        (
            PolicyMode::Shadow,
            rate(100, 60, 20),
            Some(HashOn::ClientIp),
            1_000,
        ),
        (
            PolicyMode::Enforce,
            rate(50, 1, 50),
            Some(HashOn::Header("x-api-key".into())),
            65_536,
        ),
        (PolicyMode::Enforce, rate(5_000, 1, 5_000), None, 1),
    ];
    let limits = limits.map(|(mode, rate, by, keys)| RateLimit {
        mode,
        rate,
        by,
        keys,
    });
    assert_eq!(edge.routes[6].rate_limits, limits);
    let text = |key: &str, text: &str| DescriptorEntry {
        key: key.into(),
        value: DescriptorValue::Text(text.into()),
    };
    let request = |key: &str, on| DescriptorEntry {
        key: key.into(),
        value: DescriptorValue::Request(on),
    };
    let descriptors = [
        Descriptor(vec![
            text("route", "limited"),
            request("remote_address", HashOn::ClientIp),
        ]),
        Descriptor(vec![
            request("api_key", HashOn::Header("x-api-key".into())),
            text("generic_key", "all"),
            request("user", HashOn::Query("user".into())),
        ]),
    ];
    assert_eq!(edge.routes[6].global_rate_limits, descriptors);
    let service = RateLimitService {
        mode: PolicyMode::Shadow,
        cluster: "limiter".into(),
        domain: "edge".into(),
        timeout: Duration::from_millis(5),
        fail_open: false,
    };
    assert_eq!(config.rate_limit_service.as_deref(), Some(&service));
    assert_eq!(forward(&edge.routes[12]).hash, Some(HashOn::ClientIp));
}

/// Goal: the dump is a file that means the same. Method: dump, read again, compare; origins aside.
#[test]
fn the_dump_reads_back() {
    for (name, text) in EXAMPLES.iter().chain(&[("everything", EVERYTHING)]) {
        let (before, _) = parse(text);
        let (after, _) = parse(&config::to_json(&before).to_string());
        assert_eq!(without_origins(before), without_origins(after), "{name}");
    }
}

fn without_origins(mut config: Config) -> Config {
    for listener in config.listeners.values_mut() {
        if let Protocol::Http(http) = &mut listener.protocol {
            http.routes
                .iter_mut()
                .for_each(|route| route.origin = "".into());
        }
    }
    let rules = config.steering.iter_mut().flat_map(|s| s.rules.iter_mut());
    rules.for_each(|rule| rule.origin = "".into());
    config
}

/// Goal: what may be a secret is in no dump and in no difference. Method: header values of such names.
#[test]
fn secrets_are_redacted() {
    let text = |secret: &str| {
        format!(
            "version: 1\nlisteners: {{ web: {{ bind: 127.0.0.1:80, routes: [ {{ to: a, request_headers: \
             {{ set: {{ Authorization: Bearer {secret}, x-a: {secret}1 }} }} }} ] }} }}\n\
             clusters: {{ a: {{ endpoints: {{ static: [10.0.0.1:80] }} }} }}\n"
        )
    };
    let (old, _) = parse(&text("hunter2"));
    let dump = config::to_json(&old).to_string();
    assert!(
        !dump.contains("Bearer") && dump.contains("hunter21"),
        "{dump}"
    );
    let (new, _) = parse(&text("hunter3"));
    let expected = [
        "route web/1: request_headers.set.authorization [redacted] → [redacted]",
        "route web/1: request_headers.set.x-a hunter21 → hunter31",
    ];
    assert_eq!(config::diff(&old, &new), expected);
}

/// Goal: a person reads what a change changes. Method: several changes of one file, in words.
#[test]
fn differences_are_words() {
    let old = "version: 1\nadmin: off\nlisteners:\n  edge:\n    bind: 127.0.0.1:80\n    routes:\n      \
        - { name: a, match: { path: /a }, to: pay, timeout: 800ms }\n      \
        - { name: b, match: { path: /b }, to: pay }\n      \
        - { name: c, match: { path: /c }, to: pay }\n\
        clusters:\n  pay: { endpoints: { static: [10.0.0.1:80, { address: 10.0.0.2:80, weight: 2 }] } }\n";
    let new = "version: 1\nlisteners:\n  edge:\n    bind: 127.0.0.1:80\n    timeouts: { header: 5s }\n    routes:\n      \
        - { name: b, match: { path: /b }, to: pay, retry: {} }\n      \
        - { name: a, match: { path: /a }, split: { pay: 90%, new: 10% }, timeout: 1s }\n      \
        - { name: d, match: { path: /d }, to: pay }\n\
        clusters:\n  pay: { endpoints: { static: [{ address: 10.0.0.2:80, weight: 3 }, 10.0.0.3:80] } }\n  \
        new: { endpoints: { static: [10.0.0.9:80] } }\n";
    let (old, new) = (parse(old).0, parse(new).0);
    let expected = [
        "admin off → 127.0.0.1:9901",
        "listener edge: timeouts.header 10s → 5s",
        "route a: timeout 800ms → 1s",
        "route a: to removed (was pay)",
        "route a: split { new: 10%, pay: 90% } added",
        "route b: retry { backoff: 25ms, budget: 20%, buffer: 64KiB, on: [connect, reset], times: 1 } added",
        "route c: removed",
        "route d: added",
        "listener edge: the order of its routes changes",
        "cluster pay: endpoint 10.0.0.1:80 removed",
        "cluster pay: endpoint 10.0.0.2:80 weight 2 → 3",
        "cluster pay: endpoint 10.0.0.3:80 added",
        "cluster new: added",
    ];
    assert_eq!(config::diff(&old, &new), expected);
    assert!(config::diff(&new, &new).is_empty());
}

/// Goal: YAML's freedoms work. Method: anchors, aliases, block scalars, comments, CRLF, a byte order
/// mark and JSON mean the same.
#[test]
fn spellings_of_yaml_mean_the_same() {
    let plain = "version: 1\nlisteners:\n  a: { bind: 127.0.0.1:80, timeouts: { header: 5s }, routes: [ { respond: { status: 200, body: \"x\\n\" } } ] }\n";
    let (expected, _) = parse(plain);
    let expected = without_origins(expected);
    for text in [
        plain.replace('\n', "\r\n"),
        format!("\u{feff}{plain}"),
        "version: 1 # one\nlisteners:\n  a:\n    bind: '127.0.0.1:80'\n    timeouts:\n      header: 5 s\n    routes:\n    - respond:\n        status: 200\n        body: |\n          x\n".to_owned(),
        "{\"version\": 1, \"listeners\": {\"a\": {\"bind\": \"127.0.0.1:80\", \"timeouts\": {\"header\": \"5s\"}, \"routes\": [{\"respond\": {\"status\": 200, \"body\": \"x\\n\"}}]}}}".to_owned(),
        "version: 1\nlisteners:\n  a: { bind: 127.0.0.1:80, timeouts: { header: &five 5s }, routes: &r [ { respond: { status: 200, body: \"x\\n\" } } ] }\n".to_owned(),
    ] {
        assert_eq!(without_origins(parse(&text).0), expected, "{text}");
    }
}
