//! Heads of HTTP/1 as fields of HTTP/2.
//!
//! * [`response_fields`]: an answer for a client.
//! * [`request_fields`]: a request for an endpoint.
//!
//! What ends at this hop stays behind, as in [`forward_response`](crate::http1::forward_response), and so
//! does every field of framing but `Content-Length`: frames say where a message ends.

use super::{RequestLine, head::end_to_end, hpack::FieldLine};
use crate::http1::{
    FieldKind, ResponseEdits, ResponseHead,
    forward::{NameEdits, is_editable},
};

/// The text of a request that [`forward_request`](crate::http1::forward_request) has written, as the fields of
/// HTTP/2: one place writes heads for the next hop, whatever that speaks.
///
/// The text is ours, and well-formed; of any other a line that is none is left out.
pub fn request_fields<'a>(
    text: &'a [u8],
    scheme: &'static str,
) -> (RequestLine<'a>, impl Iterator<Item = FieldLine<'a>>) {
    let mut lines = text.split(|&byte| byte == b'\n');
    let mut start = lines.next().unwrap_or_default().split(|&byte| byte == b' ');
    let (method, target) = (start.next(), start.next());
    let lines = lines.filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at_checked(colon)?;
        Some((name, value.get(1..)?.trim_ascii()))
    });
    let host = lines
        .clone()
        .find(|(name, _)| FieldKind::of(name) == FieldKind::Host);
    let line = RequestLine {
        method: method.unwrap_or_default(),
        scheme: scheme.as_bytes(),
        authority: host.map(|(_, value)| value).unwrap_or_default(),
        path: target.unwrap_or_default(),
        protocol: None,
    };
    let fields = lines.filter(|(name, _)| {
        !matches!(
            FieldKind::of(name),
            FieldKind::Host
                | FieldKind::Connection
                | FieldKind::HopByHop
                | FieldKind::TransferEncoding
                | FieldKind::Upgrade
        )
    });
    (
        line,
        fields.map(|(name, value)| FieldLine::new(name, value)),
    )
}

/// The fields of an answer for a client that speaks HTTP/2, `edits` done. Those of `edits` that concern an
/// HTTP/1 connection have no effect.
pub fn response_fields<'a>(
    bytes: &'a [u8],
    head: &'a ResponseHead,
    edits: &'a ResponseEdits<'a>,
) -> impl Iterator<Item = FieldLine<'a>> {
    let named = NameEdits {
        remove: edits.remove,
        set: edits.set,
    };
    // RFC 9110, 8.6: not on an answer that cannot have a body; and not if chunks have overruled it.
    let has_length = head.content_length.is_some() && !head.forbids_body();
    let kept = end_to_end(&head.fields, bytes, &[]).filter(move |line| {
        match FieldKind::of(line.name) {
            FieldKind::ContentLength => has_length,
            // Asks a server for something.
            FieldKind::Te => false,
            _ => !named.names(line.name),
        }
    });
    let written = (edits.set.iter().chain(edits.append))
        .filter(|(name, _)| is_editable(name.as_bytes()))
        .map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
    let own =
        (edits.extra.iter()).map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
    kept.chain(written).chain(own)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        http1::{Progress, RequestKind},
        limits::Http1Limits,
    };

    fn fields(answer: &[u8], edits: &ResponseEdits<'_>) -> Vec<String> {
        let mut head = ResponseHead::default();
        let parsed = head.parse(answer, RequestKind::Other, &Http1Limits::default());
        assert_eq!(parsed, Ok(Progress::Complete));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        response_fields(answer, &head, edits)
            .map(|line| format!("{}: {}", text(line.name), text(line.value)))
            .collect()
    }

    /// Goal: nothing of an HTTP/1 connection reaches an HTTP/2 client (RFC 9113, 8.2.2). Method: an answer
    /// with every such field, one that `Connection` names, and edits.
    #[test]
    fn what_ends_at_this_hop() {
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
            Transfer-Encoding: chunked\r\nUpgrade: h2c\r\nTE: trailers\r\nProxy-Connection: close\r\n\
            Trailer: x-sum\r\nServer: o\r\nX-Gone: 1\r\nX-Set: old\r\n\r\n";
        let text = |text: &str| Arc::<str>::from(text);
        let edits = ResponseEdits {
            close: true,
            upgrade: true,
            remove: &[text("x-gone")],
            set: &[(text("x-set"), text("new"))],
            append: &[(text("x-more"), text("1")), (text("connection"), text("x"))],
            extra: &[("x-own", "1")],
            ..ResponseEdits::default()
        };
        assert_eq!(
            fields(answer, &edits),
            [
                "Trailer: x-sum",
                "Server: o",
                "x-set: new",
                "x-more: 1",
                "x-own: 1"
            ]
        );
    }

    /// Goal: a request that was written for HTTP/1 says the same in HTTP/2. Method: a head with everything that
    /// stays behind; the line and the fields.
    #[test]
    fn a_request_that_was_written() {
        let text = b"POST /a?b HTTP/1.1\r\nHost: h:1\r\nX-A: b: c\r\nX-Empty: \r\nContent-Length: 3\r\n\
            Transfer-Encoding: chunked\r\nUpgrade: x\r\nConnection: upgrade, TE\r\nTE: trailers\r\n\r\n";
        let (line, fields) = request_fields(text, "https");
        assert_eq!(
            line,
            RequestLine {
                method: b"POST",
                scheme: b"https",
                authority: b"h:1",
                path: b"/a?b",
                protocol: None,
            }
        );
        let fields: Vec<_> = fields.map(|line| (line.name, line.value)).collect();
        let expected: [(&[u8], &[u8]); 4] = [
            (b"X-A", b"b: c"),
            (b"X-Empty", b""),
            (b"Content-Length", b"3"),
            (b"TE", b"trailers"),
        ];
        assert_eq!(fields, expected);
    }

    /// Goal: a length is said where there can be one. Method: an answer with a body, one without.
    #[test]
    fn lengths() {
        let edits = ResponseEdits::default();
        let length = ["Content-Length: 3"];
        assert_eq!(
            fields(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &edits),
            length
        );
        assert_eq!(
            fields(b"HTTP/1.1 304 N\r\nContent-Length: 3\r\n\r\n", &edits),
            length
        );
        let none: [&str; 0] = [];
        assert_eq!(
            fields(b"HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n", &edits),
            none
        );
    }
}
