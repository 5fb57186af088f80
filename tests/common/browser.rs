//! Pages as a person sees them, in headless Chromium.

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};

use super::peer;

/// What is looked at, and how.
pub struct Look {
    pub url: String,
    /// An expression of JavaScript that is true once the page shows what is awaited.
    pub until: String,
    /// What is clicked then, if anything, as a CSS selector.
    pub click: Option<&'static str>,
}

/// One look at a page: one width of the window, in light or in dark.
pub struct View {
    pub width: u64,
    pub scheme: String,
    /// What is shown, as text.
    pub text: String,
}

impl Look {
    /// Looks at the page at the width of a desktop and of a phone, in light and in dark, and fails for a page
    /// that complains, asks another host for anything, is wider than its window, or has text that is hard to
    /// see. `None` without a browser.
    #[track_caller]
    pub fn views(&self) -> Option<Vec<View>> {
        let node = peer::program("node")?;
        let chromium = peer::program("chromium")?;
        let playwright = playwright()?;
        let asked = json!({
            "playwright": playwright, "chromium": chromium, "url": self.url, "until": self.until,
            "click": self.click, "picture": std::env::var_os("TIDEGATE_TEST_PICTURES").map(PathBuf::from),
            "widths": [1280, 390], "schemes": ["light", "dark"],
        });
        let said = peer::run(
            Command::new(node)
                .arg(peer::script("browser.mjs"))
                .arg(asked.to_string()),
        );
        let views: Vec<Value> = serde_json::from_str(&said).unwrap();
        assert_eq!(views.len(), 4);
        Some(views.iter().map(|view| judged(&self.url, view)).collect())
    }
}

#[track_caller]
fn judged(url: &str, view: &Value) -> View {
    let what = format!("{url} at {} in {}", view["width"], view["scheme"]);
    for flaw in ["errors", "foreign", "faint"] {
        assert_eq!(view[flaw], json!([]), "{flaw}: {what}");
    }
    assert_eq!(view["overflow"], 0, "pixels beyond the window: {what}");
    View {
        width: view["width"].as_u64().unwrap(),
        scheme: view["scheme"].as_str().unwrap().to_owned(),
        text: view["text"].as_str().unwrap().to_owned(),
    }
}

/// What drives the browser, a package of npm.
#[track_caller]
fn playwright() -> Option<PathBuf> {
    let found = std::env::var_os("TIDEGATE_TEST_PLAYWRIGHT").map(PathBuf::from);
    let found = found.filter(|folder| folder.is_dir());
    if found.is_none() {
        peer::absent("playwright-core (TIDEGATE_TEST_PLAYWRIGHT)");
    }
    found
}
