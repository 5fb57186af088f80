//! Metrics of secrets, of what is announced, and of ticket keys.

use tidegate_core::{config::model::CapabilityState, encryption::secret::SecretLife};

use super::{Family, Source, loaded};
use crate::status::{Status, unix_s};

/// Each secret and what `number` makes of it; those without are left out.
fn by_secret(status: &Status, number: impl Fn(&SecretLife) -> Option<f64>) -> Vec<(String, f64)> {
    let live = status.live();
    let all = live.secrets.iter();
    all.filter_map(|(name, secret)| Some((name.to_string(), number(&secret.life)?)))
        .collect()
}

/// Bounded by the configuration: series by secret and by listener.
pub(super) fn families() -> Vec<Family> {
    let family = |name: &str, kind, help: &str, labels, source| Family {
        name: name.into(),
        kind,
        help: help.into(),
        labels,
        source,
    };
    let by_secret_family = |name, kind, help, read| {
        let labels: &[&str] = &["secret"];
        family(name, kind, help, labels, Source::Named(read))
    };
    let process = |name, help, read| family(name, "counter", help, &[], Source::Process(read));
    vec![
        by_secret_family(
            "tidegate_secret_expiry_seconds",
            "gauge",
            "Time until the end of the secret in use; negative behind it.",
            |s| {
                let now = unix_s();
                by_secret(s, |life| Some(life.good()?.facts.remaining_s(now) as f64))
            },
        ),
        by_secret_family(
            "tidegate_secret_not_after_timestamp_seconds",
            "gauge",
            "When the secret in use ends.",
            |s| by_secret(s, |life| Some(life.good()?.facts.not_after_unix_s as f64)),
        ),
        by_secret_family(
            "tidegate_secret_crl_expiry_seconds",
            "gauge",
            "Time until the secret's revocations should be renewed; negative behind it.",
            |s| {
                let now = unix_s() as f64;
                by_secret(s, |life| {
                    Some(life.good()?.facts.crl_next_update_unix_s? as f64 - now)
                })
            },
        ),
        by_secret_family(
            "tidegate_secret_generation",
            "gauge",
            "How often content of the secret was taken; 0 while it is missing.",
            |s| by_secret(s, |life| Some(life.generation() as f64)),
        ),
        by_secret_family(
            "tidegate_secret_refused",
            "gauge",
            "1 while the secret's files hold what cannot be used, and the last good stays.",
            |s| {
                by_secret(s, |life| {
                    Some(f64::from(u8::from(life.refusal().is_some())))
                })
            },
        ),
        process(
            "tidegate_secret_updates_total",
            "Changed secrets that were taken.",
            |s| loaded(&s.process.secrets_taken),
        ),
        process(
            "tidegate_secret_updates_refused_total",
            "Changed secrets that were refused; the last good stayed in use.",
            |s| loaded(&s.process.secrets_refused),
        ),
        family(
            "tidegate_listener_tls_announced",
            "gauge",
            "1 while the listener announces TLS: its handshake with itself has succeeded.",
            &["listener"],
            Source::Named(|s| {
                let live = s.live();
                let all = live.announcements.iter();
                all.map(|(name, announcement)| {
                    let is_on = announcement.capability.state == CapabilityState::On;
                    (name.to_string(), f64::from(u8::from(is_on)))
                })
                .collect()
            }),
        ),
        process(
            "tidegate_self_handshakes_total",
            "Handshakes of listeners with themselves that succeeded.",
            |s| loaded(&s.process.self_handshakes),
        ),
        process(
            "tidegate_self_handshakes_failed_total",
            "Handshakes of listeners with themselves that failed: TLS was not announced, or no more.",
            |s| loaded(&s.process.self_handshakes_failed),
        ),
        family(
            "tidegate_unsafe_key_log",
            "gauge",
            "1 while the secrets of all TLS connections are written to a file (`--unsafe-key-log`).",
            &[],
            Source::Process(|s| f64::from(u8::from(s.live().key_log.is_some()))),
        ),
        process(
            "tidegate_ticket_key_rotations_total",
            "Keys of session tickets made after the first.",
            |s| loaded(&s.process.ticket_rotations),
        ),
    ]
}
