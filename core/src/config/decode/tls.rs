//! TLS on listeners, towards clusters, and as endpoints announce it.

use super::{
    matching::listed_twice,
    secret::{Secrets, Wanted},
    *,
};
use crate::{
    config::model::{
        CapabilityState, ClientCertificate, ClientCertificateMode, ClusterTls, ListenerTls,
        Protocol, Rollout, SanKind, SanMatch, ServerMode, TlsCapability, TlsVersion,
        UpstreamProtocol, UpstreamTls,
    },
    config::parameters::{Group, Suite},
};

mod parameters;

use parameters::{parameters, version};

/// Who sends to a cluster.
#[derive(Clone, Copy, Default)]
pub(super) struct Senders {
    pub(super) http: bool,
    pub(super) tcp: bool,
}

impl Senders {
    /// The senders of all clusters.
    pub(super) fn of(
        listeners: &BTreeMap<Arc<str>, crate::config::model::Listener>,
    ) -> BTreeMap<Arc<str>, Senders> {
        let mut all: BTreeMap<Arc<str>, Senders> = BTreeMap::new();
        for listener in listeners.values() {
            match &listener.protocol {
                Protocol::Tcp(tcp) => tcp.to.iter().for_each(|to| {
                    all.entry(Arc::clone(&to.cluster)).or_default().tcp = true;
                }),
                Protocol::Http(http) => {
                    let forwards = http.routes.iter().filter_map(|route| match &route.action {
                        crate::config::model::RouteAction::Forward(forward) => Some(forward),
                        _ => None,
                    });
                    for forward in forwards {
                        for cluster in forward.clusters() {
                            all.entry(Arc::clone(cluster)).or_default().http = true;
                        }
                    }
                }
            }
        }
        all
    }
}

/// Decodes `tls` of a listener.
pub(super) fn listener(
    fields: &Fields<'_>,
    protocol: Option<&str>,
    secrets: &Secrets,
) -> Option<Box<ListenerTls>> {
    let fields = fields.section_opt("tls", &keys::LISTENER_TLS)?;
    let http = protocol == Some("http");
    let mode = match fields.word("mode") {
        Some("disabled") => ServerMode::Disabled,
        Some("permissive") => ServerMode::Permissive,
        _ => ServerMode::Strict,
    };
    let tls = ListenerTls {
        mode,
        force: fields.flag("force"),
        certificates: certificates(&fields, secrets),
        client: client_certificate(&fields, secrets),
        parameters: parameters(&fields),
        alpn: alpn(
            &fields,
            http.then_some(&["h2", "http/1.1", "http/1.0"]),
            http.then_some("http/1.1"),
        ),
        session_tickets: fields.flag("session_tickets"),
        handshake_timeout: fields.duration("handshake_timeout"),
        inspect_timeout: fields.duration("inspect_timeout"),
        server_speaks_first: fields.flag("server_speaks_first"),
        census_window: fields.duration("census_window"),
        peer_header: peer_header(&fields),
    };
    if http && tls.server_speaks_first {
        let message = "`server_speaks_first` contradicts `protocol: http`";
        let at = fields.value_span("server_speaks_first");
        let problem = Problem::new(codes::NOT_HERE, at, message).label("HTTP clients speak first");
        fields
            .report
            .add(problem.help("remove it, or add `protocol: tcp` for a byte relay"));
    }
    if protocol == Some("tcp") {
        let help = "only HTTP has headers: remove it; clients are counted by address";
        fields.refuse(&["peer_header"], "with `protocol: tcp`", help);
    }
    if tls.force && tls.mode != ServerMode::Strict {
        let message = "`force` has no effect without `mode: strict`";
        let problem = Problem::new(codes::NO_EFFECT, fields.key_span("force"), message);
        let help = "remove it until it is needed: it would let `strict` cut clients off";
        fields.report.add(problem.label("not used").help(help));
    }
    if tls.inspect_timeout > tls.handshake_timeout && !tls.handshake_timeout.is_zero() {
        let message = "`inspect_timeout` is longer than `handshake_timeout`, which begins with it";
        let at = ["inspect_timeout", "handshake_timeout"]
            .into_iter()
            .find(|key| fields.has(key));
        let at = fields.value_span(at.unwrap_or("inspect_timeout"));
        let problem = Problem::new(codes::NEVER_BINDS, at, message).label("never reached");
        fields
            .report
            .add(problem.help("shorten `inspect_timeout` or lengthen `handshake_timeout`"));
    }
    Some(Box::new(tls))
}

fn certificates(fields: &Fields<'_>, secrets: &Secrets) -> Vec<Arc<str>> {
    let kind = Kind::Text("the name of a secret", keys::NAME_MAX);
    let mut names: Vec<Arc<str>> = Vec::new();
    for text in texts(
        fields,
        "certificates",
        &kind,
        &fields.one_or_list("certificates"),
    ) {
        if names.iter().any(|name| **name == *text.text) {
            listed_twice(fields.report, "certificates", &text);
            continue;
        }
        names.push(secrets.refer(fields.report, &text, Wanted::Certificate));
    }
    names
}

