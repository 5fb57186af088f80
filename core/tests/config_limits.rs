//! What a file can make grow has a limit: at it, the file is read; one above, it is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fmt::Write;

use tidegate_core::config::{self, Diagnostic};

fn codes(outcome: config::Outcome) -> Vec<&'static str> {
    let found: Vec<Diagnostic> = match outcome {
        Ok((_, warnings)) => warnings,
        Err(all) => all,
    };
    found.iter().map(|one| one.code).collect()
}

fn parse(text: &str) -> Vec<&'static str> {
    codes(config::parse("test.yaml", text))
}

/// Goal: the size of a file is bounded. Method: comments up to the limit, and one byte more.
#[test]
fn bytes_of_a_file() {
    let head = "version: 1\n#";
    let text = format!("{head}{}", "x".repeat(config::FILE_BYTES_MAX - head.len()));
    assert_eq!(parse(&text), ["TG-C108"]);
    let longer = text + "x";
    assert_eq!(parse(&longer), ["TG-C003"]);
    assert_eq!(
        codes(config::parse_bytes("test.yaml", longer.as_bytes())),
        ["TG-C003"]
    );
}

/// Goal: bytes that are no text are refused where they begin to be none. Method: a broken sequence.
#[test]
fn bytes_that_are_no_text() {
    let found = config::parse_bytes("test.yaml", b"version: 1\nadmin: \xff\n").unwrap_err();
    assert_eq!(
        (found[0].code, found[0].line, found[0].column),
        ("TG-C002", 2, 8)
    );
}

