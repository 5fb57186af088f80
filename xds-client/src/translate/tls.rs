//! Transport sockets: TLS on listeners and towards endpoints, by secrets of the file.
//!
//! A secret without an `sds_config` is one that the proxy has of its own, in Envoy as here. Its section is put into
//! the words of our own format and read by the decoder of files, so that defaults and checks are the same.

use serde_json::{Map, Value as Json, json};
use tidegate_core::config::{
    self,
    model::{ClusterTls, Config, ListenerTls, UpstreamProtocol},
};

use super::{Typed, node::Node, typed};

/// What a transport socket is.
pub(super) enum Socket<'a> {
    Plaintext,
    /// The context, of the expected type.
    Tls(Node<'a>),
    /// It was refused.
    Refused,
}

/// Looks at a transport socket; `context` is the type of TLS that may stand here.
pub(super) fn socket<'a>(socket: &Node<'a>, context: &str) -> Socket<'a> {
    match typed(socket, "typed_config") {
        Typed::Known(known) if known.kind() == "RawBuffer" => return Socket::Plaintext,
        Typed::Known(known) if known.kind() == context => return Socket::Tls(known),
        Typed::Known(known) => {
            let why = format!("{} is not supported here", known.kind());
            socket.refuse("typed_config", why);
        }
        Typed::Unknown(name) => socket.refuse("typed_config", format!("{name} is not supported")),
        Typed::Absent => return Socket::Plaintext,
    }
    Socket::Refused
}

