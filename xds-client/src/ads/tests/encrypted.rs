//! TLS to a control plane.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tidegate_core::{config::model::ExpiredCrl, encryption::secret::Material};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn trusted(&self) -> Material {
        Material::TrustedCa {
            certificates: self.0.pem().into_bytes().into(),
            crl: None,
            expired_crl: ExpiredCrl::Use,
        }
    }

    /// PEM of a certificate for `name`, and of its key.
    fn issue(&self, name: &str) -> (String, String) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    fn identity(&self, name: &str) -> Material {
        let (chain, key) = self.issue(name);
        Material::Certificate {
            chain: chain.into_bytes().into(),
            private_key: Arc::new(key.into_bytes().into()),
        }
    }

    /// A server of this name that asks clients for a certificate of the authority.
    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let (chain, key) = self.issue(name);
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .unwrap();
        let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![chain], key);
        let mut config = config.unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Goal: a control plane is spoken to by TLS alone if that is said: it has to be the one that is meant, and may ask who
/// comes. Method: the right authority, name and certificate; then a wrong one of each, which is told; then the right
/// ones again, as when a secret is renewed.
#[tokio::test]
async fn both_sides_are_verified() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut server = Server::on(listener, Some(ours.acceptor("plane.example")));
    let right = Tls {
        trusted_ca: ours.trusted(),
        certificate: Some(ours.identity("gw-1")),
        server_name: Some("plane.example".into()),
    };
    let with = |tls: &Tls| Local {
        link: Link::Tls(Box::new(tls.clone())),
        ..Local::default()
    };
    for wrong in [
        Tls {
            trusted_ca: theirs.trusted(),
            ..right.clone()
        },
        Tls {
            server_name: Some("other.example".into()),
            ..right.clone()
        },
        Tls {
            certificate: None,
            ..right.clone()
        },
        Tls {
            certificate: Some(theirs.identity("gw-1")),
            ..right.clone()
        },
    ] {
        let address = server.address;
        let (mut watched, tell) = start_with(settings(&[address], Variant::Delta), with(&wrong));
        let status = shown(&mut watched, |status| status.last_error.is_some()).await;
        assert_eq!(status.server, None);
        assert!(server.delta.try_recv().is_err());
        tell.send_replace(with(&right));
        let mut stream = timeout(PATIENCE, server.delta.recv())
            .await
            .unwrap()
            .unwrap();
        assert!(stream.request().await.node.is_some());
    }
    for link in [Link::Plaintext, Link::Unready] {
        let local = Local {
            link,
            ..Local::default()
        };
        let (mut watched, _tell) = start_with(settings(&[server.address], Variant::Delta), local);
        shown(&mut watched, |status| status.last_error.is_some()).await;
        assert!(server.delta.try_recv().is_err());
    }
}
