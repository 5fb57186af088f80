//! A whole shard, with clients and endpoints that speak TLS by rustls' ordinary connections over blocking
//! sockets of the standard library.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection, StreamOwned,
    pki_types::ServerName, server::WebPkiClientVerifier,
};
use tidegate_core::{
    config::model,
    id::{Epoch, ShardId},
    message::{AccessRecord, Directive, TlsContexts},
    reason::Reason,
    snapshot::{Resolution, Snapshot},
    stats::{PerShard, ShardCounters},
};

use super::fixtures::*;
use crate::transport::handshake::HANDSHAKE_BYTES_MAX;
use crate::{Shard, ShardSettings, bind, tls};

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A shard that serves a configuration, until it is dropped.
pub(super) struct Running {
    shard: Option<Shard>,
    address: SocketAddr,
    counters: Arc<PerShard<ShardCounters>>,
    log: rtrb::Consumer<AccessRecord>,
    contexts: TlsContexts,
}

impl Running {
    /// Serves the listener `web` of `yaml` on a free port.
    pub(super) fn start(
        yaml: &str,
        secrets: &[(&str, tidegate_core::encryption::secret::Material)],
    ) -> Running {
        let names: Vec<_> = secrets.iter().map(|(name, _)| *name).collect();
        let mut config = config(&(secrets_yaml(&names) + yaml));
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        for listener in config.listeners.values_mut() {
            listener.bind = address;
        }
        let contexts = contexts(&config, &super::fixtures::secrets(secrets));
        let counters = Arc::new(PerShard::new(1));
        let (producer, log) = rtrb::RingBuffer::new(256);
        let settings = ShardSettings {
            id: ShardId(0),
            cpu: None,
            ring: model::Ring::default(),
            seed: 1,
            hash_key: 1,
        };
        let mut shard = Shard::spawn(settings, counters.clone(), Some(producer)).unwrap();
        let config = Arc::new(config);
        let snapshot = Snapshot::compile(config, &Resolution::default(), None, 1, Epoch(1));
        shard.send(Directive::Tls(contexts.clone())).unwrap();
        let snapshot = Arc::new(snapshot);
        let sockets = vec![(address, listener.into())];
        shard
            .send(Directive::Install { snapshot, sockets })
            .unwrap();
        Running {
            shard: Some(shard),
            address,
            counters,
            log,
            contexts,
        }
    }

    fn dial(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        let timeout = Some(Duration::from_secs(20));
        socket.set_read_timeout(timeout).unwrap();
        socket.set_write_timeout(timeout).unwrap();
        socket
    }

    pub(super) fn secure(&self, config: &Arc<ClientConfig>) -> Secure {
        let name = ServerName::try_from("web.example").unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        StreamOwned::new(connection, self.dial())
    }

    fn counters(&self) -> &ShardCounters {
        self.counters.get(ShardId(0)).unwrap()
    }

    /// The next record of the access log.
    pub(super) fn logged(&mut self) -> AccessRecord {
        let mut record = None;
        eventually(|| {
            record = self.log.pop().ok();
            record.is_some()
        });
        record.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut shard) = self.shard.take() {
            let _ = shard.send(Directive::Stop);
            let ended = shard.join();
            if !thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "it never came");
        thread::yield_now();
    }
}

