//! The operations we submit, and the token by which a completion finds its way back.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use io_uring::{
    opcode, squeue,
    types::{Fd, Timespec},
};
use socket2::SockAddr;

/// Group id of the buffers for heads and small messages.
pub(crate) const HEADS: u16 = 0;
/// Group id of the buffers for bodies.
pub(crate) const BODIES: u16 = 1;

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Accept = 1,
    ReceiveSmall = 2,
    ReceiveMedium = 3,
    ReceiveLarge = 4,
    Send = 5,
    Connect = 6,
    Cancel = 7,
    Wake = 8,
    Alarm = 9,
    ReceiveFirst = 10,
}

impl Kind {
    /// The group of buffers that a receive takes from.
    pub(crate) fn group(self) -> u16 {
        match self {
            Kind::ReceiveFirst | Kind::ReceiveSmall => HEADS,
            _ => BODIES,
        }
    }
}

/// Kind of operation and index of the slot it belongs to; travels as `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) slot: u32,
}

impl Token {
    pub(crate) fn encode(self) -> u64 {
        u64::from(self.slot) << 8 | self.kind as u64
    }

    pub(crate) fn decode(user_data: u64) -> Option<Token> {
        let kind = match user_data as u8 {
            1 => Kind::Accept,
            2 => Kind::ReceiveSmall,
            3 => Kind::ReceiveMedium,
            4 => Kind::ReceiveLarge,
            5 => Kind::Send,
            6 => Kind::Connect,
            7 => Kind::Cancel,
            8 => Kind::Wake,
            9 => Kind::Alarm,
            10 => Kind::ReceiveFirst,
            _ => return None,
        };
        Some(Token {
            kind,
            slot: (user_data >> 8) as u32,
        })
    }
}

/// An operation that points at no memory of ours: it can be pushed without a promise.
pub(crate) struct Detached(squeue::Entry);

impl Detached {
    pub(crate) fn entry(&self) -> &squeue::Entry {
        &self.0
    }
}

/// Accepts until told otherwise. Accepted sockets inherit TCP_NODELAY from the listening one.
pub(crate) fn accept(fd: &OwnedFd, slot: u32) -> Detached {
    Detached(
        opcode::AcceptMulti::new(raw(fd))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(
                Token {
                    kind: Kind::Accept,
                    slot,
                }
                .encode(),
            ),
    )
}

/// Receives until told otherwise, each time into a buffer of `group`.
pub(crate) fn receive_all(fd: &OwnedFd, slot: u32, group: u16) -> Detached {
    let kind = if group == HEADS {
        Kind::ReceiveSmall
    } else {
        Kind::ReceiveMedium
    };
    Detached(
        opcode::RecvMulti::new(raw(fd), group)
            .build()
            .user_data(Token { kind, slot }.encode()),
    )
}

/// Receives once, into a buffer of `group`. With `poll_first` the kernel does not look for data before it
/// has waited for some.
pub(crate) fn receive_once(fd: &OwnedFd, slot: u32, group: u16, poll_first: bool) -> Detached {
    /// IORING_RECVSEND_POLL_FIRST of io_uring.h.
    const POLL_FIRST: u16 = 1;
    let kind = if group == HEADS {
        Kind::ReceiveFirst
    } else {
        Kind::ReceiveLarge
    };
    Detached(
        opcode::Recv::new(raw(fd), std::ptr::null_mut(), 0)
            .buf_group(group)
            .ioprio(if poll_first { POLL_FIRST } else { 0 })
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
            .user_data(Token { kind, slot }.encode()),
    )
}

/// Flags of every send. WAITALL lets the kernel go on by itself after a partial send; MORE, before a close,
/// lets the end of it wait for the FIN.
fn send_flags(before_close: bool) -> i32 {
    let more = if before_close { libc::MSG_MORE } else { 0 };
    libc::MSG_WAITALL | libc::MSG_NOSIGNAL | more
}

/// Sends `bytes`.
pub(crate) fn send(fd: &OwnedFd, slot: u32, bytes: &[u8], before_close: bool) -> squeue::Entry {
    // A length is 32 bits wide in an entry; what is beyond is sent by the entry after.
    let len = bytes.len().min(1 << 30) as u32;
    opcode::Send::new(raw(fd), bytes.as_ptr(), len)
        .flags(send_flags(before_close))
        .build()
        .user_data(
            Token {
                kind: Kind::Send,
                slot,
            }
            .encode(),
        )
}

/// Sends two pieces as one.
pub(crate) fn send_vectored(
    fd: &OwnedFd,
    slot: u32,
    message: &Message,
    before_close: bool,
) -> squeue::Entry {
    opcode::SendMsg::new(raw(fd), &message.header)
        .flags(send_flags(before_close) as u32)
        .build()
        .user_data(
            Token {
                kind: Kind::Send,
                slot,
            }
            .encode(),
        )
}

/// Connects to `address`.
pub(crate) fn connect(fd: &OwnedFd, slot: u32, address: &SockAddr) -> squeue::Entry {
    opcode::Connect::new(raw(fd), address.as_ptr().cast(), address.len())
        .build()
        .user_data(
            Token {
                kind: Kind::Connect,
                slot,
            }
            .encode(),
        )
}

/// Cancels the operation that `token` names.
pub(crate) fn cancel(token: Token) -> Detached {
    Detached(
        opcode::AsyncCancel::new(token.encode()).build().user_data(
            Token {
                kind: Kind::Cancel,
                slot: token.slot,
            }
            .encode(),
        ),
    )
}

/// Reads the eventfd by which other threads wake the shard.
pub(crate) fn wake(fd: &OwnedFd, into: &mut [u8; 8]) -> squeue::Entry {
    opcode::Read::new(raw(fd), into.as_mut_ptr(), 8)
        .build()
        .user_data(
            Token {
                kind: Kind::Wake,
                slot: 0,
            }
            .encode(),
        )
}

/// Completes after `span`, whatever else completes.
pub(crate) fn alarm(span: &Timespec) -> squeue::Entry {
    opcode::Timeout::new(span).build().user_data(
        Token {
            kind: Kind::Alarm,
            slot: 0,
        }
        .encode(),
    )
}

/// The kernel's description of a vectored send: it must stay where it is until the completion, so it
/// lives in a box.
pub(crate) struct Message {
    header: libc::msghdr,
    pieces: [libc::iovec; 2],
}

impl Message {
    /// Describes `first` followed by `second`.
    pub(crate) fn new(first: &[u8], second: &[u8]) -> Box<Message> {
        let piece = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: all-zero is a valid msghdr: no name, no pieces, no control data.
        let header = unsafe { std::mem::zeroed() };
        let mut message = Box::new(Message {
            header,
            pieces: [piece(first), piece(second)],
        });
        message.header.msg_iov = message.pieces.as_mut_ptr();
        message.header.msg_iovlen = message.pieces.len();
        message
    }
}

/// The address of a peer, in the kernel's form.
pub(crate) fn address(address: SocketAddr) -> Box<SockAddr> {
    Box::new(SockAddr::from(address))
}

fn raw(fd: &OwnedFd) -> Fd {
    Fd(fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a completion finds its slot. Method: round trip over the extremes.
    #[test]
    fn tokens_round_trip() {
        for kind in [Kind::Accept, Kind::ReceiveLarge, Kind::Send, Kind::Wake] {
            for slot in [0, 1, u32::MAX] {
                let token = Token { kind, slot };
                assert_eq!(Token::decode(token.encode()), Some(token));
            }
        }
        assert_eq!(Token::decode(0), None);
    }
}
