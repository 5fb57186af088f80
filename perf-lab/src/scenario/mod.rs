//! Scenarios: what is measured, one YAML file each. The shipped ones are in the binary and go by
//! their names; others are given by path.
//!
//! The types here are the file's schema as well: what a field's doc says is what the file may say.
//! [`parse`] reads a file and says what is wrong with it, and where.

mod parse;
pub mod player;
pub mod shipped;
pub mod units;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::parse::parse;
use self::units::{Bytes, Share, Time};
use crate::{
    load::{
        Connections, Exchange, Failures,
        arrivals::{Spacing, Stretch},
    },
    peer::{Capability, certificate::Sessions, render::Mode},
};

/// Connections of a scenario; more need more addresses than one.
const CONNECTIONS_MAX: usize = 60_000;
/// Routes of a scenario: the largest table that any peer is known to be given.
const ROUTES_MAX: usize = 100_000;
/// Endpoints of the upstream; one bit each in [`crate::control::Control`].
pub const ENDPOINTS_MAX: usize = 16;
/// Streams on a connection: ten times what servers usually allow.
const STREAMS_MAX: usize = 1_000;
/// Proxies in a chain; more would be measured on the same core, and say nothing new.
const HOPS_MAX: usize = 2;

/// One kind of work, measured for every peer alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// As on the command line; the file's name if it is not given.
    #[serde(default)]
    pub name: String,
    /// For people.
    pub title: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether clients speak TLS 1.3 to the peer; with `h2` they do.
    #[serde(default)]
    pub tls: bool,
    /// Whether each connection resumes the session of an earlier one.
    #[serde(default)]
    pub resume: bool,
    /// What is spoken behind the peer: to the upstream, or between the two peers of a chain.
    #[serde(default)]
    pub link: Link,
    /// Which HTTP is spoken there: HTTP/2 by ALPN over TLS, and in plain text with prior knowledge.
    #[serde(default)]
    pub link_protocol: HttpVersion,
    /// Proxies between the clients and the upstream: with 2, two of the peer's in a chain, as two
    /// sidecars are, and what they cost together counts.
    #[serde(default = "one_hop")]
    pub hops: usize,
    /// Connections, or requests in flight if each has its own.
    pub connections: usize,
    /// Requests under way on each connection; more than one is HTTP/2.
    #[serde(default = "one_stream")]
    pub streams: usize,
    /// Whether each request has its own connection.
    #[serde(default)]
    pub new_connections: bool,
    /// Routes in the peer's table, of which the last one matches; zero is a single default route.
    #[serde(default)]
    pub routes: usize,
    /// What a client sends.
    #[serde(default)]
    pub request: Message,
    /// What the upstream sends back; over TCP it is what the client sent.
    #[serde(default)]
    pub response: Message,
    /// How hard.
    pub load: Load,
    /// How an open loop's arrivals are spread; the command line decides if it is not given.
    #[serde(default)]
    pub spacing: Option<Spacing>,
    /// The load over time; without any there is one, as long as the command line says.
    #[serde(default)]
    pub phases: Vec<Stage>,
    /// What is behind the peer.
    #[serde(default)]
    pub upstream: Upstream,
    /// What happens meanwhile, by time since the measurement began.
    #[serde(default)]
    pub events: Vec<Event>,
    /// Who else uses the peer, without being measured.
    #[serde(default)]
    pub neighbour: Option<Neighbour>,
    /// What the report should show beside the verdict's figure.
    #[serde(default)]
    pub collect: Vec<Figure>,
    /// A scenario that does the same work without what this one adds: `added` is the difference.
    #[serde(default)]
    pub minus: Option<String>,
    /// What does not make a measurement void, since the scenario is about it.
    #[serde(default)]
    pub tolerate: Vec<Trouble>,
    /// What we want to reach.
    #[serde(default, rename = "verdict")]
    pub goal: Option<Goal>,
}

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// Bytes there and back.
    Tcp,
    /// HTTP/2 over TLS, agreed on by ALPN.
    H2,
    /// HTTP/2 in plain text, with prior knowledge.
    H2c,
    /// Bolt: a name that is known and not spoken.
    Bolt,
}

/// Which HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
}

/// How the link behind a peer is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// Not at all.
    #[default]
    Plain,
    /// TLS 1.3, both ends with a certificate.
    Mtls,
}

/// A request or a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Message {
    /// Bytes of its body.
    pub body: Bytes,
}

/// How hard a peer is worked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// Closed loop: as fast as it goes.
    Saturate,
    /// Open loop: a part of what the best other peer reached in another scenario.
    Share {
        /// Its name.
        of: String,
        /// The part; above 1 is an overload.
        part: f64,
    },
    /// Open loop: so many requests per second.
    Rate(f64),
    /// One exchange per connection, then nothing.
    Idle,
}

