//! What the admin server says and does about encryption: the census (E1), the ratchet of strict, secrets as far as
//! they may be shown (E9), and rollouts by hand (E3).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{fmt::Write, fs};

use common::{
    Client, Origin, Proxy, eventually,
    tls::{Authority, CLIENT_ID, Identity, Leaf, SERVER_NAME, Session, client_config},
};
use serde_json::Value;

/// A listener `web` in front of an origin, with an authority of its own.
struct Mesh {
    authority: Authority,
    web: Identity,
    origin: Origin,
}

impl Mesh {
    fn new() -> Mesh {
        let authority = Authority::new();
        let web = authority.issue(&Leaf::server(SERVER_NAME));
        Mesh {
            authority,
            web,
            origin: Origin::echo(),
        }
    }

    /// The listener in `mode`, with further keys of its `tls` section.
    fn config(&self, mode: &str, keys: &str) -> String {
        let mut config = "secrets:\n".to_owned();
        config += &self.web.secret("web");
        config += &self.authority.secret("ca");
        write!(
            config,
            "listeners:\n  web:\n    bind: 127.0.0.1:0\n    tls:\n      mode: {mode}\n      certificates: web\n      \
             client_certificate: {{ mode: optional, trusted_ca: ca }}\n      peer_header: x-app\n{keys}    \
             routes: [{{ to: app }}]\nclusters:\n  app: {{ endpoints: {{ static: [\"{}\"] }} }}\n  \
             mesh:\n    tls: {{ mode: follow_peer, rollout: 10%, trusted_ca: ca }}\n    \
             endpoints: {{ static: [{{ address: \"{}\", zone: z1, tls: {{ state: on, epoch: 3 }} }}] }}\n",
            self.origin, self.origin
        )
        .unwrap();
        config
    }

