//! Who needs which secret: what waits for one that is missing, and what a new one touches.

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::config::model::{Config, ServerMode, UpstreamTls};

/// Somebody that cannot encrypt without a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Who.
    pub owner: Owner,
    /// Name of the secret.
    pub secret: Arc<str>,
}

/// What needs secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A listener, by name.
    Listener(Arc<str>),
    /// A cluster, by name.
    Cluster(Arc<str>),
}

/// Every need in `config`, in order of owner and secret, each once. Switched-off TLS needs nothing.
pub fn needs(config: &Config) -> BTreeSet<Need> {
    let mut needs = BTreeSet::new();
    for (name, listener) in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        if tls.mode == ServerMode::Disabled {
            continue;
        }
        for secret in tls.certificates.iter().chain(&tls.client.trusted_ca) {
            needs.insert(Need {
                owner: Owner::Listener(name.clone()),
                secret: secret.clone(),
            });
        }
    }
    for (name, cluster) in &config.clusters {
        let Some(tls) = &cluster.tls else { continue };
        if tls.mode == UpstreamTls::Disabled {
            continue;
        }
        for secret in tls.certificate.iter().chain([&tls.trusted_ca]) {
            needs.insert(Need {
                owner: Owner::Cluster(name.clone()),
                secret: secret.clone(),
            });
        }
    }
    needs
}

/// The needs that keep a process from being ready: those for secrets that `loaded` does not know.
pub fn waiting(config: &Config, loaded: impl Fn(&str) -> bool) -> Vec<Need> {
    let unmet = needs(config).into_iter().filter(|n| !loaded(&n.secret));
    unmet.collect()
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Listener(name) => write!(f, "listener `{name}`"),
            Owner::Cluster(name) => write!(f, "cluster `{name}`"),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waits for secret `{}`", self.owner, self.secret)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        config::{
            self,
            model::{ClientCertificate, ClientCertificateMode},
        },
        encryption::fixture,
    };

    const TEXT: &str = "version: 1
listeners:
  web: { bind: \"127.0.0.1:0\", routes: [ { to: app } ] }
  raw: { bind: \"127.0.0.1:1\", routes: [ { to: app } ] }
clusters:
  app: { endpoints: { static: [ \"127.0.0.1:9\" ] } }
";

    /// Goal: a listener waits for its certificates and authorities, a cluster for its own, and nobody for
    /// what is switched off. Method: one of each; then secrets come one by one.
    #[test]
    fn owners_wait_for_what_they_use() {
        let (mut config, _) = config::parse("test", TEXT).unwrap();
        let mut listener = fixture::listener_tls(&["a", "b"]);
        listener.client = ClientCertificate {
            mode: ClientCertificateMode::Require,
            trusted_ca: Some("ca".into()),
            subject_alt_names: Vec::new(),
            ..ClientCertificate::default()
        };
        config.listeners.get_mut("web").unwrap().tls = Some(Box::new(listener));
        let mut off = fixture::listener_tls(&["unused"]);
        off.mode = ServerMode::Disabled;
        config.listeners.get_mut("raw").unwrap().tls = Some(Box::new(off));
        let mut cluster = fixture::cluster_tls("ca");
        cluster.certificate = Some("a".into());
        config.clusters.get_mut("app").unwrap().tls = Some(Box::new(cluster));

        let said = |loaded: &[&str]| -> Vec<String> {
            let waiting = waiting(&config, |secret| loaded.contains(&secret));
            waiting.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            said(&[]),
            [
                "listener `web` waits for secret `a`",
                "listener `web` waits for secret `b`",
                "listener `web` waits for secret `ca`",
                "cluster `app` waits for secret `a`",
                "cluster `app` waits for secret `ca`",
            ]
        );
        assert_eq!(said(&["a", "ca"]), ["listener `web` waits for secret `b`"]);
        assert!(said(&["a", "b", "ca"]).is_empty());
    }
}
