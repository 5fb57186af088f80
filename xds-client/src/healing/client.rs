//! A proxy's end of the healing protocol (H4, H12): keeps a stream to the center that leads, sends what the
//! [`Outbox`] gives, passes on the directives that the [`Gate`] lets through, and carries out those for the
//! fronted application itself.
//!
//! It never holds up who reports: reports wait in the outbox, bounded, whatever becomes of the center.

use std::{error::Error, io, pin::pin, sync::Arc, time::Duration};

use futures_lite::stream;
use tidegate_core::healing::{
    directive::{Directive, Gate},
    report::{Body, DirectiveAck, Next, Node, Outbox, OutboxCounts, OutboxLimits, Outcome},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{
    LEADER, MESSAGE_MAX,
    lifecycle::{Lifecycle, order_of},
    translate,
};
use crate::{
    backoff::backoff,
    pb::{
        Endpoint, MetadataValue, Request, Status as GrpcStatus, Streaming,
        healing::{self as pb, healing_client::HealingClient},
    },
};

/// Reports between the outbox and the socket. Few: what is there counts as sent.
const IN_FLIGHT: usize = 16;

/// Times that one center may send on to another before an attempt counts as failed.
const REDIRECTS_MAX: u32 = 3;

/// The times of a client.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For a connection to be made, and for a center to answer the first message.
    pub answer: Duration,
    /// Between keep-alives, each of which the center answers.
    pub keep_alive: Duration,
    /// A center that says nothing for so long is lost, whatever its kernel acknowledges.
    pub silence: Duration,
    /// Before the second attempt; doubled with every further one, up to `backoff_max`.
    pub backoff_min: Duration,
    /// The longest, before jitter.
    pub backoff_max: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            answer: Duration::from_secs(2),
            keep_alive: Duration::from_secs(5),
            silence: Duration::from_secs(12),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The centers, `HOST:PORT`, tried in turn; one that does not lead says who does.
    pub centers: Vec<Box<str>>,
    /// Who reports.
    pub node: Node,
    /// What a center asks for before it listens, if it does.
    pub token: Option<Box<str>>,
    /// How the fronted application is restarted, if it can be.
    pub lifecycle: Option<Lifecycle>,
    /// The bounds of the queue.
    pub outbox: OutboxLimits,
    /// The times.
    pub times: Times,
}

/// A directive that is to be obeyed. Whoever does says so with [`Body::DirectiveAck`].
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// What to do.
    pub directive: Directive,
    /// Not after this.
    pub expires: Instant,
}

/// How the client is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The center that it has a stream to.
    pub center: Option<Arc<str>>,
    /// That one's fencing epoch.
    pub epoch: u64,
    /// Streams made.
    pub streams: u64,
    /// Reports that are not acknowledged.
    pub waiting: usize,
    /// What the queue counts.
    pub counts: OutboxCounts,
    /// Directives obeyed or passed on.
    pub obeyed: u64,
    /// Directives refused.
    pub refused: u64,
    /// Why the last stream ended or was not made.
    pub last_error: Option<String>,
}

/// Why a stream ended.
enum Ended {
    /// Nobody reports any more.
    Closed,
    /// The center is gone, or does not lead. Who does, if it said so.
    Lost {
        why: String,
        leader: Option<Box<str>>,
    },
}

impl Ended {
    fn lost(why: impl ToString) -> Ended {
        Ended::Lost {
            why: why.to_string(),
            leader: None,
        }
    }
}

impl From<GrpcStatus> for Ended {
    fn from(status: GrpcStatus) -> Ended {
        let leader = status.metadata().get(LEADER);
        Ended::Lost {
            why: format!("{:?}: {}", status.code(), status.message()),
            leader: leader.and_then(|value| value.to_str().ok()).map(Into::into),
        }
    }
}

/// A client that is to be run.
pub struct Client {
    settings: Arc<Settings>,
    outbox: Outbox,
    gate: Gate,
    reports: flume::Receiver<Body>,
    orders: flume::Sender<Order>,
    status: watch::Sender<Status>,
    /// The hook that runs, if one does; its directive and what came of it.
    hooks: JoinSet<(u64, Result<(), String>)>,
    /// Zero of the clock that reports and directives speak of.
    started: Instant,
    /// Position in `settings.centers` of the next attempt.
    next_center: usize,
}

/// One stream.
struct Session {
    outgoing: mpsc::Sender<pb::Report>,
    incoming: Streaming<pb::Directive>,
    epoch: u64,
}

