//! Connections as the data path sees them: bytes in, bytes out, whatever they are wrapped in.
//!
//! * `mod.rs`: [`Stream`], a connection, plain or encrypted.
//! * `proxy_header.rs`: the PROXY protocol header, before anything else.

mod proxy_header;

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

pub(crate) use proxy_header::read_proxy_header;

use crate::ring::{Chunk, Failed, Payload, Socket};

/// A connection. What is received and sent is plaintext, in whatever it travels.
pub(crate) enum Stream {
    /// Bytes as they are.
    Plain(Socket),
}

impl Stream {
    /// The socket below.
    fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
        }
    }

    /// Receives from now on, whether or not somebody waits: for connections that last.
    pub(crate) fn start_receiving(&self) {
        self.socket().start_receiving();
    }

    /// Tells that `bytes` are known to come, so that they come in pieces to match.
    pub(crate) fn expect(&self, bytes: u64) {
        self.socket().expect(bytes);
    }

    /// The next received bytes; `None` at the end of the stream. Cancel-safe.
    pub(crate) async fn receive(&self) -> io::Result<Option<Chunk>> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// See [`Stream::receive`].
    pub(crate) fn poll_receive(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self {
            Stream::Plain(socket) => socket.poll_receive(cx),
        }
    }

    /// Like [`Stream::poll_receive`], for passing on to `sink`: while that is still sending, bytes stay with
    /// the driver, which can move them out of a provided buffer if others want it.
    pub(crate) fn poll_receive_for(
        &self,
        cx: &Context<'_>,
        sink: &Stream,
    ) -> Poll<Result<Option<Chunk>, Failed>> {
        if self.has_received() && sink.poll_flush(cx).map_err(Failed::Sink)?.is_pending() {
            return Poll::Pending;
        }
        self.poll_receive(cx).map_err(Failed::Source)
    }

    /// Received bytes that are already here.
    pub(crate) fn try_receive(&self) -> Option<Chunk> {
        match self {
            Stream::Plain(socket) => socket.try_receive(),
        }
    }

    /// Puts bytes back that belong to what is read next.
    pub(crate) fn put_back(&self, chunk: Chunk) {
        match self {
            Stream::Plain(socket) => socket.put_back(chunk),
        }
    }

    /// Resolves when the connection has failed (reset, not merely half-closed). Never resolves
    /// otherwise. For noticing that a client is gone while its answer is waited for.
    pub(crate) fn poll_failed(&self, cx: &Context<'_>) -> Poll<io::Error> {
        self.socket().poll_failed(cx)
    }

    /// Hands `payload` on, after what is being sent already. It returns once the payload is under way; an
    /// error of it shows at the next call.
    pub(crate) async fn send(&self, payload: Payload) -> io::Result<()> {
        let mut payload = Some(payload);
        std::future::poll_fn(|cx| self.poll_send(cx, &mut payload)).await
    }

    /// See [`Stream::send`]; takes the payload once it is under way.
    pub(crate) fn poll_send(
        &self,
        cx: &Context<'_>,
        payload: &mut Option<Payload>,
    ) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(socket) => socket.poll_send(cx, payload),
        }
    }

    /// Waits until everything was taken by the kernel.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// See [`Stream::flush`].
    pub(crate) fn poll_flush(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_flush(cx)
    }

    /// Half-closes now; what is in flight is sent first by the kernel.
    pub(crate) fn shutdown_write(&self) {
        match self {
            Stream::Plain(socket) => socket.shutdown_write(),
        }
    }

    /// Half-closes, after everything was taken by the kernel.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        self.flush().await?;
        self.shutdown_write();
        Ok(())
    }

    /// Whether it may be used for the next exchange: nothing came unasked, nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Stream::Plain(socket) => socket.is_quiet(),
        }
    }

    /// Whether the exchange on it ended cleanly; the end of our own bytes may still be under way.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Stream::Plain(socket) => socket.is_settled(),
        }
    }

    /// Whether received bytes wait to be read.
    pub(crate) fn has_received(&self) -> bool {
        match self {
            Stream::Plain(socket) => socket.has_received(),
        }
    }

    /// When the last bytes (or the end) arrived, on the driver's clock.
    pub(crate) fn received_at_ns(&self) -> u64 {
        self.socket().received_at_ns()
    }

    /// The peer's address.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.socket().peer_address()
    }

    /// Our own address on this connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket().local_address()
    }

    /// Makes the close that follows a reset: the peer must not take what it got for complete.
    pub(crate) fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }
}
