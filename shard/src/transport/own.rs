//! Handshakes of the process with its own listeners, told from those of clients (E10).
//!
//! Whoever tries a listener marks the port that it dials from, and the shard looks at both ends of what it has
//! accepted. A client cannot be taken for it: the process holds the port as long as the mark stands, and a mark
//! counts only between two ends of one IP address, which no packet from another host has (Linux drops it as
//! martian).

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

/// Handshakes at once that can be marked: as many as the coordinator's runtime has threads for them. One more is
/// counted as a client's.
const MARKS_MAX: usize = 16;

/// The handshakes under way.
#[derive(Debug, Default)]
pub(super) struct OwnHandshakes {
    /// The port dialled from above the listener's; 0 is free.
    marks: [AtomicU32; MARKS_MAX],
}

/// A handshake that is marked as long as this lives. To be dropped before the socket.
pub(super) struct Marked<'a>(&'a AtomicU32);

impl OwnHandshakes {
    /// Marks the handshake of a socket that is bound to `own` with the listener at `listener`.
    pub(super) fn mark(&self, own: SocketAddr, listener: SocketAddr) -> Option<Marked<'_>> {
        let both = ports(own, listener);
        let free = |mark: &&AtomicU32| {
            mark.compare_exchange(0, both, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        self.marks.iter().find(free).map(Marked)
    }

    /// Whether the connection that was accepted on `local` from `peer` is one of them. The addresses are asked
    /// for only while there are any.
    pub(super) fn has(&self, ends: impl FnOnce() -> Option<(SocketAddr, SocketAddr)>) -> bool {
        let mut marks = self.marks.iter().map(|mark| mark.load(Ordering::Acquire));
        if marks.clone().all(|mark| mark == 0) {
            return false;
        }
        ends().is_some_and(|(peer, local)| {
            peer.ip() == local.ip() && marks.any(|mark| mark == ports(peer, local))
        })
    }
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

fn ports(own: SocketAddr, listener: SocketAddr) -> u32 {
    u32::from(own.port()) << 16 | u32::from(listener.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Goal: only the marked connection counts as own, and only while it is marked. Method: its ends, and ends
    /// that differ in one thing each.
    #[test]
    fn only_marked_connections_are_own() {
        let own = OwnHandshakes::default();
        let has = |peer, local| own.has(|| Some((address(peer), address(local))));
        let unasked = || -> Option<(SocketAddr, SocketAddr)> { unreachable!("nothing is marked") };
        assert!(!own.has(unasked));
        let marked = own.mark(address("127.0.0.1:4000"), address("127.0.0.1:443"));
        assert!(has("127.0.0.1:4000", "127.0.0.1:443"));
        assert!(!has("127.0.0.1:4001", "127.0.0.1:443"));
        assert!(!has("127.0.0.1:4000", "127.0.0.1:444"));
        assert!(!has("192.0.2.1:4000", "127.0.0.1:443"));
        assert!(!own.has(|| None));
        drop(marked);
        assert!(!has("127.0.0.1:4000", "127.0.0.1:443"));
    }

    /// Goal: marks are bounded, and free again. Method: as many as there are places, and one above.
    #[test]
    fn marks_are_bounded() {
        let own = OwnHandshakes::default();
        let mark = |port| own.mark(([127, 0, 0, 1], port).into(), address("127.0.0.1:443"));
        let marked: Vec<_> = (1..=MARKS_MAX as u16).map(mark).collect();
        assert!(marked.iter().all(Option::is_some));
        assert!(mark(99).is_none());
        drop(marked);
        assert!(mark(99).is_some());
    }
}
