//! Streams: the state of each (RFC 9113, 5.1), and where they are kept.
//!
//! The state of the RFC is the product of two simpler ones, how far the message has come that is received,
//! and how far the one that is sent:
//!
//! ```text
//!                 sending: Head, Body    Ended
//! receiving:
//!   Head, Body    open                   half-closed (local)
//!   Ended         half-closed (remote)   closed
//! ```
//!
//! A stream that is idle has no entry yet, and one that is closed none any more; a closed one whose data
//! the application has not consumed keeps its entry until it has, but does not count as a stream.

use super::{
    StreamId,
    flow::{ReceiveWindow, SendWindow},
};

/// How far a message has come on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head, or the final one, is still to come.
    Head,
    /// DATA and trailers may come.
    Body,
    /// END_STREAM has passed.
    Ended,
}

/// The states of RFC 9113, 5.1, that a stream with an entry can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Both sides may send.
    Open,
    /// We have ended.
    HalfClosedLocal,
    /// The peer has ended.
    HalfClosedRemote,
    /// Both have.
    Closed,
}

/// One stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) receiving: Phase,
    pub(super) sending: Phase,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
    /// Bytes of DATA still to come, if `Content-Length` says.
    pub(super) content_left: Option<u64>,
    /// The answer that will be received has no body, whatever its fields say: the request was HEAD.
    pub(super) answer_is_bodiless: bool,
    /// The request was CONNECT, extended or not, and is not refused: there is a tunnel, and no length.
    pub(super) is_connect: bool,
    /// What its head and trailers hold beyond what they were sent as.
    pub(super) expansion: usize,
    /// Whether it waits to send.
    pub(super) wait: Wait,
}

/// Whether a stream waits to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing waits.
    None,
    /// For its own window.
    Window,
    /// In the queue of those that the connection's window will serve.
    Queued,
}

impl Stream {
    pub(super) fn state(&self) -> StreamState {
        match (self.receiving, self.sending) {
            (Phase::Ended, Phase::Ended) => StreamState::Closed,
            (Phase::Ended, _) => StreamState::HalfClosedRemote,
            (_, Phase::Ended) => StreamState::HalfClosedLocal,
            _ => StreamState::Open,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state() == StreamState::Closed
    }

    /// Whether DATA may still come.
    pub(super) fn receives(&self) -> bool {
        self.receiving != Phase::Ended
    }

    /// Whether it has waited for its own window, and that is open.
    pub(super) fn may_queue(&self) -> bool {
        self.wait == Wait::Window && self.send_window.available() > 0
    }
}

/// The streams of a connection, in a slab, found by a sorted index: identifiers only grow, so that a new
/// one goes to its end, and a hundred are found in seven steps.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Slot>,
    /// The first free slot.
    free: Option<u32>,
    index: Vec<(StreamId, u32)>,
    /// Those that are not closed.
    open: usize,
    /// The sum over all entries.
    expansion: usize,
}

#[derive(Debug)]
enum Slot {
    Used(Stream),
    /// And the next free slot.
    Free(Option<u32>),
}

impl Streams {
    /// How many streams count against a limit of concurrent ones.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// What all heads hold beyond what they were sent as.
    pub(super) fn expansion(&self) -> usize {
        self.expansion
    }

    /// A stream has got trailers that hold so much more.
    pub(super) fn expand(&mut self, id: StreamId, expansion: usize) {
        if let Some(stream) = self.get_mut(id) {
            stream.expansion += expansion;
            self.expansion += expansion;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    #[inline]
    fn slot_of(&self, id: StreamId) -> Option<usize> {
        let at = self.index.binary_search_by_key(&id, |entry| entry.0).ok()?;
        Some(self.index.get(at)?.1 as usize)
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        match self.slots.get(self.slot_of(id)?) {
            Some(Slot::Used(stream)) => Some(stream),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let slot = self.slot_of(id)?;
        match self.slots.get_mut(slot) {
            Some(Slot::Used(stream)) => Some(stream),
            _ => None,
        }
    }

    /// Adds a stream whose identifier is above all others.
    pub(super) fn insert(&mut self, stream: Stream) {
        debug_assert!(self.index.last().is_none_or(|last| last.0 < stream.id));
        let id = stream.id;
        self.expansion += stream.expansion;
        let slot = match self.free {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot::Free(None));
                self.slots.len() as u32 - 1
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            if let Slot::Free(next) = *place {
                self.free = next;
            }
            *place = Slot::Used(stream);
        }
        self.index.push((id, slot));
        self.open += 1;
    }

    /// A stream has become closed, and no longer counts.
    pub(super) fn mark_closed(&mut self) {
        debug_assert!(self.open > 0);
        self.open -= 1;
    }

    /// Takes a stream out.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let at = self.index.binary_search_by_key(&id, |entry| entry.0).ok()?;
        let (_, slot) = self.index.remove(at);
        let place = self.slots.get_mut(slot as usize)?;
        let Slot::Used(stream) = core::mem::replace(place, Slot::Free(self.free)) else {
            return None;
        };
        self.free = Some(slot);
        self.expansion -= stream.expansion;
        if !stream.is_closed() {
            self.mark_closed();
        }
        if self.index.is_empty() {
            self.forget_slots();
        }
        Some(stream)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Used(stream) => Some(stream),
            Slot::Free(_) => None,
        })
    }

    /// Identifiers above `id`, in order.
    pub(super) fn above(&self, id: StreamId) -> impl Iterator<Item = StreamId> + '_ {
        let start = self.index.partition_point(|entry| entry.0 <= id);
        let above = self.index.get(start..).unwrap_or_default();
        above.iter().map(|entry| entry.0)
    }

    /// An idle connection keeps room for a few streams only.
    fn forget_slots(&mut self) {
        self.slots.clear();
        self.slots.shrink_to(SLOTS_KEPT);
        self.index.shrink_to(SLOTS_KEPT);
        self.free = None;
    }
}

