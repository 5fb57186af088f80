//! The loop of a center: takes reports in, lets the policy judge, stores what changed, and only then
//! acknowledges and directs. Whatever fails to be stored ends the lead: what is in memory is then more than
//! anybody else would know, so it is dropped, and read again by who leads next.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tidegate_core::healing::{
    center::{Center, NotAdmitted},
    directive::Directive,
};
use tidegate_xds::healing::server::{Answer, Event};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    Shared, Standing,
    store::{Role, Store},
};

/// Time passes for the policy this often.
const TICK: Duration = Duration::from_millis(200);

/// Between attempts to lead, and between renewals of the lead.
const CAMPAIGN: Duration = Duration::from_secs(1);

/// Events of one batch. One transaction of the store serves them all.
const BATCH: usize = 32;

/// What a person says about an endpoint.
pub(super) struct Word {
    /// Which endpoint.
    pub(super) endpoint: SocketAddr,
    /// What of it.
    pub(super) claim: WordClaim,
    /// Whether it was taken: there must be something known of the endpoint, and we must lead.
    pub(super) taken: flume::Sender<bool>,
}

/// What a person claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WordClaim {
    /// It is sick.
    Confirm,
    /// It is well.
    Clear,
}

/// A stream of a node.
struct Stream {
    node: Box<str>,
    answers: mpsc::Sender<Answer>,
}

/// The loop's state.
pub(super) struct Engine {
    shared: Arc<Shared>,
    store: Store,
    events: flume::Receiver<Event>,
    words: flume::Receiver<Word>,
    streams: BTreeMap<u64, Stream>,
    /// By node: its stream. Invariant: the same pairs as in `streams`.
    by_node: BTreeMap<Box<str>, u64>,
    /// Streams that wait for an acknowledgement.
    unanswered: BTreeSet<u64>,
    /// People who wait until their word is stored.
    unconfirmed: Vec<(flume::Sender<bool>, bool)>,
    /// When the lead was last tried for, or renewed.
    campaigned: Instant,
}

