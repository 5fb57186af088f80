//! OpenSSL's own client, and testssl.sh on top of it: names, versions, alerts and resumption as the
//! reference implementation sees them (E7, E15).
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
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{
    Origin, Proxy, peer, proxy,
    tls::{Authority, CLIENT_ID, Leaf, SERVER_NAME},
};
use serde_json::Value;

/// A request whose answer is the last.
const REQUEST: &str = "GET /one HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";

/// An echoing origin behind `listener`'s `tls` on two shards.
#[track_caller]
fn gateway(secrets: &str, tls: &str) -> (Origin, Proxy) {
    let origin = Origin::echo();
    let setup = proxy::Setup {
        shards: Some(2),
        ..Default::default()
    };
    let web = proxy::web_with(
        &format!("    tls: {{ {tls} }}\n"),
        "{ to: app }",
        &[("app", &origin)],
    );
    let proxy = Proxy::start_with(&setup, format!("secrets:\n{secrets}{web}"));
    (origin, proxy)
}

/// `openssl s_client` against one listener.
struct Openssl {
    program: PathBuf,
    authority: PathBuf,
    port: u16,
}

impl Openssl {
    fn new(authority: &Authority, proxy: &Proxy) -> Option<Openssl> {
        Some(Openssl {
            program: peer::program("openssl")?,
            authority: authority.pem(),
            port: proxy.web().port(),
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("s_client")
            .args(["-connect", &format!("127.0.0.1:{}", self.port)])
            .arg("-CAfile")
            .arg(&self.authority)
            .args(["-verify_return_error", "-ign_eof"])
            .args(arguments);
        command
    }

    /// Sends `input`, and gives everything that was said until the server closed, however it went.
    #[track_caller]
    fn run(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended before it reads.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    #[track_caller]
    fn expect(&self, arguments: &[&str], words: &[&str]) -> String {
        let out = self.run(arguments, REQUEST);
        for word in words {
            assert!(out.contains(word), "{arguments:?}, no {word:?} in:\n{out}");
        }
        out
    }
}

/// Goal: the certificate is chosen by the server name and by what the client can verify; without a name, or
/// with an unknown one, the first is shown. Method: the subject as OpenSSL prints it.
#[test]
fn certificates_by_server_name() {
    let authority = Authority::new();
    let first = authority.issue(&Leaf::server(SERVER_NAME));
    let second = authority.issue(&Leaf::server("second.example"));
    let wild = authority.issue(&Leaf::server("*.wild.example").only(&["*.wild.example"]));
    let rsa = authority.issue(&Leaf::server("rsa.example").only(&["rsa.example"]).rsa());
    let secrets = [
        first.secret("first"),
        second.secret("second"),
        wild.secret("wild"),
        rsa.secret("rsa"),
    ];
    let (_origin, proxy) = gateway(
        &secrets.concat(),
        "certificates: [first, second, wild, rsa]",
    );
    let Some(openssl) = Openssl::new(&authority, &proxy) else {
        return;
    };
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, subject) in [
            ("web.example", "CN = web.example"),
            ("WEB.Example", "CN = web.example"),
            ("second.example", "CN = second.example"),
            ("a.wild.example", "CN = *.wild.example"),
            ("rsa.example", "CN = rsa.example"),
            ("a.b.wild.example", "CN = web.example"),
            ("unknown.example", "CN = web.example"),
        ] {
            let words = [subject, "Verify return code: 0 (ok)", "GET /one HTTP/1.1"];
            openssl.expect(&[version, "-servername", name], &words);
        }
        openssl.expect(
            &[version, "-noservername"],
            &["CN = web.example", "GET /one "],
        );
    }
}

/// Goal: sessions are resumed on whichever shard gets the connection (E7), and not by a client without a
/// certificate where one is asked for. Method: `-sess_out`, then many `-sess_in` on two shards.
#[test]
fn resumption() {
    let authority = Authority::new();
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let client = authority.issue(&Leaf::client(CLIENT_ID));
    let secrets = server.secret("server") + &authority.secret("ca");
    let (_origin, proxy) = gateway(
        &secrets,
        "certificates: server, client_certificate: { trusted_ca: ca }",
    );
    let Some(openssl) = Openssl::new(&authority, &proxy) else {
        return;
    };
    let session = authority.folder().join("session").display().to_string();
    let (certificate, key) = (
        client.certificate.display().to_string(),
        client.private_key.display().to_string(),
    );
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let own = [
            version,
            "-servername",
            SERVER_NAME,
            "-cert",
            &certificate,
            "-key",
            &key,
        ];
        let first = [&own[..], &["-sess_out", &session]].concat();
        openssl.expect(&first, &[&format!("New, {name}"), "GET /one "]);
        for _ in 0..8 {
            let again = [&own[..], &["-sess_in", &session]].concat();
            openssl.expect(&again, &[&format!("Reused, {name}"), "GET /one "]);
        }
    }
    common::eventually("every resumption in the log", || {
        let lines = proxy.access_log(18).into_iter();
        let resumed = lines.filter(|line| line["tls.resumed"] == true).count();
        (resumed == 16).then_some(())
    });
}

