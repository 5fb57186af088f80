//! What the data path sees of the ring: sockets, received chunks, payloads to send.

use std::{
    io,
    net::SocketAddr,
    ops::Deref,
    os::fd::{FromRawFd, OwnedFd},
    ptr::NonNull,
    rc::Rc,
    task::{Context, Poll},
};

use socket2::{Domain, SockRef, Type};

use super::{
    Driver,
    slots::{Backlog, End, register},
};

/// A connected socket. Dropping it cancels what is in flight and closes it.
pub(crate) struct Socket {
    driver: Rc<Driver>,
    index: u32,
}

impl Socket {
    /// Takes over a connected socket, which does not receive yet.
    pub(crate) fn new(driver: &Rc<Driver>, fd: OwnedFd) -> Socket {
        let index = driver.inner().open(fd);
        Socket {
            driver: driver.clone(),
            index,
        }
    }

    /// Connects to `address`.
    pub(crate) async fn connect(driver: &Rc<Driver>, address: SocketAddr) -> io::Result<Socket> {
        let fd = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        fd.set_tcp_nodelay(true)?;
        let socket = Socket::new(driver, fd.into());
        driver.inner().connect(socket.index, address);
        let result = std::future::poll_fn(|cx| {
            let mut inner = driver.inner();
            let Some(slot) = inner.sockets.get_mut(socket.index) else {
                return Poll::Ready(-libc::EBADF);
            };
            if let Some(result) = slot.connected {
                return Poll::Ready(result);
            }
            slot.register_writer(cx);
            Poll::Pending
        })
        .await;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(socket)
    }

    /// Receives from now on, whether or not somebody waits: for connections that last.
    pub(crate) fn start_receiving(&self) {
        self.driver.inner().start_receiving(self.index);
    }

    /// Tells that `bytes` are known to come, so that they come in pieces to match.
    pub(crate) fn expect(&self, bytes: u64) {
        self.driver.inner().expect(self.index, bytes);
    }

    /// The next received bytes; `None` at the end of the stream. Cancel-safe.
    pub(crate) async fn receive(&self) -> io::Result<Option<Chunk>> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// See [`Socket::receive`].
    pub(crate) fn poll_receive(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let mut inner = self.driver.inner();
        if let Some(raw) = inner.take_received(self.index) {
            drop(inner);
            return Poll::Ready(Ok(Some(self.chunk(raw))));
        }
        let Some(slot) = inner.sockets.get_mut(self.index) else {
            return Poll::Ready(Ok(None));
        };
        match slot.end {
            Some(End::Finished) => return Poll::Ready(Ok(None)),
            Some(End::Failed(errno)) => {
                return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
            }
            None => {}
        }
        slot.wants_data = true;
        slot.register_reader(cx);
        inner.receive_on_demand(self.index);
        Poll::Pending
    }

    /// Received bytes that are already here.
    pub(crate) fn try_receive(&self) -> Option<Chunk> {
        let raw = self.driver.inner().take_received(self.index)?;
        Some(self.chunk(raw))
    }

    /// Puts bytes back that belong to what is read next.
    pub(crate) fn put_back(&self, chunk: Chunk) {
        if let Some(raw) = chunk.into_raw() {
            self.driver.inner().put_back(self.index, raw);
        }
    }

    /// Resolves when the connection has failed (reset, not merely half-closed). Never resolves
    /// otherwise. For noticing that a client is gone while its answer is waited for.
    pub(crate) fn poll_failed(&self, cx: &Context<'_>) -> Poll<io::Error> {
        let mut inner = self.driver.inner();
        let Some(slot) = inner.sockets.get_mut(self.index) else {
            return Poll::Pending;
        };
        if let Some(End::Failed(errno)) = slot.end {
            return Poll::Ready(io::Error::from_raw_os_error(errno));
        }
        slot.register_reader(cx);
        Poll::Pending
    }

    /// Hands `payload` to the kernel, after what is being sent already. It returns once the payload is
    /// under way; an error of it shows at the next call.
    pub(crate) async fn send(&self, payload: Payload) -> io::Result<()> {
        let mut payload = Some(payload);
        std::future::poll_fn(|cx| self.poll_send(cx, &mut payload)).await
    }

