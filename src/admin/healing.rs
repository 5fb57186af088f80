//! `/healing`: where every endpoint of a cluster that heals stands, on what evidence, until when; and the last
//! events (H4, H10, H11). As JSON for programs, and as text for people.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use axum::{
    extract::{Query, State as Shared},
    response::Response,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate_core::{
    config::parse_duration,
    healing::{
        ejection::{Event, Evidence, Found, State},
        ward::NodeView,
    },
};

use super::{Admin, bad_request};
use crate::{
    coordinator::healing::numbers,
    healing::{ClusterHealing, Noted},
    status::{Command, HealCommand, Live, Status},
    text::Rfc3339,
};

/// Everything.
pub(crate) fn view(status: &Status) -> Value {
    let now = status.started.elapsed();
    let live = status.live();
    let clusters = live.healing.clusters.iter().map(|(name, cluster)| {
        let mut view = totals(cluster);
        let nodes = cluster.nodes.iter().map(|view| node(view, now));
        view.insert("name".into(), json!(&**name));
        view.insert("endpoints".into(), nodes.collect());
        Value::Object(view)
    });
    let events = live.healing.events.iter().map(noted);
    json!({
        "center": center(&live),
        "clusters": clusters.collect::<Vec<_>>(),
        "events": events.collect::<Vec<_>>(),
    })
}

/// How reports to the center do; null without one.
fn center(live: &Live) -> Value {
    let Some(status) = &live.center else {
        return Value::Null;
    };
    let status = status.borrow();
    json!({
        "connected_to": status.center.as_deref(),
        "epoch": status.epoch,
        "streams": status.streams,
        "waiting": status.waiting,
        "reported": status.counts.reported,
        "acknowledged": status.counts.acknowledged,
        "dropped": status.counts.dropped,
        "resent": status.counts.resent,
        "directives_obeyed": status.obeyed,
        "directives_refused": status.refused,
        "last_error": status.last_error,
    })
}

/// Endpoints that a summary shows by cluster, and clusters: keeps an event in the tens of KiB.
const SUMMARY_ENDPOINTS: usize = 64;
const SUMMARY_CLUSTERS: usize = 32;
const SUMMARY_EVENTS: usize = 8;

/// What the dashboard draws.
pub(crate) fn summary(status: &Status) -> Value {
    let now = status.started.elapsed();
    let live = status.live();
    let all = &live.healing.clusters;
    let clusters = all.iter().take(SUMMARY_CLUSTERS).map(|(name, cluster)| {
        let shown = cluster.nodes.iter().take(SUMMARY_ENDPOINTS);
        json!({
            "name": &**name,
            "mode": cluster.mode.word(),
            "endpoints": shown.map(|view| node(view, now)).collect::<Vec<_>>(),
            "endpoints_hidden": cluster.nodes.len().saturating_sub(SUMMARY_ENDPOINTS),
        })
    });
    let events = live.healing.events.iter().take(SUMMARY_EVENTS).map(noted);
    json!({
        "clusters_hidden": all.len().saturating_sub(SUMMARY_CLUSTERS),
        "clusters": clusters.collect::<Vec<_>>(),
        "events": events.collect::<Vec<_>>(),
    })
}

/// The same as text.
pub(crate) fn text(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_text(&mut out, status);
    out
}

fn write_text(out: &mut String, status: &Status) -> std::fmt::Result {
    let now = status.started.elapsed();
    let live = status.live();
    if live.healing.clusters.is_empty() {
        return writeln!(out, "no cluster heals: give one `heal: {{}}`");
    }
    if let Some(status) = &live.center {
        let status = status.borrow();
        let to = status.center.as_deref().unwrap_or("none");
        let (waiting, dropped) = (status.waiting, status.counts.dropped);
        let error = status.last_error.as_deref().unwrap_or("no error");
        writeln!(
            out,
            "center {to}: {waiting} reports waiting, {dropped} dropped, {error}"
        )?;
    }
    for (name, cluster) in &live.healing.clusters {
        writeln!(out, "cluster {name}: {}", cluster.mode.word())?;
        for view in &cluster.nodes {
            let left = left(view.state, now).map_or_else(String::new, |left| {
                format!(", {:.1} s left", left.as_secs_f64())
            });
            let (state, why) = (
                word(view.state),
                view.found.as_ref().map_or_else(String::new, why),
            );
            let said = numbers(&view.found.map_or(view.evidence, |found| found.evidence));
            writeln!(out, "  {:<24} {state}{why}{left}  {said}", view.address)?;
        }
    }
    if !live.healing.events.is_empty() {
        writeln!(out, "\nlast events, the newest first")?;
    }
    for noted in live.healing.events.iter().take(SUMMARY_EVENTS * 4) {
        let at = Rfc3339(noted.unix_ms * 1_000_000);
        let (what, why) = said(&noted.event);
        let mode = if noted.enforced { "" } else { " (shadow)" };
        writeln!(
            out,
            "  {at}  {} {} {what}{mode}  {why}",
            noted.cluster, noted.address
        )?;
    }
    Ok(())
}

#[derive(Deserialize)]
pub(super) struct HealQuery {
    cluster: Box<str>,
    eject: Option<SocketAddr>,
    restore: Option<SocketAddr>,
    r#for: Option<Box<str>>,
    dry_run: Option<u8>,
}

