//! The configuration in words: a complete view of the model as JSON, with units, for `/config_dump`; and
//! what differs between two of them, for `check --diff` and for the log of a reload.
//!
//! Every struct is taken apart field by field without `..`: a new field of the model that is missing
//! here does not compile.

use std::{fmt::Display, time::Duration};

use serde_json::{Map, Value, json};
use tidegate_core::config::model::{
    AccessLog, AccessLogFormat, Balance, Circuit, Cluster, Config, Endpoints, Forward, Forwarded,
    HashOn, HeaderEdits, HealthCheck, HostPattern, Http, HttpLimits, HttpTimeouts, Limits,
    Listener, Node, PathPattern, PathRewrite, Probe, Protocol, ProxyProtocolIn, ProxyProtocolOut,
    Redirect, Respond, Retry, RetryOn, Ring, Route, RouteAction, RouteMatch, Shards,
    StaticEndpoint, Tcp, ValuePattern, WeightedCluster, XForwarded,
};

/// The whole configuration.
pub(crate) fn config(config: &Config) -> Value {
    let Config {
        node: Node { id, app, zone },
        shards: Shards { cpus, count, ring },
        admin,
        access_log,
        limits:
            Limits {
                connections,
                buffers,
                connection_buffer,
            },
        drain_timeout,
        listeners,
        clusters,
    } = config;
    json!({
        "node": { "id": id, "app": app, "zone": zone },
        "shards": { "cpus": cpus, "count": count, "ring": ring_view(ring) },
        "admin": text(admin.as_ref()),
        "access_log": access_log.as_ref().map(access_log_view),
        "limits": {
            "connections": connections,
            "buffers": bytes(*buffers),
            "connection_buffer": bytes(u64::from(*connection_buffer)),
        },
        "drain_timeout": span(*drain_timeout),
        "listeners": named(listeners.iter().map(|(name, l)| (name, listener(l)))),
        "clusters": named(clusters.iter().map(|(name, c)| (name, cluster(c)))),
    })
}

/// What differs, one sentence each; empty if nothing does. Places in the file do not count.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &config(old), &config(new), &mut found);
    found
}

fn compare(place: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        found.push(match (old, new) {
            (Value::Null, new) => format!("{place} set to {}", shown(new)),
            (old, Value::Null) => format!("{place} unset (was {})", shown(old)),
            (old, new) => format!("{place}: {} -> {}", shown(old), shown(new)),
        });
        return;
    };
    for (key, was) in old {
        if key == ORIGIN {
            continue;
        }
        let place = step(place, key);
        match new.get(key) {
            Some(is) => compare(&place, was, is, found),
            None => found.push(format!("{place} removed")),
        }
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        found.push(format!("{} added", step(place, key)));
    }
}

