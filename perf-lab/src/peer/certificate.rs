//! The certificate that peers show to the lab's clients: one key for all, ECDSA on P-256, which is
//! the cheapest that every TLS library here signs with.

use std::{fs, io, path::Path, sync::Arc};

use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    version::TLS13,
};

use crate::error::Error;

/// The name in the certificate, in SNI and in `Host`.
pub const HOST: &str = "lab.example";

/// How a client speaks TLS, and to whom.
pub type TlsClient = (Arc<ClientConfig>, ServerName<'static>);

/// A self-signed certificate and what both ends make of it.
#[derive(Clone, Debug)]
pub struct Certificate {
    chain_pem: String,
    key_pem: String,
    /// For clients that trust it, and resume nothing: every connection pays for its handshake.
    client: Arc<ClientConfig>,
    /// For the lab's own origin, where there is no proxy.
    pub server: Arc<ServerConfig>,
}

impl Certificate {
    /// A fresh one.
    pub fn generate() -> Result<Certificate, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::Load(format!("TLS: {error}"));
        let key = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| wrong(&e))?;
        let cert = rcgen::CertificateParams::new(vec![HOST.to_owned()])
            .and_then(|params| params.self_signed(&key))
            .map_err(|e| wrong(&e))?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).map_err(|e| wrong(&e))?;
        let provider = Arc::new(default_provider());
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| wrong(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| wrong(&e))?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], private)
            .map_err(|e| wrong(&e))?;
        Ok(Certificate {
            chain_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// How clients speak to whoever shows it.
    pub fn client(&self) -> Result<TlsClient, Error> {
        let name = ServerName::try_from(HOST);
        let name = name.map_err(|error| Error::Load(format!("TLS: {error}")))?;
        Ok((self.client.clone(), name))
    }

    /// Writes `cert.pem`, `key.pem`, and `both.pem` for HAProxy.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join("cert.pem"), &self.chain_pem)?;
        fs::write(dir.join("key.pem"), &self.key_pem)?;
        fs::write(
            dir.join("both.pem"),
            format!("{}{}", self.chain_pem, self.key_pem),
        )
    }
}
