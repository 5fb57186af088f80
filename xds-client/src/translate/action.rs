//! What a route does: forward, redirect, answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_core::config::{
    BODY_MAX, MIRRORS_MAX, ROUTE_LIST_MAX,
    model::{
        Chance, Forward, HashOn, HeaderEdits, Hedge, Labels, Mirror, PathRewrite, Redirect,
        Respond, Retry, RetryOn, RouteAction, WeightedCluster,
    },
    value,
};

use super::{balance, fault, matching::Prefix, node::Node, reference, template};
use crate::pb::message::Value;

/// All of a split, in basis points.
const WHOLE: u32 = 10_000;

/// RouteAction.timeout
const TIMEOUT: Duration = Duration::from_secs(15);

/// RetryPolicy.RetryBackOff.base_interval
const BACKOFF: Duration = Duration::from_millis(25);

/// Tries again at most: the bound of our own format.
const RETRIES_MAX: u32 = 10;
/// As many tries beside the first as the file allows.
const HEDGES_MAX: u8 = 4;

/// Makes the action of a route; `host` is the virtual host, whose retries hold where the route has none.
pub(super) fn action(route: &Node<'_>, host: &Node<'_>, prefix: &Prefix) -> RouteAction {
    match route.which(&["route", "redirect", "direct_response"]) {
        Some("redirect") => route
            .node("redirect")
            .map_or_else(nowhere, |node| RouteAction::Redirect(redirect(&node))),
        Some("direct_response") => route
            .node("direct_response")
            .map_or_else(nowhere, |node| RouteAction::Respond(respond(&node))),
        Some(_) => route.node("route").map_or_else(nowhere, |node| {
            RouteAction::Forward(forward(&node, host, prefix))
        }),
        None => {
            route.refuse(
                "",
                "does nothing: one of `route`, `redirect`, `direct_response` is needed",
            );
            nowhere()
        }
    }
}

/// Stands for an action that was refused.
fn nowhere() -> RouteAction {
    RouteAction::Forward(template::route().1)
}

fn forward(node: &Node<'_>, host: &Node<'_>, prefix: &Prefix) -> Forward {
    let (_, template, retry_template) = template::route();
    let mut to = match node.which(&["cluster", "weighted_clusters"]) {
        Some("cluster") => whole(reference(node, "cluster")),
        Some(_) => node
            .node("weighted_clusters")
            .map(|split| weighted(&split, "weight"))
            .unwrap_or_default(),
        None => {
            node.refuse("", "names no cluster");
            Vec::new()
        }
    };
    // What a cluster of a split says of its subset goes before what the route says.
    let asked = balance::asked(node);
    for one in &mut to {
        let more = asked
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()));
        one.subset = more.chain(std::mem::take(&mut one.subset)).collect();
    }
    let timeout = node.duration("timeout").unwrap_or(TIMEOUT);
    let policy = node
        .node("retry_policy")
        .or_else(|| host.node("retry_policy"));
    let mut retry = policy.and_then(|policy| retry(&policy, retry_template));
    Forward {
        to,
        hedge: hedge(node, host, &mut retry),
        retry,
        hash: hash(node),
        path_rewrite: path_rewrite(node, prefix),
        host_rewrite: match node.text("host_rewrite_literal") {
            "" => None,
            host => node.checked("host_rewrite_literal", value::authority(host)),
        },
        timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
        mirrors: mirrors(node, host),
        ..template
    }
}

/// All to one cluster.
pub(super) fn whole(cluster: Option<Arc<str>>) -> Vec<WeightedCluster> {
    let one = cluster.map(|cluster| WeightedCluster {
        cluster,
        share: WHOLE,
        subset: Labels::new(),
    });
    one.into_iter().collect()
}

