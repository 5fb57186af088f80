//! Every rule that a head can break.

use core::fmt;

/// The rule that a head broke. After an error the connection cannot be used further: where the message
/// ends is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// More than a few empty lines before a request, or half a line end (RFC 9112, 2.2).
    LeadingLines,
    /// A method that is no token (RFC 9112, 3.1).
    MethodInvalid,
    /// A method longer than any that exists (RFC 9112, 3).
    MethodTooLong,
    /// A request target with bytes that no form of it allows (RFC 9112, 3.2; RFC 3986).
    TargetInvalid,
    /// A request target above the limit (RFC 9112, 3).
    TargetTooLong,
    /// `*` with another method than OPTIONS (RFC 9112, 3.2.4).
    AsteriskForm,
    /// CONNECT without `host:port`, or `host:port` without CONNECT (RFC 9112, 3.2.3).
    AuthorityForm,
    /// An absolute target of another scheme than http and https (RFC 9112, 3.2.2).
    SchemeUnsupported,
    /// No `HTTP/x.y` where it belongs (RFC 9112, 2.3).
    VersionInvalid,
    /// Neither HTTP/1.0 nor HTTP/1.1 (RFC 9110, 2.5).
    VersionUnsupported,
    /// A status line that is none, or a status below 100 (RFC 9112, 4).
    StatusLineInvalid,
    /// A line that ends in LF without CR (RFC 9112, 2.2).
    BareLineFeed,
    /// A head above the limit.
    HeadTooLarge,
    /// More fields than the limit.
    FieldsTooMany,
    /// A field name that is no token, or no colon after it (RFC 9110, 5.1).
    FieldNameInvalid,
    /// White space between a field name and its colon (RFC 9112, 5.1).
    FieldNameSpace,
    /// A line that begins with white space: obs-fold, or white space before the first field
    /// (RFC 9112, 5.2 and 2.2).
    FieldFolded,
    /// CR, NUL or another control byte in a field value (RFC 9110, 5.5).
    FieldValueInvalid,
    /// An HTTP/1.1 request without `Host` (RFC 9112, 3.2).
    HostMissing,
    /// More than one `Host` (RFC 9112, 3.2).
    HostRepeated,
    /// A `Host`, or an authority in the target, that is no host with an optional port (RFC 9110, 7.2).
    HostInvalid,
    /// User information in an authority (RFC 9110, 4.2.4).
    UserInformation,
    /// A `Connection` option that is no token (RFC 9110, 7.6.1).
    ConnectionOptionInvalid,
    /// More `Connection` options than we are ready to match.
    ConnectionOptionsTooMany,
    /// A `Content-Length` that is no decimal number, a list, or beyond 64 bits (RFC 9112, 6.3).
    ContentLengthInvalid,
    /// More than one `Content-Length`, even if they agree (RFC 9112, 6.3 allows to refuse).
    ContentLengthRepeated,
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112, 6.3).
    ContentLengthWithTransferEncoding,
    /// `Transfer-Encoding` in an HTTP/1.0 message (RFC 9112, 6.1).
    TransferEncodingInHttp10,
    /// A `Transfer-Encoding` that is no list of codings (RFC 9112, 6.1 and 7).
    TransferEncodingInvalid,
    /// A `Transfer-Encoding` whose last coding is not `chunked`, or that applies it twice (RFC 9112, 6.3).
    TransferEncodingNotChunked,
    /// A transfer coding besides `chunked` (RFC 9112, 6.1).
    TransferCodingUnsupported,
    /// `Transfer-Encoding` in an answer that has no body, 1xx or 204 (RFC 9112, 6.1).
    TransferEncodingWithoutBody,
    /// CONNECT with a body (RFC 9110, 9.3.6).
    ConnectWithBody,
    /// An `Expect` other than `100-continue` (RFC 9110, 10.1.1).
    ExpectationUnknown,
}

impl HeadError {
    /// The status that tells a client. For an answer's head the status towards the client is 502,
    /// whatever the rule.
    pub fn status(&self) -> u16 {
        match self {
            HeadError::TargetTooLong => 414,
            HeadError::ExpectationUnknown => 417,
            HeadError::HeadTooLarge | HeadError::FieldsTooMany => 431,
            HeadError::MethodTooLong | HeadError::TransferCodingUnsupported => 501,
            HeadError::StatusLineInvalid | HeadError::TransferEncodingWithoutBody => 502,
            HeadError::VersionUnsupported => 505,
            _ => 400,
        }
    }

    /// The rule in words, for a log line and the body of the answer.
    pub fn detail(&self) -> &'static str {
        match self {
            HeadError::LeadingLines => "too many empty lines before the request",
            HeadError::MethodInvalid => "invalid method",
            HeadError::MethodTooLong => "unknown method",
            HeadError::TargetInvalid => "invalid request target",
            HeadError::TargetTooLong => "request target too long",
            HeadError::AsteriskForm => "the target * is for OPTIONS only",
            HeadError::AuthorityForm => "CONNECT, and only it, takes host:port as its target",
            HeadError::SchemeUnsupported => "the target's scheme is neither http nor https",
            HeadError::VersionInvalid => "invalid protocol version",
            HeadError::VersionUnsupported => "unsupported protocol version",
            HeadError::StatusLineInvalid => "invalid status line",
            HeadError::BareLineFeed => "a line ends without CR",
            HeadError::HeadTooLarge => "head too large",
            HeadError::FieldsTooMany => "too many fields",
            HeadError::FieldNameInvalid => "invalid field name",
            HeadError::FieldNameSpace => "white space before a colon",
            HeadError::FieldFolded => "a field line begins with white space",
            HeadError::FieldValueInvalid => "invalid byte in a field value",
            HeadError::HostMissing => "no Host",
            HeadError::HostRepeated => "more than one Host",
            HeadError::HostInvalid => "invalid host",
            HeadError::UserInformation => "user information in the authority",
            HeadError::ConnectionOptionInvalid => "invalid Connection option",
            HeadError::ConnectionOptionsTooMany => "too many Connection options",
            HeadError::ContentLengthInvalid => "invalid Content-Length",
            HeadError::ContentLengthRepeated => "more than one Content-Length",
            HeadError::ContentLengthWithTransferEncoding => {
                "both Content-Length and Transfer-Encoding"
            }
            HeadError::TransferEncodingInHttp10 => "Transfer-Encoding in an HTTP/1.0 message",
            HeadError::TransferEncodingInvalid => "invalid Transfer-Encoding",
            HeadError::TransferEncodingNotChunked => "the last transfer coding is not chunked",
            HeadError::TransferCodingUnsupported => "unsupported transfer coding",
            HeadError::TransferEncodingWithoutBody => {
                "Transfer-Encoding in an answer without a body"
            }
            HeadError::ConnectWithBody => "CONNECT with a body",
            HeadError::ExpectationUnknown => "unknown expectation",
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl core::error::Error for HeadError {}
