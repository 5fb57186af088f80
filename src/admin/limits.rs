//! `/limits`: how full the machine is, by signal, and what every interface may have in flight; and
//! `/limits/decisions`: the last changes of limits, each with what it rests on (L10). As JSON for programs, and
//! as text for people.

use std::{fmt::Write, time::Duration};

use axum::{
    extract::{Query, State},
    response::Response,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidegate_core::{
    config::{model::Scope, parse_duration},
    limiter::{
        Priority,
        application::{UnitLimit, UnitStatus},
        hand::{HandLimit, Whose},
        watermark::{Phase, Reading, Signal},
    },
};

use super::{Admin, bad_request, rates};
use crate::{
    coordinator::steering::LASTS_MAX,
    limits::{ClusterLimits, Decision},
    status::{Command, LimitCommand, Status},
    text::Rfc3339,
};

/// `/limits`
pub(crate) fn view(status: &Status) -> Value {
    let now = status.started.elapsed();
    let live = status.live();
    let clusters = live.limits.clusters.iter();
    Value::Array(
        clusters
            .map(|(name, cluster)| {
                let units = cluster.units.iter().map(unit).collect();
                Value::Object(cluster_view(name, cluster, units, now))
            })
            .collect(),
    )
}

/// Interfaces that a summary shows by cluster, the costliest first, and clusters.
const SUMMARY_UNITS: usize = 16;
const SUMMARY_CLUSTERS: usize = 16;

/// What the dashboard draws.
pub(crate) fn summary(status: &Status) -> Value {
    let now = status.started.elapsed();
    let live = status.live();
    let all = &live.limits.clusters;
    let clusters = all.iter().take(SUMMARY_CLUSTERS).map(|(name, cluster)| {
        let costliest = costliest(cluster);
        let shown = costliest.iter().take(SUMMARY_UNITS);
        let units = shown.map(|view| unit(view)).collect();
        let mut view = cluster_view(name, cluster, units, now);
        let hidden = cluster.units.len().saturating_sub(SUMMARY_UNITS);
        view.insert("interfaces_hidden".into(), json!(hidden));
        Value::Object(view)
    });
    json!({
        "clusters_hidden": all.len().saturating_sub(SUMMARY_CLUSTERS),
        "clusters": clusters.collect::<Vec<_>>(),
    })
}

/// `/limits/decisions`
pub(crate) fn decisions(status: &Status) -> Value {
    let live = status.live();
    Value::Array(live.limits.decisions.iter().map(decision).collect())
}

/// `/limits` as text.
pub(crate) fn text(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_text(&mut out, status);
    out
}

fn write_text(out: &mut String, status: &Status) -> std::fmt::Result {
    rates::write_text(out, status)?;
    let now = status.started.elapsed();
    let live = status.live();
    if live.limits.clusters.is_empty() {
        return writeln!(
            out,
            "no cluster is limited: give one `adaptive_limit: {{}}`"
        );
    }
    for (name, cluster) in &live.limits.clusters {
        writeln!(
            out,
            "cluster {name}: {}, {} ({}), watermark {}",
            phase(cluster.phase),
            cluster.rule.mode.word(),
            scope(&cluster.rule.scope),
            reading(&cluster.reading),
        )?;
        for signal in Signal::ALL {
            let target = cluster.rule.policy.targets.get(signal);
            match (cluster.sample.get(signal), target) {
                (Some(value), Some(target)) => {
                    let part = value / target;
                    writeln!(
                        out,
                        "  {:<12} {value:.3} of {target:.3}  {part:.2}",
                        signal.word()
                    )?;
                }
                (None, Some(_)) if signal != Signal::App => {
                    writeln!(out, "  {:<12} not measured", signal.word())?;
                }
                _ => {}
            }
        }
        for (whose, limit) in &cluster.by_hand {
            let left = limit.until.saturating_sub(now).as_secs_f64();
            let total = limit.total;
            writeln!(out, "  by hand: {whose} {total}, {left:.0} s left")?;
        }
        for unit in costliest(cluster) {
            let limit = match (unit.view.limit, unit.view.by_hand) {
                (None, _) => "none".to_owned(),
                (Some(limit), false) => limit.to_string(),
                (Some(limit), true) => format!("{limit} by hand"),
            };
            writeln!(
                out,
                "  {} ({}): {:.0}/s, usually {:.0}/s; {:.0} in flight, while well {:.1}; limit {limit}, {} refused",
                unit.name,
                unit.priority.word(),
                unit.view.rate,
                unit.view.usual_rate,
                unit.view.in_flight,
                unit.view.baseline,
                unit.refused + unit.would_refuse,
            )?;
        }
    }
    if !live.limits.decisions.is_empty() {
        writeln!(out, "\nlast changes, the newest first")?;
    }
    for Decision {
        unix_ms,
        cluster,
        told,
    } in live.limits.decisions.iter().take(SUMMARY_UNITS)
    {
        let limits: Vec<String> = told.limits.iter().take(SUMMARY_UNITS).map(said).collect();
        writeln!(
            out,
            "  {}  {cluster} {} by {}: {}",
            Rfc3339(unix_ms * 1_000_000),
            phase(told.phase),
            reading(&told.reading),
            if limits.is_empty() {
                "no limits".to_owned()
            } else {
                limits.join("; ")
            },
        )?;
    }
    Ok(())
}

#[derive(Deserialize)]
pub(super) struct LimitQuery {
    cluster: Box<str>,
    interface: Option<Box<str>>,
    priority: Option<Box<str>>,
    limit: Box<str>,
    r#for: Option<Box<str>>,
    dry_run: Option<u8>,
}

/// How long a limit by hand lasts, unless told otherwise: long enough to find out what is wrong.
const LASTS: Duration = Duration::from_secs(600);

/// Sets a limit by hand, or takes it back.
pub(super) async fn change(
    State(admin): State<Admin>,
    Query(query): Query<LimitQuery>,
) -> Response {
    match command(query) {
        Ok(command) => admin.ask(Command::SetLimit(Box::new(command))).await,
        Err(why) => bad_request(&why),
    }
}

fn command(query: LimitQuery) -> Result<LimitCommand, String> {
    let total = match &*query.limit {
        "off" => None,
        number => Some(number.parse().map_err(|_| {
            format!("`limit` is a number of requests in flight, or `off`; not `{number}`")
        })?),
    };
    let priority = match query.priority.as_deref() {
        None => None,
        Some(word) => Some(Priority::of(word.as_bytes()).ok_or_else(|| {
            let words = Priority::ALL.map(Priority::word).join(", ");
            format!("`priority` is one of {words}; not `{word}`")
        })?),
    };
    let lasts = match query.r#for.as_deref().map(parse_duration) {
        None => LASTS,
        Some(Ok(time)) if time.as_secs() >= 1 && time <= LASTS_MAX => time,
        Some(Ok(_)) => return Err("`for` is a duration from 1s to a year".into()),
        Some(Err(why)) => return Err(format!("`for`: {why}")),
    };
    Ok(LimitCommand {
        cluster: query.cluster.into(),
        whose: Whose {
            interface: query.interface.map(Into::into),
            priority,
        },
        total,
        lasts,
        is_trial: query.dry_run == Some(1),
    })
}

