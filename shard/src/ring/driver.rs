//! Which operation belongs to which socket, where its memory lives, and whom to wake.
//!
//! No waker is called, and no value of the data path dropped, while the inner state is borrowed: either
//! may come back into the driver.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use io_uring::cqueue;
use socket2::SockAddr;
use tidegate_core::config::model;

use super::{
    Ring, Wait,
    buffers::BufferGroup,
    operations::{self, BODIES, HEADS, Kind, Message, Token},
    socket::{Payload, RawChunk, ReceiveMode},
};
use crate::timer::{TimerId, Wheel};

/// The longest sleep without any deadline: a bound on how long a lost wake-up could go unnoticed.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Write buffers kept for reuse. More than are in flight at once on a busy shard.
const SPARE_BUFFERS_MAX: usize = 512;
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
                heap_bytes: 0,
                limits: *limits,
                inbox: Inbox {
                    fd: wake,
                    buffer: Box::new([0; 8]),
                    rung: false,
                    waker: None,
                },
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
        let wait = if self.runnable.replace(false) {
            Wait::No
        } else {
            self.sleep(before_ns)
        };
        let mut wakes = self.wakes.take();
        let mut inner = self.inner.borrow_mut();
        inner.heads.publish();
        inner.bodies.publish();
        inner.enter(wait, self.busy_poll)?;
        let now_ns = self.clock_ns();
        self.now_ns.set(now_ns);
        while let Some(completion) = inner.ring.reap() {
            inner.stats.completed += 1;
            inner.complete(&completion, now_ns, &mut wakes);
        }
        inner.feed_starved();
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

    pub(super) fn inner(&self) -> std::cell::RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    /// A new timer; see [`crate::timer`].
    pub(crate) fn deadline(self: &Rc<Self>) -> Deadline {
        Deadline {
            id: self.wheel.borrow_mut().insert(),
            driver: self.clone(),
        }
    }

    fn sleep(&self, now_ns: u64) -> Wait {
        let due = self
            .wheel
            .borrow()
            .next_due_in_ns(now_ns)
            .map(Duration::from_nanos);
        match due {
            Some(due) if due.is_zero() => Wait::No,
            due => Wait::AtMost(due.unwrap_or(SLEEP_MAX).min(SLEEP_MAX)),
        }
    }
}

