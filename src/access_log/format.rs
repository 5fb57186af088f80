//! One access-log line from one record: `short` for a person, `json` for a machine. Whatever a peer sent is
//! escaped, so that it cannot forge a line.

use std::io::Write;

use serde_json::{Map, Value, json};
use tidegate_core::{
    config::model::AccessLogFormat,
    limiter::watermark::Signal,
    message::{AccessRecord, Choice, SteerRecord},
};

use crate::text::{Quoted, Rfc3339, Span};

/// Appends the line of `record`, with its line feed.
pub(super) fn line(format: AccessLogFormat, record: &AccessRecord, out: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = match format {
        AccessLogFormat::Short => short(record, out),
        AccessLogFormat::Json => {
            serde_json::to_writer(&mut *out, &object(record)).map_err(std::io::Error::from)
        }
    };
    out.push(b'\n');
}

/// `TIME STATUS METHOD "HOST" "TARGET" client → endpoint route= total added …`
fn short(record: &AccessRecord, out: &mut Vec<u8>) -> std::io::Result<()> {
    write!(out, "{}", Rfc3339(record.start_unix_ns))?;
    match record.status {
        0 => write!(out, " ---")?,
        status => write!(out, " {status}")?,
    }
    if record.method.is_empty() {
        write!(out, " {}", record.protocol)?;
    } else {
        write!(
            out,
            " {} {} {}",
            record.method.escape_default(),
            Quoted(&record.host),
            Quoted(&record.target)
        )?;
    }
    match record.client {
        Some(client) => write!(out, " {client}")?,
        None => write!(out, " -")?,
    }
    match record.endpoint {
        Some(endpoint) => write!(out, " -> {endpoint}")?,
        None => write!(out, " -> -")?,
    }
    write!(
        out,
        " total={} added={} in={} out={}",
        Span::ns(record.total_ns),
        Span::ns(record.added_ns),
        record.received_bytes,
        record.sent_bytes
    )?;
    if record.stream > 0 {
        write!(out, " stream={}", record.stream)?;
    }
    if !matches!(record.endpoint_protocol, "" | "HTTP/1.1") {
        write!(out, " via={}", record.endpoint_protocol)?;
    }
    if !record.tls_version.is_empty() {
        write!(out, " tls={}", record.tls_version)?;
    }
    if !record.tls_peer.is_empty() {
        write!(out, " peer={}", Quoted(&record.tls_peer))?;
    }
    for (name, value) in [("route", &record.route), ("cluster", &record.cluster)] {
        if !value.is_empty() {
            write!(out, " {name}={value}")?;
        }
    }
    choice(out, record.choice)?;
    if record.fault_delay_ns > 0 {
        write!(out, " fault_delay={}", Span::ns(record.fault_delay_ns))?;
    }
    if record.retries > 0 {
        write!(out, " retries={}", record.retries)?;
    }
    if record.hedges > 0 {
        write!(out, " hedges={}", record.hedges)?;
    }
    if let Some(reason) = record.reason {
        write!(out, " reason={}", reason.word())?;
    }
    if let Some(limit) = &record.limit {
        let signal = limit.cause.signal.map_or("none", Signal::word);
        write!(
            out,
            " interface={} priority={} limit={} in_flight={} watermark={:.2} signal={signal} limits_epoch={}",
            limit.interface,
            limit.priority.word(),
            limit.limit,
            limit.in_flight,
            limit.cause.watermark,
            limit.cause.epoch
        )?;
        if limit.by_hand {
            out.write_all(b" limited_by=hand")?;
        }
    }
    if let Some(status) = record.grpc_status {
        write!(out, " grpc_status={status}")?;
    }
    if let Some(steer) = &record.steer {
        let back = if steer.fell_back { " fell_back" } else { "" };
        let SteerRecord {
            rule,
            rule_epoch,
            from,
            to,
            ..
        } = &**steer;
        write!(out, " steer={rule}@{rule_epoch}:{from}→{to}{back}")?;
    }
    if let Some(over) = &record.rate_limit {
        match over.rate {
            Some(rate) => {
                let per = Span::ns(rate.per.as_nanos() as u64);
                write!(out, " rate_limit={}/{per} by={}", rate.requests, over.by)?;
            }
            None => write!(out, " rate_limit=- by={}", over.by)?,
        }
        if let Some(wait) = over.retry_after {
            write!(out, " retry_after={}", Span::ns(wait.as_nanos() as u64))?;
        }
    }
    if !record.detail.is_empty() {
        write!(out, " detail={}", Quoted(record.detail))?;
    }
    Ok(())
}