    /// One request in TLS as `identity`, or as nobody.
    #[track_caller]
    fn get(&self, proxy: &Proxy, identity: Option<&Identity>) {
        let client = client_config(&self.authority, identity);
        let mut session = Session::connect(proxy.web(), SERVER_NAME, &client).unwrap();
        let answer = session.get("/").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[track_caller]
fn get_as(client: &mut Client, app: &str) {
    let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-App: {app}\r\n\r\n");
    assert_eq!(client.exchange(request).status, 200);
}

#[track_caller]
fn json(proxy: &Proxy, page: &str) -> Value {
    let response = proxy.admin_get(page);
    assert_eq!(response.status, 200, "{page}");
    serde_json::from_str(&response.text()).unwrap_or_else(|e| panic!("{page}: {e}"))
}

fn listener(proxy: &Proxy) -> Value {
    json(proxy, "/encryption")["listeners"][0].clone()
}

fn application(listener: &Value, name: &str) -> Value {
    let all = listener["applications"].as_array().unwrap();
    let found = all.iter().find(|a| a["name"] == name);
    found.cloned().unwrap_or(Value::Null)
}

/// Goal: every peer application is counted under its name, encrypted and not, and the share is exact (E1).
/// Method: one by certificate, two by header over one connection, one by address; then the page in both forms,
/// and the metrics.
#[test]
fn census_counts_by_application() {
    let mesh = Mesh::new();
    let proxy = Proxy::start(mesh.config("permissive", ""));
    let known = mesh.authority.issue(&Leaf::client(CLIENT_ID));
    for _ in 0..3 {
        mesh.get(&proxy, Some(&known));
    }
    let mut shared = proxy.client();
    get_as(&mut shared, "old-pay");
    get_as(&mut shared, "old-cart");
    get_as(&mut shared, "old-cart");
    assert_eq!(proxy.client().get("/").status, 200);
    // Enough to be told from TLS, too little to say who it is.
    let mut unknown = proxy.client();
    unknown.send("GET / HTTP/1.1\r\n").unwrap();
    let census = eventually("seven requests in the census", || {
        let listener = listener(&proxy);
        let count = |kind: &str| listener[kind]["requests"].as_u64().unwrap();
        (count("tls") + count("plaintext") == 7).then_some(listener)
    });
    assert_eq!(census["mode"], "permissive");
    assert_eq!(census["encrypted"]["requests"], 0.4285);
    let requests = |name: &str, kind: &str| application(&census, name)[kind]["requests"].clone();
    assert_eq!(requests(CLIENT_ID, "tls"), 3);
    assert_eq!(requests(CLIENT_ID, "plaintext"), 0);
    assert_eq!(requests("old-pay", "plaintext"), 1);
    assert_eq!(requests("old-cart", "plaintext"), 2);
    assert_eq!(requests("127.0.0.1", "plaintext"), 1);
    // The connection is whose first request it carried, and one has said nothing.
    let old_pay = application(&census, "old-pay");
    assert_eq!(old_pay["plaintext"]["connections_open"], 1);
    let bytes = old_pay["plaintext"]["received_bytes"].as_u64().unwrap();
    assert!(bytes > 30, "{bytes}");
    eventually("the connection of nobody", || {
        (listener(&proxy)["plaintext_unknown_open"] == 1).then_some(())
    });

    let text = proxy.admin_get("/encryption?format=text").text();
    assert!(text.contains("listener web: permissive"), "{text}");
    assert!(text.contains("strict would hit: listener `web`"), "{text}");
    assert!(text.contains(CLIENT_ID), "{text}");
    let metrics = proxy.admin_get("/metrics").text();
    let by_listener = "tidegate_listener_requests_total{listener=\"web\",encryption=\"tls\"} 3\n";
    assert!(metrics.contains(by_listener), "{metrics}");
    assert!(!metrics.contains("application=\"old-pay\""), "{metrics}");
    let metrics = proxy.admin_get("/metrics?applications=1").text();
    assert!(
        metrics.contains(
            "tidegate_application_requests_total{listener=\"web\",application=\"old-cart\",\
             encryption=\"plaintext\"} 2\n"
        ),
        "{metrics}"
    );
    assert_eq!(unknown.exchange("Host: a.example\r\n\r\n").status, 200);
    assert_eq!(proxy.admin_get("/encryption?format=xml").status, 400);
}

/// Goal: names that could break logs or metrics are no names. Method: a header with bytes beyond ASCII, one with
/// a blank, one too long; all are `other`.
#[test]
fn bad_names_are_other() {
    let mesh = Mesh::new();
    let proxy = Proxy::start(mesh.config("permissive", ""));
    let long = "x".repeat(256);
    for name in ["a b", "gr\u{fc}n", long.as_str()] {
        get_as(&mut proxy.client(), name);
    }
    let census = eventually("three requests", || {
        let listener = listener(&proxy);
        (listener["plaintext"]["requests"] == 3).then_some(listener)
    });
    assert_eq!(application(&census, "other")["plaintext"]["requests"], 3);
}

/// Goal: relayed connections are counted as well. Method: one through a TCP listener; seen while open, and with
/// its bytes when it is over.
#[test]
fn relays_are_counted() {
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, protocol: tcp, to: app }}\n\
         clusters:\n  app: {{ endpoints: {{ static: [\"{origin}\"] }} }}\n"
    ));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let open = listener(&proxy);
    let peer = application(&open, "127.0.0.1");
    assert_eq!(peer["plaintext"]["connections_open"], 1);
    drop(client);
    let over = eventually("the end of the relay", || {
        let peer = application(&listener(&proxy), "127.0.0.1");
        (peer["plaintext"]["requests"] == 1).then_some(peer)
    });
    assert!(over["plaintext"]["sent_bytes"].as_u64().unwrap() > 10);
    assert_eq!(listener(&proxy)["mode"], Value::Null);
}

/// Goal: strict is refused while plaintext is open or was seen within the window, with the reason, and is taken
/// afterwards; nothing changes meanwhile. Method: a reload with a plaintext connection open, another once it is
/// gone.
#[test]
fn strict_waits_for_plaintext_peers() {
    let mesh = Mesh::new();
    let window = "      census_window: 1s\n";
    let proxy = Proxy::start(mesh.config("permissive", window));
    let mut client = proxy.client();
    get_as(&mut client, "old-pay");
    proxy.write_config(mesh.config("strict", window));
    let refused = proxy.admin_post("/reload");
    assert_eq!(refused.status, 409, "{}", refused.text());
    let why = refused.text();
    for part in [
        "strict is refused: listener `web`: plaintext connections open 1",
        "`old-pay` (open 1, requests 1, ",
        "ctl reload --force-strict",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!(json(&proxy, "/server_info")["config"]["epoch"], 1);
    get_as(&mut client, "old-pay");
    drop(client);
    // Within the window after the last of it, then not any more.
    eventually("strict", || {
        let reload = proxy.admin_post("/reload");
        assert!([200, 409].contains(&reload.status), "{}", reload.text());
        (listener(&proxy)["mode"] == "strict").then_some(())
    });
    mesh.get(&proxy, None);
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 400);
    client.expect_close();
    // A step back is always taken.
    proxy.write_config(mesh.config("permissive", window));
    assert_eq!(proxy.admin_post("/reload").status, 200);
    get_as(&mut proxy.client(), "old-pay");
}

/// Goal: strict can be forced, by hand and in the file, and the log says whom it hits. Method: both, with a
/// plaintext connection open.
#[test]
fn strict_can_be_forced() {
    let mesh = Mesh::new();
    for (keys, target) in [
        ("", "/reload?force_strict=1"),
        ("      force: true\n", "/reload"),
    ] {
        let proxy = Proxy::start(mesh.config("permissive", keys));
        let mut client = proxy.client();
        get_as(&mut client, "old-pay");
        proxy.write_config(mesh.config("strict", keys));
        let forced = proxy.admin_post(target);
        assert_eq!(forced.status, 200, "{}", forced.text());
        assert_eq!(listener(&proxy)["mode"], "strict");
        let log = proxy.stderr();
        let line = log
            .lines()
            .find(|l| l.contains("strict is forced"))
            .unwrap();
        assert!(line.contains("`old-pay`"), "{line}");
        // What is open is ended politely: one more answer, which says so.
        get_as(&mut client, "old-pay");
        client.expect_close();
    }
}

/// Goal: at start-up there is no census, so strict is taken. Method: start with it.
#[test]
fn strict_is_taken_at_start() {
    let mesh = Mesh::new();
    let proxy = Proxy::start(mesh.config("strict", ""));
    mesh.get(&proxy, None);
    assert_eq!(listener(&proxy)["strict_would_hit"], Value::Null);
}

/// Goal: certificates are shown, keys never are (E9). Method: the page in both forms, compared with what was
/// issued; the text of the key is looked for in every page.
#[test]
fn certificates_are_shown() {
    let mesh = Mesh::new();
    let proxy = Proxy::start(mesh.config("permissive", ""));
    let secrets = json(&proxy, "/certs")["secrets"].clone();
    let web = secrets
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["name"] == "web");
    let web = web.unwrap();
    assert_eq!(web["kind"], "certificate");
    assert_eq!(web["state"], "good");
    assert_eq!(web["generation"], 1);
    assert_eq!(web["refusal"], Value::Null);
    let names = web["subject_alt_names"].to_string();
    assert!(names.contains(SERVER_NAME), "{names}");
    let days = web["days_left"].as_f64().unwrap();
    assert!(days > 30.0, "{days}");
    assert_eq!(web["fingerprint_sha256"].as_str().unwrap().len(), 64);
    let text = proxy.admin_get("/certs?format=text").text();
    assert!(text.contains("web: certificate, good"), "{text}");
    assert!(text.contains("ca: trusted_ca, good"), "{text}");

    let key = fs::read_to_string(&mesh.web.private_key).unwrap();
    let part = key.lines().nth(1).unwrap();
    for page in [
        "/certs",
        "/certs?format=text",
        "/encryption",
        "/config_dump",
        "/metrics",
        "/stats",
    ] {
        let shown = proxy.admin_get(page).text();
        assert!(!shown.contains(part), "{page}");
    }
    assert!(!proxy.stderr().contains(part));
}

/// Goal: a rollout is set by hand and taken back, and the page says target and actual (E3, E5). Method: on, off
/// and file for a cluster that follows; then what cannot be.
#[test]
fn rollouts_are_set_by_hand() {
    let mesh = Mesh::new();
    let proxy = Proxy::start(mesh.config("permissive", ""));
    let cluster = || json(&proxy, "/encryption")["clusters"][0].clone();
    assert_eq!(cluster()["name"], "mesh");
    assert_eq!(cluster()["rollout"]["share"], 0.1);
    assert_eq!(cluster()["rollout"]["by_hand"], Value::Null);
    let endpoint = cluster()["endpoints"][0].clone();
    assert_eq!(endpoint["announces"]["epoch"], 3);
    assert_eq!(endpoint["zone"], "z1");
    let set = |change: &str| {
        let response = proxy.admin_post(&format!("/encryption?cluster=mesh&rollout={change}"));
        assert_eq!(response.status, 200, "{}", response.text());
        cluster()
    };
    let on = set("on");
    assert_eq!(on["rollout"]["by_hand"], "on");
    assert_eq!(on["endpoints_wanted_tls"], 1);
    assert_eq!(on["endpoints"][0]["target"], "tls");
    assert_eq!(set("20.5%25")["rollout"]["share"], 0.205);
    let off = set("off");
    assert_eq!(off["mode"], "disabled");
    assert_eq!(off["endpoints_wanted_tls"], 0);
    assert_eq!(set("file")["rollout"]["by_hand"], Value::Null);
    let text = proxy.admin_get("/encryption?format=text").text();
    assert!(
        text.contains("cluster mesh: follow_peer, rollout 10.00 %"),
        "{text}"
    );

    for (query, status, part) in [
        ("cluster=mesh&rollout=120%25", 400, "`0%` to `100%`"),
        ("cluster=mesh", 400, "rollout"),
        ("cluster=nobody&rollout=on", 409, "no cluster `nobody`"),
        ("cluster=app&rollout=on", 409, "no `tls` section"),
    ] {
        let response = proxy.admin_post(&format!("/encryption?{query}"));
        assert_eq!(response.status, status, "{query}");
        assert!(
            response.text().contains(part),
            "{query}: {}",
            response.text()
        );
    }
}
