//! The coordinator: one thread that owns the shards and everything slow. It loads configurations, binds
//! sockets, follows DNS and health, answers signals and the admin server, and ends the process in order.
//! Nothing here is on the path of a request.

use std::{
    collections::BTreeMap,
    mem,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tidegate_core::{
    config::model::Config,
    coordinator::{Coordinator as Policy, Order, Report},
    id::{ClusterId, EndpointId, Epoch},
    message::{Availability, Directive},
    snapshot::Snapshot,
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    access_log::AccessLog,
    admin::view,
    exit::{Exit, Failure},
    fleet::{Fleet, POLL},
    health::{Checker, Probed},
    resolver::{Resolved, Resolver},
    service::sockets,
    signals::{Asked, Signals},
    source::{LoadError, Source, Watch},
    status::{Command, EndpointHealth, Request, SourceInfo, State, Status, count, unix_s},
};

/// How often the coordinator looks at the world (design: every 100 ms).
const TICK: Duration = Duration::from_millis(100);

/// Ticks between two looks at the configuration file; two equal looks make a change.
const WATCH_TICKS: u64 = 3;

/// How long shards may take to use a snapshot. A turn takes microseconds; the rest is a busy machine.
const INSTALL_PATIENCE: Duration = Duration::from_secs(5);

/// How long shards may take to close listening sockets.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);

/// How long threads may take to end once told so.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Reports that tasks may be ahead of the coordinator.
const REPORTS: usize = 256;

/// The coordinator's whole state.
pub(crate) struct Coordinator {
    pub(crate) source: Source,
    pub(crate) status: Arc<Status>,
    fleet: Fleet,
    access_log: Option<AccessLog>,
    requests: flume::Receiver<Request>,
    config: Arc<Config>,
    watch: Option<Watch>,
    epoch: Epoch,
    /// Addresses with listening sockets, as configured and as bound.
    bound: BTreeMap<SocketAddr, SocketAddr>,
    resolver: Resolver,
    resolved: flume::Receiver<Resolved>,
    checker: Checker,
    probed: flume::Receiver<Probed>,
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
        status: Arc<Status>,
        fleet: Fleet,
        access_log: Option<AccessLog>,
        requests: flume::Receiver<Request>,
    ) -> Self {
        let (resolved_tx, resolved) = flume::bounded(REPORTS);
        let (probed_tx, probed) = flume::bounded(REPORTS);
        let policy = Policy::new(fleet.len());
        Coordinator {
            watch: Watch::new(&source),
            source,
            status,
            fleet,
            access_log,
            requests,
            config,
            epoch: Epoch(0),
            bound: BTreeMap::new(),
            resolver: Resolver::new(resolved_tx),
            resolved,
            checker: Checker::new(probed_tx),
            probed,
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

    /// Makes `config` the one in use on all shards; `bound` and `sockets` are what
    /// [`sockets::open`] gave for it. Returns when every shard uses it.
    pub(crate) async fn install(
        &mut self,
        config: Arc<Config>,
        source: SourceInfo,
        bound: BTreeMap<SocketAddr, SocketAddr>,
        sockets: Vec<Sockets>,
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
        self.bound = bound;
        self.recompile = false;
        let mut sockets = sockets.into_iter();
        self.fleet.tell(|_| Directive::Install {
            snapshot: snapshot.clone(),
            sockets: sockets.next().unwrap_or_default(),
        });
        if let Some(previous) = &previous {
            self.status.live_mut().retire(previous, &snapshot);
        }
        self.checker.follow(&snapshot);
        self.resolver.follow(&self.config);
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
        }
        // What is known of health is told behind the snapshot, in the same inbox: no request sees the
        // one without the other.
        self.policy
            .installed(snapshot, self.status.started.elapsed());
        self.decide();
        self.wait_for_install().await;
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
        for order in self.policy.tick(self.status.started.elapsed(), reports) {
            match order {
                Order::Health { epoch, verdicts } => {
                    self.show_health(&verdicts);
                    self.fleet.tell(|_| Directive::Health {
                        epoch,
                        verdicts: verdicts.clone(),
                    });
                }
                Order::Recompile => self.recompile = true,
                Order::Applied { epoch, after } => {
                    tracing::debug!("every shard uses epoch {epoch} after {after:?}");
                    self.applied = epoch;
                }
            }
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
                    let answer = self.on_command(request.command).await;
                    // Whoever asked may have given up.
                    let _ = request.done.try_send(answer);
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
            Asked::Reload => drop(self.reload().await),
            Asked::Reopen => match &self.access_log {
                Some(log) => log.reopen(),
                None => tracing::info!("nothing to reopen: no access log is configured"),
            },
            // Unhandled, it would kill the process with everything in flight.
            Asked::Upgrade => tracing::warn!("USR2: this version has no hot upgrade"),
            Asked::Dump => tracing::info!("state: {}", view::dump(&self.status)),
        }
        Next::Continue
    }

    async fn on_command(&mut self, command: Command) -> Result<(), String> {
        match (command, self.status.state()) {
            (Command::Quit, _) => self.stop(),
            (Command::Reload, _) => return self.reload().await,
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
        if self.ticks.is_multiple_of(WATCH_TICKS) && self.watch.as_mut().is_some_and(Watch::changed)
        {
            drop(self.reload().await);
        }
        if self.recompile && self.status.state() == State::Ready {
            self.reinstall(Vec::new()).await;
        }
        if let Some(period) = sd_notify::watchdog_enabled()
            && self.ticks.is_multiple_of(watchdog_ticks(period))
        {
            notify(&[NotifyState::Watchdog]);
        }
        Ok(self.stop_progress())
    }

    /// Loads the configuration again. On any error the one in use stays; the error is in the log, too.
    async fn reload(&mut self) -> Result<(), String> {
        if self.status.state() != State::Ready {
            let refusal = format!("not reloading while {}", self.status.state().word());
            tracing::warn!("{refusal}");
            self.reload_missed = true;
            return Err(refusal);
        }
        let began = Instant::now();
        if let Some(watch) = &mut self.watch {
            watch.taken();
        }
        let loaded = match self.source.load() {
            Ok(loaded) => loaded,
            Err(error) => return Err(self.refuse(&error)),
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let fingerprint = loaded.fingerprint();
        if *loaded.config == *self.config {
            tracing::info!("configuration {fingerprint:016x} changes nothing");
            self.status.live_mut().last_error = None;
            return Ok(());
        }
        warn_of_restarts(&self.config, &loaded.config);
        let (bound, sockets) = match sockets::open(&loaded.config, &self.bound, self.fleet.len()) {
            Ok(opened) => opened,
            Err(failure) => return Err(self.refuse(&LoadError::Unreadable(failure))),
        };
        notify_reloading();
        let changes = tidegate_core::config::diff(&self.config, &loaded.config);
        let source = SourceInfo {
            name: self.source.name(),
            fingerprint,
            installed_unix_s: unix_s(),
        };
        self.install(loaded.config, source, bound, sockets).await;
        self.status.live_mut().last_error = None;
        count(&self.status.process.reloads);
        notify(&[NotifyState::Ready]);
        tracing::info!(
            "configuration {fingerprint:016x} in use as epoch {} after {} ms: {}",
            self.epoch,
            began.elapsed().as_millis(),
            summarize(&changes)
        );
        Ok(())
    }

    /// Says why a configuration is refused, in the log, the counters and the admin server.
    fn refuse(&mut self, error: &LoadError) -> String {
        count(&self.status.process.reloads_failed);
        let lines = error.lines();
        for line in &lines {
            tracing::error!("{line}");
        }
        tracing::error!(
            "configuration refused; epoch {} stays in use (`tidegate check {}` shows more)",
            self.epoch,
            self.source.name()
        );
        let said = lines.join("\n");
        self.status.live_mut().last_error = Some(said.clone());
        said
    }

    /// Compiles the configuration in use again, with what changed around it: addresses, sockets.
    async fn reinstall(&mut self, sockets: Vec<Sockets>) {
        let (config, bound) = (self.config.clone(), mem::take(&mut self.bound));
        let source = self.status.live().source.clone();
        self.install(config, source, bound, sockets).await;
    }

    fn on_resolved(&mut self, resolved: Resolved) {
        let Resolved { cluster, addresses } = resolved;
        match addresses {
            Ok(addresses) => {
                if self.status.live_mut().dns_errors.remove(&cluster).is_some() {
                    tracing::info!("cluster `{cluster}`: found by DNS again");
                }
                self.reports.push(Report::Resolved { cluster, addresses });
            }
            Err(error) => {
                count(&self.status.process.dns_failures);
                let before = self
                    .status
                    .live_mut()
                    .dns_errors
                    .insert(cluster.clone(), error.clone());
                // Said once, not at every look-up.
                if before.is_none() {
                    tracing::warn!("cluster `{cluster}`: DNS failed, last addresses stay: {error}");
                }
            }
        }
    }

    fn on_probed(&mut self, probed: Probed) {
        let Probed { endpoint, result } = probed;
        // A report that was under way when its check ended.
        if !self.checker.checks(&endpoint) {
            return;
        }
        let succeeded = result.is_ok();
        if !succeeded {
            count(&self.status.process.health_failures);
        }
        self.status
            .live_mut()
            .health
            .entry(endpoint.clone())
            .or_insert_with(|| EndpointHealth {
                availability: Availability::Available,
                since_unix_s: unix_s(),
                last: String::new(),
            })
            .last = result.map_or_else(|error| error, |()| "ok".into());
        let (cluster, address) = endpoint;
        self.reports.push(Report::Probed {
            cluster,
            address,
            succeeded,
        });
    }

    /// Logs changes of health and keeps what the admin server shows.
    fn show_health(&self, verdicts: &[(ClusterId, EndpointId, Availability)]) {
        let mut live = self.status.live_mut();
        let Some(snapshot) = live.snapshot.clone() else {
            return;
        };
        for (cluster, endpoint, availability) in verdicts {
            let Some((cluster, endpoint)) = snapshot
                .clusters
                .get(cluster.index())
                .and_then(|c| Some((c, c.endpoints.get(endpoint.index())?)))
            else {
                continue;
            };
            let key = (cluster.name.clone(), endpoint.address);
            let Some(health) = live.health.get_mut(&key) else {
                continue;
            };
            // After an install all verdicts are told again, changed or not.
            if health.availability == *availability {
                continue;
            }
            health.availability = *availability;
            health.since_unix_s = unix_s();
            let (name, address) = key;
            match availability {
                Availability::Available => tracing::info!("cluster `{name}`: {address} is back"),
                Availability::Unavailable => {
                    tracing::warn!("cluster `{name}`: {address} is out: {}", health.last);
                }
            }
        }
    }
}

/// The end.
impl Coordinator {
    fn drain(&mut self, state: State) {
        let deadline = self.config.drain_timeout;
        tracing::info!(
            "draining: {} connections open, at most {deadline:?}",
            self.fleet.connections_open()
        );
        self.status.set_state(state);
        self.fleet.tell(|_| Directive::Drain { deadline });
    }

    /// Takes connections again, on new sockets at the same addresses.
    async fn undrain(&mut self) -> Result<(), String> {
        let sockets = self.reopen().await.map_err(|failure| {
            tracing::error!("cannot take connections again: {failure}");
            failure.to_string()
        })?;
        self.fleet.tell(|_| Directive::Undrain);
        self.reinstall(sockets).await;
        self.status.set_state(State::Ready);
        tracing::info!("taking connections again");
        if mem::take(&mut self.reload_missed) {
            // Errors are in the log; the undrain itself has succeeded.
            drop(self.reload().await);
        }
        Ok(())
    }

    /// The listening sockets of before the drain. Right behind it the shards may still be closing the old
    /// ones, which looks as if somebody else had the addresses.
    async fn reopen(&self) -> Result<Vec<Sockets>, Failure> {
        let deadline = Instant::now() + REOPEN_PATIENCE;
        loop {
            match sockets::reopen(&self.bound, self.fleet.len()) {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                reopened => return reopened,
            }
        }
    }

    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        notify(&[NotifyState::Stopping]);
        self.stopping = Some(Instant::now() + self.config.drain_timeout);
        self.drain(State::Stopping);
    }

    /// Whether a stop is complete: nothing is open any more, or its time is over.
    fn stop_progress(&mut self) -> Next {
        let Some(deadline) = self.stopping else {
            return Next::Continue;
        };
        // Seen twice: what a closing socket's backlog still held is accepted a turn after the drain began.
        let drained = self.fleet.drained();
        if mem::replace(&mut self.drained, drained) && drained {
            return Next::End;
        }
        if Instant::now() >= deadline {
            tracing::warn!(
                "drain timeout: {} connections are cut",
                self.fleet.connections_open()
            );
            return Next::End;
        }
        Next::Continue
    }

    async fn finish(self) {
        self.status.set_state(State::Stopping);
        let served = self.status.counters.sum(|shard| shard.requests.get());
        self.fleet.stop(STOP_PATIENCE).await;
        if let Some(log) = self.access_log {
            log.stop();
        }
        tracing::info!(
            "stopped after {} s and {served} requests",
            self.status.started.elapsed().as_secs()
        );
    }
}

/// Tells the service manager, if there is one. That it does not listen is no reason to stop serving.
pub(crate) fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!("sd_notify: {e}");
    }
}

