//! What a center shows, and what a person may say: page, JSON, metrics, confirm and clear. Loopback only,
//! and guarded against other sites like the proxy's own admin server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_core::healing::center::{
    Center,
    record::{Claim, ClaimKind, EndpointRecord, Event, NodeRecord},
};

use super::{
    Shared, Standing,
    control::{Asked, Control, admin::Order},
    engine::{Word, WordClaim},
    metrics,
};
use crate::{admin as process, text::Rfc3339};

const PAGE: &str = include_str!("page.html");

/// Events of one answer. A page shows some hundred; whoever wants all asks on with `after`.
const EVENTS_MAX: usize = 1000;

/// Events of one answer unless another number is asked for.
const EVENTS_USUAL: usize = 100;

/// What somebody who mistyped gets to read.
const PAGES: &str = "\
No such page. There are:
  GET   / (page)  /ready  /live  /state  /nodes  /endpoints  /actions  /events?after=N&limit=M  /metrics
  POST  /confirm?endpoint=ADDRESS:PORT  /clear?endpoint=ADDRESS:PORT
With --resources also:
  GET   /control?format=json|text
  POST  /control/reload  /control/promote  /control/rollback
";

/// What the handlers share.
#[derive(Clone)]
struct Admin {
    shared: Arc<Shared>,
    words: flume::Sender<Word>,
    plane: Option<ControlAdmin>,
}

/// The control plane, as far as it can be asked.
#[derive(Clone)]
pub(super) struct ControlAdmin {
    pub(super) control: Arc<Control>,
    pub(super) asked: flume::Sender<Asked>,
}

/// Serves from now on; to be called on a runtime.
pub(super) fn start(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    words: flume::Sender<Word>,
    plane: Option<ControlAdmin>,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = router(Admin {
        shared,
        words,
        plane,
    });
    let phases = process::Phases::always_open();
    tokio::spawn(async move { process::accept(&listener, router, &phases).await });
    Ok(())
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/state", get(state))
        .route(
            "/nodes",
            get(|admin: Admins| async move { admin.show(nodes) }),
        )
        .route(
            "/endpoints",
            get(|admin: Admins| async move { admin.show(endpoints) }),
        )
        .route(
            "/actions",
            get(|admin: Admins| async move { admin.show(actions) }),
        )
        .route("/events", get(events))
        .route("/metrics", get(exposition))
        .route(
            "/confirm",
            post(|admin: Admins, query| async move { admin.say(query, WordClaim::Confirm).await }),
        )
        .route(
            "/clear",
            post(|admin: Admins, query| async move { admin.say(query, WordClaim::Clear).await }),
        )
        .route("/control", get(control))
        .route("/control/reload", post(reload))
        .route(
            "/control/promote",
            post(|admin: Admins| async move { admin.order(Order::Promote).await }),
        )
        .route(
            "/control/rollback",
            post(|admin: Admins| async move { admin.order(Order::RollBack).await }),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, PAGES) })
        .layer(middleware::from_fn(process::guard::guard))
        .with_state(admin)
}

type Admins = State<Admin>;

#[derive(Deserialize)]
struct EndpointQuery {
    endpoint: SocketAddr,
}

impl Admin {
    /// Shows what only the leader knows.
    fn show(&self, view: impl FnOnce(&Center) -> Value) -> Response {
        match &*self.shared.standing() {
            Standing::Leading(center) => page(&view(center)),
            Standing::Following(leader) => follows(leader.as_deref()),
        }
    }

