//! The healing center as a process: real sockets, real clients, a store that survives it.
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
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{
    Origin, Proxy,
    center::{Center, Folder, Reporter, ejected, endpoint, node, settings},
    eventually, peer,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tidegate_core::healing::report::OutboxLimits;
use tidegate_xds::healing::lifecycle::{self, Hook, Lifecycle};

fn store(folder: &Folder) -> String {
    folder.file("center.redb").display().to_string()
}

/// Goal: ejections of several proxies arrive, are acknowledged, and are shown with their numbers (H4).
/// Method: two clients of one center, its JSON and metrics.
#[test]
fn ejections_arrive_and_are_acknowledged() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &[]);
    let reporters = ["a", "b"].map(|id| Reporter::start(settings(node(id, &[]), &[&center])));
    for reporter in &reporters {
        reporter.report(ejected(80));
        reporter.wait_acknowledged(1);
    }
    assert_eq!(center.ports("ejected", "a"), [80]);
    assert_eq!(center.ports("ejected", "b"), [80]);
    // Both callers agree.
    let endpoints = eventually("a verdict", || {
        let endpoints = center.json("/endpoints");
        (endpoints[0]["verdict"] == "sick").then_some(endpoints)
    });
    assert_eq!(endpoints[0]["health_status"], "UNHEALTHY");
    let finding = endpoints[0].pointer("/claims/0/finding").unwrap();
    assert_eq!(
        (&finding["reason"], &finding["calls"]),
        (&Value::from("failures_in_row"), &Value::from(20))
    );
    for reporter in &reporters {
        let order = reporter.orders.recv_timeout(common::PATIENCE).unwrap();
        assert_eq!(order.directive.action.word(), "confirm");
    }
    assert_eq!(center.metric("tidegate_center_reports_total"), 2);
    assert_eq!(center.metric("tidegate_center_nodes_connected"), 2);
    let nodes = center.json("/nodes");
    assert!(
        nodes
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["connected"] == true)
    );
}

/// Goal: a center that dies loses nothing that was acknowledged, and gets the rest once (H12). Method: kill
/// it with reports on both sides of its death, start it again with its store on the same port.
#[test]
fn killed_center_loses_nothing() {
    let folder = Folder::new();
    let store = store(&folder);
    let center = Center::anywhere(&folder, &["--store", &store]);
    let (listen, epoch) = (center.listen, center.metric("tidegate_center_epoch"));
    let reporter = Reporter::start(settings(node("a", &[]), &[&center]));
    (1..=3).for_each(|port| reporter.report(ejected(port)));
    reporter.wait_acknowledged(3);
    center.kill();
    (4..=8).for_each(|port| reporter.report(ejected(port)));
    eventually("five reports that wait", || {
        let status = reporter.status();
        (status.center.is_none() && status.waiting == 5).then_some(())
    });
    let center = Center::start(&folder, "again", listen, &["--store", &store]);
    reporter.wait_acknowledged(8);
    assert_eq!(center.ports("ejected", "a"), (1..=8).collect::<Vec<u16>>());
    assert!(center.metric("tidegate_center_epoch") > epoch);
    assert_eq!(center.metric("tidegate_center_reports_lost_total"), 0);
    // Not even a center that lost its disk is left alone.
    center.kill();
    fs::remove_file(&store).unwrap();
    reporter.report(ejected(9));
    let center = Center::start(&folder, "anew", listen, &["--store", &store]);
    reporter.wait_acknowledged(9);
    assert_eq!(center.ports("ejected", "a"), [9]);
}

/// Goal: a center that freezes is left, and reports that it had taken without an acknowledgement count once
/// (H12). Method: stop the process with reports on their way, and let it go on.
#[test]
fn frozen_center_is_left() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &[]);
    let reporter = Reporter::start(settings(node("a", &[]), &[&center]));
    reporter.report(ejected(1));
    reporter.wait_acknowledged(1);
    center.signal(Signal::SIGSTOP);
    (2..=4).for_each(|port| reporter.report(ejected(port)));
    let status = eventually("the client to leave", || {
        let status = reporter.status();
        (status.center.is_none() && status.waiting == 3).then_some(status)
    });
    let error = status.last_error.unwrap();
    assert!(error.contains("silent"), "{error}");
    center.signal(Signal::SIGCONT);
    reporter.wait_acknowledged(4);
    assert_eq!(center.ports("ejected", "a"), [1, 2, 3, 4]);
}

