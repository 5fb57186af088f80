//! The steering program while it runs: rules that are changed by hand, ramps that grow and stop, programs that are
//! tried out. Each ends in a new snapshot, as a reload does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_core::{
    config::{Diagnostic, model::Config, parse_steering_rule},
    snapshot::Steering,
    stats::HistogramCounts,
    steering::program::{
        change::{Change, RuleChanges},
        ramp::{Event, Observed, Ramp, State as RampState},
        share,
    },
};

use super::Coordinator;
use crate::{
    admin::steering,
    service::sockets::Opened,
    status::{RuleCommand, State, SteeringLife, Trial, unix_s},
};

/// What is kept of the program between ticks.
#[derive(Default)]
pub(super) struct Steered {
    pub(super) changes: RuleChanges,
    /// By rule, with its epoch.
    ramps: BTreeMap<Arc<str>, (u64, Ramp)>,
}

impl Coordinator {
    /// The file's configuration with all that is changed by hand.
    pub(super) fn changed(&self) -> Arc<Config> {
        let config = self.changes.apply(&self.configured);
        self.steered.changes.apply(&config)
    }

    /// Changes a rule, or has the change tried out.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub(super) async fn change_rule(&mut self, command: &RuleCommand) -> Result<(), String> {
        if self.status.state() != State::Ready {
            return Err(format!("not while {}", self.status.state().word()));
        }
        let change = self.read_change(command)?;
        let id = change.id().clone();
        match command.is_trial {
            true => self.steered.changes.try_out(&self.configured, change)?,
            false => {
                self.steered.changes.make(&self.configured, change)?;
                self.steered.changes.end_trial();
            }
        }
        if !command.is_trial {
            tracing::warn!("steering: rule `{id}` {} by hand", command.word());
        }
        self.use_changes().await;
        Ok(())
    }

    /// Ends the evaluation of a program that is tried out.
    pub(super) async fn end_trial(&mut self) {
        if self.steered.changes.end_trial() {
            self.use_changes().await;
        }
    }

    /// Lets ramps take their steps.
    pub(super) async fn follow_ramps(&mut self) {
        let may = self.status.state() == State::Ready && !self.upgrades.is_under_way();
        let Some(program) = self.config.steering.clone().filter(|_| may) else {
            return;
        };
        let now = self.status.started.elapsed();
        let mut is_changed = false;
        let ids: Vec<_> = program
            .rules
            .iter()
            .filter(|r| r.ramp.is_some())
            .map(|r| &r.id)
            .collect();
        self.steered.ramps.retain(|id, _| ids.contains(&id));
        for rule in program.rules.iter().filter(|rule| rule.ramp.is_some()) {
            let observed = self.observe(&rule.id);
            let known = self.steered.ramps.get(&rule.id);
            if known.is_none_or(|(epoch, _)| *epoch != rule.epoch) {
                let new = Ramp::new(rule).map(|ramp| (rule.id.clone(), (rule.epoch, ramp)));
                self.steered.ramps.extend(new);
            }
            let ramp = self.steered.ramps.get_mut(&rule.id);
            let Some(event) = ramp.and_then(|(_, ramp)| ramp.tick(now, &observed)) else {
                continue;
            };
            let share = told(&rule.id, &event);
            self.steered.changes.reach(rule, share);
            is_changed = true;
        }
        match is_changed {
            true => self.use_changes().await,
            false => self.show_steering(),
        }
    }

    fn observe(&self, rule: &str) -> Observed {
        let snapshot = self.status.snapshot();
        let found = snapshot.as_ref().and_then(|snapshot| {
            let steering: &Steering = snapshot.steering.as_deref()?;
            Some((snapshot, steering.table.rule(rule)?))
        });
        let Some((snapshot, rule)) = found else {
            return Observed::default();
        };
        let mut latency = HistogramCounts::default();
        for shard in rule.latency.iter().flat_map(|all| all.iter()) {
            shard.add_to(&mut latency);
        }
        let applications = self.policy.applications();
        let fullness = rule.targets().into_iter().filter_map(|target| {
            let cluster = snapshot.cluster(target)?;
            let last = applications.get(&cluster.name)?.last()?;
            Some((cluster.name.to_string(), last.reading.watermark))
        });
        Observed {
            completed: rule.counters.sum(|c| c.completed.get()),
            failed: rule.counters.sum(|c| c.failed.get()),
            latency,
            fullest: fullness.max_by(|(_, a), (_, b)| a.total_cmp(b)),
        }
    }

    fn read_change(&self, command: &RuleCommand) -> Result<Change, String> {
        let id = command.id.clone();
        if let Some((owner, epoch)) = &command.withdraw {
            let (owner, epoch) = (owner.clone(), *epoch);
            return Ok(Change::Withdraw { id, owner, epoch });
        }
        let steering = self.configured.steering.as_deref();
        let steering = steering
            .ok_or("the file has no `steering` section, so nothing can be steered: add one")?;
        let rule = parse_steering_rule(&id, &command.rule, steering);
        let mut rule = rule.map_err(|found| lines(&found))?;
        if let Some(time) = command.lasts {
            rule.expires_unix_s = Some(unix_s() + time.as_secs());
        }
        Ok(Change::Set(Box::new(rule)))
    }

    async fn use_changes(&mut self) {
        let config = self.changed();
        if *config != *self.config {
            self.config = config;
            self.reinstall(Opened::default()).await;
        }
        self.show_steering();
    }

    /// What the admin server shows.
    pub(super) fn show_steering(&self) {
        let (set, withdrawn) = self.steered.changes.by_hand();
        let ramps = self.steered.ramps.iter();
        let ramps =
            ramps.map(|(id, (_, ramp))| (id.clone(), (ramp.reached(), ramp.state().clone())));
        let is_tried = self
            .config
            .steering
            .as_ref()
            .is_some_and(|s| s.next.is_some());
        let mut live = self.status.live_mut();
        let trial = live.steering.trial.take().filter(|_| is_tried);
        let trial = trial.or_else(|| {
            let snapshot = live.snapshot.clone().filter(|_| is_tried)?;
            let table = &snapshot.steering.as_ref()?.table;
            Some(Trial {
                since_unix_s: unix_s(),
                before: steering::all_flows(table),
            })
        });
        live.steering = SteeringLife {
            set,
            withdrawn,
            ramps: ramps.collect(),
            trial,
        };
    }

    /// Whether the file alone says what is in use.
    pub(super) fn is_steered_by_hand(&self) -> bool {
        let (set, withdrawn) = self.steered.changes.by_hand();
        !set.is_empty() || !withdrawn.is_empty()
    }
}

