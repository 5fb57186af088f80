//! Connections as the data path sees them: bytes in, bytes out, whatever they are wrapped in.
//!
//! * `mod.rs`: [`Stream`], a connection, plain or encrypted.
//! * `proxy_header.rs`: the PROXY protocol header, before anything else.
//! * `tls.rs`: what the rest of the process may ask of TLS.
//! * `session.rs`: a TLS connection without its socket.
//! * `tickets.rs`: session tickets, and the keys they are sealed with.

mod certificate;
mod contexts;
mod proxy_header;
mod session;
mod sessions;
mod tickets;
pub mod tls;
mod verify;

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use tidegate_core::{encryption::rollout::LinkKind, reason::Reason, snapshot};

pub(crate) use proxy_header::read_proxy_header;

use crate::{
    local::Local,
    ring::{Chunk, Failed, Payload, Socket},
};

/// A connection. What is received and sent is plaintext, in whatever it travels.
pub(crate) struct Stream {
    socket: Socket,
}

/// What a handshake came to.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) struct TlsFacts {
    /// `1.2` or `1.3`
    pub(crate) version: &'static str,
    /// IANA name of the cipher suite.
    pub(crate) cipher: &'static str,
    /// An earlier session was resumed.
    pub(crate) resumed: bool,
    /// The server name that the client asked for; may be empty.
    pub(crate) server_name: Box<str>,
}

/// Encrypts a connection to an endpoint, as the cluster's context in use says. The time-out is the
/// cluster's `handshake_timeout`; nothing is ever sent in plaintext instead (E16).
///
/// # Errors
///
/// [`Reason::SecretMissing`] or [`Reason::UpstreamTls`], and more in words (the alert).
#[allow(dead_code)]
pub(crate) async fn secure(
    _local: &Rc<Local>,
    _socket: Socket,
    _cluster: &snapshot::Cluster,
    _address: SocketAddr,
) -> Result<Stream, (Reason, &'static str)> {
    Err((Reason::SecretMissing, "TLS is not there yet"))
}

impl Stream {
    /// Bytes as they are.
    pub(crate) fn plain(socket: Socket) -> Stream {
        Stream { socket }
    }

    /// The socket below.
    fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What the handshake came to; `None` in plaintext.
    pub(crate) fn tls_facts(&self) -> Option<&TlsFacts> {
        None
    }

    /// How its bytes travel.
    #[allow(dead_code)]
    pub(crate) fn kind(&self) -> LinkKind {
        LinkKind::Plaintext
    }

    /// The generation of the context that it was encrypted with; 0 for plaintext.
    #[allow(dead_code)]
    pub(crate) fn generation(&self) -> u64 {
        0
    }

    /// Who the peer is, by its certificate: the first URI, else the first DNS name, else the common name.
    #[allow(dead_code)]
    pub(crate) fn peer_identity(&self) -> Option<&str> {
        None
    }

    /// When the peer's certificate expires, in seconds since the Unix epoch; `None` without one.
    #[allow(dead_code)]
    pub(crate) fn certificate_expiry_unix_s(&self) -> Option<u64> {
        None
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
        self.socket.poll_receive(cx)
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
        self.socket.try_receive()
    }

    /// Puts bytes back that belong to what is read next.
    pub(crate) fn put_back(&self, chunk: Chunk) {
        self.socket.put_back(chunk)
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
        self.socket.poll_send(cx, payload)
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
        self.socket.shutdown_write()
    }

    /// Half-closes, after everything was taken by the kernel.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        self.flush().await?;
        self.shutdown_write();
        Ok(())
    }

    /// Whether it may be used for the next exchange: nothing came unasked, nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.socket.is_quiet()
    }

    /// Whether the exchange on it ended cleanly; the end of our own bytes may still be under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.socket.is_settled()
    }

    /// Whether received bytes wait to be read.
    pub(crate) fn has_received(&self) -> bool {
        self.socket.has_received()
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
