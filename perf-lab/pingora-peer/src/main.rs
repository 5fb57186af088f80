//! The least that makes a proxy of Pingora: `pingora-peer FILE`, where the file is the lab's
//! ([`settings`]). One thread, connections kept on both sides, X-Forwarded-For and -Proto as all peers
//! of the lab send them.

#![forbid(unsafe_code)]

mod settings;

use std::sync::{
    atomic::{AtomicUsize, Ordering},
    Arc,
};

use async_trait::async_trait;
use pingora::{
    apps::HttpServerOptions,
    listeners::tls::TlsSettings,
    prelude::*,
    proxy::ProxyServiceBuilder,
    server::configuration::ServerConf,
    utils::tls::CertKey,
};
use rustls::{
    crypto::{aws_lc_rs, CryptoProvider},
    pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    RootCertStore,
};

use settings::Settings;

/// Streams on a connection to an endpoint: what most servers allow. Its default is a connection for each.
const UPSTREAM_STREAMS: usize = 100;

struct Lab {
    /// The endpoints, with how to speak to them.
    upstreams: Vec<HttpPeer>,
    /// In the order of the file; empty means that everything matches.
    routes: Vec<String>,
    proto: &'static str,
    next: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Lab {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let path = session.req_header().uri.path();
        let matches = self.routes.is_empty() || self.routes.iter().any(|route| path.starts_with(route));
        if !matches {
            return Err(Error::new(ErrorType::HTTPStatus(404)));
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(self.upstreams[turn % self.upstreams.len()].clone()))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header("X-Forwarded-Proto", self.proto)
    }
}

impl Lab {
    fn new(settings: &Settings) -> Lab {
        let certificate = client_certificate(settings).map(Arc::new);
        let upstream = |address: &String| {
            let name = settings.upstream_name.clone();
            let mut peer = HttpPeer::new(address.as_str(), name.is_some(), name.unwrap_or_default());
            peer.client_cert_key = certificate.clone();
            if settings.upstream_h2 {
                peer.options.set_http_version(2, 2);
                peer.options.max_h2_streams = UPSTREAM_STREAMS;
            }
            peer
        };
        Lab {
            upstreams: settings.upstreams.iter().map(upstream).collect(),
            routes: settings.routes.clone(),
            proto: match settings.key {
                Some(_) => "https",
                None => "http",
            },
            next: AtomicUsize::new(0),
        }
    }
}

/// One suite and one group, as the lab's own ends have them: with rustls' defaults two of these would
/// agree on AES-256. Pingora installs its provider, ring, only where there is none.
fn install_provider() {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    provider.install_default().expect("nobody has installed one before");
}

fn client_certificate(settings: &Settings) -> Option<CertKey> {
    let certificate = CertificateDer::from_pem_file(settings.upstream_certificate.as_ref()?);
    let key = PrivateKeyDer::from_pem_file(settings.upstream_key.as_ref()?);
    Some(CertKey::new(
        vec![certificate.expect("the lab writes a certificate").to_vec()],
        key.expect("the lab writes a key").secret_der().to_vec(),
    ))
}

/// `None` is plain.
fn tls(settings: &Settings) -> Option<TlsSettings> {
    let (certificate, key) = (settings.certificate.as_ref()?, settings.key.as_ref()?);
    let mut tls = TlsSettings::intermediate(certificate, key).expect("the lab writes both files");
    if settings.h2 {
        tls.enable_h2();
    }
    if let Some(file) = &settings.client_authority {
        let authority = CertificateDer::from_pem_file(file).expect("the lab writes an authority");
        let mut roots = RootCertStore::empty();
        roots.add(authority).expect("the lab's authority is one");
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        tls.set_client_cert_verifier(verifier.expect("one authority is enough"));
    }
    Some(tls)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = match arguments.as_slice() {
        [file] if !file.starts_with('-') => file,
        _ => {
            let version = env!("CARGO_PKG_VERSION");
            println!("pingora-peer {version} on pingora 0.9, rustls with aws-lc-rs");
            return;
        }
    };
    let settings = Settings::read(file);
    install_provider();
    let configuration = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        ca_file: settings.upstream_authority.clone(),
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let tls = tls(&settings);
    let mut options = HttpServerOptions::default();
    options.h2c = settings.h2 && tls.is_none();
    let builder = ProxyServiceBuilder::new(&server.configuration, Lab::new(&settings));
    let mut service = builder.server_options(options).build();
    match tls {
        Some(tls) => service.add_tls_with_settings(&settings.listen, None, tls),
        None => service.add_tcp(&settings.listen),
    }
    server.add_service(service);
    server.run_forever();
}