pub(super) fn client_config(authority: &Authority, shown: Option<&Issued>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder().with_root_certificates(authority.roots());
    Arc::new(match shown {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let (chain, key) = issued.der();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// Sends a request and reads an answer whose body has `len` bytes.
pub(super) fn exchange(stream: &mut (impl Read + Write), request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok(head + &String::from_utf8_lossy(&body))
}

pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: web.example\r\n\r\n";

pub(super) fn respond(tls: &str) -> String {
    format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    tls: {{ certificates: web, {tls} }}\n    \
         routes: [{{ respond: {{ status: 200, body: hello }} }}]\n"
    )
}

/// Goal: clients of both versions are served, resumed or not, with the facts in the log (E15, E7). Method: two
/// requests on each of two connections, by version.
#[test]
fn serves_both_versions_and_resumes() {
    let authority = Authority::new("ca");
    let web = authority.issue(&["web.example"]);
    for (version, shown) in [
        (&rustls::version::TLS12, "1.2"),
        (&rustls::version::TLS13, "1.3"),
    ] {
        let mut running = Running::start(&respond("alpn: [http/1.1]"), &[("web", web.material())]);
        let config = ClientConfig::builder_with_protocol_versions(&[version]);
        let config = config.with_root_certificates(authority.roots());
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = running.secure(&config);
            for _ in 0..2 {
                let answer = exchange(&mut stream, GET).unwrap();
                assert!(answer.ends_with("hello"), "{answer}");
                let record = running.logged();
                assert_eq!(record.tls_version, shown);
                assert_eq!(record.tls_resumed, kind == HandshakeKind::Resumed);
                assert_eq!(&*record.tls_sni, "web.example");
                assert!(record.tls_cipher.starts_with("TLS_"), "{record:?}");
            }
            let agreed = stream.conn.handshake_kind();
            assert!(
                agreed == Some(kind) || agreed == Some(HandshakeKind::FullWithHelloRetryRequest)
            );
            assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
        let counters = running.counters();
        assert_eq!(counters.tls_handshakes_full.get(), 1);
        assert_eq!(counters.tls_handshakes_resumed.get(), 1);
        assert_eq!(counters.tls_requests.get(), 4);
        eventually(|| running.counters().tls_connections_open.get() == 0);
    }
}

/// Goal: whoever forgets the `s` is told so in the clear, and counted. Method: a plaintext request to a strict
/// port; then garbage that is no HTTP either.
#[test]
fn plaintext_on_a_strict_port() {
    let authority = Authority::new("ca");
    let web = authority.issue(&["web.example"]).material();
    let mut running = Running::start(&respond("mode: strict"), &[("web", web)]);
    for request in [GET, "\u{1}\u{2}\u{3}"] {
        let mut socket = running.dial();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(
            answer.contains("x-tidegate-reason: plaintext_on_tls"),
            "{answer}"
        );
        assert_eq!(running.logged().reason, Some(Reason::PlaintextOnTls));
    }
    assert_eq!(running.counters().tls_plaintext_refused.get(), 2);
    assert_eq!(running.counters().plaintext_requests.get(), 0);
}

/// Goal: one port takes both, told apart by the first bytes, which may come one by one (E2). Method: plaintext
/// and TLS on a permissive port, with a PROXY header before either.
#[test]
fn permissive_takes_both() {
    let authority = Authority::new("ca");
    let web = authority.issue(&["web.example"]).material();
    let config = client_config(&authority, None);
    for proxied in [false, true] {
        let yaml = match proxied {
            false => respond("mode: permissive"),
            true => respond("mode: permissive") + "    proxy_protocol: require\n",
        };
        let running = Running::start(&yaml, &[("web", web.clone())]);
        let header: &[u8] = match proxied {
            true => b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            false => b"",
        };
        let mut socket = running.dial();
        socket.set_nodelay(true).unwrap();
        socket.write_all(header).unwrap();
        assert!(exchange(&mut socket, GET).unwrap().ends_with("hello"));
        let name = ServerName::try_from("web.example").unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        let mut socket = running.dial();
        socket.set_nodelay(true).unwrap();
        socket.write_all(header).unwrap();
        let mut stream = StreamOwned::new(connection, Trickling(socket));
        assert!(exchange(&mut stream, GET).unwrap().ends_with("hello"));
        let counters = running.counters();
        assert_eq!(counters.plaintext_connections.get(), 1);
        assert_eq!(counters.tls_connections.get(), 1);
    }
}

/// Writes one byte at a time.
struct Trickling(TcpStream);

impl Read for Trickling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Trickling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..1.min(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Goal: clients are known by their certificates, and only good ones are served (E15). Method: every kind of
/// certificate against a listener that requires one of a name, with a revocation list.
#[test]
fn client_certificates() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let with_serial = |serial: u64, names: &[&str]| {
        authority.issue_with(names, |params| params.serial_number = Some(serial.into()))
    };
    let secrets = [
        ("web", authority.issue(&["web.example"]).material()),
        ("ca", authority.material_revoking(7)),
    ];
    let yaml = respond(
        "client_certificate: { trusted_ca: ca, subject_alt_names: [{ uri: 'spiffe://mesh/pay/*' }] }",
    );
    let mut running = Running::start(&yaml, &secrets);
    let expired = authority.issue_with(&["spiffe://mesh/pay/x"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    });
    for (shown, detail) in [
        (Some(with_serial(1, &["spiffe://mesh/pay/web"])), ""),
        (
            Some(with_serial(2, &["spiffe://mesh/shop/web"])),
            "access_denied",
        ),
        (
            Some(with_serial(7, &["spiffe://mesh/pay/web"])),
            "certificate_revoked",
        ),
        (Some(other.issue(&["spiffe://mesh/pay/web"])), "unknown_ca"),
        (Some(expired), "certificate_expired"),
        (None, "certificate_required"),
    ] {
        let mut stream = running.secure(&client_config(&authority, shown.as_ref()));
        let answer = exchange(&mut stream, GET);
        let record = running.logged();
        assert_eq!(record.detail, detail);
        if detail.is_empty() {
            assert!(answer.unwrap().ends_with("hello"));
            assert_eq!(&*record.tls_peer, "spiffe://mesh/pay/web");
            continue;
        }
        assert_eq!(record.reason, Some(Reason::ClientCertificate));
        // The peer is told why, by an alert.
        let error = answer.unwrap_err().to_string().to_lowercase();
        let said = error.replace("unknownca", "unknown_ca").replace(' ', "");
        assert!(said.contains("alert"), "{detail}: {error}");
    }
    let failed = &running.counters().tls_handshakes_failed_certificate;
    assert_eq!(failed.get(), 5);
}

/// Goal: what a handshake may make us keep has a limit. Method: a hello that claims to be long, in records of
/// one byte each, which is the most that is kept for a byte.
#[test]
fn long_handshakes_are_cut() {
    let authority = Authority::new("ca");
    let web = authority.issue(&["web.example"]).material();
    let mut running = Running::start(&respond("mode: strict"), &[("web", web)]);
    let mut socket = running.dial();
    let mut sent = vec![0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xf0];
    for _ in 0..HANDSHAKE_BYTES_MAX / 6 + 16 {
        sent.extend_from_slice(&[0x16, 3, 1, 0, 1, 0]);
    }
    // The connection may be cut while this is being written.
    let _ = socket.write_all(&sent);
    let record = running.logged();
    assert_eq!(record.reason, Some(Reason::TlsHandshake));
    assert_eq!(record.detail, "a handshake message is too long");
}

/// Goal: a permissive port serves clients that wait for the server to speak, if it is marked so, and closes them
/// if it is not. Method: a silent client before an endpoint that speaks first.
#[test]
fn servers_that_speak_first() {
    let authority = Authority::new("ca");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            socket.unwrap().write_all(b"220 ready").unwrap();
        }
    });
    let web = authority.issue(&["web.example"]).material();
    for (is_first, expected) in [(true, "220 ready"), (false, "")] {
        let yaml = format!(
            "listeners:\n  web:\n    bind: 127.0.0.1:0\n    protocol: tcp\n    to: up\n    tls: {{ certificates: \
             web, mode: permissive, inspect_timeout: 100ms, server_speaks_first: {is_first} }}\n\
             clusters:\n  up: {{ endpoints: {{ static: ['{endpoint}'] }} }}\n"
        );
        let running = Running::start(&yaml, &[("web", web.clone())]);
        let mut answer = String::new();
        let _ = running.dial().read_to_string(&mut answer);
        assert_eq!(answer, expected);
    }
}

