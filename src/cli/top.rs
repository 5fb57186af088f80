//! `tidegate top`: a running process in a terminal, from second to second: what each shard, route, cluster and
//! endpoint does.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io::{self, IsTerminal},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tidegate_core::config::parse_duration;

use super::ctl::client::{Admin, text};
use crate::{exit::Failure, text::Span};

#[derive(clap::Args)]
#[command(after_help = "\
On a terminal the screen is drawn anew until Ctrl-C; else one table is written after another.

Examples:
  tidegate top
  tidegate top --interval 5s --admin 127.0.0.1:9902
  tidegate top --times 1 | head -20")]
pub(super) struct Args {
    /// Address of the admin server
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,

    /// Time between two looks, over which rates are taken
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,

    /// End after so many tables
    #[arg(long, value_name = "N")]
    times: Option<u64>,

    /// Rows of routes and of endpoints, the busiest first
    #[arg(long, value_name = "N", default_value_t = 12)]
    rows: usize,
}

/// The shortest and the longest interval.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3600)];

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Puts the cursor in the corner and clears what is below (ECMA-48: CUP, ED).
const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let admin = Admin {
        address: args.admin,
        timeout: PATIENCE,
    };
    let clear = match io::stdout().is_terminal() {
        true => HOME_AND_CLEAR,
        false => "",
    };
    let mut before = Look::take(&admin)?;
    let mut shown = 0;
    while args.times.is_none_or(|times| shown < times) {
        pause(args.interval);
        let now = Look::take(&admin)?;
        super::print(&format!("{clear}{}\n", frame(&before, &now, args.rows)))?;
        before = now;
        shown += 1;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread that does nothing else may sleep"
)]
fn pause(interval: Duration) {
    thread::sleep(interval);
}

/// What the admin server says at one time.
struct Look {
    at: Instant,
    server: Value,
    stats: Value,
    shards: Value,
    listeners: Value,
    clusters: Value,
    limits: Value,
}

impl Look {
    fn take(admin: &Admin) -> Result<Look, Failure> {
        Ok(Look {
            server: admin.view("/server_info")?,
            stats: admin.view("/stats")?,
            shards: admin.view("/shards")?,
            listeners: admin.view("/listeners")?,
            clusters: admin.view("/clusters")?,
            limits: admin.view("/limits")?,
            at: Instant::now(),
        })
    }
}

/// The screen.
fn frame(before: &Look, now: &Look, rows: usize) -> String {
    let seconds = (now.at - before.at).as_secs_f64().max(1e-3);
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = headline(&mut out, before, now, seconds);
    let _ = shards(&mut out, before, now, seconds);
    let _ = routes(&mut out, before, now, seconds, rows);
    let _ = endpoints(&mut out, before, now, seconds, rows);
    let _ = limits(&mut out, now);
    out
}

fn headline(out: &mut String, before: &Look, now: &Look, seconds: f64) -> std::fmt::Result {
    let rate = |name: &str| rate(&before.stats, &now.stats, name, seconds);
    let phase = |phase: &str, quantile: &str| {
        let pointer = format!("/phases/{phase}/{quantile}_s");
        let value = now.stats.pointer(&pointer).and_then(Value::as_f64);
        Span::ns((value.unwrap_or_default() * 1e9) as u64)
    };
    writeln!(
        out,
        "tidegate {}, {}, up {} s, epoch {}",
        text(&now.server, "/version"),
        text(&now.server, "/state"),
        text(&now.server, "/uptime_s"),
        text(&now.server, "/config/epoch"),
    )?;
    writeln!(
        out,
        "{:.0} requests/s, {:.0} 5xx/s, {:.0} retries/s, {} in flight; added p50 {} p99 {}; first byte p50 {} p99 {}\n",
        rate("requests"),
        rate("responses_5xx"),
        rate("retries"),
        number(&now.stats, "requests_active"),
        phase("added", "p50"),
        phase("added", "p99"),
        phase("first_byte", "p50"),
        phase("first_byte", "p99"),
    )
}

fn shards(out: &mut String, before: &Look, now: &Look, seconds: f64) -> std::fmt::Result {
    writeln!(
        out,
        "{:<6} {:>4} {:>10} {:>8} {:>6} {:>9} {:>9}",
        "SHARD", "CPU", "REQ/S", "CONNS", "BUSY", "IN", "OUT"
    )?;
    let earlier = by(&before.shards, |shard| number(shard, "shard").to_string());
    for shard in items(&now.shards) {
        let id = number(shard, "shard").to_string();
        let then = earlier.get(&id).copied().unwrap_or(shard);
        let rate = |name: &str| rate(then, shard, name, seconds);
        writeln!(
            out,
            "{id:<6} {:>4} {:>10.0} {:>8} {:>5.0}% {:>9} {:>9}",
            text(shard, "/cpu"),
            rate("requests"),
            number(shard, "connections_open"),
            rate("loop_busy_ns") / 1e7,
            bytes(rate("downstream_received_bytes")),
            bytes(rate("downstream_sent_bytes")),
        )?;
    }
    writeln!(out)
}

