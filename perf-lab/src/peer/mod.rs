//! Peers: the proxies that are measured, as plug-ins. A peer is a directory with a `peer.toml` and the
//! templates that it names; the shipped ones are in the binary, more come from `--peers-dir`.

pub mod certificate;
pub mod install;
pub mod process;
pub mod render;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};

use self::install::Install;
use crate::{error::Error, scenario::SignalName};

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/peers");

/// The peer with no proxy in between.
pub const DIRECT: &str = "direct";
/// The peer that relays bytes and does nothing else: what a proxy costs at the very least. No rival.
pub const FLOOR: &str = "floor";
/// The peer whose ratio to the best of the others is the verdict.
pub const OURS: &str = "tidegate";

/// A proxy that can be measured.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its directory's name.
    pub name: String,
    /// What its `peer.toml` says.
    pub manifest: Manifest,
    /// Its templates' texts by file name.
    pub templates: BTreeMap<String, String>,
}

/// A `peer.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// One line for `tidegate-lab peers`.
    pub about: String,
    /// How to install it.
    pub install: Install,
    /// The program; none is the direct connection.
    pub program: Option<String>,
    /// Directories to look for it in before `PATH`, as templates.
    pub search: Vec<String>,
    /// Arguments that make it print its version.
    pub version: Vec<String>,
    /// Arguments that make it serve in the foreground, as templates.
    pub start: Vec<String>,
    /// Its templates, rendered into its working directory under the same names.
    pub files: Vec<String>,
    /// The peer whose directory the templates are in, if it is another's: two versions of one proxy. Its
    /// program is then not looked for on `PATH`, where the other version is.
    pub files_of: Option<String>,
    /// Environment variables, as templates.
    pub environment: BTreeMap<String, String>,
    /// How it is told to load its files again.
    pub reload: Option<Reload>,
    /// What it can do.
    pub capabilities: Vec<Capability>,
    /// Files without which it cannot do it after all.
    pub needs: BTreeMap<Capability, PathBuf>,
}

/// How a peer is told that its files have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// The signal for its first process; none if it watches its files.
    pub signal: Option<SignalName>,
}

/// Something that a scenario asks of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// HTTP/1.1.
    Http,
    /// Byte relay.
    Tcp,
    /// Many routes by path prefix.
    Routes,
    /// TLS 1.3 towards clients.
    Tls,
    /// The same to the upstream with a certificate of its own, and asking clients for theirs.
    Mtls,
    /// HTTP/2 towards clients that agree on it over TLS.
    H2,
    /// HTTP/2 towards clients that begin with it in plain text.
    H2c,
    /// HTTP/2 towards the upstream: in plain text with prior knowledge, over TLS by ALPN.
    #[serde(rename = "h2_upstream")]
    H2Upstream,
    /// Loading a new configuration while it serves.
    Reload,
    /// A control interface over HTTP.
    Admin,
    /// Several endpoints behind one route.
    Endpoints,
    /// Taking sick endpoints out.
    Heal,
    /// Finding out by itself how much the application bears.
    Adaptive,
    /// Refusing requests by what its own machine has left.
    Manager,
}

impl Capability {
    /// All of them, for lists.
    pub const ALL: [Capability; 14] = [
        Capability::Http,
        Capability::Tcp,
        Capability::Routes,
        Capability::Tls,
        Capability::Mtls,
        Capability::H2,
        Capability::H2c,
        Capability::H2Upstream,
        Capability::Endpoints,
        Capability::Heal,
        Capability::Adaptive,
        Capability::Manager,
        Capability::Reload,
        Capability::Admin,
    ];
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capability::Http => "http",
            Capability::Tcp => "tcp",
            Capability::Routes => "routes",
            Capability::Tls => "tls",
            Capability::Mtls => "mtls",
            Capability::H2 => "h2",
            Capability::H2c => "h2c",
            Capability::H2Upstream => "h2_upstream",
            Capability::Endpoints => "endpoints",
            Capability::Heal => "heal",
            Capability::Adaptive => "adaptive",
            Capability::Manager => "manager",
            Capability::Reload => "reload",
            Capability::Admin => "admin",
        })
    }
}

