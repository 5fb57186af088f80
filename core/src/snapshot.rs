//! An immutable, compiled configuration with an epoch. Shards hold it by `Arc` and swap it between
//! turns; a request keeps the one it began with.

mod action;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    balancer::{EndpointInput, Rules, subset::SubsetTable},
    config::model,
    encryption::census::Census,
    id::{ClusterId, EndpointId, Epoch, InterfaceId, ListenerId, RouteId},
    limiter::{bucket::Buckets, interface::Shared},
    stats::{EndpointCounters, Methods, PerShard, RateLimitServiceCounters, RouteCounters},
    steering::{RouteTable, fault::Faults, hash_address, program::Table},
};

/// The whole data plane, compiled.
#[derive(Debug)]
pub struct Snapshot {
    /// Its version.
    pub epoch: Epoch,
    /// The configuration it was compiled from.
    pub config: Arc<model::Config>,
    /// By [`ListenerId`].
    pub listeners: Vec<Listener>,
    /// By [`ClusterId`].
    pub clusters: Vec<Cluster>,
    /// The service that keeps limits for many proxies.
    pub rate_limit_service: Option<RateLimitService>,
    /// The steering program; `None` leaves every request to its route.
    pub steering: Option<Box<Steering>>,
}

/// The steering program, compiled.
#[derive(Debug)]
pub struct Steering {
    /// What decides.
    pub table: Table,
    /// What would, evaluated beside it (S15).
    pub dry_run: Option<Table>,
}

/// A compiled listener.
#[derive(Debug)]
pub struct Listener {
    /// Its place in the snapshot.
    pub id: ListenerId,
    /// Its name.
    pub name: Arc<str>,
    /// Its address.
    pub bind: SocketAddr,
    /// Whether a PROXY protocol header is expected.
    pub proxy_protocol: model::ProxyProtocolIn,
    /// TLS on this address.
    pub tls: Option<Box<model::ListenerTls>>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Who speaks to it, carried over from the snapshot before while its address stays: that is what
    /// connections hold on to.
    pub census: Arc<PerShard<Census>>,
}

/// What a listener speaks, compiled.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are few listeners, and HTTP is the common one"
)]
pub enum Protocol {
    /// HTTP.
    Http(Http),
    /// A byte relay.
    Tcp(Tcp),
}

/// A compiled HTTP listener.
#[derive(Debug)]
pub struct Http {
    /// Which route a request takes.
    pub table: RouteTable,
    /// By [`RouteId`].
    pub routes: Vec<Route>,
    /// Time-outs on the client's side.
    pub timeouts: model::HttpTimeouts,
    /// Limits on what a client may send.
    pub limits: model::HttpLimits,
    /// What is told to endpoints about the client.
    pub forwarded: model::Forwarded,
}

/// A compiled TCP listener.
#[derive(Debug)]
pub struct Tcp {
    /// Where connections go.
    pub split: Split,
    /// For any movement in either direction.
    pub idle_timeout: Duration,
    /// After which a connection is closed whatever it does.
    pub max_age: Option<Duration>,
}

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    /// Its place in the route table.
    pub id: RouteId,
    /// Its name.
    pub name: Arc<str>,
    /// How many may take it: each has to let a request in.
    pub rate_limits: Vec<RateLimit>,
    /// What the [`RateLimitService`] is asked about them.
    pub global_rate_limits: Vec<model::Descriptor>,
    /// Faults that are injected on purpose.
    pub faults: Option<Box<Faults>>,
    /// What it does.
    pub action: Action,
    /// Edits of the request.
    pub request_headers: model::HeaderEdits,
    /// Edits of the answer.
    pub response_headers: model::HeaderEdits,
    /// Its counters, carried over from the snapshot before while the name stays.
    pub counters: Arc<PerShard<RouteCounters>>,
    /// Its calls of gRPC by method, if they are counted so; carried over, too.
    pub methods: Option<Arc<PerShard<Methods>>>,
}

/// A rate limit with its buckets.
#[derive(Debug)]
pub struct RateLimit {
    /// The rule.
    pub rule: model::RateLimit,
    /// Carried over from the snapshot before while the names and the rule stay.
    pub buckets: Arc<Buckets>,
}