/// A stretch of the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// For the report.
    pub name: String,
    /// How long.
    pub time: Time,
    /// The rate, as a multiple of the scenario's.
    #[serde(default = "one")]
    pub times: f64,
}

fn one() -> f64 {
    1.0
}

fn one_hop() -> usize {
    1
}

fn one_stream() -> usize {
    1
}

/// What is behind the peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// Endpoints, all alike.
    pub endpoints: usize,
    /// How long an answer takes.
    pub service_time: ServiceTime,
    /// When it stands still.
    pub stall: Option<Stall>,
    /// The part of the answers that is a 503.
    pub errors: Share,
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            endpoints: 1,
            service_time: ServiceTime::None,
            stall: None,
            errors: Share::default(),
        }
    }
}

/// How long an answer takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTime {
    /// No longer than building it.
    #[default]
    None,
    /// Always the same.
    Constant(Time),
    /// Exponentially distributed, with this mean.
    Exponential(Time),
}

/// When the upstream stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// From the start of one to the start of the next.
    pub every: Time,
    /// How long it lasts.
    pub time: Time,
}

/// Something that happens while a peer is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, since the measurement began.
    pub at: Time,
    /// What.
    #[serde(rename = "do")]
    pub action: Action,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// A signal to the peer's main process.
    Signal(SignalName),
    /// A configuration with so many routes replaces the peer's, and it is told to load it.
    Routes(usize),
    /// An endpoint of the upstream dies: its connections are reset and nobody listens.
    KillEndpoint(usize),
    /// It is there again.
    RestartEndpoint(usize),
    /// A request to the peer's control interface.
    Admin {
        /// The method.
        #[serde(default = "get")]
        method: String,
        /// The path, with its query.
        path: String,
    },
}

fn get() -> String {
    "GET".to_owned()
}

/// A signal that proxies give a meaning to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalName {
    /// Load the configuration again.
    Hup,
    /// Whatever the peer does on it.
    Usr1,
    /// Whatever the peer does on it.
    Usr2,
}

/// Clients that use the peer too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Neighbour {
    /// Connections that send a request's head byte by byte and never end it.
    SlowLoris {
        /// How many.
        connections: usize,
        /// Between two bytes on each.
        byte_every: Time,
    },
    /// A closed loop beside the measured load.
    Saturate {
        /// How many connections.
        connections: usize,
        /// Bytes of the answers.
        body: Bytes,
    },
}

/// Something that a measurement finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// CPU µs per request, or per exchange.
    Cpu,
    /// How many of them more than in the scenario that `minus` names.
    Added,
    /// KiB of memory that each connection added.
    Memory,
    /// MiB of memory of its process tree when it has just become ready.
    Rss,
    /// Median latency in µs, from due time.
    P50,
    /// Its 99th percentile.
    P99,
    /// Its 99.9th percentile.
    P999,
    /// The part of the exchanges that failed.
    Failures,
    /// Exchanges completed per second.
    Throughput,
}

impl Figure {
    /// All of them, with the names that files have for them.
    pub const ALL: [(Figure, &str); 9] = [
        (Figure::Cpu, "cpu"),
        (Figure::Added, "added"),
        (Figure::Memory, "memory"),
        (Figure::Rss, "rss"),
        (Figure::P50, "p50"),
        (Figure::P99, "p99"),
        (Figure::P999, "p999"),
        (Figure::Failures, "failures"),
        (Figure::Throughput, "throughput"),
    ];
}

/// Something that usually makes a measurement void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// Failed exchanges.
    Failures,
    /// Requests without an answer at the end.
    Unfinished,
    /// Connections that the peer closed.
    Reconnects,
}

/// What we want to reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// What is judged.
    pub figure: Figure,
    /// The most that it may be: a factor of the rival's, or without a rival the figure itself.
    pub at_most: f64,
    /// Whose it is compared with.
    #[serde(default)]
    pub of: Option<Rival>,
}

/// Who we are compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Rival {
    /// Whoever is best in the scenario: `best`.
    Best,
    /// One peer, by name.
    Peer(String),
}

impl From<String> for Rival {
    fn from(name: String) -> Rival {
        match name.as_str() {
            "best" => Rival::Best,
            _ => Rival::Peer(name),
        }
    }
}

impl From<Rival> for String {
    fn from(rival: Rival) -> String {
        match rival {
            Rival::Best => "best".to_owned(),
            Rival::Peer(name) => name,
        }
    }
}

impl Scenario {
    /// The scenario whose capacity this one takes a part of.
    pub fn base(&self) -> Option<&str> {
        match &self.load {
            Load::Share { of, .. } => Some(of),
            _ => None,
        }
    }

