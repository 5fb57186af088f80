//! What a proxy tells the healing center (H4), and what of it waits to be told (H12).
//!
//! [`Report`] is the vocabulary. [`Outbox`] is the queue: it numbers reports, sends them in order and within
//! a rate, keeps each until it is acknowledged, and sends them again on a new stream. It is bounded: when
//! the center is away for long, the oldest go, and are counted.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::ejection::{Cause, Guard};

/// Who reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Unique among the proxies of a center.
    pub id: Box<str>,
    /// Of this run: a later run has a higher one. Sequences are counted within it.
    pub incarnation: u64,
    /// The application that it fronts.
    pub application: Box<str>,
    /// Where others reach that application.
    pub fronts: Vec<SocketAddr>,
    /// Its zone.
    pub zone: Box<str>,
    /// The services that it calls.
    pub calls: Vec<Box<str>>,
}

/// The endpoint that a report speaks of, as the reporter knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The reporter's cluster.
    pub cluster: Box<str>,
    /// The service, under the name that all reporters share.
    pub service: Box<str>,
    /// Its address.
    pub endpoint: SocketAddr,
    /// Its unit; empty without one.
    pub unit: Box<str>,
}

/// What a detector found, in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which detector.
    pub reason: Cause,
    /// Over which time the numbers were taken.
    pub window: Duration,
    /// Calls in it.
    pub calls: u64,
    /// Failures among them by class (H2): the class's word in metrics, and how many.
    pub errors: Vec<(Box<str>, u64)>,
    /// Part of the endpoint's calls that failed, 0 to 1.
    pub local_rate: f64,
    /// The same of the cluster's other endpoints.
    pub peer_rate: f64,
    /// Endpoints of the cluster, this one included.
    pub group: u32,
}

/// How full the application is that the reporter fronts.
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// 1 is full.
    pub watermark: f64,
    /// The resource that is fullest.
    pub dominant_signal: Box<str>,
    /// Part of the requests that are refused, 0 to 1.
    pub shed_rate: f64,
    /// The interfaces that weigh most, and the part of the load that each is.
    pub top_interfaces: Vec<(Box<str>, f64)>,
}

/// What became of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectiveAck {
    /// Its id.
    pub id: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// More about that, for people.
    pub detail: Box<str>,
}

/// What became of a directive, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Carried out.
    Done,
    /// Tried in vain.
    Failed,
    /// Not tried: see [`Refusal`](super::directive::Refusal).
    Refused,
    /// The probe that was asked for found the endpoint well.
    ProbeSucceeded,
    /// The probe that was asked for found it sick.
    ProbeFailed,
}

/// What is reported.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A detector fired, and a guard keeps the endpoint in.
    Suspect {
        /// Which endpoint.
        subject: Subject,
        /// What was found.
        finding: Finding,
        /// What keeps it in.
        guard: Guard,
    },
    /// The endpoint was taken out.
    Ejected {
        /// Which endpoint.
        subject: Subject,
        /// What was found.
        finding: Finding,
        /// Whether requests really stay away; false in a trial of the policy.
        enforced: bool,
        /// How often lately, this time included.
        times: u32,
        /// For how long.
        cool_down: Duration,
    },
    /// The endpoint may take one request.
    Probation(Subject),
    /// The endpoint is in again.
    Recovered(Subject),
    /// The application that the reporter fronts is over its watermark.
    Overload(Overload),
    /// A directive was carried out or refused.
    DirectiveAck(DirectiveAck),
    /// Still there. Carries no sequence and is not kept.
    KeepAlive,
}

