//! A control plane's part of the configuration, put into use as a reload is. What of it cannot be used is left out
//! alone; the rest goes on.

use std::{mem, sync::Arc};

use tidegate_core::config::model::Config;

use super::{Coordinator, reload::summarize};
use crate::{
    encryption,
    exit::Failure,
    secrets::Prepared,
    service::sockets::{Handles, Opened},
    status::{State, Strict},
    xds::{self, ControlPlane, Ground, Shown},
};

impl Coordinator {
    /// Asks this control plane as soon as requests are served.
    pub(crate) fn ask_control_plane(&mut self, plane: ControlPlane, shown: Option<Shown>) {
        self.control_plane = plane;
        self.status.live_mut().xds = shown;
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
        match self
            .ground(&file, &Handles::new())
            .make(merged, &mut refused)
        {
            Ok(made) => {
                self.use_part(Arc::new(made.config), made.prepared, made.opened)
                    .await;
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

    /// What a part is put into use on.
    fn ground<'a>(&'a self, file: &'a Config, handed: &'a Handles) -> Ground<'a> {
        Ground {
            file,
            before: &self.configured,
            secrets: &self.secrets,
            bound: &self.bound,
            handed,
            shards: self.fleet.len(),
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

    /// Opens the sockets of a configuration beside those that are open; see [`Ground::open`].
    ///
    /// # Errors
    ///
    /// An address of the file cannot be listened on.
    pub(super) fn open_beside(
        &self,
        file: &Config,
        merged: Config,
        refused: &mut Vec<String>,
    ) -> Result<(Config, Opened), Failure> {
        let (config, opened, _) = self.ground(file, &Handles::new()).open(merged, refused)?;
        Ok((config, opened))
    }
}
