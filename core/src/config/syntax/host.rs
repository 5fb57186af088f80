//! Addresses and hosts.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{Fault, Parsed};
use crate::{
    config::{codes, model::HostPattern},
    steering::HOST_LEN_MAX,
};

/// `IP:PORT`.
pub(in super::super) fn address(text: &str) -> Parsed<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (why, help) = address_fault(text);
    Err(Fault::new(codes::ADDRESS, why, help))
}

/// `IP:PORT` of something that is connected to.
pub(in super::super) fn endpoint(text: &str) -> Parsed<SocketAddr> {
    let address = address(text)?;
    if address.port() == 0 {
        return Err(Fault::new(
            codes::ADDRESS,
            "port 0",
            "write the port that the endpoint listens on",
        ));
    }
    if address.ip().is_unspecified() {
        let help = "write the endpoint's own address; on this machine it is `127.0.0.1`";
        return Err(Fault::new(codes::ADDRESS, "no address to connect to", help));
    }
    Ok(address)
}

fn address_fault(text: &str) -> (String, String) {
    let plain = |why: &str, help: &str| (why.to_owned(), help.to_owned());
    if let Some((_, rest)) = text.split_once("://") {
        return (
            "is a URL".to_owned(),
            format!("write `{}`", rest.trim_end_matches('/')),
        );
    }
    if text.starts_with("unix:") || text.starts_with('/') {
        return plain(
            "a Unix socket",
            "Unix sockets are not available in this version: write `IP:PORT`",
        );
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        // `::1:80` may be either.
        let help = match text.rsplit_once(':') {
            Some((host, port))
                if host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok() =>
            {
                format!("write \"[{host}]:{port}\" if {port} is the port, \"[{text}]:PORT\" if not")
            }
            _ => format!("write \"[{text}]:PORT\", with the port that is meant"),
        };
        return ("IPv6 without brackets".to_owned(), help);
    }
    if text.parse::<IpAddr>().is_ok() {
        return (
            "has no port".to_owned(),
            format!("write the port, too: `{text}:8080`"),
        );
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            return (
                "has no IP address".to_owned(),
                format!(
                    "write `0.0.0.0:{text}` for all addresses, `127.0.0.1:{text}` for this machine alone"
                ),
            );
        }
        return plain("has no port", "write `IP:PORT`, such as `127.0.0.1:8080`");
    };
    match port.parse::<u32>() {
        Ok(number) if number > 65_535 => return plain("no such port", "ports go from 0 to 65535"),
        Err(_) => {
            return plain(
                "port is not a number",
                "write `IP:PORT`, such as `127.0.0.1:8080`",
            );
        }
        Ok(_) => {}
    }
    match host {
        "" | "*" => (
            "has no IP address".to_owned(),
            format!("write `0.0.0.0:{port}` for all addresses"),
        ),
        "localhost" => ("is a name".to_owned(), format!("write `127.0.0.1:{port}`")),
        _ if host.parse::<Ipv6Addr>().is_ok() => (
            "IPv6 without brackets".to_owned(),
            format!("write \"[{host}]:{port}\""),
        ),
        _ if host.contains(|c: char| c.is_ascii_alphabetic()) => (
            "is a name".to_owned(),
            format!(
                "write an IP address here; a name is looked up with `endpoints: {{ dns: \"{text}\" }}`"
            ),
        ),
        _ => plain(
            "not an IP address",
            "write `IP:PORT`, such as `10.0.0.1:8080` or \"[::1]:8080\"",
        ),
    }
}