/// Goal: a stalled handshake ends in time, and says why. Method: half a hello.
#[test]
fn handshakes_end_in_time() {
    let authority = Authority::new("ca");
    let web = authority.issue(&["web.example"]).material();
    let yaml = respond("handshake_timeout: 200ms");
    let mut running = Running::start(&yaml, &[("web", web)]);
    let mut socket = running.dial();
    socket
        .write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc])
        .unwrap();
    assert_eq!(running.logged().reason, Some(Reason::TlsHandshakeTimeout));
    assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(running.counters().tls_handshakes_failed_timeout.get(), 1);
}

/// Goal: large bodies pass whole both ways, through TLS on both sides with certificates on both (E15), and links
/// are used again, tickets or not (E7). Method: an echoing endpoint behind a cluster with TLS.
#[test]
fn bodies_through_tls_on_both_sides() {
    let authority = Authority::new("ca");
    let endpoint = echo_endpoint(&authority);
    let yaml = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    tls: {{ certificates: web }}\n    \
         routes: [{{ to: up }}]\nclusters:\n  up:\n    tls: {{ mode: required, certificate: web, \
         trusted_ca: ca, server_name: up.example }}\n    endpoints: {{ static: ['{endpoint}'] }}\n"
    );
    let secrets = [
        ("web", authority.issue(&["web.example"]).material()),
        ("ca", authority.material()),
    ];
    let running = Running::start(&yaml, &secrets);
    let config = client_config(&authority, None);
    let mut stream = running.secure(&config);
    for len in [0, 1, 1000, 16_384, 100_000, 3_000_000] {
        let body: String = (0..len)
            .map(|i| char::from(b'a' + (i % 23) as u8))
            .collect();
        let request =
            format!("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: {len}\r\n\r\n{body}");
        let answer = exchange(&mut stream, &request).unwrap();
        assert!(answer.contains("x-forwarded-proto-was: https"), "{len}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{len}");
    }
    let counters = running.counters();
    assert_eq!(counters.upstream_tls_handshakes_full.get(), 1);
    assert_eq!(counters.upstream_connects.get(), 1);
    assert_eq!(counters.upstream_tls_handshakes_failed.get(), 0);
}