fn routes(
    out: &mut String,
    before: &Look,
    now: &Look,
    seconds: f64,
    rows: usize,
) -> std::fmt::Result {
    let all = |look| inner_by_name(look, "routes", "/name");
    let (earlier, now) = (all(&before.listeners), all(&now.listeners));
    let mut table: Vec<(&str, f64, f64)> = Vec::new();
    for (name, route) in &now {
        let then = earlier.get(name).unwrap_or(route);
        let rate = |counter: &str| rate(then, route, counter, seconds);
        table.push((name, rate("requests"), rate("failed_5xx")));
    }
    table.sort_by(|a, b| b.1.total_cmp(&a.1));
    writeln!(out, "{:<46} {:>10} {:>8}", "ROUTE", "REQ/S", "5XX/S")?;
    for (name, requests, failed) in table.iter().take(rows) {
        writeln!(out, "{name:<46} {requests:>10.0} {failed:>8.0}")?;
    }
    hidden(out, table.len(), rows)
}

fn endpoints(
    out: &mut String,
    before: &Look,
    now: &Look,
    seconds: f64,
    rows: usize,
) -> std::fmt::Result {
    const FAILURES: [&str; 7] = [
        "failed_5xx",
        "failed_connect",
        "failed_connect_timeout",
        "failed_tls",
        "failed_reset",
        "failed_protocol",
        "failed_deadline",
    ];
    let all = |look| inner_by_name(look, "endpoints", "/address");
    let (earlier, now) = (all(&before.clusters), all(&now.clusters));
    let mut table = Vec::new();
    for (name, endpoint) in &now {
        let then = earlier.get(name).unwrap_or(endpoint);
        let rate = |counter: &str| rate(then, endpoint, counter, seconds);
        let failed: f64 = FAILURES.iter().map(|counter| rate(counter)).sum();
        table.push((name, rate("requests"), failed, endpoint));
    }
    table.sort_by(|a, b| b.1.total_cmp(&a.1));
    writeln!(
        out,
        "{:<46} {:>10} {:>8} {:>7} {:>7}  STATE",
        "CLUSTER ENDPOINT", "REQ/S", "FAIL/S", "ACTIVE", "CONNS"
    )?;
    for (name, requests, failed, endpoint) in table.iter().take(rows) {
        writeln!(
            out,
            "{name:<46} {requests:>10.0} {failed:>8.0} {:>7} {:>7}  {}",
            number(endpoint, "requests_active"),
            number(endpoint, "connections_open"),
            state(endpoint),
        )?;
    }
    hidden(out, table.len(), rows)
}

/// Where an endpoint stands, in a word or two.
fn state(endpoint: &Value) -> String {
    let mut words = match endpoint["healing"].as_str() {
        Some(word) => match endpoint["healing_cause"].as_str() {
            Some(cause) => format!("{word} ({cause})"),
            None => word.to_owned(),
        },
        None if endpoint["available"] == Value::Bool(false) => "unavailable".to_owned(),
        None => "available".to_owned(),
    };
    if let Some(prior) = endpoint["prior"].as_f64() {
        words += &format!(", {:.0} % of its load", prior * 100.0);
    }
    words
}

fn limits(out: &mut String, now: &Look) -> std::fmt::Result {
    for cluster in items(&now.limits) {
        let limited = items(&cluster["interfaces"]).filter(|i| i["limit"].is_number());
        let limited: Vec<String> = limited
            .map(|i| {
                let hand = if i["by_hand"] == Value::Bool(true) {
                    " by hand"
                } else {
                    ""
                };
                format!(
                    "{} ({}) {}{hand}, {} refused",
                    text(i, "/name"),
                    text(i, "/priority"),
                    text(i, "/limit"),
                    number(i, "refused") + number(i, "would_refuse"),
                )
            })
            .collect();
        writeln!(
            out,
            "LIMIT {}: {}, watermark {:.2} ({}); {}",
            text(cluster, "/name"),
            text(cluster, "/phase"),
            cluster["watermark"].as_f64().unwrap_or_default(),
            text(cluster, "/signal"),
            match limited.is_empty() {
                true => "nobody is held back".to_owned(),
                false => limited.join("; "),
            },
        )?;
    }
    Ok(())
}

