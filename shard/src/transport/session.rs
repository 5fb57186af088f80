//! One TLS connection without its socket: records in, plaintext out, and the other way round.
//!
//! rustls' unbuffered connections leave every buffer to us, which is what keeps an idle connection small:
//! it has none. Copies of a body byte on its way through, counted:
//!
//! * received: the kernel writes the record into a provided buffer; rustls decrypts it there, hands the
//!   plaintext out in a vector of its own (copy 1), and we append it to the chunk that the data path gets
//!   (copy 2). A buffered connection would copy the record into its own buffer first: one more.
//! * sent: rustls copies the plaintext into a record of its own and encrypts it there (copy 1), then
//!   appends that to our buffer (copy 2), which the kernel sends from. A buffered connection queues the
//!   record instead, from where we would copy it: the same number, but memory that stays.

use rustls::{
    CommonState, Error, HandshakeKind,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::CertificateDer,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
    },
};

/// The payload of the largest record (RFC 8446, 5.1).
const RECORD_PAYLOAD_MAX: usize = 16 << 10;
/// What a record adds to its payload, at most: header 5, explicit nonce 8 or content type 1, tag 16.
const RECORD_OVERHEAD_MAX: usize = 32;
/// Room for what may go before the payload: an answer to a key update.
const PREFACE_MAX: usize = 64;
/// Plaintext that one call of [`Session::process`] hands out, a record more or less: as much as the
/// largest receive buffer holds.
const PLAIN_BATCH: usize = 64 << 10;

/// A TLS connection, either side of it.
pub(super) struct Session {
    side: Side,
    /// The peer has said that it sends no more.
    peer_closed: bool,
    /// We have said so.
    closed: bool,
    failed: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// How far the input went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More of the handshake must be received.
    Handshaking,
    /// The handshake is through, and every whole record was processed.
    Established,
    /// As above, but there may be more records in the input: enough plaintext was handed out for once.
    More,
}

/// What came of the input.
pub(super) struct Processed {
    /// Bytes at the front of the input that are done with. What is left must be presented again, at the
    /// same place, with what follows it.
    pub(super) discard: usize,
    pub(super) progress: Result<Progress, Error>,
}

/// The session cannot send: it has failed, or its keys are worn out (TLS 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsendable;

impl Session {
    pub(super) fn server(connection: UnbufferedServerConnection) -> Session {
        Session::new(Side::Server(connection))
    }

    pub(super) fn client(connection: UnbufferedClientConnection) -> Session {
        Session::new(Side::Client(connection))
    }

    fn new(side: Side) -> Session {
        Session {
            side,
            peer_closed: false,
            closed: false,
            failed: false,
        }
    }

