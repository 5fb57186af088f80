//! From the path of a request to the candidates among one group of routes.
//!
//! The idea, in the slow form:
//! ```text
//! for route in routes in file order:
//!     if route.path matches and route.conditions hold: return route
//! ```
//! The fast form asks each kind of path for its candidates by hash, by segment trie, or by one search
//! for all expressions. Each list of candidates is in file order, so [`Search::offer`] looks at a list
//! only up to the best position found so far. The cost depends on the length of the path and on how many
//! routes share it, not on how many routes there are.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    RequestView,
    condition::{Conditions, split_once},
    path::canonical_literal,
    pattern::{Patterns, Searches},
};
use crate::config::model::PathPattern;

type Map<V> = HashMap<Box<[u8]>, V, foldhash::fast::FixedState>;

/// A route whose path matches, and whether more is asked of the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its position in the file, which is its [`RouteId`](crate::id::RouteId).
    pub(super) position: u32,
    /// Whether it has conditions besides host and path.
    pub(super) conditional: bool,
}

/// The search for the first route that matches `request`.
pub(super) struct Search<'a, R: ?Sized> {
    pub(super) request: &'a R,
    /// By position.
    pub(super) conditions: &'a [Conditions],
    pub(super) searches: &'a mut Searches,
    /// The position found so far, `u32::MAX` without one.
    pub(super) best: u32,
}

impl<R: RequestView + ?Sized> Search<'_, R> {
    /// Takes candidates in file order.
    #[inline]
    fn offer(&mut self, candidates: &[Candidate]) {
        for candidate in candidates {
            if candidate.position >= self.best {
                return;
            }
            if !candidate.conditional || self.holds(candidate.position) {
                self.best = candidate.position;
                return;
            }
        }
    }

    fn holds(&mut self, position: u32) -> bool {
        let conditions = self.conditions.get(position as usize);
        conditions.is_some_and(|c| c.failed(self.request, self.searches).is_none())
    }
}

/// The paths of one group of routes, compiled.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    any: Vec<Candidate>,
    exact: Map<Vec<Candidate>>,
    trie: Vec<Node>,
    expressions: Vec<Expressions>,
}

/// A place in the tree of path segments. The first node stands for the empty path.
#[derive(Debug, Default)]
struct Node {
    children: Map<usize>,
    /// The child for `{name}`: one segment that is not empty.
    placeholder: Option<usize>,
    /// Prefixes that end here: they take this path and everything below.
    prefixes: Vec<Candidate>,
    /// Templates that end here.
    templates: Vec<Candidate>,
    /// Templates with `{name=**}` below here: they take everything after a further `/`.
    rests: Vec<Candidate>,
}

/// Expressions that are searched for together.
#[derive(Debug)]
struct Expressions {
    patterns: Patterns,
    /// By pattern.
    candidates: Vec<Vec<Candidate>>,
    /// The first position of any candidate.
    first: u32,
}

impl PathTable {
    /// Compiles paths, which come in file order.
    pub(super) fn compile<'a>(
        paths: impl IntoIterator<Item = (Candidate, &'a PathPattern)>,
    ) -> PathTable {
        let mut table = PathTable::default();
        let mut expressions: Vec<(&Arc<str>, Vec<Candidate>)> = Vec::new();
        let mut expression_of: Map<usize> = Map::default();
        for (candidate, path) in paths {
            match path {
                PathPattern::Any => table.any.push(candidate),
                PathPattern::Exact(path) => {
                    let path = canonical_literal(path).into_owned().into_boxed_slice();
                    table.exact.entry(path).or_default().push(candidate);
                }
                PathPattern::Prefix(prefix) => {
                    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                    if let Some(node) = table.node(prefix) {
                        node.prefixes.push(candidate);
                    }
                }
                PathPattern::Template(template) => table.insert_template(template, candidate),
                PathPattern::Regex(pattern) => {
                    let next = expressions.len();
                    let at = *expression_of
                        .entry(pattern.as_bytes().into())
                        .or_insert(next);
                    match expressions.get_mut(at) {
                        Some((_, candidates)) => candidates.push(candidate),
                        None => expressions.push((pattern, vec![candidate])),
                    }
                }
            }
        }
        table.expressions = Expressions::compile(expressions);
        table
    }

