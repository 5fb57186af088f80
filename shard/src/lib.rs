//! The I/O edge of Tidegate: one [`Shard`] is one thread, pinned to one core, with one io_uring, its own
//! listeners, connection pools and balancers. Nothing is shared between shards.
//!
//! In reading order: `executor` (the thread and its loop), `ring` (the only unsafe code), `timer`,
//! `listener`, `transport`, `downstream`, `request` (the spine: the life of a request, top to bottom),
//! `upstream`, `relay`, `drain`, `inbox`, `access_log`.

mod executor;
mod ring;
mod timer;

use std::{io, os::fd::OwnedFd, sync::Arc};

use tidegate_core::{
    config::model::Ring,
    id::ShardId,
    message::{AccessRecord, Directive},
    stats::{PerShard, ShardCounters},
};

/// How one shard is set up.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Which shard.
    pub id: ShardId,
    /// The CPU it is pinned to; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// Sizes of its ring and buffers.
    pub ring: Ring,
    /// Seed of its random numbers.
    pub seed: u64,
}

/// The coordinator's handle of a running shard.
#[derive(Debug)]
pub struct Shard {}

/// Returned by [`Shard::send`] when the shard has not taken the directives before; try again at the next tick.
#[derive(Debug)]
pub struct InboxFull(pub Directive<OwnedFd>);

impl Shard {
    /// Starts the thread; returns once its ring is up.
    pub fn spawn(
        settings: ShardSettings,
        counters: Arc<PerShard<ShardCounters>>,
        access_log: Option<rtrb::Producer<AccessRecord>>,
    ) -> io::Result<Shard> {
        let _ = (settings, counters, access_log);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Hands a directive over and wakes the shard.
    pub fn send(&mut self, directive: Directive<OwnedFd>) -> Result<(), InboxFull> {
        Err(InboxFull(directive))
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        true
    }

    /// Waits for the thread's end (after [`Directive::Stop`]).
    pub fn join(self) -> io::Result<()> {
        Ok(())
    }
}

/// What the kernel offers, found by trying.
#[derive(Clone, Debug)]
pub struct KernelFeatures {
    /// `6.18.4`
    pub kernel: String,
    /// Feature and whether it is there, e.g. `("multishot_receive", true)`.
    pub features: Vec<(&'static str, bool)>,
}

/// Why this host cannot run shards, with the remedy.
#[derive(Clone, Debug)]
pub struct HostUnfit {
    /// What was refused.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Tries what a shard needs of the kernel, once, on a throw-away ring of these sizes.
pub fn probe(ring: &Ring) -> Result<KernelFeatures, HostUnfit> {
    let _ = ring;
    Err(HostUnfit {
        problem: String::new(),
        remedy: String::new(),
    })
}

/// Opens a listening socket (SO_REUSEPORT, so that each shard has its own).
pub fn bind(address: std::net::SocketAddr) -> io::Result<OwnedFd> {
    let _ = address;
    Err(io::ErrorKind::Unsupported.into())
}
