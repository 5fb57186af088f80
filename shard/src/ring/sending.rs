//! Sending and connecting: one send at a time per socket, from memory that its slot owns.

use std::{net::SocketAddr, task::Waker};

use super::{
    driver::{Inner, SPARE_BUFFERS_MAX},
    operations::{self, Kind, Message, Token},
    slots::{End, Received, Sending, SocketSlot},
    socket::{Payload, RawChunk},
};

/// A send that took longer found no room in the socket: its peer reads slowly.
const SLOW_SEND_NS: u64 = 5_000_000;
/// A send that took this long is relieved of its buffer while others starve. Only a copy is at stake.
const RELIEF_AFTER_NS: u64 = 50_000_000;
/// What took this long is given up for others when the heap is used up, too: a round trip around the
/// world would be through.
const CUT_AFTER_NS: u64 = 250_000_000;
/// Looking at all sends costs their number, so it is done this often at most.
const RELIEF_INTERVAL_NS: u64 = 20_000_000;

impl Inner {
    pub(super) fn connect(&mut self, index: u32, address: SocketAddr) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        let address = slot.connecting.insert(operations::address(address));
        slot.in_flight += 1;
        let entry = operations::connect(&slot.fd, index, address);
        // SAFETY: the address lives in the slot's box until the completion.
        unsafe { self.ring.push(&entry) };
    }

    /// Starts to send; the caller made sure that nothing is in flight.
    pub(super) fn start_send(&mut self, index: u32, payload: Payload) {
        let is_last = payload.is_last();
        let mut spilled = payload.weight();
        self.heap_bytes += spilled;
        let (mut head, mut body) = payload.into_parts();
        // Small bodies ride in the same piece.
        if let Some(small) = body.take_if(|body| body.len() <= Payload::INLINE_MAX) {
            head.extend_from_slice(small.bytes());
            self.recycle(small);
        }
        let is_slow = self.sockets.get(index).is_some_and(|slot| slot.is_slow);
        // When buffers are scarce, a peer that was slow before must not sit on one.
        if let Some(large) =
            body.take_if(|body| is_slow && self.is_scarce(body) && self.has_heap(body))
        {
            spilled += self.spill(large, &mut head);
        }
        let now_ns = self.now_ns;
        let Some(slot) = self.sockets.get_mut(index) else {
            self.heap_bytes -= spilled;
            body.into_iter().for_each(|body| self.recycle(body));
            return;
        };
        slot.in_flight += 1;
        let sending = Sending {
            head,
            body,
            offset: 0,
            message: None,
            spilled,
            started_ns: now_ns,
            is_last,
            relieving: false,
        };
        slot.sending = Some(match self.spare_sendings.pop() {
            Some(mut spare) => {
                *spare = sending;
                spare
            }
            None => Box::new(sending),
        });
        self.push_send(index);
    }

    pub(super) fn send_done(&mut self, index: u32, result: i32, wakes: &mut Vec<Waker>) {
        let now_ns = self.now_ns;
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        let Some(sending) = &mut slot.sending else {
            return;
        };
        sending.message = None;
        sending.offset += usize::try_from(result).unwrap_or(0);
        let total = sending.head.len() + sending.body.as_ref().map_or(0, RawChunk::len);
        let is_short = sending.offset < total && !slot.closing;
        if is_short && sending.relieving {
            if self.relieve(index) {
                return;
            }
        } else if is_short && result > 0 {
            self.push_send(index);
            return;
        } else if result < 0 {
            slot.send_error.get_or_insert(-result);
        }
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        slot.in_flight -= 1;
        wakes.extend(slot.writer.take());
        if let Some(mut sending) = slot.sending.take() {
            slot.is_slow = now_ns.saturating_sub(sending.started_ns) > SLOW_SEND_NS;
            self.heap_bytes = self.heap_bytes.saturating_sub(sending.spilled);
            self.keep(std::mem::take(&mut sending.head));
            sending
                .body
                .take()
                .into_iter()
                .for_each(|c| self.recycle(c));
            if self.spare_sendings.len() < SPARE_BUFFERS_MAX {
                self.spare_sendings.push(sending);
            }
        }
        self.free_if_quiet(index);
    }

    /// While receives starve: takes provided buffers away from sends that do not get on, and from data that
    /// nobody reads.
    ///
    /// A peer that does not read keeps the buffer it is sent from in the kernel's hands. The send is
    /// cancelled; what is left of it goes on from the heap. If the shard's budget is used up it is cut in the
    /// end: a peer that does not read must not keep one that does from being served.
    pub(super) fn relieve_stalled(&mut self) {
        let is_starving = self.starved.iter().any(|queue| !queue.is_empty());
        let is_short = is_starving || !self.heap_waiters.is_empty();
        if !is_short || self.now_ns < self.relieved_at_ns + RELIEF_INTERVAL_NS {
            return;
        }
        self.relieved_at_ns = self.now_ns;
        let before_ns = self.now_ns.saturating_sub(RELIEF_AFTER_NS);
        // What holds heap is looked at only when that is short, and so long as to be cut.
        let heap_before_ns = match self.heap_is_used_up() {
            true => self.now_ns.saturating_sub(CUT_AFTER_NS),
            false => 0,
        };
        let mut sending = Vec::new();
        let mut unread = Vec::new();
        self.sockets.for_each_indexed(|index, slot| {
            if slot.begin_relief(before_ns, heap_before_ns) {
                sending.push(index);
            }
            if slot.has_unread_since(before_ns, heap_before_ns) {
                unread.push(index);
            }
        });
        unread
            .into_iter()
            .for_each(|index| self.relieve_unread(index));
        for slot in sending {
            let kind = Kind::Send;
            self.ring
                .push_detached(&operations::cancel(Token { kind, slot }));
        }
    }

    /// Moves what was received and is not read to the heap; or cuts the connection, as with sends: an answer that
    /// waits for a window which its client keeps shut lies here, at its endpoint's socket.
    fn relieve_unread(&mut self, index: u32) {
        let now_ns = self.now_ns;
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        let stalled_ns = now_ns.saturating_sub(slot.received_at_ns);
        let mut kept = Received::default();
        for chunk in slot.received.drain() {
            let is_movable = chunk.provided().is_some() && self.has_heap(&chunk);
            kept.push_back(if is_movable {
                self.spill_to_heap(chunk)
            } else {
                chunk
            });
        }
        let is_stuck =
            kept.iter().any(|chunk| chunk.provided().is_some()) || self.heap_is_used_up();
        // Who is to read it would, if there was room.
        let is_read = self.heap_waiters.iter().any(|(_, of)| *of == index);
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        if is_stuck && !is_read && stalled_ns >= CUT_AFTER_NS {
            slot.end = Some(End::Failed(libc::ENOBUFS));
            slot.received_bytes = 0;
            let waker = slot.reader.take();
            kept.drain().for_each(|chunk| self.recycle(chunk));
            self.cut.extend(waker);
        } else {
            slot.received = kept;
        }
    }

    /// Goes on with a cancelled send from the heap, or fails it. True if it goes on.
    fn relieve(&mut self, index: u32) -> bool {
        let Some(mut sending) = self.sockets.get_mut(index).and_then(|s| s.sending.take()) else {
            return false;
        };
        sending.relieving = false;
        let stalled_ns = self.now_ns.saturating_sub(sending.started_ns);
        let goes_on = stalled_ns < CUT_AFTER_NS || !self.heap_is_used_up();
        if goes_on && let Some(body) = sending.body.take_if(|body| self.has_heap(body)) {
            sending.spilled += self.spill(body, &mut sending.head);
        }
        if let Some(slot) = self.sockets.get_mut(index) {
            slot.sending = Some(sending);
            if !goes_on {
                slot.send_error.get_or_insert(libc::ENOBUFS);
            }
        }
        if goes_on {
            self.push_send(index);
        }
        goes_on
    }

    /// Moves a body behind the head, on the heap, and gives its buffer back. Returns what it weighs.
    fn spill(&mut self, body: RawChunk, head: &mut Vec<u8>) -> u64 {
        let bytes = body.len() as u64;
        head.extend_from_slice(body.bytes());
        self.recycle(body);
        self.heap_bytes += bytes;
        self.stats.spilled += 1;
        bytes
    }

    pub(super) fn connect_done(&mut self, index: u32, result: i32, wakes: &mut Vec<Waker>) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        slot.connecting = None;
        slot.connected = Some(result);
        slot.in_flight -= 1;
        wakes.extend(slot.writer.take());
        self.free_if_quiet(index);
    }

    /// Pushes what of the current send is left.
    fn push_send(&mut self, index: u32) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        let Some(sending) = &mut slot.sending else {
            return;
        };
        let head = sending.head.get(sending.offset..).unwrap_or_default();
        let body_offset = sending.offset.saturating_sub(sending.head.len());
        let body = sending
            .body
            .as_ref()
            .and_then(|b| b.bytes().get(body_offset..))
            .unwrap_or_default();
        let entry = if body.is_empty() {
            operations::send(&slot.fd, index, head, sending.is_last)
        } else if head.is_empty() {
            operations::send(&slot.fd, index, body, sending.is_last)
        } else {
            let message = Message::new(head, body);
            let last = sending.is_last;
            operations::send_vectored(&slot.fd, index, sending.message.insert(message), last)
        };
        // SAFETY: head, body and message live in the slot's `sending` until the completion. The vector
        // and the box may move with the slot; the heap they point at does not, and nobody writes it.
        unsafe { self.ring.push(&entry) };
    }
}

