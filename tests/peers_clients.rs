//! Clients that others wrote: each must find nothing unusual.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{fs, process::Command};

use common::{Origin, Proxy, assert_same_bytes, pattern, peer, proxy};

/// A proxy on two shards before an echoing origin.
fn gateway() -> (Origin, Proxy, String) {
    let origin = Origin::echo();
    let setup = proxy::Setup {
        shards: Some(2),
        ..Default::default()
    };
    let proxy = Proxy::start_with(&setup, proxy::web("{ to: app }", &[("app", &origin)]));
    let base = format!("http://{}", proxy.web());
    (origin, proxy, base)
}

/// Goal: curl in its many moods. Method: reuse, HEAD, chunked and large uploads (which expect 100),
/// HTTP/1.0, many at once.
#[test]
fn curl() {
    let Some(curl) = peer::program("curl") else {
        return;
    };
    let (_origin, _proxy, base) = gateway();
    let curl = |arguments: &[&str]| {
        let mut command = Command::new(&curl);
        command
            .args(["-sS", "--fail", "--max-time", "60"])
            .args(arguments);
        peer::run(&mut command)
    };
    let (one, two) = (format!("{base}/one"), format!("{base}/two"));
    let out = curl(&[&one, &two, "-w", "connects=%{num_connects}\n"]);
    assert!(
        out.contains("GET /one ") && out.contains("GET /two "),
        "{out}"
    );
    assert!(
        out.contains("connects=1") && out.contains("connects=0"),
        "{out}"
    );

    let out = curl(&["-I", &format!("{base}/bytes/123")]);
    assert!(
        out.to_ascii_lowercase().contains("content-length: 123"),
        "{out}"
    );
    let out = curl(&[
        "--http1.0",
        &format!("{base}/chunked/10"),
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
    ]);
    assert_eq!(out, "10");

    let body = pattern(3_000_000);
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (sent, received) = (
        folder.join(format!("sent-{}", std::process::id())),
        folder.join(format!("received-{}", std::process::id())),
    );
    fs::write(&sent, &body).unwrap();
    let (upload, download) = (
        format!("@{}", sent.display()),
        received.display().to_string(),
    );
    let target = format!("{base}/body");
    for extra in [
        &[][..],
        &["-H", "Transfer-Encoding: chunked"],
        &["-H", "Expect:"],
    ] {
        let mut arguments = vec!["--data-binary", upload.as_str(), "-o", download.as_str()];
        arguments.extend_from_slice(extra);
        arguments.push(&target);
        curl(&arguments);
        assert_same_bytes(&fs::read(&received).unwrap(), &body);
    }
    let out = curl(&["-Z", "--parallel-max", "20", &format!("{base}/[1-100]")]);
    assert_eq!(out.matches("HTTP/1.1\r\nHost: ").count(), 100);
    let _ = (fs::remove_file(sent), fs::remove_file(received));
}

/// Goal: wrk sees no error. Method: a few seconds of keep-alive load.
#[test]
fn wrk() {
    let Some(wrk) = peer::program("wrk") else {
        return;
    };
    let (_origin, _proxy, base) = gateway();
    let out = peer::run(
        Command::new(wrk)
            .args(["-t1", "-c40", "-d3s", "--timeout", "30s"])
            .arg(format!("{base}/bytes/128")),
    );
    assert!(out.contains("Requests/sec"), "{out}");
    assert!(!out.contains("Socket errors"), "{out}");
    assert!(!out.contains("Non-2xx"), "{out}");
}

/// Goal: h2load in HTTP/1.1 mode sees every request answered. Method: pipelined and not.
#[test]
fn h2load() {
    let Some(h2load) = peer::program("h2load") else {
        return;
    };
    let (_origin, _proxy, base) = gateway();
    for streams in ["-m1", "-m8"] {
        let out = peer::run(
            Command::new(&h2load)
                .args(["--h1", "-n5000", "-c40", streams])
                .arg(format!("{base}/bytes/1000")),
        );
        assert!(out.contains("5000 succeeded, 0 failed, 0 errored"), "{out}");
    }
}

/// Goal: hey sees every request answered. Method: kept connections, and one for each request.
#[test]
fn hey() {
    let Some(hey) = peer::program("hey") else {
        return;
    };
    let (_origin, _proxy, base) = gateway();
    for extra in [&["-n", "5000"][..], &["-n", "2000", "-disable-keepalive"]] {
        let out = peer::run(
            Command::new(&hey)
                .args(["-c", "40", "-t", "60"])
                .args(extra)
                .arg(format!("{base}/bytes/1000")),
        );
        assert!(
            out.contains(&format!("[200]\t{} responses", extra[1])),
            "{out}"
        );
        assert!(!out.contains("Error distribution"), "{out}");
    }
}

/// Goal: Python's requests and aiohttp. Method: the script beside the tests.
#[test]
fn python_requests_and_aiohttp() {
    let Some(python) = peer::python("requests, aiohttp") else {
        return;
    };
    let (_origin, _proxy, base) = gateway();
    let out = peer::run(
        Command::new(python)
            .arg(peer::script("requests_client.py"))
            .arg(base),
    );
    assert!(out.starts_with("ok "), "{out}");
}

/// Goal: Node's fetch. Method: the script beside the tests.
#[test]
fn node_fetch() {
    let Some(node) = peer::program("node") else {
        return;
    };
    let has_fetch = Command::new(&node)
        .args(["-e", "process.exit(typeof fetch === 'function' ? 0 : 1)"])
        .status()
        .is_ok_and(|status| status.success());
    if !has_fetch {
        eprintln!("skipped: this Node has no fetch (it came with version 18)");
        return;
    }
    let (_origin, _proxy, base) = gateway();
    let out = peer::run(
        Command::new(node)
            .arg(peer::script("fetch_client.mjs"))
            .arg(base),
    );
    assert!(out.starts_with("ok "), "{out}");
}

/// Goal: Java's HttpClient, which asks for h2c first. Method: the script beside the tests.
#[test]
fn java_http_client() {
    let Some(java) = peer::program("java") else {
        return;
    };
    let (_origin, _proxy, base) = gateway();
    let out = peer::run(
        Command::new(java)
            .arg(peer::script("HttpClientPeer.java"))
            .arg(base),
    );
    assert!(out.contains("ok "), "{out}");
}