fn client_certificate(fields: &Fields<'_>, secrets: &Secrets) -> ClientCertificate {
    let Some(fields) = fields.section_opt("client_certificate", &keys::CLIENT_CERTIFICATE) else {
        return ClientCertificate::default();
    };
    let word = fields.word("mode");
    let mode = match word {
        Some("none") => ClientCertificateMode::None,
        Some("optional") => ClientCertificateMode::Optional,
        _ => ClientCertificateMode::Require,
    };
    if matches!(word, Some("optional" | "require")) && !fields.has("trusted_ca") {
        let message = "`client_certificate` needs `trusted_ca`";
        let problem = Problem::new(codes::MISSING_KEY, fields.at.clone(), message);
        fields.report.add(problem.label("no `trusted_ca`").help(
            "add `trusted_ca: NAME`, a secret with the authorities that clients' certificates come from",
        ));
    }
    ClientCertificate {
        mode,
        trusted_ca: secret(&fields, "trusted_ca", secrets, Wanted::TrustedCa),
        subject_alt_names: subject_alt_names(&fields),
        drain_timeout: fields.duration("drain_timeout"),
    }
}

/// The secret that `key` names.
pub(super) fn secret(
    fields: &Fields<'_>,
    key: &str,
    secrets: &Secrets,
    wanted: Wanted,
) -> Option<Arc<str>> {
    let text = fields.text(key)?;
    Some(secrets.refer(fields.report, &text, wanted))
}

fn peer_header(fields: &Fields<'_>) -> Option<Arc<str>> {
    let text = fields.text("peer_header")?;
    checked_opt(
        fields.report,
        "peer_header",
        &text,
        syntax::header_name(&text.text),
    )
}

fn subject_alt_names(fields: &Fields<'_>) -> Vec<SanMatch> {
    // Empty, it would take everybody: what a template without values must not mean.
    fields.refuse_empty("subject_alt_names");
    let mut names: Vec<SanMatch> = Vec::new();
    for node in fields.list("subject_alt_names") {
        let fields = Fields::open(
            fields.report,
            &keys::SUBJECT_ALT_NAME,
            &node,
            node.span.clone(),
        );
        let Some(key) = fields.exactly_one(&["uri", "dns"]) else {
            continue;
        };
        let Some(text) = fields.text(key) else {
            continue;
        };
        let (kind, pattern) = match key {
            "uri" => (SanKind::Uri, syntax::san_uri(&text.text)),
            _ => (SanKind::Dns, syntax::san_dns(&text.text)),
        };
        let Some(pattern) = checked_opt(fields.report, key, &text, pattern) else {
            continue;
        };
        if let Some(also) = syntax::overreach(kind, &pattern) {
            let message = format!("`{}` also matches `{}`", shown(&text.text), shown(&also));
            let problem = Problem::new(codes::WILDCARD, text.span.clone(), message);
            let help = "put the `*` behind a `/`, so that it stands for whole segments";
            fields
                .report
                .add(problem.label("ends inside of a segment").help(help));
        }
        let name = SanMatch { kind, pattern };
        match names.contains(&name) {
            true => listed_twice(fields.report, "subject_alt_names", &text),
            false => names.push(name),
        }
    }
    names
}

/// Names of protocols, of those `spoken` if that is limited; `default` if there is no list.
fn alpn(
    fields: &Fields<'_>,
    spoken: Option<&[&str]>,
    default: Option<&'static str>,
) -> Vec<Arc<str>> {
    if let Some(default) = default.filter(|_| !fields.has("alpn")) {
        return vec![default.into()];
    }
    let kind = Kind::Text("the name of a protocol", keys::ALPN_NAME_MAX);
    let mut protocols: Vec<Arc<str>> = Vec::new();
    for text in texts(fields, "alpn", &kind, &fields.list("alpn")) {
        let parsed = syntax::alpn(&text.text, spoken);
        let Some(protocol) = checked_opt(fields.report, "alpn", &text, parsed) else {
            continue;
        };
        match protocols.contains(&protocol) {
            true => listed_twice(fields.report, "alpn", &text),
            false => protocols.push(protocol),
        }
    }
    protocols
}

