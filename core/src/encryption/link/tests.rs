//! The bounded model check of replacing links (E12): every order of events, to a depth, over an old and a
//! new link, as [`plan`] warms and retires them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::encryption::replacement::{Standing, plan};

/// Events in a row. Every interleaving of this many is checked.
const DEPTH: usize = 14;
/// Requests in flight at once.
const REQUESTS: usize = 2;

/// Two links at most, and the requests on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    wanted: Kind,
    slots: [Option<Slot>; 2],
    requests: [Request; REQUESTS],
    /// Warmed links that have not taken an old one's place.
    warmed: u32,
    /// What a request dials when no link is there.
    dialled: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    kind: Kind,
    state: Phase,
    in_flight: u32,
}

/// Plaintext (0) or TLS (1), and the place of a [`State`] in [`PHASES`]: what a set can tell apart.
type Kind = u8;
type Phase = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    None,
    /// Selected onto a link, nothing sent.
    Bound(usize),
    /// Sent, not answered.
    Sent(usize),
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Select,
    Send(usize),
    Response(usize),
    HeartBeat(usize),
    Switch,
    PeerClose(usize),
    Timeout(usize),
    Warmed(usize),
}

const PHASES: [State; 3] = [State::Warming, State::Selectable, State::Draining];

impl Slot {
    fn new(kind: Kind, link: Link) -> Option<Slot> {
        let state = PHASES.iter().position(|p| *p == link.state)?;
        Some(Slot {
            kind,
            state: state as Phase,
            in_flight: link.in_flight,
        })
    }

    fn link(&self) -> Link {
        Link {
            state: PHASES[usize::from(self.state)],
            in_flight: self.in_flight,
        }
    }
}

impl World {
    /// One plaintext link, in use by nobody.
    fn start() -> World {
        World {
            wanted: 0,
            slots: [Slot::new(0, Link::MADE), None],
            requests: [Request::None; REQUESTS],
            warmed: 0,
            dialled: 0,
        }
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = vec![Move::Switch];
        if self.requests.contains(&Request::None) {
            moves.push(Move::Select);
        }
        for (i, request) in self.requests.iter().enumerate() {
            match request {
                Request::Bound(_) => moves.push(Move::Send(i)),
                Request::Sent(_) => moves.push(Move::Response(i)),
                Request::None => {}
            }
        }
        for (i, _) in self.slots.iter().enumerate().filter(|(_, s)| s.is_some()) {
            moves.extend([Move::HeartBeat(i), Move::PeerClose(i), Move::Timeout(i)]);
            if self.link(i).is_some_and(|l| l.state == State::Warming) {
                moves.push(Move::Warmed(i));
            }
        }
        moves
    }

    fn link(&self, i: usize) -> Option<Link> {
        Some(self.slots[i]?.link())
    }

    fn selectable(&self) -> impl Iterator<Item = usize> {
        (0..2).filter(|i| self.link(*i).is_some_and(Link::is_selectable))
    }

    /// The selectable link that a request takes: one as wanted before an old one.
    fn choose(&self) -> Option<usize> {
        self.selectable()
            .max_by_key(|i| self.slots[*i].is_some_and(|s| s.kind == self.wanted))
    }

    /// What the holder of the links does with a move. Nothing here waits: what a request does is done
    /// when the move is.
    fn after(mut self, step: Move) -> World {
        match step {
            Move::Select => self.select(),
            Move::Send(r) => {
                if let Request::Bound(i) = self.requests[r] {
                    assert!(self.link(i).is_some(), "sent on a link that is gone");
                    self.requests[r] = Request::Sent(i);
                }
            }
            Move::Response(r) => {
                if let Request::Sent(i) = self.requests[r] {
                    self.requests[r] = Request::None;
                    self.tell(i, Event::Answered);
                }
            }
            Move::HeartBeat(i) => {
                let state = self.link(i).map(|l| l.state);
                let beats = matches!(state, Some(State::Selectable | State::Draining));
                assert_eq!(self.tell(i, Event::HeartBeat) == Some(Action::Beat), beats);
            }
            Move::Switch => {
                self.wanted = 1 - self.wanted;
                self.warmed = 0;
                // A warm-up of what is not wanted any more is given up.
                for i in 0..2 {
                    if self.link(i).is_some_and(|l| l.state == State::Warming) {
                        self.tell(i, Event::Retire);
                    }
                }
            }
            Move::PeerClose(i) => {
                self.tell(i, Event::PeerClosed);
            }
            Move::Timeout(i) => self.time_out(i),
            Move::Warmed(i) => {
                assert_eq!(self.tell(i, Event::Warmed), Some(Action::Offer));
                self.dialled = self.wanted;
                self.warmed += 1;
            }
        }
        self.settle();
        self
    }

