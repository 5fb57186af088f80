//! A tap on a link: a relay between the two proxies that passes every byte on and sees what an eavesdropper
//! would see. It tells TLS from plaintext by the first bytes of each connection, and holds every later byte
//! of a TLS connection, in both directions, to be inside a record (RFC 8446, 5.1). On request it is an attacker
//! who lets no TLS pass.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What a connection looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No byte came yet.
    Silent,
    Plaintext,
    Tls,
}

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Dialling,
    Answering,
}

/// A tap before one address. Removed, it still passes on what it has.
pub struct Tap {
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    connections: Mutex<Vec<Connection>>,
    stopped: AtomicBool,
    /// TLS connections are cut at their next byte.
    cuts_tls: AtomicBool,
}

#[derive(Clone, Copy)]
struct Connection {
    kind: Kind,
    /// The dialling side has not closed yet.
    open: bool,
    /// Bytes came on a TLS connection that belong to no record, by side.
    stray: [bool; 2],
}

impl Tap {
    pub fn before(target: SocketAddr) -> Tap {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target,
            connections: Mutex::new(Vec::new()),
            stopped: AtomicBool::new(false),
            cuts_tls: AtomicBool::new(false),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let state = shared.clone();
                spawn(move || State::relay(&state, stream));
            }
        });
        Tap { address, state }
    }

    /// Connections of a kind that are open now.
    pub fn open(&self, kind: Kind) -> usize {
        self.count(|c| c.kind == kind && c.open)
    }

    /// Connections of a kind that were ever made.
    pub fn made(&self, kind: Kind) -> usize {
        self.count(|c| c.kind == kind)
    }

    /// All connections so far: those from this number on are newer.
    pub fn connections(&self) -> usize {
        self.state.connections.lock().unwrap().len()
    }

    /// How many of the first `n` connections are still open.
    pub fn open_of_first(&self, n: usize) -> usize {
        let connections = self.state.connections.lock().unwrap();
        connections[..n].iter().filter(|c| c.open).count()
    }

    /// TLS connections on which this side sent bytes that are in no record.
    pub fn stray(&self, side: Side) -> usize {
        self.count(|c| c.stray[side as usize])
    }

    /// Begins or ends to cut every TLS connection, in its handshake or later.
    pub fn cut_tls(&self, cut: bool) {
        self.state.cuts_tls.store(cut, Ordering::SeqCst);
    }

    fn count(&self, is_right: impl Fn(&Connection) -> bool) -> usize {
        let connections = self.state.connections.lock().unwrap();
        connections.iter().filter(|c| is_right(c)).count()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn relay(state: &Arc<State>, client: TcpStream) {
        let number = {
            let mut connections = state.connections.lock().unwrap();
            connections.push(Connection {
                kind: Kind::Silent,
                open: true,
                stray: [false; 2],
            });
            connections.len() - 1
        };
        // A closed port is passed on as a closed connection.
        let Ok(server) = TcpStream::connect(state.target) else {
            state.change(number, |c| c.open = false);
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (Ok(from_server), Ok(to_client)) = (server.try_clone(), client.try_clone()) else {
            return;
        };
        let back = state.clone();
        spawn(move || back.copy(number, from_server, to_client, Side::Answering));
        state.copy(number, client, server, Side::Dialling);
    }

    /// Passes on until the end what `side` sends.
    fn copy(&self, number: usize, mut from: TcpStream, mut to: TcpStream, side: Side) {
        let mut records = None;
        let mut chunk = [0; 16 << 10];
        loop {
            let n = match from.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            let kind = self.look(number, &mut records, &chunk[..n], side);
            if kind == Kind::Tls && self.cuts_tls.load(Ordering::SeqCst) {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                break;
            }
            if to.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        // The other direction ends by itself: whoever closed does not read what still comes.
        if side == Side::Dialling {
            self.change(number, |c| c.open = false);
        }
    }

    fn look(&self, number: usize, records: &mut Option<Records>, bytes: &[u8], side: Side) -> Kind {
        if records.is_none() && side == Side::Dialling {
            let kind = match bytes {
                [0x16, 0x03, ..] | [0x16] => Kind::Tls,
                _ => Kind::Plaintext,
            };
            self.change(number, |c| c.kind = kind);
        }
        let kind = self.connections.lock().unwrap()[number].kind;
        if kind == Kind::Tls && records.get_or_insert_default().take(bytes).is_err() {
            self.change(number, |c| c.stray[side as usize] = true);
        }
        records.get_or_insert_default();
        kind
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Connection)) {
        change(&mut self.connections.lock().unwrap()[number]);
    }
}

/// Follows the record layer: five bytes of header, then as many as it says.
#[derive(Default)]
struct Records {
    header: Vec<u8>,
    /// What is left of the record that has begun.
    left: usize,
}

impl Records {
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                bytes = &bytes[n..];
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            match self.header[..] {
                // Change cipher spec, alert, handshake, application data; and any version of TLS.
                [20..=23] | [20..=23, 3] | [20..=23, 3, 0..=4] | [_, _, _, _] => {}
                [_, _, _, high, low] => {
                    self.left = usize::from(u16::from_be_bytes([high, low]));
                    self.header.clear();
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(run)
        .unwrap();
}

/// Goal: the tap tells records from anything else. Method: three records, whole and byte by byte, then text
/// where a record should begin.
#[test]
fn records_are_followed() {
    let bytes = [
        22, 3, 1, 0, 2, 1, 1, 20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 0, 21, 3, 3, 0, 1, 0,
    ];
    Records::default().take(&bytes).unwrap();
    let mut records = Records::default();
    for byte in bytes {
        records.take(&[byte]).unwrap();
    }
    assert!(records.take(b"GET /").is_err());
    assert!(Records::default().take(b"HTTP/1.1").is_err());
}