fn hidden(out: &mut String, all: usize, rows: usize) -> std::fmt::Result {
    match all.checked_sub(rows).filter(|more| *more > 0) {
        Some(more) => writeln!(out, "… and {more} more (--rows)\n"),
        None => writeln!(out),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// What is in the lists `inner` of the items of a list, by the item's name and its own.
fn inner_by_name<'v>(list: &'v Value, inner: &str, name: &str) -> BTreeMap<String, &'v Value> {
    let named = items(list).flat_map(|outer| {
        let named = items(&outer[inner]);
        named.map(move |one| (format!("{} {}", text(outer, "/name"), text(one, name)), one))
    });
    named.collect()
}

fn by(list: &Value, key: impl Fn(&Value) -> String) -> BTreeMap<String, &Value> {
    items(list).map(|item| (key(item), item)).collect()
}

fn number(view: &Value, name: &str) -> u64 {
    view[name].as_u64().unwrap_or_default()
}

/// A counter's growth in a second; none where it began anew.
fn rate(before: &Value, now: &Value, name: &str, seconds: f64) -> f64 {
    number(now, name).saturating_sub(number(before, name)) as f64 / seconds
}

/// Bytes a second, in the unit that leaves three digits.
fn bytes(rate: f64) -> String {
    let units = ["B/s", "KiB/s", "MiB/s"];
    let mut rate = rate;
    for unit in units {
        if rate < 1000.0 {
            return format!("{rate:.0} {unit}");
        }
        rate /= 1024.0;
    }
    format!("{rate:.1} GiB/s")
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    let [shortest, longest] = INTERVALS;
    match (shortest..=longest).contains(&interval) {
        true => Ok(interval),
        false => Err("use a time from 100ms to 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn look(seconds: u64, requests: u64) -> Look {
        let origin = Instant::now();
        Look {
            at: origin + Duration::from_secs(seconds),
            server: json!({ "version": "1.2", "state": "ready", "uptime_s": 7, "config": { "epoch": 3 } }),
            stats: json!({ "requests": requests, "requests_active": 2, "phases": { "added": { "p50_s": 2e-5 } } }),
            shards: json!([{ "shard": 0, "cpu": 2, "requests": requests, "loop_busy_ns": requests * 5_000_000 }]),
            listeners: json!([{ "name": "web", "routes": [{ "name": "a", "requests": requests }, { "name": "b" }] }]),
            clusters: json!([{ "name": "pay", "endpoints": [
                { "address": "10.0.0.1:80", "requests": requests, "failed_reset": requests / 2, "prior": 0.5, "healing": "ejected", "healing_cause": "stall" },
                { "address": "10.0.0.2:80", "available": false }] }]),
            limits: json!([{ "name": "pay", "phase": "overloaded", "watermark": 1.5, "signal": "cpu",
                "interfaces": [{ "name": "web/a", "priority": "batch", "limit": 4, "by_hand": true, "refused": 7 },
                    { "name": "web/b", "limit": null }] }]),
        }
    }

    /// Goal: rates are of the time between two looks, the busiest first, and what is wrong with whom is said.
    /// Method: two looks made by hand, 2 s apart.
    #[test]
    fn a_frame_says_what_happens() {
        let mut before = look(0, 100);
        let now = look(2, 300);
        before.at = now.at - Duration::from_secs(2);
        let frame = frame(&before, &now, 1);
        for said in [
            "tidegate 1.2, ready, up 7 s, epoch 3",
            "100 requests/s",
            "added p50 20.0µs",
            "web a                                                 100        0",
            "10.0.0.1:80",
            "50       0       0  ejected (stall), 50 % of its load",
            "LIMIT pay: overloaded, watermark 1.50 (cpu); web/a (batch) 4 by hand, 7 refused",
            "… and 1 more (--rows)",
        ] {
            assert!(frame.contains(said), "{said} in\n{frame}");
        }
        assert!(!frame.contains("10.0.0.2"), "{frame}");
        let busy = frame.lines().find(|line| line.starts_with("0 ")).unwrap();
        assert!(busy.contains("50%"), "{busy}");
    }

    /// Goal: intervals have bounds. Method: at them and beyond.
    #[test]
    fn intervals_are_bounded() {
        assert!(parse_interval("100ms").is_ok() && parse_interval("1h").is_ok());
        assert!(parse_interval("99ms").is_err() && parse_interval("3601s").is_err());
        assert!(parse_interval("fast").is_err());
    }
}
