//! What is refused, what is taken, and by which rule: the cases that request smuggling is made of.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use tidegate_codecs::{
    http1::{
        Framing::{self, Chunked, Length, UntilClose},
        HeadError::{self, *},
        Progress, RequestHead,
        RequestKind::{self, Connect, Head, Other},
        ResponseHead,
    },
    limits::Http1Limits,
};

type Outcome = Result<Framing, HeadError>;

/// RFC section, what follows `Host: a` in a request, outcome.
#[rustfmt::skip] // One case, one line.
const FIELDS: &[(&str, &str, Outcome)] = &[
    ("9112 6.2", "Content-Length: 5", Ok(Length(5))),
    ("9112 6.2", "Content-Length: 0", Ok(Framing::None)),
    ("9110 8.6", "Content-Length: 007", Ok(Length(7))),
    ("9112 6.2", "Content-Length:\t5 \t", Ok(Length(5))),
    ("9110 8.6", "Content-Length: 18446744073709551615", Ok(Length(u64::MAX))),
    ("9110 8.6", "Content-Length: 18446744073709551616", Err(ContentLengthInvalid)),
    ("9110 8.6", "Content-Length: +5", Err(ContentLengthInvalid)),
    ("9110 8.6", "Content-Length: -5", Err(ContentLengthInvalid)),
    ("9110 8.6", "Content-Length: 0x5", Err(ContentLengthInvalid)),
    ("9110 8.6", "Content-Length: 5 5", Err(ContentLengthInvalid)),
    ("9110 8.6", "Content-Length: 5.0", Err(ContentLengthInvalid)),
    ("9110 8.6", "Content-Length:", Err(ContentLengthInvalid)),
    ("9112 6.3", "Content-Length: 5, 5", Err(ContentLengthInvalid)),
    ("9112 6.3", "Content-Length: 5,", Err(ContentLengthInvalid)),
    ("9112 6.3", "Content-Length: 5\r\nContent-Length: 6", Err(ContentLengthRepeated)),
    ("9112 6.3", "Content-Length: 5\r\ncontent-length: 5", Err(ContentLengthRepeated)),
    ("9112 7.1", "Transfer-Encoding: chunked", Ok(Chunked)),
    ("9112 7", "transfer-encoding: CHUNKED", Ok(Chunked)),
    ("9112 6.3", "Content-Length: 5\r\nTransfer-Encoding: chunked", Err(ContentLengthWithTransferEncoding)),
    ("9112 6.3", "Transfer-Encoding: chunked\r\nContent-Length: 0", Err(ContentLengthWithTransferEncoding)),
    ("9112 6.3", "Transfer-Encoding: identity\r\nContent-Length: 5", Err(ContentLengthWithTransferEncoding)),
    ("9112 6.3", "Transfer-Encoding: identity", Err(TransferEncodingNotChunked)),
    ("9112 6.3", "Transfer-Encoding: gzip", Err(TransferEncodingNotChunked)),
    ("9112 6.3", "Transfer-Encoding: chunked, gzip", Err(TransferEncodingNotChunked)),
    ("9112 6.3", "Transfer-Encoding: chunked, identity", Err(TransferEncodingNotChunked)),
    ("9112 7.1", "Transfer-Encoding: chunked, chunked", Err(TransferEncodingNotChunked)),
    ("9112 7.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Err(TransferEncodingNotChunked)),
    ("9112 6.3", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", Err(TransferEncodingNotChunked)),
    ("9112 6.1", "Transfer-Encoding: gzip, chunked", Err(TransferCodingUnsupported)),
    ("9112 6.1", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Err(TransferCodingUnsupported)),
    ("9112 6.1", "Transfer-Encoding: xchunked", Err(TransferEncodingNotChunked)),
    ("9112 6.1", "Transfer-Encoding: \"chunked\"", Err(TransferEncodingInvalid)),
    ("9112 6.1", "Transfer-Encoding: chunked x", Err(TransferEncodingInvalid)),
    ("9112 6.1", "Transfer-Encoding: ,chunked", Err(TransferEncodingInvalid)),
    ("9112 6.1", "Transfer-Encoding: chunked,", Err(TransferEncodingInvalid)),
    ("9112 6.1", "Transfer-Encoding:", Err(TransferEncodingInvalid)),
    ("9112 7.1", "Transfer-Encoding: chunked;a=b", Err(TransferEncodingInvalid)),
    ("9110 5.5", "Transfer-Encoding: \x0bchunked", Err(FieldValueInvalid)),
    ("9110 5.5", "Transfer-Encoding: chunked\x0c", Err(FieldValueInvalid)),
    ("9110 5.1", "Transfer_Encoding: chunked\r\nContent-Length: 3", Ok(Length(3))),
    ("9110 7.6.1", "Connection: content-length\r\nContent-Length: 3", Ok(Length(3))),
    ("9110 7.6.1", "Connection: transfer-encoding\r\nTransfer-Encoding: chunked", Ok(Chunked)),
    ("9110 7.6.1", "Connection: close, \"x\"", Err(ConnectionOptionInvalid)),
    ("9110 7.6.1", "Connection: , close,,", Ok(Framing::None)),
    ("9112 2.2", "A: b\rC: d", Err(FieldValueInvalid)),
    ("9112 5.2", "A: b\r\n c", Err(FieldFolded)),
    ("9112 5.2", "A:\r\n\tb", Err(FieldFolded)),
    ("9112 5.1", "Transfer-Encoding\t: chunked", Err(FieldNameSpace)),
    ("9110 5.1", ": b", Err(FieldNameInvalid)),
    ("9110 5.1", "A", Err(FieldNameInvalid)),
    ("9110 5.1", "A(b): c", Err(FieldNameInvalid)),
    ("9110 5.1", "Transfer-Encoding\0: chunked", Err(FieldNameInvalid)),
    ("9110 5.1", "Cont\u{e9}nt: c", Err(FieldNameInvalid)),
    ("9110 5.5", "A: b\0c", Err(FieldValueInvalid)),
    ("9110 5.5", "A: b\x7fc", Err(FieldValueInvalid)),
    ("9110 5.5", "A: b\u{e9}\tc", Ok(Framing::None)),
    ("9110 5.5", "A:\r\nB: \t", Ok(Framing::None)),
    ("9112 3.2", "host: a", Err(HostRepeated)),
    ("9110 10.1.1", "Expect: 100-Continue\r\nContent-Length: 1", Ok(Length(1))),
    ("9110 10.1.1", "Expect: 200-ok\r\nContent-Length: 1", Err(ExpectationUnknown)),
];

/// RFC section, request line, outcome.
#[rustfmt::skip] // One case, one line.
const REQUEST_LINES: &[(&str, &str, Outcome)] = &[
    ("9112 6.3", "GET / HTTP/1.1", Ok(Framing::None)),
    ("9112 6.3", "POST / HTTP/1.1", Ok(Framing::None)),
    ("9112 3", "GET  / HTTP/1.1", Err(TargetInvalid)),
    ("9112 3", "GET /  HTTP/1.1", Err(VersionInvalid)),
    ("9112 3", "GET / HTTP/1.1 ", Err(BareLineFeed)),
    ("9112 3", "GET /", Err(TargetInvalid)),
    ("9112 3", " GET / HTTP/1.1", Err(MethodInvalid)),
    ("9112 3.1", "GE(T / HTTP/1.1", Err(MethodInvalid)),
    ("9112 3.1", "G\u{c9}T / HTTP/1.1", Err(MethodInvalid)),
    ("9112 3", "ABCDEFGHIJABCDEFGHIJABCDEFGHIJABC / HTTP/1.1", Err(MethodTooLong)),
    ("9112 3", "ABCDEFGHIJABCDEFGHIJABCDEFGHIJAB / HTTP/1.1", Ok(Framing::None)),
    ("9112 3.1", "PURGE / HTTP/1.1", Ok(Framing::None)),
    ("9112 2.3", "GET / HTTX/1.1", Err(VersionInvalid)),
    ("9112 2.3", "GET / http/1.1", Err(VersionInvalid)),
    ("9110 2.5", "GET / HTTP/1.2", Err(VersionUnsupported)),
    ("9110 2.5", "GET / HTTP/2.0", Err(VersionUnsupported)),
    ("9110 2.5", "GET / HTTP/0.9", Err(VersionUnsupported)),
    ("9112 2.3", "GET / HTTP/1.10", Err(BareLineFeed)),
    ("9112 3.2", "GET /a#b HTTP/1.1", Err(TargetInvalid)),
    ("9112 3.2", "GET /a\"b HTTP/1.1", Err(TargetInvalid)),
    ("9112 3.2", "GET /a\\b HTTP/1.1", Err(TargetInvalid)),
    ("9112 3.2", "GET /\u{e9} HTTP/1.1", Err(TargetInvalid)),
    ("9112 3.2", "GET /a\tb HTTP/1.1", Err(TargetInvalid)),
    ("9112 3.2", "GET /a\0b HTTP/1.1", Err(TargetInvalid)),
    ("3986 2.1", "GET /%zz HTTP/1.1", Err(TargetInvalid)),
    ("3986 2.1", "GET /% HTTP/1.1", Err(TargetInvalid)),
    ("3986 2.1", "GET /%2F%2f?a[]=%&b=^ HTTP/1.1", Ok(Framing::None)),
    ("9112 3.2", "GET a/b HTTP/1.1", Err(TargetInvalid)),
    ("9112 3.2.4", "OPTIONS * HTTP/1.1", Ok(Framing::None)),
    ("9112 3.2.4", "GET * HTTP/1.1", Err(AsteriskForm)),
    ("9110 9.3.6", "CONNECT a HTTP/1.1", Err(AuthorityForm)),
    ("9110 9.3.6", "CONNECT a: HTTP/1.1", Err(AuthorityForm)),
    ("9112 3.2.3", "CONNECT /a HTTP/1.1", Err(AuthorityForm)),
];

/// RFC section, all the fields of a request, outcome.
#[rustfmt::skip] // One case, one line.
const HOSTS: &[(&str, &str, Outcome)] = &[
    ("9112 3.2", "Host: a\r\nHost: b", Err(HostRepeated)),
    ("9110 7.2", "Host:", Ok(Framing::None)),
    ("9110 7.2", "Host: a_b.c:80", Ok(Framing::None)),
    ("9110 7.2", "Host: a:", Ok(Framing::None)),
    ("9110 7.2", "Host: [2001:db8::1]:80", Ok(Framing::None)),
    ("9110 7.2", "Host: [2001:db8::1", Err(HostInvalid)),
    ("9110 7.2", "Host: [::1]a", Err(HostInvalid)),
    ("9110 7.2", "Host: [v1.a]", Err(HostInvalid)),
    ("9110 7.2", "Host: a:65536", Err(HostInvalid)),
    ("9110 7.2", "Host: a:000080", Err(HostInvalid)),
    ("9110 7.2", "Host: a:b", Err(HostInvalid)),
    ("9110 7.2", "Host: a/b", Err(HostInvalid)),
    ("9110 7.2", "Host: a, b", Err(HostInvalid)),
    ("9110 7.2", "Host: a b", Err(HostInvalid)),
    ("9110 7.2", "Host: a%2eb", Err(HostInvalid)),
    ("9110 4.2.4", "Host: u@a", Err(UserInformation)),
];

/// RFC section, whole request, outcome.
#[rustfmt::skip] // One case, one line.
const REQUESTS: &[(&str, &str, Outcome)] = &[
    ("9112 6.1", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferEncodingInHttp10)),
    ("9110 9.3.6", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 3\r\n\r\n", Err(ConnectWithBody)),
    ("9110 9.3.6", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nTransfer-Encoding: chunked\r\n\r\n", Err(ConnectWithBody)),
    ("9112 2.2", "GET / HTTP/1.1\nHost: a\r\n\r\n", Err(BareLineFeed)),
    ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\n\r\n", Err(BareLineFeed)),
    ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n", Err(BareLineFeed)),
    ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\n\n", Err(BareLineFeed)),
    ("9112 2.2", "GET / HTTP/1.1\nHost: a\n\n", Err(BareLineFeed)),
    ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Err(FieldValueInvalid)),
    ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\n\rX", Err(BareLineFeed)),
    ("9112 2.2", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Framing::None)),
    ("9112 2.2", "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Framing::None)),
    ("9112 2.2", "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(LeadingLines)),
    ("9112 2.2", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(LeadingLines)),
    ("9112 2.2", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(LeadingLines)),
    ("9112 2.2", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(FieldFolded)),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(FieldNameSpace)),
    ("9112 3.2.3", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Ok(Framing::None)),
    ("9112 3.2.3", "GET a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Err(AuthorityForm)),
    ("9112 3.2", "GET / HTTP/1.1\r\n\r\n", Err(HostMissing)),
    ("9112 3.2", "GET / HTTP/1.0\r\n\r\n", Ok(Framing::None)),
    ("9112 3.2", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Err(HostRepeated)),
];

/// RFC section, kind of request, answer, outcome.
#[rustfmt::skip] // One case, one line.
const RESPONSES: &[(&str, RequestKind, &str, Outcome)] = &[
    ("9112 6.3", Other, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok(Length(5))),
    ("9112 6.3", Other, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(Framing::None)),
    ("9112 6.3", Other, "HTTP/1.1 200 OK\r\n\r\n", Ok(UntilClose)),
    ("9112 6.3", Other, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(Chunked)),
    ("9112 6.3", Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok(Framing::None)),
    ("9112 6.3", Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(Framing::None)),
    ("9112 6.3", Head, "HTTP/1.1 200 OK\r\n\r\n", Ok(Framing::None)),
    ("9112 6.3", Other, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Ok(Framing::None)),
    ("9112 6.3", Other, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Ok(Framing::None)),
    ("9112 6.3", Other, "HTTP/1.1 100 Continue\r\n\r\n", Ok(Framing::None)),
    ("9112 6.3", Other, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Ok(Framing::None)),
    ("9112 6.1", Other, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferEncodingWithoutBody)),
    ("9112 6.1", Other, "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferEncodingWithoutBody)),
    ("9112 6.3", Connect, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok(Framing::None)),
    ("9112 6.3", Connect, "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n", Ok(Length(5))),
    ("9112 6.3", Other, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Err(ContentLengthWithTransferEncoding)),
    ("9112 6.3", Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Err(ContentLengthWithTransferEncoding)),
    ("9112 6.3", Other, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Err(ContentLengthRepeated)),
    ("9112 6.3", Other, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Err(ContentLengthInvalid)),
    ("9112 6.3", Other, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", Err(TransferEncodingNotChunked)),
    ("9112 6.1", Other, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(TransferCodingUnsupported)),
    ("9112 6.1", Other, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferEncodingInHttp10)),
    ("9112 4", Other, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Ok(Framing::None)),
    ("9112 4", Other, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Ok(Framing::None)),
    ("9112 4", Other, "HTTP/1.1 200 caf\u{e9}\r\nContent-Length: 0\r\n\r\n", Ok(Framing::None)),
    ("9112 4", Other, "HTTP/1.1 99 Low\r\n\r\n", Err(StatusLineInvalid)),
    ("9110 15", Other, "HTTP/1.1 099 Low\r\n\r\n", Err(StatusLineInvalid)),
    ("9112 4", Other, "HTTP/1.1 2000 High\r\n\r\n", Err(StatusLineInvalid)),
    ("9112 4", Other, "HTTP/1.1  200 OK\r\n\r\n", Err(StatusLineInvalid)),
    ("9112 4", Other, "HTTP/1.1 200 a\0b\r\n\r\n", Err(StatusLineInvalid)),
    ("9112 2.3", Other, "HTTP/2.0 200 OK\r\n\r\n", Err(VersionUnsupported)),
    ("9112 2.3", Other, "ICY 200 OK\r\n\r\n", Err(VersionInvalid)),
    ("9112 2.2", Other, "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", Err(BareLineFeed)),
    ("9112 2.2", Other, "HTTP/1.1 200\nContent-Length: 0\r\n\r\n", Err(BareLineFeed)),
    ("9112 2.2", Other, "\r\nHTTP/1.1 200 OK\r\n\r\n", Err(StatusLineInvalid)),
    ("9112 5.2", Other, "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Err(FieldFolded)),
    ("9112 5.1", Other, "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", Err(FieldNameSpace)),
];

/// All requests of the tables: RFC section, request, outcome.
fn requests() -> impl Iterator<Item = (&'static str, String, Outcome)> {
    let fields = FIELDS.iter().map(|&(section, fields, outcome)| {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        (section, request, outcome)
    });
    let lines = REQUEST_LINES
        .iter()
        .map(|&(section, line, outcome)| (section, format!("{line}\r\nHost: a\r\n\r\n"), outcome));
    let hosts = HOSTS.iter().map(|&(section, fields, outcome)| {
        (
            section,
            format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"),
            outcome,
        )
    });
    let whole = REQUESTS
        .iter()
        .map(|&(section, request, outcome)| (section, request.to_owned(), outcome));
    fields.chain(lines).chain(hosts).chain(whole)
}

fn parse_request(bytes: &[u8], limits: &Http1Limits) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::default();
    match head.parse(bytes, limits)? {
        Progress::Complete => Ok(head),
        Progress::Partial => panic!("partial: {}", bytes.escape_ascii()),
    }
}

fn parse_response(bytes: &[u8], kind: RequestKind) -> Result<ResponseHead, HeadError> {
    let mut head = ResponseHead::default();
    match head.parse(bytes, kind, &Http1Limits::default())? {
        Progress::Complete => Ok(head),
        Progress::Partial => panic!("partial: {}", bytes.escape_ascii()),
    }
}

/// Goal: every rule of framing and syntax is kept, and none beyond them. Method: a table with the section
/// beside each case.
#[test]
fn request_heads() {
    for (section, request, expected) in requests() {
        let outcome = parse_request(request.as_bytes(), &Http1Limits::default());
        let framing = outcome.map(|head| {
            assert_eq!(head.len, request.len(), "RFC {section}: {request:?}");
            head.framing
        });
        assert_eq!(framing, expected, "RFC {section}: {request:?}");
    }
}

/// Goal: the same for answers, whose framing depends on the request. Method: a table.
#[test]
fn response_heads() {
    for (section, kind, response, expected) in RESPONSES {
        let framing = parse_response(response.as_bytes(), *kind).map(|head| head.framing);
        assert_eq!(framing, *expected, "RFC {section}: {response:?}");
    }
}

/// Goal: every rejected case, met byte by byte, is rejected for the same reason, and every good one is
/// partial until its last byte (split test). Method: all prefixes of both tables.
#[test]
fn byte_by_byte() {
    let limits = Http1Limits::default();
    for (section, request, expected) in requests() {
        let mut head = RequestHead::default();
        let outcome = first_decision(request.as_bytes(), |prefix| {
            head.parse(prefix, &limits)
                .map(|progress| (progress, head.framing))
        });
        assert_eq!(outcome, expected, "RFC {section}: {request:?}");
    }
    for (section, kind, response, expected) in RESPONSES {
        let mut head = ResponseHead::default();
        let outcome = first_decision(response.as_bytes(), |prefix| {
            head.parse(prefix, *kind, &limits)
                .map(|progress| (progress, head.framing))
        });
        assert_eq!(outcome, *expected, "RFC {section}: {response:?}");
    }
}

fn first_decision(
    bytes: &[u8],
    mut parse: impl FnMut(&[u8]) -> Result<(Progress, Framing), HeadError>,
) -> Outcome {
    for len in 0..=bytes.len() {
        match parse(bytes.get(..len).unwrap()) {
            Ok((Progress::Partial, _)) => {}
            Ok((Progress::Complete, framing)) => {
                assert_eq!(len, bytes.len(), "complete before its end");
                return Ok(framing);
            }
            Err(error) => return Err(error),
        }
    }
    panic!("partial: {}", bytes.escape_ascii());
}

/// Goal: each limit holds exactly. Method: a message at it, and one above.
#[test]
fn limits() {
    let limits = Http1Limits {
        head_bytes_max: 200,
        fields_max: 4,
        target_bytes_max: 20,
        ..Http1Limits::default()
    };
    let padded = |len: usize| {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n";
        head.replace("A: ", &format!("A: {}", "x".repeat(len - head.len())))
    };
    let fields = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "A: b\r\n".repeat(count - 1)
        )
    };
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
    for (at, above, error) in [
        (padded(200), padded(201), HeadError::HeadTooLarge),
        (fields(4), fields(5), HeadError::FieldsTooMany),
        (target(20), target(21), HeadError::TargetTooLong),
    ] {
        parse_request(at.as_bytes(), &limits).unwrap();
        assert_eq!(parse_request(above.as_bytes(), &limits).unwrap_err(), error);
        let mut head = RequestHead::default();
        let bytewise = first_decision(above.as_bytes(), |prefix| {
            head.parse(prefix, &limits)
                .map(|progress| (progress, head.framing))
        });
        assert_eq!(bytewise, Err(error));
    }
}

/// Goal: a head above the limit is refused before it has all come, and a long target too. Method: heads
/// without an end.
#[test]
fn endless_heads() {
    let limits = Http1Limits::default();
    let mut head = RequestHead::default();
    let target = format!("GET /{}", "a".repeat(limits.target_bytes_max));
    assert_eq!(
        head.parse(target.as_bytes(), &limits),
        Err(HeadError::TargetTooLong)
    );
    let mut field = b"GET / HTTP/1.1\r\nHost: a\r\nA: ".to_vec();
    field.resize(limits.head_bytes_max - 1, b'a');
    assert_eq!(head.parse(&field, &limits), Ok(Progress::Partial));
    field.push(b'a');
    assert_eq!(head.parse(&field, &limits), Err(HeadError::HeadTooLarge));
}

/// Goal: whatever the configuration says, the table of fields is bounded. Method: a limit above the cap.
#[test]
fn fields_cap() {
    let limits = Http1Limits {
        fields_max: usize::MAX,
        ..Http1Limits::default()
    };
    let request = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "A: b\r\n".repeat(count - 1)
        )
    };
    parse_request(request(Http1Limits::FIELDS_CAP).as_bytes(), &limits).unwrap();
    assert_eq!(
        parse_request(request(Http1Limits::FIELDS_CAP + 1).as_bytes(), &limits).unwrap_err(),
        HeadError::FieldsTooMany
    );
}