/// How the endpoint came to be chosen, where that is not what is usual.
fn choice(out: &mut Vec<u8>, choice: Choice) -> std::io::Result<()> {
    if choice.priority > 0 {
        write!(out, " endpoint_priority={}", choice.priority)?;
    }
    if choice.in_panic {
        write!(out, " endpoint=panic")?;
    }
    if choice.is_fallback {
        write!(out, " subset=fallback")?;
    }
    Ok(())
}

/// Names are those of the OpenTelemetry semantic conventions where there is one; ours begin with
/// `tidegate.`. What is not known is left out. Durations are seconds.
fn object(record: &AccessRecord) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| {
        object.insert(name.into(), value);
    };
    put(
        "timestamp",
        json!(Rfc3339(record.start_unix_ns).to_string()),
    );
    if let Some(client) = record.client {
        put("client.address", json!(client.ip()));
        put("client.port", json!(client.port()));
    }
    match record.protocol.split_once('/') {
        Some((name, version)) => {
            put("network.protocol.name", json!(name.to_ascii_lowercase()));
            put("network.protocol.version", json!(version));
        }
        None if !record.protocol.is_empty() => put("network.transport", json!("tcp")),
        None => {}
    }
    if record.stream > 0 {
        put("tidegate.stream", json!(record.stream));
    }
    put_text(
        &mut put,
        "tidegate.endpoint.protocol",
        record.endpoint_protocol,
    );
    put_text(&mut put, "http.request.method", &record.method);
    put_text(&mut put, "server.address", &record.host);
    let (path, query) = match record.target.split_once('?') {
        Some((path, query)) => (path, query),
        None => (&*record.target, ""),
    };
    put_text(&mut put, "url.path", path);
    put_text(&mut put, "url.query", query);
    if !record.tls_version.is_empty() {
        put("tls.protocol.name", json!("tls"));
        put("tls.protocol.version", json!(record.tls_version));
        put("tls.established", json!(true));
        put("tls.resumed", json!(record.tls_resumed));
    }
    put_text(&mut put, "tls.cipher", record.tls_cipher);
    put_text(&mut put, "tls.client.server_name", &record.tls_sni);
    put_text(&mut put, "tls.client.subject", &record.tls_peer);
    if record.status != 0 {
        put("http.response.status_code", json!(record.status));
    }
    if let Some(status) = record.grpc_status {
        put("rpc.grpc.status_code", json!(status));
    }
    put_text(&mut put, "user_agent.original", &record.user_agent);
    if let Some((trace, span)) = trace_ids(&record.traceparent) {
        put("trace_id", json!(trace));
        put("span_id", json!(span));
    }
    put("http.request.size", json!(record.received_bytes));
    put("http.response.size", json!(record.sent_bytes));
    if record.retries > 0 {
        put("http.request.resend_count", json!(record.retries));
    }
    if record.hedges > 0 {
        put("tidegate.hedges", json!(record.hedges));
    }
    if let Some(endpoint) = record.endpoint {
        put("network.peer.address", json!(endpoint.ip()));
        put("network.peer.port", json!(endpoint.port()));
    }
    let choice = record.choice;
    if choice.priority > 0 {
        put("tidegate.endpoint.priority", json!(choice.priority));
    }
    if choice.in_panic {
        put("tidegate.endpoint.panic", json!(true));
    }
    if choice.is_fallback {
        put("tidegate.subset.fallback", json!(true));
    }
    if record.fault_delay_ns > 0 {
        let seconds = record.fault_delay_ns as f64 / 1e9;
        put("tidegate.fault.delay", json!(seconds));
    }
    put("tidegate.shard", json!(record.shard));
    put_text(&mut put, "tidegate.listener", &record.listener);
    put_text(&mut put, "tidegate.route", &record.route);
    if let Some(limit) = &record.limit {
        put("tidegate.limit.interface", json!(*limit.interface));
        put("tidegate.limit.priority", json!(limit.priority.word()));
        put("tidegate.limit.value", json!(limit.limit));
        put("tidegate.limit.in_flight", json!(limit.in_flight));
        put("tidegate.limit.watermark", json!(limit.cause.watermark));
        put(
            "tidegate.limit.signal",
            json!(limit.cause.signal.map(Signal::word)),
        );
        put("tidegate.limit.epoch", json!(limit.cause.epoch));
        put("tidegate.limit.by_hand", json!(limit.by_hand));
    }
    if let Some(over) = &record.rate_limit {
        if let Some(rate) = over.rate {
            put("tidegate.rate_limit.requests", json!(rate.requests));
            put("tidegate.rate_limit.per", json!(rate.per.as_secs_f64()));
            put("tidegate.rate_limit.burst", json!(rate.burst));
        }
        put("tidegate.rate_limit.by", json!(over.by));
        if let Some(wait) = over.retry_after {
            put("tidegate.rate_limit.retry_after", json!(wait.as_secs_f64()));
        }
    }
    if let Some(steer) = &record.steer {
        put("tidegate.steer.rule", json!(*steer.rule));
        put("tidegate.steer.rule_epoch", json!(steer.rule_epoch));
        put("tidegate.steer.from", json!(*steer.from));
        put("tidegate.steer.to", json!(*steer.to));
        put("tidegate.steer.fell_back", json!(steer.fell_back));
        put("tidegate.steer.epoch", json!(steer.epoch.0));
    }
    put_text(&mut put, "tidegate.cluster", &record.cluster);
    if let Some(reason) = record.reason {
        put("tidegate.reason", json!(reason.word()));
    }
    put_text(&mut put, "tidegate.detail", record.detail);
    for (name, ns) in [
        ("tidegate.duration.total", record.total_ns),
        ("tidegate.duration.connect", record.connect_ns),
        ("tidegate.duration.first_byte", record.first_byte_ns),
        ("tidegate.duration.added", record.added_ns),
    ] {
        put(name, json!(ns as f64 / 1e9));
    }
    object
}

