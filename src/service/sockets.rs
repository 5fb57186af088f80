//! Listening sockets: one per listener and shard, opened before a configuration is used, so that a
//! configuration whose address is taken is refused as a whole.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use tidegate_core::config::model::Config;

use crate::{
    coordinator::Sockets,
    exit::{Exit, Failure},
};

/// What [`open`] gives: all addresses of the configuration, as written and as bound, and the new sockets
/// of each shard.
pub(crate) type Opened = (BTreeMap<SocketAddr, SocketAddr>, Vec<Sockets>);

/// Opens sockets for the addresses of `config` that are not in `bound` yet, for `shards` shards. If one
/// cannot be opened, none is.
pub(crate) fn open(
    config: &Config,
    bound: &BTreeMap<SocketAddr, SocketAddr>,
    shards: usize,
) -> Result<Opened, Failure> {
    let mut now_bound = BTreeMap::new();
    let mut per_shard: Vec<Sockets> = (0..shards).map(|_| Sockets::new()).collect();
    for (name, listener) in &config.listeners {
        let address = listener.bind;
        if let Some(actual) = bound.get(&address) {
            now_bound.insert(address, *actual);
            continue;
        }
        let ours = bound.values().any(|b| b.port() == address.port());
        let (actual, sockets) = open_one(address, shards, ours)
            .map_err(|e| refused(&format!("listener `{name}`"), address, &e))?;
        now_bound.insert(address, actual);
        for (socket, shard) in sockets.into_iter().zip(&mut per_shard) {
            shard.push((address, socket));
        }
    }
    Ok((now_bound, per_shard))
}

/// Opens sockets again for the addresses of `bound`, after a drain has closed them.
pub(crate) fn reopen(
    bound: &BTreeMap<SocketAddr, SocketAddr>,
    shards: usize,
) -> Result<Vec<Sockets>, Failure> {
    let mut per_shard: Vec<Sockets> = (0..shards).map(|_| Sockets::new()).collect();
    for (address, actual) in bound {
        let (_, sockets) =
            open_one(*actual, shards, false).map_err(|e| refused("undrain", *actual, &e))?;
        for (socket, shard) in sockets.into_iter().zip(&mut per_shard) {
            shard.push((*address, socket));
        }
    }
    Ok(per_shard)
}

/// One socket a shard on the same address; for port 0 the first one's port decides.
fn open_one(
    address: SocketAddr,
    shards: usize,
    ours: bool,
) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    if address.port() != 0 && !ours {
        is_free(address)?;
    }
    let mut actual = address;
    let mut sockets = Vec::with_capacity(shards);
    for _ in 0..shards {
        // Through the standard library's type only to read the address back.
        let listener = TcpListener::from(tidegate_shard::bind(actual)?);
        actual = listener.local_addr()?;
        sockets.push(OwnedFd::from(listener));
    }
    Ok((actual, sockets))
}

/// Whether nobody else listens there. SO_REUSEPORT would let a second process of the same user share the
/// port in silence and take half of the connections; a bind without it finds out.
fn is_free(address: SocketAddr) -> io::Result<()> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let probe = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Connections in TIME_WAIT do not count.
    setsockopt(&probe, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&probe, sockopt::Ipv6V6Only, &true)?;
    }
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&probe),
        &SockaddrStorage::from(address),
    )?;
    Ok(())
}

/// Why an address cannot be listened on, with the remedy.
pub(crate) fn refused(who: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let port = address.port();
    let (problem, remedy) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            format!("{who}: {address} is in use"),
            format!("see who has it with `ss -ltnp 'sport = :{port}'`, or use another port"),
        ),
        io::ErrorKind::PermissionDenied => (
            format!("{who}: no permission to listen on {address}"),
            "ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), \
             or `sysctl net.ipv4.ip_unprivileged_port_start`, or use another port"
                .to_owned(),
        ),
        io::ErrorKind::AddrNotAvailable => (
            format!("{who}: {address} is not an address of this host"),
            "see `ip address`; `0.0.0.0` or `[::]` listens on all of them".to_owned(),
        ),
        _ => (
            format!("{who}: cannot listen on {address}: {error}"),
            String::new(),
        ),
    };
    Failure::new(Exit::HostUnfit, problem, remedy)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: each cause has its own remedy and exit code 4. Method: an error of each kind.
    #[test]
    fn refusals_carry_remedies() {
        let address = "192.0.2.1:80".parse().unwrap();
        for (kind, remedy) in [
            (io::ErrorKind::AddrInUse, "ss -ltnp 'sport = :80'"),
            (io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (io::ErrorKind::AddrNotAvailable, "ip address"),
        ] {
            let failure = refused("listener `edge`", address, &kind.into());
            assert_eq!(failure.exit, Exit::HostUnfit);
            assert!(failure.problem.contains("192.0.2.1:80"), "{failure}");
            assert!(failure.remedy.contains(remedy), "{failure}");
        }
    }

    /// Goal: a port somebody listens on is found, a free one is not. Method: both, on the loopback.
    #[test]
    fn taken_ports_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(
            is_free(address).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listener);
        assert!(is_free(address).is_ok());
    }
}
