//! The head of a request.

use super::{
    Progress, Version,
    error::HeadError,
    fields::{self, ConnectionOptions, Field, FieldKind, Span, elements},
    framing::{Framing, FramingFields},
    lexer,
    response::RequestKind,
    target::{Authority, Target, TargetForm},
};
use crate::limits::Http1Limits;

/// A method, as far as it matters to a proxy. Methods are case-sensitive (RFC 9110, 9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Any other token.
    Other,
}

impl Method {
    pub(crate) fn of(method: &[u8]) -> Method {
        match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }
}

/// A well-formed request head. Its spans are offsets into the bytes that it was parsed from.
///
/// Made to be reused: [`parse`](RequestHead::parse) keeps the allocation of `fields`.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method, as written.
    pub method: Span,
    /// The method, known or not.
    pub method_kind: Method,
    /// The target, as written.
    pub target: Span,
    /// The form of the target.
    pub form: TargetForm,
    /// The path of the target, without query. Never empty but for CONNECT: an absolute target without
    /// path has `/`, and `OPTIONS *` has `*`.
    pub path: Span,
    /// The query of the target, without its question mark.
    pub query: Option<Span>,
    /// The host, without port, in the case it was written; an IPv6 address keeps its brackets. From an
    /// absolute or authority target, else from `Host`. Empty if an HTTP/1.0 request names none, or if
    /// `Host` is empty.
    pub host: Span,
    /// The host with its port, if any.
    pub authority: Span,
    /// The client's version.
    pub version: Version,
    /// All fields, in order.
    pub fields: Vec<Field>,
    /// How the body is delimited; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// `Content-Length`, zero included.
    pub content_length: Option<u64>,
    /// Whether the client wants the connection kept (RFC 9112, 9.3).
    pub keep_alive: bool,
    /// What the client would like to speak instead (RFC 9110, 7.8): the first `Upgrade` field's value.
    ///
    /// `None` if the protocol is HTTP again (`h2c`, `TLS/1.0`): a relay of it would carry requests past
    /// every policy. The field is then ignored, as RFC 9110, 7.8, allows.
    pub upgrade: Option<Span>,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub expect_continue: bool,
    /// Bytes of the head, from the first one given (empty lines before the request included) to the end
    /// of its empty line. The body begins here.
    pub len: usize,
}

impl RequestHead {
    /// Parses the head at the beginning of `bytes`. Unless the outcome is [`Progress::Complete`], the head
    /// is left empty.
    ///
    /// Stateless: on [`Progress::Partial`], call again with the same bytes and more behind them.
    pub fn parse(&mut self, bytes: &[u8], limits: &Http1Limits) -> Result<Progress, HeadError> {
        self.clear();
        let outcome = self.fill(bytes, limits);
        if outcome != Ok(Progress::Complete) {
            self.clear();
        }
        outcome
    }

    /// Forgets everything but the allocation.
    pub fn clear(&mut self) {
        let mut fields = core::mem::take(&mut self.fields);
        fields.clear();
        *self = RequestHead {
            fields,
            ..RequestHead::default()
        };
    }

