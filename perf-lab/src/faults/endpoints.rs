//! The endpoints that fall sick: small HTTP/1.1 servers, each on a loopback address of its own, that
//! can be struck by a [`Fault`] at any moment and recover from it, and that remember when each request
//! reached them.
//!
//! Where nobody listens no request is seen. For a refusing endpoint the attempts to connect are read
//! from a raw socket that is bound to its address, so that they are counted whatever the proxy tells
//! its clients; the system grants such sockets to root, or with `CAP_NET_RAW`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use slab::Slab;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    clock::Nanos,
    error::Error,
    origin::{
        answer::{After, Answers, Parsed, answer, parse},
        listen,
    },
    peer::render::PROBE_PATH,
    poll::{Moved, Poller, Token, moved},
};

/// What befalls an endpoint.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// Its connections are reset and nobody listens.
    Refuse,
    /// It accepts, reads the request, and resets the connection.
    Reset,
    /// It accepts, reads, and never answers.
    Hang,
    /// Three of ten answers are a 500.
    Errors,
    /// It takes ten times as long.
    Slow,
}

/// How long a healthy endpoint takes for an answer: a short call inside a data center. A proxy that
/// measures it needs more than the millisecond that the loop may be late.
pub const SERVICE_TIME: Nanos = Nanos::from_millis(5);
const SLOW_TIMES: u64 = 10;
const ERROR_PART: f64 = 0.3;
/// Not a 503: that may come from a proxy in between, and some proxies count it apart.
const ERROR: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
/// Enough for every request of the lab at once, pipelined or not.
const READ_BYTES: usize = 16 << 10;
/// An IPv4 header with options, and what is looked at of the TCP header.
const PACKET_BYTES: usize = 128;

/// When a request, or an attempt to connect, reached an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Which one.
    pub endpoint: usize,
    /// When.
    pub at: Nanos,
}

/// All of them.
pub struct Endpoints {
    endpoints: Vec<Endpoint>,
    connections: Slab<Connection>,
    serial: u64,
    /// When a connection's answer is ready, by slot and serial number.
    ready: BinaryHeap<Reverse<(Nanos, usize, u64)>>,
    answers: Answers,
    random: fastrand::Rng,
    buffer: Vec<u8>,
    hits: Vec<Hit>,
}

struct Endpoint {
    address: SocketAddr,
    /// `None` while it refuses.
    listener: Option<TcpListener>,
    fault: Option<Fault>,
    /// Sees attempts to connect, while it refuses.
    watch: Option<Socket>,
}

struct Connection {
    socket: TcpStream,
    endpoint: usize,
    /// Tells it from others that had its slot.
    serial: u64,
    /// Received and not yet acted upon.
    pending: Vec<u8>,
    /// What it will answer, while it works on a request.
    answer: Option<(Arc<[u8]>, After)>,
}

/// Whether a connection lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Close,
    Reset,
}

impl Endpoints {
    /// So many healthy ones, watched by `poller`. The seed is for the errors.
    pub fn bind(count: usize, seed: u64, poller: &Poller) -> Result<Endpoints, Error> {
        let mut endpoints = Vec::with_capacity(count);
        for i in 0..count {
            let listener = listen((next_ip(), 0).into()).map_err(binding())?;
            poller.add(&listener, Token::Accept(i)).map_err(binding())?;
            endpoints.push(Endpoint {
                address: listener.local_addr().map_err(binding())?,
                listener: Some(listener),
                fault: None,
                watch: None,
            });
        }
        Ok(Endpoints {
            endpoints,
            connections: Slab::new(),
            serial: 0,
            ready: BinaryHeap::new(),
            answers: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
            buffer: vec![0; READ_BYTES],
            hits: Vec::new(),
        })
    }