/// Goal: large heads, whose end is looked for before they are parsed, come out the same. Method: heads of
/// 6 KiB with each kind of end, in pieces of 500 bytes.
#[test]
fn large_heads_in_pieces() {
    let limits = Http1Limits::default();
    let filler = format!("A: {}\r\n", "x".repeat(6000));
    for (end, expected) in [
        ("\r\n", Ok(Framing::None)),
        ("\n", Err(HeadError::BareLineFeed)),
        ("B: c\n\n", Err(HeadError::BareLineFeed)),
        ("B: c\n\r\n", Err(HeadError::BareLineFeed)),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{filler}{end}");
        let mut head = RequestHead::default();
        let mut outcome = None;
        let lens = (0..request.len()).step_by(500).chain([request.len()]);
        for len in lens {
            match head.parse(&request.as_bytes()[..len], &limits) {
                Ok(Progress::Partial) => {}
                Ok(Progress::Complete) => outcome = Some(Ok(head.framing)),
                Err(error) => outcome = Some(Err(error)),
            }
        }
        assert_eq!(outcome, Some(expected), "{end:?}");
    }
}

/// Goal: what the spans cover is what was meant. Method: a table of targets and hosts.
#[test]
fn targets_and_hosts() {
    for (line, host_field, host, authority, path, query) in [
        (
            "GET /a/b?c=d",
            "Host: X.y:80",
            "X.y",
            "X.y:80",
            "/a/b",
            Some("c=d"),
        ),
        ("GET /?", "Host: x", "x", "x", "/", Some("")),
        (
            "GET /a?b?c",
            "Host: [::1]:8",
            "[::1]",
            "[::1]:8",
            "/a",
            Some("b?c"),
        ),
        ("GET http://h:8/p?q", "Host: x", "h", "h:8", "/p", Some("q")),
        ("GET http://h", "Host: x", "h", "h", "/", None),
        ("GET http://h?q", "Host: x", "h", "h", "/", Some("q")),
        ("GET https://[::2]/", "Host: x", "[::2]", "[::2]", "/", None),
        ("OPTIONS *", "Host: x", "x", "x", "*", None),
        ("CONNECT h:1", "Host: x", "h", "h:1", "", None),
        ("GET /", "Host:", "", "", "/", None),
    ] {
        let request = format!("\r\n{line} HTTP/1.1\r\n{host_field}\r\n\r\n");
        let bytes = request.as_bytes();
        let head = parse_request(bytes, &Http1Limits::default()).unwrap();
        assert_eq!(head.host.of(bytes), host.as_bytes(), "{line}");
        assert_eq!(head.authority.of(bytes), authority.as_bytes(), "{line}");
        assert_eq!(head.path.of(bytes), path.as_bytes(), "{line}");
        assert_eq!(
            head.query.map(|query| query.of(bytes)),
            query.map(str::as_bytes),
            "{line}"
        );
    }
}

