//! A head for the next hop.
//!
//! Most lines of a head go on as they came, so the work is done by runs: neighbouring lines that stay are
//! copied in one piece, and only what ends at this hop, or is ours to say, breaks a run.
//!
//! Framing fields are always written anew from the parsed framing, once, in one spelling: whatever made
//! the original line ambiguous to somebody does not travel.

use std::sync::Arc;

use super::{
    Version,
    fields::{Field, FieldKind, elements},
    framing::Framing,
    request::{Method, RequestHead},
    response::ResponseHead,
    target::TargetForm,
};

/// What is told to the endpoint about the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedFor<'a> {
    /// The address is appended to `X-Forwarded-For`; `X-Forwarded-Proto` is set where it is absent.
    Append(&'a [u8]),
    /// `X-Forwarded-For` and `X-Forwarded-Proto` become what this proxy sees; `X-Forwarded-Host` and
    /// `Forwarded`, in which a client could claim the same things, are left out.
    Replace(&'a [u8]),
    /// Both go on as they came.
    #[default]
    Preserve,
}

/// How a request head is changed on its way.
///
/// `remove`, `set` and `append` work in this order, by lower-case name. They do not reach `Host` (that is
/// `host`), nor the fields of framing and of the connection (`Content-Length`, `Transfer-Encoding`,
/// `Connection`, `Keep-Alive`, `TE`, `Upgrade` and such): entries for those have no effect. Values hold
/// neither CR nor LF.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestEdits<'a> {
    /// Replaces the whole target, query included: `/path?query`.
    pub target: Option<&'a [u8]>,
    /// Replaces the host and port.
    pub host: Option<&'a [u8]>,
    /// Adds `Via: <received version> <name>`.
    pub via: Option<&'a str>,
    /// `X-Forwarded-For` and `X-Forwarded-Proto`: what happens to them, with the client's address.
    pub forwarded_for: ForwardedFor<'a>,
    /// `http` or `https`: what the client spoke.
    pub proto: &'a str,
    /// Names of fields to leave out.
    pub remove: &'a [Arc<str>],
    /// Fields that replace all of their name.
    pub set: &'a [(Arc<str>, Arc<str>)],
    /// Fields that are added.
    pub append: &'a [(Arc<str>, Arc<str>)],
    /// Asks the endpoint for the upgrade that the client asked for.
    pub upgrade: bool,
    /// Leaves `Expect` out, since this proxy has answered it.
    pub drop_expect: bool,
    /// Fields of this proxy's own, added last.
    pub extra: &'a [(&'a str, &'a str)],
}

/// How the head of an answer is changed on its way; `remove`, `set` and `append` as in [`RequestEdits`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseEdits<'a> {
    /// Adds `Connection: close`.
    pub close: bool,
    /// Adds `Connection: keep-alive`, which a kept HTTP/1.0 client waits for.
    pub keep_alive_10: bool,
    /// Names of fields to leave out.
    pub remove: &'a [Arc<str>],
    /// Fields that replace all of their name.
    pub set: &'a [(Arc<str>, Arc<str>)],
    /// Fields that are added.
    pub append: &'a [(Arc<str>, Arc<str>)],
    /// Passes `Upgrade` on, with its `Connection` option: for 101, and for 426.
    pub upgrade: bool,
    /// Leaves `Transfer-Encoding` and `Trailer` out, for an HTTP/1.0 client. The caller takes the chunks
    /// apart ([`next_payload`](super::BodyTracker::next_payload)) and closes the connection at the end.
    pub dechunk: bool,
    /// Fields of this proxy's own, added last.
    pub extra: &'a [(&'a str, &'a str)],
}

