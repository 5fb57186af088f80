//! Clusters.

use std::sync::Arc;

use tidegate_core::config::{
    model::{Balance, Cluster, Endpoints, HealthCheck, Probe, UpstreamProtocol},
    value,
};

use super::{
    Cluster as Translated, Referred, balance, endpoint,
    node::Node,
    own::Sections,
    reference, template,
    tls::{self, Socket},
};

/// Makes a cluster.
pub(super) fn cluster(node: &Node<'_>) -> Translated {
    let mut config = template::cluster();
    config.balance = policy(node);
    if let Some(timeout) = node.positive("connect_timeout") {
        config.connect_timeout = timeout;
    }
    balance::balance(node, &mut config);
    circuit(node, &mut config);
    own_sections(node, &mut config);
    http_options(node, &mut config);
    config.health = health(node);
    let calls = config.health.as_ref().map(|health| &health.probe);
    if matches!(calls, Some(Probe::Grpc { .. })) && config.protocol != UpstreamProtocol::Http2 {
        node.refuse(
            "health_checks",
            "gRPC needs `http2_protocol_options` towards the endpoints",
        );
    }
    for policy in ["round_robin_lb_config", "least_request_lb_config"] {
        let slow_start = node
            .node(policy)
            .and_then(|policy| policy.node("slow_start_config"));
        if let Some(window) = slow_start.and_then(|start| start.duration("slow_start_window")) {
            config.slow_start = window;
        }
    }
    if let Some(socket) = node.node("transport_socket")
        && let Socket::Tls(context) = tls::socket(&socket, "UpstreamTlsContext")
    {
        config.tls = tls::cluster(&context, config.protocol);
    }
    let Referred { name, file } = endpoints(node, &mut config);
    Translated {
        config,
        assignment: name,
        file,
    }
}

/// Where endpoints come from: into the model, or the name of their assignment.
fn endpoints(node: &Node<'_>, config: &mut Cluster) -> Referred {
    let assignment = node.node("load_assignment");
    match node.word("type", "STATIC") {
        "EDS" => {
            let Some(source) = node.node("eds_cluster_config") else {
                node.refuse("eds_cluster_config", "is missing: the type is EDS");
                return Referred::default();
            };
            config.endpoints = Endpoints::Static(Vec::new());
            let name = match source.has("service_name") {
                true => reference(&source, "service_name"),
                false => Some(node.text("name").into()),
            };
            Referred::new(&source, "eds_config", name)
        }
        "STATIC" => {
            let assignment = assignment.map(|node| endpoint::assignment(&node));
            assignment.unwrap_or_default().fill(config);
            Referred::default()
        }
        "STRICT_DNS" | "LOGICAL_DNS" => {
            match assignment {
                Some(assignment) => looked_up(node, &assignment, config),
                None => node.refuse("load_assignment", "is missing: the name stands in it"),
            }
            Referred::default()
        }
        other => {
            node.refuse("type", format!("{other} is not supported"));
            Referred::default()
        }
    }
}

/// One name, or addresses that need no look-up.
fn looked_up(node: &Node<'_>, assignment: &Node<'_>, config: &mut Cluster) {
    let localities = assignment.nodes("endpoints");
    let all: Vec<Node<'_>> = localities
        .iter()
        .flat_map(|one| one.nodes("lb_endpoints"))
        .collect();
    let is_name = |one: &Node<'_>| {
        socket(one).is_some_and(|s| s.text("address").parse::<std::net::IpAddr>().is_err())
    };
    if !all.iter().any(is_name) {
        return endpoint::assignment(assignment).fill(config);
    }
    let (Some(socket), 1) = (all.first().and_then(socket), all.len()) else {
        return assignment.refuse("endpoints", "only one name can be looked up for a cluster");
    };
    let port = socket.integer::<u16>("port_value").unwrap_or(0);
    let text = format!("{}:{port}", socket.text("address"));
    let (host, port) = socket
        .checked("address", value::dns(&text))
        .unwrap_or_default();
    let refresh = node.positive("dns_refresh_rate");
    // Cluster.dns_refresh_rate
    let refresh = refresh.unwrap_or(std::time::Duration::from_secs(5));
    config.endpoints = Endpoints::Dns {
        host,
        port,
        refresh,
    };
}

/// The address of an endpoint, as it is written.
fn socket<'a>(endpoint: &Node<'a>) -> Option<Node<'a>> {
    endpoint
        .node("endpoint")?
        .node("address")?
        .node("socket_address")
}

fn policy(node: &Node<'_>) -> Balance {
    match node.word("lb_policy", "ROUND_ROBIN") {
        "ROUND_ROBIN" => Balance::RoundRobin,
        "LEAST_REQUEST" => Balance::LeastRequest,
        "RANDOM" => Balance::Random,
        "RING_HASH" => Balance::RingHash,
        "MAGLEV" => Balance::Maglev,
        other => {
            node.refuse("lb_policy", format!("{other} is not supported"));
            Balance::RoundRobin
        }
    }
}

