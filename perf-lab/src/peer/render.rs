//! A peer's configuration for one row: its templates (Jinja syntax) filled with the row's setting.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use serde::{Deserialize, Serialize};

use super::{
    Peer,
    certificate::{CIPHER_SUITE, Certificates, HOST},
    install,
};
use crate::{
    cpu::Cpu,
    error::Error,
    scenario::{HttpVersion, Link},
};

/// What a row asks of every peer alike.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its origin is: one endpoint or several.
    pub upstreams: &'a [SocketAddr],
    /// What it speaks.
    pub mode: Mode,
    /// Client connections in the row.
    pub connections: usize,
    /// Routes by path prefix, all to the same origin; none is "everything goes there".
    pub routes: &'a [String],
    /// Its keys and certificates, where anybody speaks TLS.
    pub certificates: Option<&'a Certificates>,
    /// How its clients speak.
    pub clients: Clients,
    /// And which HTTP.
    pub client_http: HttpVersion,
    /// How it speaks to its upstream.
    pub link: Link,
    /// And which HTTP.
    pub link_http: HttpVersion,
    /// Where its control interface listens, where the scenario uses it.
    pub admin: Option<SocketAddr>,
    /// Whether it will have to load a new configuration.
    pub reloads: bool,
    /// How it finds out that an endpoint is sick.
    pub heal: Heal,
    /// How it holds back what the application cannot bear.
    pub limit: Limit,
    /// The core it has for itself.
    pub cpu: Cpu,
    /// Descriptors it may open.
    pub descriptors: u64,
    /// Its working directory.
    pub dir: &'a Path,
}

/// What a peer speaks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// HTTP on both sides.
    Http,
    /// A byte relay.
    Tcp,
}

/// How the clients of a peer speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Without TLS.
    Plain,
    /// TLS 1.3.
    Tls,
    /// The same, and they have to show a certificate.
    Mtls,
}

/// How a peer finds out that an endpoint is sick, and takes it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Heal {
    /// Not at all.
    #[default]
    Off,
    /// From the traffic, with nothing set that has a default.
    Default,
    /// From the traffic, as soon as its settings allow.
    Tuned,
    /// By active checks alone, every second.
    Probes,
}

/// How a peer holds back what the application behind it cannot bear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Not at all.
    #[default]
    Off,
    /// By a limit that it finds itself; a peer that looks at the application's machine is told which
    /// process that is.
    Adaptive(u32),
    /// By what its own machine has left.
    Manager,
}

/// The header with a request's priority.
pub const PRIORITY_HEADER: &str = "x-priority";
/// The header that says who calls.
pub const CALLER_HEADER: &str = "x-caller";

/// What active checks ask for; the lab's endpoints tell it from requests by this.
pub const PROBE_PATH: &str = "/probe/b/0";
/// How long a peer that heals waits for an answer, the same for all: no default is.
pub const ROUTE_TIMEOUT_S: u64 = 1;

/// Descriptors that a proxy needs for other things than connections.
const OTHER_DESCRIPTORS: u64 = 200;

/// The names that templates may use.
#[derive(Serialize)]
struct Names<'a> {
    listen: SocketAddr,
    listen_host: String,
    listen_port: u16,
    /// The first endpoint, and all of them.
    upstream: SocketAddr,
    upstream_host: String,
    upstream_port: u16,
    upstreams: Vec<Endpoint>,
    /// Whether clients speak TLS, whether they have to show a certificate, and whether the upstream
    /// is spoken to with both.
    tls: bool,
    client_certificates: bool,
    mtls_upstream: bool,
    /// Whether clients speak HTTP/2, by ALPN over TLS and else at once; and whether the upstream does.
    h2: bool,
    h2_upstream: bool,
    /// The name in the upstream's certificate, and the cipher suite of all connections.
    server_name: &'static str,
    cipher_suite: &'static str,
    /// Empty if the scenario does not use it.
    admin: String,
    admin_host: String,
    admin_port: u16,
    reloads: bool,
    heal: Heal,
    /// `off`, `adaptive` or `manager`; and the application's process.
    limit: &'static str,
    application_pid: u32,
    priority_header: &'static str,
    caller_header: &'static str,
    probe_path: &'static str,
    route_timeout_s: u64,
    mode: Mode,
    routes: &'a [String],
    cpu: Cpu,
    descriptors: u64,
    /// Client connections that it must be ready for.
    connections_max: u64,
    dir: String,
}

