//! The control plane's part of the configuration: the client that brings it, and how it stands beside the file.

mod ground;
mod merge;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tidegate_core::{
    config::model::{Config, Xds, XdsFiles, XdsProtocol, XdsTls},
    snapshot::Snapshot,
    stats::{EndpointCounters, PerShard},
};
use tidegate_xds::{
    ads::{Client, Handover, Link, Local, Node, Published, Rest, Settings, Status, Times, Tls},
    client_status::Source,
    source::{FileSource, OfFile},
    subscription::{ResourceType, Variant},
};
use tokio::sync::watch;

pub(crate) use ground::Ground;
pub(crate) use merge::{encrypt_alike, merge, put_back, put_encryption_back};

use crate::{exit::Failure, secrets::Secrets, token};

/// The ends of the client that the coordinator holds.
pub(crate) struct ControlPlane {
    /// What the file alone says.
    pub(crate) file: Arc<Config>,
    parts: watch::Receiver<Option<Arc<Published>>>,
    local: watch::Sender<Local>,
    /// TLS to the control plane, by names of secrets.
    tls: Option<XdsTls>,
    /// Keeps `parts` open where there is no control plane.
    nobody: Option<watch::Sender<Option<Arc<Published>>>>,
    /// The other end, until it begins.
    client: Option<Client>,
    /// What it holds, for the process that takes over.
    handover: Option<Handover>,
    /// A part came and is not in use yet.
    pub(crate) is_pending: bool,
}

/// How parts of the control plane came into use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// Parts in use on all shards so far.
    pub(crate) parts: u64,
    /// From the response to all shards, the last time.
    pub(crate) last: Duration,
    /// And all times together.
    pub(crate) total: Duration,
    /// What of the newest part could not be used, and why.
    pub(crate) refused: Vec<String>,
}

/// What the admin server shows.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// How the client is doing.
    pub(crate) client: watch::Receiver<Arc<Status>>,
    /// The same for whoever asks by the protocol.
    pub(crate) source: Source,
    /// The variant of the protocol; none if files are all there is.
    pub(crate) protocol: Option<XdsProtocol>,
    /// How its parts came into use.
    pub(crate) applied: Applied,
}

impl ControlPlane {
    /// Without a control plane.
    pub(crate) fn nobody(file: Arc<Config>) -> ControlPlane {
        let (nobody, parts) = watch::channel(None);
        ControlPlane {
            file,
            parts,
            local: watch::Sender::default(),
            tls: None,
            nobody: Some(nobody),
            client: None,
            handover: None,
            is_pending: false,
        }
    }

    /// The configured one, if there is one; it is spoken to from [`Self::begin`] on. It begins with what the process
    /// before `inherited` to it, or with its cache, and with files. Also what is to be shown of it.
    ///
    /// # Errors
    ///
    /// A token that cannot be read.
    pub(crate) fn prepare(
        file: Arc<Config>,
        secrets: &Secrets,
        inherited: Option<Vec<u8>>,
    ) -> Result<(ControlPlane, Option<Shown>), Failure> {
        let Some(xds) = file.xds.as_deref() else {
            return Ok((ControlPlane::nobody(file), None));
        };
        let mut settings = settings(&file, xds)?;
        settings.inherited = inherited;
        let protocol = Some(xds.protocol).filter(|_| !xds.addresses.is_empty());
        let tls = xds.tls.clone();
        let (local, told) = watch::channel(Local {
            clusters: cluster_names(&file),
            failing: Arc::default(),
            link: link(tls.as_ref(), secrets),
        });
        let (client, watched) = Client::new(settings, told);
        let shown = Shown {
            client: watched.status,
            source: watched.source,
            protocol,
            applied: Applied::default(),
        };
        let plane = ControlPlane {
            file,
            parts: watched.parts,
            local,
            tls,
            nobody: None,
            client: Some(client),
            handover: Some(watched.handover),
            is_pending: false,
        };
        Ok((plane, Some(shown)))
    }

    /// Starts the client, if there is one that was not yet. To be called on the coordinator's runtime.
    pub(crate) fn begin(&mut self) {
        if let Some(client) = self.client.take() {
            tokio::spawn(client.run());
        }
    }

    /// What it brought, for the process that takes over; nothing if there is none.
    pub(crate) fn handover(&self) -> Option<Vec<u8>> {
        self.handover.as_ref().map(Handover::encode)
    }

    /// Whether there is one.
    fn is_configured(&self) -> bool {
        self.nobody.is_none()
    }

    /// Returns when there is another part.
    pub(crate) async fn changed(&mut self) {
        if self.parts.changed().await.is_err() {
            // The client has ended, with the process.
            std::future::pending::<()>().await;
        }
    }

    /// The newest part, if there is one; it counts as seen.
    pub(crate) fn newest(&mut self) -> Option<Arc<Published>> {
        self.parts.borrow_and_update().clone()
    }

    /// The file says something else now.
    pub(crate) fn file_changed(&mut self, file: Arc<Config>) {
        let names = cluster_names(&file);
        self.file = file;
        self.tell(|local| local.clusters = names);
    }

    /// Other secrets may be in use now.
    pub(crate) fn secrets_changed(&mut self, secrets: &Secrets) {
        let link = link(self.tls.as_ref(), secrets);
        self.tell(|local| local.link = link);
    }

