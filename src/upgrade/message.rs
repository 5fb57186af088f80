//! What the two processes of a hot upgrade say to each other: bytes in, messages out, no socket.
//!
//! One message is one packet, so nothing frames them: a kind, then its fields; numbers in network order, lists and
//! texts behind their count. Descriptors travel beside the packet, in the order in which the message names them.
//!
//! [`Message::Hello`] never changes. It names the versions of everything else that the new process speaks, and the
//! old one picks: whichever of the two is newer, they agree or part before a descriptor has moved.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use tidegate_core::config;
use zeroize::Zeroizing;

/// The version of everything but the hello.
pub(super) const VERSION: u16 = 1;
/// The longest message. A reason with room to spare.
pub(super) const BYTES_MAX: usize = 32 << 10;
/// Descriptors of one message; the kernel takes 253 (SCM_MAX_FD).
pub(super) const SOCKETS_A_MESSAGE_MAX: usize = 128;
/// Bytes of a reason; a longer one is cut. As many lines of diagnostics as anybody reads.
pub(super) const WHY_BYTES_MAX: usize = 16 << 10;
/// Addresses that the new process leaves: as many as a configuration has listeners.
const LEFT_MAX: usize = config::LISTENERS_MAX;
/// Bytes of a name, or of a share.
const NAME_BYTES_MAX: usize = 4 * config::NAME_MAX;
/// Bytes of ticket keys: two of them.
const KEY_BYTES_MAX: usize = 96;
/// How a hello is told from whatever else may speak.
const MAGIC: [u8; 8] = *b"tidegate";
/// Results of upgrades that are counted.
pub(super) const TOTALS: usize = 4;

/// One message. The arrow says who sends it to whom.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// New → old: here I am, and these versions I speak.
    Hello { oldest: u16, newest: u16 },
    /// Old → new: this version, then; you are the how-many-th process in a row, and this is what the ones before
    /// you have counted.
    Begin {
        version: u16,
        generation: u32,
        totals: [u64; TOTALS],
    },
    /// Old → new: listening sockets.
    Sockets(Vec<Place>),
    /// Old → new: the keys of session tickets, and how old the current one is.
    Tickets { age: Duration, keys: KeyBytes },
    /// Old → new: a rollout that was set by hand.
    Rollout { cluster: Box<str>, change: Box<str> },
    /// Old → new: an endpoint that is out.
    Ejection(Ejection),
    /// Old → new: a file in memory with what the control plane brought.
    Resources,
    /// Old → new: that was all, and so many sockets.
    End { sockets: u32 },
    /// New → old: I can serve. What waits at these addresses is yours: I do not listen there.
    Ready { left: Vec<SocketAddr> },
    /// Old → new: I have stopped accepting; serve.
    Serve,
    /// New → old: I cannot, and this is why.
    Refused { why: Box<str> },
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A listener's, by the address that the configuration writes; the first one named is shard 0's.
    Listener(SocketAddr),
    /// The admin server's.
    Admin(SocketAddr),
}

/// An endpoint that is out, and for how long yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ejection {
    /// Name of its cluster.
    pub(crate) cluster: Box<str>,
    /// Its address.
    pub(crate) endpoint: SocketAddr,
    /// Until it is tried out.
    pub(crate) remaining: Duration,
}

/// Keys, as bytes. Wiped when dropped, and never shown (E9).
#[derive(PartialEq, Eq)]
pub(super) struct KeyBytes(pub(super) Zeroizing<Vec<u8>>);

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBytes(redacted)")
    }
}

