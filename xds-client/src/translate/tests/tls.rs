//! Transport sockets.

use tidegate_core::config::model::{
    ClientCertificateMode, SanKind, SanPattern, ServerMode, TlsVersion, UpstreamTls,
};

use super::*;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

fn context(kind: &str, mut fields: Json) -> Json {
    fields["@type"] = format!("{TLS}.{kind}").into();
    json!({ "name": "tls", "typed_config": fields })
}

fn upstream(fields: Json) -> Json {
    json!({ "name": "a", "transport_socket": context("UpstreamTlsContext", fields) })
}

/// A filter chain with HTTP, in TLS if there are such fields.
fn chain(condition: Json, tls: Option<Json>) -> Json {
    let mut chain = http(json!([]))["filter_chains"][0].clone();
    chain["filter_chain_match"] = condition;
    if let Some(fields) = tls {
        chain["transport_socket"] = context("DownstreamTlsContext", fields);
    }
    chain
}

fn with_chains(chains: Json) -> Json {
    let mut listener = http(json!([]));
    listener["filter_chains"] = chains;
    listener
}

fn certificate(name: &str) -> Json {
    json!({ "common_tls_context": { "tls_certificate_sds_secret_configs": [{ "name": name }] } })
}

/// Goal: TLS towards endpoints means what it says, never less. Method: a context with all that is taken; then what is
/// not taken, each told where it stands.
#[test]
fn endpoints_are_spoken_to_by_tls() {
    let made = cluster(upstream(
        json!({ "sni": "pay.internal", "max_session_keys": 0, "common_tls_context": {
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3" },
        "tls_certificate_sds_secret_configs": [{ "name": "gw" }],
        "combined_validation_context": {
            "default_validation_context": { "match_typed_subject_alt_names": [
                { "san_type": "URI", "matcher": { "prefix": "spiffe://mesh/ns/pay/" } },
                { "san_type": "DNS", "matcher": { "exact": "pay.internal" } } ] },
            "validation_context_sds_secret_config": { "name": "mesh-ca" } } } }),
    ));
    let tls = made.config.tls.unwrap();
    assert_eq!(tls.mode, UpstreamTls::Required);
    assert_eq!(
        (
            &*tls.trusted_ca,
            tls.certificate.as_deref(),
            tls.server_name.as_deref()
        ),
        ("mesh-ca", Some("gw"), Some("pay.internal"))
    );
    assert_eq!(
        (tls.parameters.min_version, tls.resumption),
        (TlsVersion::Tls13, false)
    );
    assert_eq!(tls.subject_alt_names[0].kind, SanKind::Uri);
    assert_eq!(
        tls.subject_alt_names[0].pattern,
        SanPattern::Prefix("spiffe://mesh/ns/pay/".into())
    );
    assert_eq!(
        tls.subject_alt_names[1].pattern,
        SanPattern::Exact("pay.internal".into())
    );
    let at = "transport_socket.typed_config";
    let authorities = json!({ "name": "ca" });
    for (fields, path) in [
        // Whoever answers would be believed.
        (
            json!({}),
            format!("{at}.common_tls_context: names no authorities"),
        ),
        (
            json!({ "common_tls_context": { "validation_context_sds_secret_config": { "name": "ca",
                "sds_config": { "ads": {} } } } }),
            format!("{at}.common_tls_context.validation_context_sds_secret_config.sds_config"),
        ),
        (
            json!({ "common_tls_context": { "validation_context": { "trusted_ca": { "filename": "/x" } } } }),
            format!("{at}.common_tls_context.validation_context"),
        ),
        (
            json!({ "common_tls_context": { "combined_validation_context": {
                "default_validation_context": { "match_typed_subject_alt_names": [
                    { "san_type": "EMAIL", "matcher": { "exact": "a@b" } } ] },
                "validation_context_sds_secret_config": authorities } } }),
            format!(
                "{at}.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names[0].san_type"
            ),
        ),
        (
            json!({ "sni": "no host", "common_tls_context": { "validation_context_sds_secret_config": authorities } }),
            format!("{at}.common_tls_context"),
        ),
        (
            json!({ "common_tls_context": { "validation_context_sds_secret_config": authorities,
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_0" } } }),
            format!("{at}.common_tls_context.tls_params.tls_minimum_protocol_version"),
        ),
    ] {
        let told = refused(&of(ResourceType::Cluster, upstream(fields)));
        assert!(
            told.iter().any(|line| line.starts_with(&path)),
            "{path}: {told:#?}"
        );
    }
    let wrong =
        json!({ "name": "a", "transport_socket": context("DownstreamTlsContext", json!({})) });
    let told = refused(&of(ResourceType::Cluster, wrong));
    assert!(
        told[0].contains("DownstreamTlsContext is not supported here"),
        "{told:#?}"
    );
}

/// Goal: a listener is strict if all its chains are encrypted, and permissive if one is not; certificates of all chains
/// are its own. Method: one chain, two with their names, one with and one without TLS.
#[test]
fn chains_differ_by_their_tls() {
    let tls = |chains: Json| listener(with_chains(chains)).config.tls.unwrap();
    let mut asks = certificate("web");
    asks["require_client_certificate"] = true.into();
    asks["common_tls_context"]["validation_context_sds_secret_config"] = json!({ "name": "ca" });
    asks["common_tls_context"]["alpn_protocols"] = json!(["h2", "http/1.1"]);
    let strict = tls(json!([chain(json!({}), Some(asks.clone()))]));
    assert_eq!(strict.mode, ServerMode::Strict);
    assert_eq!(strict.client.mode, ClientCertificateMode::Require);
    assert_eq!(strict.client.trusted_ca.as_deref(), Some("ca"));
    assert_eq!(strict.alpn, ["h2".into(), "http/1.1".into()]);
    asks["require_client_certificate"] = false.into();
    let optional = tls(json!([chain(json!({}), Some(asks))]));
    assert_eq!(optional.client.mode, ClientCertificateMode::Optional);

    let named = |name: &str| json!({ "server_names": [name] });
    let two = json!([
        chain(named("a.example"), Some(certificate("a"))),
        chain(named("b.example"), Some(certificate("b"))),
    ]);
    assert_eq!(tls(two.clone()).certificates, ["a".into(), "b".into()]);
    let doubtful = of(ResourceType::Listener, with_chains(two));
    assert!(warned(&doubtful).contains(&"filter_chains[0].filter_chain_match.server_names"));

    let both = json!([
        chain(
            json!({ "transport_protocol": "tls" }),
            Some(certificate("web"))
        ),
        chain(json!({ "transport_protocol": "raw_buffer" }), None),
    ]);
    assert_eq!(tls(both).mode, ServerMode::Permissive);
    let plain = listener(with_chains(json!([chain(json!({}), None)])));
    assert_eq!(plain.config.tls, None);
}

/// Goal: what chains cannot differ by is refused, and so is TLS of which nothing would be verified or shown. Method: one
/// of each.
#[test]
fn other_differences_are_refused() {
    let told = |chains: Json| refused(&of(ResourceType::Listener, with_chains(chains)));
    let mut other = chain(json!({}), None);
    other["filters"][0]["typed_config"]["via"] = "other".into();
    let tls = || Some(certificate("web"));
    let mut asks = certificate("web");
    asks["require_client_certificate"] = true.into();
    let mut tickets = certificate("web");
    tickets["disable_stateless_session_resumption"] = true.into();
    for (chains, line) in [
        (json!([]), "filter_chains: is empty"),
        (
            json!([chain(json!({}), tls()), other]),
            "filter_chains[1].filters: differ",
        ),
        (
            json!([chain(json!({}), None), chain(json!({}), None)]),
            "filter_chains: only one without TLS",
        ),
        (
            json!([chain(json!({}), tls()), chain(json!({}), Some(tickets))]),
            "filter_chains[1].transport_socket.typed_config: differs",
        ),
        (
            json!([
                chain(json!({ "transport_protocol": "raw_buffer" }), tls()),
                chain(json!({}), None)
            ]),
            "filter_chains[0].filter_chain_match.transport_protocol: ",
        ),
        (
            json!([chain(json!({ "transport_protocol": "tls" }), tls())]),
            "filter_chains[0].filter_chain_match.transport_protocol: ",
        ),
        (
            json!([chain(json!({ "source_ports": [1] }), tls())]),
            "filter_chains[0].filter_chain_match.source_ports: ",
        ),
        (
            json!([chain(json!({}), Some(json!({ "common_tls_context": {} })))]),
            "filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificate_sds_secret_configs: is empty",
        ),
        (
            json!([chain(json!({}), Some(json!({})))]),
            "filter_chains[0].transport_socket.typed_config.common_tls_context: is missing",
        ),
        (
            json!([chain(json!({}), Some(asks))]),
            "filter_chains[0].transport_socket.typed_config.require_client_certificate: needs",
        ),
    ] {
        let told = told(chains);
        assert!(
            told.iter().any(|one| one.starts_with(line)),
            "{line}: {told:#?}"
        );
    }
}
