//! `/steering`: the program in use, what each rule did, what flows between the places of an application, and what
//! is wrong with it (S16, S17). As JSON for programs, and as text for people.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use serde_json::{Map, Value, json};
use tidegate_core::{
    config::{
        format_instant,
        model::steering::{self as model, PlaceKind, Verb},
        rule_to_json,
    },
    message::Availability,
    snapshot::{Cluster, Snapshot, Steering},
    stats::RuleCounters,
    steering::program::{CompiledRule, Place, Table, share},
};

use crate::{
    coordinator::steering::ramp_words,
    status::{Live, Status, Trial, unix_s},
};

/// `/steering`: `null` if there is no program.
pub(crate) fn view(status: &Status) -> Value {
    let live = status.live();
    let Some((snapshot, steering, program)) = in_use(&live) else {
        return Value::Null;
    };
    let rules = program.rules.iter().filter_map(|rule| {
        let compiled = steering.table.rule(&rule.id)?;
        let mut view = rule_view(rule, compiled);
        if let Some((_, state)) = live.steering.ramps.get(&rule.id) {
            view.insert("ramp_state".into(), json!(ramp_words(state)));
        }
        Some(Value::Object(view))
    });
    json!({
        "epoch": snapshot.epoch.0,
        "applied_s": status.process.applied_s(),
        "rules": rules.collect::<Vec<_>>(),
        "applications": applications(snapshot, &steering.table),
        "by_hand": { "set": texts(&live.steering.set), "withdrawn": texts(&live.steering.withdrawn) },
        "problems": problems(&live),
    })
}

type InUse<'a> = (&'a Arc<Snapshot>, &'a Steering, &'a model::Steering);

fn in_use(live: &Live) -> Option<InUse<'_>> {
    let snapshot = live.snapshot.as_ref()?;
    let steering = snapshot.steering.as_deref()?;
    Some((snapshot, steering, snapshot.config.steering.as_deref()?))
}

fn rule_view(rule: &model::Rule, compiled: &CompiledRule) -> Map<String, Value> {
    let mut view = match rule_to_json(rule) {
        Value::Object(view) => view,
        _ => Map::new(),
    };
    view.insert("origin".into(), json!(*rule.origin));
    view.insert("says".into(), json!(says(rule)));
    view.insert("expired".into(), json!(is_expired(rule)));
    if let Some(reached) = rule.reached {
        let reached = f64::from(reached) / f64::from(share::WHOLE);
        view.insert("reached".into(), json!(reached));
    }
    view.insert("counts".into(), Value::Object(counts(compiled)));
    view
}

fn counts(rule: &CompiledRule) -> Map<String, Value> {
    let counts = RuleCounters::METRICS.iter().enumerate();
    let counts = counts.map(|(at, info)| {
        let sum = (rule.counters).sum(|c| c.values().get(at).copied().unwrap_or(0));
        (info.name.to_owned(), json!(sum))
    });
    counts.collect()
}

fn is_expired(rule: &model::Rule) -> bool {
    rule.expires_unix_s.is_some_and(|end| end <= unix_s())
}

/// What a rule comes to: for a divert, which share was given and what that means for a server (S5).
pub(crate) fn says(rule: &model::Rule) -> String {
    let percent = |points: u32| share::percent(f64::from(points) / f64::from(share::WHOLE));
    match &rule.verb {
        Verb::SetUnit(to) | Verb::SetGroup(to) => format!("all to {to}"),
        Verb::Shift { to, share } => format!("{} to {to}", percent(*share)),
        Verb::Divert { to, share } => format!("to {to}; {}", share::describe(*share)),
        Verb::Split(row) => said_row(row),
        Verb::Matrix(rows) => {
            let rows = rows
                .iter()
                .map(|(from, row)| format!("{from}: {}", said_row(row)));
            rows.collect::<Vec<_>>().join("; ")
        }
        Verb::Cap(rate) => format!(
            "at most {} in {:?}, burst {}",
            rate.requests, rate.per, rate.burst
        ),
        Verb::FailTo(places) => {
            format!("to the first of {} that has an endpoint", places.join(", "))
        }
    }
}

fn said_row(row: &model::Row) -> String {
    let shares = row.iter().map(|(to, points)| {
        let share = share::percent(f64::from(*points) / f64::from(share::WHOLE));
        format!("{share} to {to}")
    });
    shares.collect::<Vec<_>>().join(", ")
}

/// By application: its places, with what came, where it went, and what the endpoints got.
fn applications(snapshot: &Snapshot, table: &Table) -> Value {
    let mut applications: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for place in table.places() {
        let places = applications.entry(&place.application).or_default();
        places.push(place_view(snapshot, table, place));
    }
    json!(applications)
}