/// One step down: the entry of a map of names reads as `cluster `pay``, any other as `place key`.
fn step(place: &str, key: &str) -> String {
    let (before, last) = match place.rsplit_once(' ') {
        Some((before, last)) => (before, last),
        None => ("", place),
    };
    let noun = match last {
        "listeners" => "listener",
        "clusters" => "cluster",
        "routes" => "route",
        "" => return key.to_owned(),
        _ => return format!("{place} {key}"),
    };
    format!("{before} {noun} `{key}`").trim_start().to_owned()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Where an object stands in the file. Moves with every edit above it.
const ORIGIN: &str = "origin";

fn ring_view(ring: &Ring) -> Value {
    let Ring {
        submission_entries,
        completion_entries,
        head_buffers,
        head_buffer_bytes,
        body_buffers,
        body_buffer_bytes,
        busy_poll,
    } = ring;
    json!({
        "submission_entries": submission_entries,
        "completion_entries": completion_entries,
        "head_buffers": head_buffers,
        "head_buffer_bytes": bytes(u64::from(*head_buffer_bytes)),
        "body_buffers": body_buffers,
        "body_buffer_bytes": bytes(u64::from(*body_buffer_bytes)),
        "busy_poll": span(*busy_poll),
    })
}

fn access_log_view(log: &AccessLog) -> Value {
    let AccessLog { path, format } = log;
    let format = match format {
        AccessLogFormat::Short => "short",
        AccessLogFormat::Json => "json",
    };
    json!({ "path": path, "format": format })
}

fn listener(listener: &Listener) -> Value {
    let Listener {
        bind,
        proxy_protocol,
        protocol,
    } = listener;
    let mut view = Map::new();
    view.insert("bind".into(), json!(bind));
    let proxy_protocol = match proxy_protocol {
        ProxyProtocolIn::Off => "off",
        ProxyProtocolIn::Require => "require",
    };
    view.insert("proxy_protocol".into(), json!(proxy_protocol));
    let (protocol, more) = match protocol {
        Protocol::Http(settings) => ("http", http(settings)),
        Protocol::Tcp(settings) => ("tcp", tcp(settings)),
    };
    view.insert("protocol".into(), json!(protocol));
    if let Value::Object(more) = more {
        view.extend(more);
    }
    Value::Object(view)
}

fn http(http: &Http) -> Value {
    let Http {
        routes,
        timeouts:
            HttpTimeouts {
                header,
                keep_alive,
                idle,
            },
        limits:
            HttpLimits {
                header_list,
                header_fields,
                target,
                body,
                requests_per_connection,
            },
        forwarded: Forwarded { x_forwarded, via },
    } = http;
    let x_forwarded = match x_forwarded {
        XForwarded::Append => "append",
        XForwarded::Replace => "replace",
        XForwarded::Preserve => "preserve",
    };
    json!({
        "routes": named(routes.iter().map(|r| (&r.name, route(r)))),
        // First match wins: moving a route is a change although no route changed.
        "order": routes.iter().map(|r| &*r.name).collect::<Vec<_>>(),
        "timeouts": {
            "header": span(*header), "keep_alive": span(*keep_alive), "idle": span(*idle),
        },
        "limits": {
            "header_list": bytes(u64::from(*header_list)),
            "header_fields": header_fields,
            "target": bytes(u64::from(*target)),
            "body": body.map(bytes),
            "requests_per_connection": requests_per_connection,
        },
        "forwarded": { "x_forwarded": x_forwarded, "via": text(via.as_ref()) },
    })
}

fn tcp(tcp: &Tcp) -> Value {
    let Tcp {
        to,
        idle_timeout,
        max_age,
    } = tcp;
    json!({
        "to": split(to), "idle_timeout": span(*idle_timeout), "max_age": max_age.map(span),
    })
}

fn route(route: &Route) -> Value {
    let Route {
        name: _,
        matches,
        action,
        request_headers,
        response_headers,
        origin,
    } = route;
    json!({
        "match": route_match(matches),
        "action": route_action(action),
        "request_headers": edits(request_headers),
        "response_headers": edits(response_headers),
        ORIGIN: &**origin,
    })
}

fn route_match(matches: &RouteMatch) -> Value {
    let RouteMatch {
        hosts,
        path,
        methods,
        headers,
        query,
    } = matches;
    let host = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
        HostPattern::Prefix(prefix) => format!("{prefix}*"),
        HostPattern::Any => "*".into(),
    };
    let path = match path {
        PathPattern::Any => None,
        PathPattern::Exact(path) | PathPattern::Template(path) => Some(path.to_string()),
        PathPattern::Prefix(path) => Some(format!("{path}/**")),
        PathPattern::Regex(regex) => Some(format!("~{regex}")),
    };
    json!({
        "host": hosts.iter().map(host).collect::<Vec<_>>(),
        "path": path,
        "method": methods.iter().map(|m| &**m).collect::<Vec<_>>(),
        "header": named(headers.iter().map(|(name, value)| (name, json!(value_pattern(value))))),
        "query": named(query.iter().map(|(name, value)| (name, json!(value_pattern(value))))),
    })
}

fn value_pattern(pattern: &ValuePattern) -> String {
    match pattern {
        ValuePattern::Present => "present".into(),
        ValuePattern::Absent => "absent".into(),
        ValuePattern::Exact(value) => format!("= {value}"),
        ValuePattern::Prefix(value) => format!("begins with {value}"),
        ValuePattern::Suffix(value) => format!("ends with {value}"),
        ValuePattern::Contains(value) => format!("contains {value}"),
        ValuePattern::Regex(value) => format!("~ {value}"),
    }
}

