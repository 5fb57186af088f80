//! What a listener may announce about TLS: only what a handshake with itself has proven (E10).
//!
//! For each listener: configuration and secrets in use → a handshake with itself → the capability. A listener
//! whose handshake fails announces nothing, or takes back what it announced, and is tried again. Whatever
//! changes about it (address, settings, a secret) is tried before it is announced; until then the old
//! announcement stays, since the listener goes on serving what it served.
//!
//! Pure: the handshakes are made outside, and time is an argument.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use crate::config::model::{CapabilityState, ListenerTls, ServerMode, TlsCapability, TlsVersion};

/// The first pause after a failed handshake, in seconds; doubled each time.
const RETRY_S_MIN: u64 = 1;

/// The longest pause. Short: the usual cause is a secret, and its replacement is tried at once anyway.
const RETRY_S_MAX: u64 = 60;

/// All listeners that offer TLS, or did.
#[derive(Debug, Default)]
pub struct Announcements {
    by_listener: BTreeMap<Arc<str>, Entry>,
    attempts: u64,
}

/// What is announced of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What its clients are to know. The epoch is 0 as long as nothing was announced.
    pub capability: TlsCapability,
    /// Why TLS is not announced, if it is not.
    pub why_not: Option<String>,
    /// When its last handshake with itself ended; 0 before the first.
    pub tried_unix_s: u64,
}

/// All that a handshake proves something about: another one is due when it differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Where the listener really listens.
    pub address: SocketAddr,
    /// Its settings.
    pub tls: ListenerTls,
    /// Generations of the secrets it uses, in the order of their names in the settings.
    pub generations: Vec<u64>,
}

/// A handshake to be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Where to dial.
    pub address: SocketAddr,
    /// To be given back with the result, so that one that was overtaken is told from the newest.
    pub number: u64,
}

#[derive(Debug)]
struct Entry {
    shown: Announcement,
    /// What is in use; `None` while TLS is off.
    subject: Option<Subject>,
    trial: Trial,
}

/// Where a subject is in its trial.
#[derive(Clone, Copy, Debug)]
enum Trial {
    /// From this moment on it is to be tried; the pause to take if that fails.
    Due { at_unix_s: u64, pause_s: u64 },
    /// It is being tried, as this attempt.
    UnderWay { number: u64, pause_s: u64 },
    /// Nothing to do.
    Settled,
}

impl Announcements {
    /// Takes over what shards use from now on: every listener with TLS settings, those where it is switched
    /// off included. Returns the names of listeners whose announcement changed by that alone.
    pub fn follow(
        &mut self,
        subjects: BTreeMap<Arc<str>, Subject>,
        now_unix_s: u64,
    ) -> Vec<Arc<str>> {
        let mut changed = Vec::new();
        self.by_listener.retain(|listener, entry| {
            let stays = subjects.contains_key(listener);
            if !stays && entry.shown.capability.state == CapabilityState::On {
                changed.push(listener.clone());
            }
            stays
        });
        for (listener, subject) in subjects {
            let entry = self
                .by_listener
                .entry(listener.clone())
                .or_insert_with(Entry::new);
            if subject.tls.mode == ServerMode::Disabled {
                entry.subject = None;
                entry.trial = Trial::Settled;
                let why = "TLS is switched off".into();
                if entry.withdraw(why, now_unix_s) {
                    changed.push(listener);
                }
            } else if entry.subject.as_ref() != Some(&subject) {
                entry.subject = Some(subject);
                entry.trial = Trial::Due {
                    at_unix_s: now_unix_s,
                    pause_s: RETRY_S_MIN,
                };
            }
        }
        changed
    }

    /// The handshakes to be made now, each told once. Their results go to [`Self::finished`].
    pub fn due(&mut self, now_unix_s: u64) -> Vec<Attempt> {
        let mut due = Vec::new();
        for (listener, entry) in &mut self.by_listener {
            let (Some(subject), Trial::Due { at_unix_s, pause_s }) = (&entry.subject, entry.trial)
            else {
                continue;
            };
            if now_unix_s < at_unix_s {
                continue;
            }
            self.attempts += 1;
            let number = self.attempts;
            entry.trial = Trial::UnderWay { number, pause_s };
            due.push(Attempt {
                listener: listener.clone(),
                address: subject.address,
                number,
            });
        }
        due
    }