/// Appends the request head for the endpoint to `out`: always HTTP/1.1, the target in origin form
/// (`host:port` for CONNECT), `Host` first if it is written anew, and nothing that ends at this hop.
///
/// `TE: trailers` is asked for anew if the client did, since trailers are passed on (RFC 9110, 10.1.4).
/// `Expect` goes on unless `drop_expect`, for the endpoint to answer (RFC 9110, 10.1.1). A body of HTTP/2
/// without a length goes on in chunks.
pub fn forward_request(
    bytes: &[u8],
    head: &RequestHead,
    edits: &RequestEdits<'_>,
    out: &mut Vec<u8>,
) {
    let lines = Lines::new(bytes, &head.fields, head.len);
    write_request_line(bytes, head, edits, &lines, out);
    let host = new_host(bytes, head, edits);
    if let Some(host) = host {
        push_field(out, b"Host", host);
    }
    let named = NameEdits {
        remove: edits.remove,
        set: edits.set,
    };
    let distrusts_client = matches!(edits.forwarded_for, ForwardedFor::Replace(_));
    let mut has_proto = false;
    let mut wants_trailers = false;
    lines.copy(out, |field| {
        let unless_edited = || named.fate_of(field, bytes);
        match field.kind {
            FieldKind::Host => Line::keep_if(host.is_none()),
            FieldKind::Connection | FieldKind::HopByHop => Line::Drop,
            FieldKind::Upgrade => Line::keep_if(edits.upgrade),
            FieldKind::Te => {
                wants_trailers |= asks_for_trailers(field.value.of(bytes), head.version);
                Line::Drop
            }
            FieldKind::ContentLength => Line::length(head.content_length),
            FieldKind::TransferEncoding => Line::Chunked,
            FieldKind::Expect => Line::keep_if(head.expect_continue && !edits.drop_expect),
            FieldKind::XForwardedFor if edits.forwarded_for != ForwardedFor::Preserve => Line::Drop,
            FieldKind::XForwardedProto | FieldKind::XForwardedHost | FieldKind::Forwarded
                if distrusts_client =>
            {
                Line::Drop
            }
            FieldKind::XForwardedProto => {
                let line = unless_edited();
                has_proto |= line == Line::Keep;
                line
            }
            _ => unless_edited(),
        }
    });
    write_forwarded(bytes, head, edits, &named, has_proto, out);
    write_edits(edits.set, edits.append, out);
    if head.version == Version::Http2 && head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    for (name, value) in edits.extra {
        push_field(out, name.as_bytes(), value.as_bytes());
    }
    write_connection(out, &[(edits.upgrade, "upgrade"), (wants_trailers, "TE")]);
    if wants_trailers {
        push_field(out, b"TE", b"trailers");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of the answer for the client to `out`: always HTTP/1.1 (RFC 9110, 6.2), and nothing
/// that ends at this hop. A body of HTTP/2 without a length goes on in chunks.
pub fn forward_response(
    bytes: &[u8],
    head: &ResponseHead,
    edits: &ResponseEdits<'_>,
    out: &mut Vec<u8>,
) {
    let lines = Lines::new(bytes, &head.fields, head.len);
    write_status_line(bytes, head, &lines, out);
    let named = NameEdits {
        remove: edits.remove,
        set: edits.set,
    };
    lines.copy(out, |field| {
        let unless_edited = || named.fate_of(field, bytes);
        match field.kind {
            FieldKind::Connection | FieldKind::HopByHop | FieldKind::Te => Line::Drop,
            FieldKind::Upgrade => Line::keep_if(edits.upgrade),
            // RFC 9110, 8.6, and RFC 9112, 6.1: neither belongs on an answer that cannot have a body.
            FieldKind::ContentLength | FieldKind::TransferEncoding if head.forbids_body() => {
                Line::Drop
            }
            FieldKind::ContentLength => Line::length(head.content_length),
            FieldKind::TransferEncoding if edits.dechunk => Line::Drop,
            // Also on an answer to HEAD and on a 304, whose framing is none.
            FieldKind::TransferEncoding => Line::Chunked,
            FieldKind::Trailer if edits.dechunk => Line::Drop,
            _ => unless_edited(),
        }
    });
    write_edits(edits.set, edits.append, out);
    let has_chunks = head.framing == Framing::Chunked && !head.forbids_body();
    if head.version == Version::Http2 && has_chunks && !edits.dechunk {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    for (name, value) in edits.extra {
        push_field(out, name.as_bytes(), value.as_bytes());
    }
    write_connection(
        out,
        &[
            (edits.upgrade, "upgrade"),
            (edits.close, "close"),
            (edits.keep_alive_10 && !edits.close, "keep-alive"),
        ],
    );
    out.extend_from_slice(b"\r\n");
}

/// What becomes of a field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Keep,
    Drop,
    /// Becomes this `Content-Length`.
    Length(u64),
    /// Becomes `Transfer-Encoding: chunked`.
    Chunked,
}

impl Line {
    fn keep_if(condition: bool) -> Line {
        if condition { Line::Keep } else { Line::Drop }
    }

    fn length(length: Option<u64>) -> Line {
        length.map_or(Line::Drop, Line::Length)
    }
}

/// The field lines of a head.
struct Lines<'a> {
    bytes: &'a [u8],
    fields: &'a [Field],
    /// Offset of the empty line.
    end: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8], fields: &'a [Field], head_len: usize) -> Lines<'a> {
        Lines {
            bytes,
            fields,
            end: head_len.saturating_sub(2),
        }
    }

    /// Offset of a line; of the empty line after the last.
    #[inline]
    fn start_of(&self, index: usize) -> usize {
        self.fields
            .get(index)
            .map_or(self.end, |field| field.name.start as usize)
    }

    /// Writes each line's outcome, in order; neighbours that stay in one piece.
    #[inline]
    fn copy(&self, out: &mut Vec<u8>, mut fate: impl FnMut(&Field) -> Line) {
        let mut run_start = self.start_of(0);
        for (index, field) in self.fields.iter().enumerate() {
            let line = fate(field);
            if line == Line::Keep {
                continue;
            }
            self.copy_range(out, run_start, field.name.start as usize);
            run_start = self.start_of(index + 1);
            match line {
                Line::Length(length) => {
                    out.extend_from_slice(b"Content-Length: ");
                    push_decimal(out, length);
                    out.extend_from_slice(b"\r\n");
                }
                Line::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
                Line::Keep | Line::Drop => {}
            }
        }
        self.copy_range(out, run_start, self.end);
    }

    #[inline]
    fn copy_range(&self, out: &mut Vec<u8>, start: usize, end: usize) {
        out.extend_from_slice(self.bytes.get(start..end).unwrap_or_default());
    }
}

