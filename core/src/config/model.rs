//! The validated configuration: what the YAML file means, after every name was resolved and every
//! number checked. A [`Config`] that exists can be compiled into a snapshot; nothing below re-checks.
//!
//! Files, and later xDS resources, are translated into these types; only
//! [`Snapshot::compile`](crate::snapshot::Snapshot::compile) reads them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

mod balance;
mod center;
mod fault;
mod global;
mod heal;
mod http;
mod http2;
mod limit;
mod mirror;
mod retry;
mod route;
pub mod steering;
mod tls;
mod xds;

pub use balance::*;
pub use center::*;
pub use fault::*;
pub use global::*;
pub use heal::*;
pub use http::*;
pub use http2::*;
pub use limit::*;
pub use mirror::*;
pub use retry::*;
pub use route::*;
pub use tls::*;
pub use xds::*;

/// A whole configuration. Names are unique per map; every name referred to is defined.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who this proxy is.
    pub node: Node,
    /// Which CPUs get a shard.
    pub shards: Shards,
    /// Where the admin server listens; `None` switches it off.
    pub admin: Option<SocketAddr>,
    /// The access log; `None` switches it off.
    pub access_log: Option<AccessLog>,
    /// Limits of the process and of each shard.
    pub limits: Limits,
    /// How long a graceful stop may take.
    pub drain_timeout: Duration,
    /// How long the new process of a hot upgrade may take to be ready.
    pub upgrade_timeout: Duration,
    /// By name.
    pub listeners: BTreeMap<Arc<str>, Listener>,
    /// By name.
    pub clusters: BTreeMap<Arc<str>, Cluster>,
    /// Certificates and trust bundles, by name.
    pub secrets: BTreeMap<Arc<str>, Secret>,
    /// The healing center that is reported to; `None` reports to nobody.
    pub center: Option<Box<Center>>,
    /// The service that keeps limits for many proxies; `None` if no route asks one.
    pub rate_limit_service: Option<Box<RateLimitService>>,
    /// The control plane that brings a part of the configuration; `None` is all from the file.
    pub xds: Option<Box<Xds>>,
    /// The steering program; `None` leaves every request to its route.
    pub steering: Option<Box<steering::Steering>>,
}

/// The proxy's own identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Unique in the fleet; the host's name by default.
    pub id: String,
    /// The application that this proxy fronts.
    pub app: String,
    /// The failure domain it runs in.
    pub zone: String,
    /// What else is known of it, by key.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// Which CPUs get a shard, and how each shard's ring is sized.
#[derive(Clone, Debug, PartialEq)]
pub struct Shards {
    /// CPUs, ascending, without repeats; empty means every CPU of the process's cpuset.
    pub cpus: Vec<usize>,
    /// At most this many shards; `None` means one per CPU.
    pub count: Option<usize>,
    /// Sizes of the ring and its buffers.
    pub ring: Ring,
}

/// Sizes of a shard's ring. The defaults are the measured ones; tests run with the smallest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ring {
    /// Submission queue entries, a power of two.
    pub submission_entries: u32,
    /// Completion queue entries, a power of two.
    pub completion_entries: u32,
    /// Provided buffers for heads and small messages, a power of two.
    pub head_buffers: u16,
    /// Bytes of each.
    pub head_buffer_bytes: u32,
    /// Provided buffers for bodies, a power of two.
    pub body_buffers: u16,
    /// Bytes of each.
    pub body_buffer_bytes: u32,
    /// Keep polling for this long before sleeping; zero sleeps at once.
    pub busy_poll: Duration,
}

impl Default for Ring {
    fn default() -> Self {
        Ring {
            submission_entries: 1024,
            completion_entries: 8192,
            head_buffers: 256,
            head_buffer_bytes: 4096,
            body_buffers: 32,
            body_buffer_bytes: 65536,
            busy_poll: Duration::ZERO,
        }
    }
}

/// The access log.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// File to append to; `None` is standard output.
    pub path: Option<String>,
    /// Its format.
    pub format: AccessLogFormat,
}

/// How an access-log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One line for a person.
    Short,
    /// One JSON object with OpenTelemetry names.
    Json,
}

/// Limits that peers cannot talk us out of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Client connections per shard.
    pub connections: u32,
    /// Heap bytes per shard for received and not yet sent data, provided buffers not counted.
    pub buffers: u64,
    /// Bytes received and not yet sent, per connection.
    pub connection_buffer: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 50_000,
            buffers: 64 << 20,
            connection_buffer: 32 << 10,
        }
    }
}

/// One listening address.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Address and port; unique among listeners.
    pub bind: SocketAddr,
    /// Whether a PROXY protocol header is expected.
    pub proxy_protocol: ProxyProtocolIn,
    /// TLS on this address; `None` is plaintext only.
    pub tls: Option<Box<ListenerTls>>,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// Whether connections begin with a PROXY protocol header (v1 or v2, told apart by its first bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocolIn {
    /// Never: the bytes belong to the protocol.
    #[default]
    Off,
    /// Always; a connection without one is closed.
    Require,
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http(Http),
    /// A byte relay.
    Tcp(Tcp),
}

/// An HTTP listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// First match wins, among the routes of the most specific host that matches (exact, then the
    /// longest wildcard, then `*`), as Envoy's virtual hosts do, and the routes that name no host.
    pub routes: Vec<Route>,
    /// Time-outs on the client's side.
    pub timeouts: HttpTimeouts,
    /// Limits on what a client may send.
    pub limits: HttpLimits,
    /// What is told to endpoints about the client.
    pub forwarded: Forwarded,
}

