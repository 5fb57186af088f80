//! Paths and regular expressions.

use std::sync::Arc;

use super::{Fault, Parsed};
use crate::{
    config::{codes, model::PathPattern},
    steering,
};

/// A path that requests are matched against.
pub(in super::super) fn path_pattern(text: &str) -> Parsed<PathPattern> {
    let fault = |why: &str, help: &str| Err(Fault::new(codes::PATH, why, help));
    if let Some(pattern) = text.strip_prefix('~') {
        regex(pattern)?;
        return Ok(PathPattern::Regex(pattern.into()));
    }
    path_bytes(text)?;
    if let Some(prefix) = text.strip_suffix("/**") {
        if prefix.contains('*') || prefix.contains(['{', '}']) {
            return fault(
                "a prefix with placeholders",
                "write `/users/{id}/{rest=**}`: a template whose last placeholder takes all that follows",
            );
        }
        let prefix = prefix.trim_end_matches('/');
        return Ok(PathPattern::Prefix(prefix.into()));
    }
    if text.contains(['{', '}']) {
        return template(text);
    }
    if text.contains('*') {
        return fault(
            "a wildcard in the wrong place",
            "`/**` at the end is everything below; one segment is `{name}`; anything else is a regular expression, `~^/a/[^/]*`",
        );
    }
    Ok(PathPattern::Exact(text.into()))
}

/// A path that replaces another, without query.
pub(in super::super) fn path(text: &str) -> Parsed<Arc<str>> {
    path_bytes(text)?;
    if text.contains(['{', '}', '*']) {
        let help =
            "this path is sent as it stands; a `regex` with a `replacement` can refer to groups";
        return Err(Fault::new(
            codes::PATH,
            "a placeholder in a fixed path",
            help,
        ));
    }
    Ok(text.into())
}

/// A path with or without a query.
pub(in super::super) fn path_and_query(text: &str) -> Parsed<Arc<str>> {
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    path(before)?;
    if !query
        .bytes()
        .all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#')
    {
        return Err(Fault::new(
            codes::PATH,
            "not a query",
            "percent-encode what is not visible ASCII: a space is `%20`",
        ));
    }
    Ok(text.into())
}

/// What holds of every path: begins with `/`, visible ASCII, no query, no dot segments.
fn path_bytes(text: &str) -> Parsed<()> {
    let fault = |why: &str, help: String| Err(Fault::new(codes::PATH, why, help));
    if !text.starts_with('/') {
        return match text {
            "*" | "**" => fault(
                "not a path",
                "leave `path` out, or write `/**`, for every path".to_owned(),
            ),
            _ if text.contains("://") => fault(
                "is a URL",
                "write the path alone, and the host under `host`".to_owned(),
            ),
            _ if text.starts_with('^') => fault(
                "not a path",
                format!("a regular expression begins with `~`: \"~{text}\""),
            ),
            _ => fault("does not begin with `/`", format!("write `/{text}`")),
        };
    }
    if text.contains('?') {
        return fault(
            "holds a query",
            "write the path alone; parameters are matched under `query`".to_owned(),
        );
    }
    if text.contains('#') {
        return fault(
            "holds a fragment",
            "remove it: clients do not send fragments".to_owned(),
        );
    }
    if !text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return fault(
            "not visible ASCII",
            "percent-encode it as clients send it: a space is `%20`, `ü` is `%C3%BC`".to_owned(),
        );
    }
    if steering::is_ambiguous_path(text.as_bytes()) {
        return fault(
            "holds a dot segment",
            "write the path that is meant: requests with `/./` or `/../` take no route".to_owned(),
        );
    }
    Ok(())
}

fn template(text: &str) -> Parsed<PathPattern> {
    let fault = |why: String| {
        let help = "a placeholder is a whole segment, `/users/{id}`, each name once; the last may be `{rest=**}`";
        Err(Fault::new(codes::PATH, why, help))
    };
    let mut names: Vec<&str> = Vec::new();
    let mut segments = text.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let inner = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        let Some(inner) = inner else {
            if segment.contains(['{', '}', '*']) {
                return fault(format!("`{segment}` is neither text nor a placeholder"));
            }
            continue;
        };
        let name = match inner.split_once('=') {
            Some((name, "**")) if segments.peek().is_none() => name,
            Some((_, "**")) => return fault(format!("`{segment}` is not the last segment")),
            Some(_) => return fault(format!("`{segment}` is no placeholder")),
            None => inner,
        };
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(word) {
            return fault(format!(
                "`{segment}` has no name of letters, digits and `_`"
            ));
        }
        if names.contains(&name) {
            return fault(format!("`{name}` stands twice"));
        }
        names.push(name);
    }
    Ok(PathPattern::Template(text.into()))
}

/// A regular expression over a whole path or value.
pub(in super::super) fn regex(pattern: &str) -> Parsed<()> {
    steering::check_pattern(pattern).map_err(regex_fault)
}

/// A regular expression of a rewrite, with its replacement.
pub(in super::super) fn rewrite_regex(pattern: &str) -> Parsed<()> {
    steering::check_rewrite_pattern(pattern).map_err(regex_fault)
}

fn regex_fault(error: steering::PatternError) -> Fault {
    // The engine draws a picture over several lines; its last line says what is wrong.
    let last = error.message.lines().last().unwrap_or("").trim();
    let why = last.strip_prefix("error: ").unwrap_or(last);
    let help = if why.contains("look-around") {
        "look-around does not exist here, since every match takes linear time: use two routes, the first for the exception"
    } else if why.contains("bytes") {
        "bound repetitions such as `{1,1000}`, or match the long list by several routes"
    } else {
        "put a `\\` before a special character that stands for itself; quote the value with '…' so that YAML keeps the `\\`"
    };
    Fault::new(codes::REGEX, why, help)
}

/// Groups that a replacement refers to and the expression does not have: the first, if any.
///
/// `$name` takes the longest run of word characters, as the engine does: `$1x` is a group named `1x`.
pub(in super::super) fn unknown_group(pattern: &str, replacement: &str) -> Option<String> {
    let groups = group_names(pattern);
    let mut rest = replacement;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            continue;
        }
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let (name, behind) = match braced {
            Some(found) => found,
            None => after.split_at(after.find(word).unwrap_or(after.len())),
        };
        if !name.is_empty() && !groups.iter().any(|group| group == name) {
            return Some(name.to_owned());
        }
        rest = behind;
    }
    None
}

/// Numbers and names of the groups of a valid expression.
fn group_names(pattern: &str) -> Vec<String> {
    let syntax = regex_automata::util::syntax::Config::new().utf8(false);
    let builder = regex_automata::meta::Regex::builder()
        .syntax(syntax)
        .build(pattern);
    let Ok(regex) = builder else {
        return Vec::new();
    };
    let names = regex
        .group_info()
        .pattern_names(regex_automata::PatternID::ZERO);
    let named = names.enumerate().flat_map(|(number, name)| {
        std::iter::once(number.to_string()).chain(name.map(str::to_owned))
    });
    named.collect()
}
