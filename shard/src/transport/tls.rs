//! What the rest of the process may ask of TLS: checking secrets, building the contexts that shards
//! encrypt with, and trying a listener.
//!
//! Nothing here runs on a shard.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, NoKeyLog,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        WebPkiSupportedAlgorithms, aws_lc_rs::default_provider, verify_tls12_signature,
        verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use socket2::{Domain, Socket, Type};
use tidegate_codecs::proxy_protocol;
use tidegate_core::{
    config::model,
    encryption::secret::{Material, SecretFacts, SecretFault},
    message::TlsContexts,
};

use super::{
    certificate,
    contexts::Contexts,
    own::{Marked, OwnHandshakes},
};
pub use super::{
    key_log::{KeyLog, KeyLogLine},
    probe::ProbeSession,
    tickets::TicketKeys,
};

/// Looks into a secret: whether it parses, its certificate matches its key, its chain builds, and its
/// dates hold at `now_unix_s`.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn check(material: &Material, now_unix_s: u64) -> Result<SecretFacts, SecretFault> {
    certificate::check(material, now_unix_s)
}

/// What contexts are made with, whatever the configuration says.
#[derive(Clone, Debug)]
pub struct Lasting {
    /// Replaced from time to time.
    pub tickets: Arc<TicketKeys>,
    /// Where the secrets of all connections go, if the operator has asked for it.
    pub key_log: Option<KeyLog>,
}

impl Lasting {
    pub(super) fn key_log(&self) -> Arc<dyn rustls::KeyLog> {
        match &self.key_log {
            Some(log) => Arc::new(log.clone()),
            None => Arc::new(NoKeyLog),
        }
    }
}

/// Makes what the shards encrypt with. A context whose inputs are those of `previous` keeps its
/// generation, so that no other change replaces its connections (E11); the others get `generation`.
/// Other ticket keys make no other generation.
///
/// Returns the contexts and, for each listener and cluster that gets none, its name and why. Dates are
/// not looked at: [`check`] does, before a secret is taken.
pub fn build(
    config: &model::Config,
    secrets: &BTreeMap<Arc<str>, Material>,
    lasting: &Lasting,
    generation: u64,
    previous: Option<&TlsContexts>,
) -> (TlsContexts, Vec<(Arc<str>, String)>) {
    let previous = previous.and_then(Contexts::of);
    let (contexts, faults) = Contexts::build(config, secrets, lasting, generation, previous);
    (TlsContexts(Arc::new(contexts)), faults)
}

/// Dials `address`, where `listener` listens, and shakes hands once for each of its certificates,
/// trusting exactly those that `contexts` hold for it (E10). Blocks: not for a shard's thread.
///
/// A listener that asks for client certificates may refuse this client; it has shown its own by then,
/// and its key, which is what is tried here. The shard counts and logs none of it as a client.
///
/// # Errors
///
/// What went wrong, in words.
pub fn self_handshake(
    contexts: &TlsContexts,
    listener: &str,
    address: SocketAddr,
    timeout: Duration,
) -> Result<(), String> {
    let contexts = Contexts::of(contexts).ok_or("there are no TLS contexts")?;
    let context = contexts.servers.get(listener);
    let context = context.ok_or("the listener has no TLS context")?;
    for (i, (leaf, name)) in context.leaves.iter().enumerate() {
        if i > 0 && name.is_none() {
            // Without a name it is never chosen.
            continue;
        }
        let name = match name.as_deref().filter(|_| context.leaves.len() > 1) {
            Some(name) => ServerName::try_from(name.to_owned()).ok(),
            None => None,
        };
        let name = name.unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
        dial(&contexts.own, address, timeout)
            .map_err(|error| error.to_string())
            .and_then(|dialled| try_one(leaf, name, context.is_proxied, dialled))
            .map_err(|error| format!("certificate {}: {error}", i + 1))?;
    }
    Ok(())
}

/// A connection of the process to its own listener. (Fields drop in order: the mark goes first.)
struct Dialled<'a> {
    _marked: Option<Marked<'a>>,
    socket: TcpStream,
}

/// Dials a listener from its own address, which is one of this host, and from a port that is marked before.
fn dial(own: &OwnHandshakes, address: SocketAddr, timeout: Duration) -> io::Result<Dialled<'_>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(address.ip(), 0).into())?;
    let port = socket.local_addr()?.as_socket();
    let marked = port.and_then(|port| own.mark(port, address));
    socket.connect_timeout(&address.into(), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(Dialled {
        _marked: marked,
        socket: socket.into(),
    })
}

fn try_one(
    leaf: &CertificateDer<'static>,
    name: ServerName<'static>,
    is_proxied: bool,
    mut dialled: Dialled<'_>,
) -> Result<(), String> {
    let socket = &mut dialled.socket;
    let text = |error: io::Error| error.to_string();
    let provider = default_provider();
    let verifier = Arc::new(Exactly {
        leaf: leaf.clone(),
        algorithms: provider.signature_verification_algorithms,
        proven: AtomicBool::new(false),
    });
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.enable_sni = true;
    let mut connection =
        ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    if is_proxied {
        socket.write_all(&proxy_protocol::V2_LOCAL).map_err(text)?;
    }
    let mut result = Ok(());
    while connection.is_handshaking() && result.is_ok() {
        result = connection.complete_io(socket).map(|_| ());
    }
    if result.is_ok() {
        connection.send_close_notify();
        let _ = connection.complete_io(socket);
        return Ok(());
    }
    match verifier.proven.load(Ordering::Relaxed) {
        true => Ok(()),
        false => result.map_err(text),
    }
}

/// Trusts one certificate, and notes that its key was shown to be there.
#[derive(Debug)]
struct Exactly {
    leaf: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
    proven: AtomicBool,
}

impl Exactly {
    fn note(
        &self,
        verified: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.proven.store(verified.is_ok(), Ordering::Relaxed);
        verified
    }
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *leaf == self.leaf {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note(verify_tls12_signature(
            message,
            leaf,
            signed,
            &self.algorithms,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note(verify_tls13_signature(
            message,
            leaf,
            signed,
            &self.algorithms,
        ))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