    /// Takes the result of a handshake. Returns the listener's name if its announcement changed. The
    /// result of an attempt that was overtaken by a newer subject is ignored.
    pub fn finished(
        &mut self,
        attempt: &Attempt,
        result: Result<(), String>,
        now_unix_s: u64,
    ) -> Option<Arc<str>> {
        let entry = self.by_listener.get_mut(&attempt.listener)?;
        let Trial::UnderWay { number, pause_s } = entry.trial else {
            return None;
        };
        if number != attempt.number {
            return None;
        }
        entry.shown.tried_unix_s = now_unix_s;
        let changed = match result {
            Ok(()) => {
                entry.trial = Trial::Settled;
                entry.announce(now_unix_s)
            }
            Err(why) => {
                entry.trial = Trial::Due {
                    at_unix_s: now_unix_s.saturating_add(pause_s),
                    pause_s: (pause_s * 2).min(RETRY_S_MAX),
                };
                entry.withdraw(why, now_unix_s)
            }
        };
        changed.then(|| attempt.listener.clone())
    }

    /// By name of the listener, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Announcement)> {
        self.by_listener
            .iter()
            .map(|(name, entry)| (name, &entry.shown))
    }
}

impl Entry {
    fn new() -> Entry {
        Entry {
            shown: Announcement {
                capability: TlsCapability::default(),
                why_not: Some("not tried yet".into()),
                tried_unix_s: 0,
            },
            subject: None,
            trial: Trial::Settled,
        }
    }

    /// Announces the subject; whether that changes anything.
    fn announce(&mut self, now_unix_s: u64) -> bool {
        let Some(subject) = &self.subject else {
            return false;
        };
        self.shown.why_not = None;
        let capability = TlsCapability {
            state: CapabilityState::On,
            epoch: self.shown.capability.epoch,
            alpn: subject.tls.alpn.clone(),
            min_version: min_version(&subject.tls),
        };
        self.replace(capability, now_unix_s)
    }

    /// Takes back what was announced; whether anything was.
    fn withdraw(&mut self, why: String, now_unix_s: u64) -> bool {
        self.shown.why_not = Some(why);
        let capability = TlsCapability {
            epoch: self.shown.capability.epoch,
            ..TlsCapability::default()
        };
        self.replace(capability, now_unix_s)
    }

    fn replace(&mut self, capability: TlsCapability, now_unix_s: u64) -> bool {
        let before = &mut self.shown.capability;
        if *before == capability {
            return false;
        }
        // Subscribers ignore an epoch below one that they know, and a restart must not fall behind what
        // the process before it announced: hence the clock rather than a count from one.
        let epoch = before.epoch.saturating_add(1).max(now_unix_s);
        *before = TlsCapability {
            epoch,
            ..capability
        };
        true
    }
}

