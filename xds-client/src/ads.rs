//! The stream to a control plane (ADS): keeps one, moves bytes, and decides nothing. What is said on it and what
//! comes of it is the business of [`Resources`].
//!
//! A server that is lost takes nothing away: what was accepted serves on. It is looked for again with pauses that
//! grow and differ from proxy to proxy; several servers are tried in turn. A connection that is dead and does not say
//! so is found by pings of HTTP/2, a server that lives and says nothing by its first answer, which has to come within
//! [`Times::answer`].

mod wire;

use std::{collections::BTreeSet, error::Error, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    backoff::backoff,
    cache,
    graph::Part,
    pb::{
        Endpoint, Status as GrpcStatus, Streaming,
        discovery::{
            self as pb,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Ads,
        },
    },
    resources::{RawResponse, Resources, TypeStatus},
    subscription::{Request, Variant},
};

use wire::{delta_request, delta_response, node, said, with_token, world_request, world_response};

/// Bytes of a message. 16,384 endpoints take some 2 MB, the largest route tables that are known ten times that.
const MESSAGE_MAX: usize = 64 << 20;

/// Requests between the state machine and the socket.
const IN_FLIGHT: usize = 16;

/// Responses that may wait for their answer before no further one is read: a server that sends and does not read.
const UNANSWERED_MAX: usize = 64;

/// Between two writes of the cache: a burst of changes is one.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// The times of a client.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For a connection to be made.
    pub connect: Duration,
    /// For a server to say anything on a new stream.
    pub answer: Duration,
    /// Between two pings of a connection; unanswered for as long, it is dead.
    pub keep_alive: Duration,
    /// Before the second attempt; doubled with every further one, up to `backoff_max`.
    pub backoff_min: Duration,
    /// The longest, before jitter.
    pub backoff_max: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            keep_alive: Duration::from_secs(10),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Unique in the fleet.
    pub id: String,
    /// What it is a part of.
    pub cluster: String,
    /// The failure domain that it runs in.
    pub zone: String,
}

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The control planes, `HOST:PORT`, tried in turn.
    pub servers: Vec<Box<str>>,
    /// Which variant of the protocol is spoken.
    pub variant: Variant,
    /// Who asks.
    pub node: Node,
    /// What a server asks for before it answers, if it does.
    pub token: Option<Box<str>>,
    /// Where the last good resources are kept for the next start, if they are.
    pub cache: Option<PathBuf>,
    /// The times.
    pub times: Times,
}

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
}

/// What a client makes known.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The newest part, once there is one.
    pub parts: watch::Receiver<Option<Arc<Published>>>,
    /// How it is doing.
    pub status: watch::Receiver<Arc<Status>>,
}

/// Names of the clusters that the file brings.
pub type OfFile = watch::Receiver<Arc<BTreeSet<Arc<str>>>>;

/// A client that is to be run.
pub struct Client {
    settings: Settings,
    resources: Resources,
    of_file: OfFile,
    parts: watch::Sender<Option<Arc<Published>>>,
    status: watch::Sender<Arc<Status>>,
    /// When the newest response came.
    received: Instant,
    /// Zero of the clock that the resources go by.
    started: Instant,
    /// Position in `settings.servers` of the next attempt.
    next_server: usize,
    /// When what changed is to be written, if anything has.
    save_at: Option<Instant>,
    /// The write that is under way.
    saving: Option<JoinHandle<()>>,
}

/// Why a stream ended.
enum Ended {
    /// Nobody wants to know any more.
    Closed,
    /// The server is gone.
    Lost(String),
}

impl From<GrpcStatus> for Ended {
    fn from(status: GrpcStatus) -> Ended {
        Ended::Lost(format!("{:?}: {}", status.code(), status.message()))
    }
}

/// One stream.
struct Session {
    outgoing: mpsc::Sender<Request>,
    incoming: Incoming,
}

enum Incoming {
    Delta(Streaming<pb::DeltaDiscoveryResponse>),
    World(Streaming<pb::DiscoveryResponse>),
}

impl Client {
    /// A client; to be made on a tokio runtime.
    pub fn new(settings: Settings, mut of_file: OfFile) -> (Client, Watched) {
        let clusters = of_file.borrow_and_update().clone();
        let resources = Resources::new(settings.variant, clusters);
        let (parts, watched_parts) = watch::channel(None);
        let status = Status {
            types: resources.status(),
            ..Status::default()
        };
        let (status, watched_status) = watch::channel(Arc::new(status));
        let mut client = Client {
            settings,
            resources,
            of_file,
            parts,
            status,
            received: Instant::now(),
            started: Instant::now(),
            next_server: 0,
            save_at: None,
            saving: None,
        };
        client.restore();
        let watched = Watched {
            parts: watched_parts,
            status: watched_status,
        };
        (client, watched)
    }

    /// Begins with what was kept, until a control plane says otherwise.
    fn restore(&mut self) {
        let Some(path) = &self.settings.cache else {
            return;
        };
        self.resources.keep();
        match cache::read(path) {
            Ok(kept) => {
                let (all, path) = (kept.len(), path.display());
                let restored = self.resources.restore(kept);
                tracing::info!(
                    "xDS: {restored} of {all} resources from {path}, until a control plane answers"
                );
                self.publish();
                self.show(|_| {});
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("xDS: cannot read {}: {error}", path.display()),
        }
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
        let kept = self.resources.kept().cloned().collect();
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
            let server = self.take_server();
            let responses = self.responses();
            let Ended::Lost(why) = self.stream(&server).await else {
                return;
            };
            self.resources.disconnected();
            tracing::warn!("xDS: control plane {server}: {why}");
            self.show(|status| {
                status.server = None;
                status.last_error = Some(format!("{server}: {why}"));
            });
            // A server that answered was well, whatever became of the stream.
            let answered = self.responses() > responses;
            attempt = if answered { 0 } else { attempt + 1 };
            let times = &self.settings.times;
            let wait = backoff(
                times.backoff_min,
                times.backoff_max,
                attempt,
                fastrand::f64(),
            );
            if self.wait(wait).await.is_none() {
                return;
            }
        }
    }

