//! A control plane's part of the configuration, put into use as a reload is. What of it cannot be used is left out
//! alone; the rest goes on.

use std::{mem, sync::Arc};

use tidegate_core::config::model::Config;

use super::{Coordinator, reload::summarize};
use crate::{
    encryption,
    exit::Failure,
    secrets::{Prepared, Unfit},
    service::sockets::{self, Handles, Opened},
    status::{State, Strict, unix_s},
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
            Some(published) => xds::merge(file, &published.part, &self.configured),
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
        let (mut merged, mut refused) = xds::merge(&file, &published.part, &self.configured);
        if let Err(lines) = encryption::review(&self.status, &merged, Strict::Judged) {
            refused.extend(lines);
            xds::put_encryption_back(&file, &mut merged, &self.configured);
        }
        match self.prepare_part(&file, merged, &mut refused) {
            Ok((merged, prepared, opened)) => {
                self.use_part(Arc::new(merged), prepared, opened).await;
            }
            // What is in use stays.
            Err(why) => refused.push(why),
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

    /// Makes what a configuration encrypts with, if that is something new, and opens its sockets. What of the control plane cannot be encrypted
    /// goes back to what is in use, or is left out.
    ///
    /// # Errors
    ///
    /// Why none of it can be used.
    fn prepare_part(
        &self,
        file: &Config,
        mut merged: Config,
        refused: &mut Vec<String>,
    ) -> Result<(Config, Option<Prepared>, Opened), String> {
        loop {
            // Again after each that went: no socket stays open for one that is left out.
            let opened = self.open_beside(file, merged, refused);
            let opened = opened.map_err(|failure| failure.problem)?;
            merged = opened.0;
            let opened = opened.1;
            if xds::encrypt_alike(&self.configured, &merged) {
                return Ok((merged, None, opened));
            }
            let faults = match self.secrets.prepare(&merged, unix_s()) {
                Ok(prepared) => return Ok((merged, Some(prepared), opened)),
                Err(Unfit::Owners(faults)) => faults,
                Err(unfit @ Unfit::Secrets(_)) => {
                    return Err(unfit.into_error("xDS", "").lines().join("; "));
                }
            };
            let before = merged.clone();
            for (owner, why) in faults {
                xds::put_back(file, &mut merged, &self.configured, &owner);
                refused.push(format!("`{owner}` cannot encrypt: {why}"));
            }
            if merged == before {
                return Err("what the file encrypts with cannot be made".into());
            }
        }
    }

    /// A part brings no secrets: those of the file stay as they are.
    async fn use_part(&mut self, merged: Arc<Config>, prepared: Option<Prepared>, opened: Opened) {
        if *merged == *self.configured {
            return;
        }
        if let Some(prepared) = prepared {
            self.secrets.take(prepared, &merged);
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
