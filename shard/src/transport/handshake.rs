//! From an accepted or connected socket to a [`Stream`]: telling TLS from plaintext, shaking hands, and
//! what is left to check.

use std::{io, net::SocketAddr, pin::pin, rc::Rc, task::Poll, time::Duration};

use rustls::{
    ProtocolVersion, client::UnbufferedClientConnection, pki_types::UnixTime,
    server::UnbufferedServerConnection,
};
use tidegate_core::{
    config::model::{ListenerTls, ServerMode},
    reason::Reason,
    snapshot::{self, Listener},
    stats::ShardCounters,
};

use super::{
    Stream, TlsFacts,
    alert::{in_the_clear, verdict},
    certificate::Names,
    contexts::{suite_name, take_server_name},
    encrypted::{Encrypted, Rest},
    inspect::{Opening, inspect},
    session::{Processed, Progress, Session},
    shares::ShardServer,
};
use crate::{
    local::Local,
    ring::{Chunk, Deadline, Payload, Socket},
};

/// What a peer may make us keep of its handshake: rustls takes messages of 64 KiB, and chains of
/// certificates are the long ones.
pub(super) const HANDSHAKE_BYTES_MAX: usize = 64 << 10;
/// For a handshake with an endpoint whose cluster is no longer encrypted in the snapshot in use.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// `None` if the client went away without a word, which needs none either, or was this process.
    pub(crate) reason: Option<Reason>,
    /// More about the reason, in words: the alert.
    pub(crate) detail: &'static str,
}

impl Refused {
    /// Nobody is told, and nothing is counted.
    const UNSAID: Refused = Refused {
        reason: None,
        detail: "",
    };

    fn with(reason: Reason, detail: &'static str) -> Refused {
        let reason = Some(reason);
        Refused { reason, detail }
    }
}

/// Makes `stream` what `listener` asks for: it stays plaintext, or is encrypted. The deadline is moved.
pub(crate) async fn establish(
    local: &Rc<Local>,
    stream: &mut Stream,
    deadline: &Deadline,
    listener: &Listener,
) -> Result<(), Refused> {
    let tls = listener.tls.as_deref();
    let Some(tls) = tls.filter(|tls| tls.mode != ServerMode::Disabled) else {
        return Ok(());
    };
    let until_ns = (local.driver.now_ns()).saturating_add(tls.handshake_timeout.as_nanos() as u64);
    let wait = match tls.mode {
        ServerMode::Permissive => tls.inspect_timeout,
        _ => tls.handshake_timeout,
    };
    deadline.set_after(wait);
    match look(local, stream, deadline, tls).await? {
        Opening::Tls => {}
        _ if tls.mode == ServerMode::Permissive => return Ok(()),
        _ => {
            local.counters().tls_plaintext_refused.add(1);
            return Err(Refused::with(Reason::PlaintextOnTls, ""));
        }
    }
    deadline.set(until_ns);
    let counters = local.counters();
    let Some(server) = local.tls().server(&listener.name).cloned() else {
        counters.tls_handshakes_failed.add(1);
        let detail = "the listener's certificate";
        return Err(Refused::with(Reason::SecretMissing, detail));
    };
    if local.tls().is_own(&stream.socket) {
        // The process counts it, and has seen what it wanted, however it ends.
        let _ = shake(local, stream, deadline, &server).await;
        return Err(Refused::UNSAID);
    }
    counters.tls_handshakes_active.add(1);
    let shaken = shake(local, stream, deadline, &server).await;
    counters.tls_handshakes_active.sub(1);
    let encrypted = shaken.map_err(|broken| broken.refuse(local))?;
    count(counters, &encrypted.facts);
    stream.tls = Some(Rc::new(encrypted));
    local.let_in.add(stream, &listener.name, &server);
    Ok(())
}

/// Counts a client's handshake that succeeded.
fn count(counters: &ShardCounters, facts: &TlsFacts) {
    match facts.resumed {
        true => counters.tls_handshakes_resumed.add(1),
        false => counters.tls_handshakes_full.add(1),
    }
    match facts.version {
        "1.2" => counters.tls_connections_1_2.add(1),
        _ => counters.tls_connections_1_3.add(1),
    }
}

