//! A center's end of the healing protocol: connections, streams and messages within their limits. What is
//! said on them goes to the center as [`Event`]s, and comes back as [`Answer`]s; nothing is decided here.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_lite::{Stream, stream};
use tidegate_core::healing::{
    center::Arrival,
    directive::Directive,
    report::{Bucket, Node},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::{LEADER, MESSAGE_MAX, translate};
use crate::{
    listen::{self, Services, Token},
    pb::{
        self as grpc, MetadataValue, Request, Response, Status, Streaming,
        healing::{
            self as pb,
            healing_server::{Healing, HealingServer},
        },
    },
};

/// Answers that wait for one stream. Who does not read them is cut off. Directives come in bursts, one for
/// each endpoint that the node had ejected.
pub const ANSWERS_MAX: usize = 1024;

/// What a peer may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Connections at a time; one more waits. As many as nodes that a center knows, and some that are
    /// ending.
    pub connections: usize,
    /// For the first message of a stream.
    pub hello: Duration,
    /// A stream on which nothing is said for so long is ended. Clients say something every five seconds.
    pub silence: Duration,
    /// Messages that one stream may send at once. Ten times what a proxy allows itself: whoever exceeds it
    /// is read more slowly, and nothing is lost.
    pub burst: u32,
    /// And per second in the long run.
    pub rate: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 11_000,
            hello: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            burst: 500,
            rate: 100.0,
        }
    }
}

/// What is said to a center. Streams are numbered in the order in which they open.
#[derive(Debug)]
pub enum Event {
    /// A node has opened a stream and said who it is.
    Opened {
        /// Which stream.
        stream: u64,
        /// Who.
        node: Node,
        /// What its clock shows.
        clock: Duration,
        /// Where answers go. When it is dropped, the stream ends.
        answers: mpsc::Sender<Answer>,
    },
    /// A report or keep-alive.
    Arrived {
        /// On which stream.
        stream: u64,
        /// What.
        arrival: Arrival,
    },
    /// The stream has ended.
    Closed {
        /// Which one.
        stream: u64,
    },
}

/// What a center answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Everything up to `sequence` is stored.
    Acknowledge {
        /// The newest report.
        sequence: u64,
        /// The fencing epoch.
        epoch: u64,
    },
    /// Do this.
    Direct {
        /// As in [`Answer::Acknowledge`].
        sequence: u64,
        /// What to do.
        directive: Directive,
    },
    /// Another center leads; its address if it is known.
    NotLeading(Option<Box<str>>),
    /// The node is not let in.
    Refuse(&'static str),
}

impl Answer {
    fn into_message(self) -> Result<pb::Directive, Status> {
        match self {
            Answer::Acknowledge { sequence, epoch } => Ok(pb::Directive {
                acknowledged: sequence,
                epoch,
                ..pb::Directive::default()
            }),
            Answer::Direct {
                sequence,
                directive,
            } => Ok(translate::directive_to_pb(sequence, directive)),
            Answer::NotLeading(leader) => {
                let mut status = Status::unavailable("another center leads");
                if let Some(leader) = leader.and_then(|l| MetadataValue::try_from(&*l).ok()) {
                    status.metadata_mut().insert(LEADER, leader);
                }
                Err(status)
            }
            Answer::Refuse(why) => Err(Status::failed_precondition(why)),
        }
    }
}

/// The service, for the port of a center.
#[derive(Clone)]
pub struct Service(pub(crate) HealingServer<Streams>);

/// Makes the service. Whoever does not know `token`, if there is one, gets no further than his first request.
pub fn service(token: Option<&str>, limits: Limits, events: flume::Sender<Event>) -> Service {
    let streams = Streams {
        token: Token::new(token),
        limits,
        events,
        opened: AtomicU64::new(0),
    };
    Service(HealingServer::new(streams).max_decoding_message_size(MESSAGE_MAX))
}

/// Takes connections for this service alone, until the task is dropped.
pub async fn serve(
    listener: TcpListener,
    token: Option<Box<str>>,
    limits: Limits,
    events: flume::Sender<Event>,
) {
    let services = Services {
        healing: service(token.as_deref(), limits, events),
        ads: None,
    };
    listen::serve(listener, services, limits.connections).await;
}

