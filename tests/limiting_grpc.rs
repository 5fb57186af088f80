//! Adaptive limiting of calls of gRPC: what their clients are told, and what is never refused (L9).
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
    Proxy, eventually,
    http2::{Http2, read, run, until, with},
    http2_origin::Http2Origin,
};
use serde_json::Value;

const GRPC: (&str, &str) = ("content-type", "application/grpc");
/// Calls that are held: four times what the watermark is of.
const HELD: usize = 8;

/// What is known of the only interface.
fn interface(proxy: &Proxy) -> Option<Value> {
    let page: Value = serde_json::from_str(&proxy.admin_get("/limits").text()).unwrap();
    page[0]["interfaces"].get(0).cloned()
}

/// Goal: while calls are refused with status 8, health checks of `grpc.health.v1` go on, without a word about them in
/// the configuration, and are not counted among what is in flight; what only looks like them is refused (L9). Method: an
/// application that holds a `Watch` and calls of stress traffic, more of them than it bears.
#[test]
fn health_checks_are_exempt_by_their_name() {
    let origin = Http2Origin::start(100);
    let held = origin.hold();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, priority: stress, timeout: off }}] }}\n\
         clusters:\n  app:\n    protocol: http2\n    endpoints: {{ static: ['{origin}'] }}\n    \
         adaptive_limit: {{ targets: {{ cpu: off, psi_cpu: off, psi_memory: off, memory: off, loop_lag: off, in_flight: 2 }} }}\n"
    ));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let call = |path| with("POST", path, &[GRPC]);
        let watch = call("/grpc.health.v1.Health/Watch");
        let (watch, _) = client.begin(watch, false).await.unwrap();
        until(|| origin.requests() == 1).await;
        assert_eq!(interface(&proxy), None, "a watch is counted");
        let mut calls = Vec::new();
        for _ in 0..HELD {
            calls.push(client.begin(call("/shop.Pay/Do"), false).await.unwrap().0);
        }
        until(|| origin.requests() == 1 + HELD).await;
        until(|| interface(&proxy).is_some_and(|it| it["limit"] == 0)).await;
        for path in [
            "/shop.Pay/Do",
            "/grpc.health.v1.Health/Other",
            "/grpc.health.v1.Health/Check/",
        ] {
            let refused = client.exchange(call(path), b"").await.unwrap();
            assert_eq!(refused.field("grpc-status"), "8", "{path}");
            assert_eq!(refused.field("x-tidegate-reason"), "overloaded", "{path}");
        }
        // Not a call of gRPC, whatever its path.
        let alike = with("POST", "/grpc.health.v1.Health/Check", &[]);
        assert_eq!(client.exchange(alike, b"").await.unwrap().status, 503);
        let check = call("/grpc.health.v1.Health/Check");
        let (check, _) = client.begin(check, false).await.unwrap();
        until(|| origin.requests() == 2 + HELD).await;
        until(|| interface(&proxy).unwrap()["refused"] == 4).await;
        let shown = interface(&proxy).unwrap();
        assert_eq!(shown["in_flight"], HELD as f64, "{shown}");
        held.send(true).unwrap();
        for answer in [watch, check].into_iter().chain(calls) {
            assert_eq!(read(answer).await.unwrap().status, 200);
        }
    });
    let lines = proxy.access_log(HELD + 6);
    let refused = lines
        .iter()
        .filter(|l| l["tidegate.reason"] == "overloaded");
    assert_eq!(refused.count(), 4, "{lines:?}");
    eventually("the limit ends", || {
        let it = interface(&proxy)?;
        it["limit"].is_null().then_some(())
    });
}
