//! Further tries of a request.

use std::time::Duration;

use super::{matching::listed_twice, *};
use crate::config::{
    model::{Hedge, Retry, RetryOn},
    quantity::format_duration,
};

/// The `retry` of a route.
pub(super) fn retry(route: &Fields<'_>) -> Option<Retry> {
    let fields = route.section_opt("retry", &keys::RETRY)?;
    let retry = Retry {
        on: retry_on(&fields),
        times: fields.integer("times"),
        budget: fields.share("budget"),
        per_try_timeout: fields.duration_or_off("per_try_timeout"),
        backoff: fields.duration("backoff"),
        buffer: fields.size32("buffer"),
    };
    check_retry(&fields, &retry, route.duration_or_off("timeout"));
    Some(retry)
}

/// The `hedge` of a route with this `retry`.
pub(super) fn hedge(route: &Fields<'_>, retry: Option<&Retry>) -> Option<Hedge> {
    let fields = route.section_opt("hedge", &keys::HEDGE)?;
    let hedge = Hedge {
        delay: fields.duration("delay"),
        times: fields.integer("times"),
        budget: fields.share("budget"),
        unsafe_methods: fields.flag("unsafe_methods"),
        buffer: fields.size32("buffer"),
    };
    let per_try = retry.and_then(|retry| retry.per_try_timeout);
    for (name, limit) in [
        ("the route's `timeout`", route.duration_or_off("timeout")),
        ("`retry.per_try_timeout`", per_try),
    ] {
        if let Some(limit) = limit.filter(|limit| hedge.delay >= *limit) {
            let limit = format_duration(limit);
            let message = format!("`delay` is not shorter than {name} of {limit}");
            let help = "shorten `delay`: the try that it waits for is over by then";
            contradict(&fields, "delay", message, help);
        }
    }
    Some(hedge)
}

fn retry_on(fields: &Fields<'_>) -> RetryOn {
    let Some(kind) = keys::RETRY.field("on").map(|field| field.kind) else {
        return RetryOn::default();
    };
    let Kind::List(item, _) = kind else {
        return RetryOn::default();
    };
    fields.refuse_empty("on");
    let mut on = RetryOn::default();
    let mut seen: Vec<String> = Vec::new();
    for node in fields.list("on") {
        let Value::Scalar { text, .. } = &node.value else {
            fields::wrong_type(fields.report, "on", &node, item);
            continue;
        };
        if seen.contains(text) {
            listed_twice(
                fields.report,
                "on",
                &Text {
                    text: text.clone(),
                    span: node.span.clone(),
                },
            );
        }
        seen.push(text.clone());
        let mut grpc = RetryOn::GRPC.iter();
        match text.as_str() {
            "connect" => on.connect = true,
            "reset" => on.reset = true,
            "timeout" => on.timeout = true,
            "5xx" => on.statuses.extend(500..=599),
            _ => match grpc.find(|(word, _)| word == text) {
                Some((_, status)) => on.grpc_statuses.push(*status),
                None => {
                    let status = fields::read_integer(fields.report, "on", &node, item);
                    on.statuses
                        .extend(status.and_then(|status| u16::try_from(status).ok()));
                }
            },
        }
    }
    on.statuses.sort_unstable();
    on.statuses.dedup();
    on.grpc_statuses.sort_unstable();
    on.grpc_statuses.dedup();
    on
}

/// Warns of time-outs and outcomes that cannot happen.
fn check_retry(fields: &Fields<'_>, retry: &Retry, timeout: Option<Duration>) {
    if let (Some(per_try), Some(timeout)) = (retry.per_try_timeout, timeout)
        && per_try >= timeout
    {
        let timeout = format_duration(timeout);
        let message =
            format!("`per_try_timeout` is not shorter than the route's `timeout` of {timeout}");
        let help = "the route's `timeout` holds for all tries together: shorten the one, or lengthen the other";
        contradict(fields, "per_try_timeout", message, help);
    }
    if let Some(timeout) = timeout
        && retry.backoff >= timeout
    {
        let message = "`backoff` is not shorter than the route's `timeout`".to_owned();
        let help = "shorten `backoff`, or lengthen `timeout`";
        contradict(fields, "backoff", message, help);
    }
    if retry.on.timeout && retry.per_try_timeout.is_none() {
        let message = "`on: [timeout]` never happens without `per_try_timeout`".to_owned();
        let help = "add `per_try_timeout`: after the route's own `timeout` nothing is tried again";
        contradict(fields, "on", message, help);
    }
}

fn contradict(fields: &Fields<'_>, key: &str, message: String, help: &str) {
    let problem = Problem::new(codes::CONTRADICTION, fields.value_span(key), message);
    fields
        .report
        .add(problem.label("never comes to it").help(help));
}
