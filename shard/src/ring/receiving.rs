//! Receiving: which receive is armed, what happens to what arrives, and who waits for a buffer.
//!
//! A piece costs as much as its bytes, or more: 1 MiB in pieces of 8 KiB cost three times as much as in
//! pieces of 64 KiB (measured). So a socket learns from what arrives in what pieces to receive:
//!
//! * Once, on demand, to begin with: a connection that serves a single request never has a receive armed
//!   when it closes, which would have to be cancelled. (Until the socket is told to
//!   [start](Inner::start_receiving), a reset of the peer shows only when it is read.)
//! * [`Small`](Pieces::Small) from then on. A piece that fills its buffer has more behind it → medium.
//! * [`Medium`](Pieces::Medium) for messages of up to a large buffer; the receive stays armed, which saves
//!   arming it for each. A piece that fills its buffer → large.
//! * [`Large`](Pieces::Large) for streams: one receive at a time, so that at most two pieces are held,
//!   which is the back-pressure, and no stream takes all buffers in one go.
//! * [`SMALL_STREAK`] pieces in a row that the next smaller size would have held → that size.

use std::{collections::VecDeque, task::Waker};

use io_uring::cqueue;

use super::{
    driver::Inner,
    operations::{self, BODIES, HEADS, Kind, Token},
    slots::{Armed, End, Pieces, SocketSlot},
    socket::RawChunk,
};

/// How many pieces in a row must be small before smaller buffers are used: a few, since changing costs a
/// cancellation, and a stream ends with a small piece.
const SMALL_STREAK: u8 = 8;

impl Inner {
    /// Receives from now on, whether or not somebody waits.
    pub(super) fn start_receiving(&mut self, index: u32) {
        if let Some(slot) = self.sockets.get_mut(index) {
            slot.stays_armed = true;
        }
        self.arm(index);
    }

    /// Somebody waits for data.
    pub(super) fn receive_on_demand(&mut self, index: u32) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        if slot.stays_armed || slot.armed != Armed::No || slot.end.is_some() {
            return;
        }
        slot.armed = Armed::Once;
        slot.in_flight += 1;
        let operation = operations::receive_once(&slot.fd, index, HEADS, false);
        self.ring.push_detached(&operation);
    }

    /// This many bytes are known to come.
    pub(super) fn expect(&mut self, index: u32, bytes: u64) {
        let (small, medium) = (self.heads.size() as u64, self.bodies.size() as u64);
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        let pieces = match bytes {
            _ if bytes > medium => Pieces::Large,
            // A message that a medium buffer holds comes in one piece, its head included.
            _ if bytes > small && slot.pieces == Pieces::Small => Pieces::Medium,
            _ => return,
        };
        self.set_pieces(index, pieces);
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
        kind: Kind,
        result: i32,
        flags: u32,
        now_ns: u64,
        wakes: &mut Vec<Waker>,
    ) {
        let group = kind.group();
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
                slot.has_more = cqueue::sock_nonempty(flags);
                let waits = slot.wants_data;
                self.learn(index, result as usize);
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
                    self.receive_on_demand(index);
                }
            }
        }
    }

    /// Queues a chunk, and keeps the connection's and the shard's budgets.
    fn queue_received(&mut self, index: u32, chunk: RawChunk, reader_waits: bool) {
        // Who waits for room in the budget reads as soon as there is some, and is not to be cut for the others.
        let is_read = reader_waits || self.heap_waiters.iter().any(|(_, of)| *of == index);
        let chunk = if is_read {
            chunk
        } else {
            self.spill_if_scarce(chunk)
        };
        let over_budget = self.heap_bytes > self.limits.buffers;
        let Some(slot) = self.sockets.get_mut(index) else {
            self.recycle(chunk);
            return;
        };
        if over_budget && !is_read {
            slot.end = Some(End::Failed(libc::ENOBUFS));
            self.recycle(chunk);
            return;
        }
        slot.received_bytes += chunk.len() as u32;
        slot.received.push_back(chunk);
        slot.wants_data = false;
        let stays_armed = matches!(slot.armed, Armed::Yes(Pieces::Small | Pieces::Medium));
        // A reader that waits takes it at once.
        if stays_armed && !reader_waits && slot.received_bytes >= self.limits.connection_buffer {
            self.cancel_receive(index);
        }
    }

    /// Learns from a piece of `len` bytes in what pieces to receive.
    fn learn(&mut self, index: u32, len: usize) {
        let (small, medium) = (self.heads.size(), self.bodies.size());
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        let (fits_smaller, fills, smaller, larger) = match slot.pieces {
            Pieces::Small => (false, len >= small, Pieces::Small, Pieces::Medium),
            Pieces::Medium => (len < small, len >= medium, Pieces::Small, Pieces::Large),
            Pieces::Large => (len < medium, false, Pieces::Medium, Pieces::Large),
        };
        slot.small_streak = if fits_smaller {
            slot.small_streak + 1
        } else {
            0
        };
        if fills {
            self.set_pieces(index, larger);
        } else if slot.small_streak >= SMALL_STREAK {
            self.set_pieces(index, smaller);
        }
    }

    /// A receive that stays armed in other pieces is ended; the next is armed when it has ended.
    fn set_pieces(&mut self, index: u32, pieces: Pieces) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        slot.small_streak = 0;
        slot.pieces = pieces;
        match slot.armed {
            // It ends by itself.
            Armed::Yes(Pieces::Large) | Armed::Once => {}
            Armed::Yes(armed) if armed != pieces => self.cancel_receive(index),
            _ => {}
        }
    }

    /// Arms the receive that is due, if none is in the kernel's hands.
    fn arm(&mut self, index: u32) {
        let budget = self.limits.connection_buffer;
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        if slot.armed != Armed::No || !slot.stays_armed || slot.closing || slot.end.is_some() {
            return;
        }
        let operation = match slot.pieces {
            Pieces::Small | Pieces::Medium if slot.received_bytes >= budget => return,
            Pieces::Large if !slot.received.is_empty() => return,
            Pieces::Small => operations::receive_all(&slot.fd, index, HEADS),
            Pieces::Medium => operations::receive_all(&slot.fd, index, BODIES),
            Pieces::Large => operations::receive_once(&slot.fd, index, BODIES, !slot.has_more),
        };
        slot.armed = Armed::Yes(slot.pieces);
        slot.in_flight += 1;
        self.ring.push_detached(&operation);
    }

    fn cancel_receive(&mut self, index: u32) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        let Some(kind) = slot.armed_kind() else {
            return;
        };
        slot.armed = Armed::Cancelled;
        self.ring
            .push_detached(&operations::cancel(Token { kind, slot: index }));
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
        self.spill_to_heap(chunk)
    }

    /// Copies a chunk to the heap and gives its buffer back.
    pub(super) fn spill_to_heap(&mut self, chunk: RawChunk) -> RawChunk {
        let copy = RawChunk::heap(chunk.bytes().to_vec());
        self.heap_bytes += copy.heap_bytes();
        self.stats.spilled += 1;
        self.recycle(chunk);
        copy
    }
}

impl SocketSlot {
    /// The kind of the receive that is armed.
    pub(super) fn armed_kind(&self) -> Option<Kind> {
        match self.armed {
            Armed::Yes(Pieces::Small) => Some(Kind::ReceiveSmall),
            Armed::Yes(Pieces::Medium) => Some(Kind::ReceiveMedium),
            Armed::Yes(Pieces::Large) => Some(Kind::ReceiveLarge),
            Armed::Once => Some(Kind::ReceiveFirst),
            Armed::No | Armed::Cancelled | Armed::Starved => None,
        }
    }
}