/// `HOST:PORT` that is looked up.
pub(in super::super) fn dns(text: &str) -> Parsed<(Arc<str>, u16)> {
    let fault = |why: &str, help: &str| Err(Fault::new(codes::ADDRESS, why, help));
    let Some((host, port)) = text.rsplit_once(':') else {
        return fault(
            "has no port",
            "write `HOST:PORT`, such as `pay.internal:8080`",
        );
    };
    if text.contains("://") {
        return fault("is a URL", "write `HOST:PORT`, without `http://`");
    }
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return fault("is an address, not a name", "write it under `static`");
    }
    match port.parse::<u16>() {
        Ok(0) | Err(_) => return fault("no such port", "ports go from 1 to 65535"),
        Ok(_) => {}
    }
    labels(host)?;
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    port.parse()
        .map(|port| (host.into(), port))
        .or_else(|_| fault("no such port", ""))
}

/// A host that requests are matched against.
pub(in super::super) fn host_pattern(text: &str) -> Parsed<HostPattern> {
    let fault = |why: &str, help: &str| Err(Fault::new(codes::HOST, why, help));
    let wild = text.matches('*').count();
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    if let Some(suffix) = text.strip_prefix("*.").filter(|_| wild == 1) {
        labels(suffix)?;
        return Ok(HostPattern::Suffix(
            format!(".{}", suffix.to_ascii_lowercase()).into(),
        ));
    }
    if let Some(prefix) = text.strip_suffix(".*").filter(|_| wild == 1) {
        labels(prefix)?;
        return Ok(HostPattern::Prefix(
            format!("{}.", prefix.to_ascii_lowercase()).into(),
        ));
    }
    if wild > 0 {
        return fault(
            "a wildcard in the wrong place",
            "a wildcard is the whole first or last label: \"*.example\", \"pay.*\"; any host is \"*\"",
        );
    }
    if let Some(address) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return match address.parse::<Ipv6Addr>() {
            Ok(_) => Ok(HostPattern::Exact(text.to_ascii_lowercase().into())),
            Err(_) => fault("not an IPv6 address", "write \"[::1]\" and the like"),
        };
    }
    labels(text)?;
    Ok(HostPattern::Exact(text.to_ascii_lowercase().into()))
}

/// A host with or without a port, as it stands in a URL.
pub(in super::super) fn authority(text: &str) -> Parsed<Arc<str>> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) && !text.contains('/') {
        return Err(Fault::new(
            codes::HOST,
            "no such port",
            "ports go from 1 to 65535",
        ));
    }
    match host_pattern(host)? {
        HostPattern::Exact(_) => Ok(text.to_ascii_lowercase().into()),
        _ => Err(Fault::new(
            codes::HOST,
            "a wildcard",
            "write one host: there is nothing to fill a wildcard with",
        )),
    }
}

/// Checks that `host` is made of labels (RFC 1034, 3.5, and the underscore that people use).
fn labels(host: &str) -> Parsed<()> {
    let fault = |why: &str, help: String| Err(Fault::new(codes::HOST, why, help));
    if let Some((_, rest)) = host.split_once("://") {
        let host = rest.split('/').next().unwrap_or(rest);
        return fault("is a URL", format!("write the host alone: `{host}`"));
    }
    if let Some((host, _)) = host.split_once('/') {
        return fault(
            "holds a path",
            format!("write `{host}` here, and the rest under `path`"),
        );
    }
    if let Some((name, _)) = host.split_once(':') {
        return fault(
            "holds a port",
            format!(
                "write `{name}`: hosts are compared without port; an IPv6 address needs brackets"
            ),
        );
    }
    if !host.is_ascii() {
        return fault(
            "not ASCII",
            "write the name as it travels, in punycode: `xn--…`".to_owned(),
        );
    }
    if host.len() > HOST_LEN_MAX {
        return fault(
            "too long",
            format!("a host has at most {HOST_LEN_MAX} characters"),
        );
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.ends_with('.') && host.len() > 1 {
        return fault(
            "ends with a dot",
            format!("write `{}`", host.trim_end_matches('.')),
        );
    }
    if !host.split('.').all(is_label) {
        return fault(
            "not a host",
            "write labels of letters, digits, `-` and `_`, joined by dots".to_owned(),
        );
    }
    Ok(())
}