impl Body {
    /// The word for it in logs and on pages.
    pub const fn word(&self) -> &'static str {
        match self {
            Body::Suspect { .. } => "suspect",
            Body::Ejected { .. } => "ejected",
            Body::Probation(_) => "probation",
            Body::Recovered(_) => "recovered",
            Body::Overload(_) => "overload",
            Body::DirectiveAck(_) => "directive_ack",
            Body::KeepAlive => "keep_alive",
        }
    }

    /// The endpoint it speaks of, if it speaks of one.
    pub const fn subject(&self) -> Option<&Subject> {
        match self {
            Body::Suspect { subject, .. } | Body::Ejected { subject, .. } => Some(subject),
            Body::Probation(subject) | Body::Recovered(subject) => Some(subject),
            Body::Overload(_) | Body::DirectiveAck(_) | Body::KeepAlive => None,
        }
    }

    /// Whether it makes an `older` one that was not sent yet needless: a state that is said again, not an
    /// event that happened twice.
    fn replaces(&self, older: &Body) -> bool {
        match (self, older) {
            (Body::Suspect { subject, .. }, Body::Suspect { subject: was, .. }) => subject == was,
            (Body::Overload(_), Body::Overload(_)) => true,
            _ => false,
        }
    }
}

/// One report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Ascending from 1 within an incarnation; with the node's id and incarnation the key by which the
    /// center knows that it has it already. 0 for a keep-alive.
    pub sequence: u64,
    /// When it happened, on the reporter's clock.
    pub at: Duration,
    /// What.
    pub body: Body,
}

/// The bounds of an [`Outbox`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutboxLimits {
    /// Reports kept; one more drops the oldest. A thousand ejections are more than a proxy has endpoints
    /// as a rule; at some 500 bytes each it is half a megabyte.
    pub len_max: usize,
    /// Reports sent at once after a quiet time, so that an ejection never waits in calm weather.
    pub burst: u32,
    /// Reports per second in the long run. A thousand proxies in the same storm make ten thousand a
    /// second, which one center bears.
    pub rate: f64,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        OutboxLimits {
            len_max: 1024,
            burst: 50,
            rate: 10.0,
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Send this.
    Send(Report),
    /// Nothing may be sent before then.
    Wait(Duration),
    /// Everything is sent, or there is no stream.
    Idle,
}

/// What an [`Outbox`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Reports taken in.
    pub reported: u64,
    /// Of these, said again before the first was sent, and merged with it.
    pub merged: u64,
    /// Dropped to make room.
    pub dropped: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Sent more than once.
    pub resent: u64,
}

/// The reports that are not acknowledged yet.
#[derive(Clone, Debug)]
pub struct Outbox {
    limits: OutboxLimits,
    /// Ascending by sequence.
    queue: VecDeque<Report>,
    /// The sequence of the next report.
    next: u64,
    /// Whether a stream is up, and the center has said what it has.
    open: bool,
    /// Reports at the front of `queue` that were sent on this stream.
    sent: usize,
    /// The highest sequence that was ever sent.
    sent_ever: u64,
    bucket: Bucket,
    counts: OutboxCounts,
}

impl Outbox {
    /// An empty one.
    pub fn new(limits: OutboxLimits) -> Outbox {
        Outbox {
            limits,
            queue: VecDeque::new(),
            next: 1,
            open: false,
            sent: 0,
            sent_ever: 0,
            bucket: Bucket::new(limits.burst, limits.rate),
            counts: OutboxCounts::default(),
        }
    }

    /// Takes a report in.
    pub fn push(&mut self, now: Duration, body: Body) {
        self.counts.reported += 1;
        let unsent = self.queue.range_mut(self.sent..);
        if let Some(older) = unsent.rev().find(|older| body.replaces(&older.body)) {
            (older.at, older.body) = (now, body);
            self.counts.merged += 1;
            return;
        }
        if self.queue.len() >= self.limits.len_max && self.queue.pop_front().is_some() {
            self.sent = self.sent.saturating_sub(1);
            self.counts.dropped += 1;
        }
        self.queue.push_back(Report {
            sequence: self.next,
            at: now,
            body,
        });
        self.next += 1;
    }

