//! Which operation belongs to which socket, where its memory lives, and whom to wake.
//!
//! No waker is called, and no value of the data path dropped, while the inner state is borrowed: either
//! may come back into the driver.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use io_uring::{cqueue, types::Timespec};
use socket2::SockRef;
use tidegate_core::{config::model, sketch};

use super::{
    Deadline, Ring, Wait,
    buffers::BufferGroup,
    operations::{self, BODIES, HEADS, Kind, Token},
    slots::{AcceptorSlot, Sending, Slots, SocketSlot},
    socket::RawChunk,
};
use crate::timer::Wheel;

/// The longest sleep without any deadline: a bound on how long a lost wake-up could go unnoticed.
const SLEEP_MAX_NS: u64 = 1_000_000_000;
/// No alarm is set.
const NO_ALARM: u64 = u64::MAX;
/// Write buffers kept for reuse. More than are in flight at once on a busy shard.
pub(super) const SPARE_BUFFERS_MAX: usize = 512;
/// A write buffer that grew beyond this is freed rather than kept.
const SPARE_BUFFER_BYTES_MAX: usize = 16 << 10;

/// Numbers for the shard's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DriverStats {
    pub(crate) turns: u64,
    pub(crate) busy_ns: u64,
    pub(crate) longest_turn_ns: u64,
    pub(crate) enters: u64,
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) overflows: u64,
    pub(crate) starved: u64,
    pub(crate) spilled: u64,
    pub(crate) heads_free: u64,
    pub(crate) bodies_free: u64,
    pub(crate) heap_bytes: u64,
}

/// The ring of a shard with everything on it. One per thread, shared by `Rc`.
pub(crate) struct Driver {
    inner: RefCell<Inner>,
    wheel: RefCell<Wheel>,
    origin: Instant,
    /// Monotonic time of this turn's completions, since `origin`.
    now_ns: Cell<u64>,
    /// A task became runnable by other means than a completion: do not sleep.
    runnable: Cell<bool>,
    busy_poll: Duration,
    /// Kept to reuse its memory.
    wakes: Cell<Vec<Waker>>,
}

impl Driver {
    /// Sets up ring and buffers on the calling thread, which must be the only one to use them.
    pub(crate) fn new(
        sizes: &model::Ring,
        limits: &model::Limits,
        wake: Arc<OwnedFd>,
    ) -> io::Result<Rc<Driver>> {
        let mut ring = Ring::new(sizes)?;
        let heads = BufferGroup::register(
            ring.io(),
            HEADS,
            sizes.head_buffers,
            sizes.head_buffer_bytes,
        )?;
        let bodies = BufferGroup::register(
            ring.io(),
            BODIES,
            sizes.body_buffers,
            sizes.body_buffer_bytes,
        )?;
        let driver = Rc::new(Driver {
            inner: RefCell::new(Inner {
                ring,
                heads,
                bodies,
                sockets: Slots::default(),
                acceptors: Slots::default(),
                starved: [VecDeque::new(), VecDeque::new()],
                spare: Vec::new(),
                spare_sendings: Vec::new(),
                heap_bytes: 0,
                limits: *limits,
                inbox: Inbox {
                    fd: wake,
                    buffer: Box::new([0; 8]),
                    rung: false,
                    waker: None,
                },
                now_ns: 0,
                cut: Vec::new(),
                heap_waiters: Vec::new(),
                relieved_at_ns: 0,
                alarm_at_ns: NO_ALARM,
                alarm_span: Box::new(Timespec::new()),
                stats: DriverStats::default(),
            }),
            wheel: RefCell::new(Wheel::new()),
            origin: Instant::now(),
            now_ns: Cell::new(0),
            runnable: Cell::new(true),
            busy_poll: sizes.busy_poll,
            wakes: Cell::new(Vec::new()),
        });
        driver.inner.borrow_mut().listen_to_inbox();
        Ok(driver)
    }

    /// One turn: submit, sleep if nothing is runnable, reap, wake.
    pub(crate) fn turn(&self) -> io::Result<()> {
        let began_ns = self.now_ns.get();
        let before_ns = self.clock_ns();
        let wait = self.wait(before_ns);
        let mut wakes = self.wakes.take();
        let mut inner = self.inner.borrow_mut();
        inner.heads.publish();
        inner.bodies.publish();
        inner.enter(wait, self.busy_poll)?;
        let now_ns = self.clock_ns();
        self.now_ns.set(now_ns);
        inner.now_ns = now_ns;
        while let Some(completion) = inner.ring.reap() {
            inner.stats.completed += 1;
            inner.complete(&completion, now_ns, &mut wakes);
        }
        inner.feed_starved();
        inner.relieve_stalled();
        wakes.append(&mut inner.cut);
        if !inner.is_heap_short() {
            wakes.extend(inner.heap_waiters.drain(..).map(|(waker, _)| waker));
        }
        let turn_ns = before_ns.saturating_sub(began_ns);
        inner.stats.turns += 1;
        inner.stats.busy_ns += turn_ns;
        inner.stats.longest_turn_ns = inner.stats.longest_turn_ns.max(turn_ns);
        drop(inner);
        self.wheel.borrow_mut().advance(now_ns, &mut wakes);
        wakes.drain(..).for_each(Waker::wake);
        self.wakes.set(wakes);
        Ok(())
    }

