//! Heads and trailers: what the fields of a block say, and whether they may (RFC 9113, 8).
//!
//! A block is laid out as the text of the HTTP/1.1 head that it stands for, so that whoever routes, edits
//! or forwards heads needs no second way to do so: the fields are spans of lines, a run of neighbours can be
//! copied in one piece, and `:authority` is the `Host` in front.
//!
//! ```text
//! :method: GET                     GET /index?q HTTP/1.1
//! :path: /index?q                  host: example.org
//! :scheme: https          ──►      accept: */*
//! :authority: example.org          cookie: a=b; c=d
//! cookie: a=b
//! accept: */*
//! cookie: c=d
//! ```
//!
//! The crumbs of a cookie are put together (RFC 9113, 8.2.3). Whatever could make that text mean something
//! else than the block is refused before it is written.

use super::{error::MessageError, hpack::FieldLine};
use crate::{
    http1::{
        Field, FieldKind, Framing, HeadError, METHOD_BYTES_MAX, Method, RequestHead, RequestKind,
        ResponseHead, Span, Version,
        body::TRAILERS_FORBIDDEN,
        fields::{is_token, is_token_byte},
        forward::{push_decimal, push_field},
        framing::parse_length,
        target::{Authority, Target, TargetForm},
    },
    limits::Http2Limits,
};

/// What a field counts beyond its name and value (RFC 9113, 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The end of a head.
const EMPTY_LINE: &[u8] = b"\r\n";

/// Text that a large head made larger than this is freed before the next.
const TEXT_BYTES_KEPT: usize = 16 << 10;

/// What a block is expected to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// `extended_connect`: RFC 8441 was offered.
    Request {
        extended_connect: bool,
    },
    Response,
    #[default]
    Trailers,
}

/// The fields of the message, or trailers, that came last. Made to be reused.
#[derive(Debug, Default)]
pub struct HeaderBlock {
    kind: BlockKind,
    text: Vec<u8>,
    fields: Vec<Field>,
    /// Which of the fields no hop may keep in a table (RFC 7541, 7.1.3).
    never_indexed: Vec<u32>,
    pseudo: Pseudo,
    line: StartLine,
    cookie: Cookie,
    content_length: Option<u64>,
    expect_continue: bool,
    /// As RFC 9113, 6.5.2, counts it.
    list_bytes: usize,
    /// Fields as they came: each crumb of a cookie is one.
    count: usize,
    list_bytes_max: usize,
    count_max: usize,
    error: Option<MessageError>,
}

/// Pseudo-header fields as they came, until the start line is written.
#[derive(Debug, Default)]
struct Pseudo {
    text: Vec<u8>,
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
    status: Option<Span>,
    /// A regular field has come: no more of these.
    is_over: bool,
}

/// What the start line says, and where.
#[derive(Clone, Copy, Debug, Default)]
struct StartLine {
    method: Span,
    method_kind: Method,
    target: Span,
    form: TargetForm,
    path: Span,
    query: Option<Span>,
    authority: Span,
    host: Span,
    /// The protocol that an extended CONNECT asks for.
    protocol: Option<Span>,
    status: u16,
}

/// The crumbs of a cookie, put together.
#[derive(Debug, Default)]
struct Cookie {
    text: Vec<u8>,
    is_there: bool,
    never_indexed: bool,
}

impl HeaderBlock {
    /// Forgets the last block.
    pub(super) fn begin(&mut self, kind: BlockKind, limits: &Http2Limits) {
        let mut reused = core::mem::take(self);
        reused.text.clear();
        reused.text.shrink_to(TEXT_BYTES_KEPT);
        reused.pseudo.text.clear();
        reused.pseudo.text.shrink_to(TEXT_BYTES_KEPT);
        reused.cookie.text.clear();
        reused.cookie.text.shrink_to(TEXT_BYTES_KEPT);
        reused.fields.clear();
        reused.never_indexed.clear();
        *self = HeaderBlock {
            kind,
            text: reused.text,
            fields: reused.fields,
            never_indexed: reused.never_indexed,
            pseudo: Pseudo {
                text: reused.pseudo.text,
                ..Pseudo::default()
            },
            cookie: Cookie {
                text: reused.cookie.text,
                ..Cookie::default()
            },
            list_bytes_max: limits.header_list_bytes_max,
            count_max: limits.fields_max,
            ..HeaderBlock::default()
        };
    }

