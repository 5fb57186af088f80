//! Reads the values of one section: checks keys, types and bounds against its description, fills in
//! its defaults, and reports what does not fit.
//!
//! A value that was reported is read as its type's zero: with an error in the report no configuration
//! comes out, and reading on finds the rest.

use std::{ops::Range, rc::Rc, time::Duration};

use self::scalar::{is_off, read_duration, read_size, scalar, too_many, unknown_word};
use super::{
    codes,
    diagnostic::{Problem, Report, list, suggest},
    keys,
    shape::{Field, Kind, Presence, Section},
    tree::{self, Entry, Node, Value},
};

mod scalar;

pub(super) use self::scalar::{
    malformed, read_integer, read_share, read_text, unavailable, wrong_type,
};

/// The map of one section, keys checked.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    pub(super) report: &'a Report<'a>,
    section: &'static Section,
    entries: &'a [Entry],
    /// What is pointed at when a key is missing.
    pub(super) at: Range<usize>,
    /// Whether it is a map at all, or was reported to be none.
    is_map: bool,
}

/// A text and where it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

impl<'a> Fields<'a> {
    /// Opens `node` as `section`; `at` is pointed at when a key is missing.
    pub(super) fn open(
        report: &'a Report<'a>,
        section: &'static Section,
        node: &'a Node,
        at: Range<usize>,
    ) -> Fields<'a> {
        match &node.value {
            Value::Map(_) | Value::Broken => {}
            _ => {
                let message = format!("{} is a map, this is {}", section.title(), node.kind());
                let problem = Problem::new(codes::TYPE, node.span.clone(), message);
                let help = format!(
                    "write a map; its keys are {}",
                    list(section.fields.iter().map(|field| field.key))
                );
                report.add(problem.label("not a map").help(help));
            }
        }
        let fields = Fields {
            report,
            section,
            entries: node.entries(),
            at,
            is_map: matches!(node.value, Value::Map(_)),
        };
        fields.check_keys();
        if fields.is_map {
            fields.check_required();
        }
        fields
    }

    /// A section that is not in the file: nothing but defaults.
    pub(super) fn absent(report: &'a Report<'a>, section: &'static Section) -> Fields<'a> {
        Fields {
            report,
            section,
            entries: &[],
            at: 0..0,
            is_map: true,
        }
    }

    /// The section under `key`, or its defaults.
    pub(super) fn section(&self, key: &str, section: &'static Section) -> Fields<'a> {
        match self.entry(key) {
            Some(entry) => Fields::open(self.report, section, &entry.value, entry.key_span.clone()),
            None => Fields::absent(self.report, section),
        }
    }

    /// The section under `key`, if it is there.
    pub(super) fn section_opt(&self, key: &str, section: &'static Section) -> Option<Fields<'a>> {
        self.entry(key).map(|_| self.section(key, section))
    }

    /// The entry of `key`, if it is there and not reported already.
    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.value.value, Value::Null | Value::Broken)).then_some(entry)
    }

    /// Whether the key stands in the file, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Where the key stands; the section itself when it does not.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map_or(self.at.clone(), |entry| entry.key_span.clone())
    }

    /// Where the value of the key stands; the section itself when it does not.
    pub(super) fn value_span(&self, key: &str) -> Range<usize> {
        self.entry(key)
            .map_or(self.at.clone(), |entry| entry.value.span.clone())
    }

    pub(super) fn integer<T: TryFrom<u64> + Default>(&self, key: &str) -> T {
        self.integer_or_off(key).unwrap_or_default()
    }

    /// `None` when it says `off`, or is absent without a default.
    pub(super) fn integer_or_off<T: TryFrom<u64>>(&self, key: &str) -> Option<T> {
        let (node, field) = self.value(key)?;
        if is_off(&node, &field.kind) {
            return None;
        }
        T::try_from(read_integer(self.report, key, &node, &field.kind)?).ok()
    }

    pub(super) fn duration(&self, key: &str) -> Duration {
        self.duration_or_off(key).unwrap_or_default()
    }

    /// `None` when it says `off`, or is absent without a default.
    pub(super) fn duration_or_off(&self, key: &str) -> Option<Duration> {
        let (node, field) = self.value(key)?;
        if is_off(&node, &field.kind) {
            return None;
        }
        read_duration(self.report, key, &node, &field.kind)
    }

    pub(super) fn size(&self, key: &str) -> u64 {
        self.size_or_off(key).unwrap_or_default()
    }

    /// A size that fits 32 bits by its description.
    pub(super) fn size32(&self, key: &str) -> u32 {
        u32::try_from(self.size(key)).unwrap_or(u32::MAX)
    }

    /// `None` when it says `off`, or is absent without a default.
    pub(super) fn size_or_off(&self, key: &str) -> Option<u64> {
        let (node, field) = self.value(key)?;
        if is_off(&node, &field.kind) {
            return None;
        }
        read_size(self.report, key, &node, &field.kind)
    }

    /// In basis points.
    pub(super) fn share(&self, key: &str) -> u32 {
        let Some((node, field)) = self.value(key) else {
            return 0;
        };
        read_share(self.report, key, &node, &field.kind).unwrap_or(0)
    }

    /// In basis points; `None` when it is switched off.
    pub(super) fn share_or_off(&self, key: &str) -> Option<u32> {
        let (node, field) = self.value(key)?;
        if is_off(&node, &field.kind) {
            return None;
        }
        read_share(self.report, key, &node, &field.kind)
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.flag_opt(key).unwrap_or(false)
    }

    /// `None` when it is absent without a default.
    pub(super) fn flag_opt(&self, key: &str) -> Option<bool> {
        let (node, field) = self.value(key)?;
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                wrong_type(self.report, key, &node, &field.kind);
                None
            }
        }
    }

    /// One of the words of the key, `off` included.
    pub(super) fn word(&self, key: &str) -> Option<&'static str> {
        let (node, field) = self.value(key)?;
        let text = scalar(self.report, key, &node, &field.kind)?;
        match field.kind.words().find(|word| *word == text) {
            Some(word) => Some(word),
            None => {
                unknown_word(self.report, key, text, &node, &field.kind);
                None
            }
        }
    }

    /// `None` when it is absent without a default.
    pub(super) fn text(&self, key: &str) -> Option<Text> {
        let (node, field) = self.value(key)?;
        read_text(self.report, key, &node, &field.kind)
    }

    /// The items of a list, its length checked; empty when it is absent without a default.
    pub(super) fn list(&self, key: &str) -> Vec<Rc<Node>> {
        let Some((node, field)) = self.value(key) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            wrong_type(self.report, key, &node, &field.kind);
            return Vec::new();
        };
        let limit = field
            .kind
            .alternatives()
            .iter()
            .find_map(|kind| match kind {
                Kind::List(_, max) => Some(*max),
                _ => None,
            });
        let limit = limit.unwrap_or(usize::MAX);
        if items.len() > limit {
            too_many(self.report, key, node.span.clone(), items.len(), limit);
        }
        items
            .iter()
            .take(limit)
            .filter(|item| self.is_filled(key, item))
            .cloned()
            .collect()
    }

    /// One value, or the items of a list of them.
    pub(super) fn one_or_list(&self, key: &str) -> Vec<Rc<Node>> {
        match self.entry(key) {
            Some(entry) if matches!(entry.value.value, Value::Scalar { .. }) => {
                vec![Rc::clone(&entry.value)]
            }
            _ => {
                let items = self.list(key);
                if items.is_empty() && self.entry(key).is_some() {
                    self.refuse_empty(key);
                }
                items
            }
        }
    }

    /// The entries of a map with free keys, its size checked.
    pub(super) fn map(&self, key: &str) -> Vec<&'a Entry> {
        let Some(entry) = self.entry(key) else {
            return Vec::new();
        };
        let Some(field) = self.section.field(key) else {
            return Vec::new();
        };
        let Value::Map(entries) = &entry.value.value else {
            wrong_type(self.report, key, &entry.value, &field.kind);
            return Vec::new();
        };
        let limit = match field.kind {
            Kind::Map(_, _, max) => max,
            _ => usize::MAX,
        };
        if entries.len() > limit {
            too_many(
                self.report,
                key,
                entry.key_span.clone(),
                entries.len(),
                limit,
            );
        }
        let filled = |entry: &&Entry| self.is_filled(&entry.key, &entry.value);
        entries.iter().take(limit).filter(filled).collect()
    }

    /// Says that the list or map under `key` must not be empty.
    pub(super) fn refuse_empty(&self, key: &str) {
        // A list that is empty only because its items were reported is no second mistake.
        let given = match self.entry(key).map(|entry| &entry.value.value) {
            Some(Value::List(items)) => items.len(),
            Some(Value::Map(entries)) => entries.len(),
            _ => return,
        };
        if given == 0 {
            let message = format!("`{key}` is empty");
            let problem = Problem::new(codes::EMPTY_LIST, self.value_span(key), message);
            self.report.add(
                problem
                    .label("nothing in it")
                    .help("write at least one, or remove the key"),
            );
        }
    }

    /// The one of `keys` that is there; reports none and several.
    pub(super) fn exactly_one(&self, keys: &[&'static str]) -> Option<&'static str> {
        let found = self.at_most_one(keys);
        if found.is_none() && self.is_map {
            let message = format!(
                "{} needs one of {}",
                self.section.title(),
                list(keys.iter().copied())
            );
            let problem = Problem::new(codes::ONE_OF, self.at.clone(), message);
            let planned = self
                .entries
                .iter()
                .any(|entry| self.planned_key(&entry.key).is_some());
            // What this version does not have was reported; it may well have been meant to be the one.
            if !planned {
                self.report.add(
                    problem
                        .label("none of them is here")
                        .help("add exactly one of them"),
                );
            }
        }
        found
    }

    /// The first of `keys` that is there; reports several.
    pub(super) fn at_most_one(&self, keys: &[&'static str]) -> Option<&'static str> {
        let mut found = keys.iter().copied().filter(|key| self.has(key));
        let first = found.next()?;
        for other in found {
            let message = format!("`{other}` and `{first}` exclude each other");
            let problem = Problem::new(codes::EXCLUSIVE, self.key_span(other), message)
                .label("only one of them can hold")
                .related(self.key_span(first), "the other one")
                .help(format!(
                    "keep exactly one of {}",
                    list(keys.iter().copied())
                ));
            self.report.add(problem);
        }
        Some(first)
    }

    /// Refuses `keys`, which have no meaning here because of `why`.
    pub(super) fn refuse(&self, keys: &[&str], why: &str, help: &str) {
        for key in keys.iter().filter(|key| self.has(key)) {
            let message = format!("`{key}` has no meaning {why}");
            let problem = Problem::new(codes::NOT_HERE, self.key_span(key), message);
            self.report
                .add(problem.label("does not apply here").help(help));
        }
    }

    /// The value of a key, or its default as if it stood in the file.
    fn value(&self, key: &str) -> Option<(Rc<Node>, &'static Field)> {
        let field = self.section.field(key)?;
        if let Some(entry) = self.entry(key) {
            return Some((Rc::clone(&entry.value), field));
        }
        Some((tree::default(field.default_text()?)?, field))
    }

    fn check_keys(&self) {
        for entry in self.entries {
            if self.section.field(&entry.key).is_some() {
                self.is_filled(&entry.key, &entry.value);
                continue;
            }
            let problem = match self.planned_key(&entry.key) {
                Some(what) => unavailable(&entry.key, what, entry.key_span.clone()),
                None => self.unknown_key(entry),
            };
            self.report.add(problem);
        }
    }

    fn check_required(&self) {
        let required = |field: &&Field| matches!(field.presence, Presence::Required);
        for field in self.section.fields.iter().filter(required) {
            if self.has(field.key) {
                continue;
            }
            let message = format!("{} needs `{}`", self.section.title(), field.key);
            let problem = Problem::new(codes::MISSING_KEY, self.at.clone(), message)
                .label(format!("no `{}`", field.key))
                .help(format!("add `{}: …`, {}", field.key, field.kind.describe()));
            self.report.add(problem);
        }
    }

    /// Reports a value that is not there: `timeout:` and nothing behind it.
    fn is_filled(&self, key: &str, node: &Node) -> bool {
        if !matches!(node.value, Value::Null) {
            return !matches!(node.value, Value::Broken);
        }
        let message = format!("`{key}` has no value");
        let span = if node.span.is_empty() {
            self.key_span(key)
        } else {
            node.span.clone()
        };
        let span = if span.is_empty() {
            node.span.start.saturating_sub(1)..node.span.start
        } else {
            span
        };
        let problem = Problem::new(codes::TYPE, span, message).label("nothing here");
        self.report.add(problem.help(
            "write a value (`{}` for a map of nothing but defaults) or remove the key; `~` and `null` are nothing, too",
        ));
        false
    }

    fn planned_key(&self, key: &str) -> Option<&'static str> {
        let planned = self
            .section
            .planned
            .iter()
            .find(|(planned, _)| *planned == key);
        planned.map(|(_, what)| *what)
    }

    fn unknown_key(&self, entry: &Entry) -> Problem {
        let message = format!("unknown key `{}` in {}", entry.key, self.section.title());
        let problem = Problem::new(codes::UNKNOWN_KEY, entry.key_span.clone(), message);
        let known = self.section.fields.iter().map(|field| field.key);
        let allowed = match known.len() {
            0 => "it has no keys: `{}`".to_owned(),
            _ => format!("allowed are {}", list(known.clone())),
        };
        let suggestion =
            suggest(&entry.key, known).or_else(|| keys::synonym(&entry.key, self.section));
        let help = match suggestion {
            Some(key) => format!("did you mean `{key}`? {allowed}"),
            None => match keys::home_of(&entry.key, self.section) {
                Some(place) => format!("`{}` belongs to `{place}`; {allowed} here", entry.key),
                None => allowed,
            },
        };
        problem.label("not a key of this map").help(help)
    }
}

impl Section {
    /// How messages call it.
    fn title(&self) -> String {
        match self.place {
            "" => "the file".to_owned(),
            place => format!("`{place}`"),
        }
    }
}
