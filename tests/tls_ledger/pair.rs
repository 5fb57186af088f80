//! Two proxies with a link between them: clients → A → B → origin, as two sidecars have it. B listens on
//! several ports, so that a share of endpoints means something; each port may have a [`Tap`] before it.
//! What both are told is kept here as data, changed by closures, and given to them as files.

use std::{
    fmt::Write as _, fs, net::SocketAddr, path::Path, process::Command, sync::Arc, time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Kind, Ledger, Load, Plan, Tap, tap::Side};
use crate::common::{
    Origin, Proxy, eventually,
    proxy::Setup,
    tls::{Authority, Leaf},
};

/// Links are replaced as soon as that, fifty times sooner than by default: tests end, and what can meet does.
pub const HASTY: &str = "warm_up: 20ms,";

/// The name that B's certificates carry.
pub const NAME_OF_B: &str = "b.mesh";

/// What does not change while a pair runs.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Ports of B.
    pub endpoints: usize,
    /// Whether a tap is before each of them.
    pub tapped: bool,
    /// Shards of each proxy.
    pub shards: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Layout {
            endpoints: 4,
            tapped: true,
            shards: 1,
        }
    }
}

/// What B is told.
#[derive(Clone)]
pub struct Server {
    /// The `tls` section of each listener, as a flow map; none means plaintext only.
    pub tls: Option<String>,
    /// Top-level YAML: the secrets.
    pub secrets: String,
    /// Of the route: a setting that has nothing to do with encryption.
    pub timeout: String,
}

/// What A is told.
#[derive(Clone)]
pub struct Client {
    /// The `tls` section of the cluster, as a flow map.
    pub tls: Option<String>,
    /// More keys of the cluster.
    pub more: String,
    /// What the endpoints announce.
    pub capability: Capability,
    /// How many of B's ports are endpoints.
    pub endpoints: usize,
    /// Weight of every endpoint: a change that has nothing to do with encryption.
    pub weight: u32,
    pub secrets: String,
}

/// What an endpoint announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    Off,
    On,
}

/// An authority, and the files in which A and B have their certificates from it.
pub struct Mesh {
    pub authority: Authority,
}

impl Mesh {
    pub fn new() -> Mesh {
        let mesh = Mesh {
            authority: Authority::new(),
        };
        mesh.rotate_a();
        mesh.rotate_b();
        mesh
    }

    /// Gives A a new certificate.
    pub fn rotate_a(&self) {
        let leaf = Leaf::client("spiffe://mesh/sa/a");
        self.place("a", &self.authority, &leaf);
    }

    /// Gives B a new certificate.
    pub fn rotate_b(&self) {
        self.place("b", &self.authority, &Leaf::server(NAME_OF_B));
    }

    /// Gives B a certificate that ends soon.
    pub fn rotate_b_for(&self, left: Duration) {
        let leaf = Leaf::server(NAME_OF_B).ends_in(left);
        self.place("b", &self.authority, &leaf);
    }

    /// Gives B a certificate that B has no reason to refuse and A has no reason to trust.
    pub fn break_b(&self, stranger: &Authority) {
        self.place("b", stranger, &Leaf::server(NAME_OF_B));
    }

    /// Puts files where others are, each at once.
    fn place(&self, owner: &str, authority: &Authority, leaf: &Leaf) {
        let identity = authority.issue(leaf);
        for (from, kind) in [
            (&identity.certificate, "pem"),
            (&identity.private_key, "key"),
        ] {
            let path = self.path(owner, kind);
            let new = format!("{path}.new");
            fs::copy(from, &new).unwrap();
            fs::rename(new, path).unwrap();
        }
    }

    fn path(&self, owner: &str, kind: &str) -> String {
        let folder: &Path = self.authority.folder();
        format!("{}/{owner}.{kind}", folder.display())
    }

    /// The secrets of A or B: its own, by its name, and `mesh-ca`.
    pub fn secrets(&self, owner: &str) -> String {
        format!(
            "secrets:\n  {owner}: {{ certificate: '{}', private_key: '{}' }}\n{}",
            self.path(owner, "pem"),
            self.path(owner, "key"),
            self.authority.secret("mesh-ca")
        )
    }

