//! Hot upgrades: a new process takes over from a running one, and nobody notices. What is handed over, what is
//! refused, and that whatever goes wrong leaves the old process serving.
//!
//! `TIDEGATE_TEST_LONG=1` makes the run under load as long as the requirement says: 100 upgrades.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;
mod tls_ledger;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::Command,
};

use common::{
    Client, Origin, PATIENCE, Proxy, eventually, peer,
    proxy::{self, Setup},
    tls::{Authority, Leaf, SERVER_NAME, Session, client_config},
};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde_json::Value;
use tls_ledger::{Ledger, Load, Plan};

fn upgrades() -> usize {
    match std::env::var_os("TIDEGATE_TEST_LONG") {
        Some(_) => 100,
        None => 5,
    }
}

/// Makes processes whose parent has ended children of this one, so that their ends can be seen.
fn adopt_orphans() {
    prctl::set_child_subreaper(true).unwrap();
}

/// Waits for the end of an adopted process, and returns its exit code.
#[track_caller]
fn exit_code(pid: Pid) -> i32 {
    eventually("the end of a process that was replaced", || {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(code),
            // Its parent still drains, or it does itself.
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => None,
            other => panic!("{pid}: {other:?}"),
        }
    })
}

fn info(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/server_info").text()).unwrap()
}

fn before(origin: &Origin) -> String {
    proxy::web("{ to: app }", &[("app", origin)])
}

/// The sample of one series.
fn total(proxy: &Proxy, result: &str) -> f64 {
    let text = proxy.admin_get("/metrics").text();
    let series = format!("tidegate_upgrades_total{{result=\"{result}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series}in\n{text}"))
        .parse()
        .unwrap()
}

/// A path by which the proxy is started, and what lies there can be changed.
struct Installed(PathBuf);