/// Goal: what is not offered is refused with the alert that says so. Method: versions, suites, groups and
/// protocols that do not meet; the alert's number as OpenSSL prints it, and the log's detail.
#[test]
fn alerts() {
    let authority = Authority::new();
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let (_origin, proxy) = gateway(
        &server.secret("server"),
        "certificates: server, min_version: '1.3', alpn: [http/1.1], groups: [X25519]",
    );
    let Some(openssl) = Openssl::new(&authority, &proxy) else {
        return;
    };
    let refused = [
        (&["-tls1_2"][..], "alert number 70", "protocol_version"),
        (
            // Its hello lacks signature algorithms, which is noticed first.
            &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
            "alert number 40",
            "handshake_failure",
        ),
        (
            &["-alpn", "h2"],
            "alert number 120",
            "no_application_protocol",
        ),
        (
            &["-groups", "P-384"],
            "alert number 40",
            "handshake_failure",
        ),
        (
            &["-ciphersuites", "TLS_AES_128_CCM_SHA256"],
            "alert number 40",
            "handshake_failure",
        ),
    ];
    for (arguments, alert, _) in &refused {
        let out = openssl.run(arguments, REQUEST);
        assert!(out.contains(alert), "{arguments:?}:\n{out}");
        assert!(!out.contains("HTTP/1.1 "), "{out}");
    }
    openssl.expect(&["-alpn", "h2,http/1.1"], &["ALPN protocol: http/1.1"]);
    for (arguments, _, detail) in &refused {
        common::eventually(&format!("{detail} of {arguments:?} in the log"), || {
            let mut lines = proxy.access_log(refused.len() + 1).into_iter();
            lines.find(|line| {
                line["tidegate.reason"] == "tls_handshake" && line["tidegate.detail"] == *detail
            })
        });
    }
}

