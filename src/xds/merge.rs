//! The control plane's part beside the file: what of it may stand there, and what stays in its place otherwise.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use tidegate_core::config::{
    CLUSTERS_MAX, LISTENERS_MAX,
    model::{Cluster, Config, Endpoints, Listener, Protocol, RouteAction, Secret},
};
use tidegate_xds::{graph::Part, translate};

/// The file with the part of the control plane beside it. The file goes first: what clashes with it is left out, and
/// said. What needs a secret that the file has not does not take the place of what is in use, which is `before`.
pub(crate) fn merge(file: &Config, part: &Part, before: &Config) -> (Config, Vec<String>) {
    let mut config = file.clone();
    let mut refused = Vec::new();
    for (name, cluster) in &part.clusters {
        if file.clusters.contains_key(name) {
            refused.push(format!("cluster `{name}`: the file has one of this name"));
        } else if config.clusters.len() >= CLUSTERS_MAX {
            refused.push(format!(
                "cluster `{name}`: there are {CLUSTERS_MAX} already"
            ));
        } else if let Some(secret) = missing(file, secrets_of_cluster(cluster)) {
            refused.push(format!("cluster `{name}`: {secret}"));
            keep_cluster(&mut config, before, name);
        } else {
            config.clusters.insert(Arc::clone(name), cluster.clone());
        }
    }
    for (name, listener) in &part.listeners {
        match obstacle(&config, name, listener) {
            Some(why) => refused.push(format!("listener `{name}`: {why}")),
            None => match missing(file, secrets_of_listener(listener)) {
                Some(secret) => {
                    refused.push(format!("listener `{name}`: {secret}"));
                    keep_listener(&mut config, before, name);
                }
                None => drop(config.listeners.insert(Arc::clone(name), listener.clone())),
            },
        }
    }
    complete(&mut config);
    (config, refused)
}

/// Puts back what is in use under a name that the file does not have, or leaves it out. Whether there was anything of
/// the name.
pub(crate) fn put_back(file: &Config, config: &mut Config, before: &Config, name: &str) -> bool {
    let mut was_there = false;
    if !file.clusters.contains_key(name) && config.clusters.remove(name).is_some() {
        was_there = true;
        keep_cluster(config, before, name);
    }
    if !file.listeners.contains_key(name) && config.listeners.remove(name).is_some() {
        was_there = true;
        keep_listener(config, before, name);
    }
    complete(config);
    was_there
}

/// Puts listeners back whose TLS is another than that in use.
pub(crate) fn put_encryption_back(file: &Config, config: &mut Config, before: &Config) {
    let tls = |config: &Config, name: &str| {
        let listener = config.listeners.get(name);
        listener.and_then(|listener| listener.tls.clone())
    };
    let names: Vec<Arc<str>> = config.listeners.keys().cloned().collect();
    for name in names {
        if tls(config, &name) != tls(before, &name) {
            put_back(file, config, before, &name);
        }
    }
}

/// Whether two configurations with the same secrets encrypt with the same things: most changes are of endpoints and
/// routes, and need nothing made anew.
pub(crate) fn encrypt_alike(a: &Config, b: &Config) -> bool {
    let listeners = |config: &Config| -> Vec<_> {
        let all = config.listeners.iter();
        all.filter_map(|(name, one)| Some((Arc::clone(name), one.bind, one.tls.clone()?)))
            .collect()
    };
    let clusters = |config: &Config| -> Vec<_> {
        let host = |one: &Cluster| match &one.endpoints {
            Endpoints::Dns { host, .. } => Some(host.clone()),
            Endpoints::Static(_) => None,
        };
        let all = config.clusters.iter();
        all.filter_map(|(name, one)| Some((Arc::clone(name), host(one), one.tls.clone()?)))
            .collect()
    };
    listeners(a) == listeners(b) && clusters(a) == clusters(b)
}

fn keep_cluster(config: &mut Config, before: &Config, name: &str) {
    let kept = before.clusters.get_key_value(name);
    let kept = kept.filter(|(_, one)| missing(config, secrets_of_cluster(one)).is_none());
    if let Some((name, cluster)) = kept {
        config.clusters.insert(Arc::clone(name), cluster.clone());
    }
}

fn keep_listener(config: &mut Config, before: &Config, name: &str) {
    let kept = before.listeners.get_key_value(name);
    let kept = kept.filter(|(_, one)| missing(config, secrets_of_listener(one)).is_none());
    // Another one may have its address by now.
    let kept = kept.filter(|(_, one)| obstacle(config, name, one).is_none());
    if let Some((name, listener)) = kept {
        config.listeners.insert(Arc::clone(name), listener.clone());
    }
}

/// A secret, and whether it has to be a certificate; trusted authorities otherwise.
type Needed<'a> = (&'a Arc<str>, bool);

fn secrets_of_listener(listener: &Listener) -> Vec<Needed<'_>> {
    let Some(tls) = &listener.tls else {
        return Vec::new();
    };
    let certificates = tls.certificates.iter().map(|name| (name, true));
    let authorities = tls.client.trusted_ca.iter().map(|name| (name, false));
    certificates.chain(authorities).collect()
}

