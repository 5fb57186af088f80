//! Listening sockets: one per listener and shard, opened before a configuration is used, so that a
//! configuration whose address is taken is refused as a whole.
//!
//! In a hot upgrade they come from the process before. A socket that came is never closed for want of a shard: a
//! connection may be on its way into its queue at any moment, and would be reset. So shards share those that are
//! left over, until a start that is no upgrade.

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

/// Addresses as the configuration writes them, and as they were bound.
pub(crate) type Bound = BTreeMap<SocketAddr, SocketAddr>;

/// Listening sockets by configured address; the first one is shard 0's. The coordinator keeps a handle of each
/// socket, for the process that replaces this one. A socket lives as long as any of its handles does: these are to
/// be given up before shards are told to close theirs.
pub(crate) type Handles = BTreeMap<SocketAddr, Vec<OwnedFd>>;

/// Sockets that a configuration brings.
#[derive(Default)]
pub(crate) struct Opened {
    /// All addresses of the configuration.
    pub(crate) bound: Bound,
    /// The new sockets of each shard.
    pub(crate) sockets: Vec<Sockets>,
    /// The coordinator's handles of the same.
    pub(crate) handles: Handles,
}

/// Opens sockets for the addresses of `config` that are not in `bound` yet, for `shards` shards, out of those in
/// `handed` as far as they go. If one cannot be opened, none is. What is left in `handed` is of no listener.
pub(crate) fn open(
    config: &Config,
    bound: &Bound,
    handed: &mut Handles,
    shards: usize,
) -> Result<Opened, Failure> {
    let ports: Vec<u16> = bound.values().map(SocketAddr::port).collect();
    let handed_ports: Vec<u16> = handed.values().flatten().filter_map(port).collect();
    let mut opened = Opened::for_shards(shards);
    for (name, listener) in &config.listeners {
        let address = listener.bind;
        if let Some(actual) = bound.get(&address) {
            opened.bound.insert(address, *actual);
            continue;
        }
        let is_ours = ports
            .iter()
            .chain(&handed_ports)
            .any(|p| *p == address.port());
        let sockets = match take(handed, address) {
            Some(sockets) => complete(sockets, shards),
            None => open_one(address, shards, is_ours),
        };
        sockets
            .and_then(|sockets| opened.add(address, sockets))
            .map_err(|e| refused(&format!("listener `{name}`"), address, &e))?;
    }
    Ok(opened)
}

/// Opens sockets again for the addresses of `bound`, after a drain has closed them; those of which a handle is in
/// `kept` never were.
pub(crate) fn reopen(bound: &Bound, kept: &Handles, shards: usize) -> Result<Opened, Failure> {
    let mut opened = Opened::for_shards(shards);
    for (address, actual) in bound {
        let sockets = match kept.get(address) {
            Some(sockets) => sockets.iter().map(OwnedFd::try_clone).collect(),
            None => open_one(*actual, shards, false),
        };
        sockets
            .and_then(|sockets| opened.add(*address, sockets))
            .map_err(|e| refused("undrain", *actual, &e))?;
    }
    Ok(opened)
}

impl Opened {
    fn for_shards(shards: usize) -> Opened {
        Opened {
            sockets: (0..shards).map(|_| Sockets::new()).collect(),
            ..Opened::default()
        }
    }

    /// Deals the sockets of an address out, in turn.
    fn add(&mut self, address: SocketAddr, sockets: Vec<OwnedFd>) -> io::Result<()> {
        let actual = sockets.first().map_or(Ok(address), local_addr)?;
        let shards = self.sockets.len().max(1);
        for (number, socket) in sockets.iter().enumerate() {
            if let Some(shard) = self.sockets.get_mut(number % shards) {
                shard.push((address, socket.try_clone()?));
            }
        }
        self.bound.insert(address, actual);
        self.handles.insert(address, sockets);
        Ok(())
    }
}

/// The sockets that were bound for `address`, or to it: a file that names the port which another one left to the
/// system means the same sockets.
fn take(handed: &mut Handles, address: SocketAddr) -> Option<Vec<OwnedFd>> {
    let is_bound_to = |sockets: &Vec<OwnedFd>| {
        let first = sockets.first();
        first.is_some_and(|socket| local_addr(socket).is_ok_and(|actual| actual == address))
    };
    let key = match handed.contains_key(&address) {
        true => address,
        false => *handed.iter().find(|(_, sockets)| is_bound_to(sockets))?.0,
    };
    handed.remove(&key).filter(|sockets| !sockets.is_empty())
}