    /// See [`Socket::send`]; takes the payload once it is under way.
    pub(crate) fn poll_send(
        &self,
        cx: &Context<'_>,
        payload: &mut Option<Payload>,
    ) -> Poll<io::Result<()>> {
        if payload.as_ref().is_none_or(Payload::is_empty) {
            *payload = None;
            return Poll::Ready(Ok(()));
        }
        if self.poll_flush(cx)?.is_pending() {
            return Poll::Pending;
        }
        if let Some(payload) = payload.take() {
            self.driver.inner().start_send(self.index, payload);
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until everything was taken by the kernel.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// See [`Socket::flush`].
    pub(crate) fn poll_flush(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.driver.inner();
        let Some(slot) = inner.sockets.get_mut(self.index) else {
            return Poll::Ready(Ok(()));
        };
        if let Some(errno) = slot.send_error {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        if !slot.is_sending() {
            return Poll::Ready(Ok(()));
        }
        slot.register_writer(cx);
        Poll::Pending
    }

    /// Whether a send is in flight.
    pub(crate) fn is_sending(&self) -> bool {
        let inner = self.driver.inner();
        let slot = inner.sockets.get(self.index);
        slot.is_some_and(|slot| slot.is_sending())
    }

    /// Whether the peer has ended its side, or either has failed.
    pub(crate) fn has_ended(&self) -> bool {
        let inner = self.driver.inner();
        let slot = inner.sockets.get(self.index);
        slot.is_none_or(|slot| slot.end.is_some() || slot.send_error.is_some())
    }

    /// Sends a few bytes past the ring, if nothing is in flight and the socket has room for them. How many
    /// the kernel took.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> usize {
        if self.is_sending() {
            return 0;
        }
        let inner = self.driver.inner();
        let taken = inner.with_fd(self.index, |fd| {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            SockRef::from(fd).send_with_flags(bytes, flags).ok()
        });
        // An error shows at the next send; after a last word, the peer sees the close alone.
        taken.flatten().unwrap_or(0)
    }

    /// Waits until the shard's budget has room for a large buffer on the heap. Meanwhile the socket is none that
    /// nobody reads.
    pub(crate) fn poll_heap(&self, cx: &Context<'_>) -> Poll<()> {
        self.driver.poll_heap(cx, self.index)
    }

    /// The driver it is on.
    pub(crate) fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    /// Half-closes now; what is in flight is sent first by the kernel.
    pub(crate) fn shutdown_write(&self) {
        self.driver.inner().shutdown_write(self.index);
    }

    /// Ends the connection both ways, under the hands of whoever uses it, who sees its end.
    pub(crate) fn cut(&self) {
        self.driver.cut(self.index);
    }

    /// Its place among the driver's sockets, as long as it lives.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Whether it may be used for the next exchange: nothing came unasked, nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.driver
            .inner()
            .sockets
            .get(self.index)
            .is_some_and(|s| s.is_quiet())
    }

    /// Whether the exchange on it ended cleanly; the end of our own bytes may still be under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.driver
            .inner()
            .sockets
            .get(self.index)
            .is_some_and(|s| s.is_settled())
    }

    /// Whether received bytes wait to be read.
    pub(crate) fn has_received(&self) -> bool {
        self.driver
            .inner()
            .sockets
            .get(self.index)
            .is_some_and(|s| !s.received.is_empty())
    }

    /// When the last bytes (or the end) arrived, on the driver's clock.
    pub(crate) fn received_at_ns(&self) -> u64 {
        self.driver
            .inner()
            .sockets
            .get(self.index)
            .map_or(0, |s| s.received_at_ns)
    }

    /// The peer's address.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.driver.peer_address(self.index)
    }

    /// Our own address on this connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        let inner = self.driver.inner();
        let address = inner
            .with_fd(self.index, |fd| SockRef::from(fd).local_addr())?
            .ok()?;
        address.as_socket()
    }

    /// Makes the close that follows a reset: the peer must not take what it got for complete.
    pub(crate) fn reset_on_close(&self) {
        let inner = self.driver.inner();
        inner.with_fd(self.index, |fd| {
            // Without it the peer sees an ordinary end, which framing may still tell apart.
            let _ = SockRef::from(fd).set_linger(Some(std::time::Duration::ZERO));
        });
    }

    fn chunk(&self, raw: RawChunk) -> Chunk {
        Chunk {
            raw: Some(raw),
            driver: self.driver.clone(),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let wakers = self.driver.inner().close(self.index);
        drop(wakers);
    }
}

/// Whether the driver cut the connection, since the shard's buffers were used up: how it says so.
pub(crate) fn is_over_budget(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Which side of a transfer failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The one that is received from.
    Source(io::Error),
    /// The one that is sent to.
    Sink(io::Error),
}

