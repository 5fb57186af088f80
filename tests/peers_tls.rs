//! Clients that others wrote, over TLS: each must find nothing unusual (E15). Where a client can be told to
//! verify, it does.
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
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{
    Origin, Proxy, assert_same_bytes, pattern, peer, proxy,
    tls::{Authority, CLIENT_ID, Identity, Leaf, SERVER_NAME},
};
use serde_json::Value;

/// Other versions are not there.
const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// A proxy on two shards before an echoing origin, with all that its clients need.
struct Gateway {
    authority: Authority,
    client: Identity,
    _origin: Origin,
    proxy: Proxy,
}

impl Gateway {
    /// With these keys of the listener's `tls`, as lines of a flow map.
    #[track_caller]
    fn start(tls: &str) -> Gateway {
        let authority = Authority::new();
        let ecdsa = authority.issue(&Leaf::server(SERVER_NAME));
        let rsa = authority.issue(&Leaf::server("rsa.example").only(&["rsa.example"]).rsa());
        let client = authority.issue(&Leaf::client(CLIENT_ID));
        let secrets = ecdsa.secret("ecdsa") + &rsa.secret("rsa") + &authority.secret("ca");
        let origin = Origin::echo();
        let setup = proxy::Setup {
            shards: Some(2),
            ..Default::default()
        };
        let config = proxy::web_with(
            &format!("    tls: {{ certificates: [ecdsa, rsa], {tls} }}\n"),
            "{ to: app }",
            &[("app", &origin)],
        );
        let proxy = Proxy::start_with(&setup, format!("secrets:\n{secrets}{config}"));
        Gateway {
            authority,
            client,
            _origin: origin,
            proxy,
        }
    }

    /// Asks for certificates of clients, and takes only [`CLIENT_ID`]'s namespace.
    #[track_caller]
    fn mutual() -> Gateway {
        Self::start(
            "client_certificate: { trusted_ca: ca, \
             subject_alt_names: [{ uri: 'spiffe://mesh.example/ns/shop/*' }] }",
        )
    }

    /// By address: certificates name it, and resolvers need not know a test's names.
    fn base(&self) -> String {
        format!("https://{}", self.proxy.web())
    }

