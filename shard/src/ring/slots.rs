//! What the driver keeps for each socket: the memory of what is in the kernel's hands, what has arrived,
//! and whom to wake.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    task::{Context, Waker},
};

use socket2::SockAddr;

use super::{operations::Message, socket::RawChunk};

/// Entries by index, with a free list.
pub(super) struct Slots<T> {
    entries: Vec<Option<Box<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots {
            entries: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let value = Some(Box::new(value));
        if let Some(index) = self.free.pop() {
            if let Some(place) = self.entries.get_mut(index as usize) {
                *place = value;
            }
            return index;
        }
        self.entries.push(value);
        self.entries.len() as u32 - 1
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Box<T>> {
        let value = self.entries.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(value)
    }

    pub(super) fn for_each_indexed(&mut self, mut f: impl FnMut(u32, &mut T)) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if let Some(entry) = entry {
                f(index as u32, entry);
            }
        }
    }

    pub(super) fn for_each(&mut self, f: impl FnMut(&mut T)) {
        self.entries
            .iter_mut()
            .flatten()
            .map(|b| &mut **b)
            .for_each(f);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

/// How a stream of bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer has sent all it will.
    Finished,
    /// An error of the system.
    Failed(i32),
}

/// In what pieces a socket receives; see [`receiving`](super::receiving).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    /// Heads, and idle connections: into the group for heads, by one receive that stays armed.
    Small,
    /// Messages: the same, into the group for bodies.
    Medium,
    /// Streams: into the group for bodies, one receive at a time.
    Large,
}

/// The receive that is in the kernel's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    No,
    Yes(Pieces),
    /// One receive into the group for heads, since somebody waits for it.
    Once,
    /// Its cancellation is under way.
    Cancelled,
    /// Not in the kernel's hands: waiting for buffers to come back.
    Starved,
}

/// What is being sent. The memory stays here until the completion.
pub(super) struct Sending {
    pub(super) head: Vec<u8>,
    pub(super) body: Option<RawChunk>,
    /// Bytes sent so far.
    pub(super) offset: usize,
    /// What the entry points at, for a vectored send.
    pub(super) message: Option<Box<Message>>,
    /// Heap bytes accounted for a body that was copied into `head`.
    pub(super) spilled: u64,
    pub(super) started_ns: u64,
    /// A close follows.
    pub(super) is_last: bool,
    /// It was cancelled so that its provided buffer comes back.
    pub(super) relieving: bool,
}

/// Chunks that were received and not read yet, in order. Nearly always there is one or none: the second
/// and later ones have a queue, which goes when it is empty, so that an idle connection keeps no memory
/// for it.
#[derive(Default)]
pub(super) struct Received {
    first: Option<RawChunk>,
    /// Invariant: holds something only if `first` does.
    #[allow(clippy::box_collection)]
    rest: Option<Box<VecDeque<RawChunk>>>,
}

impl Received {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push_back(&mut self, chunk: RawChunk) {
        if self.first.is_none() {
            self.first = Some(chunk);
        } else {
            self.rest.get_or_insert_default().push_back(chunk);
        }
    }

