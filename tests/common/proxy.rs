//! A running `tidegate`, in a folder of its own, killed when dropped.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{Client, Origin, Response, eventually, small_ring};

/// A running proxy.
pub struct Proxy {
    child: Child,
    /// Processes that took over from the first one, in order.
    heirs: Vec<Pid>,
    folder: PathBuf,
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
    setup: Setup,
}

/// How the process is started, apart from its configuration.
#[derive(Clone, Default)]
pub struct Setup {
    /// Shards; one unless said otherwise, so that what a connection did can be seen by the next.
    pub shards: Option<usize>,
    /// The limit of open files.
    pub open_files: Option<u64>,
    /// The smallest ring, whatever the run has.
    pub small_ring: bool,
    /// No access log: a long load would fill the disk with it.
    pub unlogged: bool,
    /// Another program in the place of the one that was built.
    pub program: Option<PathBuf>,
    /// More arguments of `tidegate run`.
    pub arguments: Vec<String>,
    /// More environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Proxy {
    /// Starts with `config`: the listeners and clusters, and whatever else, as YAML. Admin, shards and
    /// access log are added here.
    #[track_caller]
    pub fn start(config: impl fmt::Display) -> Proxy {
        Self::start_with(&Setup::default(), config)
    }

    /// One HTTP listener, `web`, that sends everything to `origin`.
    #[track_caller]
    pub fn before(origin: &Origin) -> Proxy {
        Self::start(web("{ to: app }", &[("app", origin)]))
    }

