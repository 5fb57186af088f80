//! From a configuration to the first request: everything that happens once. Each step that the host can
//! refuse ends in a [`Failure`] with a remedy.

pub(crate) mod sockets;

use std::{
    fs, mem,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use serde_json::json;
use tidegate_core::config::model::Config;

use sockets::{Bound, Handles, Opened};

use crate::{
    access_log::AccessLog,
    admin,
    coordinator::{Coordinator, service_manager},
    exit::{Exit, Failure},
    fleet::{self, Fleet},
    key_log::KeyLogFile,
    logging::LogLevel,
    resolver,
    secrets::Secrets,
    signals::{self, Signals},
    source::{LoadError, Loaded, Source},
    status::{Request, SourceInfo, Status, count, unix_s},
    upgrade::{Ancestry, Inheritance, Outcome, Program, Takeover, from_memory},
    xds::{ControlPlane, Ground, Shown},
};

/// How long the start waits for DNS. What is not known then comes later.
const DNS_PATIENCE: Duration = Duration::from_secs(2);

/// Requests that may wait for the coordinator.
const REQUESTS: usize = 16;

/// What is served, and who is told when it is.
pub(crate) struct Service {
    /// Where the configuration comes from.
    pub(crate) source: Source,
    /// A file that is written once all addresses are known and served.
    pub(crate) announce: Option<PathBuf>,
    /// A file for the secrets of all TLS connections.
    pub(crate) unsafe_key_log: Option<PathBuf>,
    /// The level of the operational log.
    pub(crate) log: LogLevel,
    /// How to start this program again for a hot upgrade; `None` if there is to be none.
    pub(crate) program: Option<Program>,
}

/// What the rest of the process may do with a running service.
#[derive(Clone)]
pub(crate) struct Handle {
    /// What it is doing.
    pub(crate) status: Arc<Status>,
    /// What it should do.
    pub(crate) requests: flume::Sender<Request>,
}

impl Service {
    /// Serves until a signal or a command ends it. `ready` is called once, when requests are served.
    pub(crate) fn run(self, ready: impl FnOnce(Handle)) -> Result<(), Failure> {
        tracing::info!(
            "tidegate {} pid {}",
            env!("CARGO_PKG_VERSION"),
            std::process::id()
        );
        let (mut takeover, inherited) = Takeover::begin()?.unzip();
        let served = self.serve(&mut takeover, inherited.unwrap_or_default(), ready);
        if let (Some(takeover), Err(failure)) = (&takeover, &served) {
            takeover.refuse(&failure.problem);
        }
        served
    }

    /// The same. `takeover` is the line to the process that this one replaces; it is gone once this one serves.
    fn serve(
        self,
        takeover: &mut Option<Takeover>,
        mut inherited: Inheritance,
        ready: impl FnOnce(Handle),
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let unusable = |error| unusable(takeover.as_ref(), error);
        let loaded = self.source.load().map_err(unusable)?;
        let config = loaded.config.clone();
        let key_log = self.unsafe_key_log.as_deref();
        let key_log = key_log.map(KeyLogFile::open).transpose()?;
        let log = key_log.as_ref().map(|file| file.log().clone());
        let tickets = inherited.tickets.take();
        let mut secrets = Secrets::load(&self.source.name(), &loaded, log, tickets, unix_s())
            .map_err(unusable)?;
        let cpus = fit(&config)?;
        log_config(&self.source, &loaded);

        let status = Arc::new(Status::new(cpus.clone()));
        status.live_mut().key_log = key_log;
        show_ancestry(&status, takeover.as_ref(), &inherited);
        let resources = inherited.resources.take().map(from_memory).transpose()?;
        let (mut plane, mut shown) = ControlPlane::prepare(config.clone(), &secrets, resources)?;
        let (config, opened) = first(
            &mut plane,
            shown.as_mut(),
            &mut secrets,
            &mut inherited.sockets,
            cpus.len(),
        )?;
        let (request_tx, request_rx) = flume::bounded(REQUESTS);
        let handle = Handle {
            status: status.clone(),
            requests: request_tx,
        };
        let admin = start_admin(&config, inherited.admin.take(), &handle, &self.log)?;
        if let (Some(admin), None) = (&admin, &takeover) {
            admin.open();
        }

        let logging = config.access_log.as_ref();
        let logging = logging.map(|settings| AccessLog::start(settings, cpus.len()));
        let (access_log, producers) = logging.transpose()?.unzip();
        let producers = producers.unwrap_or_default();
        let ring = config.shards.ring;
        let fleet =
            signals::blocked(|| Fleet::start(&cpus, ring, status.counters.clone(), producers))?;

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Look-ups of names wait there; a slow name server must not hold up the other names.
            .max_blocking_threads(16)
            .build()?;
        runtime.block_on(async {
            // Before anybody is told that this process is ready and may be signalled.
            let signals = Signals::new()?;
            let source = SourceInfo {
                name: self.source.name(),
                fingerprint: loaded.fingerprint(),
                installed_unix_s: unix_s(),
            };
            let resolved = resolver::resolve_once(&config, DNS_PATIENCE).await;
            let mut coordinator = Coordinator::new(
                self.source,
                config.clone(),
                secrets,
                status.clone(),
                fleet,
                access_log,
                request_rx,
            );
            coordinator.upgrades.program = self.program;
            coordinator.admin = admin;
            coordinator.report_to_center()?;
            coordinator.ask_control_plane(plane, shown);
            coordinator.seed_resolution(resolved);
            let upgraded = match takeover.take() {
                None => {
                    coordinator.install(config, source, opened).await;
                    false
                }
                Some(takeover) => {
                    take_over(&mut coordinator, takeover, inherited, source, opened).await?;
                    true
                }
            };
            coordinator.serving();
            log_ready(&status, began);
            tell_ready(self.announce.as_deref(), &status, upgraded)?;
            ready(handle);
            coordinator.run(signals).await
        })
    }
}

/// The first configuration and its sockets: the file, and beside it what is known of the control plane's part before
/// that was asked for anything.
fn first(
    plane: &mut ControlPlane,
    shown: Option<&mut Shown>,
    secrets: &mut Secrets,
    handed: &mut Handles,
    shards: usize,
) -> Result<(Arc<Config>, Opened), Failure> {
    let file = plane.file.clone();
    if let (Some(published), Some(shown)) = (plane.newest(), shown) {
        let ground = Ground {
            file: &file,
            before: &file,
            secrets,
            bound: &Bound::new(),
            handed,
            shards,
        };
        let refused = &mut shown.applied.refused;
        match ground.beside_file(&published.part, refused) {
            Ok(made) => {
                if let Some(prepared) = made.prepared {
                    secrets.take(prepared, &made.config);
                }
                *handed = made.left;
                shown.applied.parts = 1;
                refused
                    .iter()
                    .for_each(|line| tracing::error!("xDS: {line}"));
                return Ok((Arc::new(made.config), made.opened));
            }
            // The file serves at least, or says what is wrong with it.
            Err(why) => {
                tracing::error!("xDS: {why}");
                refused.push(why);
            }
        }
    }
    let opened = sockets::open(&file, &Bound::new(), handed, shards)?;
    Ok((file, opened))
}

/// Tells who waits for it that requests are served.
fn tell_ready(announcement: Option<&Path>, status: &Status, upgraded: bool) -> Result<(), Failure> {
    match announcement.map_or(Ok(()), |path| announce(path, status)) {
        // Nobody else serves any more.
        Err(failure) if upgraded => tracing::error!("{failure}"),
        announced => announced?,
    }
    if !upgraded {
        // Otherwise the process before has said it.
        service_manager::notify(&[NotifyState::Ready]);
    }
    Ok(())
}

/// Everything that comes before the first accept, the word of the process before that it has stopped, and the first
/// accept.
async fn take_over(
    coordinator: &mut Coordinator,
    takeover: Takeover,
    inherited: Inheritance,
    source: SourceInfo,
    mut opened: Opened,
) -> Result<(), Failure> {
    let withheld = mem::take(&mut opened.sockets);
    let config = coordinator.inherit_rollouts(inherited.rollouts);
    coordinator.install(config, source, opened).await;
    coordinator.inherit_ejections(&inherited.ejections);
    // What no listener wanted is closed before the process before is told that it has the last handle.
    let left = inherited.sockets.into_keys().collect();
    takeover.ready(left)?;
    coordinator.listen(withheld);
    count(coordinator.status.process.upgrades(Outcome::Completed));
    Ok(())
}

/// Shows where this process comes from, and goes on counting where the process before has stopped.
fn show_ancestry(status: &Status, takeover: Option<&Takeover>, inherited: &Inheritance) {
    status.live_mut().ancestry = Ancestry {
        generation: inherited.generation,
        started_by: takeover.map(Takeover::predecessor),
        ..Ancestry::default()
    };
    for (outcome, total) in Outcome::ALL.into_iter().zip(inherited.totals) {
        let counter = status.process.upgrades(outcome);
        counter.store(total, Ordering::Relaxed);
    }
    if let Some(takeover) = takeover {
        tracing::info!(
            "upgrade: this is generation {}, to take over from pid {}",
            inherited.generation,
            takeover.predecessor()
        );
    }
}

/// Says what is wrong with a configuration, also to the process that goes on then.
fn unusable(takeover: Option<&Takeover>, error: LoadError) -> Failure {
    if let (Some(takeover), LoadError::Invalid(..)) = (takeover, &error) {
        takeover.refuse(&error.lines().join("\n"));
    }
    report(error)
}

/// Says what is wrong with a configuration, on standard error.
pub(crate) fn report(error: LoadError) -> Failure {
    match error {
        LoadError::Unreadable(failure) => failure,
        LoadError::Invalid(diagnostics, text) => {
            eprint!("{}", crate::cli::render::diagnostics(&diagnostics, &text));
            Failure::reported(Exit::Config)
        }
    }
}

/// Checks what the host must offer, takes what it allows, and chooses the CPUs.
fn fit(config: &Config) -> Result<Vec<Option<usize>>, Failure> {
    let files = raise_open_files();
    let kernel = tidegate_shard::probe(&config.shards.ring)
        .map_err(|unfit| Failure::new(Exit::HostUnfit, unfit.problem, unfit.remedy))?;
    let cpus = fleet::place(&config.shards)?;
    let pinned: Vec<String> = cpus.iter().flatten().map(usize::to_string).collect();
    tracing::info!(
        "host: Linux {}, io_uring, {files} open files; {} shards on cpu {}",
        kernel.kernel,
        cpus.len(),
        pinned.join(",")
    );
    Ok(cpus)
}

/// Raises the soft limit of open files to the hard one; returns what it is then.
fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return hard;
    }
    soft
}

