//! The client's side of an exchange, whatever it speaks.
//!
//! A request comes as HTTP/1 frames it, also from HTTP/2: what goes to the endpoint is that, and the body
//! is followed and limited in one way. Answers differ more, and are written in `answer.rs` and
//! `download.rs`.

use std::{
    io,
    task::{Context, Poll},
};

use tidegate_codecs::http2::MessageError;
use tidegate_core::reason::Reason;

use super::{Next, exchange::Scratch, reply};
use crate::{
    downstream::{Client, ClientStream},
    ring::{Chunk, Deadline, Failed},
    transport::Stream,
};

/// Where a request comes from, and its answer goes.
#[derive(Clone, Copy)]
pub(crate) enum Caller<'a> {
    /// A connection, all of it until the answer has been sent.
    Http1(&'a Client),
    /// A stream, beside others of its connection.
    Http2(&'a ClientStream),
}

/// How a request begins.
pub(crate) enum Start {
    /// With these bytes, maybe not all of its head.
    Bytes(Chunk),
    /// With this head.
    Head(Box<Scratch>),
    /// With a head that is to be refused.
    Refused(MessageError),
}

impl<'a> Caller<'a> {
    /// The connection.
    pub(super) fn client(self) -> &'a Client {
        match self {
            Caller::Http1(client) => client,
            Caller::Http2(on) => &on.connection.client,
        }
    }

    /// The one deadline of the exchange.
    pub(super) fn deadline(self) -> &'a Deadline {
        match self {
            Caller::Http1(client) => &client.deadline,
            Caller::Http2(on) => &on.deadline,
        }
    }

    pub(super) fn is_http2(self) -> bool {
        matches!(self, Caller::Http2(_))
    }

    /// More of the request's body. Cancel-safe.
    pub(super) async fn receive(self) -> io::Result<Option<Chunk>> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// See [`Caller::receive`].
    pub(super) fn poll_receive(self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self {
            Caller::Http1(client) => client.socket.poll_receive(cx),
            Caller::Http2(on) => on.stream.poll_receive(cx),
        }
    }

    /// See [`Stream::poll_receive_for`].
    pub(super) fn poll_receive_for(
        self,
        cx: &Context<'_>,
        sink: &Stream,
    ) -> Poll<Result<Option<Chunk>, Failed>> {
        match self {
            Caller::Http1(client) => client.socket.poll_receive_for(cx, sink),
            Caller::Http2(on) => on.stream.poll_receive_for(cx, sink),
        }
    }

    /// More of the request's body that is already here.
    pub(super) fn try_receive(self) -> Option<Chunk> {
        match self {
            Caller::Http1(client) => client.socket.try_receive(),
            Caller::Http2(on) => on.stream.try_receive(),
        }
    }

    /// Puts bytes back that are to be read next, or belong to the next request.
    pub(super) fn put_back(self, chunk: Chunk) {
        match self {
            Caller::Http1(client) => client.socket.put_back(chunk),
            Caller::Http2(on) => on.stream.put_back(chunk),
        }
    }

    /// `payload_bytes` of the body have gone on: as many more may come.
    pub(super) fn consume(self, payload_bytes: u64) {
        if let Caller::Http2(on) = self {
            on.stream.consume(payload_bytes as usize);
        }
    }

    /// Resolves when the client has given up.
    pub(super) fn poll_failed(self, cx: &Context<'_>) -> Poll<io::Error> {
        match self {
            Caller::Http1(client) => client.socket.poll_failed(cx),
            Caller::Http2(on) => on.stream.poll_failed(cx),
        }
    }

    /// Turns a request away that is not looked at, as its listener is gone.
    pub(super) async fn turn_away(self) -> Next {
        match self {
            Caller::Http1(client) => reply::refuse_unread(client, Reason::Draining).await,
            Caller::Http2(on) => {
                on.stream.refuse();
                on.connection
                    .client
                    .local
                    .counters()
                    .refuse(Reason::Draining);
                Next::Close
            }
        }
    }
}