/// Goal: a storm is bounded where it begins, and what is dropped is counted on both sides (H4, H12).
/// Method: two thousand ejections at once into a queue of a hundred.
#[test]
fn storm_is_bounded() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &[]);
    let mut storm = settings(node("a", &[]), &[&center]);
    storm.outbox = OutboxLimits {
        len_max: 100,
        burst: 20,
        rate: 200.0,
    };
    let reporter = Reporter::start(storm);
    reporter.wait_connected();
    (1..=2000).for_each(|port| reporter.report(ejected(port)));
    let counts = eventually("the end of the storm", || {
        let status = reporter.status();
        assert!(status.waiting <= 100, "{status:?}");
        let over = status.counts.reported >= 2000 && status.waiting == 0;
        over.then_some(status.counts)
    });
    assert!(counts.dropped > 0, "{counts:?}");
    assert_eq!(counts.acknowledged + counts.dropped, counts.reported);
    let stored = center.metric("tidegate_center_reports_total");
    let lost = center.metric("tidegate_center_reports_lost_total");
    // Some were stored, and dropped before that was acknowledged.
    assert_eq!(stored + lost, counts.reported);
    assert!(
        stored >= counts.acknowledged && lost > 0,
        "{stored}, {lost}, {counts:?}"
    );
}

/// Goal: from three reports to a restarted application, through the proxy that fronts it and nobody else
/// (H5). Method: a hook that writes down what it was asked.
#[test]
fn conviction_restarts_the_application() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &[]);
    let written = folder.file("restarted");
    let script = format!(
        "echo $TIDEGATE_ACTION $TIDEGATE_APPLICATION $TIDEGATE_ENDPOINT > {0}.new; mv {0}.new {0}",
        written.display()
    );
    let mut fronting = settings(node("f", &[80]), &[&center]);
    fronting.lifecycle = Some(Lifecycle {
        hook: Hook::Command(vec!["sh".into(), "-c".into(), script.into()]),
        timeout: lifecycle::TIMEOUT,
    });
    let fronting = Reporter::start(fronting);
    fronting.wait_connected();
    let reporters = ["a", "b", "c"].map(|id| Reporter::start(settings(node(id, &[]), &[&center])));
    reporters
        .iter()
        .for_each(|reporter| reporter.report(ejected(80)));
    let said = eventually("the hook", || fs::read_to_string(&written).ok());
    assert_eq!(said.trim(), format!("restart pay {}", endpoint(80)));
    let actions = eventually("the end of the restart", || {
        let actions = center.json("/actions");
        (actions.pointer("/0/running/done") == Some(&Value::Bool(true))).then_some(actions)
    });
    assert_eq!(actions[0]["restarts"], 1);
    assert_eq!(actions.pointer("/0/running/node"), Some(&Value::from("f")));
    assert_eq!(center.metric("tidegate_center_restarts_total"), 1);
}