    /// Responses received so far.
    fn responses(&self) -> u64 {
        let status = self.status.borrow();
        status.types.iter().map(|one| one.responses).sum()
    }

    fn take_server(&mut self) -> Box<str> {
        let servers = &self.settings.servers;
        let server = servers.get(self.next_server % servers.len().max(1));
        self.next_server = self.next_server.wrapping_add(1);
        server.cloned().unwrap_or_default()
    }

    /// Waits before the next attempt. Time goes on for what waits, and the file may change.
    async fn wait(&mut self, wait: Duration) -> Option<()> {
        let until = Instant::now() + wait;
        loop {
            let deadline = self.deadline();
            tokio::select! {
                () = sleep_until(until) => return Some(()),
                () = self.parts.closed() => return None,
                () = wake(deadline) => self.elapsed(),
                changed = self.of_file.changed() => self.file_changed(changed.is_ok()),
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

    /// Makes a connection and a stream. Some servers say nothing before the first request, so that those are on their
    /// way before anything is waited for.
    async fn open(&mut self, server: &str) -> Result<Session, Ended> {
        let times = self.settings.times;
        let lost = |error: &dyn Error| Ended::Lost(innermost(error));
        let endpoint = Endpoint::from_shared(format!("http://{server}"))
            .map_err(|error| lost(&error))?
            .connect_timeout(times.connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(times.keep_alive)
            .keep_alive_timeout(times.keep_alive)
            .keep_alive_while_idle(true);
        let channel = tokio::select! {
            channel = endpoint.connect() => channel.map_err(|error| lost(&error))?,
            () = self.parts.closed() => return Err(Ended::Closed),
        };
        let (outgoing, taken) = mpsc::channel(IN_FLIGHT);
        self.resources.connected();
        self.send(&outgoing);
        let mut ads = Ads::new(channel).max_decoding_message_size(MESSAGE_MAX);
        let node = node(&self.settings.node);
        let token = self.settings.token.as_deref();
        let opening = async {
            Ok::<_, Ended>(match self.settings.variant {
                Variant::Delta => {
                    let requests = with_token(said(taken, node, delta_request), token)?;
                    let answers = ads.delta_aggregated_resources(requests).await?;
                    Incoming::Delta(answers.into_inner())
                }
                Variant::StateOfTheWorld => {
                    let requests = with_token(said(taken, node, world_request), token)?;
                    let answers = ads.stream_aggregated_resources(requests).await?;
                    Incoming::World(answers.into_inner())
                }
            })
        };
        let opened = timeout(times.answer, opening).await;
        let incoming = opened.map_err(|_| Ended::Lost("no answer".into()))??;
        Ok(Session { outgoing, incoming })
    }

    /// Requests out, responses in, until one of them ends.
    async fn serve(&mut self, server: &str, session: &mut Session) -> Result<(), Ended> {
        self.show(|status| {
            status.server = Some(server.into());
            status.streams += 1;
        });
        tracing::info!("xDS: connected to control plane {server}");
        let silent = Instant::now() + self.settings.times.answer;
        let mut answered = false;
        loop {
            self.send(&session.outgoing);
            let deadline = self.deadline();
            tokio::select! {
                response = session.incoming.message(),
                    if self.resources.unanswered() < UNANSWERED_MAX =>
                {
                    let ended = || Ended::Lost("it ended the stream".into());
                    self.receive(response?.ok_or_else(ended)?);
                    answered = true;
                }
                // There is room for what could not be sent.
                room = session.outgoing.reserve(), if self.resources.is_due() => {
                    room.map_err(|_| Ended::Lost("it ended the stream".into()))?;
                }
                () = wake(deadline) => self.elapsed(),
                changed = self.of_file.changed() => self.file_changed(changed.is_ok()),
                () = self.parts.closed() => return Ok(()),
                () = sleep_until(silent), if !answered => {
                    return Err(Ended::Lost("it says nothing".into()));
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

    fn receive(&mut self, response: RawResponse) {
        self.received = Instant::now();
        let now = self.now();
        if let Err(url) = self.resources.receive(response, now) {
            tracing::warn!("xDS: a response of type `{url}` was not asked for");
        }
        self.save_at.get_or_insert(Instant::now() + SAVE_PAUSE);
        self.publish();
        self.show(|_| {});
    }

    fn elapsed(&mut self) {
        self.save();
        let now = self.now();
        self.resources.elapsed(now);
        self.publish();
        self.show(|_| {});
    }

    fn file_changed(&mut self, is_told: bool) {
        if is_told {
            let clusters = self.of_file.borrow_and_update().clone();
            self.resources.file_changed(clusters);
            self.publish();
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
        self.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            (status.types, status.unknown_clusters) = (types, unknown_clusters);
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

/// Sleeps until then; for ever if there is no then.
async fn wake(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl Incoming {
    async fn message(&mut self) -> Result<Option<RawResponse>, GrpcStatus> {
        Ok(match self {
            Incoming::Delta(answers) => answers.message().await?.map(delta_response),
            Incoming::World(answers) => answers.message().await?.map(world_response),
        })
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