    /// The value of the first field of this name (lower case).
    pub fn field<'a>(&self, bytes: &'a [u8], name_lowercase: &str) -> Option<&'a [u8]> {
        fields::find(&self.fields, bytes, name_lowercase)
    }

    /// The values of all fields of this name (lower case), in order.
    pub fn fields_named<'a>(
        &self,
        bytes: &'a [u8],
        name_lowercase: &str,
    ) -> impl Iterator<Item = &'a [u8]> {
        fields::find_all(&self.fields, bytes, name_lowercase)
    }

    /// Whether the method is HEAD.
    pub fn is_head(&self) -> bool {
        self.method_kind == Method::Head
    }

    /// Whether the method is CONNECT.
    pub fn is_connect(&self) -> bool {
        self.method_kind == Method::Connect
    }

    /// What must be known of this request to frame the answer to it.
    pub fn kind(&self) -> RequestKind {
        match self.method_kind {
            Method::Head => RequestKind::Head,
            Method::Connect => RequestKind::Connect,
            _ => RequestKind::Other,
        }
    }

    /// Whether sending it twice does what sending it once does (RFC 9110, 9.2.2).
    pub fn idempotent(&self) -> bool {
        matches!(
            self.method_kind,
            Method::Get
                | Method::Head
                | Method::Put
                | Method::Delete
                | Method::Options
                | Method::Trace
        )
    }

    fn fill(&mut self, bytes: &[u8], limits: &Http1Limits) -> Result<Progress, HeadError> {
        let Some(line) = lexer::request(bytes, limits, &mut self.fields)? else {
            return Ok(Progress::Partial);
        };
        self.method = line.method;
        self.method_kind = Method::of(line.method.of(bytes));
        self.version = line.version;
        self.len = line.head_end;
        self.target = line.target;
        let target = Target::parse(bytes, line.target, self.method_kind)?;
        self.form = target.form;
        self.path = target.path;
        self.query = target.query;
        self.fill_from_fields(bytes, target.authority)?;
        Ok(Progress::Complete)
    }

    fn fill_from_fields(&mut self, bytes: &[u8], authority: Span) -> Result<(), HeadError> {
        let mut host = None;
        let mut framing = FramingFields::default();
        let mut connection = ConnectionOptions::default();
        let mut upgrade = None;
        let mut expects = false;
        for field in &self.fields {
            let value = field.value.of(bytes);
            match field.kind {
                FieldKind::Host if host.is_some() => return Err(HeadError::HostRepeated),
                FieldKind::Host => host = Some((field.value, Authority::parse(value)?)),
                FieldKind::ContentLength => framing.add_content_length(value)?,
                FieldKind::TransferEncoding => framing.add_transfer_encoding(value)?,
                FieldKind::Connection => connection.add(value)?,
                FieldKind::Upgrade if upgrade.is_none() => upgrade = Some(field.value),
                FieldKind::Expect if value.eq_ignore_ascii_case(b"100-continue") => expects = true,
                FieldKind::Expect => return Err(HeadError::ExpectationUnknown),
                _ => {}
            }
        }
        self.framing = framing.of_request(self.version, self.is_connect())?;
        self.content_length = framing.length;
        self.fill_host(bytes, authority, host)?;
        connection.mark(bytes, &mut self.fields);
        let is_11 = self.version == Version::Http11;
        self.keep_alive = !connection.close && (is_11 || connection.keep_alive);
        // RFC 9110, 7.8 and 10.1.1: both are ignored in HTTP/1.0, and an expectation without a body.
        self.upgrade = upgrade.filter(|_| is_11 && connection.upgrade && self.may_upgrade(bytes));
        self.expect_continue = expects && is_11 && self.framing != Framing::None;
        Ok(())
    }

    /// RFC 9112, 3.2: exactly one `Host` in HTTP/1.1. RFC 9112, 3.2.2: the authority of the target, if it
    /// has one, takes its place.
    fn fill_host(
        &mut self,
        bytes: &[u8],
        authority: Span,
        host: Option<(Span, Authority)>,
    ) -> Result<(), HeadError> {
        if host.is_none() && self.version == Version::Http11 {
            return Err(HeadError::HostMissing);
        }
        let (span, parsed) = if !authority.is_empty() {
            (authority, Authority::parse(authority.of(bytes))?)
        } else if let Some(host) = host {
            host
        } else {
            return Ok(());
        };
        self.authority = span;
        self.host = Span::at(span.start as usize, parsed.host_len);
        Ok(())
    }

    /// Whether every protocol offered is one that may be relayed.
    fn may_upgrade(&self, bytes: &[u8]) -> bool {
        const HTTP_AGAIN: [&[u8]; 4] = [b"h2c", b"h2", b"http", b"tls"];
        self.fields
            .iter()
            .filter(|field| field.kind == FieldKind::Upgrade)
            .flat_map(|field| elements(field.value.of(bytes)))
            .all(|protocol| {
                let name = protocol
                    .split(|&byte| byte == b'/')
                    .next()
                    .unwrap_or(protocol);
                !HTTP_AGAIN
                    .iter()
                    .any(|known| name.eq_ignore_ascii_case(known))
            })
    }
}