    /// Monotonic time of this turn, in nanoseconds: when its completions were reaped.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// Monotonic time now, on the same scale; 20 ns dearer.
    pub(crate) fn clock_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// A task was made runnable by a task: the next turn must not sleep.
    pub(crate) fn mark_runnable(&self) {
        self.runnable.set(true);
    }

    /// An empty write buffer, used before if possible. It comes back by being sent.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.inner.borrow_mut().spare.pop().unwrap_or_default()
    }

    /// Takes a write buffer back that was not sent.
    pub(crate) fn keep_buffer(&self, buffer: Vec<u8>) {
        self.inner.borrow_mut().keep(buffer);
    }

    /// Counts `bytes` of heap that a connection holds against the shard's budget.
    pub(crate) fn hold(&self, bytes: u64) {
        self.inner.borrow_mut().account_heap(bytes);
    }

    /// They are held no longer.
    pub(crate) fn release(&self, bytes: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.heap_bytes = inner.heap_bytes.saturating_sub(bytes);
    }

    /// Waits until the shard's budget has room for a large buffer on the heap; for the reader of the socket in this
    /// place.
    pub(super) fn poll_heap(&self, cx: &Context<'_>, index: u32) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if !inner.is_heap_short() {
            return Poll::Ready(());
        }
        let waits = |(waker, _): &(Waker, u32)| waker.will_wake(cx.waker());
        if !inner.heap_waiters.iter().any(waits) {
            inner.heap_waiters.push((cx.waker().clone(), index));
        }
        Poll::Pending
    }

    /// Whether the shard's budget has no room for a large buffer on the heap.
    pub(crate) fn is_heap_short(&self) -> bool {
        self.inner.borrow().is_heap_short()
    }

    /// Wakes every task that waits for data, so that it looks at what else has changed (a drain).
    pub(crate) fn wake_readers(&self) {
        let mut wakes = Vec::new();
        self.inner
            .borrow_mut()
            .sockets
            .for_each(|slot| wakes.extend(slot.reader.take()));
        wakes.into_iter().for_each(Waker::wake);
        self.mark_runnable();
    }

    /// Wakes the reader of the socket in this place.
    pub(crate) fn wake_reader(&self, index: u32) {
        let mut inner = self.inner.borrow_mut();
        let waker = inner.sockets.get_mut(index).and_then(|s| s.reader.take());
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
        self.mark_runnable();
    }

    /// See [`Socket::cut`](super::Socket::cut), of the socket in this place.
    pub(crate) fn cut(&self, index: u32) {
        self.inner().with_fd(index, |fd| {
            // An error means that it is gone already.
            let _ = SockRef::from(fd).shutdown(std::net::Shutdown::Both);
        });
    }

    /// The peer's address, of the socket in this place.
    pub(crate) fn peer_address(&self, index: u32) -> Option<SocketAddr> {
        let inner = self.inner();
        let address = inner.with_fd(index, |fd| SockRef::from(fd).peer_addr())?;
        address.ok()?.as_socket()
    }

    /// Resolves when another thread has written to the shard's eventfd.
    pub(crate) async fn rung(&self) {
        std::future::poll_fn(|cx| {
            let inbox = &mut self.inner.borrow_mut().inbox;
            if std::mem::take(&mut inbox.rung) {
                return Poll::Ready(());
            }
            inbox.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// How late timers were served so far, by [`sketch`].
    pub(crate) fn lag(&self) -> [u64; sketch::BUCKETS] {
        *self.wheel.borrow().lag()
    }

    /// Numbers for the shard's counters.
    pub(crate) fn stats(&self) -> DriverStats {
        let inner = self.inner.borrow();
        DriverStats {
            enters: inner.ring.enters,
            submitted: inner.ring.submitted,
            overflows: inner.ring.overflows,
            heads_free: u64::from(inner.heads.free()),
            bodies_free: u64::from(inner.bodies.free()),
            heap_bytes: inner.heap_bytes,
            ..inner.stats
        }
    }

    /// Takes over the limits of a new snapshot.
    pub(crate) fn set_limits(&self, limits: &model::Limits) {
        self.inner.borrow_mut().limits = *limits;
    }

    /// Sockets whose slot is in use, those still closing included.
    #[cfg(test)]
    pub(crate) fn sockets_open(&self) -> usize {
        self.inner.borrow().sockets.len()
    }

    pub(super) fn inner(&self) -> RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    /// A new timer; see [`crate::timer`].
    pub(crate) fn deadline(self: &Rc<Self>) -> Deadline {
        Deadline::new(self.clone(), self.wheel.borrow_mut().insert())
    }

    pub(super) fn wheel(&self) -> RefMut<'_, Wheel> {
        self.wheel.borrow_mut()
    }

    /// Whether there is something to do now; if not, sets the alarm for when there will be.
    fn wait(&self, now_ns: u64) -> Wait {
        if self.inner.borrow().has_fed_waiters() {
            return Wait::No;
        }
        let due_in_ns = self.wheel.borrow().next_due_in_ns(now_ns);
        match due_in_ns {
            _ if self.runnable.replace(false) => Wait::No,
            Some(0) => Wait::No,
            due_in_ns => {
                let sleep_ns = due_in_ns.unwrap_or(SLEEP_MAX_NS).min(SLEEP_MAX_NS);
                self.inner.borrow_mut().set_alarm(now_ns, sleep_ns);
                Wait::ForOne
            }
        }
    }
}

/// The eventfd by which other threads wake the shard.
struct Inbox {
    fd: Arc<OwnedFd>,
    buffer: Box<[u8; 8]>,
    rung: bool,
    waker: Option<Waker>,
}

/// Everything behind the borrow. Field order matters for drop: closing the ring first means that no
/// operation can begin any more when the memory below goes; with `DEFER_TASKRUN` operations run only
/// inside our own enter, so none is running either.
pub(super) struct Inner {
    pub(super) ring: Ring,
    pub(super) heads: BufferGroup,
    pub(super) bodies: BufferGroup,
    pub(super) sockets: Slots<SocketSlot>,
    pub(super) acceptors: Slots<AcceptorSlot>,
    /// Sockets whose receive found no buffer, per group, first come first served.
    pub(super) starved: [VecDeque<u32>; 2],
    spare: Vec<Vec<u8>>,
    /// Boxes of finished sends, for the next ones.
    #[allow(clippy::vec_box)]
    pub(super) spare_sendings: Vec<Box<Sending>>,
    pub(super) heap_bytes: u64,
    pub(super) limits: model::Limits,
    inbox: Inbox,
    /// Time of this turn.
    pub(super) now_ns: u64,
    /// Readers of connections that were cut, to be told at the end of the turn.
    pub(super) cut: Vec<Waker>,
    /// Tasks that wait for room in the shard's budget.
    pub(super) heap_waiters: Vec<(Waker, u32)>,
    /// When stalled sends were last looked for.
    pub(super) relieved_at_ns: u64,
    /// When the alarm that is set goes off.
    alarm_at_ns: u64,
    alarm_span: Box<Timespec>,
    pub(super) stats: DriverStats,
}

impl Inner {
    pub(super) fn open(&mut self, fd: OwnedFd) -> u32 {
        self.sockets.insert(SocketSlot::new(fd))
    }

    /// Half-closes: the peer sees the end of our bytes.
    pub(super) fn shutdown_write(&mut self, index: u32) {
        if let Some(slot) = self.sockets.get(index) {
            // An error means that the connection is gone, which the next receive tells.
            let _ = SockRef::from(&slot.fd).shutdown(std::net::Shutdown::Write);
        }
    }

    pub(super) fn with_fd<T>(&self, index: u32, f: impl FnOnce(&OwnedFd) -> T) -> Option<T> {
        self.sockets.get(index).map(|s| f(&s.fd))
    }

    /// The owner is gone: end what is in flight, then free the slot. Returns wakers to drop outside.
    pub(super) fn close(&mut self, index: u32) -> [Option<Waker>; 2] {
        let Some(slot) = self.sockets.get_mut(index) else {
            return [None, None];
        };
        slot.closing = true;
        let wakers = [slot.reader.take(), slot.writer.take()];
        let cancels = [
            slot.armed_kind(),
            slot.sending.is_some().then_some(Kind::Send),
            (slot.connecting.is_some()).then_some(Kind::Connect),
        ];
        for kind in cancels.into_iter().flatten() {
            let entry = operations::cancel(Token { kind, slot: index });
            self.ring.push_detached(&entry);
        }
        self.free_if_quiet(index);
        wakers
    }

    /// Counts heap bytes that a chunk brings with it; `recycle` takes them off again.
    pub(super) fn account_heap(&mut self, bytes: u64) {
        self.heap_bytes += bytes;
    }

    /// Gives a chunk's memory back.
    pub(super) fn recycle(&mut self, chunk: RawChunk) {
        match chunk.provided() {
            Some((HEADS, buffer)) => self.heads.give_back(buffer),
            Some((_, buffer)) => self.bodies.give_back(buffer),
            None => self.heap_bytes = self.heap_bytes.saturating_sub(chunk.heap_bytes()),
        }
    }

    pub(super) fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    fn enter(&mut self, wait: Wait, busy_poll: Duration) -> io::Result<()> {
        if busy_poll.is_zero() || wait == Wait::No {
            return self.ring.enter(wait);
        }
        let until = Instant::now() + busy_poll;
        loop {
            self.ring.enter(Wait::No)?;
            if self.ring.has_completions() {
                return Ok(());
            }
            if Instant::now() >= until {
                return self.ring.enter(wait);
            }
        }
    }

    /// Makes sure that a sleep ends after `sleep_ns`.
    ///
    /// An alarm stays set over many sleeps. A time-out of each sleep instead would start and cancel a
    /// timer of the kernel each time, which a shard with little to do would pay with every request.
    fn set_alarm(&mut self, now_ns: u64, sleep_ns: u64) {
        let at_ns = now_ns + sleep_ns;
        if self.alarm_at_ns <= at_ns {
            return;
        }
        self.alarm_at_ns = at_ns;
        *self.alarm_span = Timespec::from(Duration::from_nanos(sleep_ns));
        let entry = operations::alarm(&self.alarm_span);
        // SAFETY: the span lives in a box of the driver. The kernel copies it when the entry is submitted
        // (SUBMIT_STABLE), which the enter of this very turn does, and it is not written before the next.
        unsafe { self.ring.push(&entry) };
    }

    fn listen_to_inbox(&mut self) {
        let entry = operations::wake(&self.inbox.fd, &mut self.inbox.buffer);
        // SAFETY: the eight bytes live in a box of the driver, and nobody reads them.
        unsafe { self.ring.push(&entry) };
    }

    /// Handles one completion.
    fn complete(&mut self, completion: &cqueue::Entry, now_ns: u64, wakes: &mut Vec<Waker>) {
        let Some(token) = Token::decode(completion.user_data()) else {
            return;
        };
        let (result, flags) = (completion.result(), completion.flags());
        match token.kind {
            Kind::Accept => self.accept_done(token.slot, result, flags, wakes),
            Kind::ReceiveFirst | Kind::ReceiveSmall | Kind::ReceiveMedium | Kind::ReceiveLarge => {
                self.receive_done(token.slot, token.kind, result, flags, now_ns, wakes);
            }
            Kind::Send => self.send_done(token.slot, result, wakes),
            Kind::Connect => self.connect_done(token.slot, result, wakes),
            Kind::Cancel => {}
            // One that was overtaken by an earlier one says nothing about that.
            Kind::Alarm if now_ns < self.alarm_at_ns => {}
            Kind::Alarm => self.alarm_at_ns = NO_ALARM,
            Kind::Wake => {
                self.inbox.rung = true;
                wakes.extend(self.inbox.waker.take());
                self.listen_to_inbox();
            }
        }
    }

    pub(super) fn is_scarce(&self, chunk: &RawChunk) -> bool {
        match chunk.provided() {
            Some((HEADS, _)) => self.heads.scarce(),
            Some(_) => self.bodies.scarce(),
            None => false,
        }
    }

    /// Whether the shard's budget has no room for another large buffer.
    pub(super) fn heap_is_used_up(&self) -> bool {
        self.heap_bytes + self.bodies.size() as u64 > self.limits.buffers
    }

    /// The same, but one who is alone may always have one: a budget smaller than a buffer must not stop
    /// everything.
    fn is_heap_short(&self) -> bool {
        self.heap_bytes > 0 && self.heap_is_used_up()
    }

    /// Whether tasks wait for room in the budget, and there is some.
    fn has_fed_waiters(&self) -> bool {
        !self.heap_waiters.is_empty() && !self.is_heap_short()
    }

    pub(super) fn has_heap(&self, chunk: &RawChunk) -> bool {
        self.heap_bytes + chunk.len() as u64 <= self.limits.buffers
    }

    pub(super) fn free_if_quiet(&mut self, index: u32) {
        let quiet = self
            .sockets
            .get(index)
            .is_some_and(|s| s.closing && s.in_flight == 0);
        if !quiet {
            return;
        }
        if let Some(mut slot) = self.sockets.remove(index) {
            slot.received.drain().for_each(|c| self.recycle(c));
        }
    }
}
