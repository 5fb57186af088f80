//! Refuses requests that a browser was talked into by a page of somebody else.
//!
//! DNS rebinding: the page's own name is made to point at 127.0.0.1, so the `Host` field names it: only
//! address literals and `localhost` are let in. Cross-site posts: the browser says where the request
//! comes from in `Origin` or `Sec-Fetch-Site`: a post must come from this server's own pages, or from no
//! browser at all.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// The check before every handler.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|one| one.as_str());
    match judge(request.method(), request.headers(), authority) {
        Ok(()) => next.run(request).await,
        Err(why) => (StatusCode::FORBIDDEN, format!("{why}\n")).into_response(),
    }
}

/// HTTP/2 says in `:authority` what HTTP/1.1 says in `Host`.
fn judge(
    method: &Method,
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<(), &'static str> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &axum::http::HeaderValue| value.to_str().ok())
    };
    let host = text(header::HOST).or(authority);
    let host = host.ok_or("a Host field is needed")?;
    if !is_local(host) {
        return Err(
            "ask by address or as localhost: other names are refused against DNS rebinding",
        );
    }
    if method == Method::GET || method == Method::HEAD {
        return Ok(());
    }
    let same_origin = text(header::ORIGIN).is_none_or(|origin| {
        origin
            .split_once("://")
            .is_some_and(|(_, from)| from == host)
    });
    let same_site = headers
        .get("sec-fetch-site")
        .is_none_or(|site| site == "same-origin" || site == "none");
    if same_origin && same_site {
        Ok(())
    } else {
        Err("requests from other sites are refused")
    }
}

/// Whether `host`, with or without port, is an address literal or `localhost`.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn judged(method: Method, fields: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        judge(&method, &headers, None).is_ok()
    }

    /// Goal: names that can be rebound are refused on every method. Method: table of hosts.
    #[test]
    fn rebound_names_are_refused() {
        for (host, allowed) in [
            ("127.0.0.1:9901", true),
            ("127.0.0.1", true),
            ("[::1]:9901", true),
            ("localhost:9901", true),
            ("LOCALHOST", true),
            ("evil.example:9901", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("[evil.example]:80", false),
            ("", false),
        ] {
            assert_eq!(judged(Method::GET, &[("host", host)]), allowed, "{host}");
        }
        assert!(!judged(Method::GET, &[]), "no host at all");
        let by_authority = |name| judge(&Method::POST, &HeaderMap::new(), Some(name)).is_ok();
        assert!(by_authority("127.0.0.1:9901"));
        assert!(!by_authority("evil.example:9901"));
    }

    /// Goal: another site cannot make a browser drain us; curl and our own page can. Method: table of
    /// what browsers send.
    #[test]
    fn cross_site_posts_are_refused() {
        let host = ("host", "127.0.0.1:9901");
        for (fields, allowed) in [
            (vec![host], true),
            (
                vec![
                    host,
                    ("origin", "http://127.0.0.1:9901"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
            (vec![host, ("origin", "http://evil.example")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("origin", "http://127.0.0.1:3000")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
        ] {
            assert_eq!(judged(Method::POST, &fields), allowed, "{fields:?}");
        }
        assert!(judged(
            Method::GET,
            &[host, ("sec-fetch-site", "cross-site")]
        ));
    }
}
