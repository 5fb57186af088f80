//! Connections to endpoints: checked out for one exchange, checked in if they are as good as new.

use std::{io, pin::pin, rc::Rc, time::Duration};

use tidegate_core::{
    config::model::UpstreamProtocol,
    encryption::{link::Event, rollout::LinkKind},
    healing::counter::Fault,
    reason::Reason,
};

use super::{Cluster, Destination, Endpoint, link::Link};
use crate::{
    ring::{Payload, Socket},
    transport::{self, Stream},
};

/// A connection to an endpoint.
pub(crate) struct Connection {
    pub(crate) socket: Rc<Link>,
    endpoint: Rc<Endpoint>,
    cluster: Rc<Cluster>,
    /// Exchanges begun on it.
    exchanges: u32,
    idle_since: Duration,
}

impl Connection {
    /// Takes an idle connection to `endpoint`, if there is a good one: those as wanted lie on top.
    pub(crate) fn reuse(to: Destination<'_>, endpoint: &Rc<Endpoint>) -> Option<Connection> {
        let timeout = to.settings.config.idle_timeout;
        loop {
            let mut connection = endpoint.idle.borrow_mut().pop()?;
            if connection.is_usable(to.local.now(), timeout) {
                connection.socket.step(Event::Selected);
                connection.exchanges += 1;
                to.local.counters().upstream_reused.add(1);
                return Some(connection);
            }
        }
    }

    /// Makes a connection for a request, within the circuit and the time that the cluster allows. While
    /// links are being switched it is of the kind that has been seen to work, so that no request waits
    /// for a switch; it is never of a kind that policy rules out (E16).
    pub(crate) async fn connect(
        to: Destination<'_>,
        endpoint: &Rc<Endpoint>,
    ) -> Result<Connection, Reason> {
        let mut connection = Connection::dial(to, endpoint).await?;
        connection.socket.step(Event::Selected);
        connection.exchanges = 1;
        Ok(connection)
    }

    /// The same, with nothing on it.
    pub(super) async fn dial(
        to: Destination<'_>,
        endpoint: &Rc<Endpoint>,
    ) -> Result<Connection, Reason> {
        if to.cluster.connections.get() >= to.settings.config.circuit.connections {
            return Err(Reason::CircuitConnections);
        }
        let kind = endpoint.dialled().kind;
        let mut made = Connection::make(to, endpoint, kind).await;
        // Policy may change while a connection is made, and take away what it is made with.
        if matches!(made, Err(Reason::UpstreamTls | Reason::SecretMissing))
            && endpoint.dialled().kind != kind
        {
            made = Connection::make(to, endpoint, endpoint.dialled().kind).await;
        }
        made
    }

    /// Makes a connection of `kind`, which no request is on.
    pub(super) async fn make(
        to: Destination<'_>,
        endpoint: &Rc<Endpoint>,
        kind: LinkKind,
    ) -> Result<Connection, Reason> {
        let Destination {
            local,
            settings,
            cluster,
            ..
        } = to;
        // Counted before it is made, so that a burst cannot overshoot the circuit.
        let counted = Counted::new(cluster);
        let made = dial(to, endpoint, kind).await;
        let made = made.and_then(|stream| agree(to, endpoint, stream));
        let stream = made.inspect_err(|reason| count_failure(endpoint, *reason))?;
        counted.keep();
        local.counters().upstream_connects.add(1);
        if let Some(counters) = endpoint.counters() {
            counters.connections.add(1);
            counters.connections_open.add(1);
            if kind == LinkKind::Tls {
                counters.tls_connections_open.add(1);
            }
        }
        stream.start_receiving();
        let link = Rc::new(Link::new(local, stream, settings.config.max_connection_age));
        endpoint.links.borrow_mut().add(&link);
        endpoint.made(local, link.make());
        let connection = Connection {
            socket: link,
            endpoint: endpoint.clone(),
            cluster: cluster.clone(),
            exchanges: 0,
            idle_since: local.now(),
        };
        Ok(connection)
    }

