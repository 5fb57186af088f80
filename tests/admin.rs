//! The admin server of a running process: every page, what it lets in, and that it stays quick.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{collections::BTreeSet, time::Instant};

use common::{Client, Origin, Proxy, eventually, proxy};
use serde_json::Value;

#[track_caller]
fn json(proxy: &Proxy, page: &str) -> Value {
    let response = proxy.admin_get(page);
    assert_eq!(response.status, 200, "{page}");
    serde_json::from_str(&response.text()).unwrap_or_else(|e| panic!("{page}: {e}"))
}

/// Goal: every page is there and says what happened. Method: serve a request, then read them all.
#[test]
fn pages_say_what_happened() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    assert_eq!(proxy.client().get("/").status, 200);

    assert_eq!(proxy.admin_get("/ready").text(), "ready\n");
    assert_eq!(proxy.admin_get("/live").status, 200);
    eventually("a counted request", || {
        (json(&proxy, "/stats")["requests"] == 1).then_some(())
    });
    let listeners = json(&proxy, "/listeners");
    assert_eq!(listeners[0]["name"], "web");
    assert_eq!(listeners[0]["address"], proxy.web().to_string());
    assert_eq!(listeners[0]["routes"][0]["requests"], 1);
    let clusters = json(&proxy, "/clusters");
    assert_eq!(clusters[0]["name"], "app");
    let endpoint = &clusters[0]["endpoints"][0];
    assert_eq!(endpoint["address"], origin.to_string());
    assert_eq!(endpoint["requests"], 1);
    assert_eq!(endpoint["available"], true);
    assert_eq!(json(&proxy, "/shards")[0]["epoch"], 1);
    let server = json(&proxy, "/server_info");
    assert_eq!(server["state"], "ready");
    assert_eq!(server["config"]["epoch"], 1);
    assert!(json(&proxy, "/memory")["resident_bytes"].as_u64().unwrap() > 0);
    let dump = json(&proxy, "/config_dump");
    assert!(dump["config"]["clusters"]["app"].is_object());
    assert!(dump["origins"]["web"].is_object());
    let nope = proxy.admin_get("/nope");
    assert_eq!(nope.status, 404);
    assert!(nope.text().contains("/config_dump"));
    assert_eq!(proxy.admin_get("/drain").status, 405, "changes need POST");
}

/// Goal: the dashboard and its stream work without anything from elsewhere. Method: fetch the page, then
/// read one event while requests flow.
#[test]
fn dashboard_and_stream() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let page = proxy.admin_get("/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("EventSource(\"/stream\")"));

    let mut stream = Client::connect(proxy.admin());
    stream
        .send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut client = proxy.client();
    let event = eventually("an event with a request in it", || {
        assert_eq!(client.get("/").status, 200);
        let event = String::from_utf8(stream.until(b"\n\n").unwrap()).unwrap();
        let data = event.lines().find_map(|line| line.strip_prefix("data: "))?;
        let event: Value = serde_json::from_str(data).unwrap();
        (event["shards"][0]["requests_s"].as_f64() > Some(0.0)).then_some(event)
    });
    assert_eq!(event["state"], "ready");
    assert!(!event["heat"].as_array().unwrap().is_empty());
    assert_eq!(event["clusters"][0]["endpoints"][0]["available"], true);
}

/// Goal: what is scraped is what the reference lists. Method: names of a scrape against `docs/`.
#[test]
fn scrape_and_reference_agree() {
    let proxy = Proxy::before(&Origin::echo());
    let text = proxy
        .admin_get("/metrics?endpoints=1&applications=1")
        .text();
    let scraped: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let reference = include_str!("../docs/reference/metrics.md");
    let listed: BTreeSet<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(scraped, listed);
    assert!(text.contains("tidegate_endpoint_requests_total{cluster=\"app\""));
    let plain = proxy.admin_get("/stats/prometheus").text();
    assert!(!plain.contains("tidegate_endpoint_"), "off by default");
}

/// Goal: pages of other sites get nothing. Method: a rebound name, a cross-site post, and the same post
/// without a browser.
#[test]
fn foreign_pages_are_refused() {
    let proxy = Proxy::before(&Origin::echo());
    let ask = |head: &str| {
        let request = format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
        Client::connect(proxy.admin()).exchange(request).status
    };
    assert_eq!(
        ask("GET /config_dump HTTP/1.1\r\nHost: evil.example\r\n"),
        403
    );
    let foreign = "Host: localhost\r\nOrigin: http://evil.example\r\n";
    assert_eq!(
        ask(&format!("POST /quitquitquit HTTP/1.1\r\n{foreign}")),
        403
    );
    assert_eq!(proxy.admin_get("/ready").status, 200);
    assert_eq!(ask("POST /undrain HTTP/1.1\r\nHost: localhost\r\n"), 200);
}

