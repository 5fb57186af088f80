//! A peer's process: found, started on its core, waited for, and stopped whatever happens.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::{
    Peer,
    certificate::TlsClient,
    install,
    render::{Rendered, Setting},
};
use crate::{
    clock::Nanos,
    cpu::{self, Cpu, Placement},
    error::Error,
    http2,
    load::Exchange,
    response::{Progress, ResponseReader},
    run::Interrupt,
    scenario::{HttpVersion, SignalName},
    stream::Stream,
};

/// A peer must answer within this; Envoy with a thousand routes needs about a second.
const READY_TIME_MAX: Duration = Duration::from_secs(15);
/// A peer that was asked to stop is killed after this.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// Between two looks at something that takes milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How much of a peer's output goes into an error.
const OUTPUT_BYTES_MAX: usize = 2_000;

/// Where to find a peer's program, and where to put its files.
#[derive(Clone, Debug)]
pub struct Workplace {
    /// Directory for the peers' working directories; removed with what is in it at the end.
    pub dir: PathBuf,
    /// The lab's own directory.
    pub lab_dir: PathBuf,
}

impl Workplace {
    /// A fresh directory under the system's temporary one.
    pub fn create() -> Result<Workplace, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-lab-{}-{count}", std::process::id());
        let dir = env::temp_dir().join(name);
        fs::create_dir(&dir).map_err(Error::io(format!("creating {}", dir.display())))?;
        Ok(Workplace {
            dir,
            lab_dir: install::lab_dir()?,
        })
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary directory and harms no one.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Peer {
    /// The path of its program: as told, in its search directories, or on `PATH`; but another version of a
    /// peer would find that one there, and be measured under the wrong name.
    pub fn program(&self, told: Option<&Path>, search: &[String]) -> Result<PathBuf, Error> {
        let program = self.manifest.program.clone().unwrap_or_default();
        let missing = |program: String| Error::Missing {
            peer: self.name.clone(),
            program,
            install: self.manifest.install.command(&self.name),
        };
        if let Some(told) = told {
            return match is_executable(told) {
                true => Ok(told.to_owned()),
                false => Err(Error::Host(format!(
                    "{} is no program that can be started: is the path right, and is it built?",
                    told.display()
                ))),
            };
        }
        let path = match self.manifest.files_of {
            Some(_) => None,
            None => env::var_os("PATH"),
        };
        search
            .iter()
            .flat_map(|directory| matching(Path::new(directory)))
            .chain(path.iter().flat_map(env::split_paths))
            .map(|directory| directory.join(&program))
            .find(|candidate| is_executable(candidate))
            .ok_or_else(|| missing(program))
    }

    /// The first line of what it says about its version.
    pub fn version(&self, program: &Path) -> String {
        let Ok(output) = Command::new(program).args(&self.manifest.version).output() else {
            return "unknown".to_owned();
        };
        // nginx says it on its error output.
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text)
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("unknown")
            .to_owned()
    }
}

