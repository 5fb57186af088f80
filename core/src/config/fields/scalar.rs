//! One scalar: its type, its bounds, and what is said when it has neither.

use std::{ops::Range, time::Duration};

use super::Text;
use crate::config::{
    codes::{self, Code},
    diagnostic::{Problem, Report, suggest},
    keys,
    quantity::{self, QuantityError},
    shape::Kind,
    tree::{Node, Value},
};

/// Reads a whole number of the kind's bounds.
pub(in super::super) fn read_integer(
    report: &Report<'_>,
    key: &str,
    node: &Node,
    kind: &Kind,
) -> Option<u64> {
    let text = match &node.value {
        Value::Scalar { text, plain: true } => text,
        Value::Scalar { text, plain: false } if text.parse::<u64>().is_ok() => {
            let message = format!("`{key}` is a number, this is text");
            let problem = Problem::new(codes::TYPE, node.span.clone(), message);
            report.add(
                problem
                    .label("quoted")
                    .help(format!("remove the quotes: `{key}: {text}`")),
            );
            return None;
        }
        _ => {
            wrong_type(report, key, node, kind);
            return None;
        }
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let negative = text
        .strip_prefix('-')
        .is_some_and(|rest| rest.parse::<u64>().is_ok());
    if !digits && !negative {
        if kind.words().next().is_some() {
            unknown_word(report, key, text, node, kind);
            return None;
        }
        let message = format!("`{key}` is a whole number, this is `{text}`");
        let problem = Problem::new(codes::QUANTITY, node.span.clone(), message);
        report.add(
            problem
                .label("not a whole number")
                .help(format!("write {}", kind.describe())),
        );
        return None;
    }
    let value = text.parse::<u64>().ok();
    let in_range = |kind: &Kind| match (kind, value) {
        (Kind::Integer(min, max) | Kind::PowerOfTwo(min, max), Some(value)) => {
            (*min..=*max).contains(&value)
        }
        (Kind::Among(numbers), Some(value)) => numbers.contains(&value),
        _ => false,
    };
    if !range(
        report,
        key,
        node,
        kind,
        kind.alternatives().iter().any(in_range),
    ) {
        return None;
    }
    let value = value?;
    if matches!(kind, Kind::PowerOfTwo(..)) && !value.is_power_of_two() {
        let below = 1u64 << value.ilog2();
        let message = format!("`{key}` is {value}, which is no power of two");
        let problem = Problem::new(codes::POWER_OF_TWO, node.span.clone(), message);
        report.add(
            problem
                .label("not a power of two")
                .help(format!("write {below} or {}", below * 2)),
        );
        return None;
    }
    Some(value)
}

/// Reads a duration of the kind's bounds.
pub(super) fn read_duration(
    report: &Report<'_>,
    key: &str,
    node: &Node,
    kind: &Kind,
) -> Option<Duration> {
    let value = quantity::duration(scalar(report, key, node, kind)?);
    let value = quantity_of(report, key, node, kind, value, "s")?;
    let fits =
        |kind: &Kind| matches!(kind, Kind::Duration(min, max) if (*min..=*max).contains(&value));
    range(
        report,
        key,
        node,
        kind,
        kind.alternatives().iter().any(fits),
    )
    .then_some(value)
}

/// Reads a size of the kind's bounds, in bytes.
pub(super) fn read_size(report: &Report<'_>, key: &str, node: &Node, kind: &Kind) -> Option<u64> {
    let value = quantity::size(scalar(report, key, node, kind)?);
    let value = quantity_of(report, key, node, kind, value, "KiB")?;
    let fits = |kind: &Kind| matches!(kind, Kind::Size(min, max) if (*min..=*max).contains(&value));
    range(
        report,
        key,
        node,
        kind,
        kind.alternatives().iter().any(fits),
    )
    .then_some(value)
}

/// Reads a percentage, in basis points.
pub(in super::super) fn read_share(
    report: &Report<'_>,
    key: &str,
    node: &Node,
    kind: &Kind,
) -> Option<u32> {
    let text = scalar(report, key, node, kind)?;
    let value = quantity_of(report, key, node, kind, quantity::share(text), "%")?;
    let fits =
        |kind: &Kind| matches!(kind, Kind::Share(min, max) if (*min..=*max).contains(&value));
    range(
        report,
        key,
        node,
        kind,
        kind.alternatives().iter().any(fits),
    )
    .then_some(value)
}

/// Reads a text, at most as long as its kind says.
pub(in super::super) fn read_text(
    report: &Report<'_>,
    key: &str,
    node: &Node,
    kind: &Kind,
) -> Option<Text> {
    let text = scalar(report, key, node, kind)?;
    let limit = kind.alternatives().iter().find_map(|kind| match kind {
        Kind::Text(_, max) | Kind::List(Kind::Text(_, max), _) => Some(*max),
        _ => None,
    });
    let limit = limit.unwrap_or(keys::TEXT_MAX);
    if text.len() > limit {
        let message = format!(
            "`{key}` is {} bytes long, at most {limit} are allowed",
            text.len()
        );
        let problem = Problem::new(codes::TOO_LONG, node.span.clone(), message);
        report.add(problem.label("too long").help("shorten it"));
        return None;
    }
    Some(Text {
        text: text.to_owned(),
        span: node.span.clone(),
    })
}

/// The text of a scalar; reports anything else.
pub(super) fn scalar<'n>(
    report: &Report<'_>,
    key: &str,
    node: &'n Node,
    kind: &Kind,
) -> Option<&'n str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        _ => {
            wrong_type(report, key, node, kind);
            None
        }
    }
}

