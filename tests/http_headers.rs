//! Which header fields pass, which are the proxy's own, and which it edits (RFC 9110, 7.6).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Origin, Proxy, proxy};

/// The head that the origin saw of a request with these fields.
fn seen(proxy: &Proxy, origin: &Origin, fields: &str) -> common::Head {
    let before = origin.requests().len();
    let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    assert_eq!(proxy.client().exchange(request).status, 200);
    let mut requests = origin.requests();
    assert_eq!(requests.len(), before + 1);
    requests.remove(before).head
}

/// Goal: what belongs to one connection stays on it (RFC 9110, 7.6.1). Method: every hop-by-hop field and
/// those that `Connection` names, in a request.
#[test]
fn hop_by_hop_fields_of_requests_stay() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let head = seen(
        &proxy,
        &origin,
        "Connection: keep-alive, X-Secret, x-other\r\nKeep-Alive: timeout=5\r\nX-Secret: 1\r\n\
         X-OTHER: 2\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\n\
         X-Kept: 3\r\n",
    );
    for name in [
        "keep-alive",
        "x-secret",
        "x-other",
        "proxy-connection",
        "te",
        "upgrade",
    ] {
        assert!(head.get(name).is_none(), "{name} passed: {}", head.raw);
    }
    assert_eq!(head.get("x-kept"), Some("3"));
}

/// Goal: the same for answers. Method: an origin that sends them.
#[test]
fn hop_by_hop_fields_of_answers_stay() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nConnection: X-Inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: x\r\nX-Kept: 2\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::before(&origin);
    let head = proxy.client().get("/").head;
    for name in ["x-inner", "keep-alive", "proxy-connection"] {
        assert!(head.get(name).is_none(), "{name} passed: {}", head.raw);
    }
    assert_eq!(head.get("x-kept"), Some("2"));
}

/// Goal: `Connection` cannot take away what the next hop needs. Method: it names `Host`,
/// `Content-Length` and `X-Forwarded-For`; the message stays framed and attributed.
#[test]
fn connection_cannot_remove_what_matters() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let response = proxy.client().exchange(
        "POST /body HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\
         Connection: host, content-length, x-forwarded-for\r\n\r\nhello",
    );
    if response.status == 400 {
        // Refusing such a request outright is as safe.
        assert!(origin.requests().is_empty());
        return;
    }
    assert_eq!(response.text(), "hello");
    let head = origin.request().head;
    assert_eq!(head.get("host"), Some("a.example"));
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
}

/// Goal: end-to-end fields pass as they are, order, case and repeats included. Method: compared raw.
#[test]
fn end_to_end_fields_pass_untouched() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let fields = "X-MiXeD: Value \r\nAccept: a\r\naccept: b\r\nCookie: a=1; b=2\r\nX-Empty:\r\n\
                  traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
                  X-Latin: caf\u{e9}\r\nAuthorization: Bearer x.y.z\r\n";
    let head = seen(&proxy, &origin, fields);
    let names: Vec<_> = head.fields.iter().map(|(name, _)| name.as_str()).collect();
    let position = |name: &str| names.iter().position(|n| *n == name).unwrap();
    assert!(position("X-MiXeD") < position("Accept"));
    assert!(position("Accept") < position("accept"));
    assert_eq!(head.get("x-mixed"), Some("Value"));
    assert_eq!(head.all("accept"), ["a", "b"]);
    assert_eq!(head.get("x-empty"), Some(""));
    assert_eq!(
        head.get("traceparent"),
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    );
    assert_eq!(head.get("authorization"), Some("Bearer x.y.z"));
}