/// Goal: a client certificate that will not do is refused with its own alert. Method: none, expired, not
/// valid yet, revoked, of another authority, of a name that is not let in; each logged as
/// `client_certificate`.
#[test]
fn alerts_about_certificates() {
    let authority = Authority::new();
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let good = authority.issue(&Leaf::client(CLIENT_ID));
    let revoked = authority.issue(&Leaf::client(CLIENT_ID));
    let crl = authority.revoke(&[&revoked]);
    let secrets = server.secret("server")
        + &format!(
            "  ca: {{ trusted_ca: '{}', crl: '{}' }}\n",
            authority.pem().display(),
            crl.display()
        );
    let (_origin, proxy) = gateway(
        &secrets,
        "certificates: server, client_certificate: { trusted_ca: ca, \
         subject_alt_names: [{ uri: 'spiffe://mesh.example/ns/shop/*' }] }",
    );
    let Some(openssl) = Openssl::new(&authority, &proxy) else {
        return;
    };
    let stranger = Authority::new();
    let bad = [
        (
            Some(authority.issue(&Leaf::client(CLIENT_ID).expired())),
            "alert number 45",
        ),
        (
            Some(authority.issue(&Leaf::client(CLIENT_ID).not_yet())),
            "alert number 45",
        ),
        (Some(revoked), "alert number 44"),
        (
            Some(stranger.issue(&Leaf::client(CLIENT_ID))),
            "alert number 48",
        ),
        (
            Some(authority.issue(&Leaf::client("spiffe://mesh.example/ns/other/sa/x"))),
            "alert number",
        ),
        // A server's certificate is none for a client.
        (
            Some(authority.issue(&Leaf::server(SERVER_NAME).uri(CLIENT_ID))),
            "alert number",
        ),
        (None, "alert number 116"),
    ];
    for (identity, alert) in &bad {
        let mut arguments = vec!["-tls1_3".to_owned()];
        if let Some(identity) = identity {
            arguments.push("-cert".into());
            arguments.push(identity.certificate.display().to_string());
            arguments.push("-key".into());
            arguments.push(identity.private_key.display().to_string());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let out = openssl.run(&arguments, REQUEST);
        assert!(out.contains(alert), "{identity:?}, {alert}:\n{out}");
        assert!(!out.contains("HTTP/1.1 200"), "{out}");
    }
    common::eventually("every refusal in the log", || {
        let lines = proxy.access_log(bad.len()).into_iter();
        let is_refusal = |line: &Value| line["tidegate.reason"] == "client_certificate";
        (lines.filter(is_refusal).count() >= bad.len()).then_some(())
    });
    let (certificate, key) = (
        good.certificate.display().to_string(),
        good.private_key.display().to_string(),
    );
    openssl.expect(&["-cert", &certificate, "-key", &key], &["GET /one "]);
}

/// Goal: key exchange after quantum computers, where the peer has it. Method: nothing else offered, if this
/// OpenSSL knows the group (3.5); Envoy shows it in any case, beside these tests.
#[test]
fn post_quantum_key_exchange() {
    let authority = Authority::new();
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let (_origin, proxy) = gateway(&server.secret("server"), "certificates: server");
    let Some(openssl) = Openssl::new(&authority, &proxy) else {
        return;
    };
    let groups = Command::new(&openssl.program)
        .args(["list", "-tls-groups", "-tls1_3"])
        .output()
        .unwrap();
    if !String::from_utf8_lossy(&groups.stdout).contains("X25519MLKEM768") {
        eprintln!("skipped: this OpenSSL has no X25519MLKEM768");
        return;
    }
    openssl.expect(&["-groups", "X25519MLKEM768"], &["GET /one "]);
    openssl.expect(&[], &["X25519MLKEM768", "GET /one "]);
}

/// Goal: a key update asked for by the client is followed, both ways. Method: `K` at the beginning of a
/// line, in the middle of a connection.
#[test]
fn key_updates() {
    let out = commands("-tls1_3", &["K", "k", "K"]);
    assert_eq!(out.matches("KEYUPDATE").count(), 3, "{out}");
    assert_eq!(out.matches("GET /one ").count(), 4, "{out}");
}

/// Goal: nobody renegotiates (TLS 1.2). Method: `R` in the middle of a connection; it does not come
/// through, and the next client is served.
#[test]
fn renegotiation() {
    let out = commands("-tls1_2", &["R"]);
    assert!(out.contains("RENEGOTIATING"), "{out}");
    assert!(
        out.contains("no renegotiation")
            || out.contains("no_renegotiation")
            || out.contains(":error:"),
        "{out}"
    );
    assert_eq!(out.matches("GET /one ").count(), 1, "{out}");
}

/// A request, then each command followed by another request, on one connection of `s_client` that knows
/// commands; everything that it said.
#[track_caller]
fn commands(version: &str, letters: &[&str]) -> String {
    let authority = Authority::new();
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let (_origin, proxy) = gateway(&server.secret("server"), "certificates: server");
    let Some(openssl) = Openssl::new(&authority, &proxy) else {
        return String::new();
    };
    let mut child = Command::new(&openssl.program)
        .arg("s_client")
        .args(["-connect", &format!("127.0.0.1:{}", openssl.port), version])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut out = String::new();
    let request = "GET /one HTTP/1.1\r\nHost: web.example\r\n\r\n";
    input.write_all(request.as_bytes()).unwrap();
    read_answer(&mut said, &mut out);
    for letter in letters {
        // A command is a letter alone in what it reads at once: the answer before it is awaited.
        input.write_all(format!("{letter}\n").as_bytes()).unwrap();
        common::pause(50);
        let _ = input.write_all(request.as_bytes());
        read_answer(&mut said, &mut out);
    }
    drop(input);
    let _ = child.kill();
    let mut rest = String::new();
    let _ = said.read_to_string(&mut rest);
    let mut errors = String::new();
    let _ = child.stderr.take().unwrap().read_to_string(&mut errors);
    child.wait().unwrap();
    // The connection ended or not; the proxy goes on.
    openssl.expect(&[version], &["GET /one "]);
    format!("{out}{rest}{errors}")
}

/// Appends lines up to the end of an echoed head, or to the end of everything.
fn read_answer(said: &mut impl BufRead, out: &mut String) {
    let mut is_in_body = false;
    loop {
        let mut line = Vec::new();
        if said.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        out.push_str(&line);
        is_in_body |= line.starts_with("GET /one ");
        if is_in_body && line.trim().is_empty() {
            return;
        }
    }
}

/// Findings of testssl.sh that are about the test's own authority and machine.
const NOT_OURS: [(&str, &str); 6] = [
    (
        "cert_chain_of_trust",
        "no browser trusts a test's authority",
    ),
    ("cert_trust", "neither does it vouch for its names"),
    ("cert_revocation", "it runs no service for that"),
    ("cert_caRecord", "nor has 127.0.0.1 a DNS zone"),
    ("DNS_CAArecord", "the same by its name in the tool"),
    ("overall_grade", "a summary of the above"),
];

/// Goal: testssl.sh finds nothing of LOW or worse on a strict listener with the defaults. Method: all its
/// checks of protocols, suites, vulnerabilities and headers; findings that only an authority of the web
/// could cure are named.
#[test]
fn testssl() {
    let Some(testssl) = peer::program("testssl").or_else(|| peer::program("testssl.sh")) else {
        return;
    };
    let authority = Authority::new();
    let ecdsa = authority.issue(&Leaf::server(SERVER_NAME));
    let rsa = authority.issue(&Leaf::server("localhost").rsa());
    // It asks for headers of the site as well, which are the origin's.
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nStrict-Transport-Security: max-age=31536000\r\n\
         Content-Security-Policy: default-src 'self'\r\nX-Frame-Options: DENY\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Permissions-Policy: camera=()\r\n\r\n",
    );
    for (name, identity) in [("ecdsa", ecdsa), ("rsa", rsa)] {
        let config = proxy::web_with(
            "    tls: { certificates: own }\n",
            "{ to: app }",
            &[("app", &origin)],
        );
        let proxy = Proxy::start(format!("secrets:\n{}{config}", identity.secret("own")));
        let report = authority.folder().join(format!("{name}.json"));
        scan(&testssl, &proxy, &report);
        let findings: Vec<Value> = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        assert!(findings.len() > 60, "too few checks: {findings:#?}");
        let bad: Vec<&Value> = findings
            .iter()
            .filter(|finding| {
                let severity = finding["severity"].as_str().unwrap();
                matches!(severity, "LOW" | "MEDIUM" | "HIGH" | "CRITICAL" | "FATAL")
            })
            .filter(|finding| {
                let id = finding["id"].as_str().unwrap();
                !NOT_OURS.iter().any(|(theirs, _)| id.starts_with(theirs))
            })
            .collect();
        assert!(bad.is_empty(), "{name}: {bad:#?}");
    }
}

fn scan(testssl: &Path, proxy: &Proxy, report: &Path) {
    let output = Command::new(testssl)
        .args(["--quiet", "--warnings", "off", "--color", "0"])
        // Nobody is asked over the network, and no address but this one is tried.
        .args(["--nodns", "none", "--ip", "127.0.0.1"])
        // Protocols, suites by strength, forward secrecy, order, certificate, headers, vulnerabilities. The
        // rest (every suite by itself, simulated browsers) takes most of the time and finds nothing bad.
        .args(["-p", "-s", "-f", "-P", "-S", "-h", "-U"])
        // A request without an answer is not waited for half a minute.
        .args(["--connect-timeout", "10", "--openssl-timeout", "10"])
        .arg("--jsonfile")
        .arg(report)
        .arg(format!("localhost:{}", proxy.web().port()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(report.is_file(), "no report: {output:?}");
}