/// Goal: the same through a whole proxy, by its configuration alone (H5). Method: as above, with `restart` in its
/// file; and a proxy without a hook, which refuses.
#[test]
fn a_proxy_restarts_its_application() {
    for has_hook in [true, false] {
        let folder = Folder::new();
        let center = Center::anywhere(&folder, &[]);
        let written = folder.file("restarted");
        let hook = match has_hook {
            true => format!(
                ", restart: {{ command: [sh, -c, 'echo $TIDEGATE_ACTION $TIDEGATE_APPLICATION $TIDEGATE_ENDPOINT > {0}.new; mv {0}.new {0}'] }}",
                written.display()
            ),
            false => String::new(),
        };
        let origin = Origin::echo();
        let _fronting = Proxy::start(format!(
            "node: {{ id: f, app: pay }}\ncenter: {{ addresses: [\"{}\"], fronts: [\"{}\"]{hook} }}\nlisteners:\n  \
             web:\n    bind: 127.0.0.1:0\n    routes: [{{ to: local }}]\nclusters:\n  local: {{ endpoints: {{ static: [\"{origin}\"] }} }}\n",
            center.listen,
            endpoint(80)
        ));
        eventually("the proxy at the center", || {
            (center.json("/nodes")[0]["connected"] == true).then_some(())
        });
        let reporters =
            ["a", "b", "c"].map(|id| Reporter::start(settings(node(id, &[]), &[&center])));
        reporters
            .iter()
            .for_each(|reporter| reporter.report(ejected(80)));
        if has_hook {
            let said = eventually("the hook", || fs::read_to_string(&written).ok());
            assert_eq!(said.trim(), format!("restart pay {}", endpoint(80)));
        }
        eventually("its outcome at the center", || {
            let is_known = match has_hook {
                true => {
                    center.json("/actions").pointer("/0/running/done") == Some(&Value::Bool(true))
                }
                false => center.json("/events").to_string().contains("remedy_failed"),
            };
            is_known.then_some(())
        });
    }
}

/// Goal: a person's word is taken, from this machine's own pages only (H5). Method: confirm and clear, an
/// unknown endpoint, a post that a browser sent from elsewhere.
#[test]
fn people_confirm_and_clear() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &["--quorum", "9"]);
    let reporter = Reporter::start(settings(node("a", &[]), &[&center]));
    reporter.report(ejected(80));
    reporter.wait_acknowledged(1);
    let target = |word: &str, port| format!("/{word}?endpoint={}", endpoint(port));
    assert_eq!(center.ask("POST", &target("confirm", 81), "").status, 409);
    let elsewhere = "Origin: https://evil.example\r\n";
    assert_eq!(
        center.ask("POST", &target("confirm", 80), elsewhere).status,
        403
    );
    assert_eq!(center.ask("GET", &target("confirm", 80), "").status, 405);
    for (word, verdict, action) in [("confirm", "sick", "confirm"), ("clear", "well", "clear")] {
        assert_eq!(center.ask("POST", &target(word, 80), "").status, 200);
        assert_eq!(center.json("/endpoints")[0]["verdict"], verdict);
        let order = reporter.orders.recv_timeout(common::PATIENCE).unwrap();
        assert_eq!(order.directive.action.word(), action);
    }
    assert!(center.get("/").text().contains("<h1>Center"));
}

/// Goal: whoever does not know the token is not let in, and a center open to the network has one. Method: no
/// token, a wrong one, the right one; an address that is not loopback.
#[test]
fn tokens_are_checked() {
    let folder = Folder::new();
    let token = folder.file("token");
    fs::write(&token, "secret\n").unwrap();
    let center = Center::anywhere(&folder, &["--token-file", token.to_str().unwrap()]);
    for wrong in [None, Some("secreT"), Some("secret2")] {
        let mut settings = settings(node("a", &[]), &[&center]);
        settings.token = wrong.map(Into::into);
        let reporter = Reporter::start(settings);
        let error = eventually("a refusal", || reporter.status().last_error);
        assert!(error.contains("token"), "{error}");
        assert_eq!(reporter.status().streams, 0);
    }
    let mut settings = settings(node("a", &[]), &[&center]);
    settings.token = Some("secret".into());
    Reporter::start(settings).wait_connected();
    let open = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["center", "--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    assert_eq!(open.status.code(), Some(2));
}

/// Goal: one store, one center. Method: a second one on the same file.
#[test]
fn store_has_one_center() {
    let folder = Folder::new();
    let store = store(&folder);
    let mut center = Center::anywhere(&folder, &["--store", &store]);
    let second = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args([
            "center",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "off",
            "--store",
            &store,
        ])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(4));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another center uses it"), "{said}");
    center.signal(Signal::SIGTERM);
    assert_eq!(center.wait().code(), Some(0));
}

