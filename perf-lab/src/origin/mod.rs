//! The origin: the application behind the proxies. It answers `GET …/b/N` with N bytes, or sends
//! back whatever comes, and does as little else as it can, so that it is never the bottleneck; unless
//! a scenario asks it to be slow ([`behaviour`]), or dead.

pub(crate) mod answer;
pub mod behaviour;
mod burn;
mod connection;
mod multiplexed;

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use rustls::ServerConfig;
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use self::{
    answer::Answers,
    behaviour::Behaviour,
    connection::{Connection, Fate, Shared},
};
use crate::{
    clock::{Clock, Nanos},
    error::Error,
    poll::{Poller, Token},
    scenario::Upstream,
    stream::Stream,
};

/// What the origin does on its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OriginMode {
    /// Answers `GET …/b/N` with a body of N bytes, and keeps the connection.
    Http,
    /// The same, and closes the connection after each answer.
    HttpClose,
    /// The same as `http`, over HTTP/2: with prior knowledge, or after TLS.
    Http2,
    /// Sends back every byte.
    Echo,
}

/// The largest body that can be asked for.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Pending connections; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The origin, driven by the loop of [`crate::worker`].
pub struct Origin {
    endpoints: Vec<Endpoint>,
    mode: OriginMode,
    connections: Slab<Accepted>,
    serial: u64,
    answers: Answers,
    buffer: Vec<u8>,
    behaviour: Option<Behaviour>,
    tls: Option<Arc<ServerConfig>>,
    /// CPU time that each answer costs.
    cpu_time: Nanos,
    clock: Clock,
}

/// A connection.
struct Accepted {
    /// Which of the endpoints it belongs to.
    endpoint: usize,
    /// Tells it from others that had its slot.
    serial: u64,
    speaks: Speaks,
}

enum Speaks {
    /// HTTP/1.1, or an echo.
    Serial(Box<Connection>),
    /// HTTP/2.
    Multiplexed(Box<multiplexed::Connection>),
}

struct Endpoint {
    address: SocketAddr,
    /// `None` while it is dead.
    listener: Option<TcpListener>,
}

impl Origin {
    /// One endpoint that listens on `address`; port 0 picks a free one.
    pub fn bind(address: SocketAddr, mode: OriginMode) -> Result<Origin, Error> {
        Ok(Origin {
            endpoints: vec![Endpoint::bind(address)?],
            mode,
            connections: Slab::new(),
            serial: 0,
            answers: BTreeMap::new(),
            buffer: vec![0; READ_BYTES],
            behaviour: None,
            tls: None,
            cpu_time: Nanos::ZERO,
            clock: Clock::start(),
        })
    }

    /// As a scenario wants it: with further endpoints on free ports of the same address, and with its
    /// behaviour.
    pub fn behave(mut self, upstream: &Upstream, seed: u64) -> Result<Origin, Error> {
        let mut address = self.address()?;
        address.set_port(0);
        while self.endpoints.len() < upstream.endpoints {
            self.endpoints.push(Endpoint::bind(address)?);
        }
        self.behaviour = Behaviour::of(upstream, seed);
        Ok(self)
    }

    /// Speaks TLS: where there is no proxy to do it.
    pub fn encrypt(mut self, config: Arc<ServerConfig>) -> Origin {
        self.tls = Some(config);
        self
    }

    /// Computes for so long before each answer.
    pub fn burn(mut self, cpu_time: Nanos) -> Origin {
        self.cpu_time = cpu_time;
        self
    }