fn route_action(action: &RouteAction) -> Value {
    match action {
        RouteAction::Forward(action) => forward(action),
        RouteAction::Redirect(Redirect {
            status,
            scheme,
            host,
            path,
            strip_query,
        }) => json!({ "redirect": {
            "status": status, "scheme": text(scheme.as_ref()), "host": text(host.as_ref()),
            "path": text(path.as_ref()), "strip_query": strip_query,
        }}),
        RouteAction::Respond(Respond {
            status,
            body,
            content_type,
        }) => json!({ "respond": {
            "status": status, "body": &**body, "content_type": &**content_type,
        }}),
    }
}

fn forward(action: &Forward) -> Value {
    let Forward {
        to,
        hash,
        path_rewrite,
        host_rewrite,
        timeout,
        retry,
    } = action;
    let hash = hash.as_ref().map(|hash| match hash {
        HashOn::Header(name) => format!("header {name}"),
        HashOn::Cookie(name) => format!("cookie {name}"),
        HashOn::Query(name) => format!("query {name}"),
        HashOn::ClientIp => "client_ip".into(),
    });
    let path_rewrite = path_rewrite.as_ref().map(|rewrite| match rewrite {
        PathRewrite::Full(path) => path.to_string(),
        PathRewrite::Prefix(path) => format!("prefix {path}"),
        PathRewrite::Regex {
            pattern,
            replacement,
        } => format!("~{pattern} -> {replacement}"),
    });
    json!({
        "to": split(to), "hash": hash, "path_rewrite": path_rewrite,
        "host_rewrite": text(host_rewrite.as_ref()),
        "timeout": timeout.map(span),
        "retry": retry.as_ref().map(retry_view),
    })
}

fn retry_view(retry: &Retry) -> Value {
    let Retry {
        on:
            RetryOn {
                connect,
                reset,
                timeout,
                statuses,
            },
        times,
        budget,
        per_try_timeout,
        backoff,
    } = retry;
    let mut on: Vec<String> = [
        (*connect, "connect"),
        (*reset, "reset"),
        (*timeout, "timeout"),
    ]
    .iter()
    .filter(|(set, _)| *set)
    .map(|(_, word)| (*word).to_owned())
    .collect();
    on.extend(statuses.iter().map(u16::to_string));
    json!({
        "on": on, "times": times, "budget": percent(*budget),
        "per_try_timeout": per_try_timeout.map(span), "backoff": span(*backoff),
    })
}

fn edits(edits: &HeaderEdits) -> Value {
    let HeaderEdits {
        remove,
        set,
        append,
    } = edits;
    json!({
        "remove": remove.iter().map(|name| &**name).collect::<Vec<_>>(),
        "set": named(set.iter().map(|(name, value)| (name, json!(&**value)))),
        "append": append.iter().map(|(n, v)| format!("{n}: {v}")).collect::<Vec<_>>(),
    })
}

fn cluster(cluster: &Cluster) -> Value {
    let Cluster {
        endpoints,
        balance,
        slow_start,
        connect_timeout,
        idle_timeout,
        idle_connections,
        requests_per_connection,
        circuit: Circuit {
            connections,
            requests,
        },
        health,
        proxy_protocol,
    } = cluster;
    json!({
        "endpoints": endpoints_view(endpoints),
        "balance": balance_word(*balance),
        "slow_start": span(*slow_start),
        "connect_timeout": span(*connect_timeout),
        "idle_timeout": span(*idle_timeout),
        "idle_connections": idle_connections,
        "requests_per_connection": requests_per_connection,
        "circuit": { "connections": connections, "requests": requests },
        "health": health.as_ref().map(health_view),
        "proxy_protocol": proxy_protocol.map(|version| match version {
            ProxyProtocolOut::V1 => "v1",
            ProxyProtocolOut::V2 => "v2",
        }),
    })
}

/// The word of the file format.
pub(crate) fn balance_word(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round_robin",
        Balance::Random => "random",
        Balance::LeastRequest => "least_request",
        Balance::PeakEwma => "peak_ewma",
        Balance::RingHash => "ring_hash",
        Balance::Maglev => "maglev",
    }
}

