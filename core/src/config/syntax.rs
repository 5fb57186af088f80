//! The small languages inside of values: hosts, paths, header fields, names, addresses.
//!
//! Each function takes text apart and says what is wrong with it, and how to mend it, as a [`Fault`].

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use super::{
    codes::{self, Code},
    model::{HostPattern, PathPattern},
};
use crate::steering::{self, HOST_LEN_MAX};

/// What is wrong with a text.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: &'static Code,
    /// A few words to stand under it.
    pub(super) why: String,
    pub(super) help: String,
}

impl Fault {
    fn new(code: &'static Code, why: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault {
            code,
            why: why.into(),
            help: help.into(),
        }
    }
}

type Parsed<T> = Result<T, Fault>;

/// The name of a listener, cluster, route or node.
pub(super) fn name(text: &str) -> Parsed<Arc<str>> {
    let bad = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "_.-:/".contains(*c)));
    let why = match bad {
        Some(bad) => format!("holds `{}`", bad.escape_default()),
        None if text.is_empty() => "is empty".to_owned(),
        None if text.len() > super::NAME_MAX => format!("is longer than {} bytes", super::NAME_MAX),
        None => return Ok(text.into()),
    };
    let help = "write 1 to 128 letters, digits and `_ . - : /`: names go into metrics and URLs";
    Err(Fault::new(codes::NAME, why, help))
}

/// Text that is shown, without control characters.
pub(super) fn plain_text(text: &str) -> Parsed<&str> {
    if text.chars().any(char::is_control) {
        let fault = "holds a control character";
        return Err(Fault::new(
            codes::TEXT,
            fault,
            "remove line breaks, tabs and the like",
        ));
    }
    Ok(text)
}

/// `IP:PORT`.
pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (why, help) = address_fault(text);
    Err(Fault::new(codes::ADDRESS, why, help))
}

/// `IP:PORT` of something that is connected to.
pub(super) fn endpoint(text: &str) -> Parsed<SocketAddr> {
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
pub(super) fn dns(text: &str) -> Parsed<(Arc<str>, u16)> {
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
pub(super) fn host_pattern(text: &str) -> Parsed<HostPattern> {
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
pub(super) fn authority(text: &str) -> Parsed<Arc<str>> {
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

/// A path that requests are matched against.
pub(super) fn path_pattern(text: &str) -> Parsed<PathPattern> {
    let fault = |why: &str, help: &str| Err(Fault::new(codes::PATH, why, help));
    if let Some(pattern) = text.strip_prefix('~') {
        regex(pattern)?;
        return Ok(PathPattern::Regex(pattern.into()));
    }
    path_bytes(text)?;
    if let Some(prefix) = text.strip_suffix("/**") {
        if prefix.contains('*') || prefix.contains(['{', '}']) {
            return fault(
                "a prefix with placeholders",
                "write `/users/{id}/{rest=**}`: a template whose last placeholder takes all that follows",
            );
        }
        let prefix = prefix.trim_end_matches('/');
        return Ok(PathPattern::Prefix(prefix.into()));
    }
    if text.contains(['{', '}']) {
        return template(text);
    }
    if text.contains('*') {
        return fault(
            "a wildcard in the wrong place",
            "`/**` at the end is everything below; one segment is `{name}`; anything else is a regular expression, `~^/a/[^/]*`",
        );
    }
    Ok(PathPattern::Exact(text.into()))
}

/// A path that replaces another, without query.
pub(super) fn path(text: &str) -> Parsed<Arc<str>> {
    path_bytes(text)?;
    if text.contains(['{', '}', '*']) {
        let help =
            "this path is sent as it stands; a `regex` with a `replacement` can refer to groups";
        return Err(Fault::new(
            codes::PATH,
            "a placeholder in a fixed path",
            help,
        ));
    }
    Ok(text.into())
}

/// A path with or without a query.
pub(super) fn path_and_query(text: &str) -> Parsed<Arc<str>> {
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    path(before)?;
    if !query
        .bytes()
        .all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#')
    {
        return Err(Fault::new(
            codes::PATH,
            "not a query",
            "percent-encode what is not visible ASCII: a space is `%20`",
        ));
    }
    Ok(text.into())
}

/// What holds of every path: begins with `/`, visible ASCII, no query, no dot segments.
fn path_bytes(text: &str) -> Parsed<()> {
    let fault = |why: &str, help: String| Err(Fault::new(codes::PATH, why, help));
    if !text.starts_with('/') {
        return match text {
            "*" | "**" => fault(
                "not a path",
                "leave `path` out, or write `/**`, for every path".to_owned(),
            ),
            _ if text.contains("://") => fault(
                "is a URL",
                "write the path alone, and the host under `host`".to_owned(),
            ),
            _ if text.starts_with('^') => fault(
                "not a path",
                format!("a regular expression begins with `~`: \"~{text}\""),
            ),
            _ => fault("does not begin with `/`", format!("write `/{text}`")),
        };
    }
    if text.contains('?') {
        return fault(
            "holds a query",
            "write the path alone; parameters are matched under `query`".to_owned(),
        );
    }
    if text.contains('#') {
        return fault(
            "holds a fragment",
            "remove it: clients do not send fragments".to_owned(),
        );
    }
    if !text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return fault(
            "not visible ASCII",
            "percent-encode it as clients send it: a space is `%20`, `ü` is `%C3%BC`".to_owned(),
        );
    }
    if steering::is_ambiguous_path(text.as_bytes()) {
        return fault(
            "holds a dot segment",
            "write the path that is meant: requests with `/./` or `/../` take no route".to_owned(),
        );
    }
    Ok(())
}

fn template(text: &str) -> Parsed<PathPattern> {
    let fault = |why: String| {
        let help = "a placeholder is a whole segment, `/users/{id}`, each name once; the last may be `{rest=**}`";
        Err(Fault::new(codes::PATH, why, help))
    };
    let mut names: Vec<&str> = Vec::new();
    let mut segments = text.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let inner = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        let Some(inner) = inner else {
            if segment.contains(['{', '}', '*']) {
                return fault(format!("`{segment}` is neither text nor a placeholder"));
            }
            continue;
        };
        let name = match inner.split_once('=') {
            Some((name, "**")) if segments.peek().is_none() => name,
            Some((_, "**")) => return fault(format!("`{segment}` is not the last segment")),
            Some(_) => return fault(format!("`{segment}` is no placeholder")),
            None => inner,
        };
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(word) {
            return fault(format!(
                "`{segment}` has no name of letters, digits and `_`"
            ));
        }
        if names.contains(&name) {
            return fault(format!("`{name}` stands twice"));
        }
        names.push(name);
    }
    Ok(PathPattern::Template(text.into()))
}

/// A regular expression over a whole path or value.
pub(super) fn regex(pattern: &str) -> Parsed<()> {
    steering::check_pattern(pattern).map_err(regex_fault)
}

/// A regular expression of a rewrite, with its replacement.
pub(super) fn rewrite_regex(pattern: &str) -> Parsed<()> {
    steering::check_rewrite_pattern(pattern).map_err(regex_fault)
}

fn regex_fault(error: steering::PatternError) -> Fault {
    // The engine draws a picture over several lines; its last line says what is wrong.
    let last = error.message.lines().last().unwrap_or("").trim();
    let why = last.strip_prefix("error: ").unwrap_or(last);
    let help = if why.contains("look-around") {
        "look-around does not exist here, since every match takes linear time: use two routes, the first for the exception"
    } else if why.contains("bytes") {
        "bound repetitions such as `{1,1000}`, or match the long list by several routes"
    } else {
        "put a `\\` before a special character that stands for itself; quote the value with '…' so that YAML keeps the `\\`"
    };
    Fault::new(codes::REGEX, why, help)
}

/// Groups that a replacement refers to and the expression does not have: the first, if any.
///
/// `$name` takes the longest run of word characters, as the engine does: `$1x` is a group named `1x`.
pub(super) fn unknown_group(pattern: &str, replacement: &str) -> Option<String> {
    let groups = group_names(pattern);
    let mut rest = replacement;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            continue;
        }
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let (name, behind) = match braced {
            Some(found) => found,
            None => after.split_at(after.find(word).unwrap_or(after.len())),
        };
        if !name.is_empty() && !groups.iter().any(|group| group == name) {
            return Some(name.to_owned());
        }
        rest = behind;
    }
    None
}

