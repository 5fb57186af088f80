//! Which protocol a connection begins with, by its first bytes.

use crate::{http1, proxy_protocol};

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// Too few to tell.
    NeedMore,
    /// A TLS handshake record (RFC 8446, 5.1).
    TlsRecord,
    /// The HTTP/2 client preface (RFC 9113, 3.4).
    Http2Preface,
    /// A token and a space, as an HTTP/1 request line begins; maybe after empty lines.
    Http1Method,
    /// A PROXY protocol header in text.
    ProxyV1,
    /// A PROXY protocol header in binary.
    ProxyV2,
    /// A SOFA Bolt frame, version 1 or 2.
    Bolt,
    /// A Dubbo frame.
    Dubbo,
    /// None of these.
    Unknown,
}

/// Tells which protocol `bytes`, the first ones of a connection, begin. At most [`BYTES_MAX`] are needed.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes {
        [] => Sniffed::NeedMore,
        // ContentType handshake, legacy version 3.x.
        [0x16] => Sniffed::NeedMore,
        [0x16, 0x03, ..] => Sniffed::TlsRecord,
        [0x01 | 0x02, ..] => Sniffed::Bolt,
        [0xda] => Sniffed::NeedMore,
        [0xda, 0xbb, ..] => Sniffed::Dubbo,
        [b'\r', ..] => sniff_line_end(bytes),
        [b'P', ..] => sniff_p(bytes),
        _ => sniff_method(bytes),
    }
}

/// Bytes after which [`sniff`] never answers [`Sniffed::NeedMore`]: empty lines and a method.
pub const BYTES_MAX: usize = 2 * http1::LEADING_LINES_MAX + http1::METHOD_BYTES_MAX + 1;

/// The whole preface, so that a method named PRI is not mistaken for it.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Empty lines before a request, or the binary PROXY header, which begins with two of them.
fn sniff_line_end(bytes: &[u8]) -> Sniffed {
    match compare(bytes, &proxy_protocol::V2_SIGNATURE) {
        Match::Whole => return Sniffed::ProxyV2,
        Match::SoFar => return Sniffed::NeedMore,
        Match::Differs => {}
    }
    let mut rest = bytes;
    for _ in 0..http1::LEADING_LINES_MAX {
        match rest.strip_prefix(b"\r\n") {
            Some(line) => rest = line,
            None => break,
        }
    }
    match rest {
        [] | [b'\r'] if bytes.len() <= 2 * http1::LEADING_LINES_MAX => Sniffed::NeedMore,
        _ => sniff_method(rest),
    }
}

/// `PRI `, `PROXY ` and the methods that begin like them.
fn sniff_p(bytes: &[u8]) -> Sniffed {
    for (known, sniffed) in [
        (HTTP2_PREFACE, Sniffed::Http2Preface),
        (proxy_protocol::V1_PREFIX, Sniffed::ProxyV1),
    ] {
        match compare(bytes, known) {
            Match::Whole => return sniffed,
            Match::SoFar => return Sniffed::NeedMore,
            Match::Differs => {}
        }
    }
    sniff_method(bytes)
}

fn sniff_method(bytes: &[u8]) -> Sniffed {
    let method_len = bytes
        .iter()
        .take(http1::METHOD_BYTES_MAX + 1)
        .take_while(|&&byte| http1::fields::is_token_byte(byte))
        .count();
    match bytes.get(method_len) {
        _ if method_len > http1::METHOD_BYTES_MAX => Sniffed::Unknown,
        Some(b' ') if method_len > 0 => Sniffed::Http1Method,
        Some(_) => Sniffed::Unknown,
        None => Sniffed::NeedMore,
    }
}

enum Match {
    /// All of what is known is there.
    Whole,
    /// What is there agrees with what is known.
    SoFar,
    Differs,
}

fn compare(bytes: &[u8], known: &[u8]) -> Match {
    if bytes.starts_with(known) {
        Match::Whole
    } else if known.starts_with(bytes) {
        Match::SoFar
    } else {
        Match::Differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTORS: &[(&[u8], Sniffed)] = &[
        (b"", Sniffed::NeedMore),
        (b"\x16", Sniffed::NeedMore),
        (b"\x16\x03\x01\x02\x00", Sniffed::TlsRecord),
        (b"\x16\x02\x01", Sniffed::Unknown),
        (b"\x15\x03\x01", Sniffed::Unknown),
        (b"\x01\x01\x00\x01", Sniffed::Bolt),
        (b"\x02\x01", Sniffed::Bolt),
        (b"\xda\xbb\xc2", Sniffed::Dubbo),
        (b"\xda\xba", Sniffed::Unknown),
        (b"GET / HTTP/1.1\r\n", Sniffed::Http1Method),
        (b"G", Sniffed::NeedMore),
        (b"GET", Sniffed::NeedMore),
        (b"GET\r\n", Sniffed::Unknown),
        (b" GET", Sniffed::Unknown),
        (b"P", Sniffed::NeedMore),
        (b"PR", Sniffed::NeedMore),
        (b"POST /", Sniffed::Http1Method),
        (b"PROPFIND /", Sniffed::Http1Method),
        (b"PROXYING /", Sniffed::Http1Method),
        (b"PROXY TCP4", Sniffed::ProxyV1),
        (b"PROXY", Sniffed::NeedMore),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Http2Preface),
        (b"PRI * HTTP/2.0\r\n", Sniffed::NeedMore),
        (b"PRI * HTTP/1.1\r\n", Sniffed::Http1Method),
        (b"\r\n\r\n\0\r\nQUIT\n", Sniffed::ProxyV2),
        (b"\r\n\r\n\0\r\nQUIT", Sniffed::NeedMore),
        (b"\r\n\r\n", Sniffed::NeedMore),
        (b"\r\nGET / ", Sniffed::Http1Method),
        (b"\r\n\r\nGET / ", Sniffed::Http1Method),
        (b"\r\n\r\n\r\n\r\n\r\n", Sniffed::Unknown),
        (b"\rG", Sniffed::Unknown),
        (b"\n", Sniffed::Unknown),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF ", Sniffed::Http1Method),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", Sniffed::Unknown),
        (b"SSH-2.0-x", Sniffed::NeedMore),
        (b"SSH-2.0-x\r\n", Sniffed::Unknown),
    ];

    /// Goal: each protocol is told from its look-alikes. Method: a table.
    #[test]
    fn tells_protocols_apart() {
        for (bytes, expected) in VECTORS {
            assert_eq!(sniff(bytes), *expected, "{}", bytes.escape_ascii());
        }
    }

    /// Goal: an answer, once given, stands when more bytes come (split test). Method: all prefixes of all
    /// vectors.
    #[test]
    fn more_bytes_do_not_change_the_answer() {
        for (bytes, expected) in VECTORS {
            for len in 0..bytes.len() {
                let early = sniff(bytes.get(..len).unwrap_or_default());
                assert!(
                    early == Sniffed::NeedMore || early == *expected,
                    "{} after {len}",
                    bytes.escape_ascii()
                );
            }
        }
    }

    /// Goal: nobody can keep us waiting for more. Method: the longest undecided beginnings.
    #[test]
    fn decides_within_the_bound() {
        let mut longest = b"\r\n".repeat(http1::LEADING_LINES_MAX);
        longest.extend([b'A'; http1::METHOD_BYTES_MAX]);
        assert_eq!(sniff(&longest), Sniffed::NeedMore);
        longest.push(b'A');
        assert_eq!(longest.len(), BYTES_MAX);
        assert_eq!(sniff(&longest), Sniffed::Unknown);
    }
}