/// Bytes that are no message, and what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl Message {
    /// Descriptors that travel with it.
    pub(super) fn descriptors(&self) -> usize {
        match self {
            Message::Sockets(places) => places.len(),
            Message::Resources => 1,
            _ => 0,
        }
    }

    /// Its bytes. Wiped when dropped: there may be keys in them.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Writer::new();
        match self {
            Message::Hello { oldest, newest } => {
                out.u8(1);
                out.bytes(&MAGIC);
                out.u16(*oldest);
                out.u16(*newest);
            }
            Message::Begin {
                version,
                generation,
                totals,
            } => {
                out.u8(2);
                out.u16(*version);
                out.u32(*generation);
                totals.iter().for_each(|total| out.u64(*total));
            }
            Message::Sockets(places) => {
                out.u8(3);
                out.u16(places.len() as u16);
                places.iter().for_each(|place| out.place(*place));
            }
            Message::Tickets { age, keys } => {
                out.u8(4);
                out.duration(*age);
                out.text(&keys.0);
            }
            Message::Rollout { cluster, change } => {
                out.u8(5);
                out.text(cluster.as_bytes());
                out.text(change.as_bytes());
            }
            Message::Ejection(ejection) => {
                out.u8(6);
                out.text(ejection.cluster.as_bytes());
                out.address(ejection.endpoint);
                out.duration(ejection.remaining);
            }
            Message::End { sockets } => {
                out.u8(7);
                out.u32(*sockets);
            }
            Message::Ready { left } => {
                out.u8(8);
                out.u16(left.len() as u16);
                left.iter().for_each(|address| out.address(*address));
            }
            Message::Serve => out.u8(9),
            Message::Resources => out.u8(11),
            Message::Refused { why } => {
                out.u8(10);
                let end = why.floor_char_boundary(WHY_BYTES_MAX);
                out.text(why.get(..end).unwrap_or_default().as_bytes());
            }
        }
        out.0
    }

    /// The message of a whole packet.
    ///
    /// # Errors
    ///
    /// Anything but exactly one message within its limits.
    pub(super) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        if bytes.len() > BYTES_MAX {
            return Err(Malformed("a message that is too long"));
        }
        let mut from = Reader(bytes);
        let message = match from.u8()? {
            1 => {
                if from.array()? != MAGIC {
                    return Err(Malformed("a hello of something else"));
                }
                Message::Hello {
                    oldest: from.u16()?,
                    newest: from.u16()?,
                }
            }
            2 => Message::Begin {
                version: from.u16()?,
                generation: from.u32()?,
                totals: [from.u64()?, from.u64()?, from.u64()?, from.u64()?],
            },
            3 => Message::Sockets(from.list(SOCKETS_A_MESSAGE_MAX, Reader::place)?),
            4 => Message::Tickets {
                age: from.duration()?,
                keys: KeyBytes(Zeroizing::new(from.text(KEY_BYTES_MAX)?.to_vec())),
            },
            5 => Message::Rollout {
                cluster: from.name(NAME_BYTES_MAX)?,
                change: from.name(NAME_BYTES_MAX)?,
            },
            6 => Message::Ejection(Ejection {
                cluster: from.name(NAME_BYTES_MAX)?,
                endpoint: from.address()?,
                remaining: from.duration()?,
            }),
            7 => Message::End {
                sockets: from.u32()?,
            },
            8 => Message::Ready {
                left: from.list(LEFT_MAX, Reader::address)?,
            },
            9 => Message::Serve,
            10 => Message::Refused {
                why: from.name(WHY_BYTES_MAX)?,
            },
            11 => Message::Resources,
            _ => return Err(Malformed("a message of an unknown kind")),
        };
        match from.0 {
            [] => Ok(message),
            _ => Err(Malformed("something behind a message")),
        }
    }
}

struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// With room for any message: a vector that grows leaves what it held behind, unwiped.
    fn new() -> Writer {
        Writer(Zeroizing::new(Vec::with_capacity(BYTES_MAX)))
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX));
    }

    fn text(&mut self, text: &[u8]) {
        self.u16(text.len() as u16);
        self.bytes(text);
    }

    fn address(&mut self, address: SocketAddr) {
        match address {
            SocketAddr::V4(address) => {
                self.u8(4);
                self.bytes(&address.ip().octets());
            }
            SocketAddr::V6(address) => {
                self.u8(6);
                self.bytes(&address.ip().octets());
                self.u32(address.scope_id());
            }
        }
        self.u16(address.port());
    }

    fn place(&mut self, place: Place) {
        let (kind, address) = match place {
            Place::Listener(address) => (1, address),
            Place::Admin(address) => (2, address),
        };
        self.u8(kind);
        self.address(address);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn duration(&mut self) -> Result<Duration, Malformed> {
        self.u64().map(Duration::from_millis)
    }

    fn text(&mut self, len_max: usize) -> Result<&'a [u8], Malformed> {
        let len = usize::from(self.u16()?);
        if len > len_max {
            return Err(Malformed("a text that is too long"));
        }
        let (text, rest) = self.0.split_at_checked(len).ok_or(CUT)?;
        self.0 = rest;
        Ok(text)
    }

    fn name(&mut self, len_max: usize) -> Result<Box<str>, Malformed> {
        let text = str::from_utf8(self.text(len_max)?);
        text.map(Box::from)
            .map_err(|_| Malformed("a text that is no text"))
    }

    fn list<T>(
        &mut self,
        len_max: usize,
        one: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let len = usize::from(self.u16()?);
        if len > len_max {
            return Err(Malformed("a list that is too long"));
        }
        (0..len).map(|_| one(self)).collect()
    }

    fn address(&mut self) -> Result<SocketAddr, Malformed> {
        match self.u8()? {
            4 => {
                let ip = IpAddr::V4(Ipv4Addr::from(self.array::<4>()?));
                Ok(SocketAddr::new(ip, self.u16()?))
            }
            6 => {
                let ip = Ipv6Addr::from(self.array::<16>()?);
                let scope = self.u32()?;
                Ok(SocketAddrV6::new(ip, self.u16()?, 0, scope).into())
            }
            _ => Err(Malformed("an address of an unknown family")),
        }
    }

    fn place(&mut self) -> Result<Place, Malformed> {
        match self.u8()? {
            1 => self.address().map(Place::Listener),
            2 => self.address().map(Place::Admin),
            _ => Err(Malformed("a socket of an unknown kind")),
        }
    }
}