    /// Processes the records in `input`: plaintext is appended to `plain`, what must be sent to `out`.
    pub(super) fn process(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Processed {
        let mut discard = 0;
        let progress = loop {
            let rest = input.get_mut(discard..).unwrap_or_default();
            let (done, next) = self.step(rest, plain, out);
            discard += done;
            match next {
                Ok(Next::Plaintext) if plain.len() >= PLAIN_BATCH => break Ok(Progress::More),
                Ok(Next::Plaintext | Next::Again) => {}
                // RFC 8446, 6.1: what follows is ignored.
                Ok(Next::PeerClosed) => self.peer_closed = true,
                Ok(Next::Handshaking) => break Ok(Progress::Handshaking),
                Ok(Next::Established) => break Ok(Progress::Established),
                Err(error) => {
                    self.failed = true;
                    self.last_words(out);
                    break Err(error);
                }
            }
        };
        if self.peer_closed {
            discard = input.len();
        }
        Processed { discard, progress }
    }

    /// Encrypts `head` and `body` behind what is in `out`; in one record if they fit. `retained` is the
    /// input that [`Session::process`] has left, of which every whole record was processed.
    pub(super) fn encrypt(
        &mut self,
        head: &[u8],
        body: &[u8],
        retained: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unsendable> {
        let total = head.len() + body.len();
        if total <= RECORD_PAYLOAD_MAX && !head.is_empty() && !body.is_empty() {
            let joined = [head, body].concat();
            return self.write(&Write::Plaintext(&joined), retained, out);
        }
        for part in [head, body].into_iter().filter(|part| !part.is_empty()) {
            self.write(&Write::Plaintext(part), retained, out)?;
        }
        Ok(())
    }

    /// Says that we send no more, once; behind what is in `out`.
    pub(super) fn close(
        &mut self,
        retained: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unsendable> {
        match std::mem::replace(&mut self.closed, true) {
            true => Ok(()),
            false => self.write(&Write::CloseNotify, retained, out),
        }
    }

    /// Whether the peer has said that it sends no more.
    pub(super) fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether we have said so.
    pub(super) fn has_closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing can be sent or received any more.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// What rustls knows of the connection.
    pub(super) fn state(&self) -> &CommonState {
        match &self.side {
            Side::Server(connection) => connection,
            Side::Client(connection) => connection,
        }
    }

    /// Whether the handshake resumed an earlier session.
    pub(super) fn is_resumed(&self) -> bool {
        self.state().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The peer's certificates, the leaf first; empty without any.
    pub(super) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.state().peer_certificates().unwrap_or_default()
    }

    /// Asks for new keys both ways, as a peer may.
    #[cfg(test)]
    pub(super) fn refresh_keys(&mut self, out: &mut Vec<u8>) {
        if let Side::Client(connection) = &mut self.side
            && let Ok(ConnectionState::WriteTraffic(traffic)) = connection.process(&mut []).state
        {
            let _ = traffic.refresh_traffic_keys();
        }
        self.process(&mut [], &mut Vec::new(), out);
    }

    fn step(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<Next, Error>) {
        match &mut self.side {
            Side::Server(connection) => step(connection, input, plain, out),
            Side::Client(connection) => step(connection, input, plain, out),
        }
    }

    fn last_words(&mut self, out: &mut Vec<u8>) {
        match &mut self.side {
            Side::Server(connection) => last_words(connection, out),
            Side::Client(connection) => last_words(connection, out),
        }
    }

    fn write(
        &mut self,
        what: &Write<'_>,
        retained: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unsendable> {
        if self.failed {
            return Err(Unsendable);
        }
        let closed = &mut self.peer_closed;
        let wrote = match &mut self.side {
            Side::Server(connection) => write(connection, what, retained, out, closed),
            Side::Client(connection) => write(connection, what, retained, out, closed),
        };
        self.failed = wrote.is_err();
        wrote
    }
}

/// Bytes that are lacking for the next whole record at the end of `input`: 0 if it ends with one.
/// `input` begins with a record.
pub(super) fn missing(input: &[u8]) -> usize {
    let mut rest = input;
    while let [_, _, _, high, low, body @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        match body.get(len..) {
            Some(next) => rest = next,
            None => return len - body.len(),
        }
    }
    match rest.len() {
        0 => 0,
        part => RECORD_HEADER - part,
    }
}

/// The header of a record: type, version, length.
const RECORD_HEADER: usize = 5;

/// The two kinds of connection, which rustls gives no common name.
trait Records {
    type Data;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// Whether messages wait to be encoded.
    fn has_output(&self) -> bool;
}

impl Records for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn has_output(&self) -> bool {
        CommonState::wants_write(self)
    }
}

impl Records for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn has_output(&self) -> bool {
        CommonState::wants_write(self)
    }
}

/// What one step came to.
enum Next {
    /// Plaintext was appended.
    Plaintext,
    /// Something was done; there may be more.
    Again,
    PeerClosed,
    Handshaking,
    Established,
}

/// What to write.
enum Write<'a> {
    Plaintext(&'a [u8]),
    CloseNotify,
}

fn step<C: Records>(
    connection: &mut C,
    input: &mut [u8],
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> (usize, Result<Next, Error>) {
    let UnbufferedStatus { mut discard, state } = connection.process(input);
    let next = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut read = Ok(Next::Plaintext);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    Err(error) => read = Err(error),
                }
            }
            read
        }
        Ok(ConnectionState::EncodeTlsData(encode)) => encode_message(encode, out)
            .map(|()| Next::Again)
            .map_err(|Unsendable| Error::EncryptError),
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            // What lies in `out` is sent in order, before anything else.
            transmit.done();
            Ok(Next::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Next::PeerClosed),
        Ok(ConnectionState::BlockedHandshake) => Ok(Next::Handshaking),
        Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => Ok(Next::Established),
        // Early data is never offered or taken: it can be replayed.
        Ok(_) => Err(Error::General("early data".into())),
    };
    (discard, next)
}

/// Takes out what rustls still wants to tell the peer after a failure: the alert. It is asked only while
/// there is something: beyond that it would look at the input again.
fn last_words<C: Records>(connection: &mut C, out: &mut Vec<u8>) {
    while connection.has_output() {
        let Ok(ConnectionState::EncodeTlsData(encode)) = connection.process(&mut []).state else {
            return;
        };
        if encode_message(encode, out).is_err() {
            return;
        }
    }
}

/// Brings the connection to where it can write, and writes.
fn write<C: Records>(
    connection: &mut C,
    what: &Write<'_>,
    retained: &mut [u8],
    out: &mut Vec<u8>,
    peer_closed: &mut bool,
) -> Result<(), Unsendable> {
    loop {
        match connection.process(retained).state {
            Ok(ConnectionState::WriteTraffic(traffic)) => return write_traffic(traffic, what, out),
            Ok(ConnectionState::EncodeTlsData(encode)) => {
                encode_message(encode, out)?;
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
            Ok(ConnectionState::PeerClosed) => *peer_closed = true,
            _ => return Err(Unsendable),
        }
    }
}

fn encode_message<D>(
    mut encode: EncodeTlsData<'_, D>,
    out: &mut Vec<u8>,
) -> Result<(), Unsendable> {
    append(out, 0, |place| {
        encode.encode(place).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    })
}

fn write_traffic<D>(
    mut traffic: WriteTraffic<'_, D>,
    what: &Write<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Unsendable> {
    let plain_len = match what {
        Write::Plaintext(plain) => plain.len(),
        Write::CloseNotify => 0,
    };
    let records = plain_len.div_ceil(RECORD_PAYLOAD_MAX).max(1);
    let room = plain_len + records * RECORD_OVERHEAD_MAX + PREFACE_MAX;
    append(out, room, |place| {
        let wrote = match what {
            Write::Plaintext(plain) => traffic.encrypt(plain, place),
            Write::CloseNotify => traffic.queue_close_notify(place),
        };
        wrote.map_err(|error| match error {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        })
    })
}

/// Lets `f` write at the end of `out`, given `room` bytes, or as many as it asks for by its error.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut f: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Unsendable> {
    let start = out.len();
    let mut room = room;
    // The second try has what the first asked for.
    for _ in 0..2 {
        out.resize(start + room, 0);
        match f(out.get_mut(start..).unwrap_or_default()) {
            Ok(n) => {
                out.truncate(start + n);
                return Ok(());
            }
            Err(Some(required)) => room = required,
            Err(None) => break,
        }
    }
    out.truncate(start);
    Err(Unsendable)
}
