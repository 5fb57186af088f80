//! From bytes to lines and fields: `httparse`, and what RFC 9112 refuses though `httparse` does not.
//!
//! Nothing here knows what a field means beyond its [`FieldKind`].

use core::mem::MaybeUninit;

use httparse::{Error, Header, Status};
use memchr::{memchr, memmem};

use super::{
    Version,
    error::HeadError,
    fields::{Field, FieldKind, Span, is_token_byte},
};
use crate::limits::Http1Limits;

/// A method longer than this is none that anybody implements; the longest registered one has 17 bytes
/// (`UPDATEREDIRECTREF`).
pub const METHOD_BYTES_MAX: usize = 32;

/// Empty lines tolerated before a request: RFC 9112, 2.2, asks for at least one, since old clients send
/// one after a body.
pub const LEADING_LINES_MAX: usize = 4;

/// An incomplete head is parsed again from its start when more arrives. Up to one receive buffer that
/// costs less than the receive itself; beyond, the end of the head is looked for first, so that a peer
/// who sends byte by byte cannot make us parse 64 KiB per byte.
const REPARSE_BYTES_MAX: usize = 4096;

/// The first line of a request, and the offset after its head.
pub(super) struct RequestLine {
    pub(super) method: Span,
    pub(super) target: Span,
    pub(super) version: Version,
    pub(super) head_end: usize,
}

/// The first line of an answer, and the offset after its head.
pub(super) struct StatusLine {
    pub(super) version: Version,
    pub(super) status: u16,
    pub(super) reason: Span,
    pub(super) head_end: usize,
}

/// Lexes a request head, which begins after at most [`LEADING_LINES_MAX`] empty lines. `None`: more bytes
/// are needed.
pub(super) fn request(
    bytes: &[u8],
    limits: &Http1Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<RequestLine>, HeadError> {
    let Some(start) = skip_leading_lines(bytes)? else {
        return Ok(None);
    };
    let window = Window::new(bytes, start, limits);
    if !window.is_worth_parsing(limits) {
        return Ok(None);
    }
    let mut slots = [const { MaybeUninit::uninit() }; Http1Limits::FIELDS_CAP];
    let mut request = httparse::Request::new(&mut []);
    let outcome = request.parse_with_uninit_headers(window.bytes, field_slots(&mut slots, limits));
    // Before any other error, so that the outcome does not depend on how much has arrived.
    check_line_lengths(window.bytes, &request, outcome.is_ok(), limits)?;
    let head_len = match outcome {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return window.partial(),
        Err(error) => return Err(request_error(window.bytes, &request, error)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(HeadError::MethodInvalid);
    };
    let head_end = start + head_len;
    push_fields(bytes, request.headers, head_end, fields)?;
    Ok(Some(RequestLine {
        method: Span::within(bytes, method.as_bytes()),
        target: Span::within(bytes, target.as_bytes()),
        version: version(minor),
        head_end,
    }))
}

/// Lexes the head of an answer. `None`: more bytes are needed.
pub(super) fn response(
    bytes: &[u8],
    limits: &Http1Limits,
    fields: &mut Vec<Field>,
) -> Result<Option<StatusLine>, HeadError> {
    // Only a server is asked to skip empty lines (RFC 9112, 2.2): here they are bytes that belong to
    // no answer.
    if let [b'\r' | b'\n', ..] = bytes {
        return Err(HeadError::StatusLineInvalid);
    }
    let window = Window::new(bytes, 0, limits);
    if !window.is_worth_parsing(limits) {
        return Ok(None);
    }
    let mut slots = [const { MaybeUninit::uninit() }; Http1Limits::FIELDS_CAP];
    let mut response = httparse::Response::new(&mut []);
    let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        window.bytes,
        field_slots(&mut slots, limits),
    );
    let head_end = match outcome {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return window.partial(),
        Err(error) => return Err(response_error(window.bytes, error)),
    };
    let (Some(minor), Some(status)) = (response.version, response.code) else {
        return Err(HeadError::StatusLineInvalid);
    };
    // RFC 9110, 15: below 100 there is nothing, and what such an answer's framing is, either.
    if status < 100 {
        return Err(HeadError::StatusLineInvalid);
    }
    push_fields(bytes, response.headers, head_end, fields)?;
    Ok(Some(StatusLine {
        version: version(minor),
        status,
        reason: reason(bytes, fields, head_end),
        head_end,
    }))
}

/// The bytes that a head may take up, and whether they are all there.
struct Window<'a> {
    bytes: &'a [u8],
    is_full: bool,
}

