//! Hot upgrades: when one may begin, what is handed over, the moment at which the new process takes over, and how
//! this one goes on if it does not.

use std::{
    io, mem,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sd_notify::NotifyState;
use tidegate_core::{
    config::model::{Config, PolicyMode},
    encryption::change::{RolloutChange, RolloutChanges},
    healing::ejection::State as Health,
};

use super::{Coordinator, center::Reporting, service_manager};
use crate::{
    encryption,
    fleet::POLL,
    status::{State, Strict, count},
    upgrade::{
        Ejection, Inheritance, NotReady, Outcome, Program, Successor, Surroundings, in_memory,
    },
};

/// How long shards may take to stop accepting. A turn takes microseconds; the rest is a busy machine.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Where upgrades stand.
pub(crate) struct Upgrades {
    /// How to start this program again; `None` if it is not to be.
    pub(crate) program: Option<Program>,
    under_way: Option<UnderWay>,
    preparing: flume::Sender<Prepared>,
    /// New processes that could serve, or why there is none.
    pub(super) prepared: flume::Receiver<Prepared>,
    /// The new process serves; this one ends.
    completed: bool,
}

struct UnderWay {
    began: Instant,
    asked: Option<Asked>,
    /// The new process, once there is one; 0 until then.
    pid: Arc<AtomicU32>,
}

/// Room for the answer of whoever asked over the admin server.
type Asked = flume::Sender<Result<(), String>>;

/// What an attempt came to.
pub(super) type Prepared = Result<Successor, NotReady>;

impl Upgrades {
    pub(super) fn new() -> Upgrades {
        let (preparing, prepared) = flume::bounded(1);
        Upgrades {
            program: None,
            under_way: None,
            preparing,
            prepared,
            completed: false,
        }
    }

    /// Whether a new process is being started.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether another process serves in the place of this one.
    pub(super) fn is_completed(&self) -> bool {
        self.completed
    }
}

impl Coordinator {
    /// Starts a new process, which is to take over. Whoever asked is answered when it has, or why it has not.
    pub(super) fn begin_upgrade(&mut self, asked: Option<Asked>) {
        let begun = self.may_upgrade().and_then(|(program, rollouts)| {
            self.start_successor(program, &rollouts)
                .map_err(|error| format!("cannot prepare an upgrade: {error}"))
        });
        let pid = match begun {
            Ok(pid) => pid,
            Err(why) => return self.not_upgraded(asked, Outcome::Refused, why),
        };
        service_manager::reloading();
        self.status.live_mut().ancestry.under_way = true;
        self.upgrades.under_way = Some(UnderWay {
            began: Instant::now(),
            asked,
            pid,
        });
    }

    /// The program to start and the rollouts that stay, unless there is a reason against it.
    fn may_upgrade(&mut self) -> Result<(Program, RolloutChanges), String> {
        if let Some(under_way) = &self.upgrades.under_way {
            let since = under_way.began.elapsed();
            return Err(format!(
                "an upgrade is under way, since {since:.1?}: wait for its end"
            ));
        }
        if self.status.state() != State::Ready {
            let state = self.status.state().word();
            return Err(format!("no upgrade while {state}"));
        }
        if let Some(why) = Surroundings::own().unfit() {
            return Err(why);
        }
        if self.is_steered_by_hand() {
            // The new process would begin without them, and send requests elsewhere.
            return Err(
                "steering rules are set by hand: put them into the file, or withdraw them".into(),
            );
        }
        if self.is_limited_by_hand() {
            return Err("limits are set by hand: take them back, or wait until they end".into());
        }
        let Some(program) = self.upgrades.program.clone() else {
            return Err("the demonstration is not upgraded: start it again".into());
        };
        Ok((program, self.judge()?))
    }

    /// Judges the file as a reload would, since the new process cannot know who speaks plaintext now. Returns the
    /// rollouts set by hand that the file leaves as they are.
    fn judge(&mut self) -> Result<RolloutChanges, String> {
        let mut rollouts = self.changes.clone();
        let Ok(loaded) = self.source.load() else {
            // It may be written for a newer version. If it is broken, the new process says so.
            tracing::warn!(
                "upgrade: this version cannot read the configuration; the new one has to"
            );
            return Ok(rollouts);
        };
        let (config, _) = self.beside_file(&loaded.config);
        encryption::review(&self.status, &config, Strict::Judged)
            .map_err(|lines| lines.join("\n"))?;
        for cluster in rollouts.follow(&config) {
            tracing::warn!(
                "cluster `{cluster}`: the rollout set by hand ends, the file says something else now"
            );
        }
        Ok(rollouts)
    }

    /// Returns where its process will be written.
    fn start_successor(
        &self,
        program: Program,
        rollouts: &RolloutChanges,
    ) -> io::Result<Arc<AtomicU32>> {
        let inheritance = self.inheritance(rollouts)?;
        let patience = self.config.upgrade_timeout;
        let preparing = self.upgrades.preparing.clone();
        let pid = Arc::new(AtomicU32::new(0));
        let started = pid.clone();
        thread::Builder::new()
            .name("upgrade".into())
            .spawn(move || {
                let started = |pid| started.store(pid, Ordering::Release);
                let prepared = Successor::prepare(&program, &inheritance, patience, started);
                // Nobody listens any more at the end of the process.
                let _ = preparing.send(prepared);
            })?;
        Ok(pid)
    }

    /// Ends a new process that is still being prepared. One of this program would end by itself with this one;
    /// another program may not.
    pub(super) fn abandon_upgrade(&mut self) {
        let Some(under_way) = self.upgrades.under_way.take() else {
            return;
        };
        let pid = under_way.pid.load(Ordering::Acquire);
        // One that came to its end ends when it is dropped; its number may soon be somebody else's.
        let is_at_its_end = self.upgrades.prepared.try_recv().is_ok();
        if let Ok(pid @ 1..) = i32::try_from(pid)
            && !is_at_its_end
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        answer(under_way.asked, Err("this process ends".into()));
    }

    fn inheritance(&self, rollouts: &RolloutChanges) -> io::Result<Inheritance> {
        let sockets = self.handles.iter().map(|(bind, sockets)| {
            let sockets: io::Result<_> = sockets.iter().map(OwnedFd::try_clone).collect();
            Ok((*bind, sockets?))
        });
        let admin = match &self.admin {
            Some(admin) => Some((admin.configured, admin.socket()?)),
            None => None,
        };
        let rollouts = rollouts.iter();
        let resources = self.control_plane.handover();
        Ok(Inheritance {
            generation: self.status.live().ancestry.generation + 1,
            totals: self.status.process.upgrade_totals(),
            sockets: sockets.collect::<io::Result<_>>()?,
            admin,
            tickets: Some(self.secrets.tickets(self.status.started.elapsed())),
            rollouts: rollouts
                .map(|(cluster, change)| ((**cluster).into(), change))
                .collect(),
            ejections: self.ejections(),
            resources: resources.map(|bytes| in_memory(&bytes)).transpose()?,
        })
    }

    /// Endpoints that are out now. In shadow none is.
    fn ejections(&self) -> Vec<Ejection> {
        let now = self.status.started.elapsed();
        let wards = self.policy.wards().iter();
        let enforced = wards.filter(|(_, ward)| ward.heal().mode != PolicyMode::Shadow);
        let ejected = enforced.flat_map(|(cluster, ward)| {
            ward.nodes().filter_map(move |node| match node.state {
                Health::Ejected { until } => Some(Ejection {
                    cluster: (**cluster).into(),
                    endpoint: node.address,
                    remaining: until.saturating_sub(now),
                }),
                _ => None,
            })
        });
        ejected.collect()
    }

    /// Lets the new process take over, if there is one and this one still serves.
    pub(super) async fn on_prepared(&mut self, prepared: Prepared) {
        let Some(UnderWay { began, asked, .. }) = self.upgrades.under_way.take() else {
            return;
        };
        self.status.live_mut().ancestry.under_way = false;
        let handed_over = match prepared {
            Ok(successor) => self.hand_over(successor, began).await,
            Err(not_ready) => Err(not_ready),
        };
        match handed_over {
            Ok(()) => {
                self.status.live_mut().ancestry.last_error = None;
                count(self.status.process.upgrades(Outcome::Completed));
                answer(asked, Ok(()));
            }
            Err(NotReady { outcome, why }) => {
                if self.status.state() == State::Ready {
                    service_manager::notify(&[NotifyState::Ready]);
                }
                self.not_upgraded(asked, outcome, why);
                if self.status.state() == State::Ready && mem::take(&mut self.reload_missed) {
                    // Errors are in the log.
                    drop(self.reload(Strict::Judged).await);
                }
            }
        }
    }

    /// Stops accepting and tells the new process to serve, in this order: see [`crate::upgrade`].
    async fn hand_over(&mut self, successor: Successor, began: Instant) -> Result<(), NotReady> {
        if self.status.state() != State::Ready {
            return Err(NotReady {
                outcome: Outcome::Failed,
                why: format!("this process is {}", self.status.state().word()),
            });
        }
        // Where the new process does not listen, the shards' are to be the last handles.
        self.handles
            .retain(|bind, _| !successor.left().contains(bind));
        let left = self.handles.keys().copied().collect();
        // Still *ready* for whoever asks: the address is served.
        self.drain_leaving(State::Ready, left);
        self.wait_until_closed().await;
        if let Some(admin) = &self.admin {
            admin.pause().await;
        }
        let pid = match successor.serve() {
            Ok(pid) => pid,
            Err(not_ready) => {
                // Errors are in the log; what waits at the sockets is still there.
                drop(self.undrain().await);
                if let Some(admin) = &self.admin {
                    admin.open();
                }
                return Err(not_ready);
            }
        };
        tracing::info!(
            "upgrade: pid {pid} serves, {} ms after it was asked for; this process ends when it has served what it \
             has",
            began.elapsed().as_millis()
        );
        self.upgrades.completed = true;
        self.handles.clear();
        self.stopping = Some(Instant::now() + self.config.drain_timeout);
        // In one message: systemd takes nothing else from a process that is no longer the main one.
        service_manager::notify(&[NotifyState::MainPid(pid), NotifyState::Ready]);
        self.reporting = Reporting::to_nobody();
        if let Some(admin) = self.admin.take() {
            admin.close();
        }
        self.status.set_state(State::Stopping);
        Ok(())
    }

    /// Waits until no shard accepts any more.
    async fn wait_until_closed(&mut self) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        while self.fleet.is_listening() {
            if Instant::now() >= deadline {
                tracing::error!("not every shard has stopped accepting after {CLOSE_PATIENCE:?}");
                return;
            }
            tokio::time::sleep(POLL).await;
            self.fleet.flush();
        }
    }

    fn not_upgraded(&mut self, asked: Option<Asked>, outcome: Outcome, why: String) {
        count(self.status.process.upgrades(outcome));
        tracing::error!("upgrade {}: {why}", outcome.word());
        self.status.live_mut().ancestry.last_error = Some(why.clone());
        answer(asked, Err(why));
    }

    /// Sets the rollouts that were set by hand in the process before. Returns the configuration with them.
    pub(crate) fn inherit_rollouts(
        &mut self,
        rollouts: Vec<(Box<str>, RolloutChange)>,
    ) -> Arc<Config> {
        for (cluster, change) in rollouts {
            match self.changes.set(&self.configured, &cluster, change) {
                Ok(()) => {
                    tracing::warn!(
                        "cluster `{cluster}`: rollout of TLS stays set by hand: {change}"
                    )
                }
                Err(why) => tracing::warn!("the rollout set by hand ends: {why}"),
            }
        }
        let config = self.changes.apply(&self.configured);
        if *config != *self.configured {
            self.secrets.rebuild(&config);
        }
        config
    }

    /// Keeps those out that were out in the process before.
    pub(crate) fn inherit_ejections(&mut self, ejections: &[Ejection]) {
        let now = self.status.started.elapsed();
        for out in ejections {
            match self
                .policy
                .eject(&out.cluster, out.endpoint, now, out.remaining)
            {
                Ok(ejected) => self.carry_out_healing(&ejected),
                Err(why) => tracing::warn!(
                    "cluster `{}`: {} does not stay out: {why}",
                    out.cluster,
                    out.endpoint
                ),
            }
        }
        self.decide();
        self.show_healing();
    }
}

/// Whoever asked may have given up, or it was a signal.
fn answer(asked: Option<Asked>, result: Result<(), String>) {
    if let Some(asked) = asked {
        let _ = asked.try_send(result);
    }
}
