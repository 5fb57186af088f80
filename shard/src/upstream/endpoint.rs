//! An endpoint on this shard: its links, and what they ought to be.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tidegate_core::{
    config::model::UpstreamProtocol,
    encryption::{
        replacement::{Make, Old, Pace, Plan, Standing, Target, plan},
        rollout::LinkKind,
    },
    healing::{counter::Fault, outlier::Rows},
    id::{EndpointId, ShardId},
    snapshot,
    stats::{EndpointCounters, PerShard},
};

use super::{
    Connection,
    link::{Link, Links},
    shared::{Dialling, Shared},
};
use crate::local::Local;

/// An endpoint on this shard. It outlives snapshots as long as its address stays in the cluster.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// In the snapshot in use; `None` once it is gone.
    id: Cell<Option<EndpointId>>,
    shard: ShardId,
    counters: Arc<PerShard<EndpointCounters>>,
    /// The last checked in is the first checked out: it is the warmest, and the rest can age out. Those that
    /// are to be replaced by another kind lie below the others.
    pub(super) idle: RefCell<Vec<Connection>>,
    /// Those in HTTP/2.
    pub(super) shared: RefCell<Vec<Rc<Shared>>>,
    /// One of those that is being made.
    pub(super) dialling: RefCell<Option<Rc<Dialling>>>,
    /// Every open one, idle or in use.
    pub(super) links: RefCell<Links>,
    /// `None` until the first policy is known, before the first request.
    target: Cell<Option<Target>>,
    /// The target's, apart for the fast path.
    wanted: Cell<Make>,
    /// How long a link that is replaced may finish what is on it; `None` is without limit.
    pub(super) drain_timeout: Cell<Option<Duration>>,
    /// The pace of the replacement under way.
    pub(super) round: RefCell<Option<Rc<Cell<Pace>>>>,
    /// Warm-ups under way.
    pub(super) warming: Cell<u32>,
    /// Why the last handshake failed, in words.
    fault: Cell<&'static str>,
    /// What rows of failures are counted by, where it is judged by them.
    rows: Cell<Option<Rows>>,
    /// One of them is long enough, and was not looked at yet.
    has_full_row: Cell<bool>,
}

impl Endpoint {
    pub(super) fn new(endpoint: &snapshot::Endpoint, shard: ShardId) -> Rc<Endpoint> {
        Rc::new(Endpoint {
            address: endpoint.address,
            id: Cell::new(Some(endpoint.id)),
            shard,
            counters: endpoint.counters.clone(),
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialling: RefCell::default(),
            links: RefCell::default(),
            target: Cell::new(None),
            wanted: Cell::new(Make::default()),
            drain_timeout: Cell::new(None),
            round: RefCell::default(),
            warming: Cell::new(0),
            fault: Cell::new(""),
            rows: Cell::new(None),
            has_full_row: Cell::new(false),
        })
    }

    /// This shard's counters of it.
    pub(crate) fn counters(&self) -> Option<&EndpointCounters> {
        self.counters.get(self.shard)
    }

    /// Counts what came of a call, or of a connection for it: `None` is an answer that is no failure.
    pub(super) fn note_row(&self, fault: Option<Fault>) {
        if let Some((rows, counters)) = self.rows.get().zip(self.counters()) {
            let is_full = rows.count(fault, counters);
            let was_full = self.has_full_row.get() && fault.is_some();
            self.has_full_row.set(is_full || was_full);
        }
    }

    /// Whether a row of failures is long enough since this was asked last.
    pub(super) fn take_full_row(&self) -> bool {
        self.has_full_row.take()
    }

    /// What rows of failures are counted by from now on.
    pub(super) fn set_rows(&self, rows: Option<Rows>) {
        self.rows.set(rows);
    }

