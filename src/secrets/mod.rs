//! Secrets, from their files to the shards: read (`files`), kept while good (`store`), made into what shards
//! encrypt with (`contexts`), and tried before they are announced (`trial`).
//!
//! Content lives in memory only, is wiped when it is replaced, and appears in no log, dump or answer (E9).

mod contexts;
mod files;
mod store;
mod trial;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tidegate_core::{
    config::{
        self,
        model::{Config, ServerMode},
    },
    encryption::{
        announcement::Subject,
        need::{self, Need},
        secret::{Alarm, Material, SecretFacts},
    },
    message::TlsContexts,
};
use tidegate_shard::tls::KeyLog;

pub(crate) use contexts::Tickets;
pub(crate) use trial::{Trials, Tried};

use contexts::{Built, Contexts};
use store::{Fresh, Looked, Problem, Store, Which};

use crate::{
    exit::{Exit, Failure},
    source::{LoadError, Loaded},
    status::SecretStatus,
};

/// The secrets in use, and what was made of them.
pub(crate) struct Secrets {
    store: Store,
    contexts: Contexts,
}

/// Secrets and contexts of a configuration that is not in use yet.
pub(crate) struct Prepared {
    fresh: Fresh,
    built: Built,
}

/// Why a configuration's secrets cannot be used.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// Secrets that are missing or broken.
    Secrets(Vec<Problem>),
    /// Listeners and clusters that cannot be served with secrets that are good as such.
    Owners(Vec<(Arc<str>, String)>),
}

/// What a look at changed files has led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Refreshed {
    /// Secrets that were taken: name and generation.
    pub(crate) taken: Vec<(Arc<str>, u64)>,
    /// Why others were not.
    pub(crate) refused: Vec<String>,
    /// Secrets whose files hold what is in use: nothing new, or something refused was taken back.
    pub(crate) same: usize,
}

impl Secrets {
    /// Those of the first configuration, `loaded` from `file`; with the ticket keys of the process before, if there
    /// was one.
    ///
    /// # Errors
    ///
    /// Whatever is missing or broken: a start never goes on without.
    pub(crate) fn load(
        file: &str,
        loaded: &Loaded,
        key_log: Option<KeyLog>,
        tickets: Option<Tickets>,
        now_unix_s: u64,
    ) -> Result<Secrets, LoadError> {
        let mut secrets = Secrets {
            store: Store::default(),
            contexts: Contexts::new(key_log, tickets).map_err(LoadError::Unreadable)?,
        };
        let prepared = secrets
            .prepare(&loaded.config, now_unix_s)
            .map_err(|unfit| unfit.into_error(file, &loaded.text))?;
        secrets.take(prepared, &loaded.config);
        Ok(secrets)
    }

    /// Reads what is new in `config` and makes its contexts; nothing changes before [`Self::take`].
    pub(crate) fn prepare(&self, config: &Config, now_unix_s: u64) -> Result<Prepared, Unfit> {
        let fresh = self
            .store
            .read_fresh(config, now_unix_s)
            .map_err(Unfit::Secrets)?;
        let materials = self.store.materials(&fresh);
        let (built, faults) = self.contexts.build(config, &materials);
        match faults.is_empty() {
            true => Ok(Prepared { fresh, built }),
            false => Err(Unfit::Owners(faults)),
        }
    }

    /// Uses what was prepared for `config`.
    pub(crate) fn take(&mut self, prepared: Prepared, config: &Config) {
        self.store.take(prepared.fresh, config);
        self.contexts.take(prepared.built);
    }

    /// Looks at files that have changed (or at all, when asked for) and takes what is good.
    pub(crate) fn refresh_changed(&mut self, now_unix_s: u64) -> Refreshed {
        self.refresh(Which::Changed, now_unix_s)
    }

    /// See [`Self::refresh_changed`].
    pub(crate) fn refresh_all(&mut self, now_unix_s: u64) -> Refreshed {
        self.refresh(Which::All, now_unix_s)
    }

    fn refresh(&mut self, which: Which, now_unix_s: u64) -> Refreshed {
        let mut refreshed = Refreshed::default();
        for (name, looked) in self.store.look(which, now_unix_s) {
            match looked {
                Looked::Same => refreshed.same += 1,
                Looked::Taken(generation, facts) => {
                    tracing::info!(
                        "secret `{name}`: generation {generation} in use: {}",
                        in_words(&facts, now_unix_s)
                    );
                    refreshed.taken.push((name, generation));
                }
                Looked::Refused(problem) => {
                    let stays = match self.store.generation(&name) {
                        0 => "it stays missing".to_owned(),
                        generation => format!("generation {generation} stays in use"),
                    };
                    tracing::error!("{problem}; {stays}");
                    refreshed.refused.push(problem.to_string());
                }
            }
        }
        refreshed
    }

