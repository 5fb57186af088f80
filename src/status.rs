//! What the coordinator shares with the admin server and the demo. Counters are read where the shards
//! write them; the rest is behind one lock that nobody on the data path ever takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tidegate_core::{
    config::model,
    encryption::{
        announcement::Announcement, change::RolloutChange, need::Need, secret::SecretLife,
    },
    id::ShardId,
    limiter::hand::Whose,
    message::Availability,
    snapshot::Snapshot,
    stats::{EndpointCounters, HistogramCounts, MetricKind, PerShard, Phase, ShardCounters},
    steering::program::ramp,
};

use tidegate_xds::healing::client::Status as CenterStatus;
use tokio::sync::watch;

use crate::{
    healing::Healing,
    key_log::KeyLogFile,
    limits::Limits,
    upgrade::{Ancestry, Outcome},
    xds::Shown,
};

/// The whole of it. One for the life of the process.
pub(crate) struct Status {
    /// When the process began.
    pub(crate) started: Instant,
    /// The same, in seconds since the Unix epoch.
    pub(crate) started_unix_s: u64,
    /// The same, in milliseconds.
    started_unix_ms: u64,
    /// What the shards count.
    pub(crate) counters: Arc<PerShard<ShardCounters>>,
    /// The CPU of each shard, by [`ShardId`]; `None` for one that is not pinned.
    pub(crate) cpus: Vec<Option<usize>>,
    /// What the coordinator counts.
    pub(crate) process: ProcessCounters,
    /// Listeners and clusters that wait for a secret; beside [`Live::waiting`], for `/ready`.
    waiting: AtomicUsize,
    state: AtomicU8,
    live: RwLock<Live>,
}

/// What changes while the process runs.
#[derive(Default)]
pub(crate) struct Live {
    /// The snapshot in use; `None` until the first is installed.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// Where the configuration came from and what it is.
    pub(crate) source: SourceInfo,
    /// Why the newest configuration was not taken, if it was not.
    pub(crate) last_error: Option<String>,
    /// The address that each configured listening address really got (they differ for port 0).
    pub(crate) bound: BTreeMap<SocketAddr, SocketAddr>,
    /// The address of the admin server.
    pub(crate) admin: Option<SocketAddr>,
    /// By cluster and address: endpoints under an active health check.
    pub(crate) health: BTreeMap<(Arc<str>, SocketAddr), EndpointHealth>,
    /// By cluster: what endpoints that left it had counted, so that its totals never fall.
    pub(crate) retired: BTreeMap<Arc<str>, Vec<u64>>,
    /// Clusters whose last look-up failed, with the error.
    pub(crate) dns_errors: BTreeMap<Arc<str>, String>,
    /// By name: the secrets of the configuration in use. Nothing of what they hold.
    pub(crate) secrets: BTreeMap<Arc<str>, SecretStatus>,
    /// Who cannot encrypt yet since a secret is missing.
    pub(crate) waiting: Vec<Need>,
    /// By listener with TLS settings: what it announces, and why not (E10).
    pub(crate) announcements: BTreeMap<Arc<str>, Announcement>,
    /// By cluster: rollouts set by hand.
    pub(crate) rollout_changes: BTreeMap<Arc<str>, RolloutChange>,
    /// Endpoints as their calls show them.
    pub(crate) healing: Healing,
    /// Endpoints that get a part of their load, as the center says: the part in basis points, and until when.
    pub(crate) priors: BTreeMap<SocketAddr, (u32, Duration)>,
    /// What the machine bears, and who is held back.
    pub(crate) limits: Limits,
    /// How the client of the healing center does, if there is one.
    pub(crate) center: Option<watch::Receiver<CenterStatus>>,
    /// What of the steering program is not in the file.
    pub(crate) steering: SteeringLife,
    /// How the control plane does, if there is one.
    pub(crate) xds: Option<Shown>,
    /// Where the secrets of TLS connections are written, if they are.
    pub(crate) key_log: Option<KeyLogFile>,
    /// Which process in a row this is.
    pub(crate) ancestry: Ancestry,
}

