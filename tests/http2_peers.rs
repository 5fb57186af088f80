//! Clients in HTTP/2 that others wrote: each must find nothing unusual.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{fs, path::PathBuf, process::Command};

use common::{
    Origin, Proxy, assert_same_bytes, pattern, peer, proxy, small_ring,
    tls::{Authority, CLIENT_ID, Identity, Leaf, SERVER_NAME},
};

/// A proxy on two shards before an echoing origin, in plaintext and in TLS.
struct Gateway {
    _origin: Origin,
    authority: Authority,
    client: Identity,
    proxy: Proxy,
}

impl Gateway {
    fn start() -> Gateway {
        let origin = Origin::echo();
        let authority = Authority::new();
        let server = authority.issue(&Leaf::server(SERVER_NAME));
        let client = authority.issue(&Leaf::client(CLIENT_ID));
        let setup = proxy::Setup {
            shards: Some(2),
            ..Default::default()
        };
        let config = format!(
            "secrets:\n{}listeners:\n  web: {{ bind: 127.0.0.2:0, routes: [{{ to: app, timeout: off }}] }}\n  \
             tls: {{ bind: 127.0.0.1:0, routes: [{{ to: app, timeout: off }}], \
             tls: {{ certificates: server, alpn: [h2, http/1.1] }} }}\n  \
             both: {{ bind: 127.0.0.3:0, routes: [{{ to: app, timeout: off }}], \
             tls: {{ mode: permissive, certificates: server, alpn: [h2, http/1.1] }} }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n",
            server.secret("server"),
        );
        let proxy = Proxy::start_with(&setup, config);
        Gateway {
            _origin: origin,
            authority,
            client,
            proxy,
        }
    }

    fn plain(&self) -> String {
        format!("http://{}", self.proxy.web())
    }

    /// A URI with a name, and where the name is, as curl is told.
    fn secure(&self, listener: &str) -> (String, String) {
        let address = self.proxy.listener(listener);
        let (ip, port) = (address.ip(), address.port());
        let base = format!("https://{SERVER_NAME}:{port}");
        (base, format!("{SERVER_NAME}:{port}:{ip}"))
    }
}

fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    folder.join(format!("{name}-{}", std::process::id()))
}

/// Goal: curl, with prior knowledge and by ALPN, on ports of one kind and of both. Method: downloads,
/// uploads that expect 100, HEAD, many at once on one connection.
#[test]
fn curl() {
    let Some(curl) = peer::program("curl") else {
        return;
    };
    let gateway = Gateway::start();
    let body = pattern(3_000_000);
    let (sent, received) = (file("h2-sent"), file("h2-received"));
    fs::write(&sent, &body).unwrap();
    let ca = gateway.authority.pem().display().to_string();
    let plain_both = format!("http://{}", gateway.proxy.listener("both"));
    let (tls, tls_at) = gateway.secure("tls");
    let (both, both_at) = gateway.secure("both");
    let nowhere = String::from("a.example:1:127.0.0.1");
    for (base, resolve, how) in [
        (gateway.plain(), &nowhere, "--http2-prior-knowledge"),
        (plain_both, &nowhere, "--http2-prior-knowledge"),
        (tls, &tls_at, "--http2"),
        (both, &both_at, "--http2"),
    ] {
        let curl = |arguments: &[&str]| {
            let mut command = Command::new(&curl);
            command
                .args(["-sS", "--fail", "--max-time", "60", how, "--cacert", &ca])
                .args(["--resolve", resolve, "-w", "HTTP/%{http_version} "])
                .args(arguments);
            peer::run(&mut command)
        };
        let out = curl(&[&format!("{base}/one")]);
        assert!(
            out.contains("GET /one HTTP/1.1") && out.contains("HTTP/2 "),
            "{out}"
        );
        let (upload, download) = (
            format!("@{}", sent.display()),
            received.display().to_string(),
        );
        let url = format!("{base}/body");
        for extra in [&[][..], &["-H", "Expect: 100-continue"]] {
            let upload = ["--data-binary", &upload, "-o", &download, &url];
            curl(&[&upload[..], extra].concat());
            assert_same_bytes(&fs::read(&received).unwrap(), &body);
        }
        let chunked = [
            "-T",
            &sent.display().to_string(),
            "-H",
            "Transfer-Encoding: chunked",
            "-o",
            &download,
        ];
        curl(&[&chunked[..], &["-X", "POST", &url]].concat());
        assert_same_bytes(&fs::read(&received).unwrap(), &body);
        let out = curl(&["-I", &format!("{base}/bytes/123")]);
        assert!(out.contains("content-length: 123"), "{out}");
        // Before curl 8 requests at once failed with prior knowledge, whatever the server.
        if how != "--http2" {
            continue;
        }
        let urls: Vec<_> = (0..50).map(|number| format!("{base}/{number}")).collect();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let out = curl(&[&["--parallel", "--parallel-max", "50"][..], &urls].concat());
        assert_eq!(out.matches("HTTP/2 ").count(), 50, "{out}");
    }
    fs::remove_file(sent).unwrap();
    fs::remove_file(received).unwrap();
}

