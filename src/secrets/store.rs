//! The secrets in use: each with its files, what they held when it was last good, and its life.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use tidegate_core::{
    config::model::{Config, Secret},
    encryption::secret::{
        Alarm, Material, Offered, SecretFacts, SecretFault, SecretLife, SecretPart,
    },
};
use tidegate_shard::tls;

use super::files;
use crate::{
    status::SecretStatus,
    watch::{Gone, Watch},
};

/// How often files whose content was refused are read again, in seconds, though they did not change: a certificate
/// that is not valid yet becomes so by itself.
const RETRY_S: u64 = 60;

/// By name.
#[derive(Debug, Default)]
pub(super) struct Store {
    by_name: BTreeMap<Arc<str>, Entry>,
}

/// Secrets of a configuration that is not in use yet: those that the store does not know already.
#[derive(Debug, Default)]
pub(super) struct Fresh(BTreeMap<Arc<str>, Entry>);

#[derive(Debug)]
struct Entry {
    secret: Secret,
    watch: Watch,
    /// The last good content, and so what is in use.
    material: Option<Material>,
    life: SecretLife,
    /// When the files were read last.
    read_unix_s: u64,
}

/// Why a secret cannot be used, with everything that an operator has to know.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// Name of the secret.
    pub(crate) name: Arc<str>,
    /// The file at fault.
    pub(crate) path: String,
    /// The rest.
    pub(crate) fault: SecretFault,
}

/// What a look at the files of a secret has led to.
#[derive(Clone, Debug)]
pub(super) enum Looked {
    /// The files hold what is in use.
    Same,
    /// They hold something new and good, which is in use now, as this generation.
    Taken(u64, SecretFacts),
    /// They hold something that cannot be used; the last good stays.
    Refused(Problem),
}

impl Store {
    /// Reads those secrets of `config` that are new or lie in other files than before.
    pub(super) fn read_fresh(
        &self,
        config: &Config,
        now_unix_s: u64,
    ) -> Result<Fresh, Vec<Problem>> {
        let mut fresh = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, secret) in &config.secrets {
            let known = self.by_name.get(name);
            if known.is_some_and(|entry| entry.secret == *secret && entry.material.is_some()) {
                continue;
            }
            let mut entry = Entry::new(secret, known);
            match entry.read(name, now_unix_s) {
                Looked::Refused(problem) => problems.push(problem),
                Looked::Same | Looked::Taken(..) => drop(fresh.insert(name.clone(), entry)),
            }
        }
        match problems.is_empty() {
            true => Ok(Fresh(fresh)),
            false => Err(problems),
        }
    }

    /// Takes what [`Self::read_fresh`] gave for `config`, which is in use from now on.
    pub(super) fn take(&mut self, fresh: Fresh, config: &Config) {
        self.by_name.extend(fresh.0);
        self.by_name
            .retain(|name, _| config.secrets.contains_key(name));
    }

    /// What is in use, with `fresh` before it.
    pub(super) fn materials(&self, fresh: &Fresh) -> BTreeMap<Arc<str>, Material> {
        let all = self.by_name.iter().chain(&fresh.0);
        all.filter_map(|(name, entry)| Some((name.clone(), entry.material.clone()?)))
            .collect()
    }

    /// What is in use under a name.
    pub(super) fn material(&self, name: &str) -> Option<Material> {
        self.by_name.get(name)?.material.clone()
    }

    /// Looks at the files of every secret whose files have changed, or of every one.
    pub(super) fn look(&mut self, which: Which, now_unix_s: u64) -> Vec<(Arc<str>, Looked)> {
        let mut looked = Vec::new();
        for (name, entry) in &mut self.by_name {
            let is_due = entry.watch.changed() || entry.is_retry_due(now_unix_s);
            if which == Which::Changed && !is_due {
                continue;
            }
            let before = entry.life.clone();
            let result = entry.read(name, now_unix_s);
            if matches!(result, Looked::Refused(_)) {
                let is_known =
                    before.refusal().map(|r| &r.text) == entry.life.refusal().map(|r| &r.text);
                // What is known is not told again; and of files that move on while they are read, one
                // half may be older than the other: the next looks will see.
                if is_known && which == Which::Changed || entry.watch.has_moved() {
                    entry.life = before;
                    continue;
                }
            }
            looked.push((name.clone(), result));
        }
        looked
    }

    /// Alarms to raise now.
    pub(super) fn alarms(&mut self, now_unix_s: u64) -> Vec<(Arc<str>, Alarm, SecretFacts)> {
        let raised = self.by_name.iter_mut().filter_map(|(name, entry)| {
            let alarm = entry.life.alarm(now_unix_s)?;
            let facts = entry.life.good()?.facts.clone();
            Some((name.clone(), alarm, facts))
        });
        raised.collect()
    }

    /// Whether a secret has good content.
    pub(super) fn is_loaded(&self, name: &str) -> bool {
        let entry = self.by_name.get(name);
        entry.is_some_and(|entry| entry.material.is_some())
    }

    /// The generation of a secret; 0 while it is missing.
    pub(super) fn generation(&self, name: &str) -> u64 {
        self.by_name
            .get(name)
            .map_or(0, |entry| entry.life.generation())
    }

    /// What may be shown.
    pub(super) fn show(&self) -> BTreeMap<Arc<str>, SecretStatus> {
        let shown = self.by_name.iter().map(|(name, entry)| {
            let status = SecretStatus {
                secret: entry.secret.clone(),
                life: entry.life.clone(),
            };
            (name.clone(), status)
        });
        shown.collect()
    }
}