    /// Where they listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let endpoints = self.endpoints.iter();
        endpoints.map(|endpoint| endpoint.address).collect()
    }

    /// What has reached them so far, in order.
    pub fn hits(&self) -> &[Hit] {
        &self.hits
    }

    /// When the next answer is ready.
    pub fn next_ready(&self) -> Option<Nanos> {
        self.ready.peek().map(|Reverse((at, ..))| *at)
    }

    /// Lets an endpoint fall sick.
    pub fn strike(&mut self, i: usize, fault: Fault) -> Result<(), Error> {
        let Some(endpoint) = self.endpoints.get_mut(i) else {
            return Ok(());
        };
        endpoint.fault = Some(fault);
        if fault == Fault::Refuse {
            endpoint.watch = Some(watch(endpoint.address)?);
            endpoint.listener = None;
            self.reset_connections_of(i);
        }
        Ok(())
    }

    /// Lets it recover. Connections that hang do not: a process that hung has been started again.
    pub fn recover(&mut self, i: usize, poller: &Poller) -> Result<(), Error> {
        let Some(endpoint) = self.endpoints.get_mut(i) else {
            return Ok(());
        };
        endpoint.watch = None;
        if endpoint.listener.is_none() {
            let listener = listen(endpoint.address).map_err(binding())?;
            poller.add(&listener, Token::Accept(i)).map_err(binding())?;
            endpoint.listener = Some(listener);
        }
        if endpoint.fault.take() == Some(Fault::Hang) {
            self.reset_connections_of(i);
        }
        Ok(())
    }

    /// Sends what is ready, and looks at who tried to connect where nobody listens.
    pub fn turn(&mut self, now: Nanos) {
        while let Some(Reverse((at, slot, serial))) = self.ready.peek().copied()
            && at <= now
        {
            self.ready.pop();
            self.answer(slot, serial, now);
        }
        for i in 0..self.endpoints.len() {
            self.count_attempts(i, now);
        }
    }

    /// Takes all connections that wait.
    pub fn accept(&mut self, i: usize, poller: &Poller) {
        let listener = self.endpoints.get(i).and_then(|it| it.listener.as_ref());
        let Some(listener) = listener else {
            return;
        };
        while let Ok((socket, _)) = listener.accept() {
            if socket.set_nonblocking(true).is_err() || socket.set_nodelay(true).is_err() {
                continue;
            }
            let entry = self.connections.vacant_entry();
            if poller.add(&socket, Token::Origin(entry.key())).is_ok() {
                self.serial += 1;
                entry.insert(Connection {
                    socket,
                    endpoint: i,
                    serial: self.serial,
                    pending: Vec::new(),
                    answer: None,
                });
            }
        }
    }

    /// Moves a connection on after an event.
    pub fn on_event(&mut self, slot: usize, now: Nanos) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let fate = match connection.receive(&mut self.buffer) {
            Fate::Keep => self.begin(slot, now),
            fate => fate,
        };
        self.settle(slot, fate);
    }

    /// Takes the next request of a connection that works on none.
    fn begin(&mut self, slot: usize, now: Nanos) -> Fate {
        let Some(connection) = self.connections.get_mut(slot) else {
            return Fate::Keep;
        };
        if connection.pending.is_empty() || connection.answer.is_some() {
            return Fate::Keep;
        }
        let request = match parse(&connection.pending) {
            Parsed::Partial if connection.pending.len() < READ_BYTES => return Fate::Keep,
            Parsed::Partial | Parsed::Malformed => return Fate::Close,
            Parsed::Request(request) => request,
        };
        let i = connection.endpoint;
        if !is_probe(&connection.pending) {
            self.hits.push(Hit {
                endpoint: i,
                at: now,
            });
        }
        connection.pending.drain(..request.head_bytes);
        let fault = self.endpoints.get(i).and_then(|endpoint| endpoint.fault);
        if matches!(fault, Some(Fault::Reset | Fault::Refuse)) {
            return Fate::Reset;
        }
        let after = match request.close {
            true => After::Close,
            false => After::NextRequest,
        };
        let fails = fault == Some(Fault::Errors) && self.random.f64() < ERROR_PART;
        let bytes = match fails {
            true => Arc::from(ERROR),
            false => answer(request.body_bytes, after, &mut self.answers),
        };
        let time = match fault {
            Some(Fault::Slow) => Nanos(SERVICE_TIME.0 * SLOW_TIMES),
            _ => SERVICE_TIME,
        };
        connection.answer = Some((bytes, after));
        let ready = (now + time, slot, connection.serial);
        self.ready.push(Reverse(ready));
        Fate::Keep
    }

    fn answer(&mut self, slot: usize, serial: u64, now: Nanos) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let endpoint = self.endpoints.get(connection.endpoint);
        let hangs = endpoint.is_some_and(|endpoint| endpoint.fault == Some(Fault::Hang));
        if connection.serial != serial || hangs {
            return;
        }
        let fate = match connection.send() {
            Fate::Keep => self.begin(slot, now),
            fate => fate,
        };
        self.settle(slot, fate);
    }

    fn settle(&mut self, slot: usize, fate: Fate) {
        if fate == Fate::Keep {
            return;
        }
        if let Some(connection) = self.connections.try_remove(slot)
            && fate == Fate::Reset
        {
            connection.reset();
        }
    }

    fn reset_connections_of(&mut self, i: usize) {
        let slots = self.connections.iter();
        let of_endpoint = slots.filter(|(_, connection)| connection.endpoint == i);
        for slot in of_endpoint.map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.settle(slot, Fate::Reset);
        }
    }

    fn count_attempts(&mut self, i: usize, now: Nanos) {
        let Some(endpoint) = self.endpoints.get_mut(i) else {
            return;
        };
        let port = endpoint.address.port();
        let Some(watch) = &mut endpoint.watch else {
            return;
        };
        let mut packet = [0; PACKET_BYTES];
        while let Ok(Moved::Bytes(count)) = moved(watch.read(&mut packet)) {
            if is_attempt(packet.get(..count).unwrap_or_default(), port) {
                self.hits.push(Hit {
                    endpoint: i,
                    at: now,
                });
            }
        }
    }
}

