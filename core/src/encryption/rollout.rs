//! Which links ought to be encrypted (E3, E5): a pure function of what the server announced and of the
//! client's rule.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use crate::{
    config::model::{CapabilityState, ClusterTls, Rollout, TlsCapability, UpstreamTls},
    steering::{destination::hash_bytes, hash_address},
};

/// A whole, in basis points.
const WHOLE: u64 = 10_000;

/// How a link carries its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// As they are.
    #[default]
    Plaintext,
    /// In TLS.
    Tls,
}

/// How links from `node_id` to the endpoint at `address` ought to carry their bytes.
///
/// Every shard of a node, and the same node after a restart, comes to the same answer; nothing but the
/// arguments counts, so that no list of who has switched is kept anywhere.
pub fn wanted(
    tls: &ClusterTls,
    node_id: &str,
    address: SocketAddr,
    zone: &str,
    labels: &BTreeMap<Arc<str>, Arc<str>>,
    capability: &TlsCapability,
) -> LinkKind {
    let switched = match tls.mode {
        UpstreamTls::Disabled => false,
        UpstreamTls::Required => true,
        UpstreamTls::FollowPeer => {
            capability.state == CapabilityState::On
                && is_compatible(tls, capability)
                && selects(&tls.rollout, zone, labels)
                && sample(&tls.rollout.id, node_id, address) < tls.rollout.basis_points
        }
    };
    match switched {
        true => LinkKind::Tls,
        false => LinkKind::Plaintext,
    }
}

/// Where the pair of client instance and endpoint lies in the rollout: 0 to 9999. It switches once the
/// share is above, and stays switched as the share grows.
pub fn sample(rollout_id: &str, node_id: &str, address: SocketAddr) -> u32 {
    let rollout = hash_bytes(0, rollout_id.as_bytes());
    let client = hash_bytes(rollout, node_id.as_bytes());
    let pair = hash_bytes(client, &hash_address(address).to_le_bytes());
    (pair % WHOLE) as u32
}

/// Whether a handshake can succeed, as far as the announcement tells: one that cannot is not begun, since
/// it would be begun again and again.
fn is_compatible(tls: &ClusterTls, capability: &TlsCapability) -> bool {
    let version = capability
        .min_version
        .is_none_or(|least| least <= tls.parameters.max_version);
    // RFC 7301, 3.2: a server that shares no protocol with the client ends the handshake.
    let protocol = capability.alpn.is_empty()
        || tls.alpn.is_empty()
        || tls.alpn.iter().any(|ours| capability.alpn.contains(ours));
    version && protocol
}

