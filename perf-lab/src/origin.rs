//! The origin: the application behind the proxies. It answers `GET …/b/N` with N bytes, or sends
//! back whatever comes, and does as little else as it can, so that it is never the bottleneck.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    error::Error,
    poll::{Moved, Poller, Token, moved},
};

/// What the origin does on its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OriginMode {
    /// Answers `GET …/b/N` with a body of N bytes, and keeps the connection.
    Http,
    /// The same, and closes the connection after each answer.
    HttpClose,
    /// Sends back every byte.
    Echo,
}

/// The largest body that can be asked for.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Different answers kept ready; a benchmark asks for a handful.
const ANSWERS_MAX: usize = 64;
/// A request head, and bytes of a stalled echo, are kept up to this.
const PENDING_BYTES_MAX: usize = 64 << 10;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Pending connections; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
const HEAD_FIELDS_MAX: usize = 64;

/// The origin, driven by the loop of [`crate::worker`].
pub struct Origin {
    listener: TcpListener,
    mode: OriginMode,
    connections: Slab<Connection>,
    /// Whole answers by body size.
    answers: BTreeMap<usize, Arc<[u8]>>,
    buffer: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    /// Received and not yet acted upon.
    pending: Vec<u8>,
    /// Being sent, from an offset on.
    answer: Option<(Arc<[u8]>, usize)>,
    /// Bytes of a request body still to be skipped.
    skip: u64,
    after: After,
}

/// What follows the answer that is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    NextRequest,
    Close,
}

/// Whether a connection lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Drop,
}

