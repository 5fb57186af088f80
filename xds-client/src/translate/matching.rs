//! What a route matches: `RouteMatch`.

use std::sync::Arc;

use tidegate_core::config::{
    model::{PathPattern, RouteMatch, ValuePattern},
    value,
};

use super::node::Node;

/// How the path of a route is matched, for the rewrites that refer to it.
pub(super) struct Matched {
    /// Everything but the hosts.
    pub(super) matches: RouteMatch,
    /// What a `prefix_rewrite` replaces.
    pub(super) prefix: Prefix,
}

/// What a `prefix_rewrite` replaces.
pub(super) enum Prefix {
    /// All of the path.
    Whole,
    /// Segments, as a prefix of the model has them.
    Segments,
    /// What this expression matches at the beginning.
    Bytes(String),
    /// Nothing: the path is matched by an expression.
    None,
}

/// Makes the conditions of a route.
pub(super) fn matches(node: &Node<'_>) -> Matched {
    let (path, prefix) = path(node);
    let mut matches = RouteMatch {
        path,
        ..RouteMatch::default()
    };
    for header in node.nodes("headers") {
        header_condition(&header, &mut matches);
    }
    for query in node.nodes("query_parameters") {
        let name = query.text("name");
        let visible = |byte: u8| matches!(byte, 0x21..=0x7e) && !b"&=#?".contains(&byte);
        if name.is_empty() || !name.bytes().all(visible) {
            query.refuse("name", "is not the name of a parameter");
        }
        let pattern = match query.which(&["string_match", "present_match"]) {
            Some("string_match") => query.node("string_match").and_then(|m| string(&m)),
            _ => presence(&query),
        };
        matches
            .query
            .extend(pattern.map(|pattern| (name.into(), pattern)));
    }
    if let Some(fraction) = node.node("runtime_fraction") {
        everything(&fraction);
    }
    matches
        .headers
        .sort_by(|(a, _): &(Arc<str>, _), (b, _)| a.cmp(b));
    Matched { matches, prefix }
}

/// Nothing set is present; `present_match: false` is absent.
fn presence(node: &Node<'_>) -> Option<ValuePattern> {
    let absent = node.has("present_match") && !node.flag("present_match");
    Some(if absent {
        ValuePattern::Absent
    } else {
        ValuePattern::Present
    })
}

/// A share of the requests that is not all of them has no word in the model.
fn everything(fraction: &Node<'_>) {
    let Some(percent) = fraction.node("default_value") else {
        return fraction.refuse("default_value", "is missing");
    };
    let whole = match percent.word("denominator", "HUNDRED") {
        "HUNDRED" => 100,
        "TEN_THOUSAND" => 10_000,
        _ => 1_000_000,
    };
    if percent.integer::<u32>("numerator").unwrap_or(0) < whole {
        fraction.refuse(
            "default_value",
            "only a fraction of 100 % is supported: use `weighted_clusters`",
        );
    }
}

/// Prefixes of the API are prefixes of the bytes; those of the model take whole segments. So `/a` becomes an
/// expression, which all routes are searched for at once.
fn path(node: &Node<'_>) -> (PathPattern, Prefix) {
    let is_exact_case = !node.has("case_sensitive") || node.flag("case_sensitive");
    let case = if is_exact_case { "" } else { "(?i)" };
    let by_regex = |regex: String| {
        let regex = value::regex(&regex).ok();
        regex.map_or(PathPattern::Any, PathPattern::Regex)
    };
    let kinds = ["prefix", "path", "safe_regex", "path_separated_prefix"];
    match node.which(&kinds) {
        Some("prefix") => match node.text("prefix") {
            "" | "/" => (PathPattern::Any, Prefix::Bytes("^/".into())),
            prefix => {
                begins(node, "prefix", prefix);
                let escaped = escape(prefix);
                let pattern = by_regex(format!("(?s){case}{escaped}.*"));
                (pattern, Prefix::Bytes(format!("{case}^{escaped}")))
            }
        },
        Some("path") if is_exact_case => {
            let path = node.checked("path", value::path(node.text("path")));
            (PathPattern::Exact(path.unwrap_or_default()), Prefix::Whole)
        }
        Some("path") => {
            begins(node, "path", node.text("path"));
            let pattern = by_regex(format!("{case}{}", escape(node.text("path"))));
            (pattern, Prefix::Whole)
        }
        Some("path_separated_prefix") => {
            let prefix = node.text("path_separated_prefix");
            let read = value::path(prefix).and_then(|path| match prefix.ends_with('/') {
                true => Err("ends with `/`".to_owned()),
                false => Ok(path),
            });
            let read = node
                .checked("path_separated_prefix", read)
                .unwrap_or_default();
            let escaped = escape(prefix);
            match is_exact_case {
                true => (PathPattern::Prefix(read), Prefix::Segments),
                false => {
                    let pattern = by_regex(format!("(?s){case}{escaped}(?:/.*)?"));
                    (pattern, Prefix::Bytes(format!("{case}^{escaped}")))
                }
            }
        }
        Some("safe_regex") => {
            let regex = node
                .node("safe_regex")
                .and_then(|regex| expression(&regex, ""));
            (
                regex.map_or(PathPattern::Any, PathPattern::Regex),
                Prefix::None,
            )
        }
        _ => {
            node.refuse("", "has no path: one of `prefix`, `path`, `safe_regex`, `path_separated_prefix` is needed");
            (PathPattern::Any, Prefix::None)
        }
    }
}