/// Goal: a command is answered when it was carried out, or with why it was not. Method: a reload of a good
/// and a bad file; drain and undrain, each seen at once.
#[test]
fn commands_are_answered_when_done() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    assert_eq!(proxy.admin_post("/reload").status, 200);
    proxy.write_config("clusters: nonsense\n");
    let refused = proxy.admin_post("/reload");
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("TG-C"), "{}", refused.text());
    assert_eq!(json(&proxy, "/server_info")["config"]["epoch"], 1);

    assert_eq!(proxy.admin_post("/drain").status, 200);
    assert_eq!(proxy.admin_get("/ready").text(), "draining\n");
    assert_eq!(proxy.admin_post("/reload").status, 409);
    assert_eq!(proxy.admin_post("/undrain").status, 200);
    assert_eq!(proxy.admin_get("/ready").text(), "ready\n");
    assert_eq!(proxy.client().get("/").status, 200);
}

/// Goal: the log's level changes while running, and a mistyped one is refused. Method: POST both.
#[test]
fn log_level_changes() {
    let proxy = Proxy::before(&Origin::echo());
    assert_eq!(json(&proxy, "/logging")["level"], "info");
    assert_eq!(proxy.admin_post("/logging?level=debug").status, 200);
    assert_eq!(json(&proxy, "/logging")["level"], "debug");
    assert_eq!(proxy.admin_post("/logging?level=inof").status, 400);
    assert_eq!(json(&proxy, "/logging")["level"], "debug");
}

/// Goal: `/quitquitquit` ends the process in order. Method: POST, then its exit code.
#[test]
fn quit_ends_with_0() {
    let mut proxy = Proxy::before(&Origin::echo());
    assert_eq!(proxy.admin_post("/quitquitquit").status, 200);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Goal: readiness does not wait for a scrape (interfaces: `/ready` within 5 ms while 10,000 series are
/// read). Method: 2,000 clusters make more series than that; the median of 51 answers beside scrapes, so
/// that one moment of a busy machine does not count. The bound is wide, as tests run unoptimised.
#[test]
fn ready_does_not_wait_for_a_scrape() {
    let mut clusters = String::new();
    for i in 0..2000 {
        clusters += &format!("  c{i}: {{ endpoints: {{ static: [127.0.0.1:9] }} }}\n");
    }
    let proxy = Proxy::start(format!(
        "{}{clusters}",
        proxy::web("{ to: app }", &[("app", &Origin::echo())])
    ));
    let series = proxy.admin_get("/metrics").text().lines().count();
    assert!(series > 10_000, "{series}");
    let mut scraper = Client::connect(proxy.admin());
    let mut times: Vec<_> = (0..51)
        .map(|_| {
            scraper
                .send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let began = Instant::now();
            assert_eq!(proxy.admin_get("/ready").status, 200);
            let took = began.elapsed();
            assert_eq!(scraper.response("GET").unwrap().status, 200);
            took
        })
        .collect();
    times.sort_unstable();
    assert!(times[25].as_millis() < 50, "{:?}", times[25]);
}

/// Goal: readers of the stream are bounded. Method: the limit, one more, and one again after they left.
#[test]
fn readers_of_the_stream_are_bounded() {
    let proxy = Proxy::before(&Origin::echo());
    let open = || {
        let mut client = Client::connect(proxy.admin());
        client
            .send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        client
    };
    let is_open = |client: &mut Client| {
        let head = client.until(b"\r\n\r\n").unwrap();
        match &head[..12] {
            b"HTTP/1.1 200" => true,
            b"HTTP/1.1 503" => false,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    };
    let mut readers: Vec<Client> = (0..16).map(|_| open()).collect();
    for reader in &mut readers {
        assert!(is_open(reader));
    }
    assert!(!is_open(&mut open()));
    drop(readers);
    eventually("a free place", || is_open(&mut open()).then_some(()));
}

/// Goal: idle peers cannot keep others out. Method: connections up to the limit (64) and some more that say
/// nothing; the next request is answered once they were dropped.
#[test]
fn idle_peers_are_dropped() {
    let proxy = Proxy::before(&Origin::echo());
    let idle: Vec<Client> = (0..70).map(|_| Client::connect(proxy.admin())).collect();
    assert_eq!(proxy.admin_get("/ready").status, 200);
    drop(idle);
}
