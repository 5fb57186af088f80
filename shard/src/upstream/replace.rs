//! Replacing links in the background: warmed first, selected second, the old one drained third. What is to
//! be replaced is decided by [`tidegate_core::encryption`]; here it is done.
//!
//! * [`follow`]: what the links of each endpoint ought to be, after each change of policy or secrets; and which of
//!   them are not trusted any more.
//! * `replace`: a task while an endpoint has links to replace.
//! * [`sweep`]: every second, what time alone brings about.

use std::{cell::Cell, rc::Rc, time::Duration};

use tidegate_core::{
    config::model::UpstreamTls,
    encryption::{
        replacement::{Make, Old, Pace, WARM_UPS_MAX, plan},
        rollout::{LinkKind, wanted},
    },
    id::SubsetId,
    snapshot,
};

use super::{Cluster, Connection, Destination, Endpoint};
use crate::{
    executor,
    local::{Local, Plane},
    ring::Deadline,
    transport::recheck_link,
};

/// How often idle connections are looked through for those that were closed or are too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often a replacement looks what came of its warm-ups: the time of a handshake.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The pause after each link whose endpoint is checked again, which costs 0.2 ms.
const RECHECK_PAUSE: Duration = Duration::from_millis(1);

/// Tells every endpoint what its links ought to be, and begins to replace those that are not. To be called
/// whenever a snapshot or a context was installed. An endpoint whose links ought to be what they were is
/// left alone, whatever else changed (E11).
pub(crate) fn follow(local: &Rc<Local>) {
    let Some(plane) = local.plane() else { return };
    let mut has_changed = false;
    let node_id = &*plane.snapshot.config.node.id;
    for (settings, cluster) in plane.clusters() {
        let generation = local.client_generation(&settings.name);
        let tls = settings.config.tls.as_deref();
        for (endpoint, described) in cluster.endpoints().iter().zip(&settings.endpoints) {
            let kind = tls.map_or(LinkKind::Plaintext, |tls| {
                let e = described;
                wanted(tls, node_id, e.address, &e.zone, &e.labels, &e.capability)
            });
            let make = Make {
                kind,
                generation: match kind {
                    LinkKind::Plaintext => 0,
                    // While a secret is missing nothing can be made anew: what is there stays.
                    LinkKind::Tls => generation.unwrap_or(endpoint.wanted().generation),
                },
            };
            let old = match kind {
                LinkKind::Tls if is_required(settings) => Old::NotDialled,
                LinkKind::Plaintext if generation.is_none() => Old::NotDialled,
                _ => Old::Serves,
            };
            endpoint.drain_timeout.set(tls.map(|tls| tls.drain_timeout));
            if let Some(counters) = endpoint.counters() {
                counters.tls_wanted.set(u64::from(kind == LinkKind::Tls));
            }
            if endpoint.aim(make, old, local.now()) {
                begin(local, settings, cluster, endpoint);
                has_changed = true;
            }
        }
    }
    if has_changed {
        executor::spawn(&local.driver, distrust(local.clone()));
    }
}

/// Takes links out of use whose endpoint would not be trusted any more, replaced or not: what they were made with
/// says nothing about it. They finish what is in flight, within `drain_timeout`. One link after the other, since
/// each costs signatures.
async fn distrust(local: Rc<Local>) {
    let pause = local.driver.deadline();
    let Some(plane) = local.plane() else { return };
    for (settings, cluster) in plane.clusters() {
        for endpoint in cluster.endpoints() {
            for link in endpoint.made_otherwise() {
                // Held no longer than the check takes: it closes with the last who holds it.
                let checked = match link.upgrade() {
                    Some(link) => recheck_link(&local, &link, &settings.name, endpoint.address),
                    None => continue,
                };
                if let Err(fault) = checked {
                    endpoint.note_fault(fault);
                    endpoint.retire_where(local.now(), |l| std::ptr::eq(l, link.as_ptr()));
                }
                pause.set_after(RECHECK_PAUSE);
                pause.reached().await;
            }
        }
    }
}

/// Whether plaintext is ruled out.
fn is_required(settings: &snapshot::Cluster) -> bool {
    let tls = settings.config.tls.as_deref();
    tls.is_some_and(|tls| tls.mode == UpstreamTls::Required)
}

/// Begins to replace the links of an endpoint; a replacement under way is given up for it.
fn begin(
    local: &Rc<Local>,
    settings: &snapshot::Cluster,
    cluster: &Rc<Cluster>,
    endpoint: &Rc<Endpoint>,
) {
    let tls = settings.config.tls.as_deref();
    let window = tls.map_or(Duration::ZERO, |tls| tls.warm_up);
    let round = Rc::new(Cell::new(Pace::begin(local.now(), window, local.random())));
    *endpoint.round.borrow_mut() = Some(round.clone());
    let task = replace(local.clone(), cluster.clone(), endpoint.clone(), round);
    executor::spawn(&local.driver, task);
}

