//! The invariants of the design, each held by reading the sources or asking cargo, not by memory.
//! What clippy can ban is banned in the `clippy.toml` of each crate; this file holds the rest, and
//! that those bans are there.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Every Rust file of the project, by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = vec![root.into()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with('.') || name.starts_with("target") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let relative = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(relative, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(
        found.len() > 20,
        "the sources were not found: {}",
        found.len()
    );
    found
}

/// A source without comments, strings and test modules, so that only what runs is judged.
/// Newlines are kept, so that line numbers stay true.
fn code_only(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let bytes = source.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let rest = &source[i..];
        if rest.starts_with("//") {
            i += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").map_or(rest.len(), |e| e + 2);
            out.extend(rest[..end].chars().filter(|c| *c == '\n'));
            i += end;
        } else if let Some(hashes) = raw_string_hashes(rest, &out) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            let end = rest[open..]
                .find(&close)
                .map_or(rest.len(), |e| open + e + close.len());
            out.push_str("\"\"");
            out.extend(rest[..end].chars().filter(|c| *c == '\n'));
            i += end;
        } else if rest.starts_with('"') {
            let mut end = 1;
            while end < rest.len() && rest.as_bytes()[end] != b'"' {
                end += if rest.as_bytes()[end] == b'\\' { 2 } else { 1 };
            }
            let end = (end + 1).min(rest.len());
            out.push_str("\"\"");
            out.extend(
                rest.as_bytes()[..end]
                    .iter()
                    .filter(|b| **b == b'\n')
                    .map(|_| '\n'),
            );
            i += end;
        } else if rest.starts_with("'\"'") || rest.starts_with("b'\"'") {
            i += rest.find("\"'").unwrap() + 2;
        } else if rest.starts_with("'\\\"'") {
            i += 4;
        } else {
            let c = rest.chars().next().unwrap();
            out.push(c);
            i += c.len_utf8();
        }
    }
    // Test modules stand last in a file (style); what follows the attribute is tests. An outer file of
    // tests is judged by its name.
    match out.find("#[cfg(test)]\nmod tests {") {
        Some(at) => out[..at].to_owned(),
        None => match out.find("#[cfg(test)]\n#[allow") {
            Some(at) => out[..at].to_owned(),
            None => out,
        },
    }
}

fn raw_string_hashes(rest: &str, before: &str) -> Option<usize> {
    if before.ends_with(|c: char| c.is_alphanumeric() && c != 'b') || !rest.starts_with('r') {
        return None;
    }
    let hashes = rest[1..].bytes().take_while(|b| *b == b'#').count();
    rest[1 + hashes..].starts_with('"').then_some(hashes)
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path.starts_with("benches/")
        || path.contains("/benches/")
}

/// Whether `word` stands in `code` as a word of its own.
fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let goes_on = word.ends_with(is_part) && code[at + word.len()..].starts_with(is_part);
        !code[..at].ends_with(is_part) && !goes_on
    })
}

