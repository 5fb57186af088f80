//! The form of a path that routes are matched against.
//!
//! The path is matched as sent, except for what RFC 3986 says cannot make a difference
//! (section 6.2.2): `%61` is `a`, and `%2f` is `%2F`. So a rule for `/admin` also holds for `/%61dmin`, as
//! it will for the endpoint. `%2F` is not `/`, letters keep their case, and `//` is not `/`: to the RFC
//! these are different resources.
//!
//! A path with a dot segment takes no route at all. Clients resolve `/a/../b` before they send it
//! (RFC 3986, section 5.2.4; WHATWG URL); one that does not asks us to read `/public/../admin` as public
//! while the endpoint reads it as `/admin`. Resolving it here would only move the disagreement to
//! endpoints that do not resolve. The segment is recognised in the disguises that servers are known to
//! undo: `%2e`, `\`, `%2f` and `%5c` as separators, and `..;x`.

use std::borrow::Cow;

/// The canonical form of `path`, in `buffer` unless it is the path itself; `None` if the path has a dot
/// segment.
pub(super) fn canonical<'a>(path: &'a [u8], buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if memchr::memchr2(b'.', b'%', path).is_none() {
        return Some(path);
    }
    let path = unescape(path, buffer);
    (!has_dot_segment(path)).then_some(path)
}

/// Whether no route is looked for, since client and endpoint may disagree about what `path` means.
pub fn is_ambiguous_path(path: &[u8]) -> bool {
    canonical(path, &mut Vec::new()).is_none()
}

/// The canonical form of the literal part of a pattern.
pub(super) fn canonical_literal(literal: &str) -> Cow<'_, [u8]> {
    let mut buffer = Vec::new();
    if unescape(literal.as_bytes(), &mut buffer) == literal.as_bytes() {
        return Cow::Borrowed(literal.as_bytes());
    }
    Cow::Owned(buffer)
}

/// Decodes escaped unreserved characters and raises the hex digits of other escapes.
fn unescape<'a>(path: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(first) = memchr::memchr(b'%', path) else {
        return path;
    };
    let (plain, mut rest) = path.split_at(first);
    buffer.clear();
    buffer.extend_from_slice(plain);
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let (b'%', [high, low, after @ ..]) = (*byte, tail) else {
            buffer.push(*byte);
            continue;
        };
        let (Some(h), Some(l)) = (hex(*high), hex(*low)) else {
            buffer.push(b'%');
            continue;
        };
        let decoded = h << 4 | l;
        if decoded.is_ascii_alphanumeric() || matches!(decoded, b'-' | b'.' | b'_' | b'~') {
            buffer.push(decoded);
        } else {
            buffer.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]);
        }
        rest = after;
    }
    buffer
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Looks at a path whose escapes are in canonical form.
fn has_dot_segment(path: &[u8]) -> bool {
    memchr::memchr_iter(b'.', path).any(|at| {
        let before = path.get(..at).unwrap_or_default();
        let after = path.get(at + 1..).unwrap_or_default();
        let after = after.strip_prefix(b".").unwrap_or(after);
        ends_with_separator(before) && (after.is_empty() || starts_with_separator(after))
    })
}

fn ends_with_separator(bytes: &[u8]) -> bool {
    [&b"/"[..], b"\\", b"%2F", b"%5C"]
        .iter()
        .any(|separator| bytes.ends_with(separator))
}

fn starts_with_separator(bytes: &[u8]) -> bool {
    [&b"/"[..], b"\\", b"%2F", b"%5C", b";", b"%3B"]
        .iter()
        .any(|separator| bytes.starts_with(separator))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn canon(path: &str) -> Option<String> {
        let mut buffer = Vec::new();
        canonical(path.as_bytes(), &mut buffer).map(|p| String::from_utf8(p.to_vec()).unwrap())
    }

    /// Goal: escapes that mean the same look the same, and no others. Method: a table.
    #[test]
    fn unreserved_escapes_are_decoded() {
        for (sent, matched) in [
            ("/a/b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/%7Eme/x%2Ey", "/~me/x.y"),
            ("/100%", "/100%"),
            ("/%zz%4", "/%zz%4"),
            ("/%%36%31", "/%61"),
            ("//a", "//a"),
            ("*", "*"),
        ] {
            assert_eq!(canon(sent).as_deref(), Some(matched), "{sent}");
        }
    }

    /// Goal: no dot segment in any known disguise gets past prefix rules. Method: a table of both kinds.
    #[test]
    fn dot_segments_are_ambiguous() {
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/a/%2e%2e/b",
            "/a/.%2E",
            "/a/..;x/b",
            "/a/..%2fb",
            "/a%2f../b",
            "/a\\..\\b",
            "/a/..%5cb",
            "/a/..%3Bx/b",
        ] {
            assert!(is_ambiguous_path(path.as_bytes()), "{path}");
        }
        for path in [
            "/a.b",
            "/.well-known/x",
            "/...",
            "/a/..b",
            "/a../b",
            "/a/.../b",
            "/x.js",
            "/a..",
        ] {
            assert!(!is_ambiguous_path(path.as_bytes()), "{path}");
        }
    }
}
