//! What a change of the configuration changes, in words.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    dump::{self, Secrets},
    model::Config,
};

/// One line per change, in the order of the file: `route edge/3: timeout 800ms → 1s`,
/// `cluster pay: endpoint 10.0.0.3:80 added`. Empty when nothing changes. Values that may be secrets
/// are not shown.
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (
        dump::file(old, Secrets::Reveal),
        dump::file(new, Secrets::Reveal),
    );
    let mut changes = Vec::new();
    let empty = Map::new();
    let object = |value: &'_ Value| value.as_object().cloned().unwrap_or_default();
    let (mut old, mut new) = (object(&old), object(&new));
    let mut take = |key: &str| {
        let both = [&mut old, &mut new].map(|file| file.remove(key));
        both.map(|value| value.as_ref().map(object).unwrap_or_else(|| empty.clone()))
    };
    let [old_listeners, new_listeners] = take("listeners");
    let [old_clusters, new_clusters] = take("clusters");
    let [old_secrets, new_secrets] = take("secrets");
    values(
        "",
        "",
        &Value::Object(old),
        &Value::Object(new),
        &mut changes,
    );
    named(
        "listener",
        &old_listeners,
        &new_listeners,
        listener,
        &mut changes,
    );
    named(
        "cluster",
        &old_clusters,
        &new_clusters,
        cluster,
        &mut changes,
    );
    named("secret", &old_secrets, &new_secrets, secret, &mut changes);
    changes
}

type Object = Map<String, Value>;

/// Compares objects that go by names; `both` compares two of the same name.
fn named(
    kind: &str,
    old: &Object,
    new: &Object,
    both: fn(&str, &Value, &Value, &mut Vec<String>),
    changes: &mut Vec<String>,
) {
    for (name, before) in old {
        match new.get(name) {
            Some(after) => both(name, before, after, changes),
            None => changes.push(format!("{kind} {name}: removed")),
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        changes.push(format!("{kind} {name}: added"));
    }
}

fn listener(name: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    let (old, old_routes) = without(old, "routes");
    let (new, new_routes) = without(new, "routes");
    values(&format!("listener {name}"), "", &old, &new, changes);
    let (old_routes, new_routes) = (by_key(&old_routes, "name"), by_key(&new_routes, "name"));
    named(
        "route",
        &index(&old_routes),
        &index(&new_routes),
        route,
        changes,
    );
    // Only the order of the routes that stay says anything.
    let kept = |routes: &[(String, Value)], other: &[(String, Value)]| {
        let other = index(other);
        let kept = routes.iter().filter(|(name, _)| other.contains_key(name));
        kept.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    if kept(&old_routes, &new_routes) != kept(&new_routes, &old_routes) {
        changes.push(format!("listener {name}: the order of its routes changes"));
    }
}

fn route(name: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    values(&format!("route {name}"), "", old, new, changes);
}

fn cluster(name: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    let subject = format!("cluster {name}");
    let (old, old_from) = without(old, "endpoints");
    let (new, new_from) = without(new, "endpoints");
    match (old_from.get("static"), new_from.get("static")) {
        (Some(before), Some(after)) => {
            let before: BTreeMap<_, _> = by_key(before, "address").into_iter().collect();
            let after: BTreeMap<_, _> = by_key(after, "address").into_iter().collect();
            endpoints(&subject, &before, &after, changes);
        }
        _ => values(&subject, "endpoints", &old_from, &new_from, changes),
    }
    values(&subject, "", &old, &new, changes);
}

fn secret(name: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    values(&format!("secret {name}"), "", old, new, changes);
}

fn endpoints(
    subject: &str,
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
    changes: &mut Vec<String>,
) {
    for (address, before) in old {
        match new.get(address) {
            Some(after) => {
                values(
                    &format!("{subject}: endpoint {address}"),
                    "",
                    before,
                    after,
                    changes,
                );
            }
            None => changes.push(format!("{subject}: endpoint {address} removed")),
        }
    }
    for address in new.keys().filter(|address| !old.contains_key(*address)) {
        changes.push(format!("{subject}: endpoint {address} added"));
    }
}

/// Compares anything: one line per value that differs, called by its path below `subject`.
fn values(subject: &str, path: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    if old == new {
        return;
    }
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
        let (before, after) = (shown(path, old), shown(path, new));
        changes.push(line(subject, &format!("{path} {before} → {after}")));
        return;
    };
    let below = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    for (key, before) in before {
        match after.get(key) {
            Some(after) => values(subject, &below(key), before, after, changes),
            None => {
                let was = shown(&below(key), before);
                changes.push(line(
                    subject,
                    &format!("{} removed (was {was})", below(key)),
                ));
            }
        }
    }
    for (key, after) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        changes.push(line(
            subject,
            &format!("{} {} added", below(key), shown(&below(key), after)),
        ));
    }
}

fn line(subject: &str, change: &str) -> String {
    match subject {
        "" => change.to_owned(),
        // A subject that is a part of another one, such as an endpoint, reads on.
        _ if subject.contains(": ") => format!("{subject} {change}"),
        _ => format!("{subject}: {change}"),
    }
}

/// A value as a person reads it; secrets and long ones cut.
fn shown(path: &str, value: &Value) -> String {
    const SHOWN: usize = 120;
    let header = path.rsplit('.').next().unwrap_or("");
    if path.contains("_headers.") && dump::is_secret(header) {
        return dump::REDACTED.to_owned();
    }
    let text = match has_secret(value) {
        true => dump::REDACTED.to_owned(),
        false => compact(value),
    };
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or("")),
        None => text,
    }
}

/// A value as it would stand in a file.
fn compact(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => {
            text.clone()
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(compact).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) if !entries.is_empty() => {
            let entries = entries.iter();
            let entries: Vec<String> = entries
                .map(|(key, value)| format!("{key}: {}", compact(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// Whether a map, at any depth, holds a header whose value may be a secret.
fn has_secret(value: &Value) -> bool {
    let entries = value.as_object().into_iter().flatten();
    entries
        .into_iter()
        .any(|(key, value)| (value.is_string() && dump::is_secret(key)) || has_secret(value))
}

/// An object without `key`, and what stood there.
fn without(value: &Value, key: &str) -> (Value, Value) {
    let mut object = value.as_object().cloned().unwrap_or_default();
    let taken = object.remove(key).unwrap_or(Value::Null);
    (Value::Object(object), taken)
}

/// The objects of a list, with the text under `key` of each, in order.
fn by_key(list: &Value, key: &str) -> Vec<(String, Value)> {
    let items = list.as_array().into_iter().flatten();
    let keyed = items.filter_map(|item| {
        let (rest, name) = without(item, key);
        Some((name.as_str()?.to_owned(), rest))
    });
    keyed.collect()
}

fn index(keyed: &[(String, Value)]) -> Object {
    keyed.iter().cloned().collect()
}