/// Receives until it is known what the client speaks; the bytes go back to the stream.
async fn look(
    local: &Rc<Local>,
    stream: &Stream,
    deadline: &Deadline,
    tls: &ListenerTls,
) -> Result<Opening, Refused> {
    let mut seen: Option<Chunk> = None;
    loop {
        let received = match deadline.bound(pin!(stream.receive())).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(_) => {
                return Err(Refused::UNSAID);
            }
            Err(_) if seen.is_none() && tls.server_speaks_first => return Ok(Opening::Plaintext),
            Err(_) => {
                local.counters().tls_handshakes_failed_timeout.add(1);
                let detail = "nothing told TLS from plaintext in time";
                return Err(Refused::with(Reason::TlsHandshakeTimeout, detail));
            }
        };
        let chunk = match seen.take() {
            None => received,
            Some(seen) => Chunk::from_vec(&local.driver, [&seen[..], &received[..]].concat()),
        };
        match inspect(&chunk) {
            Opening::Undecided => seen = Some(chunk),
            decided => {
                stream.put_back(chunk);
                return Ok(decided);
            }
        }
    }
}

/// The server's side of a handshake.
async fn shake(
    local: &Rc<Local>,
    stream: &Stream,
    deadline: &Deadline,
    server: &ShardServer,
) -> Result<Encrypted, Broken> {
    let connection = UnbufferedServerConnection::new(server.config.clone());
    let mut session = Session::server(connection?);
    let counted = local.handshakes.begin();
    let mut server_name = None;
    let result = {
        let driving = drive(&mut session, &stream.socket, Some(server), &mut server_name);
        let mut driving = Box::pin(driving);
        let racing = std::future::poll_fn(|cx| match counted.poll_evicted(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Broken::Evicted)),
            Poll::Pending => driving.as_mut().poll(cx),
        });
        let result = deadline.bound(pin!(racing)).await;
        result.unwrap_or(Err(Broken::TooLate))
    };
    drop(counted);
    let rest = result?;
    let facts = facts(&session, server_name.unwrap_or_default(), 0);
    Ok(Encrypted::new(session, facts, rest))
}

/// Encrypts a connection to an endpoint, as the cluster's context in use says. The time-out is the
/// cluster's `handshake_timeout`; nothing is ever sent in plaintext instead (E16).
///
/// # Errors
///
/// [`Reason::SecretMissing`] or [`Reason::UpstreamTls`], and more in words (the alert).
pub(crate) async fn secure(
    local: &Rc<Local>,
    socket: Socket,
    cluster: &snapshot::Cluster,
    address: SocketAddr,
) -> Result<Stream, (Reason, &'static str)> {
    let counters = local.counters();
    let Some(client) = local.tls().client(&cluster.name).cloned() else {
        counters.upstream_tls_handshakes_failed.add(1);
        return Err((Reason::SecretMissing, "the cluster's certificates"));
    };
    let failed = |detail| {
        counters.upstream_tls_handshakes_failed.add(1);
        (Reason::UpstreamTls, detail)
    };
    let name = client.context.server_name(address);
    let connection = UnbufferedClientConnection::new(client.config(address), name.clone());
    let connection = connection.map_err(|error| failed(verdict(&error).name))?;
    let mut session = Session::client(connection);
    let tls = cluster.config.tls.as_deref();
    let deadline = local.driver.deadline();
    deadline.set_after(tls.map_or(HANDSHAKE_TIMEOUT, |tls| tls.handshake_timeout));
    let mut unasked = None;
    let driving = Box::pin(drive(&mut session, &socket, None, &mut unasked));
    let driven = deadline.bound(pin!(driving)).await;
    let rest = driven
        .unwrap_or(Err(Broken::TooLate))
        .map_err(|broken| failed(broken.detail()))?;
    if session.is_resumed() {
        client
            .context
            .policy
            .recheck(session.peer_certificates(), &name, UnixTime::now())
            .map_err(|error| {
                client.forget(address);
                failed(verdict(&error).name)
            })?;
    }
    let facts = facts(&session, Box::default(), client.context.generation);
    match facts.resumed {
        true => counters.upstream_tls_handshakes_resumed.add(1),
        false => counters.upstream_tls_handshakes_full.add(1),
    }
    let mut stream = Stream::plain(socket);
    stream.tls = Some(Rc::new(Encrypted::new(session, facts, rest)));
    Ok(stream)
}

/// Why a handshake came to nothing.
#[derive(Debug)]
enum Broken {
    /// One side found fault with the other.
    Tls(rustls::Error),
    /// The peer closed or reset the connection.
    Gone,
    /// More than [`HANDSHAKE_BYTES_MAX`].
    TooLong,
    TooLate,
    Evicted,
}

impl From<rustls::Error> for Broken {
    fn from(error: rustls::Error) -> Broken {
        Broken::Tls(error)
    }
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Broken {
        Broken::Gone
    }
}