/// Goal: the protocol is plain gRPC, for whoever writes a client. Method: Google's gRPC in Python: reports,
/// a repeated one, acknowledgements, a directive, and messages out of bounds.
#[test]
fn python_speaks_the_protocol() {
    let Some(python) = peer::python("grpc") else {
        return;
    };
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &["--quorum", "1"]);
    let said = peer::run(
        Command::new(python)
            .arg(peer::script("healing_client.py"))
            .arg(center.listen.to_string()),
    );
    assert!(said.contains("all right"), "{said}");
    assert_eq!(center.ports("ejected", "python"), [80]);
    assert_eq!(center.metric("tidegate_center_reports_repeated_total"), 1);
}

/// Goal: a proxy tells the center of an ejection with its numbers, and obeys what it says of it (H4, H5). Method: a
/// whole proxy before two nodes of which one breaks every connection; `/clear` by hand at the center.
#[test]
fn a_proxy_reports_and_obeys() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &[]);
    let sick = Arc::new(AtomicBool::new(true));
    let is_sick = sick.clone();
    let well = Origin::echo();
    let broken = Origin::start(move |peer| {
        while peer.next_request()?.is_some() {
            if is_sick.load(Ordering::SeqCst) {
                return Ok(());
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    let proxy = Proxy::start(format!(
        "node: {{ id: edge-1, app: edge }}\ncenter: {{ addresses: [\"{}\"] }}\nlisteners:\n  web:\n    \
         bind: 127.0.0.1:0\n    routes: [{{ to: pay }}]\nclusters:\n  pay:\n    \
         endpoints: {{ static: [\"{well}\", \"{broken}\"] }}\n    heal: {{ base_ejection: 1m, slow_start: 0s }}\n",
        center.listen
    ));
    let mut client = proxy.client();
    (0..20).for_each(|_| drop(client.get("/")));
    let port = broken.address.port();
    eventually("the report", || {
        (center.ports("ejected", "edge-1") == [port]).then_some(())
    });
    let endpoints = center.json("/endpoints");
    let finding = endpoints[0].pointer("/claims/0/finding").unwrap();
    assert_eq!(finding["reason"], "failures_in_row", "{endpoints}");
    assert!(
        finding["errors"].to_string().contains("failed_reset"),
        "{finding}"
    );
    let page = || -> Value { serde_json::from_str(&proxy.admin_get("/healing").text()).unwrap() };
    eventually("the acknowledgement", || {
        (page()["center"]["acknowledged"].as_u64()? > 0).then_some(())
    });
    assert!(
        proxy
            .admin_get("/metrics")
            .text()
            .contains("tidegate_center_connected 1")
    );
    sick.store(false, Ordering::SeqCst);
    let cleared = center.ask("POST", &format!("/clear?endpoint={}", broken.address), "");
    assert_eq!(cleared.status, 200, "{}", cleared.text());
    eventually("the return, by a trial", || {
        drop(client.get("/"));
        let page = page();
        let endpoints = page["clusters"][0]["endpoints"].as_array()?;
        endpoints
            .iter()
            .all(|e| e["state"] == "healthy")
            .then_some(())
    });
    eventually("the report of it", || {
        (center.ports("recovered", "edge-1") == [port]).then_some(())
    });
}

/// The state of endpoints of the first cluster, as a proxy shows it.
fn clusters(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/clusters").text()).unwrap()
}

/// Goal: an application that is full alone gets less from its callers, by the word of its own proxy, for as long
/// as it is (L12, H5, H13). Method: three whole proxies, two that front the two endpoints of a service and one
/// that calls it; requests hang behind the first, more than it may have in flight, and then end.
#[test]
fn full_application_is_relieved() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &["--window", "1s"]);
    let gate = Arc::new(AtomicBool::new(false));
    let is_open = gate.clone();
    let full = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            if request.head.target() == "/hang" {
                eventually("the open gate", || {
                    is_open.load(Ordering::SeqCst).then_some(())
                });
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    let idle = Origin::echo();
    let sidecar = |id: &str, origin: &Origin| {
        Proxy::start(format!(
            "node: {{ id: {id}, app: pay }}\ncenter: {{ addresses: [\"{}\"], fronts: [\"{origin}\"] }}\n\
             listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes: [{{ to: local }}]\nclusters:\n  local:\n    \
             endpoints: {{ static: [\"{origin}\"] }}\n    adaptive_limit: {{ targets: {{ cpu: off, psi_cpu: off, \
             psi_memory: off, memory: off, loop_lag: off, in_flight: 2 }} }}\n",
            center.listen
        ))
    };
    let (beside_full, _beside_idle) = (sidecar("side-1", &full), sidecar("side-2", &idle));
    let caller = Proxy::start(format!(
        "node: {{ id: caller, app: shop }}\ncenter: {{ addresses: [\"{}\"] }}\nlisteners:\n  web:\n    \
         bind: 127.0.0.1:0\n    routes: [{{ to: pay }}]\nclusters:\n  pay:\n    \
         endpoints: {{ static: [\"{full}\", \"{idle}\"] }}\n",
        center.listen
    ));
    eventually("three proxies at the center", || {
        let nodes = center.json("/nodes");
        let nodes = nodes.as_array()?;
        (nodes
            .iter()
            .filter(|node| node["connected"] == true)
            .count()
            == 3)
            .then_some(())
    });
    let mut hanging: Vec<_> = (0..8).map(|_| beside_full.client().into_wire()).collect();
    for client in &mut hanging {
        let sent = client.send("GET /hang HTTP/1.1\r\nHost: a.example\r\n\r\n");
        sent.unwrap();
    }
    let prior = || clusters(&caller)[0]["endpoints"][0]["prior"].as_f64();
    let part = eventually("less load", prior);
    assert!((0.1..0.5).contains(&part), "{part}");
    let endpoints = center.json("/endpoints");
    assert_eq!(endpoints[0]["verdict"], "overloaded", "{endpoints}");
    let before = full.requests().len();
    let mut client = caller.client();
    (0..60).for_each(|_| drop(client.get("/")));
    let got = full.requests().len() - before;
    assert!(got < 25, "{got} of 60");
    gate.store(true, Ordering::SeqCst);
    eventually("the whole load", || prior().is_none().then_some(()));
}

/// Goal: what one proxy finds sick and others find well is let back, and what others find sick, too, is not (H5).
/// Method: an endpoint that breaks what one proxy sends, and passes or fails the health check of the other, which the
/// center asks to probe it; before that, the other has no check and says that it cannot tell.
#[test]
fn probes_settle_what_one_cannot() {
    let checked = "health: { http: { path: /health }, interval: 1h }";
    for (check, status, expected) in [
        ("", "200 OK", "unsettled"),
        (checked, "200 OK", "well"),
        (checked, "503 Service Unavailable", "sick"),
    ] {
        let folder = Folder::new();
        let center = Center::anywhere(&folder, &[]);
        let well = Origin::echo();
        let flaky = Origin::start(move |peer| {
            while let Some(request) = peer.next_request()? {
                if request.head.target() != "/health" {
                    return Ok(());
                }
                peer.wire
                    .send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))?;
            }
            Ok(())
        });
        let proxy = |id: &str, more: &str| {
            Proxy::start(format!(
                "node: {{ id: {id}, app: shop }}\ncenter: {{ addresses: [\"{}\"] }}\nlisteners:\n  web:\n    \
                 bind: 127.0.0.1:0\n    routes: [{{ to: pay }}]\nclusters:\n  pay:\n    \
                 endpoints: {{ static: [\"{well}\", \"{flaky}\"] }}\n    heal: {{ base_ejection: 1m }}\n    {more}\n",
                center.listen
            ))
        };
        let _asked = proxy("asked", check);
        eventually("the one to be asked", || {
            (center.json("/nodes")[0]["connected"] == true).then_some(())
        });
        let reporter = proxy("reporter", "");
        let mut client = reporter.client();
        (0..20).for_each(|_| drop(client.get("/")));
        eventually(expected, || {
            (center.json("/endpoints")[0]["verdict"] == expected).then_some(())
        });
        if expected == "well" {
            eventually("the directive at the reporter", || {
                reporter
                    .stderr()
                    .contains("healing center: clear asked for: Done")
                    .then_some(())
            });
        }
    }
}
