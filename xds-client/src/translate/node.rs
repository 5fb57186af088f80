//! A message with the path that led to it, read field by field; and the faults that are found on the way.

use std::{cell::RefCell, time::Duration};

use super::{FAULTS_MAX, Fault};
use crate::pb::message::{Message, Value};

/// Durations of the model lie between these, or are zero.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(86_400);

/// What is wrong with a resource, and what is ignored in it.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<(Vec<Fault>, Vec<Fault>)>);

impl Faults {
    pub(super) fn refuse(&self, path: String, reason: impl Into<String>) {
        add(&mut self.0.borrow_mut().0, path, reason.into());
    }

    pub(super) fn warn(&self, path: String, reason: impl Into<String>) {
        add(&mut self.0.borrow_mut().1, path, reason.into());
    }

    /// Errors, and warnings.
    pub(super) fn finish(self) -> (Vec<Fault>, Vec<Fault>) {
        self.0.into_inner()
    }
}

/// What lies beyond the first ones says nothing new; that there is more is said.
fn add(faults: &mut Vec<Fault>, path: String, reason: String) {
    let fault = Fault { path, reason };
    match faults.len() {
        _ if faults.contains(&fault) => {}
        n if n < FAULTS_MAX => faults.push(fault),
        FAULTS_MAX => faults.push(Fault {
            path: String::new(),
            reason: "and more".into(),
        }),
        _ => {}
    }
}

/// A message, and where it stands in its resource.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    message: &'a Message,
    path: String,
    faults: &'a Faults,
}

impl<'a> Node<'a> {
    pub(super) fn root(message: &'a Message, faults: &'a Faults) -> Node<'a> {
        Node {
            message,
            path: String::new(),
            faults,
        }
    }

    /// The last part of the type's name.
    pub(super) fn kind(&self) -> &'a str {
        let kind = &self.message.kind;
        kind.rsplit_once('.').map_or(kind, |(_, name)| name)
    }

    pub(super) fn message(&self) -> &'a Message {
        self.message
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The path of a field.
    fn at(&self, field: &str) -> String {
        join(&self.path, field)
    }

    pub(super) fn refuse(&self, field: &str, reason: impl Into<String>) {
        self.faults.refuse(self.at(field), reason);
    }

    /// A fault at a path of its own.
    pub(super) fn refuse_at(&self, path: String, reason: impl Into<String>) {
        self.faults.refuse(path, reason);
    }

    /// A warning at a path of its own.
    pub(super) fn warn_at(&self, path: String, reason: impl Into<String>) {
        self.faults.warn(path, reason);
    }

    pub(super) fn warn(&self, field: &str, reason: impl Into<String>) {
        self.faults.warn(self.at(field), reason);
    }

    pub(super) fn value(&self, field: &str) -> Option<&'a Value> {
        let mut fields = self.message.fields.iter();
        fields
            .find(|(name, _)| name == field)
            .map(|(_, value)| value)
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.value(field).is_some()
    }

    /// The first of these fields that is set, of a `oneof`.
    pub(super) fn which(&self, fields: &[&'static str]) -> Option<&'static str> {
        fields.iter().find(|field| self.has(field)).copied()
    }

    /// Empty if it is not set.
    pub(super) fn text(&self, field: &str) -> &'a str {
        match self.value(field) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The name of an enum's value; `default` if it is not set.
    pub(super) fn word(&self, field: &str, default: &'static str) -> &'a str {
        match self.value(field) {
            Some(Value::Word(word)) => word,
            _ => default,
        }
    }

    pub(super) fn flag(&self, field: &str) -> bool {
        matches!(self.value(field), Some(Value::Flag(true)))
    }

    /// A number, refused if it is not one of the type's.
    pub(super) fn integer<T: TryFrom<i128>>(&self, field: &str) -> Option<T> {
        let Some(Value::Integer(number)) = self.value(field) else {
            return None;
        };
        let fits = T::try_from(*number);
        self.checked(field, fits.map_err(|_| format!("{number} is out of range")))
    }

    /// A duration, refused if it is negative or malformed.
    pub(super) fn duration(&self, field: &str) -> Option<Duration> {
        let Some(Value::Duration(seconds, nanos)) = self.value(field) else {
            return None;
        };
        let read = match (u64::try_from(*seconds), u32::try_from(*nanos)) {
            (Ok(0), Ok(0)) => Ok(Duration::ZERO),
            (Ok(seconds), Ok(nanos @ ..1_000_000_000)) => {
                Ok(Duration::new(seconds, nanos).clamp(SHORTEST, LONGEST))
            }
            _ => Err(format!("{seconds}.{nanos:09}s is negative or malformed")),
        };
        self.checked(field, read)
    }

    /// A duration longer than nothing.
    pub(super) fn positive(&self, field: &str) -> Option<Duration> {
        let duration = self.duration(field)?;
        let read = match duration.is_zero() {
            true => Err("must be longer than nothing".to_owned()),
            false => Ok(duration),
        };
        self.checked(field, read)
    }

    pub(super) fn node(&self, field: &str) -> Option<Node<'a>> {
        match self.value(field) {
            Some(Value::Message(message)) => Some(self.child(message, self.at(field))),
            _ => None,
        }
    }

    /// The messages of a list.
    pub(super) fn nodes(&self, field: &str) -> Vec<Node<'a>> {
        let Some(Value::List(items)) = self.value(field) else {
            return Vec::new();
        };
        let messages = items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| match item {
                Value::Message(message) => {
                    Some(self.child(message, format!("{}[{index}]", self.at(field))))
                }
                _ => None,
            });
        messages.collect()
    }

    /// The messages of a map, by key.
    pub(super) fn entries(&self, field: &str) -> Vec<(&'a str, Node<'a>)> {
        let Some(Value::Map(entries)) = self.value(field) else {
            return Vec::new();
        };
        let messages = entries.iter().filter_map(|(key, value)| match value {
            Value::Message(message) => {
                let path = format!("{}[\"{key}\"]", self.at(field));
                Some((key.as_str(), self.child(message, path)))
            }
            _ => None,
        });
        messages.collect()
    }

    /// The texts of a list, with the name by which each is refused.
    pub(super) fn texts(&self, field: &str) -> Vec<(&'a str, String)> {
        let Some(Value::List(items)) = self.value(field) else {
            return Vec::new();
        };
        let texts = items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| match item {
                Value::Text(text) => Some((text.as_str(), format!("{field}[{index}]"))),
                _ => None,
            });
        texts.collect()
    }

    /// The numbers of a list.
    pub(super) fn integers(&self, field: &str) -> Vec<i128> {
        let Some(Value::List(items)) = self.value(field) else {
            return Vec::new();
        };
        let numbers = items.iter().filter_map(|item| match item {
            Value::Integer(number) => Some(*number),
            _ => None,
        });
        numbers.collect()
    }

    /// What was read, or a fault of the field.
    pub(super) fn checked<T>(&self, field: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.refuse(field, why)).ok()
    }

    fn child(&self, message: &'a Message, path: String) -> Node<'a> {
        Node {
            message,
            path,
            faults: self.faults,
        }
    }
}

/// `path.field`
pub(super) fn join(path: &str, field: &str) -> String {
    match (path.is_empty(), field.is_empty()) {
        (true, _) => field.to_owned(),
        (_, true) => path.to_owned(),
        _ => format!("{path}.{field}"),
    }
}
