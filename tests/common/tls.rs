//! A certificate authority for tests, TLS clients that send what they are told ([`Session`]), and TLS
//! origins ([`Origin`]).
//!
//! Keys and certificates are made anew for each [`Authority`] and lie as PEM files in a folder of its
//! own, since that is how every peer takes them.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RevocationReason, RevokedCertParams, RsaKeySize, SanType, SerialNumber,
};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::{PATIENCE, wire::Head};

/// The name that server certificates carry unless said otherwise.
pub const SERVER_NAME: &str = "web.example";
/// The SPIFFE ID that client certificates carry unless said otherwise.
pub const CLIENT_ID: &str = "spiffe://mesh.example/ns/shop/sa/web";

/// A day: rounded, certificates have no leap seconds.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority that issues into a folder of its own, removed when it is dropped.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    count: AtomicUsize,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM of the certificate alone.
    pub certificate: PathBuf,
    /// PEM, PKCS#8.
    pub private_key: PathBuf,
    /// PEM of both, as HAProxy wants it.
    pub both: PathBuf,
    serial: SerialNumber,
}

/// What a certificate shall say.
#[derive(Clone, Debug)]
pub struct Leaf {
    names: Vec<String>,
    uris: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    key: Key,
    days: (i64, i64),
    /// From now, instead of the end of `days`.
    ends_in: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Key {
    Ecdsa,
    Rsa,
}

impl Leaf {
    /// A server of this name, of `localhost` and of 127.0.0.1.
    pub fn server(name: &str) -> Leaf {
        Leaf {
            names: vec![name.into(), "localhost".into(), "127.0.0.1".into()],
            uris: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            key: Key::Ecdsa,
            // testssl.sh finds less than 60 days left too few.
            days: (-1, 90),
            ends_in: None,
        }
    }

    /// A client with this URI, such as a SPIFFE ID.
    pub fn client(uri: &str) -> Leaf {
        Leaf {
            names: Vec::new(),
            uris: vec![uri.into()],
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            ..Leaf::server("")
        }
    }

    /// Adds a URI.
    pub fn uri(mut self, uri: &str) -> Leaf {
        self.uris.push(uri.into());
        self
    }

    /// Only these DNS names and addresses.
    pub fn only(mut self, names: &[&str]) -> Leaf {
        self.names = names.iter().map(|name| (*name).into()).collect();
        self
    }

    /// An RSA key of 2048 bits instead of ECDSA on P-256.
    pub fn rsa(mut self) -> Leaf {
        self.key = Key::Rsa;
        self
    }

    /// Expired yesterday.
    pub fn expired(mut self) -> Leaf {
        self.days = (-30, -1);
        self
    }

    /// Ends in five days, after a month.
    pub fn ending(mut self) -> Leaf {
        self.days = (-25, 5);
        self
    }

    /// Ends that long from now.
    pub fn ends_in(mut self, left: Duration) -> Leaf {
        self.ends_in = Some(left);
        self
    }

