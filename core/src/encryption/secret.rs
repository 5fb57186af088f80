//! Certificates and keys, from the file to the announcement: what is known of a secret, and its life.
//!
//! A secret is *missing* until its first good content; from then on there is always a last good one. New
//! content replaces it as a whole or is refused as a whole, and a refusal stays visible until content is
//! taken again. Who reads the files is outside; who looks into certificates is the TLS side, through
//! [`SecretFacts`] and [`SecretFault`]. Time is an argument, in seconds since the Unix epoch.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use crate::config::model;

/// The longest time before the end of a secret at which it is called expiring. A third of the life of a
/// certificate of ten years would be an alarm of three, which nobody hears any more; public ones of 90 days
/// are meant to be renewed 30 days before their end.
pub const ALARM_S_MAX: u64 = 30 * DAY_S;

/// How often an alarm is repeated while its cause stays.
pub const ALARM_REPEAT_S: u64 = DAY_S;

const DAY_S: u64 = 24 * 3600;

/// The content of a secret, as read: PEM, unchecked. Wiped from memory when dropped, and never shown (E9).
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// A certificate with its key.
    Certificate {
        /// The chain, the leaf first.
        chain: Arc<[u8]>,
        /// The key.
        private_key: Arc<Zeroizing<Vec<u8>>>,
    },
    /// Authorities that are trusted.
    TrustedCa {
        /// Their certificates.
        certificates: Arc<[u8]>,
        /// Revocations.
        crl: Option<Arc<[u8]>>,
        /// What becomes of peers once these are out of date.
        expired_crl: model::ExpiredCrl,
    },
}

/// What may be shown of a good secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// Subject of the leaf, or of the first authority (RFC 4514).
    pub subject: String,
    /// Issuer of the same.
    pub issuer: String,
    /// Serial number of the same, hexadecimal.
    pub serial: String,
    /// Its subject alternative names, as `DNS:…`, `URI:…`, `IP:…`.
    pub subject_alt_names: Vec<String>,
    /// SHA-256 of its DER, hexadecimal.
    pub fingerprint_sha256: String,
    /// Certificates in the file.
    pub certificates: usize,
    /// From when on it is good: the latest begin in a chain, the earliest among authorities.
    pub not_before_unix_s: u64,
    /// Until when: the earliest end in a chain, since all of it is needed; the latest among authorities,
    /// since bundles keep old ones beside those that follow.
    pub not_after_unix_s: u64,
    /// When the revocations should have been renewed, if there are any and they say so.
    pub crl_next_update_unix_s: Option<u64>,
}

/// Why content is no good secret. Never holds any of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFault {
    /// Which of its files is at fault.
    pub part: SecretPart,
    /// What is wrong, in a clause without a full stop.
    pub cause: String,
    /// What to do about it, likewise.
    pub remedy: String,
}

/// One of the files that make a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretPart {
    /// The certificate chain.
    Certificate,
    /// Its key.
    PrivateKey,
    /// The authorities.
    TrustedCa,
    /// Their revocations.
    Crl,
}

/// The life of one secret: what is in use, and what was refused since.
#[derive(Clone, Debug, Default)]
pub struct SecretLife {
    good: Option<Good>,
    refusal: Option<Refusal>,
    refused: u64,
    /// The alarm that was told last, and when.
    told: Option<(Alarm, u64)>,
}

/// A secret in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Good {
    /// What may be shown of it.
    pub facts: SecretFacts,
    /// 1 for the first content, one more with each that replaced it.
    pub generation: u64,
    /// When it was taken.
    pub since_unix_s: u64,
}

/// New content that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Place, cause and remedy.
    pub text: String,
    /// When.
    pub at_unix_s: u64,
}

/// How a secret does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// It never had good content; who needs it waits.
    Missing,
    /// In use.
    Good,
    /// In use; ends soon, and nothing has replaced it.
    Expiring,
    /// In use, though at its end: peers refuse it, and nothing has replaced it.
    Expired,
}

/// What an operator has to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The secret in use ends soon.
    Expiring,
    /// It has ended.
    Expired,
    /// Its revocations should have been renewed.
    CrlOverdue,
}

/// What became of new content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is in use, as this generation.
    Taken(u64),
    /// What was in use stays; there may be nothing.
    Refused,
}

impl SecretLife {
    /// Takes new content by what the check of it said, or refuses it.
    pub fn offer(&mut self, checked: Result<SecretFacts, String>, now_unix_s: u64) -> Offered {
        match checked {
            Ok(facts) => {
                let generation = self.generation() + 1;
                self.good = Some(Good {
                    facts,
                    generation,
                    since_unix_s: now_unix_s,
                });
                self.refusal = None;
                self.told = None;
                Offered::Taken(generation)
            }
            Err(text) => {
                self.refused += 1;
                self.refusal = Some(Refusal {
                    text,
                    at_unix_s: now_unix_s,
                });
                Offered::Refused
            }
        }
    }

