//! The YAML text as a tree whose every key and value knows where it stands.
//!
//! Built from parser events rather than through serde, which stops at the first unknown field: a
//! tree can be walked to the end, so that one run reports everything that is wrong.
//!
//! What the YAML language would let a file grow is bounded here: nesting, and the number of nodes
//! after aliases are followed (an alias shares its node, so a "billion laughs" costs no memory, and
//! is refused before anybody walks it).

use std::{collections::HashMap, ops::Range, rc::Rc};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{
    codes,
    diagnostic::{Problem, Report},
};

/// Nesting of maps and lists, aliases followed. The deepest key of the format sits at 8.
pub const DEPTH_MAX: u32 = 32;

/// Nodes of a file, aliases followed. 100,000 routes take about 1,000,000.
pub const NODES_MAX: u64 = 4_000_000;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    /// Bytes of the text.
    pub(super) span: Range<usize>,
    /// What stands there.
    pub(super) value: Value,
    /// Nodes in it, itself and followed aliases included.
    nodes: u64,
    /// Levels of maps and lists in it, itself included.
    depth: u32,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar.
    Scalar {
        /// Its text, unescaped.
        text: String,
        /// Whether it was written without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Rc<Node>>),
    /// A map, in the order of the text, without duplicates.
    Map(Vec<Entry>),
    /// Was reported already; whoever meets it says nothing more.
    Broken,
}

/// One entry of a map.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// Where the key stands.
    pub(super) key_span: Range<usize>,
    /// The value.
    pub(super) value: Rc<Node>,
}

impl Node {
    /// The entries of a map; empty for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// What this is, in words: "a list", "a number".
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { text, plain: true } if text.parse::<f64>().is_ok() => "a number",
            Value::Scalar { .. } => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Broken => "an error",
        }
    }
}

/// Reads `text`; `None` when there is no tree to go on with. What was wrong is in `report`.
pub(super) fn read(text: &str, report: &Report<'_>) -> Option<Rc<Node>> {
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    options.emit_unresolved_aliases = true;
    let mut builder = Builder {
        text,
        report,
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        documents: 0,
    };
    for step in Parser::new_from_str_with_options(text, options) {
        match step {
            Ok((event, span)) => builder.event(event, span)?,
            Err(error) => {
                report.add(match error.kind() {
                    ErrorKind::RecursionLimitExceeded => too_deep(error_span(text, &error)),
                    _ => syntax_error(text, &error),
                });
                return None;
            }
        }
    }
    if builder.root.is_none() {
        let problem = Problem::new(codes::EMPTY, 0..0, "the file holds no configuration");
        report.add(problem.label("nothing here").help(
            "a configuration begins with `version: 1`; `tidegate run` without `-c` uses an example",
        ));
    }
    builder.root
}

/// The node of a default, which stands in no file.
pub(super) fn default(text: &'static str) -> Option<Rc<Node>> {
    if text.starts_with(['[', '"']) {
        return read(text, &Report::new("default", text));
    }
    // Nearly all are plain words, and a large file asks for a million: no parser is needed.
    Some(Rc::new(Node {
        span: 0..0,
        value: scalar(text, ScalarStyle::Plain),
        nodes: 1,
        depth: 0,
    }))
}

/// Turns events into nodes, without recursion.
struct Builder<'a> {
    text: &'a str,
    report: &'a Report<'a>,
    /// Maps and lists that are not closed yet, outermost first.
    open: Vec<Open>,
    /// Finished anchored nodes, by the parser's id.
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: u32,
}

/// A map or list that is not closed yet.
struct Open {
    start: usize,
    anchor: usize,
    depth: u32,
    nodes: u64,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map {
        entries: Vec<Entry>,
        /// Where each key of `entries` stands, for duplicates.
        seen: HashMap<String, usize>,
        /// A key that waits for its value.
        key: Option<Key>,
    },
}

enum Key {
    /// Text, where it stands.
    Named(String, Range<usize>),
    /// Reported already: its value is dropped.
    Refused,
}