fn place_view(snapshot: &Snapshot, table: &Table, place: &Place) -> Value {
    let cluster = snapshot.cluster(place.cluster);
    let to: Map<String, Value> = flows(table, place)
        .into_iter()
        .map(|(to, count)| (to.name.to_string(), json!(count)))
        .collect();
    let delivered: u64 = of_application(table, place)
        .map(|from| flow(from, place))
        .sum();
    json!({
        "name": *place.name,
        "kind": kind_word(place.kind),
        "cluster": cluster.map(|cluster| &*cluster.name),
        "endpoints": cluster.map_or(0, |cluster| cluster.endpoints.len()),
        "arrived": place.counters.sum(|c| c.arrived.get()),
        "turned_away": place.counters.sum(|c| c.turned_away.get()),
        "to": to,
        // What was decided, beside what the endpoints were sent: of an exclusive group they agree, but for
        // retries, and for what its circuit or its limits refused (S9).
        "delivered": delivered,
        "sent": cluster.map_or(0, sent),
    })
}

fn of_application<'t>(table: &'t Table, place: &'t Place) -> impl Iterator<Item = &'t Place> {
    let all = table.places();
    all.filter(|other| other.application == place.application)
}

/// How many requests of `from` went to `to`.
pub(crate) fn flow(from: &Place, to: &Place) -> u64 {
    let count =
        |c: &tidegate_core::stats::PlaceCounters| c.to.get(to.ordinal).map_or(0, |n| n.get());
    from.counters.sum(count)
}

/// Where requests of a place went, and how many.
pub(crate) fn flows<'t>(table: &'t Table, from: &'t Place) -> Vec<(&'t Place, u64)> {
    let to = of_application(table, from).map(|to| (to, flow(from, to)));
    to.filter(|(_, count)| *count > 0).collect()
}

/// All flows, by application, from and to.
pub(crate) fn all_flows(table: &Table) -> BTreeMap<[Arc<str>; 3], u64> {
    let flows = table.places().flat_map(|from| {
        let flows = flows(table, from).into_iter();
        flows.map(move |(to, count)| {
            let key = [&from.application, &from.name, &to.name].map(Arc::clone);
            (key, count)
        })
    });
    flows.collect()
}

/// Flows that a summary shows, and problems.
const SUMMARY_FLOWS: usize = 32;
const SUMMARY_PROBLEMS: usize = 8;

/// What the dashboard draws: what flows between places, what ramps do, and what is wrong.
pub(crate) fn summary(status: &Status) -> Value {
    let live = status.live();
    let Some((_, steering, program)) = in_use(&live) else {
        return Value::Null;
    };
    let all = all_flows(&steering.table);
    let shown = all.iter().take(SUMMARY_FLOWS).map(|([application, from, to], count)| {
        json!({ "application": **application, "from": **from, "to": **to, "count": count })
    });
    let ramps = live.steering.ramps.iter().map(|(rule, (reached, state))| {
        let reached = share::percent(f64::from(*reached) / f64::from(share::WHOLE));
        format!("{rule} at {reached}, {}", ramp_words(state))
    });
    let problems = problems(&live);
    json!({
        "rules": program.rules.len(),
        "flows": shown.collect::<Vec<_>>(),
        "flows_hidden": all.len().saturating_sub(SUMMARY_FLOWS),
        "ramps": ramps.take(SUMMARY_PROBLEMS).collect::<Vec<_>>(),
        "problems": problems.into_iter().take(SUMMARY_PROBLEMS).collect::<Vec<_>>(),
    })
}

fn texts(texts: &[Arc<str>]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

/// `/steering/dry-run`: what a program that is tried out would have moved, beside what was moved since then, of every
/// request and not of a sample (S15); `null` if none is.
pub(crate) fn dry_run(status: &Status) -> Value {
    let live = status.live();
    let Some((trial, (_, steering, program))) = live.steering.trial.as_ref().zip(in_use(&live))
    else {
        return Value::Null;
    };
    let Some((next, table)) = program.next.as_deref().zip(steering.dry_run.as_ref()) else {
        return Value::Null;
    };
    let rules: Vec<String> = next
        .rules
        .iter()
        .map(|rule| format!("{}@{}", rule.id, rule.epoch))
        .collect();
    json!({
        "since_s": unix_s().saturating_sub(trial.since_unix_s),
        "rules": rules,
        "movement": movement(trial, &steering.table, table),
    })
}

fn movement(trial: &Trial, now: &Table, next: &Table) -> Vec<Value> {
    let now = all_flows(now);
    let next = all_flows(next);
    let pairs: std::collections::BTreeSet<_> = now.keys().chain(next.keys()).collect();
    let lines = pairs.into_iter().filter_map(|key| {
        let before = trial.before.get(key).copied().unwrap_or(0);
        let now = now.get(key).copied().unwrap_or(0).saturating_sub(before);
        let next = next.get(key).copied().unwrap_or(0);
        let [application, from, to] = key;
        let line = json!({
            "application": **application, "from": **from, "to": **to, "now": now, "next": next,
        });
        (now > 0 || next > 0).then_some(line)
    });
    lines.collect()
}

fn sent(cluster: &Cluster) -> u64 {
    let endpoints = cluster.endpoints.iter();
    endpoints
        .map(|endpoint| endpoint.counters.sum(|c| c.requests.get()))
        .sum()
}

pub(crate) const fn kind_word(kind: PlaceKind) -> &'static str {
    match kind {
        PlaceKind::Unit => "unit",
        PlaceKind::Group => "group",
        PlaceKind::Exclusive => "exclusive",
    }
}

