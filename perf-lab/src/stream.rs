//! A non-blocking connection, plain or under TLS, that reads and writes like a socket.
//!
//! Under TLS a short read does not mean that the kernel has no more, and bytes that were taken may
//! still wait in the session: whoever drives one reads until it would block, and calls
//! [`Stream::push`] on every event.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
};

use nix::sys::socket::{MsgFlags, recv};
use rustls::{ClientConnection, HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    peer::certificate::TlsClient,
    poll::{Moved, moved},
};

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// TLS, from the client's side.
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// TLS, from the server's side.
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// Bytes that wait for a connection to take them.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// More is added at its end.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes as much as the connection takes; whether that was all.
    pub fn write(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while let Some(rest) = self.bytes.get(self.written..)
            && !rest.is_empty()
        {
            match moved(socket.write(rest))? {
                Moved::Bytes(count) => self.written += count,
                Moved::Later | Moved::End => return Ok(false),
            }
        }
        self.bytes.clear();
        self.written = 0;
        Ok(true)
    }
}

impl Stream {
    /// A client's end.
    pub fn client(socket: TcpStream, tls: Option<&TlsClient>) -> io::Result<Stream> {
        let Some((config, name)) = tls else {
            return Ok(Stream::Plain(socket));
        };
        let session = ClientConnection::new(config.clone(), name.clone());
        let session = session.map_err(io::Error::other)?;
        Ok(Stream::Client(Box::new(StreamOwned::new(session, socket))))
    }

    /// A server's end.
    pub fn server(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Stream> {
        let Some(config) = tls else {
            return Ok(Stream::Plain(socket));
        };
        let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        Ok(Stream::Server(Box::new(StreamOwned::new(session, socket))))
    }

    /// Whether a read that did not fill its buffer has emptied the kernel's.
    pub fn short_read_is_the_last(&self) -> bool {
        matches!(self, Stream::Plain(_))
    }

    /// Takes up to `buffer.len()` bytes that nobody looks at: the kernel drops them where it can, since to
    /// copy a body would cost this end as much as it costs the proxy to pass it on.
    pub fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            // tcp(7): with this flag received bytes are dropped, and the buffer's length is all that counts.
            Stream::Plain(socket) => Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)?),
            Stream::Client(_) | Stream::Server(_) => self.read(buffer),
        }
    }

    /// Whether its session is one of an earlier connection.
    pub fn is_resumed(&self) -> bool {
        let kind = match self {
            Stream::Plain(_) => None,
            Stream::Client(stream) => stream.conn.handshake_kind(),
            Stream::Server(stream) => stream.conn.handshake_kind(),
        };
        kind == Some(HandshakeKind::Resumed)
    }

    /// What TLS agreed on (RFC 7301), once it has.
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Client(stream) => stream.conn.alpn_protocol(),
            Stream::Server(stream) => stream.conn.alpn_protocol(),
        }
    }

    /// Sends what the session still holds.
    pub fn push(&mut self) -> io::Result<()> {
        let pushed = match self {
            Stream::Plain(_) => Ok(()),
            Stream::Client(stream) => push(&mut stream.conn, &mut stream.sock),
            Stream::Server(stream) => push(&mut stream.conn, &mut stream.sock),
        };
        match pushed {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }
}

/// Starts a connection without waiting for it.
pub fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let domain = Domain::for_address(target);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

fn push<S>(
    session: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<S>>,
    socket: &mut TcpStream,
) -> io::Result<()> {
    while session.wants_write() {
        if session.write_tls(socket)? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Client(stream) => stream.read(buffer),
            Stream::Server(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Client(stream) => stream.write(bytes),
            Stream::Server(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Plain(socket) => socket.as_fd(),
            Stream::Client(stream) => stream.sock.as_fd(),
            Stream::Server(stream) => stream.sock.as_fd(),
        }
    }
}