/// The lines, `path:line`, of files outside `allowed` that name `word`.
fn offenders(
    sources: &BTreeMap<String, String>,
    word: &str,
    allowed: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, source) in sources {
        if allowed(path) || path == "tests/invariants.rs" {
            continue;
        }
        for (i, line) in code_only(source).lines().enumerate() {
            if names(line, word) {
                found.push(format!("{path}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    found
}

fn cargo_metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Names of the normal dependencies of a package of the workspace.
fn dependencies(metadata: &Value, package: &str) -> BTreeSet<String> {
    let package = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == package)
        .unwrap_or_else(|| panic!("no package {package}"));
    package["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["kind"].is_null())
        .map(|d| d["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Goal: a library that may change or fall away stands behind one file of the data plane. Method: its name
/// occurs in the code of no other. The lab and the tests are no part of it: there the same library plays the
/// peers.
#[test]
fn libraries_behind_one_file() {
    let sources = sources();
    for (library, home) in [
        ("glommio", "shard/src/executor.rs"),
        ("rustls", "shard/src/transport/"),
        ("envoy_types", "xds-client/src/pb.rs"),
        ("prost", "xds-client/src/pb.rs"),
        ("tonic", "xds-client/src/pb.rs"),
        ("tonic_prost", "xds-client/src/pb.rs"),
        ("redb", "src/center/store.rs"),
        ("rustix", "src/upgrade/channel.rs"),
    ] {
        // A folder, or a file with the folder of the same name, where generated code lies.
        let folder = format!("{}/", home.trim_end_matches(".rs").trim_end_matches('/'));
        let found = offenders(&sources, library, |path| {
            path == home
                || path.starts_with(&folder)
                || path.starts_with("perf-lab/")
                // Control planes are spoken to by TLS of a runtime of its own, far from the shards.
                || (library == "rustls" && path == "xds-client/src/ads/connection.rs")
                || is_test_file(path)
        });
        assert!(
            found.is_empty(),
            "only {home} may name {library}:\n{}",
            found.join("\n")
        );
    }
    let ring = offenders(&sources, "io_uring::", |path| {
        path.starts_with("shard/src/ring/")
    });
    assert!(
        ring.is_empty(),
        "only the ring may name io_uring:\n{}",
        ring.join("\n")
    );
}

/// Goal: unsafe code is where one would look for it. Method: the keyword occurs under `shard/src/ring`
/// alone, every other crate forbids it, and each block follows a SAFETY comment.
#[test]
fn unsafe_only_in_the_ring() {
    let sources = sources();
    let in_ring = |path: &str| path.starts_with("shard/src/ring/");
    let found = offenders(&sources, "unsafe", |path| {
        // The one `mod ring` that lifts the crate's ban names the lint, not the keyword.
        in_ring(path)
    });
    assert!(
        found.is_empty(),
        "unsafe outside the ring:\n{}",
        found.join("\n")
    );

    for root in [
        "core/src/lib.rs",
        "proto-codecs/src/lib.rs",
        "xds-client/src/lib.rs",
        "tuning/src/lib.rs",
        "perf-lab/src/lib.rs",
        "src/main.rs",
    ] {
        assert!(
            sources[root].contains("#![forbid(unsafe_code)]"),
            "{root} does not forbid unsafe code"
        );
    }
    for (path, source) in sources.iter().filter(|(path, _)| in_ring(path)) {
        let lines: Vec<&str> = source.lines().collect();
        let code = code_only(source);
        for (i, line) in code.lines().enumerate() {
            let opens_block = line.contains("unsafe {") || line.contains("unsafe impl");
            if !opens_block {
                continue;
            }
            let explained = lines[..=i]
                .iter()
                .rev()
                .take(12)
                .any(|l| l.contains("SAFETY:"));
            assert!(
                explained,
                "{path}:{}: unsafe without a SAFETY comment",
                i + 1
            );
        }
    }
}

/// Goal: policy and codecs stay pure. Method: their dependencies are a short list of pure crates,
/// neither knows the other, and no clock, socket, thread or async stands in their code.
#[test]
fn policy_and_codecs_are_pure() {
    let metadata = cargo_metadata();
    let allowed = |package: &str| -> BTreeSet<String> {
        let list: &[&str] = match package {
            "tidegate-core" => &[
                "aho-corasick",
                "foldhash",
                "granit-parser",
                "hashbrown",
                // In place of the atomics, under `--cfg loom` alone.
                "loom",
                "memchr",
                "regex-automata",
                "schemars",
                "serde",
                "serde-saphyr",
                "serde_json",
                "strsim",
                "zeroize",
            ],
            "tidegate-codecs" => &["httparse", "memchr"],
            other => panic!("no list for {other}"),
        };
        list.iter().map(|s| (*s).to_owned()).collect()
    };
    for package in ["tidegate-core", "tidegate-codecs"] {
        let extra: Vec<_> = dependencies(&metadata, package)
            .difference(&allowed(package))
            .cloned()
            .collect();
        assert!(
            extra.is_empty(),
            "{package} depends on {extra:?}: is each of them pure?"
        );
    }

    let sources = sources();
    let elsewhere = |path: &str| {
        is_test_file(path)
            || !(path.starts_with("core/src/") || path.starts_with("proto-codecs/src/"))
    };
    for word in [
        "Instant",
        "SystemTime",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "thread",
        "async",
        "tokio",
        "Mutex",
        "RwLock",
    ] {
        let found = offenders(&sources, word, elsewhere);
        assert!(
            found.is_empty(),
            "{word} in a pure crate:\n{}",
            found.join("\n")
        );
    }
}

/// Goal: arrows between crates point one way. Method: the workspace's own dependencies are the drawn ones.
#[test]
fn crates_depend_downwards() {
    let metadata = cargo_metadata();
    let drawn: [(&str, &[&str]); 7] = [
        ("tidegate-core", &[]),
        ("tidegate-codecs", &[]),
        ("tidegate-tuning", &[]),
        ("tidegate-lab", &["tidegate-codecs"]),
        ("tidegate-xds", &["tidegate-codecs", "tidegate-core"]),
        ("tidegate-shard", &["tidegate-codecs", "tidegate-core"]),
        (
            "tidegate",
            &[
                "tidegate-codecs",
                "tidegate-core",
                "tidegate-shard",
                "tidegate-tuning",
                "tidegate-xds",
            ],
        ),
    ];
    for (package, may_use) in drawn {
        let used: Vec<_> = dependencies(&metadata, package)
            .into_iter()
            .filter(|d| d.starts_with("tidegate") && !may_use.contains(&d.as_str()))
            .collect();
        assert!(used.is_empty(), "{package} must not depend on {used:?}");
    }
}

/// Goal: only the coordinator has tokio; a shard has one executor. Method: direct dependencies.
#[test]
fn one_runtime_a_thread() {
    let metadata = cargo_metadata();
    for package in ["tidegate-shard", "tidegate-core", "tidegate-codecs"] {
        assert!(
            !dependencies(&metadata, package).contains("tokio"),
            "{package} depends on tokio"
        );
    }
    for package in [
        "tidegate",
        "tidegate-core",
        "tidegate-codecs",
        "tidegate-xds",
    ] {
        assert!(
            !dependencies(&metadata, package).contains("glommio"),
            "{package} depends on glommio"
        );
    }
}

/// Goal: every refusal that the reference promises can happen. Method: each variant of `Reason` is
/// named in code outside of its declaration.
#[test]
fn every_reason_is_given_somewhere() {
    let sources = sources();
    let declared = &sources["core/src/reason.rs"];
    let variants: Vec<&str> = declared
        .lines()
        .filter_map(|line| line.trim().split_once(" => \""))
        .map(|(name, _)| name.trim())
        .filter(|name| !name.is_empty() && name.chars().all(char::is_alphanumeric))
        .collect();
    assert!(variants.len() > 20, "{variants:?}");
    let code: String = sources
        .iter()
        .filter(|(path, _)| *path != "core/src/reason.rs" && !is_test_file(path))
        .map(|(_, source)| code_only(source))
        .collect();
    let unused: Vec<_> = variants
        .into_iter()
        .filter(|variant| !names(&code, &format!("Reason::{variant}")))
        .collect();
    assert!(unused.is_empty(), "reasons that nobody gives: {unused:?}");
}

/// Goal: no counter is promised and never moved. Method: each field of the slabs is named in the code of a
/// shard, or in what it counts failures with.
#[test]
fn every_counter_is_moved_somewhere() {
    let sources = sources();
    let declared = &sources["core/src/stats.rs"];
    let fields: Vec<&str> = declared
        .lines()
        .map(str::trim)
        .filter_map(|line| {
            line.strip_prefix("Counter ")
                .or_else(|| line.strip_prefix("Gauge "))
        })
        .filter_map(|line| line.strip_suffix(','))
        .collect();
    assert!(fields.len() > 20, "{fields:?}");
    let moved_by_itself: BTreeSet<&str> = declared
        .split("pub fn response")
        .nth(1)
        .unwrap()
        .lines()
        .take(8)
        .filter_map(|line| line.split("self.").nth(1)?.split('.').next())
        .collect();
    let code: String = sources
        .iter()
        .filter(|(path, _)| path.starts_with("shard/src/") && !is_test_file(path))
        // What shards count of a rate limit is counted where its tokens are; of a row of failures, where rows are;
        // of steering, where it is decided.
        .chain(sources.get_key_value("core/src/limiter/bucket.rs"))
        .chain(sources.get_key_value("core/src/healing/outlier.rs"))
        .chain(sources.get_key_value("core/src/steering/program/table.rs"))
        .map(|(_, source)| code_only(source))
        .collect();
    // Failures of endpoints are counted by class there, and read below.
    let by_class = sources["core/src/healing/counter.rs"].split("fn failed_hard");
    let code = code + by_class.take(1).collect::<String>().as_str();
    let still: Vec<_> = fields
        .into_iter()
        .filter(|field| !moved_by_itself.contains(field) && !names(&code, field))
        .collect();
    assert!(still.is_empty(), "counters that nobody moves: {still:?}");
}

/// Goal: files can be read in one sitting. Method: none is longer than 700 lines; the longest ones are
/// printed. Numbers 600 (the aim) and 700 (the limit) are the project's taste.
#[test]
fn files_are_short() {
    let mut long: Vec<(usize, String)> = sources()
        .into_iter()
        // Nobody reads what a compiler of protos has written.
        .filter(|(_, source)| !source.starts_with("//! Generated from"))
        .map(|(path, source)| (source.lines().count(), path))
        .filter(|(lines, _)| *lines > 600)
        .collect();
    long.sort_by(|a, b| b.cmp(a));
    for (lines, path) in &long {
        println!("{lines:5} {path}");
    }
    let too_long: Vec<_> = long.iter().filter(|(lines, _)| *lines > 700).collect();
    assert!(too_long.is_empty(), "over 700 lines: {too_long:?}");
}

/// Goal: a file says what it is before it says anything else. Method: it begins with `//!`.
#[test]
fn files_open_with_what_they_are() {
    let silent: Vec<_> = sources()
        .into_iter()
        // A file of tests beside its subject is named by it.
        .filter(|(path, source)| !path.ends_with("/tests.rs") && !source.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:?}");
}

/// Goal: the project is at home on any machine. Method: no tracked text names a home, a work folder or
/// a container of somebody's machine.
#[test]
fn no_paths_of_machines() {
    let output = Command::new("git")
        .args(["ls-files"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let marks = [
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
    ];
    let mut found = Vec::new();
    for path in String::from_utf8(output.stdout).unwrap().lines() {
        let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let Ok(text) = fs::read_to_string(full) else {
            continue;
        };
        for (i, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|m| line.contains(**m)) {
                found.push(format!("{path}:{}: {mark}", i + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "paths of a machine:\n{}",
        found.join("\n")
    );
}

/// Goal: the page of reasons speaks of what is there. Method: each constant it names is declared in the
/// file it names.
#[test]
fn constants_of_the_page_of_defaults_exist() {
    let sources = sources();
    let page = include_str!("../docs/defaults.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let mut count = 0;
    for row in rows {
        let mut cells = row.split('`');
        let (name, path) = (cells.nth(1).unwrap(), cells.nth(1).unwrap());
        let source = sources.get(path).unwrap_or_else(|| panic!("no {path}"));
        assert!(
            source.contains(&format!("const {name}:")),
            "{name} in {path}"
        );
        count += 1;
    }
    assert!(count > 5, "no table in docs/defaults.md");
}

/// Goal: the bans that clippy holds are there, with reasons. Method: each crate's `clippy.toml` is read.
#[test]
fn every_crate_has_its_bans() {
    for folder in ["core", "proto-codecs", "shard", "xds-client", "tuning", "."] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(folder)
            .join("clippy.toml");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{folder}: {e}"));
        let bans = text.lines().filter(|line| line.contains("path = \""));
        for ban in bans.clone() {
            assert!(ban.contains("reason = \""), "{folder}: no reason: {ban}");
        }
        assert!(bans.count() > 0, "{folder}: no bans");
    }
}

/// The strings of a list of `deny.toml`, between `key = [` and `]`.
fn deny_list(key: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap();
    let list = text
        .split(&format!("\n{key} = ["))
        .nth(1)
        .unwrap_or_else(|| panic!("no {key} in deny.toml"));
    let list = &list[..list.find("\n]").unwrap_or(list.len())];
    list.lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.contains("wrappers"))
        .filter_map(|line| line.split('"').nth(1).map(str::to_owned))
        .collect()
}

/// The crates of `deny.toml` that only some may depend on, with those that may.
fn deny_wrappers() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml")).unwrap();
    let rules = text.lines().filter(|line| line.contains("wrappers = ["));
    rules
        .map(|rule| {
            let mut names = rule.split('"').skip(1).step_by(2).map(str::to_owned);
            (names.next().unwrap(), names.collect())
        })
        .collect()
}

/// Whether a licence expression can be met with the allowed licences. Old manifests write `/` for OR.
fn licence_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.trim().replace('/', " OR ");
    // OR binds less than AND (SPDX, annex D.4).
    let choices = split_outside_parentheses(&expression, " OR ");
    choices.iter().any(|choice| {
        let parts = split_outside_parentheses(choice, " AND ");
        parts.iter().all(|part| {
            let part = part.trim();
            match part.strip_prefix('(').and_then(|p| p.strip_suffix(')')) {
                Some(inner) => licence_allowed(inner, allowed),
                None => allowed.contains(part.trim_end_matches('+')),
            }
        })
    })
}

fn split_outside_parentheses<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let depth_at = |end: usize| {
        let count = |c: char| text[..end].matches(c).count();
        count('(') - count(')')
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(separator) {
        if depth_at(at) == 0 {
            parts.push(&text[start..at]);
            start = at + separator.len();
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Goal: what is linked may be shipped, and comes from where it can be audited. Method: every package
/// of the resolved graph against the lists in `deny.toml`.
#[test]
fn dependencies_keep_the_rules() {
    let metadata = cargo_metadata();
    let allowed = deny_list("allow");
    let banned = deny_list("deny");
    let wrappers = deny_wrappers();
    assert!(wrappers.len() > 2, "{wrappers:?}");
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(
            licence_allowed(licence, &allowed),
            "{name}: licence {licence}"
        );
        assert!(!banned.contains(name), "{name} is banned by deny.toml");
        for dependency in package["dependencies"].as_array().unwrap() {
            // What others test themselves with is not built here.
            if dependency["kind"] == "dev" && !package["source"].is_null() {
                continue;
            }
            let dependency = dependency["name"].as_str().unwrap();
            if let Some(may) = wrappers.get(dependency) {
                assert!(may.contains(name), "{name} depends on {dependency}");
            }
        }
        if let Some(source) = package["source"].as_str() {
            assert!(
                source.starts_with("registry+") && source.contains("crates.io-index"),
                "{name} comes from {source}"
            );
        }
    }
}

/// Goal: what this file says of a source is true. Method: comments, strings and tests are taken out of
/// a small one.
#[test]
fn code_only_drops_what_does_not_run() {
    let source = "let a = \"glommio\"; // rustls\n/* unsafe\n */ let b = r#\"tokio\"#;\n\
                  #[cfg(test)]\nmod tests { thread }";
    let code = code_only(source);
    for word in ["glommio", "rustls", "unsafe", "tokio", "thread"] {
        assert!(!names(&code, word), "{word} in {code}");
    }
    assert!(names(&code, "let"));
    assert_eq!(code.lines().count(), 3);
}
