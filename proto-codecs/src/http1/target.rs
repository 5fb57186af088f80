//! The four forms of a request target (RFC 9112, 3.2), and authorities (RFC 3986, 3.2).

use core::{net::Ipv6Addr, str};

use super::{error::HeadError, fields::Span, request::Method};

/// How a request names its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, for CONNECT
    Authority,
    /// `*`, for OPTIONS
    Asterisk,
}

/// A target taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) form: TargetForm,
    /// Empty unless the target holds one.
    pub(crate) authority: Span,
    pub(crate) path: Span,
    pub(crate) query: Option<Span>,
}

impl Target {
    /// Takes apart the target that `at` covers.
    pub(crate) fn parse(bytes: &[u8], at: Span, method: Method) -> Result<Target, HeadError> {
        let target = at.of(bytes);
        if method == Method::Connect {
            return Target::authority_form(bytes, at);
        }
        match target {
            [b'/', ..] => {
                let (path, query) = path_and_query(target, at.start as usize)?;
                Ok(Target {
                    form: TargetForm::Origin,
                    authority: Span::default(),
                    path,
                    query,
                })
            }
            [b'*'] if method == Method::Options => Ok(Target {
                form: TargetForm::Asterisk,
                authority: Span::default(),
                path: at,
                query: None,
            }),
            [b'*'] => Err(HeadError::AsteriskForm),
            _ => Target::absolute_form(bytes, at),
        }
    }

    /// RFC 9110, 9.3.6: a CONNECT without a port must be refused.
    fn authority_form(bytes: &[u8], at: Span) -> Result<Target, HeadError> {
        let target = at.of(bytes);
        if target.starts_with(b"/") || memchr::memmem::find(target, b"://").is_some() {
            return Err(HeadError::AuthorityForm);
        }
        let authority = Authority::parse(target)?;
        if authority.host_len == 0 || authority.port.is_none() {
            return Err(HeadError::AuthorityForm);
        }
        Ok(Target {
            form: TargetForm::Authority,
            authority: at,
            path: Span::default(),
            query: None,
        })
    }

    fn absolute_form(bytes: &[u8], at: Span) -> Result<Target, HeadError> {
        let target = at.of(bytes);
        let Some(colon) = memchr::memmem::find(target, b"://") else {
            // `host:port` with another method, or plain nonsense.
            return Err(match Authority::parse(target) {
                Ok(Authority { port: Some(_), .. }) => HeadError::AuthorityForm,
                _ => HeadError::TargetInvalid,
            });
        };
        let scheme = target.get(..colon).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
            return Err(HeadError::SchemeUnsupported);
        }
        let authority_start = colon + 3;
        let rest = target.get(authority_start..).unwrap_or_default();
        let authority_len = memchr::memchr3(b'/', b'?', b'#', rest).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(authority_len).unwrap_or_default();
        // RFC 9110, 4.2.1: an http URI with an empty host is invalid.
        if Authority::parse(authority)?.host_len == 0 {
            return Err(HeadError::HostInvalid);
        }
        let base = at.start as usize + authority_start;
        let (path, query) = match tail {
            [b'/', ..] => path_and_query(tail, base + authority_len)?,
            // No path means `/` (RFC 9110, 4.2.3); the last slash of `://` stands in for it, so that
            // every path is a range of the head's bytes.
            [] => (Span::at(base - 1, 1), None),
            [b'?', query @ ..] => {
                check_query(query)?;
                let query = Span::at(base + authority_len + 1, query.len());
                (Span::at(base - 1, 1), Some(query))
            }
            _ => return Err(HeadError::TargetInvalid),
        };
        Ok(Target {
            form: TargetForm::Absolute,
            authority: Span::at(base, authority_len),
            path,
            query,
        })
    }
}

/// An authority that was checked: how long its host is, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Bytes of the host, the brackets of an IPv6 address included. It is the first part.
    pub(crate) host_len: usize,
    /// The port, if one is written.
    pub(crate) port: Option<u16>,
}

