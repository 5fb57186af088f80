//! `tidegate ctl` against a running process: what it asks for, prints and exits with.
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
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
};

use common::{
    Origin, Proxy, eventually,
    tls::{Authority, Leaf, SERVER_NAME},
};

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn ctl(admin: SocketAddr, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["ctl", "--admin", &admin.to_string()])
        .args(args)
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn ok(admin: SocketAddr, args: &[&str]) -> String {
    let ran = ctl(admin, args);
    assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
    ran.stdout
}

/// Goal: the life of a process can be steered from a shell. Method: every verb in turn, to the end.
#[test]
fn a_process_is_steered() {
    let origin = Origin::echo();
    let mut proxy = Proxy::before(&origin);
    let admin = proxy.admin();
    let status = ok(admin, &["status"]);
    assert!(status.contains(", ready\n"), "{status}");
    assert!(status.contains("epoch 1,"), "{status}");
    assert_eq!(ok(admin, &["reload"]), "reloaded\n");
    assert_eq!(ok(admin, &["drain"]), "draining\n");
    assert_eq!(proxy.admin_get("/ready").status, 503);
    assert_eq!(ok(admin, &["undrain"]), "taking connections\n");
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(ok(admin, &["certs"]), "no secrets are configured\n");
    assert!(ok(admin, &["tls"]).contains("listener web: no tls section"));

    proxy.write_config("listeners: nonsense\n");
    let refused = ctl(admin, &["reload"]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(
        refused.stderr.starts_with("tidegate: "),
        "{}",
        refused.stderr
    );
    let status = ok(admin, &["status"]);
    assert!(status.contains("  refused   "), "{status}");

    assert_eq!(ok(admin, &["quit"]), "stopping\n");
    assert!(proxy.wait().success());
}

/// Goal: rollouts are set from a shell, several at once, and a refusal is an exit code. Method: one that can be,
/// one that cannot, one that is no share.
#[test]
fn rollouts_are_set() {
    let authority = Authority::new();
    let web = authority.issue(&Leaf::server(SERVER_NAME));
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "secrets:\n{}{}listeners:\n  web: {{ bind: 127.0.0.1:0, tls: {{ certificates: web }}, \
         routes: [{{ to: pay }}] }}\nclusters:\n  pay:\n    tls: {{ mode: follow_peer, trusted_ca: ca }}\n    \
         endpoints: {{ static: [\"{origin}\"] }}\n  must:\n    tls: {{ mode: required, trusted_ca: ca }}\n    \
         endpoints: {{ static: [\"{origin}\"] }}\n",
        web.secret("web"),
        authority.secret("ca")
    ));
    let admin = proxy.admin();
    assert_eq!(ok(admin, &["tls", "pay=20%"]), "pay: 20%\n");
    assert!(ok(admin, &["tls"]).contains("(set by hand: 20%)"));
    assert_eq!(
        ok(admin, &["tls", "pay=off", "pay=file"]),
        "pay: off\npay: as configured\n"
    );
    let refused = ctl(admin, &["tls", "must=off"]);
    assert_eq!(refused.code, 5);
    assert!(
        refused.stderr.contains("cannot weaken"),
        "{}",
        refused.stderr
    );
    for bad in ["pay", "pay=much", "pay=101%"] {
        assert_eq!(ctl(admin, &["tls", bad]).code, 2, "{bad}");
    }
    assert!(ok(admin, &["certs"]).contains("web: certificate, good"));
}