fn costliest(cluster: &ClusterLimits) -> Vec<&UnitStatus> {
    let mut units: Vec<&UnitStatus> = cluster.units.iter().collect();
    units.sort_by(|a, b| b.view.share.total_cmp(&a.view.share));
    units
}

fn cluster_view(
    name: &str,
    cluster: &ClusterLimits,
    units: Vec<Value>,
    now: Duration,
) -> Map<String, Value> {
    let by_hand = cluster.by_hand.iter().map(|limit| by_hand(limit, now));
    let signals = Signal::ALL.iter().filter_map(|signal| {
        let target = cluster.rule.policy.targets.get(*signal)?;
        let value = cluster.sample.get(*signal);
        let part = value.map(|value| value / target);
        let view = json!({ "value": value, "target": target, "part": part });
        Some((signal.word().to_owned(), view))
    });
    Map::from_iter([
        ("name".to_owned(), json!(name)),
        ("mode".to_owned(), json!(cluster.rule.mode.word())),
        ("scope".to_owned(), json!(scope(&cluster.rule.scope))),
        ("phase".to_owned(), json!(phase(cluster.phase))),
        ("watermark".to_owned(), json!(cluster.reading.watermark)),
        (
            "signal".to_owned(),
            json!(cluster.reading.dominant.map(Signal::word)),
        ),
        ("epoch".to_owned(), json!(cluster.epoch)),
        ("overloads".to_owned(), json!(cluster.overloads)),
        ("signals".to_owned(), Value::Object(signals.collect())),
        ("by_hand".to_owned(), Value::Array(by_hand.collect())),
        ("interfaces".to_owned(), Value::Array(units)),
    ])
}

