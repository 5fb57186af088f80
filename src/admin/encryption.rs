//! `/encryption`: who speaks to the listeners and how much of it is encrypted; and how far the links to
//! clusters are from what they ought to be (E1, E3, E5). As JSON for programs, and as text for people.

use std::{fmt::Write, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tidegate_core::{
    config::model::{CapabilityState, ClusterTls, TlsCapability, TlsVersion, UpstreamTls},
    encryption::{
        census::{Count, Counts, OTHER, Report, Share},
        mode::{self, StillPlaintext},
        rollout::{self, LinkKind},
    },
    snapshot::{Cluster, Endpoint, Listener, Snapshot},
    stats::ShardCounters,
};

use crate::{
    key_log::KeyLogFile,
    status::{Live, Status},
};

/// Everything.
pub(crate) fn view(status: &Status) -> Value {
    let live = status.live();
    let Some(snapshot) = &live.snapshot else {
        return json!({ "listeners": [], "clusters": [], "links": links(status) });
    };
    let now = status.now_unix_ms();
    let listeners = snapshot.listeners.iter().map(|l| listener(l, &live, now));
    let clusters = snapshot
        .clusters
        .iter()
        .filter_map(|c| Some(cluster(c, c.config.tls.as_deref()?, &live, snapshot)));
    json!({
        "listeners": listeners.collect::<Vec<_>>(),
        "clusters": clusters.collect::<Vec<_>>(),
        "links": links(status),
        "key_log": live.key_log.as_ref().map(KeyLogFile::view),
    })
}

/// Peers and listeners that a summary names; the rest is counted. Keeps an event in the tens of KiB.
const SUMMARY_PEERS: usize = 8;
const SUMMARY_LISTENERS: usize = 32;

/// What the dashboard draws: totals, from which it makes rates, and the latest plaintext peers.
pub(crate) fn summary(status: &Status) -> Value {
    let live = status.live();
    let now = status.now_unix_ms();
    let snapshot = live.snapshot.as_deref();
    let all = snapshot.map_or(0, |snapshot| snapshot.listeners.len());
    let listeners = snapshot
        .into_iter()
        .flat_map(census)
        .take(SUMMARY_LISTENERS)
        .map(|(listener, report)| {
            let window = listener.tls.as_ref().map(|tls| tls.census_window);
            let since = now.saturating_sub(window.unwrap_or(SEEN_LATELY).as_millis() as u64);
            let peers = report.plaintext_peers(since);
            let named = peers.iter().take(SUMMARY_PEERS);
            json!({
                "name": &*listener.name,
                "mode": listener.tls.as_ref().map(|tls| mode::word(tls.mode)),
                "tls": count(&report.total.tls, now),
                "plaintext": count(&report.total.plaintext, now),
                "plaintext_peers": named.map(|(name, _)| &**name).collect::<Vec<_>>(),
                "plaintext_peers_more": peers.len().saturating_sub(SUMMARY_PEERS),
            })
        });
    let listeners: Vec<Value> = listeners.collect();
    json!({
        "listeners_hidden": all - listeners.len(),
        "listeners": listeners,
        "links": links(status),
    })
}

/// For listeners that have no `census_window` of their own.
const SEEN_LATELY: Duration = Duration::from_secs(60);

/// The census of every listener of the snapshot in use.
pub(crate) fn census(snapshot: &Snapshot) -> impl Iterator<Item = (&Listener, Report)> {
    let listeners = snapshot.listeners.iter();
    listeners.map(|listener| (listener, Report::of(&listener.census)))
}

/// The window of a listener, and whom `strict` would hit now.
fn still_plaintext(listener: &Listener, report: &Report, now: u64) -> Option<StillPlaintext> {
    let window = listener.tls.as_ref().map(|tls| tls.census_window);
    mode::still_plaintext(&listener.name, window.unwrap_or(SEEN_LATELY), report, now)
}

fn listener(listener: &Listener, live: &Live, now: u64) -> Value {
    let report = Report::of(&listener.census);
    let mode = listener.tls.as_ref().map(|tls| tls.mode);
    let still = still_plaintext(listener, &report, now);
    let named = report.applications.iter().map(|(n, c)| (&**n, c));
    let other = (report.other != Counts::default()).then_some((OTHER, &report.other));
    let applications = named.chain(other).map(|(name, counts)| {
        let mut view = both(counts, now);
        view.insert("name".into(), json!(name));
        Value::Object(view)
    });
    let mut view = both(&report.total, now);
    view.insert("name".into(), json!(&*listener.name));
    view.insert("address".into(), {
        let bound = live.bound.get(&listener.bind).unwrap_or(&listener.bind);
        json!(bound.to_string())
    });
    view.insert("mode".into(), json!(mode.map(mode::word)));
    view.insert("applications".into(), Value::Array(applications.collect()));
    view.insert(
        "plaintext_unknown_open".into(),
        json!(report.plaintext_unknown_open()),
    );
    view.insert(
        "strict_would_hit".into(),
        json!(still.map(|s| s.to_string())),
    );
    view.insert("announced".into(), announced(listener, live));
    Value::Object(view)
}

fn announced(listener: &Listener, live: &Live) -> Value {
    let Some(announcement) = live.announcements.get(&listener.name) else {
        return Value::Null;
    };
    let mut view = capability(&announcement.capability);
    view.insert("why_not".into(), json!(announcement.why_not));
    view.insert("tried_unix_s".into(), json!(announcement.tried_unix_s));
    Value::Object(view)
}

fn capability(capability: &TlsCapability) -> Map<String, Value> {
    let state = match capability.state {
        CapabilityState::Off => "off",
        CapabilityState::On => "on",
    };
    let alpn: Vec<&str> = capability.alpn.iter().map(|p| &**p).collect();
    let min_version = capability.min_version.map(|version| match version {
        TlsVersion::Tls12 => "1.2",
        TlsVersion::Tls13 => "1.3",
    });
    Map::from_iter([
        ("state".to_owned(), json!(state)),
        ("epoch".to_owned(), json!(capability.epoch)),
        ("alpn".to_owned(), json!(alpn)),
        ("min_version".to_owned(), json!(min_version)),
    ])
}

/// Counts of both kinds, and the shares that follow from them.
fn both(counts: &Counts, now: u64) -> Map<String, Value> {
    Map::from_iter([
        (
            "encrypted".to_owned(),
            json!({
                "requests": share(counts.requests()),
                "bytes": share(counts.bytes()),
                "connections": share(counts.connections()),
                "connections_open": share(counts.connections_open()),
            }),
        ),
        ("tls".to_owned(), count(&counts.tls, now)),
        ("plaintext".to_owned(), count(&counts.plaintext, now)),
    ])
}

fn count(count: &Count, now: u64) -> Value {
    let ago = (count.last_unix_ms > 0).then(|| now.saturating_sub(count.last_unix_ms) as f64 / 1e3);
    json!({
        "requests": count.requests,
        "received_bytes": count.received_bytes,
        "sent_bytes": count.sent_bytes,
        "connections": count.connections,
        "connections_open": count.connections_open,
        "last_unix_ms": (count.last_unix_ms > 0).then_some(count.last_unix_ms),
        "last_ago_s": ago,
    })
}

/// 0 to 1, rounded down, so that 1 is all of it; nothing of nothing.
fn share(share: Share) -> Value {
    json!(share.basis_points().map(|points| f64::from(points) / 1e4))
}

fn cluster(cluster: &Cluster, tls: &ClusterTls, live: &Live, snapshot: &Snapshot) -> Value {
    let endpoints: Vec<Value> = cluster
        .endpoints
        .iter()
        .map(|endpoint| {
            let target = target(tls, endpoint, snapshot);
            let open = endpoint.counters.sum(|c| c.connections_open.get());
            let encrypted = endpoint.counters.sum(|c| c.tls_connections_open.get());
            json!({
                "address": endpoint.address.to_string(),
                "zone": &*endpoint.zone,
                "labels": labels(endpoint),
                "announces": capability(&endpoint.capability),
                "target": word(target),
                "shards_that_want_tls": endpoint.counters.sum(|c| c.tls_wanted.get()),
                "open_tls": encrypted,
                "open_plaintext": open.saturating_sub(encrypted),
                "failed_tls": endpoint.counters.sum(|c| c.failed_tls.get()),
            })
        })
        .collect();
    let sum = |key: &str| -> u64 {
        let values = endpoints.iter().filter_map(|e| e.get(key)?.as_u64());
        values.sum()
    };
    let rollout = json!({
        "share": f64::from(tls.rollout.basis_points) / 1e4,
        "id": &*tls.rollout.id,
        "zones": tls.rollout.zones.iter().map(|z| &**z).collect::<Vec<_>>(),
        "labels": tls.rollout.labels.iter().map(|(k, v)| (k.to_string(), json!(&**v)))
            .collect::<Map<_, _>>(),
        "by_hand": live.rollout_changes.get(&cluster.name).map(ToString::to_string),
    });
    let wanted = endpoints
        .iter()
        .filter(|e| e.get("target") == Some(&json!("tls")));
    json!({
        "name": &*cluster.name,
        "mode": match tls.mode {
            UpstreamTls::Disabled => "disabled",
            UpstreamTls::FollowPeer => "follow_peer",
            UpstreamTls::Required => "required",
        },
        "rollout": rollout,
        "endpoints_total": endpoints.len(),
        "endpoints_wanted_tls": wanted.count(),
        "open_tls": sum("open_tls"),
        "open_plaintext": sum("open_plaintext"),
        "failed_tls": sum("failed_tls"),
        "endpoints": endpoints,
    })
}

fn target(tls: &ClusterTls, endpoint: &Endpoint, snapshot: &Snapshot) -> LinkKind {
    rollout::wanted(
        tls,
        &snapshot.config.node.id,
        endpoint.address,
        &endpoint.zone,
        &endpoint.labels,
        &endpoint.capability,
    )
}

fn labels(endpoint: &Endpoint) -> Value {
    let labels = endpoint.labels.iter();
    Value::Object(labels.map(|(k, v)| (k.to_string(), json!(&**v))).collect())
}

fn word(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Plaintext => "plaintext",
        LinkKind::Tls => "tls",
    }
}