/// The thresholds of the default priority.
fn circuit(node: &Node<'_>, config: &mut Cluster) {
    // CircuitBreakers.Thresholds
    (config.circuit.connections, config.circuit.requests) = (1024, 1024);
    let Some(breakers) = node.node("circuit_breakers") else {
        return;
    };
    for thresholds in breakers.nodes("thresholds") {
        if thresholds.word("priority", "DEFAULT") != "DEFAULT" {
            thresholds.warn("priority", "only those of DEFAULT are used");
            continue;
        }
        for (field, limit) in [
            ("max_connections", &mut config.circuit.connections),
            ("max_requests", &mut config.circuit.requests),
        ] {
            if let Some(given) = thresholds.integer::<u32>(field) {
                *limit = given;
            }
        }
    }
}

/// Outlier detection by Envoy's fields, and sections in our own words.
fn own_sections(node: &Node<'_>, config: &mut Cluster) {
    let mut sections = Sections::new();
    if let Some(outliers) = node.node("outlier_detection") {
        sections.add_message("outlier_detection", &outliers, OUTLIERS_IGNORED);
    }
    for (_, options) in node.entries("typed_extension_protocol_options") {
        sections.add_extension(&options);
    }
    sections.read(node, config);
}

/// Fields of outlier detection that the table has as ignored.
const OUTLIERS_IGNORED: &[&str] = &[
    "successful_active_health_check_uneject_host",
    "always_eject_one_host",
];

fn health(node: &Node<'_>) -> Option<HealthCheck> {
    let checks = node.nodes("health_checks");
    let check = checks.first()?;
    if checks.len() > 1 {
        node.refuse("health_checks", "only one is supported");
    }
    let required = |field: &str| {
        let duration = check.positive(field);
        if !check.has(field) {
            check.refuse(field, "is missing");
        }
        duration.unwrap_or_default()
    };
    let count = |field: &str| match check.integer::<u32>(field) {
        Some(0) => {
            check.refuse(field, "must be at least 1");
            1
        }
        given => given.unwrap_or(1),
    };
    Some(HealthCheck {
        probe: probe(check),
        interval: required("interval"),
        timeout: required("timeout"),
        healthy_after: count("healthy_threshold"),
        unhealthy_after: count("unhealthy_threshold"),
    })
}

fn probe(check: &Node<'_>) -> Probe {
    if let Some(grpc) = check.node("grpc_health_check") {
        return Probe::Grpc {
            service: grpc.text("service_name").into(),
            host: authority(&grpc, "authority"),
        };
    }
    let Some(http) = check.node("http_health_check") else {
        if !check.has("tcp_health_check") {
            check.refuse("", "is neither an HTTP, nor a gRPC, nor a TCP health check");
        }
        return Probe::Tcp;
    };
    let path = http.checked("path", value::path_and_query(http.text("path")));
    let host = authority(&http, "host");
    let ranges = http.nodes("expected_statuses");
    let expect = ranges.iter().filter_map(|range| {
        // `end` is not a part of it.
        let (start, end) = (range.integer::<u16>("start")?, range.integer::<u16>("end")?);
        let is_status = (100..600).contains(&start) && (start + 1..=600).contains(&end);
        let read = is_status.then_some((start, end.saturating_sub(1)));
        range.checked("", read.ok_or_else(|| "is no range of statuses".to_owned()))
    });
    let expect: Vec<(u16, u16)> = expect.collect();
    Probe::Http {
        path: path.unwrap_or_default(),
        host,
        expect: if expect.is_empty() {
            vec![(200, 200)]
        } else {
            expect
        },
    }
}

fn authority(node: &Node<'_>, field: &str) -> Option<Arc<str>> {
    match node.text(field) {
        "" => None,
        host => node.checked(field, value::authority(host)),
    }
}

/// What is said of HTTP towards endpoints.
fn http_options(node: &Node<'_>, config: &mut Cluster) {
    if let Some(requests) = node.integer::<u32>("max_requests_per_connection") {
        config.requests_per_connection = Some(requests).filter(|n| *n > 0);
    }
    for (key, options) in node.entries("typed_extension_protocol_options") {
        if Sections::is_one(&options) {
            continue;
        }
        if options.kind() != "HttpProtocolOptions" {
            node.refuse(
                "typed_extension_protocol_options",
                format!("`{key}` is not supported"),
            );
            continue;
        }
        if let Some(common) = options.node("common_http_protocol_options") {
            if let Some(idle) = common
                .duration("idle_timeout")
                .filter(|idle| !idle.is_zero())
            {
                config.idle_timeout = idle;
            }
            if let Some(requests) = common.integer::<u32>("max_requests_per_connection") {
                config.requests_per_connection = Some(requests).filter(|n| *n > 0);
            }
            if let Some(age) = common.positive("max_connection_duration") {
                config.max_connection_age = Some(age);
            }
        }
        let explicit = options.node("explicit_http_config");
        let version = explicit.and_then(|explicit| {
            explicit.which(&["http_protocol_options", "http2_protocol_options"])
        });
        match version {
            Some("http2_protocol_options") => config.protocol = UpstreamProtocol::Http2,
            Some(_) => {}
            None => options.refuse(
                "",
                "only an `explicit_http_config` of HTTP/1.1 or HTTP/2 is supported",
            ),
        }
    }
}