fn secrets_of_cluster(cluster: &Cluster) -> Vec<Needed<'_>> {
    let Some(tls) = &cluster.tls else {
        return Vec::new();
    };
    let certificate = tls.certificate.iter().map(|name| (name, true));
    certificate.chain([(&tls.trusted_ca, false)]).collect()
}

/// Which of these the configuration does not have.
fn missing(config: &Config, needed: Vec<Needed<'_>>) -> Option<String> {
    needed.into_iter().find_map(|(name, is_certificate)| {
        match (config.secrets.get(name), is_certificate) {
            (Some(Secret::Certificate { .. }), true) | (Some(Secret::TrustedCa { .. }), false) => {
                None
            }
            (Some(_), true) => Some(format!("secret `{name}` of the file is no certificate")),
            (Some(_), false) => Some(format!("secret `{name}` of the file holds no authorities")),
            (None, _) => Some(format!("the file has no secret `{name}`")),
        }
    })
}

/// A route may name a cluster that the file had until now: until the part follows, it leads nowhere.
fn complete(config: &mut Config) {
    let named = config
        .listeners
        .values()
        .flat_map(tidegate_xds::graph::clusters_of);
    let unknown = named.filter(|name| !config.clusters.contains_key(name));
    for name in unknown.collect::<BTreeSet<_>>() {
        config.clusters.insert(name, translate::empty_cluster());
    }
}

/// Why a listener cannot stand beside those that are there.
fn obstacle(config: &Config, name: &str, listener: &Listener) -> Option<String> {
    if config.listeners.contains_key(name) {
        return Some("the file has one of this name".into());
    }
    if config.listeners.len() >= LISTENERS_MAX {
        return Some(format!("there are {LISTENERS_MAX} already"));
    }
    // With port 0 the admin server has one of its own.
    let admin = config
        .admin
        .filter(|admin| admin.port() != 0 && clash(*admin, listener.bind));
    if let Some(admin) = admin {
        return Some(format!("the admin server has {admin}"));
    }
    let mut others = config.listeners.iter();
    if let Some((other, has)) = others.find(|(_, other)| clash(other.bind, listener.bind)) {
        return Some(format!("listener `{other}` has {}", has.bind));
    }
    // A cluster that names the client of each connection is for byte relays alone, as the check of a file says.
    let Protocol::Http(http) = &listener.protocol else {
        return None;
    };
    let forwards = http.routes.iter().filter_map(|route| match &route.action {
        RouteAction::Forward(forward) => Some(forward.clusters()),
        _ => None,
    });
    let names_client = forwards.flatten().find(|to| {
        let cluster = config.clusters.get(*to);
        cluster.is_some_and(|cluster| cluster.proxy_protocol.is_some())
    });
    names_client.map(|to| format!("cluster `{to}` has `proxy_protocol`, and is for TCP alone"))
}

