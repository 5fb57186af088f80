//! Methods and header fields.

use std::sync::Arc;

use super::{Fault, Parsed};
use crate::config::codes;

/// A method (RFC 9110, 9.1).
pub(in super::super) fn method(text: &str) -> Parsed<Arc<str>> {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    let upper = text.to_ascii_uppercase();
    if upper != text && KNOWN.contains(&upper.as_str()) {
        let help = format!("did you mean `{upper}`? methods are case-sensitive");
        return Err(Fault::new(codes::METHOD, "not in capitals", help));
    }
    if !is_token(text) {
        return Err(Fault::new(
            codes::METHOD,
            "not a method",
            "write `GET`, or a list: `[GET, HEAD]`",
        ));
    }
    Ok(text.into())
}

/// A header name in a condition, as lower case.
pub(in super::super) fn header_name(text: &str) -> Parsed<Arc<str>> {
    if let Some(pseudo) = text.strip_prefix(':') {
        let key = match pseudo {
            "authority" => "host",
            "path" | "method" => pseudo,
            _ => "host`, `path` or `method",
        };
        return Err(Fault::new(
            codes::HEADER_NAME,
            "a pseudo-header",
            format!("use the key `{key}` instead"),
        ));
    }
    if !is_token(text) {
        let help = "write a header name alone, without `:`, such as `x-canary`";
        return Err(Fault::new(codes::HEADER_NAME, "not a header name", help));
    }
    Ok(text.to_ascii_lowercase().into())
}

/// A header name in an edit, as lower case.
pub(in super::super) fn edited_header_name(text: &str) -> Parsed<Arc<str>> {
    // RFC 9110, 7.6.1 and 8.6; RFC 9112, 6.1: what frames a message and what belongs to one connection.
    const OWNED: [&str; 9] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    ];
    let name = header_name(text)?;
    if name.as_ref() == "host" {
        let help = "use `rewrite: { host: … }`";
        return Err(Fault::new(
            codes::HEADER_RESERVED,
            "changed elsewhere",
            help,
        ));
    }
    if OWNED.contains(&name.as_ref()) {
        let help = "remove it: framing and connections are the proxy's own";
        return Err(Fault::new(
            codes::HEADER_RESERVED,
            "owned by the proxy",
            help,
        ));
    }
    Ok(name)
}

/// A header value (RFC 9110, 5.5).
pub(in super::super) fn header_value(text: &str) -> Parsed<Arc<str>> {
    let fault = |why: &str, help: &str| Err(Fault::new(codes::HEADER_VALUE, why, help));
    if text
        .bytes()
        .any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f)
    {
        return fault(
            "holds a control character",
            "remove line breaks and other control characters",
        );
    }
    if text.trim_matches([' ', '\t']) != text {
        return fault(
            "begins or ends with a space",
            "remove the spaces around it: they are not part of a value",
        );
    }
    Ok(text.into())
}

/// A token (RFC 9110, 5.6.2).
pub(in super::super) fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}
