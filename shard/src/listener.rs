//! Listening sockets: one per shard and address (SO_REUSEPORT), so that a connection lives and dies on
//! the shard that accepted it.

use std::{io, net::SocketAddr, os::fd::OwnedFd, rc::Rc, time::Duration};

use socket2::{Domain, Socket as RawSocket, Type};

use tidegate_core::reason::Reason;

use crate::{
    downstream::{self, Client},
    executor,
    local::Local,
    ring::{Acceptor, Backlog},
};

/// Connections that the kernel may hold for us per shard; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// The pause after an accept that failed for want of descriptors or memory: EMFILE must not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens a listening socket for one shard.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Inherited by what is accepted, which saves a call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listening socket at work. Dropping it stops accepting and closes it, once what it holds was accepted.
pub(crate) struct Listening {
    acceptor: Rc<Acceptor>,
    backlog: Backlog,
}

impl Listening {
    /// Accepts on `socket` from now on.
    pub(crate) fn start(local: &Rc<Local>, bind: SocketAddr, socket: OwnedFd) -> Listening {
        let acceptor = Rc::new(Acceptor::new(&local.driver, socket));
        executor::spawn(
            &local.driver,
            accept(local.clone(), Rc::new(bind), acceptor.clone()),
        );
        local.counters().sockets_listening.add(1);
        Listening {
            acceptor,
            backlog: Backlog::Taken,
        }
    }

    /// Stops accepting and leaves what the socket holds to the process that has it too.
    pub(crate) fn leave(mut self) {
        self.backlog = Backlog::Left;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.acceptor.close(self.backlog);
    }
}

async fn accept(local: Rc<Local>, bind: Rc<SocketAddr>, acceptor: Rc<Acceptor>) {
    let pause = local.driver.deadline();
    while let Some(accepted) = acceptor.accept().await {
        match accepted {
            Ok(fd) => admit(&local, &bind, fd),
            Err(error) if is_transient(&error) => acceptor.resume(),
            Err(_) => {
                local.counters().accept_errors.add(1);
                pause.set_after(PAUSE);
                pause.reached().await;
                acceptor.resume();
            }
        }
    }
    // Only now is the socket closed: a close waits for the accept that is in the kernel's hands.
    local.counters().sockets_listening.sub(1);
}

fn admit(local: &Rc<Local>, bind: &Rc<SocketAddr>, fd: OwnedFd) {
    if local.admit_connection() {
        executor::spawn(
            &local.driver,
            downstream::serve(Client::new(local, bind, fd)),
        );
        return;
    }
    local.counters().connections_refused.add(1);
    local.counters().refuse(Reason::ConnectionLimit);
}

/// The one connection went away before we took it; the next is fine.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO | libc::EPERM)
    )
}
