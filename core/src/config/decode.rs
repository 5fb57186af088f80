//! From a checked tree to the model: one function per section, in the order of the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Range,
    rc::Rc,
    sync::Arc,
};

use super::{
    codes,
    diagnostic::{Problem, Report, list, suggest},
    fields::{self, Fields, Text},
    keys,
    model::{AccessLog, AccessLogFormat, Config, Limits, Node as NodeId, Ring, Shards},
    shape::Kind,
    syntax::{self, Fault},
    tree::{Entry, Node, Value},
};

mod balance;
mod center;
mod cluster;
mod fault;
mod global;
mod listener;
mod matching;
mod outlier;
mod retry;
mod route;
mod secret;
pub(super) mod steering;
mod tls;
mod xds;

use self::{
    balance::{WHOLE, destinations},
    secret::Secrets,
    tls::Senders,
};

/// What warnings need beside the model: where things stand.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// Key of each cluster.
    pub(super) clusters: BTreeMap<Arc<str>, Range<usize>>,
    /// Beginning of each route, by listener, in order.
    pub(super) routes: BTreeMap<Arc<str>, Vec<Range<usize>>>,
    /// Key of each secret.
    pub(super) secrets: BTreeMap<Arc<str>, Range<usize>>,
    /// The cluster of the service for global limits.
    pub(super) rate_limit_service: Range<usize>,
}

/// Decodes the whole file. What comes out is usable only if nothing was reported as an error.
pub(super) fn file(root: &Node, report: &Report<'_>) -> (Config, Origins) {
    let start = root.span.start..root.span.start;
    let fields = Fields::open(report, &keys::ROOT, root, start);
    version(&fields);
    let defined = Defined {
        clusters: fields
            .map("clusters")
            .iter()
            .map(|entry| entry.key.as_str())
            .collect(),
        secrets: Secrets::decode(&fields),
        has_rate_limit_service: fields.has("rate_limit_service"),
    };
    let mut origins = Origins {
        secrets: defined.secrets.places(),
        ..Origins::default()
    };
    let mut binds = Binds::default();
    let admin = admin(&fields, &mut binds);
    let listeners = fields.map("listeners").into_iter().map(|entry| {
        let name = named(report, entry);
        let (listener, routes) = listener::listener(report, &name, entry, &defined, &mut binds);
        origins.routes.insert(Arc::clone(&name), routes);
        (name, listener)
    });
    let listeners = listeners.collect();
    let senders = Senders::of(&listeners);
    let clusters = fields.map("clusters").into_iter().map(|entry| {
        let name = named(report, entry);
        origins
            .clusters
            .insert(Arc::clone(&name), entry.key_span.clone());
        let senders = senders.get(&name).copied().unwrap_or_default();
        let cluster = cluster::cluster(report, &name, entry, senders, &defined.secrets);
        (name, cluster)
    });
    let clusters = clusters.collect();
    let rate_limit_service = fields.section_opt("rate_limit_service", &keys::RATE_LIMIT_SERVICE);
    let rate_limit_service = rate_limit_service.map(|fields| {
        origins.rate_limit_service = fields.value_span("cluster");
        Box::new(global::service(&fields, &defined.clusters))
    });
    let xds = fields
        .section_opt("xds", &keys::XDS)
        .map(|fields| Box::new(xds::xds(&fields, &defined.secrets)));
    let config = Config {
        node: node(&fields.section("node", &keys::NODE)),
        shards: shards(&fields),
        admin,
        access_log: access_log(&fields),
        limits: limits(&fields.section("limits", &keys::LIMITS)),
        drain_timeout: fields.duration("drain_timeout"),
        upgrade_timeout: fields.duration("upgrade_timeout"),
        listeners,
        clusters,
        secrets: defined.secrets.into_model(),
        center: fields
            .section_opt("center", &keys::CENTER)
            .map(|fields| Box::new(center::center(&fields))),
        rate_limit_service,
        xds,
        steering: fields
            .section_opt("steering", &keys::STEERING)
            .map(|fields| Box::new(steering::steering(&fields, &defined.clusters))),
    };
    (config, origins)
}

/// What listeners and clusters may refer to.
struct Defined<'a> {
    clusters: Names<'a>,
    secrets: Secrets,
    has_rate_limit_service: bool,
}

/// Names of all clusters.
type Names<'a> = BTreeSet<&'a str>;

/// Addresses that are listened on already.
#[derive(Default)]
struct Binds(Vec<(SocketAddr, Range<usize>, String)>);