/// The directories that a path means in which one component may be `*`, as in
/// `lib/python3.11/site-packages` by any version.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        found = match component.as_os_str() == "*" {
            false => found.iter().map(|path| path.join(component)).collect(),
            true => found
                .iter()
                .filter_map(|path| fs::read_dir(path).ok())
                .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
                .collect(),
        };
    }
    found
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A peer that was started. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    peer: String,
    /// `None` is the direct connection.
    child: Option<Child>,
    output: PathBuf,
    dir: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Running {
    /// No proxy: the origin's address is the peer's.
    pub fn direct(peer: &Peer, origin: SocketAddr) -> Running {
        Running {
            peer: peer.name.clone(),
            child: None,
            output: PathBuf::new(),
            dir: PathBuf::new(),
            address: origin,
        }
    }

    /// Starts a peer on the proxy's core. The calling thread is back on the load's core after it.
    pub fn start(
        peer: &Peer,
        program: &Path,
        rendered: &Rendered,
        setting: &Setting<'_>,
        placement: Placement,
    ) -> Result<Running, Error> {
        let dir = setting.dir;
        fs::create_dir_all(dir).map_err(Error::io(format!("creating {}", dir.display())))?;
        for (file, text) in &rendered.files {
            let path = dir.join(file);
            fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))?;
        }
        if let Some(certificates) = setting.certificates {
            certificates
                .write(dir)
                .map_err(Error::io(format!("writing into {}", dir.display())))?;
        }
        let output = dir.join("output");
        let create = Error::io(format!("creating {}", output.display()));
        let file = File::create(&output).map_err(create)?;
        let also = file
            .try_clone()
            .map_err(Error::io("duplicating a descriptor"))?;
        let mut command = Command::new(program);
        command
            .args(&rendered.start)
            .envs(&rendered.environment)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(also)
            // A group of its own, so that workers that outlive their master are found.
            .process_group(0);
        let child = spawn_on(placement.proxy, placement.load, &mut command)?
            .map_err(Error::io(format!("starting {}", program.display())))?;
        Ok(Running {
            peer: peer.name.clone(),
            child: Some(child),
            output,
            dir: dir.to_owned(),
            address: setting.listen,
        })
    }

    /// The root of its process tree; `None` for the direct connection.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends a signal to its first process.
    pub fn signal(&self, signal: SignalName) -> Result<(), Error> {
        let Some(child) = &self.child else {
            return Err(self.error("there is no process to send a signal to"));
        };
        let signal = match signal {
            SignalName::Hup => Signal::SIGHUP,
            SignalName::Usr1 => Signal::SIGUSR1,
            SignalName::Usr2 => Signal::SIGUSR2,
        };
        kill(Pid::from_raw(child.id().cast_signed()), signal)
            .map_err(|errno| self.error(&format!("{signal}: {errno}")))
    }

    /// Replaces its files, each in one step: whoever reads one sees the old or the new.
    pub fn replace_files(&self, rendered: &Rendered) -> Result<(), Error> {
        for (file, text) in &rendered.files {
            let (path, fresh) = (self.dir.join(file), self.dir.join(format!("{file}.new")));
            fs::write(&fresh, text)
                .and_then(|()| fs::rename(&fresh, &path))
                .map_err(Error::io(format!("replacing {}", path.display())))?;
        }
        Ok(())
    }

    /// Waits until it answers one exchange rightly.
    pub fn wait_ready(&mut self, probe: Probe<'_>, interrupt: &Interrupt) -> Result<(), Error> {
        let deadline = Instant::now() + READY_TIME_MAX;
        loop {
            let problem = match probe.ask(self.address) {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            self.check_alive()?;
            if Instant::now() > deadline {
                return Err(self.error(&format!(
                    "did not answer within {} s: {problem}",
                    READY_TIME_MAX.as_secs()
                )));
            }
            interrupt.sleep(POLL_INTERVAL)?;
        }
    }

    /// An error if it has ended.
    pub fn check_alive(&mut self) -> Result<(), Error> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait().map_err(Error::io("waiting for a peer"))?,
            None => None,
        };
        match ended {
            Some(status) => Err(self.error(&format!("ended by itself ({status})"))),
            None => Ok(()),
        }
    }

    /// An error of this peer, with the end of its output.
    pub fn error(&self, problem: &str) -> Error {
        let output = fs::read(&self.output).unwrap_or_default();
        let from = output.len().saturating_sub(OUTPUT_BYTES_MAX);
        let tail = String::from_utf8_lossy(output.get(from..).unwrap_or_default());
        let problem = match tail.trim() {
            "" => problem.to_owned(),
            tail => format!("{problem}; its output ends with:\n{tail}"),
        };
        Error::Peer {
            peer: self.peer.clone(),
            problem,
        }
    }

    fn stop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        let group = Pid::from_raw(child.id().cast_signed());
        // Each step may find that it has ended already, which is what is wanted.
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_TIME_MAX;
        while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(POLL_INTERVAL);
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a process from a thread that is on `cpu` at that moment: the affinity is inherited.
fn spawn_on(cpu: Cpu, back: Cpu, command: &mut Command) -> Result<std::io::Result<Child>, Error> {
    cpu::pin_this_thread(cpu)?;
    let child = command.spawn();
    cpu::pin_this_thread(back)?;
    Ok(child)
}

/// A loopback address that nobody listens on. It may be taken before the peer binds it; then the
/// peer's error says so.
pub fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map_err(Error::io("looking for a free port"))
}

/// One exchange over a connection of its own, to see whether somebody answers.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// The exchange; an echo is a short one.
    pub exchange: &'a Exchange,
    /// By which HTTP.
    pub http: HttpVersion,
    /// How to speak TLS; `None` is plain.
    pub tls: Option<&'a TlsClient>,
}

