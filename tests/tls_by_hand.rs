//! Rollouts of TLS that an operator sets by hand, over reloads (E3, X4).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{
    Origin, Proxy, eventually,
    tls::{Authority, SERVER_NAME},
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Goal: what was set by hand outlives reloads, until the file says something else about that cluster; nothing
/// weakens what is required (E16). Method: set a share, reload with another change, then with another share.
#[test]
fn changes_by_hand_outlive_reloads() {
    let (authority, origin) = (Authority::new(), Origin::echo());
    let config = |drain: u64, share: u64| {
        format!(
            "drain_timeout: {drain}s\nsecrets:\n{}listeners:\n  web:\n    bind: 127.0.0.1:0\n    \
             routes: [{{ to: app }}]\nclusters:\n  app:\n    \
             tls: {{ mode: follow_peer, rollout: {share}%, server_name: {SERVER_NAME}, trusted_ca: ca }}\n    \
             endpoints: {{ static: [\"{origin}\"] }}\n",
            authority.secret("ca")
        )
    };
    let proxy = Proxy::start(config(10, 10));
    let rollout = || {
        let page = proxy.admin_get("/encryption").text();
        let page: Value = serde_json::from_str(&page).unwrap();
        let clusters = page["clusters"].as_array().unwrap();
        let rollout = &clusters.iter().find(|c| c["name"] == "app").unwrap()["rollout"];
        (
            rollout["share"].as_f64().unwrap(),
            rollout["by_hand"].clone(),
        )
    };
    assert_eq!(rollout(), (0.1, Value::Null));
    let set = proxy.admin_post("/encryption?cluster=app&rollout=20%25");
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(rollout(), (0.2, "20%".into()));

    proxy.reload(config(11, 10));
    assert_eq!(rollout(), (0.2, "20%".into()));

    // Says the same as the file: nothing changes.
    proxy.signal(Signal::SIGHUP);
    eventually("a reload without a change", || {
        proxy.stderr().contains("changes nothing").then_some(())
    });
    assert_eq!(rollout(), (0.2, "20%".into()));

    proxy.reload(config(11, 30));
    assert_eq!(rollout(), (0.3, Value::Null));
    assert!(proxy.stderr().contains("the rollout set by hand ends"));
}
