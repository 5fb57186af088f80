//! The keys and certificates of a measurement, and how the lab's own two ends speak TLS with them.
//!
//! Alike for all: TLS 1.3, keys on P-256 (the cheapest that every TLS library here signs with), and
//! from the lab's ends one cipher suite and one group. AES-128-GCM, since RFC 8446 section 9.1 makes
//! everybody have it; X25519, since not everybody has the post-quantum hybrid, and a comparison of
//! handshakes would be one of groups.

use std::{
    collections::VecDeque,
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    ClientConfig, NamedGroup, RootCertStore, ServerConfig,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::WebPkiClientVerifier,
    version::TLS13,
};

use crate::{error::Error, http2, scenario::HttpVersion};

/// The name in servers' certificates, in SNI and in `Host`.
pub const HOST: &str = "lab.example";
/// The name in clients' certificates.
const CLIENT: &str = "client.lab.example";
/// The cipher suite of all connections, by its IANA name, as templates know it.
pub const CIPHER_SUITE: &str = "TLS_AES_128_GCM_SHA256";

/// Tickets kept for resumption: twice of what the clients of a handshake row have in flight, and
/// far more than a server gives each.
const TICKETS_MAX: usize = 1_024;

/// How a client speaks TLS, and to whom.
pub type TlsClient = (Arc<ClientConfig>, ServerName<'static>);

/// Whether a client tries to resume the session of an earlier connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Every connection pays for its whole handshake.
    Fresh,
    /// Each uses a ticket of an earlier one, once.
    Resumed,
}

/// Who shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The server.
    Server,
    /// Both ends.
    Both,
}

/// An authority, a certificate for servers and one for clients.
#[derive(Clone, Debug)]
pub struct Certificates {
    authority: CertificateDer<'static>,
    authority_pem: String,
    server: Identity,
    client: Identity,
}

#[derive(Debug)]
struct Identity {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pem: String,
    key_pem: String,
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity {
            der: self.der.clone(),
            // Private keys are not copied by accident.
            key: self.key.clone_key(),
            pem: self.pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

impl Certificates {
    /// Fresh ones.
    pub fn generate() -> Result<Certificates, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(wrong)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "perf lab");
        let authority = CertifiedIssuer::self_signed(params, key).map_err(wrong)?;
        Ok(Certificates {
            server: Identity::issue(HOST, ExtendedKeyUsagePurpose::ServerAuth, &authority)?,
            client: Identity::issue(CLIENT, ExtendedKeyUsagePurpose::ClientAuth, &authority)?,
            authority_pem: authority.pem(),
            authority: authority.der().clone(),
        })
    }

    /// How a client speaks to whoever shows the server's certificate.
    pub fn client(
        &self,
        shown: Shown,
        sessions: Sessions,
        http: HttpVersion,
    ) -> Result<TlsClient, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(wrong)?
            .with_root_certificates(self.roots()?);
        let mut config = match shown {
            Shown::Server => builder.with_no_client_auth(),
            Shown::Both => builder
                .with_client_auth_cert(vec![self.client.der.clone()], self.client.key.clone_key())
                .map_err(wrong)?,
        };
        config.resumption = match sessions {
            Sessions::Fresh => Resumption::disabled(),
            Sessions::Resumed => Resumption::store(Arc::new(Tickets::default())),
        };
        config.alpn_protocols = alpn(http);
        let name = ServerName::try_from(HOST).map_err(wrong)?;
        Ok((Arc::new(config), name))
    }

    /// How the lab's own origin speaks, where there is no proxy to do it, or one that encrypts to it.
    pub fn server(&self, shown: Shown, http: HttpVersion) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(wrong)?;
        let builder = match shown {
            Shown::Server => builder.with_no_client_auth(),
            Shown::Both => {
                let roots = Arc::new(self.roots()?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().map_err(wrong)?)
            }
        };
        let mut config = builder
            .with_single_cert(vec![self.server.der.clone()], self.server.key.clone_key())
            .map_err(wrong)?;
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(wrong)?;
        config.alpn_protocols = alpn(http);
        Ok(Arc::new(config))
    }

    /// Writes `ca.pem`, for the server's side `cert.pem`, `key.pem` and both in `both.pem` as HAProxy
    /// has it, and the same for the client's side, with `client-` in front.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join("ca.pem"), &self.authority_pem)?;
        for (prefix, Identity { pem, key_pem, .. }) in
            [("", &self.server), ("client-", &self.client)]
        {
            let file = |name: &str| dir.join(format!("{prefix}{name}.pem"));
            fs::write(file("cert"), pem)?;
            fs::write(file("key"), key_pem)?;
            fs::write(file("both"), format!("{pem}{key_pem}"))?;
        }
        Ok(())
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).map_err(wrong)?;
        Ok(roots)
    }
}

impl Identity {
    fn issue(
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        authority: &CertifiedIssuer<'_, KeyPair>,
    ) -> Result<Identity, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(wrong)?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(wrong)?;
        params.extended_key_usages = vec![usage];
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, authority).map_err(wrong)?;
        Ok(Identity {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            key_pem: key.serialize_pem(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }
}

/// What the lab's ends offer and take. Without HTTP/2 nothing, as clients of HTTP/1.1 alone do.
fn alpn(http: HttpVersion) -> Vec<Vec<u8>> {
    match http {
        HttpVersion::Http1 => Vec::new(),
        HttpVersion::Http2 => vec![http2::ALPN.to_vec()],
    }
}

fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::Load(format!("TLS: {error}"))
}

/// The tickets of one server, newest first. rustls' own store keeps eight for a server, fewer than a
/// row has connections in flight.
#[derive(Debug, Default)]
struct Tickets {
    tickets: Mutex<VecDeque<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() == TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.pop_back()
    }
}