    pub(super) fn push_front(&mut self, chunk: RawChunk) {
        if let Some(second) = self.first.replace(chunk) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<RawChunk> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
        if next.is_none() {
            self.rest = None;
        }
        std::mem::replace(&mut self.first, next)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RawChunk> {
        self.first
            .iter()
            .chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// Takes all of them out, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = RawChunk> + use<> {
        let Received { first, rest } = std::mem::take(self);
        first
            .into_iter()
            .chain(rest.into_iter().flat_map(|rest| *rest))
    }
}

/// A socket as the driver sees it.
pub(super) struct SocketSlot {
    pub(super) fd: OwnedFd,
    pub(super) received: Received,
    pub(super) received_bytes: u32,
    pub(super) end: Option<End>,
    /// When the last data or end arrived.
    pub(super) received_at_ns: u64,
    /// A receive is armed all the time, not only when somebody waits for it.
    pub(super) stays_armed: bool,
    pub(super) pieces: Pieces,
    /// Pieces in a row that the next smaller size would have held.
    pub(super) small_streak: u8,
    /// The kernel said at the last receive that more is waiting.
    pub(super) has_more: bool,
    pub(super) armed: Armed,
    pub(super) reader: Option<Waker>,
    /// The reader waits for data, so it will take what arrives at once.
    pub(super) wants_data: bool,
    pub(super) sending: Option<Box<Sending>>,
    /// Its last send took long: the peer reads slowly.
    pub(super) is_slow: bool,
    pub(super) send_error: Option<i32>,
    pub(super) writer: Option<Waker>,
    pub(super) connecting: Option<Box<SockAddr>>,
    pub(super) connected: Option<i32>,
    /// Operations whose last completion is still to come.
    pub(super) in_flight: u16,
    /// The owner is gone; the slot goes when nothing is in flight.
    pub(super) closing: bool,
}

/// What a socket costs in the driver.
#[cfg(test)]
pub(crate) const SLOT_BYTES: usize = size_of::<SocketSlot>();

impl SocketSlot {
    pub(super) fn new(fd: OwnedFd) -> SocketSlot {
        SocketSlot {
            fd,
            received: Received::default(),
            received_bytes: 0,
            end: None,
            received_at_ns: 0,
            stays_armed: false,
            pieces: Pieces::Small,
            small_streak: 0,
            has_more: false,
            armed: Armed::No,
            reader: None,
            wants_data: false,
            sending: None,
            is_slow: false,
            send_error: None,
            writer: None,
            connecting: None,
            connected: None,
            in_flight: 0,
            closing: false,
        }
    }

    /// Whether the connection may be used for the next exchange: nothing came unasked, nothing is
    /// under way, nothing has failed.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_settled() && self.sending.is_none()
    }

    /// The same, but for a send that may be under way.
    pub(super) fn is_settled(&self) -> bool {
        self.received.is_empty() && self.end.is_none() && self.send_error.is_none()
    }

    /// Whether a send is in flight.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Registers whom to wake when data or an end arrives.
    pub(super) fn register_reader(&mut self, cx: &Context<'_>) {
        register(&mut self.reader, cx);
    }

    /// Registers whom to wake when a send or a connect ends.
    pub(super) fn register_writer(&mut self, cx: &Context<'_>) {
        register(&mut self.writer, cx);
    }
}

/// A listening socket as the driver sees it.
pub(super) struct AcceptorSlot {
    /// `None` once it is closed.
    pub(super) fd: Option<OwnedFd>,
    pub(super) accepted: VecDeque<io::Result<OwnedFd>>,
    pub(super) waker: Option<Waker>,
    /// An accept is in the kernel's hands.
    pub(super) armed: bool,
    /// To be closed at the end of the accept that is armed, and what becomes of the backlog then.
    pub(super) closing: Option<Backlog>,
    /// The owner is gone.
    pub(super) abandoned: bool,
}

/// What becomes of connections that wait in the kernel when a listening socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// They are accepted: nobody else has the socket, so the kernel would reset them.
    Taken,
    /// They stay: another process has the socket as well and accepts them.
    Left,
}

impl AcceptorSlot {
    pub(super) fn new(fd: OwnedFd) -> AcceptorSlot {
        AcceptorSlot {
            fd: Some(fd),
            accepted: VecDeque::new(),
            waker: None,
            armed: false,
            closing: None,
            abandoned: false,
        }
    }

    /// Whether nothing more will be accepted.
    pub(super) fn is_closed(&self) -> bool {
        self.fd.is_none()
    }
}

/// Stores the task's waker, unless it is there already.
pub(super) fn register(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(old) if old.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Goal: chunks come out in order, whichever end they went in by. Method: a queue of numbers beside it.
    #[test]
    fn received_keeps_the_order() {
        let mut received = Received::default();
        let mut twin = VecDeque::new();
        for (i, front) in [false, false, true, false, true, true]
            .into_iter()
            .enumerate()
        {
            let chunk = RawChunk::heap(vec![i as u8]);
            if front {
                received.push_front(chunk);
                twin.push_front(i as u8);
            } else {
                received.push_back(chunk);
                twin.push_back(i as u8);
            }
            assert!(
                received
                    .iter()
                    .map(|c| c.bytes())
                    .eq(twin.iter().map(std::slice::from_ref))
            );
        }
        assert_eq!(
            received.pop_front().unwrap().bytes(),
            [twin.pop_front().unwrap()]
        );
        assert!(
            received
                .drain()
                .map(|c| c.bytes().to_vec())
                .eq(twin.iter().map(|i| vec![*i]))
        );
        assert!(received.is_empty() && received.pop_front().is_none());
    }
}