impl<'a> Probe<'a> {
    /// HTTP/1.1 in plain text.
    pub fn plain(exchange: &'a Exchange) -> Probe<'a> {
        Probe {
            exchange,
            http: HttpVersion::Http1,
            tls: None,
        }
    }

    /// Asks once.
    pub fn ask(self, address: SocketAddr) -> Result<(), String> {
        let timeout = Duration::from_secs(2);
        let text = |error: io::Error| error.to_string();
        let socket = TcpStream::connect_timeout(&address, timeout).map_err(text)?;
        socket.set_read_timeout(Some(timeout)).map_err(text)?;
        let socket = Stream::client(socket, self.tls).map_err(text)?;
        let Exchange::Http { host, path, .. } = self.exchange else {
            return ask_echo(socket).map_err(text);
        };
        let status = match self.http {
            HttpVersion::Http1 => ask_http1(socket, host, path)?,
            HttpVersion::Http2 => ask_http2(socket, host, path)?,
        };
        match status {
            200..=299 => Ok(()),
            status => Err(format!("status {status}")),
        }
    }
}

const PROBE_READ_BYTES: usize = 64 << 10;

fn ask_echo(mut socket: Stream) -> io::Result<()> {
    let mut back = [0; 4];
    socket.write_all(b"ping")?;
    socket.read_exact(&mut back)?;
    match &back {
        b"ping" => Ok(()),
        _ => Err(io::Error::other("the echo is not what was sent")),
    }
}

fn ask_http1(mut socket: Stream, host: &str, path: &str) -> Result<u16, String> {
    let text = |error: io::Error| error.to_string();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(text)?;
    let mut reader = ResponseReader::default();
    let mut buffer = vec![0; PROBE_READ_BYTES];
    loop {
        let count = socket.read(&mut buffer).map_err(text)?;
        let response = match count {
            0 => reader.end().map_err(|problem| problem.to_string())?,
            _ => match reader.feed(buffer.get(..count).unwrap_or_default()) {
                Ok(Progress::More) => continue,
                Ok(Progress::Done { response, .. }) => Some(response),
                Err(problem) => return Err(problem.to_string()),
            },
        };
        let closed = || "the connection was closed".to_owned();
        return response.map(|response| response.status).ok_or_else(closed);
    }
}

fn ask_http2(mut socket: Stream, host: &str, path: &str) -> Result<u16, String> {
    let text = |error: io::Error| error.to_string();
    let request = http2::Request {
        scheme: match socket {
            Stream::Plain(_) => "http",
            Stream::Client(_) | Stream::Server(_) => "https",
        },
        authority: host.to_owned(),
        path: path.to_owned(),
    };
    // The codec measures time-outs, of which the socket has one already.
    let now = Nanos::ZERO;
    let mut client = http2::Client::new(1, now);
    let sent = client.send(&request, ());
    sent.map_err(|error| error.to_string())?;
    let (mut output, mut answers) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; PROBE_READ_BYTES];
    loop {
        client.take_output(&mut output);
        socket.write_all(&output).map_err(text)?;
        socket.flush().map_err(text)?;
        output.clear();
        let count = socket.read(&mut buffer).map_err(text)?;
        if count == 0 {
            return Err("the connection was closed".to_owned());
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        client.feed(bytes, now, &mut answers)?;
        match answers.pop() {
            None => {}
            Some(http2::Answer::Response { status, .. }) => return Ok(status),
            Some(http2::Answer::Lost { problem, .. } | http2::Answer::GoingAway(problem)) => {
                return Err(problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A program that is nowhere is reported with its name and how to install it.
    #[test]
    fn a_missing_program_is_named() {
        let mut peer = Peer::all(None).unwrap().remove("haproxy").unwrap();
        peer.manifest.program = Some("no-such-proxy".to_owned());
        let error = peer.program(None, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        let text = error.to_string();
        for needle in ["haproxy", "no-such-proxy", "peers install haproxy"] {
            assert!(text.contains(needle), "{text}");
        }
        let told = Path::new("/nonexistent/haproxy");
        let text = peer.program(Some(told), &[]).unwrap_err().to_string();
        assert!(text.contains("/nonexistent/haproxy"), "{text}");
    }

    /// Another version of a peer is not the one on `PATH`.
    #[test]
    fn another_version_is_not_on_the_path() {
        let mut peers = Peer::all(None).unwrap();
        for (name, is_found) in [("haproxy", true), ("haproxy28", false)] {
            let mut peer = peers.remove(name).unwrap();
            peer.manifest.program = Some("sh".to_owned());
            assert_eq!(peer.program(None, &[]).is_ok(), is_found, "{name}");
        }
    }

    /// A peer that ends at once is reported with its output, and its directory disappears.
    #[test]
    fn a_peer_that_ends_is_reported() {
        let cpu = cpu::allowed().unwrap().first().copied().unwrap();
        let placement = Placement {
            proxy: cpu,
            load: cpu,
        };
        let peer = Peer::all(None).unwrap().remove("haproxy").unwrap();
        let work = Workplace::create().unwrap();
        let address = free_address().unwrap();
        let (upstreams, dir) = ([address], work.dir.join("x"));
        let setting = Setting::plain(address, &upstreams, cpu, 100, &dir);
        let rendered = Rendered {
            files: Default::default(),
            environment: Default::default(),
            start: vec!["-c".to_owned(), "echo wrong key; exit 3".to_owned()],
        };
        let shell = Path::new("/bin/sh");
        let mut running = Running::start(&peer, shell, &rendered, &setting, placement).unwrap();
        let echo = Exchange::Echo { bytes: 4 };
        let error = running
            .wait_ready(Probe::plain(&echo), &Interrupt::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("wrong key") && error.contains('3'),
            "{error}"
        );
        let dir = work.dir.clone();
        drop((running, work));
        assert!(!dir.exists());
    }
}
