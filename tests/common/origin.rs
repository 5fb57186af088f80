//! Origins whose every byte the test decides: a thread per connection, a closure as the script.

use std::{
    fmt,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    eventually,
    wire::{Head, Wire},
};

/// A listening origin. Displays as its address.
pub struct Origin {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

/// A request as an origin received it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The how-many-th connection it came on, from 0.
    pub connection: usize,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

/// A connection as its script sees it.
pub struct Peer {
    pub wire: Wire,
    /// The how-many-th connection this is, from 0.
    pub number: usize,
    state: Arc<State>,
}

impl Origin {
    /// Serves each connection with `script`; when it returns, the connection is closed.
    pub fn start(script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Origin {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), script)
    }

    /// The same on a socket that the test has bound.
    pub fn on(
        listener: TcpListener,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Origin {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let script = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let state = shared.clone();
                let script = script.clone();
                thread::Builder::new()
                    .stack_size(128 << 10)
                    .spawn(move || {
                        let mut peer = Peer {
                            wire: Wire::new(stream),
                            number,
                            state: state.clone(),
                        };
                        // The other side may close at any moment; what matters is asserted by the test.
                        let _ = script(&mut peer);
                        drop(peer);
                        state.open.fetch_sub(1, Ordering::SeqCst);
                    })
                    .unwrap();
            }
        });
        Origin { address, state }
    }

    /// Answers every request with 200 and, as the body, the head as it was received; then the body. The
    /// target may ask for something else, see [`answer`].
    pub fn echo() -> Origin {
        Self::start(|peer| {
            while let Some(request) = peer.next_request()? {
                answer(&mut peer.wire, &request)?;
            }
            Ok(())
        })
    }

    /// Answers every request with these bytes, whatever they are, and keeps the connection.
    pub fn saying(bytes: impl Into<Vec<u8>>) -> Origin {
        let bytes = bytes.into();
        Self::start(move |peer| {
            while peer.next_request()?.is_some() {
                peer.wire.send(&bytes)?;
            }
            Ok(())
        })
    }

    /// Answers every request with these bytes and closes.
    pub fn saying_once(bytes: impl Into<Vec<u8>>) -> Origin {
        let bytes = bytes.into();
        Self::start(move |peer| {
            peer.next_request()?;
            peer.wire.send(&bytes)
        })
    }

    /// Answers 200 with this text as the body: for telling origins apart.
    pub fn named(name: &str) -> Origin {
        Self::saying(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
            name.len()
        ))
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// Waits until `n` requests were read in full.
    pub fn wait_for_requests(&self, n: usize) {
        eventually(&format!("{n} requests at the origin"), || {
            (self.requests().len() >= n).then_some(())
        });
    }

    /// Waits until no connection is open.
    pub fn wait_until_idle(&self) {
        eventually("no connection to the origin", || {
            (self.open_connections() == 0).then_some(())
        });
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Peer {
    /// Reads and records a whole request; `None` when the peer closed between requests.
    pub fn next_request(&mut self) -> io::Result<Option<Request>> {
        let head = match self.wire.head() {
            Ok(head) => head,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        // A server answers to the expectation, or the client may wait for ever (RFC 9110, 10.1.1).
        if head.get("expect").is_some() {
            self.wire.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let (body, trailers) = self.wire.body(&head, false)?;
        Ok(Some(self.record(head, body, trailers)))
    }

    /// Reads a head, records it without a body, and leaves the body where it is.
    pub fn next_head(&mut self) -> io::Result<Request> {
        let head = self.wire.head()?;
        Ok(self.record(head, Vec::new(), Vec::new()))
    }

    fn record(&self, head: Head, body: Vec<u8>, trailers: Vec<(String, String)>) -> Request {
        let request = Request {
            connection: self.number,
            head,
            body,
            trailers,
        };
        self.state.requests.lock().unwrap().push(request.clone());
        request
    }
}

/// What [`Origin::echo`] answers, by the path:
/// `/bytes/N` N bytes of [`pattern`](super::pattern) · `/chunked/N` the same in chunks · `/close/N` the same
/// until the connection closes · `/status/N` that status, without body · `/trailers` chunks and
/// trailers · `/body` the request's body · anything else: the request's head, then its body.
pub fn answer(wire: &mut Wire, request: &Request) -> io::Result<()> {
    let target = request.head.target().to_owned();
    let path = target.split('?').next().unwrap_or_default();
    let mut parts = path.trim_start_matches('/').split('/');
    let kind = parts.next().unwrap_or_default();
    let number = parts.next().and_then(|n| n.parse::<usize>().ok());
    let is_head = request.head.method() == "HEAD";
    match (kind, number) {
        ("bytes", Some(n)) => fixed(wire, &super::pattern(n), is_head),
        ("chunked", Some(n)) => {
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            if is_head {
                return Ok(());
            }
            for chunk in super::pattern(n).chunks(10_000) {
                send_chunk(&mut wire.stream, chunk)?;
            }
            wire.send("0\r\n\r\n")
        }
        ("close", Some(n)) => {
            wire.send("HTTP/1.1 200 OK\r\n\r\n")?;
            if !is_head {
                wire.send(super::pattern(n))?;
            }
            wire.finish()?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        ("status", Some(n)) if matches!(n, 204 | 304) => {
            wire.send(format!("HTTP/1.1 {n} Status\r\nETag: \"x\"\r\n\r\n"))
        }
        ("status", Some(n)) => {
            wire.send(format!("HTTP/1.1 {n} Status\r\nContent-Length: 0\r\n\r\n"))
        }
        ("trailers", _) => wire.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Sum: 42\r\n\r\n",
        ),
        ("body", _) => fixed(wire, &request.body, is_head),
        _ => {
            let mut body = request.head.raw.clone().into_bytes();
            body.extend_from_slice(&request.body);
            fixed(wire, &body, is_head)
        }
    }
}

fn fixed(wire: &mut Wire, body: &[u8], is_head: bool) -> io::Result<()> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    if !is_head {
        bytes.extend_from_slice(body);
    }
    wire.send(bytes)
}

/// One chunk in one write.
pub fn send_chunk(out: &mut impl Write, chunk: &[u8]) -> io::Result<()> {
    let mut bytes = format!("{:x}\r\n", chunk.len()).into_bytes();
    bytes.extend_from_slice(chunk);
    bytes.extend_from_slice(b"\r\n");
    out.write_all(&bytes)
}
