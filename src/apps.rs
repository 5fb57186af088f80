//! Small HTTP/1.1 applications to put behind a first gateway: one that is steady, one that is slow and
//! one that fails. They run on a thread of their own, on ports that the system chooses.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::any,
};

/// The largest body that `/echo` takes: it is collected in memory.
const ECHO_BYTES_MAX: usize = 1 << 20;

/// The flaky application fails once in so many requests.
pub(crate) const FLAKY_EVERY: u64 = 5;

/// How long the slow application thinks.
pub(crate) const SLOW: Duration = Duration::from_millis(25);

/// The running applications.
pub(crate) struct Apps {
    /// `a`, which just answers.
    pub(crate) steady: App,
    /// `b`, which takes [`SLOW`].
    pub(crate) slow: App,
    /// `c`, which fails one request in [`FLAKY_EVERY`].
    pub(crate) flaky: App,
}

/// One application.
pub(crate) struct App {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    up: Arc<AtomicBool>,
}

impl App {
    /// Makes it answer everything with 503, or answer again.
    pub(crate) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Behaviour {
    name: &'static str,
    delay: Duration,
    fail_every: u64,
    served: Arc<AtomicU64>,
    up: Arc<AtomicBool>,
}

/// Starts all three on a thread of their own. They end with the process.
pub(crate) fn start() -> io::Result<Apps> {
    let mut routers = Vec::new();
    let mut app = |name, delay, fail_every| -> io::Result<App> {
        let up = Arc::new(AtomicBool::new(true));
        let behaviour = Behaviour {
            name,
            delay,
            fail_every,
            served: Arc::default(),
            up: up.clone(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        routers.push((listener, router(behaviour)));
        Ok(App { address, up })
    };
    let apps = Apps {
        steady: app("a", Duration::ZERO, 0)?,
        slow: app("b", SLOW, 0)?,
        flaky: app("c", Duration::ZERO, FLAKY_EVERY)?,
    };
    thread::Builder::new()
        .name("apps".into())
        .spawn(move || serve(routers))?;
    Ok(apps)
}

fn serve(routers: Vec<(TcpListener, Router)>) {
    let serve = async move {
        for (listener, router) in routers {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        std::future::pending::<io::Result<()>>().await
    };
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve));
    if let Err(e) = served {
        tracing::error!("the built-in applications ended: {e}");
    }
}

fn router(behaviour: Behaviour) -> Router {
    Router::new()
        .route("/echo", any(echo))
        .route("/shop/echo", any(echo))
        .route("/health", any(|| async { "ok\n" }))
        .fallback(hello)
        .layer(middleware::from_fn_with_state(behaviour.clone(), behave))
        .layer(DefaultBodyLimit::max(ECHO_BYTES_MAX))
        .with_state(behaviour)
}

/// Fails, waits and names the application in `x-app`.
async fn behave(State(app): State<Behaviour>, request: Request, next: Next) -> Response {
    let served = app.served.fetch_add(1, Ordering::Relaxed) + 1;
    let fails = app.fail_every != 0
        && served.is_multiple_of(app.fail_every)
        && request.uri().path() != "/health";
    let mut response = if !app.up.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "down\n").into_response()
    } else if fails {
        (StatusCode::SERVICE_UNAVAILABLE, "flaky\n").into_response()
    } else {
        if !app.delay.is_zero() {
            tokio::time::sleep(app.delay).await;
        }
        next.run(request).await
    };
    response
        .headers_mut()
        .insert("x-app", HeaderValue::from_static(app.name));
    response
}

async fn hello(State(app): State<Behaviour>, uri: Uri) -> String {
    format!(
        "Hello from application `{}` behind Tidegate. You asked for {}\n",
        app.name,
        uri.path()
    )
}

/// The request as the application saw it, then its body: shows what the gateway added.
async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut text = format!("{method} {uri}\n");
    for (name, value) in &headers {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    text += "\n";
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&body);
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        Body::from(bytes),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    fn get(app: &App, path: &str) -> String {
        let mut stream = TcpStream::connect(app.address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Goal: each application behaves as its name says. Method: ask them over TCP.
    #[test]
    fn applications_behave() {
        let apps = start().unwrap();
        assert!(get(&apps.steady, "/x").contains("Hello from application `a`"));
        assert!(get(&apps.steady, "/echo").contains("GET /echo\nhost: x"));
        assert!(get(&apps.slow, "/").contains("x-app: b"));
        let failed = (0..2 * FLAKY_EVERY)
            .filter(|_| get(&apps.flaky, "/").starts_with("HTTP/1.1 503"))
            .count();
        assert_eq!(failed, 2);
        apps.flaky.set_up(false);
        assert!(get(&apps.flaky, "/health").starts_with("HTTP/1.1 503"));
        apps.flaky.set_up(true);
        assert!(get(&apps.flaky, "/health").starts_with("HTTP/1.1 200"));
    }
}
