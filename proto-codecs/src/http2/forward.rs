//! Heads of HTTP/1 as fields of HTTP/2.
//!
//! What ends at this hop stays behind, as in [`forward_response`](crate::http1::forward_response), and so
//! does every field of framing but `Content-Length`: frames say where a message ends.

use super::{head::end_to_end, hpack::FieldLine};
use crate::http1::{
    FieldKind, ResponseEdits, ResponseHead,
    forward::{NameEdits, is_editable},
};

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