impl Binds {
    /// Claims `address` for `whom`; reports who has it.
    fn claim(&mut self, report: &Report<'_>, address: SocketAddr, at: Range<usize>, whom: String) {
        let clash = |other: SocketAddr| {
            let (a, b) = (address.ip(), other.ip());
            if address.port() == 0 {
                // Any free port; but listeners are told apart by the address that is written.
                return address == other;
            }
            address.port() == other.port()
                && (a == b
                    // `[::]` takes IPv4 as well unless it is told otherwise, `0.0.0.0` only IPv4.
                    || (a.is_unspecified() && (a.is_ipv6() || b.is_ipv4()))
                    || (b.is_unspecified() && (b.is_ipv6() || a.is_ipv4())))
        };
        match self.0.iter().find(|(other, ..)| clash(*other)) {
            Some((other, place, who)) => {
                let message = format!("{whom} cannot bind {address}: {who} has {other}");
                let problem =
                    Problem::new(codes::DUPLICATE_BIND, at.clone(), message).label("in use");
                let problem = match place.is_empty() {
                    true => problem,
                    false => problem.related(place.clone(), "used first here"),
                };
                report.add(problem.help(match address.port() {
                    0 => "give one of them another address, such as 127.0.0.2:0, or a port: listeners are told apart by what is written",
                    _ => "choose another port; one listener can hold the routes of both",
                }));
            }
            None => self.0.push((address, at, whom)),
        }
    }
}

fn version(fields: &Fields<'_>) {
    let Some(entry) = fields.entry("version") else {
        return;
    };
    let Value::Scalar { text, plain: true } = &entry.value.value else {
        fields.integer::<u32>("version");
        return;
    };
    if text != "1" {
        let message = format!("version {text} of the format is not known");
        let problem = Problem::new(codes::VERSION, entry.value.span.clone(), message);
        fields
            .report
            .add(problem.label("not a version").help("write `version: 1`"));
    }
}

fn node(fields: &Fields<'_>) -> NodeId {
    let part = |key| match fields.text(key) {
        Some(text) => checked(
            fields.report,
            key,
            &text,
            syntax::plain_text(&text.text).map(str::to_owned),
        ),
        None => String::new(),
    };
    NodeId {
        id: part("id"),
        app: part("app"),
        zone: part("zone"),
        labels: tls::labels(fields, "labels"),
    }
}

fn shards(fields: &Fields<'_>) -> Shards {
    let scalar = fields
        .entry("shards")
        .filter(|entry| matches!(entry.value.value, Value::Scalar { .. }));
    if scalar.is_some() {
        let count = fields.integer::<usize>("shards");
        return Shards {
            cpus: Vec::new(),
            count: Some(count),
            ring: ring(&Fields::absent(fields.report, &keys::RING)),
        };
    }
    let fields = fields.section("shards", &keys::SHARDS);
    let shards = Shards {
        cpus: cpus(&fields),
        count: fields.integer_or_off("count"),
        ring: ring(&fields.section("ring", &keys::RING)),
    };
    if let (Some(count), false) = (shards.count, shards.cpus.is_empty())
        && count > shards.cpus.len()
    {
        let message = format!(
            "`count: {count}` is more than the {} CPUs listed",
            shards.cpus.len()
        );
        let problem = Problem::new(codes::NEVER_BINDS, fields.value_span("count"), message);
        fields.report.add(
            problem
                .label("never reached")
                .help("each CPU gets one shard: remove `count`"),
        );
    }
    shards
}

fn cpus(fields: &Fields<'_>) -> Vec<usize> {
    let Some(entry) = fields.entry("cpus") else {
        return Vec::new();
    };
    let text = match &entry.value.value {
        Value::List(items) => {
            fields.refuse_empty("cpus");
            // A list says the same as `a,b,c`, and is checked alike.
            let item = Kind::Integer(0, keys::SHARDS_MAX as u64 - 1);
            let cpus = items
                .iter()
                .filter_map(|node| fields::read_integer(fields.report, "cpus", node, &item));
            let text = cpus
                .map(|cpu| cpu.to_string())
                .collect::<Vec<_>>()
                .join(",");
            Text {
                text,
                span: entry.value.span.clone(),
            }
        }
        _ => match fields.text("cpus") {
            Some(text) => text,
            None => return Vec::new(),
        },
    };
    if text.text.is_empty() && matches!(entry.value.value, Value::List(_)) {
        return Vec::new();
    }
    checked(fields.report, "cpus", &text, syntax::cpu_list(&text.text))
}

fn ring(fields: &Fields<'_>) -> Ring {
    let ring = Ring {
        submission_entries: fields.integer("submission_entries"),
        completion_entries: fields.integer("completion_entries"),
        head_buffers: fields.integer("head_buffers"),
        head_buffer_bytes: fields.size32("head_buffer_bytes"),
        body_buffers: fields.integer("body_buffers"),
        body_buffer_bytes: fields.size32("body_buffer_bytes"),
        busy_poll: fields.duration("busy_poll"),
    };
    if ring.completion_entries < ring.submission_entries && ring.completion_entries != 0 {
        let message = format!(
            "`completion_entries` ({}) is less than `submission_entries` ({})",
            ring.completion_entries, ring.submission_entries
        );
        let at = ["completion_entries", "submission_entries"]
            .into_iter()
            .find(|key| fields.has(key));
        let at = fields.value_span(at.unwrap_or("completion_entries"));
        let problem = Problem::new(codes::RANGE, at, message).label("the wrong way round");
        fields.report.add(
            problem.help("every submission completes: write at least as many completion entries"),
        );
    }
    ring
}