/// What of the steering program is not in the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct SteeringLife {
    /// Rules that are set by hand.
    pub(crate) set: Vec<Arc<str>>,
    /// Rules that are withdrawn by hand.
    pub(crate) withdrawn: Vec<Arc<str>>,
    /// By rule: what its ramp has reached, in basis points, and where it stands.
    pub(crate) ramps: BTreeMap<Arc<str>, (u32, ramp::State)>,
    /// A program that is tried out.
    pub(crate) trial: Option<Trial>,
}

/// A program that is tried out.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// Since when, in seconds since the Unix epoch.
    pub(crate) since_unix_s: u64,
    /// What had flowed by then, by application, from and to.
    pub(crate) before: BTreeMap<[Arc<str>; 3], u64>,
}

/// A secret, as far as it may be shown (E9).
#[derive(Clone, Debug)]
pub(crate) struct SecretStatus {
    /// Its files.
    pub(crate) secret: model::Secret,
    /// What is in use, and what was refused.
    pub(crate) life: SecretLife,
}

/// Where the configuration in use came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceInfo {
    /// The file's path, or `<embedded>`.
    pub(crate) name: String,
    /// See [`crate::text::fingerprint`].
    pub(crate) fingerprint: u64,
    /// When it was installed, in seconds since the Unix epoch.
    pub(crate) installed_unix_s: u64,
}

/// What an active health check says about one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct EndpointHealth {
    /// Whether it may be chosen.
    pub(crate) availability: Availability,
    /// When that changed, in seconds since the Unix epoch.
    pub(crate) since_unix_s: u64,
    /// What the last probe found.
    pub(crate) last: String,
}

/// What the coordinator counts.
#[derive(Debug, Default)]
pub(crate) struct ProcessCounters {
    /// Configurations installed after the first.
    pub(crate) reloads: AtomicU64,
    /// Configurations refused.
    pub(crate) reloads_failed: AtomicU64,
    /// Look-ups of DNS clusters that failed.
    pub(crate) dns_failures: AtomicU64,
    /// Active health checks that failed.
    pub(crate) health_failures: AtomicU64,
    /// Changed secrets that were taken.
    pub(crate) secrets_taken: AtomicU64,
    /// Changed secrets that were refused.
    pub(crate) secrets_refused: AtomicU64,
    /// Handshakes of listeners with themselves that succeeded.
    pub(crate) self_handshakes: AtomicU64,
    /// Handshakes of listeners with themselves that failed.
    pub(crate) self_handshakes_failed: AtomicU64,
    /// Ticket keys made after the first.
    pub(crate) ticket_rotations: AtomicU64,
    /// How long it took until every shard used the newest configuration, in nanoseconds (S14).
    applied_ns: AtomicU64,
    /// The longest such time.
    applied_ns_max: AtomicU64,
    /// Hot upgrades by [`Outcome`], those of the processes before included.
    upgrades: [AtomicU64; Outcome::ALL.len()],
}

impl ProcessCounters {
    /// Every shard uses the newest configuration, so long after it was told to.
    pub(crate) fn applied(&self, after: Duration) {
        let ns = after.as_nanos() as u64;
        self.applied_ns.store(ns, Ordering::Relaxed);
        self.applied_ns_max.fetch_max(ns, Ordering::Relaxed);
    }

    /// How long that took last, in seconds.
    pub(crate) fn applied_s(&self) -> f64 {
        self.applied_ns.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// How long it took at most.
    pub(crate) fn applied_max_s(&self) -> f64 {
        self.applied_ns_max.load(Ordering::Relaxed) as f64 / 1e9
    }

    /// The counter of upgrades that ended like this.
    pub(crate) fn upgrades(&self, outcome: Outcome) -> &AtomicU64 {
        let [completed, refused, failed, timed_out] = &self.upgrades;
        match outcome {
            Outcome::Completed => completed,
            Outcome::Refused => refused,
            Outcome::Failed => failed,
            Outcome::TimedOut => timed_out,
        }
    }

    /// Upgrades so far, in the order of [`Outcome::ALL`].
    pub(crate) fn upgrade_totals(&self) -> [u64; Outcome::ALL.len()] {
        Outcome::ALL.map(|outcome| self.upgrades(outcome).load(Ordering::Relaxed))
    }
}

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is in flight; may be taken back by `/undrain`.
    Draining,
    /// Finishing what is in flight, then ending.
    Stopping,
}

