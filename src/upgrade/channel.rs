//! The socket between the two processes of a hot upgrade: a private pair, whose one end the old process keeps and
//! whose other end the new one finds as its standard input.
//!
//! Blocking, with a deadline for everything: whoever uses it is on a thread of its own, or has nothing else to do
//! yet. The only file that names rustix, which receives descriptors as what they are: owned. (nix gives numbers, and
//! to own a number is unsafe.)

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    cmsg_space,
    io::retry_on_intr,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
        sendmsg, socketpair,
        sockopt::{Timeout, set_socket_passcred, set_socket_timeout, socket_peercred},
    },
};
use zeroize::Zeroizing;

use super::message::{BYTES_MAX, Malformed, Message, SOCKETS_A_MESSAGE_MAX};

/// One end.
pub(super) struct Channel {
    socket: OwnedFd,
    /// The only process that is listened to; the kernel says who speaks.
    speaker: Option<u32>,
}

/// Why nothing was sent or received.
#[derive(Debug)]
pub(super) enum Fault {
    /// The other end is closed.
    Closed,
    /// Nothing came in time.
    TimedOut,
    /// Another process than the one that was started spoke.
    Stranger(u32),
    /// Something came that is no message.
    Malformed(Malformed),
    /// The system refused.
    Io(io::Error),
}

impl Channel {
    /// Two ends; the second one is for the standard input of the process that is about to be started.
    pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // Before anybody can speak: what was sent earlier would not say by whom.
        set_socket_passcred(&ours, true)?;
        Ok((Channel::new(ours), theirs))
    }

    /// The end that `socket` is.
    pub(super) fn new(socket: OwnedFd) -> Channel {
        Channel {
            socket,
            speaker: None,
        }
    }

    /// Listens to this process alone from now on.
    pub(super) fn listen_to(&mut self, pid: u32) {
        self.speaker = Some(pid);
    }

    /// The process that made the pair.
    pub(super) fn maker(&self) -> io::Result<u32> {
        let maker = socket_peercred(&self.socket)?;
        Ok(maker.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Sends one message, by `deadline`.
    pub(super) fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), Fault> {
        set_socket_timeout(&self.socket, Timeout::Send, Some(left(deadline)?))?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_A_MESSAGE_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Malformed("too many sockets at once").into());
        }
        let bytes = message.encode();
        let bytes = [IoSlice::new(&bytes)];
        retry_on_intr(|| sendmsg(&self.socket, &bytes, &mut beside, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Receives one message with its descriptors, by `deadline`.
    pub(super) fn receive(&self, deadline: Instant) -> Result<(Message, Vec<OwnedFd>), Fault> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(left(deadline)?))?;
        let mut space = [MaybeUninit::uninit();
            cmsg_space!(ScmRights(SOCKETS_A_MESSAGE_MAX), ScmCredentials(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = Zeroizing::new(vec![0; BYTES_MAX]);
        let received = retry_on_intr(|| {
            let mut bytes = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            recvmsg(&self.socket, &mut bytes, &mut beside, flags)
        })?;
        if received.bytes == 0 {
            return Err(Fault::Closed);
        }
        let (mut descriptors, mut speaker) = (Vec::new(), None);
        for one in beside.drain() {
            match one {
                RecvAncillaryMessage::ScmRights(rights) => descriptors.extend(rights),
                RecvAncillaryMessage::ScmCredentials(who) => {
                    speaker = Some(who.pid.as_raw_nonzero().get().unsigned_abs());
                }
                _ => {}
            }
        }
        if self.speaker.is_some() && speaker != self.speaker {
            return Err(Fault::Stranger(speaker.unwrap_or(0)));
        }
        let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
        if received.flags.intersects(cut) {
            return Err(Malformed("a message that is too long").into());
        }
        let message = Message::decode(bytes.get(..received.bytes).unwrap_or_default())?;
        if message.descriptors() != descriptors.len() {
            return Err(Malformed("descriptors that the message does not name").into());
        }
        Ok((message, descriptors))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What is left until `deadline`; a socket takes no time-out of zero.
fn left(deadline: Instant) -> Result<Duration, Fault> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Fault::TimedOut),
        left => Ok(left.max(Duration::from_millis(1))),
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        use rustix::io::Errno;
        match error {
            // A time-out of the socket looks as if it were non-blocking.
            Errno::AGAIN => Fault::TimedOut,
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Fault::Closed,
            error => Fault::Io(error.into()),
        }
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Fault::Malformed(malformed)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Closed => write!(f, "the other process is gone"),
            Fault::TimedOut => write!(f, "the other process did not answer in time"),
            Fault::Stranger(pid) => write!(
                f,
                "pid {pid} spoke, which is not the process that was started"
            ),
            Fault::Malformed(Malformed(what)) => {
                write!(f, "the other process is not understood: it sent {what}")
            }
            Fault::Io(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::{net::TcpListener, os::fd::AsFd};

    use super::{super::message::Place, *};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn pair() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Channel::new(theirs))
    }

    /// Goal: a socket arrives as itself. Method: a listening socket over a pair; its address on the other side, and a
    /// connection that it accepts there.
    #[test]
    fn sockets_arrive() {
        let (old, new) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let message = Message::Sockets(vec![Place::Listener(address)]);
        new.send(&message, &[listener.as_fd()], soon()).unwrap();
        drop(listener);
        let (heard, mut sockets) = old.receive(soon()).unwrap();
        assert_eq!(heard, message);
        let listener = TcpListener::from(sockets.pop().unwrap());
        assert_eq!(listener.local_addr().unwrap(), address);
        let client = std::net::TcpStream::connect(address).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

    /// Goal: only the process that was started is listened to. Method: this process speaks: expected, and not.
    #[test]
    fn strangers_are_not_heard() {
        let (mut old, new) = pair();
        let me = std::process::id();
        assert_eq!(new.maker().unwrap(), me);
        old.listen_to(me);
        new.send(&Message::Serve, &[], soon()).unwrap();
        assert_eq!(old.receive(soon()).unwrap().0, Message::Serve);
        old.listen_to(me + 1);
        new.send(&Message::Serve, &[], soon()).unwrap();
        match old.receive(soon()) {
            Err(Fault::Stranger(pid)) => assert_eq!(pid, me),
            other => panic!("{other:?}"),
        }
    }

    /// Goal: an end that is gone, a silent one and one that talks nonsense are told apart. Method: each; nonsense is
    /// a descriptor that nobody named, an unknown kind, and a packet above the limit.
    #[test]
    fn faults_are_told_apart() {
        let (old, new) = pair();
        let at_once = Instant::now() + Duration::from_millis(1);
        assert!(matches!(old.receive(at_once), Err(Fault::TimedOut)));
        assert!(matches!(
            new.send(&Message::Serve, &[], Instant::now()),
            Err(Fault::TimedOut)
        ));
        let file = std::fs::File::open("/dev/null").unwrap();
        new.send(&Message::Serve, &[file.as_fd()], soon()).unwrap();
        assert!(matches!(old.receive(soon()), Err(Fault::Malformed(_))));
        for packet in [vec![99], vec![9; BYTES_MAX + 1]] {
            rustix::net::send(&new, &packet, SendFlags::empty()).unwrap();
            assert!(matches!(old.receive(soon()), Err(Fault::Malformed(_))));
        }
        drop(new);
        assert!(matches!(old.receive(soon()), Err(Fault::Closed)));
        let sent = old.send(&Message::Serve, &[], soon());
        assert!(matches!(sent, Err(Fault::Closed)));
    }
}
