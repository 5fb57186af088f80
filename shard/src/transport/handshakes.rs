//! How many handshakes with clients go on at once on a shard.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Handshakes with clients at once, on one shard. Each may hold [`HANDSHAKE_BYTES_MAX`] of what it was
/// sent, 64 MiB in all, and twice that where clients show certificates. A core makes about 2,500 a
/// second, so this is the work of 0.4 seconds: more clients than a round trip of theirs brings at that
/// pace.
///
/// [`HANDSHAKE_BYTES_MAX`]: super::handshake::HANDSHAKE_BYTES_MAX
pub(super) const HANDSHAKES_MAX: usize = 1024;

/// The handshakes that go on. Beyond the limit the oldest is given up: one that makes headway is soon
/// through, so the oldest is a stalled one, and a flood of those evicts itself. (Refusing the newest
/// would let a thousand stalled connections keep everybody out.)
#[derive(Default)]
pub(crate) struct Handshakes {
    next: Cell<u64>,
    /// By age.
    active: RefCell<BTreeMap<u64, Rc<Turn>>>,
}

#[derive(Default)]
struct Turn {
    is_evicted: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// A handshake that is counted as long as this lives.
pub(super) struct Counted<'a> {
    all: &'a Handshakes,
    age: u64,
    turn: Rc<Turn>,
}

impl Handshakes {
    /// Counts a handshake; gives up the oldest if there are too many.
    pub(super) fn begin(&self) -> Counted<'_> {
        let age = self.next.replace(self.next.get() + 1);
        let turn = Rc::new(Turn::default());
        let mut active = self.active.borrow_mut();
        active.insert(age, turn.clone());
        let evicted = match active.len() > HANDSHAKES_MAX {
            true => active.pop_first(),
            false => None,
        };
        drop(active);
        if let Some((_, oldest)) = evicted {
            oldest.is_evicted.set(true);
            oldest.waker.take().into_iter().for_each(Waker::wake);
        }
        Counted {
            all: self,
            age,
            turn,
        }
    }

    /// How many go on.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.active.borrow().len()
    }
}

impl Counted<'_> {
    /// Resolves when the handshake is given up.
    pub(super) fn poll_evicted(&self, cx: &Context<'_>) -> Poll<()> {
        if self.turn.is_evicted.get() {
            return Poll::Ready(());
        }
        self.turn.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.all.active.borrow_mut().remove(&self.age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: handshakes have a limit, and the oldest gives way. Method: as many as the limit, and one above.
    #[test]
    fn the_oldest_gives_way() {
        let all = Handshakes::default();
        let cx = Context::from_waker(Waker::noop());
        let mut begun: Vec<_> = (0..HANDSHAKES_MAX).map(|_| all.begin()).collect();
        assert!(begun.iter().all(|turn| turn.poll_evicted(&cx).is_pending()));
        begun.push(all.begin());
        let evicted: Vec<_> = begun
            .iter()
            .map(|turn| turn.poll_evicted(&cx).is_ready())
            .collect();
        assert_eq!(evicted.iter().position(|evicted| *evicted), Some(0));
        assert_eq!(evicted.iter().filter(|evicted| **evicted).count(), 1);
        assert_eq!(all.len(), HANDSHAKES_MAX);
        drop(begun);
        assert_eq!(all.len(), 0);
    }
}