impl Broken {
    fn detail(&self) -> &'static str {
        match self {
            Broken::Tls(error) => verdict(error).name,
            Broken::Gone => "closed during the handshake",
            Broken::TooLong => "a handshake message is too long",
            Broken::TooLate => "the handshake took too long",
            Broken::Evicted => "too many handshakes at once",
        }
    }

    /// Counts it, and says what the client's connection ends with.
    fn refuse(&self, local: &Local) -> Refused {
        let counters = local.counters();
        let (counter, reason) = match self {
            Broken::Tls(error) => return refuse(local, error),
            Broken::Gone => (&counters.tls_handshakes_failed_peer, Reason::TlsHandshake),
            Broken::TooLong => (&counters.tls_handshakes_failed, Reason::TlsHandshake),
            Broken::TooLate => {
                let reason = Reason::TlsHandshakeTimeout;
                (&counters.tls_handshakes_failed_timeout, reason)
            }
            Broken::Evicted => (&counters.tls_handshakes_evicted, Reason::TlsHandshake),
        };
        counter.add(1);
        Refused::with(reason, self.detail())
    }
}

fn refuse(local: &Local, error: &rustls::Error) -> Refused {
    let verdict = verdict(error);
    let counters = local.counters();
    let (counter, reason) = match (verdict.is_certificate, verdict.is_peers) {
        (true, _) => (
            &counters.tls_handshakes_failed_certificate,
            Reason::ClientCertificate,
        ),
        (_, true) => (&counters.tls_handshakes_failed_peer, Reason::TlsHandshake),
        _ => (&counters.tls_handshakes_failed, Reason::TlsHandshake),
    };
    counter.add(1);
    Refused::with(reason, verdict.name)
}

/// Runs a handshake to its end. `server_name` is filled in with the client's wish, on the server's side. A
/// session that is resumed is checked by `unchecked`. One that is not good any more is declined before the client
/// hears of it, and the handshake becomes a full one: there the client can show another certificate, or is told what
/// is wrong with its own. (rustls sends no alert of ours.)
async fn drive(
    session: &mut Session,
    socket: &Socket,
    mut unchecked: Option<&ShardServer>,
    server_name: &mut Option<Box<str>>,
) -> Result<Rest, Broken> {
    let driver = socket.driver();
    // What the client has sent, as long as it has no answer.
    let mut hello = unchecked.and_then(|server| server.unresumed.as_ref().map(|_| Vec::new()));
    let mut input = Vec::new();
    let mut plain = Vec::new();
    loop {
        let mut out = driver.buffer();
        let Processed { discard, progress } = session.process(&mut input, &mut plain, &mut out);
        input.drain(..discard);
        if let Some(name) = take_server_name() {
            *server_name = Some(name);
        }
        if progress.is_ok()
            && session.is_resumed()
            && let Some(server) = unchecked.take()
            && let Err(error) = server.recheck(session)
        {
            driver.keep_buffer(out);
            let Some(hello) = hello.take() else {
                // This was a second hello (RFC 8446, 4.1.4): there is no way back, and nothing is encrypted yet.
                let told = Payload::head(in_the_clear(&error).to_vec());
                socket.send(told).await?;
                socket.flush().await?;
                return Err(error.into());
            };
            *session = Session::server(server.unresumed()?);
            input = hello;
            continue;
        }
        if !out.is_empty() {
            hello = None;
        }
        match out.is_empty() {
            true => driver.keep_buffer(out),
            // Errors are told after the peer was.
            false => match progress {
                Ok(_) => socket.send(Payload::head(out)).await?,
                Err(_) => {
                    let _ = socket.send(Payload::head(out)).await;
                    let _ = socket.flush().await;
                }
            },
        }
        match progress? {
            Progress::Handshaking => {}
            progress => {
                return Ok(Rest {
                    has_more: progress == Progress::More,
                    early: (!plain.is_empty()).then(|| Chunk::from_vec(driver, plain)),
                    input,
                });
            }
        }
        let kept = hello.as_ref().map_or(0, Vec::len).max(input.len());
        if kept > HANDSHAKE_BYTES_MAX {
            return Err(Broken::TooLong);
        }
        let chunk = socket.receive().await?.ok_or(Broken::Gone)?;
        input.extend_from_slice(&chunk);
        if let Some(hello) = &mut hello {
            hello.extend_from_slice(&chunk);
        }
    }
}

fn facts(session: &Session, server_name: Box<str>, generation: u64) -> TlsFacts {
    let state = session.state();
    let suite = state.negotiated_cipher_suite();
    let leaf = session.peer_certificates().first();
    let names = leaf.map(|leaf| Names::of(leaf));
    TlsFacts {
        version: match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        },
        cipher: suite
            .and_then(|suite| suite_name(suite.suite()))
            .unwrap_or(""),
        resumed: session.is_resumed(),
        is_http2: state.alpn_protocol() == Some(b"h2"),
        server_name,
        generation,
        peer: names.as_ref().and_then(Names::identity).map(Into::into),
        peer_expiry_unix_s: names.map(|names| names.not_after_unix_s),
    }
}
