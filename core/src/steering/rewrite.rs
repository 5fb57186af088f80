//! Path rewrites of forwarding routes, compiled.

use std::sync::Arc;

use super::{
    path,
    pattern::{Replaced, RouteScratch},
};
use crate::config::model::{PathPattern, PathRewrite};

/// A compiled path rewrite.
#[derive(Debug)]
pub struct PathRewriter(Rewrite);

#[derive(Debug)]
enum Rewrite {
    Full(Arc<str>),
    /// Replaces the first segments of the path, as many as the route's prefix has.
    Prefix {
        segments: usize,
        replacement: Arc<str>,
    },
    /// Replaces whatever the expression matches.
    Regex {
        pattern: Replaced,
        replacement: Arc<str>,
    },
    /// Leaves the path alone.
    Keep,
}

impl PathRewriter {
    /// Compiles the rewrite of a route that matches `path`. A prefix rewrite on a route without a prefix
    /// replaces an exact path as a whole, is put before any path where the route asks for none, and
    /// leaves the paths of templates and expressions alone.
    pub fn compile(rewrite: &PathRewrite, path: &PathPattern) -> PathRewriter {
        PathRewriter(match (rewrite, path) {
            (PathRewrite::Full(to), _) => Rewrite::Full(Arc::clone(to)),
            (PathRewrite::Prefix(to), PathPattern::Exact(_)) => Rewrite::Full(Arc::clone(to)),
            (PathRewrite::Prefix(to), PathPattern::Any) => Rewrite::Prefix {
                segments: 0,
                replacement: Arc::clone(to),
            },
            (PathRewrite::Prefix(to), PathPattern::Prefix(prefix)) => Rewrite::Prefix {
                segments: prefix.trim_end_matches('/').matches('/').count(),
                replacement: Arc::clone(to),
            },
            (PathRewrite::Prefix(_), PathPattern::Template(_) | PathPattern::Regex(_)) => {
                Rewrite::Keep
            }
            (
                PathRewrite::Regex {
                    pattern,
                    replacement,
                },
                _,
            ) => match Replaced::new(pattern) {
                Some(pattern) => Rewrite::Regex {
                    pattern,
                    replacement: Arc::clone(replacement),
                },
                None => Rewrite::Keep,
            },
        })
    }

    /// Appends the rewritten path (without query) to `out`. The path is taken in the canonical form that
    /// it was matched in, and the result begins with `/` whatever the replacement says. `*` asks about
    /// the server as a whole (RFC 9112, section 3.2.4) and stays.
    pub fn rewrite(&self, scratch: &mut RouteScratch, path: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        if path == b"*" {
            out.push(b'*');
            return;
        }
        let path = path::canonical(path, &mut scratch.path).unwrap_or(path);
        match &self.0 {
            Rewrite::Keep => out.extend_from_slice(path),
            Rewrite::Full(to) => out.extend_from_slice(to.as_bytes()),
            Rewrite::Prefix {
                segments,
                replacement,
            } => {
                let rest = below(path, *segments);
                // `/a/**` to `/`: `/a/x` becomes `/x`, not `//x`.
                let replacement = match rest {
                    [b'/', ..] => replacement.strip_suffix('/').unwrap_or(replacement),
                    _ => replacement,
                };
                out.extend_from_slice(replacement.as_bytes());
                out.extend_from_slice(rest);
            }
            Rewrite::Regex {
                pattern,
                replacement,
            } => pattern.replace_all(path, replacement, &mut scratch.searches, out),
        }
        if out.get(start) != Some(&b'/') {
            out.insert(start, b'/');
        }
    }
}

/// What follows the first segments of `path`: empty, or beginning with `/`.
fn below(path: &[u8], segments: usize) -> &[u8] {
    let mut slashes = memchr::memchr_iter(b'/', path);
    match slashes.nth(segments) {
        Some(at) => path.get(at..).unwrap_or_default(),
        None => &[],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rewritten(rewrite: PathRewrite, pattern: PathPattern, path: &str) -> String {
        let mut out = b"kept ".to_vec();
        let rewriter = PathRewriter::compile(&rewrite, &pattern);
        rewriter.rewrite(&mut RouteScratch::default(), path.as_bytes(), &mut out);
        String::from_utf8(out.split_off(5)).unwrap()
    }

    /// Goal: a prefix is replaced at segment borders, with one slash at the seam. Method: a table.
    #[test]
    fn prefix_rewrites() {
        let prefix = |p: &str| PathPattern::Prefix(p.into());
        for (pattern, to, path, result) in [
            (prefix("/a"), "/b", "/a/x", "/b/x"),
            (prefix("/a"), "/b", "/a", "/b"),
            (prefix("/a"), "/b/", "/a", "/b/"),
            (prefix("/a"), "/b/", "/a/x", "/b/x"),
            (prefix("/a"), "/", "/a/x", "/x"),
            (prefix("/a"), "/", "/a", "/"),
            (prefix("/a"), "", "/a", "/"),
            (prefix("/a"), "", "/a//x", "//x"),
            (prefix("/a/b"), "/c", "/a/b/x", "/c/x"),
            (prefix("/a"), "/b", "/%61/x", "/b/x"),
            (prefix(""), "/b", "/x", "/b/x"),
            (PathPattern::Any, "/b", "/x", "/b/x"),
            (PathPattern::Any, "/b", "*", "*"),
            (PathPattern::Exact("/a".into()), "/b", "/a", "/b"),
            (PathPattern::Template("/a/{x}".into()), "/b", "/a/1", "/a/1"),
        ] {
            let rewrite = PathRewrite::Prefix(to.into());
            assert_eq!(rewritten(rewrite, pattern, path), result, "{path} to {to}");
        }
    }

    /// Goal: expressions replace what they match, wherever and however often. Method: a table.
    #[test]
    fn regex_rewrites() {
        for (pattern, replacement, path, result) in [
            (r"^/v(\d+)/(.*)$", "/$2/v$1", "/v2/users/7", "/users/7/v2"),
            (r"^/v(?P<n>\d+)", "/${n}x", "/v2/a", "/2x/a"),
            ("a", "b", "/aXa", "/bXb"),
            ("x*", "-", "/ab", "/-/-a-b-"),
            ("^/gone", "", "/gone", "/"),
            ("nothing", "-", "/as/is", "/as/is"),
        ] {
            let rewrite = PathRewrite::Regex {
                pattern: pattern.into(),
                replacement: replacement.into(),
            };
            assert_eq!(
                rewritten(rewrite, PathPattern::Any, path),
                result,
                "{pattern}"
            );
        }
        let full = PathRewrite::Full("/all".into());
        assert_eq!(rewritten(full, PathPattern::Any, "/x"), "/all");
    }
}
