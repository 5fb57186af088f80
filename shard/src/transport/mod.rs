//! Connections as the data path sees them: bytes in, bytes out, whatever they are wrapped in.
//!
//! In reading order:
//!
//! * `mod.rs`: [`Stream`], a connection, plain or encrypted.
//! * `proxy_header.rs`: the PROXY protocol header, before anything else.
//! * `inspect.rs`: telling TLS from plaintext.
//! * `handshake.rs`: from a socket to a stream; `handshakes.rs`: how many at once; `alert.rs`: what a
//!   failed one is called.
//! * `encrypted.rs`: TLS on a socket; `session.rs`: the same without the socket.
//! * `tls.rs`: what the rest of the process may ask of TLS; `probe.rs`: TLS for its health checks; `own.rs`: its
//!   handshakes with itself; `key_log.rs`: its secrets, if they are asked for.
//! * `contexts.rs`: what connections are encrypted with; `shares.rs`: a shard's share of it.
//! * `certificate.rs`, `verify.rs`: whether a secret or a peer's certificate will do; `tickets.rs`,
//!   `sessions.rs`: resumption, by clients and by us; `trust.rs`: what becomes of connections when trust changes.

mod alert;
mod certificate;
mod contexts;
mod encrypted;
mod handshake;
mod handshakes;
mod inspect;
mod key_log;
mod own;
mod probe;
mod proxy_header;
mod session;
mod sessions;
mod shares;
mod tickets;
pub mod tls;
mod trust;
mod verify;

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tidegate_core::encryption::rollout::LinkKind;

pub(crate) use handshake::{establish, secure};
pub(crate) use handshakes::Handshakes;
pub(crate) use proxy_header::read_proxy_header;
pub(crate) use shares::ShardTls;
pub(crate) use trust::{LetIn, recheck_clients, recheck_link};

use crate::ring::{Chunk, Failed, Payload, Socket};
use encrypted::Encrypted;

/// A connection. What is received and sent is plaintext, in whatever it travels.
pub(crate) struct Stream {
    socket: Socket,
    /// `None`: bytes as they are.
    tls: Option<Rc<Encrypted>>,
}

/// What a handshake came to.
#[derive(Debug)]
pub(crate) struct TlsFacts {
    /// `1.2` or `1.3`
    pub(crate) version: &'static str,
    /// IANA name of the cipher suite.
    pub(crate) cipher: &'static str,
    /// An earlier session was resumed.
    pub(crate) resumed: bool,
    /// HTTP/2 was agreed upon (ALPN).
    pub(crate) is_http2: bool,
    /// The server name that the client asked for; may be empty.
    pub(crate) server_name: Box<str>,
    /// Of the context, on links to endpoints.
    generation: u64,
    /// Who the peer is by its certificate.
    peer: Option<Box<str>>,
    peer_expiry_unix_s: Option<u64>,
}

impl Stream {
    /// Bytes as they are.
    pub(crate) fn plain(socket: Socket) -> Stream {
        Stream { socket, tls: None }
    }

    /// What the handshake came to; `None` in plaintext.
    pub(crate) fn tls_facts(&self) -> Option<&TlsFacts> {
        self.tls.as_ref().map(|tls| &tls.facts)
    }

    /// How its bytes travel.
    pub(crate) fn kind(&self) -> LinkKind {
        match self.tls {
            None => LinkKind::Plaintext,
            Some(_) => LinkKind::Tls,
        }
    }

    /// The generation of the context that it was encrypted with; 0 for plaintext.
    pub(crate) fn generation(&self) -> u64 {
        self.tls_facts().map_or(0, |facts| facts.generation)
    }

    /// Who the peer is, by its certificate: the first URI, else the first DNS name, else the common name.
    pub(crate) fn peer_identity(&self) -> Option<&str> {
        self.tls_facts()?.peer.as_deref()
    }

    /// When the peer's certificate expires, in seconds since the Unix epoch; `None` without one.
    pub(crate) fn certificate_expiry_unix_s(&self) -> Option<u64> {
        self.tls_facts()?.peer_expiry_unix_s
    }

    /// Receives from now on, whether or not somebody waits: for connections that last.
    pub(crate) fn start_receiving(&self) {
        self.socket.start_receiving();
    }

    /// Tells that `bytes` are known to come, so that they come in pieces to match.
    pub(crate) fn expect(&self, bytes: u64) {
        self.socket.expect(bytes);
    }

