//! Fields of a head as offsets, and what each one means to a proxy.

use super::error::HeadError;

/// A range of the bytes that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes of this range; empty if `bytes` are not the ones it was made from and too short.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// How many bytes.
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The range that `part`, a slice of `bytes`, takes up in it.
    #[inline]
    pub(super) fn within(bytes: &[u8], part: &[u8]) -> Span {
        let start = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        debug_assert!(start + part.len() <= bytes.len());
        Span::at(start, part.len())
    }

    /// Heads are limited to far below 4 GiB (see [`lexer`](super::lexer)), so offsets fit.
    #[inline]
    pub(crate) fn at(start: usize, len: usize) -> Span {
        Span {
            start: start as u32,
            end: (start + len) as u32,
        }
    }
}

/// What a field means to a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldKind {
    /// Of no concern on the way: passed on as it is.
    #[default]
    EndToEnd,
    /// `Host`
    Host,
    /// `Connection`
    Connection,
    /// `Keep-Alive`, `Proxy-Connection`, `HTTP2-Settings`: for this connection only (RFC 9110, 7.6.1).
    ///
    /// `Proxy-Authenticate` and `Proxy-Authorization` are not among them: RFC 9110, 11.7, lets a proxy
    /// that did not ask for credentials relay them.
    HopByHop,
    /// `TE`: for this connection only; `trailers` is asked for again on the next (RFC 9110, 10.1.4).
    Te,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Upgrade`
    Upgrade,
    /// `Expect`
    Expect,
    /// `Trailer`
    Trailer,
    /// `Via`
    Via,
    /// `Forwarded`
    Forwarded,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Host`
    XForwardedHost,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// `Traceparent`
    Traceparent,
    /// `User-Agent`
    UserAgent,
}

impl FieldKind {
    /// The kind of a field, by its name in any case.
    #[inline]
    pub fn of(name: &[u8]) -> FieldKind {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => FieldKind::Te,
            3 if is(b"via") => FieldKind::Via,
            4 if is(b"host") => FieldKind::Host,
            6 if is(b"expect") => FieldKind::Expect,
            7 if is(b"upgrade") => FieldKind::Upgrade,
            7 if is(b"trailer") => FieldKind::Trailer,
            9 if is(b"forwarded") => FieldKind::Forwarded,
            10 if is(b"connection") => FieldKind::Connection,
            10 if is(b"user-agent") => FieldKind::UserAgent,
            10 if is(b"keep-alive") => FieldKind::HopByHop,
            11 if is(b"traceparent") => FieldKind::Traceparent,
            14 if is(b"content-length") => FieldKind::ContentLength,
            14 if is(b"http2-settings") => FieldKind::HopByHop,
            15 if is(b"x-forwarded-for") => FieldKind::XForwardedFor,
            16 if is(b"x-forwarded-host") => FieldKind::XForwardedHost,
            16 if is(b"proxy-connection") => FieldKind::HopByHop,
            17 if is(b"transfer-encoding") => FieldKind::TransferEncoding,
            17 if is(b"x-forwarded-proto") => FieldKind::XForwardedProto,
            _ => FieldKind::EndToEnd,
        }
    }

    /// Whether a `Connection` option of its name takes a field off the message.
    ///
    /// RFC 9110, 7.6.1, forbids senders to name fields meant for all recipients. Obeying such an option
    /// would let a client strip what routing, framing or tracing rests on.
    fn obeys_connection(self) -> bool {
        matches!(
            self,
            FieldKind::EndToEnd | FieldKind::HopByHop | FieldKind::Trailer | FieldKind::UserAgent
        )
    }
}

/// One field of a head. Its line runs from `name.start` to the `name.start` of the next field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Its name, as written.
    pub name: Span,
    /// Its value, without white space around it.
    pub value: Span,
    /// What it means.
    pub kind: FieldKind,
    /// A `Connection` option names it: it ends at this hop.
    pub connection_named: bool,
}

/// The value of the first field of this name; `name_lowercase` is compared in any case.
pub fn find<'a>(fields: &[Field], bytes: &'a [u8], name_lowercase: &str) -> Option<&'a [u8]> {
    find_all(fields, bytes, name_lowercase).next()
}