/// A listening socket.
pub(crate) struct Acceptor {
    driver: Rc<Driver>,
    index: u32,
}

impl Acceptor {
    /// Takes over a listening socket and accepts on it from now on.
    pub(crate) fn new(driver: &Rc<Driver>, fd: OwnedFd) -> Acceptor {
        let index = driver.inner().open_acceptor(fd);
        Acceptor {
            driver: driver.clone(),
            index,
        }
    }

    /// The next connection; `None` once it is closed. After an error, nothing is accepted until
    /// [`Acceptor::resume`].
    pub(crate) async fn accept(&self) -> Option<io::Result<OwnedFd>> {
        std::future::poll_fn(|cx| {
            let mut inner = self.driver.inner();
            let Some(slot) = inner.acceptors.get_mut(self.index) else {
                return Poll::Ready(None);
            };
            if let Some(accepted) = slot.accepted.pop_front() {
                return Poll::Ready(Some(accepted));
            }
            if slot.is_closed() {
                return Poll::Ready(None);
            }
            register(&mut slot.waker, cx);
            Poll::Pending
        })
        .await
    }

    /// Accepts again after an error.
    pub(crate) fn resume(&self) {
        self.driver.inner().arm_accept(self.index);
    }

    /// Stops accepting for good, once what the kernel holds already was taken, or left.
    pub(crate) fn close(&self, backlog: Backlog) {
        let waker = self.driver.inner().close_acceptor(self.index, backlog);
        if let Some(waker) = waker {
            waker.wake();
            self.driver.mark_runnable();
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.driver.inner().free_acceptor(self.index);
    }
}

/// The descriptor that an accept's completion brings.
pub(super) fn accepted(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the kernel has just opened this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// What waits in the backlog of a listening socket, taken without waiting.
pub(super) fn accept_waiting(fd: &OwnedFd) -> Vec<OwnedFd> {
    let socket = SockRef::from(fd);
    if socket.set_nonblocking(true).is_err() {
        return Vec::new();
    }
    std::iter::from_fn(|| socket.accept().ok())
        .map(|(socket, _)| socket.into())
        .collect()
}

/// Received bytes, without the driver to give them back to. Not dropped, but recycled.
pub(super) struct RawChunk {
    memory: Memory,
    // A chunk is never larger than a buffer or a head, so 32 bits are plenty.
    start: u32,
    end: u32,
}

enum Memory {
    /// A buffer that the kernel has filled and handed over.
    Provided {
        group: u16,
        buffer: u16,
        base: NonNull<u8>,
    },
    Heap(Box<[u8]>),
}

impl RawChunk {
    /// `len` bytes at the beginning of a provided buffer.
    pub(super) fn provided_at(group: u16, buffer: u16, base: NonNull<u8>, len: u32) -> RawChunk {
        RawChunk {
            memory: Memory::Provided {
                group,
                buffer,
                base,
            },
            start: 0,
            end: len,
        }
    }

    /// Bytes copied to the heap.
    pub(super) fn heap(mut bytes: Vec<u8>) -> RawChunk {
        bytes.truncate(u32::MAX as usize);
        let end = bytes.len() as u32;
        RawChunk {
            memory: Memory::Heap(bytes.into_boxed_slice()),
            start: 0,
            end,
        }
    }

    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: the kernel has written `end` bytes and handed the buffer over; it is ours, and
            // unwritten, until it is recycled, which takes the chunk by value.
            Memory::Provided { base, .. } => unsafe {
                std::slice::from_raw_parts(base.as_ptr().add(self.start as usize), self.len())
            },
            Memory::Heap(bytes) => bytes
                .get(self.start as usize..self.end as usize)
                .unwrap_or_default(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        match &mut self.memory {
            // SAFETY: as in `bytes`; and it is borrowed mutably, so nobody else looks at it.
            Memory::Provided { base, .. } => unsafe {
                std::slice::from_raw_parts_mut(base.as_ptr().add(self.start as usize), len)
            },
            Memory::Heap(bytes) => bytes
                .get_mut(self.start as usize..self.end as usize)
                .unwrap_or_default(),
        }
    }

    /// Drops the first `n` bytes.
    fn advance(&mut self, n: usize) {
        self.start += n.min(self.len()) as u32;
    }

    /// Drops all but the first `n` bytes.
    fn truncate(&mut self, n: usize) {
        self.end = self.start + n.min(self.len()) as u32;
    }

    /// Group and number of the provided buffer, if it is one.
    pub(super) fn provided(&self) -> Option<(u16, u16)> {
        match self.memory {
            Memory::Provided { group, buffer, .. } => Some((group, buffer)),
            Memory::Heap(_) => None,
        }
    }

    /// Bytes of heap it holds.
    pub(super) fn heap_bytes(&self) -> u64 {
        match &self.memory {
            Memory::Provided { .. } => 0,
            Memory::Heap(bytes) => bytes.len() as u64,
        }
    }
}

/// Received bytes. Dropping them gives the buffer back to the kernel.
pub(crate) struct Chunk {
    /// Always there until the chunk is taken apart.
    raw: Option<RawChunk>,
    driver: Rc<Driver>,
}

impl Chunk {
    /// Drops the first `n` bytes.
    pub(crate) fn advance(&mut self, n: usize) {
        if let Some(raw) = &mut self.raw {
            raw.advance(n);
        }
    }

    /// Drops all but the first `n` bytes.
    pub(crate) fn truncate(&mut self, n: usize) {
        if let Some(raw) = &mut self.raw {
            raw.truncate(n);
        }
    }

    /// The bytes, to be changed where they lie.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.raw
            .as_mut()
            .map(RawChunk::bytes_mut)
            .unwrap_or_default()
    }

    /// Splits after `n` bytes: the first part keeps the buffer, the second is a copy.
    pub(crate) fn split(mut self, n: usize) -> (Chunk, Option<Chunk>) {
        let rest = self
            .get(n..)
            .filter(|rest| !rest.is_empty())
            .map(<[u8]>::to_vec);
        let rest = rest.map(|bytes| Chunk::from_vec(&self.driver, bytes));
        self.truncate(n);
        (self, rest)
    }

    /// Bytes on the heap, as if received.
    pub(crate) fn from_vec(driver: &Rc<Driver>, bytes: Vec<u8>) -> Chunk {
        let raw = RawChunk::heap(bytes);
        driver.inner().account_heap(raw.heap_bytes());
        Chunk {
            raw: Some(raw),
            driver: driver.clone(),
        }
    }

    pub(super) fn into_raw(mut self) -> Option<RawChunk> {
        self.raw.take()
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.raw.as_ref().map(RawChunk::bytes).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            self.driver.inner().recycle(raw);
        }
    }
}