/// Whether the rollout is about endpoints like this one.
fn selects(rollout: &Rollout, zone: &str, labels: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
    let in_zone = rollout.zones.is_empty() || rollout.zones.iter().any(|z| **z == *zone);
    let labelled = |(key, value): (&Arc<str>, &Arc<str>)| labels.get(key) == Some(value);
    in_zone && rollout.labels.iter().all(labelled)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{TlsParameters, TlsVersion};

    fn tls(mode: UpstreamTls, basis_points: u32) -> ClusterTls {
        ClusterTls {
            mode,
            rollout: Rollout {
                basis_points,
                id: "first".into(),
                zones: Vec::new(),
                labels: BTreeMap::new(),
            },
            server_name: None,
            certificate: None,
            trusted_ca: "ca".into(),
            subject_alt_names: Vec::new(),
            parameters: TlsParameters::default(),
            alpn: vec!["http/1.1".into()],
            resumption: true,
            handshake_timeout: Duration::from_secs(5),
            warm_up: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(30),
        }
    }

    fn on() -> TlsCapability {
        TlsCapability {
            state: CapabilityState::On,
            ..TlsCapability::default()
        }
    }

    fn address(i: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 8080))
    }

    fn kind(tls: &ClusterTls, capability: &TlsCapability) -> LinkKind {
        wanted(tls, "n", address(1), "z1", &BTreeMap::new(), capability)
    }

    /// Goal: the mode decides first (E5). Method: every mode with and without the announcement.
    #[test]
    fn modes() {
        let cases = [
            (UpstreamTls::Disabled, on(), LinkKind::Plaintext),
            (UpstreamTls::FollowPeer, on(), LinkKind::Tls),
            (
                UpstreamTls::FollowPeer,
                TlsCapability::default(),
                LinkKind::Plaintext,
            ),
            (UpstreamTls::Required, on(), LinkKind::Tls),
            (
                UpstreamTls::Required,
                TlsCapability::default(),
                LinkKind::Tls,
            ),
        ];
        for (mode, capability, expected) in cases {
            assert_eq!(kind(&tls(mode, 10_000), &capability), expected, "{mode:?}");
        }
        // Required is not a matter of the rollout: nothing is ever sent in plaintext (E16).
        assert_eq!(kind(&tls(UpstreamTls::Required, 0), &on()), LinkKind::Tls);
    }

    /// Goal: nobody switches to an endpoint that could not be spoken to. Method: announcements that share
    /// nothing with the client, and such that do.
    #[test]
    fn incompatible_announcements_are_not_followed() {
        let tls = tls(UpstreamTls::FollowPeer, 10_000);
        let mut old_client = tls.clone();
        old_client.parameters.max_version = TlsVersion::Tls12;
        let speaks = |alpn: &[&str], min_version| TlsCapability {
            alpn: alpn.iter().map(|a| (*a).into()).collect(),
            min_version,
            ..on()
        };
        let cases = [
            (&tls, speaks(&["h2"], None), LinkKind::Plaintext),
            (&tls, speaks(&["h2", "http/1.1"], None), LinkKind::Tls),
            (&tls, speaks(&[], Some(TlsVersion::Tls13)), LinkKind::Tls),
            (
                &old_client,
                speaks(&[], Some(TlsVersion::Tls13)),
                LinkKind::Plaintext,
            ),
            (
                &old_client,
                speaks(&[], Some(TlsVersion::Tls12)),
                LinkKind::Tls,
            ),
        ];
        for (tls, capability, expected) in cases {
            assert_eq!(kind(tls, &capability), expected, "{capability:?}");
        }
    }

    /// Goal: zones and labels choose endpoints (E3). Method: one endpoint against selectors that name it and
    /// such that do not.
    #[test]
    fn selectors() {
        let labels = BTreeMap::from([
            ("version".into(), "canary".into()),
            ("app".into(), "pay".into()),
        ]);
        type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], LinkKind);
        let cases: [Case<'_>; 6] = [
            (&[], &[], LinkKind::Tls),
            (&["z1"], &[], LinkKind::Tls),
            (&["z2", "z3"], &[], LinkKind::Plaintext),
            (&["z1"], &[("version", "canary")], LinkKind::Tls),
            (&[], &[("version", "stable")], LinkKind::Plaintext),
            (
                &[],
                &[("version", "canary"), ("team", "a")],
                LinkKind::Plaintext,
            ),
        ];
        for (zones, required, expected) in cases {
            let mut tls = tls(UpstreamTls::FollowPeer, 10_000);
            tls.rollout.zones = zones.iter().map(|z| (*z).into()).collect();
            tls.rollout.labels = required
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect();
            let got = wanted(&tls, "n", address(1), "z1", &labels, &on());
            assert_eq!(got, expected, "{zones:?} {required:?}");
        }
    }

    /// Goal: a share is the share that is meant, for clients of one endpoint and endpoints of one client.
    /// Method: the share of 20,000 pairs is within 1.5 points of 20 %.
    #[test]
    fn shares_are_met() {
        let tls = tls(UpstreamTls::FollowPeer, 2_000);
        let switched = |node: &str, i: u16| {
            wanted(&tls, node, address(i), "", &BTreeMap::new(), &on()) == LinkKind::Tls
        };
        let by_endpoint = (0..20_000).filter(|i| switched("n", *i)).count();
        let by_client = (0..20_000)
            .filter(|i| switched(&format!("node-{i}"), 7))
            .count();
        for count in [by_endpoint, by_client] {
            assert!((3_700..4_300).contains(&count), "{count}");
        }
    }

    proptest! {
        /// Goal: who has switched stays switched as the share grows, and 0 and 100 % mean nobody and
        /// everybody (E3). Method: any pair, any two shares.
        #[test]
        fn growing_shares_only_add(
            node in "[a-z0-9-]{0,20}",
            i in any::<u16>(),
            a in 0u32..=10_000,
            b in 0u32..=10_000,
        ) {
            let switched = |share| {
                let tls = tls(UpstreamTls::FollowPeer, share);
                wanted(&tls, &node, address(i), "", &BTreeMap::new(), &on()) == LinkKind::Tls
            };
            prop_assert!(!switched(a.min(b)) || switched(a.max(b)));
            prop_assert!(!switched(0));
            prop_assert!(switched(10_000));
        }
    }

    /// Goal: the sample is the same in every version and on every machine, as a rollout lasts longer than
    /// a process. Method: values written down once.
    #[test]
    fn samples_never_change() {
        let samples: Vec<u32> = (0..4)
            .map(|i| sample("first", "node-1", address(i)))
            .collect();
        assert_eq!(samples, SAMPLES);
        assert_ne!(
            sample("second", "node-1", address(0)),
            sample("first", "node-1", address(0))
        );
    }

    const SAMPLES: [u32; 4] = [5206, 4215, 2346, 5603];
}
