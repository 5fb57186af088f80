//! Link encryption in the configuration: what each key means, what it is bounded by, and how it is said
//! back. The mistakes stand in `config_mistakes.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_core::config::{self, Diagnostic, model::*};

const EVERYTHING: &str = include_str!("config/everything.yaml");
const SECRETS: &str = "secrets: { web: { certificate: web.pem, private_key: web.key }, ca: { trusted_ca: ca.pem } }\n";

fn parse(text: &str) -> (Config, Vec<Diagnostic>) {
    config::parse("test.yaml", text).unwrap_or_else(|found| panic!("{found:#?}"))
}

fn codes(text: &str) -> Vec<&'static str> {
    let found = match config::parse("test.yaml", text) {
        Ok((_, warnings)) => warnings,
        Err(all) => all,
    };
    found.iter().map(|one| one.code).collect()
}

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<Arc<str>, Arc<str>> {
    let entries = entries.iter();
    entries
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

/// A file with one cluster `c` that has these keys in `tls`, and a listener that uses both secrets.
fn with_cluster(tls: &str) -> String {
    format!(
        "version: 1\nlisteners: {{ l: {{ bind: 127.0.0.1:80, tls: {{ certificates: web, client_certificate: {{ trusted_ca: ca }} }}, routes: [ {{ to: c }} ] }} }}\n\
         clusters: {{ c: {{ endpoints: {{ static: [10.0.0.1:80] }}, tls: {{ trusted_ca: ca, {tls} }} }} }}\n{SECRETS}"
    )
}

/// Goal: the least that turns encryption on is safe. Method: the shortest sections, field by field.
#[test]
fn defaults_are_strict() {
    let text = format!(
        "version: 1\nlisteners:\n  web: {{ bind: 127.0.0.1:443, tls: {{ certificates: web, client_certificate: {{ trusted_ca: ca }} }}, routes: [ {{ to: a }} ] }}\n  \
         db: {{ bind: 127.0.0.1:444, protocol: tcp, tls: {{ certificates: [web] }}, to: b }}\n\
         clusters:\n  a: {{ endpoints: {{ static: [10.0.0.1:80] }}, tls: {{ trusted_ca: ca }} }}\n  \
         b: {{ endpoints: {{ static: [10.0.0.1:81] }}, tls: {{ trusted_ca: ca, mode: follow_peer }} }}\n{SECRETS}"
    );
    let (config, warnings) = parse(&text);
    // The address of an endpoint is a strict name, and seldom the one that is meant.
    assert!(warnings.iter().all(|one| one.code == "TG-C113"));
    let web = ListenerTls {
        mode: ServerMode::Strict,
        force: false,
        certificates: names(&["web"]),
        client: ClientCertificate {
            mode: ClientCertificateMode::Require,
            trusted_ca: Some("ca".into()),
            subject_alt_names: vec![],
            drain_timeout: Duration::from_secs(30),
        },
        parameters: TlsParameters::default(),
        alpn: names(&["http/1.1"]),
        session_tickets: true,
        handshake_timeout: Duration::from_secs(10),
        inspect_timeout: Duration::from_secs(1),
        server_speaks_first: false,
        census_window: Duration::from_secs(60),
        peer_header: None,
    };
    assert_eq!(config.listeners["web"].tls.as_deref(), Some(&web));
    let db = ListenerTls {
        client: ClientCertificate::default(),
        alpn: vec![],
        ..web
    };
    assert_eq!(config.listeners["db"].tls.as_deref(), Some(&db));
    let rollout = |id: &str| Rollout {
        basis_points: 10_000,
        id: id.into(),
        zones: vec![],
        labels: BTreeMap::new(),
    };
    let a = ClusterTls {
        mode: UpstreamTls::Required,
        rollout: rollout("a"),
        server_name: None,
        certificate: None,
        trusted_ca: "ca".into(),
        subject_alt_names: vec![],
        parameters: TlsParameters::default(),
        alpn: names(&["http/1.1"]),
        resumption: true,
        handshake_timeout: Duration::from_secs(5),
        warm_up: Duration::from_secs(1),
        drain_timeout: Duration::from_secs(30),
    };
    assert_eq!(config.clusters["a"].tls.as_deref(), Some(&a));
    // A TCP listener leads here: what is spoken is not known, so nothing is offered.
    let b = ClusterTls {
        mode: UpstreamTls::FollowPeer,
        rollout: rollout("b"),
        alpn: vec![],
        ..a
    };
    assert_eq!(config.clusters["b"].tls.as_deref(), Some(&b));
    assert_eq!(config.clusters["a"].max_connection_age, None);
}

/// Goal: every key lands in its field. Method: a file with all of them, field by field.
#[test]
fn every_key_of_a_listener_lands_in_its_field() {
    let (config, mut warnings) = parse(EVERYTHING);
    // A route leads to the exclusive group of the steering program.
    warnings.retain(|found| found.code != "TG-C120");
    assert_eq!(warnings, []);
    let san = |kind, pattern| SanMatch { kind, pattern };
    let tls = ListenerTls {
        mode: ServerMode::Permissive,
        force: false,
        certificates: names(&["web", "api"]),
        client: ClientCertificate {
            mode: ClientCertificateMode::Optional,
            trusted_ca: Some("mesh-ca".into()),
            subject_alt_names: vec![
                san(
                    SanKind::Uri,
                    SanPattern::Prefix("spiffe://mesh/ns/pay/".into()),
                ),
                san(SanKind::Uri, SanPattern::Suffix("/sa/pay".into())),
                san(SanKind::Dns, SanPattern::Suffix(".pay.example".into())),
                san(SanKind::Dns, SanPattern::Prefix("pay.".into())),
                san(SanKind::Dns, SanPattern::Exact("pay.example".into())),
            ],
            drain_timeout: Duration::from_secs(5),
        },
        parameters: TlsParameters {
            min_version: TlsVersion::Tls13,
            max_version: TlsVersion::Tls13,
            cipher_suites: names(&["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]),
            groups: names(&["X25519MLKEM768", "secp256r1"]),
        },
        alpn: names(&["http/1.1", "http/1.0"]),
        session_tickets: false,
        handshake_timeout: Duration::from_secs(3),
        inspect_timeout: Duration::from_millis(200),
        server_speaks_first: false,
        census_window: Duration::from_secs(120),
        peer_header: Some("x-app".into()),
    };
    assert_eq!(config.listeners["edge"].tls.as_deref(), Some(&tls));
    let db = config.listeners["db"].tls.as_deref().unwrap();
    assert!(db.force && db.server_speaks_first && db.mode == ServerMode::Strict);
    let secrets = BTreeMap::from([
        (
            "web".into(),
            certificate("/etc/tidegate/web.pem", "/etc/tidegate/web.key"),
        ),
        ("api".into(), certificate("api.pem", "api.pem")),
        (
            "mesh-ca".into(),
            Secret::TrustedCa {
                certificates: "/etc/tidegate/ca.pem".into(),
                crl: Some("/etc/tidegate/crl.pem".into()),
                expired_crl: ExpiredCrl::Refuse,
            },
        ),
    ]);
    assert_eq!(config.secrets, secrets);
}

fn certificate(certificate: &str, private_key: &str) -> Secret {
    Secret::Certificate {
        certificate: certificate.into(),
        private_key: private_key.into(),
    }
}

/// Goal and method as above, for clusters and endpoints.
#[test]
fn every_key_of_a_cluster_lands_in_its_field() {
    let (config, _) = parse(EVERYTHING);
    let pay = &config.clusters["pay"];
    let tls = ClusterTls {
        mode: UpstreamTls::FollowPeer,
        rollout: Rollout {
            basis_points: 2000,
            id: "spring".into(),
            zones: names(&["z1", "z2"]),
            labels: map(&[("version", "canary")]),
        },
        server_name: Some("pay.mesh".into()),
        certificate: Some("web".into()),
        trusted_ca: "mesh-ca".into(),
        subject_alt_names: vec![SanMatch {
            kind: SanKind::Uri,
            pattern: SanPattern::Exact("spiffe://mesh/ns/pay/sa/pay".into()),
        }],
        parameters: TlsParameters {
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls12,
            cipher_suites: names(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]),
            groups: names(&["X25519"]),
        },
        alpn: vec![],
        resumption: false,
        handshake_timeout: Duration::from_secs(2),
        warm_up: Duration::ZERO,
        drain_timeout: Duration::from_secs(60),
    };
    assert_eq!(pay.tls.as_deref(), Some(&tls));
    assert_eq!(pay.max_connection_age, Some(Duration::from_secs(3600)));
    let Endpoints::Static(endpoints) = &pay.endpoints else {
        panic!()
    };
    let announcing = StaticEndpoint {
        zone: "z1".into(),
        labels: map(&[("version", "canary")]),
        capability: TlsCapability {
            state: CapabilityState::On,
            epoch: 3,
            alpn: names(&["h2"]),
            min_version: Some(TlsVersion::Tls13),
        },
        ..StaticEndpoint::new("[fd00::1]:80".parse().unwrap(), 3)
    };
    assert_eq!(endpoints[1], announcing);
    let on = TlsCapability {
        state: CapabilityState::On,
        ..TlsCapability::default()
    };
    assert_eq!(
        (&endpoints[0].capability, &endpoints[2].capability),
        (&TlsCapability::default(), &on)
    );
    let v2 = config.clusters["pay-v2"].tls.as_deref().unwrap();
    assert_eq!(
        (v2.mode, v2.rollout.basis_points),
        (UpstreamTls::Disabled, 500)
    );
}

/// Goal: nothing that belongs to a secret leaves its file (E9). Method: PEM text where a path belongs, in
/// one line and in many, longer than any path; no diagnostic repeats a word of it.
#[test]
fn content_of_secrets_is_never_repeated() {
    let line = "MIIEvQIBADANBgkqhkiG";
    let blocks = [
        format!("\"-----BEGIN PRIVATE KEY-----\\n{line}\\n-----END PRIVATE KEY-----\""),
        format!("|\n      -----BEGIN PRIVATE KEY-----\n      {line}\n"),
        format!(
            "|\n      -----BEGIN PRIVATE KEY-----\n{}",
            format!("      {line}\n").repeat(config::TEXT_MAX / line.len() + 1)
        ),
    ];
    for block in blocks {
        let text = format!(
            "version: 1\nsecrets:\n  web:\n    certificate: web.pem\n    private_key: {block}\n"
        );
        let found = config::parse("test.yaml", &text).unwrap_err();
        assert!(found.iter().any(|one| one.code == "TG-C048"), "{found:#?}");
        for one in &found {
            assert!(!format!("{one} {}", one.to_json()).contains(line), "{one}");
        }
    }
}

/// Goal: what is doubtful about encryption is used, and said. Method: a file for each warning.
#[test]
fn doubts_are_warnings() {
    let listener = |tls: &str| {
        format!(
            "version: 1\nlisteners: {{ l: {{ bind: 127.0.0.1:80, routes: [ {{ respond: {{ status: 200 }} }} ], tls: {{ certificates: web, {tls} }} }} }}\n\
             secrets: {{ web: {{ certificate: web.pem, private_key: web.key }}, ca: {{ trusted_ca: ca.pem }} }}\n"
        )
    };
    let client = |san: &str| {
        listener(&format!(
            "client_certificate: {{ trusted_ca: ca, subject_alt_names: [ {{ uri: \"{san}\" }} ] }}"
        ))
    };
    assert_eq!(codes(&listener("mode: strict")), ["TG-C110"]);
    assert_eq!(codes(&client("spiffe://mesh/ns/pay*")), ["TG-C111"]);
    assert_eq!(codes(&client("*pay")), ["TG-C111"]);
    assert_eq!(codes(&client("spiffe://mesh/ns/pay/*")), [""; 0]);
    assert_eq!(codes(&client("*/sa/pay")), [""; 0]);
    let mode = "client_certificate: { trusted_ca: ca }, mode: permissive";
    assert_eq!(
        codes(&listener(&format!("{mode}, force: true"))),
        ["TG-C106"]
    );
    assert_eq!(
        codes(&listener(&format!("{mode}, inspect_timeout: 11s"))),
        ["TG-C104"]
    );
    let looked_up =
        with_cluster("mode: follow_peer").replace("static: [10.0.0.1:80]", "dns: \"a.example:80\"");
    assert_eq!(codes(&looked_up), ["TG-C112"]);
    assert_eq!(
        codes(&looked_up.replace("follow_peer", "required")),
        [""; 0]
    );
    for mode in ["mode: required", "mode: follow_peer"] {
        assert_eq!(codes(&with_cluster(mode)), ["TG-C113"]);
        for named in [
            "server_name: pay.example",
            "server_name: 10.0.0.1",
            "subject_alt_names: [ { uri: \"spiffe://mesh/sa/pay\" } ]",
        ] {
            assert_eq!(codes(&with_cluster(&format!("{mode}, {named}"))), [""; 0]);
        }
    }
    assert_eq!(codes(&with_cluster("mode: disabled")), [""; 0]);
}

/// Goal: keys that only one protocol has are refused beside the other. Method: a TCP listener.
#[test]
fn keys_of_http_are_refused_for_tcp() {
    let text = format!(
        "version: 1\nlisteners: {{ db: {{ bind: 127.0.0.1:80, protocol: tcp, to: c, tls: {{ certificates: web, alpn: [mqtt], peer_header: x-app }} }} }}\n\
         clusters: {{ c: {{ endpoints: {{ static: [10.0.0.1:80] }}, tls: {{ trusted_ca: ca, server_name: a.example, alpn: [h2, mqtt] }} }} }}\n{SECRETS}"
    );
    assert_eq!(codes(&text), ["TG-C022"]);
    assert_eq!(codes(&text.replace(", peer_header: x-app", "")), [""; 0]);
}

/// A file in which something is so many, or so long.
type Text<'a> = &'a dyn Fn(usize) -> String;

/// Goal: what a file can make grow is bounded. Method: each list and text at its limit, and one above.
#[test]
fn limits() {
    let list = |count: usize, item: &dyn Fn(usize) -> String| {
        let items: Vec<String> = (0..count).map(item).collect();
        items.join(", ")
    };
    let secrets = |count| {
        let item = |index| format!("s{index}: {{ certificate: a.pem, private_key: a.key }}");
        format!("version: 1\nsecrets: {{ {} }}\n", list(count, &item))
    };
    let certificates = |count| {
        let bodies = secrets(count);
        let names = list(count, &|index| format!("s{index}"));
        format!(
            "{bodies}listeners: {{ l: {{ bind: 127.0.0.1:80, tls: {{ certificates: [{names}] }}, routes: [ {{ respond: {{ status: 200 }} }} ] }} }}\n"
        )
    };
    let sans = |count| {
        let items = list(count, &|index| format!("{{ dns: h{index}.example }}"));
        with_cluster(&format!("subject_alt_names: [ {items} ]"))
    };
    let san = |bytes: usize| {
        let uri = format!("spiffe://{}", "x".repeat(bytes - "spiffe://".len()));
        with_cluster(&format!("subject_alt_names: [ {{ uri: {uri} }} ]"))
    };
    let zones = |count| {
        let items = list(count, &|index| format!("z{index}"));
        with_cluster(&format!(
            "mode: follow_peer, rollout: {{ zones: [{items}] }}"
        ))
    };
    let labels = |count| {
        let items = list(count, &|index| format!("l{index}: x"));
        with_cluster(&format!(
            "mode: follow_peer, rollout: {{ labels: {{ {items} }} }}"
        ))
    };
    let key = |bytes: usize| {
        let label = "x".repeat(bytes);
        with_cluster(&format!(
            "mode: follow_peer, rollout: {{ labels: {{ {label}: {label} }} }}"
        ))
    };
    // Only a TCP relay takes protocols of any name.
    let alpn = |items: String| {
        with_cluster(&format!("alpn: [ {items} ]"))
            .replace("routes: [ { to: c } ]", "protocol: tcp, to: c")
    };
    let protocols = |count| alpn(list(count, &|index| format!("p{index}")));
    let protocol = |bytes| alpn("x".repeat(bytes));
    let cases: [(Text<'_>, usize, &str); 9] = [
        (&secrets, config::SECRETS_MAX, "TG-C042"),
        (&certificates, config::CERTIFICATES_MAX, "TG-C042"),
        (&sans, config::SUBJECT_ALT_NAMES_MAX, "TG-C042"),
        (&san, config::SUBJECT_ALT_NAME_MAX, "TG-C043"),
        (&zones, config::LABELS_MAX, "TG-C042"),
        (&labels, config::LABELS_MAX, "TG-C042"),
        (&key, config::LABEL_MAX, "TG-C043"),
        (&protocols, config::TLS_LIST_MAX, "TG-C042"),
        (&protocol, config::ALPN_NAME_MAX, "TG-C043"),
    ];
    for (text, limit, code) in cases {
        let at = codes(&text(limit));
        assert!(
            at.iter()
                .all(|code| *code > "TG-C100" || *code == "TG-C099"),
            "{limit} {code}: {at:?}"
        );
        assert!(
            config::parse("test.yaml", &text(limit)).is_ok(),
            "{limit} {code}"
        );
        assert!(codes(&text(limit + 1)).contains(&code), "{limit} {code}");
    }
    // Lists of suites and groups are longer than there are any: twice the same is the first mistake.
    let suites = "TLS_AES_128_GCM_SHA256, ".repeat(config::TLS_LIST_MAX + 1);
    assert!(codes(&with_cluster(&format!("cipher_suites: [{suites}]"))).contains(&"TG-C042"));
}

/// Goal: a person reads what a change of encryption changes, paths of secrets included. Method: several
/// changes of one file, in words; and the same changes backwards compare as many.
#[test]
fn differences_are_words() {
    let old = "version: 1\nlisteners:\n  l: { bind: 127.0.0.1:80, tls: { mode: permissive, certificates: web }, routes: [ { to: c } ] }\n\
        clusters:\n  c: { endpoints: { static: [ 10.0.0.1:80, { address: 10.0.0.2:80, tls: { state: on, epoch: 1 } } ] }, tls: { trusted_ca: ca, mode: follow_peer, rollout: 20% } }\n\
        secrets:\n  web: { certificate: web.pem, private_key: web.key }\n  ca: { trusted_ca: ca.pem }\n";
    let new = old
        .replace("mode: permissive, certificates: web", "certificates: [web]")
        .replace(
            "static: [ 10.0.0.1:80",
            "static: [ { address: 10.0.0.1:80, zone: z1, tls: on }",
        )
        .replace("epoch: 1", "epoch: 2")
        .replace("20%", "50%")
        .replace("web.key", "new.key")
        .replace("ca.pem }", "ca.pem, crl: crl.pem }")
        + "  api: { trusted_ca: api.pem }\n";
    let (old, new) = (parse(old).0, parse(&new).0);
    let expected = [
        "listener l: tls.mode permissive → strict",
        "cluster c: endpoint 10.0.0.1:80 tls off → on",
        "cluster c: endpoint 10.0.0.1:80 zone z1 added",
        "cluster c: endpoint 10.0.0.2:80 tls.epoch 1 → 2",
        "cluster c: tls.rollout.share 20% → 50%",
        "secret ca: crl crl.pem added",
        "secret ca: expired_crl use added",
        "secret web: private_key web.key → new.key",
        "secret api: added",
    ];
    assert_eq!(config::diff(&old, &new), expected);
    assert_eq!(config::diff(&new, &old).len(), expected.len());
}

/// Goal: there is one list of suites and groups, and each can be written. Method: all of them at once, in
/// another case where case makes no difference.
#[test]
fn every_suite_and_group_can_be_written() {
    let suites = config::parameters::SUITES.map(|suite| suite.name);
    let groups = config::parameters::GROUPS.map(|group| group.name);
    let text = with_cluster(&format!(
        "server_name: a.example, cipher_suites: [{}], groups: [{}]",
        suites.join(", "),
        groups.join(", ").to_ascii_lowercase()
    ));
    let (config, warnings) = parse(&text);
    assert_eq!(warnings, []);
    let parameters = &config.clusters["c"].tls.as_ref().unwrap().parameters;
    assert_eq!(parameters.cipher_suites, names(&suites));
    assert_eq!(parameters.groups, names(&groups));
}
