//! The coordinator: one thread that owns the shards and everything slow. It loads configurations, binds
//! sockets, follows DNS and health, answers signals and the admin server, and ends the process in order.
//! Nothing here is on the path of a request.
//!
//! In reading order: the loop (here), `reload`, `control_plane` (what xDS brings), `encryption` (secrets and what is announced), `reports` (what
//! tasks found), `healing` (what calls came to), `limiting` (what the machine bears), `steering` (rules by hand, ramps), `center` (who is told, and
//! may ask), `ending` (drain and stop), `upgrade` (a new process takes over), `service_manager`.

pub(crate) mod center;
mod control_plane;
mod encryption;
mod ending;
pub(crate) mod healing;
mod limiting;
mod reload;
mod reports;
pub(crate) mod service_manager;
pub(crate) mod steering;
mod upgrade;

use std::{
    mem,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tidegate_core::{
    config::model::Config,
    coordinator::{Coordinator as Policy, Order, Report, Samples, TICK},
    encryption::{announcement::Announcements, change::RolloutChanges},
    id::Epoch,
    message::Directive,
    snapshot::Snapshot,
};
use tokio::time::{MissedTickBehavior, interval};

use self::{center::Reporting, steering::Steered, upgrade::Upgrades};
use crate::{
    access_log::AccessLog,
    admin::{self, view},
    chance,
    exit::{Exit, Failure},
    fleet::{Fleet, POLL},
    health::{Checker, Probed},
    monitor::Monitor,
    resolver::{Resolved, Resolver},
    secrets::{Secrets, Trials, Tried},
    service::sockets::{Bound, Handles, Opened},
    signals::{Asked, Signals},
    source::Source,
    status::{Command, Request, SourceInfo, State, Status, Strict},
    watch::{Gone, Watch},
    xds::ControlPlane,
};

/// Ticks between two looks at the configuration file; two equal looks make a change.
const WATCH_TICKS: u64 = 3;

/// Ticks between two looks at clusters of which no endpoint answers.
const DOUBT_TICKS: u64 = 10;

/// How long shards may take to use a snapshot. A turn takes microseconds; the rest is a busy machine.
const INSTALL_PATIENCE: Duration = Duration::from_secs(5);

/// Reports that tasks may be ahead of the coordinator.
const REPORTS: usize = 256;

/// The coordinator's whole state.
pub(crate) struct Coordinator {
    pub(crate) source: Source,
    pub(crate) status: Arc<Status>,
    fleet: Fleet,
    access_log: Option<AccessLog>,
    requests: flume::Receiver<Request>,
    /// What the file and the control plane say.
    configured: Arc<Config>,
    /// What is in use: the same with the changes made by hand.
    config: Arc<Config>,
    changes: RolloutChanges,
    steered: Steered,
    secrets: Secrets,
    /// How often shards were told what to encrypt with.
    tls_told: u64,
    announcements: Announcements,
    trials: Trials,
    tried: flume::Receiver<Tried>,
    watch: Option<Watch>,
    epoch: Epoch,
    /// Addresses with listening sockets, as configured and as bound.
    bound: Bound,
    /// A handle of each socket; none while draining.
    handles: Handles,
    /// The admin server, if there is one.
    pub(crate) admin: Option<admin::Server>,
    pub(crate) upgrades: Upgrades,
    resolver: Resolver,
    resolved: flume::Receiver<Resolved>,
    checker: Checker,
    probed: flume::Receiver<Probed>,
    monitor: Monitor,
    reporting: Reporting,
    control_plane: ControlPlane,
    /// What decides; everything else here carries out.
    policy: Policy,
    /// What happened since the last tick.
    reports: Vec<Report>,
    /// Addresses changed: the snapshot in use is out of date.
    recompile: bool,
    /// The newest epoch that every shard uses.
    applied: Epoch,
    /// A reload was asked for while draining.
    reload_missed: bool,
    /// When a stop that was asked for is over at the latest.
    stopping: Option<Instant>,
    /// At the last tick of a stop, no connection was left.
    drained: bool,
    ticks: u64,
}

/// Listening sockets of one shard, by configured address.
pub(crate) type Sockets = Vec<(SocketAddr, OwnedFd)>;

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Continue,
    End,
}

