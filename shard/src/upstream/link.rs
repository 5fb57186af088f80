//! A connection to an endpoint as a link: where it stands in its life.

use std::{
    cell::Cell,
    ops::Deref,
    rc::{Rc, Weak},
    time::Duration,
};

use tidegate_core::{
    encryption::{
        link::{self, Action, Event, State, step},
        replacement::{Make, age_max},
        rollout::LinkKind,
    },
    stats::{Counter, ShardCounters},
};

use crate::{local::Local, transport::Stream};

/// A connection, shared by the request that is on it and the endpoint that may have to replace it. It is
/// closed when the [`super::Connection`] that brought it up is dropped.
pub(crate) struct Link {
    stream: Stream,
    state: Cell<link::Link>,
    make: Make,
    /// When it is too old, on the driver's clock.
    replace_at: Duration,
    /// It was given back once, so it will be again: links of relays never are.
    pooled: Cell<bool>,
    draining_since: Cell<Duration>,
    /// Its place among the links of its endpoint.
    place: Cell<usize>,
    /// Weak, since the shard holds the plane that holds the link.
    local: Weak<Local>,
}

impl Link {
    /// A link over a connection that was just made.
    pub(super) fn new(
        local: &Rc<Local>,
        stream: Stream,
        max_connection_age: Option<Duration>,
    ) -> Link {
        let now = local.now();
        let unix_s = local.unix_ns(local.driver.now_ns()) / 1_000_000_000;
        let left = stream
            .certificate_expiry_unix_s()
            .map(|expiry| Duration::from_secs(expiry.saturating_sub(unix_s)));
        let age = age_max(max_connection_age, left, local.random());
        let link = Link {
            make: Make {
                kind: stream.kind(),
                generation: stream.generation(),
            },
            stream,
            state: Cell::new(link::Link::MADE),
            replace_at: age.map_or(Duration::MAX, |age| now.saturating_add(age)),
            pooled: Cell::new(false),
            draining_since: Cell::new(Duration::ZERO),
            place: Cell::new(0),
            local: Rc::downgrade(local),
        };
        if let Some(gauge) = link.gauge(local.counters(), State::Selectable) {
            gauge.add(1);
        }
        link
    }

    /// Something happened to it.
    pub(super) fn step(&self, event: Event) -> Option<Action> {
        let before = self.state.get();
        let (after, action) = step(before, event);
        self.state.set(after);
        if before.state != after.state {
            self.count(before, after);
            // The task of one in HTTP/2 closes it.
            self.stream.wake_reader();
        }
        action
    }

    /// What it was made with.
    pub(super) fn make(&self) -> Make {
        self.make
    }

    /// The scheme of what goes over it.
    pub(super) fn scheme(&self) -> &'static str {
        match self.make.kind {
            LinkKind::Plaintext => "http",
            LinkKind::Tls => "https",
        }
    }

    /// Whether it is not what is wanted, or too old.
    pub(super) fn is_old(&self, wanted: Make, now: Duration) -> bool {
        self.make != wanted || now >= self.replace_at
    }

    /// Where it stands.
    pub(super) fn state(&self) -> link::Link {
        self.state.get()
    }

    /// Whether it was given back before.
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled.get()
    }

    /// It is given back, or was made for the pool.
    pub(super) fn set_pooled(&self) {
        self.pooled.set(true);
    }

    /// Since when it drains.
    pub(super) fn draining_since(&self) -> Duration {
        self.draining_since.get()
    }

    /// Takes it out of use: it closes as soon as nothing is on it.
    pub(super) fn retire(&self, since: Duration) {
        self.draining_since.set(since);
        self.step(Event::Retire);
    }

    /// Closes it under the hands of what is on it, as it has drained for too long.
    pub(super) fn force(&self) {
        if self.step(Event::DrainTimedOut).is_some() {
            self.stream.cut();
        }
    }

    fn count(&self, before: link::Link, after: link::Link) {
        let Some(local) = self.local.upgrade() else {
            return;
        };
        let counters = local.counters();
        if let Some(gauge) = self.gauge(counters, before.state) {
            gauge.sub(1);
        }
        if let Some(gauge) = self.gauge(counters, after.state) {
            gauge.add(1);
        }
        if after.state == State::Closed(link::Closing::Forced) {
            counters.links_forced.add(1);
        }
        counters.link_requests_lost.add(u64::from(after.lost()));
    }

    /// What counts links in `state`, if they are counted.
    fn gauge<'a>(&self, counters: &'a ShardCounters, state: State) -> Option<&'a Counter> {
        match (state, self.make.kind) {
            (State::Selectable, LinkKind::Plaintext) => Some(&counters.links_plaintext),
            (State::Selectable, LinkKind::Tls) => Some(&counters.links_tls),
            (State::Draining, _) => Some(&counters.links_draining),
            (State::Warming | State::Closed(_), _) => None,
        }
    }
}

impl Deref for Link {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

/// The open links of an endpoint, idle and in use.
#[derive(Default)]
pub(super) struct Links(Vec<Rc<Link>>);

impl Links {
    pub(super) fn add(&mut self, link: &Rc<Link>) {
        link.place.set(self.0.len());
        self.0.push(link.clone());
    }

    pub(super) fn remove(&mut self, link: &Link) {
        let place = link.place.get();
        if !self.0.get(place).is_some_and(|l| std::ptr::eq(&**l, link)) {
            return;
        }
        self.0.swap_remove(place);
        if let Some(moved) = self.0.get(place) {
            moved.place.set(place);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Link>> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
