//! `--unsafe-key-log`: what it writes is what the peer has, and nothing else ever writes it (E9).
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
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{
    Origin, Proxy, eventually, peer,
    proxy::{self, Setup},
    tls::{Authority, Identity, Leaf, SERVER_NAME, Session, client_config},
};
use serde_json::Value;

/// Other versions are not there.
const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

struct Keys {
    authority: Authority,
    server: Identity,
}

impl Keys {
    fn new() -> Keys {
        let authority = Authority::new();
        let server = authority.issue(&Leaf::server(SERVER_NAME));
        Keys { authority, server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.authority.folder().join(name)
    }

    fn secrets(&self) -> String {
        let ca = self.authority.secret("ca");
        format!("secrets:\n{}{ca}", self.server.secret("web"))
    }

    /// A TLS listener before `origin`.
    #[track_caller]
    fn listening(&self, setup: &Setup, origin: &Origin) -> Proxy {
        let ca = self.secrets().replace(&self.authority.secret("ca"), "");
        let tls = "    tls: { certificates: web }\n";
        let config = proxy::web_with(tls, "{ to: app }", &[("app", origin)]);
        Proxy::start_with(setup, ca + &config)
    }
}

fn logging_to(file: &Path) -> Setup {
    Setup {
        arguments: vec!["--unsafe-key-log".into(), file.display().to_string()],
        ..Setup::default()
    }
}

/// The lines of a key log without its remarks.
fn lines(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Waits until `ours` has every line of `theirs`, which has some.
#[track_caller]
fn wait_for_same(ours: &Path, theirs: &Path) {
    let theirs = lines(theirs);
    assert!(!theirs.is_empty());
    eventually("the lines of the peer", || {
        theirs.is_subset(&lines(ours)).then_some(())
    });
}

/// Goal: with the flag, the secrets of clients' connections are written as the client has them, into a file for
/// this user alone, loudly. Method: `openssl s_client` with a key log of its own, in both versions.
#[test]
fn secrets_of_clients() {
    let Some(openssl) = peer::program("openssl") else {
        return;
    };
    let (keys, origin) = (Keys::new(), Origin::echo());
    let ours = keys.file("ours");
    let proxy = keys.listening(&logging_to(&ours), &origin);
    for version in VERSIONS {
        let theirs = keys.file(version);
        let mut child = Command::new(&openssl)
            .args(["s_client", "-quiet", "-connect"])
            .arg(proxy.web().to_string())
            .arg("-CAfile")
            .arg(keys.authority.pem())
            .args([version, "-keylogfile"])
            .arg(&theirs)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        assert!(child.wait().unwrap().success());
        wait_for_same(&ours, &theirs);
    }
    let labels: BTreeSet<String> = lines(&ours)
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert!(labels.contains("CLIENT_RANDOM") && labels.contains("SERVER_TRAFFIC_SECRET_0"));
    let mode = fs::metadata(&ours).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let log = proxy.stderr();
    assert!(log.contains("UNSAFE") && log.contains("ours"), "{log}");
    assert_eq!(proxy.metric("tidegate_unsafe_key_log"), 1.0);
    let shown: Value = serde_json::from_str(&proxy.admin_get("/encryption").text()).unwrap();
    assert_eq!(shown["key_log"]["path"], ours.display().to_string());
    assert_eq!(shown["key_log"]["lines_dropped"], 0);
    let text = proxy.admin_get("/encryption?format=text").text();
    assert!(text.contains("UNSAFE key log"), "{text}");
}

/// Goal: likewise for links to endpoints. Method: `openssl s_server` with a key log of its own.
#[test]
fn secrets_of_links() {
    let Some(openssl) = peer::program("openssl") else {
        return;
    };
    let keys = Keys::new();
    let ours = keys.file("ours");
    for version in VERSIONS {
        let theirs = keys.file(version);
        let server = peer::Server::start(|_, address| {
            let mut command = Command::new(&openssl);
            command
                .args(["s_server", "-www", "-quiet", "-accept"])
                .arg(address.to_string())
                .arg("-cert")
                .arg(&keys.server.certificate)
                .arg("-key")
                .arg(&keys.server.private_key)
                .args([version, "-keylogfile"])
                .arg(&theirs);
            command
        });
        let proxy = Proxy::start_with(
            &logging_to(&ours),
            format!(
                "{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  app: \
                 {{ endpoints: {{ static: ['{}'] }}, tls: {{ trusted_ca: ca, server_name: {SERVER_NAME} }} }}\n",
                keys.secrets().replace(&keys.server.secret("web"), ""),
                server.address
            ),
        );
        assert_eq!(proxy.client().get("/").status, 200);
        wait_for_same(&ours, &theirs);
    }
}

/// Goal: nothing but the flag writes secrets, and it does so only into a regular file. Method: the variable that
/// browsers and curl obey; keys of the configuration; a device and a folder that is not there.
#[test]
fn nothing_else_switches_it_on() {
    let (keys, origin) = (Keys::new(), Origin::echo());
    let file = keys.file("never");
    let setup = Setup {
        environment: vec![("SSLKEYLOGFILE", file.display().to_string())],
        ..Setup::default()
    };
    let proxy = keys.listening(&setup, &origin);
    let client = client_config(&keys.authority, None);
    let mut session = Session::connect(proxy.web(), SERVER_NAME, &client).unwrap();
    assert!(session.get("/").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(!file.exists());
    assert_eq!(proxy.metric("tidegate_unsafe_key_log"), 0.0);
    let shown: Value = serde_json::from_str(&proxy.admin_get("/encryption").text()).unwrap();
    assert_eq!(shown["key_log"], Value::Null);

    for path in ["/dev/null", "/nonexistent/keys"] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["run", "--unsafe-key-log", path])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("--unsafe-key-log") && said.contains(path),
            "{said}"
        );
    }
}
