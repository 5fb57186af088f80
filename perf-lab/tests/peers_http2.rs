//! HTTP/2 with servers and clients that others wrote: the generator through nginx, HAProxy and nghttpx,
//! and h2load against the origin. Without them it is skipped with a word about it; where
//! TIDEGATE_TEST_PEERS is set, those that `./test` installs have to be there.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_tidegate-lab");

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child that does not outlive its test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_there(program: &str, is_installed_by_the_gate: bool) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = directories.any(|directory| directory.join(program).is_file());
    let is_required = std::env::var_os("TIDEGATE_TEST_PEERS").is_some();
    assert!(
        found || !(is_required && is_installed_by_the_gate),
        "{program} is not there"
    );
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Measures a scenario for a moment with one peer, and returns the measurement.
fn measured(scenario: &str, peer: &str) -> Value {
    let out = Scratch::new(&format!("http2-{scenario}-{peer}"));
    let output = Command::new(LAB)
        .args(["run", scenario, "--peers", peer, "--rounds", "1"])
        .args(["--seconds", "0.3", "--warm-up", "0.1", "--out"])
        .arg(&out.0)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario} {peer}: {shown}");
    let result = fs::read_to_string(out.0.join("result.json")).unwrap();
    let result: Value = serde_json::from_str(&result).unwrap();
    result["rows"][0]["measurements"][0].clone()
}

/// Goal: what the lab says of HTTP/2 through others' proxies is believable: exchanges are completed, and
/// none fails. Method: the shipped scenarios, for a moment each, over TLS, in plain text, and with HTTP/2
/// behind the proxy and between two of them.
#[test]
fn scenarios_are_valid_through_others() {
    for (scenario, peer, program, is_installed_by_the_gate) in [
        ("h2-tls", "nginx", "nginx", true),
        ("h2-tls", "haproxy", "haproxy", true),
        ("h2c", "haproxy", "haproxy", true),
        ("two-hops-h2", "haproxy", "haproxy", true),
        ("h2-tls", "nghttpx", "nghttpx", false),
        ("h2c", "nghttpx", "nghttpx", false),
        ("two-hops-h2", "nghttpx", "nghttpx", false),
        ("h2-tls", "h2o", "h2o", false),
    ] {
        if !is_there(program, is_installed_by_the_gate) {
            continue;
        }
        let measurement = measured(scenario, peer);
        let what = format!("{scenario} {peer}: {measurement}");
        assert_eq!(measurement["void"], Value::Array(Vec::new()), "{what}");
        assert_eq!(measurement["load"]["failures"], 0, "{what}");
        assert!(measurement["completed"].as_u64().unwrap() > 50, "{what}");
    }
}

/// Goal: the origin speaks HTTP/2 as others expect it. Method: nghttp2's load generator asks for small and
/// for large bodies, several at once.
#[test]
fn h2load_is_served() {
    if !is_there("h2load", true) {
        return;
    }
    let mut origin = Command::new(LAB)
        .args(["origin", "--mode", "http2", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .map(Served)
        .unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(origin.0.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("serving on ").unwrap().to_owned();
    for body in [0, 128, 1 << 20] {
        let output = Command::new("h2load")
            .args(["-n", "200", "-c", "4", "-m", "10"])
            .arg(format!("http://{address}/b/{body}"))
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        let succeeded = "200 done, 200 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(shown.contains(succeeded), "{body}: {shown}");
        assert!(shown.contains("200 2xx"), "{body}: {shown}");
        let data = format!("({}) data", 200 * body);
        assert!(shown.contains(&data), "{body}: {shown}");
    }
}
