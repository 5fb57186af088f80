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
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{
    center::store::{Pushes, Saved},
    exit::{Exit, Failure},
    status::unix_ms,
};
use directory::{Directory, Loaded};
use rollout::{Push, Rollout};

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
pub(super) struct Control {
    state: Mutex<State>,
    /// Where pushes are kept, if they are. Whoever holds it writes: what is written is the newest.
    pushes: tokio::sync::Mutex<Option<Pushes>>,
    /// There is something to write.
    changed: Notify,
}

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
    /// Reads a directory. What is served is what was served in an earlier life, if `pushes` tell of one, and the directory
    /// a change of that; or else the directory, to all.
    ///
    /// # Errors
    ///
    /// There is nothing that could be served.
    pub(super) fn open(
        path: &Path,
        selector: Option<Selector>,
        pushes: Option<Pushes>,
    ) -> Result<(Arc<Control>, Directory), Failure> {
        let before = pushes
            .as_ref()
            .and_then(|pushes| restore(pushes, selector.clone()));
        let mut directory = Directory::new(path.to_owned());
        let served = before.as_ref().map(|rollout| rollout.newest().clone());
        let loaded = directory.load(&served.unwrap_or_default());
        let (loaded, rollout) = match (loaded, before) {
            (loaded, Some(before)) => (loaded, before),
            (Ok(mut loaded), None) => {
                let world = Arc::new(std::mem::take(&mut loaded.world));
                let rollout = Rollout::new(selector, now(), world.clone());
                loaded.world = World::clone(&world);
                (Ok(loaded), rollout)
            }
            (Err(problems), None) => return Err(unfit(path, &problems)),
        };
        let control = Control {
            state: Mutex::new(State {
                rollout,
                source: Source::new(path),
                streams: BTreeMap::new(),
                counts: Counts::default(),
            }),
            pushes: tokio::sync::Mutex::new(pushes),
            changed: Notify::new(),
        };
        control.take(loaded);
        control.changed.notify_one();
        let state = control.state();
        for remark in &state.source.remarks {
            tracing::warn!("control plane: {remark}");
        }
        let world = &state.rollout.stable().world;
        let (count, files, version) = (world.all().count(), state.source.files, world.version());
        tracing::info!("control plane: {count} resources of {files} files, version {version}");
        drop(state);
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
                () = self.changed.notified() => {
                    if let Err(why) = self.save().await {
                        tracing::warn!("control plane: the push is not stored: {why}");
                    }
                    continue;
                }
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
                    self.changed.notify_one();
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

    /// Keeps how it stands, for a later life.
    async fn save(&self) -> Result<(), String> {
        let pushes = self.pushes.lock().await;
        let Some(pushes) = &*pushes else {
            return Ok(());
        };
        let there = pushes.numbers().map_err(|e| e.to_string())?;
        let (saved, keep) = {
            let state = self.state();
            let kept: Vec<&Push> = state.rollout.kept().collect();
            let new = kept.iter().filter(|push| !there.contains(&push.number));
            let worlds = new.map(|push| (push.number, push.world.encode()));
            let saved = Saved {
                standing: state.rollout.standing(),
                worlds: worlds.collect(),
            };
            (saved, kept.iter().map(|push| push.number).collect())
        };
        pushes.save(saved, keep).await.map_err(|e| e.to_string())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether that ended a canary.
    fn refused(&mut self, stream: u64, world: &str, error: &str) -> bool {
        self.counts.refused += 1;
        let Some(Stream { node, .. }) = self.streams.get(&stream) else {
            return false;
        };
        tracing::warn!("control plane: {} refuses: {error}", node.id);
        let is_halted = self.rollout.refused(now(), node, world, error);
        if is_halted {
            self.counts.halted += 1;
            self.publish("the canary was refused and is halted");
        }
        is_halted
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
            Heard::Refused { world, error } => {
                if state.refused(stream, world, error) {
                    self.changed.notify_one();
                }
            }
        }
    }

    fn close(&self, stream: u64) {
        self.state().streams.remove(&stream);
    }
}

impl Source {
    /// One that was not read yet.
    fn new(path: &Path) -> Source {
        Source {
            path: path.to_owned(),
            files: 0,
            read: Duration::ZERO,
            problems: Vec::new(),
            remarks: Vec::new(),
        }
    }
}

/// How it stood in an earlier life, if there was one.
fn restore(pushes: &Pushes, selector: Option<Selector>) -> Option<Rollout> {
    let saved = pushes
        .load()
        .inspect_err(|e| tracing::warn!("control plane: cannot read the pushes: {e}"));
    let Saved { standing, worlds } = saved.ok()??;
    let worlds = worlds.into_iter().filter_map(|(number, bytes)| {
        let world = World::decode(&bytes, directory::version)?;
        Some((number, Arc::new(world)))
    });
    let rollout = Rollout::restore(selector, &standing, worlds.collect());
    if rollout.is_none() {
        tracing::warn!("control plane: the pushes of an earlier run cannot be read: left out");
    }
    rollout
}

fn unfit(path: &Path, problems: &[String]) -> Failure {
    Failure::new(
        Exit::Config,
        format!(
            "--resources `{}`:\n  {}",
            path.display(),
            problems.join("\n  ")
        ),
        "files of resources of the Envoy API, as `tidegate check --xds FILE` takes them",
    )
}

/// Since the Unix epoch.
fn now() -> Duration {
    Duration::from_millis(unix_ms())
}