/// An endpoint that asks for certificates, and answers each request with its body.
fn echo_endpoint(authority: &Authority) -> SocketAddr {
    let (chain, key) = authority.issue(&["up.example"]).der();
    let roots = Arc::new(authority.roots());
    let verifier = WebPkiClientVerifier::builder(roots).build().unwrap();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, socket.unwrap());
            thread::spawn(move || while echo_one(&mut stream).is_ok() {});
        }
    });
    address
}

fn echo_one(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let field = |name: &str| {
        let value = head.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim().to_owned()
    };
    let len: usize = field("content-length:").parse().unwrap_or(0);
    let proto = field("x-forwarded-proto:");
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nx-forwarded-proto-was: {proto}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    stream.flush()
}

/// Goal: a relay passes a half-close on as a farewell, and an end without one as an error (RFC 8446, 6.1).
/// Method: a TCP listener with TLS before a plaintext endpoint that says what it saw.
#[test]
fn relays_tell_ends_apart() {
    let authority = Authority::new("ca");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    let (saw, seen) = mpsc::channel();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut bytes = Vec::new();
            let ended = socket.read_to_end(&mut bytes);
            let _ = socket.write_all(b"bye");
            saw.send((bytes, ended.is_ok())).unwrap();
        }
    });
    let yaml = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    tls: {{ certificates: web }}\n    \
         protocol: tcp\n    to: up\nclusters:\n  up: {{ endpoints: {{ static: ['{endpoint}'] }} }}\n"
    );
    let web = authority.issue(&["web.example"]).material();
    let running = Running::start(&yaml, &[("web", web)]);
    let config = client_config(&authority, None);
    let mut stream = running.secure(&config);
    stream.write_all(b"hello").unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut answer = String::new();
    // An end without farewell would be an error here.
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "bye");
    assert_eq!(seen.recv().unwrap(), (b"hello".to_vec(), true));

    let mut stream = running.secure(&config);
    stream.write_all(b"hello").unwrap();
    stream.flush().unwrap();
    stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    let (_, ended_well) = seen.recv().unwrap();
    assert!(!ended_well, "a truncated stream was passed on as whole");
}