impl Builder<'_> {
    /// Takes one event. `None` when going on makes no sense.
    fn event(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let range = span.byte_range().unwrap_or(0..0);
        match event {
            Event::DocumentStart(..) => return self.document(range),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span)?;
                let value = scalar(&text, style);
                self.leaf(range, value, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span)?;
                self.begin(range, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), span)?;
                let content = Content::Map {
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    key: None,
                };
                self.begin(range, anchor, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(range.end)?,
            Event::Alias(id) => self.alias(id, range)?,
            Event::UnresolvedAlias(name) => {
                self.report.add(unknown_alias(&name, range.clone()));
                self.leaf(range, Value::Broken, 0)?;
            }
            _ => {}
        }
        Some(())
    }

    fn document(&mut self, range: Range<usize>) -> Option<()> {
        self.documents += 1;
        if self.documents < 2 {
            return Some(());
        }
        let message = "a second YAML document begins here";
        let problem = Problem::new(codes::YAML_FEATURE, range, message).label("second document");
        self.report
            .add(problem.help("a configuration is one document: remove the `---`"));
        None
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, span: Span) -> Option<()> {
        let Some(tag) = tag else { return Some(()) };
        let range = span.tag_span().and_then(|span| span.byte_range());
        let range = range.or(span.byte_range()).unwrap_or(0..0);
        let message = format!("YAML tag `{}` is not supported", tag.original());
        let problem = Problem::new(codes::YAML_FEATURE, range, message).label("a tag");
        self.report
            .add(problem.help("remove it: every key has one type, no tag is needed"));
        None
    }

    fn leaf(&mut self, span: Range<usize>, value: Value, anchor: usize) -> Option<()> {
        let node = Rc::new(Node {
            span,
            value,
            nodes: 1,
            depth: 0,
        });
        self.remember(anchor, &node);
        self.add(node)
    }

    fn begin(&mut self, range: Range<usize>, anchor: usize, content: Content) -> Option<()> {
        if self.open.len() as u32 >= DEPTH_MAX {
            self.report.add(too_deep(range));
            return None;
        }
        self.open.push(Open {
            start: range.start,
            anchor,
            depth: 0,
            nodes: 1,
            content,
        });
        Some(())
    }

    fn end(&mut self, end: usize) -> Option<()> {
        let open = self.open.pop()?;
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        // A block collection ends where the next token begins: the space between is not its own.
        let body = self.text.get(open.start..end).unwrap_or("");
        let node = Rc::new(Node {
            span: open.start..open.start + body.trim_end().len(),
            value,
            nodes: open.nodes,
            depth: open.depth + 1,
        });
        self.remember(open.anchor, &node);
        self.add(node)
    }

    fn alias(&mut self, id: usize, range: Range<usize>) -> Option<()> {
        let Some(node) = self.anchors.get(&id) else {
            // The anchor is still open: the alias stands inside what it refers to.
            let message = "an alias inside the value that it refers to";
            let problem =
                Problem::new(codes::ALIAS, range.clone(), message).label("refers to itself");
            self.report.add(problem.help("write the value out"));
            return self.leaf(range, Value::Broken, 0);
        };
        let node = Rc::clone(node);
        if self.open.len() as u32 + node.depth > DEPTH_MAX {
            self.report.add(too_deep(range));
            return None;
        }
        self.add_at(node, range)
    }

    fn remember(&mut self, anchor: usize, node: &Rc<Node>) {
        // The parser numbers anchors from one; zero is none.
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(node));
        }
    }

    fn add(&mut self, node: Rc<Node>) -> Option<()> {
        let at = node.span.clone();
        self.add_at(node, at)
    }

    /// Puts a finished node into the innermost open map or list.
    fn add_at(&mut self, node: Rc<Node>, at: Range<usize>) -> Option<()> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        open.depth = open.depth.max(node.depth);
        open.nodes = open.nodes.saturating_add(node.nodes);
        if open.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values, aliases followed");
            let problem =
                Problem::new(codes::TOO_MANY_NODES, at, message).label("the limit is here");
            self.report
                .add(problem.help("write less of it, or split the work over several proxies"));
            return None;
        }
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, seen, key } => match key.take() {
                None => *key = Some(map_key(&node, at, entries, seen, self.report)),
                Some(Key::Refused) => {}
                Some(Key::Named(key, key_span)) => {
                    seen.insert(key.clone(), entries.len());
                    entries.push(Entry {
                        key,
                        key_span,
                        value: node,
                    });
                }
            },
        }
        Some(())
    }
}