    /// Says which clusters of `snapshot` none of whose endpoints answers: what is known of them may be old.
    pub(crate) fn doubt(&mut self, snapshot: &Snapshot) {
        if !self.is_configured() {
            return;
        }
        let clusters = snapshot.clusters.iter();
        let failing = clusters
            .filter(|cluster| !cluster.endpoints.is_empty())
            .filter(|cluster| cluster.endpoints.iter().all(|one| fails(&one.counters)))
            .map(|cluster| Arc::clone(&cluster.name));
        let failing = Arc::new(failing.collect());
        self.tell(|local| local.failing = failing);
    }

    fn tell(&mut self, change: impl FnOnce(&mut Local)) {
        self.local.send_if_modified(|local| {
            let before = local.clone();
            change(local);
            *local != before
        });
    }
}

/// Calls in a row without an answer, after which an endpoint counts as one that does not answer. One may be chance.
const FAILURES_IN_ROW: u64 = 3;

fn fails(counters: &PerShard<EndpointCounters>) -> bool {
    counters
        .iter()
        .any(|shard| shard.failures_in_row.get() >= FAILURES_IN_ROW)
}

/// How control planes are spoken to. In plaintext only if nothing else is said.
fn link(tls: Option<&XdsTls>, secrets: &Secrets) -> Link {
    let Some(tls) = tls else {
        return Link::Plaintext;
    };
    let certificate = tls.certificate.as_ref().map(|name| secrets.material(name));
    match (secrets.material(&tls.trusted_ca), certificate) {
        (None, _) | (_, Some(None)) => Link::Unready,
        (Some(trusted_ca), certificate) => Link::Tls(Box::new(Tls {
            trusted_ca,
            certificate: certificate.flatten(),
            server_name: tls.server_name.as_deref().map(Into::into),
        })),
    }
}

fn cluster_names(file: &Config) -> Arc<BTreeSet<Arc<str>>> {
    Arc::new(file.clusters.keys().cloned().collect())
}

fn settings(config: &Config, xds: &Xds) -> Result<Settings, Failure> {
    let token = match xds.token_file.as_deref() {
        Some(file) => Some(token::read(Path::new(file))?),
        None => None,
    };
    let node = &config.node;
    let cluster = xds.cluster.as_deref().unwrap_or(&node.app);
    Ok(Settings {
        servers: xds.addresses.iter().map(|one| (**one).into()).collect(),
        variant: match xds.protocol {
            XdsProtocol::Delta => Variant::Delta,
            XdsProtocol::StateOfTheWorld | XdsProtocol::Rest => Variant::StateOfTheWorld,
        },
        rest: (xds.protocol == XdsProtocol::Rest).then_some(Rest {
            refresh_delay: xds.refresh_delay,
            request_timeout: xds.request_timeout,
        }),
        files: files(&xds.files),
        node: Node {
            id: node.id.clone(),
            cluster: cluster.to_owned(),
            zone: node.zone.clone(),
        },
        token,
        cache: xds.cache.as_deref().map(Into::into),
        inherited: None,
        times: Times::default(),
    })
}

/// What files bring.
fn files(files: &XdsFiles) -> Vec<OfFile> {
    let of = |path: &Option<Arc<str>>, resource_type| {
        let file = FileSource {
            path: path.clone()?,
            watched_directory: files.watched_directory.clone(),
        };
        Some(OfFile {
            resource_type,
            file,
        })
    };
    let clusters = of(&files.clusters, ResourceType::Cluster);
    let listeners = of(&files.listeners, ResourceType::Listener);
    clusters.into_iter().chain(listeners).collect()
}

/// What changed, by name: `cluster pay changed`. Not more, since a part may bring ten thousand endpoints at a time.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = named("listener", &old.listeners, &new.listeners);
    changes.extend(named("cluster", &old.clusters, &new.clusters));
    changes
}

fn named<T: PartialEq>(
    kind: &str,
    old: &BTreeMap<Arc<str>, T>,
    new: &BTreeMap<Arc<str>, T>,
) -> Vec<String> {
    let names: BTreeSet<&Arc<str>> = old.keys().chain(new.keys()).collect();
    let change = |name: &Arc<str>| {
        let what = match (old.get(name), new.get(name)) {
            (None, Some(_)) => "added",
            (Some(_), None) => "removed",
            (before, after) if before != after => "changed",
            _ => return None,
        };
        Some(format!("{kind} {name} {what}"))
    };
    names.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use tidegate_core::config;

    fn file(text: &str) -> Config {
        config::parse("test", &format!("version: 1\n{text}"))
            .unwrap()
            .0
    }

    /// Goal: a change is told by names. Method: one of each kind, and one that stays.
    #[test]
    fn changes_go_by_names() {
        let text = |first: &str, weight: u32| {
            file(&format!(
                "
listeners: {{ l: {{ bind: 127.0.0.1:81, protocol: tcp, to: stays }} }}
clusters:
  {first}: {{ endpoints: {{ static: [10.0.0.1:80] }} }}
  other: {{ endpoints: {{ static: [ {{ address: 10.0.0.1:80, weight: {weight} }} ] }} }}
  stays: {{ endpoints: {{ static: [10.0.0.1:80] }} }}
"
            ))
        };
        let told = changes(&text("a", 1), &text("b", 2));
        assert_eq!(
            told,
            [
                "cluster a removed",
                "cluster b added",
                "cluster other changed"
            ]
        );
    }
}