    fn select(&mut self) {
        let Some(r) = self.requests.iter().position(|r| *r == Request::None) else {
            return;
        };
        let chosen = self.choose().or_else(|| {
            // None is there: the request makes its own, if there is room in this small world.
            let free = self.slots.iter().position(Option::is_none)?;
            self.slots[free] = Slot::new(self.dialled, Link::MADE);
            Some(free)
        });
        let Some(i) = chosen else { return };
        assert_eq!(self.tell(i, Event::Selected), None, "declined");
        self.requests[r] = Request::Bound(i);
    }

    fn time_out(&mut self, i: usize) {
        let others: Vec<_> = (0..2).filter(|o| *o != i).map(|o| self.slots[o]).collect();
        let warming = self.link(i).is_some_and(|l| l.state == State::Warming);
        let event = if warming {
            Event::WarmUpFailed
        } else {
            Event::DrainTimedOut
        };
        let action = self.tell(i, event);
        if warming {
            assert_eq!(action, Some(Action::WarmAgain));
            let after: Vec<_> = (0..2).filter(|o| *o != i).map(|o| self.slots[o]).collect();
            assert_eq!(others, after, "a failed warm-up touched another link");
        }
    }

    /// One step of the machine, and what must hold about a link that closes in it.
    fn tell(&mut self, i: usize, event: Event) -> Option<Action> {
        let slot = self.slots[i]?;
        let (link, action) = step(slot.link(), event);
        assert_eq!(link.lost(), 0, "{event:?} lost a request on {slot:?}");
        self.slots[i] = Slot::new(slot.kind, link);
        if let State::Closed(how) = link.state {
            let on_it = |r: &Request| matches!(r, Request::Bound(l) | Request::Sent(l) if *l == i);
            let cut = self.requests.iter().filter(|r| on_it(r)).count();
            let excused = matches!(how, Closing::Peer | Closing::Forced);
            assert!(cut == 0 || excused, "{event:?} closed under {cut} requests");
            for request in self.requests.iter_mut().filter(|r| on_it(r)) {
                *request = Request::None;
            }
        }
        action
    }

