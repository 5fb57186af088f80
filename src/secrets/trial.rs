//! Handshakes of listeners with themselves, off the coordinator's thread (E10).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tidegate_core::{encryption::announcement::Attempt, message::TlsContexts};
use tidegate_shard::tls;

/// How long a handshake with ourselves may take, connecting included. A turn of a busy shard takes
/// milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Results that tasks may be ahead of the coordinator.
const RESULTS: usize = 64;

/// A handshake that has ended.
#[derive(Debug)]
pub(crate) struct Tried {
    /// Which.
    pub(crate) attempt: Attempt,
    /// Nothing wrong, or what.
    pub(crate) result: Result<(), String>,
}

/// Where handshakes are made.
pub(crate) struct Trials {
    results: flume::Sender<Tried>,
}

impl Trials {
    /// With the end that results come out of.
    pub(crate) fn new() -> (Trials, flume::Receiver<Tried>) {
        let (results, tried) = flume::bounded(RESULTS);
        (Trials { results }, tried)
    }

    /// Begins one. To be called on the coordinator's runtime.
    pub(crate) fn begin(&self, attempt: Attempt, contexts: TlsContexts) {
        let results = self.results.clone();
        tokio::task::spawn_blocking(move || {
            let address = reachable(attempt.address);
            let result = tls::self_handshake(&contexts, &attempt.listener, address, PATIENCE);
            // Nobody listens any more at the end of the process.
            let _ = results.send(Tried { attempt, result });
        });
    }
}

/// Where a socket that is bound to every address is reached from here.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: a listener on every address is dialled where it can be. Method: table.
    #[test]
    fn every_address_is_reached_by_loopback() {
        for (bound, dialled) in [
            ("0.0.0.0:443", "127.0.0.1:443"),
            ("[::]:443", "[::1]:443"),
            ("10.0.0.1:443", "10.0.0.1:443"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ] {
            let bound: SocketAddr = bound.parse().unwrap();
            assert_eq!(reachable(bound).to_string(), dialled);
        }
    }
}