/// One round of replacing, until nothing is left to replace, or another round began.
async fn replace(
    local: Rc<Local>,
    cluster: Rc<Cluster>,
    endpoint: Rc<Endpoint>,
    round: Rc<Cell<Pace>>,
) {
    let next = local.driver.deadline();
    loop {
        let plane = local.plane();
        let settings = plane.as_deref().and_then(|p| settings_of(p, &cluster));
        let Some(settings) = settings.filter(|_| endpoint.is_in(&round)) else {
            return;
        };
        let now = local.now();
        let standing = endpoint.standing(now, room(settings, &cluster));
        let todo = plan(&standing);
        if todo.drain_lasting {
            endpoint.drain_lasting(now);
        }
        let nothing_left = todo.missing == 0 && standing.warming == 0;
        if nothing_left || endpoint.is_gone() || local.drain.is_on() {
            endpoint.round.borrow_mut().take();
            return;
        }
        let mut pace = round.get();
        if todo.warm > 0 && pace.not_before() <= now {
            pace.began(now, todo.missing, local.random());
            round.set(pace);
            executor::spawn(
                &local.driver,
                warm(
                    local.clone(),
                    cluster.clone(),
                    endpoint.clone(),
                    round.clone(),
                ),
            );
        }
        let look = now + LOOK_INTERVAL;
        let at = match todo.warm > 0 && standing.warming == 0 {
            true => pace.not_before().max(look),
            false => look,
        };
        drop(plane);
        next.set(at.as_nanos() as u64);
        next.reached().await;
    }
}

/// Makes one link beside the others, and lets it take an old one's place.
async fn warm(
    local: Rc<Local>,
    cluster: Rc<Cluster>,
    endpoint: Rc<Endpoint>,
    round: Rc<Cell<Pace>>,
) {
    let plane = local.plane();
    let Some(settings) = plane.as_deref().and_then(|p| settings_of(p, &cluster)) else {
        return;
    };
    let _counted = Warming::new(&local, &endpoint);
    local.counters().link_warm_ups.add(1);
    let to = Destination {
        local: &local,
        settings,
        cluster: &cluster,
        subset: SubsetId::ALL,
        hash: None,
        preface: None,
    };
    let made = Connection::make(to, &endpoint, endpoint.wanted().kind).await;
    let mut pace = round.get();
    match made {
        Ok(connection) => {
            pace.succeeded();
            endpoint.offer(&local, connection, settings);
        }
        Err(_) => {
            pace.failed(local.now(), local.random());
            local.counters().link_warm_ups_failed.add(1);
        }
    }
    round.set(pace);
}

/// A warm-up under way.
struct Warming<'a> {
    local: &'a Local,
    endpoint: &'a Endpoint,
}

impl<'a> Warming<'a> {
    fn new(local: &'a Local, endpoint: &'a Endpoint) -> Warming<'a> {
        endpoint.warming.set(endpoint.warming.get() + 1);
        local.counters().links_warming.add(1);
        Warming { local, endpoint }
    }
}

impl Drop for Warming<'_> {
    fn drop(&mut self) {
        let warming = &self.endpoint.warming;
        warming.set(warming.get().saturating_sub(1));
        self.local.counters().links_warming.sub(1);
    }
}

/// Connections that the cluster may still have for warm-ups. These may pass the circuit by
/// [`WARM_UPS_MAX`]: a new link stands beside the old one for a moment, and a pool that is in use to
/// the last connection must be able to switch.
fn room(settings: &snapshot::Cluster, cluster: &Cluster) -> u32 {
    let most = settings.config.circuit.connections;
    most.saturating_add(WARM_UPS_MAX)
        .saturating_sub(cluster.connections.get())
}

fn settings_of<'p>(plane: &'p Plane, cluster: &Rc<Cluster>) -> Option<&'p snapshot::Cluster> {
    let mut clusters = plane.clusters();
    let found = clusters.find(|(_, state)| Rc::ptr_eq(state, cluster));
    found.map(|(settings, _)| settings)
}

/// Every second: closes idle connections that the endpoint has closed or that are too old, ends drains
/// that took too long, and begins to replace links that have come of age.
pub(crate) async fn sweep(local: Rc<Local>) {
    let next: Deadline = local.driver.deadline();
    let mut known: Vec<Rc<Endpoint>> = Vec::new();
    loop {
        next.set_after(SWEEP_INTERVAL);
        next.reached().await;
        let Some(plane) = local.plane() else { continue };
        let now = local.now();
        // Those that are gone are known until the last of their links is.
        known.retain(|e| e.is_gone() && !e.links.borrow().is_empty());
        for (settings, cluster) in plane.clusters() {
            for endpoint in cluster.endpoints() {
                endpoint.close_unusable(now, settings.config.idle_timeout);
                if is_required(settings) {
                    endpoint.end_overdue(now);
                }
                if endpoint.is_to_begin(now) && !local.drain.is_on() {
                    begin(&local, settings, cluster, &endpoint);
                }
                known.push(endpoint);
            }
        }
        known.iter().for_each(|e| e.end_drains(now));
    }
}