/// An endpoint of the upstream, as templates like it.
#[derive(Serialize)]
struct Endpoint {
    address: SocketAddr,
    host: String,
    port: u16,
}

impl<'a> Setting<'a> {
    /// A peer for one connection that speaks HTTP/1.1 in plain text and does nothing of its own accord; what a
    /// row asks for comes on top.
    pub fn plain(
        listen: SocketAddr,
        upstreams: &'a [SocketAddr],
        cpu: Cpu,
        descriptors: u64,
        dir: &'a Path,
    ) -> Setting<'a> {
        Setting {
            listen,
            upstreams,
            mode: Mode::Http,
            connections: 1,
            routes: &[],
            certificates: None,
            clients: Clients::Plain,
            client_http: HttpVersion::Http1,
            link: Link::Plain,
            link_http: HttpVersion::Http1,
            admin: None,
            reloads: false,
            heal: Heal::Off,
            limit: Limit::Off,
            cpu,
            descriptors,
            dir,
        }
    }
}

/// A peer's files and arguments, filled in.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// By file name.
    pub files: BTreeMap<String, String>,
    /// The arguments that start it.
    pub start: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
}

impl Peer {
    /// Fills in everything that is a template.
    pub fn render(&self, setting: &Setting<'_>) -> Result<Rendered, Error> {
        let names = Names::of(setting);
        let mut files = BTreeMap::new();
        for (file, template) in &self.templates {
            files.insert(file.clone(), self.fill(file, template, &names)?);
        }
        let mut start = Vec::new();
        for template in &self.manifest.start {
            let argument = self.fill("start", template, &names)?;
            // A condition that does not hold leaves nothing.
            if !argument.is_empty() {
                start.push(argument);
            }
        }
        let mut environment = BTreeMap::new();
        for (variable, template) in &self.manifest.environment {
            let value = self.fill("environment", template, &names)?;
            environment.insert(variable.clone(), value);
        }
        Ok(Rendered {
            files,
            start,
            environment,
        })
    }

    /// The directories to look for its program in before `PATH`.
    pub fn search_directories(&self, lab_dir: &Path) -> Result<Vec<String>, Error> {
        let peers = install::directory(lab_dir);
        let names = BTreeMap::from([
            ("lab_dir", lab_dir.display().to_string()),
            ("peers", peers.display().to_string()),
        ]);
        let directories = self.manifest.search.iter();
        directories
            .map(|template| self.fill("search", template, &names))
            .collect()
    }

    fn fill(&self, what: &str, template: &str, names: impl Serialize) -> Result<String, Error> {
        let wrong = |error: minijinja::Error| Error::Plugin {
            peer: self.name.clone(),
            problem: format!("{what}: {error:#}"),
        };
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()
            .map_err(wrong)?;
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        // A misspelt name is an error and not an empty string; text goes in as it is.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment
            .render_named_str(what, template, Serde(names))
            .map_err(wrong)
    }
}

/// Twice what the row has and a thousand, as far as the descriptors suffice. Not simply a huge number:
/// nginx and HAProxy reserve memory for it.
fn connections_max(setting: &Setting<'_>) -> u64 {
    let possible = setting.descriptors.saturating_sub(OTHER_DESCRIPTORS);
    possible.min(2 * setting.connections as u64 + 1_000)
}

