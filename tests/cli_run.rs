//! The verbs that serve: how they start, what they refuse with which exit code, and what signals do.
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
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use common::{Client, Origin, PATIENCE, Proxy, eventually, proxy};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// A folder of one test, gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("run-{name}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running process, killed when dropped.
struct Running {
    child: Child,
    folder: Folder,
}

impl Running {
    fn start(folder: Folder, command: &mut Command) -> Running {
        let child = command
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.file("stdout")).unwrap())
            .stderr(fs::File::create(folder.file("stderr")).unwrap())
            .spawn()
            .unwrap();
        Running { child, folder }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    #[track_caller]
    fn wait(&mut self) -> i32 {
        let status = eventually("the end of the process", || self.child.try_wait().unwrap());
        status.code().expect("an exit code, not a signal")
    }

    fn stdout(&self) -> String {
        fs::read_to_string(self.folder.file("stdout")).unwrap()
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.folder.file("stderr")).unwrap()
    }

    #[track_caller]
    fn announced(&mut self) -> Value {
        let path = self.folder.file("announce");
        eventually("the announcement", || {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "{}",
                self.stderr()
            );
            serde_json::from_slice(&fs::read(&path).ok()?).ok()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- stdout\n{}---- stderr\n{}",
                self.stdout(),
                self.stderr()
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tidegate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).env_remove("NOTIFY_SOCKET");
    command
}

/// `run` with this configuration, announcing into its folder.
fn run(folder: &Folder, config: &str) -> Command {
    let path = folder.write("config.yaml", config);
    let mut command = tidegate(&["run", "-c"]);
    command
        .arg(path)
        .arg("--announce")
        .arg(folder.file("announce"));
    command
}

/// Runs to the end; exit code and standard error.
fn ended(config: &str, name: &str) -> (i32, String) {
    let folder = Folder::new(name);
    let mut command = run(&folder, config);
    let mut running = Running::start(folder, &mut command);
    let code = running.wait();
    (code, running.stderr())
}

fn address(value: &Value) -> SocketAddr {
    value.as_str().unwrap().parse().unwrap()
}

const QUIET: &str = "version: 1\nadmin: off\nshards: { count: 1 }\n";

/// Goal: what the host refuses is exit code 4, with a remedy. Method: a port in use, by a listener and by
/// the admin server; an address of nobody; a CPU that is not ours; a log that cannot be opened.
#[test]
fn unfit_hosts_are_exit_code_4() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let listener = |bind: &str| {
        format!(
            "listeners: {{ a: {{ bind: \"{bind}\", routes: [ {{ respond: {{ status: 200 }} }} ] }} }}\n"
        )
    };
    let cases = [
        (
            "taken",
            format!("{QUIET}{}", listener(&taken.to_string())),
            "ss -ltnp",
        ),
        (
            "taken-admin",
            format!("version: 1\nadmin: {taken}\n"),
            "ss -ltnp",
        ),
        // TEST-NET-1 (RFC 5737) is nobody's.
        (
            "nobody",
            format!("{QUIET}{}", listener("192.0.2.1:8080")),
            "ip address",
        ),
        (
            "cpu",
            "version: 1\nadmin: off\nshards: { cpus: [1023] }\n".into(),
            "cpuset",
        ),
        (
            "log",
            format!("{QUIET}access_log: {{ path: /nonexistent/folder/access.log }}\n"),
            "directory",
        ),
    ];
    for (name, config, remedy) in cases {
        let (code, stderr) = ended(&config, name);
        assert_eq!(code, 4, "{name}: {stderr}");
        assert!(stderr.contains("help: "), "{name}: {stderr}");
        assert!(stderr.contains(remedy), "{name}: {stderr}");
    }
}

/// Goal: two processes never share a port in silence. Method: a second one on the first one's port.
#[test]
fn a_second_process_is_refused() {
    let first = Proxy::before(&Origin::echo());
    let config = format!(
        "{QUIET}listeners: {{ a: {{ bind: \"{}\", routes: [ {{ respond: {{ status: 200 }} }} ] }} }}\n",
        first.web()
    );
    let (code, stderr) = ended(&config, "second");
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("is in use"), "{stderr}");
}

/// Goal: the admin server is for this host only. Method: another address: exit code 3.
#[test]
fn admin_of_others_is_refused() {
    let (code, stderr) = ended("version: 1\nadmin: 0.0.0.0:9901\n", "admin");
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("loopback"), "{stderr}");
}

