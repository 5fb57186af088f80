//! A running `tidegate center` in a folder of its own, and a proxy's client of it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tidegate_core::healing::{
    ejection::Cause,
    report::{Body, Finding, Node, OutboxLimits, Subject},
};
use tidegate_xds::healing::client::{Client, Order, Settings, Status, Times};
use tokio::sync::watch;

use super::{Client as Web, Response, eventually};

/// A folder of one test, gone when the test is over.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("center-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running center, killed when dropped.
pub struct Center {
    child: Child,
    log: PathBuf,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

impl Center {
    /// Starts one that listens on `listen`, port 0 for any.
    #[track_caller]
    pub fn start(folder: &Folder, name: &str, listen: SocketAddr, arguments: &[&str]) -> Center {
        let announce = folder.file(&format!("{name}.json"));
        let log = folder.file(&format!("{name}.log"));
        let _ = fs::remove_file(&announce);
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["center", "--admin", "127.0.0.1:0", "--listen"])
            .arg(listen.to_string())
            .arg("--announce")
            .arg(&announce)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut center = Center {
            child,
            log,
            listen,
            admin: listen,
        };
        let announced = eventually("the announcement of a center", || {
            if let Some(status) = center.child.try_wait().unwrap() {
                panic!("the center ended with {status}:\n{}", center.log());
            }
            serde_json::from_slice::<Value>(&fs::read(&announce).ok()?).ok()
        });
        let address = |key: &str| announced[key].as_str().unwrap().parse().unwrap();
        (center.listen, center.admin) = (address("listen"), address("admin"));
        center
    }

    /// One that listens anywhere.
    #[track_caller]
    pub fn anywhere(folder: &Folder, arguments: &[&str]) -> Center {
        Self::start(folder, "center", "127.0.0.1:0".parse().unwrap(), arguments)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// As a machine that loses its power.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the end of the center", || self.child.try_wait().unwrap())
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.ask("GET", target, "")
    }

    /// `fields` are more header lines, each with its line end.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, fields: &str) -> Response {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n{fields}\
             Connection: close\r\n\r\n",
            self.admin
        );
        Web::connect(self.admin).exchange(request)
    }

    #[track_caller]
    pub fn json(&self, target: &str) -> Value {
        let text = self.get(target).text();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{target}: {e}: {text}"))
    }

    /// The numbers of endpoints' ports in the events of kind `what` from `node`, in order.
    #[track_caller]
    pub fn ports(&self, what: &str, node: &str) -> Vec<u16> {
        let events = self.json("/events?after=0&limit=1000");
        let events = events.as_array().unwrap().iter();
        let ours = events.filter(|event| event["what"] == what && event["node"] == node);
        ours.map(|event| {
            let endpoint: SocketAddr = event["endpoint"].as_str().unwrap().parse().unwrap();
            endpoint.port()
        })
        .collect()
    }

    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
            .parse()
            .unwrap()
    }
}

impl Drop for Center {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- the center's log\n{}----", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy's client of the center, on a thread of its own. It ends when it is dropped.
pub struct Reporter {
    pub reports: flume::Sender<Body>,
    pub orders: flume::Receiver<Order>,
    pub status: watch::Receiver<Status>,
}

impl Reporter {
    pub fn start(settings: Settings) -> Reporter {
        let (reports, taken) = flume::unbounded();
        let (given, orders) = flume::bounded(64);
        let (status_tx, status_rx) = flume::bounded(1);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let (client, status) = Client::new(settings, taken, given).unwrap();
                status_tx.send(status).unwrap();
                client.run().await;
            });
        });
        Reporter {
            reports,
            orders,
            status: status_rx.recv().unwrap(),
        }
    }

    pub fn report(&self, body: Body) {
        self.reports.send(body).unwrap();
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until all `count` reports of its life are acknowledged.
    #[track_caller]
    pub fn wait_acknowledged(&self, count: u64) {
        eventually(
            &format!("{count} acknowledgements; {:?}", self.status()),
            || {
                let status = self.status();
                (status.counts.acknowledged >= count && status.waiting == 0).then_some(())
            },
        );
    }

    #[track_caller]
    pub fn wait_connected(&self) {
        eventually("a stream to a center", || self.status().center);
    }
}

/// A client whose times suit a test, for `centers`.
pub fn settings(node: Node, centers: &[&Center]) -> Settings {
    Settings {
        centers: centers
            .iter()
            .map(|center| center.listen.to_string().into())
            .collect(),
        node,
        token: None,
        lifecycle: None,
        outbox: OutboxLimits::default(),
        times: Times {
            answer: Duration::from_secs(1),
            keep_alive: Duration::from_millis(100),
            silence: Duration::from_secs(1),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(200),
        },
    }
}

/// The node `id`, that fronts `pay` at `ports` and calls `pay` if it fronts nothing.
pub fn node(id: &str, ports: &[u16]) -> Node {
    let calls = if ports.is_empty() {
        vec!["pay".into()]
    } else {
        vec![]
    };
    Node {
        id: id.into(),
        incarnation: 1,
        application: if ports.is_empty() {
            "shop".into()
        } else {
            "pay".into()
        },
        fronts: ports.iter().map(|port| endpoint(*port)).collect(),
        zone: "hz-a".into(),
        calls,
    }
}

pub fn endpoint(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

pub fn subject(port: u16) -> Subject {
    Subject {
        cluster: "pay".into(),
        service: "pay".into(),
        endpoint: endpoint(port),
        unit: "".into(),
    }
}

/// An ejection of the endpoint with this port, of a hundred.
pub fn ejected(port: u16) -> Body {
    Body::Ejected {
        subject: subject(port),
        finding: Finding {
            reason: Cause::Run,
            window: Duration::from_secs(1),
            calls: 20,
            errors: vec![("connect_refused".into(), 5)],
            local_rate: 1.0,
            peer_rate: 0.01,
            group: 100,
        },
        enforced: true,
        times: 1,
        cool_down: Duration::from_secs(1),
    }
}
