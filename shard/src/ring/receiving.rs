//! Receiving: which receive is armed, what happens to what arrives, and who waits for a buffer.

use std::{collections::VecDeque, task::Waker};

use io_uring::cqueue;

use super::{
    driver::Inner,
    operations::{self, BODIES, HEADS, Kind, Token},
    slots::{Armed, End},
    socket::{RawChunk, ReceiveMode},
};

impl Inner {
    pub(super) fn set_mode(&mut self, index: u32, mode: ReceiveMode) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        if slot.mode == mode {
            return;
        }
        slot.mode = mode;
        if slot.armed == Armed::Heads {
            self.cancel_receive(index);
        }
        self.arm(index);
    }

    /// Takes the next received chunk.
    pub(super) fn take_received(&mut self, index: u32) -> Option<RawChunk> {
        let slot = self.sockets.get_mut(index)?;
        let chunk = slot.received.pop_front()?;
        slot.received_bytes = slot.received_bytes.saturating_sub(chunk.len() as u32);
        if slot.armed == Armed::No {
            self.arm(index);
        }
        Some(chunk)
    }

    /// Puts back what was taken and not used.
    pub(super) fn put_back(&mut self, index: u32, chunk: RawChunk) {
        let chunk = self.spill_if_scarce(chunk);
        match self.sockets.get_mut(index) {
            Some(slot) => {
                slot.received_bytes += chunk.len() as u32;
                slot.received.push_front(chunk);
            }
            None => self.recycle(chunk),
        }
    }

    pub(super) fn receive_done(
        &mut self,
        index: u32,
        group: u16,
        result: i32,
        flags: u32,
        now_ns: u64,
        wakes: &mut Vec<Waker>,
    ) {
        let chunk = cqueue::buffer_select(flags).map(|buffer| {
            let group = if group == HEADS {
                &mut self.heads
            } else {
                &mut self.bodies
            };
            group.take(buffer)
        });
        let chunk = chunk
            .zip(cqueue::buffer_select(flags))
            .map(|(base, buffer)| {
                RawChunk::provided_at(group, buffer, base, u32::try_from(result).unwrap_or(0))
            });
        let Some(slot) = self.sockets.get_mut(index) else {
            chunk.into_iter().for_each(|c| self.recycle(c));
            return;
        };
        if !cqueue::more(flags) {
            slot.armed = Armed::No;
            slot.in_flight -= 1;
        }
        if slot.closing || slot.end.is_some() {
            chunk.into_iter().for_each(|c| self.recycle(c));
            self.free_if_quiet(index);
            return;
        }
        match result {
            1.. => {
                slot.received_at_ns = now_ns;
                let waits = slot.wants_data;
                if let Some(chunk) = chunk {
                    self.queue_received(index, chunk, waits);
                }
            }
            error if error == -libc::ENOBUFS => {
                chunk.into_iter().for_each(|c| self.recycle(c));
                self.starve(index, group);
                return;
            }
            error if error == -libc::ECANCELED || error == -libc::EINTR => {
                chunk.into_iter().for_each(|c| self.recycle(c));
            }
            end => {
                slot.received_at_ns = now_ns;
                slot.end = Some(if end == 0 {
                    End::Finished
                } else {
                    End::Failed(-end)
                });
                chunk.into_iter().for_each(|c| self.recycle(c));
            }
        }
        if let Some(slot) = self.sockets.get_mut(index) {
            wakes.extend(slot.reader.take());
        }
        self.arm(index);
    }

    /// Arms as many of the starved as there are buffers, first come first served.
    pub(super) fn feed_starved(&mut self) {
        for group in [HEADS, BODIES] {
            let free = if group == HEADS {
                self.heads.free()
            } else {
                self.bodies.free()
            };
            for _ in 0..free {
                let queue = self.starved.get_mut(usize::from(group));
                let Some(index) = queue.and_then(VecDeque::pop_front) else {
                    break;
                };
                let Some(slot) = self.sockets.get_mut(index) else {
                    continue;
                };
                if slot.armed == Armed::Starved {
                    slot.armed = Armed::No;
                    self.arm(index);
                }
            }
        }
    }

    /// Queues a chunk, and keeps the connection's and the shard's budgets.
    fn queue_received(&mut self, index: u32, chunk: RawChunk, reader_waits: bool) {
        let chunk = if reader_waits {
            chunk
        } else {
            self.spill_if_scarce(chunk)
        };
        let over_budget = self.heap_bytes > self.limits.buffers;
        let Some(slot) = self.sockets.get_mut(index) else {
            self.recycle(chunk);
            return;
        };
        if over_budget && !reader_waits {
            slot.end = Some(End::Failed(libc::ENOBUFS));
            self.recycle(chunk);
            return;
        }
        slot.received_bytes += chunk.len() as u32;
        slot.received.push_back(chunk);
        slot.wants_data = false;
        if slot.received_bytes >= self.limits.connection_buffer && slot.armed == Armed::Heads {
            self.cancel_receive(index);
        }
    }

    /// Arms the receive that the mode asks for, if none is in the kernel's hands.
    fn arm(&mut self, index: u32) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        if slot.armed != Armed::No || slot.closing || slot.end.is_some() {
            return;
        }
        let entry = match slot.mode {
            ReceiveMode::Off => return,
            ReceiveMode::Heads => {
                if slot.received_bytes >= self.limits.connection_buffer {
                    return;
                }
                slot.armed = Armed::Heads;
                operations::receive_heads(&slot.fd, index)
            }
            ReceiveMode::Bodies => {
                if !slot.received.is_empty() {
                    return;
                }
                slot.armed = Armed::Body;
                operations::receive_body(&slot.fd, index)
            }
        };
        slot.in_flight += 1;
        self.ring.push_detached(&entry);
    }

    fn cancel_receive(&mut self, index: u32) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        slot.armed = Armed::HeadsCancelled;
        let entry = operations::cancel(Token {
            kind: Kind::ReceiveHeads,
            slot: index,
        });
        self.ring.push_detached(&entry);
    }

    /// A receive found no buffer: it is armed again when one has come back.
    fn starve(&mut self, index: u32, group: u16) {
        self.stats.starved += 1;
        if let Some(slot) = self.sockets.get_mut(index) {
            slot.armed = Armed::Starved;
        }
        if let Some(queue) = self.starved.get_mut(usize::from(group)) {
            queue.push_back(index);
        }
    }

    /// When provided buffers run short, what nobody reads yet is copied to the heap: a connection that
    /// is not served must not keep another from being served.
    fn spill_if_scarce(&mut self, chunk: RawChunk) -> RawChunk {
        if !self.is_scarce(&chunk) {
            return chunk;
        }
        let copy = RawChunk::heap(chunk.bytes().to_vec());
        self.heap_bytes += copy.heap_bytes();
        self.stats.spilled += 1;
        self.recycle(chunk);
        copy
    }
}