/// The names that are removed or replaced.
#[derive(Clone, Copy)]
pub(crate) struct NameEdits<'a> {
    pub(crate) remove: &'a [Arc<str>],
    pub(crate) set: &'a [(Arc<str>, Arc<str>)],
}

impl NameEdits<'_> {
    /// For a field that stays unless an edit or a `Connection` option names it.
    #[inline]
    fn fate_of(&self, field: &Field, bytes: &[u8]) -> Line {
        Line::keep_if(!field.connection_named && !self.names(field.name.of(bytes)))
    }

    #[inline]
    pub(crate) fn names(&self, name: &[u8]) -> bool {
        self.sets(name) || self.remove.iter().any(|removed| is_name(removed, name))
    }

    #[inline]
    fn sets(&self, name: &[u8]) -> bool {
        self.set.iter().any(|(replaced, _)| is_name(replaced, name))
    }
}

fn is_name(edited: &str, name: &[u8]) -> bool {
    edited.as_bytes().eq_ignore_ascii_case(name)
}

fn asks_for_trailers(te: &[u8], version: Version) -> bool {
    version != Version::Http10
        && elements(te).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

fn write_request_line(
    bytes: &[u8],
    head: &RequestHead,
    edits: &RequestEdits<'_>,
    lines: &Lines<'_>,
    out: &mut Vec<u8>,
) {
    let as_it_came = edits.target.is_none()
        && head.form != TargetForm::Absolute
        && head.version != Version::Http10;
    if as_it_came {
        lines.copy_range(out, head.method.start as usize, lines.start_of(0));
        return;
    }
    out.extend_from_slice(head.method.of(bytes));
    out.push(b' ');
    match edits.target {
        Some(target) => out.extend_from_slice(target),
        None => write_origin_form(bytes, head, out),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn write_origin_form(bytes: &[u8], head: &RequestHead, out: &mut Vec<u8>) {
    if head.form != TargetForm::Absolute {
        out.extend_from_slice(head.target.of(bytes));
        return;
    }
    // RFC 9112, 3.2.4: OPTIONS of an absolute target without path and query asks about the server.
    let has_path = head.path.start >= head.authority.end;
    if head.method_kind == Method::Options && !has_path && head.query.is_none() {
        out.push(b'*');
        return;
    }
    out.extend_from_slice(head.path.of(bytes));
    if let Some(query) = head.query {
        out.push(b'?');
        out.extend_from_slice(query.of(bytes));
    }
}

/// The `Host` to write in place of the one that came; `None` leaves that where it stands.
fn new_host<'a>(bytes: &'a [u8], head: &RequestHead, edits: &RequestEdits<'a>) -> Option<&'a [u8]> {
    if edits.host.is_some() {
        return edits.host;
    }
    if head.form == TargetForm::Absolute {
        return Some(head.authority.of(bytes));
    }
    // An HTTP/1.0 request may lack it, but ours is HTTP/1.1 (RFC 9112, 3.2: empty if there is none).
    let lacks_host = head.version == Version::Http10
        && !head
            .fields
            .iter()
            .any(|field| field.kind == FieldKind::Host);
    lacks_host.then_some(head.authority.of(bytes))
}

/// Writes `X-Forwarded-For`, `X-Forwarded-Proto` and `Via`, unless `set` has a say in them.
fn write_forwarded(
    bytes: &[u8],
    head: &RequestHead,
    edits: &RequestEdits<'_>,
    named: &NameEdits<'_>,
    has_proto: bool,
    out: &mut Vec<u8>,
) {
    let client = match edits.forwarded_for {
        ForwardedFor::Append(client) | ForwardedFor::Replace(client) => Some(client),
        ForwardedFor::Preserve => None,
    };
    if let Some(client) = client {
        if !named.sets(b"x-forwarded-for") {
            out.extend_from_slice(b"X-Forwarded-For: ");
            if matches!(edits.forwarded_for, ForwardedFor::Append(_)) {
                copy_forwarded_for(bytes, head, named, out);
            }
            out.extend_from_slice(client);
            out.extend_from_slice(b"\r\n");
        }
        if !has_proto && !named.sets(b"x-forwarded-proto") {
            push_field(out, b"X-Forwarded-Proto", edits.proto.as_bytes());
        }
    }
    if let Some(name) = edits.via
        && !named.sets(b"via")
    {
        // RFC 9110, 7.6.3: the version that was received.
        out.extend_from_slice(match head.version {
            Version::Http10 => b"Via: 1.0 ",
            Version::Http11 => b"Via: 1.1 ",
            Version::Http2 => b"Via: 2.0 ",
        });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes what came in `X-Forwarded-For`, each value followed by a comma: one line, since many servers
/// read only one.
fn copy_forwarded_for(bytes: &[u8], head: &RequestHead, named: &NameEdits<'_>, out: &mut Vec<u8>) {
    for field in &head.fields {
        if field.kind != FieldKind::XForwardedFor || field.value.is_empty() {
            continue;
        }
        if named.names(b"x-forwarded-for") {
            return;
        }
        out.extend_from_slice(field.value.of(bytes));
        out.extend_from_slice(b", ");
    }
}

fn write_edits(set: &[(Arc<str>, Arc<str>)], append: &[(Arc<str>, Arc<str>)], out: &mut Vec<u8>) {
    for (name, value) in set.iter().chain(append) {
        if is_editable(name.as_bytes()) {
            push_field(out, name.as_bytes(), value.as_bytes());
        }
    }
}

/// Whether operators may write this field: not if it frames the message, or belongs to the connection.
pub(crate) fn is_editable(name: &[u8]) -> bool {
    !matches!(
        FieldKind::of(name),
        FieldKind::Host
            | FieldKind::Connection
            | FieldKind::HopByHop
            | FieldKind::Te
            | FieldKind::ContentLength
            | FieldKind::TransferEncoding
            | FieldKind::Upgrade
            | FieldKind::Expect
    )
}

/// Writes the `Connection` field with the options that apply; nothing if none does.
fn write_connection(out: &mut Vec<u8>, options: &[(bool, &str)]) {
    let mut prefix = "Connection: ";
    for (applies, option) in options {
        if *applies {
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(option.as_bytes());
            prefix = ", ";
        }
    }
    if prefix == ", " {
        out.extend_from_slice(b"\r\n");
    }
}

fn write_status_line(bytes: &[u8], head: &ResponseHead, lines: &Lines<'_>, out: &mut Vec<u8>) {
    let status_end = "HTTP/1.1 200".len();
    // RFC 9112, 4: the space stands there even if there is no reason phrase; not everybody sends it.
    if head.version != Version::Http10 && bytes.get(status_end) == Some(&b' ') {
        lines.copy_range(out, 0, lines.start_of(0));
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, head.status.into());
    out.push(b' ');
    out.extend_from_slice(head.reason.of(bytes));
    out.extend_from_slice(b"\r\n");
}

/// Appends one field line.
pub(crate) fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    debug_assert!(
        memchr::memchr3(b'\r', b'\n', 0, value).is_none(),
        "a field value with a line end"
    );
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}