    /// The files hold again what is in use: what was refused is gone.
    pub fn confirm(&mut self) {
        if self.good.is_some() {
            self.refusal = None;
        }
    }

    /// What is in use.
    pub fn good(&self) -> Option<&Good> {
        self.good.as_ref()
    }

    /// What its files hold now, if that was refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// How often content was refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How often content was taken; 0 while missing.
    pub fn generation(&self) -> u64 {
        self.good.as_ref().map_or(0, |good| good.generation)
    }

    /// How it does.
    pub fn state(&self, now_unix_s: u64) -> SecretState {
        let Some(good) = &self.good else {
            return SecretState::Missing;
        };
        if now_unix_s >= good.facts.not_after_unix_s {
            return SecretState::Expired;
        }
        if now_unix_s >= good.facts.alarm_unix_s() {
            return SecretState::Expiring;
        }
        SecretState::Good
    }

    /// The alarm to raise now, if there is one: when its cause begins, and every [`ALARM_REPEAT_S`] while it
    /// lasts. To be asked at every tick.
    pub fn alarm(&mut self, now_unix_s: u64) -> Option<Alarm> {
        let alarm = match self.state(now_unix_s) {
            SecretState::Good if self.is_crl_overdue(now_unix_s) => Alarm::CrlOverdue,
            SecretState::Missing | SecretState::Good => return None,
            SecretState::Expiring => Alarm::Expiring,
            SecretState::Expired => Alarm::Expired,
        };
        if let Some((told, at)) = self.told
            && told == alarm
            && now_unix_s < at.saturating_add(ALARM_REPEAT_S)
        {
            return None;
        }
        self.told = Some((alarm, now_unix_s));
        Some(alarm)
    }
}

impl SecretLife {
    fn is_crl_overdue(&self, now_unix_s: u64) -> bool {
        let next = self
            .good
            .as_ref()
            .and_then(|good| good.facts.crl_next_update_unix_s);
        next.is_some_and(|next| now_unix_s >= next)
    }
}

impl SecretFacts {
    /// When it begins to be called expiring: when a third of its life is left, and not earlier than
    /// [`ALARM_S_MAX`] before the end.
    pub fn alarm_unix_s(&self) -> u64 {
        let life_s = self.not_after_unix_s.saturating_sub(self.not_before_unix_s);
        let left_s = (life_s / 3).min(ALARM_S_MAX);
        self.not_after_unix_s.saturating_sub(left_s)
    }

    /// Seconds until its end; negative behind it.
    pub fn remaining_s(&self, now_unix_s: u64) -> i64 {
        let signed = |s| i64::try_from(s).unwrap_or(i64::MAX);
        signed(self.not_after_unix_s).saturating_sub(signed(now_unix_s))
    }
}

impl SecretState {
    /// The word in `/certs`, the metrics and the log.
    pub const fn word(self) -> &'static str {
        match self {
            SecretState::Missing => "missing",
            SecretState::Good => "good",
            SecretState::Expiring => "expiring",
            SecretState::Expired => "expired",
        }
    }
}