impl Coordinator {
    /// A coordinator of running shards that have no snapshot yet. To be called on its runtime.
    pub(crate) fn new(
        source: Source,
        config: Arc<Config>,
        secrets: Secrets,
        status: Arc<Status>,
        fleet: Fleet,
        access_log: Option<AccessLog>,
        requests: flume::Receiver<Request>,
    ) -> Self {
        let (resolved_tx, resolved) = flume::bounded(REPORTS);
        let (probed_tx, probed) = flume::bounded(REPORTS);
        let (trials, tried) = Trials::new();
        let policy = Policy::new(fleet.len());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Coordinator {
            watch: source
                .path()
                .map(|path| Watch::new(vec![path.to_owned()], Gone::Replaced)),
            source,
            status,
            fleet,
            access_log,
            requests,
            configured: config.clone(),
            control_plane: ControlPlane::nobody(config.clone()),
            config,
            changes: RolloutChanges::default(),
            steered: Steered::default(),
            secrets,
            tls_told: 0,
            announcements: Announcements::default(),
            trials,
            tried,
            epoch: Epoch(0),
            bound: Bound::new(),
            handles: Handles::new(),
            admin: None,
            upgrades: Upgrades::new(),
            resolver: Resolver::new(resolved_tx),
            resolved,
            checker: Checker::new(probed_tx),
            probed,
            monitor: Monitor::new(cpus),
            reporting: Reporting::to_nobody(),
            policy,
            reports: Vec::new(),
            recompile: false,
            applied: Epoch(0),
            reload_missed: false,
            stopping: None,
            drained: false,
            ticks: 0,
        }
    }

    /// Takes addresses that were looked up before the loop began.
    pub(crate) fn seed_resolution(&mut self, resolved: Vec<Resolved>) {
        resolved.into_iter().for_each(|one| self.on_resolved(one));
        self.decide();
    }

    /// Makes `config` the one in use on all shards; `opened` is what `sockets::open` gave for it. Returns when
    /// every shard uses it.
    pub(crate) async fn install(
        &mut self,
        config: Arc<Config>,
        source: SourceInfo,
        opened: Opened,
    ) {
        self.epoch = Epoch(self.epoch.0 + 1);
        let previous = self.status.snapshot();
        let snapshot = Arc::new(Snapshot::compile(
            config.clone(),
            self.policy.resolution(),
            previous.as_deref(),
            self.fleet.len(),
            self.epoch,
        ));
        self.config = config;
        self.bound = opened.bound;
        // Before the shards are told to close what is gone.
        let bound = &self.bound;
        self.handles.retain(|bind, _| bound.contains_key(bind));
        self.handles.extend(opened.handles);
        self.recompile = false;
        self.tell_contexts();
        let mut sockets = opened.sockets.into_iter();
        self.fleet.tell(|_| Directive::Install {
            snapshot: snapshot.clone(),
            sockets: sockets.next().unwrap_or_default(),
        });
        if let Some(previous) = &previous {
            self.status.live_mut().retire(previous, &snapshot);
        }
        self.checker.follow(&snapshot);
        self.resolver.follow(&self.config);
        self.monitor.follow(&self.config);
        {
            let mut live = self.status.live_mut();
            live.source = source;
            live.bound = self.bound.clone();
            let clusters = &self.config.clusters;
            live.dns_errors
                .retain(|name, _| clusters.contains_key(name));
            live.health
                .retain(|endpoint, _| self.checker.checks(endpoint));
            live.snapshot = Some(snapshot.clone());
            // Shown with the configuration they were made to, never beside another.
            live.rollout_changes = self.rollout_changes();
        }
        // What is known of health is told behind the snapshot, in the same inbox: no request sees the
        // one without the other.
        self.policy
            .installed(snapshot, self.status.started.elapsed());
        self.decide();
        self.show_healing();
        self.show_limits();
        self.wait_for_install().await;
        self.follow_secrets();
    }