fn put_text(put: &mut impl FnMut(&str, Value), name: &str, text: &str) {
    if !text.is_empty() {
        put(name, json!(text));
    }
}

/// Trace and span of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_ids(traceparent: &str) -> Option<(&str, &str)> {
    let mut parts = traceparent.split('-');
    let (_version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    (trace.len() == 32 && span.len() == 16 && hex(trace) && hex(span)).then_some((trace, span))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::access_log::fields::FIELDS;
    use std::{collections::BTreeSet, time::Duration};
    use tidegate_core::{
        id::Epoch,
        limiter::{Priority, bucket::Rate},
        message::{LimitCause, LimitRecord, RateLimitRecord},
        reason::Reason,
    };

    fn record() -> AccessRecord {
        AccessRecord {
            start_unix_ns: 951_782_400_000_000_000,
            shard: 1,
            listener: "edge".into(),
            route: "edge/0".into(),
            cluster: "pay".into(),
            client: Some("192.0.2.7:4711".parse().unwrap()),
            endpoint: Some("[2001:db8::1]:8080".parse().unwrap()),
            protocol: "HTTP/2",
            stream: 5,
            endpoint_protocol: "HTTP/2",
            method: "GET".into(),
            host: "pay.example".into(),
            target: "/a?b=1".into(),
            user_agent: "curl".into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            tls_version: "1.3",
            tls_cipher: "TLS_AES_128_GCM_SHA256",
            tls_resumed: true,
            tls_sni: "pay.example".into(),
            tls_peer: "spiffe://mesh/web".into(),
            choice: Choice::default(),
            status: 503,
            fault_delay_ns: 0,
            grpc_status: Some(14),
            reason: Some(Reason::NoEndpoint),
            detail: "all unhealthy",
            limit: Some(Box::new(LimitRecord {
                interface: "edge/0".into(),
                priority: Priority::Batch,
                limit: 8,
                in_flight: 9,
                cause: LimitCause {
                    watermark: 1.25,
                    signal: Some(Signal::Cpu),
                    epoch: 3,
                },
                by_hand: true,
            })),
            rate_limit: None,
            steer: None,
            retries: 1,
            hedges: 2,
            received_bytes: 90,
            sent_bytes: 120,
            total_ns: 1_500_000,
            connect_ns: 0,
            first_byte_ns: 1_400_000,
            added_ns: 23_000,
        }
    }

    fn formatted(format: AccessLogFormat, record: &AccessRecord) -> String {
        let mut out = Vec::new();
        line(format, record, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Goal: the short line has everything a person looks for. Method: a full record, literally.
    #[test]
    fn short_line_of_a_request() {
        assert_eq!(
            formatted(AccessLogFormat::Short, &record()),
            "2000-02-29T00:00:00.000Z 503 GET \"pay.example\" \"/a?b=1\" 192.0.2.7:4711 -> \
             [2001:db8::1]:8080 total=1.50ms added=23.0µs in=90 out=120 stream=5 via=HTTP/2 tls=1.3 \
             peer=\"spiffe://mesh/web\" route=edge/0 cluster=pay \
             retries=1 hedges=2 reason=no_endpoint interface=edge/0 priority=batch limit=8 in_flight=9 \
             watermark=1.25 signal=cpu limits_epoch=3 limited_by=hand grpc_status=14 detail=\"all unhealthy\"\n"
        );
    }

    /// Goal: a relayed connection has a line too. Method: a record without HTTP in it.
    #[test]
    fn short_line_of_a_connection() {
        let record = AccessRecord {
            protocol: "TCP",
            ..AccessRecord::default()
        };
        assert_eq!(
            formatted(AccessLogFormat::Short, &record),
            "1970-01-01T00:00:00.000Z --- TCP - -> - total=0ns added=0ns in=0 out=0\n"
        );
    }

    /// Goal: a decision of steering explains itself in the log (S16). Method: one in both formats, and one that
    /// fell back.
    #[test]
    fn lines_of_a_steered_request() {
        let steer = SteerRecord {
            rule: "rule42".into(),
            rule_epoch: 17,
            from: "unit2".into(),
            to: "unit1".into(),
            fell_back: false,
            epoch: Epoch(4),
        };
        let of = |steer: SteerRecord| AccessRecord {
            steer: Some(Box::new(steer)),
            ..AccessRecord::default()
        };
        let record = of(steer.clone());
        let short = formatted(AccessLogFormat::Short, &record);
        assert!(short.ends_with(" steer=rule42@17:unit2→unit1\n"), "{short}");
        let json: Value = serde_json::from_str(&formatted(AccessLogFormat::Json, &record)).unwrap();
        assert_eq!(json["tidegate.steer.rule"], "rule42");
        assert_eq!(json["tidegate.steer.rule_epoch"], 17);
        assert_eq!(json["tidegate.steer.from"], "unit2");
        assert_eq!(json["tidegate.steer.to"], "unit1");
        assert_eq!(json["tidegate.steer.epoch"], 4);
        let back = of(SteerRecord {
            fell_back: true,
            ..steer
        });
        let short = formatted(AccessLogFormat::Short, &back);
        assert!(short.ends_with("unit1 fell_back\n"), "{short}");
    }

    /// Goal: where load has left its usual endpoints, the log says so. Method: such a record in both formats.
    #[test]
    fn lines_of_an_unusual_choice() {
        let record = AccessRecord {
            choice: Choice {
                priority: 2,
                in_panic: true,
                is_fallback: true,
            },
            ..AccessRecord::default()
        };
        let short = formatted(AccessLogFormat::Short, &record);
        assert!(
            short.contains(" endpoint_priority=2 endpoint=panic subset=fallback"),
            "{short}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&formatted(AccessLogFormat::Json, &record)).unwrap();
        for (key, value) in [
            ("tidegate.endpoint.priority", json!(2)),
            ("tidegate.endpoint.panic", json!(true)),
            ("tidegate.subset.fallback", json!(true)),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
    }

    /// Goal: who is over a rate limit finds in the log which, and for how long (L13). Method: such a record in
    /// both formats.
    #[test]
    fn lines_of_a_rate_limited_request() {
        let record = AccessRecord {
            rate_limit: Some(Box::new(RateLimitRecord {
                rate: Some(Rate {
                    requests: 10,
                    per: Duration::from_secs(60),
                    burst: 5,
                }),
                by: "client_ip",
                retry_after: Some(Duration::from_millis(4200)),
            })),
            ..AccessRecord::default()
        };
        let short = formatted(AccessLogFormat::Short, &record);
        let said = "rate_limit=10/60.0s by=client_ip retry_after=4.20s";
        assert!(short.contains(said), "{short}");
        let json: Value = serde_json::from_str(&formatted(AccessLogFormat::Json, &record)).unwrap();
        assert_eq!(json["tidegate.rate_limit.by"], json!("client_ip"));
        assert_eq!(json["tidegate.rate_limit.requests"], json!(10));
        assert_eq!(json["tidegate.rate_limit.retry_after"], json!(4.2));
    }

    /// Goal: a service for global limits may keep its numbers to itself (L13). Method: such a record in both formats.
    #[test]
    fn lines_of_a_request_that_a_service_refused() {
        let record = AccessRecord {
            rate_limit: Some(Box::new(RateLimitRecord {
                rate: None,
                by: "service",
                retry_after: None,
            })),
            ..AccessRecord::default()
        };
        let short = formatted(AccessLogFormat::Short, &record);
        assert!(short.contains("rate_limit=- by=service\n"), "{short}");
        let json: Value = serde_json::from_str(&formatted(AccessLogFormat::Json, &record)).unwrap();
        assert_eq!(json["tidegate.rate_limit.by"], json!("service"));
        assert_eq!(json.get("tidegate.rate_limit.requests"), None);
    }

    /// Goal: names follow OpenTelemetry. Method: a full record, field by field.
    #[test]
    fn json_line_has_opentelemetry_names() {
        let line = formatted(AccessLogFormat::Json, &record());
        let value: Value = serde_json::from_str(&line).unwrap();
        for (name, expected) in [
            ("timestamp", json!("2000-02-29T00:00:00.000Z")),
            ("client.address", json!("192.0.2.7")),
            ("http.request.method", json!("GET")),
            ("url.path", json!("/a")),
            ("url.query", json!("b=1")),
            ("server.address", json!("pay.example")),
            ("http.response.status_code", json!(503)),
            ("rpc.grpc.status_code", json!(14)),
            ("network.protocol.name", json!("http")),
            ("network.protocol.version", json!("2")),
            ("tidegate.stream", json!(5)),
            ("tidegate.endpoint.protocol", json!("HTTP/2")),
            ("network.peer.address", json!("2001:db8::1")),
            ("trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
            ("span_id", json!("b7ad6b7169203331")),
            ("tls.protocol.version", json!("1.3")),
            ("tls.cipher", json!("TLS_AES_128_GCM_SHA256")),
            ("tls.resumed", json!(true)),
            ("tls.client.server_name", json!("pay.example")),
            ("tls.client.subject", json!("spiffe://mesh/web")),
            ("tidegate.reason", json!("no_endpoint")),
            ("tidegate.duration.total", json!(0.0015)),
        ] {
            assert_eq!(value[name], expected, "{name}");
        }
    }

    /// Goal: the reference has every field, and none that is not there. Method: records with all that a record can
    /// have, of a request and of a relay.
    #[test]
    fn every_field_is_in_the_reference() {
        let whole = AccessRecord {
            choice: Choice {
                priority: 1,
                in_panic: true,
                is_fallback: true,
            },
            fault_delay_ns: 1,
            rate_limit: Some(Box::new(RateLimitRecord {
                rate: Some(Rate {
                    requests: 1,
                    per: Duration::from_secs(1),
                    burst: 1,
                }),
                by: "client_ip",
                retry_after: Some(Duration::from_secs(1)),
            })),
            steer: Some(Box::new(SteerRecord {
                rule: "rule".into(),
                rule_epoch: 1,
                from: "a".into(),
                to: "b".into(),
                fell_back: true,
                epoch: Epoch(1),
            })),
            ..record()
        };
        let relay = AccessRecord {
            protocol: "TCP",
            ..AccessRecord::default()
        };
        let written: BTreeSet<String> = [whole, relay]
            .iter()
            .flat_map(|record| object(record).into_iter().map(|(name, _)| name))
            .collect();
        let listed: BTreeSet<String> = FIELDS.iter().map(|field| field.json.to_owned()).collect();
        assert_eq!(written, listed);
        assert_eq!(listed.len(), FIELDS.len());
    }

    /// Goal: a peer cannot forge a line in either format. Method: line feeds and escapes in every field
    /// a peer fills; one line comes out.
    #[test]
    fn hostile_fields_stay_on_one_line() {
        let hostile = "x\n\"y\r\u{1b}[2J\u{2028}";
        let record = AccessRecord {
            method: hostile.into(),
            host: hostile.into(),
            target: hostile.into(),
            user_agent: hostile.into(),
            traceparent: hostile.into(),
            tls_sni: hostile.into(),
            tls_peer: hostile.into(),
            ..record()
        };
        for format in [AccessLogFormat::Short, AccessLogFormat::Json] {
            let line = formatted(format, &record);
            assert_eq!(line.matches(['\n', '\r', '\u{1b}']).count(), 1, "{line}");
        }
    }

    /// Goal: only a well-formed traceparent yields ids. Method: table.
    #[test]
    fn broken_traceparents_are_left_out() {
        for bad in [
            "",
            "00",
            "00-abc-def-01",
            "00-zzf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(trace_ids(bad).is_none(), "{bad}");
        }
    }
}