impl Endpoint {
    fn of(address: &SocketAddr) -> Endpoint {
        Endpoint {
            address: *address,
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl<'a> Names<'a> {
    fn of(setting: &Setting<'a>) -> Names<'a> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let upstream = setting.upstreams.first().copied().unwrap_or(nowhere);
        let admin = setting.admin.unwrap_or(nowhere);
        Names {
            listen: setting.listen,
            listen_host: setting.listen.ip().to_string(),
            listen_port: setting.listen.port(),
            upstream,
            upstream_host: upstream.ip().to_string(),
            upstream_port: upstream.port(),
            upstreams: setting.upstreams.iter().map(Endpoint::of).collect(),
            tls: setting.clients != Clients::Plain,
            client_certificates: setting.clients == Clients::Mtls,
            mtls_upstream: setting.link == Link::Mtls,
            h2: setting.client_http == HttpVersion::Http2,
            h2_upstream: setting.link_http == HttpVersion::Http2,
            server_name: HOST,
            cipher_suite: CIPHER_SUITE,
            admin: setting.admin.map(|at| at.to_string()).unwrap_or_default(),
            admin_host: admin.ip().to_string(),
            admin_port: admin.port(),
            reloads: setting.reloads,
            heal: setting.heal,
            limit: match setting.limit {
                Limit::Off => "off",
                Limit::Adaptive(_) => "adaptive",
                Limit::Manager => "manager",
            },
            application_pid: match setting.limit {
                Limit::Adaptive(pid) => pid,
                Limit::Off | Limit::Manager => 0,
            },
            priority_header: PRIORITY_HEADER,
            caller_header: CALLER_HEADER,
            probe_path: PROBE_PATH,
            route_timeout_s: ROUTE_TIMEOUT_S,
            mode: setting.mode,
            routes: setting.routes,
            cpu: setting.cpu,
            descriptors: setting.descriptors,
            connections_max: connections_max(setting),
            dir: setting.dir.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    use crate::peer::Capability;

    const UPSTREAMS: [SocketAddr; 2] = [
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9001),
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9002),
    ];

    fn setting<'a>(mode: Mode, routes: &'a [String]) -> Setting<'a> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8001));
        Setting {
            mode,
            connections: 64,
            routes,
            ..Setting::plain(listen, &UPSTREAMS, Cpu(3), 20_000, Path::new("/tmp/peer"))
        }
    }

    fn rendered(peer: &str, mode: Mode, routes: &[String]) -> Rendered {
        let peers = Peer::all(None).unwrap();
        peers[peer].render(&setting(mode, routes)).unwrap()
    }

    /// Peers are told to be ready for what the row needs, or for what the descriptors allow.
    #[test]
    fn connections_are_bounded_by_descriptors() {
        let mut setting = setting(Mode::Http, &[]);
        assert_eq!(connections_max(&setting), 1_128);
        setting.connections = 10_000;
        assert_eq!(connections_max(&setting), 19_800);
    }

    /// Every shipped peer renders in every mode, and names its listener and its origin there.
    #[test]
    fn all_modes_render() {
        let routes: Vec<String> = vec!["/a/".to_owned(), "/b/".to_owned()];
        for peer in ["tidegate", "haproxy", "haproxy28", "nginx", "envoy"] {
            for (mode, routes) in [
                (Mode::Http, &[][..]),
                (Mode::Http, &routes),
                (Mode::Tcp, &[]),
            ] {
                let rendered = rendered(peer, mode, routes);
                let whole: String = rendered.files.into_values().collect();
                for needle in ["127.0.0.1", "8001", "9001"] {
                    assert!(whole.contains(needle), "{peer} {mode:?}: {whole}");
                }
                let forwards = whole.contains("location") || whole.contains("match");
                assert!(mode == Mode::Http || !forwards, "{peer}: {whole}");
                assert!(!whole.contains("{%"), "{peer}: {whole}");
            }
        }
    }

    /// What a peer says it can do is in what it renders: every endpoint, the certificates, the control
    /// interface; and nothing of it where the scenario does not ask for it.
    #[test]
    fn capabilities_are_rendered() {
        let certificates = Certificates::generate().unwrap();
        let admin = SocketAddr::from(([127, 0, 0, 1], 7001));
        for peer in Peer::all(None).unwrap().into_values() {
            if peer.manifest.files.is_empty() {
                continue;
            }
            let can = |capability| peer.manifest.capabilities.contains(&capability);
            let whole = |setting: &Setting<'_>| -> String {
                let rendered = peer.render(setting).unwrap();
                let files = rendered.files.into_values();
                files.chain(rendered.start).collect()
            };
            let plain = whole(&setting(Mode::Http, &[]));
            let all = whole(&Setting {
                certificates: Some(&certificates),
                clients: Clients::Mtls,
                link: Link::Mtls,
                admin: Some(admin),
                reloads: true,
                heal: Heal::Probes,
                limit: Limit::Adaptive(4_711),
                ..setting(Mode::Http, &[])
            });
            for (capability, needles) in [
                (Capability::Tls, &["/key.pem", "/both.pem"][..]),
                (Capability::Mtls, &["/client-"]),
                (Capability::Mtls, &["/ca.pem"]),
                (Capability::Admin, &["7001"]),
                (Capability::Endpoints, &["9002"]),
                (Capability::Heal, &[PROBE_PATH]),
                (
                    Capability::Adaptive,
                    &["adaptive_limit: { pid: 4711", "min_rtt_calc_params"],
                ),
            ] {
                let name = &peer.name;
                assert_eq!(
                    needles.iter().any(|needle| all.contains(needle)),
                    can(capability),
                    "{name} {capability}: {all}"
                );
            }
            assert!(
                !plain.contains(".pem") && !plain.contains("7001") && !plain.contains(PROBE_PATH),
                "{plain}"
            );
        }
    }

