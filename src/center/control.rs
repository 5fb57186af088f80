//! The control plane of a center: serves the resources of a directory by xDS, to proxies and to Envoys, and knows of
//! each what it has and what it refused.
//!
//! 1. `directory`: the files, read together or not at all.
//! 2. `rollout`: which world is for which node; canary, promotion, the way back. Pure.
//! 3. `admin`: what is shown, and what a person may ask for.
//!
//! Each center serves its own directory to whoever has a stream to it, whether it leads in healing or not.

pub(super) mod admin;
mod directory;
mod rollout;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidegate_xds::{
    server::{
        session::{Heard, Session, Status},
        streams::{Node, Plane},
        world::World,
    },
    subscription::Variant,
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    exit::{Exit, Failure},
    status::unix_ms,
};
use directory::{Directory, Loaded};
use rollout::Rollout;

pub(crate) use rollout::Selector;

/// Between two looks at the directory. A change counts once two looks saw the same.
const LOOK: Duration = Duration::from_millis(500);

/// People who wait for a directory to be read.
pub(super) const ASKED_MAX: usize = 16;

/// What is wrong with a directory, if anything.
type Problems = Vec<String>;

/// Somebody wants the directory read now, and to know what came of it.
pub(super) type Asked = flume::Sender<Problems>;

/// What is served, to whom, and what became of it.
pub(super) struct Control(Mutex<State>);

pub(super) struct State {
    rollout: Rollout,
    source: Source,
    /// By number.
    streams: BTreeMap<u64, Stream>,
    counts: Counts,
}

/// Where resources come from.
struct Source {
    path: PathBuf,
    files: usize,
    /// When it was read last, well or not; since the Unix epoch.
    read: Duration,
    /// What is wrong with it; what was there before is served then.
    problems: Problems,
    remarks: Vec<String>,
}

/// A stream of a node.
struct Stream {
    node: Node,
    variant: Variant,
    opened: Duration,
    /// What it is served.
    worlds: watch::Sender<Arc<World>>,
    /// Of which world its session last spoke.
    version: Arc<str>,
    kinds: Vec<Status>,
}

/// What happened since the start.
#[derive(Default)]
struct Counts {
    streams: u64,
    acknowledged: u64,
    refused: u64,
    pushes: u64,
    loads_refused: u64,
    halted: u64,
}

impl Stream {
    /// Whether it has all that it is served.
    fn is_in_step(&self) -> bool {
        *self.version == **self.worlds.borrow().version()
            && self.kinds.iter().all(|kind| kind.settled)
    }
}

impl Control {
    /// Reads a directory, and serves it to all.
    ///
    /// # Errors
    ///
    /// There is nothing that could be served.
    pub(super) fn open(
        path: &Path,
        selector: Option<Selector>,
    ) -> Result<(Arc<Control>, Directory), Failure> {
        let mut directory = Directory::new(path.to_owned());
        let loaded = directory.load(&World::default());
        let loaded = loaded.map_err(|problems| {
            Failure::new(
                Exit::Config,
                format!(
                    "--resources `{}`:\n  {}",
                    path.display(),
                    problems.join("\n  ")
                ),
                "files of resources of the Envoy API, as `tidegate check --xds FILE` takes them",
            )
        })?;
        for remark in &loaded.remarks {
            tracing::warn!("control plane: {remark}");
        }
        let world = Arc::new(loaded.world);
        tracing::info!(
            "control plane: {} resources of {} files, version {}",
            world.all().count(),
            loaded.files,
            world.version()
        );
        let control = Control(Mutex::new(State {
            rollout: Rollout::new(selector, now(), world),
            source: Source {
                path: path.to_owned(),
                files: loaded.files,
                read: now(),
                problems: Vec::new(),
                remarks: loaded.remarks,
            },
            streams: BTreeMap::new(),
            counts: Counts::default(),
        }));
        Ok((Arc::new(control), directory))
    }