fn begins(node: &Node<'_>, field: &str, path: &str) {
    if !path.starts_with('/') {
        node.refuse(field, "does not begin with `/`");
    }
}

pub(super) fn header_condition(header: &Node<'_>, matches: &mut RouteMatch) {
    let kinds = [
        "string_match",
        "exact_match",
        "safe_regex_match",
        "prefix_match",
        "suffix_match",
        "contains_match",
        "present_match",
    ];
    let kind = header.which(&kinds);
    let text = |field: &str| Arc::<str>::from(header.text(field));
    let pattern = match kind {
        Some("string_match") => header.node("string_match").and_then(|m| string(&m)),
        Some("exact_match") => Some(ValuePattern::Exact(text("exact_match"))),
        Some("prefix_match") => Some(ValuePattern::Prefix(text("prefix_match"))),
        Some("suffix_match") => Some(ValuePattern::Suffix(text("suffix_match"))),
        Some("contains_match") => Some(ValuePattern::Contains(text("contains_match"))),
        Some("safe_regex_match") => {
            let regex = header.node("safe_regex_match");
            regex
                .and_then(|m| expression(&m, ""))
                .map(ValuePattern::Regex)
        }
        _ => presence(header),
    };
    let pattern = match (pattern, header.flag("invert_match")) {
        (Some(ValuePattern::Present), true) => Some(ValuePattern::Absent),
        (Some(ValuePattern::Absent), true) => Some(ValuePattern::Present),
        (_, true) => {
            header.refuse("invert_match", "is only supported with `present_match`");
            None
        }
        (pattern, false) => pattern,
    };
    let Some(pattern) = pattern else { return };
    if header.text("name") == ":method" {
        let ValuePattern::Exact(method) = &pattern else {
            return header.refuse("name", "a method is only compared exactly");
        };
        if !matches.methods.is_empty() {
            header.refuse("name", "the method is compared twice");
        }
        matches
            .methods
            .extend(header.checked("", value::method(method)));
        return;
    }
    if let Some(name) = header.checked("name", value::header_name(header.text("name"))) {
        matches.headers.push((name, pattern));
    }
}

/// A condition on a text: `StringMatcher`.
fn string(node: &Node<'_>) -> Option<ValuePattern> {
    let case = if node.flag("ignore_case") { "(?i)" } else { "" };
    let kind = node.which(&["exact", "prefix", "suffix", "contains", "safe_regex"]);
    let Some(kind) = kind else {
        node.refuse("", "compares with nothing");
        return None;
    };
    if kind == "safe_regex" {
        return expression(&node.node("safe_regex")?, "").map(ValuePattern::Regex);
    }
    let text = node.text(kind);
    if text.is_empty() && kind != "exact" {
        node.refuse(kind, "is empty");
    }
    if !case.is_empty() {
        let escaped = escape(text);
        let regex = match kind {
            "prefix" => format!("(?is){escaped}.*"),
            "suffix" => format!("(?is).*{escaped}"),
            "contains" => format!("(?is).*{escaped}.*"),
            _ => format!("(?i){escaped}"),
        };
        return node
            .checked(kind, value::regex(&regex))
            .map(ValuePattern::Regex);
    }
    let text = text.into();
    Some(match kind {
        "prefix" => ValuePattern::Prefix(text),
        "suffix" => ValuePattern::Suffix(text),
        "contains" => ValuePattern::Contains(text),
        _ => ValuePattern::Exact(text),
    })
}

/// A `RegexMatcher`: RE2 and our engine agree on the syntax, and both match the whole of a text.
fn expression(node: &Node<'_>, flags: &str) -> Option<Arc<str>> {
    let pattern = node.text("regex");
    if pattern.is_empty() {
        node.refuse("regex", "is empty");
        return None;
    }
    node.checked("regex", value::regex(&format!("{flags}{pattern}")))
}

/// The expression that matches exactly this text.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
