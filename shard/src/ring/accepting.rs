//! Listening sockets: one accept stays armed, until it is closed, or out of descriptors.

use std::{os::fd::OwnedFd, task::Waker};

use io_uring::cqueue;

use super::{
    driver::Inner,
    operations::{self, Kind, Token},
    slots::{AcceptorSlot, Backlog},
    socket,
};

impl Inner {
    pub(super) fn open_acceptor(&mut self, fd: OwnedFd) -> u32 {
        let index = self.acceptors.insert(AcceptorSlot::new(fd));
        self.arm_accept(index);
        index
    }

    /// Ends the accept for good. What the kernel has accepted already is still handed out, and what waits in
    /// the backlog as `backlog` says. Returns whom to wake.
    pub(super) fn close_acceptor(&mut self, index: u32, backlog: Backlog) -> Option<Waker> {
        let slot = self.acceptors.get_mut(index)?;
        slot.closing = Some(backlog);
        if slot.armed {
            self.cancel_accept(index);
            return None;
        }
        self.close_listening(index, backlog)
    }

    /// The owner is gone.
    pub(super) fn free_acceptor(&mut self, index: u32) {
        let Some(slot) = self.acceptors.get_mut(index) else {
            return;
        };
        slot.abandoned = true;
        if slot.armed {
            self.cancel_accept(index);
        } else {
            self.acceptors.remove(index);
        }
    }

    pub(super) fn accept_done(
        &mut self,
        index: u32,
        result: i32,
        flags: u32,
        wakes: &mut Vec<Waker>,
    ) {
        let accepted = socket::accepted(result);
        let Some(slot) = self.acceptors.get_mut(index) else {
            return;
        };
        slot.armed = cqueue::more(flags);
        if slot.abandoned && !slot.armed {
            self.acceptors.remove(index);
            return;
        }
        let cancelled = result == -libc::ECANCELED;
        let failed = accepted.is_err() && !cancelled;
        if !cancelled {
            slot.accepted.push_back(accepted);
            wakes.extend(slot.waker.take());
        }
        if let Some(backlog) = slot.closing.filter(|_| !slot.armed) {
            wakes.extend(self.close_listening(index, backlog));
        } else if !failed {
            // After an error the acceptor decides when to go on (EMFILE must not spin).
            self.arm_accept(index);
        }
    }

    /// Arms the accept, if it has ended.
    pub(super) fn arm_accept(&mut self, index: u32) {
        let Some(slot) = self.acceptors.get_mut(index) else {
            return;
        };
        let Some(fd) = slot.fd.as_ref().filter(|_| !slot.armed) else {
            return;
        };
        slot.armed = true;
        let entry = operations::accept(fd, index);
        self.ring.push_detached(&entry);
    }

    fn cancel_accept(&mut self, index: u32) {
        let entry = operations::cancel(Token {
            kind: Kind::Accept,
            slot: index,
        });
        self.ring.push_detached(&entry);
    }

    /// Takes what the kernel holds for a listening socket, then closes it: what is left in the backlog
    /// at the close would be reset. Not so if another process has the socket: taking means to make it
    /// non-blocking, for the other one as well, whose accepts would then end at once for want of connections.
    fn close_listening(&mut self, index: u32, backlog: Backlog) -> Option<Waker> {
        let slot = self.acceptors.get_mut(index)?;
        let fd = slot.fd.take()?;
        if backlog == Backlog::Taken {
            let waiting = socket::accept_waiting(&fd).into_iter().map(Ok);
            slot.accepted.extend(waiting);
        }
        slot.waker.take()
    }
}