/// TLS of a listener that speaks `protocol`, from the contexts of its filter chains; plaintext is taken beside it if a
/// chain says so.
pub(super) fn listener(
    contexts: &[Node<'_>],
    protocol: &str,
    takes_plaintext: bool,
) -> Option<Box<ListenerTls>> {
    let first = contexts.first()?;
    let Some(common) = first.node("common_tls_context") else {
        first.refuse("common_tls_context", "is missing");
        return None;
    };
    let mut section = parameters(&common);
    let mut certificates: Vec<Json> = Vec::new();
    for context in contexts {
        let names = context.node("common_tls_context");
        let names = names.map(|common| secrets(&common, "tls_certificate_sds_secret_configs"));
        for name in names.unwrap_or_default() {
            if !certificates.contains(&name) {
                certificates.push(name);
            }
        }
    }
    let mut secrets = Map::new();
    let certificate = json!({ "certificate": "/c", "private_key": "/k" });
    for name in certificates.iter().filter_map(Json::as_str) {
        secrets.insert(name.to_owned(), certificate.clone());
    }
    if certificates.is_empty() {
        common.refuse("tls_certificate_sds_secret_configs", "is empty");
    }
    section.insert("certificates".into(), certificates.into());
    let mode = match takes_plaintext {
        true => "permissive",
        false => "strict",
    };
    section.insert("mode".into(), mode.into());
    if let Some((authorities, names)) = validation(&common) {
        let is_required = first.flag("require_client_certificate");
        let mode = if is_required { "require" } else { "optional" };
        let mut client = Map::from_iter([
            ("mode".to_owned(), mode.into()),
            ("trusted_ca".to_owned(), authorities.as_str().into()),
        ]);
        if !names.is_empty() {
            client.insert("subject_alt_names".into(), names.into());
        }
        section.insert("client_certificate".into(), client.into());
        secrets.insert(authorities, json!({ "trusted_ca": "/a" }));
    } else if first.flag("require_client_certificate") {
        first.refuse(
            "require_client_certificate",
            "needs a validation context whose authorities are a secret",
        );
    }
    if first.flag("disable_stateless_session_resumption") {
        section.insert("session_tickets".into(), false.into());
    }
    let bind = json!("127.0.0.1:1");
    let listener = match protocol {
        "http" => json!({ "bind": bind, "routes": [{ "to": "c" }], "tls": section }),
        _ => json!({ "bind": bind, "protocol": "tcp", "to": "c", "tls": section }),
    };
    let config = decode(first, listener, json!({}), secrets)?;
    config.listeners.into_values().next()?.tls
}

/// TLS towards the endpoints of a cluster that speaks `protocol`.
pub(super) fn cluster(context: &Node<'_>, protocol: UpstreamProtocol) -> Option<Box<ClusterTls>> {
    let common = context.node("common_tls_context");
    let Some((authorities, names)) = common.as_ref().and_then(validation) else {
        context.refuse(
            "common_tls_context",
            "names no authorities: a server that anybody could be is not spoken to",
        );
        return None;
    };
    let mut section = common.as_ref().map(parameters).unwrap_or_default();
    let mut secrets_of = Map::from_iter([(authorities.clone(), json!({ "trusted_ca": "/a" }))]);
    section.insert("trusted_ca".into(), authorities.into());
    if !names.is_empty() {
        section.insert("subject_alt_names".into(), names.into());
    }
    let certificates = common.map(|common| secrets(&common, "tls_certificate_sds_secret_configs"));
    let certificates = certificates.unwrap_or_default();
    if certificates.len() > 1 {
        context.refuse(
            "common_tls_context.tls_certificate_sds_secret_configs",
            "only one is supported towards endpoints",
        );
    }
    if let Some(Json::String(name)) = certificates.into_iter().next() {
        let certificate = json!({ "certificate": "/c", "private_key": "/k" });
        secrets_of.insert(name.clone(), certificate);
        section.insert("certificate".into(), name.into());
    }
    if context.has("sni") {
        section.insert("server_name".into(), context.text("sni").into());
    }
    if context.integer::<u32>("max_session_keys") == Some(0) {
        section.insert("resumption".into(), false.into());
    }
    let mut cluster = json!({ "tls": section });
    if protocol == UpstreamProtocol::Http2
        && let Some(cluster) = cluster.as_object_mut()
    {
        cluster.insert("protocol".into(), "http2".into());
    }
    let listener = json!({ "bind": "127.0.0.1:1", "routes": [{ "to": "c" }] });
    let config = decode(context, listener, cluster, secrets_of)?;
    config.clusters.into_values().next()?.tls
}

/// Versions and protocols, in our words.
fn parameters(common: &Node<'_>) -> Map<String, Json> {
    let mut section = Map::new();
    if let Some(parameters) = common.node("tls_params") {
        for (field, key) in [
            ("tls_minimum_protocol_version", "min_version"),
            ("tls_maximum_protocol_version", "max_version"),
        ] {
            match parameters.word(field, "TLS_AUTO") {
                "TLS_AUTO" => {}
                "TLSv1_2" => drop(section.insert(key.into(), "1.2".into())),
                "TLSv1_3" => drop(section.insert(key.into(), "1.3".into())),
                other => parameters.refuse(field, format!("{other} is not supported")),
            }
        }
    }
    let protocols = common.texts("alpn_protocols");
    if !protocols.is_empty() {
        let protocols: Vec<&str> = protocols.into_iter().map(|(text, _)| text).collect();
        section.insert("alpn".into(), json!(protocols));
    }
    section
}

/// Names of secrets of the file.
fn secrets(common: &Node<'_>, field: &str) -> Vec<Json> {
    let named = common.nodes(field);
    let names = named.iter().filter_map(of_file);
    names.map(Json::from).collect()
}

/// The name of a secret that the proxy has of its own.
fn of_file(secret: &Node<'_>) -> Option<String> {
    if secret.has("sds_config") {
        let why = "is not supported: name a secret of the file, without a source";
        secret.refuse("sds_config", why);
    }
    super::reference(secret, "name").map(|name| name.to_string())
}

/// The secret of the authorities that peers must come from, and which names theirs must have.
fn validation(common: &Node<'_>) -> Option<(String, Vec<Json>)> {
    let field = "validation_context_sds_secret_config";
    if let Some(combined) = common.node("combined_validation_context") {
        let names = combined.node("default_validation_context");
        let names = names.map(|context| subject_alt_names(&context));
        let secret = combined.node(field)?;
        return Some((of_file(&secret)?, names.unwrap_or_default()));
    }
    let secret = common.node(field)?;
    Some((of_file(&secret)?, Vec::new()))
}

fn subject_alt_names(context: &Node<'_>) -> Vec<Json> {
    let names = context.nodes("match_typed_subject_alt_names");
    names.iter().filter_map(subject_alt_name).collect()
}

/// `{ uri: … }` or `{ dns: … }`.
fn subject_alt_name(node: &Node<'_>) -> Option<Json> {
    let key = match node.word("san_type", "SAN_TYPE_UNSPECIFIED") {
        "URI" => "uri",
        "DNS" => "dns",
        other => {
            node.refuse("san_type", format!("{other} is not supported"));
            return None;
        }
    };
    let matcher = node.node("matcher")?;
    if matcher.flag("ignore_case") && key == "uri" {
        matcher.refuse("ignore_case", "is not supported of a URI");
    }
    let text = match matcher.which(&["exact", "prefix", "suffix", "contains", "safe_regex"]) {
        Some("exact") => matcher.text("exact").to_owned(),
        Some("prefix") => format!("{}*", matcher.text("prefix")),
        Some("suffix") => format!("*{}", matcher.text("suffix")),
        Some(other) => {
            matcher.refuse(other, "is not supported of a certificate's names");
            return None;
        }
        None => {
            matcher.refuse("", "compares with nothing");
            return None;
        }
    };
    Some(json!({ key: text }))
}

/// Reads a section by the decoder of files. What is wrong is told at the context.
fn decode(
    context: &Node<'_>,
    listener: Json,
    mut cluster: Json,
    secrets: Map<String, Json>,
) -> Option<Config> {
    if let Some(cluster) = cluster.as_object_mut() {
        cluster.insert("endpoints".into(), json!({ "static": ["127.0.0.1:3"] }));
    }
    let text = json!({
        "version": 1, "listeners": { "l": listener }, "clusters": { "c": cluster }, "secrets": secrets });
    match config::parse("resource", &text.to_string()) {
        Ok((config, _)) => Some(config),
        Err(faults) => {
            let errors = faults
                .into_iter()
                .filter(|one| one.severity == config::Severity::Error);
            errors.for_each(|fault| context.refuse("common_tls_context", fault.message));
            None
        }
    }
}
