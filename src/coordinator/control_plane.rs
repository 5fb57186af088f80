//! A control plane's part of the configuration, put into use as a reload is. What of it cannot be used is left out
//! alone; the rest goes on.

use std::{mem, sync::Arc};

use tidegate_core::config::model::Config;

use super::{Coordinator, reload::summarize};
use crate::{
    exit::Failure,
    service::sockets::{self, Handles, Opened},
    status::State,
    xds::{self, ControlPlane},
};

impl Coordinator {
    /// Asks the configured control plane, if there is one, as soon as requests are served.
    ///
    /// # Errors
    ///
    /// A token that cannot be read.
    pub(crate) fn ask_control_plane(&mut self) -> Result<(), Failure> {
        let (plane, shown) = ControlPlane::prepare(self.configured.clone(), &self.secrets)?;
        self.control_plane = plane;
        self.status.live_mut().xds = shown;
        Ok(())
    }

    /// The file with the control plane's newest part beside it, and what of that is left out.
    pub(super) fn beside_file(&mut self, file: &Config) -> (Config, Vec<String>) {
        match self.control_plane.newest() {
            None => (file.clone(), Vec::new()),
            Some(published) => xds::merge(file, &published.part),
        }
    }

    /// Says what fails, so that it is asked for again.
    pub(super) fn doubt_control_plane(&mut self) {
        if let Some(snapshot) = self.status.snapshot() {
            self.control_plane.doubt(&snapshot);
        }
    }

    /// Puts the newest part into use, now or once nothing is in the way.
    pub(super) async fn on_part(&mut self) {
        self.control_plane.is_pending = true;
        self.follow_control_plane().await;
    }

    /// Does what [`Self::on_part`] had to leave.
    pub(super) async fn follow_control_plane(&mut self) {
        let may = self.status.state() == State::Ready && !self.upgrades.is_under_way();
        if !may || !mem::take(&mut self.control_plane.is_pending) {
            return;
        }
        let Some(published) = self.control_plane.newest() else {
            return;
        };
        let file = self.control_plane.file.clone();
        let (merged, mut refused) = xds::merge(&file, &published.part);
        match self.open_beside(&file, merged, &mut refused) {
            Ok((merged, opened)) => self.use_part(Arc::new(merged), opened).await,
            // What is in use stays.
            Err(failure) => refused.push(failure.problem),
        }
        for line in &refused {
            tracing::error!("xDS: {line}");
        }
        if let Some(shown) = &mut self.status.live_mut().xds {
            let took = published.received.elapsed();
            shown.applied.parts += 1;
            shown.applied.last = took;
            shown.applied.total += took;
            shown.applied.refused = refused;
        }
    }

    /// A part brings no secrets, and nothing that is encrypted: those of the file stay as they are.
    async fn use_part(&mut self, merged: Arc<Config>, opened: Opened) {
        if *merged == *self.configured {
            return;
        }
        let changes = xds::changes(&self.configured, &merged);
        let config = self.with_changes(merged);
        let source = self.status.live().source.clone();
        self.install(config, source, opened).await;
        tracing::info!(
            "xDS: in use as epoch {}: {}",
            self.epoch,
            summarize(&changes)
        );
    }

    /// Opens the sockets of a configuration beside those that are open. Listeners of the control plane that cannot be
    /// listened on are left out.
    ///
    /// # Errors
    ///
    /// An address of the file cannot be listened on.
    pub(super) fn open_beside(
        &self,
        file: &Config,
        mut merged: Config,
        refused: &mut Vec<String>,
    ) -> Result<(Config, Opened), Failure> {
        let shards = self.fleet.len();
        let open =
            |config: &Config| sockets::open(config, &self.bound, &mut Handles::new(), shards);
        if let Ok(opened) = open(&merged) {
            return Ok((merged, opened));
        }
        let mut alone = file.clone();
        merged.listeners.retain(|name, listener| {
            if file.listeners.contains_key(name) {
                return true;
            }
            alone.listeners = [(Arc::clone(name), listener.clone())].into();
            let opened = open(&alone);
            opened
                .map_err(|failure| refused.push(failure.problem))
                .is_ok()
        });
        let opened = open(&merged)?;
        Ok((merged, opened))
    }
}
