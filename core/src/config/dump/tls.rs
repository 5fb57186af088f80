//! Link encryption. Paths of secrets are shown; what the files hold is not in the model.

use super::*;
use crate::config::model::{
    CapabilityState, ClientCertificate, ClientCertificateMode, ClusterTls, ExpiredCrl, ListenerTls,
    SanKind, SanMatch, SanPattern, Secret, ServerMode, TlsCapability, TlsParameters, TlsVersion,
    UpstreamTls,
};

pub(super) fn secret(secret: &Secret) -> Value {
    let mut object = Object::default();
    match secret {
        Secret::Certificate {
            certificate,
            private_key,
        } => {
            object.put("certificate", &**certificate);
            object.put("private_key", &**private_key);
        }
        Secret::TrustedCa {
            certificates,
            crl,
            expired_crl,
        } => {
            object.put("trusted_ca", &**certificates);
            object.put_opt("crl", crl.as_deref());
            let word = match expired_crl {
                ExpiredCrl::Use => "use",
                ExpiredCrl::Refuse => "refuse",
            };
            object.put_opt("expired_crl", crl.as_ref().map(|_| word));
        }
    }
    object.into()
}

pub(super) fn listener(tls: &ListenerTls) -> Object {
    let mut object = Object::default();
    let mode = match tls.mode {
        ServerMode::Disabled => "disabled",
        ServerMode::Permissive => "permissive",
        ServerMode::Strict => "strict",
    };
    object.put("mode", mode);
    object.put("force", tls.force);
    object.put("certificates", words(&tls.certificates));
    let client =
        (tls.client != ClientCertificate::default()).then(|| client_certificate(&tls.client));
    object.put_opt("client_certificate", client);
    parameters(&mut object, &tls.parameters);
    object.put("alpn", words(&tls.alpn));
    object.put("session_tickets", tls.session_tickets);
    object.put("handshake_timeout", duration(tls.handshake_timeout));
    object.put("inspect_timeout", duration(tls.inspect_timeout));
    object.put("server_speaks_first", tls.server_speaks_first);
    object.put("census_window", duration(tls.census_window));
    object.put_opt("peer_header", tls.peer_header.as_deref());
    object
}

fn client_certificate(client: &ClientCertificate) -> Object {
    let mut object = Object::default();
    let mode = match client.mode {
        ClientCertificateMode::None => "none",
        ClientCertificateMode::Optional => "optional",
        ClientCertificateMode::Require => "require",
    };
    object.put("mode", mode);
    object.put_opt("trusted_ca", client.trusted_ca.as_deref());
    object.put_opt(
        "subject_alt_names",
        subject_alt_names(&client.subject_alt_names),
    );
    object.put("drain_timeout", duration(client.drain_timeout));
    object
}

fn subject_alt_names(names: &[SanMatch]) -> Option<Value> {
    let name = |name: &SanMatch| {
        let key = match name.kind {
            SanKind::Dns => "dns",
            SanKind::Uri => "uri",
        };
        let pattern = match &name.pattern {
            SanPattern::Exact(text) => text.to_string(),
            SanPattern::Prefix(text) => format!("{text}*"),
            SanPattern::Suffix(text) => format!("*{text}"),
        };
        json!({ key: pattern })
    };
    (!names.is_empty()).then(|| names.iter().map(name).collect())
}

fn parameters(object: &mut Object, parameters: &TlsParameters) {
    object.put("min_version", version(parameters.min_version));
    object.put("max_version", version(parameters.max_version));
    let lists = [
        ("cipher_suites", &parameters.cipher_suites),
        ("groups", &parameters.groups),
    ];
    for (key, list) in lists {
        object.put_opt(key, (!list.is_empty()).then(|| words(list)));
    }
}

fn version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    }
}

fn words(words: &[Arc<str>]) -> Value {
    words.iter().map(|word| json!(**word)).collect()
}

pub(super) fn cluster(tls: &ClusterTls) -> Object {
    let mut object = Object::default();
    let mode = match tls.mode {
        UpstreamTls::Disabled => "disabled",
        UpstreamTls::FollowPeer => "follow_peer",
        UpstreamTls::Required => "required",
    };
    object.put("mode", mode);
    if tls.mode != UpstreamTls::Required {
        let mut rollout = Object::default();
        rollout.put("share", format_share(tls.rollout.basis_points));
        rollout.put("id", &*tls.rollout.id);
        let zones = &tls.rollout.zones;
        rollout.put_opt("zones", (!zones.is_empty()).then(|| words(zones)));
        rollout.put_filled("labels", labels(&tls.rollout.labels));
        object.put("rollout", rollout);
    }
    object.put_opt("server_name", tls.server_name.as_deref());
    object.put_opt("certificate", tls.certificate.as_deref());
    object.put("trusted_ca", &*tls.trusted_ca);
    object.put_opt(
        "subject_alt_names",
        subject_alt_names(&tls.subject_alt_names),
    );
    parameters(&mut object, &tls.parameters);
    object.put("alpn", words(&tls.alpn));
    object.put("resumption", tls.resumption);
    object.put("handshake_timeout", duration(tls.handshake_timeout));
    object.put("warm_up", duration(tls.warm_up));
    object.put("drain_timeout", duration(tls.drain_timeout));
    object
}

pub(super) fn labels(labels: &BTreeMap<Arc<str>, Arc<str>>) -> Object {
    let labels = labels.iter();
    Object(
        labels
            .map(|(key, value)| (key.to_string(), json!(**value)))
            .collect(),
    )
}

pub(super) fn capability(capability: &TlsCapability) -> Value {
    let state = match capability.state {
        CapabilityState::Off => "off",
        CapabilityState::On => "on",
    };
    let plain = TlsCapability {
        state: capability.state,
        ..TlsCapability::default()
    };
    if *capability == plain {
        return state.into();
    }
    let mut object = Object::default();
    object.put("state", state);
    object.put("epoch", capability.epoch);
    let alpn = &capability.alpn;
    object.put_opt("alpn", (!alpn.is_empty()).then(|| words(alpn)));
    object.put_opt("min_version", capability.min_version.map(version));
    object.into()
}