/// A guess: what most clients have under way.
const SLOTS_KEPT: usize = 16;

/// How a stream came to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// We have reset it: what the peer sent before it knew is to be ignored (RFC 9113, 5.1).
    Reset,
    /// The peer has ended or reset it: it has nothing more to say.
    ByPeer,
}

/// The streams closed last, for telling what is late from what is wrong.
#[derive(Debug, Default)]
pub(super) struct Closed {
    recent: Vec<(StreamId, Closing)>,
    /// Where the next one goes.
    next: usize,
    /// The highest stream that we have reset and is not among the recent ones.
    forgotten_reset: StreamId,
}

/// Closed streams that are remembered: a round trip's worth on a busy connection, a guess.
const RECENT_MAX: usize = 64;

impl Closed {
    pub(super) fn add(&mut self, id: StreamId, closing: Closing) {
        match self.recent.get_mut(self.next) {
            Some(place) => {
                if place.1 == Closing::Reset {
                    self.forgotten_reset = self.forgotten_reset.max(place.0);
                }
                *place = (id, closing);
            }
            None => self.recent.push((id, closing)),
        }
        self.next = (self.next + 1) % RECENT_MAX;
    }

    /// How the stream was closed; `None` if it was never opened, as far as we know.
    pub(super) fn find(&self, id: StreamId) -> Option<Closing> {
        let recent = self.recent.iter().find(|entry| entry.0 == id);
        match recent {
            Some(entry) => Some(entry.1),
            // Perhaps not this one, but leniency towards what is late is owed.
            None if id <= self.forgotten_reset => Some(Closing::Reset),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stream(id: u32) -> Stream {
        Stream {
            id: StreamId::from_number(id),
            receiving: Phase::Head,
            sending: Phase::Head,
            send_window: SendWindow::new(1),
            receive_window: ReceiveWindow::new(1),
            content_left: None,
            answer_is_bodiless: false,
            is_connect: false,
            expansion: 0,
            wait: Wait::None,
        }
    }

    /// Goal: streams are found while they are there, and only then. Method: many come and go, in an order
    /// that leaves holes; a plain list is the model.
    #[test]
    fn slab_agrees_with_a_list() {
        let mut streams = Streams::default();
        let mut model = Vec::new();
        for id in (1..400).step_by(2) {
            streams.insert(stream(id));
            model.push(id);
            if id % 3 == 0 {
                let gone = model.remove(id as usize * 7 % model.len());
                let removed = streams.remove(StreamId::from_number(gone)).unwrap();
                assert_eq!(removed.id.number(), gone);
            }
            for known in 1..=id {
                let found = streams.get(StreamId::from_number(known));
                assert_eq!(found.is_some(), model.contains(&known), "{known} at {id}");
            }
            assert_eq!(streams.open(), model.len());
        }
        let above: Vec<_> = streams
            .above(StreamId::from_number(301))
            .map(StreamId::number)
            .collect();
        let expected: Vec<_> = model.iter().copied().filter(|id| *id > 301).collect();
        assert_eq!(above, expected);
        for id in model {
            streams.remove(StreamId::from_number(id)).unwrap();
        }
        assert!(streams.is_empty());
        assert_eq!(streams.open(), 0);
    }

    /// Goal: the product of the two sides is the RFC's state (RFC 9113, 5.1). Method: all products.
    #[test]
    fn states_of_the_rfc() {
        use Phase::{Body, Ended, Head};
        for (receiving, sending, state) in [
            (Head, Head, StreamState::Open),
            (Body, Head, StreamState::Open),
            (Head, Body, StreamState::Open),
            (Body, Body, StreamState::Open),
            (Ended, Head, StreamState::HalfClosedRemote),
            (Ended, Body, StreamState::HalfClosedRemote),
            (Head, Ended, StreamState::HalfClosedLocal),
            (Body, Ended, StreamState::HalfClosedLocal),
            (Ended, Ended, StreamState::Closed),
        ] {
            let stream = Stream {
                receiving,
                sending,
                ..stream(1)
            };
            assert_eq!(stream.state(), state);
        }
    }

    /// Goal: what is late is told from what is wrong for as long as is promised. Method: as many closed
    /// streams as are remembered, and one more.
    #[test]
    fn closed_streams_are_remembered() {
        let mut closed = Closed::default();
        let id = StreamId::from_number;
        closed.add(id(1), Closing::ByPeer);
        for at in 1..RECENT_MAX as u32 {
            closed.add(id(2 * at + 1), Closing::ByPeer);
        }
        assert_eq!(closed.find(id(1)), Some(Closing::ByPeer));
        closed.add(id(1001), Closing::Reset);
        assert_eq!(closed.find(id(1)), None);
        assert_eq!(closed.find(id(1001)), Some(Closing::Reset));
        for at in 0..RECENT_MAX as u32 {
            closed.add(id(2 * at + 2001), Closing::ByPeer);
        }
        assert_eq!(closed.find(id(1001)), Some(Closing::Reset));
        assert_eq!(closed.find(id(1003)), None);
    }
}