pub(super) fn is_off(node: &Node, kind: &Kind) -> bool {
    let may = kind
        .alternatives()
        .iter()
        .any(|kind| matches!(kind, Kind::Off));
    may && matches!(&node.value, Value::Scalar { text, .. } if text == "off")
}

/// Reports a value of the wrong type.
pub(in super::super) fn wrong_type(report: &Report<'_>, key: &str, node: &Node, kind: &Kind) {
    if matches!(node.value, Value::Broken) {
        return;
    }
    let (is, expected) = (node.kind(), kind.describe());
    let problem = Problem::new(
        codes::TYPE,
        node.span.clone(),
        format!("`{key}` cannot be {is}"),
    );
    let address = matches!(kind.alternatives(), [Kind::Text("an address", _), ..]);
    let help = match &node.value {
        Value::List(_) if address => {
            format!("write {expected}; IPv6 addresses need quotes: \"[::1]:80\"")
        }
        _ => format!("write {expected}"),
    };
    report.add(problem.label(format!("this is {is}")).help(help));
}

/// Reports a word that is none of the key's.
pub(super) fn unknown_word(report: &Report<'_>, key: &str, text: &str, node: &Node, kind: &Kind) {
    if let Some(what) = kind.planned(text) {
        return report.add(unavailable(text, what, node.span.clone()));
    }
    let message = format!("`{key}` cannot be `{text}`");
    let problem = Problem::new(codes::UNKNOWN_VALUE, node.span.clone(), message);
    // What other formats and YAML 1.1 call it.
    let synonyms: &[&str] = match text {
        "off" | "false" | "no" | "none" | "never" | "disable" | "disabled" | "unlimited" | "0" => {
            &["off", "none", "disabled"]
        }
        "true" | "yes" | "enabled" => &["on"],
        _ => &[],
    };
    let synonym = kind.words().find(|word| synonyms.contains(word));
    let suggestion = synonym.or_else(|| suggest(text, kind.words()));
    let help = match suggestion {
        Some(word) => format!("did you mean `{word}`? allowed is {}", kind.describe()),
        None => format!("allowed is {}", kind.describe()),
    };
    report.add(problem.label("not a value of this key").help(help));
}

/// Unwraps a quantity, or reports what is wrong with it; `unit` is the one that people leave out.
fn quantity_of<T>(
    report: &Report<'_>,
    key: &str,
    node: &Node,
    kind: &Kind,
    value: Result<T, QuantityError>,
    unit: &str,
) -> Option<T> {
    let Value::Scalar { text, .. } = &node.value else {
        return None;
    };
    let expected = kind.describe();
    let problem = match value {
        Ok(value) => return Some(value),
        Err(QuantityError::NoUnit) => {
            let message = format!("`{key}: {text}` has no unit");
            let problem =
                Problem::new(codes::UNIT, node.span.clone(), message).label("which unit?");
            problem.help(format!(
                "write `{text}{unit}` if you mean that; {key} is {expected}"
            ))
        }
        Err(QuantityError::Malformed) if kind.words().next().is_some() && is_word(text) => {
            return {
                unknown_word(report, key, text, node, kind);
                None
            };
        }
        Err(QuantityError::Malformed) => {
            let message = format!("`{key}` cannot be `{text}`");
            let problem = Problem::new(codes::QUANTITY, node.span.clone(), message);
            let units = match unit {
                "s" => "; units are `us`, `ms`, `s`, `m`, `h`",
                "KiB" => "; units are `B`, `KiB`, `MiB`, `GiB`, `TiB`",
                _ => ", with at most two decimals",
            };
            problem
                .label("not understood")
                .help(format!("write {expected}{units}"))
        }
    };
    report.add(problem);
    None
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// Reports a value out of bounds; passes `in_range` on.
fn range(report: &Report<'_>, key: &str, node: &Node, kind: &Kind, in_range: bool) -> bool {
    if let (false, Value::Scalar { text, .. }) = (in_range, &node.value) {
        let message = format!("`{key}: {text}` is out of range");
        let problem = Problem::new(codes::RANGE, node.span.clone(), message);
        report.add(
            problem
                .label("out of range")
                .help(format!("write {}", kind.describe())),
        );
    }
    in_range
}

pub(super) fn too_many(
    report: &Report<'_>,
    key: &str,
    span: Range<usize>,
    count: usize,
    limit: usize,
) {
    let message = format!("`{key}` holds {count}, at most {limit} are allowed");
    let problem = Problem::new(codes::TOO_MANY, span, message).label("too many");
    report.add(problem.help("split the work over several listeners, clusters or proxies"));
}

/// What is said of a key or word that this version does not implement.
pub(in super::super) fn unavailable(name: &str, what: &str, span: Range<usize>) -> Problem {
    let message = format!("`{name}` is not available in this version: {what}");
    let problem = Problem::new(codes::UNAVAILABLE, span, message).label("not available yet");
    problem.help("remove it; it is refused rather than ignored, so that nothing is believed to work that does not")
}

/// Reports that `text`, the value of `key`, is malformed.
pub(in super::super) fn malformed(
    report: &Report<'_>,
    code: &'static Code,
    key: &str,
    text: &Text,
    why: &str,
    help: &str,
) {
    let message = format!("`{key}` cannot be `{}`", text.text);
    report.add(
        Problem::new(code, text.span.clone(), message)
            .label(why)
            .help(help),
    );
}
