//! Resources that come by files, or by REST, instead of by a stream: they are served, change, and are refused as those
//! of a stream are, and a stock Envoy that gets them by the same way sends the same requests to the same clusters.
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
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use common::{
    Client, Origin, Proxy,
    center::Folder,
    client::get,
    control_plane::{ControlPlane, World, endpoints, listener, listening, routes, to},
    eventually, peer,
    peer::Server,
    proxy::Setup,
};
use serde_json::{Value, json};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Requests of a comparison.
const REQUESTS: usize = 2_000;

const CLUSTERS: [&str; 3] = ["a", "b", "c"];

/// The files of a test, each put in its place by a rename.
struct Files(PathBuf);

impl Files {
    fn path(&self, kind: &str) -> String {
        self.0.join(format!("{kind}.yaml")).display().to_string()
    }

    fn put(&self, kind: &str, text: &str) {
        let new = self.0.join(".new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(kind)).unwrap();
    }

    /// A response with these resources.
    fn write(&self, kind: &str, version: &str, resources: &[Value]) {
        let resources: Vec<Value> = resources.iter().map(|one| typed(kind, one)).collect();
        let response = json!({ "version_info": version, "resources": resources });
        self.put(kind, &response.to_string());
    }

    fn source(&self, kind: &str) -> Value {
        json!({ "path_config_source": { "path": self.path(kind) }, "resource_api_version": "V3" })
    }
}

fn typed(kind: &str, resource: &Value) -> Value {
    let mut resource = resource.clone();
    let name = match kind {
        "clusters" => "cluster.v3.Cluster",
        kind if kind.starts_with("endpoints") => "endpoint.v3.ClusterLoadAssignment",
        "listeners" => "listener.v3.Listener",
        _ => "route.v3.RouteConfiguration",
    };
    resource["@type"] = format!("type.googleapis.com/envoy.config.{name}").into();
    resource
}

/// A cluster whose endpoints come from `source`.
fn cluster(name: &str, source: &Value) -> Value {
    json!({ "name": name, "type": "EDS", "connect_timeout": "1s",
        "eds_cluster_config": { "eds_config": source } })
}

/// A listener whose routes come from `source`.
fn web(name: &str, bind: SocketAddr, source: &Value) -> Value {
    let mut listener = listener(name, bind, "r");
    let hcm = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    hcm["rds"]["config_source"] = source.clone();
    listener
}

/// A listener with its routes.
fn inline(name: &str, bind: SocketAddr, drawn: &Value) -> Value {
    let mut listener = listener(name, bind, "r");
    let hcm = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    hcm.as_object_mut().unwrap().remove("rds");
    hcm["route_config"] = routes("r", drawn.clone());
    listener
}

fn view(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/xds").text()).unwrap()
}

/// xorshift: the same run each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Routes that are drawn: by path, by header, and for the rest.
fn drawn_routes(random: &mut Random) -> Value {
    let mut all = Vec::new();
    for number in 0..20 {
        let mut condition = match random.below(3) {
            0 => json!({ "prefix": format!("/p{number}") }),
            1 => json!({ "path": format!("/p{number}") }),
            _ => json!({ "safe_regex": { "regex": format!("/p{}[0-9]*", random.below(10)) } }),
        };
        if random.below(3) == 0 {
            let value = random.below(3).to_string();
            condition["headers"] = json!([{ "name": "x", "string_match": { "exact": value } }]);
        }
        let to = CLUSTERS[random.below(3)];
        all.push(json!({ "match": condition, "route": { "cluster": to } }));
    }
    all.push(to(CLUSTERS[random.below(3)])[0].clone());
    Value::Array(all)
}

/// Both answer each of many generated requests alike, and every cluster is met.
#[track_caller]
fn assert_agree(ours: SocketAddr, theirs: SocketAddr, random: &mut Random) {
    let (mut ours, mut theirs) = (Client::connect(ours), Client::connect(theirs));
    let mut met = std::collections::BTreeSet::new();
    for number in 0..REQUESTS {
        let (path, header) = (random.below(40), random.below(4));
        let request = format!("GET /p{path} HTTP/1.1\r\nHost: h\r\nX: {header}\r\n\r\n");
        let got = ours.exchange(&request);
        let expected = theirs.exchange(&request);
        assert_eq!(
            (got.status, got.text()),
            (expected.status, expected.text()),
            "request {number}: {request}"
        );
        met.insert(got.text());
    }
    assert!(met.len() > 1, "{met:?}");
}

fn proxy(files: &str) -> Proxy {
    let setup = Setup {
        shards: Some(2),
        unlogged: true,
        ..Setup::default()
    };
    Proxy::start_with(&setup, format!("xds: {{ {files} }}\n"))
}

/// Goal: files bring what a control plane would: all listeners and clusters, and what these refer to; what changes by a
/// rename comes into use, what is broken does not, and is told. Method: four files, each changed once; views and metrics.
#[test]
fn files_stand_in_for_a_control_plane() {
    let folder = Folder::new();
    let files = Files(folder.file("xds"));
    fs::create_dir_all(&files.0).unwrap();
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    files.write("clusters", "1", &[cluster("a", &files.source("endpoints"))]);
    files.write("endpoints", "1", &[endpoints("a", &[a.address])]);
    files.write(
        "listeners",
        "1",
        &[web("web", ANYWHERE, &files.source("routes"))],
    );
    files.write("routes", "1", &[routes("r", to("a"))]);
    let proxy = proxy(&format!(
        "files: {{ clusters: {}, listeners: {} }}",
        files.path("clusters"),
        files.path("listeners")
    ));
    let web = listening(&proxy, "web");
    assert_eq!(get(web, "/").text(), "a");
    let shown = view(&proxy);
    assert_eq!(shown["protocol"], Value::Null);
    let of_files: Vec<(&str, &str)> = shown["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["type"].as_str().unwrap(),
                one["version"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        of_files,
        [
            ("cluster", "1"),
            ("endpoint", "1"),
            ("listener", "1"),
            ("route", "1")
        ]
    );
    assert_eq!(proxy.metric("tidegate_xds_files"), 4.0);

    let answers = |who: &str| {
        eventually(&format!("an answer of {who}"), || {
            (get(web, "/").text() == who).then_some(())
        });
    };
    files.write("endpoints", "2", &[endpoints("a", &[b.address])]);
    answers("b");
    files.write("routes", "2", &[routes("r", json!([]))]);
    answers("");
    files.write("routes", "3", &[routes("r", to("a"))]);
    answers("b");

    let reads = proxy.metric("tidegate_xds_file_reads_total");
    files.put("endpoints", "resources: [");
    proxy.wait_for_metric("tidegate_xds_file_errors_total", |errors| errors == 1.0);
    assert!(proxy.metric("tidegate_xds_file_reads_total") > reads);
    answers("b");
    let text = proxy.admin_get("/xds?format=text").text();
    let told = format!(
        "file {} (endpoint): is no response",
        files.path("endpoints")
    );
    assert!(text.contains(&told), "{text}");
    files.write("endpoints", "3", &[endpoints("a", &[a.address])]);
    answers("a");
    assert_eq!(view(&proxy)["files"][1]["error"], Value::Null);
}

/// Goal: a control plane may leave the endpoints of a cluster to a file, with a directory that is watched in its place,
/// as those of a ConfigMap are: links through a link that is replaced. Method: grpcio serves the cluster; the link
/// changes.
#[test]
fn a_control_plane_may_name_files() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let folder = Folder::new();
    let files = Files(folder.file("mounted"));
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    for (version, origin) in [("v1", &a), ("v2", &b)] {
        let inner = Files(files.0.join(version));
        fs::create_dir_all(&inner.0).unwrap();
        inner.write("endpoints", version, &[endpoints("a", &[origin.address])]);
    }
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, files.0.join("..new")).unwrap();
        fs::rename(files.0.join("..new"), files.0.join("..data")).unwrap();
    };
    link("v1");
    std::os::unix::fs::symlink("..data/endpoints.yaml", files.path("endpoints")).unwrap();
    let mut source = files.source("endpoints");
    source["path_config_source"]["watched_directory"] =
        json!({ "path": files.0.display().to_string() });
    let world = World::default()
        .with("cluster", 1, cluster("a", &source))
        .with("listener", 1, listener("web", ANYWHERE, "r"))
        .with("route", 1, routes("r", to("a")));
    plane.serve(&world);
    let proxy = proxy(&format!("addresses: [\"{}\"]", plane.address));
    let web = listening(&proxy, "web");
    assert_eq!(get(web, "/").text(), "a");
    assert_eq!(plane.errors(), Vec::<String>::new());
    link("v2");
    eventually("an answer by the other link", || {
        (get(web, "/").text() == "b").then_some(())
    });
}

