//! What a route asks of a request beyond host and path: method, headers, query parameters.

use std::sync::Arc;

use memchr::memmem;

use super::{
    RequestView,
    pattern::{Patterns, Searches},
};
use crate::config::model::{RouteMatch, ValuePattern};

/// The conditions of one route, compiled. All must hold.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    methods: Box<[Arc<str>]>,
    headers: Box<[(Arc<str>, Value)]>,
    query: Box<[(Arc<str>, Value)]>,
}

/// The first condition that does not hold; with its place in the list and its name, if there are several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed<'a> {
    Method,
    Header(usize, &'a str),
    Query(usize, &'a str),
}

impl Conditions {
    pub(super) fn compile(matches: &RouteMatch) -> Conditions {
        let compile = |list: &[(Arc<str>, ValuePattern)]| {
            list.iter()
                .map(|(name, pattern)| (Arc::clone(name), Value::compile(pattern)))
                .collect()
        };
        Conditions {
            methods: matches.methods.iter().cloned().collect(),
            headers: compile(&matches.headers),
            query: compile(&matches.query),
        }
    }

    /// Whether they hold for every request.
    pub(super) fn is_empty(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty() && self.query.is_empty()
    }

    /// The first condition that `request` fails, `None` if all hold. Methods compare with case
    /// (RFC 9110, section 9.1); GET does not stand for HEAD.
    pub(super) fn failed<R: RequestView + ?Sized>(
        &self,
        request: &R,
        searches: &mut Searches,
    ) -> Option<Failed<'_>> {
        if !self.methods.is_empty() {
            let method = request.method();
            if !self.methods.iter().any(|m| m.as_bytes() == method) {
                return Some(Failed::Method);
            }
        }
        for (at, (name, value)) in self.headers.iter().enumerate() {
            if !value.holds(request.header(name), searches) {
                return Some(Failed::Header(at, name));
            }
        }
        for (at, (name, value)) in self.query.iter().enumerate() {
            if !value.holds(query_parameter(request.query(), name), searches) {
                return Some(Failed::Query(at, name));
            }
        }
        None
    }
}

/// The first parameter of this name, as sent; empty if it stands without `=`.
pub(super) fn query_parameter<'a>(query: Option<&'a [u8]>, name: &str) -> Option<&'a [u8]> {
    let mut rest = query?;
    loop {
        let (pair, next) = split_once(rest, b'&');
        let (key, value) = split_once(pair, b'=');
        if key == name.as_bytes() {
            return Some(value.unwrap_or_default());
        }
        rest = next?;
    }
}

/// Splits at the first `separator`.
#[inline]
pub(super) fn split_once(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(separator, bytes) {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..)),
        None => (bytes, None),
    }
}

#[derive(Debug)]
enum Value {
    Present,
    Absent,
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    Contains(Box<memmem::Finder<'static>>),
    Regex(Patterns),
    /// An expression that did not compile; a validated configuration has none such.
    Never,
}

impl Value {
    fn compile(pattern: &ValuePattern) -> Value {
        match pattern {
            ValuePattern::Present => Value::Present,
            ValuePattern::Absent => Value::Absent,
            ValuePattern::Exact(text) => Value::Exact(Arc::clone(text)),
            ValuePattern::Prefix(text) => Value::Prefix(Arc::clone(text)),
            ValuePattern::Suffix(text) => Value::Suffix(Arc::clone(text)),
            ValuePattern::Contains(text) => {
                Value::Contains(Box::new(memmem::Finder::new(text.as_bytes()).into_owned()))
            }
            ValuePattern::Regex(text) => match Patterns::new(&[text]) {
                Some(patterns) => Value::Regex(patterns),
                None => Value::Never,
            },
        }
    }

    fn holds(&self, value: Option<&[u8]>, searches: &mut Searches) -> bool {
        let Some(value) = value else {
            return matches!(self, Value::Absent);
        };
        match self {
            Value::Present => true,
            Value::Absent | Value::Never => false,
            Value::Exact(text) => value == text.as_bytes(),
            Value::Prefix(text) => value.starts_with(text.as_bytes()),
            Value::Suffix(text) => value.ends_with(text.as_bytes()),
            Value::Contains(finder) => finder.find(value).is_some(),
            Value::Regex(patterns) => patterns.is_match(value, searches),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each kind of condition means what it says. Method: values against every pattern.
    #[test]
    fn values_are_judged() {
        let text = || Arc::from("ab");
        let patterns = [
            ValuePattern::Present,
            ValuePattern::Absent,
            ValuePattern::Exact(text()),
            ValuePattern::Prefix(text()),
            ValuePattern::Suffix(text()),
            ValuePattern::Contains(text()),
            ValuePattern::Regex("a.?b+".into()),
        ];
        let mut searches = Searches::default();
        for (value, expected) in [
            (None, ".a....."),
            (Some("ab"), "p.epscr"),
            (Some("abc"), "p..p.c."),
            (Some("cab"), "p...sc."),
            (Some("xabx"), "p....c."),
            (Some("axbb"), "p.....r"),
            (Some("AB"), "p......"),
            (Some(""), "p......"),
        ] {
            for (pattern, letter) in patterns.iter().zip(expected.chars()) {
                let value = value.map(str::as_bytes);
                let holds = Value::compile(pattern).holds(value, &mut searches);
                assert_eq!(holds, letter != '.', "{value:?} {pattern:?}");
            }
        }
    }

    /// Goal: the first parameter of a name counts, by its whole name, as sent. Method: a table.
    #[test]
    fn query_parameters_are_found() {
        for (query, expected) in [
            (None, None),
            (Some(""), None),
            (Some("a"), Some("")),
            (Some("a=1"), Some("1")),
            (Some("b=2&a=1&a=3"), Some("1")),
            (Some("aa=1&ba=2"), None),
            (Some("a=x=y"), Some("x=y")),
            (Some("a=%31"), Some("%31")),
            (Some("&&a=1&"), Some("1")),
        ] {
            let found = query_parameter(query.map(str::as_bytes), "a");
            assert_eq!(found, expected.map(str::as_bytes), "{query:?}");
        }
    }
}