/// The service that keeps limits for many proxies, compiled.
#[derive(Debug)]
pub struct RateLimitService {
    /// The rule.
    pub rule: model::RateLimitService,
    /// The cluster that it is reached by.
    pub cluster: ClusterId,
    /// Its counters, carried over from the snapshot before.
    pub counters: Arc<PerShard<RateLimitServiceCounters>>,
}

pub use crate::steering::{Split, destination::Target};
pub use action::{Action, Forward, Mirror};
use action::{compile_action, compile_split};

/// A compiled cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its place in the snapshot.
    pub id: ClusterId,
    /// Its name.
    pub name: Arc<str>,
    /// Its settings.
    pub config: model::Cluster,
    /// By [`EndpointId`]; empty while DNS has not answered.
    pub endpoints: Vec<Endpoint>,
    /// Subsets of them by labels.
    pub subsets: SubsetTable,
    /// By [`InterfaceId`]: routes that lead to it, if it is limited.
    pub interfaces: Vec<Interface>,
}

impl Cluster {
    /// What a balancer of it goes by.
    pub fn rules(&self) -> Rules {
        let config = &self.config;
        let subsets = config.subsets.as_deref();
        Rules {
            policy: config.balance,
            slow_start: config.slow_start,
            overprovisioning: config.failover.overprovisioning,
            panic_threshold: config.failover.panic_threshold,
            by_locality: config.failover.by_locality,
            subsets_by_locality: subsets.is_some_and(|subsets| subsets.by_locality),
        }
    }

    /// What a balancer is told of its endpoints. The key is a hash of the address alone, so that the consistent
    /// policies agree on every shard and every host.
    pub fn inputs(&self) -> Vec<EndpointInput> {
        let inputs = self.endpoints.iter().map(|endpoint| EndpointInput {
            key: hash_address(endpoint.address),
            weight: endpoint.weight,
            priority: endpoint.priority,
            locality: endpoint.locality.number,
            locality_weight: endpoint.locality.weight,
            is_out: endpoint.is_out,
        });
        inputs.collect()
    }
}

/// What callers call of an application that is limited: a route that leads to it.
#[derive(Debug)]
pub struct Interface {
    /// `listener/route`
    pub name: Arc<str>,
    /// Its counters and spare slots, carried over from the snapshot before while the names stay.
    pub shared: Arc<Shared>,
}

/// An endpoint of a cluster.
#[derive(Debug)]
pub struct Endpoint {
    /// Its place in the cluster.
    pub id: EndpointId,
    /// Its address.
    pub address: SocketAddr,
    /// Its weight, 1 to 128.
    pub weight: u32,
    /// The failure domain it runs in; empty if not told.
    pub zone: Arc<str>,
    /// Its labels, by key.
    pub labels: model::Labels,
    /// 0 is the highest.
    pub priority: u32,
    /// Its locality, among those of its priority.
    pub locality: model::Locality,
    /// Counts as unhealthy, whatever is found out: the control plane says so.
    pub is_out: bool,
    /// What it announces about TLS.
    pub capability: model::TlsCapability,
    /// Its counters, carried over from the snapshot before while the endpoint stays in the cluster.
    pub counters: Arc<PerShard<EndpointCounters>>,
}

/// Looked-up addresses of the clusters with DNS endpoints, by cluster name.
pub type Resolution = BTreeMap<Arc<str>, Vec<SocketAddr>>;

