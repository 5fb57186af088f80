//! What has come of a request's body, kept as long as the request may be sent again, or for those who get a copy of it.
//!
//! Bytes are kept as they came, framing included. They are bounded by request and by shard, and given back as soon as
//! an answer begins, or the bound is passed: from there on there is no other try. What is kept for copies is given back
//! with the last of them.

use std::{
    cell::{Cell, Ref, RefCell},
    rc::Rc,
};

use tidegate_codecs::http1::BodyTracker;

use crate::{local::Local, ring::Chunk};

/// Bodies that are kept may take up this part of `limits.buffers`: the rest is for what is under way.
const SHARD_PART: u64 = 4;

/// The beginning of a body.
pub(super) struct Replay {
    local: Rc<Local>,
    /// Before its first byte.
    start: BodyTracker,
    /// Bytes that are kept of it, at most.
    bytes_max: usize,
    /// Bytes that a shard keeps of all, at most.
    shard_bytes_max: u64,
    bytes: RefCell<Vec<u8>>,
    /// What of `bytes` counts as kept: its capacity.
    counted: Cell<u64>,
    /// Nothing is missing from its beginning on.
    is_kept: Cell<bool>,
    /// It has come to its end.
    is_whole: Cell<bool>,
}

impl Replay {
    pub(super) fn new(
        local: &Rc<Local>,
        start: BodyTracker,
        bytes_max: usize,
        buffers: u64,
    ) -> Rc<Replay> {
        Rc::new(Replay {
            local: local.clone(),
            start,
            bytes_max,
            shard_bytes_max: buffers / SHARD_PART,
            bytes: RefCell::default(),
            counted: Cell::new(0),
            is_kept: Cell::new(true),
            is_whole: Cell::new(false),
        })
    }

    /// Keeps what follows, for another try; with it, the body may have come to its end.
    pub(super) fn keep(&self, piece: &[u8], is_whole: bool) {
        let was_kept = self.is_kept.get();
        self.keep_for_copies(piece, is_whole);
        if was_kept && !self.is_kept.get() {
            self.local.counters().replay_overflows.add(1);
        }
    }

    /// The same for copies, whose loss is counted with them.
    pub(super) fn keep_for_copies(&self, piece: &[u8], is_whole: bool) {
        if !self.is_kept.get() {
            return;
        }
        if !self.grow(piece.len()) {
            return self.forget();
        }
        self.bytes.borrow_mut().extend_from_slice(piece);
        self.is_whole.set(is_whole);
    }

    /// Whether the request can be sent again with it.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept.get()
    }

    /// All of it, framing included; `None` while it is not all there.
    pub(super) fn whole(&self) -> Option<Ref<'_, Vec<u8>>> {
        let is_there = self.is_kept.get() && self.is_whole.get();
        is_there.then(|| self.bytes.borrow())
    }

    /// The same once more, for a try beside the one that goes on.
    pub(super) fn copy(&self) -> Option<Chunk> {
        self.whole().map(|bytes| self.chunk(bytes.clone()))
    }

    /// How a body is followed from its first byte.
    pub(super) fn start(&self) -> BodyTracker {
        self.start.clone()
    }

    /// Hands over what is kept, with `rest` behind it, to be kept again as it is sent again.
    pub(super) fn rewind(&self, rest: &[u8]) -> Chunk {
        let mut bytes = self.take();
        bytes.extend_from_slice(rest);
        self.chunk(bytes)
    }

    fn take(&self) -> Vec<u8> {
        self.is_whole.set(false);
        self.count(0);
        self.bytes.take()
    }

    /// Bytes as if they were received.
    fn chunk(&self, bytes: Vec<u8>) -> Chunk {
        Chunk::from_vec(&self.local.driver, bytes)
    }

    /// Keeps nothing any more.
    pub(super) fn forget(&self) {
        self.is_kept.set(false);
        drop(self.take());
    }

    /// Makes room for so many more bytes, if there may be: twice as much each time, but never more than the limit.
    fn grow(&self, more: usize) -> bool {
        let mut bytes = self.bytes.borrow_mut();
        let len = bytes.len() + more;
        if len <= bytes.capacity() {
            return true;
        }
        let capacity = len.next_power_of_two().min(self.bytes_max);
        let others = self.local.counters().replay_bytes.get() - self.counted.get();
        let has_room = others + capacity as u64 <= self.shard_bytes_max;
        if len > capacity || !has_room || self.local.driver.is_heap_short() {
            return false;
        }
        let more = capacity - bytes.len();
        bytes.reserve_exact(more);
        self.count(bytes.capacity() as u64);
        true
    }

    fn count(&self, bytes: u64) {
        let before = self.counted.replace(bytes);
        let (driver, gauge) = (&self.local.driver, &self.local.counters().replay_bytes);
        match bytes.checked_sub(before) {
            Some(more) => {
                driver.hold(more);
                gauge.add(more);
            }
            None => {
                driver.release(before - bytes);
                gauge.sub(before - bytes);
            }
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.count(0);
    }
}
