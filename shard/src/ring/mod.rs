//! One io_uring per shard, and the sockets on it. The only unsafe code of the project is in this
//! folder.
//!
//! * `mod.rs`: [`Ring`], the queues: push, enter, reap.
//! * `buffers.rs`: [`BufferGroup`](buffers::BufferGroup), receive buffers that the kernel picks from.
//! * `operations.rs`: the operations we submit, and the [`Token`](operations::Token) that comes back.
//! * `slots.rs`: what is kept for each socket.
//! * `driver.rs`: [`Driver`], the turn of the loop: which completion belongs to which socket.
//! * `accepting.rs`, `receiving.rs`, `sending.rs`: what the driver does about each.
//! * `deadline.rs`: [`Deadline`], a wait that ends.
//! * `socket.rs`: what the data path sees: [`Socket`], [`Acceptor`], [`Chunk`], [`Payload`].
//!
//! The rule that all of it keeps: **a buffer belongs to the kernel until its completion**, whatever is
//! dropped meanwhile. Memory that an operation points into is owned by the driver's slot of its socket,
//! and a slot is freed only when nothing of it is in flight.

#![allow(unsafe_code)]

mod accepting;
pub(crate) mod buffers;
mod deadline;
pub(crate) mod driver;
pub(crate) mod operations;
mod receiving;
mod sending;
mod slots;
pub(crate) mod socket;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, io};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use tidegate_core::config::model;

use operations::Detached;

pub(crate) use deadline::{Deadline, Elapsed};
pub(crate) use driver::Driver;
pub(crate) use slots::Backlog;
#[cfg(test)]
pub(crate) use slots::SLOT_BYTES;
pub(crate) use socket::{Acceptor, Chunk, Failed, Payload, Socket, is_over_budget};

/// The queues of one io_uring.
///
/// `SINGLE_ISSUER | DEFER_TASKRUN`: the kernel does its part of the work only when we enter, on our
/// thread, which is what makes completions cheap (3 to 15 % of a request, measured). `SUBMIT_ALL`: one
/// bad entry does not hold up those behind it.
pub(crate) struct Ring {
    io: IoUring,
    /// Completions that were taken out of the kernel's queue to make room, not reaped yet.
    backlog: VecDeque<cqueue::Entry>,
    /// Calls of `io_uring_enter` so far.
    pub(crate) enters: u64,
    /// Entries handed to the kernel so far.
    pub(crate) submitted: u64,
    /// Times the kernel had completions for which the queue had no room.
    pub(crate) overflows: u64,
}

/// Whether to sleep in [`Ring::enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Submit, run the kernel's deferred work, return.
    No,
    /// Sleep until a completion arrives. An alarm (see the driver) bounds it.
    ForOne,
}

impl Ring {
    /// Sets the ring up. Must be called on the thread that will use it (`SINGLE_ISSUER`).
    pub(crate) fn new(sizes: &model::Ring) -> io::Result<Ring> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(sizes.completion_entries.max(sizes.submission_entries * 2))
            .build(sizes.submission_entries)?;
        // Saves the kernel a look-up of the descriptor per enter. No gain was measured, it is one call.
        io.submitter().register_ring_fd()?;
        Ok(Ring {
            io,
            backlog: VecDeque::new(),
            enters: 0,
            submitted: 0,
            overflows: 0,
        })
    }

    /// The ring, for registering buffers and probing.
    pub(crate) fn io(&mut self) -> &mut IoUring {
        &mut self.io
    }

    /// Queues an entry that points at nothing.
    pub(crate) fn push_detached(&mut self, operation: &Detached) {
        // SAFETY: there is no memory to keep still.
        unsafe { self.push(operation.entry()) }
    }

    /// Queues one entry, making room first if there is none.
    ///
    /// # Safety
    ///
    /// Whatever the entry points at must stay where it is, and not be written by us, until its last
    /// completion was reaped.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the caller upholds the entry's contract.
            if unsafe { self.io.submission().push(entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it over. The kernel may refuse (EBUSY) until there is room for
            // completions, so room is made, and the loop ends.
            let _ = self.enter(Wait::No);
            self.backlog.extend(self.io.completion());
        }
    }

    /// Submits everything queued; see [`Wait`]. A signal is not an error.
    pub(crate) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let queued = {
            let queue = self.io.submission();
            if queue.cq_overflow() {
                self.overflows += 1;
            }
            queue.len()
        };
        self.enters += 1;
        self.submitted += queued as u64;
        let result = match wait {
            Wait::No => {
                // GETEVENTS with nothing to wait for: runs deferred work and flushes an overflow.
                const GETEVENTS: u32 = 1;
                // SAFETY: no signal mask is passed; entries were pushed under `push`'s contract.
                unsafe {
                    self.io
                        .submitter()
                        .enter::<libc::sigset_t>(queued as u32, 0, GETEVENTS, None)
                }
            }
            Wait::ForOne if self.backlog.is_empty() => self.io.submitter().submit_and_wait(1),
            Wait::ForOne => self.io.submitter().submit(),
        };
        match result {
            Ok(_) => Ok(()),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// The next completion, if one has arrived.
    pub(crate) fn reap(&mut self) -> Option<cqueue::Entry> {
        self.backlog
            .pop_front()
            .or_else(|| self.io.completion().next())
    }

    /// Whether a completion has arrived.
    pub(crate) fn has_completions(&mut self) -> bool {
        !self.backlog.is_empty() || !self.io.completion().is_empty()
    }
}

/// What this kernel's io_uring offers beyond what a shard needs: feature, and whether it is there.
pub(crate) fn features() -> io::Result<Vec<(&'static str, bool)>> {
    let ring = IoUring::new(2)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let params = ring.params();
    Ok(vec![
        ("send_zc", probe.is_supported(opcode::SendZc::CODE)),
        ("sendmsg_zc", probe.is_supported(opcode::SendMsgZc::CODE)),
        ("splice", probe.is_supported(opcode::Splice::CODE)),
        ("bind_listen", probe.is_supported(opcode::Bind::CODE)),
        ("receive_bundles", params.is_feature_recvsend_bundle()),
        ("min_wait", params.is_feature_min_timeout()),
    ])
}