/// systemd wants the moment of a reload in the same message (sd_notify(3), RELOADING=1).
fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// A sign of life goes out at a third of the period that the service manager allows.
fn watchdog_ticks(period: Duration) -> u64 {
    let third = period.as_millis() / 3 / TICK.as_millis();
    u64::try_from(third).unwrap_or(u64::MAX).max(1)
}

/// Some settings are read once, when the process starts.
fn warn_of_restarts(old: &Config, new: &Config) {
    for (key, changed) in [
        ("shards", old.shards != new.shards),
        ("admin", old.admin != new.admin),
        ("access_log", old.access_log != new.access_log),
    ] {
        if changed {
            tracing::warn!("`{key}` changed; it takes effect at the next start");
        }
    }
}

/// The first few changes in one line.
fn summarize(changes: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut summary = changes
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ");
    if changes.len() > SHOWN {
        summary += &format!("; and {} more", changes.len() - SHOWN);
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the service manager hears of us well within its period, never zero ticks. Method: table.
    #[test]
    fn watchdog_period_is_kept() {
        assert_eq!(watchdog_ticks(Duration::from_secs(30)), 100);
        assert_eq!(watchdog_ticks(Duration::from_millis(1)), 1);
    }

    /// Goal: a log line stays a line. Method: more changes than are shown.
    #[test]
    fn long_summaries_are_cut() {
        let changes: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        assert_eq!(summarize(&changes), "0; 1; 2; 3; 4; and 2 more");
        assert_eq!(summarize(&[]), "");
    }
}