    /// B in this mode, asking clients for certificates without insisting.
    pub fn server(&self, mode: &str) -> Server {
        Server {
            tls: Some(Mesh::server_tls(mode)),
            secrets: self.secrets("b"),
            timeout: String::from("30s"),
        }
    }

    pub fn server_tls(mode: &str) -> String {
        format!(
            "mode: {mode}, certificates: b, census_window: 1s, \
             client_certificate: {{ mode: optional, trusted_ca: mesh-ca }}"
        )
    }

    /// A in this mode with all of `endpoints`, which announce nothing yet.
    pub fn client(&self, mode: &str, endpoints: usize) -> Client {
        Client {
            tls: Some(Mesh::client_tls(mode, HASTY)),
            more: String::new(),
            capability: Capability::Off,
            endpoints,
            weight: 1,
            secrets: self.secrets("a"),
        }
    }

    /// `more` are further keys of the section.
    pub fn client_tls(mode: &str, more: &str) -> String {
        format!(
            "mode: {mode}, {more} server_name: {NAME_OF_B}, certificate: a, \
             trusted_ca: mesh-ca"
        )
    }
}

/// The running pair.
pub struct Pair {
    pub a: Proxy,
    pub b: Proxy,
    pub origin: Origin,
    pub ledger: Arc<Ledger>,
    pub taps: Vec<Tap>,
    /// Where A finds B: the taps, or B itself.
    links: Vec<SocketAddr>,
    server: Server,
    client: Client,
    /// Epoch of the capability.
    epoch: u64,
}

impl Pair {
    #[track_caller]
    pub fn start(layout: Layout, server: Server, client: Client) -> Pair {
        let ledger = Ledger::new();
        let origin = ledger.origin();
        let setup = Setup {
            shards: Some(layout.shards),
            unlogged: true,
            ..Setup::default()
        };
        let b = Proxy::start_with(&setup, server_config(&server, layout.endpoints, &origin));
        let ports = (0..layout.endpoints).map(|n| b.listener(&format!("in{n}")));
        let (taps, links) = if layout.tapped {
            let taps: Vec<Tap> = ports.map(Tap::before).collect();
            let links = taps.iter().map(|tap| tap.address).collect();
            (taps, links)
        } else {
            (Vec::new(), ports.collect::<Vec<_>>())
        };
        let a = Proxy::start_with(&setup, client_config(&client, &links, 1));
        Pair {
            a,
            b,
            origin,
            ledger,
            taps,
            links,
            server,
            client,
            epoch: 1,
        }
    }

    pub fn load(&self, plan: Plan) -> Load {
        Load::start(&self.ledger, self.a.web(), plan)
    }

    /// Changes what B is told, by a reload that it must take.
    #[track_caller]
    pub fn change_server(&mut self, change: impl FnOnce(&mut Server)) {
        change(&mut self.server);
        self.b
            .reload(server_config(&self.server, self.links.len(), &self.origin));
    }

    /// Tells B something that it must refuse. Returns what it said.
    #[track_caller]
    pub fn refused_by_server(&mut self, change: impl FnOnce(&mut Server)) -> String {
        let said = self.b.stderr().len();
        assert!(!self.try_server(change), "B took what it must refuse");
        self.b.stderr().split_off(said)
    }

    /// Tells B something that it may refuse, which takes it back. Whether it was taken.
    #[track_caller]
    pub fn try_server(&mut self, change: impl FnOnce(&mut Server)) -> bool {
        let mut changed = self.server.clone();
        change(&mut changed);
        let refused = || self.b.metric("tidegate_config_reloads_failed_total");
        let (epoch, refused_before) = (self.b.epoch(), refused());
        let config = |server| server_config(server, self.links.len(), &self.origin);
        self.b.write_config(config(&changed));
        self.b.signal(Signal::SIGHUP);
        let taken = eventually("an answer to a reload", || {
            if self.b.epoch() > epoch {
                Some(true)
            } else {
                (refused() > refused_before).then_some(false)
            }
        });
        if taken {
            self.server = changed;
        } else {
            self.b.write_config(config(&self.server));
        }
        taken
    }

    /// Changes what A is told, by a reload. The capability's epoch grows if the capability changes.
    #[track_caller]
    pub fn change_client(&mut self, change: impl FnOnce(&mut Client)) {
        let before = self.client.capability;
        change(&mut self.client);
        self.epoch += u64::from(self.client.capability != before);
        self.a
            .reload(client_config(&self.client, &self.links, self.epoch));
    }