/// What an operator has to see: rules whose target has no endpoint that may be chosen, and rules that have expired
/// (S17).
pub(crate) fn problems(live: &Live) -> Vec<String> {
    let Some((snapshot, steering, program)) = in_use(live) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    for rule in &program.rules {
        if is_expired(rule) {
            let end = format_instant(rule.expires_unix_s.unwrap_or(0));
            problems.push(format!(
                "rule `{}` has expired at {end}: withdraw it",
                rule.id
            ));
            continue;
        }
        let targets = steering.table.rule(&rule.id).map(CompiledRule::targets);
        for target in targets.unwrap_or_default() {
            let Some((place, cluster)) = steering.table.place(target).zip(snapshot.cluster(target))
            else {
                continue;
            };
            if !has_endpoint(live, cluster) {
                problems.push(format!(
                    "rule `{}`: its target `{}` (cluster `{}`) has no endpoint that may be chosen",
                    rule.id, place.name, cluster.name
                ));
            }
        }
    }
    problems
}

/// As far as active checks know.
fn has_endpoint(live: &Live, cluster: &Cluster) -> bool {
    cluster.endpoints.iter().any(|endpoint| {
        let key = (cluster.name.clone(), endpoint.address);
        let health = live.health.get(&key);
        health.is_none_or(|health| health.availability == Availability::Available)
    })
}

/// The same as text.
pub(crate) fn text(status: &Status) -> String {
    let live = status.live();
    let mut out = String::new();
    match in_use(&live) {
        Some(in_use) => drop(write_text(&mut out, status, &live, in_use)),
        None => out.push_str("no steering program: every request goes where its route leads\n"),
    }
    out
}

fn write_text(
    out: &mut String,
    status: &Status,
    live: &Live,
    in_use: InUse<'_>,
) -> std::fmt::Result {
    let (snapshot, steering, program) = in_use;
    writeln!(
        out,
        "epoch {}, on every shard after {:.1} ms",
        snapshot.epoch,
        status.process.applied_s() * 1e3
    )?;
    for problem in problems(live) {
        writeln!(out, "problem: {problem}")?;
    }
    for (id, word) in [
        (&live.steering.set, "set"),
        (&live.steering.withdrawn, "withdrawn"),
    ] {
        if !id.is_empty() {
            writeln!(out, "{word} by hand: {}", texts(id).join(", "))?;
        }
    }
    for rule in &program.rules {
        let Some(compiled) = steering.table.rule(&rule.id) else {
            continue;
        };
        let count = |read: fn(&RuleCounters) -> u64| compiled.counters.sum(read);
        writeln!(
            out,
            "rule {}@{} of {} ({}): {} {}",
            rule.id,
            rule.epoch,
            rule.owner,
            rule.origin,
            compiled.word,
            says(rule)
        )?;
        writeln!(
            out,
            "  moved {}, stayed {}, fell back {}, refused {}, capped {}; of the moved {} are over, {} failed",
            count(|c| c.moved.get()),
            count(|c| c.stayed.get()),
            count(|c| c.fell_back.get()),
            count(|c| c.refused.get()),
            count(|c| c.capped.get()),
            count(|c| c.completed.get()),
            count(|c| c.failed.get()),
        )?;
        if let Some((reached, state)) = live.steering.ramps.get(&rule.id) {
            let reached = share::percent(f64::from(*reached) / f64::from(share::WHOLE));
            writeln!(out, "  ramp at {reached}, {}", ramp_words(state))?;
        }
    }
    for place in steering.table.places() {
        let flows = flows(&steering.table, place);
        let flows: Vec<String> = flows
            .iter()
            .map(|(to, count)| format!("{count} to {}", to.name))
            .collect();
        writeln!(
            out,
            "place {}/{} ({}): {} arrived, {} turned away; {}",
            place.application,
            place.name,
            kind_word(place.kind),
            place.counters.sum(|c| c.arrived.get()),
            place.counters.sum(|c| c.turned_away.get()),
            if flows.is_empty() {
                "nothing went anywhere".to_owned()
            } else {
                flows.join(", ")
            },
        )?;
    }
    Ok(())
}
