//! The stream to a control plane (ADS): keeps one, moves bytes, and decides nothing. What is said on it and what
//! comes of it is the business of [`Resources`]. In its place a control plane may be asked by REST (`rest`), and files
//! may bring a part.
//!
//! A server that is lost takes nothing away: what was accepted serves on. It is looked for again with pauses that
//! grow and differ from proxy to proxy; one that fails [`FAILURES_MAX`] times in a row is followed by the next one,
//! and the ones before it are looked for meanwhile. A connection that is dead and does not say so is found by pings of
//! HTTP/2; a server that lives and says nothing has to answer within [`Times::answer`] if it owes something, and a
//! stream that was silent for [`Times::silence`] is made anew, since a server that forgot it looks the same as one
//! that has no news. What all fail with is asked for again: a cluster none of whose endpoints answers may be one whose
//! news never came.

mod connection;
mod pace;
mod rest;
mod servers;
mod session;
mod settings;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    io,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    backoff::backoff,
    cache, client_status,
    files::{self, Files},
    graph::Part,
    kept::Kept,
    pb::{self, Status as GrpcStatus},
    resources::{FileStatus, RawResponse, Resources, TypeStatus, Verdict},
    source::OfFile,
    subscription::Request,
};

pub use connection::Tls;
pub use pace::{PAUSE_MAX, REFUSED_FREE};
pub use rest::Rest;
pub use servers::FAILURES_MAX;
pub use settings::{Link, Local, Node, Settings, Times};

use pace::Pace;
use servers::Servers;
use session::{Heard, Session, reach};

/// Bytes of a message. 16,384 endpoints take some 2 MB, the largest route tables that are known ten times that.
pub(crate) const MESSAGE_MAX: usize = 64 << 20;

/// Responses that may wait for their answer before no further one is read: a server that sends and does not read.
const UNANSWERED_MAX: usize = 64;

/// Between two writes of the cache: a burst of changes is one.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// Between two times that the same cluster is asked for again.
const ASK_AGAIN_PAUSE: Duration = Duration::from_secs(60);

/// A part of a configuration, and when the response came that made it.
#[derive(Clone, Debug)]
pub struct Published {
    /// What is to be used.
    pub part: Part,
    /// When it came.
    pub received: Instant,
}

/// How the client is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The server that it has a stream to.
    pub server: Option<Arc<str>>,
    /// Streams made.
    pub streams: u64,
    /// Why the last stream ended or was not made.
    pub last_error: Option<String>,
    /// By type.
    pub types: Vec<TypeStatus>,
    /// Clusters that routes name and that do not exist.
    pub unknown_clusters: Vec<Arc<str>>,
    /// Files that bring resources.
    pub files: Vec<FileStatus>,
    /// Files read so far, and how many of those were refused, wholly or in part.
    pub file_reads: (u64, u64),
}

/// What a client makes known.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The newest part, once there is one.
    pub parts: watch::Receiver<Option<Arc<Published>>>,
    /// How it is doing.
    pub status: watch::Receiver<Arc<Status>>,
    /// For the process that takes over.
    pub handover: Handover,
    /// For whoever asks by the protocol.
    pub source: client_status::Source,
}

/// What a client holds, at any moment, for another one that goes on in its place.
#[derive(Clone, Debug)]
pub struct Handover {
    kept: Kept,
    started: Instant,
}

impl Handover {
    /// The resources with their names and versions, as bytes.
    pub fn encode(&self) -> Vec<u8> {
        pb::encode_kept(self.kept.left(self.started.elapsed()))
    }
}

/// A client that is to be run.
pub struct Client {
    settings: Settings,
    resources: Resources,
    local: watch::Receiver<Local>,
    parts: watch::Sender<Option<Arc<Published>>>,
    status: watch::Sender<Arc<Status>>,
    /// When the newest response came.
    received: Instant,
    /// Zero of the clock that the resources go by.
    started: Instant,
    servers: Servers,
    files: Files,
    /// Times that a server said something.
    heard: u64,
    /// Clusters that were asked for again, and when. No more than there are.
    asked_again: BTreeMap<Arc<str>, Instant>,
    /// A stream ended since its server owed an answer: the next one has to begin with one.
    is_suspect: bool,
    /// Until when the server has to say something.
    answer_by: Option<Instant>,
    /// When what changed is to be written, if anything has.
    save_at: Option<Instant>,
    /// The write that is under way.
    saving: Option<JoinHandle<()>>,
}

