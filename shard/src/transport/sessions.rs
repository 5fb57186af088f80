//! Sessions with endpoints that can be resumed (E7). Each shard keeps its own, so nothing is locked: what
//! rustls holds is a key into a table of the thread.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

/// TLS 1.3 tickets kept for one endpoint: each serves once, and a server gives two at a time. As many as
/// connections are usually made at once.
const TICKETS_MAX: usize = 8;
/// Endpoints with sessions on one shard. Beyond it nothing new is kept, and handshakes are full.
const ENDPOINTS_MAX: usize = 4096;

static NEXT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static SESSIONS: RefCell<HashMap<u64, Kept>> = RefCell::default();
}

/// What is kept of one endpoint.
#[derive(Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// The oldest first.
    tls13: VecDeque<Tls13ClientSessionValue>,
}

/// The sessions with one endpoint under one context. The endpoint has one server name, so the names that
/// rustls passes say nothing new.
pub(super) struct Sessions(u64);

impl Sessions {
    pub(super) fn new() -> Sessions {
        Sessions(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn read<T>(&self, f: impl FnOnce(&mut Kept) -> Option<T>) -> Option<T> {
        SESSIONS.with_borrow_mut(|all| all.get_mut(&self.0).and_then(f))
    }

    fn write(&self, f: impl FnOnce(&mut Kept)) {
        SESSIONS.with_borrow_mut(|all| {
            if all.len() < ENDPOINTS_MAX || all.contains_key(&self.0) {
                f(all.entry(self.0).or_default());
            }
        });
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        // At the end of a thread the table may be gone first.
        let gone = SESSIONS.try_with(|all| all.borrow_mut().remove(&self.0));
        drop(gone);
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions(redacted)")
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.write(|kept| kept.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.read(|kept| kept.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.write(|kept| kept.tls12 = Some(session));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.read(|kept| kept.tls12.clone())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.read(|kept| kept.tls12.take());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.write(|kept| {
            if kept.tls13.len() >= TICKETS_MAX {
                kept.tls13.pop_front();
            }
            kept.tls13.push_back(ticket);
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.read(|kept| kept.tls13.pop_back())
    }
}