/// Goal: each `x_forwarded` policy does what its name says. Method: a client that brings its own fields.
#[test]
fn x_forwarded_by_policy() {
    let brought = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n";
    for (policy, with, without) in [
        (
            "append",
            ("203.0.113.7, 127.0.0.1", Some("https")),
            (Some("127.0.0.1"), Some("http")),
        ),
        (
            "replace",
            ("127.0.0.1", Some("http")),
            (Some("127.0.0.1"), Some("http")),
        ),
        ("preserve", ("203.0.113.7", Some("https")), (None, None)),
    ] {
        let origin = Origin::echo();
        let listener = format!("    forwarded: {{ x_forwarded: {policy} }}\n");
        let config = proxy::web_with(&listener, "{ to: app }", &[("app", &origin)]);
        let proxy = Proxy::start(config);
        let head = seen(&proxy, &origin, brought);
        // One field with a list and several fields mean the same (RFC 9110, 5.2).
        assert_eq!(head.all("x-forwarded-for").join(", "), with.0, "{policy}");
        assert_eq!(head.get("x-forwarded-proto"), with.1, "{policy}");
        let head = seen(&proxy, &origin, "");
        assert_eq!(head.get("x-forwarded-for"), without.0, "{policy}");
        assert_eq!(head.get("x-forwarded-proto"), without.1, "{policy}");
    }
}

/// Goal: `Via` is added where asked for, after those that are there (RFC 9110, 7.6.3). Method: with and
/// without.
#[test]
fn via_where_asked_for() {
    let origin = Origin::echo();
    let config = proxy::web_with(
        "    forwarded: { via: edge }\n",
        "{ to: app }",
        &[("app", &origin)],
    );
    let proxy = Proxy::start(config);
    let head = seen(&proxy, &origin, "Via: 1.0 fred\r\n");
    assert_eq!(head.all("via").join(", "), "1.0 fred, 1.1 edge");
    drop(proxy);
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    assert!(seen(&proxy, &origin, "").get("via").is_none());
}

/// Goal: an absolute target names the host, whatever `Host` says (RFC 9112, 3.2.2). Method: both differ;
/// the origin sees the target's, in origin form.
#[test]
fn absolute_form_is_normalised() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let response = proxy
        .client()
        .exchange("GET http://b.example:81/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(response.status, 200);
    let head = origin.request().head;
    assert_eq!(head.target(), "/x?y");
    assert_eq!(head.all("host"), ["b.example:81"]);
}

/// Goal: header edits are made, in the order remove, set, append, both ways. Method: one route with all.
#[test]
fn header_edits() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nServer: secret/1.2\r\nX-A: 1\r\nCache-Control: private\r\n\
         Content-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::start(proxy::web(
        "{ to: app, \
           request_headers: { remove: [x-drop], set: { x-set: new }, append: { x-add: more } }, \
           response_headers: { remove: [server], set: { x-a: '2' }, \
                               append: { cache-control: no-store } } }",
        &[("app", &origin)],
    ));
    let response = proxy.client().exchange(
        "GET / HTTP/1.1\r\nHost: a.example\r\nX-Drop: 1\r\nX-Set: old\r\nX-SET: older\r\n\
         X-Add: some\r\n\r\n",
    );
    let head = origin.request().head;
    assert!(head.get("x-drop").is_none());
    assert_eq!(head.all("x-set"), ["new"]);
    assert_eq!(head.all("x-add").join(","), "some,more");
    assert!(response.head.get("server").is_none());
    assert_eq!(response.head.all("x-a"), ["2"]);
    assert_eq!(
        response.head.all("cache-control").join(","),
        "private,no-store"
    );
}

/// Goal: our own answers say why, and do not say where. Method: a 404 without a route.
#[test]
fn own_answers_carry_the_reason() {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web(
        "{ match: { path: /only }, to: app }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    let response = client.get("/other");
    assert_eq!(response.status, 404);
    assert_eq!(response.reason(), Some("no_route"));
    // The connection is kept: a refusal is cheap.
    assert_eq!(client.get("/only").status, 200);
    let line = proxy.access_log(2).remove(0);
    assert!(line.to_string().contains("no_route"), "{line}");
}
