//! The reference page of what is supported of the Envoy API is what the proxy goes by.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{env, fs, path::Path};

/// Goal: the page says what is so. Method: write it by the table and compare. `TIDEGATE_BLESS=1` writes it anew.
#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/xds.md");
    let page = tidegate_xds::translate::support::matrix();
    if env::var_os("TIDEGATE_BLESS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/reference/xds.md is out of date: run `TIDEGATE_BLESS=1 cargo test -p tidegate-xds`"
    );
}