    /// Accepts on sockets that [`Self::install`] was not given.
    pub(crate) fn listen(&mut self, sockets: Vec<Sockets>) {
        let mut sockets = sockets.into_iter();
        self.fleet.tell(|_| Directive::Listen {
            sockets: sockets.next().unwrap_or_default(),
        });
    }

    /// Requests are served from now on: whatever speaks for this process to others may begin.
    pub(crate) fn serving(&mut self) {
        self.status.set_state(State::Ready);
        if let Some(admin) = &self.admin {
            admin.open();
        }
        self.reporting.begin();
        self.control_plane.begin();
        self.try_listeners();
    }

    async fn wait_for_install(&mut self) {
        let deadline = Instant::now() + INSTALL_PATIENCE;
        while self.applied < self.epoch {
            if Instant::now() >= deadline {
                tracing::error!(
                    "not every shard uses configuration epoch {} after {INSTALL_PATIENCE:?}",
                    self.epoch
                );
                return;
            }
            tokio::time::sleep(POLL).await;
            self.fleet.flush();
            self.decide();
        }
    }

    /// Tells the policy what happened and carries out what it says.
    fn decide(&mut self) {
        let acknowledged = self.status.shards().map(|(shard, _, counters)| {
            let epoch = Epoch(counters.epoch.get());
            Report::Acknowledged { shard, epoch }
        });
        let reports: Vec<Report> = mem::take(&mut self.reports)
            .into_iter()
            .chain(acknowledged)
            .collect();
        let now = self.status.started.elapsed();
        let is_due = self.policy.is_due(now);
        let samples = match is_due {
            true => self.monitor.sample(now, &self.status.counters),
            false => Samples::new(),
        };
        for order in self
            .policy
            .tick(now, &samples, reports, &mut chance::random)
        {
            match order {
                Order::Limits {
                    epoch,
                    cluster,
                    name,
                    told,
                } => self.tell_limits(epoch, cluster, &name, &told),
                Order::LimitEnded {
                    cluster,
                    whose,
                    why,
                } => limiting::tell_end(&cluster, &whose, why),
                Order::Healing(healing) => self.carry_out_healing(&healing),
                Order::Health { epoch, verdicts } => {
                    self.show_health(&verdicts);
                    self.fleet.tell(|_| Directive::Health {
                        epoch,
                        verdicts: verdicts.clone(),
                    });
                }
                Order::Priors { epoch, priors } => self.fleet.tell(|_| Directive::Priors {
                    epoch,
                    priors: priors.clone(),
                }),
                Order::Overload(overload) => self.report_overload(overload),
                Order::Recompile => self.recompile = true,
                Order::Applied { epoch, after } => {
                    tracing::debug!("every shard uses epoch {epoch} after {after:?}");
                    self.applied = epoch;
                    self.status.process.applied(after);
                }
            }
        }
        if is_due {
            self.show_healing();
            self.show_limits();
        }
    }

