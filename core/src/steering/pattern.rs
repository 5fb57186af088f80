//! Regular expressions of routes. Linear in time by construction (regex-automata), over bytes.
//!
//! Conditions only ask whether an expression matches as a whole: a lazy DFA answers that for a thousand
//! expressions as fast as for one, state by state as paths come along. Rewrites need captures, so they
//! have an engine with more to it.
//!
//! A search needs working memory. Sharing it between shards would need a lock, so each shard brings its
//! own [`RouteScratch`]: it is filled at the first search of an expression and reused from then on.

use std::{fmt, sync::Arc};

use hashbrown::HashMap;
use regex_automata::{
    Anchored, Input, MatchKind,
    hybrid::dfa::{self, DFA, OverlappingState},
    meta::{self, Regex},
    nfa::thompson::{self, NFA, WhichCaptures},
    util::{captures::Captures, syntax},
};

/// The largest compiled form of one expression. Enough for `[a-z0-9-]{1,63}` and its like many times
/// over; an expression beyond it would make each search slow.
pub const PATTERN_BYTES_MAX: usize = 256 << 10;

/// The most memory that one shard's lazy DFA of one group of routes keeps. When paths of ever new kinds
/// have filled it, it starts over: slower for a while, never wrong.
const DFA_BYTES_MAX: usize = 2 << 20;

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
    compile(&[pattern], Some(PATTERN_BYTES_MAX)).map(|_| ())
}

/// Whether `pattern` can stand in a path rewrite, where it may match anywhere in the path.
pub fn check_rewrite_pattern(pattern: &str) -> Result<(), PatternError> {
    compile_captures(pattern, Some(PATTERN_BYTES_MAX)).map(|_| ())
}

/// The working memory of one shard's route look-ups. Any number of tables and snapshots may share it.
#[derive(Debug, Default)]
pub struct RouteScratch {
    /// Holds the canonical form of a path that is not canonical as sent.
    pub(super) path: Vec<u8>,
    pub(super) searches: Searches,
}

/// One or more expressions, each of which stands for a whole haystack, searched for at once.
#[derive(Clone, Debug)]
pub(super) struct Patterns(Arc<DFA>);

impl Patterns {
    /// `None` if an expression does not compile; a validated configuration has none such.
    pub(super) fn new(patterns: &[&str]) -> Option<Patterns> {
        compile(patterns, None)
            .ok()
            .map(|dfa| Patterns(Arc::new(dfa)))
    }

    /// Whether any of the expressions matches.
    pub(super) fn is_match(&self, haystack: &[u8], searches: &mut Searches) -> bool {
        let search = searches.dfas.of(&self.0);
        let input = Input::new(haystack).anchored(Anchored::Yes).earliest(true);
        // It could only fail at bytes to quit at, or give up, and is told to do neither.
        let found = self.0.try_search_fwd(&mut search.cache, &input);
        found.is_ok_and(|found| found.is_some())
    }

    /// Positions of all expressions that match, in a list that is to be [given back](Self::give_back).
    pub(super) fn matches(&self, haystack: &[u8], searches: &mut Searches) -> Vec<u32> {
        let search = searches.dfas.of(&self.0);
        let mut matched = std::mem::take(&mut search.matched);
        matched.clear();
        let input = Input::new(haystack).anchored(Anchored::Yes);
        let mut state = OverlappingState::start();
        while let Ok(()) = self
            .0
            .try_search_overlapping_fwd(&mut search.cache, &input, &mut state)
            && let Some(found) = state.get_match()
        {
            matched.push(found.pattern().as_u32());
        }
        matched
    }

    /// Keeps the list for the next search, so that it is allocated once.
    pub(super) fn give_back(&self, matched: Vec<u32>, searches: &mut Searches) {
        searches.dfas.of(&self.0).matched = matched;
    }
}

/// An expression whose matches are replaced.
#[derive(Clone, Debug)]
pub(super) struct Replaced(Arc<Regex>);

