//! Connections to endpoints: checked out for one exchange, checked in if they are as good as new.

use std::{io, rc::Rc, time::Duration};

use tidegate_core::reason::Reason;

use super::{Cluster, Destination, Endpoint};
use crate::{
    local::Local,
    ring::{Deadline, Socket},
    transport::Stream,
};

/// How often idle connections are looked through for those that were closed or are too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A connection to an endpoint.
pub(crate) struct Connection {
    pub(crate) socket: Stream,
    endpoint: Rc<Endpoint>,
    cluster: Rc<Cluster>,
    /// Exchanges begun on it.
    exchanges: u32,
    idle_since: Duration,
}

impl Connection {
    /// Takes an idle connection to `endpoint`, if there is a good one.
    pub(crate) fn reuse(to: Destination<'_>, endpoint: &Rc<Endpoint>) -> Option<Connection> {
        let timeout = to.settings.config.idle_timeout;
        loop {
            let mut connection = endpoint.idle.borrow_mut().pop()?;
            if connection.is_usable(to.local.now(), timeout) {
                connection.exchanges += 1;
                to.local.counters().upstream_reused.add(1);
                return Some(connection);
            }
        }
    }

    /// Makes a connection, within the circuit and the time that the cluster allows.
    pub(crate) async fn connect(
        to: Destination<'_>,
        endpoint: &Rc<Endpoint>,
    ) -> Result<Connection, Reason> {
        let Destination {
            local,
            settings,
            cluster,
            ..
        } = to;
        if cluster.connections.get() >= settings.config.circuit.connections {
            return Err(Reason::CircuitConnections);
        }
        let deadline = local.driver.deadline();
        deadline.set_after(settings.config.connect_timeout);
        // Counted before it is made, so that a burst cannot overshoot the circuit.
        let counted = Counted::new(cluster);
        let socket = deadline
            .bound(Socket::connect(&local.driver, endpoint.address))
            .await
            .map_err(|_| Reason::ConnectTimeout)
            .and_then(|connected| connected.map_err(|error| connect_reason(&error)));
        let socket = socket.inspect_err(|reason| count_failure(endpoint, *reason))?;
        counted.keep();
        local.counters().upstream_connects.add(1);
        if let Some(counters) = endpoint.counters() {
            counters.connections.add(1);
            counters.connections_open.add(1);
        }
        let socket = Stream::plain(socket);
        socket.start_receiving();
        Ok(Connection {
            socket,
            endpoint: endpoint.clone(),
            cluster: cluster.clone(),
            exchanges: 1,
            idle_since: local.now(),
        })
    }

    /// Gives the connection back after an exchange that left it clean: request sent to its end, answer
    /// read to its end, nothing beyond.
    pub(crate) fn check_in(mut self, to: Destination<'_>) {
        let config = &to.settings.config;
        let worn = config
            .requests_per_connection
            .is_some_and(|max| self.exchanges >= max);
        let gone = self.endpoint.id.get().is_none();
        let endpoint = self.endpoint.clone();
        let full = endpoint.idle.borrow().len() >= config.idle_connections as usize;
        if worn || gone || full || to.local.drain.is_on() || !self.socket.is_settled() {
            return;
        }
        self.idle_since = to.local.now();
        endpoint.idle.borrow_mut().push(self);
    }

    /// The endpoint at the other end.
    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    fn is_usable(&self, now: Duration, idle_timeout: Duration) -> bool {
        self.socket.is_quiet() && now.saturating_sub(self.idle_since) < idle_timeout
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.cluster
            .connections
            .set(self.cluster.connections.get().saturating_sub(1));
        if let Some(counters) = self.endpoint.counters() {
            counters.connections_open.sub(1);
        }
    }
}

/// A connection that is counted against the circuit while it is made.
struct Counted<'a> {
    cluster: &'a Rc<Cluster>,
    kept: bool,
}

impl<'a> Counted<'a> {
    fn new(cluster: &'a Rc<Cluster>) -> Counted<'a> {
        cluster.connections.set(cluster.connections.get() + 1);
        Counted {
            cluster,
            kept: false,
        }
    }

    /// From here on the connection itself keeps the count.
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.cluster
                .connections
                .set(self.cluster.connections.get().saturating_sub(1));
        }
    }
}

/// Closes, every second, idle connections that the endpoint has closed or that are too old.
pub(crate) async fn sweep(local: Rc<Local>) {
    let next: Deadline = local.driver.deadline();
    loop {
        next.set_after(SWEEP_INTERVAL);
        next.reached().await;
        let Some(plane) = local.plane() else { continue };
        for (settings, cluster) in plane.clusters() {
            for endpoint in cluster.endpoints() {
                let idle = endpoint.idle.take();
                let timeout = settings.config.idle_timeout;
                let (kept, gone): (Vec<_>, Vec<_>) = idle
                    .into_iter()
                    .partition(|c| c.is_usable(local.now(), timeout));
                endpoint.idle.replace(kept);
                drop(gone);
            }
        }
    }
}

fn count_failure(endpoint: &Endpoint, reason: Reason) {
    let Some(counters) = endpoint.counters() else {
        return;
    };
    match reason {
        Reason::ConnectTimeout => counters.failed_connect_timeout.add(1),
        _ => counters.failed_connect.add(1),
    }
}

fn connect_reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        _ => Reason::ConnectFailed,
    }
}