    /// The scenarios that must have been measured before it.
    pub fn bases(&self) -> impl Iterator<Item = &str> {
        self.base().into_iter().chain(self.minus.as_deref())
    }

    /// Whether anybody speaks TLS in it.
    pub fn is_encrypted(&self) -> bool {
        self.tls || self.link == Link::Mtls
    }

    /// Whether its clients resume sessions.
    pub fn sessions(&self) -> Sessions {
        match self.resume {
            true => Sessions::Resumed,
            false => Sessions::Fresh,
        }
    }

    /// What the peer relays.
    pub fn mode(&self) -> Mode {
        match self.protocol {
            Protocol::Tcp => Mode::Tcp,
            _ => Mode::Http,
        }
    }

    /// Which HTTP its clients speak, where it is HTTP.
    pub fn http(&self) -> HttpVersion {
        match self.protocol {
            Protocol::H2 | Protocol::H2c => HttpVersion::Http2,
            Protocol::Http1 | Protocol::Tcp | Protocol::Bolt => HttpVersion::Http1,
        }
    }

    /// Whether connections are kept.
    pub fn keep(&self) -> Connections {
        match self.new_connections {
            true => Connections::PerRequest,
            false => Connections::Keep,
        }
    }

    /// What a peer must be able to do.
    pub fn capabilities(&self) -> Vec<Capability> {
        let mut needed = match self.mode() {
            Mode::Http => vec![Capability::Http],
            Mode::Tcp => vec![Capability::Tcp],
        };
        if self.tls {
            needed.push(Capability::Tls);
        }
        if self.link == Link::Mtls {
            needed.push(Capability::Mtls);
        }
        match self.protocol {
            Protocol::H2 => needed.push(Capability::H2),
            Protocol::H2c => needed.push(Capability::H2c),
            Protocol::Http1 | Protocol::Tcp | Protocol::Bolt => {}
        }
        if self.link_protocol == HttpVersion::Http2 {
            needed.push(Capability::H2Upstream);
        }
        if self.routes > 0 {
            needed.push(Capability::Routes);
        }
        if self.upstream.endpoints > 1 {
            needed.push(Capability::Endpoints);
        }
        if self.reloads() {
            needed.push(Capability::Reload);
        }
        if self.asks_admin() {
            needed.push(Capability::Admin);
        }
        needed
    }

    /// The path prefixes of its routes.
    pub fn prefixes(&self) -> Vec<String> {
        prefixes(self.routes)
    }

    /// The exchange, on the last route if there are several.
    pub fn exchange(&self) -> Exchange {
        if self.mode() == Mode::Tcp {
            return Exchange::Echo {
                bytes: self.request.body.in_memory(),
            };
        }
        Exchange::get(
            &self.routes.checked_sub(1).map_or("/".to_owned(), prefix),
            self.response.body.0,
            self.request.body.in_memory(),
        )
    }

    /// How long it is measured, if it says so.
    pub fn time(&self) -> Option<Duration> {
        let time: Duration = self.phases.iter().map(|stage| stage.time.0).sum();
        (!time.is_zero()).then_some(time)
    }

    /// How its rate changes meanwhile.
    pub fn stretches(&self) -> Vec<Stretch> {
        let stretch = |stage: &Stage| Stretch {
            time: stage.time.0.into(),
            times: stage.times,
        };
        self.phases.iter().map(stretch).collect()
    }

    /// What becomes of a load with failures.
    pub fn failures(&self) -> Failures {
        match self.tolerates(Trouble::Failures) {
            true => Failures::Count,
            false => Failures::GiveUp,
        }
    }

    /// Whether its events need a control interface.
    pub fn asks_admin(&self) -> bool {
        let asks = |event: &Event| matches!(event.action, Action::Admin { .. });
        self.events.iter().any(asks)
    }

    /// Whether its events change the configuration.
    pub fn reloads(&self) -> bool {
        let swaps = |event: &Event| matches!(event.action, Action::Routes(_));
        self.events.iter().any(swaps)
    }

    /// Whether something is part of the scenario and no reason to disbelieve it.
    pub fn tolerates(&self, trouble: Trouble) -> bool {
        self.tolerate.contains(&trouble)
    }

    /// Descriptors that its clients need, one each.
    pub fn client_descriptors(&self) -> u64 {
        let beside = match self.neighbour {
            Some(
                Neighbour::SlowLoris { connections, .. } | Neighbour::Saturate { connections, .. },
            ) => connections,
            None => 0,
        };
        (self.connections + beside) as u64
    }
}

/// The path prefixes of a table of so many routes.
pub fn prefixes(count: usize) -> Vec<String> {
    (0..count).map(prefix).collect()
}

fn prefix(i: usize) -> String {
    format!("/route-{i:04}/")
}

#[cfg(test)]
mod tests;