impl Installed {
    fn new(name: &str) -> Installed {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("installed-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let installed = Installed(folder);
        installed.the_real_one();
        installed
    }

    fn path(&self) -> PathBuf {
        self.0.join("current")
    }

    fn setup(&self) -> Setup {
        Setup {
            program: Some(self.path()),
            ..Setup::default()
        }
    }

    fn the_real_one(&self) {
        self.replace(Path::new(env!("CARGO_BIN_EXE_tidegate")));
    }

    /// A program of other making.
    fn script(&self, text: &str) {
        let path = self.0.join("script");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.replace(&path);
    }

    fn replace(&self, with: &Path) {
        let new = self.0.join("new");
        symlink(with, &new).unwrap();
        fs::rename(new, self.path()).unwrap();
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Goal: no request fails, however often the process is replaced. Method: a ledger of numbered requests on kept and on
/// new connections while upgrades follow each other, by signal and by admin; afterwards each request was answered
/// once, and each process that was replaced ended with 0.
#[test]
fn upgrades_fail_no_request() {
    adopt_orphans();
    let ledger = Ledger::new();
    let origin = ledger.origin();
    let setup = Setup {
        shards: Some(2),
        unlogged: true,
        ..Setup::default()
    };
    let mut proxy = Proxy::start_with(&setup, before(&origin));
    let plan = Plan {
        quick: 12,
        slow: 4,
        requests_per_s: 400.0,
    };
    let load = Load::start(&ledger, proxy.web(), plan);
    load.pass(50);
    let mut line = vec![proxy.pid()];
    for number in 1..=upgrades() {
        ledger.doing(format!("upgrade {number}"));
        if number % 2 == 1 {
            kill(proxy.newest(), Signal::SIGUSR2).unwrap();
        } else {
            let answer = proxy.admin_post("/upgrade");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        line.push(proxy.wait_for_heir());
        ledger.doing(format!("after upgrade {number}"));
        load.pass(50);
    }
    let outcome = load.stop();
    println!(
        "{} upgrades, {} requests in {:.0} s",
        upgrades(),
        outcome.requests,
        outcome.seconds
    );
    ledger.assert_whole();

    let info = info(&proxy);
    assert_eq!(info["generation"], upgrades() + 1);
    let [.., last_but_one, last] = line[..] else {
        panic!("{line:?}");
    };
    assert_eq!(info["started_by"], last_but_one.as_raw());
    assert_eq!(info["pid"], last.as_raw());
    assert_eq!(total(&proxy, "completed"), upgrades() as f64);
    assert_eq!(proxy.wait().code(), Some(0));
    for pid in &line[1..upgrades()] {
        assert_eq!(exit_code(*pid), 0);
    }
}

/// Goal: whoever is connected is served, whatever they were about to do. Method: over an upgrade, connections that
/// have said nothing yet, half a head, and a request whose answer the origin holds back; then each goes on. Those of
/// the old process are told to close.
#[test]
fn connections_are_finished() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            if request.head.target() == "/held" {
                let _ = gate.lock().unwrap().recv();
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(())
    });
    let mut proxy = Proxy::start(before(&origin));
    let mut held = proxy.client();
    held.send("GET /held HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    origin.wait_for_requests(1);
    let mut half = proxy.client();
    half.send("GET /half HTTP/1.1\r\nHo").unwrap();
    let mut silent: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    proxy.wait_for_metric("tidegate_shard_connections_open", |n| n >= 22.0);

    proxy.upgrade();
    for client in &mut silent {
        let response = client.get("/first");
        assert_eq!(response.text(), "ok");
        assert_eq!(response.head.get("connection"), Some("close"));
    }
    half.send("st: a.example\r\n\r\n").unwrap();
    assert_eq!(half.answer_to(b"GET").text(), "ok");
    assert_eq!(proxy.client().get("/new").head.get("connection"), None);
    assert!(proxy.is_running(), "a request is in flight");
    release.send(()).unwrap();
    assert_eq!(held.answer_to(b"GET").text(), "ok");
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Goal: sessions are resumed over an upgrade, since the keys of their tickets are handed over (E7); without that they
/// are not. Method: a client with a ticket, before and after an upgrade; then before a process that was not handed
/// any.
#[test]
fn sessions_resume_after_an_upgrade() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let identity = authority.issue(&Leaf::server(SERVER_NAME));
    let config = format!(
        "secrets:\n{}{}",
        identity.secret("web"),
        proxy::web_with(
            "    tls: { certificates: web }\n",
            "{ to: app }",
            &[("app", &origin)]
        )
    );
    let mut proxy = Proxy::start(&config);
    let client = client_config(&authority, None);
    let connect = |proxy: &Proxy| {
        let mut session = Session::connect(proxy.web(), SERVER_NAME, &client).unwrap();
        assert!(session.get("/").unwrap().starts_with("HTTP/1.1 200 "));
    };
    let handshakes = |proxy: &Proxy| {
        let metric = |name| proxy.metric(&format!("tidegate_shard_tls_handshakes_{name}_total"));
        (metric("full"), metric("resumed"))
    };
    connect(&proxy);
    assert_eq!(handshakes(&proxy), (1.0, 0.0));
    for _ in 0..2 {
        proxy.upgrade();
        connect(&proxy);
        assert_eq!(handshakes(&proxy), (0.0, 1.0));
    }
    let stranger = Proxy::start(&config);
    connect(&stranger);
    assert_eq!(handshakes(&stranger), (1.0, 0.0));
}

/// Goal: a configuration that the new process cannot use is told to whoever asked, and the old process serves on.
/// Method: a key that does not exist, and a port that somebody else has; then the file is mended.
#[test]
fn broken_configurations_change_nothing() {
    let origin = Origin::named("here");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let mut proxy = Proxy::start(before(&origin));
    let other = format!(
        "listeners:\n  other: {{ bind: '{taken}', routes: [{{ respond: {{ status: 200 }} }}] }}\n"
    );
    let broken = [
        ("lisenters: {}\n".to_owned(), "lisenters"),
        (other, "is in use"),
    ];
    for (number, (config, said)) in broken.iter().enumerate() {
        proxy.write_config(config);
        let answer = proxy.admin_post("/upgrade");
        assert_eq!(answer.status, 409);
        assert!(answer.text().contains(said), "{}", answer.text());
        assert_eq!(proxy.client().get("/").text(), "here");
        assert_eq!(total(&proxy, "failed"), (number + 1) as f64);
        let info = info(&proxy);
        assert_eq!(
            (&info["generation"], &info["state"]),
            (&1.into(), &"ready".into())
        );
        let shown = info["upgrade"]["last_error"].as_str().unwrap();
        assert!(shown.contains(said), "{shown}");
    }
    proxy.write_config(before(&origin));
    proxy.upgrade();
    assert_eq!(proxy.client().get("/").text(), "here");
    assert_eq!(total(&proxy, "failed"), 2.0);
}

/// Goal: the program is taken from the path it was started by, and one that cannot take over is ended and told from
/// each other. Method: in the place of the program, one that says nothing, one that ends, none; then the right one.
#[test]
fn programs_that_cannot_take_over() {
    let installed = Installed::new("cannot");
    let origin = Origin::named("here");
    let config = format!("upgrade_timeout: 1s\n{}", before(&origin));
    let mut proxy = Proxy::start_with(&installed.setup(), &config);
    let refused = |proxy: &Proxy, said: &str| {
        let answer = proxy.admin_post("/upgrade");
        assert_eq!(answer.status, 409);
        assert!(answer.text().contains(said), "{}", answer.text());
        assert_eq!(proxy.client().get("/").text(), "here");
    };
    installed.script("#!/bin/sh\nexec sleep 1000\n");
    refused(&proxy, "not ready within 1s");
    // Loaded as the machine may be, the others have the time that they need.
    proxy.reload(format!("upgrade_timeout: 1m\n{}", before(&origin)));
    installed.script("#!/bin/sh\nexit 7\n");
    refused(&proxy, "exit status: 7");
    fs::remove_file(installed.path()).unwrap();
    refused(&proxy, "No such file");
    installed.the_real_one();
    assert_eq!(total(&proxy, "timed_out"), 1.0);
    assert_eq!(total(&proxy, "failed"), 2.0);
    proxy.upgrade();
    assert_eq!(proxy.client().get("/").text(), "here");
}

/// Goal: a process that ends between *ready* and *serve* costs nothing, and one of another version parts in peace.
/// Method: programs that say as much of the protocol and no more; connections before, and whatever is connected
/// while the old process has stopped accepting.
#[test]
fn a_successor_that_fails_at_the_last_moment() {
    let Some(python) = peer::python("socket") else {
        return;
    };
    let installed = Installed::new("last-moment");
    let speak = |lines: &str| {
        installed.script(&format!(
            "#!{}\nimport socket\nold = socket.socket(fileno=0)\n{lines}",
            python.display()
        ));
    };
    let origin = Origin::named("here");
    let proxy = Proxy::start_with(&installed.setup(), before(&origin));
    let mut kept = proxy.client();
    assert_eq!(kept.get("/").text(), "here");

    speak("old.send(b'\\x01tidegate\\x00\\x02\\x00\\x03')\nold.recv(1)\n");
    let answer = proxy.admin_post("/upgrade").text();
    assert!(answer.contains("speaks versions 2 to 3"), "{answer}");

    // Deaf from *ready* on: the old process has stopped accepting when it finds out.
    speak(
        "old.send(b'\\x01tidegate\\x00\\x01\\x00\\x01')\nwhile old.recv(65536)[0] != 7: pass\n\
         old.shutdown(socket.SHUT_RD)\nold.send(b'\\x08\\x00\\x00')\n",
    );
    let answer = proxy.admin_post("/upgrade");
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("when it was to serve"));
    assert_eq!(kept.get("/").text(), "here");
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "here");
        assert_eq!(client.get("/").text(), "here", "connections are kept again");
    }
    assert_eq!(info(&proxy)["state"], "ready");
    assert_eq!(total(&proxy, "failed"), 2.0);
}