/// Goal: a normal start is at most ten lines of log, and says what matters. Method: count them.
#[test]
fn a_start_is_ten_lines() {
    let proxy = Proxy::before(&Origin::echo());
    let log = proxy.stderr();
    assert!(log.lines().count() <= 10, "{log}");
    for said in [
        env!("CARGO_PKG_VERSION"),
        "io_uring",
        "config: ",
        &format!("web {}", proxy.web()),
        "shards on cpu",
        &format!("http://{}/", proxy.admin()),
        "ready in ",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

/// Goal: the service manager is told. Method: a socket of our own in its place: READY, RELOADING and READY
/// on HUP, STOPPING on TERM.
#[test]
fn service_manager_is_told() {
    let folder = Folder::new("notify");
    let socket = UnixDatagram::bind(folder.file("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut message = [0; 512];
        let len = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let wait_for = |what: &str| while !told().contains(what) {};
    let mut command = run(&folder, QUIET);
    command.env("NOTIFY_SOCKET", folder.file("notify"));
    let mut running = Running::start(folder, &mut command);
    wait_for("READY=1");
    running
        .folder
        .write("config.yaml", &format!("{QUIET}drain_timeout: 1s\n"));
    running.signal(Signal::SIGHUP);
    wait_for("RELOADING=1");
    wait_for("READY=1");
    running.signal(Signal::SIGTERM);
    wait_for("STOPPING=1");
    assert_eq!(running.wait(), 0);
}

/// Goal: a second INT ends at once, whatever is in flight, with 0. Method: a request that is never
/// answered, a long drain, two signals.
#[test]
fn second_interrupt_ends_now() {
    let (never, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::start(move |peer| {
        peer.next_request()?;
        let _ = gate.lock().unwrap().recv();
        Ok(())
    });
    let mut proxy = Proxy::start(format!(
        "drain_timeout: 1h\n{}",
        proxy::web("{ to: app }", &[("app", &origin)])
    ));
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    origin.wait_for_requests(1);
    proxy.signal(Signal::SIGINT);
    eventually("the drain", || {
        proxy.stderr().contains("draining").then_some(())
    });
    assert!(proxy.is_running());
    proxy.signal(Signal::SIGINT);
    assert_eq!(proxy.wait().code(), Some(0));
    drop(never);
}

/// Goal: USR1 opens the access log anew. Method: rotate it away; the next line is in a new file.
#[test]
fn usr1_reopens_the_access_log() {
    let folder = Folder::new("rotate");
    let log = folder.file("access.log");
    let config = format!(
        "{QUIET}access_log: {{ path: \"{}\", format: short }}\n\
         listeners: {{ a: {{ bind: 127.0.0.1:0, routes: [ {{ respond: {{ status: 204 }} }} ] }} }}\n",
        log.display()
    );
    let mut command = run(&folder, &config);
    let mut running = Running::start(folder, &mut command);
    let web = address(&running.announced()["listeners"]["a"]);
    let line = |path: &Path, target: &str| {
        eventually(&format!("{target} in the log"), || {
            fs::read_to_string(path)
                .ok()?
                .contains(target)
                .then_some(())
        });
    };
    Client::connect(web).get("/before");
    line(&log, "/before");
    let rotated = running.folder.file("access.log.1");
    fs::rename(&log, &rotated).unwrap();
    running.signal(Signal::SIGUSR1);
    eventually("a new file", || log.exists().then_some(()));
    Client::connect(web).get("/after");
    line(&log, "/after");
    assert!(!fs::read_to_string(&rotated).unwrap().contains("/after"));
}

/// Goal: QUIT writes the state into the log and changes nothing. Method: signal, read, ask again.
#[test]
fn quit_signal_dumps_the_state() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    proxy.signal(Signal::SIGQUIT);
    let dump = eventually("the dump", || {
        let log = proxy.stderr();
        let line = log.lines().find_map(|line| line.split_once("state: "))?.1;
        serde_json::from_str::<Value>(line).ok()
    });
    assert_eq!(dump["server"]["state"], "ready");
    assert_eq!(dump["clusters"][0]["name"], "app");
    assert_eq!(proxy.client().get("/").status, 200);
}

/// Goal: a reload opens and closes listeners, and one whose address is taken is refused as a whole.
/// Method: two listeners become one; then a new one on a taken port.
#[test]
fn reload_changes_listeners() {
    let folder = Folder::new("listeners");
    let listener = |bind: &str, status: u16| {
        format!("{{ bind: \"{bind}\", routes: [ {{ respond: {{ status: {status} }} }} ] }}")
    };
    let (a, b) = (listener("127.0.0.1:0", 201), listener("127.0.0.2:0", 202));
    let mut command = run(
        &folder,
        &format!("{QUIET}listeners: {{ a: {a}, b: {b} }}\n"),
    );
    let mut running = Running::start(folder, &mut command);
    let announced = running.announced();
    let [at_a, at_b] = ["a", "b"].map(|name| address(&announced["listeners"][name]));
    assert_eq!(Client::connect(at_a).get("/").status, 201);
    assert_eq!(Client::connect(at_b).get("/").status, 202);

    let reload = |running: &Running, listeners: &str| {
        let text = format!("{QUIET}listeners: {{ {listeners} }}\n");
        running.folder.write("config.yaml", &text);
        running.signal(Signal::SIGHUP);
    };
    let a = listener("127.0.0.1:0", 203);
    reload(&running, &format!("a: {a}"));
    eventually("b is closed", || TcpStream::connect(at_b).err().map(drop));
    assert_eq!(
        Client::connect(at_a).get("/").status,
        203,
        "on the same port"
    );

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let c = listener(&taken.local_addr().unwrap().to_string(), 204);
    let a = listener("127.0.0.1:0", 204);
    reload(&running, &format!("a: {a}, c: {c}"));
    eventually("a refusal in the log", || {
        running.stderr().contains("is in use").then_some(())
    });
    assert_eq!(
        Client::connect(at_a).get("/").status,
        203,
        "nothing changed"
    );
}

/// Goal: `proxy` serves without a file, also in front of a name (DNS). Method: an origin by address and as
/// `localhost`.
#[test]
fn proxy_serves_without_a_file() {
    let origin = Origin::named("here");
    let by_name = format!("localhost:{}", origin.address.port());
    for (name, to) in [("by-ip", origin.to_string()), ("by-name", by_name)] {
        let folder = Folder::new(name);
        let mut command = tidegate(&[
            "proxy",
            "--from",
            "127.0.0.1:0",
            "--admin",
            "off",
            "--to",
            &to,
        ]);
        command.arg("--announce").arg(folder.file("announce"));
        let mut running = Running::start(folder, &mut command);
        let front = address(&running.announced()["listeners"]["front"]);
        assert_eq!(Client::connect(front).get("/").text(), "here");
        running.signal(Signal::SIGTERM);
        assert_eq!(running.wait(), 0);
    }
}

/// Goal: `proxy --tcp` relays bytes that are no HTTP. Method: an origin that sends back what it gets.
#[test]
fn proxy_relays_bytes() {
    let origin = Origin::start(|peer| {
        let line = peer.wire.until(b"\n")?;
        peer.wire.send(line)
    });
    let folder = Folder::new("tcp");
    let to = origin.to_string();
    let args = [
        "proxy",
        "--tcp",
        "--from",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--to",
        &to,
    ];
    let mut command = tidegate(&args);
    command.arg("--announce").arg(folder.file("announce"));
    let mut running = Running::start(folder, &mut command);
    let front = address(&running.announced()["listeners"]["front"]);
    let mut client = Client::connect(front);
    client.send("\x00 not http\n").unwrap();
    assert_eq!(client.until(b"\n").unwrap(), b"\x00 not http\n");
}

/// Goal: the demonstration tells its story and ends by itself, and on Ctrl-C, with 0; it is not upgraded. Method: a
/// short one, and one that is asked to upgrade, and interrupted.
#[test]
fn demonstration_ends_in_order() {
    let mut command = tidegate(&["demo", "--time", "3s", "--rate", "100"]);
    let mut running = Running::start(Folder::new("demo"), &mut command);
    assert_eq!(running.wait(), 0);
    let story = running.stdout();
    for told in [
        "gateway",
        "dashboard",
        "goes down",
        "is up again",
        "answers",
        "added",
    ] {
        assert!(story.contains(told), "{told}: {story}");
    }

    let mut command = tidegate(&["demo", "--time", "10m"]);
    let mut running = Running::start(Folder::new("demo-interrupted"), &mut command);
    eventually("the beginning", || {
        running.stdout().contains("load").then_some(())
    });
    running.signal(Signal::SIGUSR2);
    eventually("the refusal of an upgrade", || {
        let log = running.stderr();
        log.contains("the demonstration is not upgraded")
            .then_some(())
    });
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait(), 0);
}
