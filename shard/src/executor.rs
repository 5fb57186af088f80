//! The thread of a shard: glommio gives placement and the local executor, our ring does all I/O.
//! This is the only file that names glommio.
//!
//! The loop is one task among the others. It yields, so that everything runnable runs; then it takes
//! one turn of the driver, which submits what they asked for, sleeps in *our* ring when nothing is
//! runnable, and wakes whom the completions concern. So glommio's own rings are idle: they cost one
//! look per preempt interval. (Parking in glommio behind an eventfd instead cost 9 to 11 % per request,
//! and its own sockets 59 %, measured.)
//!
//! There is one task queue: all work on a shard is data path. Background work lives on the coordinator.

use std::{io, thread, time::Duration};

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

use crate::ring::Driver;

/// glommio looks at its own rings this often when the shard is busy. They carry nothing.
const PREEMPT_INTERVAL: Duration = Duration::from_millis(100);
/// Depth of each of glommio's three rings: the least it takes.
const UNUSED_RING_DEPTH: usize = 8;
/// Bytes that glommio registers for its own I/O, which we do not use; its default is 10 MiB.
const UNUSED_IO_MEMORY: usize = 64 << 10;

/// Starts a thread named `name`, pinned to `cpu`, and runs `main` on it.
pub(crate) fn spawn_thread<M, F>(
    name: String,
    cpu: Option<usize>,
    main: M,
) -> io::Result<thread::JoinHandle<io::Result<()>>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = io::Result<()>> + 'static,
{
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let builder = thread::Builder::new().name(name.clone());
    builder.spawn(move || {
        let executor = LocalExecutorBuilder::new(placement)
            .name(&name)
            .ring_depth(UNUSED_RING_DEPTH)
            .io_memory(UNUSED_IO_MEMORY)
            .preempt_timer(PREEMPT_INTERVAL)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make()
            .map_err(|e| io::Error::other(e.to_string()))?;
        executor.run(async move { main().await })
    })
}

/// Runs `task` on this shard, until it ends or the shard does.
pub(crate) fn spawn(driver: &Driver, task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(task).detach();
    driver.mark_runnable();
}

/// The loop: lets every runnable task run, then takes one turn, until `stop` says so.
pub(crate) async fn run(driver: &Driver, stop: impl Fn() -> bool) -> io::Result<()> {
    while !stop() {
        futures_lite::future::yield_now().await;
        driver.turn()?;
    }
    Ok(())
}