impl Snapshot {
    /// Compiles `config`. `resolved` holds what DNS said; `previous` lends its counters, so that they
    /// go on over a change; `shards` is the number of slots of each counter.
    ///
    /// Never fails: a [`model::Config`] was validated, its regular expressions included.
    pub fn compile(
        config: Arc<model::Config>,
        resolved: &Resolution,
        previous: Option<&Snapshot>,
        shards: usize,
        epoch: Epoch,
    ) -> Snapshot {
        let kept = KeptCounters::of(previous, shards);
        let names = config.clusters.keys();
        let cluster_ids: BTreeMap<&str, ClusterId> = names
            .enumerate()
            .map(|(i, name)| (&**name, ClusterId(i as u32)))
            .collect();
        let mut clusters: Vec<Cluster> = config
            .clusters
            .iter()
            .enumerate()
            .map(|(i, (name, cluster))| {
                let found = resolved.get(name).map_or(&[][..], Vec::as_slice);
                let mut cluster = compile_cluster(ClusterId(i as u32), name, cluster, found, &kept);
                if let Some(rule) = &mut cluster.config.adaptive_limit {
                    **rule = rule.on(&config.node, name);
                }
                cluster
            })
            .collect();
        let mut listeners: Vec<Listener> = config
            .listeners
            .iter()
            .enumerate()
            .map(|(i, (name, listener))| Listener {
                id: ListenerId(i as u32),
                name: Arc::clone(name),
                bind: listener.bind,
                proxy_protocol: listener.proxy_protocol,
                tls: listener.tls.clone(),
                protocol: compile_protocol(name, &listener.protocol, &clusters, &kept),
                census: kept.census(listener.bind),
            })
            .collect();
        let steering = compile_steering(&config, &cluster_ids, previous, shards, epoch);
        name_interfaces(&mut listeners, &mut clusters, steering.as_deref(), &kept);
        Snapshot {
            epoch,
            rate_limit_service: kept.rate_limit_service(&config, &cluster_ids),
            steering,
            listeners,
            clusters,
            config,
        }
    }

    /// The listener of this address.
    pub fn listener_by_bind(&self, bind: SocketAddr) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.bind == bind)
    }

    /// The listener of this name.
    pub fn listener_by_name(&self, name: &str) -> Option<&Listener> {
        // Names ascend, as the map they came from does.
        let found = self.listeners.binary_search_by(|l| (*l.name).cmp(name));
        self.listeners.get(found.ok()?)
    }

    /// The cluster of this name.
    pub fn cluster_by_name(&self, name: &str) -> Option<&Cluster> {
        find_cluster(&self.clusters, name)
    }

    /// The cluster of this id.
    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        self.clusters.get(id.index())
    }
}

/// The counters of the snapshot before, by names, as ids do not last.
struct KeptCounters<'a> {
    shards: usize,
    /// By listener and route.
    routes: BTreeMap<(&'a str, &'a str), &'a Arc<PerShard<RouteCounters>>>,
    /// By listener and route.
    methods: BTreeMap<(&'a str, &'a str), &'a Arc<PerShard<Methods>>>,
    /// By listener and route.
    rate_limits: BTreeMap<(&'a str, &'a str), &'a [RateLimit]>,
    rate_limit_service: Option<&'a Arc<PerShard<RateLimitServiceCounters>>>,
    /// By cluster and address.
    endpoints: BTreeMap<(&'a str, SocketAddr), &'a Arc<PerShard<EndpointCounters>>>,
    /// By cluster and name.
    interfaces: BTreeMap<(&'a str, &'a str), &'a Arc<Shared>>,
    /// By address of the listener.
    census: BTreeMap<SocketAddr, &'a Arc<PerShard<Census>>>,
}

impl<'a> KeptCounters<'a> {
    fn of(previous: Option<&'a Snapshot>, shards: usize) -> Self {
        let mut kept = KeptCounters {
            shards,
            routes: BTreeMap::new(),
            methods: BTreeMap::new(),
            rate_limits: BTreeMap::new(),
            rate_limit_service: None,
            endpoints: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            census: BTreeMap::new(),
        };
        let Some(previous) = previous else {
            return kept;
        };
        let service = previous.rate_limit_service.as_ref();
        let counters = service.map(|service| &service.counters);
        kept.rate_limit_service = counters.filter(|counters| counters.len() == shards);
        for listener in &previous.listeners {
            if listener.census.len() == shards {
                kept.census.insert(listener.bind, &listener.census);
            }
            let Protocol::Http(http) = &listener.protocol else {
                continue;
            };
            let routes = http.routes.iter().filter(|r| r.counters.len() == shards);
            kept.routes
                .extend(routes.map(|r| ((&*listener.name, &*r.name), &r.counters)));
            let counting = http
                .routes
                .iter()
                .filter_map(|r| Some((r, r.methods.as_ref()?)));
            kept.methods.extend(
                counting
                    .filter(|(_, methods)| methods.len() == shards)
                    .map(|(r, methods)| ((&*listener.name, &*r.name), methods)),
            );
            let limited = http.routes.iter().filter(|r| !r.rate_limits.is_empty());
            kept.rate_limits
                .extend(limited.map(|r| ((&*listener.name, &*r.name), &*r.rate_limits)));
        }
        for cluster in &previous.clusters {
            let endpoints = cluster
                .endpoints
                .iter()
                .filter(|e| e.counters.len() == shards);
            kept.endpoints
                .extend(endpoints.map(|e| ((&*cluster.name, e.address), &e.counters)));
            let interfaces = cluster.interfaces.iter();
            let interfaces = interfaces.filter(|i| i.shared.counters.len() == shards);
            kept.interfaces
                .extend(interfaces.map(|i| ((&*cluster.name, &*i.name), &i.shared)));
        }
        kept
    }