    /// The loop. Ends after a graceful stop, or at once when asked twice.
    pub(crate) async fn run(mut self, mut signals: Signals) -> Result<(), Failure> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut next = Next::Continue;
        while next == Next::Continue {
            next = tokio::select! {
                asked = signals.next() => self.on_signal(asked).await,
                Ok(request) = self.requests.recv_async() => {
                    self.on_request(request).await;
                    Next::Continue
                }
                Ok(prepared) = self.upgrades.prepared.recv_async() => {
                    self.on_prepared(prepared).await;
                    Next::Continue
                }
                Ok(resolved) = self.resolved.recv_async() => {
                    self.on_resolved(resolved);
                    Next::Continue
                }
                Ok(probed) = self.probed.recv_async() => {
                    self.on_probed(probed);
                    Next::Continue
                }
                Ok(order) = self.reporting.orders.recv_async() => {
                    self.on_order(&order);
                    Next::Continue
                }
                () = self.control_plane.changed() => {
                    self.on_part().await;
                    Next::Continue
                }
                Ok(tried) = self.tried.recv_async() => {
                    self.on_tried(tried);
                    Next::Continue
                }
                _ = tick.tick() => self.on_tick().await?,
            };
        }
        self.finish().await;
        Ok(())
    }

    async fn on_signal(&mut self, asked: Asked) -> Next {
        match asked {
            Asked::Interrupt if self.stopping.is_some() => {
                tracing::warn!("interrupted again: stopping now");
                return Next::End;
            }
            Asked::Terminate | Asked::Interrupt => self.stop(),
            // Errors are in the log.
            Asked::Reload => drop(self.reload(Strict::Judged).await),
            Asked::Reopen => match &self.access_log {
                Some(log) => log.reopen(),
                None => tracing::info!("nothing to reopen: no access log is configured"),
            },
            Asked::Upgrade => self.begin_upgrade(None),
            Asked::Dump => tracing::info!("state: {}", view::dump(&self.status)),
        }
        Next::Continue
    }

    async fn on_request(&mut self, Request { command, done }: Request) {
        if command == Command::Upgrade {
            // Answered when it has come to its end.
            return self.begin_upgrade(Some(done));
        }
        let answer = self.on_command(command).await;
        // Whoever asked may have given up.
        let _ = done.try_send(answer);
    }

    async fn on_command(&mut self, command: Command) -> Result<(), String> {
        match (command, self.status.state()) {
            (Command::Quit, _) => self.stop(),
            (Command::Upgrade, _) => self.begin_upgrade(None),
            (
                Command::SetRollout(..)
                | Command::Heal(_)
                | Command::SetLimit(_)
                | Command::ChangeRule(_),
                _,
            ) if self.upgrades.is_under_way() => {
                // The new process would not know of it.
                return Err("not while an upgrade is under way: ask again in a moment".into());
            }
            (Command::Reload(strict), _) => return self.reload(strict).await,
            (Command::ChangeRule(change), _) => return self.change_rule(&change).await,
            (Command::EndTrial, _) => self.end_trial().await,
            (Command::SetRollout(cluster, change), _) => {
                return self.set_rollout(&cluster, change).await;
            }
            (Command::Heal(command), _) => return self.heal_by_hand(&command),
            (Command::SetLimit(command), _) => return self.set_limit(*command),
            (Command::Drain, State::Ready) => self.drain(State::Draining),
            (Command::Undrain, State::Draining) => return self.undrain().await,
            // It is so already.
            (Command::Drain, State::Draining | State::Stopping)
            | (Command::Undrain, State::Ready) => {}
            (Command::Drain | Command::Undrain, state) => {
                return Err(format!("not while {}", state.word()));
            }
        }
        Ok(())
    }

    async fn on_tick(&mut self) -> Result<Next, Failure> {
        self.ticks += 1;
        self.fleet.flush();
        self.decide();
        if let Some(shard) = self.fleet.ended() {
            return Err(Failure::new(
                Exit::Bug,
                format!("shard {shard} ended by itself"),
                "please report it with the log lines above",
            ));
        }
        if self.ticks.is_multiple_of(WATCH_TICKS) {
            // Secrets first: a file that refers to a new one may come right behind it.
            self.look_at_secrets().await;
            self.try_listeners();
            if self.watch.as_mut().is_some_and(Watch::changed) {
                drop(self.reload(Strict::Judged).await);
            }
        }
        if self.ticks.is_multiple_of(DOUBT_TICKS) {
            self.doubt_control_plane();
        }
        self.follow_control_plane().await;
        self.follow_ramps().await;
        if self.recompile && self.status.state() == State::Ready {
            self.reinstall(Opened::default()).await;
        }
        if !self.upgrades.is_completed()
            && let Some(period) = sd_notify::watchdog_enabled()
            && self
                .ticks
                .is_multiple_of(service_manager::watchdog_ticks(period))
        {
            service_manager::notify(&[NotifyState::Watchdog]);
        }
        Ok(self.stop_progress())
    }
}
