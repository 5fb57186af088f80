//! Regular expressions of routes. Linear in time by construction (regex-automata), over bytes.
//!
//! A search needs working memory. Sharing it between shards would need a lock, so each shard brings its
//! own [`RouteScratch`]: it is filled at the first search of an expression and reused from then on.

use std::{fmt, sync::Arc};

use hashbrown::HashMap;
use regex_automata::{
    Input, MatchKind, PatternSet,
    meta::{self, Regex},
    util::{captures::Captures, syntax},
};

/// The largest compiled form of one expression. Enough for `[a-z0-9-]{1,63}` and its like many times
/// over; an expression beyond it would make each search slow.
pub const PATTERN_BYTES_MAX: usize = 256 << 10;

/// An expression that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PatternError {}

/// Whether `pattern` can stand for a path or a value. What passes here compiles into a snapshot.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    compile(&[pattern], Anchor::Whole, Some(PATTERN_BYTES_MAX)).map(|_| ())
}

/// Whether `pattern` can stand in a path rewrite, where it may match anywhere in the path.
pub fn check_rewrite_pattern(pattern: &str) -> Result<(), PatternError> {
    compile(&[pattern], Anchor::Anywhere, Some(PATTERN_BYTES_MAX)).map(|_| ())
}

/// The working memory of one shard's route look-ups. Any number of tables and snapshots may share it.
#[derive(Debug, Default)]
pub struct RouteScratch {
    /// Holds the canonical form of a path that is not canonical as sent.
    pub(super) path: Vec<u8>,
    pub(super) searches: Searches,
}

/// Which part of its haystack an expression must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// All of it.
    Whole,
    /// Any part of it.
    Anywhere,
}

/// One or more expressions, searched for at once.
#[derive(Clone, Debug)]
pub(super) struct Patterns(Arc<Regex>);

impl Patterns {
    /// `None` if an expression does not compile; a validated configuration has none such.
    pub(super) fn new(patterns: &[&str], anchor: Anchor) -> Option<Patterns> {
        compile(patterns, anchor, None)
            .ok()
            .map(|regex| Patterns(Arc::new(regex)))
    }

    /// Whether any of the expressions matches.
    pub(super) fn is_match(&self, haystack: &[u8], searches: &mut Searches) -> bool {
        let search = searches.of(&self.0);
        let input = Input::new(haystack).earliest(true);
        self.0.search_half_with(&mut search.cache, &input).is_some()
    }

    /// All expressions that match, in a set that is to be [given back](Self::give_back).
    pub(super) fn matches(&self, haystack: &[u8], searches: &mut Searches) -> PatternSet {
        let search = searches.of(&self.0);
        let mut matched = std::mem::replace(&mut search.matched, PatternSet::new(0));
        matched.clear();
        self.0.which_overlapping_matches_with(
            &mut search.cache,
            &Input::new(haystack),
            &mut matched,
        );
        matched
    }

    /// Keeps the set for the next search, so that it is allocated once.
    pub(super) fn give_back(&self, matched: PatternSet, searches: &mut Searches) {
        searches.of(&self.0).matched = matched;
    }

    /// Appends `haystack` to `out` with every match replaced; `$1` and `${name}` are filled in.
    pub(super) fn replace_all(
        &self,
        haystack: &[u8],
        replacement: &str,
        searches: &mut Searches,
        out: &mut Vec<u8>,
    ) {
        let search = searches.of(&self.0);
        let captures = search
            .captures
            .get_or_insert_with(|| self.0.create_captures());
        let mut input = Input::new(haystack);
        let mut copied = 0;
        while input.start() <= haystack.len() {
            self.0
                .search_captures_with(&mut search.cache, &input, captures);
            let Some(found) = captures.get_match() else {
                break;
            };
            out.extend_from_slice(haystack.get(copied..found.start()).unwrap_or_default());
            captures.interpolate_bytes_into(haystack, replacement.as_bytes(), out);
            copied = found.end();
            // An empty match must not be found twice: go on one byte further.
            let next = found.end() + usize::from(found.is_empty());
            if next > haystack.len() {
                break;
            }
            input.set_start(next);
        }
        out.extend_from_slice(haystack.get(copied..).unwrap_or_default());
    }
}

/// Working memory by expression.
#[derive(Default)]
pub(super) struct Searches(HashMap<usize, Search, foldhash::fast::FixedState>);

struct Search {
    /// Keeps the expression's address from being reused while it is the key.
    owner: Arc<Regex>,
    cache: meta::Cache,
    matched: PatternSet,
    captures: Option<Captures>,
}

impl Searches {
    fn of(&mut self, regex: &Arc<Regex>) -> &mut Search {
        let key = Arc::as_ptr(regex) as usize;
        if !self.0.contains_key(&key) {
            // A new expression means a new snapshot: forget those that only we still hold.
            self.0
                .retain(|_, search| Arc::strong_count(&search.owner) > 1);
        }
        self.0.entry(key).or_insert_with(|| Search {
            owner: Arc::clone(regex),
            cache: regex.create_cache(),
            matched: PatternSet::new(regex.pattern_len()),
            captures: None,
        })
    }
}

impl fmt::Debug for Searches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Searches({})", self.0.len())
    }
}

/// By bytes first, since a path need not be UTF-8 and `.` must not stop at a byte that is not: a deny
/// rule would be passed by with `%ff`. Only an expression that needs Unicode classes is compiled with.
fn compile(
    patterns: &[&str],
    anchor: Anchor,
    size_max: Option<usize>,
) -> Result<Regex, PatternError> {
    let anchored: Vec<String> = patterns
        .iter()
        .map(|pattern| match anchor {
            Anchor::Whole => format!(r"\A(?:{pattern})\z"),
            Anchor::Anywhere => (*pattern).to_owned(),
        })
        .collect();
    // The pattern must also stand alone: `a)|(b` would escape its group.
    for pattern in patterns {
        syntax::parse_with(pattern, &syntax_config(true)).map_err(|e| PatternError {
            message: e.to_string(),
        })?;
    }
    // All patterns that match are asked for, not the one that a backtracking engine would prefer.
    let kind = match anchor {
        Anchor::Whole => MatchKind::All,
        Anchor::Anywhere => MatchKind::LeftmostFirst,
    };
    build(&anchored, kind, false, size_max).or_else(|_| build(&anchored, kind, true, size_max))
}

fn build(
    patterns: &[String],
    kind: MatchKind,
    unicode: bool,
    size_max: Option<usize>,
) -> Result<Regex, PatternError> {
    let config = meta::Config::new()
        .match_kind(kind)
        .utf8_empty(false)
        .nfa_size_limit(size_max);
    Regex::builder()
        .syntax(syntax_config(unicode))
        .configure(config)
        .build_many(patterns)
        .map_err(|error| PatternError {
            message: match error.size_limit() {
                Some(limit) => format!("compiles to more than {limit} bytes"),
                None => error.to_string(),
            },
        })
}

fn syntax_config(unicode: bool) -> syntax::Config {
    syntax::Config::new()
        .unicode(unicode)
        .utf8(false)
        .dot_matches_new_line(true)
}