/// These sockets, and more on the same address for shards that have none.
fn complete(mut sockets: Vec<OwnedFd>, shards: usize) -> io::Result<Vec<OwnedFd>> {
    let actual = sockets.iter().map(local_addr).next().transpose()?;
    let missing = shards.saturating_sub(sockets.len());
    for address in actual.into_iter().cycle().take(missing) {
        sockets.push(tidegate_shard::bind(address)?);
    }
    Ok(sockets)
}

fn local_addr(socket: &OwnedFd) -> io::Result<SocketAddr> {
    // Through the standard library's type only to read the address back.
    TcpListener::from(socket.try_clone()?).local_addr()
}

fn port(socket: &OwnedFd) -> Option<u16> {
    local_addr(socket).ok().map(|address| address.port())
}

/// One socket a shard on the same address; for port 0 the first one's port decides.
fn open_one(address: SocketAddr, shards: usize, is_ours: bool) -> io::Result<Vec<OwnedFd>> {
    if address.port() != 0 && !is_ours {
        is_free(address)?;
    }
    complete(vec![tidegate_shard::bind(address)?], shards)
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
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
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

    fn config(binds: &[SocketAddr]) -> Config {
        let listeners: String = binds
            .iter()
            .enumerate()
            .map(|(i, bind)| {
                format!(
                    "  l{i}: {{ bind: \"{bind}\", routes: [ {{ respond: {{ status: 200 }} }} ] }}\n"
                )
            })
            .collect();
        let text = format!("version: 1\nlisteners:\n{listeners}");
        tidegate_core::config::parse("test", &text).unwrap().0
    }

    fn counts(opened: &Opened) -> Vec<usize> {
        opened.sockets.iter().map(Vec::len).collect()
    }

    /// Goal: sockets of the process before are used, whatever the number of shards: further ones are bound, and none
    /// is left out. Method: two sockets for one, two, three and five shards.
    #[test]
    fn handed_sockets_are_all_used() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = config(&[any]);
        for (shards, expected) in [
            (1, &[2][..]),
            (2, &[1, 1]),
            (3, &[1, 1, 1]),
            (5, &[1, 1, 1, 1, 1]),
        ] {
            let before = open(&config, &Bound::new(), &mut Handles::new(), 2).unwrap();
            let mut handed = before.handles;
            let opened = open(&config, &Bound::new(), &mut handed, shards).unwrap();
            assert_eq!(opened.bound, before.bound, "{shards} shards");
            assert_eq!(counts(&opened), expected);
            assert!(handed.is_empty());
            for (address, socket) in opened.sockets.iter().flatten() {
                assert_eq!(local_addr(socket).unwrap(), before.bound[address]);
            }
        }
    }

    /// Goal: a file that names the port which the system had chosen means the same socket, and what no listener wants
    /// is left. Method: two listeners become one with the port of the first, beside one that is new.
    #[test]
    fn handed_sockets_are_found_by_what_they_are_bound_to() {
        let [a, b, c] = ["127.0.0.1:0", "127.0.0.2:0", "127.0.0.3:0"].map(|a| a.parse().unwrap());
        let before = open(&config(&[a, b]), &Bound::new(), &mut Handles::new(), 1).unwrap();
        let mut handed = before.handles;
        let actual = before.bound[&a];
        let opened = open(&config(&[actual, c]), &Bound::new(), &mut handed, 1).unwrap();
        assert_eq!(opened.bound[&actual], actual);
        assert_eq!(opened.bound.len(), 2);
        assert_eq!(handed.keys().collect::<Vec<_>>(), [&b]);
    }

    /// Goal: after a drain that came to nothing, sockets of which a handle is kept are used again, with what waits in
    /// them, and others are bound anew. Method: one of each; a connection waits at the first.
    #[test]
    fn kept_sockets_are_used_again() {
        let [a, b]: [SocketAddr; 2] = ["127.0.0.1:0", "127.0.0.2:0"].map(|a| a.parse().unwrap());
        let before = open(&config(&[a, b]), &Bound::new(), &mut Handles::new(), 1).unwrap();
        let (bound, mut kept) = (before.bound, before.handles);
        drop(before.sockets);
        kept.remove(&b);
        let client = std::net::TcpStream::connect(bound[&a]).unwrap();
        let opened = reopen(&bound, &kept, 1).unwrap();
        assert_eq!(opened.bound, bound);
        let [(at, socket), (_, other)] = &opened.sockets[0][..] else {
            unreachable!("two sockets");
        };
        assert_eq!((*at, local_addr(other).unwrap()), (a, bound[&b]));
        let listener = TcpListener::from(socket.try_clone().unwrap());
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
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