/// How the replacement of links gets on, over all clusters.
fn links(status: &Status) -> Value {
    let sum = |of: fn(&ShardCounters) -> u64| status.counters.sum(of);
    json!({
        "tls": sum(|s| s.links_tls.get()),
        "plaintext": sum(|s| s.links_plaintext.get()),
        "warming": sum(|s| s.links_warming.get()),
        "draining": sum(|s| s.links_draining.get()),
        "switches": sum(|s| s.link_switches.get()),
        "warm_ups": sum(|s| s.link_warm_ups.get()),
        "warm_ups_failed": sum(|s| s.link_warm_ups_failed.get()),
        "forced": sum(|s| s.links_forced.get()),
        "requests_lost": sum(|s| s.link_requests_lost.get()),
        "handshakes_full": sum(|s| s.upstream_tls_handshakes_full.get()),
        "handshakes_resumed": sum(|s| s.upstream_tls_handshakes_resumed.get()),
        "handshakes_failed": sum(|s| s.upstream_tls_handshakes_failed.get()),
    })
}

/// The same for people: a table of listeners with the peers that matter, one of clusters, and a line of links.
pub(crate) fn text(status: &Status) -> String {
    let live = status.live();
    let mut out = String::new();
    // Writing to a String does not fail.
    if let Some(snapshot) = live.snapshot.clone() {
        let now = status.now_unix_ms();
        for (listener, report) in census(&snapshot) {
            let _ = write_listener(&mut out, listener, &report, &live, now);
        }
        for cluster in &snapshot.clusters {
            if let Some(tls) = cluster.config.tls.as_deref() {
                let _ = write_cluster(&mut out, cluster, tls, &live, &snapshot);
            }
        }
    }
    let links = links(status);
    let number = |key: &str| links.get(key).and_then(Value::as_u64).unwrap_or(0);
    let _ = writeln!(
        out,
        "links: {} tls, {} plaintext, {} warming, {} draining; {} switches, {} warm-ups failed, {} requests lost",
        number("tls"),
        number("plaintext"),
        number("warming"),
        number("draining"),
        number("switches"),
        number("warm_ups_failed"),
        number("requests_lost"),
    );
    if let Some(view) = live.key_log.as_ref().map(KeyLogFile::view) {
        let _ = writeln!(out, "UNSAFE key log: {view}");
    }
    out
}

