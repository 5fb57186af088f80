//! Reloads: a configuration is read again, and used or refused as a whole.

use std::{mem, sync::Arc, time::Instant};

use sd_notify::NotifyState;
use tidegate_core::config::model::Config;

use super::{Coordinator, service_manager};
use crate::{
    encryption,
    service::sockets::Opened,
    status::{SourceInfo, State, Strict, count, unix_s},
};

impl Coordinator {
    /// Loads the configuration again. On any error the one in use stays; the error is in the log, too.
    pub(super) async fn reload(&mut self, strict: Strict) -> Result<(), String> {
        if self.status.state() != State::Ready {
            return Err(self.miss_reload(self.status.state().word()));
        }
        if self.upgrades.is_under_way() {
            return Err(self.miss_reload("an upgrade is under way"));
        }
        let began = Instant::now();
        if let Some(watch) = &mut self.watch {
            watch.taken();
        }
        self.reload_secrets().await;
        let loaded = match self.source.load() {
            Ok(loaded) => loaded,
            Err(error) => return Err(self.refuse(error.lines())),
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let fingerprint = loaded.fingerprint();
        if *loaded.config == *self.control_plane.file {
            tracing::info!("configuration {fingerprint:016x} changes nothing");
            self.status.live_mut().last_error = None;
            return Ok(());
        }
        let (config, mut left_out) = self.beside_file(&loaded.config);
        // A secret that is missing or broken refuses the whole of a configuration that brings it.
        let prepared = match self.secrets.prepare(&config, unix_s()) {
            Ok(prepared) => prepared,
            Err(unfit) => {
                let error = unfit.into_error(&self.source.name(), &loaded.text);
                return Err(self.refuse(error.lines()));
            }
        };
        if let Err(lines) = encryption::review(&self.status, &config, strict) {
            return Err(self.refuse(lines));
        }
        let opened = self.open_beside(&loaded.config, config, &mut left_out);
        let (config, opened) = match opened {
            Ok((config, opened)) => (Arc::new(config), opened),
            Err(failure) => return Err(self.refuse(vec![failure.problem])),
        };
        warn_of_restarts(&self.configured, &config);
        service_manager::reloading();
        let changes = tidegate_core::config::diff(&self.configured, &config);
        self.secrets.take(prepared, &config);
        self.control_plane.secrets_changed(&self.secrets);
        let config = self.with_changes(config);
        self.control_plane.file_changed(loaded.config);
        left_out
            .iter()
            .for_each(|line| tracing::error!("xDS: {line}"));
        let source = SourceInfo {
            name: self.source.name(),
            fingerprint,
            installed_unix_s: unix_s(),
        };
        self.install(config, source, opened).await;
        self.status.live_mut().last_error = None;
        count(&self.status.process.reloads);
        service_manager::notify(&[NotifyState::Ready]);
        tracing::info!(
            "configuration {fingerprint:016x} in use as epoch {} after {} ms: {}",
            self.epoch,
            began.elapsed().as_millis(),
            summarize(&changes)
        );
        Ok(())
    }

    /// Remembers that a reload was asked for at the wrong time, and says so.
    fn miss_reload(&mut self, meanwhile: &str) -> String {
        let refusal = format!("not reloading while {meanwhile}");
        tracing::warn!("{refusal}");
        self.reload_missed = true;
        refusal
    }

    /// Says why a configuration is refused, in the log, the counters and the admin server.
    fn refuse(&mut self, lines: Vec<String>) -> String {
        count(&self.status.process.reloads_failed);
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

    /// Compiles the configuration in use again, with what changed around it: addresses, sockets of the same
    /// listeners.
    pub(super) async fn reinstall(&mut self, opened: Opened) {
        let opened = Opened {
            bound: mem::take(&mut self.bound),
            ..opened
        };
        let source = self.status.live().source.clone();
        self.install(self.config.clone(), source, opened).await;
    }
}

/// Some settings are read once, when the process starts.
fn warn_of_restarts(old: &Config, new: &Config) {
    for (key, changed) in [
        ("shards", old.shards != new.shards),
        ("admin", old.admin != new.admin),
        ("access_log", old.access_log != new.access_log),
        ("center", old.center != new.center),
        ("xds", old.xds != new.xds),
    ] {
        if changed {
            tracing::warn!("`{key}` changed; it takes effect at the next start");
        }
    }
}

/// The first few changes in one line.
pub(super) fn summarize(changes: &[String]) -> String {
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

    /// Goal: a log line stays a line. Method: more changes than are shown.
    #[test]
    fn long_summaries_are_cut() {
        let changes: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        assert_eq!(summarize(&changes), "0; 1; 2; 3; 4; and 2 more");
        assert_eq!(summarize(&[]), "");
    }
}