    /// Valid from tomorrow on.
    pub fn not_yet(mut self) -> Leaf {
        self.days = (1, 30);
        self
    }
}

impl Authority {
    /// A new authority; its certificate is [`Self::pem`].
    pub fn new() -> Authority {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("authority-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        let name = format!("Test Authority {number}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (day(-365).into(), day(365).into());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let authority = Authority {
            issuer,
            folder,
            count: AtomicUsize::new(0),
        };
        fs::write(authority.pem(), authority.issuer.pem()).unwrap();
        authority
    }

    /// The file with the authority's own certificate.
    pub fn pem(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Where its files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Issues a certificate for a new key.
    pub fn issue(&self, leaf: &Leaf) -> Identity {
        let key = match leaf.key {
            Key::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Key::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
        .unwrap();
        let mut params = CertificateParams::new(leaf.names.clone()).unwrap();
        for uri in &leaf.uris {
            let uri = uri.as_str().try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let common_name = leaf.names.first().map_or("client", String::as_str);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        params.not_before = day(leaf.days.0).into();
        let end = leaf.ends_in.map(|left| SystemTime::now() + left);
        params.not_after = end.unwrap_or_else(|| day(leaf.days.1)).into();
        let serial = serial(&key);
        params.serial_number = Some(serial.clone());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        self.write(serial, &certificate, &key.serialize_pem())
    }

    fn write(&self, serial: SerialNumber, certificate: &str, key: &str) -> Identity {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let file = |kind: &str, text: &str| {
            let path = self.folder.join(format!("{number}.{kind}"));
            fs::write(&path, text).unwrap();
            path
        };
        Identity {
            certificate: file("pem", certificate),
            private_key: file("key", key),
            both: file("both", &format!("{certificate}{key}")),
            serial,
        }
    }

    /// Writes a revocation list with these certificates and says where.
    pub fn revoke(&self, identities: &[&Identity]) -> PathBuf {
        let list = CertificateRevocationListParams {
            this_update: day(-1).into(),
            next_update: day(30).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: identities
                .iter()
                .map(|identity| RevokedCertParams {
                    serial_number: identity.serial.clone(),
                    revocation_time: day(-1).into(),
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder.join("crl.pem");
        fs::write(&path, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }

    /// The YAML entry of the secret `name` that trusts this authority: a line of the section `secrets`.
    pub fn secret(&self, name: &str) -> String {
        format!("  {name}: {{ trusted_ca: '{}' }}\n", self.pem().display())
    }

    /// What a client that trusts this authority starts from.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Identity {
    /// The YAML entry of the secret `name`: a line of the section `secrets`.
    pub fn secret(&self, name: &str) -> String {
        format!(
            "  {name}: {{ certificate: '{}', private_key: '{}' }}\n",
            self.certificate.display(),
            self.private_key.display()
        )
    }

    fn load(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(&self.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.private_key).unwrap();
        (vec![certificate], key)
    }
}

/// That many days from now.
fn day(days: i64) -> SystemTime {
    let span = DAY * u32::try_from(days.unsigned_abs()).unwrap();
    match days {
        0.. => SystemTime::now() + span,
        _ => SystemTime::now() - span,
    }
}

/// 16 bytes of a fresh public key: as random as an authority of the web must be, and known here.
fn serial(key: &KeyPair) -> SerialNumber {
    let raw = key.public_key_raw();
    let mut bytes = raw[raw.len() - 32..raw.len() - 16].to_vec();
    // Positive, and without leading zeros that an encoder would drop.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from(bytes)
}

/// A configuration of a client that trusts `authority` and shows `identity`, in any version.
pub fn client_config(authority: &Authority, identity: Option<&Identity>) -> ClientConfig {
    client_config_of(authority, identity, rustls::ALL_VERSIONS)
}

/// The same in these versions.
pub fn client_config_of(
    authority: &Authority,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_protocol_versions(versions)
        .with_root_certificates(authority.roots());
    match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity.load();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// A TLS client's connection.
pub struct Session {
    tls: StreamOwned<ClientConnection, TcpStream>,
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tls.read(buffer)
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tls.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tls.flush()
    }
}

impl Session {
    /// Connects and shakes hands.
    pub fn connect(address: SocketAddr, name: &str, config: &ClientConfig) -> io::Result<Session> {
        let stream = TcpStream::connect(address)?;
        Self::over(stream, name, config)
    }

    /// Shakes hands over a connection that is there.
    pub fn over(stream: TcpStream, name: &str, config: &ClientConfig) -> io::Result<Session> {
        let mut session = Self::silent(stream, name, config);
        while session.tls.conn.is_handshaking() {
            session.tls.conn.complete_io(&mut session.tls.sock)?;
        }
        Ok(session)
    }

    /// A session that has not sent its hello: [`Self::hello`] takes it out.
    pub fn silent(stream: TcpStream, name: &str, config: &ClientConfig) -> Session {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
        Session {
            tls: StreamOwned::new(connection, stream),
        }
    }

    /// The records that wait to be sent.
    pub fn outgoing(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.conn.wants_write() {
            self.tls.conn.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Reads until the handshake wants to send or is over.
    pub fn receive_flight(&mut self) -> io::Result<()> {
        while self.tls.conn.is_handshaking() && !self.tls.conn.wants_write() {
            if self.tls.conn.read_tls(&mut self.tls.sock)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let outcome = self.tls.conn.process_new_packets();
            outcome.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// The TCP connection below.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.tls.sock
    }

    /// The version that was agreed on.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.tls.conn.protocol_version()
    }

    /// The server's certificate.
    pub fn server_certificate(&self) -> Option<Vec<u8>> {
        let chain = self.tls.conn.peer_certificates()?;
        Some(chain.first()?.to_vec())
    }

    /// Sends plaintext of the application, encrypted.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.tls.write_all(bytes.as_ref())?;
        self.tls.flush()
    }

    /// The records that carry `bytes`, which are not sent.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let waiting = self.outgoing();
        self.tls.sock.write_all(&waiting).unwrap();
        self.tls.conn.writer().write_all(bytes).unwrap();
        self.outgoing()
    }

    /// Whatever comes until the peer's close_notify; an end without one is an error.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.tls.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends close_notify.
    pub fn close(&mut self) -> io::Result<()> {
        self.tls.conn.send_close_notify();
        self.tls.conn.complete_io(&mut self.tls.sock).map(drop)
    }

    /// One GET on a connection that goes on, answered with a `Content-Length`: the head and the body.
    pub fn ask(&mut self, target: &str) -> io::Result<(Head, Vec<u8>)> {
        self.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n"
        ))?;
        let head = read_head(&mut self.tls)?;
        let len = head.get("content-length").and_then(|len| len.parse().ok());
        let mut body = vec![0; len.unwrap_or_default()];
        self.tls.read_exact(&mut body)?;
        Ok((head, body))
    }

    /// One GET that closes the connection; everything that comes back.
    pub fn get(&mut self, target: &str) -> io::Result<String> {
        self.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nConnection: close\r\n\r\n"
        ))?;
        let bytes = self.rest()?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The first bytes of a handshake as `config` begins it: whole records.
pub fn hello(name: &str, config: &ClientConfig) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// A TLS origin: a thread per connection, a closure as the script. Displays as its address.
pub struct Origin {
    pub address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

/// A connection as the script of a TLS origin sees it.
pub type Peer = StreamOwned<ServerConnection, TcpStream>;

impl Origin {
    /// Serves as `identity`; asks for a client certificate of `clients`, if given.
    pub fn start(
        identity: &Identity,
        clients: Option<&Authority>,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Origin {
        let builder = match clients {
            None => ServerConfig::builder().with_no_client_auth(),
            Some(authority) => {
                let verifier = WebPkiClientVerifier::builder(Arc::new(authority.roots()));
                ServerConfig::builder().with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (chain, key) = identity.load();
        let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop, script) = (stopped.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let connection = ServerConnection::new(config.clone()).unwrap();
                let script = script.clone();
                // What matters is asserted by the test: the other side may close at any moment.
                thread::spawn(move || script(&mut StreamOwned::new(connection, stream)));
            }
        });
        Origin { address, stopped }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

/// Reads a request's head, byte by byte: what follows stays where it is.
pub fn read_head(stream: &mut impl Read) -> io::Result<Head> {
    let mut raw = Vec::new();
    while !raw.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        raw.push(byte[0]);
    }
    Head::parse(&String::from_utf8_lossy(&raw))
}