/// What a client need not even try below.
fn min_version(tls: &ListenerTls) -> Option<TlsVersion> {
    Some(tls.parameters.min_version)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::encryption::fixture;

    const NOW: u64 = 1_000_000;

    fn subject(generation: u64) -> Subject {
        Subject {
            address: "127.0.0.1:443".parse().unwrap(),
            tls: fixture::listener_tls(&["web"]),
            generations: vec![generation],
        }
    }

    fn one(subject: Subject) -> BTreeMap<Arc<str>, Subject> {
        BTreeMap::from([("web".into(), subject)])
    }

    fn shown(announcements: &Announcements) -> Announcement {
        announcements.iter().next().unwrap().1.clone()
    }

    /// Goal: nothing is announced before its handshake, and nothing broken ever (E10). Method: a listener
    /// that fails, twice, then succeeds; every step at its second.
    #[test]
    fn only_the_proven_is_announced() {
        let mut all = Announcements::default();
        assert!(all.follow(one(subject(1)), NOW).is_empty());
        assert_eq!(shown(&all).capability.state, CapabilityState::Off);
        let first = all.due(NOW);
        assert_eq!(first.len(), 1);
        assert!(all.due(NOW).is_empty(), "told once");
        assert_eq!(all.finished(&first[0], Err("alert".into()), NOW), None);
        assert_eq!(shown(&all).why_not.as_deref(), Some("alert"));
        assert_eq!(shown(&all).capability, TlsCapability::default());
        assert!(all.due(NOW).is_empty(), "after a pause");
        let second = all.due(NOW + 1);
        all.finished(&second[0], Err("alert".into()), NOW + 1);
        assert!(all.due(NOW + 2).is_empty(), "the pause doubles");
        let third = all.due(NOW + 3);
        let changed = all.finished(&third[0], Ok(()), NOW + 3);
        assert_eq!(changed.as_deref(), Some("web"));
        let shown = shown(&all);
        assert_eq!(shown.capability.state, CapabilityState::On);
        assert_eq!(shown.capability.epoch, NOW + 3);
        assert_eq!(shown.capability.min_version, Some(TlsVersion::Tls12));
        assert_eq!((shown.why_not, shown.tried_unix_s), (None, NOW + 3));
        assert!(all.due(u64::MAX).is_empty());
    }

    fn announced() -> Announcements {
        let mut all = Announcements::default();
        all.follow(one(subject(1)), NOW);
        let due = all.due(NOW);
        all.finished(&due[0], Ok(()), NOW);
        all
    }

    /// Goal: a rotation is tried while the old announcement stays; the epoch moves only when what clients
    /// know changes (E11), and a broken rotation takes it back. Method: two rotations of an announced
    /// listener, one good, one broken, and the same configuration again.
    #[test]
    fn rotations_are_tried_again() {
        let mut all = announced();
        all.follow(one(subject(1)), NOW + 9);
        assert!(all.due(NOW + 9).is_empty(), "nothing changed");
        all.follow(one(subject(2)), NOW + 10);
        assert_eq!(shown(&all).capability.state, CapabilityState::On);
        let due = all.due(NOW + 10);
        assert_eq!(all.finished(&due[0], Ok(()), NOW + 10), None);
        assert_eq!(shown(&all).capability.epoch, NOW);
        all.follow(one(subject(3)), NOW + 20);
        let due = all.due(NOW + 20);
        assert!(
            all.finished(&due[0], Err("broken".into()), NOW + 20)
                .is_some()
        );
        let now = shown(&all).capability;
        assert_eq!((now.state, now.epoch), (CapabilityState::Off, NOW + 20));
    }

    /// Goal: the result of an overtaken attempt says nothing about what is in use now. Method: a second
    /// subject while the first is tried; the first succeeds late.
    #[test]
    fn overtaken_results_are_ignored() {
        let mut all = Announcements::default();
        all.follow(one(subject(1)), NOW);
        let old = all.due(NOW);
        all.follow(one(subject(2)), NOW);
        assert_eq!(all.finished(&old[0], Ok(()), NOW), None);
        let new = all.due(NOW);
        assert_eq!(all.finished(&old[0], Ok(()), NOW), None);
        assert_eq!(shown(&all).capability.state, CapabilityState::Off);
        assert!(all.finished(&new[0], Ok(()), NOW).is_some());
    }

    /// Goal: switching TLS off takes the announcement back under a higher epoch, even within the same second
    /// or with a clock that went back; other settings that clients see move it, too. Method: table of changes.
    #[test]
    fn epoch_grows_with_every_change() {
        let mut all = announced();
        let mut off = subject(1);
        off.tls.mode = ServerMode::Disabled;
        assert_eq!(all.follow(one(off), NOW).len(), 1);
        let taken_back = shown(&all);
        assert_eq!(taken_back.capability.epoch, NOW + 1);
        assert_eq!(taken_back.why_not.as_deref(), Some("TLS is switched off"));
        all.follow(one(subject(1)), NOW - 500);
        let due = all.due(NOW - 500);
        all.finished(&due[0], Ok(()), NOW - 500);
        assert_eq!(shown(&all).capability.epoch, NOW + 2);
        let mut other = subject(1);
        other.tls.alpn = vec!["h2".into()];
        all.follow(one(other), NOW);
        let due = all.due(NOW);
        assert!(all.finished(&due[0], Ok(()), NOW).is_some());
        assert_eq!(shown(&all).capability.epoch, NOW + 3);
        assert_eq!(all.follow(BTreeMap::new(), NOW).len(), 1);
        assert_eq!(all.iter().count(), 0);
    }

    /// Goal: a listener that stays broken is tried at most once a minute. Method: ten failures.
    #[test]
    fn pauses_are_bounded() {
        let mut all = Announcements::default();
        all.follow(one(subject(1)), 0);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let due = all.due(now);
            all.finished(&due[0], Err(String::new()), now);
            let before = now;
            while all.by_listener["web"].is_pausing(now) {
                now += 1;
            }
            pauses.push(now - before);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    }

    impl Entry {
        fn is_pausing(&self, now_unix_s: u64) -> bool {
            matches!(self.trial, Trial::Due { at_unix_s, .. } if now_unix_s < at_unix_s)
        }
    }
}
