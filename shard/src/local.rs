//! What the tasks of one shard share: the driver, the snapshot in use, the pools, the counters.
//! Everything here is `Rc`, `Cell` and plain integers; nothing is locked.

use std::{
    cell::{Cell, Ref, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tidegate_core::{
    id::{ClusterId, ShardId},
    message::{AccessRecord, TlsContexts},
    snapshot::{self, Listener, Snapshot},
    stats::{PerShard, ShardCounters},
    steering::RouteScratch,
};

use crate::{
    ShardSettings,
    downstream::Workers,
    drain::Drain,
    request::Scratch,
    ring::Driver,
    transport::{Handshakes, LetIn, ShardTls},
    upstream,
};

/// Scratches kept for reuse: as many as requests are served at once on a busy shard.
const SPARE_SCRATCHES_MAX: usize = 1024;

/// What the tasks of one shard share.
pub(crate) struct Local {
    pub(crate) id: ShardId,
    pub(crate) driver: Rc<Driver>,
    pub(crate) drain: Drain,
    counters: Arc<PerShard<ShardCounters>>,
    /// Counted into if the shard has no slot, which set-up rules out.
    no_slot: ShardCounters,
    plane: RefCell<Option<Rc<Plane>>>,
    /// What new connections are encrypted with.
    tls: RefCell<ShardTls>,
    /// Handshakes with clients that go on.
    pub(crate) handshakes: Handshakes,
    /// Clients in TLS.
    pub(crate) let_in: LetIn,
    access_log: RefCell<Option<rtrb::Producer<AccessRecord>>>,
    random: Cell<u64>,
    /// What hashes of keys that clients choose are keyed with, the same on all shards.
    pub(crate) hash_key: u64,
    /// Copies of requests that are being made or sent.
    pub(crate) mirrors_active: Cell<u32>,
    /// Tasks that wait for a stream.
    pub(crate) workers: Workers,
    /// Client connections open.
    connections: Cell<u32>,
    /// Boxed, since a scratch moves in and out with every request.
    #[allow(clippy::vec_box)]
    scratches: RefCell<Vec<Box<Scratch>>>,
    route_scratch: RefCell<RouteScratch>,
    /// What to add to the driver's clock to get Unix time.
    unix_origin_ns: u64,
}

impl Local {
    pub(crate) fn new(
        settings: &ShardSettings,
        driver: Rc<Driver>,
        counters: Arc<PerShard<ShardCounters>>,
        access_log: Option<rtrb::Producer<AccessRecord>>,
    ) -> Rc<Local> {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Rc::new(Local {
            id: settings.id,
            drain: Drain::default(),
            counters,
            no_slot: ShardCounters::default(),
            plane: RefCell::new(None),
            tls: RefCell::default(),
            handshakes: Handshakes::default(),
            let_in: LetIn::default(),
            access_log: RefCell::new(access_log),
            // Zero would stay zero.
            random: Cell::new(settings.seed | 1),
            hash_key: settings.hash_key,
            mirrors_active: Cell::new(0),
            workers: Workers::default(),
            connections: Cell::new(0),
            scratches: RefCell::new(Vec::new()),
            route_scratch: RefCell::new(RouteScratch::default()),
            unix_origin_ns: (unix.as_nanos() as u64).saturating_sub(driver.clock_ns()),
            driver,
        })
    }

    /// The shard's counters.
    pub(crate) fn counters(&self) -> &ShardCounters {
        self.counters.get(self.id).unwrap_or(&self.no_slot)
    }

    /// The snapshot in use with this shard's state of it; `None` before the first.
    pub(crate) fn plane(&self) -> Option<Rc<Plane>> {
        self.plane.borrow().clone()
    }

    /// Uses `snapshot` for every request from now on. Requests under way keep the one they began with.
    pub(crate) fn install(&self, snapshot: Arc<Snapshot>) {
        let previous = self.plane.borrow_mut().take();
        let plane = Plane::new(snapshot, previous.as_deref(), self.id, self.now());
        self.driver.set_limits(&plane.snapshot.config.limits);
        let epoch = plane.snapshot.epoch;
        *self.plane.borrow_mut() = Some(Rc::new(plane));
        self.tls.borrow_mut().forget_gone();
        self.counters().epoch.set(epoch.0);
    }

    /// Encrypts new connections with `contexts` from now on.
    pub(crate) fn install_tls(&self, contexts: &TlsContexts) {
        let tls = ShardTls::new(contexts, &self.tls.borrow());
        let previous = self.tls.replace(tls);
        drop(previous);
        self.counters().tls_installs.add(1);
    }

    /// What new connections are encrypted with.
    pub(crate) fn tls(&self) -> Ref<'_, ShardTls> {
        self.tls.borrow()
    }

    /// The generation of the context that connections to this cluster are encrypted with; `None` while
    /// there is none, since a secret is missing.
    pub(crate) fn client_generation(&self, cluster_name: &str) -> Option<u64> {
        self.tls.borrow().client_generation(cluster_name)
    }

    /// Monotonic time of this turn.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.driver.now_ns())
    }

    /// A time of the driver's clock as Unix time.
    pub(crate) fn unix_ns(&self, at_ns: u64) -> u64 {
        self.unix_origin_ns + at_ns
    }

    /// The next random number (xorshift64*, Vigna 2016): good enough to spread load, and repeatable.
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Counts a new client connection, unless the limit is reached.
    pub(crate) fn admit_connection(&self) -> bool {
        let plane = self.plane.borrow();
        let limit = plane
            .as_ref()
            .map_or(0, |p| p.snapshot.config.limits.connections);
        if self.connections.get() >= limit {
            return false;
        }
        self.connections.set(self.connections.get() + 1);
        self.counters().connections.add(1);
        self.counters().connections_open.add(1);
        true
    }

    /// A client connection that was counted is gone.
    pub(crate) fn release_connection(&self) {
        self.connections
            .set(self.connections.get().saturating_sub(1));
        self.counters().connections_open.sub(1);
    }

    /// Client connections open.
    pub(crate) fn connections_open(&self) -> u32 {
        self.connections.get()
    }

    /// A scratch for one request, used before if possible.
    pub(crate) fn scratch(&self) -> Box<Scratch> {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives a scratch back.
    pub(crate) fn keep_scratch(&self, scratch: Box<Scratch>) {
        let mut spare = self.scratches.borrow_mut();
        if spare.len() < SPARE_SCRATCHES_MAX && scratch.is_worth_keeping() {
            spare.push(scratch);
        }
    }

    /// Lends the working memory of route look-ups.
    pub(crate) fn with_route_scratch<T>(&self, f: impl FnOnce(&mut RouteScratch) -> T) -> T {
        f(&mut self.route_scratch.borrow_mut())
    }

    /// Whether the access log is on.
    pub(crate) fn logs_access(&self) -> bool {
        self.access_log.borrow().is_some()
    }

    /// Hands a record to the log's writer; dropped and counted if that is behind.
    pub(crate) fn log_access(&self, record: AccessRecord) {
        if let Some(log) = self.access_log.borrow_mut().as_mut()
            && log.push(record).is_err()
        {
            self.counters().access_log_dropped.add(1);
        }
    }
}

/// A snapshot, with this shard's own state of its clusters beside it.
pub(crate) struct Plane {
    pub(crate) snapshot: Arc<Snapshot>,
    /// By [`ClusterId`].
    clusters: Vec<Rc<upstream::Cluster>>,
}

impl Plane {
    /// The plane for `snapshot`; clusters that stay keep their connections and their balance.
    fn new(
        snapshot: Arc<Snapshot>,
        previous: Option<&Plane>,
        shard: ShardId,
        now: Duration,
    ) -> Self {
        let clusters: Vec<_> = snapshot
            .clusters
            .iter()
            .map(
                |cluster| match previous.and_then(|p| p.cluster_by_name(&cluster.name)) {
                    Some(state) => {
                        state.update(cluster, shard, now);
                        state
                    }
                    None => upstream::Cluster::new(cluster, shard, now),
                },
            )
            .collect();
        if let Some(previous) = previous {
            previous
                .clusters
                .iter()
                .filter(|old| !clusters.iter().any(|new| Rc::ptr_eq(old, new)))
                .for_each(|gone| gone.retire(now));
        }
        Plane { snapshot, clusters }
    }

    /// The listener of an address, if this snapshot still has it.
    pub(crate) fn listener(&self, bind: SocketAddr) -> Option<&Listener> {
        self.snapshot.listeners.iter().find(|l| l.bind == bind)
    }

    /// A cluster's settings and this shard's state of it.
    pub(crate) fn cluster(
        &self,
        id: ClusterId,
    ) -> Option<(&snapshot::Cluster, &Rc<upstream::Cluster>)> {
        self.snapshot
            .clusters
            .get(id.index())
            .zip(self.clusters.get(id.index()))
    }

    /// Every cluster's settings and this shard's state of it.
    pub(crate) fn clusters(
        &self,
    ) -> impl Iterator<Item = (&snapshot::Cluster, &Rc<upstream::Cluster>)> {
        self.snapshot.clusters.iter().zip(&self.clusters)
    }

    fn cluster_by_name(&self, name: &str) -> Option<Rc<upstream::Cluster>> {
        let position = self
            .snapshot
            .clusters
            .iter()
            .position(|c| &*c.name == name)?;
        self.clusters.get(position).cloned()
    }
}