/// Goal: one upgrade at a time, and nothing that the new process would not know of; and the end of a process is the
/// end of what it was about to become. Method: a program that says nothing; while it is waited for, another upgrade,
/// a reload and a change by hand; then TERM.
#[test]
fn an_upgrade_under_way_is_alone() {
    let installed = Installed::new("alone");
    let origin = Origin::named("here");
    let config = format!("upgrade_timeout: 1h\n{}", before(&origin));
    let mut proxy = Proxy::start_with(&installed.setup(), config);
    installed.script("#!/bin/sh\nexec sleep 1000\n");
    proxy.signal(Signal::SIGUSR2);
    let started = eventually("the new process", || {
        let log = proxy.stderr();
        let (_, rest) = log.split_once("upgrade: pid ")?;
        rest.split(' ').next()?.parse::<i32>().ok()
    });
    assert_eq!(info(&proxy)["upgrade"]["under_way"], true);
    for (target, said) in [
        ("/upgrade", "an upgrade is under way"),
        ("/reload", "not reloading while an upgrade is under way"),
        (
            "/healing?cluster=app&eject=127.0.0.1:1",
            "not while an upgrade is under way",
        ),
    ] {
        let answer = proxy.admin_post(target);
        assert_eq!(answer.status, 409, "{target}");
        assert!(answer.text().contains(said), "{}", answer.text());
    }
    assert_eq!(total(&proxy, "refused"), 1.0);
    assert_eq!(proxy.client().get("/").text(), "here");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait().code(), Some(0));
    eventually("the end of the new process", || {
        let arguments = fs::read(format!("/proc/{started}/cmdline")).unwrap_or_default();
        (!arguments.starts_with(b"sleep")).then_some(())
    });
}

