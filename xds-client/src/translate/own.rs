//! Sections of our own configuration inside of a resource, read by the decoder of our own files: its checks, its
//! defaults and its words. What it finds is told at the path in the resource.
//!
//! They come in two ways: as a message of the API whose fields are those of a section (`outlier_detection`), and as a
//! `google.protobuf.Struct` in the words of our reference, in an extension of a type of ours.

use std::fmt::Write as _;

use tidegate_core::config::{self, model::Cluster};

use super::node::{Node, join};
use crate::pb::message::{Message, Value, type_name};

/// Sections of a cluster that may come as an extension: the type, and the key of our own configuration.
pub const EXTENSIONS: [(&str, &str); 2] = [
    ("tidegate.config.v1.Heal", "heal"),
    ("tidegate.config.v1.AdaptiveLimit", "adaptive_limit"),
];

/// The text of a cluster, and from which byte on it stands for what.
struct Text {
    text: String,
    places: Vec<(usize, String)>,
}

/// Sections of one cluster, put together and then read at once.
pub(super) struct Sections {
    text: Text,
    is_empty: bool,
}

impl Sections {
    pub(super) fn new() -> Sections {
        let text = "version: 1\nclusters: { c: { endpoints: { static: [127.0.0.1:1] }\n".to_owned();
        Sections {
            text: Text {
                places: vec![(0, String::new())],
                text,
            },
            is_empty: true,
        }
    }

    /// Adds a message whose fields are those of the section `key`, but for those that are `left_out`.
    pub(super) fn add_message(&mut self, key: &str, node: &Node<'_>, left_out: &[&str]) {
        let fields = node.message().fields.iter();
        let fields = fields.filter(|(field, _)| !left_out.contains(&field.as_str()));
        self.begin(key, node.path());
        self.text.map(
            fields.map(|(field, value)| (field.as_str(), value)),
            node.path(),
        );
    }

    /// Adds what stands in an extension, if it is one of ours.
    pub(super) fn add_extension(&mut self, options: &Node<'_>) {
        let Some(key) = section(options) else { return };
        let path = join(options.path(), "value");
        self.begin(key, &path);
        match options.node("value") {
            Some(value) => self
                .text
                .value(&Value::Message(value.message().clone()), &path),
            None => self.text.text += "{}",
        }
    }

    /// Whether an extension is one of ours.
    pub(super) fn is_one(options: &Node<'_>) -> bool {
        section(options).is_some()
    }

    fn begin(&mut self, key: &str, path: &str) {
        self.is_empty = false;
        self.text.text += ", ";
        self.text.mark(path);
        let _ = write!(self.text.text, "{key}: ");
    }

    /// Reads them into a cluster's own fields.
    pub(super) fn read(mut self, node: &Node<'_>, cluster: &mut Cluster) {
        if self.is_empty {
            return;
        }
        self.text.text += " } }\n";
        let faults = match config::parse("resource", &self.text.text) {
            Ok((read, warnings)) => {
                if let Some(read) = read.clusters.into_values().next() {
                    (cluster.heal, cluster.adaptive_limit) = (read.heal, read.adaptive_limit);
                }
                warnings
            }
            Err(faults) => faults,
        };
        for fault in faults {
            let path = self.text.path(fault.span.start);
            let why = match fault.help {
                Some(help) => format!("{} ({help})", fault.message),
                None => fault.message,
            };
            match fault.severity {
                config::Severity::Error => node.refuse_at(path, why),
                // Of the text around the sections nobody has to hear.
                config::Severity::Warning if path.is_empty() => {}
                config::Severity::Warning => node.warn_at(path, why),
            }
        }
    }
}

/// The section that an extension is, by the type that it names.
fn section(options: &Node<'_>) -> Option<&'static str> {
    if options.kind() != "TypedStruct" {
        return None;
    }
    let kind = type_name(options.text("type_url"));
    let mut known = EXTENSIONS.iter();
    known.find(|(known, _)| *known == kind).map(|(_, key)| *key)
}

impl Text {
    /// What follows stands for `path`.
    fn mark(&mut self, path: &str) {
        self.places.push((self.text.len(), path.to_owned()));
    }

    /// What stands at a byte.
    fn path(&self, at: usize) -> String {
        let before = self.places.iter().rev().find(|(begin, _)| *begin <= at);
        before.map(|(_, path)| path.clone()).unwrap_or_default()
    }

    fn map<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a Value)>, path: &str) {
        self.text.push('{');
        for (index, (key, value)) in entries.enumerate() {
            if index > 0 {
                self.text += ", ";
            }
            let path = join(path, key);
            self.mark(&path);
            self.quoted(key);
            self.text += ": ";
            self.value(value, &path);
        }
        self.text.push('}');
    }

    fn list(&mut self, items: &[Value], path: &str) {
        self.text.push('[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text += ", ";
            }
            let path = format!("{path}[{index}]");
            self.mark(&path);
            self.value(item, &path);
        }
        self.text.push(']');
    }

    fn value(&mut self, value: &Value, path: &str) {
        match value {
            Value::Flag(flag) => drop(write!(self.text, "{flag}")),
            Value::Integer(number) => drop(write!(self.text, "{number}")),
            Value::Float(number) => drop(write!(self.text, "{number}")),
            Value::Text(text) => self.quoted(text),
            Value::Duration(seconds, nanos) => {
                let nanos = i128::from(*seconds) * 1_000_000_000 + i128::from(*nanos);
                // Finer than any bound of ours.
                let _ = write!(self.text, "{}us", nanos / 1000);
            }
            Value::List(items) => self.list(items, path),
            Value::Map(entries) => {
                self.map(
                    entries.iter().map(|(key, value)| (key.as_str(), value)),
                    path,
                );
            }
            Value::Message(message) => self.message(message, path),
            Value::Word(_) | Value::Bytes(_) | Value::Opaque(_) => self.text += "null",
        }
    }

    /// A `Struct` stands for a map, a `Value` for what it holds.
    fn message(&mut self, message: &Message, path: &str) {
        let held = message.fields.first().map(|(_, value)| value);
        match (message.kind.as_str(), held) {
            ("google.protobuf.Struct", None) => self.text += "{}",
            ("google.protobuf.ListValue", None) => self.text += "[]",
            (
                "google.protobuf.Struct" | "google.protobuf.ListValue" | "google.protobuf.Value",
                Some(held),
            ) => {
                self.value(held, path);
            }
            _ => self.text += "null",
        }
    }

    /// As JSON has it, which YAML takes.
    fn quoted(&mut self, text: &str) {
        self.text += &serde_json::Value::from(text).to_string();
    }
}