/// Checks a node that stands where a key is expected.
fn map_key(
    node: &Node,
    at: Range<usize>,
    entries: &[Entry],
    seen: &HashMap<String, usize>,
    report: &Report<'_>,
) -> Key {
    let text = match &node.value {
        Value::Scalar { text, .. } => text,
        Value::Broken => return Key::Refused,
        _ => {
            let message = format!("a key must be text, this is {}", node.kind());
            let problem = Problem::new(codes::TYPE, at, message).label("not a key");
            report.add(problem.help(
                "put a key that holds `{`, `[` or `~` in quotes, and a space after each `:`",
            ));
            return Key::Refused;
        }
    };
    if text == "<<" {
        let message = "merge keys (`<<`) are not supported";
        let problem = Problem::new(codes::YAML_FEATURE, at, message).label("a merge key");
        report.add(problem.help("write the keys out; plain aliases (`*name`) do work"));
        return Key::Refused;
    }
    let Some(first) = seen.get(text).and_then(|index| entries.get(*index)) else {
        return Key::Named(text.clone(), at);
    };
    let message = format!("`{text}` is written twice");
    let problem = Problem::new(codes::DUPLICATE_KEY, at, message)
        .label("second time")
        .related(first.key_span.clone(), "first time")
        .help("keep one of them; none would win over the other");
    report.add(problem);
    Key::Refused
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let plain = style == ScalarStyle::Plain;
    // The YAML 1.2 core schema's spellings of null; everything else is typed by the key.
    if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar {
        text: text.to_owned(),
        plain,
    }
}

fn too_deep(range: Range<usize>) -> Problem {
    let message = format!("nested deeper than {DEPTH_MAX} levels");
    let problem = Problem::new(codes::TOO_DEEP, range, message).label("one level too many");
    problem.help("the format itself needs 8; look for a bracket or an indentation too many")
}

fn unknown_alias(name: &str, range: Range<usize>) -> Problem {
    let message = format!("`*{name}` is a YAML alias, and no anchor `&{name}` stands before it");
    let problem = Problem::new(codes::ALIAS, range, message).label("read as an alias");
    problem.help(format!(
        "to write text that begins with `*`, put it in quotes: \"*{name}\""
    ))
}

fn syntax_error(text: &str, error: &ScanError) -> Problem {
    let span = error_span(text, error);
    let start = span.start;
    let message = format!("not valid YAML: {}", error.info());
    let problem = Problem::new(codes::SYNTAX, span, message).label("here");
    problem.help(syntax_help(text, start, error.kind()))
}

/// The character at which the parser gave up; the tab, where one indents the line.
fn error_span(text: &str, error: &ScanError) -> Range<usize> {
    let start = error.marker().byte_offset().unwrap_or(0).min(text.len());
    let start = indenting_tab(text, start).unwrap_or(start);
    let end = text
        .get(start..)
        .and_then(|rest| rest.chars().next())
        .map_or(start, |first| start + first.len_utf8());
    start..end
}

/// The first tab in the indentation of the line of `at`.
fn indenting_tab(text: &str, at: usize) -> Option<usize> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(line_start..)?;
    let indentation = line.len() - line.trim_start_matches(' ').len();
    line.get(indentation..)?
        .starts_with('\t')
        .then_some(line_start + indentation)
}

/// What usually causes a syntax error, by what stands around it.
fn syntax_help(text: &str, at: usize, kind: &ErrorKind) -> &'static str {
    let before = text.get(..at).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(line_start..).unwrap_or("");
    let line = line.split('\n').next().unwrap_or("");
    if indenting_tab(text, at).is_some() {
        return "YAML is indented with spaces, never with tabs";
    }
    if matches!(kind, ErrorKind::MappingValueNotAllowed) {
        return "the keys of one map stand in the same column; put text that holds `: ` in quotes";
    }
    if line.contains('{') || line.contains('[') || text.get(at..).unwrap_or("").is_empty() {
        return "close every `{`, `[` and quote; inside `{ }` and `[ ]`, put text that holds `{ } [ ] , #` or `: ` in quotes";
    }
    match kind {
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry => {
            "the keys of one map stand in the same column, and so do the `-` of one list"
        }
        _ => "check the indentation (spaces only), the space after each `:`, and the quotes",
    }
}