/// A TCP listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Tcp {
    /// Where connections go.
    pub to: Vec<WeightedCluster>,
    /// For any movement in either direction.
    pub idle_timeout: Duration,
    /// After which a connection is closed whatever it does; `None` is without limit.
    pub max_age: Option<Duration>,
}

/// A group of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Where its endpoints come from.
    pub endpoints: Endpoints,
    /// How one is chosen.
    pub balance: Balance,
    /// How load goes over priorities and localities.
    pub failover: Failover,
    /// Subsets of the endpoints; `None` has none.
    pub subsets: Option<Box<Subsets>>,
    /// What HTTP routes speak with them.
    pub protocol: UpstreamProtocol,
    /// New endpoints get their share little by little over this time; zero gives it at once.
    pub slow_start: Duration,
    /// For making a connection.
    pub connect_timeout: Duration,
    /// A kept connection is closed after this long without a request.
    pub idle_timeout: Duration,
    /// Idle connections kept per endpoint and shard.
    pub idle_connections: u32,
    /// Requests over one connection, after which it is closed; `None` is without limit.
    pub requests_per_connection: Option<u32>,
    /// Limits on what is in flight, per shard.
    pub circuit: Circuit,
    /// Active health checks.
    pub health: Option<HealthCheck>,
    /// A PROXY protocol header sent first on every connection (TCP listeners only).
    pub proxy_protocol: Option<ProxyProtocolOut>,
    /// TLS towards the endpoints; `None` is plaintext only.
    pub tls: Option<Box<ClusterTls>>,
    /// A connection that is older is replaced, make before break; `None` is without limit (E17).
    pub max_connection_age: Option<Duration>,
    /// Takes sick endpoints out; `None` does not.
    pub heal: Option<Heal>,
    /// Holds back what pushes the application's machine over; `None` does not.
    pub adaptive_limit: Option<Box<AdaptiveLimit>>,
}

/// What is spoken with endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// A request at a time on a connection.
    #[default]
    Http1,
    /// Many.
    Http2,
}

impl UpstreamProtocol {
    /// Its word in a file.
    pub const fn word(self) -> &'static str {
        match self {
            UpstreamProtocol::Http1 => "http1",
            UpstreamProtocol::Http2 => "http2",
        }
    }
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoints {
    /// Written down.
    Static(Vec<StaticEndpoint>),
    /// A name that is looked up, every `refresh`, for all its addresses.
    Dns {
        /// `HOST`
        host: Arc<str>,
        /// Port of every address.
        port: u16,
        /// How often.
        refresh: Duration,
    },
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticEndpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Its weight, 1 to 128.
    pub weight: u32,
    /// The failure domain it runs in; empty if not told.
    pub zone: Arc<str>,
    /// Its labels, by key.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// 0 is the highest.
    pub priority: u32,
    /// Its locality, among those of its priority.
    pub locality: Locality,
    /// Counts as unhealthy, whatever is found out: the control plane says so.
    pub is_out: bool,
    /// What it announces about TLS.
    pub capability: TlsCapability,
}

impl StaticEndpoint {
    /// An endpoint of which only address and weight are known.
    pub fn new(address: SocketAddr, weight: u32) -> StaticEndpoint {
        StaticEndpoint {
            address,
            weight,
            zone: "".into(),
            labels: BTreeMap::new(),
            priority: 0,
            locality: Locality::default(),
            is_out: false,
            capability: TlsCapability::default(),
        }
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight (smooth: EDF).
    #[default]
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The less loaded of two drawn by chance, by weight.
    LeastRequest,
    /// The lower of two by peak-EWMA latency times requests in flight.
    PeakEwma,
    /// Consistent: points on a ring.
    RingHash,
    /// Consistent: Maglev's table.
    Maglev,
}

impl Balance {
    /// Every way there is.
    pub const ALL: [Balance; 6] = [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::PeakEwma,
        Balance::RingHash,
        Balance::Maglev,
    ];

    /// Its word in a file.
    pub const fn word(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::Random => "random",
            Balance::LeastRequest => "least_request",
            Balance::PeakEwma => "peak_ewma",
            Balance::RingHash => "ring_hash",
            Balance::Maglev => "maglev",
        }
    }
}

/// Limits on what a cluster has in flight, per shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Open connections.
    pub connections: u32,
    /// Requests in flight.
    pub requests: u32,
}

impl Default for Circuit {
    fn default() -> Self {
        Circuit {
            connections: 10_000,
            requests: 10_000,
        }
    }
}

/// An active health check.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// How often, with jitter.
    pub interval: Duration,
    /// For one try.
    pub timeout: Duration,
    /// Successes in a row that bring an endpoint back.
    pub healthy_after: u32,
    /// Failures in a row that take it out.
    pub unhealthy_after: u32,
}

/// What a health check tries.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A connection.
    Tcp,
    /// A GET, whose answer must have one of the statuses.
    Http {
        /// The path.
        path: Arc<str>,
        /// The `Host` field; the endpoint's address by default.
        host: Option<Arc<str>>,
        /// Accepted statuses, as inclusive ranges.
        expect: Vec<(u16, u16)>,
    },
    /// A call of gRPC's health service, which must say that it serves.
    Grpc {
        /// Which service is asked about; all of the server if it is empty.
        service: Arc<str>,
        /// The authority; the endpoint's address by default.
        host: Option<Arc<str>>,
    },
}

/// Which PROXY protocol header is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolOut {
    /// The text form.
    V1,
    /// The binary form.
    V2,
}