    /// A stream is up, and the center has everything up to `acknowledged`: the rest is sent, again if
    /// need be.
    pub fn connected(&mut self, acknowledged: u64) {
        self.sent = 0;
        self.open = true;
        self.acknowledge(acknowledged);
    }

    /// The stream is gone.
    pub fn disconnected(&mut self) {
        self.open = false;
        self.sent = 0;
    }

    /// The center has stored everything up to `sequence`. More than was ever sent is not believed.
    pub fn acknowledge(&mut self, sequence: u64) {
        let sequence = sequence.min(self.sent_ever);
        while self.queue.front().is_some_and(|r| r.sequence <= sequence) {
            self.queue.pop_front();
            self.sent = self.sent.saturating_sub(1);
            self.counts.acknowledged += 1;
        }
    }

    /// What to do next.
    pub fn next(&mut self, now: Duration) -> Next {
        if !self.open {
            return Next::Idle;
        }
        let Some(report) = self.queue.get(self.sent) else {
            return Next::Idle;
        };
        if let Err(at) = self.bucket.take(now) {
            return Next::Wait(at);
        }
        self.sent += 1;
        if report.sequence <= self.sent_ever {
            self.counts.resent += 1;
        }
        self.sent_ever = self.sent_ever.max(report.sequence);
        Next::Send(report.clone())
    }

    /// Whether there is something to send, if the rate allows.
    pub fn has_unsent(&self) -> bool {
        self.open && self.sent < self.queue.len()
    }

