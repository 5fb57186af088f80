//! Deadlines: a hashed wheel whose entries move lazily.
//!
//! A connection has one deadline, which is pushed forward at almost every step of a request and almost
//! never reached. So setting it later only writes a number; the wheel notices when the old time comes,
//! and queues it again. Resolution is one tick (4.2 ms), always late, never early.

use std::task::Waker;

use tidegate_core::sketch;

/// log2 of a tick in nanoseconds.
const TICK_BITS: u32 = 22;
/// Slots of the wheel: a horizon of 4.3 s. Later deadlines are looked at once per horizon, which for
/// 10,000 idle connections is 2,300 looks a second: nothing.
const SLOTS: u64 = 1024;
/// No deadline.
const NEVER: u64 = u64::MAX;
/// Not in a slot.
const UNQUEUED: u64 = 0;

/// A timer's index in the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(u32);

#[derive(Debug)]
struct Entry {
    deadline_ns: u64,
    /// The tick of the slot it lies in. It may lie in a later slot as well: that one is stale.
    queued_tick: u64,
    waker: Option<Waker>,
}

/// The wheel of one shard.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Vec<Vec<TimerId>>,
    /// One bit per slot that holds something, to find the next without walking.
    occupied: [u64; (SLOTS / 64) as usize],
    /// The last tick that was served.
    tick: u64,
    entries: Vec<Entry>,
    free: Vec<TimerId>,
    /// How late timers were served, counted by [`sketch`].
    lag: [u64; sketch::BUCKETS],
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; (SLOTS / 64) as usize],
            tick: 0,
            entries: Vec::new(),
            free: Vec::new(),
            lag: [0; sketch::BUCKETS],
        }
    }

    /// A new timer without deadline.
    pub(crate) fn insert(&mut self) -> TimerId {
        let entry = Entry {
            deadline_ns: NEVER,
            queued_tick: UNQUEUED,
            waker: None,
        };
        if let Some(id) = self.free.pop() {
            if let Some(place) = self.entries.get_mut(id.0 as usize) {
                *place = entry;
            }
            return id;
        }
        self.entries.push(entry);
        TimerId(self.entries.len() as u32 - 1)
    }

    /// Frees a timer. What lies of it in slots is stale, and harmless to the next owner of the id: it
    /// is looked at once and found not due.
    pub(crate) fn remove(&mut self, id: TimerId) -> Option<Waker> {
        let entry = self.entries.get_mut(id.0 as usize)?;
        entry.deadline_ns = NEVER;
        entry.queued_tick = UNQUEUED;
        let waker = entry.waker.take();
        self.free.push(id);
        waker
    }

    /// Moves the deadline; `None` takes it away.
    pub(crate) fn set(&mut self, id: TimerId, deadline_ns: Option<u64>) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else {
            return;
        };
        entry.deadline_ns = deadline_ns.unwrap_or(NEVER);
        if entry.deadline_ns == NEVER {
            return;
        }
        let tick = slot_tick(entry.deadline_ns, self.tick);
        if entry.queued_tick != UNQUEUED && entry.queued_tick <= tick {
            return;
        }
        entry.queued_tick = tick;
        self.queue(id, tick);
    }

    /// Whether the deadline has passed.
    pub(crate) fn expired(&self, id: TimerId, now_ns: u64) -> bool {
        self.entries
            .get(id.0 as usize)
            .is_some_and(|e| e.deadline_ns <= now_ns)
    }

    /// Whom to wake when the deadline passes.
    pub(crate) fn register(&mut self, id: TimerId, waker: &Waker) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else {
            return;
        };
        match &entry.waker {
            Some(old) if old.will_wake(waker) => {}
            _ => entry.waker = Some(waker.clone()),
        }
    }

    /// Serves every tick up to `now_ns`; the wakers of what is due go to `wakes`.
    pub(crate) fn advance(&mut self, now_ns: u64, wakes: &mut Vec<Waker>) {
        let target = now_ns >> TICK_BITS;
        // After a long sleep one round over the wheel sees everything.
        let first = (self.tick + 1).max(target.saturating_sub(SLOTS - 1));
        for tick in first..=target {
            let index = (tick % SLOTS) as usize;
            let Some(word) = self.occupied.get_mut(index / 64) else {
                continue;
            };
            if *word & (1 << (index % 64)) == 0 {
                continue;
            }
            *word &= !(1 << (index % 64));
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            let mut due = std::mem::take(slot);
            // `tick` so that what is queued again lands in a slot still ahead.
            self.tick = tick;
            due.drain(..).for_each(|id| self.serve(id, now_ns, wakes));
            if let Some(slot) = self.slots.get_mut(index)
                && slot.is_empty()
            {
                *slot = due;
            }
        }
        self.tick = self.tick.max(target);
    }

    /// How late timers were served so far, by [`sketch`].
    pub(crate) fn lag(&self) -> &[u64; sketch::BUCKETS] {
        &self.lag
    }

    /// How long until the next slot that holds something, if any does.
    pub(crate) fn next_due_in_ns(&self, now_ns: u64) -> Option<u64> {
        let start = self.tick + 1;
        let mut offset = 0;
        while offset < SLOTS {
            let index = ((start + offset) % SLOTS) as usize;
            let word = self.occupied.get(index / 64)? >> (index % 64);
            if word != 0 {
                let tick = start + offset + u64::from(word.trailing_zeros());
                return Some((tick << TICK_BITS).saturating_sub(now_ns));
            }
            offset += 64 - (index as u64 % 64);
        }
        None
    }

    fn serve(&mut self, id: TimerId, now_ns: u64, wakes: &mut Vec<Waker>) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else {
            return;
        };
        if entry.queued_tick == UNQUEUED || entry.queued_tick > self.tick {
            return;
        }
        entry.queued_tick = UNQUEUED;
        if entry.deadline_ns <= now_ns {
            wakes.extend(entry.waker.take());
            let late_ns = now_ns - entry.deadline_ns;
            if let Some(count) = self.lag.get_mut(sketch::bucket(late_ns)) {
                *count += 1;
            }
        } else if entry.deadline_ns != NEVER {
            let tick = slot_tick(entry.deadline_ns, self.tick);
            entry.queued_tick = tick;
            self.queue(id, tick);
        }
    }

    fn queue(&mut self, id: TimerId, tick: u64) {
        let index = (tick % SLOTS) as usize;
        if let (Some(slot), Some(word)) =
            (self.slots.get_mut(index), self.occupied.get_mut(index / 64))
        {
            slot.push(id);
            *word |= 1 << (index % 64);
        }
    }
}

