//! What the access log is told of a request. The record is formatted and written by a thread of its own;
//! a shard only fills it in, and only if the log is on.

use tidegate_codecs::http1::Version;
use tidegate_core::{config::model::UpstreamProtocol, message::AccessRecord};

use crate::{
    request::{Caller, Exchange},
    transport::Stream,
};

/// The record of a finished exchange.
pub(crate) fn record(exchange: &Exchange<'_>) -> AccessRecord {
    let (head, bytes) = exchange.head();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
    let field = |name| head.field(bytes, name).map(text).unwrap_or_default();
    let client = exchange.client;
    let times = &exchange.times;
    let mut record = AccessRecord {
        start_unix_ns: client.local.unix_ns(times.began_ns),
        shard: client.local.id.0,
        listener: exchange.listener.name.clone(),
        route: exchange.route.map(|r| r.name.clone()).unwrap_or_default(),
        cluster: exchange.cluster.map(|c| c.name.clone()).unwrap_or_default(),
        client: client.peer(),
        endpoint: exchange.endpoint,
        choice: exchange.choice,
        protocol: match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        },
        stream: stream_of(exchange),
        endpoint_protocol: endpoint_protocol(exchange),
        method: text(head.method.of(bytes)),
        host: text(head.authority.of(bytes)),
        target: text(head.target.of(bytes)),
        user_agent: field("user-agent"),
        traceparent: field("traceparent"),
        status: exchange.status,
        grpc_status: exchange.grpc_status.map(|status| status.number() as u8),
        reason: exchange.refusal.map(|r| r.reason),
        detail: exchange.refusal.map(|r| r.detail).unwrap_or_default(),
        fault_delay_ns: exchange.fault_delay_ns,
        limit: exchange.over_limit.clone(),
        rate_limit: exchange.over_rate.clone(),
        steer: exchange.steer_record(),
        retries: exchange.retries,
        hedges: exchange.hedges,
        received_bytes: exchange.received_bytes,
        sent_bytes: exchange.sent_bytes,
        total_ns: times.total_ns(),
        connect_ns: times.connect_ns,
        first_byte_ns: times.first_byte_ns,
        added_ns: times.added_ns,
        ..AccessRecord::default()
    };
    fill_tls(&mut record, &client.socket);
    record
}

/// The number of the client's stream, in HTTP/2.
fn stream_of(exchange: &Exchange<'_>) -> u32 {
    match exchange.caller {
        Caller::Http1(_) => 0,
        Caller::Http2(on) => on.stream.number(),
    }
}

/// What the endpoint is spoken to in, if one was chosen.
fn endpoint_protocol(exchange: &Exchange<'_>) -> &'static str {
    let cluster = exchange.cluster.filter(|_| exchange.endpoint.is_some());
    match cluster.map(|cluster| cluster.config.protocol) {
        Some(UpstreamProtocol::Http1) => "HTTP/1.1",
        Some(UpstreamProtocol::Http2) => "HTTP/2",
        None => "",
    }
}

/// Fills in what the client's handshake came to, if there was one.
pub(crate) fn fill_tls(record: &mut AccessRecord, client: &Stream) {
    let Some(tls) = client.tls_facts() else {
        return;
    };
    record.tls_version = tls.version;
    record.tls_cipher = tls.cipher;
    record.tls_resumed = tls.resumed;
    record.tls_sni = tls.server_name.clone();
    record.tls_peer = client.peer_identity().unwrap_or_default().into();
}