/// Goal: the number of shards may change, and no socket is left without one who accepts. Method: one shard, two, one
/// again, two again; after each, more new connections than could all have met the same socket.
#[test]
fn shards_may_change() {
    let origin = Origin::named("here");
    let mut proxy = Proxy::start(before(&origin));
    let cpus = std::thread::available_parallelism().unwrap().get();
    for shards in [2, 1, 2].map(|shards| cpus.min(shards)) {
        proxy.set_shards(shards);
        proxy.write_config(before(&origin));
        proxy.upgrade();
        assert_eq!(info(&proxy)["shards"], shards);
        let mut clients: Vec<Client> = (0..64).map(|_| proxy.client()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "here");
        }
    }
}

/// Goal: listeners come and go with an upgrade, and none of those that stay changes its port. Method: a file with one
/// less and one more.
#[test]
fn listeners_may_change() {
    let listener = |name: &str, address: &str, status: u16| {
        format!(
            "  {name}: {{ bind: '{address}:0', routes: [{{ respond: {{ status: {status} }} }}] }}\n"
        )
    };
    let (stays, goes, comes) = (
        listener("web", "127.0.0.1", 201),
        listener("goes", "127.0.0.2", 202),
        listener("comes", "127.0.0.3", 203),
    );
    let mut proxy = Proxy::start(format!("listeners:\n{stays}{goes}"));
    let gone = proxy.listener("goes");
    proxy.write_config(format!("listeners:\n{stays}{comes}"));
    proxy.upgrade();
    assert_eq!(proxy.client().get("/").status, 201);
    eventually("the listener is closed", || {
        TcpStream::connect(gone).err().map(drop)
    });
    let announced = fs::read(proxy.folder().join("announce.json")).unwrap();
    let announced: Value = serde_json::from_slice(&announced).unwrap();
    let address = |name: &str| -> SocketAddr {
        let listeners = &announced["listeners"];
        listeners[name].as_str().unwrap().parse().unwrap()
    };
    assert_eq!(address("web"), proxy.web());
    assert_eq!(Client::connect(address("comes")).get("/").status, 203);
}

/// Goal: what an operator sees and set by hand stays (E3, H10). Method: a rollout and an ejection by hand, over an
/// upgrade by `ctl`; then the file says something else about the rollout, and wins.
#[test]
fn what_was_set_by_hand_stays() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let config = |rollout: &str| {
        format!(
            "secrets:\n{}clusters:\n  pay:\n    heal: {{}}\n    tls: {{ mode: follow_peer, trusted_ca: ca, rollout: \
             {rollout} }}\n    endpoints: {{ static: ['{origin}', '127.0.0.1:9'] }}\n",
            authority.secret("ca")
        )
    };
    let mut proxy = Proxy::start(config("50%"));
    let ctl = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["ctl", "--admin", &proxy.admin().to_string()])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    ctl(&["tls", "pay=off"]);
    ctl(&["eject", "pay", "127.0.0.1:9", "--for", "1h"]);
    let shown = ctl(&["upgrade"]);
    let version = env!("CARGO_PKG_VERSION");
    assert!(shown.contains("generation  1 → 2"), "{shown}");
    assert!(shown.contains(&format!("{version} → {version}")), "{shown}");
    assert!(ctl(&["tls"]).contains("(set by hand: off)"));
    assert!(ctl(&["status"]).contains("generation 2"));
    let healing = ctl(&["healing"]);
    assert!(healing.contains("ejected"), "{healing}");
    let heir = proxy.wait_for_heir();
    assert!(
        shown.contains(&format!("{} → {heir}", proxy.pid())),
        "{shown}"
    );

    proxy.write_config(config("60%"));
    proxy.upgrade();
    let tls = proxy.admin_get("/encryption?format=text").text();
    assert!(!tls.contains("set by hand"), "{tls}");
}

