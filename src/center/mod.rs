//! The center (`tidegate center`). As a healing center: proxies report what they find, it judges many reports
//! together and says what to do (H5). The policy is `tidegate_core::healing::center`; here are its edges. As a control
//! plane: proxies get their resources from it.
//!
//! 1. `engine`: the loop that takes reports in, stores what follows from them, and only then answers.
//! 2. `store`: where that is kept; one file for one center, etcd for several, which elect a leader.
//! 3. `control`: the control plane.
//! 4. `admin`: page, JSON, metrics, and what a person may say.

mod admin;
mod control;
mod engine;
mod metrics;
mod store;

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde_json::json;
use tidegate_core::healing::center::{Center, Settings};
use tidegate_xds::{healing::server, listen, server::streams};

use crate::{
    exit::Failure,
    service::{sockets, write_announcement},
    signals::{Asked, Signals},
};
use admin::ControlAdmin;
use control::Control;
use engine::Engine;
use store::Store;

pub(crate) use control::Selector;

/// Events of streams that wait for the engine. Behind them streams are read no further.
const EVENTS_MAX: usize = 1024;

/// Words of people that wait for the engine.
const WORDS_MAX: usize = 16;

/// How a center is started.
pub(crate) struct Options {
    /// Where proxies report.
    pub(crate) listen: SocketAddr,
    /// Where people look in.
    pub(crate) admin: Option<SocketAddr>,
    /// What is kept, and where.
    pub(crate) keep: Keep,
    /// The address that proxies are told when this center leads; `listen` as bound if nothing is said.
    pub(crate) advertise: Option<Box<str>>,
    /// What proxies must know, if anything.
    pub(crate) token: Option<Box<str>>,
    /// The policy.
    pub(crate) settings: Settings,
    /// What is served by xDS, if anything.
    pub(crate) resources: Option<PathBuf>,
    /// Who gets changes of it first, if not all at once.
    pub(crate) canary: Option<Selector>,
    /// A file that is written once both addresses are known.
    pub(crate) announce: Option<PathBuf>,
}

/// Where a center keeps its state.
pub(crate) enum Keep {
    /// In memory: it is gone when the process ends.
    Memory,
    /// In a file.
    File(PathBuf),
    /// In etcd, at these URLs, shared with other centers.
    Etcd(Vec<String>),
}

/// What the engine shares with the admin server.
struct Shared {
    standing: RwLock<Standing>,
    settings: Settings,
    advertise: Box<str>,
}

/// Whether this center leads.
enum Standing {
    /// It does, and knows everything.
    Leading(Box<Center>),
    /// It does not. Who does, if that is known.
    Following(Option<Box<str>>),
}

impl Shared {
    fn standing(&self) -> RwLockReadGuard<'_, Standing> {
        self.standing.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing_mut(&self) -> RwLockWriteGuard<'_, Standing> {
        self.standing
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a center until a signal ends it.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let listener = bind("center", options.listen)?;
    let listening = listener.local_addr()?;
    let admin = options
        .admin
        .map(|address| bind("admin", address))
        .transpose()?;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let advertise = options
        .advertise
        .unwrap_or_else(|| listening.to_string().into());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // The embedded store writes there, one transaction at a time; and directories are read.
        .max_blocking_threads(2)
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let store = Store::open(&options.keep, advertise.clone())?;
        // In memory there is nothing that a copy could outlive.
        let is_kept = matches!(options.keep, Keep::File(_));
        let pushes = is_kept.then(|| store.pushes()).flatten();
        let plane = options
            .resources
            .map(|path| Control::open(&path, options.canary, pushes))
            .transpose()?;
        let shared = Arc::new(Shared {
            standing: RwLock::new(Standing::Following(None)),
            settings: options.settings,
            advertise,
        });
        let (event_tx, events) = flume::bounded(EVENTS_MAX);
        let (word_tx, words) = flume::bounded(WORDS_MAX);
        let mut engine = Engine::new(shared.clone(), store, events, words);
        // Whoever is told that the center is there finds it leading, if it can.
        engine.campaign().await;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let limits = server::Limits::default();
        let token = options.token.as_deref();
        let (asked, taken) = flume::bounded(control::ASKED_MAX);
        let plane = plane.map(|(control, directory)| {
            tokio::spawn(control.clone().follow(directory, taken));
            ControlAdmin { control, asked }
        });
        let ads = plane.as_ref().map(|plane| {
            let control = plane.control.clone();
            streams::service(token, streams::Limits::default(), control)
        });
        let healing = server::service(token, limits, event_tx);
        let services = listen::Services { healing, ads };
        tokio::spawn(listen::serve(listener, services, limits.connections));
        if let Some(admin) = admin {
            admin::start(admin, shared, word_tx, plane.clone())?;
        }
        if let Some(path) = &options.announce {
            announce(path, listening, admin_address)?;
        }
        tracing::info!("healing center: listening on {listening}");
        if let Some(address) = admin_address {
            tracing::info!("healing center: http://{address}/");
        }
        tokio::select! {
            () = engine.run() => {}
            () = ended(&mut signals, plane.as_ref()) => {}
        }
        engine.resign().await;
        Ok(())
    })
}

async fn ended(signals: &mut Signals, plane: Option<&ControlAdmin>) {
    loop {
        match signals.next().await {
            Asked::Terminate | Asked::Interrupt => return,
            Asked::Reload => {
                if let Some(plane) = plane {
                    // If it is full, the directory is about to be read. Nobody waits for the answer.
                    let _ = plane.asked.try_send(flume::bounded(1).0);
                }
            }
            Asked::Reopen | Asked::Dump | Asked::Upgrade => {}
        }
    }
}

fn bind(who: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).map_err(|e| sockets::refused(who, address, &e))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Writes the addresses that were really bound, as JSON.
fn announce(path: &Path, listen: SocketAddr, admin: Option<SocketAddr>) -> Result<(), Failure> {
    let addresses = json!({
        "listen": listen.to_string(),
        "admin": admin.map(|address| address.to_string()),
        "pid": std::process::id(),
    });
    write_announcement(path, &addresses)
}
