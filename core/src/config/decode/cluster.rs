//! Clusters.

use super::{matching::listed_twice, *};
use crate::config::model::{
    AdaptiveLimit, Balance, Canary, Circuit, Cluster, Endpoints, Heal, HealthCheck, PolicyMode,
    Probe, ProxyProtocolOut, Scope, StaticEndpoint, UpstreamProtocol,
};
use crate::{
    healing::ejection,
    limiter::{Policy, watermark::Signal},
};

/// Decodes one cluster.
pub(super) fn cluster(
    report: &Report<'_>,
    name: &Arc<str>,
    entry: &Entry,
    senders: Senders,
    secrets: &Secrets,
) -> Cluster {
    let fields = Fields::open(report, &keys::CLUSTER, &entry.value, entry.key_span.clone());
    let mut endpoints = match fields.section_opt("endpoints", &keys::ENDPOINTS) {
        Some(fields) => endpoints(&fields),
        None => Endpoints::Static(Vec::new()),
    };
    if let Endpoints::Static(endpoints) = &mut endpoints {
        balance::localities(&fields, endpoints);
    }
    let balance = balance(&fields);
    if matches!(balance, Balance::RingHash | Balance::Maglev)
        && !fields.duration("slow_start").is_zero()
    {
        let message = "`slow_start` has no effect on a cluster that is balanced by hash";
        let problem = Problem::new(codes::NO_EFFECT, fields.key_span("slow_start"), message);
        report.add(
            problem
                .label("not used")
                .help("remove it, or balance by load"),
        );
    }
    let protocol = protocol(&fields, senders);
    let cluster = Cluster {
        endpoints,
        balance,
        failover: balance::failover(&fields),
        subsets: fields
            .section_opt("subsets", &keys::SUBSETS)
            .map(|fields| Box::new(balance::subsets(&fields))),
        protocol,
        slow_start: fields.duration("slow_start"),
        connect_timeout: fields.duration("connect_timeout"),
        idle_timeout: fields.duration("idle_timeout"),
        idle_connections: fields.integer("idle_connections"),
        requests_per_connection: fields.integer_or_off("requests_per_connection"),
        circuit: circuit(&fields.section("circuit", &keys::CIRCUIT)),
        health: fields
            .section_opt("health", &keys::HEALTH)
            .map(|fields| health(&fields, protocol)),
        proxy_protocol: match fields
            .has("proxy_protocol")
            .then(|| fields.word("proxy_protocol"))
            .flatten()
        {
            Some("v1") => Some(ProxyProtocolOut::V1),
            Some(_) => Some(ProxyProtocolOut::V2),
            None => None,
        },
        tls: tls::cluster(&fields, name, protocol, senders, secrets),
        max_connection_age: fields.duration_or_off("max_connection_age"),
        heal: heal(&fields),
        adaptive_limit: fields
            .section_opt("adaptive_limit", &keys::ADAPTIVE_LIMIT)
            .map(|fields| Box::new(adaptive_limit(&fields))),
    };
    if cluster.idle_connections > cluster.circuit.connections && fields.has("idle_connections") {
        let message = format!(
            "`idle_connections` is more than the {} connections that `circuit` allows",
            cluster.circuit.connections
        );
        let problem = Problem::new(
            codes::NEVER_BINDS,
            fields.value_span("idle_connections"),
            message,
        );
        report.add(
            problem
                .label("never reached")
                .help("lower it, or raise `circuit: { connections }`"),
        );
    }
    cluster
}

fn protocol(fields: &Fields<'_>, senders: Senders) -> UpstreamProtocol {
    if fields.word("protocol") != Some("http2") {
        return UpstreamProtocol::Http1;
    }
    if senders.tcp && !senders.http {
        let message =
            "`protocol` has no effect on a cluster of TCP listeners: bytes pass as they are";
        let problem = Problem::new(codes::NO_EFFECT, fields.key_span("protocol"), message);
        fields.report.add(
            problem
                .label("not used")
                .help("remove it, or lead an HTTP route to the cluster"),
        );
    }
    UpstreamProtocol::Http2
}