    /// Runs `tidegate ctl` against A.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("ctl")
            .args(["--admin", &self.a.admin().to_string()])
            .args(words)
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "ctl {words:?}: {said}");
        said
    }

    /// Waits until every link that A holds is of this kind, and there is one at every endpoint.
    #[track_caller]
    pub fn wait_until_all(&self, kind: Kind) {
        self.wait_until_kinds(&vec![kind; self.client.endpoints]);
    }

    /// What the rollout of A says each endpoint ought to be, as its admin server shows it.
    #[track_caller]
    pub fn targets(&self) -> Vec<Kind> {
        let text = self.a.admin_get("/encryption?format=json").text();
        let shown: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let endpoints = shown["clusters"][0]["endpoints"].as_array().unwrap();
        let kind = |endpoint: &Value| match endpoint["target"].as_str() {
            Some("tls") => Kind::Tls,
            Some("plaintext") => Kind::Plaintext,
            other => panic!("target {other:?} in {text}"),
        };
        endpoints.iter().map(kind).collect()
    }

    /// Waits until the links to each endpoint are all of the kind given for it.
    #[track_caller]
    pub fn wait_until_kinds(&self, kinds: &[Kind]) {
        eventually(&format!("links of {kinds:?}"), || {
            let mut taps = self.taps.iter().zip(kinds);
            taps.all(|(tap, kind)| match kind {
                Kind::Tls => tap.open(Kind::Tls) > 0 && tap.open(Kind::Plaintext) == 0,
                _ => tap.open(Kind::Plaintext) > 0 && tap.open(Kind::Tls) == 0,
            })
            .then_some(())
        });
    }

    /// Waits until every connection of now is gone from every tap.
    #[track_caller]
    pub fn wait_until_replaced(&self, seen: &[usize]) {
        eventually("no link of before", || {
            let mut taps = self.taps.iter().zip(seen);
            taps.all(|(tap, n)| tap.open_of_first(*n) == 0)
                .then_some(())
        });
    }

    /// How many connections each tap has had.
    pub fn seen(&self) -> Vec<usize> {
        self.taps.iter().map(Tap::connections).collect()
    }

    /// Nothing was lost: by the ledger, by both proxies' own count, and by the records on the wire.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        self.ledger.assert_whole();
        for proxy in [&self.a, &self.b] {
            let lost = proxy.metric("tidegate_link_requests_lost_total");
            assert_eq!(lost, 0.0, "requests lost by links, in their own count");
        }
        for tap in &self.taps {
            assert_eq!(tap.stray(Side::Dialling), 0, "bytes outside of records");
        }
    }
}

fn server_config(server: &Server, ports: usize, origin: &Origin) -> String {
    let tls = section("tls", server.tls.as_deref());
    let mut config = format!("{}listeners:\n", server.secrets);
    // Addresses of their own, since a port of the system's choice is one per address.
    for n in 0..ports {
        writeln!(
            config,
            "  in{n}: {{ bind: 127.0.0.{}:0, {tls}routes: [{{ to: app, timeout: {} }}] }}",
            n + 1,
            server.timeout
        )
        .unwrap();
    }
    writeln!(
        config,
        "clusters:\n  app: {{ endpoints: {{ static: [\"{origin}\"] }} }}"
    )
    .unwrap();
    config
}

fn client_config(client: &Client, links: &[SocketAddr], epoch: u64) -> String {
    let tls = section("tls", client.tls.as_deref());
    let state = match client.capability {
        Capability::Off => "off",
        Capability::On => "on",
    };
    let announced = match &client.tls {
        Some(_) => format!(", tls: {{ state: {state}, epoch: {epoch} }}"),
        None => String::new(),
    };
    let weight = client.weight;
    let endpoints: Vec<String> = links[..client.endpoints]
        .iter()
        .map(|address| format!("{{ address: \"{address}\", weight: {weight}{announced} }}"))
        .collect();
    format!(
        "{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: b }}] }}\n\
         clusters:\n  b: {{ {tls}{} endpoints: {{ static: [{}] }} }}\n",
        client.secrets,
        client.more,
        endpoints.join(", ")
    )
}

fn section(key: &str, map: Option<&str>) -> String {
    map.map_or_else(String::new, |map| format!("{key}: {{ {map} }}, "))
}
