//! The endpoint's side of an exchange, whatever it speaks.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
};

use tidegate_core::{config::model::UpstreamProtocol, reason::Reason};

use super::{Call, Connection, Destination, Endpoint};
use crate::{
    http2,
    ring::{Chunk, Failed},
    transport::Stream,
};

/// A way to an endpoint, for one exchange.
pub(crate) enum Leg {
    /// A connection, all of it.
    Http1(Connection),
    /// A stream, beside others of its connection.
    Http2(Call),
}

impl Leg {
    /// Takes what is open to `endpoint` and takes a request, if there is such a thing.
    pub(crate) fn reuse(to: Destination<'_>, endpoint: &Rc<Endpoint>) -> Option<Leg> {
        match to.settings.config.protocol {
            UpstreamProtocol::Http1 => Connection::reuse(to, endpoint).map(Leg::Http1),
            UpstreamProtocol::Http2 => Call::reuse(to, endpoint).map(Leg::Http2),
        }
    }

    /// Makes a connection, within the circuit and the time that the cluster allows.
    pub(crate) async fn connect(
        to: Destination<'_>,
        endpoint: &Rc<Endpoint>,
    ) -> Result<Leg, Reason> {
        match to.settings.config.protocol {
            UpstreamProtocol::Http1 => Connection::connect(to, endpoint).await.map(Leg::Http1),
            UpstreamProtocol::Http2 => Call::connect(to, endpoint).await.map(Leg::Http2),
        }
    }

    /// What the exchange goes over; in HTTP/2 once its head was sent.
    pub(crate) fn callee(&self) -> Option<Callee<'_>> {
        Some(match self {
            Leg::Http1(connection) => Callee::Http1(&connection.socket),
            Leg::Http2(call) => Callee::Http2(call.stream()?),
        })
    }

    /// The endpoint at the other end.
    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        match self {
            Leg::Http1(connection) => connection.endpoint(),
            Leg::Http2(call) => call.endpoint(),
        }
    }

    /// When the last bytes arrived, on the driver's clock.
    pub(crate) fn received_at_ns(&self) -> u64 {
        match self {
            Leg::Http1(connection) => connection.socket.received_at_ns(),
            Leg::Http2(call) => call.link().received_at_ns(),
        }
    }

    /// The scheme of what goes over it.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Leg::Http1(connection) => connection.socket.scheme(),
            Leg::Http2(call) => call.link().scheme(),
        }
    }

    /// Gives it back after an exchange that left it clean.
    pub(crate) fn check_in(self, to: Destination<'_>) {
        match self {
            Leg::Http1(connection) => connection.check_in(to),
            // Its stream is over, and that is all.
            Leg::Http2(call) => drop(call),
        }
    }
}

/// What is sent to and received from, in the framing of HTTP/1.
#[derive(Clone, Copy)]
pub(crate) enum Callee<'a> {
    Http1(&'a Stream),
    Http2(&'a http2::Stream),
}

impl Callee<'_> {
    /// See [`Stream::poll_receive`].
    pub(crate) fn poll_receive(self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self {
            Callee::Http1(stream) => stream.poll_receive(cx),
            Callee::Http2(stream) => stream.poll_receive(cx),
        }
    }

    /// See [`Stream::poll_receive_for`].
    pub(crate) fn poll_receive_for(
        self,
        cx: &Context<'_>,
        sink: &Stream,
    ) -> Poll<Result<Option<Chunk>, Failed>> {
        match self {
            Callee::Http1(stream) => stream.poll_receive_for(cx, sink),
            Callee::Http2(stream) => stream.poll_receive_for(cx, sink),
        }
    }

    /// Resolves when the connection or the stream has failed, and with it what was to come; to be asked where
    /// nothing is read.
    pub(crate) fn poll_cut_short(self, cx: &Context<'_>) -> Poll<io::Error> {
        match self {
            Callee::Http1(stream) => stream.poll_failed(cx),
            Callee::Http2(stream) => stream.poll_cut_short(cx),
        }
    }

    /// More of the answer's body that is already here.
    pub(crate) fn try_receive(self) -> Option<Chunk> {
        match self {
            Callee::Http1(stream) => stream.try_receive(),
            Callee::Http2(stream) => stream.try_receive(),
        }
    }

    /// Puts bytes back that are to be read next.
    pub(crate) fn put_back(self, chunk: Chunk) {
        match self {
            Callee::Http1(stream) => stream.put_back(chunk),
            Callee::Http2(stream) => stream.put_back(chunk),
        }
    }

    /// Whether received bytes wait to be read.
    pub(crate) fn has_received(self) -> bool {
        match self {
            Callee::Http1(stream) => stream.has_received(),
            Callee::Http2(stream) => stream.has_received(),
        }
    }

    /// Tells that `bytes` are known to come, so that they come in pieces to match.
    pub(crate) fn expect(self, bytes: u64) {
        if let Callee::Http1(stream) = self {
            stream.expect(bytes);
        }
    }

    /// `payload_bytes` of the answer's body have gone on: as many more may come.
    pub(crate) fn consume(self, payload_bytes: u64) {
        if let Callee::Http2(stream) = self {
            stream.consume(payload_bytes as usize);
        }
    }
}