impl State {
    /// The word in `/server_info`, `/ready` and the dashboard.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Stopping => "stopping",
        }
    }
}

/// What may be asked of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Stop taking connections, finish what is in flight, go on living.
    Drain,
    /// Take connections again.
    Undrain,
    /// Drain, then end.
    Quit,
    /// Read the configuration and all secrets again.
    Reload(Strict),
    /// Start the program anew and let it take over.
    Upgrade,
    /// Encrypt links to this cluster as told, above what the file says.
    SetRollout(Arc<str>, RolloutChange),
    /// Take an endpoint out, or back in.
    Heal(HealCommand),
    /// Set a limit by hand, or take it back.
    SetLimit(Box<LimitCommand>),
    /// Set or withdraw a steering rule.
    ChangeRule(Box<RuleCommand>),
    /// End the evaluation of a steering program that is tried out.
    EndTrial,
}

/// A change of one endpoint by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealCommand {
    /// Its cluster.
    pub(crate) cluster: Arc<str>,
    /// Its address.
    pub(crate) endpoint: SocketAddr,
    /// It is to be out for so long; `None` takes it back in.
    pub(crate) out_for: Option<Duration>,
    /// Only whether it could be is asked.
    pub(crate) is_trial: bool,
}

/// A change of one limit by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LimitCommand {
    /// The cluster.
    pub(crate) cluster: Arc<str>,
    /// What the limit is of.
    pub(crate) whose: Whose,
    /// Requests in flight; `None` takes it back.
    pub(crate) total: Option<u32>,
    /// For how long.
    pub(crate) lasts: Duration,
    /// Only whether it could be set is asked.
    pub(crate) is_trial: bool,
}

/// A change of one steering rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleCommand {
    /// The rule.
    pub(crate) id: Arc<str>,
    /// What it is to be, as YAML or JSON.
    pub(crate) rule: String,
    /// For how long, if not as the rule says.
    pub(crate) lasts: Option<Duration>,
    /// It is to be withdrawn: by whom, and at which epoch.
    pub(crate) withdraw: Option<(Arc<str>, u64)>,
    /// It is only evaluated beside what is in use.
    pub(crate) is_trial: bool,
}

/// Whether a listener's step to `strict` waits for those who still speak plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strict {
    /// It is refused while there are any.
    Judged,
    /// It is taken, and logged with whom it hits.
    Forced,
}

/// A command, and where to say that it was carried out, or why not.
#[derive(Debug)]
pub(crate) struct Request {
    /// What is asked for.
    pub(crate) command: Command,
    /// Room for the answer.
    pub(crate) done: flume::Sender<Result<(), String>>,
}

impl Live {
    /// Keeps the totals of endpoints that are in `old` and not in `new`. What requests still in flight
    /// add to them afterwards is lost.
    pub(crate) fn retire(&mut self, old: &Snapshot, new: &Snapshot) {
        self.retired
            .retain(|name, _| new.clusters.iter().any(|c| c.name == *name));
        for cluster in &new.clusters {
            let Some(before) = old.clusters.iter().find(|c| c.name == cluster.name) else {
                continue;
            };
            let stays: BTreeSet<_> = cluster.endpoints.iter().map(|e| e.address).collect();
            let left = before
                .endpoints
                .iter()
                .filter(|e| !stays.contains(&e.address));
            for endpoint in left {
                let totals = self.retired.entry(cluster.name.clone()).or_default();
                totals.resize(EndpointCounters::METRICS.len(), 0);
                for counters in endpoint.counters.iter() {
                    let values = EndpointCounters::METRICS.iter().zip(counters.values());
                    for (total, (info, value)) in totals.iter_mut().zip(values) {
                        if info.kind == MetricKind::Counter {
                            *total += value;
                        }
                    }
                }
            }
        }
    }
}