/// Logs what becomes of a ramp, and returns the share that is moved from now on.
fn told(rule: &str, event: &Event) -> u32 {
    let percent = |points: u32| share::percent(f64::from(points) / f64::from(share::WHOLE));
    match event {
        Event::Step(share) => {
            tracing::info!("steering: rule `{rule}` moves {} now", percent(*share));
            *share
        }
        Event::Finished(share) => {
            tracing::info!(
                "steering: rule `{rule}` moves {} now, all of its share",
                percent(*share)
            );
            *share
        }
        Event::Stopped(share, why) => {
            tracing::error!(
                "steering: the ramp of rule `{rule}` stops, {} is moved now: {why}",
                percent(*share)
            );
            *share
        }
    }
}

fn lines(found: &[Diagnostic]) -> String {
    let lines = found.iter().map(|one| {
        let help = one
            .help
            .as_deref()
            .map_or(String::new(), |help| format!("; {help}"));
        format!("{}:{}: {}{help}", one.line, one.column, one.message)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A ramp's state in a word or a sentence.
pub(crate) fn ramp_words(state: &RampState) -> String {
    match state {
        RampState::Running => "running".to_owned(),
        RampState::Finished => "finished".to_owned(),
        RampState::Stopped(why) => format!("stopped: {why}"),
    }
}

impl RuleCommand {
    fn word(&self) -> &'static str {
        match self.withdraw {
            Some(_) => "withdrawn",
            None => "set",
        }
    }
}

/// The longest time that a rule may be set for by hand.
pub(crate) const LASTS_MAX: Duration = Duration::from_secs(366 * 86_400);
