//! What the tests of link encryption share.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use crate::config::model::{
    ClientCertificate, ClusterTls, ListenerTls, Rollout, ServerMode, TlsParameters, UpstreamTls,
};

const SECOND: Duration = Duration::from_secs(1);

/// TLS of a strict listener with these certificates.
pub(super) fn listener_tls(certificates: &[&str]) -> ListenerTls {
    ListenerTls {
        mode: ServerMode::Strict,
        force: false,
        certificates: certificates.iter().map(|name| (*name).into()).collect(),
        client: ClientCertificate::default(),
        parameters: TlsParameters::default(),
        alpn: vec!["http/1.1".into()],
        session_tickets: true,
        handshake_timeout: SECOND,
        inspect_timeout: SECOND,
        server_speaks_first: false,
        census_window: SECOND,
        peer_header: None,
    }
}

/// TLS of a cluster that follows its endpoints, all of them.
pub(super) fn cluster_tls(trusted_ca: &str) -> ClusterTls {
    ClusterTls {
        mode: UpstreamTls::FollowPeer,
        rollout: Rollout {
            basis_points: 10_000,
            id: "r".into(),
            zones: Vec::new(),
            labels: BTreeMap::new(),
        },
        server_name: None,
        certificate: None,
        trusted_ca: trusted_ca.into(),
        subject_alt_names: Vec::new(),
        parameters: TlsParameters::default(),
        alpn: Vec::new(),
        resumption: true,
        handshake_timeout: SECOND,
        warm_up: SECOND,
        drain_timeout: SECOND,
    }
}