    /// Passes on what a person says, and answers once it is stored.
    async fn say(&self, Query(query): Query<EndpointQuery>, claim: WordClaim) -> Response {
        let endpoint = query.endpoint;
        tracing::info!("healing center: {claim:?} {endpoint} asked for");
        if let Standing::Following(leader) = &*self.shared.standing() {
            return follows(leader.as_deref());
        }
        let (taken, answer) = flume::bounded(1);
        let word = Word {
            endpoint,
            claim,
            taken,
        };
        if self.words.try_send(word).is_err() {
            return (StatusCode::SERVICE_UNAVAILABLE, "busy: try again\n").into_response();
        }
        match answer.recv_async().await {
            Ok(true) => "OK\n".into_response(),
            Ok(false) => {
                let why =
                    format!("nothing was reported of {endpoint}, or this center lost its lead\n");
                (StatusCode::CONFLICT, why).into_response()
            }
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
        }
    }
}

impl Admin {
    /// Does what a person asks of the control plane.
    async fn order(&self, order: Order) -> Response {
        let Some(plane) = &self.plane else {
            return no_resources();
        };
        tracing::info!("control plane: {order:?} asked for");
        match plane.control.order(order).await {
            Ok(()) => "OK\n".into_response(),
            Err(why) => (StatusCode::CONFLICT, format!("{why}\n")).into_response(),
        }
    }
}

fn no_resources() -> Response {
    let why = "this center serves no resources: start it with --resources DIR\n";
    (StatusCode::NOT_FOUND, why).into_response()
}

#[derive(Deserialize)]
struct FormatQuery {
    format: Option<Box<str>>,
}

/// What is served, to whom, and what became of it.
async fn control(State(admin): Admins, Query(query): Query<FormatQuery>) -> Response {
    let Some(plane) = &admin.plane else {
        return no_resources();
    };
    match query.format.as_deref() {
        Some("text") => plane.control.text().into_response(),
        _ => page(&plane.control.view()),
    }
}

/// Reads the directory now, and says what is wrong with it.
async fn reload(State(admin): Admins) -> Response {
    let Some(plane) = &admin.plane else {
        return no_resources();
    };
    let (told, answer) = flume::bounded(1);
    if plane.asked.try_send(told).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "busy: try again\n").into_response();
    }
    match answer.recv_async().await {
        Ok(problems) if problems.is_empty() => "OK\n".into_response(),
        Ok(problems) => (StatusCode::CONFLICT, problems.join("\n") + "\n").into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response(),
    }
}

fn follows(leader: Option<&str>) -> Response {
    let why = match leader {
        Some(leader) => format!("following: {leader} leads\n"),
        None => "following: nobody is known to lead\n".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

fn page(value: &Value) -> Response {
    let text = format!("{value:#}\n");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn ready(State(admin): Admins) -> Response {
    match &*admin.shared.standing() {
        Standing::Leading(_) => "leading\n".into_response(),
        Standing::Following(leader) => follows(leader.as_deref()),
    }
}

async fn exposition(State(admin): Admins) -> Response {
    let control = admin.plane.as_ref().map(|plane| &*plane.control);
    let text = metrics::render(&admin.shared.standing(), control);
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], text).into_response()
}

/// Who we are, and how we do.
async fn state(State(admin): Admins) -> Response {
    let shared = &admin.shared;
    let common = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "address": shared.advertise,
        "quorum": shared.settings.quorum,
        "percent": shared.settings.percent,
        "window_s": shared.settings.window.as_secs_f64(),
        "remedy": format!("{:?}", shared.settings.remedy).to_lowercase(),
        "restarts_at_once": shared.settings.restarts_at_once,
        "serves_resources": admin.plane.is_some(),
    });
    let own = match &*shared.standing() {
        Standing::Leading(center) => json!({
            "leading": true,
            "epoch": center.epoch(),
            "nodes": center.nodes().count(),
            "endpoints": center.endpoints().count(),
            "sick": center.sick(),
            "counts": center.counts(),
        }),
        Standing::Following(leader) => json!({ "leading": false, "leader": leader }),
    };
    page(&json!({ "center": common, "standing": own }))
}

