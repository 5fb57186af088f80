//! What is wrong with a configuration, and where: data for a terminal, an editor or a log.

use std::{cell::RefCell, ops::Range};

use serde_json::{Value, json};

use super::codes::{self, Code};

/// Diagnostics that one run reports; a last one says how many were left out. A person fixes a few and
/// runs again; the bound keeps a file of garbage from becoming a report of garbage.
pub const DIAGNOSTICS_MAX: usize = 64;

/// One thing that is wrong, or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it keeps the configuration from being used.
    pub severity: Severity,
    /// Its stable code, `TG-Cnnn`; explained in [`CODES`](codes::CODES).
    pub code: &'static str,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The file, as the caller named it.
    pub file: String,
    /// Line of the beginning of `span`, from 1.
    pub line: usize,
    /// Column of the beginning of `span`, in characters, from 1.
    pub column: usize,
    /// Bytes of the text, within one line.
    pub span: Range<usize>,
    /// A few words to stand under the span.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
}

/// Another place that has to do with a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the text, within one line.
    pub span: Range<usize>,
    /// A few words to stand under the span.
    pub label: String,
}

/// Whether a diagnostic keeps the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is used, and probably does not do what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl Diagnostic {
    /// The same for a machine: all fields, `span` as `{start, end}`.
    pub fn to_json(&self) -> Value {
        let related: Vec<Value> = self.related.iter().map(Related::to_json).collect();
        json!({
            "severity": self.severity.as_str(),
            "code": self.code,
            "message": self.message,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "span": { "start": self.span.start, "end": self.span.end },
            "label": self.label,
            "help": self.help,
            "related": related,
        })
    }
}

impl Related {
    fn to_json(&self) -> Value {
        json!({
            "line": self.line,
            "column": self.column,
            "span": { "start": self.span.start, "end": self.span.end },
            "label": self.label,
        })
    }
}

impl std::fmt::Display for Diagnostic {
    /// One line for logs: `edge.yaml:6:18: error TG-C027: cluster `ordres` not found (did you …)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (line, column, severity) = (self.line, self.column, self.severity.as_str());
        write!(
            f,
            "{}:{line}:{column}: {severity} {}: {}",
            self.file, self.code, self.message
        )?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// A diagnostic in the making: knows its span, not yet its line.
#[derive(Debug)]
pub(super) struct Problem {
    code: &'static Code,
    span: Range<usize>,
    message: String,
    label: String,
    help: Option<String>,
    related: Vec<(Range<usize>, String)>,
}

impl Problem {
    pub(super) fn new(
        code: &'static Code,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Problem {
        Problem {
            code,
            span,
            message: message.into(),
            label: String::new(),
            help: None,
            related: Vec::new(),
        }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Problem {
        self.related.push((span, label.into()));
        self
    }
}

/// Collects what is wrong with one file.
#[derive(Debug)]
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    /// Byte offset of the beginning of each line.
    lines: Vec<usize>,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Report<'a> {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0)
            .chain(breaks.map(|(at, _)| at + 1))
            .collect();
        Report {
            file,
            text,
            lines,
            found: RefCell::new(Vec::new()),
        }
    }

    /// Adds a problem, with its place worked out. The same one twice (an alias followed twice) counts
    /// once.
    pub(super) fn add(&self, problem: Problem) {
        let span = self.within_line(problem.span);
        let (line, column) = self.position(span.start);
        let related = problem.related.into_iter().map(|(span, label)| {
            let span = self.within_line(span);
            let (line, column) = self.position(span.start);
            Related {
                line,
                column,
                span,
                label,
            }
        });
        let diagnostic = Diagnostic {
            severity: problem.code.severity,
            code: problem.code.id,
            message: printable(problem.message),
            file: self.file.to_owned(),
            line,
            column,
            span,
            label: printable(problem.label),
            help: problem.help.map(printable),
            related: related.collect(),
        };
        self.found.borrow_mut().push(diagnostic);
    }

    /// Whether nothing found so far keeps the configuration from being used.
    pub(super) fn is_usable(&self) -> bool {
        let found = self.found.borrow();
        found.iter().all(|one| one.severity != Severity::Error)
    }

    /// `file:line:column` of a byte.
    pub(super) fn origin(&self, at: usize) -> String {
        let (line, column) = self.position(at);
        format!("{}:{line}:{column}", self.file)
    }

    /// Everything found, by place, each once, at most [`DIAGNOSTICS_MAX`] and one that says so.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by(|a, b| (a.span.start, a.code).cmp(&(b.span.start, b.code)));
        found.dedup();
        if found.len() <= DIAGNOSTICS_MAX {
            return found;
        }
        // Errors go first when there is no room for all: a warning never hides one.
        found.sort_by_key(|one| one.severity);
        let rest = found.split_off(DIAGNOSTICS_MAX);
        let severity = rest.first().map_or(Severity::Warning, |one| one.severity);
        found.sort_by_key(|one| one.span.start);
        if let Some(last) = found.last().cloned() {
            found.push(Diagnostic {
                severity,
                code: codes::MORE.id,
                message: format!("{} more are not shown", rest.len()),
                label: String::new(),
                help: Some("fix these first, then check again".to_owned()),
                related: Vec::new(),
                ..last
            });
        }
        found
    }

    /// Line and column, from 1, of a byte.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..at).unwrap_or("");
        (line, before.chars().count() + 1)
    }

    /// The part of a span on its first line: what a reader wants to see of a map.
    fn within_line(&self, span: Range<usize>) -> Range<usize> {
        let start = span.start.min(self.text.len());
        let rest = self
            .text
            .get(start..span.end.clamp(start, self.text.len()))
            .unwrap_or("");
        let line = rest.split('\n').next().unwrap_or("");
        // A span of nothing but space is a mistake made of space: it is shown.
        match line.trim_end().len() {
            0 => start..start + line.len(),
            len => start..start + len,
        }
    }
}

/// What a file says goes into messages, and these to terminals and logs: control characters are
/// written as escapes, and text that is too long for a line is cut.
fn printable(text: String) -> String {
    const SHOWN: usize = 400;
    let plain = !text.contains(char::is_control);
    if plain && text.len() <= SHOWN {
        return text;
    }
    let mut out = String::new();
    for (shown, letter) in text.chars().enumerate() {
        match letter {
            _ if shown == SHOWN => {
                out.push('…');
                break;
            }
            letter if letter.is_control() => out.extend(letter.escape_default()),
            letter => out.push(letter),
        }
    }
    out
}

/// The candidate that `word` was probably meant to be.
pub(super) fn suggest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    let score = |candidate: &str| {
        let typos = strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase());
        // A third of the letters may be wrong: `ordres` is `orders`, `foo` is nothing.
        (typos <= (word.chars().count() / 3).max(1)).then_some(typos)
    };
    let scored = candidates
        .into_iter()
        .filter_map(|one| Some((score(one)?, one)));
    scored.min().map(|(_, candidate)| candidate)
}

/// `a`, `b` and `c`, each in back quotes, cut after a dozen.
pub(super) fn list<'c>(words: impl IntoIterator<Item = &'c str>) -> String {
    const SHOWN: usize = 24;
    let mut words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    if words.len() > SHOWN {
        words.truncate(SHOWN);
        words.push("…".to_owned());
    }
    words.join(", ")
}