/// Whether two addresses cannot both be listened on.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    if a.port() == 0 || b.port() == 0 {
        // Any free port; but listeners are told apart by the address that is written.
        return a == b;
    }
    let takes =
        |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || takes(a, b) || takes(b, a))
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

    fn part(text: &str) -> Part {
        let Config {
            listeners,
            clusters,
            ..
        } = file(text);
        Part {
            listeners,
            clusters,
        }
    }

    /// Goal: whatever the file becomes, no route names a cluster that is not there. Method: a part that refers to a
    /// cluster of a file that is gone.
    #[test]
    fn every_cluster_that_is_named_is_there() {
        let theirs = part(
            "
listeners:
  l: { bind: 127.0.0.1:81, protocol: tcp, to: gone }
clusters:
  gone: { endpoints: { static: [10.0.0.2:80] } }
",
        );
        let (merged, _) = merge(
            &file("admin: off"),
            &Part {
                clusters: Default::default(),
                ..theirs
            },
            &file("admin: off"),
        );
        assert_eq!(merged.clusters["gone"], translate::empty_cluster());
    }

    /// Goal: the file goes first, and what clashes is left out alone, by name. Method: a part of which each piece but
    /// one clashes in its own way.
    #[test]
    fn the_file_goes_first() {
        let ours = file(
            "
admin: 127.0.0.1:9901
listeners:
  web: { bind: 0.0.0.0:80, routes: [ { to: app } ] }
clusters:
  app: { endpoints: { static: [10.0.0.1:80] } }
  db: { endpoints: { static: [10.0.0.1:80] }, proxy_protocol: v1 }
",
        );
        let mut theirs = part(
            "
admin: off
listeners:
  admin: { bind: 127.0.0.1:9901, routes: [ { to: app } ] }
  good: { bind: 127.0.0.1:81, routes: [ { to: new } ] }
  port: { bind: 127.0.0.2:80, routes: [ { to: new } ] }
  same: { bind: 0.0.0.0:81, protocol: tcp, to: new }
  web: { bind: 127.0.0.1:82, routes: [ { to: app } ] }
  wrong: { bind: 127.0.0.1:83, routes: [ { to: app } ] }
clusters:
  app: { endpoints: { static: [10.0.0.9:80] } }
  new: { endpoints: { static: [10.0.0.2:80] } }
"
            .replace("  same: { bind: 0.0.0.0:81", "  same: { bind: 127.0.0.9:84")
            .as_str(),
        );
        theirs.listeners.get_mut("same").unwrap().bind = "0.0.0.0:81".parse().unwrap();
        let Protocol::Http(http) = &mut theirs.listeners.get_mut("wrong").unwrap().protocol else {
            unreachable!("it is HTTP in the text")
        };
        let RouteAction::Forward(forward) = &mut http.routes[0].action else {
            unreachable!("it forwards in the text")
        };
        forward.to[0].cluster = "db".into();
        let (merged, refused) = merge(&ours, &theirs, &ours);
        assert_eq!(
            refused,
            [
                "cluster `app`: the file has one of this name",
                "listener `admin`: the admin server has 127.0.0.1:9901",
                "listener `port`: listener `web` has 0.0.0.0:80",
                "listener `same`: listener `good` has 127.0.0.1:81",
                "listener `web`: the file has one of this name",
                "listener `wrong`: cluster `db` has `proxy_protocol`, and is for TCP alone",
            ]
        );
        let names =
            |keys: Vec<&Arc<str>>| keys.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(merged.listeners.keys().collect()), ["good", "web"]);
        assert_eq!(
            names(merged.clusters.keys().collect()),
            ["app", "db", "new"]
        );
        assert_eq!(merged.clusters["app"], ours.clusters["app"]);
    }

    /// Goal: what needs a secret that the file has not, or one of another kind, changes nothing that works; what is new
    /// is left out. Method: a listener and a cluster in use in plaintext, whose next versions need such secrets; then
    /// a file without a secret that what is in use needs.
    #[test]
    fn secrets_come_before_what_needs_them() {
        let ours = file("secrets: { web: { certificate: /c, private_key: /k } }");
        let text = |listener_tls: &str, cluster_tls: &str| {
            format!(
                "
listeners:
  l: {{ bind: 127.0.0.1:81, routes: [ {{ to: c }} ] {listener_tls} }}
clusters:
  c: {{ endpoints: {{ static: [10.0.0.1:80] }} {cluster_tls} }}
secrets:
  web: {{ certificate: /c, private_key: /k }}
  other: {{ certificate: /c, private_key: /k }}
  ca: {{ trusted_ca: /a }}
"
            )
        };
        let (before, refused) = merge(&ours, &part(&text("", "")), &ours);
        assert!(refused.is_empty(), "{refused:?}");
        let wants = part(&text(
            ", tls: { certificates: other }",
            ", tls: { trusted_ca: ca, server_name: x }",
        ));
        let (merged, refused) = merge(&ours, &wants, &before);
        assert_eq!(
            refused,
            [
                "cluster `c`: the file has no secret `ca`",
                "listener `l`: the file has no secret `other`"
            ]
        );
        assert_eq!(merged, before);
        let (merged, _) = merge(&ours, &wants, &ours);
        assert!(merged.listeners.is_empty() && merged.clusters.is_empty());

        let encrypted = part(&text(", tls: { certificates: web }", ""));
        let (before, refused) = merge(&ours, &encrypted, &before);
        assert!(refused.is_empty(), "{refused:?}");
        assert!(before.listeners["l"].tls.is_some());
        let (merged, refused) = merge(&file("admin: off"), &encrypted, &before);
        assert_eq!(refused, ["listener `l`: the file has no secret `web`"]);
        assert!(merged.listeners.is_empty());
        let wrong = file("secrets: { web: { trusted_ca: /a } }");
        let (_, refused) = merge(&wrong, &encrypted, &before);
        assert_eq!(
            refused,
            ["listener `l`: secret `web` of the file is no certificate"]
        );
    }

    /// Goal: one listener or cluster goes back alone. Method: both of a part changed; one put back; one of the file.
    #[test]
    fn what_cannot_be_encrypted_goes_back_alone() {
        let ours = file("clusters: { own: { endpoints: { static: [10.0.0.9:80] } } }");
        let text = |port: u16| {
            part(&format!(
                "
listeners: {{ l: {{ bind: 127.0.0.1:81, protocol: tcp, to: c }} }}
clusters: {{ c: {{ endpoints: {{ static: [10.0.0.1:{port}] }} }}, d: {{ endpoints: {{ static: [10.0.0.2:{port}] }} }} }}
"
            ))
        };
        let (before, _) = merge(&ours, &text(80), &ours);
        let (mut merged, _) = merge(&ours, &text(90), &before);
        assert!(put_back(&ours, &mut merged, &before, "d"));
        assert_eq!(merged.clusters["d"], before.clusters["d"]);
        assert_ne!(merged.clusters["c"], before.clusters["c"]);
        assert!(!put_back(&ours, &mut merged, &before, "own"));
        assert!(merged.clusters.contains_key("own"));
        // What was not there before is left out, and whoever leads to it leads nowhere.
        assert!(put_back(&ours, &mut merged, &ours, "c"));
        assert_eq!(merged.clusters["c"], translate::empty_cluster());
    }
}