/// A split by weights, as exact shares of the whole: what rounding leaves goes to those that lost most.
pub(super) fn weighted(split: &Node<'_>, weight_field: &str) -> Vec<WeightedCluster> {
    let mut weights: BTreeMap<(Arc<str>, Labels), u64> = BTreeMap::new();
    for entry in split.nodes("clusters") {
        let weight = entry.integer::<u32>(weight_field).unwrap_or(0);
        if let Some(name) = reference(&entry, "name") {
            let part = (name, balance::asked(&entry));
            *weights.entry(part).or_default() += u64::from(weight);
        }
    }
    let total: u64 = weights.values().sum();
    if total == 0 || total > u64::from(u32::MAX) {
        split.refuse(
            "clusters",
            format!("the weights sum to {total}, not to 1 to {}", u32::MAX),
        );
        return Vec::new();
    }
    if weights.len() > ROUTE_LIST_MAX {
        split.refuse(
            "clusters",
            format!("{} clusters, at most {ROUTE_LIST_MAX}", weights.len()),
        );
        return Vec::new();
    }
    let parts = weights.into_iter().filter(|(_, weight)| *weight > 0);
    let mut parts: Vec<((Arc<str>, Labels), u32, u64)> = parts
        .map(|(name, weight)| {
            let scaled = weight * u64::from(WHOLE);
            (name, (scaled / total) as u32, scaled % total)
        })
        .collect();
    let mut left = WHOLE - parts.iter().map(|(_, share, _)| share).sum::<u32>();
    let mut by_rest: Vec<usize> = (0..parts.len()).collect();
    by_rest.sort_by_key(|i| std::cmp::Reverse(parts.get(*i).map_or(0, |part| part.2)));
    for i in by_rest {
        if let Some(part) = parts.get_mut(i).filter(|_| left > 0) {
            part.1 += 1;
            left -= 1;
        }
    }
    let shares = parts
        .into_iter()
        .filter_map(|((cluster, subset), share, _)| match share {
            0 => {
                split.warn(
                    "clusters",
                    format!("`{cluster}` has less than 0.01 %, and gets nothing"),
                );
                None
            }
            share => Some(WeightedCluster {
                cluster,
                share,
                subset,
            }),
        });
    shares.collect()
}

/// Who gets copies of requests; the virtual host says it where the route does not.
fn mirrors(node: &Node<'_>, host: &Node<'_>) -> Vec<Mirror> {
    const POLICIES: &str = "request_mirror_policies";
    let of = if node.has(POLICIES) { node } else { host };
    let policies = of.nodes(POLICIES);
    if policies.len() > MIRRORS_MAX {
        let count = policies.len();
        of.refuse(POLICIES, format!("{count} mirrors, at most {MIRRORS_MAX}"));
    }
    let mirrors = policies.iter().filter_map(|policy| {
        let share = policy.node("runtime_fraction");
        let share = share.map(|fraction| fraction.node("default_value"));
        Some(Mirror {
            cluster: reference(policy, "cluster")?,
            chance: match share {
                None => Chance::ALWAYS,
                Some(share) => share.map_or(fault::NEVER, |share| fault::fraction(&share)),
            },
            host_suffix: !policy.flag("disable_shadow_host_suffix_append"),
        })
    });
    mirrors.collect()
}

fn hash(node: &Node<'_>) -> Option<HashOn> {
    let policies = node.nodes("hash_policy");
    if policies.len() > 1 {
        node.refuse("hash_policy", "only one is supported");
    }
    let policy = policies.first()?;
    let named = |kind: &str, field: &str, read: fn(&str) -> Result<Arc<str>, String>| {
        let node = policy.node(kind)?;
        node.checked(field, read(node.text(field)))
    };
    match policy.which(&[
        "header",
        "cookie",
        "query_parameter",
        "connection_properties",
    ]) {
        Some("header") => named("header", "header_name", value::header_name).map(HashOn::Header),
        Some("cookie") => named("cookie", "name", value::token).map(HashOn::Cookie),
        Some("query_parameter") => named("query_parameter", "name", |text| match text {
            "" => Err("is empty".into()),
            text => Ok(text.into()),
        })
        .map(HashOn::Query),
        Some(_) => {
            let by_address = policy.node("connection_properties");
            by_address
                .filter(|by| by.flag("source_ip"))
                .map(|_| HashOn::ClientIp)
        }
        None => None,
    }
}

fn path_rewrite(node: &Node<'_>, prefix: &Prefix) -> Option<PathRewrite> {
    if let Some(rewrite) = node.node("regex_rewrite") {
        let pattern = rewrite.node("pattern");
        let pattern = pattern.as_ref().map_or("", |pattern| pattern.text("regex"));
        let replacement = substitution(rewrite.text("substitution"));
        let read = value::rewrite_regex(pattern, &replacement);
        let (pattern, replacement) = node.checked("regex_rewrite", read)?;
        return Some(PathRewrite::Regex {
            pattern,
            replacement,
        });
    }
    let to = node.text("prefix_rewrite");
    if to.is_empty() {
        return None;
    }
    let path = node.checked("prefix_rewrite", value::path(to))?;
    match prefix {
        Prefix::Whole => Some(PathRewrite::Full(path)),
        Prefix::Segments => Some(PathRewrite::Prefix(path)),
        Prefix::Bytes(pattern) => Some(PathRewrite::Regex {
            pattern: pattern.as_str().into(),
            replacement: to.replace('$', "$$").into(),
        }),
        Prefix::None => {
            node.refuse("prefix_rewrite", "the route matches no prefix");
            None
        }
    }
}