/// Bytes to send: what we wrote, then what we received.
pub(crate) struct Payload {
    head: Vec<u8>,
    body: Option<Chunk>,
    /// The connection is closed right behind it.
    last: bool,
    /// What we wrote counts against the shard's buffers while it is being sent.
    weighs: bool,
}

impl Payload {
    /// A body of at most this many bytes is copied behind the head: one piece is cheaper than two.
    pub(crate) const INLINE_MAX: usize = 1024;

    /// Bytes that we wrote.
    pub(crate) fn head(head: Vec<u8>) -> Payload {
        Payload {
            head,
            body: None,
            last: false,
            weighs: false,
        }
    }

    /// Bytes that we received, sent from where they lie.
    pub(crate) fn chunk(chunk: Chunk) -> Payload {
        Payload::head(Vec::new()).followed_by(chunk)
    }

    /// `chunk` behind what is there already.
    pub(crate) fn followed_by(mut self, chunk: Chunk) -> Payload {
        if let Some(body) = self.body.take() {
            self.head.extend_from_slice(&body);
        }
        self.body = Some(chunk);
        self
    }

    /// The same, to be followed by a close at once: the kernel keeps the end of it back, and sends it
    /// together with the FIN, which saves a packet of three.
    pub(crate) fn before_close(mut self) -> Payload {
        self.last = true;
        self
    }

    /// The same, but what we wrote holds what was received, and counts against the shard's buffers.
    pub(crate) fn weighing(mut self) -> Payload {
        self.weighs = true;
        self
    }

    /// What we wrote, and what we received.
    pub(crate) fn take_apart(self) -> (Vec<u8>, Option<Chunk>) {
        (self.head, self.body)
    }

    /// The bytes that we wrote.
    pub(crate) fn into_head(self) -> Vec<u8> {
        self.head
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, |b| b.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a close follows.
    pub(crate) fn is_last(&self) -> bool {
        self.last
    }

    /// Bytes of what we wrote that count against the shard's buffers.
    pub(super) fn weight(&self) -> u64 {
        if self.weighs {
            self.head.len() as u64
        } else {
            0
        }
    }

    pub(super) fn into_parts(self) -> (Vec<u8>, Option<RawChunk>) {
        (self.head, self.body.and_then(Chunk::into_raw))
    }
}