    /// Takes one field. After the first error the others are only counted.
    #[inline]
    pub(super) fn push(&mut self, line: FieldLine<'_>) {
        self.list_bytes += line.name.len() + line.value.len() + FIELD_OVERHEAD;
        self.count += 1;
        if self.error.is_none()
            && let Err(error) = self.take(line)
        {
            self.error = Some(error);
        }
    }

    /// The block is whole: what is wrong with it, if anything is.
    pub(super) fn finish(&mut self, end_stream: bool) -> Result<(), MessageError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.end_pseudo()?;
        self.join_cookie();
        if end_stream && self.content_length.is_some_and(|length| length > 0) && self.is_request() {
            return Err(MessageError::LengthDiffers);
        }
        if self.is_request() && self.line.authority.is_empty() {
            return Err(MessageError::Head(HeadError::HostMissing));
        }
        self.text.extend_from_slice(EMPTY_LINE);
        Ok(())
    }

    fn is_request(&self) -> bool {
        matches!(self.kind, BlockKind::Request { .. })
    }

    fn take(&mut self, line: FieldLine<'_>) -> Result<(), MessageError> {
        if self.list_bytes > self.list_bytes_max {
            return Err(HeadError::HeadTooLarge.into());
        }
        if self.count > self.count_max {
            return Err(HeadError::FieldsTooMany.into());
        }
        check_value(line.value)?;
        match line.name.split_first() {
            Some((b':', name)) => self.take_pseudo(name, line.value),
            _ => self.take_field(line),
        }
    }

    /// RFC 9113, 8.3.
    fn take_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), MessageError> {
        if self.pseudo.is_over {
            return Err(MessageError::PseudoMisplaced);
        }
        let place = match (self.kind, name) {
            (BlockKind::Request { .. }, b"method") => &mut self.pseudo.method,
            (BlockKind::Request { .. }, b"scheme") => &mut self.pseudo.scheme,
            (BlockKind::Request { .. }, b"authority") => &mut self.pseudo.authority,
            (BlockKind::Request { .. }, b"path") => &mut self.pseudo.path,
            (BlockKind::Request { .. }, b"protocol") => &mut self.pseudo.protocol,
            (BlockKind::Response, b"status") => &mut self.pseudo.status,
            _ => return Err(MessageError::PseudoUnknown),
        };
        if place.is_some() {
            return Err(MessageError::PseudoRepeated);
        }
        *place = Some(Span::at(self.pseudo.text.len(), value.len()));
        self.pseudo.text.extend_from_slice(value);
        Ok(())
    }

    #[inline]
    fn take_field(&mut self, line: FieldLine<'_>) -> Result<(), MessageError> {
        self.end_pseudo()?;
        check_name(line.name)?;
        let kind = FieldKind::of(line.name);
        match kind {
            // RFC 9113, 8.2.2.
            FieldKind::Connection
            | FieldKind::HopByHop
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade => return Err(MessageError::ConnectionField),
            FieldKind::Te if line.value != b"trailers" => return Err(MessageError::TeInvalid),
            _ if self.kind == BlockKind::Trailers && TRAILERS_FORBIDDEN.contains(&line.name) => {
                return Err(MessageError::TrailerForbidden);
            }
            FieldKind::ContentLength => self.take_content_length(line.value)?,
            FieldKind::Host if self.is_request() => return self.take_host(line),
            FieldKind::Expect if self.is_request() => {
                if !line.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError::ExpectationUnknown.into());
                }
                self.expect_continue = true;
            }
            FieldKind::EndToEnd if line.name == b"cookie" => {
                self.take_crumb(line);
                return Ok(());
            }
            _ => {}
        }
        self.push_line(line, kind);
        Ok(())
    }

    /// RFC 9113, 8.1.1. One that is repeated is refused even if it agrees, as in HTTP/1.
    fn take_content_length(&mut self, value: &[u8]) -> Result<(), MessageError> {
        if self.content_length.is_some() {
            return Err(HeadError::ContentLengthRepeated.into());
        }
        self.content_length = Some(parse_length(value).ok_or(HeadError::ContentLengthInvalid)?);
        Ok(())
    }

    /// RFC 9113, 8.3.1: `Host` may stand in for `:authority`, or beside it with the same value.
    fn take_host(&mut self, line: FieldLine<'_>) -> Result<(), MessageError> {
        match self.pseudo.authority {
            Some(_) if line.value.eq_ignore_ascii_case(self.authority()) => Ok(()),
            Some(_) => Err(MessageError::AuthorityDiffers),
            None if !self.line.authority.is_empty() => Err(HeadError::HostRepeated.into()),
            None => self.push_host(line),
        }
    }

    fn push_host(&mut self, line: FieldLine<'_>) -> Result<(), MessageError> {
        let parsed = Authority::parse(line.value)?;
        // RFC 9113, 8.3.1: not empty, for http and https.
        if parsed.host_len == 0 {
            return Err(HeadError::HostInvalid.into());
        }
        self.push_line(line, FieldKind::Host);
        if let Some(host) = self.fields.last() {
            self.line.authority = host.value;
            self.line.host = Span::at(host.value.start as usize, parsed.host_len);
        }
        Ok(())
    }

    fn take_crumb(&mut self, line: FieldLine<'_>) {
        if self.cookie.is_there {
            self.cookie.text.extend_from_slice(b"; ");
        }
        self.cookie.text.extend_from_slice(line.value);
        self.cookie.is_there = true;
        self.cookie.never_indexed |= line.never_indexed;
    }

    fn join_cookie(&mut self) {
        if !self.cookie.is_there {
            return;
        }
        let value = core::mem::take(&mut self.cookie.text);
        let line = FieldLine {
            name: b"cookie",
            value: &value,
            never_indexed: self.cookie.never_indexed,
        };
        self.push_line(line, FieldKind::EndToEnd);
        self.cookie.text = value;
    }

    /// Writes one line.
    #[inline]
    fn push_line(&mut self, line: FieldLine<'_>, kind: FieldKind) {
        let start = self.text.len();
        push_field(&mut self.text, line.name, line.value);
        let value_start = start + line.name.len() + 2;
        if line.never_indexed {
            self.never_indexed.push(self.fields.len() as u32);
        }
        self.fields.push(Field {
            name: Span::at(start, line.name.len()),
            value: Span::at(value_start, line.value.len()),
            kind,
            connection_named: false,
        });
    }

    /// Writes the start line, once all that it says has come.
    #[inline]
    fn end_pseudo(&mut self) -> Result<(), MessageError> {
        if self.pseudo.is_over {
            return Ok(());
        }
        self.pseudo.is_over = true;
        let pseudo = core::mem::take(&mut self.pseudo);
        let written = match self.kind {
            BlockKind::Request { extended_connect } => {
                self.write_request_line(&pseudo, extended_connect)
            }
            BlockKind::Response => self.write_status_line(&pseudo),
            BlockKind::Trailers => Ok(()),
        };
        self.pseudo = pseudo;
        written
    }

    /// RFC 9113, 8.3.1 and 8.5; RFC 8441, 4.
    fn write_request_line(
        &mut self,
        pseudo: &Pseudo,
        extended_connect: bool,
    ) -> Result<(), MessageError> {
        let of = |span: Option<Span>| span.map(|span| span.of(&pseudo.text));
        let method = of(pseudo.method).ok_or(MessageError::PseudoMissing)?;
        if !is_token(method) {
            return Err(HeadError::MethodInvalid.into());
        }
        if method.len() > METHOD_BYTES_MAX {
            return Err(HeadError::MethodTooLong.into());
        }
        let kind = Method::of(method);
        let protocol = of(pseudo.protocol);
        if protocol
            .is_some_and(|name| !extended_connect || kind != Method::Connect || !is_token(name))
        {
            return Err(MessageError::ProtocolUnexpected);
        }
        let authority = of(pseudo.authority);
        let is_tunnel = kind == Method::Connect && protocol.is_none();
        let target = match (of(pseudo.scheme), of(pseudo.path)) {
            (None, None) if is_tunnel => authority.ok_or(MessageError::PseudoMissing)?,
            (Some(scheme), Some(path)) if !is_tunnel => {
                check_scheme(scheme)?;
                check_path(path, kind)?;
                path
            }
            (_, _) if is_tunnel => return Err(MessageError::PseudoUnknown),
            _ => return Err(MessageError::PseudoMissing),
        };
        // What an extended CONNECT asks for is a GET with `Upgrade` in HTTP/1 (RFC 8441, 5).
        let (method, kind) = match protocol {
            Some(_) => (&b"GET"[..], Method::Get),
            None => (method, kind),
        };
        self.text.extend_from_slice(method);
        self.text.push(b' ');
        let target_span = Span::at(self.text.len(), target.len());
        self.text.extend_from_slice(target);
        let parsed = Target::parse(&self.text, target_span, kind)?;
        self.text.extend_from_slice(b" HTTP/1.1\r\n");
        self.line = StartLine {
            method: Span::at(0, method.len()),
            method_kind: kind,
            target: target_span,
            form: parsed.form,
            path: parsed.path,
            query: parsed.query,
            ..StartLine::default()
        };
        if let Some(authority) = authority {
            self.push_host(FieldLine::new(b"host", authority))?;
        }
        if let Some(protocol) = protocol {
            self.push_line(FieldLine::new(b"upgrade", protocol), FieldKind::Upgrade);
            self.line.protocol = self.fields.last().map(|field| field.value);
        }
        Ok(())
    }

    /// RFC 9113, 8.3.2. 101 does not exist here (8.6).
    fn write_status_line(&mut self, pseudo: &Pseudo) -> Result<(), MessageError> {
        let status = pseudo.status.ok_or(MessageError::PseudoMissing)?;
        let digits = status.of(&pseudo.text);
        self.line.status = match *digits {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(MessageError::StatusInvalid),
        };
        if self.line.status == 101 {
            return Err(MessageError::StatusInvalid);
        }
        self.text.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(&mut self.text, self.line.status.into());
        self.text.extend_from_slice(b" \r\n");
        Ok(())
    }
}

