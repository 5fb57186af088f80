//! Where a message ends: the only place that decides it (RFC 9112, 6.3).

use super::{
    Version,
    error::HeadError,
    fields::{is_token, trim},
};

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body; what follows is the next message, or after CONNECT or 101 the tunnel.
    #[default]
    None,
    /// This many bytes, at least one.
    Length(u64),
    /// Chunks, the last of size zero, then trailers.
    Chunked,
    /// All that comes until the connection ends; only answers have it.
    UntilClose,
}

/// What the fields of a head say of its framing, gathered while they are walked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FramingFields {
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// `Transfer-Encoding`, all its fields taken as one list.
    codings: Codings,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Codings {
    /// No `Transfer-Encoding`.
    #[default]
    Absent,
    /// `chunked` alone.
    Chunked,
    /// Others, then `chunked`.
    OthersThenChunked,
    /// Others only, so far.
    Others,
}

impl FramingFields {
    /// Adds a `Content-Length` field. One that is repeated is refused even if it agrees: RFC 9112, 6.3,
    /// allows it, and agreeing copies have no honest origin worth the risk.
    pub(super) fn add_content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.length.is_some() {
            return Err(HeadError::ContentLengthRepeated);
        }
        self.length = Some(parse_length(value).ok_or(HeadError::ContentLengthInvalid)?);
        Ok(())
    }

    /// Adds a `Transfer-Encoding` field. Empty list elements, which RFC 9110, 5.6.1.2, would ignore, are
    /// refused: `,chunked` is a classic of smuggling.
    pub(super) fn add_transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for element in value.split(|&byte| byte == b',') {
            let element = trim(element);
            let name_len = memchr::memchr(b';', element).unwrap_or(element.len());
            let (name, parameters) = element.split_at_checked(name_len).unwrap_or_default();
            let name = trim(name);
            if !is_token(name) {
                return Err(HeadError::TransferEncodingInvalid);
            }
            self.codings = match (self.codings, name.eq_ignore_ascii_case(b"chunked")) {
                // Chunked is applied once, and last (RFC 9112, 7.1).
                (Codings::Chunked | Codings::OthersThenChunked, _) => {
                    return Err(HeadError::TransferEncodingNotChunked);
                }
                // And takes no parameters.
                (_, true) if !parameters.is_empty() => {
                    return Err(HeadError::TransferEncodingInvalid);
                }
                (Codings::Absent, true) => Codings::Chunked,
                (Codings::Others, true) => Codings::OthersThenChunked,
                (_, false) => Codings::Others,
            };
        }
        Ok(())
    }

    /// The framing of a request.
    pub(super) fn of_request(
        &self,
        version: Version,
        is_connect: bool,
    ) -> Result<Framing, HeadError> {
        let framing = self.explicit(version)?;
        if is_connect && (self.length.is_some() || framing.is_some()) {
            return Err(HeadError::ConnectWithBody);
        }
        Ok(framing.unwrap_or(Framing::None))
    }

    /// The framing of an answer to a request that was neither HEAD nor, with a 2xx, CONNECT, and whose
    /// status has a body.
    pub(super) fn of_response(&self, version: Version) -> Result<Framing, HeadError> {
        Ok(self.explicit(version)?.unwrap_or(Framing::UntilClose))
    }

    /// Whether there is a `Transfer-Encoding`.
    pub(super) fn has_transfer_encoding(&self) -> bool {
        self.codings != Codings::Absent
    }

    /// The framing that the fields give; `None` if they are silent.
    pub(super) fn explicit(&self, version: Version) -> Result<Option<Framing>, HeadError> {
        if self.codings == Codings::Absent {
            return Ok(match self.length {
                Some(0) => Some(Framing::None),
                Some(length) => Some(Framing::Length(length)),
                None => None,
            });
        }
        if self.length.is_some() {
            return Err(HeadError::ContentLengthWithTransferEncoding);
        }
        if version == Version::Http10 {
            return Err(HeadError::TransferEncodingInHttp10);
        }
        match self.codings {
            Codings::Chunked => Ok(Some(Framing::Chunked)),
            Codings::OthersThenChunked => Err(HeadError::TransferCodingUnsupported),
            Codings::Others | Codings::Absent => Err(HeadError::TransferEncodingNotChunked),
        }
    }
}

/// Digits only: no sign, no list, no white space inside, no more than 64 bits (RFC 9110, 8.6).
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}