/// Why a stream ended.
enum Ended {
    /// Nobody wants to know any more.
    Closed,
    /// By us: this server is next, at once.
    Left(usize, String),
    /// The server is gone.
    Lost(String),
}

impl From<GrpcStatus> for Ended {
    fn from(status: GrpcStatus) -> Ended {
        Ended::Lost(format!("{:?}: {}", status.code(), status.message()))
    }
}

impl Client {
    /// A client; to be made on a tokio runtime.
    pub fn new(settings: Settings, mut local: watch::Receiver<Local>) -> (Client, Watched) {
        let clusters = local.borrow_and_update().clusters.clone();
        let mut resources = Resources::new(settings.variant, clusters);
        for file in &settings.files {
            resources.take_from(file.clone());
        }
        if settings.servers.is_empty() {
            resources.without_stream();
        }
        let (parts, watched_parts) = watch::channel(None);
        let status = Status {
            types: resources.status(),
            ..Status::default()
        };
        let (status, watched_status) = watch::channel(Arc::new(status));
        let mut client = Client {
            servers: Servers::new(settings.servers.len()),
            files: Files::new(settings.times.look),
            heard: 0,
            settings,
            resources,
            local,
            parts,
            status,
            received: Instant::now(),
            started: Instant::now(),
            asked_again: BTreeMap::new(),
            is_suspect: false,
            answer_by: None,
            save_at: None,
            saving: None,
        };
        client.restore();
        client.read_files();
        let watched = Watched {
            parts: watched_parts,
            status: watched_status,
            handover: Handover {
                kept: client.resources.kept().clone(),
                started: client.started,
            },
            source: client_status::Source {
                node: client.settings.node.clone(),
                status: client.status.subscribe(),
                kept: client.resources.kept().clone(),
                started: client.started,
            },
        };
        (client, watched)
    }