fn endpoints(fields: &Fields<'_>) -> Endpoints {
    let key = fields.exactly_one(&["static", "dns"]);
    if key != Some("dns") {
        fields.refuse(
            &["refresh"],
            "without `dns`",
            "addresses that are written down are not looked up: remove it",
        );
    }
    if key != Some("dns") {
        return Endpoints::Static(static_endpoints(fields));
    }
    let text = fields.text("dns").unwrap_or_default();
    let parsed = checked_opt(fields.report, "dns", &text, syntax::dns(&text.text));
    let (host, port) = parsed.unwrap_or_else(|| ("".into(), 0));
    Endpoints::Dns {
        host,
        port,
        refresh: fields.duration("refresh"),
    }
}

fn static_endpoints(fields: &Fields<'_>) -> Vec<StaticEndpoint> {
    fields.refuse_empty("static");
    let items = fields.list("static");
    let mut endpoints: Vec<StaticEndpoint> = Vec::with_capacity(items.len());
    let mut seen = std::collections::BTreeSet::new();
    let mut idle = 0;
    for node in &items {
        let Some((endpoint, text)) = static_endpoint(fields, node) else {
            continue;
        };
        if !seen.insert(endpoint.address) {
            listed_twice(fields.report, "static", &text);
        }
        if endpoint.weight == 0 {
            idle += 1;
            let message = format!("endpoint {} has weight 0 and is left out", endpoint.address);
            let problem = Problem::new(codes::ZERO_WEIGHT, node.span.clone(), message);
            fields.report.add(
                problem
                    .label("gets nothing")
                    .help("remove it, or give it a weight"),
            );
            continue;
        }
        endpoints.push(endpoint);
    }
    if idle > 0 && idle == items.len() {
        let message = "every endpoint has weight 0";
        let problem = Problem::new(codes::EMPTY_LIST, fields.value_span("static"), message);
        fields.report.add(
            problem
                .label("nothing left")
                .help("give at least one endpoint a weight"),
        );
    }
    endpoints
}

fn static_endpoint(fields: &Fields<'_>, node: &Node) -> Option<(StaticEndpoint, Text)> {
    let mut endpoint = StaticEndpoint::new(NOWHERE, 1);
    let text = match &node.value {
        Value::Map(_) => {
            let fields = Fields::open(fields.report, &keys::ENDPOINT, node, node.span.clone());
            // The rest is looked at whatever the address is.
            endpoint.weight = fields.integer_or_off("weight").unwrap_or(1);
            endpoint.zone = fields.text("zone").map_or_else(
                || "".into(),
                |text| checked(fields.report, "zone", &text, syntax::label(&text.text)),
            );
            endpoint.labels = tls::labels(&fields, "labels");
            endpoint.priority = fields.integer("priority");
            endpoint.capability = tls::capability(&fields);
            fields.text("address")?
        }
        _ => fields::read_text(fields.report, "static", node, &keys::ENDPOINT_ITEM)?,
    };
    endpoint.address = checked_opt(
        fields.report,
        "address",
        &text,
        syntax::endpoint(&text.text),
    )?;
    Some((endpoint, text))
}

/// Stands in an endpoint until its address is read.
const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn balance(fields: &Fields<'_>) -> Balance {
    match fields.word("balance") {
        Some("random") => Balance::Random,
        Some("least_request") => Balance::LeastRequest,
        Some("peak_ewma") => Balance::PeakEwma,
        Some("ring_hash") => Balance::RingHash,
        Some("maglev") => Balance::Maglev,
        _ => Balance::RoundRobin,
    }
}

fn circuit(fields: &Fields<'_>) -> Circuit {
    Circuit {
        connections: fields.integer("connections"),
        requests: fields.integer("requests"),
    }
}

