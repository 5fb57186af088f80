//! Secrets in use: told to the shards, shown, watched, tried before they are announced; and rollouts set by hand.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_core::{
    config::model::{CapabilityState, Config},
    encryption::change::RolloutChange,
    message::Directive,
};

use super::Coordinator;
use crate::{
    fleet::POLL,
    secrets::{Refreshed, Tried},
    service::sockets::Opened,
    status::{State, count, unix_s},
};

/// How long shards may take to use contexts before they are tried. A turn takes microseconds.
const TLS_PATIENCE: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Makes `configured`, which is in use from now on, the one that changes by hand are made to. Returns it
    /// with those changes.
    pub(super) fn with_changes(&mut self, configured: Arc<Config>) -> Arc<Config> {
        for cluster in self.changes.follow(&configured) {
            tracing::warn!(
                "cluster `{cluster}`: the rollout set by hand ends, the file says something else now"
            );
        }
        for rule in self.steered.changes.follow(&configured) {
            tracing::warn!(
                "steering: rule `{rule}` is the file's again, which says something else about it now"
            );
        }
        self.configured = configured;
        self.changed()
    }

    /// Changes the rollout of one cluster by hand, until its own value in the file changes or it is taken back.
    ///
    /// # Errors
    ///
    /// Why it cannot be, and what can.
    pub(super) async fn set_rollout(
        &mut self,
        cluster: &str,
        change: RolloutChange,
    ) -> Result<(), String> {
        if self.status.state() != State::Ready {
            return Err(format!("not while {}", self.status.state().word()));
        }
        self.changes.set(&self.configured, cluster, change)?;
        let config = self.changed();
        tracing::warn!("cluster `{cluster}`: rollout of TLS set by hand: {change}");
        if *config != *self.config {
            self.config = config;
            self.secrets.rebuild(&self.config);
            self.reinstall(Opened::default()).await;
        }
        self.show_encryption();
        Ok(())
    }

    /// Tells the shards what to encrypt with, in front of the snapshot that needs it.
    pub(super) fn tell_contexts(&mut self) {
        let Some(contexts) = self.secrets.tell() else {
            return;
        };
        self.fleet.tell(|_| Directive::Tls(contexts.clone()));
        self.checker.encrypt_with(contexts);
        self.tls_told += 1;
    }

    /// Looks at the files of secrets, at ticket keys and at what ends soon.
    pub(super) async fn look_at_secrets(&mut self) {
        let now = unix_s();
        let refreshed = self.secrets.refresh_changed(now);
        self.use_secrets(&refreshed).await;
        if self.secrets.rotate_tickets(self.status.started.elapsed()) {
            count(&self.status.process.ticket_rotations);
            self.secrets.rebuild(&self.config);
            self.tell_contexts();
        }
        self.secrets.raise_alarms(now);
    }

    /// Looks at all files, as a reload asks for.
    pub(super) async fn reload_secrets(&mut self) {
        let refreshed = self.secrets.refresh_all(unix_s());
        self.use_secrets(&refreshed).await;
    }

    async fn use_secrets(&mut self, refreshed: &Refreshed) {
        for _ in &refreshed.refused {
            count(&self.status.process.secrets_refused);
        }
        for _ in &refreshed.taken {
            count(&self.status.process.secrets_taken);
        }
        if !refreshed.taken.is_empty() {
            self.secrets.rebuild(&self.config);
            self.tell_contexts();
            self.wait_for_contexts().await;
            self.control_plane.secrets_changed(&self.secrets);
        }
        if *refreshed != Refreshed::default() {
            self.follow_secrets();
        }
    }

    /// What shards use has changed: shows it, and has it tried before it is announced.
    pub(super) fn follow_secrets(&mut self) {
        self.status.set_waiting(self.secrets.waiting(&self.config));
        let subjects = self.secrets.subjects(&self.config, &self.bound);
        let withdrawn = self.announcements.follow(subjects, unix_s());
        self.show_encryption();
        for listener in withdrawn {
            tracing::info!("listener `{listener}`: TLS is announced no more: it is switched off");
        }
        self.try_listeners();
    }

    /// Begins the handshakes that are due. A draining listener is not tried: it takes no connection. Nor is one of
    /// a process that is about to take over: the process before would answer.
    pub(super) fn try_listeners(&mut self) {
        if self.status.state() != State::Ready {
            return;
        }
        let Some(contexts) = self.secrets.contexts() else {
            return;
        };
        for attempt in self.announcements.due(unix_s()) {
            self.trials.begin(attempt, contexts.clone());
        }
    }

    /// Takes the result of a handshake of a listener with itself.
    pub(super) fn on_tried(&mut self, tried: Tried) {
        let Tried { attempt, result } = tried;
        let listener = attempt.listener.clone();
        match &result {
            Ok(()) => count(&self.status.process.self_handshakes),
            Err(why) => {
                count(&self.status.process.self_handshakes_failed);
                tracing::error!(
                    "listener `{listener}`: its handshake with itself failed, TLS is not announced: {why}"
                );
            }
        }
        let changed = self.announcements.finished(&attempt, result, unix_s());
        self.show_encryption();
        let Some(changed) = changed else { return };
        let live = self.status.live();
        let Some(announcement) = live.announcements.get(&changed) else {
            return;
        };
        let capability = &announcement.capability;
        if capability.state == CapabilityState::On {
            tracing::info!(
                "listener `{changed}`: TLS works and is announced, epoch {}",
                capability.epoch
            );
        }
    }

    fn show_encryption(&self) {
        let mut live = self.status.live_mut();
        live.secrets = self.secrets.show();
        let announcements = self.announcements.iter();
        live.announcements = announcements
            .map(|(name, announcement)| (name.clone(), announcement.clone()))
            .collect();
        live.rollout_changes = self.rollout_changes();
    }

    /// The rollouts that are set by hand, by cluster.
    pub(super) fn rollout_changes(&self) -> BTreeMap<Arc<str>, RolloutChange> {
        let changes = self.changes.iter();
        changes
            .map(|(name, change)| (name.clone(), change))
            .collect()
    }

    /// Waits until every shard uses the contexts that were told last. A handshake before that would try
    /// the ones before.
    async fn wait_for_contexts(&mut self) {
        let deadline = Instant::now() + TLS_PATIENCE;
        let is_behind = |told| move |shard: u64| shard < told;
        while self
            .status
            .counters
            .iter()
            .map(|shard| shard.tls_installs.get())
            .any(is_behind(self.tls_told))
        {
            if Instant::now() >= deadline {
                tracing::error!("not every shard uses the new secrets after {TLS_PATIENCE:?}");
                return;
            }
            tokio::time::sleep(POLL).await;
            self.fleet.flush();
        }
    }
}
