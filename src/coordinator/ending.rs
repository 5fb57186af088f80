//! The end: draining, taking that back, and stopping.

use std::{
    mem,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tidegate_core::message::Directive;

use super::{Coordinator, Next, service_manager};
use crate::{
    exit::Failure,
    fleet::POLL,
    service::sockets::{self, Opened},
    status::{State, Strict},
};

/// How long shards may take to close listening sockets.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);

/// How long threads may take to end once told so.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

impl Coordinator {
    pub(super) fn drain(&mut self, state: State) {
        // The shards' are to be the last handles, or closing them would close nothing.
        self.handles.clear();
        self.drain_leaving(state, Arc::new([]));
    }

    /// Drains, and leaves what waits at the addresses `left` to another process.
    pub(super) fn drain_leaving(&mut self, state: State, left: Arc<[SocketAddr]>) {
        let deadline = self.config.drain_timeout;
        tracing::info!(
            "draining: {} connections open, at most {deadline:?}",
            self.fleet.connections_open()
        );
        self.status.set_state(state);
        self.fleet.tell(|_| Directive::Drain {
            deadline,
            left: left.clone(),
        });
    }

    /// Takes connections again, on new sockets at the same addresses.
    pub(super) async fn undrain(&mut self) -> Result<(), String> {
        let opened = self.reopen().await.map_err(|failure| {
            tracing::error!("cannot take connections again: {failure}");
            failure.to_string()
        })?;
        self.fleet.tell(|_| Directive::Undrain);
        self.reinstall(opened).await;
        self.status.set_state(State::Ready);
        tracing::info!("taking connections again");
        if mem::take(&mut self.reload_missed) {
            // Errors are in the log; the undrain itself has succeeded.
            drop(self.reload(Strict::Judged).await);
        }
        Ok(())
    }

    /// The listening sockets of before the drain. Right behind it the shards may still be closing the old
    /// ones, which looks as if somebody else had the addresses.
    async fn reopen(&self) -> Result<Opened, Failure> {
        let deadline = Instant::now() + REOPEN_PATIENCE;
        loop {
            match sockets::reopen(&self.bound, &self.handles, self.fleet.len()) {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                reopened => return reopened,
            }
        }
    }

    pub(super) fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        service_manager::notify(&[NotifyState::Stopping]);
        self.stopping = Some(Instant::now() + self.config.drain_timeout);
        self.drain(State::Stopping);
    }

    /// Whether a stop is complete: nothing is open any more, or its time is over.
    pub(super) fn stop_progress(&mut self) -> Next {
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

    pub(super) async fn finish(mut self) {
        self.abandon_upgrade();
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
