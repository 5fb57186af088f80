//! Adaptive limiting end to end: what pushes the machine over is held back, and only that (L1–L11).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use common::{Client, Origin, Proxy, eventually};
use serde_json::Value;

/// An application that answers heavy requests only when it is told to, and all others at once.
struct Application {
    origin: Origin,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Application {
    fn start() -> Application {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = gate.clone();
        let origin = Origin::start(move |peer| {
            while let Some(request) = peer.next_request()? {
                if request.head.target().starts_with("/heavy") {
                    let (open, changed) = &*shared;
                    let open = open.lock().unwrap();
                    drop(changed.wait_while(open, |open| !*open).unwrap());
                }
                peer.wire
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            }
            Ok(())
        });
        Application { origin, gate }
    }

    fn open(&self) {
        let (open, changed) = &*self.gate;
        *open.lock().unwrap() = true;
        changed.notify_all();
    }
}

/// The watermark is of requests in flight alone, so that the test decides it.
fn config(app: &Application, rule: &str) -> String {
    format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      - {{ name: heavy, match: {{ path: /heavy/** }}, to: app }}\n      \
         - {{ name: health, match: {{ path: /health }}, to: app, priority: exempt }}\n      \
         - {{ name: pay, match: {{ path: /pay }}, to: app, priority: critical }}\n      \
         - {{ name: rest, to: app }}\nclusters:\n  app:\n    endpoints: {{ static: [\"{}\"] }}\n    \
         adaptive_limit: {{ targets: {{ cpu: off, psi_cpu: off, psi_memory: off, memory: off, loop_lag: off, in_flight: 8 }}{rule} }}\n",
        app.origin
    )
}

fn limits(proxy: &Proxy) -> Value {
    let page: Value = serde_json::from_str(&proxy.admin_get("/limits").text()).unwrap();
    page[0].clone()
}

fn interface(proxy: &Proxy, name: &str) -> Value {
    let page = limits(proxy);
    let interfaces = page["interfaces"].as_array().unwrap();
    let found = interfaces.iter().find(|i| i["name"] == name).unwrap();
    found.clone()
}

/// Waits until an interface is limited.
#[track_caller]
fn wait_for_limit(proxy: &Proxy, name: &str) {
    eventually("a limit", || {
        let page = limits(proxy);
        let mut interfaces = page["interfaces"].as_array()?.iter();
        let is_limited = |i: &&Value| i["name"] == name && i["limit"].is_number();
        interfaces.find(is_limited).map(drop)
    });
}

/// Clients that send one request after another until told to stop, and how their requests ended.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<u16>>>,
}

impl Load {
    fn start(proxy: &Proxy, clients: usize, target: &'static str, headers: &'static str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients).map(|_| {
            let (address, stop) = (proxy.web(), stop.clone());
            thread::spawn(move || {
                // One connection for all: a refusal keeps it (L8).
                let mut client = Client::connect(address);
                let mut statuses = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let request =
                        format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n");
                    statuses.push(client.exchange(request).status);
                }
                statuses
            })
        });
        Load {
            clients: clients.collect(),
            stop,
        }
    }

    fn end(self) -> Vec<u16> {
        self.stop.store(true, Ordering::SeqCst);
        let clients = self.clients.into_iter();
        clients.flat_map(|client| client.join().unwrap()).collect()
    }
}

/// Goal: the interface that pushes is held to what was healthy, by answers that say so and cost little; the
/// others go on; all of it can be explained; and it ends with the overload (L1, L2, L5, L7, L9, L10; of L8 that the connection is kept). Method: an
/// application that holds requests, a watermark of requests in flight, thirty clients on one interface.
#[test]
fn what_pushes_is_held_back() {
    let app = Application::start();
    let proxy = Proxy::start(config(&app, ""));
    for target in ["/pay", "/other", "/health"] {
        assert_eq!(proxy.client().get(target).status, 200);
    }
    let load = Load::start(&proxy, 30, "/heavy/a", "");
    wait_for_limit(&proxy, "web/heavy");
    let refused = eventually("a refusal", || {
        let answer = proxy.client().get("/heavy/b");
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(refused.head.get("x-tidegate-reason"), Some("overloaded"));
    assert_eq!(refused.head.get("retry-after"), Some("1"));
    let mut client = proxy.client();
    for _ in 0..20 {
        for target in ["/pay", "/other", "/health"] {
            assert_eq!(client.get(target).status, 200, "{target}");
        }
    }
    let page = limits(&proxy);
    assert!(page["watermark"].as_f64().unwrap() > 1.0, "{page}");
    assert_eq!(page["signal"], "in_flight");
    let heavy = interface(&proxy, "web/heavy");
    assert!(heavy["limit"].as_u64().unwrap() <= 8, "{heavy}");
    eventually("the refusals are shown", || {
        (interface(&proxy, "web/heavy")["refused"].as_u64()? > 0).then_some(())
    });
    assert_eq!(interface(&proxy, "web/pay")["refused"], 0);
    let decisions: Value =
        serde_json::from_str(&proxy.admin_get("/limits/decisions").text()).unwrap();
    // Each says why, in numbers.
    for number in ["unix_ms", "watermark", "epoch"] {
        assert!(decisions[0][number].is_number(), "{decisions}");
    }
    assert_eq!(decisions[0]["signal"], "in_flight");
    let limit = &decisions[0]["limits"][0];
    for number in ["limit", "in_flight", "demand", "callers_let_in"] {
        assert!(limit[number].is_number(), "{limit}");
    }
    assert!(limit["in_flight"].as_u64().unwrap() >= 1, "{limit}");
    assert_eq!(
        (&limit["interface"], &limit["priority"]),
        (&"web/heavy".into(), &"normal".into())
    );
    let metrics = proxy.admin_get("/metrics").text();
    for line in [
        "tidegate_limits_overloaded{cluster=\"app\"} 1",
        "tidegate_interface_limit{cluster=\"app\",interface=\"web/heavy\",priority=\"normal\"}",
        "tidegate_interface_baseline{cluster=\"app\",interface=\"web/heavy\",priority=\"normal\"}",
        "tidegate_refused_total{reason=\"overloaded\"}",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(
        proxy
            .admin_get("/limits?format=text")
            .text()
            .contains("web/heavy (normal)")
    );
    app.open();
    let statuses = load.end();
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 503)),
        "{statuses:?}"
    );
    eventually("the limit is dropped", || {
        proxy.client().get("/other");
        interface(&proxy, "web/heavy")["limit"]
            .is_null()
            .then_some(())
    });
    assert_eq!(limits(&proxy)["phase"], "healthy");
    assert_eq!(proxy.client().get("/heavy/c").status, 200);
    let lines = proxy.access_log(64);
    let line = lines
        .iter()
        .find(|line| line["tidegate.reason"] == "overloaded")
        .unwrap();
    assert_eq!(line["tidegate.limit.interface"], "web/heavy");
    assert_eq!(line["tidegate.limit.signal"], "in_flight");
    for number in ["value", "in_flight", "watermark", "epoch"] {
        assert!(
            line[format!("tidegate.limit.{number}")].is_number(),
            "{line}"
        );
    }
    let log = proxy.stderr();
    assert!(
        log.contains("overloaded: watermark") && log.contains("no longer overloaded"),
        "{log}"
    );
}

/// Goal: in shadow, limits are computed, shown and counted, and nothing is refused (L11). Method: as above.
#[test]
fn shadow_refuses_nothing() {
    let app = Application::start();
    let proxy = Proxy::start(config(&app, ", mode: shadow"));
    let load = Load::start(&proxy, 30, "/heavy/a", "");
    wait_for_limit(&proxy, "web/heavy");
    // In flight as before the limit: the next ones are over it.
    let more = Load::start(&proxy, 4, "/heavy/b", "");
    eventually("it is counted", || {
        (interface(&proxy, "web/heavy")["would_refuse"].as_u64()? > 0).then_some(())
    });
    app.open();
    let statuses = [load.end(), more.end()].concat();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(interface(&proxy, "web/heavy")["refused"], 0);
}

/// Goal: a rule that is tried out acts on the proxies that have its labels, and is in shadow on the others (L11).
/// Method: the same rule on a proxy without labels, on one with others, and on one of the canaries.
#[test]
fn canaries_are_chosen_by_label() {
    let app = Application::start();
    for (labels, mode) in [
        ("", "shadow"),
        ("labels: { stage: main }", "shadow"),
        ("labels: { stage: canary, rack: r7 }", "enforce"),
    ] {
        let rule = config(&app, ", canary: { labels: { stage: canary } }");
        let proxy = Proxy::start(format!("node: {{ {labels} }}\n{rule}"));
        let shown = eventually("the rule", || {
            let page = limits(&proxy);
            (!page.is_null()).then_some(page)
        });
        assert_eq!(shown["mode"], mode, "{labels}");
    }
}

/// Goal: a header may say the priority, and stress traffic is refused first and whole (L7). Method: one
/// interface, called as stress by some and without a word by others.
#[test]
fn stress_traffic_goes_first() {
    let app = Application::start();
    let proxy = Proxy::start(config(&app, ", priority_header: x-priority"));
    let load = Load::start(&proxy, 12, "/heavy/a", "X-Priority: stress\r\n");
    wait_for_limit(&proxy, "web/heavy");
    let stress = eventually("stress is refused", || {
        let request = "GET /rest HTTP/1.1\r\nHost: a.example\r\nX-Priority: stress\r\n\r\n";
        let status = proxy.client().exchange(request).status;
        (status == 503).then_some(status)
    });
    assert_eq!(stress, 503);
    assert_eq!(proxy.client().get("/rest").status, 200);
    app.open();
    load.end();
}

/// Goal: limits follow a reload: interfaces that stay keep what is known of them, and without a rule nothing
/// is refused. Method: reloads in the middle of an overload.
#[test]
fn reloads_keep_limits() {
    let app = Application::start();
    let proxy = Proxy::start(config(&app, ""));
    let load = Load::start(&proxy, 30, "/heavy/a", "");
    wait_for_limit(&proxy, "web/heavy");
    proxy.reload(config(&app, ", floor: 2").replace("name: rest", "name: others"));
    eventually("a refusal after the reload", || {
        (proxy.client().get("/heavy/b").status == 503).then_some(())
    });
    let without = config(&app, "");
    let rule = without.find("    adaptive_limit").unwrap();
    proxy.reload(&without[..rule]);
    app.open();
    assert_eq!(proxy.client().get("/heavy/c").status, 200);
    load.end();
    eventually("nothing is shown", || {
        limits(&proxy).is_null().then_some(())
    });
}

/// Goal: an application that says that it is full is held to what it had while it was not (L1, L10). Method: its
/// answers carry an ORCA report, first of little, then of far too much, then of little again; nothing else is
/// measured. What CPU time they say that they took is the interface's (L4), and one of 5xx has failed.
#[test]
fn applications_say_how_full_they_are() {
    let load = Arc::new(Mutex::new(
        "TEXT cpu_utilization=0.1,request_cost.cpu_seconds=0.25",
    ));
    let said = load.clone();
    let origin = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            let said = *said.lock().unwrap();
            let status = match request.head.target() {
                "/broken" => "500 Internal Server Error",
                _ => "200 OK",
            };
            peer.wire.send(format!(
                "HTTP/1.1 {status}\r\nendpoint-load-metrics: {said}\r\nContent-Length: 0\r\n\r\n"
            ))?;
        }
        Ok(())
    });
    let proxy = Proxy::start(format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes: [{{ to: app }}]\nclusters:\n  app:\n    \
         endpoints: {{ static: [\"{origin}\"] }}\n    adaptive_limit: {{ targets: {{ cpu: off, psi_cpu: off, \
         psi_memory: off, memory: off, loop_lag: off }} }}\n"
    ));
    let stream = Load::start(&proxy, 4, "/", "");
    let app = || limits(&proxy)["signals"]["app"].clone();
    eventually("the application's word", || {
        (app()["value"].as_f64()? < 0.5).then_some(())
    });
    assert_eq!(proxy.client().get("/broken").status, 500);
    let interface = || limits(&proxy)["interfaces"][0].clone();
    eventually("what answers took, and one that failed", || {
        let seen = interface();
        (seen["cpu"].as_f64()? > 0.2 && seen["failed"] == 1).then_some(())
    });
    let metrics = proxy.admin_get("/metrics").text();
    assert!(metrics.contains("tidegate_interface_cpu{"), "{metrics}");
    assert!(
        metrics.lines().any(
            |line| line.starts_with("tidegate_interface_failed_total{") && line.ends_with(" 1")
        ),
        "{metrics}"
    );
    *load.lock().unwrap() = "JSON {\"application_utilization\": 2.5, \"cpu_utilization\": 0.1}";
    eventually("an overload", || {
        let page = limits(&proxy);
        (page["phase"] == "overloaded" && page["signal"] == "app").then_some(())
    });
    *load.lock().unwrap() = "TEXT application_utilization=0.1";
    eventually("its end", || {
        drop(proxy.client().get("/"));
        (limits(&proxy)["phase"] == "healthy").then_some(())
    });
    stream.end();
}

/// Goal: one empty section is a complete rule: every signal has a target and is measured, who pushes is found and held,
/// and is told why (L2). Method: an application that says that it is ten times too full, more than anything else of
/// the test's machine can be; no key of the section.
#[test]
fn an_empty_section_is_a_complete_rule() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nendpoint-load-metrics: TEXT application_utilization=10\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::start(format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:0, routes: [{{ name: all, to: app }}] }} }}\nclusters:\n  app:\n    \
         endpoints: {{ static: [\"{origin}\"] }}\n    adaptive_limit: {{}}\n"
    ));
    let load = Load::start(&proxy, 16, "/", "");
    wait_for_limit(&proxy, "web/all");
    let refused = eventually("a refusal", || {
        let answer = proxy.client().get("/");
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(refused.head.get("x-tidegate-reason"), Some("overloaded"));
    assert_eq!(refused.head.get("retry-after"), Some("1"));
    // CPU time is measured between two looks.
    let page = eventually("two looks", || {
        let page = limits(&proxy);
        page["signals"]["cpu"]["value"].is_number().then_some(page)
    });
    assert_eq!(
        (&page["mode"], &page["scope"]),
        (&"enforce".into(), &"host".into())
    );
    let signals = page["signals"].as_object().unwrap();
    let targets = signals
        .iter()
        .map(|(name, signal)| (name.as_str(), signal["target"].as_f64().unwrap()));
    let mut targets: Vec<(&str, f64)> = targets.collect();
    targets.sort_by_key(|(name, _)| *name);
    assert_eq!(
        targets,
        [
            ("app", 1.0),
            ("cpu", 0.8),
            ("loop_lag", 0.02),
            ("memory", 0.9),
            ("psi_cpu", 0.65),
            ("psi_memory", 0.1)
        ]
    );
    for measured in ["app", "cpu", "memory"] {
        assert!(signals[measured]["value"].is_number(), "{page}");
    }
    assert_eq!(signals["app"]["part"], 10.0);
    assert!(page["watermark"].as_f64().unwrap() >= 10.0, "{page}");
    let statuses = load.end();
    assert!(statuses.contains(&200), "nobody is let in");
    let lines = proxy.access_log(statuses.len() + 1);
    let why = lines
        .iter()
        .find(|line| line["tidegate.reason"] == "overloaded");
    assert_eq!(why.unwrap()["tidegate.limit.interface"], "web/all");
}
