//! The verbs that need no running service: what they print, where, and the exit codes that scripts rely on.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// What a run left behind.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

fn tidegate(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().expect("ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A file of this run, named for its test, since tests run side by side.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}.yaml"));
    fs::write(&path, text).unwrap();
    path
}

const GOOD: &str = "\
version: 1
listeners:
  edge:
    bind: 127.0.0.1:8080
    routes:
      - { name: canary, match: { header: { x-canary: \"1\" } }, to: pay-v2 }
      - { name: pay, match: { host: pay.example, path: /transfer/** }, to: pay, timeout: 300ms }
clusters:
  pay: { endpoints: { static: [127.0.0.1:9001] } }
  pay-v2: { endpoints: { static: [127.0.0.1:9002] } }
";

/// Goal: help works, and a line that makes no sense is a usage error. Method: exit codes of each.
#[test]
fn usage_is_exit_code_2() {
    let help = tidegate(&["--help"]).expect(0);
    for verb in [
        "run", "demo", "proxy", "check", "explain", "schema", "version",
    ] {
        assert!(help.stdout.contains(&format!("\n  {verb} ")), "{verb}");
        let help = tidegate(&[verb, "--help"]).expect(0);
        assert!(help.stdout.contains("Examples:"), "{verb}");
    }
    tidegate(&[]).expect(2);
    tidegate(&["frobnicate"]).expect(2);
    tidegate(&["check"]).expect(2);
    tidegate(&["check", "--format", "xml", "a.yaml"]).expect(2);
    tidegate(&["proxy", "--from", "80", "--to", "127.0.0.1:1"]).expect(2);
    tidegate(&["proxy", "--from", ":8080", "--to", "a:1", "b:2", "--print"]).expect(2);
    tidegate(&["demo", "--time", "5"]).expect(2);
}

/// Goal: a good file is exit code 0 and says what is in it, on standard output. Method: check one.
#[test]
fn good_file_passes() {
    let path = file("good", GOOD);
    let ran = tidegate(&["check", path.to_str().unwrap()]).expect(0);
    assert!(
        ran.stdout.contains("ok, 1 listeners, 2 clusters"),
        "{ran:#?}"
    );
    assert_eq!(ran.stderr, "");
}

/// Goal: several mistakes in one run, each with file, line and help; exit code 3; no colour into a pipe.
/// Method: a file with three mistakes, for people and as JSON.
#[test]
fn mistakes_are_shown_together() {
    let bad = GOOD
        .replace("to: pay,", "to: pai,")
        .replace("timeout: 300ms", "timeout: 300")
        .replace("routes:", "rotues:");
    let path = file("bad", &bad);
    let path = path.to_str().unwrap();
    let ran = tidegate(&["check", path]).expect(3);
    assert!(ran.stderr.contains("TG-C"), "{ran:#?}");
    assert!(ran.stderr.contains("did you mean `routes`?"), "{ran:#?}");
    assert!(ran.stderr.contains(&format!("{path}:5:5")), "{ran:#?}");
    assert!(!ran.stderr.contains('\u{1b}'));

    let value = tidegate(&["check", path, "--format", "json"])
        .expect(3)
        .json();
    let file = &value["files"][0];
    assert_eq!(file["ok"], false);
    let diagnostics = file["diagnostics"].as_array().unwrap();
    assert!(!diagnostics.is_empty());
    for diagnostic in diagnostics {
        assert!(diagnostic["code"].as_str().unwrap().starts_with("TG-C"));
        assert!(diagnostic["line"].as_u64().unwrap() > 0);
    }
}

/// Goal: a missing file is exit code 3, never a default. Method: every verb that takes one.
#[test]
fn missing_file_is_exit_code_3() {
    for args in [
        &["check", "/nonexistent/x.yaml"][..],
        &["run", "-c", "/nonexistent/x.yaml"],
        &["explain", "GET", "http://a/", "-c", "/nonexistent/x.yaml"],
    ] {
        let ran = tidegate(args).expect(3);
        assert!(ran.stderr.contains("/nonexistent/x.yaml"), "{ran:#?}");
    }
}

/// Goal: an invalid file keeps the service from starting, with the same report. Method: run it.
#[test]
fn run_refuses_an_invalid_file() {
    let path = file(
        "refused",
        "version: 1\nlisteners: { a: { bind: nowhere } }\n",
    );
    let ran = tidegate(&["run", "-c", path.to_str().unwrap()]).expect(3);
    assert!(ran.stderr.contains("TG-C"), "{ran:#?}");
    assert_eq!(ran.stdout, "");
}

/// Goal: `--diff` says in words what would change. Method: a new time-out and a new cluster.
#[test]
fn differences_are_words() {
    let old = file("old", GOOD);
    let new = file(
        "new",
        &(GOOD.replace("300ms", "500ms")
            + "  extra: { endpoints: { static: [127.0.0.1:9003] } }\n"),
    );
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    let ran = tidegate(&["check", new, "--diff", old]).expect(0);
    for words in ["timeout", "300ms", "500ms", "extra", "added"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:#?}");
    }
    let same = tidegate(&["check", old, "--diff", old]).expect(0);
    assert!(same.stdout.contains("changes nothing"), "{same:#?}");
}

/// Goal: warnings pass, unless they are denied: exit code 5. Method: a route that none can reach.
#[test]
fn denied_warnings_are_exit_code_5() {
    let warned = GOOD.replace(
        "name: canary, match: { header: { x-canary: \"1\" } }",
        "name: canary",
    );
    let path = file("warned", &warned);
    let path = path.to_str().unwrap();
    tidegate(&["check", path]).expect(0);
    tidegate(&["check", path, "--deny-warnings"]).expect(5);
}

/// Goal: `explain` says which route and why (S16); a refused request is exit code 5. Method: a request
/// that the second route takes, one that none takes, a listener that is not there.
#[test]
fn explain_names_the_route() {
    let path = file("explain", GOOD);
    let path = path.to_str().unwrap();
    let url = "http://pay.example/transfer/7";
    let ran = tidegate(&["explain", "GET", url, "-c", path]).expect(0);
    for words in ["canary", "pay", "127.0.0.1:9001"] {
        assert!(ran.stdout.contains(words), "{words}: {ran:#?}");
    }
    let json = &["explain", "GET", url, "-c", path, "--format", "json"];
    let value = tidegate(json).expect(0).json();
    assert_eq!(value["consistent"], true);
    assert_eq!(value["routes"][0]["verdict"], "unmatched");
    assert_eq!(value["routes"][1]["verdict"], "taken");

    let header = &[
        "explain",
        "GET",
        url,
        "-H",
        "X-Canary: 1",
        "-c",
        path,
        "--format",
        "json",
    ];
    assert_eq!(
        tidegate(header).expect(0).json()["routes"][0]["verdict"],
        "taken"
    );

    tidegate(&["explain", "GET", "http://other.example/", "-c", path]).expect(5);
    let nowhere = &["explain", "GET", url, "-c", path, "--listener", "nope"];
    tidegate(nowhere).expect(2);
}

/// Goal: the schema is JSON an editor can use. Method: parse it and look for a section.
#[test]
fn schema_is_json() {
    let schema = tidegate(&["schema"]).expect(0).json();
    assert!(schema.pointer("/$defs/file/properties/listeners").is_some());
}

/// Goal: `version` answers on every host, for people and programs. Method: both.
#[test]
fn version_says_what_the_kernel_offers() {
    let ran = tidegate(&["version"]).expect(0);
    assert!(
        ran.stdout
            .starts_with(concat!("tidegate ", env!("CARGO_PKG_VERSION")))
    );
    let value = tidegate(&["version", "--format", "json"]).expect(0).json();
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    assert!(value["kernel"]["fit"].is_boolean());
}

/// Goal: what `proxy` serves is a configuration that `check` likes. Method: print it and check it.
#[test]
fn proxy_prints_a_valid_configuration() {
    for (name, to) in [
        ("proxy-ip", "127.0.0.1:9000"),
        ("proxy-name", "localhost:9000"),
    ] {
        let printed = tidegate(&["proxy", "--from", ":8080", "--to", to, "--print"]).expect(0);
        let path = file(name, &printed.stdout);
        tidegate(&["check", path.to_str().unwrap()]).expect(0);
    }
}

/// Goal: a reader that goes away is no failure and no panic. Method: close the pipe at once.
#[test]
fn closed_pipe_is_quiet() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