/// RE2 writes groups as `\1`, our engine as `${1}`.
fn substitution(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some(digit @ '0'..='9') => out.push_str(&format!("${{{digit}}}")),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn retry(policy: &Node<'_>, template: Retry) -> Option<Retry> {
    let on = retry_on(policy);
    let times = policy.integer::<u32>("num_retries").unwrap_or(1);
    if times > RETRIES_MAX {
        policy.warn("num_retries", format!("at most {RETRIES_MAX} are made"));
    }
    let backoff = policy
        .node("retry_back_off")
        .and_then(|node| node.positive("base_interval"));
    let per_try = policy.duration("per_try_timeout");
    let retry = Retry {
        on,
        times: times.min(RETRIES_MAX) as u8,
        per_try_timeout: per_try.filter(|timeout| !timeout.is_zero()),
        backoff: backoff.unwrap_or(BACKOFF),
        ..template
    };
    let never = retry.times == 0 || retry.on == RetryOn::default();
    (!never).then_some(retry)
}

fn retry_on(policy: &Node<'_>) -> RetryOn {
    let mut on = RetryOn::default();
    for word in policy.text("retry_on").split(',').map(str::trim) {
        match word {
            "" => {}
            "5xx" => {
                on.statuses.extend(500..=599);
                (on.connect, on.reset, on.timeout) = (true, true, true);
            }
            "gateway-error" => {
                on.statuses.extend([502, 503, 504]);
                (on.connect, on.reset, on.timeout) = (true, true, true);
            }
            "connect-failure" => on.connect = true,
            "reset" => (on.connect, on.reset, on.timeout) = (true, true, true),
            "reset-before-request" => on.connect = true,
            "retriable-4xx" => on.statuses.push(409),
            "retriable-status-codes" => {
                let codes = policy.integers("retriable_status_codes").into_iter();
                on.statuses
                    .extend(codes.filter_map(|code| u16::try_from(code).ok()));
            }
            // These are outcomes that cannot happen here, or cost no retry.
            "refused-stream" | "http3-post-connect-failure" | "envoy-ratelimited" => {
                policy.warn(
                    "retry_on",
                    format!("`{word}` is ignored: it does not happen here"),
                );
            }
            other => match RetryOn::GRPC.iter().find(|(word, _)| *word == other) {
                Some((_, status)) => on.grpc_statuses.push(*status),
                None => policy.refuse("retry_on", format!("`{other}` is not supported")),
            },
        }
    }
    if on.timeout && !policy.has("per_try_timeout") {
        on.timeout = false;
    }
    on.statuses.sort_unstable();
    on.statuses.dedup();
    on.grpc_statuses.sort_unstable();
    on.grpc_statuses.dedup();
    on
}

/// With `hedge_on_per_try_timeout`, a try that takes too long goes on beside the next.
fn hedge(node: &Node<'_>, host: &Node<'_>, retry: &mut Option<Retry>) -> Option<Hedge> {
    let policy = node
        .node("hedge_policy")
        .or_else(|| host.node("hedge_policy"))?;
    let retry = retry.as_mut()?;
    if !policy.flag("hedge_on_per_try_timeout") {
        return None;
    }
    let Some(delay) = retry.per_try_timeout.take() else {
        policy.warn(
            "hedge_on_per_try_timeout",
            "it does nothing without `per_try_timeout`".to_owned(),
        );
        return None;
    };
    retry.on.timeout = false;
    Some(Hedge {
        delay,
        times: retry.times.min(HEDGES_MAX),
        budget: retry.budget,
        unsafe_methods: true,
        buffer: retry.buffer,
    })
}

fn redirect(node: &Node<'_>) -> Redirect {
    let status = match node.word("response_code", "MOVED_PERMANENTLY") {
        "MOVED_PERMANENTLY" => 301,
        "FOUND" => 302,
        "SEE_OTHER" => 303,
        "TEMPORARY_REDIRECT" => 307,
        "PERMANENT_REDIRECT" => 308,
        other => {
            node.refuse("response_code", format!("{other} is not supported"));
            301
        }
    };
    let scheme: Option<Arc<str>> = match (node.flag("https_redirect"), node.text("scheme_redirect"))
    {
        (true, _) => Some("https".into()),
        (false, "") => None,
        (false, scheme @ ("http" | "https")) => Some(scheme.into()),
        (false, _) => {
            node.refuse("scheme_redirect", "is neither `http` nor `https`");
            None
        }
    };
    let host = match node.text("host_redirect") {
        "" => None,
        host => node.checked("host_redirect", value::authority(host)),
    };
    let host = match (
        host,
        node.integer::<u16>("port_redirect")
            .filter(|port| *port > 0),
    ) {
        (Some(host), Some(port)) => Some(format!("{host}:{port}").into()),
        (None, Some(_)) => {
            node.refuse("port_redirect", "is only supported with `host_redirect`");
            None
        }
        (host, None) => host,
    };
    let path = match node.text("path_redirect") {
        "" => None,
        path => node.checked("path_redirect", value::path_and_query(path)),
    };
    if scheme.is_none() && host.is_none() && path.is_none() {
        node.refuse("", "leads back to itself");
    }
    Redirect {
        status,
        scheme,
        host,
        path,
        strip_query: node.flag("strip_query"),
    }
}

fn respond(node: &Node<'_>) -> Respond {
    let status = node.integer::<u16>("status").unwrap_or(0);
    if !(200..600).contains(&status) {
        node.refuse("status", format!("{status} is not one of 200 to 599"));
    }
    let body = node.node("body");
    let text =
        body.as_ref().and_then(
            |body| match body.which(&["inline_string", "inline_bytes"]) {
                Some("inline_string") => Some(body.text("inline_string").to_owned()),
                Some(_) => match body.value("inline_bytes") {
                    Some(Value::Bytes(bytes)) => {
                        let text = String::from_utf8(bytes.clone());
                        body.checked("inline_bytes", text.map_err(|_| "is not UTF-8".to_owned()))
                    }
                    _ => None,
                },
                None => None,
            },
        );
    let text = text.unwrap_or_default();
    if text.len() > BODY_MAX {
        node.refuse("body", format!("{} bytes, at most {BODY_MAX}", text.len()));
    }
    Respond {
        status,
        body: text.into(),
        content_type: "text/plain".into(),
    }
}

/// Adds the edits of `fields` of a node: those of the route first, those around it later, which is the order in
/// which they are made.
pub(super) fn edits(node: &Node<'_>, to_add: &str, to_remove: &str, edits: &mut HeaderEdits) {
    for option in node.nodes(to_add) {
        let Some(header) = option.node("header") else {
            option.refuse("header", "is missing");
            continue;
        };
        let name = header.checked("key", value::edited_header_name(header.text("key")));
        let text = header.checked("value", plain(header.text("value")));
        let (Some(name), Some(text)) = (name, text) else {
            continue;
        };
        if text.is_empty() && !option.flag("keep_empty_value") {
            continue;
        }
        let appends = match option.word("append_action", "APPEND_IF_EXISTS_OR_ADD") {
            "APPEND_IF_EXISTS_OR_ADD" => !option.has("append") || option.flag("append"),
            "OVERWRITE_IF_EXISTS_OR_ADD" => false,
            other => {
                option.refuse("append_action", format!("{other} is not supported"));
                continue;
            }
        };
        match appends {
            true => edits.append.push((name, text)),
            false => {
                edits.set.retain(|(other, _)| *other != name);
                edits.set.push((name, text));
            }
        }
    }
    for (name, at) in node.texts(to_remove) {
        let name = node.checked(&at, value::edited_header_name(name));
        edits
            .remove
            .extend(name.filter(|name| !edits.remove.contains(name)));
    }
    if edits.append.len() + edits.set.len() + edits.remove.len() > 3 * ROUTE_LIST_MAX {
        node.refuse(to_add, format!("more than {ROUTE_LIST_MAX} headers"));
    }
}

/// The value of a header without substitutions: `%%` is a percent sign, anything else between them a command.
fn plain(text: &str) -> Result<Arc<str>, String> {
    if text.replace("%%", "").contains('%') {
        return Err("substitutions between percent signs are not supported".into());
    }
    value::header_value(&text.replace("%%", "%"))
}
