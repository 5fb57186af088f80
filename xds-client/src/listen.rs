//! A center's port: connections within their limits, which service each call is for, and who is let in. All services
//! of a center are behind one port and one token.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{Request as HttpRequest, Response as HttpResponse, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use crate::{
    healing,
    pb::{self as grpc, Body, BoxFuture, Request, Service, Status},
    server::streams,
};

/// Streams on one connection. A proxy needs one of each service.
pub const STREAMS_MAX: u32 = 4;

/// Bytes of the fields of one request.
const HEADERS_MAX: u32 = 16 * 1024;

/// Between the server's own pings, and for the answer to one: a dead peer gives its place back.
const PING: Duration = Duration::from_secs(10);

/// The pause after a failed accept (EMFILE and the like): no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is behind the port.
#[derive(Clone)]
pub struct Services {
    /// Reports of proxies.
    pub healing: healing::server::Service,
    /// Resources, if any are served.
    pub ads: Option<streams::Ads>,
}

/// Takes connections until the task is dropped, `connections` at a time; one more waits.
pub async fn serve(listener: TcpListener, services: Services, connections: usize) {
    let connections = Arc::new(Semaphore::new(connections));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(e) => {
                tracing::warn!("center: accept: {e}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(services.clone());
        tokio::spawn(async move {
            let served = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEADERS_MAX)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .serve_connection(TokioIo::new(socket), service)
                .await;
            if let Err(e) = served {
                tracing::debug!("center: {e}");
            }
            drop(permit);
        });
    }
}

impl<B> Service<HttpRequest<B>> for Services
where
    B: grpc::HttpBody + Send + 'static,
    B::Error: Into<grpc::StdError> + Send + 'static,
{
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// What is neither gets the answer of the first: that it is not implemented.
    fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
        match &mut self.ads {
            Some(ads) if request.uri().path().starts_with(streams::PATH) => ads.0.call(request),
            _ => self.healing.0.call(request),
        }
    }
}

/// What a caller has to show, if anything.
#[derive(Clone)]
pub(crate) struct Token(Option<Arc<str>>);

impl Token {
    pub(crate) fn new(token: Option<&str>) -> Token {
        Token(token.map(|token| format!("Bearer {token}").into()))
    }

    /// # Errors
    ///
    /// The caller does not show it.
    pub(crate) fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(token) = &self.0 else {
            return Ok(());
        };
        let given = request.metadata().get("authorization");
        match given.is_some_and(|given| same(given.as_bytes(), token.as_bytes())) {
            true => Ok(()),
            false => Err(Status::unauthenticated("a token is needed")),
        }
    }
}

/// Compares in a time that does not tell how much is right.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differ = given
        .iter()
        .zip(token)
        .fold(0, |differ, (a, b)| differ | (a ^ b));
    given.len() == token.len() && differ == 0
}
