//! The admin server: a thread of its own, so that it never stalls a shard, nor the coordinator. It reads
//! [`Status`](crate::status::Status) and sends commands to the coordinator.
//!
//! It asks nobody who they are. So it listens on loopback addresses only, and a browser that some other
//! page has talked into a request (DNS rebinding, a form on another site) is refused by [`guard`].

mod balance;
mod calls;
mod certs;
mod connection;
pub(crate) mod encryption;
pub(crate) mod guard;
pub(crate) mod healing;
pub(crate) mod limits;
pub(crate) mod prometheus;
mod rates;
pub(crate) mod steering;
mod stream;
pub(crate) mod view;
pub(crate) mod xds;

use std::{
    future, io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::{self, Query, State as Shared},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_core::{config::parse_duration, encryption::change::RolloutChange};
use tidegate_xds::client_status::{self, ClientStatus};
use tokio::sync::{Semaphore, watch};

use crate::{
    coordinator::steering::LASTS_MAX,
    logging::LogLevel,
    service::Handle,
    status::{Command, Request, RuleCommand, State, Strict, unix_s},
};

/// Connections at a time; one more waits. A scraper, a few dashboards and people need a handful.
const CONNECTIONS_MAX: usize = 64;

/// The pause after a failed accept (EMFILE and the like): no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const DASHBOARD: &str = include_str!("dashboard.html");

/// What somebody who mistyped gets to read.
const PAGES: &str = "\
No such page. There are:
  GET   / (dashboard)  /ready  /live  /server_info  /stats  /metrics  /config_dump  /listeners
        /clusters  /shards  /memory  /logging  /stream  /certs  /encryption  /healing  /limits  /xds (?format=text)
        /limits/decisions  /limits/rates  /limits/service  /grpc (?format=text)
        /steering (?format=text)  /steering/dry-run
  POST  /drain  /undrain  /reload (?force_strict=1)  /logging?level=LEVEL  /quitquitquit
        /encryption?cluster=NAME&rollout=20%|on|off|file
        /healing?cluster=NAME&eject=IP:PORT&for=60s  /healing?cluster=NAME&restore=IP:PORT (&dry_run=1)
        /limits?cluster=NAME&limit=N&for=10m  /limits?cluster=NAME&limit=off (&interface=LISTENER/ROUTE) (&priority=NAME)
          (&dry_run=1)
        /steering/rules/ID (the rule as body; ?for=10m) (?withdraw=EPOCH&owner=NAME) (&dry_run=1)
        /steering/dry-run?end=1
        /upgrade
";

/// What the handlers share.
#[derive(Clone)]
struct Admin {
    service: Handle,
    log: LogLevel,
    stream: stream::Stream,
    phases: Phases,
}

/// The server.
pub(crate) struct Server {
    /// The address as configured.
    pub(crate) configured: SocketAddr,
    /// A handle of the socket, for the process that replaces this one.
    socket: TcpListener,
    phase: watch::Sender<Phase>,
    /// A word each time that it has stopped accepting.
    paused: flume::Receiver<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It does not accept, and may yet.
    Waiting,
    /// It accepts.
    Open,
    /// It accepts no more: another process does.
    Closed,
}

impl Server {
    /// Accepts from now on.
    pub(crate) fn open(&self) {
        self.phase.send_replace(Phase::Open);
    }

    /// Stops accepting, and returns when that is so. Who connects waits.
    pub(crate) async fn pause(&self) {
        self.phase.send_replace(Phase::Waiting);
        // An error: its thread has ended.
        let _ = self.paused.recv_async().await;
    }

    /// Gives the socket up. What is being answered is, and connections end behind it.
    pub(crate) fn close(self) {
        self.phase.send_replace(Phase::Closed);
    }

    /// Another handle of its socket.
    pub(crate) fn socket(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone().map(OwnedFd::from)
    }
}

/// Tells a server when to accept.
#[derive(Clone)]
pub(crate) struct Phases(watch::Receiver<Phase>);

impl Phases {
    /// Of a server that accepts as long as its process lives.
    pub(crate) fn always_open() -> Phases {
        Phases(watch::channel(Phase::Open).1)
    }

    fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// Returns the phase once it is one of those that are waited for.
    async fn until(&self, is_one: impl FnMut(&Phase) -> bool) -> Phase {
        let mut phases = self.0.clone();
        let reached = phases.wait_for(is_one).await.map(|phase| *phase).ok();
        match reached {
            Some(phase) => phase,
            // Nobody is there to say so.
            None => future::pending().await,
        }
    }
}

/// Starts the thread, which ends with the process. It accepts once it is [`Server::open`].
pub(crate) fn start(
    configured: SocketAddr,
    listener: TcpListener,
    service: Handle,
    log: LogLevel,
) -> io::Result<Server> {
    let socket = listener.try_clone()?;
    let (phase, phases) = watch::channel(Phase::Waiting);
    let (pausing, paused) = flume::bounded(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Scrapes are rendered there, one at a time: `/ready` never waits for one.
        .max_blocking_threads(1)
        .build()?;
    thread::Builder::new().name("admin".into()).spawn(move || {
        if let Err(e) = runtime.block_on(serve(listener, service, log, Phases(phases), pausing)) {
            tracing::error!("the admin server ended: {e}");
        }
    })?;
    Ok(Server {
        configured,
        socket,
        phase,
        paused,
    })
}

async fn serve(
    listener: TcpListener,
    service: Handle,
    log: LogLevel,
    phases: Phases,
    pausing: flume::Sender<()>,
) -> io::Result<()> {
    let stream = stream::Stream::start(service.status.clone(), phases.clone());
    let admin = Admin {
        service,
        log,
        stream,
        phases: phases.clone(),
    };
    let end_unless_open = middleware::from_fn_with_state(phases.clone(), end_unless_open);
    let router = router(admin).layer(end_unless_open);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    while phases.until(|phase| *phase != Phase::Waiting).await == Phase::Open {
        accept(&listener, router.clone(), &phases).await;
        // There is room: who paused it waits for the word.
        let _ = pausing.try_send(());
    }
    drop(listener);
    // For what is being answered.
    future::pending().await
}

/// Serves `router` to [`CONNECTIONS_MAX`] connections at a time, as long as it is open.
pub(crate) async fn accept(listener: &tokio::net::TcpListener, router: Router, phases: &Phases) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut ended = pin!(phases.until(|phase| *phase != Phase::Open));
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (Ok(permit), accepted) = (tokio::select! {
            _ = &mut ended => return,
            accepted = accepted => accepted,
        }) else {
            return;
        };
        match accepted {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    connection::serve_connection(stream, router).await;
                    drop(permit);
                });
            }
            Err(e) => {
                tracing::warn!("admin: accept: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Once the server has stopped accepting, the answer is the last one of its connection. (hyper's own graceful
/// shutdown also ends connections whose first request is on its way.)
async fn end_unless_open(
    Shared(phases): Shared<Phases>,
    request: extract::Request,
    next: middleware::Next,
) -> Response {
    let mut response = next.run(request).await;
    if phases.now() != Phase::Open {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn router(admin: Admin) -> Router {
    let status = admin.service.status.clone();
    let asked = ClientStatus::new(move || {
        let live = status.live();
        let source = live.xds.as_ref().map(|shown| shown.source.clone());
        (source, unix_s())
    });
    Router::new()
        .route_service(&format!("{}/{{method}}", client_status::PATH), asked)
        .route("/", get(|| async { Html(DASHBOARD) }))
        .route("/ready", get(ready))
        .route("/live", get(|| async { "live\n" }))
        .route(
            "/stats",
            get(|Shared(a): Admins| async move { json(view::stats(&a.service.status)) }),
        )
        .route("/stats/prometheus", get(metrics))
        .route("/metrics", get(metrics))
        .route(
            "/config_dump",
            get(|Shared(a): Admins| async move { json(view::config_dump(&a.service.status)) }),
        )
        .route(
            "/clusters",
            get(|Shared(a): Admins| async move { json(view::clusters(&a.service.status)) }),
        )
        .route(
            "/listeners",
            get(|Shared(a): Admins| async move { json(view::listeners(&a.service.status)) }),
        )
        .route(
            "/server_info",
            get(|Shared(a): Admins| async move { json(view::server_info(&a.service.status)) }),
        )
        .route("/memory", get(|| async { json(view::memory()) }))
        .route(
            "/shards",
            get(|Shared(a): Admins| async move { json(view::shards(&a.service.status)) }),
        )
        .route(
            "/stream",
            get(|Shared(a): Admins| async move { a.stream.response() }),
        )
        .route("/certs", get(certificates))
        .route("/encryption", get(encrypted).post(set_rollout))
        .route("/healing", get(healed).post(healing::change))
        .route("/limits", get(limited).post(limits::change))
        .route("/steering", get(steered))
        .route("/steering/rules/{id}", post(change_rule))
        .route("/steering/dry-run", get(tried).post(end_trial))
        .route("/xds", get(controlled))
        .route(
            "/limits/decisions",
            get(|Shared(a): Admins| async move { json(limits::decisions(&a.service.status)) }),
        )
        .route("/grpc", get(grpc_calls))
        .route(
            "/limits/rates",
            get(|Shared(a): Admins| async move { json(rates::view(&a.service.status)) }),
        )
        .route(
            "/limits/service",
            get(|Shared(a): Admins| async move { json(rates::service_view(&a.service.status)) }),
        )
        .route(
            "/logging",
            post(logging)
                .get(|Shared(a): Admins| async move { json(json!({ "level": a.log.current() })) }),
        )
        .route("/drain", post(drain))
        .route("/drain_listeners", post(drain))
        .route("/healthcheck/fail", post(drain))
        .route(
            "/undrain",
            post(|Shared(a): Admins| async move { a.ask(Command::Undrain).await }),
        )
        .route("/reload", post(reload))
        .route(
            "/upgrade",
            post(|Shared(a): Admins| async move { a.ask(Command::Upgrade).await }),
        )
        .route(
            "/quitquitquit",
            post(|Shared(a): Admins| async move { a.ask(Command::Quit).await }),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, PAGES) })
        .layer(middleware::from_fn(guard::guard))
        .with_state(admin)
}

type Admins = Shared<Admin>;

impl Admin {
    /// Passes a command on, logs it, and answers once it was carried out.
    async fn ask(&self, command: Command) -> Response {
        tracing::info!("admin: {command:?} asked for");
        let (done, answer) = flume::bounded(1);
        let request = Request { command, done };
        if self.service.requests.try_send(request).is_err() {
            let busy = "the coordinator is busy: try again\n";
            return (StatusCode::SERVICE_UNAVAILABLE, busy).into_response();
        }
        match answer.recv_async().await {
            Ok(Ok(())) => "OK\n".into_response(),
            Ok(Err(why)) => (StatusCode::CONFLICT, format!("{why}\n")).into_response(),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
        }
    }
}

/// 200 while requests are taken and nobody waits for a secret; otherwise 503 with the state. Takes no lock.
async fn ready(Shared(admin): Admins) -> Response {
    let status = &admin.service.status;
    let state = status.state();
    let waiting = status.waiting();
    match state {
        // Sent here, traffic would meet handshakes that fail (see /certs).
        State::Ready if waiting > 0 => {
            let why = format!("waiting for secrets: {waiting}\n");
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
        // This was asked just before another process took over, which serves now.
        State::Stopping if admin.phases.now() == Phase::Closed => "ready\n".into_response(),
        State::Ready => format!("{}\n", state.word()).into_response(),
        State::Starting | State::Draining | State::Stopping => {
            let said = format!("{}\n", state.word());
            (StatusCode::SERVICE_UNAVAILABLE, said).into_response()
        }
    }
}

#[derive(Deserialize)]
struct MetricsQuery {
    endpoints: Option<u8>,
    applications: Option<u8>,
}

async fn metrics(Shared(admin): Admins, Query(query): Query<MetricsQuery>) -> Response {
    let details = prometheus::Details {
        endpoints: query.endpoints == Some(1),
        applications: query.applications == Some(1),
    };
    let status = admin.service.status;
    let rendered = tokio::task::spawn_blocking(move || prometheus::render(&status, details)).await;
    match rendered {
        Ok(text) => {
            let format = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, format)], text).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

#[derive(Deserialize)]
struct LoggingQuery {
    level: String,
}

async fn logging(Shared(admin): Admins, Query(query): Query<LoggingQuery>) -> Response {
    let before = admin.log.current();
    match admin.log.set(&query.level) {
        Ok(()) => {
            tracing::info!("admin: log level {before} -> {}", query.level);
            json(json!({ "before": before, "level": query.level }))
        }
        Err(e) => bad_request(&e.to_string()),
    }
}

/// How a page is written.
#[derive(Deserialize)]
struct PageQuery {
    format: Option<Box<str>>,
}

impl PageQuery {
    /// As text if that was asked for, as JSON otherwise.
    fn page(&self, text: impl FnOnce() -> String, value: impl FnOnce() -> Value) -> Response {
        match self.format.as_deref() {
            Some("text") => text().into_response(),
            Some("json") | None => json(value()),
            Some(other) => bad_request(&format!("format `{other}` is neither text nor json")),
        }
    }
}

async fn certificates(Shared(admin): Admins, Query(query): Query<PageQuery>) -> Response {
    let status = &admin.service.status;
    query.page(|| certs::text(status), || certs::view(status))
}

async fn grpc_calls(Shared(admin): Admins, Query(query): Query<PageQuery>) -> Response {
    let status = &admin.service.status;
    query.page(|| calls::text(status), || calls::view(status))
}

async fn encrypted(Shared(admin): Admins, Query(query): Query<PageQuery>) -> Response {
    let status = &admin.service.status;
    query.page(|| encryption::text(status), || encryption::view(status))
}

#[derive(Deserialize)]
struct RolloutQuery {
    cluster: String,
    rollout: String,
}

async fn set_rollout(Shared(admin): Admins, Query(query): Query<RolloutQuery>) -> Response {
    match query.rollout.parse::<RolloutChange>() {
        Ok(change) => {
            admin
                .ask(Command::SetRollout(query.cluster.into(), change))
                .await
        }
        Err(why) => bad_request(&why),
    }
}

async fn healed(Shared(admin): Admins, Query(query): Query<PageQuery>) -> Response {
    let status = &admin.service.status;
    query.page(|| healing::text(status), || healing::view(status))
}

async fn limited(Shared(admin): Admins, Query(query): Query<PageQuery>) -> Response {
    let status = &admin.service.status;
    query.page(|| limits::text(status), || limits::view(status))
}

async fn steered(Shared(admin): Admins, Query(query): Query<PageQuery>) -> Response {
    let status = &admin.service.status;
    query.page(|| steering::text(status), || steering::view(status))
}

#[derive(Deserialize)]
struct RuleQuery {
    r#for: Option<Box<str>>,
    withdraw: Option<u64>,
    owner: Option<Box<str>>,
    dry_run: Option<u8>,
}

/// Bytes of a rule that is set by hand.
const RULE_BYTES_MAX: usize = 64 << 10;

async fn change_rule(
    Shared(admin): Admins,
    extract::Path(id): extract::Path<Box<str>>,
    Query(query): Query<RuleQuery>,
    rule: String,
) -> Response {
    if rule.len() > RULE_BYTES_MAX {
        return bad_request(&format!("a rule has at most {RULE_BYTES_MAX} bytes"));
    }
    let lasts = match query.r#for.as_deref().map(parse_duration) {
        None => None,
        Some(Ok(time)) if time.as_secs() >= 1 && time <= LASTS_MAX => Some(time),
        Some(Ok(_)) => return bad_request("`for` is a duration from 1s to a year"),
        Some(Err(why)) => return bad_request(&format!("`for`: {why}")),
    };
    let withdraw = match (query.withdraw, query.owner) {
        (None, _) => None,
        (Some(epoch), Some(owner)) => Some((owner.into(), epoch)),
        (Some(_), None) => return bad_request("say whose rule it is: `owner=NAME`"),
    };
    let command = RuleCommand {
        id: id.into(),
        rule,
        lasts,
        withdraw,
        is_trial: query.dry_run == Some(1),
    };
    admin.ask(Command::ChangeRule(Box::new(command))).await
}

async fn tried(Shared(admin): Admins) -> Response {
    json(steering::dry_run(&admin.service.status))
}

#[derive(Deserialize)]
struct TrialQuery {
    end: Option<u8>,
}

async fn end_trial(Shared(admin): Admins, Query(query): Query<TrialQuery>) -> Response {
    match query.end {
        Some(1) => admin.ask(Command::EndTrial).await,
        _ => bad_request("say `end=1`; a rule is tried out by `/steering/rules/ID?dry_run=1`"),
    }
}

async fn controlled(Shared(admin): Admins, Query(query): Query<PageQuery>) -> Response {
    let status = &admin.service.status;
    query.page(|| xds::text(status), || xds::view(status))
}

#[derive(Deserialize)]
struct ReloadQuery {
    force_strict: Option<u8>,
}

async fn reload(Shared(admin): Admins, Query(query): Query<ReloadQuery>) -> Response {
    let strict = match query.force_strict {
        Some(1) => Strict::Forced,
        _ => Strict::Judged,
    };
    admin.ask(Command::Reload(strict)).await
}

fn bad_request(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
}

async fn drain(Shared(admin): Admins) -> Response {
    admin.ask(Command::Drain).await
}

fn json(value: Value) -> Response {
    let text = format!("{value:#}\n");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the dashboard works offline and stays small. Method: its size, and nothing in it that
    /// would be fetched from elsewhere.
    #[test]
    fn dashboard_is_self_contained() {
        assert!(DASHBOARD.len() < 100_000);
        for foreign in ["http://", "https://", "//cdn", "@import", "<link", " src="] {
            let allowed = DASHBOARD.replace("http://www.w3.org/2000/svg", "");
            // An icon that is in the page itself, so that none is asked for.
            let allowed = allowed.replace("<link rel=\"icon\" href=\"data:", "");
            assert!(!allowed.contains(foreign), "{foreign}");
        }
    }
}