    fn ca(&self) -> String {
        self.authority.pem().display().to_string()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.authority.folder().join(name)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Goal: curl verifies, reuses, and moves large bodies both ways, in TLS 1.2 and 1.3. Method: as over
/// plaintext, and bodies compared byte by byte.
#[test]
fn curl() {
    let Some(curl) = peer::program("curl") else {
        return;
    };
    let gateway = Gateway::start("alpn: [http/1.1]");
    let (base, ca) = (gateway.base(), gateway.ca());
    let body = pattern(3_000_000);
    let (sent, received) = (gateway.file("sent"), gateway.file("received"));
    fs::write(&sent, &body).unwrap();
    let (upload, download) = (format!("@{}", sent.display()), shown(&received));
    for version in VERSIONS {
        let exactly = format!("--tlsv{version}");
        let curl = |arguments: &[&str]| {
            let mut command = Command::new(&curl);
            command
                .args(["-sS", "--fail", "--max-time", "60", "--cacert", &ca])
                .args([&exactly, "--tls-max", version])
                .args(arguments);
            peer::run(&mut command)
        };
        let (one, two) = (format!("{base}/one"), format!("{base}/two"));
        let out = curl(&[
            &one,
            &two,
            "-w",
            "connects=%{num_connects} http=%{http_version} verified=%{ssl_verify_result}\n",
        ]);
        assert!(out.contains("connects=1 http=1.1 verified=0"), "{out}");
        assert!(out.contains("connects=0 http=1.1 verified=0"), "{out}");
        assert!(out.contains("X-Forwarded-Proto: https"), "{out}");
        let out = curl(&["-I", &format!("{base}/bytes/123")]);
        let out = out.to_ascii_lowercase();
        assert!(out.contains("content-length: 123"), "{out}");
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
        // The end of the body is the end of the connection: curl takes it only after a close_notify.
        for target in ["bytes", "chunked", "close"] {
            curl(&["-o", &download, &format!("{base}/{target}/3000000")]);
            assert_same_bytes(&fs::read(&received).unwrap(), &body);
        }
        let out = curl(&["-Z", "--parallel-max", "20", &format!("{base}/[1-100]")]);
        assert_eq!(out.matches("HTTP/1.1\r\nHost: ").count(), 100);
    }
}

/// Goal: curl shows its certificate, and gets nowhere with none, with that of another authority, or with a
/// name that is not let in; nor does it take us for somebody else. Method: each in both versions; the
/// refusal has its reason.
#[test]
fn curl_with_certificates() {
    let Some(curl) = peer::program("curl") else {
        return;
    };
    let gateway = Gateway::mutual();
    let stranger = Authority::new();
    let forged = stranger.issue(&Leaf::client(CLIENT_ID));
    let other = gateway
        .authority
        .issue(&Leaf::client("spiffe://mesh.example/ns/other/sa/web"));
    let expired = gateway.authority.issue(&Leaf::client(CLIENT_ID).expired());
    let run = |version: &str, ca: &Path, identity: Option<&Identity>| {
        let mut command = Command::new(&curl);
        command
            .args(["-sS", "--fail", "--max-time", "60", "--cacert"])
            .arg(ca)
            .args([&format!("--tlsv{version}"), "--tls-max", version]);
        if let Some(identity) = identity {
            command.arg("--cert").arg(&identity.certificate);
            command.arg("--key").arg(&identity.private_key);
        }
        command.arg(format!("{}/one", gateway.base()));
        command.stdin(Stdio::null()).output().unwrap()
    };
    let ca = gateway.authority.pem();
    let mut refused = 0;
    for version in VERSIONS {
        let good = run(version, &ca, Some(&gateway.client));
        assert!(good.status.success(), "{good:?}");
        assert!(good.stdout.starts_with(b"GET /one "), "{good:?}");
        for bad in [None, Some(&forged), Some(&other), Some(&expired)] {
            let out = run(version, &ca, bad);
            assert!(!out.status.success(), "{version} {bad:?}: {out:?}");
            assert!(out.stdout.is_empty(), "{out:?}");
            refused += 1;
        }
        // Our own certificate is of another authority than the one that curl trusts.
        let out = run(version, &stranger.pem(), Some(&gateway.client));
        assert_eq!(out.status.code(), Some(60), "{out:?}");
    }
    // Each good request, each refusal, and the two that distrusted us. The process has tried its own listener
    // without a certificate, which is none of them.
    let details = [
        "certificate_required",
        "unknown_ca",
        "access_denied",
        "certificate_expired",
    ];
    common::eventually("every refusal in the log", || {
        let lines = gateway.proxy.access_log(2 + refused + 2);
        let count = |detail: &str| {
            let is_it = |line: &&Value| {
                line["tidegate.reason"] == "client_certificate" && line["tidegate.detail"] == detail
            };
            lines.iter().filter(is_it).count()
        };
        details
            .iter()
            .all(|detail| count(detail) == VERSIONS.len())
            .then_some(())
    });
}

/// Goal: load over many connections, each with its handshake, sees no error. Method: wrk, h2load (HTTP/1.1,
/// pipelined and not) and hey (Go's TLS, with a handshake for each request).
#[test]
fn load_generators() {
    let gateway = Gateway::start("alpn: [http/1.1]");
    let base = gateway.base();
    if let Some(wrk) = peer::program("wrk") {
        let out = peer::run(
            Command::new(wrk)
                .args(["-t1", "-c40", "-d3s", "--timeout", "30s"])
                .arg(format!("{base}/bytes/128")),
        );
        assert!(out.contains("Requests/sec"), "{out}");
        assert!(
            !out.contains("Socket errors") && !out.contains("Non-2xx"),
            "{out}"
        );
    }
    if let Some(h2load) = peer::program("h2load") {
        for streams in ["-m1", "-m8"] {
            let out = peer::run(
                Command::new(&h2load)
                    .args(["--h1", "-n5000", "-c40", streams])
                    .arg(format!("{base}/bytes/1000")),
            );
            assert!(out.contains("5000 succeeded, 0 failed, 0 errored"), "{out}");
        }
    }
    if let Some(hey) = peer::program("hey") {
        for extra in [&["-n", "2000"][..], &["-n", "1000", "-disable-keepalive"]] {
            let out = peer::run(
                Command::new(&hey)
                    .args(["-c", "20", "-t", "60"])
                    // Its server name would be the address with the port, which is none.
                    .args(["-host", SERVER_NAME])
                    .args(extra)
                    .arg(format!("{base}/bytes/1000")),
            );
            let all = format!("[200]\t{} responses", extra[1]);
            assert!(
                out.contains(&all) && !out.contains("Error distribution"),
                "{out}"
            );
        }
    }
}

/// Goal: Python's ssl module: versions, names, resumption on whichever shard, certificates of clients, an
/// orderly end. Method: the script beside the tests, standard library only.
#[test]
fn python_ssl() {
    let Some(python) = peer::python("ssl") else {
        return;
    };
    let gateway = Gateway::mutual();
    let out = peer::run(
        Command::new(python)
            .arg(peer::script("ssl_client.py"))
            .arg(gateway.proxy.web().port().to_string())
            .arg(gateway.ca())
            .arg(&gateway.client.certificate)
            .arg(&gateway.client.private_key),
    );
    assert!(out.starts_with("ok "), "{out}");
}

/// Goal: Python's requests and aiohttp, and Node's fetch, do over TLS what they do over plaintext. Method:
/// the same scripts; each is told which authority to trust by its environment.
#[test]
fn scripts_of_the_plaintext_suite() {
    let gateway = Gateway::start("alpn: [http/1.1]");
    let run = |program: PathBuf, script: &str| {
        let out = peer::run(
            Command::new(program)
                .envs(
                    ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"]
                        .map(|name| (name, gateway.ca())),
                )
                .arg(peer::script(script))
                .arg(gateway.base()),
        );
        assert!(out.starts_with("ok "), "{out}");
    };
    if let Some(python) = peer::python("requests, aiohttp") {
        run(python, "requests_client.py");
    }
    if let Some(node) = peer::program("node") {
        run(node, "fetch_client.mjs");
    }
}

/// Goal: Java's HttpClient, which would rather speak HTTP/2, with and without a certificate of its own.
/// Method: the plaintext suite's program, given the authority and the certificate.
#[test]
fn java_http_client() {
    let Some(java) = peer::program("java") else {
        return;
    };
    for gateway in [Gateway::start("alpn: [http/1.1]"), Gateway::mutual()] {
        let out = peer::run(
            Command::new(&java)
                .arg(peer::script("HttpClientPeer.java"))
                .arg(gateway.base())
                .arg(gateway.ca())
                .arg(&gateway.client.certificate)
                .arg(&gateway.client.private_key),
        );
        assert!(out.contains("ok "), "{out}");
    }
}