    /// Follows the directory for ever.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut directory: Directory,
        asked: flume::Receiver<Asked>,
    ) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let asked = tokio::select! {
                Ok(asked) = asked.recv_async() => Some(asked),
                _ = look.tick() => None,
            };
            if asked.is_none() && !directory.changed() {
                continue;
            }
            let before = self.state().rollout.newest().clone();
            // Large directories take a while, and streams go on meanwhile.
            let loading = tokio::task::spawn_blocking(move || {
                let loaded = directory.load(&before);
                (directory, loaded)
            });
            let Ok((same, loaded)) = loading.await else {
                return;
            };
            directory = same;
            let problems = self.take(loaded);
            if let Some(asked) = asked {
                // Who asked may have gone.
                let _ = asked.try_send(problems);
            }
        }
    }

    /// Serves what was read, if that is well.
    fn take(&self, loaded: Result<Loaded, Problems>) -> Problems {
        let state = &mut *self.state();
        state.source.read = now();
        match loaded {
            Ok(loaded) => {
                state.source.problems.clear();
                state.source.remarks = loaded.remarks;
                state.source.files = loaded.files;
                if state.rollout.push(now(), Arc::new(loaded.world)) {
                    state.counts.pushes += 1;
                    state.publish("the directory changed");
                }
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::warn!("control plane: {problem}; what was there before is served");
                }
                state.counts.loads_refused += 1;
                state.source.problems = problems;
            }
        }
        state.source.problems.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives each stream what is its.
    fn publish(&self, why: &str) {
        let rollout = &self.rollout;
        tracing::info!(
            "control plane: {why}: push {} is for all{}",
            rollout.stable().number,
            match rollout.canary() {
                Some(canary) if canary.halted.is_none() =>
                    format!(", push {} for the canary", canary.push.number),
                _ => String::new(),
            }
        );
        for stream in self.streams.values() {
            let world = rollout.world_for(&stream.node);
            stream.worlds.send_if_modified(|served| {
                let is_new = served.version() != world.version();
                if is_new {
                    *served = world.clone();
                }
                is_new
            });
        }
    }

    fn refused(&mut self, stream: u64, world: &str, error: &str) {
        self.counts.refused += 1;
        let Some(Stream { node, .. }) = self.streams.get(&stream) else {
            return;
        };
        tracing::warn!("control plane: {} refuses: {error}", node.id);
        if self.rollout.refused(now(), node, world, error) {
            self.counts.halted += 1;
            self.publish("the canary was refused and is halted");
        }
    }
}

impl Plane for Control {
    fn open(
        &self,
        stream: u64,
        node: Node,
        variant: Variant,
    ) -> Result<watch::Receiver<Arc<World>>, &'static str> {
        let state = &mut *self.state();
        state.counts.streams += 1;
        let world = state.rollout.world_for(&node).clone();
        let version = world.version().clone();
        let (worlds, served) = watch::channel(world);
        tracing::debug!("control plane: {} has a stream", node.id);
        let opened = Stream {
            node,
            variant,
            opened: now(),
            worlds,
            version,
            kinds: Vec::new(),
        };
        state.streams.insert(stream, opened);
        Ok(served)
    }

    fn noted(&self, stream: u64, session: &Session, heard: &Heard) {
        let kinds = session.status();
        let state = &mut *self.state();
        if let Some(stream) = state.streams.get_mut(&stream) {
            stream.kinds = kinds;
            stream.version = session.world().version().clone();
        }
        match heard {
            Heard::Nothing => {}
            Heard::Acknowledged => state.counts.acknowledged += 1,
            Heard::Refused { world, error } => state.refused(stream, world, error),
        }
    }

    fn close(&self, stream: u64) {
        self.state().streams.remove(&stream);
    }
}

/// Since the Unix epoch.
fn now() -> Duration {
    Duration::from_millis(unix_ms())
}