/// Goal: no process, a wrong one and a silent one are told apart, in time. Method: a port that nobody has, an
/// origin that is no admin server, and a listener that accepts nothing.
#[test]
fn failures_are_told_apart() {
    let nobody = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let ran = ctl(nobody, &["status"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("cannot ask the admin server"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("help: "), "{}", ran.stderr);

    let origin = Origin::echo();
    let ran = ctl(origin.to_string().parse().unwrap(), &["status"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("is not understood"), "{}", ran.stderr);

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let ran = ctl(address, &["--timeout", "1", "status"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("did not answer within 1 s"),
        "{}",
        ran.stderr
    );
}

/// Goal: a second look does not hang on an answer in the way. Method: drain while a request is in flight; status
/// is answered meanwhile.
#[test]
fn status_is_answered_while_draining() {
    let proxy = Proxy::before(&Origin::echo());
    ok(proxy.admin(), &["drain"]);
    eventually("draining in the status", || {
        ok(proxy.admin(), &["status"])
            .contains(", draining\n")
            .then_some(())
    });
}

/// Goal: `top` shows the process that runs, and ends when told to. Method: requests between two looks; a port where
/// nobody listens.
#[test]
fn top_shows_what_happens() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    (0..20).for_each(|_| assert_eq!(client.get("/").status, 200));
    let top = |admin: SocketAddr| {
        Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["top", "--times", "1", "--interval", "100ms", "--admin"])
            .arg(admin.to_string())
            .output()
            .unwrap()
    };
    let output = top(proxy.admin());
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    assert!(
        !shown.contains('\x1b'),
        "no control codes but on a terminal"
    );
    for said in [
        "ready",
        "SHARD",
        "web web/1",
        &origin.to_string(),
        "available",
    ] {
        assert!(shown.contains(said), "{said} in\n{shown}");
    }
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    assert_eq!(top(address).status.code(), Some(1));
}

/// Goal: an operator shifts a share, looks, tries a step out, and takes it back, from the shell; whose rule it is not is
/// refused (S1, S15). Method: the commands of the help, and what requests get in between.
#[test]
fn shares_are_shifted() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::start(format!(
        "{}steering: {{ applications: {{ pay: {{ units: {{ u1: one, u2: two }} }} }} }}\n",
        common::proxy::web("{ to: one }", &[("one", &one), ("two", &two)])
    ));
    let get = || proxy.client().get("/").text();
    let shift = |share: &'static str| {
        [
            "shift",
            "try",
            "--application",
            "pay",
            "--to",
            "u2",
            "--owner",
            "me",
            "--share",
            share,
        ]
    };
    assert_eq!(get(), "one");
    assert_eq!(ok(proxy.admin(), &shift("100%")), "try: set\n");
    assert_eq!(get(), "two");
    ok(proxy.admin(), &shift("0%"));
    assert_eq!(get(), "one");
    let shown = ok(proxy.admin(), &["shift"]);
    assert!(
        shown.contains("rule try@2 of me (by hand): shift 0 % to u2"),
        "{shown}"
    );
    let tried = [&shift("100%")[..], &["--dry-run", "--watch", "1ms"]].concat();
    let told = ok(proxy.admin(), &tried);
    assert!(told.starts_with("counted for "), "{told}");
    assert_eq!(get(), "one");
    let stranger = ctl(
        proxy.admin(),
        &["shift", "try", "--owner", "you", "--withdraw"],
    );
    assert_eq!(stranger.code, 5, "{}", stranger.stderr);
    assert!(
        stranger.stderr.contains("belongs to `me`, not to `you`"),
        "{}",
        stranger.stderr
    );
    assert_eq!(
        ok(
            proxy.admin(),
            &["shift", "try", "--owner", "me", "--withdraw"]
        ),
        "try: withdrawn\n"
    );
    let file = proxy.folder().join("rule.yaml");
    std::fs::write(
        &file,
        "owner: me\nepoch: 9\nmatch: { application: pay }\nset_unit: u2\n",
    )
    .unwrap();
    ok(
        proxy.admin(),
        &[
            "shift",
            "try",
            "--file",
            file.to_str().unwrap(),
            "--for",
            "10m",
        ],
    );
    assert_eq!(get(), "two");
    assert_eq!(ctl(proxy.admin(), &["shift", "try"]).code, 2);
}
