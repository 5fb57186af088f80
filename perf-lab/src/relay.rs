//! The floor: bytes from one socket to another and nothing else, over the same loop as the rest of the
//! lab. What it costs is what the kernel charges any proxy that copies; a real one comes on top.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use slab::Slab;

use crate::{
    error::Error,
    origin::listen,
    poll::{Moved, Poller, Token, Wait, moved},
    run::Interrupt,
    stream::connect,
};

/// Bytes copied at once.
const COPY_BYTES: usize = 64 << 10;
/// How often the loop looks whether it should end.
const TICK: Duration = Duration::from_millis(100);

/// Relays until a signal comes.
pub fn relay(on: SocketAddr, upstream: SocketAddr, interrupt: &Interrupt) -> Result<(), Error> {
    let listener = listen(on).map_err(Error::io(format!("listening on {on}")))?;
    let mut poller = Poller::new().map_err(Error::io("creating an epoll instance"))?;
    poller
        .add(&listener, Token::Accept(0))
        .map_err(Error::io("watching the listener"))?;
    let mut relay = Relay {
        upstream,
        pairs: Slab::new(),
        buffer: vec![0; COPY_BYTES],
    };
    while interrupt.check().is_ok() {
        let wait = Wait::AtMost(TICK);
        let count = poller.wait(wait).map_err(Error::io("waiting for events"))?;
        for i in 0..count {
            match poller.token(i) {
                Some(Token::Accept(_)) => relay.accept(&listener, &poller),
                Some(Token::Origin(key)) => relay.on_event(key, poller.tells_of_an_end(i)),
                _ => {}
            }
        }
    }
    Ok(())
}

struct Relay {
    upstream: SocketAddr,
    pairs: Slab<Pair>,
    buffer: Vec<u8>,
}

/// A client's connection and the one that was made for it.
struct Pair {
    sides: [TcpStream; 2],
    /// From each side to the other.
    ways: [Way; 2],
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not yet written, which happens only if the receiver is slow.
    pending: Vec<u8>,
    ended: bool,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, poller: &Poller) {
        while let Ok((client, _)) = listener.accept() {
            let prepared = client
                .set_nonblocking(true)
                .and_then(|()| client.set_nodelay(true));
            let (Ok(()), Ok(server)) = (prepared, connect(self.upstream)) else {
                continue;
            };
            let entry = self.pairs.vacant_entry();
            // Both ends report under the pair's key: each event looks at both directions.
            let token = Token::Origin(entry.key());
            if poller.add(&client, token).is_ok() && poller.add(&server, token).is_ok() {
                entry.insert(Pair {
                    sides: [client, server],
                    ways: Default::default(),
                });
            }
        }
    }

    fn on_event(&mut self, key: usize, to_the_end: bool) {
        let Some(Pair { sides, ways }) = self.pairs.get_mut(key) else {
            return;
        };
        let [client, server] = sides;
        let [up, down] = ways;
        let buffer = &mut self.buffer;
        let alive = up.copy(client, server, buffer, to_the_end)
            && down.copy(server, client, buffer, to_the_end);
        if !alive || (up.is_done() && down.is_done()) {
            self.pairs.remove(key);
        }
    }
}

impl Way {
    fn is_done(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    /// Moves what can be moved; false if one of the ends is broken. A short read is taken for the last,
    /// which saves a call, unless an end was told of: that is only found by reading on.
    fn copy(
        &mut self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        buffer: &mut [u8],
        to_the_end: bool,
    ) -> bool {
        loop {
            while !self.pending.is_empty() {
                match moved(to.write(&self.pending)) {
                    Ok(Moved::Bytes(count)) => drop(self.pending.drain(..count)),
                    Ok(Moved::Later) => return true,
                    Ok(Moved::End) | Err(_) => return false,
                }
            }
            if self.ended {
                return true;
            }
            let count = match moved(from.read(buffer)) {
                Ok(Moved::Bytes(count)) => count,
                Ok(Moved::Later) => return true,
                Ok(Moved::End) => {
                    self.ended = true;
                    // The other side may be gone already, which is as good.
                    let _ = to.shutdown(Shutdown::Write);
                    return true;
                }
                Err(_) => return false,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            let sent = match moved(to.write(bytes)) {
                Ok(Moved::Bytes(sent)) => sent,
                Ok(Moved::Later) => 0,
                Ok(Moved::End) | Err(_) => return false,
            };
            let rest = bytes.get(sent..).unwrap_or_default();
            self.pending.extend_from_slice(rest);
            if rest.is_empty() && count < buffer.len() && !to_the_end {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;

    /// Bytes and ends pass in both directions, however they come together: a client that sends and ends
    /// its half at once gets all of what the server, which waits for that end, sends back and ends.
    #[test]
    fn bytes_and_ends_pass() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = server.local_addr().unwrap();
        let listen = crate::peer::process::free_address().unwrap();
        let interrupt = Interrupt::default();
        let relaying = interrupt.clone();
        let relay = thread::spawn(move || relay(listen, upstream, &relaying));
        for bytes in [1, 1_000, 1 << 20] {
            let mut client = loop {
                match TcpStream::connect(listen) {
                    Ok(client) => break client,
                    Err(_) => thread::yield_now(),
                }
            };
            let sent = vec![b'x'; bytes];
            let answer = thread::spawn({
                let server = server.try_clone().unwrap();
                move || {
                    let (mut socket, _) = server.accept().unwrap();
                    let mut received = Vec::new();
                    socket.read_to_end(&mut received).unwrap();
                    socket.write_all(&received).unwrap();
                }
            });
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).unwrap();
            assert!(back == sent, "{} of {bytes}", back.len());
            answer.join().unwrap();
        }
        interrupt.set();
        relay.join().unwrap().unwrap();
    }
}