impl Authority {
    /// Checks `uri-host [":" port]` (RFC 9110, 7.2).
    ///
    /// Names are narrower than RFC 3986 has them: no percent-encoding and no sub-delimiters. No name that
    /// can be looked up holds them, and they are where two parsers come to differ.
    pub(crate) fn parse(authority: &[u8]) -> Result<Authority, HeadError> {
        if authority.starts_with(b"[") {
            return Authority::bracketed(authority);
        }
        let host_len = authority
            .iter()
            .position(|&byte| !class(byte, HOST))
            .unwrap_or(authority.len());
        let port = match authority.get(host_len..).unwrap_or_default() {
            [] => None,
            [b':', digits @ ..] => parse_port(digits, authority)?,
            _ => return Err(invalid(authority)),
        };
        Ok(Authority { host_len, port })
    }

    fn bracketed(authority: &[u8]) -> Result<Authority, HeadError> {
        let close = memchr::memchr(b']', authority).ok_or(HeadError::HostInvalid)?;
        let inner = authority.get(1..close).unwrap_or_default();
        str::from_utf8(inner)
            .ok()
            .and_then(|text| text.parse::<Ipv6Addr>().ok())
            .ok_or(HeadError::HostInvalid)?;
        let port = match authority.get(close + 1..).unwrap_or_default() {
            [] => None,
            [b':', digits @ ..] => parse_port(digits, authority)?,
            _ => return Err(invalid(authority)),
        };
        Ok(Authority {
            host_len: close + 1,
            port,
        })
    }
}

/// An empty port is allowed and means the scheme's own (RFC 3986, 3.2.3).
fn parse_port(digits: &[u8], authority: &[u8]) -> Result<Option<u16>, HeadError> {
    if digits.is_empty() {
        return Ok(None);
    }
    // Five digits hold every port; more would be leading zeros.
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid(authority));
    }
    let port = digits
        .iter()
        .fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0'));
    u16::try_from(port)
        .map(Some)
        .map_err(|_| HeadError::HostInvalid)
}

fn invalid(authority: &[u8]) -> HeadError {
    if authority.contains(&b'@') {
        HeadError::UserInformation
    } else {
        HeadError::HostInvalid
    }
}

/// Splits `/path[?query]`, which begins at offset `base`, and checks both.
fn path_and_query(target: &[u8], base: usize) -> Result<(Span, Option<Span>), HeadError> {
    let mut at = 0;
    loop {
        let rest = target.get(at..).unwrap_or_default();
        let Some(stop) = rest.iter().position(|&byte| !class(byte, PATH)) else {
            return Ok((Span::at(base, target.len()), None));
        };
        at += stop;
        match target.get(at..).unwrap_or_default() {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => at += 3,
            [b'?', query @ ..] => {
                check_query(query)?;
                let query = Span::at(base + at + 1, query.len());
                return Ok((Span::at(base, at), Some(query)));
            }
            _ => return Err(HeadError::TargetInvalid),
        }
    }
}

fn check_query(query: &[u8]) -> Result<(), HeadError> {
    if query.iter().all(|&byte| class(byte, QUERY)) {
        Ok(())
    } else {
        Err(HeadError::TargetInvalid)
    }
}

/// May stand in a path as it is; `%` is checked apart.
const PATH: u8 = 1;
/// May stand in a query.
const QUERY: u8 = 2;
/// May stand in a host that is no IPv6 address.
const HOST: u8 = 4;

#[inline]
fn class(byte: u8, class: u8) -> bool {
    #[allow(clippy::indexing_slicing)] // A table of 256 entries, indexed by a byte.
    let classes = CLASSES[byte as usize];
    classes & class != 0
}

/// Wider than RFC 3986 by what browsers send unescaped (URL standard: `[ ] | ^ { }` and the backtick, and in
/// queries a backslash and a bare `%`), since refusing it would break sites that work. Never a control, a space, a quote, an
/// angle bracket, `#` or a byte outside ASCII; never a backslash in a path, which some servers take
/// for a slash.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0x21u8;
    while byte < 0x7f {
        let allowed = match byte {
            b'"' | b'<' | b'>' | b'#' => 0,
            b'?' | b'\\' | b'%' => QUERY,
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                PATH | QUERY | HOST
            }
            _ => PATH | QUERY,
        };
        #[allow(clippy::indexing_slicing)] // Evaluated while compiling.
        {
            classes[byte as usize] = allowed;
        }
        byte += 1;
    }
    classes
};
