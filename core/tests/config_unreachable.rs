//! A route that is said to be unreachable is never taken.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use proptest::prelude::*;
use tidegate_core::{
    config::{self, model::Protocol},
    steering::{RequestView, RouteScratch, RouteTable},
};

const HOSTS: &[&str] = &[
    "",
    "a.example",
    "\"*.example\"",
    "\"*\"",
    "[a.example, c.test]",
];
const PATHS: &[&str] = &[
    "",
    "/",
    "/a",
    "/a/**",
    "/**",
    "/a/b",
    "/a/b/**",
    "\"/{x}\"",
    "\"/a/{x}\"",
    "\"/{x}/{y}\"",
    "\"/{rest=**}\"",
    "\"/a/{rest=**}\"",
    "~/a.*",
];
const METHODS: &[&str] = &["", "GET", "[GET, POST]"];
const HEADERS: &[&str] = &[
    "",
    "{ x: \"1\" }",
    "{ x: { present: true } }",
    "{ x: { absent: true } }",
    "{ x: { prefix: \"1\" } }",
];

/// Indices into the tables above.
type Shape = (usize, usize, usize, usize);

fn file(shapes: &[Shape]) -> String {
    let mut text =
        String::from("version: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:1\n    routes:\n");
    for (host, path, method, header) in shapes {
        let parts = [
            ("host", HOSTS[*host]),
            ("path", PATHS[*path]),
            ("method", METHODS[*method]),
            ("header", HEADERS[*header]),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}: {value}"))
            .collect();
        text.push_str(&format!(
            "      - {{ match: {{ {} }}, respond: {{ status: 200 }} }}\n",
            parts.join(", ")
        ));
    }
    text
}

/// Positions of the routes that are reported.
fn unreachable(text: &str) -> Vec<usize> {
    let (_, warnings) =
        config::parse("test.yaml", text).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    let reported = warnings.iter().filter(|one| one.code == "TG-C101");
    // Routes begin in line 6, one a line.
    reported.map(|one| one.line - 6).collect()
}

struct Request<'a> {
    host: &'a str,
    path: &'a str,
    method: &'a str,
    x: Option<&'a str>,
}

impl RequestView for Request<'_> {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        None
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.x.filter(|_| name == "x").map(str::as_bytes)
    }
}

/// Positions of the routes that some request takes.
fn taken(text: &str) -> Vec<usize> {
    let (config, _) = config::parse("test.yaml", text).unwrap();
    let Protocol::Http(http) = &config.listeners["web"].protocol else {
        panic!()
    };
    let table = RouteTable::compile(&http.routes);
    let mut scratch = RouteScratch::default();
    let mut taken = Vec::new();
    for host in ["a.example", "b.example", "c.test", "d.test"] {
        for path in [
            "*", "/", "/a", "/a/", "/ab", "/a/b", "/a/b/", "/a/b/c", "/b", "/b/c", "//", "/a//b",
        ] {
            for method in ["GET", "POST", "PUT"] {
                for x in [None, Some(""), Some("1"), Some("12"), Some("2")] {
                    let request = Request {
                        host,
                        path,
                        method,
                        x,
                    };
                    taken.extend(
                        table
                            .find(&mut scratch, &request)
                            .map(|route| route.index()),
                    );
                }
            }
        }
    }
    taken
}

proptest! {
    /// Goal: no false alarm. Method: any few routes; every request of a small world; none takes a route
    /// that is reported.
    #[test]
    fn reported_routes_are_never_taken(
        shapes in proptest::collection::vec((0..HOSTS.len(), 0..PATHS.len(), 0..METHODS.len(), 0..HEADERS.len()), 1..8)
    ) {
        let text = file(&shapes);
        let taken = taken(&text);
        for position in unreachable(&text) {
            prop_assert!(!taken.contains(&position), "route {} is taken\n{}", position + 1, text);
        }
    }
}

/// Goal: what people write by mistake is found, and what they mean is not. Method: a table of two routes,
/// and whether the second is reported.
#[test]
fn shadowed_routes_are_reported() {
    for (first, second, reported) in [
        ("path: /**", "path: /a", true),
        ("path: /a/**", "path: /a/b/**", true),
        ("path: /a/**", "path: \"/a/{x}\"", true),
        ("path: /a/**", "path: /ab", false),
        ("path: \"/{x}\"", "path: /a", true),
        ("path: \"/{x}\"", "path: \"/{y}\"", true),
        ("path: \"/{x}\"", "path: /a/b", false),
        ("path: /a", "path: /a", true),
        ("path: /a, method: GET", "path: /a", false),
        (
            "path: /a, method: [GET, POST]",
            "path: /a, method: GET",
            true,
        ),
        ("path: /a, header: { x: \"1\" }", "path: /a", false),
        (
            "path: /a, header: { x: { present: true } }",
            "path: /a, header: { x: \"1\" }",
            true,
        ),
        (
            "path: /a, query: { x: \"1\" }",
            "path: /a, query: { x: \"1\", y: \"2\" }",
            true,
        ),
        ("host: a.example", "host: A.example, path: /a", true),
        ("host: a.example", "path: /a", false),
        ("path: /a/**", "host: a.example, path: /a", true),
        ("host: \"*.example\"", "host: a.example", false),
        (
            "host: [a.example, b.example]",
            "host: [b.example, a.example]",
            true,
        ),
        ("host: a.example", "host: [b.example, a.example]", false),
        ("path: \"~/a.*\"", "path: \"~/a.*\"", true),
    ] {
        let text = format!(
            "version: 1\nlisteners:\n  web:\n    bind: 127.0.0.1:1\n    routes:\n      \
             - {{ match: {{ {first} }}, respond: {{ status: 200 }} }}\n      - {{ match: {{ {second} }}, respond: {{ status: 200 }} }}\n"
        );
        assert_eq!(
            unreachable(&text),
            if reported { vec![1] } else { vec![] },
            "{first} then {second}"
        );
    }
}