impl Peer {
    /// All peers by name: the shipped ones, and those of a directory, which win.
    pub fn all(extra: Option<&Path>) -> Result<BTreeMap<String, Peer>, Error> {
        let mut peers = BTreeMap::new();
        for directory in SHIPPED.dirs() {
            let name = directory.path().display().to_string();
            let peer = Peer::load(&name, |of, file| {
                let found = SHIPPED.get_file(Path::new(of).join(file));
                Some(found?.contents_utf8()?.to_owned())
            })?;
            peers.insert(name, peer);
        }
        let Some(extra) = extra else {
            return Ok(peers);
        };
        let entries =
            fs::read_dir(extra).map_err(Error::io(format!("reading {}", extra.display())))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.join("peer.toml").is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let peer = Peer::load(&name, |of, file| {
                    fs::read_to_string(extra.join(of).join(file)).ok()
                })?;
                peers.insert(name, peer);
            }
        }
        Ok(peers)
    }

    /// The one of a name that was typed.
    pub fn named<'a>(peers: &'a BTreeMap<String, Peer>, name: &str) -> Result<&'a Peer, Error> {
        peers.get(name).ok_or_else(|| {
            let names: Vec<&str> = peers.keys().map(String::as_str).collect();
            Error::no_such("peer", name, &names)
        })
    }

    fn load(name: &str, read: impl Fn(&str, &str) -> Option<String>) -> Result<Peer, Error> {
        let wrong = |problem: String| Error::Plugin {
            peer: name.to_owned(),
            problem,
        };
        let text =
            read(name, "peer.toml").ok_or_else(|| wrong("it has no peer.toml".to_owned()))?;
        let manifest: Manifest =
            toml::from_str(&text).map_err(|error| wrong(format!("peer.toml: {error}")))?;
        let mut templates = BTreeMap::new();
        let source = manifest.files_of.as_deref().unwrap_or(name);
        for file in &manifest.files {
            // Rendered files go into a directory of their own and nowhere else.
            let is_plain = |name: &str| !name.contains('/') && !name.starts_with('.');
            if !is_plain(file) || !is_plain(source) {
                return Err(wrong(format!("`{file}` is not a plain file name")));
            }
            let template = read(source, file)
                .ok_or_else(|| wrong(format!("its template `{file}` is not there")))?;
            templates.insert(file.clone(), template);
        }
        Ok(Peer {
            name: name.to_owned(),
            manifest,
            templates,
        })
    }

    /// Whether it is the direct connection.
    pub fn is_direct(&self) -> bool {
        self.manifest.program.is_none()
    }

    /// Why it cannot do something, if it cannot.
    pub fn lacks(&self, capability: Capability) -> Option<String> {
        if !self.manifest.capabilities.contains(&capability) {
            return Some("not one of its capabilities".to_owned());
        }
        let needed = self.manifest.needs.get(&capability)?;
        (!needed.exists()).then(|| {
            format!(
                "{} is not there; install it with `{}`",
                needed.display(),
                self.manifest.install.command(&self.name)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The shipped plug-ins load, and each says how to install it.
    #[test]
    fn shipped_peers_load() {
        let peers = Peer::all(None).unwrap();
        let names: Vec<&str> = peers.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "caddy",
                "direct",
                "envoy",
                "floor",
                "h2o",
                "haproxy",
                "haproxy28",
                "nghttpx",
                "nginx",
                "pingora",
                "tidegate"
            ]
        );
        for peer in peers.values() {
            assert!(!peer.manifest.about.is_empty(), "{}", peer.name);
            let reloads = peer.manifest.capabilities.contains(&Capability::Reload);
            assert_eq!(reloads, peer.manifest.reload.is_some(), "{}", peer.name);
            let own = [DIRECT, FLOOR, OURS].contains(&peer.name.as_str());
            assert_eq!(
                own,
                peer.manifest.install == Install::default(),
                "{}",
                peer.name
            );
        }
    }

    /// A wrong plug-in is refused with what is wrong: a misspelt key, a missing template, a template
    /// that would be written elsewhere.
    #[test]
    fn wrong_plugins_are_refused() {
        for (text, problem) in [
            ("programme = 'x'", "unknown field `programme`"),
            ("files = ['a.cfg']", "its template `a.cfg` is not there"),
            (
                "files = ['../a.cfg']",
                "`../a.cfg` is not a plain file name",
            ),
            ("capabilities = ['h3']", "unknown variant `h3`"),
        ] {
            let loaded = Peer::load("x", |_, file| {
                (file == "peer.toml").then(|| text.to_owned())
            });
            let error = loaded.unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    /// A capability that was not claimed, or whose file is missing, is lacking.
    #[test]
    fn capabilities_may_need_files() {
        let text = "capabilities = ['http', 'tcp']\n[needs]\ntcp = '/nonexistent/module.so'\n";
        let peer = Peer::load("x", |_, _| Some(text.to_owned())).unwrap();
        assert_eq!(peer.lacks(Capability::Http), None);
        assert!(peer.lacks(Capability::Tcp).unwrap().contains("module.so"));
        assert!(peer.lacks(Capability::Routes).is_some());
    }
}