/// Numbers and names of the groups of a valid expression.
fn group_names(pattern: &str) -> Vec<String> {
    let syntax = regex_automata::util::syntax::Config::new().utf8(false);
    let builder = regex_automata::meta::Regex::builder()
        .syntax(syntax)
        .build(pattern);
    let Ok(regex) = builder else {
        return Vec::new();
    };
    let names = regex
        .group_info()
        .pattern_names(regex_automata::PatternID::ZERO);
    let named = names.enumerate().flat_map(|(number, name)| {
        std::iter::once(number.to_string()).chain(name.map(str::to_owned))
    });
    named.collect()
}

/// A method (RFC 9110, 9.1).
pub(super) fn method(text: &str) -> Parsed<Arc<str>> {
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
pub(super) fn header_name(text: &str) -> Parsed<Arc<str>> {
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
pub(super) fn edited_header_name(text: &str) -> Parsed<Arc<str>> {
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
pub(super) fn header_value(text: &str) -> Parsed<Arc<str>> {
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
pub(super) fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(tchar)
}

/// CPUs as the kernel writes them, `0-3,8`; ascending.
pub(super) fn cpu_list(text: &str) -> Parsed<Vec<usize>> {
    let fault = |why: String| {
        Err(Fault::new(
            codes::CPUS,
            why,
            "write CPUs as `2-15` or `0,2,4-7`, from 0 to 1023, each once",
        ))
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            return fault(format!("`{part}` is neither a CPU nor a range"));
        };
        if first > last {
            return fault(format!("`{part}` runs backwards"));
        }
        if last >= super::SHARDS_MAX {
            return fault(format!("there is no CPU {last}"));
        }
        cpus.extend(first..=last);
        if cpus.len() > super::SHARDS_MAX {
            break;
        }
    }
    cpus.sort_unstable();
    if let Some(twice) = cpus.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(*a),
        _ => None,
    }) {
        return fault(format!("CPU {twice} stands twice"));
    }
    Ok(cpus)
}