    /// What is done between events: old links retire for warmed ones, and what is missing is warmed.
    fn settle(&mut self) {
        let old = |w: &World, busy: bool| {
            let is_old = |s: &&Slot| {
                s.link().is_selectable() && s.kind != w.wanted && (s.in_flight > 0) == busy
            };
            w.slots.iter().flatten().filter(is_old).count() as u32
        };
        let warming = |s: &&Slot| s.link().state == State::Warming;
        let todo = plan(&Standing {
            old_idle: old(self, false),
            old_busy: old(self, true),
            old_lasting: 0,
            warming: self.slots.iter().flatten().filter(warming).count() as u32,
            warmed: self.warmed,
            to_be_proven: self.dialled != self.wanted,
            reached: self.dialled == self.wanted,
            room: self.slots.iter().filter(|s| s.is_none()).count() as u32,
        });
        let retire = todo.close_idle + todo.drain_busy;
        for _ in 0..retire {
            let mut old = self.selectable().filter(|i| {
                let slot = self.slots[*i];
                slot.is_some_and(|s| {
                    s.kind != self.wanted && (s.in_flight == 0) == (todo.close_idle > 0)
                })
            });
            if let Some(i) = old.next() {
                drop(old);
                self.tell(i, Event::Retire);
            }
        }
        self.warmed = 0;
        for slot in self
            .slots
            .iter_mut()
            .filter(|s| s.is_none())
            .take(todo.warm as usize)
        {
            *slot = Slot::new(self.wanted, Link::WARMING);
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        for (i, slot) in self.slots.iter().enumerate() {
            let on_it = self
                .requests
                .iter()
                .filter(|r| matches!(r, Request::Bound(l) | Request::Sent(l) if *l == i))
                .count() as u32;
            let counted = slot.map_or(0, |s| s.in_flight);
            assert_eq!(on_it, counted, "requests are on one link each, and counted");
        }
    }
}

/// Goal: whatever the order of selections, sends, answers, heart-beats, switches both ways, closes by the
/// peer and time-outs, no request is lost or made to wait, and no switch leaves nothing to select (E6, E12).
/// Method: every sequence of events to a depth, over two links; sequences that lead to the same world
/// go on as one, and are counted.
#[test]
fn every_interleaving_keeps_every_request() {
    let mut worlds = BTreeMap::from([(World::start(), 1u128)]);
    let mut seen = BTreeSet::new();
    for _ in 0..DEPTH {
        let mut next: BTreeMap<World, u128> = BTreeMap::new();
        for (world, ways) in worlds {
            seen.insert(world);
            for event in world.moves() {
                let after = world.after(event);
                after.check();
                let was = world.selectable().count() > 0;
                let is = after.selectable().count() > 0;
                assert!(
                    is || !was || matches!(event, Move::PeerClose(_)),
                    "{event:?} left nothing to select: {world:?}, then {after:?}"
                );
                if matches!(event, Move::Select) && was {
                    assert_ne!(world.requests, after.requests, "a request had to wait");
                }
                *next.entry(after).or_default() += ways;
            }
        }
        worlds = next;
    }
    let interleavings: u128 = worlds.values().sum();
    assert!(interleavings > 1_000_000_000, "{interleavings}");
    // Every phase of a switch was there, in both directions, with requests on old and new links.
    let was = |f: &dyn Fn(&World) -> bool| seen.iter().any(f);
    for kind in 0..2 {
        assert!(was(&|w| w.slots.iter().flatten().any(|s| s.kind == kind
            && s.in_flight == 1
            && s.link().is_draining())));
        assert!(was(&|w| w
            .slots
            .iter()
            .flatten()
            .any(|s| s.kind == kind && s.link().state == State::Warming)));
    }
}

/// Goal: a switch that nothing disturbs ends with the new kind alone. Method: from every world that the
/// events lead to, warm-ups succeed and requests end.
#[test]
fn undisturbed_switches_complete() {
    let mut worlds = BTreeSet::from([World::start()]);
    for _ in 0..8 {
        let next = worlds
            .iter()
            .flat_map(|w| w.moves().into_iter().map(|m| w.after(m)));
        worlds = worlds.iter().copied().chain(next).collect();
    }
    for start in worlds {
        let mut world = start;
        for _ in 0..8 {
            let pending = world
                .moves()
                .into_iter()
                .find(|m| matches!(m, Move::Warmed(_) | Move::Send(_) | Move::Response(_)));
            let Some(event) = pending else { break };
            world = world.after(event);
        }
        let rest: Vec<_> = world.slots.iter().flatten().collect();
        assert!(
            rest.iter()
                .all(|s| s.kind == world.wanted && s.link().is_selectable()),
            "{start:?} ends as {world:?}"
        );
    }
}

/// Goal: what is closed stays closed, and a link that takes no request says so. Method: every event in
/// every state.
#[test]
fn closed_is_the_end() {
    let events = [
        Event::Warmed,
        Event::WarmUpFailed,
        Event::Selected,
        Event::Answered,
        Event::HeartBeat,
        Event::Retire,
        Event::DrainTimedOut,
        Event::PeerClosed,
    ];
    for how in [
        Closing::Quiet,
        Closing::Forced,
        Closing::Peer,
        Closing::Failed,
    ] {
        let link = Link {
            state: State::Closed(how),
            in_flight: 0,
        };
        for event in events {
            let (after, action) = step(link, event);
            assert_eq!(after, link);
            let declined = (event == Event::Selected).then_some(Action::Decline);
            assert_eq!(action, declined, "{event:?}");
        }
    }
    for link in [
        Link::WARMING,
        Link {
            state: State::Draining,
            in_flight: 1,
        },
    ] {
        assert_eq!(step(link, Event::Selected), (link, Some(Action::Decline)));
    }
}
