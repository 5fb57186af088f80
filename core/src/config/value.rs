//! The small languages inside of values, for configurations that come from elsewhere than a file: the same checks,
//! so that whatever passes can be compiled, and what is wrong in a few words.

use std::sync::Arc;

use super::{
    model::HostPattern,
    syntax::{self, Fault},
};

/// What was read, or what is wrong with it.
pub type Checked<T> = Result<T, String>;

fn plain<T>(parsed: Result<T, Fault>) -> Checked<T> {
    parsed.map_err(|fault| fault.why)
}

/// The name of a listener, a cluster, a route or a rule.
pub fn name(text: &str) -> Checked<Arc<str>> {
    plain(syntax::name(text))
}

/// A host that requests are matched against.
pub fn host_pattern(text: &str) -> Checked<HostPattern> {
    plain(syntax::host_pattern(text))
}

/// A host with or without a port.
pub fn authority(text: &str) -> Checked<Arc<str>> {
    plain(syntax::authority(text))
}

/// A path that replaces another, or that is compared as it stands.
pub fn path(text: &str) -> Checked<Arc<str>> {
    plain(syntax::path(text))
}

/// A path with or without a query.
pub fn path_and_query(text: &str) -> Checked<Arc<str>> {
    plain(syntax::path_and_query(text))
}

/// A regular expression over a whole path or value.
pub fn regex(pattern: &str) -> Checked<Arc<str>> {
    plain(syntax::regex(pattern)).map(|()| pattern.into())
}

/// A regular expression of a rewrite, and what its matches are replaced by.
pub fn rewrite_regex(pattern: &str, replacement: &str) -> Checked<(Arc<str>, Arc<str>)> {
    plain(syntax::rewrite_regex(pattern))?;
    if let Some(group) = syntax::unknown_group(pattern, replacement) {
        return Err(format!("there is no group `{group}`"));
    }
    let visible = |byte: u8| matches!(byte, 0x21..=0x7e) && byte != b'#' && byte != b'?';
    match replacement.bytes().all(visible) {
        true => Ok((pattern.into(), replacement.into())),
        false => Err("the replacement is not part of a path".into()),
    }
}

/// A method.
pub fn method(text: &str) -> Checked<Arc<str>> {
    plain(syntax::method(text))
}

/// The name of a header that is looked at, as lower case.
pub fn header_name(text: &str) -> Checked<Arc<str>> {
    plain(syntax::header_name(text))
}

/// The name of a header that is changed, as lower case.
pub fn edited_header_name(text: &str) -> Checked<Arc<str>> {
    plain(syntax::edited_header_name(text))
}

/// The value of a header.
pub fn header_value(text: &str) -> Checked<Arc<str>> {
    plain(syntax::header_value(text))
}

/// The name of a cookie, or another token (RFC 9110, 5.6.2).
pub fn token(text: &str) -> Checked<Arc<str>> {
    match syntax::is_token(text) {
        true => Ok(text.into()),
        false => Err("not a token".into()),
    }
}

/// `HOST:PORT` that is looked up.
pub fn dns(text: &str) -> Checked<(Arc<str>, u16)> {
    plain(syntax::dns(text))
}

/// `IP:PORT` of something that is connected to.
pub fn endpoint(text: &str) -> Checked<std::net::SocketAddr> {
    plain(syntax::endpoint(text))
}

/// A label or a zone of an endpoint.
pub fn label(text: &str) -> Checked<Arc<str>> {
    plain(syntax::label(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the checks are those of a file. Method: one thing of each kind that a file refuses.
    #[test]
    fn what_a_file_refuses_is_refused() {
        assert!(name("a b").is_err());
        assert!(host_pattern("a*b").is_err());
        assert!(authority("*.example").is_err());
        assert!(path("/a/../b").is_err());
        assert!(path_and_query("/a#b").is_err());
        assert!(regex("(?=a)").is_err());
        assert_eq!(
            rewrite_regex("a", "$1").err().as_deref(),
            Some("there is no group `1`")
        );
        assert!(rewrite_regex("a", "b c").is_err());
        assert!(method("get").is_err());
        assert!(header_name(":path").is_err());
        assert!(edited_header_name("Transfer-Encoding").is_err());
        assert!(header_value("a\nb").is_err());
        assert!(token("a b").is_err());
        assert!(dns("10.0.0.1:80").is_err());
        assert!(endpoint("0.0.0.0:80").is_err());
        assert!(label("\u{7}").is_err());
        assert_eq!(header_name("X-A").as_deref(), Ok("x-a"));
    }
}