/// What the block says.
impl HeaderBlock {
    /// The text that all spans point into: the head as HTTP/1.1 would have it, its empty line included;
    /// trailers without a start line.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// All fields, in order; a request's `:authority` as `host` in front, its cookie last.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The method; `GET` for an extended CONNECT, as [`protocol`](HeaderBlock::protocol) tells it.
    pub fn method(&self) -> &[u8] {
        self.line.method.of(&self.text)
    }

    /// The path, without query; empty for CONNECT.
    pub fn path(&self) -> &[u8] {
        self.line.path.of(&self.text)
    }

    /// The query, without its question mark.
    pub fn query(&self) -> Option<&[u8]> {
        self.line.query.map(|query| query.of(&self.text))
    }

    /// Host and port of a request, from `:authority`, else from `Host`.
    pub fn authority(&self) -> &[u8] {
        self.line.authority.of(&self.text)
    }

    /// `:scheme`, in the case it was written; `None` for CONNECT.
    pub fn scheme(&self) -> Option<&[u8]> {
        self.pseudo.scheme.map(|span| span.of(&self.pseudo.text))
    }

    /// The protocol that an extended CONNECT asks for (RFC 8441).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.line.protocol.map(|span| span.of(&self.text))
    }

    /// `:status`; 0 for a request.
    pub fn status(&self) -> u16 {
        self.line.status
    }

    /// Whether another head follows on the stream: 1xx.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.line.status)
    }

    /// `Content-Length`.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The value of the first field of this name (lower case).
    pub fn field(&self, name_lowercase: &str) -> Option<&[u8]> {
        crate::http1::fields::find(&self.fields, &self.text, name_lowercase)
    }

    /// What it holds beyond what its peer may ask for with `encoded_bytes`: each field with its overhead, of
    /// which the text and the list of fields take less.
    pub(super) fn expansion(&self, encoded_bytes: usize) -> usize {
        let paid = encoded_bytes.saturating_mul(Http2Limits::HEAD_RATIO);
        self.list_bytes.saturating_sub(paid)
    }

    /// Indexes of the [fields](HeaderBlock::fields) that no hop may keep in a table.
    pub fn never_indexed(&self) -> &[u32] {
        &self.never_indexed
    }

    /// Whether what follows the head belongs to another protocol: CONNECT, extended or not.
    pub(super) fn is_tunnel(&self) -> bool {
        self.line.method_kind == Method::Connect || self.line.protocol.is_some()
    }

    /// Makes this the head of an HTTP/1 request, `head` with spans into `text`; their former contents are
    /// reused for the next block. `has_body`: the stream did not end with the head.
    pub fn take_request(&mut self, has_body: bool, head: &mut RequestHead, text: &mut Vec<u8>) {
        core::mem::swap(&mut self.text, text);
        let mut fields = core::mem::take(&mut head.fields);
        core::mem::swap(&mut self.fields, &mut fields);
        let line = self.line;
        *head = RequestHead {
            method: line.method,
            method_kind: line.method_kind,
            target: line.target,
            form: line.form,
            path: line.path,
            query: line.query,
            host: line.host,
            authority: line.authority,
            version: Version::Http2,
            framing: self.framing(has_body && !self.is_tunnel()),
            content_length: self.content_length,
            keep_alive: true,
            upgrade: line.protocol,
            expect_continue: self.expect_continue && has_body,
            len: text.len(),
            fields,
        };
    }

    /// Makes this the head of an HTTP/1 answer, as [`take_request`](HeaderBlock::take_request) does it.
    pub fn take_response(
        &mut self,
        has_body: bool,
        request: RequestKind,
        head: &mut ResponseHead,
        text: &mut Vec<u8>,
    ) {
        let status = self.line.status;
        let tunnel = request == RequestKind::Connect && (200..300).contains(&status);
        // RFC 9110, 6.4.1, whatever frames follow.
        let may_have_body =
            !tunnel && request != RequestKind::Head && !matches!(status, 100..200 | 204 | 304);
        if may_have_body && !has_body && self.content_length.is_none() {
            self.push_empty_length();
        }
        core::mem::swap(&mut self.text, text);
        let mut fields = core::mem::take(&mut head.fields);
        core::mem::swap(&mut self.fields, &mut fields);
        *head = ResponseHead {
            status,
            version: Version::Http2,
            reason: Span::default(),
            framing: self.framing(has_body && may_have_body),
            content_length: self.content_length,
            keep_alive: true,
            tunnel,
            upgrade: None,
            len: text.len(),
            fields,
        };
    }

    /// Says that there is no body where it would have to be seen: without a length, an answer in HTTP/1 lasts
    /// as long as its connection.
    fn push_empty_length(&mut self) {
        debug_assert!(self.text.ends_with(EMPTY_LINE), "a block that is finished");
        self.text
            .truncate(self.text.len().saturating_sub(EMPTY_LINE.len()));
        let line = FieldLine::new(b"content-length", b"0");
        self.push_line(line, FieldKind::ContentLength);
        self.content_length = Some(0);
        self.text.extend_from_slice(EMPTY_LINE);
    }

    fn framing(&self, has_body: bool) -> Framing {
        match self.content_length {
            _ if !has_body => Framing::None,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        }
    }
}