    /// Gives the connection back after an exchange that left it clean: request sent to its end, answer
    /// read to its end, nothing beyond.
    pub(crate) fn check_in(mut self, to: Destination<'_>) {
        let config = &to.settings.config;
        let worn = config
            .requests_per_connection
            .is_some_and(|max| self.exchanges >= max);
        let gone = self.endpoint.is_gone();
        let endpoint = self.endpoint.clone();
        let full = endpoint.idle.borrow().len() >= config.idle_connections as usize;
        self.socket.step(Event::Answered);
        if worn || gone || full || to.local.drain.is_on() || !self.socket.is_settled() {
            self.socket.step(Event::Retire);
        }
        if self.socket.state().is_closed() {
            return;
        }
        self.socket.set_pooled();
        self.idle_since = to.local.now();
        let as_wanted = self.socket.make() == endpoint.wanted();
        let mut idle = endpoint.idle.borrow_mut();
        match as_wanted {
            true => idle.push(self),
            // Below those as wanted: it serves only when there is no other.
            false => idle.insert(0, self),
        }
    }

    /// The endpoint at the other end.
    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    pub(super) fn is_usable(&self, now: Duration, idle_timeout: Duration) -> bool {
        self.socket.is_quiet() && now.saturating_sub(self.idle_since) < idle_timeout
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // With an exchange on it that did not end well, it broke, or was given up by who was on it.
        self.socket.step(match self.socket.state().in_flight {
            0 => Event::Retire,
            _ => Event::PeerClosed,
        });
        self.endpoint.links.borrow_mut().remove(&self.socket);
        self.cluster
            .connections
            .set(self.cluster.connections.get().saturating_sub(1));
        if let Some(counters) = self.endpoint.counters() {
            counters.connections_open.sub(1);
            if self.socket.make().kind == LinkKind::Tls {
                counters.tls_connections_open.sub(1);
            }
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

/// Connects, and shakes hands if `kind` says so. A handshake that fails is a connection that failed:
/// what comes after it is never plaintext instead (E16).
async fn dial(to: Destination<'_>, endpoint: &Endpoint, kind: LinkKind) -> Result<Stream, Reason> {
    let deadline = to.local.driver.deadline();
    deadline.set_after(to.settings.config.connect_timeout);
    let socket = deadline
        .bound(pin!(Socket::connect(&to.local.driver, endpoint.address)))
        .await
        .map_err(|_| Reason::ConnectTimeout)
        .and_then(|connected| connected.map_err(|error| connect_reason(&error)))?;
    if let Some(preface) = to.preface {
        let sent = socket.send(Payload::head(preface.to_vec())).await;
        sent.map_err(|error| connect_reason(&error))?;
    }
    match kind {
        LinkKind::Plaintext => Ok(Stream::plain(socket)),
        LinkKind::Tls => transport::secure(to.local, socket, to.settings, endpoint.address)
            .await
            .map_err(|(reason, detail)| {
                endpoint.note_fault(detail);
                reason
            }),
    }
}

/// Takes no connection in TLS on which the endpoint has not agreed to what the cluster speaks.
fn agree(to: Destination<'_>, endpoint: &Endpoint, stream: Stream) -> Result<Stream, Reason> {
    let wants_http2 = to.settings.config.protocol == UpstreamProtocol::Http2;
    let has_http2 = stream.tls_facts().is_none_or(|tls| tls.is_http2);
    if wants_http2 && !has_http2 {
        endpoint.note_fault("the endpoint did not choose h2 by ALPN");
        return Err(Reason::UpstreamTls);
    }
    Ok(stream)
}

fn count_failure(endpoint: &Endpoint, reason: Reason) {
    let Some(counters) = endpoint.counters() else {
        return;
    };
    let fault = match reason {
        Reason::ConnectTimeout => Fault::ConnectTimeout,
        Reason::UpstreamTls | Reason::SecretMissing => Fault::Tls,
        _ => Fault::Connect,
    };
    counters.fail(fault);
    endpoint.note_row(Some(fault));
}

fn connect_reason(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
        io::ErrorKind::TimedOut => Reason::ConnectTimeout,
        _ => Reason::ConnectFailed,
    }
}