impl Connection {
    fn receive(&mut self, buffer: &mut [u8]) -> Fate {
        loop {
            match moved(self.socket.read(buffer)) {
                Ok(Moved::Bytes(count)) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.pending.extend_from_slice(bytes);
                }
                Ok(Moved::Later) => return Fate::Keep,
                Ok(Moved::End) | Err(_) => return Fate::Close,
            }
        }
    }

    /// An answer is a few hundred bytes on a connection that has nothing else to send: one that the
    /// kernel does not take at once has lost its reader.
    fn send(&mut self) -> Fate {
        let Some((bytes, after)) = self.answer.take() else {
            return Fate::Keep;
        };
        match (self.socket.write(&bytes), after) {
            (Ok(count), After::NextRequest) if count == bytes.len() => Fate::Keep,
            _ => Fate::Close,
        }
    }

    fn reset(self) {
        // Without it the end would be an orderly one, unless something was left unread.
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }
}

fn binding() -> impl FnOnce(std::io::Error) -> Error {
    Error::io("listening for an endpoint")
}

/// An address of the loopback network for each endpoint of this process, in turn: a raw socket that is
/// bound to it then sees what is sent to this endpoint alone.
fn next_ip() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = (COUNT.fetch_add(1, Ordering::Relaxed) % 0xff00).to_be_bytes();
    // From 127.77.1.0 on: what begins with 127.0 is often in use.
    Ipv4Addr::new(127, 77, high + 1, low)
}

fn watch(address: SocketAddr) -> Result<Socket, Error> {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::TCP))?;
        let any_port = SocketAddr::new(address.ip(), 0);
        socket.bind(&any_port.into())?;
        Ok(socket)
    };
    open().map_err(|error: std::io::Error| {
        Error::Host(format!(
            "seeing who connects where nobody listens needs CAP_NET_RAW ({error}); leave `refuse` out"
        ))
    })
}

/// Whether an IPv4 packet with a TCP segment asks for a connection to `port` (RFC 9293, section 3.1:
/// the destination port is in bytes 2 and 3, the control bits in byte 13).
fn is_attempt(packet: &[u8], port: u16) -> bool {
    const SYN_AND_ACK: u8 = 0b1_0010;
    const SYN: u8 = 0b10;
    let header_bytes = packet
        .first()
        .map_or(0, |first| usize::from(first & 0xf) * 4);
    let segment = packet.get(header_bytes..).unwrap_or_default();
    let is_for_port = segment.get(2..4) == Some(&port.to_be_bytes()[..]);
    let bits = segment.get(13).copied().unwrap_or(0);
    is_for_port && bits & SYN_AND_ACK == SYN
}

fn is_probe(request: &[u8]) -> bool {
    let target = request.strip_prefix(b"GET ").unwrap_or_default();
    target.starts_with(PROBE_PATH.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    /// Goal: of what reaches an address, attempts to connect to the endpoint's port count and nothing else.
    /// Method: segments behind a plain header and one with options, with other ports and bits, cut short.
    #[test]
    fn attempts_are_told_from_the_rest() {
        const PORT: u16 = 9_001;
        let packet = |words: u8, port: u16, bits: u8| {
            let mut packet = vec![0; usize::from(words) * 4];
            packet.splice(..1, [0x40 | words]);
            let mut segment = [0; 20];
            segment[2..4].copy_from_slice(&port.to_be_bytes());
            segment[13] = bits;
            packet.extend(segment);
            packet
        };
        for (packet, is_one) in [
            (packet(5, PORT, 0b10), true),
            (packet(6, PORT, 0b10), true),
            // With the bits of explicit congestion notification (RFC 3168, section 6.1.1).
            (packet(5, PORT, 0b1100_0010), true),
            (packet(5, PORT + 1, 0b10), false),
            (packet(5, PORT, 0b1_0010), false),
            (packet(5, PORT, 0b100), false),
            (packet(5, PORT, 0b10)[..33].to_vec(), false),
            (Vec::new(), false),
        ] {
            assert_eq!(is_attempt(&packet, PORT), is_one, "{packet:?}");
        }
    }

    /// A check is no request; everything else is.
    #[test]
    fn probes_are_told_from_requests() {
        assert!(is_probe(b"GET /probe/b/0 HTTP/1.1\r\n"));
        assert!(!is_probe(b"GET /b/128 HTTP/1.1\r\n"));
    }
}