/// The fields of a head or of trailers that go on to the next hop: without those of the connection and of
/// framing by `Transfer-Encoding`, and without `Host`, which is `:authority`. `TE` goes if it is `trailers`
/// (RFC 9113, 8.2.2). `never_indexed` as in [`HeaderBlock::never_indexed`]; empty for a head of HTTP/1.
pub fn end_to_end<'a>(
    fields: &'a [Field],
    text: &'a [u8],
    never_indexed: &'a [u32],
) -> impl Iterator<Item = FieldLine<'a>> + 'a {
    fields.iter().enumerate().filter_map(move |(at, field)| {
        let goes_on = match field.kind {
            FieldKind::Host
            | FieldKind::Connection
            | FieldKind::HopByHop
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade => false,
            FieldKind::Te => field.value.of(text).eq_ignore_ascii_case(b"trailers"),
            _ => !field.connection_named,
        };
        goes_on.then(|| FieldLine {
            name: field.name.of(text),
            value: field.value.of(text),
            never_indexed: never_indexed.contains(&(at as u32)),
        })
    })
}

fn check_scheme(scheme: &[u8]) -> Result<(), MessageError> {
    // RFC 3986, 3.1: in any case.
    if scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https") {
        return Ok(());
    }
    Err(HeadError::SchemeUnsupported.into())
}