fn write_listener(
    out: &mut String,
    listener: &Listener,
    report: &Report,
    live: &Live,
    now: u64,
) -> std::fmt::Result {
    let mode = listener.tls.as_ref();
    let mode = mode.map_or("no tls section", |tls| mode::word(tls.mode));
    writeln!(out, "listener {}: {mode}", listener.name)?;
    write_counts(out, "all peers", &report.total)?;
    for (name, counts) in &report.applications {
        write_counts(out, name, counts)?;
    }
    if report.other != Counts::default() {
        write_counts(out, OTHER, &report.other)?;
    }
    match still_plaintext(listener, report, now) {
        Some(still) if listener.tls.is_some() => writeln!(out, "  strict would hit: {still}")?,
        None if listener.tls.is_some() => writeln!(out, "  strict would hit nobody")?,
        _ => {}
    }
    if let Some(announcement) = live.announcements.get(&listener.name) {
        let epoch = announcement.capability.epoch;
        match &announcement.why_not {
            Some(why) => writeln!(out, "  not announced: {why}")?,
            None if announcement.capability.state == CapabilityState::On => {
                writeln!(out, "  announced: tls on, epoch {epoch}")?;
            }
            None => {}
        }
    }
    writeln!(out)
}

fn write_counts(out: &mut String, name: &str, counts: &Counts) -> std::fmt::Result {
    writeln!(
        out,
        "  {name:<40} encrypted: requests {:>8}  bytes {:>8}  open {:>8}   plaintext: {} requests, {} open",
        counts.requests().to_string(),
        counts.bytes().to_string(),
        counts.connections_open().to_string(),
        counts.plaintext.requests,
        counts.plaintext.connections_open,
    )
}

