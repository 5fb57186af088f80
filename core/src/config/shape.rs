//! How a section of the format is described: its keys, their types, bounds, defaults and meanings.
//!
//! [`keys`](super::keys) holds the descriptions, once. The reader takes bounds and defaults from them,
//! and the reference page and the JSON Schema are printed from them, so that none can differ.

use std::time::Duration;

use super::quantity;

/// A map with known keys.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name in the reference, unique: `cluster`.
    pub(super) name: &'static str,
    /// Where it stands: `clusters.<name>`.
    pub(super) place: &'static str,
    /// What it is, in one or two sentences.
    pub(super) doc: &'static str,
    /// Its keys, in the order of the reference.
    pub(super) fields: &'static [Field],
    /// Keys that the format has and this version does not implement.
    pub(super) planned: &'static [(&'static str, &'static str)],
}

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) presence: Presence,
    /// What it means, in sentences.
    pub(super) doc: &'static str,
    /// Why the default is what it is.
    pub(super) reason: &'static str,
}

/// Whether a key has to be there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Presence {
    /// It has to.
    Required,
    /// Its absence means something that the text says: "every method".
    Optional(&'static str),
    /// Absent, it has this value, written as in a file.
    Default(&'static str),
}

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number, bounds included.
    Integer(u64, u64),
    /// One of these numbers.
    Among(&'static [u64]),
    /// A power of two, bounds included.
    PowerOfTwo(u64, u64),
    /// A duration with unit, bounds included.
    Duration(Duration, Duration),
    /// A number of bytes with unit, bounds included.
    Size(u64, u64),
    /// A percentage; bounds in basis points, included.
    Share(u32, u32),
    /// One of these words; each with its meaning.
    Word(&'static [(&'static str, &'static str)]),
    /// Words of the format that this version does not implement. Never described, only refused.
    Planned(&'static [(&'static str, &'static str)]),
    /// The word `off`.
    Off,
    /// Text of a form that the words describe, at most so many bytes long.
    Text(&'static str, usize),
    /// A map with known keys.
    Section(&'static Section),
    /// A map with free keys (described by the word), at most so many.
    Map(&'static str, &'static Kind, usize),
    /// A list, at most so long.
    List(&'static Kind, usize),
    /// Any of these.
    Any(&'static [Kind]),
}

impl Section {
    pub(super) fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }
}

impl Field {
    pub(super) const fn new(key: &'static str, kind: Kind, doc: &'static str) -> Field {
        let presence = Presence::Optional("");
        Field {
            key,
            kind,
            presence,
            doc,
            reason: "",
        }
    }

    pub(super) const fn required(mut self) -> Field {
        self.presence = Presence::Required;
        self
    }

    /// Absent, it means `meaning`.
    pub(super) const fn absent(mut self, meaning: &'static str) -> Field {
        self.presence = Presence::Optional(meaning);
        self
    }

    /// Absent, it has `value`, because of `reason`.
    pub(super) const fn default(mut self, value: &'static str, reason: &'static str) -> Field {
        self.presence = Presence::Default(value);
        self.reason = reason;
        self
    }

    /// The default as it would stand in a file.
    pub(super) fn default_text(&self) -> Option<&'static str> {
        match self.presence {
            Presence::Default(text) => Some(text),
            Presence::Required | Presence::Optional(_) => None,
        }
    }
}

impl Kind {
    /// The alternatives of this kind: its own, for anything but [`Kind::Any`].
    pub(super) fn alternatives(&self) -> &[Kind] {
        match self {
            Kind::Any(kinds) => kinds,
            kind => std::slice::from_ref(kind),
        }
    }

    /// The words that stand for themselves.
    pub(super) fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.alternatives().iter().flat_map(|kind| match kind {
            Kind::Word(words) => words.iter().map(|(word, _)| *word).collect::<Vec<_>>(),
            Kind::Off => vec!["off"],
            _ => Vec::new(),
        })
    }

    /// What this version does not implement of a word, if it is one of the planned.
    pub(super) fn planned(&self, word: &str) -> Option<&'static str> {
        let planned = self.alternatives().iter().filter_map(|kind| match kind {
            Kind::Planned(words) => words.iter().find(|(planned, _)| *planned == word),
            _ => None,
        });
        planned.map(|(_, what)| *what).next()
    }
}

impl Kind {
    /// What is expected, in words: "a duration such as `10s`, or `off`".
    pub(super) fn describe(&self) -> String {
        match self {
            Kind::Flag => "`true` or `false`".to_owned(),
            Kind::Integer(min, max) if min == max => format!("`{min}`"),
            Kind::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Among(numbers) => or(&numbers.iter().map(u64::to_string).collect::<Vec<_>>()),
            Kind::PowerOfTwo(min, max) => format!("a power of two from {min} to {max}"),
            Kind::Duration(min, max) => {
                let (min, max) = (
                    quantity::format_duration(*min),
                    quantity::format_duration(*max),
                );
                format!("a duration from `{min}` to `{max}`")
            }
            Kind::Size(min, max) => {
                let (min, max) = (quantity::format_size(*min), quantity::format_size(*max));
                format!("a size from `{min}` to `{max}`")
            }
            Kind::Share(min, max) => {
                let (min, max) = (quantity::format_share(*min), quantity::format_share(*max));
                format!("a percentage from `{min}` to `{max}`")
            }
            Kind::Word(words) => {
                let words: Vec<String> =
                    words.iter().map(|(word, _)| format!("`{word}`")).collect();
                or(&words)
            }
            Kind::Planned(_) => String::new(),
            Kind::Off => "`off`".to_owned(),
            Kind::Text(form, _) => (*form).to_owned(),
            Kind::Section(_) => "a map".to_owned(),
            Kind::Map(key, value, _) => format!("a map from {key} to {}", value.describe()),
            Kind::List(item, _) => format!("a list, each {}", item.describe()),
            Kind::Any(kinds) => {
                let kinds = kinds
                    .iter()
                    .map(Kind::describe)
                    .filter(|words| !words.is_empty());
                or(&kinds.collect::<Vec<_>>())
            }
        }
    }
}

/// `a, b or c`.
fn or(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