    fn route(&self, listener: &str, route: &str) -> Arc<PerShard<RouteCounters>> {
        match self.routes.get(&(listener, route)) {
            Some(counters) => Arc::clone(counters),
            None => Arc::new(PerShard::new(self.shards)),
        }
    }

    /// The methods that are counted of a route that `forward`s.
    fn methods(&self, listener: &str, route: &model::Route) -> Option<Arc<PerShard<Methods>>> {
        let model::RouteAction::Forward(forward) = &route.action else {
            return None;
        };
        let kept = self.methods.get(&(listener, &*route.name));
        forward.grpc_statistics.then(|| match kept {
            Some(methods) => Arc::clone(methods),
            None => Arc::new(PerShard::new(self.shards)),
        })
    }

    /// The rule with the buckets that it had; another mode of it is the same limit.
    fn rate_limit(&self, listener: &str, route: &str, rule: &model::RateLimit) -> RateLimit {
        let is_same = |old: &&RateLimit| {
            let (old, shards) = (&old.rule, old.buckets.counters.len());
            shards == self.shards
                && (old.rate, &old.by, old.keys) == (rule.rate, &rule.by, rule.keys)
        };
        let old = self.rate_limits.get(&(listener, route));
        let old = old.and_then(|limits| limits.iter().find(is_same));
        RateLimit {
            rule: rule.clone(),
            buckets: match old {
                Some(old) => Arc::clone(&old.buckets),
                None => Arc::new(Buckets::new(rule.rate, rule.keys, self.shards)),
            },
        }
    }

    fn rate_limit_service(
        &self,
        config: &model::Config,
        cluster_ids: &BTreeMap<&str, ClusterId>,
    ) -> Option<RateLimitService> {
        let rule = config.rate_limit_service.as_deref()?;
        let new = || Arc::new(PerShard::new(self.shards));
        Some(RateLimitService {
            rule: rule.clone(),
            cluster: *cluster_ids.get(&*rule.cluster)?,
            counters: self.rate_limit_service.map_or_else(new, Arc::clone),
        })
    }

    fn interface(&self, cluster: &str, name: &str) -> Arc<Shared> {
        match self.interfaces.get(&(cluster, name)) {
            Some(shared) => Arc::clone(shared),
            None => Shared::new(self.shards),
        }
    }

    fn census(&self, bind: SocketAddr) -> Arc<PerShard<Census>> {
        match self.census.get(&bind) {
            Some(census) => Arc::clone(census),
            None => Arc::new(PerShard::new(self.shards)),
        }
    }

    fn endpoint(&self, cluster: &str, address: SocketAddr) -> Arc<PerShard<EndpointCounters>> {
        match self.endpoints.get(&(cluster, address)) {
            Some(counters) => Arc::clone(counters),
            None => Arc::new(PerShard::new(self.shards)),
        }
    }
}

fn compile_steering(
    config: &model::Config,
    cluster_ids: &BTreeMap<&str, ClusterId>,
    previous: Option<&Snapshot>,
    shards: usize,
    epoch: Epoch,
) -> Option<Box<Steering>> {
    let program = config.steering.as_deref()?;
    let before = previous.and_then(|snapshot| snapshot.steering.as_deref());
    let compile = |program, before| Table::compile(program, cluster_ids, before, shards, epoch);
    let dry_run = program.next.as_deref().map(|next| {
        let before = before.and_then(|before| before.dry_run.as_ref());
        compile(next, before)
    });
    Some(Box::new(Steering {
        table: compile(program, before.map(|before| &before.table)),
        dry_run,
    }))
}