fn write_cluster(
    out: &mut String,
    cluster: &Cluster,
    tls: &ClusterTls,
    live: &Live,
    snapshot: &Arc<Snapshot>,
) -> std::fmt::Result {
    let mode = match tls.mode {
        UpstreamTls::Disabled => "disabled".to_owned(),
        UpstreamTls::Required => "required".to_owned(),
        UpstreamTls::FollowPeer => format!(
            "follow_peer, rollout {}",
            Share {
                encrypted: tls.rollout.basis_points.into(),
                total: 10_000
            }
        ),
    };
    let by_hand = match live.rollout_changes.get(&cluster.name) {
        Some(change) => format!(" (set by hand: {change})"),
        None => String::new(),
    };
    writeln!(out, "cluster {}: {mode}{by_hand}", cluster.name)?;
    for endpoint in &cluster.endpoints {
        let open = endpoint.counters.sum(|c| c.connections_open.get());
        let encrypted = endpoint.counters.sum(|c| c.tls_connections_open.get());
        let announces = match endpoint.capability.state {
            CapabilityState::Off => "plaintext only".to_owned(),
            CapabilityState::On => format!("tls, epoch {}", endpoint.capability.epoch),
        };
        writeln!(
            out,
            "  {:<40} announces {announces}; target {}; open: {encrypted} tls, {} plaintext; tls failed {}",
            endpoint.address.to_string(),
            word(target(tls, endpoint, snapshot)),
            open.saturating_sub(encrypted),
            endpoint.counters.sum(|c| c.failed_tls.get()),
        )?;
    }
    writeln!(out)
}