/// Goal: nesting is bounded, in the text and by aliases. Method: lists in lists, at the limit and above;
/// then the same depth reached by aliases.
#[test]
fn depth() {
    let nested = |levels: u32| {
        format!(
            "{}{}",
            "[".repeat(levels as usize),
            "]".repeat(levels as usize)
        )
    };
    assert!(!parse(&nested(config::DEPTH_MAX)).contains(&"TG-C004"));
    assert_eq!(parse(&nested(config::DEPTH_MAX + 1)), ["TG-C004"]);
    assert_eq!(parse(&nested(100_000)), ["TG-C004"]);
    // `a` has a depth of 16; under 15 and under 16 further levels, with the map of the file around.
    let aliased = |levels: usize| {
        format!(
            "a: &a {}\nb: {}*a{}\n",
            nested(16),
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(!parse(&aliased(config::DEPTH_MAX as usize - 17)).contains(&"TG-C004"));
    assert_eq!(
        parse(&aliased(config::DEPTH_MAX as usize - 16)),
        ["TG-C004"]
    );
}

/// Goal: a few lines cannot stand for billions of values ("billion laughs"). Method: ten lists of ten
/// aliases each, at once and without memory.
#[test]
fn aliases_do_not_multiply() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    assert_eq!(parse(&text), ["TG-C005"]);
    let itself = "version: 1\nnode: &n { id: *n }\n";
    assert_eq!(parse(itself), ["TG-C006"]);
}

/// Goal: aliases are followed where they are meant. Method: two listeners share routes and a time-out.
#[test]
fn aliases_share_values() {
    let text = "version: 1\nlisteners:\n  a: { bind: 127.0.0.1:1, timeouts: { header: &t 3s, idle: *t }, routes: &r [ { respond: { status: 200 } } ] }\n  \
                b: { bind: 127.0.0.1:2, routes: *r }\n";
    let (config, warnings) = config::parse("test.yaml", text).unwrap();
    assert!(warnings.is_empty());
    let dump = config::to_json(&config);
    assert_eq!(dump["listeners"]["a"]["timeouts"]["idle"], "3s");
    assert_eq!(
        dump["listeners"]["b"]["routes"][0]["respond"]["status"],
        200
    );
}

/// Goal: lists and names are bounded. Method: each at its limit and one above.
#[test]
fn lists_and_texts() {
    let clusters = |count: usize, name: usize| {
        let mut text = String::from("version: 1\nclusters:\n");
        for index in 0..count {
            writeln!(
                text,
                "  c{index:0width$}: {{ endpoints: {{ static: [10.0.0.1:80] }} }}",
                width = name - 1
            )
            .unwrap();
        }
        text
    };
    assert!(config::parse("t", &clusters(config::CLUSTERS_MAX, 6)).is_ok());
    assert!(parse(&clusters(config::CLUSTERS_MAX + 1, 6)).contains(&"TG-C042"));
    assert_eq!(
        parse(&clusters(1, config::NAME_MAX)),
        ["TG-C102", "TG-C108"]
            .map(|c| c)
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    assert!(parse(&clusters(1, config::NAME_MAX + 1)).contains(&"TG-C024"));

    let route = |keys: &str| {
        format!(
            "version: 1\nlisteners: {{ a: {{ bind: 127.0.0.1:1, routes: [ {{ {keys} }} ] }} }}\n"
        )
    };
    let body = |bytes: usize| {
        route(&format!(
            "respond: {{ status: 200, body: {} }}",
            "x".repeat(bytes)
        ))
    };
    assert_eq!(parse(&body(config::BODY_MAX)), [""; 0]);
    assert_eq!(parse(&body(config::BODY_MAX + 1)), ["TG-C043"]);
    let path = |bytes: usize| {
        route(&format!(
            "match: {{ path: /{} }}, respond: {{ status: 200 }}",
            "x".repeat(bytes - 1)
        ))
    };
    assert_eq!(parse(&path(config::TEXT_MAX)), [""; 0]);
    assert_eq!(parse(&path(config::TEXT_MAX + 1)), ["TG-C043"]);
    let hosts = |count: usize| {
        let hosts: Vec<String> = (0..count)
            .map(|index| format!("h{index}.example"))
            .collect();
        route(&format!(
            "match: {{ host: [{}] }}, respond: {{ status: 200 }}",
            hosts.join(", ")
        ))
    };
    assert_eq!(parse(&hosts(config::ROUTE_LIST_MAX)), [""; 0]);
    assert_eq!(parse(&hosts(config::ROUTE_LIST_MAX + 1)), ["TG-C042"]);
}

/// Goal: a report is bounded, and says what it leaves out; a warning never takes an error's place.
/// Method: many warnings before more errors than are shown.
#[test]
fn diagnostics() {
    let mut text = String::from("version: 1\nlisteners:\n");
    for port in 1..=100 {
        writeln!(text, "  w{port}: {{ bind: 127.0.0.1:{port}, routes: [] }}").unwrap();
    }
    text.push_str("clusters:\n");
    for index in 0..config::DIAGNOSTICS_MAX {
        writeln!(text, "  c{index}: {{}}").unwrap();
    }
    let found = config::parse("test.yaml", &text).unwrap_err();
    assert_eq!(found.len(), config::DIAGNOSTICS_MAX + 1);
    assert!(
        found[..config::DIAGNOSTICS_MAX]
            .iter()
            .all(|one| one.code == "TG-C011")
    );
    let last = found.last().unwrap();
    assert_eq!(
        (last.code, last.message.as_str()),
        ("TG-C099", "100 more are not shown")
    );
}

/// Goal: a large file is read in a time that a reload can bear. Method: 20,000 routes with all kinds of
/// conditions are read without a diagnostic; the assertion is on the work, not on a clock.
#[test]
fn many_routes() {
    let mut text =
        String::from("version: 1\nlisteners:\n  a:\n    bind: 127.0.0.1:1\n    routes:\n");
    for index in 0..20_000 {
        writeln!(
            text,
            "      - {{ match: {{ host: h{}.example, path: /p{index}/** }}, to: c }}",
            index % 500
        )
        .unwrap();
    }
    text.push_str("clusters: { c: { endpoints: { static: [10.0.0.1:80] } } }\n");
    assert_eq!(parse(&text), [""; 0]);
}