impl SocketSlot {
    /// Marks a send for relief: one that holds a provided buffer since before `before_ns`, or heap since
    /// before `heap_before_ns`.
    fn begin_relief(&mut self, before_ns: u64, heap_before_ns: u64) -> bool {
        let Some(sending) = &mut self.sending else {
            return false;
        };
        let holds_buffer = sending
            .body
            .as_ref()
            .is_some_and(|body| body.provided().is_some());
        let body_heap = sending.body.as_ref().map_or(0, RawChunk::heap_bytes);
        let before_ns = match (holds_buffer, sending.spilled + body_heap > 0) {
            (true, _) => before_ns,
            (false, true) => heap_before_ns,
            (false, false) => return false,
        };
        if sending.relieving || sending.started_ns >= before_ns {
            return false;
        }
        sending.relieving = true;
        true
    }

    /// Whether provided buffers received before `before_ns`, or heap since `heap_before_ns`, wait for a reader.
    fn has_unread_since(&self, before_ns: u64, heap_before_ns: u64) -> bool {
        let holds = |what: fn(&RawChunk) -> bool| self.received.iter().any(what);
        self.received_at_ns < before_ns && holds(|chunk| chunk.provided().is_some())
            || self.received_at_ns < heap_before_ns && holds(|chunk| chunk.heap_bytes() > 0)
    }
}
