//! The head of an answer.

use super::{
    Progress, Version,
    error::HeadError,
    fields::{self, ConnectionOptions, Field, FieldKind, Span},
    framing::{Framing, FramingFields},
    lexer,
};
use crate::limits::Http1Limits;

/// What must be known of a request to frame the answer to it (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    /// HEAD: the answer has no body, whatever its fields say.
    Head,
    /// CONNECT: after a 2xx the connection is a tunnel.
    Connect,
    /// Any other method.
    #[default]
    Other,
}

/// A well-formed head of an answer. Its spans are offsets into the bytes that it was parsed from.
///
/// Made to be reused: [`parse`](ResponseHead::parse) keeps the allocation of `fields`.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// The endpoint's version.
    pub version: Version,
    /// The reason phrase; often empty.
    pub reason: Span,
    /// All fields, in order.
    pub fields: Vec<Field>,
    /// How the body is delimited. [`Framing::None`] too where a tunnel begins (101, 2xx to CONNECT).
    pub framing: Framing,
    /// `Content-Length`; an answer to HEAD and a 304 have one without having a body.
    pub content_length: Option<u64>,
    /// Whether the connection can be used again after the body (RFC 9112, 9.3).
    pub keep_alive: bool,
    /// The bytes behind the head belong to another protocol: 101, or 2xx to CONNECT.
    pub tunnel: bool,
    /// What is spoken from here on (with 101), or what should be (with 426).
    pub upgrade: Option<Span>,
    /// Bytes of the head. The body begins here.
    pub len: usize,
}

impl ResponseHead {
    /// Parses the head at the beginning of `bytes`, the answer to a request of kind `request`. Unless the
    /// outcome is [`Progress::Complete`], the head is left empty.
    ///
    /// Stateless: on [`Progress::Partial`], call again with the same bytes and more behind them. After a
    /// 1xx other than 101 the final answer follows, for the same request.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        request: RequestKind,
        limits: &Http1Limits,
    ) -> Result<Progress, HeadError> {
        self.clear();
        let outcome = self.fill(bytes, request, limits);
        if outcome != Ok(Progress::Complete) {
            self.clear();
        }
        outcome
    }

    /// Forgets everything but the allocation.
    pub fn clear(&mut self) {
        let mut fields = core::mem::take(&mut self.fields);
        fields.clear();
        *self = ResponseHead {
            fields,
            ..ResponseHead::default()
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

    /// Whether another head follows for the same request: 1xx, but not 101.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Whether there is no body, nor may be one announced: 1xx, 204, 2xx to CONNECT.
    pub(crate) fn forbids_body(&self) -> bool {
        self.tunnel || matches!(self.status, 100..200 | 204)
    }

    fn fill(
        &mut self,
        bytes: &[u8],
        request: RequestKind,
        limits: &Http1Limits,
    ) -> Result<Progress, HeadError> {
        let Some(line) = lexer::response(bytes, limits, &mut self.fields)? else {
            return Ok(Progress::Partial);
        };
        self.status = line.status;
        self.version = line.version;
        self.reason = line.reason;
        self.len = line.head_end;
        self.fill_from_fields(bytes, request)?;
        Ok(Progress::Complete)
    }

    fn fill_from_fields(&mut self, bytes: &[u8], request: RequestKind) -> Result<(), HeadError> {
        let mut framing = FramingFields::default();
        let mut connection = ConnectionOptions::default();
        for field in &self.fields {
            let value = field.value.of(bytes);
            match field.kind {
                FieldKind::ContentLength => framing.add_content_length(value)?,
                FieldKind::TransferEncoding => framing.add_transfer_encoding(value)?,
                FieldKind::Connection => connection.add(value)?,
                FieldKind::Upgrade if self.upgrade.is_none() => self.upgrade = Some(field.value),
                _ => {}
            }
        }
        self.content_length = framing.length;
        self.tunnel = self.status == 101
            || (request == RequestKind::Connect && (200..300).contains(&self.status));
        self.framing = self.frame(&framing, request)?;
        connection.mark(bytes, &mut self.fields);
        let is_11 = self.version == Version::Http11;
        self.keep_alive = !connection.close
            && (is_11 || connection.keep_alive)
            && self.framing != Framing::UntilClose
            && !self.announces_forbidden_body();
        Ok(())
    }

    /// RFC 9112, 6.3, in its order.
    fn frame(&self, fields: &FramingFields, request: RequestKind) -> Result<Framing, HeadError> {
        if self.tunnel && self.status != 101 {
            // Its framing fields, if any, are to be ignored.
            return Ok(Framing::None);
        }
        if matches!(self.status, 100..200 | 204) {
            // Endpoints that do this tend to send the last chunk as well.
            if fields.has_transfer_encoding() {
                return Err(HeadError::TransferEncodingWithoutBody);
            }
            return Ok(Framing::None);
        }
        let framing = fields.of_response(self.version)?;
        if self.status == 304 || request == RequestKind::Head {
            return Ok(Framing::None);
        }
        Ok(framing)
    }

    /// A 1xx or 204 with a length: forbidden (RFC 9110, 8.6), and the bytes may well follow. The answer is
    /// good, the connection behind it is not.
    fn announces_forbidden_body(&self) -> bool {
        matches!(self.status, 100..200 | 204) && self.content_length.is_some_and(|len| len > 0)
    }
}