    /// Whoever says that it speaks HTTP/2 to its upstream is told so there, in plain text and over TLS, and
    /// nobody else is.
    #[test]
    fn http2_upstreams_are_rendered() {
        let certificates = Certificates::generate().unwrap();
        for peer in Peer::all(None).unwrap().into_values() {
            if peer.manifest.files.is_empty() {
                continue;
            }
            let can = peer.manifest.capabilities.contains(&Capability::H2Upstream);
            for link in [Link::Plain, Link::Mtls] {
                let files = |link_http| {
                    let setting = Setting {
                        certificates: Some(&certificates),
                        link,
                        link_http,
                        ..setting(Mode::Http, &[])
                    };
                    peer.render(&setting).unwrap().files
                };
                let differ = files(HttpVersion::Http1) != files(HttpVersion::Http2);
                assert_eq!(differ, can, "{} {link:?}", peer.name);
            }
        }
    }

    /// Our own file, rendered whole: routes become prefixes, the core is ours.
    #[test]
    fn tidegate_renders() {
        let rendered = rendered("tidegate", Mode::Http, &["/a/".to_owned()]);
        let file = &rendered.files["tidegate.yaml"];
        assert!(file.contains(
            "shards: { cpus: \"3\" }\nadmin: off\nlisteners:\n  lab:\n    bind: 127.0.0.1:8001\n    routes:\n      \
             - { match: { path: \"/a/**\" }, to: origin }\nclusters:\n"
        ), "{file}");
        assert_eq!(rendered.start, ["run", "-c", "/tmp/peer/tidegate.yaml"]);
        let peer = &Peer::all(None).unwrap()["tidegate"];
        let search = peer.search_directories(Path::new("/opt/lab")).unwrap();
        assert_eq!(search, ["/opt/lab", "target/release"]);
    }

    /// A template that uses a name that does not exist is the plug-in's error, with its place.
    #[test]
    fn unknown_names_are_errors() {
        let mut peer = Peer::all(None).unwrap()["haproxy"].clone();
        peer.templates
            .insert("haproxy.cfg".to_owned(), "\n\n{{ lissten }}".to_owned());
        let error = peer.render(&setting(Mode::Http, &[])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("haproxy.cfg") && text.contains('3'), "{text}");
    }
}