/// Goal: a connection is kept exactly when both sides can rely on it (RFC 9112, 9.3). Method: a table.
#[test]
fn keep_alive() {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive, Close\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: a\r\nConnection: close\r\n\r\n",
            false,
        ),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
            false,
        ),
    ] {
        let head = parse_request(request.as_bytes(), &Http1Limits::default()).unwrap();
        assert_eq!(head.keep_alive, expected, "{request:?}");
    }
    for (response, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n",
            false,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
            true,
        ),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", true),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
            true,
        ),
    ] {
        let head = parse_response(response.as_bytes(), RequestKind::Other).unwrap();
        assert_eq!(head.keep_alive, expected, "{response:?}");
    }
}

/// Goal: an upgrade is offered to the relay only if it leaves HTTP (RFC 9110, 7.8). Method: a table.
#[test]
fn upgrades() {
    for (version, connection, upgrade, expected) in [
        ("1.1", "Upgrade", "websocket", Some("websocket")),
        (
            "1.1",
            "keep-alive, upgrade",
            "WebSocket, foo/2",
            Some("WebSocket, foo/2"),
        ),
        ("1.1", "keep-alive", "websocket", None),
        ("1.0", "upgrade", "websocket", None),
        ("1.1", "Upgrade, HTTP2-Settings", "h2c", None),
        ("1.1", "upgrade", "websocket, H2C", None),
        ("1.1", "upgrade", "TLS/1.2", None),
        ("1.1", "upgrade", "HTTP/2.0", None),
    ] {
        let request = format!(
            "GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n\r\n"
        );
        let bytes = request.as_bytes();
        let head = parse_request(bytes, &Http1Limits::default()).unwrap();
        assert_eq!(
            head.upgrade.map(|upgrade| upgrade.of(bytes)),
            expected.map(str::as_bytes),
            "{request:?}"
        );
    }
}

