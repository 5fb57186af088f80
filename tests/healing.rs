//! Self-healing end to end: sick endpoints leave and come back, by what their calls come to (H1–H3, H5, H6, H8, H10, H11).
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
    io,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
};

use common::{Client, Origin, Proxy, eventually};
use serde_json::Value;

/// What a node does with requests.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Does {
    Answer,
    Reset,
    Fail,
    Unavailable,
    Hang,
}

/// An origin whose health the test decides.
struct Node {
    origin: Origin,
    does: Arc<AtomicU8>,
}

impl Node {
    fn start() -> Node {
        let does = Arc::new(AtomicU8::new(Does::Answer as u8));
        let shared = does.clone();
        let origin = Origin::start(move |peer| {
            while peer.next_request()?.is_some() {
                match shared.load(Ordering::SeqCst) {
                    does if does == Does::Reset as u8 => {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                    does if does == Does::Fail as u8 => {
                        let answer =
                            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
                        peer.wire.send(answer)?;
                    }
                    does if does == Does::Unavailable as u8 => {
                        let answer =
                            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                        peer.wire.send(answer)?;
                    }
                    does if does == Does::Hang as u8 => {
                        // Until the other side gives up.
                        peer.wire.head()?;
                    }
                    _ => peer
                        .wire
                        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?,
                }
            }
            Ok(())
        });
        Node { origin, does }
    }

    fn set(&self, does: Does) {
        self.does.store(does as u8, Ordering::SeqCst);
    }

    fn requests(&self) -> usize {
        self.origin.requests().len()
    }
}

fn config(nodes: &[Node], heal: &str) -> String {
    let addresses: Vec<String> = nodes.iter().map(|n| format!("\"{}\"", n.origin)).collect();
    format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes: [{{ to: app, timeout: 2s }}]\nclusters:\n  \
         app:\n    endpoints: {{ static: [{}] }}\n{heal}",
        addresses.join(", ")
    )
}

fn heal(settings: &str) -> String {
    format!("    heal: {{ {settings} }}\n")
}

/// Sends requests over one connection, whatever comes back.
fn send(proxy: &Proxy, requests: usize) {
    let mut client = proxy.client();
    for _ in 0..requests {
        client.get("/");
    }
}

fn healing(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/healing").text()).unwrap()
}

fn state(proxy: &Proxy, node: &Node) -> String {
    let page = healing(proxy);
    let endpoints = page["clusters"][0]["endpoints"].as_array().unwrap();
    let address = node.origin.to_string();
    let endpoint = endpoints.iter().find(|e| e["address"] == address).unwrap();
    endpoint["state"].as_str().unwrap().to_owned()
}

/// Events of a node, the oldest first: `ejected failures_in_row`.
fn events(proxy: &Proxy, node: &Node) -> Vec<String> {
    let page = healing(proxy);
    let events = page["events"].as_array().unwrap().iter().rev();
    let address = node.origin.to_string();
    let of_node = events.filter(|event| event["address"] == address);
    let said = |event: &Value| {
        let words = ["event", "cause", "guard"].map(|key| event[key].as_str().unwrap_or_default());
        words.join(" ").trim_end().to_owned()
    };
    of_node.map(said).collect()
}

/// Goal: a node that breaks connections fails five requests and no more, is out on all shards, is tried with
/// one request and comes back when it answers that (H1, H3, H11). Method: one of two nodes breaks every
/// connection; requests are counted at the nodes.
#[test]
fn dead_node_leaves_and_comes_back() {
    let nodes = [Node::start(), Node::start()];
    let proxy = Proxy::start(config(
        &nodes,
        &heal("base_ejection: 300ms, slow_start: 0s"),
    ));
    send(&proxy, 20);
    nodes[1].set(Does::Reset);
    let before = nodes[1].requests();
    // At once: the shard does not wait for the coordinator. One is sent twice, since it met a pooled
    // connection that might have been closed before.
    send(&proxy, 40);
    assert_eq!(nodes[1].requests() - before, 6);
    eventually("an ejection", || {
        (events(&proxy, &nodes[1]).first()? == "ejected failures_in_row").then_some(())
    });
    // Each trial costs one request, and each failed one doubles the time.
    eventually("two trials", || {
        send(&proxy, 5);
        let failed = "ejected probation";
        (events(&proxy, &nodes[1])
            .iter()
            .filter(|e| *e == failed)
            .count()
            >= 2)
            .then_some(())
    });
    assert_eq!(nodes[1].requests() - before, 8);
    nodes[1].set(Does::Answer);
    eventually("a recovery", || {
        send(&proxy, 5);
        (state(&proxy, &nodes[1]) == "healthy").then_some(())
    });
    assert_eq!(events(&proxy, &nodes[1]).last().unwrap(), "recovered");
    let before = nodes[1].requests();
    send(&proxy, 20);
    assert_eq!(nodes[1].requests() - before, 10);
    assert!(events(&proxy, &nodes[0]).is_empty());
}

