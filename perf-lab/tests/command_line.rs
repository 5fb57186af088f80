//! What the command line says to who has mistaken something: what is wrong, and what to do about it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{fs, net::TcpListener, path::Path, process::Command};

/// Goal: every mistake that a newcomer makes is told with its remedy, and with the exit code of its kind.
/// Method: one wrong command each.
#[test]
fn mistakes_are_told_with_their_remedy() {
    // A port that was free a moment ago: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    // A peer whose program is on no machine, and would be installed if it were named alone.
    let other = Path::new(env!("CARGO_TARGET_TMPDIR")).join("command-line-peers");
    fs::create_dir_all(other.join("other")).unwrap();
    let manifest = "program = \"no-such-proxy\"\n[install]\napt = [\"no-such-package\"]\n";
    fs::write(other.join("other/peer.toml"), manifest).unwrap();
    for (arguments, code, told) in [
        ("run h1-182", 2, "did you mean `h1-128`?"),
        ("run h1-128 --peers tidegte", 2, "did you mean `tidegate`?"),
        ("run h1-128 --peers direct,direct", 2, "named twice"),
        (
            "run h1-128 --peers envoy --program envoy=/nonexistent/envoy",
            4,
            "/nonexistent/envoy is no program",
        ),
        (
            "run h1-128 --no-install --peers other --peers-dir {other}",
            4,
            "install it with `tidegate-lab peers install other`",
        ),
        ("run h1-128 --objective p99", 2, "p99=5ms"),
        ("compare tidegte tidegate", 2, "did you mean `tidegate`?"),
        ("compare zzz tidegate", 2, "a slash in it"),
        ("compare ./nosuch ./nosuch", 4, "is the path right"),
        ("peers install ngnix", 2, "did you mean `nginx`?"),
        ("faults --peers tidegte", 2, "did you mean `tidegate`?"),
        (
            "trend /nonexistent/ledger.jsonl",
            2,
            "run --ledger /nonexistent/ledger.jsonl",
        ),
        ("load http://192.0.2.1/", 2, "stays on this machine"),
        ("load 127.0.0.1:80", 2, "should begin with http://"),
        (&format!("load {nobody} --seconds 0.1"), 1, "refused"),
        (
            &format!("load {nobody} --seconds 0.1"),
            1,
            "does something serve it there?",
        ),
        ("gate --quick --driver /nonexistent/x", 4, "valgrind"),
    ] {
        let arguments = arguments.replace("{other}", &other.display().to_string());
        let words = arguments.split(' ');
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
            .args(words)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
        assert!(text.contains(told), "{arguments}: {text}");
    }
}