const CUT: Malformed = Malformed("a message that is cut");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// One of every kind.
    fn all() -> Vec<Message> {
        vec![
            Message::Hello {
                oldest: 1,
                newest: 7,
            },
            Message::Begin {
                version: 1,
                generation: 2,
                totals: [1, 2, 3, u64::MAX],
            },
            Message::Sockets(vec![
                Place::Listener(address("0.0.0.0:443")),
                Place::Listener(address("[fe80::1%3]:443")),
                Place::Admin(address("127.0.0.1:9901")),
            ]),
            Message::Tickets {
                age: Duration::from_secs(3600),
                keys: KeyBytes(Zeroizing::new(vec![0xab; KEY_BYTES_MAX])),
            },
            Message::Rollout {
                cluster: "pay".into(),
                change: "20%".into(),
            },
            Message::Ejection(Ejection {
                cluster: "pay".into(),
                endpoint: address("10.0.0.7:8080"),
                remaining: Duration::from_millis(1500),
            }),
            Message::Resources,
            Message::End { sockets: 3 },
            Message::Ready {
                left: vec![address("127.0.0.1:80")],
            },
            Message::Serve,
            Message::Refused {
                why: "no such file".into(),
            },
        ]
    }

    /// Goal: what one process says is what the other hears, and nothing else is heard. Method: every message there
    /// and back; each of them cut at every length, and with a byte behind it.
    #[test]
    fn messages_are_whole_or_refused() {
        for message in all() {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes).unwrap(), message);
            for len in 0..bytes.len() {
                let cut = Message::decode(&bytes[..len]);
                assert_eq!(cut, Err(CUT), "{message:?} cut at {len}");
            }
            let long = [&bytes[..], &[0]].concat();
            assert!(Message::decode(&long).is_err(), "{message:?} and a byte");
        }
    }

    /// Goal: no byte makes a decoder panic, or take more than its limits. Method: every message with each of its
    /// bytes set to every value; what still decodes encodes to the same bytes.
    #[test]
    fn any_byte_is_survived() {
        for message in all() {
            let bytes = message.encode();
            for at in 0..bytes.len() {
                for value in 0..=u8::MAX {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    if let Ok(decoded) = Message::decode(&changed) {
                        assert_eq!(*decoded.encode(), *changed, "{message:?} at {at}");
                    }
                }
            }
        }
    }

    /// Goal: every count has its limit. Method: a message at each limit, and one above.
    #[test]
    fn counts_have_limits() {
        let v4 = Place::Listener(address("127.0.0.1:80"));
        let sockets = |n| Message::Sockets(vec![v4; n]);
        let left = |n| Message::Ready {
            left: vec![address("[::1]:80"); n],
        };
        let keys = |n| Message::Tickets {
            age: Duration::ZERO,
            keys: KeyBytes(Zeroizing::new(vec![0; n])),
        };
        let name = |n: usize| Message::Rollout {
            cluster: "c".repeat(n).into(),
            change: "on".into(),
        };
        for (at, above) in [
            (
                sockets(SOCKETS_A_MESSAGE_MAX),
                sockets(SOCKETS_A_MESSAGE_MAX + 1),
            ),
            (left(LEFT_MAX), left(LEFT_MAX + 1)),
            (keys(KEY_BYTES_MAX), keys(KEY_BYTES_MAX + 1)),
            (name(NAME_BYTES_MAX), name(NAME_BYTES_MAX + 1)),
        ] {
            assert!(at.encode().len() <= BYTES_MAX);
            assert_eq!(Message::decode(&at.encode()).unwrap(), at);
            assert!(Message::decode(&above.encode()).is_err(), "{above:?}");
        }
        let too_long = vec![9; BYTES_MAX + 1];
        assert_eq!(
            Message::decode(&too_long),
            Err(Malformed("a message that is too long"))
        );
    }

    /// Goal: a reason always arrives, cut if it must be, and stays text. Method: one of two-byte characters that
    /// ends within one.
    #[test]
    fn long_reasons_are_cut() {
        let why: Box<str> = format!("x{}", "é".repeat(WHY_BYTES_MAX)).into();
        let sent = Message::Refused { why: why.clone() }.encode();
        let Message::Refused { why: heard } = Message::decode(&sent).unwrap() else {
            unreachable!("another message");
        };
        assert_eq!(heard.len(), WHY_BYTES_MAX - 1);
        assert!(why.starts_with(&*heard));
    }

    /// Goal: no log shows a key (E9). Method: the debug form of a message with one.
    #[test]
    fn keys_do_not_show() {
        let shown = format!("{:?}", all()[3]);
        assert!(shown.contains("redacted"), "{shown}");
        assert!(
            !shown.contains("171") && !shown.contains("ab, ab"),
            "{shown}"
        );
    }
}