/// RFC 9113, 8.3.1: a path with query, or `*`; no other form of a target.
fn check_path(path: &[u8], method: Method) -> Result<(), MessageError> {
    match path {
        [b'/', ..] => Ok(()),
        b"*" if method == Method::Options => Ok(()),
        b"*" => Err(HeadError::AsteriskForm.into()),
        _ => Err(HeadError::TargetInvalid.into()),
    }
}

/// Which bytes may stand in a name.
#[allow(clippy::indexing_slicing)] // Evaluated while compiling.
static IS_IN_NAMES: [bool; 256] = {
    let mut is_in_names = [false; 256];
    let mut byte = 0;
    while byte < is_in_names.len() {
        is_in_names[byte] = is_token_byte(byte as u8) && !(byte as u8).is_ascii_uppercase();
        byte += 1;
    }
    is_in_names
};

/// RFC 9113, 8.2.1, and RFC 9110, 5.1: a token without upper case.
#[inline]
fn check_name(name: &[u8]) -> Result<(), MessageError> {
    // To the end in any case, here and below: that takes no branch a byte, and values go by vectors.
    #[allow(clippy::indexing_slicing)] // A table of 256 entries, indexed by a byte.
    let is_valid = |valid: bool, &byte: &u8| valid & IS_IN_NAMES[usize::from(byte)];
    if !name.is_empty() && name.iter().fold(true, is_valid) {
        Ok(())
    } else {
        Err(MessageError::NameInvalid)
    }
}

/// RFC 9113, 8.2.1, and as strict as HTTP/1 (RFC 9110, 5.5): no control byte but a tab inside.
#[inline]
fn check_value(value: &[u8]) -> Result<(), MessageError> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_valid =
        |valid: bool, &byte: &u8| valid & ((byte >= b' ') & (byte != 0x7f) | (byte == b'\t'));
    if !is_space(value.first()) && !is_space(value.last()) && value.iter().fold(true, is_valid) {
        Ok(())
    } else {
        Err(MessageError::ValueInvalid)
    }
}
