//! Faults that routes inject on purpose, as clients see them. Which requests are hit is tested in `core`.
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
    Origin, Proxy,
    http2::{Http2, run, with},
    proxy,
};

/// Goal: requests are refused with what the route says, without reaching an endpoint, and the connection goes on; those
/// that do not meet the conditions are not. Method: a table over one connection; the log and the counter say the same.
#[test]
fn requests_are_refused_on_purpose() {
    let origin = Origin::named("a");
    let proxy = Proxy::start(proxy::web(
        "{ match: { path: /teapot }, to: a, fault: { abort: { status: 418 } } },
         { match: { path: /some }, to: a, fault: { abort: { status: 500 }, header: { x-chaos: '1' } } },
         { match: { path: /asked }, to: a, fault: { abort: { by_header: true } } },
         { match: { path: /none }, to: a, fault: { abort: { status: 500, share: 0% } } },
         { match: { path: /full }, to: a, fault: { abort: { status: 500 }, max_active: 0 } },
         { match: { path: /moved }, redirect: /there, fault: { abort: { status: 500 } } }",
        &[("a", &origin)],
    ));
    let mut client = proxy.client();
    let cases = [
        ("/teapot", "", 418),
        ("/some", "", 200),
        ("/some", "x-chaos: 2\r\n", 200),
        ("/some", "x-chaos: 1\r\n", 500),
        ("/asked", "", 200),
        ("/asked", "x-envoy-fault-abort-request: 429\r\n", 429),
        ("/none", "", 200),
        ("/full", "", 200),
        ("/moved", "", 500),
    ];
    for (target, headers, status) in cases {
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let response = client.exchange(request);
        assert_eq!(response.status, status, "{target} {headers}");
        let reason = (status != 200).then_some("fault_injected");
        assert_eq!(
            response.head.get("x-tidegate-reason"),
            reason,
            "{target} {headers}"
        );
    }
    assert_eq!(origin.requests().len(), 5);
    let log = proxy.access_log(cases.len());
    let refused = log
        .iter()
        .filter(|line| line["tidegate.reason"] == "fault_injected");
    assert_eq!(refused.count(), 4);
    proxy.wait_for_metric("tidegate_route_faults_aborted_total", |n| {
        (n - 4.0).abs() < 0.1
    });
    proxy.wait_for_metric("tidegate_route_faults_over_limit_total", |n| {
        (n - 1.0).abs() < 0.1
    });
    assert!(proxy.metric("tidegate_route_faults_active") < 0.1);
}

/// Goal: a delay goes before everything else, and does not count against the route's time-out. Method: a route whose
/// time-out is shorter than its delay; the log says how long that was.
#[test]
fn requests_are_delayed_on_purpose() {
    let origin = Origin::named("a");
    let proxy = Proxy::start(proxy::web(
        "{ match: { path: /slow }, to: a, timeout: 250ms, fault: { delay: { fixed: 300ms } } },
         { match: { path: /both }, to: a, fault: { delay: { by_header: true }, abort: { status: 503 } } }",
        &[("a", &origin)],
    ));
    let mut client = proxy.client();
    assert_eq!(client.get("/slow").status, 200);
    let both = "GET /both HTTP/1.1\r\nHost: h\r\nx-envoy-fault-delay-request: 100\r\n\r\n";
    assert_eq!(client.exchange(both).status, 503);
    let log = proxy.access_log(2);
    let delay = |line: usize| log[line]["tidegate.fault.delay"].as_f64().unwrap();
    assert!(delay(0) >= 0.29 && delay(1) >= 0.09, "{log:?}");
    proxy.wait_for_metric("tidegate_route_faults_delayed_total", |n| {
        (n - 2.0).abs() < 0.1
    });
}

/// Goal: a call of gRPC is told the status of gRPC, that of the fault or the one that goes with a status of HTTP; others
/// see 200, as with Envoy. Method: both kinds of faults, a call and a request of each.
#[test]
fn calls_of_grpc_are_refused_in_their_words() {
    let origin = Origin::named("a");
    let proxy = Proxy::start(proxy::web(
        "{ match: { path: /grpc }, to: a, fault: { abort: { grpc_status: 7 } } },
         { match: { path: /http }, to: a, fault: { abort: { status: 503 } } }",
        &[("a", &origin)],
    ));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        for (path, grpc_status, status) in [("/grpc", "7", 200), ("/http", "14", 503)] {
            let call = with("POST", path, &[("content-type", "application/grpc")]);
            let answer = client.exchange(call, b"").await.unwrap();
            assert_eq!(
                (answer.status, answer.field("grpc-status")),
                (200, grpc_status),
                "{path}"
            );
            let plain = client.exchange(with("GET", path, &[]), b"").await.unwrap();
            assert_eq!(plain.status, status, "{path}");
        }
    });
    assert!(origin.requests().is_empty());
}
