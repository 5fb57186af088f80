//! Addresses of clusters that are given by name: one task a cluster looks the name up, every
//! `refresh`, and reports. What a failure means is decided by the coordinator (the last good stays).

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tidegate_core::config::model::{Config, Endpoints};
use tokio::{net::lookup_host, task::JoinHandle, time::timeout};

/// Addresses taken from one answer. A name with more is served by the first ones in order, which keeps
/// the choice stable over look-ups.
const ADDRESSES_MAX: usize = 1024;

/// For one look-up. The system's resolver has its own, usually 5 s a server.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// One answer, or why there is none.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The cluster.
    pub(crate) cluster: Arc<str>,
    /// Its addresses, ascending and without repeats, at least one; or the error in words.
    pub(crate) addresses: Result<Vec<SocketAddr>, String>,
}

/// The running look-ups.
pub(crate) struct Resolver {
    reports: flume::Sender<Resolved>,
    tasks: BTreeMap<Arc<str>, (Name, JoinHandle<()>)>,
}

/// What a task looks up, and how often; another of these is another task.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    host: Arc<str>,
    port: u16,
    refresh: Duration,
}

impl Resolver {
    /// Reports go to `reports`, whose bound is the back-pressure of the tasks.
    pub(crate) fn new(reports: flume::Sender<Resolved>) -> Self {
        Resolver {
            reports,
            tasks: BTreeMap::new(),
        }
    }

    /// Looks up what `config` names, and nothing else, from now on. A changed name is looked up at once.
    pub(crate) fn follow(&mut self, config: &Config) {
        let wanted = names(config);
        self.tasks.retain(|cluster, (name, task)| {
            let stays = wanted.get(cluster) == Some(name);
            if !stays {
                task.abort();
            }
            stays
        });
        for (cluster, name) in wanted {
            let reports = self.reports.clone();
            self.tasks.entry(cluster.clone()).or_insert_with(|| {
                let task = tokio::spawn(look_up_forever(cluster, name.clone(), reports));
                (name, task)
            });
        }
    }
}

/// Looks up every name of `config` once, together, for at most `patience`. For the start, so that the
/// first request finds endpoints.
pub(crate) async fn resolve_once(config: &Config, patience: Duration) -> Vec<Resolved> {
    let tasks: Vec<_> = names(config)
        .into_iter()
        .map(|(cluster, name)| {
            let patience = patience.min(LOOKUP_TIMEOUT);
            let task = tokio::spawn(async move { look_up(&name, patience).await });
            (cluster, task)
        })
        .collect();
    let mut found = Vec::with_capacity(tasks.len());
    for (cluster, task) in tasks {
        let addresses = task.await.unwrap_or_else(|e| Err(e.to_string()));
        found.push(Resolved { cluster, addresses });
    }
    found
}

fn names(config: &Config) -> BTreeMap<Arc<str>, Name> {
    config
        .clusters
        .iter()
        .filter_map(|(cluster, settings)| match &settings.endpoints {
            Endpoints::Static(_) => None,
            Endpoints::Dns {
                host,
                port,
                refresh,
            } => {
                let name = Name {
                    host: host.clone(),
                    port: *port,
                    refresh: *refresh,
                };
                Some((cluster.clone(), name))
            }
        })
        .collect()
}

async fn look_up_forever(cluster: Arc<str>, name: Name, reports: flume::Sender<Resolved>) {
    loop {
        let addresses = look_up(&name, LOOKUP_TIMEOUT).await;
        let resolved = Resolved {
            cluster: cluster.clone(),
            addresses,
        };
        if reports.send_async(resolved).await.is_err() {
            return;
        }
        tokio::time::sleep(name.refresh).await;
    }
}

async fn look_up(name: &Name, patience: Duration) -> Result<Vec<SocketAddr>, String> {
    let Name { host, port, .. } = name;
    let answer = match timeout(patience, lookup_host((&**host, *port))).await {
        Err(_) => return Err(format!("no answer for `{host}` within {patience:?}")),
        Ok(Err(e)) => return Err(format!("`{host}`: {e}")),
        Ok(Ok(answer)) => answer,
    };
    let mut addresses: Vec<SocketAddr> = answer.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() {
        return Err(format!("`{host}` has no addresses"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(host: &str) -> Name {
        Name {
            host: host.into(),
            port: 80,
            refresh: Duration::from_secs(1),
        }
    }

    /// Goal: an answer is sorted and carries the port; a name that cannot exist is an error in words.
    /// Method: an address literal, and a name of the reserved domain `.invalid` (RFC 6761).
    #[tokio::test]
    async fn literals_resolve_and_invalid_names_do_not() {
        let addresses = look_up(&name("127.0.0.1"), LOOKUP_TIMEOUT).await.unwrap();
        assert_eq!(addresses, ["127.0.0.1:80".parse().unwrap()]);
        let error = look_up(&name("no-such-name.invalid"), LOOKUP_TIMEOUT)
            .await
            .unwrap_err();
        assert!(error.contains("no-such-name.invalid"), "{error}");
    }
}
