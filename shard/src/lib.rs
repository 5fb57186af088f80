//! The I/O edge of Tidegate: one [`Shard`] is one thread, pinned to one core, with one io_uring, its own
//! listeners, connection pools and balancers. Nothing is shared between shards.
//!
//! In reading order: `executor` (the thread and its loop), `ring` (the only unsafe code), `timer`,
//! `listener`, `transport`, `http2`, `downstream`, `request` (the spine: the life of a request, top to bottom),
//! `limit`, `upstream`, `relay`, `drain`, `inbox`, `access_log`.

mod access_log;
mod census;
mod downstream;
mod drain;
mod executor;
mod http2;
mod inbox;
mod limit;
mod listener;
mod local;
mod probe;
mod relay;
mod request;
mod ring;
mod timer;
mod transport;
mod upstream;

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tidegate_core::{
    config::model::{Limits, Ring},
    id::ShardId,
    message::{AccessRecord, Directive},
    stats::{PerShard, ShardCounters},
};

pub use listener::bind;
pub use probe::{HostUnfit, KernelFeatures, probe};

/// What the rest of the process may ask of TLS: checking and building what the shards encrypt with.
pub use transport::tls;

use local::Local;
use ring::Driver;

/// How often a shard copies the numbers of its ring into its counters.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

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
    /// What hashes of keys that clients choose are keyed with: random, and the same for all shards.
    pub hash_key: u64,
}

/// The coordinator's handle of a running shard.
#[derive(Debug)]
pub struct Shard {
    directives: rtrb::Producer<Directive<OwnedFd>>,
    wake: EventFd,
    thread: thread::JoinHandle<io::Result<()>>,
}

/// Returned by [`Shard::send`] when the shard has not taken the directives before; try again at the
/// next tick.
#[derive(Debug)]
pub struct InboxFull(pub Directive<OwnedFd>);

impl Shard {
    /// Starts the thread; returns once its ring is up.
    ///
    /// # Errors
    ///
    /// What the kernel refused; [`probe`] tells the remedy.
    pub fn spawn(
        settings: ShardSettings,
        counters: Arc<PerShard<ShardCounters>>,
        access_log: Option<rtrb::Producer<AccessRecord>>,
    ) -> io::Result<Shard> {
        let (directives, consumer) = rtrb::RingBuffer::new(inbox::CAPACITY);
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let wake_reader = Arc::new(wake.as_fd().try_clone_to_owned()?);
        let (up, is_up) = mpsc::sync_channel(1);
        let name = format!("shard-{}", settings.id);
        let thread = executor::spawn_thread(name, settings.cpu, move || async move {
            let made = Driver::new(&settings.ring, &Limits::default(), wake_reader);
            let driver = match made {
                Ok(driver) => driver,
                Err(error) => {
                    let _ = up.send(Err(error));
                    return Ok(());
                }
            };
            let _ = up.send(Ok(()));
            let local = Local::new(&settings, driver, counters, access_log);
            run(local, consumer).await
        })?;
        is_up
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the shard's executor failed")))?;
        Ok(Shard {
            directives,
            wake,
            thread,
        })
    }

    /// Hands a directive over and wakes the shard.
    ///
    /// # Errors
    ///
    /// [`InboxFull`] gives the directive back.
    pub fn send(&mut self, directive: Directive<OwnedFd>) -> Result<(), InboxFull> {
        self.directives
            .push(directive)
            .map_err(|rtrb::PushError::Full(directive)| InboxFull(directive))?;
        // An eventfd's write fails only if its count is at its end, and then the shard is awake.
        let _ = self.wake.write(1);
        Ok(())
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread's end (after [`Directive::Stop`]).
    ///
    /// # Errors
    ///
    /// What ended the loop, or that the thread panicked.
    pub fn join(self) -> io::Result<()> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the shard panicked")))
    }
}

/// The shard's main task.
async fn run(local: Rc<Local>, directives: rtrb::Consumer<Directive<OwnedFd>>) -> io::Result<()> {
    let stopped = Rc::new(Cell::new(false));
    let driver = local.driver.clone();
    executor::spawn(
        &driver,
        inbox::serve(local.clone(), directives, stopped.clone()),
    );
    executor::spawn(&driver, upstream::sweep(local.clone()));
    executor::spawn(&driver, publish(local));
    executor::run(&driver, || stopped.get()).await
}

/// Copies the numbers of the ring into the shard's counters, where the coordinator reads them.
async fn publish(local: Rc<Local>) {
    let next = local.driver.deadline();
    loop {
        let stats = local.driver.stats();
        let counters = local.counters();
        counters.loop_turns.set(stats.turns);
        counters.loop_busy_ns.set(stats.busy_ns);
        counters.loop_longest_turn_ns.set(stats.longest_turn_ns);
        counters.ring_enters.set(stats.enters);
        counters.ring_submitted.set(stats.submitted);
        counters.ring_completed.set(stats.completed);
        counters.ring_overflows.set(stats.overflows);
        counters.ring_starved.set(stats.starved);
        counters.buffers_spilled.set(stats.spilled);
        counters.buffers_heads_free.set(stats.heads_free);
        counters.buffers_bodies_free.set(stats.bodies_free);
        counters.buffers_heap_bytes.set(stats.heap_bytes);
        for (counter, count) in counters.loop_lag.iter().zip(local.driver.lag()) {
            counter.set(count);
        }
        next.set_after(PUBLISH_INTERVAL);
        next.reached().await;
    }
}
