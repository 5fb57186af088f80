//! Sending and connecting: one send at a time per socket, from memory that its slot owns.

use std::{net::SocketAddr, task::Waker};

use super::{
    driver::Inner,
    operations::{self, Message},
    slots::Sending,
    socket::{Payload, RawChunk},
};

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
        let (mut head, body) = payload.into_parts();
        let mut spilled = 0;
        let body = body.and_then(|body| {
            // Small bodies ride in the same piece; and when buffers are scarce a slow peer must not
            // sit on one.
            if body.len() <= Payload::INLINE_MAX || (self.is_scarce(&body) && self.has_heap(&body))
            {
                if body.len() > Payload::INLINE_MAX {
                    spilled = body.len() as u64;
                    self.heap_bytes += spilled;
                    self.stats.spilled += 1;
                }
                head.extend_from_slice(body.bytes());
                self.recycle(body);
                None
            } else {
                Some(body)
            }
        });
        let Some(slot) = self.sockets.get_mut(index) else {
            self.heap_bytes -= spilled;
            if let Some(body) = body {
                self.recycle(body);
            }
            return;
        };
        slot.in_flight += 1;
        slot.sending = Some(Sending {
            head,
            body,
            offset: 0,
            message: None,
            spilled,
        });
        self.push_send(index);
    }

    pub(super) fn send_done(&mut self, index: u32, result: i32, wakes: &mut Vec<Waker>) {
        let Some(slot) = self.sockets.get_mut(index) else {
            return;
        };
        let Some(sending) = &mut slot.sending else {
            return;
        };
        sending.message = None;
        if let Ok(sent) = usize::try_from(result) {
            sending.offset += sent;
            let total = sending.head.len() + sending.body.as_ref().map_or(0, RawChunk::len);
            if sending.offset < total && !slot.closing && sent > 0 {
                self.push_send(index);
                return;
            }
        } else {
            slot.send_error = Some(-result);
        }
        slot.in_flight -= 1;
        wakes.extend(slot.writer.take());
        if let Some(sending) = slot.sending.take() {
            self.heap_bytes = self.heap_bytes.saturating_sub(sending.spilled);
            self.keep(sending.head);
            sending.body.into_iter().for_each(|c| self.recycle(c));
        }
        self.free_if_quiet(index);
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
            operations::send(&slot.fd, index, head)
        } else if head.is_empty() {
            operations::send(&slot.fd, index, body)
        } else {
            let message = Message::new(head, body);
            operations::send_vectored(&slot.fd, index, sending.message.insert(message))
        };
        // SAFETY: head, body and message live in the slot's `sending` until the completion. The vector
        // and the box may move with the slot; the heap they point at does not, and nobody writes it.
        unsafe { self.ring.push(&entry) };
    }
}