    /// The next received bytes; `None` at the end of the stream. Cancel-safe.
    pub(crate) async fn receive(&self) -> io::Result<Option<Chunk>> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// See [`Stream::receive`].
    pub(crate) fn poll_receive(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match &self.tls {
            None => self.socket.poll_receive(cx),
            Some(tls) => tls.poll_receive(&self.socket, cx),
        }
    }

    /// Like [`Stream::poll_receive`], for passing on to `sink`: while that is still sending, bytes stay with
    /// the driver, which can move them out of a provided buffer if others want it.
    pub(crate) fn poll_receive_for(
        &self,
        cx: &Context<'_>,
        sink: &Stream,
    ) -> Poll<Result<Option<Chunk>, Failed>> {
        let has_any = match &self.tls {
            None => self.socket.has_received(),
            Some(tls) => tls.has_any(&self.socket),
        };
        if has_any && sink.poll_flush(cx).map_err(Failed::Sink)?.is_pending() {
            return Poll::Pending;
        }
        self.poll_receive(cx).map_err(Failed::Source)
    }

    /// Whether the peer was let in, and would not be any more.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.distrusted.get())
    }

    /// Received bytes that are already here.
    pub(crate) fn try_receive(&self) -> Option<Chunk> {
        match &self.tls {
            None => self.socket.try_receive(),
            Some(tls) => tls.try_receive(&self.socket),
        }
    }

    /// Puts bytes back that belong to what is read next. An empty piece gives its buffer back instead.
    pub(crate) fn put_back(&self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        match &self.tls {
            None => self.socket.put_back(chunk),
            Some(tls) => tls.put_back(chunk),
        }
    }

    /// Resolves when the connection has failed (reset, not merely half-closed). Never resolves
    /// otherwise. For noticing that a client is gone while its answer is waited for.
    pub(crate) fn poll_failed(&self, cx: &Context<'_>) -> Poll<io::Error> {
        self.socket.poll_failed(cx)
    }

    /// See [`Socket::poll_heap`].
    pub(crate) fn poll_heap(&self, cx: &Context<'_>) -> Poll<()> {
        self.socket.poll_heap(cx)
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
        match &self.tls {
            None => self.socket.poll_send(cx, payload),
            Some(tls) => tls.poll_send(&self.socket, cx, payload),
        }
    }

    /// Waits until everything was taken by the kernel.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// See [`Stream::flush`].
    pub(crate) fn poll_flush(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush(cx)
    }

    /// Half-closes, after everything was taken by the kernel.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// See [`Stream::finish`].
    pub(crate) fn poll_finish(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => ready!(self.socket.poll_flush(cx))?,
            Some(tls) => ready!(tls.poll_close(&self.socket, cx))?,
        }
        self.socket.shutdown_write();
        Poll::Ready(Ok(()))
    }

    /// Ends the connection both ways, under the hands of whoever uses it, who sees its end.
    pub(crate) fn cut(&self) {
        self.socket.cut();
    }

    /// Wakes who waits for it to receive, to look at what else has changed.
    pub(crate) fn wake_reader(&self) {
        let driver = self.socket.driver();
        driver.wake_reader(self.socket.index());
    }

    /// Whether it may be used for the next exchange: nothing came unasked, nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        match &self.tls {
            None => self.socket.is_quiet(),
            Some(tls) => tls.is_settled(&self.socket) && self.socket.is_quiet(),
        }
    }

    /// Whether the exchange on it ended cleanly; the end of our own bytes may still be under way.
    pub(crate) fn is_settled(&self) -> bool {
        match &self.tls {
            None => self.socket.is_settled(),
            Some(tls) => tls.is_settled(&self.socket) && self.socket.is_settled(),
        }
    }

    /// Whether received bytes wait to be read.
    pub(crate) fn has_received(&self) -> bool {
        match &self.tls {
            None => self.socket.has_received(),
            Some(tls) => tls.has_received(&self.socket),
        }
    }

    /// When the last bytes (or the end) arrived, on the driver's clock.
    pub(crate) fn received_at_ns(&self) -> u64 {
        self.socket.received_at_ns()
    }

    /// The peer's address.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.socket.peer_address()
    }

    /// Our own address on this connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_address()
    }

    /// Makes the close that follows a reset: the peer must not take what it got for complete.
    pub(crate) fn reset_on_close(&self) {
        if let Some(tls) = &self.tls {
            tls.reset();
        }
        self.socket.reset_on_close();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(tls) = &self.tls {
            tls.say_farewell(&self.socket);
        }
    }
}

#[cfg(test)]
mod tests;
