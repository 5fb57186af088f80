//! The report in a browser, at the width of a desktop and of a phone, in light and in dark. Without node,
//! Chromium and playwright-core it is skipped with a word about it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

/// Goal: whoever opens the report can read it, wherever. Method: a run of two peers that need nothing, for a
/// moment; four looks at its page.
#[test]
fn the_report_can_be_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let Some(playwright) = std::env::var_os("TIDEGATE_TEST_PLAYWRIGHT") else {
        assert!(std::env::var_os("TIDEGATE_TEST_PEERS").is_none());
        eprintln!("skipped: playwright-core is not installed");
        return;
    };
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-page");
    let _ = fs::remove_dir_all(&out);
    let run = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args([
            "run",
            "http1-small",
            "many-connections",
            "--peers",
            "direct,floor",
        ])
        .args([
            "--rounds",
            "2",
            "--seconds",
            "0.3",
            "--warm-up",
            "0.1",
            "--out",
        ])
        .arg(&out)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let asked = json!({
        "playwright": playwright.to_str(), "chromium": "/usr/bin/chromium",
        "url": format!("file://{}", out.join("report.html").display()),
        "until": "document.querySelectorAll('svg').length > 0", "click": null,
        "picture": std::env::var("TIDEGATE_TEST_PICTURES").ok(),
        "widths": [1280, 390], "schemes": ["light", "dark"],
    });
    let looked = Command::new("node")
        .arg(root.join("tests/peers/browser.mjs"))
        .arg(asked.to_string())
        .output()
        .unwrap();
    assert!(
        looked.status.success(),
        "{}",
        String::from_utf8_lossy(&looked.stderr)
    );
    let views: Vec<Value> = serde_json::from_slice(&looked.stdout).unwrap();
    assert_eq!(views.len(), 4);
    for view in &views {
        let what = format!("{} px, {}", view["width"], view["scheme"]);
        for flaw in ["errors", "foreign", "faint"] {
            assert_eq!(view[flaw], json!([]), "{flaw}: {what}");
        }
        assert_eq!(view["overflow"], 0, "pixels beyond the window: {what}");
        let text = view["text"].as_str().unwrap();
        for word in [
            "direct",
            "floor",
            "CPU µs/request",
            "tidegate-lab run",
            "http1-small",
        ] {
            assert!(text.contains(word), "{word}: {what}");
        }
    }
    fs::remove_dir_all(&out).unwrap();
}