fn log_config(source: &Source, loaded: &Loaded) {
    tracing::info!(
        "config: {} {:016x}, {} listeners, {} clusters",
        source.name(),
        loaded.fingerprint(),
        loaded.config.listeners.len(),
        loaded.config.clusters.len()
    );
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
}

fn log_ready(status: &Status, began: Instant) {
    let live = status.live();
    let listeners: Vec<String> = live
        .snapshot
        .iter()
        .flat_map(|snapshot| &snapshot.listeners)
        .map(|l| format!("{} {}", l.name, live.bound.get(&l.bind).unwrap_or(&l.bind)))
        .collect();
    tracing::info!("listeners: {}", listeners.join(", "));
    match live.admin {
        Some(admin) => tracing::info!("admin and dashboard: http://{admin}/"),
        None => tracing::info!("admin: off"),
    }
    tracing::info!("ready in {} ms", began.elapsed().as_millis());
}

/// The admin server, which does not accept yet: on the socket of the process before, if its address is the same.
fn start_admin(
    config: &Config,
    handed: Option<(SocketAddr, OwnedFd)>,
    handle: &Handle,
    log: &LogLevel,
) -> Result<Option<admin::Server>, Failure> {
    let Some(address) = config.admin else {
        return Ok(None);
    };
    let handed = handed.map(|(configured, socket)| (configured, TcpListener::from(socket)));
    let is_the_same = |(configured, listener): &(SocketAddr, TcpListener)| {
        *configured == address || listener.local_addr().is_ok_and(|bound| bound == address)
    };
    let listener = match handed.filter(is_the_same) {
        Some((_, listener)) => listener,
        None => bind_admin(address)?,
    };
    handle.status.live_mut().admin = Some(listener.local_addr()?);
    let server = admin::start(address, listener, handle.clone(), log.clone())?;
    Ok(Some(server))
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::new(
            Exit::Config,
            format!("`admin: {address}` is not a loopback address"),
            "the admin server can stop the process and asks nobody who they are: bind it to \
             127.0.0.1 or [::1] and reach it through ssh or a proxy that authenticates",
        ));
    }
    let listener =
        TcpListener::bind(address).map_err(|e| sockets::refused("admin", address, &e))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Writes the addresses that were really bound, as JSON.
fn announce(path: &Path, status: &Status) -> Result<(), Failure> {
    let live = status.live();
    let listeners: serde_json::Map<_, _> = live
        .snapshot
        .iter()
        .flat_map(|snapshot| &snapshot.listeners)
        .map(|l| {
            let address = live.bound.get(&l.bind).unwrap_or(&l.bind);
            (l.name.to_string(), json!(address.to_string()))
        })
        .collect();
    let addresses = json!({
        "admin": live.admin.map(|address| address.to_string()),
        "listeners": listeners,
        "pid": std::process::id(),
    });
    write_announcement(path, &addresses)
}

/// All or nothing: whoever sees the file sees all of it.
pub(crate) fn write_announcement(
    path: &Path,
    addresses: &serde_json::Value,
) -> Result<(), Failure> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, format!("{addresses}\n"))
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|e| {
            Failure::new(
                Exit::Runtime,
                format!("cannot write `{}`: {e}", path.display()),
                "--announce needs a directory where this user may write",
            )
        })
}
