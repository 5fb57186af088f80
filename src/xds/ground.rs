//! What a configuration with a control plane's part is put into use on: sockets and contexts of TLS, made before
//! anything of it is used. What of the part cannot be goes back to what is in use, or is left out.

use std::{io, os::fd::OwnedFd, sync::Arc};

use tidegate_core::config::model::Config;

use super::{encrypt_alike, merge, put_back};
use crate::{
    exit::Failure,
    secrets::{Prepared, Secrets, Unfit},
    service::sockets::{self, Bound, Handles, Opened},
    status::unix_s,
};
use tidegate_xds::graph::Part;

/// What is there already.
pub(crate) struct Ground<'a> {
    /// What the file alone says.
    pub(crate) file: &'a Config,
    /// What is in use.
    pub(crate) before: &'a Config,
    /// The secrets of the file.
    pub(crate) secrets: &'a Secrets,
    /// Addresses that are listened on.
    pub(crate) bound: &'a Bound,
    /// Listening sockets that the process before has left.
    pub(crate) handed: &'a Handles,
    /// How many shards there are.
    pub(crate) shards: usize,
}

/// What is made for a configuration.
pub(crate) struct Made {
    /// The configuration, with what of it could be used.
    pub(crate) config: Config,
    /// What it encrypts with, if that is something new.
    pub(crate) prepared: Option<Prepared>,
    /// Its sockets.
    pub(crate) opened: Opened,
    /// Those of [`Ground::handed`] that nobody wanted.
    pub(crate) left: Handles,
}

impl Ground<'_> {
    /// Makes all of it for the file with `part` beside it. Why something was left out is added to `refused`.
    ///
    /// # Errors
    ///
    /// Why none of it can be used.
    pub(crate) fn beside_file(
        &self,
        part: &Part,
        refused: &mut Vec<String>,
    ) -> Result<Made, String> {
        let (merged, clashes) = merge(self.file, part, self.before);
        refused.extend(clashes);
        self.make(merged, refused)
    }

    /// The same for a configuration that was merged before.
    ///
    /// # Errors
    ///
    /// Why none of it can be used.
    pub(crate) fn make(
        &self,
        mut merged: Config,
        refused: &mut Vec<String>,
    ) -> Result<Made, String> {
        loop {
            // Again after each that went: no socket stays open for one that is left out.
            let (config, opened, left) = self.open(merged, refused).map_err(|e| e.problem)?;
            let made = |prepared, config| Made {
                config,
                prepared,
                opened,
                left,
            };
            if encrypt_alike(self.before, &config) {
                return Ok(made(None, config));
            }
            let faults = match self.secrets.prepare(&config, unix_s()) {
                Ok(prepared) => return Ok(made(Some(prepared), config)),
                Err(Unfit::Owners(faults)) => faults,
                Err(unfit @ Unfit::Secrets(_)) => {
                    return Err(unfit.into_error("xDS", "").lines().join("; "));
                }
            };
            merged = config.clone();
            for (owner, why) in faults {
                put_back(self.file, &mut merged, self.before, &owner);
                refused.push(format!("`{owner}` cannot encrypt: {why}"));
            }
            if merged == config {
                return Err("what the file encrypts with cannot be made".into());
            }
        }
    }

    /// Opens the sockets of a configuration beside those that are open. Listeners of the control plane that cannot be
    /// listened on are left out.
    ///
    /// # Errors
    ///
    /// An address of the file cannot be listened on.
    pub(crate) fn open(
        &self,
        mut merged: Config,
        refused: &mut Vec<String>,
    ) -> Result<(Config, Opened, Handles), Failure> {
        if let Ok((opened, left)) = self.try_open(&merged) {
            return Ok((merged, opened, left));
        }
        let mut alone = self.file.clone();
        merged.listeners.retain(|name, listener| {
            if self.file.listeners.contains_key(name) {
                return true;
            }
            alone.listeners = [(Arc::clone(name), listener.clone())].into();
            let opened = self.try_open(&alone);
            opened
                .map_err(|failure| refused.push(failure.problem))
                .is_ok()
        });
        let (opened, left) = self.try_open(&merged)?;
        Ok((merged, opened, left))
    }

    /// What was handed over is not used up by an attempt that fails.
    fn try_open(&self, config: &Config) -> Result<(Opened, Handles), Failure> {
        let handed = self.handed.iter();
        let handed = handed.map(|(address, sockets)| {
            let sockets: io::Result<_> = sockets.iter().map(OwnedFd::try_clone).collect();
            Ok((*address, sockets?))
        });
        let mut left = handed.collect::<io::Result<Handles>>()?;
        let opened = sockets::open(config, self.bound, &mut left, self.shards)?;
        Ok((opened, left))
    }
}
