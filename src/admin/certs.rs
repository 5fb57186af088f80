//! `/certs`: the secrets in use, as far as they may be shown (E9), as JSON and as text.

use std::fmt::Write;

use serde_json::{Value, json};
use tidegate_core::{config::model::Secret, encryption::secret::SecretPart};

use crate::status::{SecretStatus, Status, unix_s};

const DAY_S: f64 = 86_400.0;

/// One object a secret, by name; and who waits for one.
pub(crate) fn view(status: &Status) -> Value {
    let live = status.live();
    let now = unix_s();
    let secrets = live.secrets.iter().map(|(name, s)| secret(name, s, now));
    let waiting = live.waiting.iter().map(ToString::to_string);
    json!({
        "secrets": secrets.collect::<Vec<_>>(),
        "waiting": waiting.collect::<Vec<_>>(),
    })
}

fn secret(name: &str, status: &SecretStatus, now: u64) -> Value {
    let SecretStatus { secret, life } = status;
    let good = life.good();
    let facts = good.map(|good| &good.facts);
    json!({
        "name": name,
        "kind": kind(secret),
        "files": files(secret),
        "state": life.state(now).word(),
        "generation": life.generation(),
        "since_unix_s": good.map(|g| g.since_unix_s),
        "subject": facts.map(|f| &f.subject),
        "issuer": facts.map(|f| &f.issuer),
        "serial": facts.map(|f| &f.serial),
        "subject_alt_names": facts.map(|f| &f.subject_alt_names),
        "fingerprint_sha256": facts.map(|f| &f.fingerprint_sha256),
        "certificates": facts.map(|f| f.certificates),
        "not_before_unix_s": facts.map(|f| f.not_before_unix_s),
        "not_after_unix_s": facts.map(|f| f.not_after_unix_s),
        "days_left": facts.map(|f| days(f.remaining_s(now))),
        "crl_next_update_unix_s": facts.and_then(|f| f.crl_next_update_unix_s),
        "refused": life.refused(),
        "refusal": life.refusal().map(|r| json!({ "text": r.text, "at_unix_s": r.at_unix_s })),
    })
}

/// To a tenth, towards the past.
fn days(seconds: i64) -> f64 {
    (seconds as f64 / DAY_S * 10.0).floor() / 10.0
}

const fn kind(secret: &Secret) -> &'static str {
    match secret {
        Secret::Certificate { .. } => "certificate",
        Secret::TrustedCa { .. } => "trusted_ca",
    }
}

fn files(secret: &Secret) -> Value {
    let parts = [
        SecretPart::Certificate,
        SecretPart::PrivateKey,
        SecretPart::TrustedCa,
        SecretPart::Crl,
    ];
    let named = parts
        .iter()
        .filter_map(|part| Some((part.key().to_owned(), json!(part.path(secret)?))));
    Value::Object(named.collect())
}

/// The same for people: a paragraph a secret.
pub(crate) fn text(status: &Status) -> String {
    let live = status.live();
    let now = unix_s();
    if live.secrets.is_empty() {
        return "no secrets are configured\n".into();
    }
    let mut out = String::new();
    // Writing to a String does not fail.
    for (name, secret) in &live.secrets {
        let _ = write_secret(&mut out, name, secret, now);
    }
    for need in &live.waiting {
        let _ = writeln!(out, "waiting: {need}");
    }
    out
}

fn write_secret(out: &mut String, name: &str, status: &SecretStatus, now: u64) -> std::fmt::Result {
    let SecretStatus { secret, life } = status;
    writeln!(out, "{name}: {}, {}", kind(secret), life.state(now).word())?;
    if let Some(good) = life.good() {
        let facts = &good.facts;
        writeln!(out, "  subject      {}", facts.subject)?;
        if !facts.subject_alt_names.is_empty() {
            writeln!(out, "  names        {}", facts.subject_alt_names.join(", "))?;
        }
        writeln!(out, "  issuer       {}", facts.issuer)?;
        writeln!(out, "  serial       {}", facts.serial)?;
        writeln!(out, "  sha-256      {}", facts.fingerprint_sha256)?;
        writeln!(
            out,
            "  ends         in {:.1} days (unix {})",
            days(facts.remaining_s(now)),
            facts.not_after_unix_s
        )?;
        writeln!(out, "  generation   {}", good.generation)?;
    }
    if let Some(refusal) = life.refusal() {
        let ago = now.saturating_sub(refusal.at_unix_s);
        writeln!(out, "  refused      {ago} s ago: {}", refusal.text)?;
    }
    writeln!(out)
}