/// Goal: of an endpoint that is out every view says why, with the numbers of when that was decided, and for how long yet;
/// and nothing of it once it is back (H4, H10). Method: one of two nodes breaks connections and is ejected; JSON, text and
/// the view of its cluster.
#[test]
fn views_say_why_an_endpoint_is_out() {
    let nodes = [Node::start(), Node::start()];
    let settings = "base_ejection: 1h, max_ejection: 1h";
    let proxy = Proxy::start(config(&nodes, &heal(settings)));
    send(&proxy, 20);
    let endpoint = || {
        let page = healing(&proxy);
        let endpoints = page["clusters"][0]["endpoints"].as_array().unwrap();
        let address = nodes[1].origin.to_string();
        let found = endpoints.iter().find(|e| e["address"] == address);
        found.unwrap().clone()
    };
    let clusters =
        || -> Value { serde_json::from_str(&proxy.admin_get("/clusters").text()).unwrap() };
    let cause = |clusters: &Value| clusters[0]["endpoints"][1]["healing_cause"].clone();
    assert_eq!(
        (&endpoint()["cause"], &endpoint()["found"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(cause(&clusters()), Value::Null);
    nodes[1].set(Does::Reset);
    eventually("an ejection", || {
        send(&proxy, 10);
        (state(&proxy, &nodes[1]) == "ejected").then_some(())
    });
    let out = endpoint();
    assert_eq!(
        (&out["cause"], &out["guard"]),
        (&"failures_in_row".into(), &Value::Null)
    );
    assert!(
        out["found"]["failures_in_row"].as_u64().unwrap() >= 5,
        "{out}"
    );
    assert!(out["found"]["calls"].as_f64().unwrap() >= 5.0, "{out}");
    assert!(
        (3_000.0..=3_600.0).contains(&out["left_s"].as_f64().unwrap()),
        "{out}"
    );
    assert_eq!(cause(&clusters()), "failures_in_row");
    let text = proxy.admin_get("/healing?format=text").text();
    assert!(text.contains("ejected (failures_in_row), 3"), "{text}");
    assert!(text.contains("failures in a row"), "{text}");
    let restored = proxy.admin_post(&format!("/healing?cluster=app&restore={}", nodes[1].origin));
    assert_eq!(restored.status, 200);
    let back = endpoint();
    assert_eq!(
        (&back["cause"], &back["found"]),
        (&Value::Null, &Value::Null)
    );
}

/// Goal: Envoy's fields, as they are, take a node out after so many failures in a row of their kind, on the shard that
/// sees them at once, and it comes back as every node does (H3, H11). Method: one of two nodes fails in a way, for
/// each of the kinds; requests are counted at the node.
#[test]
fn envoys_fields_are_honoured() {
    let split = "split_external_local_origin_errors: true, consecutive_local_origin_failure: 2";
    let gateway = "consecutive_5xx: 100, consecutive_gateway_failure: 4, enforcing_consecutive_gateway_failure: 100";
    for (does, fields, failures, cause) in [
        (Does::Fail, "consecutive_5xx: 3", 3, "consecutive_5xx"),
        (Does::Unavailable, gateway, 4, "consecutive_gateway_failure"),
        // One is sent again, since it met a pooled connection that might have been closed before.
        (Does::Reset, split, 3, "consecutive_local_origin_failure"),
    ] {
        let nodes = [Node::start(), Node::start()];
        let outlier = format!(
            "    outlier_detection: {{ {fields}, base_ejection_time: 300ms, interval: 1s }}\n"
        );
        let proxy = Proxy::start(config(&nodes, &outlier));
        send(&proxy, 20);
        nodes[1].set(does);
        let before = nodes[1].requests();
        send(&proxy, 40);
        assert_eq!(nodes[1].requests() - before, failures, "{cause}");
        let expected = format!("ejected {cause}");
        eventually("an ejection", || {
            (*events(&proxy, &nodes[1]).first()? == expected).then_some(())
        });
        nodes[1].set(Does::Answer);
        eventually("a recovery", || {
            send(&proxy, 5);
            (state(&proxy, &nodes[1]) == "healthy").then_some(())
        });
        let judged_by = &healing(&proxy)["clusters"][0]["judged_by"];
        assert_eq!(judged_by, "outlier_detection");
        let metrics = proxy.admin_get("/metrics").text();
        let line =
            format!("tidegate_healing_ejections_total{{cluster=\"app\",cause=\"{cause}\"}} 1");
        assert!(metrics.contains(&line), "{line}");
        assert!(events(&proxy, &nodes[0]).is_empty());
    }
}

/// Goal: a node that answers half of its calls with 500 is found by its rate, as its peer has none (H8).
/// Method: two nodes, one of which fails, then both: then nobody leaves, and it is said why (H10).
#[test]
fn failing_node_leaves_unless_all_fail() {
    let nodes = [Node::start(), Node::start()];
    let proxy = Proxy::start(config(&nodes, &heal("base_ejection: 1m")));
    send(&proxy, 200);
    nodes[1].set(Does::Fail);
    eventually("an ejection", || {
        send(&proxy, 20);
        (state(&proxy, &nodes[1]) == "ejected").then_some(())
    });
    assert_eq!(events(&proxy, &nodes[1]), ["ejected failure_rate"]);
    nodes[0].set(Does::Fail);
    send(&proxy, 200);
    eventually("the last one is suspected", || {
        send(&proxy, 20);
        (state(&proxy, &nodes[0]) == "suspect").then_some(())
    });
    let said = events(&proxy, &nodes[0]);
    assert!(said[0].starts_with("suspected"), "{said:?}");
    assert!(
        proxy.stderr().contains("of its peers"),
        "{}",
        proxy.stderr()
    );
    let metrics = proxy.admin_get("/metrics").text();
    for line in [
        "tidegate_healing_ejections_total{cluster=\"app\",cause=\"failure_rate\"} 1",
        "tidegate_healing_endpoints{cluster=\"app\",state=\"ejected\"} 1",
        "tidegate_healing_endpoints{cluster=\"app\",state=\"suspect\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

/// Goal: a node that hangs is out long before deadlines tell (H6). Method: one of two nodes falls silent under
/// twelve clients; the ejection is by the stall, and not by the time-out of 2 s.
#[test]
fn hanging_node_leaves() {
    let nodes = [Node::start(), Node::start()];
    let proxy = Proxy::start(config(&nodes, &heal("base_ejection: 1m")));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..12)
        .map(|_| {
            let (address, stop) = (proxy.web(), stop.clone());
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::SeqCst) {
                    client.get("/");
                }
            })
        })
        .collect();
    eventually("a usual latency", || {
        let page = healing(&proxy);
        page["clusters"][0]["endpoints"][1]["evidence"]["latency_s"].as_f64()
    });
    nodes[1].set(Does::Hang);
    eventually("an ejection", || {
        (state(&proxy, &nodes[1]) == "ejected").then_some(())
    });
    stop.store(true, Ordering::SeqCst);
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    assert_eq!(events(&proxy, &nodes[1])[0], "ejected stall");
}

/// Goal: in shadow, what would be done is told and counted, and nothing is done (L11). Method: a node that
/// breaks connections keeps its share.
#[test]
fn shadow_changes_nothing() {
    let nodes = [Node::start(), Node::start()];
    let proxy = Proxy::start(config(&nodes, &heal("mode: shadow, base_ejection: 1m")));
    send(&proxy, 20);
    nodes[1].set(Does::Reset);
    eventually("it is told", || {
        send(&proxy, 4);
        (state(&proxy, &nodes[1]) == "ejected").then_some(())
    });
    let before = nodes[1].requests();
    send(&proxy, 20);
    assert_eq!(nodes[1].requests() - before, 10);
    assert_eq!(healing(&proxy)["events"][0]["enforced"], false);
    let refused = proxy.admin_post(&format!("/healing?cluster=app&eject={}", nodes[0].origin));
    assert_eq!(refused.status, 409, "{}", refused.text());
}

/// Goal: an operator takes endpoints out and back in, but not the last one, and mistakes are told (H5). Method:
/// `ctl` against a running process.
#[test]
fn by_hand() {
    let nodes = [Node::start(), Node::start()];
    let proxy = Proxy::start(config(&nodes, &heal("slow_start: 0s")));
    let ctl = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["ctl", "--admin", &proxy.admin().to_string()])
            .args(arguments)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    };
    let [a, b] = [0, 1].map(|k: usize| nodes[k].origin.to_string());
    let (code, said) = ctl(&["eject", "app", &b, "--for", "10m", "--dry-run"]);
    let expected = format!("would be: app, {b}: healthy → ejected for 10m\n");
    assert_eq!((code, said), (0, expected));
    assert_eq!(state(&proxy, &nodes[1]), "healthy");
    let (code, said) = ctl(&["restore", "app", &b, "--dry-run"]);
    assert!(code == 5 && said.contains("not ejected"), "{code} {said}");
    let (code, said) = ctl(&["eject", "app", &b, "--for", "10m"]);
    assert_eq!(
        (code, said.as_str()),
        (
            0,
            &*format!("app, {b}: healthy → ejected for 10m\nundo: tidegate ctl restore app {b}\n")
        )
    );
    let before = nodes[1].requests();
    send(&proxy, 10);
    assert_eq!(nodes[1].requests(), before);
    let (_, said) = ctl(&["healing"]);
    assert!(
        said.contains("ejected (by_hand), 599.") || said.contains("ejected (by_hand), 600.0"),
        "{said}"
    );
    for arguments in [
        &["eject", "app", &a][..],
        &["eject", "app", &a, "--dry-run"],
    ] {
        let (code, said) = ctl(arguments);
        assert!(code == 5 && said.contains("last node"), "{code} {said}");
    }
    let (code, said) = ctl(&["eject", "app", "192.0.2.1:1"]);
    assert!(code == 5 && said.contains(&b), "{code} {said}");
    let (code, said) = ctl(&["eject", "none", &b]);
    assert!(code == 5 && said.contains("app"), "{code} {said}");
    assert_eq!(ctl(&["eject", "app", &b, "--for", "long"]).0, 2);
    assert_eq!(ctl(&["restore", "app", &b]).0, 0);
    let (code, said) = ctl(&["restore", "app", &b]);
    assert!(code == 5 && said.contains("not ejected"), "{code} {said}");
    send(&proxy, 10);
    assert!(nodes[1].requests() > before);
}

/// Goal: what is out stays out over reloads, and is in again when the cluster heals no more. Method: reloads
/// with another change, with another endpoint before it, and without `heal`.
#[test]
fn reloads_keep_what_was_found() {
    let nodes = [Node::start(), Node::start()];
    let proxy = Proxy::start(config(&nodes, &heal("base_ejection: 1m, slow_start: 0s")));
    nodes[1].set(Does::Reset);
    eventually("an ejection", || {
        send(&proxy, 10);
        (state(&proxy, &nodes[1]) == "ejected").then_some(())
    });
    nodes[1].set(Does::Answer);
    let before = nodes[1].requests();
    let [first, second] = nodes;
    let nodes = [second, first];
    proxy.reload(config(&nodes, &heal("base_ejection: 2m")));
    send(&proxy, 20);
    assert_eq!(nodes[0].requests(), before);
    assert_eq!(state(&proxy, &nodes[0]), "ejected");
    proxy.reload(config(&nodes, ""));
    send(&proxy, 20);
    assert_eq!(nodes[0].requests() - before, 10);
}