/// Goal: files mean the same to Envoy, and change in both. Method: the same four files for both; generated routes,
/// changed by renames, and generated requests.
#[test]
fn envoy_agrees_about_files() {
    let Some(program) = peer::envoy() else { return };
    let folder = Folder::new();
    let files = Files(folder.file("xds"));
    fs::create_dir_all(&files.0).unwrap();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let origins = CLUSTERS.map(|name| (name, Origin::named(name)));
    // A file for each cluster: Envoy takes no assignment from one that holds several.
    let file = |name: &str| format!("endpoints-{name}");
    let clusters = CLUSTERS.map(|name| cluster(name, &files.source(&file(name))));
    files.write("clusters", "1", &clusters);
    let turn = |turned: usize| {
        for (i, name) in CLUSTERS.iter().enumerate() {
            let (_, origin) = &origins[(i + turned) % origins.len()];
            let assignment = endpoints(name, &[origin.address]);
            files.write(&file(name), &turned.to_string(), &[assignment]);
        }
    };
    turn(0);
    files.write("routes", "1", &[routes("r", drawn_routes(&mut random))]);
    let judge = Server::start(|folder, address| {
        let source = files.source("routes");
        let listeners = [
            web("judge", address, &source),
            web("web", ANYWHERE, &source),
        ];
        files.write("listeners", "1", &listeners);
        let config = json!({
            "node": { "id": "judge", "cluster": "edge" },
            "dynamic_resources": { "cds_config": files.source("clusters"), "lds_config": files.source("listeners") },
        });
        peer::envoy_command(&program, folder, &config.to_string())
    });
    let proxy = proxy(&format!(
        "files: {{ clusters: {}, listeners: {} }}",
        files.path("clusters"),
        files.path("listeners")
    ));
    let web = listening(&proxy, "web");
    assert_agree(web, judge.address, &mut random);
    // A route that tells when all of this is in use.
    let marked = |version: usize, random: &mut Random| {
        let mut all = drawn_routes(random);
        let mark = json!({ "match": { "path": "/mark" },
            "direct_response": { "status": 200 + version, "body": { "inline_string": "mark" } } });
        all.as_array_mut().unwrap().insert(0, mark);
        all
    };
    for version in 2..5 {
        turn(version);
        for address in [web, judge.address] {
            // Everything goes to `a` until then.
            files.write("routes", &format!("{version}-a"), &[routes("r", to("a"))]);
            let expected = origins[version % origins.len()].0;
            eventually("that endpoints have turned", || {
                (get(address, "/").text() == expected).then_some(())
            });
        }
        let all = marked(version, &mut random);
        files.write("routes", &version.to_string(), &[routes("r", all)]);
        for address in [web, judge.address] {
            eventually("the new routes", || {
                (get(address, "/mark").status as usize == 200 + version).then_some(())
            });
        }
        assert_agree(web, judge.address, &mut random);
    }
}