fn endpoints_view(endpoints: &Endpoints) -> Value {
    match endpoints {
        Endpoints::Static(endpoints) => {
            let endpoint = |StaticEndpoint { address, weight }: &StaticEndpoint| {
                (address.to_string(), json!({ "weight": weight }))
            };
            json!({ "static": endpoints.iter().map(endpoint).collect::<Map<_, _>>() })
        }
        Endpoints::Dns {
            host,
            port,
            refresh,
        } => json!({ "dns": format!("{host}:{port}"), "refresh": span(*refresh) }),
    }
}

fn health_view(check: &HealthCheck) -> Value {
    let HealthCheck {
        probe,
        interval,
        timeout,
        healthy_after,
        unhealthy_after,
    } = check;
    let probe = match probe {
        Probe::Tcp => json!("tcp"),
        Probe::Http { path, host, expect } => json!({ "http": {
            "path": &**path,
            "host": text(host.as_ref()),
            "expect": expect.iter().map(|(a, b)| format!("{a}-{b}")).collect::<Vec<_>>(),
        }}),
    };
    json!({
        "probe": probe, "interval": span(*interval), "timeout": span(*timeout),
        "healthy_after": healthy_after, "unhealthy_after": unhealthy_after,
    })
}

fn split(to: &[WeightedCluster]) -> Value {
    named(
        to.iter()
            .map(|WeightedCluster { cluster, share }| (cluster, json!(percent(*share)))),
    )
}

fn named<N: Display>(entries: impl Iterator<Item = (N, Value)>) -> Value {
    Value::Object(
        entries
            .map(|(name, value)| (name.to_string(), value))
            .collect(),
    )
}

fn text(value: Option<&impl Display>) -> Value {
    value.map_or(Value::Null, |value| json!(value.to_string()))
}

/// `300ms`, `30s`: the largest unit that is exact, as the file format writes it.
fn span(duration: Duration) -> String {
    let ns = duration.as_nanos();
    for (unit, size) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)] {
        if ns.is_multiple_of(size) {
            return format!("{}{unit}", ns / size);
        }
    }
    format!("{ns}ns")
}

/// `64KiB`: the largest unit that is exact.
fn bytes(count: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if count > 0 && count.is_multiple_of(1 << shift) {
            return format!("{}{unit}", count >> shift);
        }
    }
    format!("{count}B")
}

/// Basis points as a percentage: `90%`, `12.5%`, `0.01%`.
fn percent(basis_points: u32) -> String {
    format!("{}%", f64::from(basis_points) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: numbers carry the largest exact unit. Method: table.
    #[test]
    fn units_are_exact() {
        assert_eq!(span(Duration::from_millis(300)), "300ms");
        assert_eq!(span(Duration::from_secs(90)), "90s");
        assert_eq!(span(Duration::ZERO), "0s");
        assert_eq!(span(Duration::from_nanos(1500)), "1500ns");
        assert_eq!(bytes(64 << 10), "64KiB");
        assert_eq!(bytes(1500), "1500B");
        assert_eq!(bytes(0), "0B");
        assert_eq!(percent(9000), "90%");
        assert_eq!(percent(1250), "12.5%");
        assert_eq!(percent(1), "0.01%");
    }

    /// Goal: a change reads as a sentence about the thing that changed. Method: trees that differ in
    /// each way there is.
    #[test]
    fn differences_are_sentences() {
        let old = json!({
            "drain_timeout": "30s",
            "listeners": { "edge": { "bind": "a", "routes": { "api": { "origin": "x:1", "timeout": null } } } },
            "clusters": { "pay": { "health": { "interval": "1s" } }, "old": {} },
        });
        let new = json!({
            "drain_timeout": "10s",
            "listeners": { "edge": { "bind": "b", "routes": { "api": { "origin": "x:2", "timeout": "1s" } } } },
            "clusters": { "pay": { "health": null }, "new": {} },
        });
        let mut found = Vec::new();
        compare("", &old, &new, &mut found);
        found.sort();
        assert_eq!(
            found,
            [
                "cluster `new` added",
                "cluster `old` removed",
                "cluster `pay` health unset (was {\"interval\":\"1s\"})",
                "drain_timeout: 30s -> 10s",
                "listener `edge` bind: a -> b",
                "listener `edge` route `api` timeout set to 1s",
            ]
        );
    }
}