/// How the cluster heals: by our detectors, or by Envoy's fields.
fn heal(fields: &Fields<'_>) -> Option<Heal> {
    let own = fields.section_opt("heal", &keys::HEAL);
    let envoys = fields.section_opt("outlier_detection", &keys::OUTLIER_DETECTION);
    if own.is_some() && envoys.is_some() {
        let message = "`heal` and `outlier_detection` exclude each other";
        let span = fields.key_span("outlier_detection");
        let problem = Problem::new(codes::EXCLUSIVE, span, message);
        let help =
            "keep one: `heal` finds what Envoy's fields find, and hangs and slowness as well";
        fields
            .report
            .add(problem.label("one of the two").help(help));
    }
    let envoys = envoys.map(|fields| outlier::heal(&fields));
    own.map(|fields| own_heal(&fields)).or(envoys)
}

fn own_heal(fields: &Fields<'_>) -> Heal {
    let ejection = ejection::Settings {
        max_ejection_percent: fields.integer("max_ejection_percent"),
        common_mode_percent: fields.integer("common_mode_percent"),
        base_ejection: fields.duration("base_ejection"),
        max_ejection: fields.duration("max_ejection"),
        forgive_after: fields.duration("forgive_after"),
        ..ejection::Settings::default()
    };
    if ejection.base_ejection > ejection.max_ejection && !ejection.max_ejection.is_zero() {
        let message = "`base_ejection` is longer than `max_ejection`";
        let at = match fields.has("base_ejection") {
            true => "base_ejection",
            false => "max_ejection",
        };
        let problem = Problem::new(codes::CONTRADICTION, fields.value_span(at), message);
        let help = "the first time out cannot be longer than the longest: lower the one or raise the other";
        fields.report.add(problem.label("never reached").help(help));
    }
    Heal {
        mode: mode(fields),
        ejection,
        slow_start: fields.duration("slow_start"),
    }
}

fn adaptive_limit(fields: &Fields<'_>) -> AdaptiveLimit {
    let targets = fields.section("targets", &keys::TARGETS);
    let signal = |key: &str| {
        targets
            .share_or_off(key)
            .map(|points| f64::from(points) / 10_000.0)
    };
    let mut policy = Policy {
        trigger_ticks: fields.integer("trigger_ticks"),
        floor: fields.integer("floor"),
        ..Policy::default()
    };
    for (key, of) in [
        ("cpu", Signal::Cpu),
        ("psi_cpu", Signal::PsiCpu),
        ("psi_memory", Signal::PsiMemory),
        ("memory", Signal::Memory),
        ("app", Signal::App),
    ] {
        policy.targets.set(of, signal(key).unwrap_or(0.0));
    }
    let loop_lag = targets
        .duration_or_off("loop_lag")
        .map(|lag| lag.as_secs_f64());
    policy.targets.set(Signal::LoopLag, loop_lag.unwrap_or(0.0));
    let in_flight = targets.integer_or_off::<u32>("in_flight").map(f64::from);
    policy
        .targets
        .set(Signal::InFlight, in_flight.unwrap_or(0.0));
    let header = |key: &str| {
        let text = fields.text(key)?;
        checked_opt(fields.report, key, &text, syntax::header_name(&text.text))
    };
    AdaptiveLimit {
        mode: mode(fields),
        canary: canary(fields),
        scope: scope(fields),
        policy,
        priority_header: header("priority_header"),
        caller_header: header("caller_header"),
    }
}

fn canary(fields: &Fields<'_>) -> Option<Canary> {
    let entry = fields.entry("canary");
    let canary = match entry.is_some_and(|entry| matches!(entry.value.value, Value::Map(_))) {
        false => Canary {
            basis_points: fields.share("canary"),
            labels: BTreeMap::new(),
        },
        true => {
            let fields = fields.section("canary", &keys::CANARY);
            // Empty, it would be for all.
            fields.refuse_empty("labels");
            Canary {
                basis_points: fields.share("share"),
                labels: tls::labels(&fields, "labels"),
            }
        }
    };
    let is_all = canary.basis_points == 10_000 && canary.labels.is_empty();
    (!is_all).then_some(canary)
}