/// A limit that an operator has set.
fn by_hand((whose, limit): &(Whose, HandLimit), now: Duration) -> Value {
    json!({
        "interface": whose.interface.as_deref(),
        "priority": whose.priority.map(Priority::word),
        "limit": limit.total,
        "left_s": limit.until.saturating_sub(now).as_secs_f64(),
    })
}

fn unit(unit: &UnitStatus) -> Value {
    json!({
        "name": &*unit.name,
        "priority": unit.priority.word(),
        "rate_s": unit.view.rate,
        "rate_10s": unit.view.rate_10s,
        "usual_rate_s": unit.view.usual_rate,
        "cpu": unit.view.cpu,
        "share": unit.view.share,
        "in_flight": unit.view.in_flight,
        "baseline": unit.view.baseline,
        "limit": unit.view.limit,
        "by_hand": unit.view.by_hand,
        "refused": unit.refused,
        "would_refuse": unit.would_refuse,
        "failed": unit.failed,
    })
}

fn decision(decision: &Decision) -> Value {
    let told = &decision.told;
    let limits = told.limits.iter().map(|limit| {
        json!({
            "interface": &*limit.name,
            "priority": limit.priority.word(),
            "limit": limit.total,
            "in_flight": limit.in_flight,
            "demand": limit.demand,
            "by_shard": limit.shares.iter().map(|share| share.slots).collect::<Vec<_>>(),
            "callers_let_in": f64::from(limit.cohort) / 10_000.0,
            "by_hand": limit.by_hand,
        })
    });
    json!({
        "unix_ms": decision.unix_ms,
        "cluster": &*decision.cluster,
        "phase": phase(told.phase),
        "watermark": told.reading.watermark,
        "signal": told.reading.dominant.map(Signal::word),
        "epoch": told.epoch,
        "enforced": told.enforced,
        "limits": limits.collect::<Vec<_>>(),
    })
}

fn said(limit: &UnitLimit) -> String {
    format!(
        "{} ({}) {}, {} in flight of {} asked for",
        limit.name,
        limit.priority.word(),
        limit.total,
        limit.in_flight,
        limit.demand
    )
}

fn reading(reading: &Reading) -> String {
    let signal = reading.dominant.map_or("nothing measured", Signal::word);
    format!("{:.2} ({signal})", reading.watermark)
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Healthy => "healthy",
        Phase::Overloaded => "overloaded",
    }
}

fn scope(scope: &Scope) -> String {
    match scope {
        Scope::Host => "host".to_owned(),
        Scope::Own => "own cgroup".to_owned(),
        Scope::Cgroup(path) => format!("cgroup {path}"),
        Scope::Pid(pid) => format!("cgroup of process {pid}"),
    }
}