/// Sovereign, a control plane of REST, serving what `mesh` says, which is read again each second.
fn sovereign(python: &Path, mesh: &Path) -> Server {
    Server::start(|folder, address| {
        let kinds = ["clusters", "endpoints", "listeners", "routes"];
        let templates = kinds.map(|kind| {
            let path = folder.join(format!("{kind}.j2"));
            let template = format!("resources: {{{{ mesh.{kind} | tojson }}}}\n");
            fs::write(&path, template).unwrap();
            json!({ "type": kind, "spec": { "protocol": "file", "serialization": "jinja2", "path": path } })
        });
        let config = json!({
            "templates": { "default": templates },
            "template_context": { "refresh": true, "refresh_rate": 1, "context": {
                "mesh": { "protocol": "file", "serialization": "yaml", "path": mesh } } },
        });
        let file = folder.join("sovereign.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(python);
        command
            .args(["-m", "sovereign.server"])
            .env("SOVEREIGN_CONFIG", format!("file://{}", file.display()))
            .env("SOVEREIGN_HOST", address.ip().to_string())
            .env("SOVEREIGN_PORT", address.port().to_string())
            .env("SOVEREIGN_WORKERS", "1")
            .current_dir(folder);
        command
    })
}

/// Goal: a control plane of REST that somebody else wrote is understood, and Envoy, which asks it the same, sends the
/// same requests to the same clusters, before and after a change. Method: sovereign; generated routes and requests.
#[test]
fn envoy_agrees_about_rest() {
    let Some(program) = peer::envoy() else { return };
    // It reads its configuration when it is imported, and has none yet.
    let Some(python) = peer::python("gunicorn, structlog, fastapi") else {
        return;
    };
    let folder = Folder::new();
    let mesh = folder.file("mesh.yaml");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let origins = CLUSTERS.map(|name| (name, Origin::named(name)));
    let by_rest = json!({ "api_config_source": { "api_type": "REST", "transport_api_version": "V3",
        "cluster_names": ["plane"], "refresh_delay": "0.2s" }, "resource_api_version": "V3" });
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    let kinds = |judge: SocketAddr, drawn: Value| {
        let clusters: Vec<Value> = origins
            .iter()
            .map(|(name, origin)| {
                let mut fixed = json!({ "name": name, "type": "STATIC", "connect_timeout": "1s" });
                fixed["load_assignment"] = endpoints(name, &[origin.address]);
                fixed
            })
            .chain([cluster("by-name", &ads)])
            .map(|one| typed("clusters", &one))
            .collect();
        let listeners = [
            inline("judge", judge, &drawn),
            inline("web", ANYWHERE, &drawn),
        ];
        json!({
            "clusters": clusters,
            "endpoints": [typed("endpoints", &endpoints("by-name", &[origins[0].1.address]))],
            "listeners": listeners.map(|one| typed("listeners", &one)),
            "routes": [],
        })
    };
    let put = |value: &Value| {
        let new = folder.file(".new");
        fs::write(&new, value.to_string()).unwrap();
        fs::rename(new, &mesh).unwrap();
    };
    put(&kinds(ANYWHERE, drawn_routes(&mut random)));
    let plane = sovereign(&python, &mesh);
    let mut address = ANYWHERE;
    let judge = Server::start(|folder, free| {
        address = free;
        put(&kinds(free, drawn_routes(&mut random)));
        let at = json!({ "socket_address": { "address": plane.address.ip().to_string(),
            "port_value": plane.address.port() } });
        let config = json!({
            "node": { "id": "judge", "cluster": "edge" },
            "dynamic_resources": { "lds_config": by_rest },
            "static_resources": { "clusters": [
                { "name": "plane", "connect_timeout": "5s", "load_assignment": { "cluster_name": "plane",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at } }] }] } },
            ] },
        });
        let mut config = config;
        for (name, origin) in &origins {
            let mut fixed = json!({ "name": name, "type": "STATIC", "connect_timeout": "1s" });
            fixed["load_assignment"] = endpoints(name, &[origin.address]);
            config["static_resources"]["clusters"]
                .as_array_mut()
                .unwrap()
                .push(fixed);
        }
        peer::envoy_command(&program, folder, &config.to_string())
    });
    let proxy = proxy(&format!(
        "addresses: [\"{}\"], protocol: rest, refresh_delay: 200ms, request_timeout: 10s",
        plane.address
    ));
    let web = listening(&proxy, "web");
    let mut all = drawn_routes(&mut random);
    let mark = json!({ "match": { "path": "/mark" },
        "direct_response": { "status": 299, "body": { "inline_string": "mark" } } });
    all.as_array_mut().unwrap().insert(0, mark);
    put(&kinds(address, all));
    for address in [web, judge.address] {
        eventually("the new routes", || {
            (get(address, "/mark").status == 299).then_some(())
        });
    }
    assert_agree(web, judge.address, &mut random);
    let shown = view(&proxy);
    assert_eq!(shown["protocol"], "rest");
    assert_eq!(shown["connected_to"], plane.address.to_string());
    // The endpoints of one cluster came by a request with its name.
    let by_name = shown["types"][1]["resources"][0].clone();
    assert_eq!(
        (&by_name["name"], &by_name["state"]),
        (&json!("by-name"), &json!("active"))
    );
    assert_eq!(proxy.metric("tidegate_xds_rejected_total"), 0.0);
}
