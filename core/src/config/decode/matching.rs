//! What a route matches.

use super::*;
use crate::config::model::{HostPattern, PathPattern, RouteMatch, ValuePattern};

/// Decodes `match`.
pub(super) fn matches(fields: &Fields<'_>) -> RouteMatch {
    RouteMatch {
        hosts: hosts(fields),
        path: path(fields),
        methods: methods(fields),
        headers: headers(fields),
        query: query(fields),
    }
}

fn hosts(fields: &Fields<'_>) -> Vec<HostPattern> {
    let kind = Kind::Text("a host", 255);
    let mut hosts: Vec<HostPattern> = Vec::new();
    for text in texts(fields, "host", &kind, &fields.one_or_list("host")) {
        let parsed = syntax::host_pattern(&text.text);
        let Some(host) = checked_opt(fields.report, "host", &text, parsed) else {
            continue;
        };
        match hosts.contains(&host) {
            true => listed_twice(fields.report, "host", &text),
            false => hosts.push(host),
        }
    }
    hosts
}

fn path(fields: &Fields<'_>) -> PathPattern {
    let Some(text) = fields.text("path") else {
        return PathPattern::Any;
    };
    checked(
        fields.report,
        "path",
        &text,
        syntax::path_pattern(&text.text),
    )
}

fn methods(fields: &Fields<'_>) -> Vec<Arc<str>> {
    let kind = Kind::Text("a method", 32);
    let mut methods: Vec<Arc<str>> = Vec::new();
    for text in texts(fields, "method", &kind, &fields.one_or_list("method")) {
        let parsed = syntax::method(&text.text);
        let Some(method) = checked_opt(fields.report, "method", &text, parsed) else {
            continue;
        };
        match methods.contains(&method) {
            true => listed_twice(fields.report, "method", &text),
            false => methods.push(method),
        }
    }
    methods
}

pub(super) fn headers(fields: &Fields<'_>) -> Vec<(Arc<str>, ValuePattern)> {
    let mut headers: Vec<(Arc<str>, ValuePattern)> = Vec::new();
    for entry in fields.map("header") {
        let text = Text {
            text: entry.key.clone(),
            span: entry.key_span.clone(),
        };
        let parsed = syntax::header_name(&text.text);
        let name = checked_opt(fields.report, "header", &text, parsed);
        let value = value(fields, entry);
        let (Some(name), Some(value)) = (name, value) else {
            continue;
        };
        if headers.iter().any(|(other, _)| *other == name) {
            same_header(fields.report, &text);
        }
        headers.push((name, value));
    }
    // Keys of a map have no order.
    headers.sort_by(|(a, _), (b, _)| a.cmp(b));
    headers
}

fn query(fields: &Fields<'_>) -> Vec<(Arc<str>, ValuePattern)> {
    let conditions = fields.map("query").into_iter().filter_map(|entry| {
        let text = Text { text: entry.key.clone(), span: entry.key_span.clone() };
        let visible = |byte: u8| matches!(byte, 0x21..=0x7e) && !b"&=#?".contains(&byte);
        if text.text.is_empty() || !text.text.bytes().all(visible) {
            let help = "write the parameter's name as it is sent, percent-encoded, without `?`, `&` and `=`";
            fields::malformed(fields.report, codes::TEXT, "query", &text, "not a parameter", help);
        }
        Some((text.text.into(), value(fields, entry)?))
    });
    let mut conditions: Vec<_> = conditions.collect();
    conditions.sort_by(|(a, _): &(Arc<str>, _), (b, _)| a.cmp(b));
    conditions
}

/// A condition on a value: text, or a map with one key.
fn value(fields: &Fields<'_>, entry: &Entry) -> Option<ValuePattern> {
    if !matches!(entry.value.value, Value::Map(_)) {
        let text = fields::read_text(fields.report, &entry.key, &entry.value, &keys::VALUE)?;
        return Some(ValuePattern::Exact(text.text.into()));
    }
    let fields = Fields::open(
        fields.report,
        &keys::VALUE_MATCH,
        &entry.value,
        entry.key_span.clone(),
    );
    let key = fields.exactly_one(&[
        "exact", "prefix", "suffix", "contains", "regex", "present", "absent",
    ])?;
    if let "present" | "absent" = key {
        let holds = fields.flag_opt(key)?;
        return Some(if holds == (key == "present") {
            ValuePattern::Present
        } else {
            ValuePattern::Absent
        });
    }
    let text = fields.text(key)?;
    if text.text.is_empty() && key != "exact" {
        let help = "write some text; `present: true` asks only whether it is there";
        fields::malformed(
            fields.report,
            codes::TEXT,
            key,
            &text,
            "is empty, which every value matches",
            help,
        );
    }
    if key == "regex" {
        checked(fields.report, key, &text, syntax::regex(&text.text));
    }
    let text: Arc<str> = text.text.into();
    Some(match key {
        "prefix" => ValuePattern::Prefix(text),
        "suffix" => ValuePattern::Suffix(text),
        "contains" => ValuePattern::Contains(text),
        "regex" => ValuePattern::Regex(text),
        _ => ValuePattern::Exact(text),
    })
}

/// Reports an item that stands in its list already.
pub(super) fn listed_twice(report: &Report<'_>, key: &str, text: &Text) {
    let message = format!("`{}` stands twice in `{key}`", shown(&text.text));
    let problem = Problem::new(codes::DUPLICATE, text.span.clone(), message);
    report.add(problem.label("second time").help("remove one of them"));
}

/// Reports a header name that differs from another only in case.
pub(super) fn same_header(report: &Report<'_>, text: &Text) {
    let message = format!(
        "header `{}` stands twice: case makes no difference",
        shown(&text.text)
    );
    let problem = Problem::new(codes::DUPLICATE_KEY, text.span.clone(), message);
    report.add(problem.label("second time").help("keep one of them"));
}