fn compile_cluster(
    id: ClusterId,
    name: &Arc<str>,
    config: &model::Cluster,
    resolved: &[SocketAddr],
    kept: &KeptCounters<'_>,
) -> Cluster {
    let addresses: Vec<model::StaticEndpoint> = match &config.endpoints {
        model::Endpoints::Static(endpoints) => endpoints.clone(),
        // Name servers rotate their answers: sorted, the same addresses have the same ids.
        model::Endpoints::Dns { .. } => BTreeSet::from_iter(resolved)
            .into_iter()
            .map(|address| model::StaticEndpoint::new(*address, 1))
            .collect(),
    };
    let endpoints = addresses.iter().enumerate().map(|(i, endpoint)| Endpoint {
        id: EndpointId(i as u32),
        address: endpoint.address,
        weight: endpoint.weight,
        zone: Arc::clone(&endpoint.zone),
        labels: endpoint.labels.clone(),
        priority: endpoint.priority,
        locality: endpoint.locality,
        is_out: endpoint.is_out,
        capability: endpoint.capability.clone(),
        counters: kept.endpoint(name, endpoint.address),
    });
    let endpoints: Vec<Endpoint> = endpoints.collect();
    let labels = endpoints.iter().map(|endpoint| &endpoint.labels);
    Cluster {
        id,
        name: Arc::clone(name),
        config: config.clone(),
        subsets: SubsetTable::compile(config.subsets.as_deref(), labels),
        endpoints,
        interfaces: Vec::new(),
    }
}

/// Every route to a cluster that is limited is an interface of it, also if steering alone leads there (S10).
fn name_interfaces(
    listeners: &mut [Listener],
    clusters: &mut [Cluster],
    steering: Option<&Steering>,
    kept: &KeptCounters<'_>,
) {
    for listener in listeners {
        let Protocol::Http(http) = &mut listener.protocol else {
            continue;
        };
        for route in &mut http.routes {
            let Action::Forward(forward) = &mut route.action else {
                continue;
            };
            let homes = BTreeSet::from_iter(forward.split.clusters());
            let elsewhere = homes
                .iter()
                .filter_map(|home| Some(steering?.table.siblings(*home)));
            let all = homes.iter().copied().chain(elsewhere.flatten());
            for id in BTreeSet::from_iter(all) {
                let limited = |cluster: &&mut Cluster| cluster.config.adaptive_limit.is_some();
                let Some(cluster) = clusters.get_mut(id.index()).filter(limited) else {
                    continue;
                };
                let name: Arc<str> = format!("{}/{}", listener.name, route.name).into();
                let interface = InterfaceId(cluster.interfaces.len() as u32);
                forward.interfaces.push((id, interface));
                let shared = kept.interface(&cluster.name, &name);
                cluster.interfaces.push(Interface { name, shared });
            }
        }
    }
}

fn compile_protocol(
    listener: &str,
    protocol: &model::Protocol,
    clusters: &[Cluster],
    kept: &KeptCounters<'_>,
) -> Protocol {
    match protocol {
        model::Protocol::Tcp(tcp) => Protocol::Tcp(Tcp {
            split: compile_split(listener, &tcp.to, clusters),
            idle_timeout: tcp.idle_timeout,
            max_age: tcp.max_age,
        }),
        model::Protocol::Http(http) => {
            let routes = http.routes.iter().enumerate().map(|(i, route)| Route {
                id: RouteId(i as u32),
                name: Arc::clone(&route.name),
                rate_limits: route
                    .rate_limits
                    .iter()
                    .map(|rule| kept.rate_limit(listener, &route.name, rule))
                    .collect(),
                global_rate_limits: route.global_rate_limits.clone(),
                faults: route
                    .fault
                    .as_deref()
                    .map(|fault| Box::new(Faults::compile(fault))),
                action: compile_action(route, clusters),
                request_headers: route.request_headers.clone(),
                response_headers: route.response_headers.clone(),
                counters: kept.route(listener, &route.name),
                methods: kept.methods(listener, route),
            });
            Protocol::Http(Http {
                table: RouteTable::compile(&http.routes),
                routes: routes.collect(),
                timeouts: http.timeouts,
                limits: http.limits,
                forwarded: http.forwarded.clone(),
            })
        }
    }
}

/// The cluster of a name, of clusters in the order of their names.
fn find_cluster<'a>(clusters: &'a [Cluster], name: &str) -> Option<&'a Cluster> {
    let found = clusters.binary_search_by(|cluster| (*cluster.name).cmp(name));
    clusters.get(found.ok()?)
}