/// A deadline of one task. It can be moved at any time; moving it forward is a store.
pub(crate) struct Deadline {
    id: TimerId,
    driver: Rc<Driver>,
}

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl Deadline {
    /// Moves the deadline to `at_ns` on the driver's clock.
    pub(crate) fn set(&self, at_ns: u64) {
        self.driver.wheel.borrow_mut().set(self.id, Some(at_ns));
    }

    /// Moves the deadline to `after` from this turn's time.
    pub(crate) fn set_after(&self, after: Duration) {
        self.set(self.driver.now_ns().saturating_add(after.as_nanos() as u64));
    }

    /// Runs `future` until the deadline, which `future` itself may move.
    pub(crate) async fn bound<F: Future>(&self, future: F) -> Result<F::Output, Elapsed> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let mut wheel = self.driver.wheel.borrow_mut();
            if wheel.expired(self.id, self.driver.now_ns()) {
                return Poll::Ready(Err(Elapsed));
            }
            wheel.register(self.id, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Waits for the deadline.
    pub(crate) async fn reached(&self) {
        let _ = self.bound(std::future::pending::<()>()).await;
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let waker = self.driver.wheel.borrow_mut().remove(self.id);
        drop(waker);
    }
}

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
    fn insert(&mut self, value: T) -> u32 {
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

    fn remove(&mut self, index: u32) -> Option<Box<T>> {
        let value = self.entries.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(value)
    }

    fn for_each(&mut self, f: impl FnMut(&mut T)) {
        self.entries
            .iter_mut()
            .flatten()
            .map(|b| &mut **b)
            .for_each(f);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
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

/// The receive that is in the kernel's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Armed {
    No,
    /// Until told otherwise, into the group for heads.
    Heads,
    /// The same, with its cancellation under way.
    HeadsCancelled,
    /// Once, into the group for bodies.
    Body,
    /// Not in the kernel's hands: waiting for buffers to come back.
    Starved,
}

/// What is being sent. The memory stays here until the completion.
struct Sending {
    head: Vec<u8>,
    body: Option<RawChunk>,
    /// Bytes sent so far.
    offset: usize,
    /// What the entry points at, for a vectored send.
    message: Option<Box<Message>>,
    /// Heap bytes accounted for a body that was copied into `head`.
    spilled: u64,
}

/// A socket as the driver sees it.
pub(super) struct SocketSlot {
    fd: OwnedFd,
    pub(super) received: VecDeque<RawChunk>,
    received_bytes: u32,
    pub(super) end: Option<End>,
    /// When the last data or end arrived.
    pub(super) received_at_ns: u64,
    mode: ReceiveMode,
    armed: Armed,
    pub(super) reader: Option<Waker>,
    /// The reader waits for data, so it will take what arrives at once.
    pub(super) wants_data: bool,
    sending: Option<Sending>,
    pub(super) send_error: Option<i32>,
    pub(super) writer: Option<Waker>,
    connecting: Option<Box<SockAddr>>,
    pub(super) connected: Option<i32>,
    /// Operations whose last completion is still to come.
    in_flight: u16,
    /// The owner is gone; the slot goes when nothing is in flight.
    closing: bool,
}

/// What a socket costs in the driver.
#[cfg(test)]
pub(crate) const SLOT_BYTES: usize = size_of::<SocketSlot>();

/// A listening socket as the driver sees it.
pub(super) struct AcceptorSlot {
    /// `None` once it is closed.
    fd: Option<OwnedFd>,
    pub(super) accepted: VecDeque<io::Result<OwnedFd>>,
    pub(super) waker: Option<Waker>,
    /// An accept is in the kernel's hands.
    armed: bool,
    /// Not to be armed for now.
    paused: bool,
    /// To be closed at the end of the accept that is armed.
    closing: bool,
    /// The owner is gone.
    abandoned: bool,
}

impl AcceptorSlot {
    /// Whether nothing more will be accepted.
    pub(super) fn is_closed(&self) -> bool {
        self.fd.is_none()
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
    ring: Ring,
    heads: BufferGroup,
    bodies: BufferGroup,
    pub(super) sockets: Slots<SocketSlot>,
    pub(super) acceptors: Slots<AcceptorSlot>,
    /// Sockets whose receive found no buffer, per group, first come first served.
    starved: [VecDeque<u32>; 2],
    spare: Vec<Vec<u8>>,
    heap_bytes: u64,
    limits: model::Limits,
    inbox: Inbox,
    stats: DriverStats,
}

impl Inner {
    pub(super) fn open(&mut self, fd: OwnedFd) -> u32 {
        self.sockets.insert(SocketSlot {
            fd,
            received: VecDeque::new(),
            received_bytes: 0,
            end: None,
            received_at_ns: 0,
            mode: ReceiveMode::Off,
            armed: Armed::No,
            reader: None,
            wants_data: false,
            sending: None,
            send_error: None,
            writer: None,
            connecting: None,
            connected: None,
            in_flight: 0,
            closing: false,
        })
    }

    pub(super) fn open_acceptor(&mut self, fd: OwnedFd) -> u32 {
        let index = self.acceptors.insert(AcceptorSlot {
            fd: Some(fd),
            accepted: VecDeque::new(),
            waker: None,
            armed: false,
            paused: false,
            closing: false,
            abandoned: false,
        });
        self.arm_accept(index);
        index
    }

    /// Arms the accept, if it has ended; or ends it.
    pub(super) fn set_accepting(&mut self, index: u32, on: bool) {
        let Some(slot) = self.acceptors.get_mut(index) else {
            return;
        };
        slot.paused = !on;
        if on {
            self.arm_accept(index);
        } else if slot.armed {
            self.cancel_accept(index);
        }
    }

    /// Ends the accept for good. What completed the handshake before is still accepted.
    /// Returns whom to wake.
    pub(super) fn close_acceptor(&mut self, index: u32) -> Option<Waker> {
        let slot = self.acceptors.get_mut(index)?;
        slot.closing = true;
        if slot.armed {
            self.cancel_accept(index);
            return None;
        }
        self.close_listening(index)
    }

    /// The owner is gone.
    pub(super) fn free_acceptor(&mut self, index: u32) {
        let Some(slot) = self.acceptors.get_mut(index) else {
            return;
        };
        slot.abandoned = true;
        if slot.armed {
            self.cancel_accept(index);
        } else {
            self.acceptors.remove(index);
        }
    }

    fn arm_accept(&mut self, index: u32) {
        let Some(slot) = self.acceptors.get_mut(index) else {
            return;
        };
        let Some(fd) = slot.fd.as_ref().filter(|_| !slot.armed && !slot.paused) else {
            return;
        };
        slot.armed = true;
        let entry = operations::accept(fd, index);
        // SAFETY: the entry points at nothing.
        unsafe { self.ring.push(&entry) };
    }

    fn cancel_accept(&mut self, index: u32) {
        let entry = operations::cancel(Token {
            kind: Kind::Accept,
            slot: index,
        });
        // SAFETY: the entry points at nothing.
        unsafe { self.ring.push(&entry) };
    }

    /// Takes what the kernel holds for a listening socket, then closes it: what is left in the backlog
    /// at the close would be reset.
    fn close_listening(&mut self, index: u32) -> Option<Waker> {
        let slot = self.acceptors.get_mut(index)?;
        let fd = slot.fd.take()?;
        slot.accepted
            .extend(super::socket::accept_waiting(&fd).into_iter().map(Ok));
        slot.waker.take()
    }

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

    /// Half-closes: the peer sees the end of our bytes.
    pub(super) fn shutdown_write(&mut self, index: u32) {
        if let Some(slot) = self.sockets.get(index) {
            // An error means that the connection is gone, which the next receive tells.
            let _ = socket2::SockRef::from(&slot.fd).shutdown(std::net::Shutdown::Write);
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
            (slot.armed == Armed::Heads).then_some(Kind::ReceiveHeads),
            (slot.armed == Armed::Body).then_some(Kind::ReceiveBodies),
            slot.sending.is_some().then_some(Kind::Send),
            (slot.connecting.is_some()).then_some(Kind::Connect),
        ];
        for kind in cancels.into_iter().flatten() {
            let entry = operations::cancel(Token { kind, slot: index });
            // SAFETY: the entry points at nothing.
            unsafe { self.ring.push(&entry) };
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

    fn keep(&mut self, mut buffer: Vec<u8>) {
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
            if !self.ring.io().completion().is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return self.ring.enter(wait);
            }
        }
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
            Kind::ReceiveHeads => {
                self.receive_done(token.slot, HEADS, result, flags, now_ns, wakes)
            }
            Kind::ReceiveBodies => {
                self.receive_done(token.slot, BODIES, result, flags, now_ns, wakes);
            }
            Kind::Send => self.send_done(token.slot, result, wakes),
            Kind::Connect => self.connect_done(token.slot, result, wakes),
            Kind::Cancel => {}
            Kind::Wake => {
                self.inbox.rung = true;
                wakes.extend(self.inbox.waker.take());
                self.listen_to_inbox();
            }
        }
    }

    fn accept_done(&mut self, index: u32, result: i32, flags: u32, wakes: &mut Vec<Waker>) {
        let accepted = super::socket::accepted(result);
        let Some(slot) = self.acceptors.get_mut(index) else {
            return;
        };
        slot.armed = cqueue::more(flags);
        if slot.abandoned && !slot.armed {
            self.acceptors.remove(index);
            return;
        }
        let cancelled = result == -libc::ECANCELED;
        let failed = accepted.is_err() && !cancelled;
        if !cancelled {
            slot.accepted.push_back(accepted);
            wakes.extend(slot.waker.take());
        }
        if slot.closing && !slot.armed {
            wakes.extend(self.close_listening(index));
        } else if !failed {
            // After an error the acceptor decides when to go on (EMFILE must not spin).
            self.arm_accept(index);
        }
    }

    fn receive_done(
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

    fn send_done(&mut self, index: u32, result: i32, wakes: &mut Vec<Waker>) {
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

    fn connect_done(&mut self, index: u32, result: i32, wakes: &mut Vec<Waker>) {
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
        // SAFETY: the entry points at nothing: the kernel picks a provided buffer.
        unsafe { self.ring.push(&entry) };
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
        // SAFETY: the entry points at nothing.
        unsafe { self.ring.push(&entry) };
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

    /// Arms as many of the starved as there are buffers, first come first served.
    fn feed_starved(&mut self) {
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

    fn is_scarce(&self, chunk: &RawChunk) -> bool {
        match chunk.provided() {
            Some((HEADS, _)) => self.heads.scarce(),
            Some(_) => self.bodies.scarce(),
            None => false,
        }
    }

    fn has_heap(&self, chunk: &RawChunk) -> bool {
        self.heap_bytes + chunk.len() as u64 <= self.limits.buffers
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

    fn free_if_quiet(&mut self, index: u32) {
        let quiet = self
            .sockets
            .get(index)
            .is_some_and(|s| s.closing && s.in_flight == 0);
        if !quiet {
            return;
        }
        if let Some(slot) = self.sockets.remove(index) {
            let SocketSlot { received, .. } = *slot;
            received.into_iter().for_each(|c| self.recycle(c));
        }
    }
}

impl SocketSlot {
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

/// Stores the task's waker, unless it is there already.
pub(super) fn register(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(old) if old.will_wake(cx.waker()) => {}
        _ => *place = Some(cx.waker().clone()),
    }
}