    /// Why the last TLS handshake with it failed, in words; empty if none did.
    pub(crate) fn fault(&self) -> &'static str {
        self.fault.get()
    }

    pub(super) fn note_fault(&self, fault: &'static str) {
        self.fault.set(fault);
    }

    /// Its place in the snapshot in use.
    pub(super) fn id(&self) -> Option<EndpointId> {
        self.id.get()
    }

    /// Whether the snapshot in use has it no more.
    pub(super) fn is_gone(&self) -> bool {
        self.id.get().is_none()
    }

    /// A new snapshot has it, under `id`.
    pub(super) fn stay(&self, id: EndpointId) {
        self.id.set(Some(id));
    }

    /// A new snapshot has it no more: idle links close, busy ones finish.
    pub(super) fn leave(&self, now: Duration) {
        self.id.set(None);
        self.retire_where(now, |_| true);
    }

    /// What its links ought to be.
    pub(super) fn wanted(&self) -> Make {
        self.wanted.get()
    }

    /// What a connection for a request at hand is made as.
    pub(super) fn dialled(&self) -> Make {
        self.target.get().map_or(self.wanted(), |t| t.dialled())
    }

    /// Sets what its links ought to be; says whether there may be something to replace.
    pub(super) fn aim(&self, make: Make, old: Old, now: Duration) -> bool {
        let Some(mut target) = self.target.get() else {
            self.target.set(Some(Target::new(make, now)));
            self.wanted.set(make);
            return false;
        };
        let changed = target.aim(make, old, now);
        self.target.set(Some(target));
        self.wanted.set(make);
        if changed {
            let mut idle = self.idle.borrow_mut();
            idle.sort_by_key(|c| c.socket.make() == make);
        }
        changed
    }

    /// A connection was made.
    pub(super) fn made(&self, local: &Local, make: Make) {
        let Some(mut target) = self.target.get() else {
            return;
        };
        let switches = target.is_to_be_proven();
        if !target.made(make) {
            return;
        }
        self.target.set(Some(target));
        if switches {
            local.counters().link_switches.add(1);
        }
    }

    /// Whether `round` is the replacement under way.
    pub(super) fn is_in(&self, round: &Rc<Cell<Pace>>) -> bool {
        let current = self.round.borrow();
        current.as_ref().is_some_and(|r| Rc::ptr_eq(r, round))
    }

    /// Whether a replacement is to begin.
    pub(super) fn is_to_begin(&self, now: Duration) -> bool {
        if self.round.borrow().is_some() {
            return false;
        }
        let todo = plan(&self.standing(now, 0));
        todo.missing > 0 || todo.drain_lasting
    }

    /// Its links, counted. `room` is what the cluster leaves.
    pub(super) fn standing(&self, now: Duration, room: u32) -> Standing {
        let wanted = self.wanted();
        let target = self.target.get();
        let mut standing = Standing {
            warming: self.warming.get(),
            to_be_proven: target.is_some_and(|t| t.is_to_be_proven()),
            reached: target.is_some_and(|t| t.is_reached()),
            room,
            ..Standing::default()
        };
        for link in self.links.borrow().iter() {
            let state = link.state();
            if !state.is_selectable() || !link.is_old(wanted, now) {
                continue;
            }
            match (state.in_flight, link.is_pooled()) {
                (0, _) => standing.old_idle += 1,
                (_, true) => standing.old_busy += 1,
                (_, false) => standing.old_lasting += 1,
            }
        }
        standing
    }

    /// Offers a link that was warmed, and retires one that it replaces.
    pub(super) fn offer(
        &self,
        local: &Rc<Local>,
        connection: Connection,
        settings: &snapshot::Cluster,
    ) {
        let now = local.now();
        let link = connection.socket.clone();
        link.set_pooled();
        if self.is_gone() || link.make() != self.wanted() {
            link.retire(now);
            return;
        }
        // Counted before the new one lies among the others, which is never old itself.
        let todo = plan(&Standing {
            warmed: 1,
            ..self.standing(now, 0)
        });
        match settings.config.protocol {
            UpstreamProtocol::Http1 => self.idle.borrow_mut().push(connection),
            UpstreamProtocol::Http2 => drop(Shared::start(local, settings, connection)),
        }
        self.retire_old(&todo, now);
        let most = settings.config.idle_connections as usize;
        if self.idle.borrow().len() > most {
            let surplus = self.idle.borrow_mut().pop();
            drop(surplus);
        }
    }

    /// Links in TLS that were made with another context than the one in use.
    pub(super) fn made_otherwise(&self) -> Vec<Weak<Link>> {
        let wanted = self.wanted();
        let links = self.links.borrow();
        let others = links
            .iter()
            .filter(|link| link.make().kind == LinkKind::Tls && link.make() != wanted);
        others.map(Rc::downgrade).collect()
    }

    /// Drains links that were never given back and are not as wanted.
    pub(super) fn drain_lasting(&self, now: Duration) {
        let wanted = self.wanted();
        self.retire_where(now, |link| {
            !link.is_pooled() && link.state().in_flight > 0 && link.is_old(wanted, now)
        });
    }

    /// Closes idle connections that the endpoint closed, or that nobody used for `idle_timeout`.
    pub(super) fn close_unusable(&self, now: Duration, idle_timeout: Duration) {
        let idle = self.idle.take();
        let (kept, gone): (Vec<_>, Vec<_>) = idle
            .into_iter()
            .partition(|c| c.is_usable(now, idle_timeout));
        self.idle.replace(kept);
        drop(gone);
    }

    /// Ends plaintext that policy has ruled out for longer than a drain may take, replaced or not.
    pub(super) fn end_overdue(&self, now: Duration) {
        let Some((target, timeout)) = self.target.get().zip(self.drain_timeout.get()) else {
            return;
        };
        let since = now.saturating_sub(timeout);
        self.retire_where(since, |link| {
            link.state().is_selectable() && target.is_overdue(link.make(), true, timeout, now)
        });
    }

    /// Closes links that have drained for too long.
    pub(super) fn end_drains(&self, now: Duration) {
        let Some(timeout) = self.drain_timeout.get() else {
            return;
        };
        for link in self.links.borrow().iter() {
            let drained = now.saturating_sub(link.draining_since());
            if link.state().is_draining() && drained >= timeout {
                link.force();
            }
        }
    }

    /// Retires old links as planned, the longest idle first.
    fn retire_old(&self, todo: &Plan, now: Duration) {
        let wanted = self.wanted();
        let is_old = |link: &Link| link.state().is_selectable() && link.is_old(wanted, now);
        for _ in 0..todo.close_idle {
            let mut idle = self.idle.borrow_mut();
            let Some(place) = idle.iter().position(|c| is_old(&c.socket)) else {
                drop(idle);
                let links = self.links.borrow();
                // In HTTP/2 they lie nowhere, and their tasks close them.
                let unused = |link: &&Rc<Link>| is_old(link) && link.state().in_flight == 0;
                match links.iter().find(unused) {
                    Some(link) => link.retire(now),
                    None => break,
                }
                continue;
            };
            let closed = idle.remove(place);
            drop(idle);
            closed.socket.retire(now);
        }
        let links = self.links.borrow();
        let busy =
            |link: &&Rc<Link>| is_old(link) && link.is_pooled() && link.state().in_flight > 0;
        links
            .iter()
            .filter(busy)
            .take(todo.drain_busy as usize)
            .for_each(|link| link.retire(now));
    }

    /// Retires links for which `condition` holds; their drain counts from `since`.
    pub(super) fn retire_where(&self, since: Duration, condition: impl Fn(&Link) -> bool) {
        let matching = |link: &&Rc<Link>| condition(link);
        self.links
            .borrow()
            .iter()
            .filter(matching)
            .for_each(|link| link.retire(since));
        let idle = self.idle.take();
        let (closed, kept): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|c| c.socket.state().is_closed());
        self.idle.replace(kept);
        // Outside of the borrow, as a connection takes itself off the list.
        drop(closed);
    }
}