    /// Makes the contexts of `config` again, of what is in use now. Says whose cannot be made; theirs are
    /// missing then.
    pub(crate) fn rebuild(&mut self, config: &Config) {
        let materials = self.store.materials(&Fresh::default());
        let (built, faults) = self.contexts.build(config, &materials);
        for (owner, fault) in faults {
            tracing::error!("`{owner}` cannot encrypt: {fault}");
        }
        self.contexts.take(built);
    }

    /// Makes a new ticket key when it is time; whether it did, and so the contexts are out of date.
    pub(crate) fn rotate_tickets(&mut self, uptime: Duration) -> bool {
        self.contexts
            .rotate_tickets(uptime)
            .unwrap_or_else(|failure| {
                tracing::error!("the ticket key stays: {failure}");
                false
            })
    }

    /// The ticket keys, for the process that replaces this one.
    pub(crate) fn tickets(&self, uptime: Duration) -> Tickets {
        self.contexts.tickets(uptime)
    }

    /// Logs secrets that end soon, or have ended, once a day each.
    pub(crate) fn raise_alarms(&mut self, now_unix_s: u64) {
        for (name, alarm, facts) in self.store.alarms(now_unix_s) {
            match alarm {
                Alarm::Expiring => tracing::warn!(
                    "secret `{name}` is to be renewed: {}",
                    in_words(&facts, now_unix_s)
                ),
                Alarm::Expired => tracing::error!(
                    "secret `{name}` has expired and peers refuse it: {}",
                    in_words(&facts, now_unix_s)
                ),
                Alarm::CrlOverdue => tracing::warn!(
                    "secret `{name}`: its revocations should have been renewed; `expired_crl` says what \
                     becomes of peers meanwhile"
                ),
            }
        }
    }

    /// The content of a secret, unless it is missing.
    pub(crate) fn material(&self, name: &str) -> Option<Material> {
        self.store.material(name)
    }

    /// What shards are to be told to encrypt with; `None` if they were told already.
    pub(crate) fn tell(&mut self) -> Option<TlsContexts> {
        self.contexts.tell()
    }

    /// What shards encrypt with.
    pub(crate) fn contexts(&self) -> Option<&TlsContexts> {
        self.contexts.in_use()
    }

    /// Who cannot encrypt yet.
    pub(crate) fn waiting(&self, config: &Config) -> Vec<Need> {
        need::waiting(config, |name| self.store.is_loaded(name))
    }

    /// What may be shown.
    pub(crate) fn show(&self) -> BTreeMap<Arc<str>, SecretStatus> {
        self.store.show()
    }

    /// The listeners of `config` whose TLS is to be tried before it is announced, as they are in use.
    pub(crate) fn subjects(
        &self,
        config: &Config,
        bound: &BTreeMap<SocketAddr, SocketAddr>,
    ) -> BTreeMap<Arc<str>, Subject> {
        let subjects = config.listeners.iter().filter_map(|(name, listener)| {
            let tls = listener.tls.as_deref()?;
            let secrets = tls.certificates.iter().chain(&tls.client.trusted_ca);
            let subject = Subject {
                address: *bound.get(&listener.bind).unwrap_or(&listener.bind),
                tls: tls.clone(),
                generations: match tls.mode {
                    ServerMode::Disabled => Vec::new(),
                    _ => secrets.map(|s| self.store.generation(s)).collect(),
                },
            };
            Some((name.clone(), subject))
        });
        subjects.collect()
    }
}

impl Unfit {
    /// The same as problems of the configuration that brings the secrets.
    pub(crate) fn into_error(self, file: &str, text: &str) -> LoadError {
        match self {
            Unfit::Secrets(problems) => {
                let faults: Vec<_> = problems.into_iter().map(|p| (p.name, p.fault)).collect();
                let diagnostics = config::secret_faults(file, text, &faults);
                LoadError::Invalid(diagnostics, text.to_owned())
            }
            Unfit::Owners(faults) => {
                let lines = faults
                    .iter()
                    .map(|(owner, fault)| format!("`{owner}` cannot encrypt: {fault}"));
                LoadError::Unreadable(Failure::new(
                    Exit::Config,
                    lines.collect::<Vec<_>>().join("\n"),
                    "correct its `tls` section, or the secrets it names",
                ))
            }
        }
    }
}

/// Whose it is and how long it is good.
fn in_words(facts: &SecretFacts, now_unix_s: u64) -> String {
    const DAY_S: i64 = 24 * 3600;
    let remaining_s = facts.remaining_s(now_unix_s);
    let end = match remaining_s {
        ..0 => format!("ended {} days ago", -remaining_s / DAY_S),
        0..DAY_S => format!("ends in {} hours", remaining_s / 3600),
        _ => format!("ends in {} days", remaining_s / DAY_S),
    };
    let names = facts.subject_alt_names.join(", ");
    let fingerprint = facts.fingerprint_sha256.get(..16).unwrap_or_default();
    match names.is_empty() {
        true => format!("{}, {end}, sha256 {fingerprint}", facts.subject),
        false => format!("{names}, {end}, sha256 {fingerprint}"),
    }
}