impl Client {
    /// A client that takes `reports` and hands on `orders`; to be made on a tokio runtime.
    pub fn new(
        settings: Settings,
        reports: flume::Receiver<Body>,
        orders: flume::Sender<Order>,
    ) -> io::Result<(Client, watch::Receiver<Status>)> {
        if settings.centers.is_empty() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "no center is named");
            return Err(error);
        }
        let (status, watched) = watch::channel(Status::default());
        let client = Client {
            outbox: Outbox::new(settings.outbox),
            gate: Gate::new(settings.node.clone()),
            settings: Arc::new(settings),
            reports,
            orders,
            status,
            hooks: JoinSet::new(),
            started: Instant::now(),
            next_center: 0,
        };
        Ok((client, watched))
    }

    /// Runs until nobody reports any more: every sender of reports is dropped.
    pub async fn run(mut self) {
        let mut attempt = 0;
        let mut leader: Option<Box<str>> = None;
        loop {
            let center = leader.take().unwrap_or_else(|| self.take_center());
            let streams = self.status.borrow().streams;
            let Ended::Lost { why, leader: named } = self.stream(&center).await else {
                return;
            };
            self.outbox.disconnected();
            tracing::debug!("healing center {center}: {why}");
            self.update(|status| {
                status.center = None;
                status.last_error = Some(format!("{center}: {why}"));
            });
            let made = self.status.borrow().streams > streams;
            attempt = if made { 0 } else { attempt + 1 };
            // Two that name each other are asked no more than that.
            leader = named.filter(|named| *named != center && attempt < REDIRECTS_MAX);
            if leader.is_some() {
                continue;
            }
            let times = &self.settings.times;
            let wait = backoff(
                times.backoff_min,
                times.backoff_max,
                attempt,
                fastrand::f64(),
            );
            if self.take_in(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    fn take_center(&mut self) -> Box<str> {
        let centers = &self.settings.centers;
        let center = centers.get(self.next_center % centers.len().max(1));
        self.next_center = self.next_center.wrapping_add(1);
        center.cloned().unwrap_or_default()
    }

    /// Takes in reports and what hooks came to until `done`; nothing if nobody reports any more.
    async fn take_in<F: Future>(&mut self, done: F) -> Option<F::Output> {
        let mut done = pin!(done);
        loop {
            tokio::select! {
                output = &mut done => return Some(output),
                report = self.reports.recv_async() => self.push(report.ok()?),
                Some(ended) = self.hooks.join_next() => self.hook_ended(ended.ok()),
            }
        }
    }

    /// One stream to one center, from its making to its end.
    async fn stream(&mut self, center: &str) -> Ended {
        let (settings, clock) = (self.settings.clone(), self.now());
        // Who reports is not held up by a center that does not answer.
        let opening = timeout(settings.times.answer, open(&settings, clock, center));
        let (mut session, first) = match self.take_in(opening).await {
            None => return Ended::Closed,
            Some(Err(_)) => return Ended::lost("no answer"),
            Some(Ok(Err(ended))) => return ended,
            Some(Ok(Ok(opened))) => opened,
        };
        if !self.gate.hear(session.epoch) {
            return Ended::lost("it led before the one that leads");
        }
        self.outbox.connected(first.acknowledged);
        self.update(|status| {
            status.center = Some(center.into());
            status.epoch = first.epoch;
            status.streams += 1;
        });
        match self.serve(&mut session).await {
            Ok(()) => Ended::Closed,
            Err(ended) => ended,
        }
    }

    /// Reports out, directives in, until one of them ends.
    async fn serve(&mut self, session: &mut Session) -> Result<(), Ended> {
        let times = self.settings.times;
        let mut keep_alive = interval(times.keep_alive);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut heard = Instant::now();
        // When the next report may go, by the rate.
        let mut may_send = Instant::now();
        loop {
            tokio::select! {
                message = session.incoming.message() => {
                    let message = message?.ok_or_else(|| Ended::lost("it ended the stream"))?;
                    heard = Instant::now();
                    self.receive(session.epoch, message)?;
                }
                report = self.reports.recv_async() => match report {
                    Ok(body) => self.push(body),
                    Err(_) => return Ok(()),
                },
                permit = session.outgoing.reserve(),
                    if self.outbox.has_unsent() && Instant::now() >= may_send =>
                {
                    let permit = permit.map_err(|_| Ended::lost("it ended the stream"))?;
                    let now = self.now();
                    match self.outbox.next(now) {
                        Next::Send(report) => permit.send(translate::report_to_pb(now, report)),
                        Next::Wait(at) => may_send = self.started + at,
                        Next::Idle => {}
                    }
                }
                () = sleep_until(may_send),
                    if self.outbox.has_unsent() && Instant::now() < may_send => {}
                _ = keep_alive.tick() => {
                    // If there is no room, reports are on their way, which say as much.
                    let _ = session.outgoing.try_send(keep_alive_report(self.now()));
                }
                () = sleep_until(heard + times.silence) => {
                    return Err(Ended::lost("it fell silent"));
                }
                Some(ended) = self.hooks.join_next() => self.hook_ended(ended.ok()),
            }
            self.update(|_| {});
        }
    }

    /// An acknowledgement, with or without a directive.
    fn receive(&mut self, epoch: u64, message: pb::Directive) -> Result<(), Ended> {
        if message.epoch != epoch {
            return Err(Ended::lost("it changed its epoch within a stream"));
        }
        self.outbox.acknowledge(message.acknowledged);
        let directive = match translate::directive_from_pb(message) {
            Ok(Some(directive)) => directive,
            Ok(None) => return Ok(()),
            Err(wrong) => return Err(Ended::lost(wrong)),
        };
        match self.gate.judge(self.now(), &directive) {
            Ok(expires) => self.obey(directive, self.started + expires),
            Err(refusal) => self.refuse(&directive, refusal.word()),
        }
        Ok(())
    }

    fn obey(&mut self, directive: Directive, expires: Instant) {
        if order_of(&directive).is_none() {
            let order = Order { directive, expires };
            match self.orders.try_send(order) {
                Ok(()) => self.update(|status| status.obeyed += 1),
                Err(unsent) => self.refuse(&unsent.into_inner().directive, "busy"),
            }
            return;
        }
        let Some(lifecycle) = self.settings.lifecycle.clone() else {
            return self.refuse(&directive, "no hook is configured");
        };
        if !self.hooks.is_empty() {
            return self.refuse(&directive, "a hook is running");
        }
        tracing::info!(
            "healing center: {} (directive {})",
            directive.action.word(),
            directive.id
        );
        self.update(|status| status.obeyed += 1);
        self.hooks.spawn(async move {
            let done = lifecycle.carry_out(&directive, expires).await;
            (directive.id, done)
        });
    }

    fn refuse(&mut self, directive: &Directive, why: &str) {
        tracing::warn!(
            "healing center: {} refused: {why} (directive {})",
            directive.action.word(),
            directive.id
        );
        self.update(|status| status.refused += 1);
        self.acknowledge(directive.id, Outcome::Refused, why);
    }

    fn hook_ended(&mut self, ended: Option<(u64, Result<(), String>)>) {
        // A hook that panicked has said so itself, and ended the process.
        let Some((directive, done)) = ended else {
            return;
        };
        match done {
            Ok(()) => self.acknowledge(directive, Outcome::Done, ""),
            Err(why) => {
                tracing::warn!("hook of directive {directive}: {why}");
                self.acknowledge(directive, Outcome::Failed, &why);
            }
        }
    }

    fn acknowledge(&mut self, id: u64, outcome: Outcome, detail: &str) {
        let detail = detail
            .chars()
            .take(translate::TEXT_MAX / 4)
            .collect::<String>();
        self.push(Body::DirectiveAck(DirectiveAck {
            id,
            outcome,
            detail: detail.into(),
        }));
    }

    fn push(&mut self, body: Body) {
        let now = self.now();
        self.outbox.push(now, body);
        self.update(|_| {});
    }

    /// Shows how it is doing.
    fn update(&self, change: impl FnOnce(&mut Status)) {
        let (waiting, counts) = (self.outbox.len(), self.outbox.counts());
        self.status.send_if_modified(|status| {
            let before = status.clone();
            (status.waiting, status.counts) = (waiting, counts);
            change(status);
            *status != before
        });
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Makes a stream, says who is there, and waits for what the center has.
async fn open(
    settings: &Settings,
    clock: Duration,
    center: &str,
) -> Result<(Session, pb::Directive), Ended> {
    let endpoint = Endpoint::from_shared(format!("http://{center}")).map_err(Ended::lost)?;
    let channel = endpoint
        .connect_timeout(settings.times.answer)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(|e| Ended::lost(source_of(&e)))?;
    let (outgoing, taken) = mpsc::channel(IN_FLIGHT);
    let hello = pb::Report {
        node: Some(translate::node_to_pb(&settings.node)),
        ..keep_alive_report(clock)
    };
    let _ = outgoing.try_send(hello);
    let reports = stream::unfold(taken, |mut taken| async {
        taken.recv().await.map(|report| (report, taken))
    });
    let mut request = Request::new(reports);
    if let Some(token) = &settings.token {
        let bearer = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Ended::lost("the token has characters that cannot be sent"))?;
        request.metadata_mut().insert("authorization", bearer);
    }
    let mut incoming = HealingClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX)
        .stream(request)
        .await?
        .into_inner();
    let first = incoming.message().await?;
    let first = first.ok_or_else(|| Ended::lost("it ended the stream"))?;
    let session = Session {
        outgoing,
        incoming,
        epoch: first.epoch,
    };
    Ok((session, first))
}

fn keep_alive_report(now: Duration) -> pb::Report {
    pb::Report {
        sequence: 0,
        sent_ms: translate::millis(now),
        node: None,
        age_ms: 0,
        kind: Some(pb::report::Kind::KeepAlive(pb::KeepAlive {})),
    }
}

/// The innermost cause: the outer ones say "transport error".
fn source_of(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
