//! Directives of the coordinator: an SPSC ring, and an eventfd that wakes the shard through its own ring.

use std::{cell::Cell, collections::HashMap, net::SocketAddr, os::fd::OwnedFd, rc::Rc};

use tidegate_core::{message::Directive, reason::Reason};

use crate::{executor, listener::Listening, local::Local, transport, upstream};

/// Directives that may wait; the coordinator retries at its next tick when the ring is full.
pub(crate) const CAPACITY: usize = 64;

/// Carries out directives until [`Directive::Stop`], which sets `stopped`.
pub(crate) async fn serve(
    local: Rc<Local>,
    mut directives: rtrb::Consumer<Directive<OwnedFd>>,
    stopped: Rc<Cell<bool>>,
) {
    let mut listening = HashMap::new();
    while !stopped.get() {
        while let Ok(directive) = directives.pop() {
            obey(&local, directive, &mut listening, &stopped);
        }
        if directives.is_abandoned() {
            stopped.set(true);
        }
        if !stopped.get() {
            local.driver.rung().await;
        }
    }
    local.driver.mark_runnable();
}

fn obey(
    local: &Rc<Local>,
    directive: Directive<OwnedFd>,
    listening: &mut HashMap<SocketAddr, Vec<Listening>>,
    stopped: &Cell<bool>,
) {
    match directive {
        Directive::Install { snapshot, sockets } => {
            let before = listening.len();
            listening.retain(|bind, _| snapshot.listeners.iter().any(|l| l.bind == *bind));
            local.install(snapshot);
            upstream::follow(local);
            if listening.len() < before {
                // Idle connections of a listener that is gone are to end.
                local.driver.wake_readers();
            }
            listen(local, sockets, listening);
        }
        Directive::Listen { sockets } => listen(local, sockets, listening),
        Directive::Tls(contexts) => {
            local.install_tls(&contexts);
            upstream::follow(local);
            executor::spawn(&local.driver, transport::recheck_clients(local.clone()));
        }
        Directive::Health { epoch, verdicts } => {
            let Some(plane) = local.plane().filter(|p| p.snapshot.epoch == epoch) else {
                return;
            };
            for (cluster, endpoint, availability) in verdicts {
                if let Some((_, state)) = plane.cluster(cluster) {
                    state.set_availability(endpoint, availability, local.now());
                }
            }
        }
        Directive::Priors { epoch, priors } => {
            let Some(plane) = local.plane().filter(|p| p.snapshot.epoch == epoch) else {
                return;
            };
            for (cluster, endpoint, share) in priors {
                if let Some((_, state)) = plane.cluster(cluster) {
                    state.set_prior(endpoint, share, local.now());
                }
            }
        }
        Directive::Limits {
            epoch,
            cluster,
            cause,
            limits,
        } => {
            let plane = local.plane().filter(|p| p.snapshot.epoch == epoch);
            if let Some((_, state)) = plane.as_ref().and_then(|p| p.cluster(cluster)) {
                state.interfaces.set(cause, &limits);
            }
        }
        Directive::Drain { deadline, left } => {
            // Closed, not paused: what arrives must be refused, or taken by another process that listens
            // on the address, and not wait in a backlog that nobody empties.
            for (bind, sockets) in listening.drain() {
                if left.contains(&bind) {
                    sockets.into_iter().for_each(Listening::leave);
                }
            }
            local.drain.begin(deadline, local.driver.now_ns());
            local.counters().draining.set(1);
            local.driver.wake_readers();
        }
        Directive::Undrain => {
            local.drain.end();
            local.counters().draining.set(0);
        }
        Directive::Stop => {
            // Whoever is still here is cut.
            for _ in 0..local.connections_open() {
                local.counters().refuse(Reason::Draining);
            }
            stopped.set(true);
        }
    }
}

/// Usually one socket an address. After a hot upgrade to fewer shards, one serves several.
fn listen(
    local: &Rc<Local>,
    sockets: Vec<(SocketAddr, OwnedFd)>,
    listening: &mut HashMap<SocketAddr, Vec<Listening>>,
) {
    for (bind, socket) in sockets {
        let socket = Listening::start(local, bind, socket);
        listening.entry(bind).or_default().push(socket);
    }
}