/// Goal: nghttp's client, with upgrades off. Method: several requests with their statistics, padding and
/// trailers.
#[test]
fn nghttp() {
    let Some(nghttp) = peer::program("nghttp") else {
        return;
    };
    let gateway = Gateway::start();
    let base = gateway.plain();
    let urls =
        ["/bytes/100000", "/chunked/100000", "/trailers"].map(|path| format!("{base}{path}"));
    let out = peer::run(
        Command::new(&nghttp)
            .args(["-v", "-n", "-b", "100", "--timeout=30"])
            .args(&urls),
    );
    assert_eq!(out.matches(":status: 200").count(), 3, "{out}");
    assert!(out.contains("x-sum: 42"), "{out}");
    assert!(!out.contains("RST_STREAM"), "{out}");
}

/// Goal: h2load sees every request answered. Method: few and many streams, in plaintext and in TLS, small
/// and large bodies, uploads.
#[test]
fn h2load() {
    let Some(h2load) = peer::program("h2load") else {
        return;
    };
    let gateway = Gateway::start();
    let upload = file("h2load-upload");
    fs::write(&upload, pattern(20_000)).unwrap();
    let port = gateway.proxy.listener("tls").port();
    // On four buffers what waits for windows costs the others 50 ms a piece.
    let requests = if small_ring() { 200 } else { 4000 };
    let upload_argument = format!("-d{}", upload.display());
    for (base, path, extra) in [
        (gateway.plain(), "/bytes/128", &["-m1"][..]),
        (gateway.plain(), "/bytes/128", &["-m100"]),
        (gateway.plain(), "/chunked/50000", &["-m20"]),
        (gateway.plain(), "/body", &["-m20", &upload_argument]),
        (
            format!("https://127.0.0.1:{port}"),
            "/bytes/1000",
            &["-m100"],
        ),
    ] {
        let out = peer::run(
            Command::new(&h2load)
                .args([&*format!("-n{requests}"), "-c8"])
                .args(extra)
                .arg(format!("{base}{path}")),
        );
        assert!(
            out.contains(&format!("{requests} succeeded, 0 failed, 0 errored")),
            "{extra:?} {path}: {out}"
        );
    }
    fs::remove_file(upload).unwrap();
}

/// Goal: Node's http2. Method: the script beside the tests.
#[test]
fn node_http2() {
    let Some(node) = peer::program("node") else {
        return;
    };
    let gateway = Gateway::start();
    let out = peer::run(
        Command::new(node)
            .arg(peer::script("http2_client.mjs"))
            .arg(gateway.plain()),
    );
    assert!(out.starts_with("ok "), "{out}");
}

/// Goal: Java's HttpClient, which takes HTTP/2 where ALPN offers it. Method: the script beside the tests.
#[test]
fn java_http_client() {
    let Some(java) = peer::program("java") else {
        return;
    };
    let gateway = Gateway::start();
    let port = gateway.proxy.listener("tls").port();
    let out = peer::run(
        Command::new(java)
            .arg("-Djdk.internal.httpclient.disableHostnameVerification=true")
            .arg(peer::script("HttpClientPeer.java"))
            .arg(format!("https://127.0.0.1:{port}"))
            .arg(gateway.authority.pem())
            .arg(&gateway.client.certificate)
            .arg(&gateway.client.private_key),
    );
    assert!(out.contains("ok "), "{out}");
    assert!(gateway.proxy.metric("tidegate_shard_http2_streams_total") > 0.0);
}
