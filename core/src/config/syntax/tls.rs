//! What stands in the sections on TLS: names in certificates, protocols, labels, paths of files.

use std::{net::IpAddr, sync::Arc};

use super::{Fault, Parsed, host_pattern, plain_text};
use crate::config::{
    codes,
    model::{HostPattern, SanKind, SanPattern},
};

/// The path of a file.
pub(in super::super) fn file_path(text: &str) -> Parsed<Arc<str>> {
    let fault = |why: &str, help: &str| Err(Fault::new(codes::TEXT, why, help));
    if text.is_empty() {
        return fault("is empty", "write the path of a file");
    }
    if text.contains("://") {
        return fault("is a URL", "write the path alone: `/etc/tidegate/web.pem`");
    }
    if text.starts_with("~/") {
        return fault("`~` is the shell's", "write the path from `/`");
    }
    plain_text(text).map(Arc::from)
}

/// A URI in a certificate (RFC 5280, 4.2.1.6), with a `*` at one end.
pub(in super::super) fn san_uri(text: &str) -> Parsed<SanPattern> {
    let fault = |why: &str, help: &str| Err(Fault::new(codes::SUBJECT_ALT_NAME, why, help));
    let (pattern, has_scheme) = match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => {
            let help = "remove the list: without it every certificate of the authorities is taken";
            return fault("matches everything", help);
        }
        (Some(suffix), _) => (SanPattern::Suffix(suffix.into()), true),
        (_, Some(prefix)) => (SanPattern::Prefix(prefix.into()), scheme(prefix)),
        (None, None) => (SanPattern::Exact(text.into()), scheme(text)),
    };
    let wild = text.matches('*').count();
    if wild > 1 || (wild == 1 && matches!(pattern, SanPattern::Exact(_))) {
        let help = "one `*` stands at the end or at the beginning: `spiffe://mesh/ns/pay/*`";
        return fault("a wildcard in the wrong place", help);
    }
    if !text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
        let help = "write the URI as it stands in the certificate, percent-encoded";
        return fault("not a URI", help);
    }
    if !has_scheme {
        let help = "write the whole URI, such as `spiffe://mesh/ns/pay/sa/pay`; a host name goes under `dns`";
        return fault("has no scheme", help);
    }
    Ok(pattern)
}

/// Whether a text begins with a scheme (RFC 3986, 3.1).
fn scheme(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// A DNS name in a certificate, wildcards as those of hosts; lower case.
pub(in super::super) fn san_dns(text: &str) -> Parsed<SanPattern> {
    let fault = |why: &str, help: &str| Err(Fault::new(codes::SUBJECT_ALT_NAME, why, help));
    if text.contains("://") {
        return fault("is a URI", "write it under `uri`");
    }
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        let help = "only names are compared: name the peer by `dns` or `uri`";
        return fault("is an address", help);
    }
    match host_pattern(text)? {
        HostPattern::Exact(name) => Ok(SanPattern::Exact(name)),
        HostPattern::Suffix(name) => Ok(SanPattern::Suffix(name)),
        HostPattern::Prefix(name) => Ok(SanPattern::Prefix(name)),
        HostPattern::Any => {
            let help = "remove the list: without it every certificate of the authorities is taken";
            fault("matches everything", help)
        }
    }
}

/// What a wildcard matches beside what was probably meant: `spiffe://mesh/ns/pay*` takes `payroll`, too.
pub(in super::super) fn overreach(kind: SanKind, pattern: &SanPattern) -> Option<String> {
    match pattern {
        SanPattern::Prefix(prefix) if kind == SanKind::Uri && !prefix.ends_with(['/', ':']) => {
            Some(format!("{prefix}-other"))
        }
        SanPattern::Suffix(suffix) if kind == SanKind::Uri && !suffix.starts_with('/') => {
            Some(format!("…/other-{suffix}"))
        }
        _ => None,
    }
}

/// The server name of a client, a DNS name or an address; lower case.
pub(in super::super) fn server_name(text: &str) -> Parsed<Arc<str>> {
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(address.to_string().into());
    }
    match host_pattern(text)? {
        HostPattern::Exact(name) => Ok(name),
        _ => Err(Fault::new(
            codes::HOST,
            "a wildcard",
            "write one name; several that are accepted go under `subject_alt_names`",
        )),
    }
}

/// The name of a protocol in ALPN (RFC 7301, 3.1), one of those `spoken`, if that is limited.
pub(in super::super) fn alpn(text: &str, spoken: Option<&[&str]>) -> Parsed<Arc<str>> {
    let fault = |code, why: &str, help: &str| Err(Fault::new(code, why, help));
    if text.is_empty() || !text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
        let help = "write the name of a protocol such as `http/1.1`";
        return fault(codes::TEXT, "not a protocol", help);
    }
    if spoken.is_none_or(|spoken| spoken.contains(&text)) {
        return Ok(text.into());
    }
    match text {
        "h2" | "h3" => fault(
            codes::UNAVAILABLE,
            "not available yet",
            "remove it: it is refused rather than ignored, so that no client chooses what nobody speaks here",
        ),
        _ => fault(
            codes::UNKNOWN_VALUE,
            "not spoken here",
            "HTTP speaks `http/1.1`; other protocols go through `protocol: tcp`",
        ),
    }
}

/// The key of a label, a zone or another short text that is compared and never empty.
pub(in super::super) fn label(text: &str) -> Parsed<Arc<str>> {
    if text.is_empty() {
        return Err(Fault::new(codes::TEXT, "is empty", "write some text"));
    }
    if text.len() > crate::config::LABEL_MAX {
        let why = format!("is {} bytes long", text.len());
        let help = format!("at most {} are allowed", crate::config::LABEL_MAX);
        return Err(Fault::new(codes::TOO_LONG, why, help));
    }
    plain_text(text).map(Arc::from)
}
