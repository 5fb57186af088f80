//! One connection of the admin server: HTTP/1.1, or HTTP/2 by prior knowledge for who speaks gRPC.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpStream, time::timeout};

/// For the head of a request, and for the next one on a kept connection: an idle peer cannot hold one of
/// the connections that there may be for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams on one connection in HTTP/2. A tool asks one thing.
const HTTP2_STREAMS_MAX: u32 = 16;

/// Between the server's own pings in HTTP/2, and for the answer to one: a dead peer gives its place back.
const HTTP2_PING: Duration = Duration::from_secs(10);

/// Before what has come is looked at again: a preface is never cut but on purpose.
const PEEK_PAUSE: Duration = Duration::from_millis(10);

/// The first bytes of a connection in HTTP/2 (RFC 9113, 3.4), as far as they tell it from HTTP/1.1.
const HTTP2: &[u8] = b"PRI ";

/// Whether a client speaks HTTP/2, as gRPC's do.
async fn is_http2(stream: &TcpStream) -> bool {
    let mut first = [0; HTTP2.len()];
    let peeked = async {
        // What has not come whole is looked at again once more is there.
        loop {
            let n = stream.peek(&mut first).await.unwrap_or(0);
            let seen = first.get(..n).unwrap_or_default();
            if n == 0 || n == HTTP2.len() || !HTTP2.starts_with(seen) {
                return seen == HTTP2;
            }
            tokio::time::sleep(PEEK_PAUSE).await;
        }
    };
    timeout(HEAD_TIMEOUT, peeked).await.unwrap_or(false)
}

/// Serves one connection, in HTTP/1.1 or in HTTP/2.
pub(super) async fn serve_connection(stream: TcpStream, router: Router) {
    if is_http2(&stream).await {
        return serve_http2(stream, router).await;
    }
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(e) = served {
        tracing::debug!("admin: {e}");
    }
}

async fn serve_http2(stream: TcpStream, router: Router) {
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(e) = served {
        tracing::debug!("admin: {e}");
    }
}