fn scope(fields: &Fields<'_>) -> Scope {
    match fields.at_most_one(&["scope", "cgroup", "pid"]) {
        Some("cgroup") => {
            let text = fields.text("cgroup").unwrap_or_default();
            let path = checked_opt(fields.report, "cgroup", &text, syntax::path(&text.text));
            if text.text.split('/').any(|part| part == "..") {
                let help = "write the path below the mount point, as /proc/PID/cgroup shows it";
                let why = "leads out of the tree of control groups";
                fields::malformed(fields.report, codes::TEXT, "cgroup", &text, why, help);
            }
            Scope::Cgroup(path.unwrap_or_default())
        }
        Some("pid") => Scope::Pid(fields.integer("pid")),
        _ => match fields.word("scope") {
            Some("own") => Scope::Own,
            _ => Scope::Host,
        },
    }
}

/// Whether a policy acts.
pub(super) fn mode(fields: &Fields<'_>) -> PolicyMode {
    match fields.word("mode") {
        Some("shadow") => PolicyMode::Shadow,
        _ => PolicyMode::Enforce,
    }
}

fn health(fields: &Fields<'_>, protocol: UpstreamProtocol) -> HealthCheck {
    let probe = match fields.exactly_one(&["tcp", "http", "grpc"]) {
        Some("grpc") => {
            if protocol != UpstreamProtocol::Http2 {
                let message = "`grpc` on a cluster that does not speak HTTP/2";
                let problem = Problem::new(codes::NOT_HERE, fields.key_span("grpc"), message);
                let help = "add `protocol: http2` to the cluster, or write `http: {}`";
                fields.report.add(problem.label("gRPC needs it").help(help));
            }
            grpc_probe(&fields.section("grpc", &keys::GRPC_PROBE))
        }
        Some("http") => http_probe(&fields.section("http", &keys::HTTP_PROBE)),
        _ => {
            fields.section("tcp", &keys::TCP_PROBE);
            Probe::Tcp
        }
    };
    let health = HealthCheck {
        probe,
        interval: fields.duration("interval"),
        timeout: fields.duration("timeout"),
        healthy_after: fields.integer("healthy_after"),
        unhealthy_after: fields.integer("unhealthy_after"),
    };
    if health.timeout > health.interval && !health.interval.is_zero() {
        let message =
            "`timeout` is longer than `interval`: a check would begin before the last one ended";
        let at = if fields.has("timeout") {
            "timeout"
        } else {
            "interval"
        };
        let problem = Problem::new(codes::CONTRADICTION, fields.value_span(at), message);
        fields.report.add(
            problem
                .label("longer than the interval")
                .help("shorten `timeout` or lengthen `interval`"),
        );
    }
    health
}

fn http_probe(fields: &Fields<'_>) -> Probe {
    let path = fields.text("path").unwrap_or_default();
    let parsed = checked_opt(
        fields.report,
        "path",
        &path,
        syntax::path_and_query(&path.text),
    );
    fields.refuse_empty("expect");
    let expect = fields.list("expect");
    let expect = expect
        .iter()
        .filter_map(|node| statuses(fields, node))
        .collect();
    Probe::Http {
        path: parsed.unwrap_or_default(),
        host: host(fields),
        expect,
    }
}

fn grpc_probe(fields: &Fields<'_>) -> Probe {
    Probe::Grpc {
        service: fields.text("service").unwrap_or_default().text.into(),
        host: host(fields),
    }
}

fn host(fields: &Fields<'_>) -> Option<Arc<str>> {
    let text = fields.text("host")?;
    checked_opt(fields.report, "host", &text, syntax::authority(&text.text))
}

/// `200` or `200-299`.
fn statuses(fields: &Fields<'_>, node: &Node) -> Option<(u16, u16)> {
    let kind = Kind::Any(&[Kind::Text("a status or a range as `200-299`", 16)]);
    let text = fields::read_text(fields.report, "expect", node, &kind)?;
    let (first, last) = text
        .text
        .split_once('-')
        .unwrap_or((&text.text, &text.text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last && first >= 100 && last <= 599 => {
            Some((first, last))
        }
        _ => {
            let help = "write statuses from 100 to 599: `200`, or a range `200-299`";
            fields::malformed(
                fields.report,
                codes::STATUS,
                "expect",
                &text,
                "neither a status nor a range",
                help,
            );
            None
        }
    }
}