/// Which secrets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those whose files have changed.
    Changed,
    /// Every one: an operator has asked for it.
    All,
}

impl Entry {
    /// A secret that was not read yet. What is known under its name, perhaps from other files, goes on.
    fn new(secret: &Secret, known: Option<&Entry>) -> Entry {
        Entry {
            secret: secret.clone(),
            watch: Watch::new(paths(secret), Gone::Changed),
            material: known.and_then(|known| known.material.clone()),
            life: known.map(|known| known.life.clone()).unwrap_or_default(),
            read_unix_s: 0,
        }
    }

    fn is_retry_due(&self, now_unix_s: u64) -> bool {
        self.life.refusal().is_some() && now_unix_s >= self.read_unix_s.saturating_add(RETRY_S)
    }

    /// Reads the files, and takes or refuses what they hold: all of it or nothing.
    fn read(&mut self, name: &Arc<str>, now_unix_s: u64) -> Looked {
        self.watch.taken();
        self.read_unix_s = now_unix_s;
        let checked = files::read(&self.secret).and_then(|content| {
            if self.material.as_ref() == Some(&content.material) {
                return Ok(None);
            }
            let facts = tls::check(&content.material, now_unix_s)?;
            Ok(Some((content, facts)))
        });
        match checked {
            Ok(None) => {
                self.life.confirm();
                Looked::Same
            }
            Ok(Some((content, facts))) => {
                for warning in &content.warnings {
                    tracing::warn!("secret `{name}`: {warning}");
                }
                self.material = Some(content.material);
                match self.life.offer(Ok(facts.clone()), now_unix_s) {
                    Offered::Taken(generation) => Looked::Taken(generation, facts),
                    Offered::Refused => Looked::Same,
                }
            }
            Err(fault) => {
                let path = fault.part.path(&self.secret).unwrap_or_default().to_owned();
                let problem = Problem {
                    name: name.clone(),
                    path,
                    fault,
                };
                self.life.offer(Err(problem.to_string()), now_unix_s);
                Looked::Refused(problem)
            }
        }
    }
}

fn paths(secret: &Secret) -> Vec<PathBuf> {
    let parts = [
        SecretPart::Certificate,
        SecretPart::PrivateKey,
        SecretPart::TrustedCa,
        SecretPart::Crl,
    ];
    let paths = parts.iter().filter_map(|part| part.path(secret));
    paths.map(PathBuf::from).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { name, path, fault } = self;
        let SecretFault { cause, remedy, .. } = fault;
        write!(f, "secret `{name}`: `{path}`: {cause} ({remedy})")
    }
}