impl<'a> Window<'a> {
    fn new(bytes: &'a [u8], start: usize, limits: &Http1Limits) -> Window<'a> {
        // Offsets are 32 bits; no configuration comes near.
        let max = limits.head_bytes_max.min(u32::MAX as usize / 2);
        let bytes = bytes.get(start..).unwrap_or_default();
        match bytes.get(..max) {
            Some(bytes) => Window {
                bytes,
                is_full: true,
            },
            None => Window {
                bytes,
                is_full: false,
            },
        }
    }

    fn is_worth_parsing(&self, limits: &Http1Limits) -> bool {
        self.is_full
            || self.bytes.len() <= REPARSE_BYTES_MAX
            // The two ways in which `httparse` lets a head end.
            || memmem::find(self.bytes, b"\n\r\n").is_some()
            || memmem::find(self.bytes, b"\n\n").is_some()
            // A first line without end: its length is what is wrong.
            || (self.bytes.len() > limits.target_bytes_max && memchr(b'\n', self.bytes).is_none())
    }

    fn partial<T>(&self) -> Result<Option<T>, HeadError> {
        if self.is_full {
            Err(HeadError::HeadTooLarge)
        } else {
            Ok(None)
        }
    }
}

fn field_slots<'a, 'b>(
    slots: &'a mut [MaybeUninit<Header<'b>>; Http1Limits::FIELDS_CAP],
    limits: &Http1Limits,
) -> &'a mut [MaybeUninit<Header<'b>>] {
    let count = limits.fields_max.min(Http1Limits::FIELDS_CAP);
    slots.get_mut(..count).unwrap_or_default()
}

/// The offset of the first byte of the request; `None` if it is not there yet.
fn skip_leading_lines(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    let mut start = 0;
    loop {
        match bytes.get(start..).unwrap_or_default() {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] if start < 2 * LEADING_LINES_MAX => start += 2,
            [b'\r' | b'\n', ..] => return Err(HeadError::LeadingLines),
            _ => return Ok(Some(start)),
        }
    }
}

/// Checks the method's and the target's length, as far as they are known.
fn check_line_lengths(
    window: &[u8],
    request: &httparse::Request<'_, '_>,
    is_ok: bool,
    limits: &Http1Limits,
) -> Result<(), HeadError> {
    let method_len = match request.method {
        Some(method) => method.len(),
        None if is_ok => window.len(),
        None => run_len(window, is_token_byte),
    };
    if method_len > METHOD_BYTES_MAX {
        return Err(HeadError::MethodTooLong);
    }
    if request.method.is_none() {
        return Ok(());
    }
    let target_len = match request.path {
        Some(path) => path.len(),
        None => {
            let target = window.get(method_len + 1..).unwrap_or_default();
            run_len(target, |byte| byte > b' ' && byte != 0x7f)
        }
    };
    if target_len > limits.target_bytes_max {
        return Err(HeadError::TargetTooLong);
    }
    Ok(())
}

fn run_len(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&byte| belongs(byte)).count()
}