    /// Begins with what the process before held, or with what was kept, until a control plane says otherwise.
    fn restore(&mut self) {
        let (from, kept) = match (self.settings.inherited.take(), &self.settings.cache) {
            (Some(bytes), _) => ("the process before".to_owned(), cache::decode(&bytes)),
            (None, Some(path)) => (path.display().to_string(), cache::read(path)),
            (None, None) => return,
        };
        match kept {
            Ok(kept) => {
                let (all, now) = (kept.len(), self.now());
                let restored = self.resources.restore(kept, now);
                tracing::info!(
                    "xDS: {restored} of {all} resources from {from}, until a control plane answers"
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("xDS: cannot read what is kept by {from}: {error}"),
        }
    }

    /// Reads all files that are named, at once: a start has everything that is on this machine.
    fn read_files(&mut self) {
        loop {
            let due = self.resources.files_due();
            if due.is_empty() {
                break;
            }
            for of in due {
                let (read, now) = (files::read(&of.file), self.now());
                self.resources.receive_file(&of, read, now);
            }
        }
        self.publish();
        self.follow_files();
        self.show(|_| {});
    }

    /// Writes what changed, if it is time, on a thread for such things.
    fn save(&mut self) {
        let Some(path) = self.settings.cache.clone() else {
            return;
        };
        let is_time = self.save_at.is_some_and(|at| at <= Instant::now());
        if !is_time {
            return;
        }
        if self
            .saving
            .as_ref()
            .is_some_and(|saving| !saving.is_finished())
        {
            self.save_at = Some(Instant::now() + SAVE_PAUSE);
            return;
        }
        self.save_at = None;
        let kept = self.resources.kept().endless();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = cache::write(&path, kept) {
                tracing::warn!("xDS: cannot write {}: {error}", path.display());
            }
        }));
    }

    /// Runs until nobody wants to know any more: every receiver of parts is dropped.
    pub async fn run(mut self) {
        let mut attempt = 0;
        loop {
            let Some(server) = self.server() else {
                // Files are all there is.
                let _ = self.wait(None).await;
                return;
            };
            let heard = self.heard;
            let ended = self.stream(&server).await;
            self.resources.disconnected();
            // A server that answered was well, whatever became of the stream.
            let answered = self.heard > heard;
            match ended {
                Ended::Closed => return,
                Ended::Left(next, why) => {
                    tracing::info!("xDS: control plane {server} is left: {why}");
                    self.servers.switch(next);
                    attempt = 0;
                    continue;
                }
                Ended::Lost(why) => {
                    tracing::warn!("xDS: control plane {server}: {why}");
                    self.show(|status| {
                        status.server = None;
                        status.last_error = Some(format!("{server}: {why}"));
                    });
                }
            }
            match answered {
                true => self.servers.answered(),
                false => self.servers.failed(),
            }
            attempt = if answered { 0 } else { attempt + 1 };
            let times = &self.settings.times;
            let wait = backoff(
                times.backoff_min,
                times.backoff_max,
                attempt,
                fastrand::f64(),
            );
            if self.wait(Some(wait)).await.is_none() {
                return;
            }
        }
    }

    fn server(&self) -> Option<Box<str>> {
        let server = self.settings.servers.get(self.servers.current());
        server.cloned()
    }

    /// Waits before the next attempt, if there is to be one. Time goes on for what waits, and files may change, as may
    /// the proxy's own.
    async fn wait(&mut self, wait: Option<Duration>) -> Option<()> {
        let until = wait.map(|wait| Instant::now() + wait);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                () = wake(until) => return Some(()),
                () = self.parts.closed() => return None,
                () = wake(deadline) => self.elapsed(),
                (of, read) = self.files.next() => self.read(&of, read),
                Ok(()) = self.local.changed() => self.local_changed(),
            }
        }
    }

    /// One stream to one server, from its making to its end.
    async fn stream(&mut self, server: &str) -> Ended {
        match self.open(server).await {
            Ok(mut session) => match self.serve(server, &mut session).await {
                Ok(()) => Ended::Closed,
                Err(ended) => ended,
            },
            Err(ended) => ended,
        }
    }

    /// Requests out, responses in, until one of them ends.
    async fn serve(&mut self, server: &str, session: &mut Session) -> Result<(), Ended> {
        self.show(|status| {
            status.server = Some(server.into());
            status.streams += 1;
        });
        tracing::info!("xDS: connected to control plane {server}");
        let times = self.settings.times;
        // A server to which everything is held already may well have nothing to say.
        let owes = self.is_suspect || self.resources.lacks();
        self.answer_by = owes.then(|| self.answer_by()).flatten();
        let mut silent = Instant::now() + shortened(times.silence);
        let mut returned = Box::pin(self.preferred());
        let (mut pace, mut paused) = (Pace::default(), None);
        loop {
            self.send(&session.outgoing);
            let deadline = self.deadline();
            let answer_by = self.answer_by;
            tokio::select! {
                heard = session.incoming.next(),
                    if self.resources.unanswered() < UNANSWERED_MAX && paused.is_none() =>
                {
                    let verdict = self.hear(server, heard?);
                    let pause = pace.received(verdict == Verdict::Refused);
                    paused = (!pause.is_zero()).then(|| Instant::now() + pause);
                    self.answer_by = None;
                    self.is_suspect = false;
                    silent = Instant::now() + shortened(times.silence);
                }
                // There is room for what could not be sent.
                room = session.outgoing.reserve(), if self.resources.is_due() => {
                    room.map_err(|_| Ended::Lost("it ended the stream".into()))?;
                }
                () = wake(paused), if paused.is_some() => paused = None,
                () = wake(deadline) => self.elapsed(),
                (of, read) = self.files.next() => self.read(&of, read),
                Ok(()) = self.local.changed() => self.local_changed(),
                () = self.parts.closed() => return Ok(()),
                () = wake(answer_by) => {
                    self.is_suspect = true;
                    return Err(Ended::Lost("it says nothing".into()));
                }
                () = sleep_until(silent) => {
                    let why = "it was silent for long: the stream is made anew";
                    return Err(Ended::Left(self.servers.current(), why.into()));
                }
                preferred = &mut returned => {
                    let why = "one that goes before it is back";
                    return Err(Ended::Left(preferred, why.into()));
                }
            }
        }
    }

    /// Until when a server has to answer that owes something. By REST each request has a time of its own.
    fn answer_by(&self) -> Option<Instant> {
        let is_stream = self.settings.rest.is_none();
        is_stream.then(|| Instant::now() + self.settings.times.answer)
    }

    /// Comes back when a server can be reached that goes before the current one.
    fn preferred(&self) -> impl Future<Output = usize> + use<> {
        let (times, rest) = (self.settings.times, self.settings.rest);
        let local = self.local.clone();
        let servers = self.servers.preferred().zip(self.settings.servers.clone());
        let servers: Vec<(usize, Box<str>)> = servers.collect();
        async move {
            if servers.is_empty() {
                std::future::pending::<()>().await;
            }
            loop {
                tokio::time::sleep(shortened(times.return_after)).await;
                let link = local.borrow().link.clone();
                for (index, server) in &servers {
                    if reach(server, &link, times, rest).await.is_ok() {
                        return *index;
                    }
                }
            }
        }
    }

    /// Sends what is due, as far as there is room.
    fn send(&mut self, outgoing: &mpsc::Sender<Request>) {
        while let Ok(room) = outgoing.try_reserve() {
            let now = self.now();
            let Some(request) = self.resources.poll_request(now) else {
                return;
            };
            room.send(request);
        }
    }

    fn hear(&mut self, server: &str, heard: Heard) -> Verdict {
        self.heard += 1;
        match heard {
            Heard::Response(response) => return self.receive(response),
            Heard::Nothing => {}
            Heard::Absent(why) => {
                tracing::debug!("xDS: control plane {server}: {why}");
                self.show(|status| status.last_error = Some(format!("{server}: {why}")));
            }
        }
        Verdict::Taken
    }

    fn receive(&mut self, response: RawResponse) -> Verdict {
        self.received = Instant::now();
        let now = self.now();
        let verdict = self.resources.receive(response, now).unwrap_or_else(|url| {
            tracing::warn!("xDS: a response of type `{url}` was not asked for");
            Verdict::Refused
        });
        self.save_at.get_or_insert(Instant::now() + SAVE_PAUSE);
        self.publish();
        self.follow_files();
        self.show(|_| {});
        verdict
    }

    /// A file was read.
    fn read(&mut self, of: &OfFile, read: Result<RawResponse, String>) {
        self.received = Instant::now();
        let now = self.now();
        self.resources.receive_file(of, read, now);
        self.publish();
        self.follow_files();
        self.show(|_| {});
    }

    /// What is held may name other files now.
    fn follow_files(&mut self) {
        let due = self.resources.files_due();
        self.files.follow(self.resources.files(), due);
    }

    fn elapsed(&mut self) {
        self.save();
        let now = self.now();
        self.resources.elapsed(now);
        self.publish();
        self.follow_files();
        self.show(|_| {});
    }

    fn local_changed(&mut self) {
        let local = self.local.borrow_and_update().clone();
        self.ask_again(&local.failing);
        if self.resources.file_changed(local.clusters) {
            self.publish();
        }
    }

    /// Asks for what fails anew. A server that does not answer is left.
    fn ask_again(&mut self, failing: &BTreeSet<Arc<str>>) {
        self.asked_again
            .retain(|_, at| at.elapsed() < ASK_AGAIN_PAUSE);
        for cluster in failing {
            if !self.asked_again.contains_key(cluster) && self.resources.ask_again(cluster) {
                tracing::warn!(
                    "xDS: no endpoint of cluster {cluster} answers: they are asked for again"
                );
                self.asked_again.insert(Arc::clone(cluster), Instant::now());
                self.answer_by = self.answer_by.or_else(|| self.answer_by());
            }
        }
    }

    /// Makes the part known, if it is another one.
    fn publish(&mut self) {
        let now = self.now();
        if let Some(part) = self.resources.poll(now) {
            let received = self.received;
            self.parts
                .send_replace(Some(Arc::new(Published { part, received })));
        }
    }

    /// Shows how it is doing.
    fn show(&self, change: impl FnOnce(&mut Status)) {
        let types = self.resources.status();
        let unknown_clusters = self.resources.unknown_clusters();
        let (files, file_reads) = (self.resources.file_status(), self.resources.file_reads());
        self.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            (status.types, status.unknown_clusters) = (types, unknown_clusters);
            (status.files, status.file_reads) = (files, file_reads);
            change(status);
        });
    }

    fn deadline(&self) -> Option<Instant> {
        let deadline = self.resources.deadline();
        let deadline = deadline.and_then(|deadline| self.started.checked_add(deadline));
        let save_at = self.save_at.filter(|_| self.settings.cache.is_some());
        deadline.into_iter().chain(save_at).min()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Up to a quarter less, so that a thousand proxies do not do the same thing in the same moment.
fn shortened(time: Duration) -> Duration {
    time.mul_f64(1.0 - fastrand::f64() / 4.0)
}

/// Sleeps until then; for ever if there is no then.
async fn wake(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The innermost cause: the outer ones say "transport error".
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