    /// Offers every route whose path matches `path`, a path in canonical form.
    #[inline]
    pub(super) fn find<R: RequestView + ?Sized>(&self, path: &[u8], search: &mut Search<'_, R>) {
        search.offer(&self.any);
        if !self.exact.is_empty()
            && let Some(list) = self.exact.get(path)
        {
            search.offer(list);
        }
        if let (Some(root), Some(rest)) = (self.trie.first(), path.strip_prefix(b"/")) {
            self.descend(root, Some(rest), search);
        }
        for expressions in &self.expressions {
            if expressions.first < search.best {
                expressions.find(path, search);
            }
        }
    }

    /// Walks down the tree along `rest`, the path below `node` without its first `/`. No node is visited
    /// twice, and only where a word and a placeholder both match is it recursive: how deep, and how much
    /// at all, is up to the configuration.
    fn descend<'a, R: RequestView + ?Sized>(
        &'a self,
        mut node: &'a Node,
        mut rest: Option<&[u8]>,
        search: &mut Search<'_, R>,
    ) {
        loop {
            search.offer(&node.prefixes);
            let Some(below) = rest else {
                search.offer(&node.templates);
                return;
            };
            search.offer(&node.rests);
            let (segment, next) = split_once(below, b'/');
            let literal = node.children.get(segment).and_then(|c| self.trie.get(*c));
            let placeholder = match segment {
                [] => None,
                _ => node.placeholder.and_then(|child| self.trie.get(child)),
            };
            node = match (literal, placeholder) {
                (Some(literal), Some(placeholder)) => {
                    self.descend(placeholder, next, search);
                    literal
                }
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => return,
            };
            rest = next;
        }
    }

    fn insert_template(&mut self, template: &str, candidate: Candidate) {
        let (path, last) = template.rsplit_once('/').unwrap_or(("", template));
        let takes_rest = is_placeholder(last) && last.ends_with("=**}");
        let end = if takes_rest { path } else { template };
        let Some(node) = self.node(end) else { return };
        if takes_rest {
            node.rests.push(candidate);
        } else {
            node.templates.push(candidate);
        }
    }

    /// The node of `path`, made if need be; `{name}` segments are placeholders.
    fn node(&mut self, path: &str) -> Option<&mut Node> {
        if self.trie.is_empty() {
            self.trie.push(Node::default());
        }
        let mut at = 0;
        if !path.is_empty() {
            for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
                at = self.child(at, segment);
            }
        }
        self.trie.get_mut(at)
    }

    fn child(&mut self, parent: usize, segment: &str) -> usize {
        let next = self.trie.len();
        let Some(node) = self.trie.get_mut(parent) else {
            return parent;
        };
        let child = if is_placeholder(segment) {
            *node.placeholder.get_or_insert(next)
        } else {
            let segment = canonical_literal(segment).into_owned().into_boxed_slice();
            *node.children.entry(segment).or_insert(next)
        };
        if child == next {
            self.trie.push(Node::default());
        }
        child
    }
}

impl Expressions {
    /// One search for all; one search each, should they be too large together.
    fn compile(expressions: Vec<(&Arc<str>, Vec<Candidate>)>) -> Vec<Expressions> {
        if expressions.is_empty() {
            return Vec::new();
        }
        let patterns: Vec<&str> = expressions.iter().map(|(p, _)| &***p).collect();
        if let Some(patterns) = Patterns::new(&patterns) {
            let candidates = expressions.into_iter().map(|(_, c)| c).collect();
            return vec![Expressions::new(patterns, candidates)];
        }
        expressions
            .into_iter()
            .filter_map(|(pattern, candidates)| {
                let patterns = Patterns::new(&[pattern])?;
                Some(Expressions::new(patterns, vec![candidates]))
            })
            .collect()
    }

    fn new(patterns: Patterns, candidates: Vec<Vec<Candidate>>) -> Expressions {
        let firsts = candidates.iter().filter_map(|list| list.first());
        let first = firsts.map(|c| c.position).min().unwrap_or(u32::MAX);
        Expressions {
            patterns,
            candidates,
            first,
        }
    }

    fn find<R: RequestView + ?Sized>(&self, path: &[u8], search: &mut Search<'_, R>) {
        if let [only] = self.candidates.as_slice() {
            if self.patterns.is_match(path, search.searches) {
                search.offer(only);
            }
            return;
        }
        // Taken out meanwhile, since conditions of candidates may search for expressions too.
        let matched = self.patterns.matches(path, search.searches);
        for pattern in &matched {
            if let Some(candidates) = self.candidates.get(*pattern as usize) {
                search.offer(candidates);
            }
        }
        self.patterns.give_back(matched, search.searches);
    }
}

fn is_placeholder(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}
