//! The origin, and the proxies under attack: each with one worker, plaintext with prior knowledge, and its own
//! defaults.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{
    Proxy,
    peer::{self, Server},
    proxy,
};

/// nginx with the answers that the attacks ask for. One that takes connections slowly would have clients wait
/// for new ones, whatever the proxy does.
pub(crate) fn origin() -> Server {
    nginx(|folder, address| {
        fs::write(folder.join("1000000"), [b'x'; 1_000_000]).unwrap();
        let answer = |path: &str, bytes: usize| {
            let body = "x".repeat(bytes);
            format!("location = /{path} {{ return 200 '{body}'; }}\n")
        };
        let answers = [
            answer("bytes/3", 3),
            answer("bytes/128", 128),
            answer("body", 1),
        ];
        format!(
            "server {{ listen {address} backlog=4096; keepalive_requests 1000000;\n{}\
             location = /bytes/1000000 {{ alias {}/1000000; }} }}\n",
            answers.concat(),
            folder.display()
        )
    })
}

/// nginx with this inside `http`.
fn nginx(http: impl FnOnce(&Path, SocketAddr) -> String) -> Server {
    let program = peer::program("nginx").expect("nginx, the origin, is not installed");
    Server::start(|folder, address| {
        let file = folder.join("nginx.conf");
        let user = match nix::unistd::geteuid().is_root() {
            true => "user root;",
            false => "",
        };
        let (root, http) = (folder.display(), http(folder, address));
        let config = format!(
            "daemon off; {user} worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {root}/t1; proxy_temp_path {root}/t2;\n\
             fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n{http} }}\n"
        );
        fs::write(&file, config).unwrap();
        let mut command = Command::new(&program);
        command.arg("-c").arg(&file);
        command
    })
}

/// A running proxy before the origin.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pid: i32,
    /// Kept to be ended.
    _process: Process,
}

#[allow(dead_code)] // Only dropped.
enum Process {
    Tidegate(Box<Proxy>),
    Other(Server),
}

impl Target {
    /// All that are installed, Tidegate first.
    pub(crate) fn start_all(origin: SocketAddr) -> Vec<Target> {
        let nginx = Some(nginx_before(origin));
        let others = [envoy(origin), nginx, haproxy(origin)];
        [tidegate(origin)]
            .into_iter()
            .chain(others.into_iter().flatten())
            .collect()
    }

    fn other(name: &'static str, server: Server) -> Target {
        Target {
            name,
            address: server.address,
            pid: server.pid(),
            _process: Process::Other(server),
        }
    }

    /// The process and those that it has started.
    fn pids(&self) -> Vec<i32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        [self.pid].into_iter().chain(children).collect()
    }

    /// Time of processors that it has used, in hundredths of a second.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let of = |pid: i32| -> Option<u64> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in brackets, may have spaces; user and system time are the 14th and 15th field.
            let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
            let user: u64 = fields.next()?.parse().ok()?;
            Some(user + fields.next()?.parse::<u64>().ok()?)
        };
        self.pids().into_iter().filter_map(of).sum()
    }

    /// Memory that it has in use.
    pub(crate) fn rss_kib(&self) -> u64 {
        let of = |pid: i32| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        self.pids().into_iter().filter_map(of).sum()
    }
}

fn tidegate(origin: SocketAddr) -> Target {
    let setup = proxy::Setup {
        unlogged: true,
        program: std::env::var_os("TIDEGATE_ATTACKED").map(PathBuf::from),
        ..Default::default()
    };
    let config = format!(
        "listeners: {{ web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }} }}\n\
         clusters: {{ app: {{ endpoints: {{ static: ['{origin}'] }} }} }}\n"
    );
    let proxy = Proxy::start_with(&setup, config);
    Target {
        name: "Tidegate",
        address: proxy.web(),
        pid: proxy.pid().as_raw(),
        _process: Process::Tidegate(Box::new(proxy)),
    }
}

fn envoy(origin: SocketAddr) -> Option<Target> {
    let program = peer::envoy()?;
    let server = peer::envoy_before(&program, origin, "null", "null");
    Some(Target::other("Envoy", server))
}

fn nginx_before(origin: SocketAddr) -> Target {
    let server = nginx(|_, address| {
        format!(
            "upstream app {{ server {origin}; keepalive 64; }}\n\
             server {{ listen {address} http2; location / {{ proxy_pass http://app;\n\
             proxy_http_version 1.1; proxy_set_header Connection ''; }} }}\n"
        )
    });
    Target::other("nginx", server)
}

fn haproxy(origin: SocketAddr) -> Option<Target> {
    let program = peer::program("haproxy")?;
    let server = Server::start(|folder, address| {
        let file = folder.join("haproxy.cfg");
        let config = format!(
            "global\n  nbthread 1\n  maxconn 4096\n\
             defaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  timeout connect 5s\n\
             frontend web\n  bind {address} proto h2\n  default_backend app\n\
             backend app\n  server app {origin}\n"
        );
        fs::write(&file, config).unwrap();
        let mut command = Command::new(&program);
        command.arg("-db").arg("-f").arg(&file);
        command
    });
    Some(Target::other("HAProxy", server))
}
