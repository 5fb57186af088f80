//! The whole of `tidegate-lab overload`, with nothing between the clients and the application.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// Goal: an application that is asked for a fifth of what it can do answers it, one that is asked for ten
/// times of it leaves most without an answer, and both are told. Method: a step of each, just longer than
/// the time to settle.
#[test]
fn an_unprotected_application_collapses() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("overload");
    let _ = fs::remove_dir_all(&out);
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(["overload", "--peers", "direct", "--steps", "0.2,10"])
        .args(["--seconds", "4.1", "--healthy", "0.1", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}");
    let result = fs::read_to_string(out.join("overload.json")).unwrap();
    let result: Value = serde_json::from_str(&result).unwrap();
    assert!(result["capacity"].as_f64().unwrap() > 1.0, "{result}");
    let outcome = |cell: usize| result["cells"][cell]["outcomes"][0].clone();
    let part = |outcome: &Value| {
        let of = |name: &str| outcome[name].as_f64().unwrap();
        of("good_per_s") / of("offered_per_s")
    };
    let (well, overloaded) = (outcome(0), outcome(1));
    assert!(part(&well) > 0.5, "{well}");
    assert!(part(&overloaded) < 0.2, "{overloaded}");
    let text = fs::read_to_string(out.join("overload.md")).unwrap();
    for heading in ["**0.2 × capacity**", "**10 × capacity**"] {
        assert!(text.contains(heading), "{text}");
    }
    fs::remove_dir_all(&out).unwrap();
}