/// The tick at which to look at a deadline: the first that begins after it, within the horizon.
fn slot_tick(deadline_ns: u64, now_tick: u64) -> u64 {
    ((deadline_ns >> TICK_BITS) + 1).clamp(now_tick + 1, now_tick + SLOTS - 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        task::Wake,
    };

    use super::*;

    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn fire(wheel: &mut Wheel, now_ns: u64) {
        let mut wakes = Vec::new();
        wheel.advance(now_ns, &mut wakes);
        wakes.into_iter().for_each(Waker::wake);
    }

    const MS: u64 = 1_000_000;

    /// Goal: never early, at most a tick late, however far away. Method: deadlines from 1 ms to a
    /// minute, time in steps of 1 ms.
    #[test]
    fn fires_in_time() {
        for after_ms in [1, 5, 100, 4_000, 4_300, 5_000, 60_000] {
            let count = Arc::new(Count(AtomicU64::new(0)));
            let mut wheel = Wheel::new();
            let id = wheel.insert();
            wheel.set(id, Some(after_ms * MS));
            wheel.register(id, &count.clone().into());
            let fired_ms = (0..=after_ms + 20).find(|ms| {
                fire(&mut wheel, ms * MS);
                count.0.load(Ordering::Relaxed) > 0
            });
            let fired_ms = fired_ms.unwrap();
            assert!(
                (after_ms..=after_ms + 10).contains(&fired_ms),
                "{after_ms}: {fired_ms}"
            );
            assert!(wheel.expired(id, fired_ms * MS));
            assert_eq!(wheel.lag().iter().sum::<u64>(), 1);
        }
    }

    /// Goal: pushing a deadline forward costs no entry, and moving it back works. Method: count what
    /// lies in the slots.
    #[test]
    fn moves_lazily() {
        let count = Arc::new(Count(AtomicU64::new(0)));
        let mut wheel = Wheel::new();
        let id = wheel.insert();
        (1..1000).for_each(|i| wheel.set(id, Some(i * MS)));
        assert_eq!(wheel.slots.iter().map(Vec::len).sum::<usize>(), 1);
        wheel.register(id, &count.clone().into());
        fire(&mut wheel, 500 * MS);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        wheel.set(id, Some(510 * MS));
        fire(&mut wheel, 520 * MS);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        wheel.set(id, None);
        fire(&mut wheel, 100_000 * MS);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    /// Goal: the loop sleeps neither too long nor for nothing. Method: bounds of the next look.
    #[test]
    fn tells_how_long_to_sleep() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.next_due_in_ns(0), None);
        let id = wheel.insert();
        wheel.set(id, Some(100 * MS));
        let sleep = wheel.next_due_in_ns(0).unwrap();
        assert!((100 * MS..106 * MS).contains(&sleep), "{sleep}");
        wheel.set(id, Some(3_600_000 * MS));
        fire(&mut wheel, 200 * MS);
        assert!(wheel.next_due_in_ns(200 * MS).unwrap() <= 4_400 * MS);
    }
}
