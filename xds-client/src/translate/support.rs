//! Which fields of the Envoy API are taken, which are ignored and why; all others are refused.
//!
//! The table is the one place where a field is known: `review` goes through a resource by it before it is
//! translated, and [`matrix`] is the reference page.

mod clusters;
mod faults;
mod listeners;
mod routes;

use std::fmt::Write as _;

use super::node::{Faults, join};
use crate::pb::message::{self, Message, Value};

/// The namespace of metadata that balancers look at.
pub(super) const METADATA_OF_BALANCERS: &str = "envoy.lb";

/// A type of messages.
struct Support {
    /// Its full name.
    kind: &'static str,
    /// Fields that are taken.
    taken: &'static [&'static str],
    /// Fields that are ignored, and why that does no harm.
    ignored: &'static [(&'static str, &'static str)],
}

/// What the names of HTTP filters begin with.
const HTTP_FILTERS: &str = "envoy.extensions.filters.http.";

/// Types whose content is data, not fields of the API.
const DATA: &[&str] = &["google.protobuf.Struct", "google.protobuf.Value"];

const SHOWN: &str = "only shown by Envoy itself";
const LOGS: &str = "the access log is configured by the file";
const OWN_BUFFERS: &str = "buffers are bounded by `limits` of the file";
const OWN_CONNECTION: &str = "connections are the proxy's own business";
const TRACES: &str = "no traces are exported";

/// Every type, by what it belongs to.
const TABLES: [&[Support]; 4] = [
    clusters::TABLE,
    routes::TABLE,
    faults::TABLE,
    listeners::TABLE,
];

fn table() -> impl Iterator<Item = &'static Support> {
    TABLES.into_iter().flatten()
}

fn support(kind: &str) -> Option<&'static Support> {
    table().find(|one| one.kind == kind)
}

/// Goes through all that is set in a resource.
pub(super) fn review(message: &Message, faults: &Faults) {
    review_message(message, "", faults);
}

fn review_message(message: &Message, path: &str, faults: &Faults) {
    if DATA.contains(&message.kind.as_str()) {
        return;
    }
    let Some(support) = support(&message.kind) else {
        return faults.refuse(
            path.to_owned(),
            format!("{} is not supported", message.kind),
        );
    };
    for number in &message.unknown {
        faults.warn(
            path.to_owned(),
            format!("field {number} is not known, and ignored"),
        );
    }
    let is_left_out = |name: &str| {
        let flag = |(field, value): &(String, Value)| field == name && *value == Value::Flag(true);
        message.fields.iter().any(flag)
    };
    // What is left out, since nobody knows it, is not looked at.
    let may_be_left_out = is_left_out("is_optional") || is_left_out("disabled");
    let is_known = |value: &Value| match value {
        Value::Message(message) => {
            let is_filter = message.kind.starts_with(HTTP_FILTERS);
            is_filter && self::support(&message.kind).is_some()
        }
        _ => false,
    };
    for (field, value) in &message.fields {
        let at = join(path, field);
        if support.taken.contains(&field.as_str()) {
            if !may_be_left_out || field != "typed_config" || is_known(value) {
                review_value(value, &at, faults);
            }
        } else if let Some((_, why)) = support.ignored.iter().find(|(name, _)| name == field) {
            faults.warn(at, format!("is ignored: {why}"));
        } else {
            faults.refuse(at, "is not supported");
        }
    }
}

fn review_value(value: &Value, path: &str, faults: &Faults) {
    match value {
        Value::Message(message) => review_message(message, path, faults),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                review_value(item, &format!("{path}[{index}]"), faults);
            }
        }
        Value::Map(entries) => {
            for (key, item) in entries {
                let at = format!("{path}[\"{key}\"]");
                match item {
                    // Nobody looks an extension up that is not known by its type.
                    Value::Opaque(kind) => faults.refuse(at, format!("{kind} is not supported")),
                    item => review_value(item, &at, faults),
                }
            }
        }
        _ => {}
    }
}

/// The reference page: every type that is looked into, and what becomes of each field.
pub fn matrix() -> String {
    let mut page = String::from(
        "# Support of the Envoy API\n\n\
         What becomes of each field of the resources that a control plane sends: taken, ignored with a warning, or \
         refused by name (a NACK that says where it stands). Types that are not listed are refused as a whole. \
         How it works stands in [xds.md](../xds.md). This page is generated; a test compares it with the table \
         that the proxy goes by.\n",
    );
    for support in table() {
        let _ = write!(page, "\n## {}\n\n", support.kind);
        let fields = message::fields_of(support.kind);
        let list = |names: Vec<String>| match names.is_empty() {
            true => "–".to_owned(),
            false => names.join(", "),
        };
        let taken = support.taken.iter().map(|field| format!("`{field}`"));
        let _ = writeln!(page, "Taken: {}\n", list(taken.collect()));
        if !support.ignored.is_empty() {
            page += "| ignored | since |\n|---|---|\n";
            for (field, why) in support.ignored {
                let _ = writeln!(page, "| `{field}` | {why} |");
            }
            page += "\n";
        }
        let is_refused = |field: &&str| {
            !support.taken.contains(field) && !support.ignored.iter().any(|(name, _)| name == field)
        };
        let names = fields.iter().map(|(field, _)| field.as_str());
        let mut refused: Vec<&str> = names.filter(is_refused).collect();
        refused.sort_unstable();
        let _ = writeln!(
            page,
            "Refused: {}",
            list(refused.iter().map(|field| format!("`{field}`")).collect())
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the table speaks of the API as it is. Method: each type and field exists, none stands twice, and the
    /// type of each field that is taken is in the table, too.
    #[test]
    fn the_table_is_closed() {
        for support in table() {
            let fields = message::fields_of(support.kind);
            let ignored = support.ignored.iter().map(|(field, _)| *field);
            let mut named: Vec<&str> = support.taken.iter().copied().chain(ignored).collect();
            for field in &named {
                let found = fields.iter().find(|(name, _)| name == field);
                assert!(found.is_some(), "{} has no field {field}", support.kind);
            }
            named.sort_unstable();
            assert!(
                named.windows(2).all(|pair| pair.first() != pair.last()),
                "{}",
                support.kind
            );
            for (field, kind) in &fields {
                let Some(kind) = kind
                    .as_deref()
                    .filter(|_| support.taken.contains(&field.as_str()))
                else {
                    continue;
                };
                let is_known =
                    self::support(kind).is_some() || kind.starts_with("google.protobuf.");
                assert!(is_known, "{} of {} is a {kind}", field, support.kind);
            }
        }
    }
}