fn nodes(center: &Center) -> Value {
    let node = |record: &NodeRecord| {
        json!({
            "id": record.node.id,
            "application": record.node.application,
            "fronts": record.node.fronts,
            "zone": record.node.zone,
            "calls": record.node.calls,
            "connected": record.connected,
            "heard": time(record.heard),
            "reports": record.sequence,
            "lost": record.lost,
        })
    };
    Value::Array(center.nodes().map(node).collect())
}

/// The evidence, and what follows from it. `health_status` is what EDS would carry.
fn endpoints(center: &Center) -> Value {
    let endpoint = |(address, record): (SocketAddr, &EndpointRecord)| {
        let claims: Vec<Value> = record
            .claims
            .iter()
            .map(|(node, c)| claim(node, c))
            .collect();
        json!({
            "endpoint": address,
            "service": record.service,
            "unit": record.unit,
            "group": record.group,
            "state": record.state.word(),
            "state_since": time(record.state_since),
            "verdict": record.verdict.word(),
            "verdict_since": time(record.verdict_since),
            "health_status": record.health_status(),
            "claims": claims,
        })
    };
    Value::Array(center.endpoints().map(endpoint).collect())
}

fn claim(node: &str, claim: &Claim) -> Value {
    let kind = match claim.kind {
        ClaimKind::Suspect => "suspect",
        ClaimKind::Ejected => "ejected",
        ClaimKind::Overload => "overload",
        ClaimKind::Probe => "probe",
    };
    json!({
        "node": node,
        "kind": kind,
        "at": time(claim.at),
        "until": time(claim.until),
        "finding": claim.finding,
    })
}

/// What is being done, and what was.
fn actions(center: &Center) -> Value {
    let treated = center.endpoints().filter(|(_, record)| {
        let treatment = &record.treatment;
        treatment.running.is_some() || treatment.restarts > 0 || treatment.offline
    });
    let action = |(address, record): (SocketAddr, &EndpointRecord)| {
        let running = record.treatment.running.as_ref().map(|running| {
            json!({
                "action": running.action,
                "application": running.application,
                "node": running.node,
                "done": running.done,
                "until": time(running.until),
            })
        });
        json!({
            "endpoint": address,
            "service": record.service,
            "restarts": record.treatment.restarts,
            "offline": record.treatment.offline,
            "running": running,
        })
    };
    Value::Array(treated.map(action).collect())
}

#[derive(Deserialize)]
struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

/// After an event, the oldest first; or without that, the newest.
async fn events(State(admin): Admins, Query(query): Query<EventsQuery>) -> Response {
    let limit = query.limit.unwrap_or(EVENTS_USUAL).min(EVENTS_MAX);
    admin.show(|center| {
        let found: Vec<&Event> = match query.after {
            Some(after) => center.events(after).take(limit).collect(),
            None => {
                let mut newest: Vec<&Event> = center.events(0).rev().take(limit).collect();
                newest.reverse();
                newest
            }
        };
        let event = |event: &&Event| {
            json!({
                "number": event.number,
                "at": time(event.at),
                "what": event.what,
                "node": event.node,
                "endpoint": event.endpoint,
                "detail": event.detail,
            })
        };
        Value::Array(found.iter().map(event).collect())
    })
}

/// A time since the Unix epoch, in words.
pub(super) fn time(at: Duration) -> String {
    Rfc3339(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the page works offline and stays small. Method: its size, and nothing in it that would be
    /// fetched from elsewhere or read as markup.
    #[test]
    fn page_is_self_contained() {
        assert!(PAGE.len() < 24_000);
        for foreign in [
            "http://",
            "https://",
            "//cdn",
            "@import",
            "<link",
            " src=",
            "innerHTML",
        ] {
            // An icon that is in the page itself, so that none is asked for.
            let icon = "<link rel=\"icon\" href=\"data:";
            let allowed = PAGE.replace("http://www.w3.org/2000/svg", "");
            let allowed = allowed.replace(icon, "");
            assert!(!allowed.contains(foreign), "{foreign}");
        }
    }
}