    /// Reports that are not acknowledged.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What was counted so far.
    pub fn counts(&self) -> OutboxCounts {
        self.counts
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    burst: f64,
    /// Tokens per second.
    rate: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    /// A full one, that holds `burst` tokens and gains `rate` per second.
    pub fn new(burst: u32, rate: f64) -> Bucket {
        Bucket {
            burst: f64::from(burst),
            rate,
            tokens: f64::from(burst),
            filled: Duration::ZERO,
        }
    }

    /// Takes a token, or says when there will be one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let gained = now.saturating_sub(self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled = self.filled.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // A nanosecond more, so that rounding does not wake the caller for nothing.
        let missing_s = (1.0 - self.tokens) / self.rate.max(f64::MIN_POSITIVE);
        let wait = Duration::try_from_secs_f64(missing_s).unwrap_or(Duration::MAX);
        Err(now
            .saturating_add(wait)
            .saturating_add(Duration::from_nanos(1)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn subject(port: u16) -> Subject {
        Subject {
            cluster: "pay".into(),
            service: "pay".into(),
            endpoint: SocketAddr::from(([10, 0, 0, 1], port)),
            unit: "".into(),
        }
    }

    fn suspect(port: u16, calls: u64) -> Body {
        Body::Suspect {
            subject: subject(port),
            finding: Finding {
                reason: Cause::Rate,
                window: Duration::from_secs(10),
                calls,
                errors: Vec::new(),
                local_rate: 0.3,
                peer_rate: 0.0,
                group: 3,
            },
            guard: Guard::LastNode,
        }
    }

    fn recovered(port: u16) -> Body {
        Body::Recovered(subject(port))
    }

    fn outbox(len_max: usize, burst: u32) -> Outbox {
        Outbox::new(OutboxLimits {
            len_max,
            burst,
            rate: 10.0,
        })
    }

    /// The sequences that may be sent at once.
    fn sent(outbox: &mut Outbox, now: Duration) -> Vec<u64> {
        let next = || match outbox.next(now) {
            Next::Send(report) => Some(report.sequence),
            Next::Wait(_) | Next::Idle => None,
        };
        std::iter::from_fn(next).collect()
    }

    /// Goal: one word for one thing, in metrics and in what a center keeps. Method: every cause and guard.
    #[test]
    fn words_are_those_of_metrics() {
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.word());
        }
        for guard in Guard::ALL {
            assert_eq!(serde_json::to_value(guard).unwrap(), guard.word());
        }
    }

    /// Goal: nothing is sent before the center has said what it has; then in order, once, until the
    /// stream breaks, and then only what is not acknowledged (H4). Method: two streams.
    #[test]
    fn unacknowledged_reports_are_sent_again() {
        let mut outbox = outbox(10, 10);
        (1..=3).for_each(|port| outbox.push(NOW, recovered(port)));
        assert_eq!(outbox.next(NOW), Next::Idle);
        outbox.connected(0);
        assert_eq!(sent(&mut outbox, NOW), [1, 2, 3]);
        outbox.acknowledge(1);
        outbox.disconnected();
        outbox.push(NOW, recovered(4));
        assert_eq!(outbox.next(NOW), Next::Idle);
        // The center had stored the second one, and its acknowledgement was lost.
        outbox.connected(2);
        assert_eq!(sent(&mut outbox, NOW), [3, 4]);
        outbox.acknowledge(4);
        assert!(outbox.is_empty());
        let counts = outbox.counts();
        assert_eq!((counts.resent, counts.acknowledged), (1, 4));
    }

    /// Goal: a full buffer drops the oldest and counts it (H12). Method: at the limit, and one above.
    #[test]
    fn oldest_are_dropped() {
        let mut outbox = outbox(3, 10);
        (1..=3).for_each(|port| outbox.push(NOW, recovered(port)));
        assert_eq!((outbox.len(), outbox.counts().dropped), (3, 0));
        outbox.push(NOW, recovered(4));
        assert_eq!((outbox.len(), outbox.counts().dropped), (3, 1));
        outbox.connected(0);
        assert_eq!(sent(&mut outbox, NOW), [2, 3, 4]);
        // Also when what is dropped was sent: the rest is not sent twice.
        outbox.push(NOW, recovered(5));
        assert_eq!(sent(&mut outbox, NOW), [5]);
    }

    /// Goal: a storm goes out at the rate, after a burst (H4). Method: a hundred reports at once; the time
    /// that is named is the time at which one more goes.
    #[test]
    fn storm_is_bounded() {
        let mut outbox = outbox(100, 5);
        (1..=100).for_each(|port| outbox.push(NOW, recovered(port)));
        outbox.connected(0);
        assert_eq!(sent(&mut outbox, NOW).len(), 5);
        let Next::Wait(at) = outbox.next(NOW) else {
            panic!("more than the burst");
        };
        assert!(at <= NOW + Duration::from_millis(101), "{at:?}");
        assert_eq!(sent(&mut outbox, at), [6]);
        assert_eq!(sent(&mut outbox, at + Duration::from_secs(2)).len(), 5);
    }

    /// Goal: a state that is said again takes no second place while the first one waits; an event does.
    /// Method: both, before and after sending.
    #[test]
    fn states_are_merged_and_events_are_not() {
        let mut outbox = outbox(10, 10);
        outbox.push(NOW, suspect(1, 10));
        outbox.push(NOW, suspect(2, 10));
        outbox.push(NOW, suspect(1, 20));
        outbox.push(NOW, recovered(1));
        outbox.push(NOW, recovered(1));
        assert_eq!((outbox.len(), outbox.counts().merged), (4, 1));
        outbox.connected(0);
        let Next::Send(first) = outbox.next(NOW) else {
            panic!("nothing to send");
        };
        assert_eq!(first.body, suspect(1, 20));
        outbox.push(NOW, suspect(1, 30));
        assert_eq!(outbox.len(), 5);
    }

    /// Goal: a center cannot acknowledge what it cannot have. Method: an acknowledgement of everything
    /// before anything was sent.
    #[test]
    fn unsent_reports_are_not_acknowledged() {
        let mut outbox = outbox(10, 10);
        outbox.push(NOW, recovered(1));
        outbox.connected(u64::MAX);
        assert_eq!(sent(&mut outbox, NOW), [1]);
        outbox.push(NOW, recovered(2));
        outbox.acknowledge(u64::MAX);
        assert_eq!(sent(&mut outbox, NOW), [2]);
    }
}