impl Origin {
    /// Listens on `address`; port 0 picks a free one.
    pub fn bind(address: SocketAddr, mode: OriginMode) -> Result<Origin, Error> {
        Ok(Origin {
            listener: listen(address).map_err(Error::io(format!("listening on {address}")))?,
            mode,
            connections: Slab::new(),
            answers: BTreeMap::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.listener
            .local_addr()
            .map_err(Error::io("asking for the origin's address"))
    }

    /// Begins to be driven by `poller`.
    pub fn register(&self, poller: &Poller) -> Result<(), Error> {
        poller
            .add(&self.listener, Token::Accept)
            .map_err(Error::io("watching the origin's listener"))
    }

    /// Takes all connections that wait. Out of descriptors, the rest waits for the next event.
    pub fn accept(&mut self, poller: &Poller) {
        while let Ok((socket, _)) = self.listener.accept() {
            if socket.set_nonblocking(true).is_err() || socket.set_nodelay(true).is_err() {
                continue;
            }
            let entry = self.connections.vacant_entry();
            if poller.add(&socket, Token::Origin(entry.key())).is_ok() {
                entry.insert(Connection {
                    socket,
                    pending: Vec::new(),
                    answer: None,
                    skip: 0,
                    after: After::NextRequest,
                });
            }
        }
    }

    /// Moves a connection on after an event.
    pub fn on_event(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let fate = match self.mode {
            OriginMode::Echo => connection.echo(&mut self.buffer),
            OriginMode::Http | OriginMode::HttpClose => {
                connection.serve(self.mode, &mut self.answers, &mut self.buffer)
            }
        };
        if fate == Fate::Drop {
            self.connections.remove(key);
        }
    }
}

impl Connection {
    fn serve(
        &mut self,
        mode: OriginMode,
        answers: &mut BTreeMap<usize, Arc<[u8]>>,
        buffer: &mut [u8],
    ) -> Fate {
        if self.send() == Fate::Drop || self.take(&[], mode, answers) == Fate::Drop {
            return Fate::Drop;
        }
        loop {
            // While an answer is stuck nothing is read: the client's back-pressure is real.
            if self.answer.is_some() {
                return Fate::Keep;
            }
            let count = match moved(self.socket.read(buffer)) {
                Ok(Moved::Bytes(count)) => count,
                Ok(Moved::Later) => return Fate::Keep,
                Ok(Moved::End) | Err(_) => return Fate::Drop,
            };
            if self.take(buffer.get(..count).unwrap_or_default(), mode, answers) == Fate::Drop {
                return Fate::Drop;
            }
            if count < buffer.len() {
                return Fate::Keep;
            }
        }
    }

    /// Acts on what was kept and what was received: as many requests as they hold, until an answer
    /// gets stuck.
    fn take(
        &mut self,
        input: &[u8],
        mode: OriginMode,
        answers: &mut BTreeMap<usize, Arc<[u8]>>,
    ) -> Fate {
        // The usual case, one whole request, is parsed where it lies.
        let mut kept = std::mem::take(&mut self.pending);
        let mut rest = if kept.is_empty() {
            input
        } else {
            kept.extend_from_slice(input);
            kept.as_slice()
        };
        while !rest.is_empty() && self.answer.is_none() {
            let skipped = usize::try_from(self.skip)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            self.skip -= skipped as u64;
            rest = rest.get(skipped..).unwrap_or_default();
            let request = match parse(rest) {
                Parsed::Partial if rest.len() < PENDING_BYTES_MAX => break,
                Parsed::Partial | Parsed::Malformed => return Fate::Drop,
                Parsed::Request(request) => request,
            };
            rest = rest.get(request.head_bytes..).unwrap_or_default();
            self.skip = request.content_length;
            if request.close || mode == OriginMode::HttpClose {
                self.after = After::Close;
            }
            self.answer = Some((answer(request.body_bytes, self.after, answers), 0));
            if self.send() == Fate::Drop {
                return Fate::Drop;
            }
        }
        self.pending = rest.to_vec();
        Fate::Keep
    }

    fn send(&mut self) -> Fate {
        while let Some((answer, offset)) = &mut self.answer {
            let rest = answer.get(*offset..).unwrap_or_default();
            if rest.is_empty() {
                self.answer = None;
                return match self.after {
                    After::NextRequest => Fate::Keep,
                    After::Close => Fate::Drop,
                };
            }
            match moved(self.socket.write(rest)) {
                Ok(Moved::Bytes(count)) => *offset += count,
                Ok(Moved::Later) => return Fate::Keep,
                Ok(Moved::End) | Err(_) => return Fate::Drop,
            }
        }
        Fate::Keep
    }

    fn echo(&mut self, buffer: &mut [u8]) -> Fate {
        loop {
            while !self.pending.is_empty() {
                match moved(self.socket.write(&self.pending)) {
                    Ok(Moved::Bytes(count)) => drop(self.pending.drain(..count)),
                    Ok(Moved::Later) => return Fate::Keep,
                    Ok(Moved::End) | Err(_) => return Fate::Drop,
                }
            }
            let count = match moved(self.socket.read(buffer)) {
                Ok(Moved::Bytes(count)) => count,
                Ok(Moved::Later) => return Fate::Keep,
                Ok(Moved::End) | Err(_) => return Fate::Drop,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            let sent = match moved(self.socket.write(bytes)) {
                Ok(Moved::Bytes(sent)) => sent,
                Ok(Moved::Later) => 0,
                Ok(Moved::End) | Err(_) => return Fate::Drop,
            };
            self.pending
                .extend_from_slice(bytes.get(sent..).unwrap_or_default());
            if sent == count && count < buffer.len() {
                return Fate::Keep;
            }
        }
    }
}

struct Request {
    head_bytes: usize,
    /// Size of the body asked for; `None` is not found.
    body_bytes: Option<usize>,
    content_length: u64,
    close: bool,
}

enum Parsed {
    Partial,
    Malformed,
    Request(Request),
}

fn parse(input: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let head_bytes = match parsed.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Malformed,
    };
    let mut request = Request {
        head_bytes,
        body_bytes: parsed.path.and_then(body_size),
        content_length: 0,
        close: parsed.version == Some(0),
    };
    for field in parsed.headers.iter() {
        match field.name.len() {
            10 if field.name.eq_ignore_ascii_case("connection") => {
                request.close |= field.value.eq_ignore_ascii_case(b"close");
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                let value = std::str::from_utf8(field.value).ok();
                match value.and_then(|text| text.parse().ok()) {
                    Some(length) => request.content_length = length,
                    None => return Parsed::Malformed,
                }
            }
            // No peer here sends one for a GET, and skipping chunks would be code without use.
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                return Parsed::Malformed;
            }
            _ => {}
        }
    }
    Parsed::Request(request)
}

/// The N of a path that ends in `/b/N`.
fn body_size(path: &str) -> Option<usize> {
    let (_, size) = path.rsplit_once("/b/")?;
    size.parse().ok().filter(|size| *size <= BODY_BYTES_MAX)
}

fn answer(
    body_bytes: Option<usize>,
    after: After,
    answers: &mut BTreeMap<usize, Arc<[u8]>>,
) -> Arc<[u8]> {
    let Some(size) = body_bytes else {
        return Arc::from(&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..]);
    };
    if after == After::Close {
        return build_answer(size, "Connection: close\r\n");
    }
    if let Some(answer) = answers.get(&size) {
        return answer.clone();
    }
    let answer = build_answer(size, "");
    if answers.len() < ANSWERS_MAX {
        answers.insert(size, answer.clone());
    }
    answer
}

fn build_answer(size: usize, connection: &str) -> Arc<[u8]> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n{connection}\r\n"
    )
    .into_bytes();
    bytes.resize(bytes.len() + size, b'x');
    bytes.into()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size is the number after the last `/b/`, within the limit, whatever stands before it.
    #[test]
    fn body_sizes_by_path() {
        for (path, size) in [
            ("/b/128", Some(128)),
            ("/route-0999/b/16384", Some(16384)),
            ("/b/1/b/2", Some(2)),
            ("/b/", None),
            ("/b/-1", None),
            ("/", None),
            ("/b/67108864", Some(BODY_BYTES_MAX)),
            ("/b/67108865", None),
        ] {
            assert_eq!(body_size(path), size, "{path}");
        }
    }

    /// An answer's length is its head's and the body's, and is built once.
    #[test]
    fn answers_are_kept() {
        let mut answers = BTreeMap::new();
        let first = answer(Some(128), After::NextRequest, &mut answers);
        let second = answer(Some(128), After::NextRequest, &mut answers);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(first.ends_with(&[b'x'; 128]));
        assert_eq!(answers.len(), 1);
    }
}