/// The service: makes a pair of tasks of each stream.
pub(crate) struct Streams {
    token: Token,
    limits: Limits,
    events: flume::Sender<Event>,
    /// Streams so far.
    opened: AtomicU64,
}

type Directives = Pin<Box<dyn Stream<Item = Result<pb::Directive, Status>> + Send>>;

#[grpc::async_trait]
impl Healing for Streams {
    type StreamStream = Directives;

    async fn stream(
        &self,
        request: Request<Streaming<pb::Report>>,
    ) -> Result<Response<Directives>, Status> {
        self.token.check(&request)?;
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let (answers, waiting) = mpsc::channel(ANSWERS_MAX);
        // Dropped with the answers: by the center, or since the connection is gone.
        let (alive, ended) = oneshot::channel::<()>();
        let reader = Reader {
            stream: number,
            reports: request.into_inner(),
            limits: self.limits,
            events: self.events.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = reader.run(answers) => {}
                _ = ended => {}
            }
        });
        let directives = stream::unfold((waiting, alive), |(mut waiting, alive)| async {
            let answer: Answer = waiting.recv().await?;
            Some((answer.into_message(), (waiting, alive)))
        });
        Ok(Response::new(Box::pin(directives)))
    }
}

/// What is no report, or larger than [`MESSAGE_MAX`]; or the connection broke, and nobody reads it.
const UNREADABLE: translate::Wrong = "a message that cannot be read";

/// Reads one stream.
struct Reader {
    stream: u64,
    reports: Streaming<pb::Report>,
    limits: Limits,
    events: flume::Sender<Event>,
}

impl Reader {
    async fn run(mut self, answers: mpsc::Sender<Answer>) {
        let hello = timeout(self.limits.hello, self.reports.message()).await;
        let hello = match hello {
            Ok(Ok(Some(hello))) => hello,
            Ok(Ok(None)) => return,
            Ok(Err(_)) => return refuse(&answers, UNREADABLE),
            Err(_) => return refuse(&answers, "no first message in time"),
        };
        let clock = Duration::from_millis(hello.sent_ms);
        let node = hello
            .node
            .ok_or("the first message does not say who is there");
        let node = match node.and_then(translate::node_from_pb) {
            Ok(node) => node,
            Err(wrong) => return refuse(&answers, wrong),
        };
        let closing = Closing {
            stream: self.stream,
            events: self.events.clone(),
        };
        // The center's copy alone keeps the stream open.
        let last_words = answers.downgrade();
        let opened = Event::Opened {
            stream: self.stream,
            node,
            clock,
            answers,
        };
        if self.events.send_async(opened).await.is_err() {
            return;
        }
        if let Some(wrong) = self.read().await
            && let Some(answers) = last_words.upgrade()
        {
            refuse(&answers, wrong);
        }
        drop(closing);
    }

    /// Until the stream ends, or something is wrong with a message.
    async fn read(&mut self) -> Option<translate::Wrong> {
        let began = Instant::now();
        let mut bucket = Bucket::new(self.limits.burst, self.limits.rate);
        loop {
            while let Err(at) = bucket.take(began.elapsed()) {
                sleep_until(began + at).await;
            }
            let message = match timeout(self.limits.silence, self.reports.message()).await {
                Ok(Ok(message)) => message?,
                Ok(Err(_)) => return Some(UNREADABLE),
                Err(_) => return Some("silent for too long"),
            };
            let arrival = match translate::arrival_from_pb(message) {
                Ok(arrival) => arrival,
                Err(wrong) => return Some(wrong),
            };
            let stream = self.stream;
            let arrived = Event::Arrived { stream, arrival };
            self.events.send_async(arrived).await.ok()?;
        }
    }
}

fn refuse(answers: &mpsc::Sender<Answer>, why: &'static str) {
    // If it is full, its reader is no better served by a reason.
    let _ = answers.try_send(Answer::Refuse(why));
}

/// Says that a stream has ended, however its reader came to its end.
struct Closing {
    stream: u64,
    events: flume::Sender<Event>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let stream = self.stream;
        let closed = Event::Closed { stream };
        if let Err(unsent) = self.events.try_send(closed) {
            // The queue is full: it must not be lost, and a destructor cannot wait.
            let events = self.events.clone();
            tokio::spawn(async move { events.send_async(unsent.into_inner()).await });
        }
    }
}