impl Replaced {
    /// `None` if the expression does not compile; a validated configuration has none such.
    pub(super) fn new(pattern: &str) -> Option<Replaced> {
        let regex = compile_captures(pattern, None).ok()?;
        Some(Replaced(Arc::new(regex)))
    }

    /// Appends `haystack` to `out` with every match replaced; `$1` and `${name}` are filled in.
    pub(super) fn replace_all(
        &self,
        haystack: &[u8],
        replacement: &str,
        searches: &mut Searches,
        out: &mut Vec<u8>,
    ) {
        let Capturing { cache, captures } = searches.regexes.of(&self.0);
        let mut input = Input::new(haystack);
        let mut copied = 0;
        loop {
            self.0.search_captures_with(cache, &input, captures);
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
#[derive(Debug, Default)]
pub(super) struct Searches {
    dfas: Memories<DFA, Matching>,
    regexes: Memories<Regex, Capturing>,
}

#[derive(Debug)]
struct Matching {
    cache: dfa::Cache,
    matched: Vec<u32>,
}

impl From<&DFA> for Matching {
    fn from(dfa: &DFA) -> Self {
        Matching {
            cache: dfa.create_cache(),
            matched: Vec::with_capacity(dfa.pattern_len()),
        }
    }
}

#[derive(Debug)]
struct Capturing {
    cache: meta::Cache,
    captures: Captures,
}

impl From<&Regex> for Capturing {
    fn from(regex: &Regex) -> Self {
        Capturing {
            cache: regex.create_cache(),
            captures: regex.create_captures(),
        }
    }
}

/// By address of the engine, which is kept so that no other comes to live there meanwhile.
#[derive(Debug)]
struct Memories<E, M>(HashMap<usize, (Arc<E>, M), foldhash::fast::FixedState>);

impl<E, M> Default for Memories<E, M> {
    fn default() -> Self {
        Memories(HashMap::default())
    }
}

impl<E, M: for<'e> From<&'e E>> Memories<E, M> {
    fn of(&mut self, engine: &Arc<E>) -> &mut M {
        let key = Arc::as_ptr(engine).addr();
        if !self.0.contains_key(&key) {
            // A new expression means a new snapshot: forget those that only we still hold.
            self.0.retain(|_, (owner, _)| Arc::strong_count(owner) > 1);
        }
        let (_, memory) = self
            .0
            .entry(key)
            .or_insert_with(|| (Arc::clone(engine), M::from(engine)));
        memory
    }
}

fn compile(patterns: &[&str], size_max: Option<usize>) -> Result<DFA, PatternError> {
    for pattern in patterns {
        parse_alone(pattern)?;
    }
    let whole: Vec<String> = patterns.iter().map(|p| format!(r"(?:{p})\z")).collect();
    let nfa = bytes_first(|syntax| {
        let config = thompson::Config::new()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(size_max);
        let mut compiler = NFA::compiler();
        let built = compiler.syntax(syntax).configure(config).build_many(&whole);
        built.map_err(|error| refused(error.size_limit(), &error))
    })?;
    // All patterns that match are asked for, not the one that a backtracking engine would prefer. The
    // memory is a bound, not a reason to refuse.
    let config = dfa::Config::new()
        .match_kind(MatchKind::All)
        .cache_capacity(DFA_BYTES_MAX)
        .skip_cache_capacity_check(true);
    let mut builder = DFA::builder();
    let built = builder.configure(config).build_from_nfa(nfa);
    built.map_err(|error| refused(None, &error))
}

fn compile_captures(pattern: &str, size_max: Option<usize>) -> Result<Regex, PatternError> {
    parse_alone(pattern)?;
    bytes_first(|syntax| {
        let config = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(size_max);
        let mut builder = Regex::builder();
        let built = builder.syntax(syntax).configure(config).build(pattern);
        built.map_err(|error| refused(error.size_limit(), &error))
    })
}

/// A pattern must stand by itself: `a)|(b` would escape the group that it is put into.
fn parse_alone(pattern: &str) -> Result<(), PatternError> {
    let parsed = syntax::parse_with(pattern, &syntax_config(true));
    parsed.map(|_| ()).map_err(|error| refused(None, &error))
}

/// By bytes first, since a path need not be UTF-8 and `.` must not stop at a byte that is not: a deny
/// rule would be passed by with `%ff`. Only an expression that needs Unicode classes is compiled with.
fn bytes_first<T>(
    mut build: impl FnMut(syntax::Config) -> Result<T, PatternError>,
) -> Result<T, PatternError> {
    build(syntax_config(false)).or_else(|_| build(syntax_config(true)))
}

fn syntax_config(unicode: bool) -> syntax::Config {
    syntax::Config::new()
        .unicode(unicode)
        .utf8(false)
        .dot_matches_new_line(true)
}

fn refused(size_max: Option<usize>, error: &dyn fmt::Display) -> PatternError {
    PatternError {
        message: match size_max {
            Some(bytes) => format!("compiles to more than {bytes} bytes"),
            None => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn matches(patterns: &[&str], haystack: &[u8]) -> Vec<u32> {
        let patterns = Patterns::new(patterns).unwrap();
        let mut searches = Searches::default();
        let matched = patterns.matches(haystack, &mut searches);
        let any = patterns.is_match(haystack, &mut searches);
        assert_eq!(any, !matched.is_empty());
        matched
    }

    /// Goal: an expression stands for the whole, and all that match are told. Method: a table.
    #[test]
    fn expressions_stand_for_the_whole() {
        let patterns = ["/a", "/a.*", "^/[ab]$", "/a|/b", ".*", "a", "", "(?i)/A"];
        for (haystack, expected) in [
            ("/a", &[0, 1, 2, 3, 4, 7][..]),
            ("/b", &[2, 3, 4]),
            ("/ab", &[1, 4]),
            ("x/a", &[4]),
            ("/a\n", &[1, 4]),
            ("", &[4, 6]),
        ] {
            assert_eq!(
                matches(&patterns, haystack.as_bytes()),
                expected,
                "{haystack:?}"
            );
        }
    }

    /// Goal: no byte gets past `.`, and Unicode classes still work. Method: bytes that are not UTF-8.
    #[test]
    fn expressions_are_over_bytes() {
        assert_eq!(matches(&["/admin/.*"], b"/admin/\xff"), [0]);
        assert_eq!(matches(&["/admin/[^/]+"], b"/admin/\xff\xfe"), [0]);
        assert_eq!(matches(&[r"/\p{Greek}+"], "/δ".as_bytes()), [0]);
        assert_eq!(matches(&["/straße"], "/straße".as_bytes()), [0]);
    }

    /// Goal: what cannot be compiled is refused in words, before it gets into a snapshot. Method: a table,
    /// and a size around the limit.
    #[test]
    fn bad_expressions_are_refused() {
        for bad in ["(", "a)|(b", "[z-a]", "*", r"\8", "(?P<n>a)(?P<n>b)"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
            assert!(check_rewrite_pattern(bad).is_err(), "{bad}");
            assert!(Patterns::new(&[bad]).is_none());
        }
        check_pattern("[a-z0-9-]{1,63}(/[a-z0-9-]{1,63}){1,7}").unwrap();
        let error = check_pattern("(?:[ab]{1,100}){1,200}").unwrap_err();
        assert_eq!(error.message, "compiles to more than 262144 bytes");
    }

    /// Goal: memory of expressions that are gone is given back. Method: new tables, one after the other,
    /// over one scratch.
    #[test]
    fn scratch_forgets_what_is_gone() {
        let mut searches = Searches::default();
        for i in 0..100 {
            let patterns = Patterns::new(&[&format!("/{i}")]).unwrap();
            assert!(patterns.is_match(format!("/{i}").as_bytes(), &mut searches));
            assert!(searches.dfas.0.len() <= 2);
        }
    }
}
