//! What becomes of connections when trust changes: authorities, revocations, names. Those whose peer would not be
//! let in any more take nothing new, finish what is in flight, and are cut after `drain_timeout`. The others go
//! on.
//!
//! * [`LetIn`]: the clients of a shard, and what they were let in by; [`recheck_clients`].
//! * [`recheck_link`]: the same question about a link to an endpoint, which the links' own machine acts on.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::UnixTime;
use tidegate_core::{message::AccessRecord, reason::Reason};

use super::{
    Stream, alert::verdict, encrypted::Encrypted, shares::ShardServer, verify::ClientPolicy,
};
use crate::local::Local;

/// The pause after each certificate that is checked again: a check costs 0.2 ms of signatures, so clients have
/// four fifths of a shard meanwhile.
const PAUSE: Duration = Duration::from_millis(1);

/// Clients that are looked at in one go where nothing has changed, at less than 0.1 µs each.
const AT_ONCE: usize = 1024;

/// The clients in TLS of one shard.
#[derive(Default)]
pub(crate) struct LetIn(RefCell<Vec<Entry>>);

struct Entry {
    connection: Rc<Encrypted>,
    /// Its place among the driver's sockets.
    socket: u32,
    listener: Arc<str>,
    /// What it was checked by last; `None` where clients are not asked.
    policy: Option<Arc<ClientPolicy>>,
}

/// A client that is let in no more.
struct Distrusted {
    connection: Weak<Encrypted>,
    socket: u32,
    until: Duration,
}

impl LetIn {
    /// A client has shaken hands.
    pub(super) fn add(&self, stream: &Stream, listener: &Arc<str>, server: &ShardServer) {
        let Some(connection) = &stream.tls else {
            return;
        };
        let mut all = self.0.borrow_mut();
        connection.place.set(all.len());
        all.push(Entry {
            connection: connection.clone(),
            socket: stream.socket.index(),
            listener: listener.clone(),
            policy: server.context.policy.clone(),
        });
    }

    /// It is gone.
    pub(crate) fn remove(&self, stream: &Stream) {
        let Some(connection) = &stream.tls else {
            return;
        };
        let (place, mut all) = (connection.place.get(), self.0.borrow_mut());
        let is_there = |entry: &Entry| Rc::ptr_eq(&entry.connection, connection);
        if !all.get(place).is_some_and(is_there) {
            return;
        }
        all.swap_remove(place);
        if let Some(moved) = all.get(place) {
            moved.connection.place.set(place);
        }
    }

    fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Asks for every client of a listener whose policy has changed whether it would still be let in. To be called
/// when other contexts are used.
pub(crate) async fn recheck_clients(local: Rc<Local>) {
    let pause = local.driver.deadline();
    let mut distrusted = Vec::new();
    // From the end: what takes the place of one that goes was looked at before.
    let mut place = local.let_in.len();
    while place > 0 {
        place -= 1;
        match recheck_client(&local, place) {
            Checked::Nothing if !place.is_multiple_of(AT_ONCE) => continue,
            Checked::Nothing | Checked::Signatures => {}
            Checked::Distrusted(client) => {
                // One that waits for a request ends now.
                local.driver.wake_reader(client.socket);
                distrusted.push(client);
            }
        }
        pause.set_after(PAUSE);
        pause.reached().await;
    }
    distrusted.sort_by_key(|client| client.until);
    for client in distrusted {
        pause.set(client.until.as_nanos() as u64);
        pause.reached().await;
        // The socket's place is its own as long as the connection lives.
        if client.connection.strong_count() > 0 {
            local.driver.cut(client.socket);
        }
    }
}

enum Checked {
    /// Nothing has changed for it, or it has shown no certificate.
    Nothing,
    /// It may stay.
    Signatures,
    Distrusted(Distrusted),
}

fn recheck_client(local: &Rc<Local>, place: usize) -> Checked {
    let mut all = local.let_in.0.borrow_mut();
    let Some(entry) = all.get_mut(place) else {
        return Checked::Nothing;
    };
    let tls = local.tls();
    // Without a context nobody new is let in, since a secret is missing; whoever is there stays.
    let Some(server) = tls.server(&entry.listener) else {
        return Checked::Nothing;
    };
    let Some(policy) = &server.context.policy else {
        entry.policy = None;
        return Checked::Nothing;
    };
    if entry
        .policy
        .as_ref()
        .is_some_and(|old| Arc::ptr_eq(old, policy))
    {
        return Checked::Nothing;
    }
    entry.policy = Some(policy.clone());
    let certificates = entry.connection.peer_certificates();
    let Err(error) = policy.recheck(&certificates, UnixTime::now()) else {
        return match certificates.is_empty() {
            true => Checked::Nothing,
            false => Checked::Signatures,
        };
    };
    entry.connection.distrusted.set(true);
    tell(local, entry, verdict(&error).name);
    Checked::Distrusted(Distrusted {
        connection: Rc::downgrade(&entry.connection),
        socket: entry.socket,
        until: local.now() + server.context.drain_timeout(),
    })
}

/// Counts and logs that a client is refused from now on.
fn tell(local: &Local, entry: &Entry, detail: &'static str) {
    let reason = Reason::ClientCertificate;
    local.counters().refuse(reason);
    if local.logs_access() {
        local.log_access(AccessRecord {
            start_unix_ns: local.unix_ns(local.driver.now_ns()),
            shard: local.id.0,
            listener: entry.listener.clone(),
            client: local.driver.peer_address(entry.socket),
            protocol: "TCP",
            tls_peer: entry.connection.facts.peer.clone().unwrap_or_default(),
            reason: Some(reason),
            detail,
            ..AccessRecord::default()
        });
    }
}

/// Whether the endpoint at `address` would still be trusted, by what links to its cluster are made with now.
///
/// # Errors
///
/// The name of the alert that it would get.
pub(crate) fn recheck_link(
    local: &Local,
    link: &Stream,
    cluster: &str,
    address: SocketAddr,
) -> Result<(), &'static str> {
    let tls = local.tls();
    let (Some(connection), Some(client)) = (&link.tls, tls.client(cluster)) else {
        return Ok(());
    };
    let name = client.context.server_name(address);
    let certificates = connection.peer_certificates();
    let checked = client
        .context
        .policy
        .recheck(&certificates, &name, UnixTime::now());
    checked.map_err(|error| verdict(&error).name)
}