    #[track_caller]
    pub fn start_with(setup: &Setup, config: impl fmt::Display) -> Proxy {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("proxy-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.yaml");
        fs::write(&file, whole(setup, &folder, &config)).unwrap();
        let announce = folder.join("announce.json");
        let child = command(setup)
            .args(["run", "-c"])
            .arg(&file)
            .arg("--announce")
            .arg(&announce)
            .args(&setup.arguments)
            .envs(setup.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.join("stdout")).unwrap())
            .stderr(fs::File::create(folder.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut proxy = Proxy {
            child,
            heirs: Vec::new(),
            folder,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            listeners: BTreeMap::new(),
            setup: setup.clone(),
        };
        let announced = eventually("the announcement of a ready proxy", || {
            if let Some(status) = proxy.child.try_wait().unwrap() {
                panic!("tidegate ended with {status}:\n{}", proxy.stderr());
            }
            serde_json::from_slice::<Value>(&fs::read(&announce).ok()?).ok()
        });
        let address = |value: &Value| value.as_str().unwrap().parse::<SocketAddr>().unwrap();
        proxy.admin = address(&announced["admin"]);
        proxy.listeners = announced["listeners"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), address(value)))
            .collect();
        proxy
    }

    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.listeners[name]
    }

    /// The listener `web`.
    pub fn web(&self) -> SocketAddr {
        self.listener("web")
    }

    /// A client of the listener `web`.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.web())
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    #[track_caller]
    pub fn admin_get(&self, target: &str) -> Response {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        Client::connect(self.admin).exchange(request)
    }

    #[track_caller]
    pub fn admin_post(&self, target: &str) -> Response {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        Client::connect(self.admin).exchange(request)
    }

    /// A metric summed over its series, from the exposition text.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.admin_get("/stats/prometheus").text();
        let values: Vec<f64> = text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '{']))
            })
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(!values.is_empty(), "no metric {name} in:\n{text}");
        values.iter().sum()
    }

    /// Waits until a metric has a value that `is_right` likes. Counters are read at each tick.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, is_right: impl Fn(f64) -> bool) {
        let mut last = f64::NAN;
        let start = std::time::Instant::now();
        while start.elapsed() < super::PATIENCE {
            last = self.metric(name);
            if is_right(last) {
                return;
            }
            super::pause(20);
        }
        panic!("{name} stays {last}");
    }

    /// The lines of the access log, once there are at least `n`.
    #[track_caller]
    pub fn access_log(&self, n: usize) -> Vec<Value> {
        eventually(&format!("{n} lines in the access log"), || {
            let text = fs::read_to_string(self.folder.join("access.log")).ok()?;
            let lines: Vec<Value> = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            (lines.len() >= n).then_some(lines)
        })
    }

    /// Replaces the configuration and waits until the shards use it.
    #[track_caller]
    pub fn reload(&self, config: impl fmt::Display) {
        let before = self.epoch();
        self.write_config(config);
        self.signal(Signal::SIGHUP);
        eventually("the new configuration on every shard", || {
            (self.epoch() > before).then_some(())
        });
    }

    /// Replaces the file without telling the process.
    pub fn write_config(&self, config: impl fmt::Display) {
        let new = self.folder.join("config.yaml.new");
        fs::write(&new, whole(&self.setup, &self.folder, &config)).unwrap();
        fs::rename(new, self.folder.join("config.yaml")).unwrap();
    }

    /// The lowest epoch that a shard uses.
    #[track_caller]
    pub fn epoch(&self) -> u64 {
        let text = self.admin_get("/stats/prometheus").text();
        text.lines()
            .filter(|line| line.starts_with("tidegate_shard_epoch"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .map(|epoch| epoch as u64)
            .min()
            .unwrap_or_else(|| panic!("no epoch in:\n{text}"))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The process that serves now: the first one, or the one that took over last.
    pub fn newest(&self) -> Pid {
        self.heirs.last().copied().unwrap_or(self.pid())
    }

    /// Waits until another process has taken over from the newest.
    #[track_caller]
    pub fn wait_for_heir(&mut self) -> Pid {
        let newest = self.newest();
        let heir = eventually("a process that takes over", || {
            announced_pid(&self.folder).filter(|pid| *pid != newest)
        });
        self.heirs.push(heir);
        heir
    }

    /// Upgrades by signal, and waits until that is done.
    #[track_caller]
    pub fn upgrade(&mut self) -> Pid {
        kill(self.newest(), Signal::SIGUSR2).unwrap();
        self.wait_for_heir()
    }

    /// Shards of the next configuration that is written.
    pub fn set_shards(&mut self, shards: usize) {
        self.setup.shards = Some(shards);
    }

    /// Where its files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
    }

    /// How many files the process has open.
    pub fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(path).unwrap().count()
    }

    /// Memory in use, in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.memory_kib("VmRSS")
    }

    /// A line of `/proc/PID/status` that tells of memory, in KiB, as `VmRSS` or `RssAnon`.
    pub fn memory_kib(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let of_name = |l: &&str| l.split_once(':').is_some_and(|(name, _)| name == line);
        let line = status.lines().find(of_name).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- tidegate's log\n{}----", self.stderr());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let unknown = announced_pid(&self.folder).filter(|pid| *pid != self.pid());
        for heir in self.heirs.iter().copied().chain(unknown) {
            // Its number may be somebody else's by now.
            if is_of(heir, &self.folder) {
                let _ = kill(heir, Signal::SIGKILL);
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn announced_pid(folder: &Path) -> Option<Pid> {
    let announced = fs::read(folder.join("announce.json")).ok()?;
    let announced = serde_json::from_slice::<Value>(&announced).ok()?;
    Some(Pid::from_raw(announced["pid"].as_i64()? as i32))
}

/// Whether a process was started with files of this folder.
fn is_of(pid: Pid, folder: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&arguments).contains(&*folder.to_string_lossy())
}

/// The YAML of one HTTP listener `web` with `routes` (flow maps, one or several separated by commas) and
/// clusters of one origin each.
pub fn web(routes: &str, clusters: &[(&str, &Origin)]) -> String {
    web_with("", routes, clusters)
}

/// The same with more keys of the listener, each on a line of four blanks.
pub fn web_with(listener: &str, routes: &str, clusters: &[(&str, &Origin)]) -> String {
    let clusters: String = clusters
        .iter()
        .map(|(name, origin)| format!("  {name}: {{ endpoints: {{ static: [\"{origin}\"] }} }}\n"))
        .collect();
    format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n{listener}    routes: [{routes}]\n\
         clusters:\n{clusters}"
    )
}

fn whole(setup: &Setup, folder: &Path, config: &dyn fmt::Display) -> String {
    let ring = if setup.small_ring || small_ring() {
        ", ring: { submission_entries: 8, completion_entries: 8, head_buffers: 4, body_buffers: 4 }"
    } else {
        ""
    };
    let shards = setup.shards.unwrap_or(1);
    let log = if setup.unlogged {
        String::new()
    } else {
        let path = folder.join("access.log");
        format!(
            "access_log: {{ path: \"{}\", format: json }}\n",
            path.display()
        )
    };
    format!("version: 1\nadmin: 127.0.0.1:0\nshards: {{ count: {shards} {ring} }}\n{log}{config}")
}

fn command(setup: &Setup) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let binary = setup.program.as_deref().unwrap_or(built);
    match setup.open_files {
        None => Command::new(binary),
        Some(files) => {
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={files}:{files}")).arg(binary);
            command
        }
    }
}