impl Engine {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Store,
        events: flume::Receiver<Event>,
        words: flume::Receiver<Word>,
    ) -> Engine {
        Engine {
            shared,
            store,
            events,
            words,
            streams: BTreeMap::new(),
            by_node: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            unconfirmed: Vec::new(),
            campaigned: Instant::now(),
        }
    }

    /// Runs for ever.
    pub(super) async fn run(&mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                Ok(event) = self.events.recv_async() => self.take_batch(event),
                Ok(word) = self.words.recv_async() => self.hear(word),
                _ = tick.tick() => self.tick().await,
            }
            self.flush().await;
        }
    }

    /// Gives up the lead, if we have it.
    pub(super) async fn resign(&mut self) {
        self.step_down("stopping");
        self.store.resign().await;
    }

    /// Tries to lead.
    pub(super) async fn campaign(&mut self) {
        self.campaigned = Instant::now();
        match self.store.campaign().await {
            Ok(Role::Leader { epoch, saved }) => self.lead(epoch, saved),
            Ok(Role::Follower { leader }) => {
                let standing = &mut *self.shared.standing_mut();
                if let Standing::Following(known) = standing
                    && *known != leader
                {
                    tracing::info!(
                        "healing center: {} leads",
                        leader.as_deref().unwrap_or("nobody")
                    );
                    *known = leader;
                }
            }
            Err(e) => tracing::warn!("healing center: cannot lead: {e}"),
        }
    }

    fn lead(&mut self, epoch: u64, saved: Vec<(String, String)>) {
        let settings = self.shared.settings.clone();
        let (center, strange) = Center::new(settings, epoch, saved);
        for key in strange {
            tracing::warn!("healing center: cannot read the record `{key}`: it is left out");
        }
        tracing::info!(
            "healing center: leading in epoch {epoch}; {} nodes, {} endpoints known",
            center.nodes().count(),
            center.endpoints().count()
        );
        *self.shared.standing_mut() = Standing::Leading(Box::new(center));
    }

    /// Leads no more: every stream ends, and goes to who leads next.
    fn step_down(&mut self, why: &str) {
        let mut standing = self.shared.standing_mut();
        if let Standing::Leading(_) = *standing {
            tracing::warn!("healing center: leading no more: {why}");
            *standing = Standing::Following(None);
        }
        drop(standing);
        for stream in std::mem::take(&mut self.streams).into_values() {
            let _ = stream.answers.try_send(Answer::NotLeading(None));
        }
        self.by_node.clear();
        self.unanswered.clear();
        for (taken, _) in self.unconfirmed.drain(..) {
            let _ = taken.send(false);
        }
    }

    async fn tick(&mut self) {
        let leads = self.with_center(|center, now| center.tick(now)).is_some();
        if self.campaigned.elapsed() < CAMPAIGN {
            return;
        }
        if !leads {
            return self.campaign().await;
        }
        self.campaigned = Instant::now();
        if !self.store.renew().await {
            self.step_down("the lease was lost");
        }
    }

    /// Calls the policy, if we lead, with the time since the Unix epoch.
    fn with_center<T>(&self, call: impl FnOnce(&mut Center, Duration) -> T) -> Option<T> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        match &mut *self.shared.standing_mut() {
            Standing::Leading(center) => Some(call(center, now)),
            Standing::Following(_) => None,
        }
    }

    fn take_batch(&mut self, first: Event) {
        self.take(first);
        for _ in 1..BATCH {
            let Ok(event) = self.events.try_recv() else {
                return;
            };
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Opened {
                stream,
                node,
                clock,
                answers,
            } => {
                let id = node.id.clone();
                // The last one that opens counts: the other is one that has not noticed its end yet.
                if let Some(old) = self.by_node.get(&id).copied() {
                    self.end(old);
                }
                match self.with_center(|center, now| center.open(now, node, clock)) {
                    Some(Ok(_)) => {
                        self.by_node.insert(id.clone(), stream);
                        self.streams.insert(stream, Stream { node: id, answers });
                        self.unanswered.insert(stream);
                    }
                    Some(Err(refusal)) => {
                        let _ = answers.try_send(Answer::Refuse(reason(refusal)));
                    }
                    None => {
                        let _ = answers.try_send(Answer::NotLeading(self.leader()));
                    }
                }
            }
            Event::Arrived { stream, arrival } => {
                // A stream that was ended may have said more.
                if let Some(node) = self.streams.get(&stream).map(|stream| stream.node.clone()) {
                    self.with_center(|center, now| center.receive(now, &node, arrival));
                    self.unanswered.insert(stream);
                }
            }
            Event::Closed { stream } => self.end(stream),
        }
    }

    /// A stream is over. Dropping its answers ends it on the wire.
    fn end(&mut self, stream: u64) {
        if let Some(Stream { node, .. }) = self.streams.remove(&stream) {
            self.by_node.remove(&node);
            self.unanswered.remove(&stream);
            self.with_center(|center, now| center.close(now, &node));
        }
    }

    fn leader(&self) -> Option<Box<str>> {
        match &*self.shared.standing() {
            Standing::Leading(_) => None,
            Standing::Following(leader) => leader.clone(),
        }
    }

    fn hear(&mut self, word: Word) {
        let endpoint = word.endpoint;
        let known = self.with_center(|center, now| match word.claim {
            WordClaim::Confirm => center.confirm(now, endpoint),
            WordClaim::Clear => center.clear(now, endpoint),
        });
        self.unconfirmed.push((word.taken, known == Some(true)));
    }

    /// Stores what changed, then answers.
    async fn flush(&mut self) {
        let taken = self.with_center(|center, _| (center.take_changes(), center.take_directives()));
        let Some((changes, directives)) = taken else {
            return self.confirm();
        };
        if !changes.is_empty()
            && let Err(e) = self.store.commit(changes).await
        {
            return self.step_down(&e.to_string());
        }
        self.confirm();
        for directive in directives {
            self.direct(directive);
        }
        for stream in std::mem::take(&mut self.unanswered) {
            self.acknowledge(stream);
        }
    }

    fn confirm(&mut self) {
        for (taken, known) in self.unconfirmed.drain(..) {
            let _ = taken.send(known);
        }
    }

    fn direct(&mut self, directive: Directive) {
        let Some(stream) = self.by_node.get(&directive.node).copied() else {
            return;
        };
        self.unanswered.remove(&stream);
        let sequence = self.sequence(&directive.node).0;
        self.answer(
            stream,
            Answer::Direct {
                sequence,
                directive,
            },
        );
    }

    fn acknowledge(&mut self, stream: u64) {
        let Some(node) = self.streams.get(&stream).map(|stream| stream.node.clone()) else {
            return;
        };
        let (sequence, epoch) = self.sequence(&node);
        self.answer(stream, Answer::Acknowledge { sequence, epoch });
    }

    /// The newest stored report of a node, and the epoch.
    fn sequence(&self, node: &str) -> (u64, u64) {
        let found = self.with_center(|center, _| (center.sequence(node), center.epoch()));
        found.unwrap_or_default()
    }

    /// Who does not read his answers is cut off.
    fn answer(&mut self, stream: u64, answer: Answer) {
        let found = self.streams.get(&stream);
        if found.is_some_and(|found| found.answers.try_send(answer).is_err()) {
            self.end(stream);
        }
    }
}

fn reason(refusal: NotAdmitted) -> &'static str {
    match refusal {
        NotAdmitted::OldIncarnation => "a later run of this node was here",
        NotAdmitted::TooMany => "too many nodes are connected",
    }
}