/// The values of all fields of this name, in order.
pub fn find_all<'a>(
    fields: &[Field],
    bytes: &'a [u8],
    name_lowercase: &str,
) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| {
            field.name.len() == name_lowercase.len()
                && field
                    .name
                    .of(bytes)
                    .eq_ignore_ascii_case(name_lowercase.as_bytes())
        })
        .map(move |field| field.value.of(bytes))
}

/// What the `Connection` fields of a head say (RFC 9110, 7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Options beyond those above and `te`: they name fields.
    names_fields: bool,
    count: usize,
}

/// Every option may cost a walk over all fields, so their number is bounded; four is already unusual.
pub(super) const CONNECTION_OPTIONS_MAX: usize = 32;

impl ConnectionOptions {
    /// Adds one `Connection` field.
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), HeadError> {
        // By far the most common field, worth a short cut.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            return Ok(());
        }
        for option in elements(value) {
            self.count += 1;
            if self.count > CONNECTION_OPTIONS_MAX {
                return Err(HeadError::ConnectionOptionsTooMany);
            }
            if !is_token(option) {
                return Err(HeadError::ConnectionOptionInvalid);
            }
            let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
            match option.len() {
                5 if is(b"close") => self.close = true,
                10 if is(b"keep-alive") => self.keep_alive = true,
                7 if is(b"upgrade") => self.upgrade = true,
                2 if is(b"te") => {}
                _ => self.names_fields = true,
            }
        }
        Ok(())
    }

    /// Marks the fields that the options name.
    pub(super) fn mark(&self, bytes: &[u8], fields: &mut [Field]) {
        if !self.names_fields {
            return;
        }
        // By index, since the options stand in the same fields that are marked.
        for at in 0..fields.len() {
            let Some(connection) = fields.get(at).copied() else {
                return;
            };
            if connection.kind != FieldKind::Connection {
                continue;
            }
            for option in elements(connection.value.of(bytes)) {
                for field in fields.iter_mut() {
                    if field.kind.obeys_connection()
                        && field.name.of(bytes).eq_ignore_ascii_case(option)
                    {
                        field.connection_named = true;
                    }
                }
            }
        }
    }
}

/// The elements of a comma-separated list, without empty ones (RFC 9110, 5.6.1.2).
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|element| !element.is_empty())
}

/// Without optional white space around it (RFC 9110, 5.6.3: only SP and HTAB).
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether this is a token (RFC 9110, 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Whether a byte may stand in a token (RFC 9110, 5.6.2).
#[inline]
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
        | b'|' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: kinds are found whatever the case, and near misses are not. Method: a table.
    #[test]
    fn kinds_by_name() {
        for (name, kind) in [
            ("HOST", FieldKind::Host),
            ("Transfer-Encoding", FieldKind::TransferEncoding),
            ("transfer_encoding", FieldKind::EndToEnd),
            ("content-length", FieldKind::ContentLength),
            ("Content_Length", FieldKind::EndToEnd),
            ("keep-alive", FieldKind::HopByHop),
            ("Proxy-Connection", FieldKind::HopByHop),
            ("Proxy-Authorization", FieldKind::EndToEnd),
            ("tE", FieldKind::Te),
            ("x-forwarded-for", FieldKind::XForwardedFor),
            ("", FieldKind::EndToEnd),
        ] {
            assert_eq!(FieldKind::of(name.as_bytes()), kind, "{name}");
        }
    }

    /// Goal: a span never panics, on whatever bytes. Method: a span beyond the end, and a reversed one.
    #[test]
    fn span_of_foreign_bytes_is_empty() {
        assert_eq!(Span { start: 3, end: 9 }.of(b"abc"), b"");
        assert_eq!(Span { start: 2, end: 1 }.of(b"abc"), b"");
        assert_eq!(Span { start: 2, end: 1 }.len(), 0);
    }

    /// Goal: the options' limit holds. Method: as many options as allowed, and one more.
    #[test]
    fn connection_options_are_bounded() {
        let at = vec!["a"; CONNECTION_OPTIONS_MAX].join(",");
        ConnectionOptions::default().add(at.as_bytes()).unwrap();
        let above = vec!["a"; CONNECTION_OPTIONS_MAX + 1].join(",");
        assert_eq!(
            ConnectionOptions::default().add(above.as_bytes()),
            Err(HeadError::ConnectionOptionsTooMany)
        );
    }
}