impl Status {
    /// A process that begins now, with one slot of counters a shard.
    pub(crate) fn new(cpus: Vec<Option<usize>>) -> Self {
        Status {
            started: Instant::now(),
            started_unix_s: unix_s(),
            started_unix_ms: unix_ms(),
            counters: Arc::new(PerShard::new(cpus.len())),
            cpus,
            process: ProcessCounters::default(),
            waiting: AtomicUsize::new(0),
            state: AtomicU8::new(State::Starting as u8),
            live: RwLock::new(Live::default()),
        }
    }

    /// Where the process is in its life. Takes no lock: `/ready` relies on it.
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            2 => State::Draining,
            _ => State::Stopping,
        }
    }

    /// Moves on. Only the coordinator calls it.
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// How many needs for a secret are unmet; a process with any is not ready. Takes no lock.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Takes who waits for which secret. Only the coordinator calls it.
    pub(crate) fn set_waiting(&self, waiting: Vec<Need>) {
        self.waiting.store(waiting.len(), Ordering::Release);
        self.live_mut().waiting = waiting;
    }

    /// Now, in milliseconds since the Unix epoch, as shards know it: by the wall clock when the process began
    /// and by the monotonic one since. A step of the wall clock must not make a peer look long gone.
    pub(crate) fn now_unix_ms(&self) -> u64 {
        self.started_unix_ms + self.started.elapsed().as_millis() as u64
    }

    /// Reads what changes while the process runs.
    pub(crate) fn live(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it. Only the coordinator calls it.
    pub(crate) fn live_mut(&self) -> RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot in use.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.live().snapshot.clone()
    }

    /// The durations of one phase, summed over the shards.
    pub(crate) fn phase(&self, phase: Phase) -> HistogramCounts {
        let mut counts = HistogramCounts::default();
        for shard in self.counters.iter() {
            if let Some(histogram) = shard.phases.get(phase as usize) {
                histogram.add_to(&mut counts);
            }
        }
        counts
    }

    /// Each shard with its CPU and its counters.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (ShardId, Option<usize>, &ShardCounters)> {
        (0u16..)
            .map(ShardId)
            .zip(&self.cpus)
            .zip(self.counters.iter())
            .map(|((id, cpu), counters)| (id, *cpu, counters))
    }
}

/// Adds one to a counter of the coordinator.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Now, in seconds since the Unix epoch.
pub(crate) fn unix_s() -> u64 {
    unix_ms() / 1000
}

/// The same, in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use tidegate_core::{config, id::Epoch};

    fn snapshot(endpoints: &str, previous: Option<&Snapshot>) -> Snapshot {
        let text = format!(
            "version: 1\nclusters: {{ app: {{ endpoints: {{ static: [{endpoints}] }} }} }}\n"
        );
        let (config, _) = config::parse("test", &text).unwrap();
        Snapshot::compile(Arc::new(config), &Default::default(), previous, 1, Epoch(1))
    }

    /// Goal: a cluster's totals never fall when endpoints leave, and gauges are not kept. Method: one of
    /// two endpoints leaves after it counted.
    #[test]
    fn totals_of_endpoints_that_left_are_kept() {
        let old = snapshot("127.0.0.1:1, 127.0.0.1:2", None);
        for endpoint in &old.clusters[0].endpoints {
            for counters in endpoint.counters.iter() {
                counters.requests.add(5);
                counters.requests_active.add(1);
            }
        }
        let new = snapshot("127.0.0.1:2", Some(&old));
        let mut live = Live::default();
        live.retire(&old, &new);
        let position = |name| {
            EndpointCounters::METRICS
                .iter()
                .position(|i| i.name == name)
                .unwrap()
        };
        let retired = &live.retired["app"];
        assert_eq!(retired[position("requests")], 5);
        assert_eq!(retired[position("requests_active")], 0);
    }

    /// Goal: a state survives its encoding. Method: there and back.
    #[test]
    fn states_round_trip() {
        let status = Status::new(vec![None]);
        assert_eq!(status.state(), State::Starting);
        for state in [
            State::Ready,
            State::Draining,
            State::Stopping,
            State::Starting,
        ] {
            status.set_state(state);
            assert_eq!(status.state(), state);
        }
    }
}
