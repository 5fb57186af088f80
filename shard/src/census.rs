//! What the census is told by this shard: that a connection began, whose it is, what a request moved, that
//! the connection is gone. Each is a few plain adds on rows of the listener's own
//! ([`tidegate_core::encryption::census`]); nothing is sent anywhere.
//!
//! A peer's application is what its certificate says. Without one it is what the listener's `peer_header`
//! says, request by request, since one connection may carry several applications; and without that it is
//! the address. The address is not asked for before the first request: most of its other users do so then.

use std::cell::Cell;

use tidegate_core::{
    encryption::{
        census::{Application, Bytes, Census},
        rollout::LinkKind,
    },
    snapshot::Listener,
};

use crate::{downstream::Client, request::Exchange};

/// What a connection remembers of its place in the census.
#[derive(Default)]
pub(crate) struct Place {
    /// `None` before the connection was counted.
    kind: Cell<Option<LinkKind>>,
    application: Cell<Application>,
}

/// It is known how the connection's bytes travel: from here on it counts.
pub(crate) fn connected(client: &Client, listener: &Listener) {
    let Some(census) = of(client, listener) else {
        return;
    };
    let kind = client.socket.kind();
    client.census.kind.set(Some(kind));
    census.opened(kind, now_unix_ms(client));
    if let Some(identity) = client.socket.peer_identity() {
        belongs(client, census, census.application(identity));
    }
}

/// The head of a request was read: it says whose the connection is, unless that was known.
pub(crate) fn request_began(exchange: &Exchange<'_>) {
    let client = exchange.client;
    if client.census.application.get() == Application::UNKNOWN
        && let Some(census) = of(client, exchange.listener)
    {
        let named = by_header(exchange).map(|name| census.application(name));
        let application = named.unwrap_or_else(|| census.application(client.peer_ip()));
        belongs(client, census, application);
    }
}

/// A request is over.
pub(crate) fn request_ended(exchange: &Exchange<'_>) {
    let client = exchange.client;
    let Some(census) = of(client, exchange.listener) else {
        return;
    };
    let mut application = client.census.application.get();
    if let Some(name) = by_header(exchange)
        && !census.is_called(application, name)
    {
        application = census.application(name);
    }
    let bytes = Bytes {
        received: exchange.received_bytes,
        sent: exchange.sent_bytes,
    };
    served(client, census, application, bytes);
}

/// A relay begins: nothing that comes later says more about who the client is.
pub(crate) fn relay_began(client: &Client, listener: &Listener) {
    if client.census.application.get() == Application::UNKNOWN
        && let Some(census) = of(client, listener)
    {
        belongs(client, census, census.application(client.peer_ip()));
    }
}

/// A relay is over. Its bytes are known only now.
pub(crate) fn relay_ended(client: &Client, listener: &Listener, bytes: Bytes) {
    if let Some(census) = of(client, listener) {
        served(client, census, client.census.application.get(), bytes);
    }
}

/// The connection is gone.
pub(crate) fn disconnected(client: &Client) {
    let Some(kind) = client.census.kind.take() else {
        return;
    };
    // A listener that is gone has taken its census along.
    let plane = client.local.plane();
    let listener = plane.as_ref().and_then(|p| p.listener(*client.bind));
    if let Some(census) = listener.and_then(|listener| of(client, listener)) {
        census.closed(kind, client.census.application.get(), now_unix_ms(client));
    }
}

fn of<'l>(client: &Client, listener: &'l Listener) -> Option<&'l Census> {
    listener.census.get(client.local.id)
}

fn belongs(client: &Client, census: &Census, application: Application) {
    client.census.application.set(application);
    census.belongs(client.socket.kind(), application, now_unix_ms(client));
}

fn served(client: &Client, census: &Census, application: Application, bytes: Bytes) {
    let kind = client.socket.kind();
    census.served(kind, application, bytes, now_unix_ms(client));
}

/// What `peer_header` calls the application, where no certificate does. Only printable text is a name: it
/// will stand in logs and metrics. Anything else is `other`, as the empty name is.
fn by_header<'e>(exchange: &'e Exchange<'_>) -> Option<&'e str> {
    let header = exchange.listener.tls.as_ref()?.peer_header.as_ref()?;
    if exchange.client.socket.peer_identity().is_some() {
        return None;
    }
    let (head, bytes) = exchange.head();
    let value = head.field(bytes, header)?;
    let is_name = value.iter().all(u8::is_ascii_graphic);
    Some(
        std::str::from_utf8(value)
            .ok()
            .filter(|_| is_name)
            .unwrap_or_default(),
    )
}

fn now_unix_ms(client: &Client) -> u64 {
    let local = &client.local;
    local.unix_ns(local.driver.now_ns()) / 1_000_000
}
