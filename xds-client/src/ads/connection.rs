//! The connection to a control plane: TCP, TLS if that is configured, and HTTP/2 with pings.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tidegate_core::encryption::secret::Material;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::{Ended, Link, Times, innermost};
use crate::pb::{Channel, Endpoint, Service, Uri};

/// TLS to control planes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Authorities that their certificates must come from.
    pub trusted_ca: Material,
    /// The certificate that is shown to them, if one is.
    pub certificate: Option<Material>,
    /// The name that is sent and verified; that of the address if it is not given.
    pub server_name: Option<Box<str>>,
}

/// Makes the bytes of a connection to `HOST:PORT`, encrypted if they are to be, for this protocol.
pub(super) async fn dial(
    server: &str,
    link: &Link,
    times: Times,
    alpn: &[u8],
) -> Result<Box<dyn Bytes>, Ended> {
    let connector = Connector::new(server, link, alpn)?;
    let connected = tokio::time::timeout(times.connect, connector.connect());
    match connected.await {
        Ok(bytes) => bytes.map_err(|error| Ended::Lost(innermost(&error))),
        Err(_) => Err(Ended::Lost("no connection in time".into())),
    }
}

/// Makes a connection of gRPC to `HOST:PORT`.
pub(super) async fn connect(server: &str, link: &Link, times: Times) -> Result<Channel, Ended> {
    let connector = Connector::new(server, link, b"h2")?;
    let lost = |error: &dyn std::error::Error| Ended::Lost(innermost(error));
    let scheme = match connector.tls {
        Some(_) => "https",
        None => "http",
    };
    // The connector makes TLS: the library is to see bytes alone.
    let endpoint = Endpoint::from_shared(format!("http://{server}"))
        .map_err(|error| lost(&error))?
        .origin(
            Uri::try_from(format!("{scheme}://{server}"))
                .map_err(|error| Ended::Lost(error.to_string()))?,
        )
        .connect_timeout(times.connect)
        .http2_keep_alive_interval(times.keep_alive)
        .keep_alive_timeout(times.keep_alive)
        .keep_alive_while_idle(true);
    // The time-out of the library holds for its own connector alone.
    let connected = tokio::time::timeout(times.connect, endpoint.connect_with_connector(connector));
    match connected.await {
        Ok(channel) => channel.map_err(|error| lost(&error)),
        Err(_) => Err(Ended::Lost("no connection in time".into())),
    }
}

/// Makes the bytes of a connection.
#[derive(Clone)]
struct Connector {
    address: Arc<str>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    fn new(server: &str, link: &Link, alpn: &[u8]) -> Result<Connector, Ended> {
        let tls = match link {
            Link::Plaintext => None,
            Link::Tls(tls) => Some(encrypted(server, tls, alpn).map_err(Ended::Lost)?),
            Link::Unready => return Err(Ended::Lost("a secret of its TLS is missing".into())),
        };
        Ok(Connector {
            address: server.into(),
            tls,
        })
    }

    async fn connect(self) -> io::Result<Box<dyn Bytes>> {
        let stream = TcpStream::connect(&*self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match self.tls {
            None => Box::new(stream),
            Some((tls, name)) => Box::new(tls.connect(name, stream).await?),
        })
    }
}

/// What encrypts, and whom it expects.
fn encrypted(
    server: &str,
    tls: &Tls,
    alpn: &[u8],
) -> Result<(TlsConnector, ServerName<'static>), String> {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = tls.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
    Ok((TlsConnector::from(Arc::new(config(tls, alpn)?)), name))
}

/// What is encrypted with. Made for each connection: they are few, and secrets change.
fn config(tls: &Tls, alpn: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let Material::TrustedCa { certificates, .. } = &tls.trusted_ca else {
        return Err("what is trusted are no authorities".into());
    };
    for certificate in CertificateDer::pem_slice_iter(certificates) {
        let certificate = certificate.map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match &tls.certificate {
        Some(Material::Certificate { chain, private_key }) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
            let key = PrivateKeyDer::from_pem_slice(private_key).map_err(|e| e.to_string())?;
            config
                .with_client_auth_cert(chain.map_err(|e| e.to_string())?, key)
                .map_err(|e| e.to_string())?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Bytes>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { Ok(TokioIo::new(connector.connect().await?)) })
    }
}

/// A connection, encrypted or not.
pub(super) trait Bytes: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Bytes for T {}