/// Decodes `tls` of the cluster `name`.
pub(super) fn cluster(
    fields: &Fields<'_>,
    name: &Arc<str>,
    protocol: UpstreamProtocol,
    senders: Senders,
    secrets: &Secrets,
) -> Option<Box<ClusterTls>> {
    let fields = fields.section_opt("tls", &keys::CLUSTER_TLS)?;
    let word = fields.word("mode");
    let mode = match word {
        Some("disabled") => UpstreamTls::Disabled,
        Some("follow_peer") => UpstreamTls::FollowPeer,
        _ => UpstreamTls::Required,
    };
    if word == Some("required") {
        let help = "`required` encrypts every connection: write `mode: follow_peer` to encrypt a part, or remove it";
        fields.refuse(&["rollout"], "with `mode: required`", help);
    }
    let server_name = fields.text("server_name").and_then(|text| {
        let parsed = syntax::server_name(&text.text);
        checked_opt(fields.report, "server_name", &text, parsed)
    });
    // A server without ALPN takes HTTP/1.1 as well; one of another protocol may refuse to be offered it.
    let default = match protocol {
        UpstreamProtocol::Http2 => Some("h2"),
        UpstreamProtocol::Http1 => (!senders.tcp).then_some("http/1.1"),
    };
    let spoken: Option<&[&str]> = match protocol {
        // Who agreed upon another could not be spoken with.
        UpstreamProtocol::Http2 => Some(&["h2"]),
        UpstreamProtocol::Http1 => {
            (senders.http || !senders.tcp).then_some(&["http/1.1", "http/1.0"])
        }
    };
    let trusted_ca = secret(&fields, "trusted_ca", secrets, Wanted::TrustedCa);
    Some(Box::new(ClusterTls {
        mode,
        rollout: rollout(&fields, name),
        server_name,
        certificate: secret(&fields, "certificate", secrets, Wanted::Certificate),
        // Absent, it was reported.
        trusted_ca: trusted_ca.unwrap_or_else(|| "".into()),
        subject_alt_names: subject_alt_names(&fields),
        parameters: parameters(&fields),
        alpn: alpn(&fields, spoken, default),
        resumption: fields.flag("resumption"),
        handshake_timeout: fields.duration("handshake_timeout"),
        warm_up: fields.duration("warm_up"),
        drain_timeout: fields.duration("drain_timeout"),
    }))
}

fn rollout(fields: &Fields<'_>, cluster: &Arc<str>) -> Rollout {
    let section = fields
        .entry("rollout")
        .filter(|entry| matches!(entry.value.value, Value::Map(_)));
    let Some(_) = section else {
        return Rollout {
            basis_points: fields.share("rollout"),
            id: Arc::clone(cluster),
            zones: Vec::new(),
            labels: BTreeMap::new(),
        };
    };
    let fields = fields.section("rollout", &keys::ROLLOUT);
    let id = fields
        .text("id")
        .map(|text| checked(fields.report, "id", &text, syntax::label(&text.text)));
    // Likewise: empty, every endpoint would be switched.
    fields.refuse_empty("zones");
    fields.refuse_empty("labels");
    let kind = Kind::Text("a zone", keys::NAME_MAX);
    let mut zones: Vec<Arc<str>> = Vec::new();
    for text in texts(&fields, "zones", &kind, &fields.list("zones")) {
        let zone = checked(fields.report, "zones", &text, syntax::label(&text.text));
        match zones.contains(&zone) {
            true => listed_twice(fields.report, "zones", &text),
            false => zones.push(zone),
        }
    }
    Rollout {
        basis_points: fields.share("share"),
        id: id.unwrap_or_else(|| Arc::clone(cluster)),
        zones,
        labels: labels(&fields, "labels"),
    }
}

/// Labels by key, of a rollout or an endpoint.
pub(super) fn labels(fields: &Fields<'_>, key: &str) -> BTreeMap<Arc<str>, Arc<str>> {
    let labels = fields.map(key).into_iter().filter_map(|entry| {
        let name = Text {
            text: entry.key.clone(),
            span: entry.key_span.clone(),
        };
        let kind = Kind::Text("text", keys::LABEL_MAX);
        let value = fields::read_text(fields.report, key, &entry.value, &kind)?;
        let parsed = syntax::label(&name.text);
        Some((
            checked_opt(fields.report, key, &name, parsed)?,
            checked(
                fields.report,
                &entry.key,
                &value,
                syntax::plain_text(&value.text).map(Arc::from),
            ),
        ))
    });
    labels.collect()
}

/// Decodes `tls` of an endpoint.
pub(super) fn capability(fields: &Fields<'_>) -> TlsCapability {
    let state = |word: Option<&str>| match word {
        Some("on") => CapabilityState::On,
        _ => CapabilityState::Off,
    };
    let map = fields
        .entry("tls")
        .filter(|entry| matches!(entry.value.value, Value::Map(_)));
    let Some(_) = map else {
        return TlsCapability {
            state: state(fields.word("tls")),
            ..TlsCapability::default()
        };
    };
    let fields = fields.section("tls", &keys::ENDPOINT_TLS);
    TlsCapability {
        state: state(fields.word("state")),
        epoch: fields.integer("epoch"),
        alpn: alpn(&fields, None, None),
        min_version: version(&fields, "min_version"),
    }
}