/// Goal: a client is told to go on only if it waits and a body comes (RFC 9110, 10.1.1). Method: a table.
#[test]
fn expectations() {
    for (request, expected) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
            false,
        ),
    ] {
        let head = parse_request(request.as_bytes(), &Http1Limits::default()).unwrap();
        assert_eq!(head.expect_continue, expected, "{request:?}");
    }
}

/// Goal: each error has the status that the RFC gives it. Method: one of each status.
#[test]
fn statuses() {
    for (error, status) in [
        (HeadError::HostMissing, 400),
        (HeadError::TargetTooLong, 414),
        (HeadError::ExpectationUnknown, 417),
        (HeadError::HeadTooLarge, 431),
        (HeadError::FieldsTooMany, 431),
        (HeadError::TransferCodingUnsupported, 501),
        (HeadError::MethodTooLong, 501),
        (HeadError::VersionUnsupported, 505),
    ] {
        assert_eq!(error.status(), status);
        assert!(!error.detail().is_empty());
    }
}

/// Goal: a head that is used again costs no allocation and remembers nothing. Method: heads of other
/// shapes, partial and bad ones between two parses of the same.
#[test]
fn heads_are_reused() {
    let limits = Http1Limits::default();
    let full = b"POST /a?b HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nX: y\r\nUpgrade: z\r\nContent-Length: 1\r\n\r\n";
    let mut head = RequestHead::default();
    assert_eq!(head.parse(full, &limits), Ok(Progress::Complete));
    let (first, at) = (format!("{head:?}"), head.fields.as_ptr());
    let empty = format!("{:?}", RequestHead::default());
    for (bytes, outcome) in [
        (&full[..40], Ok(Progress::Partial)),
        (b"GET / HTTP/1.1\r\n\r\n", Err(HostMissing)),
        (b"GET / HTTP/1.0\r\n\r\n", Ok(Progress::Complete)),
    ] {
        assert_eq!(head.parse(bytes, &limits), outcome);
        assert!(outcome == Ok(Progress::Complete) || format!("{head:?}") == empty);
        assert!(head.fields.is_empty());
    }
    assert_eq!(head.parse(full, &limits), Ok(Progress::Complete));
    assert_eq!(format!("{head:?}"), first);
    assert_eq!(head.fields.as_ptr(), at);
}