/// Goal: an upgrade is no way around the ratchet of `strict` (E1). Method: a client in plaintext, and a file that
/// would cut it off.
#[test]
fn strict_is_judged_before_an_upgrade() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let identity = authority.issue(&Leaf::server(SERVER_NAME));
    let config = |mode: &str| {
        let listener = format!("    tls: {{ certificates: web, mode: {mode} }}\n");
        let web = proxy::web_with(&listener, "{ to: app }", &[("app", &origin)]);
        format!("secrets:\n{}{web}", identity.secret("web"))
    };
    let proxy = Proxy::start(config("permissive"));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    proxy.write_config(config("strict"));
    let answer = proxy.admin_post("/upgrade");
    assert_eq!(answer.status, 409);
    assert!(
        answer.text().contains("strict is refused"),
        "{}",
        answer.text()
    );
    assert_eq!(client.get("/").status, 200);
    assert_eq!(total(&proxy, "refused"), 1.0);
}

/// Goal: the service manager follows to the new process, and hears nothing of an end. Method: a socket of our own in
/// its place; what is told from the signal until the old process has ended, and then by the new one.
#[test]
fn the_service_manager_follows() {
    let folder = Installed::new("notify");
    let socket = UnixDatagram::bind(folder.0.join("socket")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut message = [0; 512];
        let len = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let setup = Setup {
        environment: vec![(
            "NOTIFY_SOCKET",
            folder.0.join("socket").display().to_string(),
        )],
        ..Setup::default()
    };
    let mut proxy = Proxy::start_with(&setup, before(&Origin::echo()));
    assert_eq!(told(), "READY=1\n");
    let heir = proxy.upgrade();
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), format!("MAINPID={heir}\nREADY=1\n"));
    assert_eq!(proxy.wait().code(), Some(0));
    kill(heir, Signal::SIGTERM).unwrap();
    assert_eq!(told(), "STOPPING=1\n");
}

/// Goal: the new process has what the first one was started with, not what a thread of it has. Method: CPUs, signals
/// that are blocked, and open files of the heir's heir beside the first process's; nothing grows.
#[test]
fn an_heir_is_as_the_first_was() {
    let origin = Origin::echo();
    let mut proxy = Proxy::start(before(&origin));
    let of = |pid: Pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |name: &str| {
            status
                .lines()
                .find(|l| l.starts_with(name))
                .unwrap()
                .to_owned()
        };
        ["Cpus_allowed_list:", "SigBlk:", "SigIgn:"].map(line)
    };
    let files = |pid: Pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let first = of(proxy.pid());
    let (first_files, heir) = (files(proxy.pid()), proxy.upgrade());
    assert_eq!(of(heir), first);
    let heir = proxy.upgrade();
    assert_eq!(of(heir), first);
    // An endpoint's or an admin connection may be open for a moment.
    eventually("as many open files as before", || {
        (files(heir) <= first_files).then_some(())
    });
    let stdin = fs::read_link(format!("/proc/{heir}/fd/0")).unwrap();
    assert_eq!(stdin, Path::new("/dev/null"));
}

/// Goal: the admin server moves with the process: kept connections end politely, new ones meet the new process. Method:
/// a kept connection and a stream of the dashboard over an upgrade.
#[test]
fn the_admin_server_moves_along() {
    let mut proxy = Proxy::start(before(&Origin::echo()));
    let request = "GET /server_info HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut kept = Client::connect(proxy.admin());
    assert_eq!(kept.exchange(request).status, 200);
    let mut stream = Client::connect(proxy.admin());
    stream
        .send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    stream.head().unwrap();
    let heir = proxy.upgrade();
    kept.expect_close();
    // Ends with its last chunk, not in the middle of one.
    assert!(stream.rest().unwrap().ends_with(b"0\r\n\r\n"));
    for _ in 0..8 {
        assert_eq!(info(&proxy)["pid"], heir.as_raw());
    }
}

/// Goal: whoever decides by `/ready` whether to send traffic here sees no gap. Method: ask without a pause over three
/// upgrades.
#[test]
fn readiness_has_no_gap() {
    let mut proxy = Proxy::start(before(&Origin::echo()));
    let admin = proxy.admin();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let probe = std::thread::spawn(move || {
        let request = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut asked = 0;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let answer = Client::connect(admin).exchange(request);
            assert_eq!(answer.status, 200, "{}", answer.text());
            asked += 1;
        }
        asked
    });
    for _ in 0..3 {
        proxy.upgrade();
    }
    drop(stop);
    assert!(probe.join().unwrap() > 3);
}