#[cold]
fn request_error(window: &[u8], request: &httparse::Request<'_, '_>, error: Error) -> HeadError {
    match error {
        Error::Token if request.method.is_none() => HeadError::MethodInvalid,
        Error::Token => HeadError::TargetInvalid,
        Error::Version => {
            let line = request.method.map_or(0, str::len) + request.path.map_or(0, str::len) + 2;
            version_error(window.get(line..).unwrap_or_default())
        }
        // Line ends of the request line, and of the head.
        Error::NewLine if request.version.is_none() => HeadError::VersionInvalid,
        _ => field_error(window, error),
    }
}

#[cold]
fn response_error(window: &[u8], error: Error) -> HeadError {
    match error {
        Error::Version => version_error(window),
        Error::Status | Error::Token => HeadError::StatusLineInvalid,
        _ => field_error(window, error),
    }
}

/// `HTTP/` and a digit is another version, all else is none. Six bytes decide, so that the outcome does
/// not depend on how many have arrived.
fn version_error(bytes: &[u8]) -> HeadError {
    match bytes.strip_prefix(b"HTTP/") {
        Some([digit, ..]) if digit.is_ascii_digit() => HeadError::VersionUnsupported,
        _ => HeadError::VersionInvalid,
    }
}

fn field_error(window: &[u8], error: Error) -> HeadError {
    match error {
        Error::HeaderName => field_name_error(window),
        Error::HeaderValue => HeadError::FieldValueInvalid,
        Error::TooManyHeaders => HeadError::FieldsTooMany,
        _ => HeadError::BareLineFeed,
    }
}

/// Finds the first field line with a bad name, and says what is bad about it. `httparse` does not tell,
/// and an operator who reads "invalid field name" deserves better.
fn field_name_error(window: &[u8]) -> HeadError {
    let lines = window.split(|&byte| byte == b'\n').skip(1);
    for line in lines {
        let name_len = run_len(line, is_token_byte);
        match line.get(name_len) {
            Some(b':') if name_len > 0 => {}
            Some(b' ' | b'\t') if name_len == 0 => return HeadError::FieldFolded,
            Some(b' ' | b'\t') => return HeadError::FieldNameSpace,
            _ => return HeadError::FieldNameInvalid,
        }
    }
    HeadError::FieldNameInvalid
}

/// Turns `httparse`'s fields into ours, and checks every line end: RFC 9112, 2.2, lets a recipient take a
/// bare LF for a line end, and just that lets two recipients disagree.
fn push_fields(
    bytes: &[u8],
    headers: &[Header<'_>],
    head_end: usize,
    fields: &mut Vec<Field>,
) -> Result<(), HeadError> {
    fields.reserve(headers.len());
    for header in headers {
        let name = Span::within(bytes, header.name.as_bytes());
        check_line_end(bytes, name.start as usize)?;
        fields.push(Field {
            name,
            value: Span::within(bytes, header.value),
            kind: FieldKind::of(header.name.as_bytes()),
            connection_named: false,
        });
    }
    // The line before the empty line, and the empty line.
    check_line_end(bytes, head_end.saturating_sub(2))?;
    check_line_end(bytes, head_end)
}

/// `httparse` has seen to it that an LF ends the line before `next_line`.
#[inline]
fn check_line_end(bytes: &[u8], next_line: usize) -> Result<(), HeadError> {
    match bytes.get(next_line.wrapping_sub(2)) {
        Some(b'\r') => Ok(()),
        _ => Err(HeadError::BareLineFeed),
    }
}

fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    }
}

/// What stands between the status and the end of its line; empty if nothing does. `httparse`'s own is
/// empty too if it holds bytes outside ASCII.
fn reason(bytes: &[u8], fields: &[Field], head_end: usize) -> Span {
    const STATUS_END: usize = "HTTP/1.1 200".len();
    let line_end = match fields.first() {
        Some(field) => field.name.start as usize,
        None => head_end.saturating_sub(2),
    };
    let start = STATUS_END + 1;
    let len = line_end.saturating_sub(2).saturating_sub(start);
    debug_assert!(start + len <= bytes.len());
    Span::at(start, len)
}