/// Goal: the own listener can be tried before it is announced (E10). Method: a good one, one that asks for
/// certificates, one whose contexts hold another certificate.
#[test]
fn self_handshakes() {
    let authority = Authority::new("ca");
    let web = authority.issue(&["web.example"]).material();
    let ca = authority.material();
    let timeout = Duration::from_secs(10);
    for tls in ["mode: strict", "client_certificate: { trusted_ca: ca }"] {
        let running = Running::start(&respond(tls), &[("web", web.clone()), ("ca", ca.clone())]);
        let tried = tls::self_handshake(&running.contexts, "web", running.address, timeout);
        assert_eq!(tried, Ok(()));
        let stranger = Running::start(
            &respond(tls),
            &[
                ("web", authority.issue(&["web.example"]).material()),
                ("ca", ca.clone()),
            ],
        );
        let tried = tls::self_handshake(&stranger.contexts, "web", running.address, timeout);
        assert!(tried.is_err());
    }
}

/// Goal: what is decrypted and encrypted keeps the shard's budget (`limits.buffers`), and peers that do not read
/// do not keep those that do from being served (E14). Method: many clients that ask for a large body and do not
/// read it, on little budget; then one that reads.
#[test]
fn buffers_keep_their_budget() {
    let authority = Authority::new("ca");
    let endpoint = echo_endpoint(&authority);
    let yaml = format!(
        "limits: {{ buffers: 1MiB }}\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    tls: {{ certificates: web }}\n    \
         routes: [{{ to: up }}]\nclusters:\n  up:\n    tls: {{ mode: required, certificate: web, \
         trusted_ca: ca, server_name: up.example }}\n    endpoints: {{ static: ['{endpoint}'] }}\n"
    );
    let secrets = [
        ("web", authority.issue(&["web.example"]).material()),
        ("ca", authority.material()),
    ];
    let running = Running::start(&yaml, &secrets);
    let config = client_config(&authority, None);
    let len = 8 << 20;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: {len}\r\n\r\n{}",
        "x".repeat(len)
    );
    let stalled: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = running.secure(&config);
            let request = request.clone();
            // It may be cut.
            thread::spawn(move || {
                let _ = stream.write_all(request.as_bytes());
                stream
            })
        })
        .collect();
    let stalled: Vec<_> = stalled.into_iter().map(|s| s.join().unwrap()).collect();
    for len in [1, 100_000, 2_000_000] {
        let body = "y".repeat(len);
        let request =
            format!("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: {len}\r\n\r\n{body}");
        let answer = exchange(&mut running.secure(&config), &request).unwrap();
        assert!(answer.ends_with(&body), "{len}");
        let heap = running.counters().buffers_heap_bytes.get();
        assert!(heap <= (1 << 20) + (128 << 10), "{heap}");
    }
    drop(stalled);
}

/// Goal: endpoints that cannot prove who they are get nothing (E16). Method: an endpoint of another name, and
/// one of another authority; the request is refused with the alert's name.
#[test]
fn strangers_get_nothing() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let endpoint = echo_endpoint(&authority);
    for (server_name, ca, detail) in [
        ("else.example", &authority, "bad_certificate"),
        ("up.example", &other, "unknown_ca"),
    ] {
        let yaml = format!(
            "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes: [{{ to: up }}]\nclusters:\n  up:\n    \
             tls: {{ trusted_ca: ca, server_name: {server_name} }}\n    endpoints: {{ static: ['{endpoint}'] }}\n"
        );
        let running = Running::start(&yaml, &[("ca", ca.material())]);
        let answer = exchange(&mut running.dial(), GET).unwrap();
        assert!(
            answer.contains("x-tidegate-reason: upstream_tls"),
            "{answer}"
        );
        assert!(answer.contains(detail) || !answer.contains('('), "{answer}");
        assert!(running.counters().upstream_tls_handshakes_failed.get() > 0);
    }
}