    /// Where its first endpoint listens.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        let first = self.endpoints.first().map(|endpoint| endpoint.address);
        first.ok_or_else(|| Error::Load("the origin has no endpoint".to_owned()))
    }

    /// Where all its endpoints listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.address)
            .collect()
    }

    /// Begins to be driven by `poller`.
    pub fn register(&self, poller: &Poller) -> Result<(), Error> {
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            if let Some(listener) = &endpoint.listener {
                poller
                    .add(listener, Token::Accept(i))
                    .map_err(Error::io("watching the origin's listener"))?;
            }
        }
        Ok(())
    }

    /// Whether the loop must not sleep, because an answer may be due at any microsecond. Where CPU time is
    /// what is short, spinning would be others' answers: then they may be late by a turn of the loop.
    pub fn must_be_punctual(&self) -> bool {
        let is_waiting = self.behaviour.as_ref().is_some_and(Behaviour::is_waiting);
        is_waiting && self.cpu_time == Nanos::ZERO
    }

    /// Lets endpoints die and live as the bits of `dead` say.
    pub fn turn(&mut self, poller: &Poller, dead: u64) {
        for i in 0..self.endpoints.len() {
            let is_dead = dead & (1 << i) != 0;
            if self
                .endpoints
                .get(i)
                .is_some_and(|endpoint| endpoint.listener.is_none() != is_dead)
            {
                self.change(i, is_dead, poller);
            }
        }
    }

    /// Sends one answer that is due; whether there was one. One, so that others are not kept waiting.
    pub fn answer_due(&mut self, poller: &Poller) -> bool {
        let Some(behaviour) = &mut self.behaviour else {
            return false;
        };
        let Some((slot, serial)) = behaviour.take_due(self.clock.now()) else {
            return false;
        };
        if let Some(connection) = self.connections.get_mut(slot)
            && connection.serial == serial
        {
            if let Speaks::Serial(connection) = &mut connection.speaks {
                connection.release();
            }
            self.on_event(slot, poller);
        }
        true
    }

    fn change(&mut self, i: usize, is_dead: bool, poller: &Poller) {
        let Some(endpoint) = self.endpoints.get_mut(i) else {
            return;
        };
        if is_dead {
            endpoint.listener = None;
            self.connections
                .retain(|_, connection| connection.endpoint != i);
        } else if let Ok(listener) = listen(endpoint.address)
            && poller.add(&listener, Token::Accept(i)).is_ok()
        {
            // Somebody else may have taken its port meanwhile: then it is tried again next turn.
            endpoint.listener = Some(listener);
        }
    }

    /// Takes all connections that wait. Out of descriptors, the rest waits for the next event.
    pub fn accept(&mut self, i: usize, poller: &Poller) {
        let Some(listener) = self
            .endpoints
            .get(i)
            .and_then(|endpoint| endpoint.listener.as_ref())
        else {
            return;
        };
        while let Ok((socket, _)) = listener.accept() {
            if socket.set_nonblocking(true).is_err() || socket.set_nodelay(true).is_err() {
                continue;
            }
            let Ok(socket) = Stream::server(socket, self.tls.as_ref()) else {
                continue;
            };
            let entry = self.connections.vacant_entry();
            if poller.add(&socket, Token::Origin(entry.key())).is_ok() {
                self.serial += 1;
                entry.insert(Accepted {
                    endpoint: i,
                    serial: self.serial,
                    speaks: Speaks::new(socket, self.mode, self.serial, self.clock.now()),
                });
            }
        }
    }

    /// Moves a connection on after an event.
    pub fn on_event(&mut self, slot: usize, poller: &Poller) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let clock = self.clock;
        let behaviour = self.behaviour.as_mut();
        let mut shared = Shared {
            mode: self.mode,
            answers: &mut self.answers,
            buffer: &mut self.buffer,
            behaviour: behaviour.map(|behaviour| (behaviour, clock.now())),
            cpu_time: self.cpu_time,
            slot,
            bytes_left: poller.event_bytes(),
        };
        let mut fate = match &mut connection.speaks {
            Speaks::Multiplexed(connection) => connection.serve(&mut shared, clock.now()),
            Speaks::Serial(connection) if self.mode == OriginMode::Echo => {
                connection.echo(shared.buffer)
            }
            Speaks::Serial(connection) => connection.serve(&mut shared),
        };
        if shared.bytes_left == 0
            && let Speaks::Serial(connection) = &connection.speaks
            && poller
                .again(connection.socket(), Token::Origin(slot))
                .is_err()
        {
            fate = Fate::Drop;
        }
        if fate == Fate::Drop {
            self.connections.remove(slot);
        }
    }
}

impl Speaks {
    fn new(socket: Stream, mode: OriginMode, serial: u64, now: Nanos) -> Speaks {
        match mode {
            OriginMode::Http2 => {
                Speaks::Multiplexed(Box::new(multiplexed::Connection::new(socket, serial, now)))
            }
            OriginMode::Http | OriginMode::HttpClose | OriginMode::Echo => {
                Speaks::Serial(Box::new(Connection::new(socket, serial)))
            }
        }
    }
}

impl Endpoint {
    fn bind(address: SocketAddr) -> Result<Endpoint, Error> {
        let wrong = || Error::io(format!("listening on {address}"));
        let listener = listen(address).map_err(wrong())?;
        Ok(Endpoint {
            address: listener.local_addr().map_err(wrong())?,
            listener: Some(listener),
        })
    }
}

pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::{io::Read, net::TcpStream};

    use super::*;

    /// An endpoint that dies closes its connections and takes no more, the other one lives on, and the
    /// dead one comes back under its address.
    #[test]
    fn endpoints_die_and_live() {
        let upstream = Upstream {
            endpoints: 2,
            ..Upstream::default()
        };
        let origin = Origin::bind(([127, 0, 0, 1], 0).into(), OriginMode::Http).unwrap();
        let mut origin = origin.behave(&upstream, 1).unwrap();
        let poller = Poller::new().unwrap();
        origin.register(&poller).unwrap();
        let addresses = origin.addresses();
        let mut first = TcpStream::connect(addresses[0]).unwrap();
        let second = TcpStream::connect(addresses[1]).unwrap();
        origin.accept(0, &poller);
        origin.accept(1, &poller);
        origin.turn(&poller, 0b01);
        assert_eq!(first.read(&mut [0]).unwrap(), 0);
        assert!(TcpStream::connect(addresses[0]).is_err());
        second.set_nonblocking(true).unwrap();
        let alive = (&second).read(&mut [0]).unwrap_err();
        assert_eq!(alive.kind(), io::ErrorKind::WouldBlock);
        origin.turn(&poller, 0);
        assert!(TcpStream::connect(addresses[0]).is_ok());
        assert_eq!(origin.connections.len(), 1);
    }
}