fn admin(fields: &Fields<'_>, binds: &mut Binds) -> Option<SocketAddr> {
    let text = fields.text("admin")?;
    if text.text == "off" {
        return None;
    }
    let address = match syntax::address(&text.text) {
        Ok(address) => address,
        Err(fault) => {
            let off = matches!(text.text.as_str(), "false" | "no" | "none");
            let help = if off {
                "write `admin: off`".to_owned()
            } else {
                fault.help
            };
            fields::malformed(fields.report, fault.code, "admin", &text, &fault.why, &help);
            return None;
        }
    };
    if !address.ip().is_loopback() {
        let message = format!("the admin server would be open to the network on {address}");
        let problem =
            Problem::new(codes::ADMIN_OPEN, text.span, message).label("not a loopback address");
        let help = format!(
            "write `127.0.0.1:{}`: it can stop the proxy and asks nobody for a password",
            address.port()
        );
        fields.report.add(problem.help(help));
        return None;
    }
    // With port 0 it gets one of its own.
    if address.port() != 0 {
        let whom = "the admin server".to_owned();
        binds.claim(fields.report, address, text.span, whom);
    }
    Some(address)
}

fn access_log(fields: &Fields<'_>) -> Option<AccessLog> {
    let entry = fields.entry("access_log")?;
    if matches!(entry.value.value, Value::Scalar { .. }) {
        fields.word("access_log");
        return None;
    }
    let fields = fields.section("access_log", &keys::ACCESS_LOG);
    let path = fields.text("path").map(|text| {
        let path = syntax::plain_text(&text.text).map(str::to_owned);
        checked(fields.report, "path", &text, path)
    });
    let format = match fields.word("format") {
        Some("json") => AccessLogFormat::Json,
        _ => AccessLogFormat::Short,
    };
    Some(AccessLog { path, format })
}

fn limits(fields: &Fields<'_>) -> Limits {
    let limits = Limits {
        connections: fields.integer("connections"),
        buffers: fields.size("buffers"),
        connection_buffer: fields.size32("connection_buffer"),
    };
    if u64::from(limits.connection_buffer) > limits.buffers && limits.buffers != 0 {
        let message = "`connection_buffer` is larger than `buffers`, which holds all connections";
        let at = if fields.has("connection_buffer") {
            "connection_buffer"
        } else {
            "buffers"
        };
        let problem = Problem::new(codes::NEVER_BINDS, fields.value_span(at), message);
        fields.report.add(
            problem
                .label("never reached")
                .help("lower `connection_buffer` or raise `buffers`"),
        );
    }
    limits
}

/// The name that a map entry gives to its value.
fn named(report: &Report<'_>, entry: &Entry) -> Arc<str> {
    let text = Text {
        text: entry.key.clone(),
        span: entry.key_span.clone(),
    };
    match syntax::name(&text.text) {
        Ok(name) => name,
        Err(fault) => {
            let message = format!("`{}` cannot be a name", shown(&text.text));
            let problem = Problem::new(fault.code, text.span, message).label(fault.why);
            report.add(problem.help(fault.help));
            text.text.into()
        }
    }
}

fn check_cluster(report: &Report<'_>, name: &Text, clusters: &Names<'_>) {
    if clusters.contains(name.text.as_str()) {
        return;
    }
    let message = format!("cluster `{}` not found", shown(&name.text));
    let problem = Problem::new(codes::NO_CLUSTER, name.span.clone(), message);
    let help = match suggest(&name.text, clusters.iter().copied()) {
        Some(cluster) => format!("did you mean `{cluster}`?"),
        None if name.text.contains(':') || name.text.contains("://") => format!(
            "a cluster is referred to by its name; define one with `clusters: {{ NAME: {{ endpoints: {{ static: [\"{}\"] }} }} }}`",
            shown(&name.text)
        ),
        None if clusters.is_empty() => {
            "no cluster is defined; define one under `clusters`".to_owned()
        }
        None => format!("defined are {}", list(clusters.iter().copied())),
    };
    report.add(problem.label("not defined under `clusters`").help(help));
}

/// Unwraps what was parsed, or reports its fault and goes on with nothing.
fn checked<T: Default>(report: &Report<'_>, key: &str, text: &Text, parsed: Result<T, Fault>) -> T {
    checked_opt(report, key, text, parsed).unwrap_or_default()
}

/// Unwraps what was parsed, or reports its fault.
fn checked_opt<T>(
    report: &Report<'_>,
    key: &str,
    text: &Text,
    parsed: Result<T, Fault>,
) -> Option<T> {
    match parsed {
        Ok(value) => Some(value),
        Err(fault) => {
            let text = Text {
                text: shown(&text.text),
                span: text.span.clone(),
            };
            fields::malformed(report, fault.code, key, &text, &fault.why, &fault.help);
            None
        }
    }
}

/// A text as messages show it: not all of a long one.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or("")),
        None => text.to_owned(),
    }
}

/// Scalars of `key`, each read as text of the key's kind.
fn texts(fields: &Fields<'_>, key: &str, kind: &Kind, items: &[Rc<Node>]) -> Vec<Text> {
    items
        .iter()
        .filter_map(|item| fields::read_text(fields.report, key, item, kind))
        .collect()
}
