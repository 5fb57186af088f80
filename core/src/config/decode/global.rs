//! Limits that a service keeps for many proxies.

use super::*;
use crate::config::model::{
    Descriptor, DescriptorEntry, DescriptorValue, HashOn, RateLimitService,
};

/// Decodes the service.
pub(super) fn service(fields: &Fields<'_>, clusters: &Names<'_>) -> RateLimitService {
    let cluster = fields.text("cluster").unwrap_or_default();
    if !cluster.text.is_empty() {
        check_cluster(fields.report, &cluster, clusters);
    }
    let domain = fields.text("domain").unwrap_or_default();
    RateLimitService {
        mode: cluster::mode(fields),
        cluster: cluster.text.into(),
        domain: domain.text.into(),
        timeout: fields.duration("timeout"),
        fail_open: fields.word("on_failure") != Some("refuse"),
    }
}

/// Decodes what a route has the service asked about; `has_service` is whether there is one.
pub(super) fn descriptors(fields: &Fields<'_>, has_service: bool) -> Vec<Descriptor> {
    const KEY: &str = "global_rate_limits";
    fields.refuse_empty(KEY);
    if fields.has(KEY) && !has_service {
        let message = format!("`{KEY}` without a `rate_limit_service`");
        let problem = Problem::new(codes::NOT_HERE, fields.key_span(KEY), message);
        let help = "add `rate_limit_service: { cluster: …, domain: … }` at the top of the file, or use `rate_limits`";
        fields.report.add(problem.label("nobody to ask").help(help));
    }
    let items = fields.list(KEY);
    items
        .iter()
        .map(|node| {
            let fields = Fields::open(
                fields.report,
                &keys::GLOBAL_RATE_LIMIT,
                node,
                node.span.clone(),
            );
            descriptor(&fields)
        })
        .collect()
}

fn descriptor(fields: &Fields<'_>) -> Descriptor {
    fields.refuse_empty("entries");
    let items = fields.list("entries");
    let entries = items.iter().filter_map(|node| {
        let fields = Fields::open(
            fields.report,
            &keys::DESCRIPTOR_ENTRY,
            node,
            node.span.clone(),
        );
        entry(&fields)
    });
    Descriptor(entries.collect())
}

fn entry(fields: &Fields<'_>) -> Option<DescriptorEntry> {
    let value = match fields.exactly_one(&["value", "by"])? {
        "value" => DescriptorValue::Text(fields.text("value")?.text.into()),
        _ => DescriptorValue::Request(route::hash(fields, "by")?),
    };
    // As Envoy names them.
    let usual = match &value {
        DescriptorValue::Text(_) => "generic_key",
        DescriptorValue::Request(HashOn::ClientIp) => "remote_address",
        DescriptorValue::Request(
            HashOn::Header(name) | HashOn::Cookie(name) | HashOn::Query(name),
        ) => name,
    };
    let key = fields.text("key").map(|text| text.text.into());
    Some(DescriptorEntry {
        key: key.unwrap_or_else(|| usual.into()),
        value,
    })
}