impl SecretPart {
    /// The key of the file in the configuration.
    pub const fn key(self) -> &'static str {
        match self {
            SecretPart::Certificate => "certificate",
            SecretPart::PrivateKey => "private_key",
            SecretPart::TrustedCa => "trusted_ca",
            SecretPart::Crl => "crl",
        }
    }

    /// The path of the file, as `secret` says. `None` if it has no such file.
    pub fn path(self, secret: &model::Secret) -> Option<&str> {
        match (self, secret) {
            (SecretPart::Certificate, model::Secret::Certificate { certificate, .. }) => {
                Some(certificate)
            }
            (SecretPart::PrivateKey, model::Secret::Certificate { private_key, .. }) => {
                Some(private_key)
            }
            (SecretPart::TrustedCa, model::Secret::TrustedCa { certificates, .. }) => {
                Some(certificates)
            }
            (SecretPart::Crl, model::Secret::TrustedCa { crl, .. }) => crl.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for SecretFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.part.key(), self.cause, self.remedy)
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Material::Certificate { .. } => "Certificate(redacted)",
            Material::TrustedCa { .. } => "TrustedCa(redacted)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = DAY_S;

    fn facts(not_before: u64, not_after: u64) -> SecretFacts {
        SecretFacts {
            not_before_unix_s: not_before,
            not_after_unix_s: not_after,
            ..SecretFacts::default()
        }
    }

    /// Goal: the last good stays whatever is refused, and a refusal shows until content is taken or restored
    /// (E9). Method: a life in order.
    #[test]
    fn last_good_stays() {
        let mut life = SecretLife::default();
        assert_eq!(life.state(0), SecretState::Missing);
        assert_eq!(life.offer(Err("no file".into()), 1), Offered::Refused);
        life.confirm();
        assert!(life.refusal().is_some(), "nothing is in use to go back to");
        assert_eq!(life.state(1), SecretState::Missing);
        let first = facts(0, 90 * DAY);
        assert_eq!(life.offer(Ok(first.clone()), 2), Offered::Taken(1));
        assert_eq!(life.refusal(), None);
        assert_eq!(life.offer(Err("mismatch".into()), 3), Offered::Refused);
        assert_eq!(life.good().map(|good| &good.facts), Some(&first));
        assert_eq!(life.refusal().map(|r| r.at_unix_s), Some(3));
        life.confirm();
        assert_eq!(life.refusal(), None);
        let second = facts(DAY, 91 * DAY);
        assert_eq!(life.offer(Ok(second.clone()), 4), Offered::Taken(2));
        assert_eq!(life.good().map(|good| &good.facts), Some(&second));
        assert_eq!((life.refused(), life.generation()), (2, 2));
    }

    /// Goal: the alarm comes when a third of the life is left, and not months before the end. Method: lives
    /// from an hour to ten years, at the second before and at it.
    #[test]
    fn alarm_comes_at_a_third() {
        for (begin, end, alarm) in [
            (0, 3600, 2400),
            (0, DAY, 16 * 3600),
            (10 * DAY, 100 * DAY, 70 * DAY),
            (0, 3650 * DAY, 3620 * DAY),
            (5, 5, 5),
            (9, 5, 5),
        ] {
            let facts = facts(begin, end);
            assert_eq!(facts.alarm_unix_s(), alarm, "{begin} to {end}");
            let mut life = SecretLife::default();
            life.offer(Ok(facts), begin);
            if alarm < end {
                assert_eq!(life.state(alarm - 1), SecretState::Good);
                assert_eq!(life.state(alarm), SecretState::Expiring);
            }
            assert_eq!(life.state(end), SecretState::Expired);
        }
    }

    /// Goal: an alarm is told once a day while its cause lasts, and a new cause at once. Method: a
    /// certificate of 90 days, looked at for its last 30 and beyond, then replaced.
    #[test]
    fn alarms_are_told_once_a_day() {
        let mut life = SecretLife::default();
        life.offer(Ok(facts(0, 90 * DAY)), 0);
        assert_eq!(life.alarm(60 * DAY - 1), None);
        assert_eq!(life.alarm(60 * DAY), Some(Alarm::Expiring));
        assert_eq!(life.alarm(61 * DAY - 1), None);
        assert_eq!(life.alarm(61 * DAY), Some(Alarm::Expiring));
        assert_eq!(life.alarm(90 * DAY - 1), Some(Alarm::Expiring));
        assert_eq!(life.alarm(90 * DAY), Some(Alarm::Expired));
        assert_eq!(life.alarm(90 * DAY + 1), None);
        life.offer(Ok(facts(90 * DAY, 180 * DAY)), 90 * DAY + 2);
        assert_eq!(life.alarm(90 * DAY + 2), None);
        assert_eq!(life.state(90 * DAY + 2), SecretState::Good);
    }

    /// Goal: revocations that are out of date are told of once a day, until they are renewed. Method: at the second
    /// before their next update, at it, a day later, and with new ones.
    #[test]
    fn overdue_revocations_are_told() {
        let with_crl = |next| SecretFacts {
            crl_next_update_unix_s: Some(next),
            ..facts(0, 90 * DAY)
        };
        let mut life = SecretLife::default();
        life.offer(Ok(with_crl(7 * DAY)), 0);
        assert_eq!(life.alarm(7 * DAY - 1), None);
        assert_eq!(life.alarm(7 * DAY), Some(Alarm::CrlOverdue));
        assert_eq!(life.alarm(8 * DAY - 1), None);
        assert_eq!(life.alarm(8 * DAY), Some(Alarm::CrlOverdue));
        assert_eq!(life.state(8 * DAY), SecretState::Good, "it is used");
        life.offer(Ok(with_crl(15 * DAY)), 8 * DAY);
        assert_eq!(life.alarm(8 * DAY), None);
    }

    /// Goal: no time makes arithmetic fail. Method: the ends of the range.
    #[test]
    fn arithmetic_holds_at_the_ends() {
        let forever = facts(0, u64::MAX);
        assert_eq!(forever.remaining_s(0), i64::MAX);
        assert_eq!(facts(0, 0).remaining_s(u64::MAX), -i64::MAX);
        assert_eq!(forever.alarm_unix_s(), u64::MAX - ALARM_S_MAX);
        let mut life = SecretLife::default();
        life.offer(Ok(forever), u64::MAX);
        assert_eq!(life.alarm(u64::MAX), Some(Alarm::Expired));
        assert_eq!(life.alarm(u64::MAX), Some(Alarm::Expired), "saturated");
    }

    /// Goal: neither content nor faults show what they hold (E9). Method: format a key.
    #[test]
    fn content_is_never_shown() {
        let material = Material::Certificate {
            chain: Arc::from(&b"CHAIN"[..]),
            private_key: Arc::new(Zeroizing::new(b"KEY".to_vec())),
        };
        assert_eq!(format!("{material:?}"), "Certificate(redacted)");
    }
}