/// How long an endpoint is out that was taken out by hand, unless told otherwise: long enough to look at it.
const EJECT_FOR: Duration = Duration::from_secs(60);
/// The longest that is believed to be meant.
const EJECT_FOR_MAX: Duration = Duration::from_secs(86_400);

/// Takes an endpoint out by hand, or back in.
pub(super) async fn change(
    Shared(admin): Shared<Admin>,
    Query(query): Query<HealQuery>,
) -> Response {
    match command(query) {
        Ok(command) => admin.ask(Command::Heal(command)).await,
        Err(why) => bad_request(&why),
    }
}

fn command(query: HealQuery) -> Result<HealCommand, String> {
    let time = match query.r#for.as_deref().map(parse_duration) {
        None => EJECT_FOR,
        Some(Ok(time)) if !time.is_zero() && time <= EJECT_FOR_MAX => time,
        Some(Ok(_)) => return Err("`for` is a duration from 1ms to 24h".into()),
        Some(Err(why)) => return Err(format!("`for`: {why}")),
    };
    let (endpoint, out_for) = match (query.eject, query.restore) {
        (Some(endpoint), None) => (endpoint, Some(time)),
        (None, Some(endpoint)) => (endpoint, None),
        _ => return Err("say one of `eject=IP:PORT` and `restore=IP:PORT`".into()),
    };
    Ok(HealCommand {
        cluster: query.cluster.into(),
        endpoint,
        out_for,
        is_trial: query.dry_run == Some(1),
    })
}

fn totals(cluster: &ClusterHealing) -> Map<String, Value> {
    Map::from_iter([
        ("mode".to_owned(), json!(cluster.mode.word())),
        ("judged_by".to_owned(), json!(cluster.judged_by)),
        ("ejections".to_owned(), json!(cluster.ejections)),
        ("kept_in".to_owned(), json!(cluster.kept_in)),
        ("recoveries".to_owned(), json!(cluster.recoveries)),
    ])
}

fn node(view: &NodeView, now: Duration) -> Value {
    json!({
        "address": view.address.to_string(),
        "state": word(view.state),
        "left_s": left(view.state, now).map(|left| left.as_secs_f64()),
        "times": view.times,
        "cause": view.found.map(|found| found.cause.word()),
        "guard": view.found.and_then(|found| found.guard).map(|guard| guard.word()),
        "found": view.found.map(|found| evidence(&found.evidence)),
        "evidence": evidence(&view.evidence),
    })
}

fn noted(noted: &Noted) -> Value {
    let mut view = match noted.event {
        Event::Suspected {
            cause,
            guard,
            evidence: found,
            ..
        } => json!({
            "event": "suspected", "cause": cause.word(), "guard": guard.word(), "evidence": evidence(&found),
        }),
        Event::Ejected {
            cause,
            penalty,
            times,
            evidence: found,
            ..
        } => json!({
            "event": "ejected", "cause": cause.word(), "penalty_s": penalty.as_secs_f64(), "times": times,
            "evidence": evidence(&found),
        }),
        Event::Probation { .. } => json!({ "event": "probation" }),
        Event::Recovered { .. } => json!({ "event": "recovered" }),
    };
    if let Value::Object(view) = &mut view {
        view.insert("unix_ms".into(), json!(noted.unix_ms));
        view.insert("cluster".into(), json!(&*noted.cluster));
        view.insert("address".into(), json!(noted.address.to_string()));
        view.insert("enforced".into(), json!(noted.enforced));
    }
    view
}

fn evidence(evidence: &Evidence) -> Value {
    json!({
        "calls": evidence.own.calls.round(),
        "failed_rate": evidence.own.mean(),
        "peers_failed_rate": evidence.peers.mean(),
        "failures_in_row": evidence.run,
        "latency_s": evidence.latency_s,
        "peers_latency_s": evidence.peers_latency_s,
        "waiting": evidence.waiting,
    })
}

/// Why an endpoint is not healthy, behind its state.
fn why(found: &Found) -> String {
    let kept = found
        .guard
        .map(|guard| format!(", kept in by {}", guard.word()));
    format!(" ({}{})", found.cause.word(), kept.unwrap_or_default())
}

/// What happened, and why.
fn said(event: &Event) -> (String, String) {
    match event {
        Event::Suspected {
            cause,
            guard,
            evidence,
            ..
        } => (
            format!("sick ({}), kept in by {}", cause.word(), guard.word()),
            numbers(evidence),
        ),
        Event::Ejected {
            cause,
            penalty,
            evidence,
            ..
        } => (
            format!("ejected for {penalty:.1?} ({})", cause.word()),
            numbers(evidence),
        ),
        Event::Probation { .. } => ("tried out".to_owned(), String::new()),
        Event::Recovered { .. } => ("well again".to_owned(), String::new()),
    }
}

/// The word of a state.
pub(crate) const fn word(state: State) -> &'static str {
    match state {
        State::Healthy => "healthy",
        State::Suspect => "suspect",
        State::Ejected { .. } => "ejected",
        State::Probation { .. } => "probation",
    }
}

/// How long a state still lasts, if that is bounded.
fn left(state: State, now: Duration) -> Option<Duration> {
    match state {
        State::Ejected { until } | State::Probation { until } => Some(until.saturating_sub(now)),
        State::Healthy | State::Suspect => None,
    }
}
