//! Two sessions and the bytes between them: no socket, no clock.

use std::sync::Arc;

use rustls::{
    ClientConfig, client::UnbufferedClientConnection, pki_types::ServerName,
    server::UnbufferedServerConnection,
};
use tidegate_core::message::TlsContexts;

use super::fixtures::*;
use crate::transport::{
    ShardTls,
    contexts::take_server_name,
    encrypted::Encrypted,
    session::{Processed, Progress, Session, missing},
};

/// One side of a connection.
struct Side {
    session: Session,
    input: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
    progress: Result<Progress, rustls::Error>,
}

impl Side {
    fn new(session: Session) -> Side {
        Side {
            session,
            input: Vec::new(),
            plain: Vec::new(),
            out: Vec::new(),
            progress: Ok(Progress::Handshaking),
        }
    }

    fn process(&mut self) {
        let Processed { discard, progress } =
            self.session
                .process(&mut self.input, &mut self.plain, &mut self.out);
        self.input.drain(..discard);
        self.progress = progress;
    }

    fn take(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            self.process();
            if self.progress != Ok(Progress::More) {
                return;
            }
        }
    }

    fn send(&mut self, head: &[u8], body: &[u8]) {
        let retained = &mut self.input;
        self.session
            .encrypt(head, body, retained, &mut self.out)
            .unwrap();
    }
}

/// Moves bytes both ways, in pieces of at most `piece`, until none are left.
fn pump(a: &mut Side, b: &mut Side, piece: usize) {
    fn turn(from: &mut Side, to: &mut Side, piece: usize) {
        let out = std::mem::take(&mut from.out);
        out.chunks(piece).for_each(|piece| to.take(piece));
    }
    while !a.out.is_empty() || !b.out.is_empty() {
        turn(a, b, piece);
        turn(b, a, piece);
    }
}

fn server(contexts: &TlsContexts) -> Side {
    let shard = ShardTls::new(contexts, &ShardTls::default());
    let server = shard.server("web").unwrap();
    let connection = UnbufferedServerConnection::new(server.config.clone()).unwrap();
    Side::new(Session::server(connection))
}

fn client(config: &Arc<ClientConfig>, name: &str) -> Side {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = UnbufferedClientConnection::new(config.clone(), name).unwrap();
    let mut side = Side::new(Session::client(connection));
    side.process();
    side
}

fn plain_client(authority: &Authority) -> Arc<ClientConfig> {
    let config = ClientConfig::builder().with_root_certificates(authority.roots());
    Arc::new(config.with_no_client_auth())
}

const LISTENER: &str = "listeners:
  web:
    bind: 127.0.0.1:0
    tls: { certificates: [a, b] }
    routes: [{ respond: { status: 200 } }]
";

fn two_certificates(authority: &Authority) -> TlsContexts {
    let config = config(&(secrets_yaml(&["a", "b"]) + LISTENER));
    let secrets = secrets(&[
        ("a", authority.issue(&["a.example"]).material()),
        (
            "b",
            authority.issue(&["*.b.example", "b.example"]).material(),
        ),
    ]);
    contexts(&config, &secrets)
}

/// Goal: a connection is whole however its bytes arrive, and small payloads share a record (E15). Method: the
/// handshake and payloads of the sizes around a record's, whole, in odd pieces and byte by byte.
#[test]
fn whole_in_any_pieces() {
    let authority = Authority::new("ca");
    let contexts = two_certificates(&authority);
    let config = plain_client(&authority);
    for piece in [usize::MAX, 1500, 7, 1] {
        let (mut server, mut client) = (server(&contexts), client(&config, "a.example"));
        pump(&mut client, &mut server, piece);
        assert_eq!(server.progress, Ok(Progress::Established));
        assert_eq!(client.progress, Ok(Progress::Established));
        let sizes = match piece {
            1 => vec![(3, 5)],
            _ => vec![
                (3, 5),
                (100, 16_284),
                (100, 16_285),
                (0, 50_000),
                (70_000, 1),
            ],
        };
        for (head, body) in sizes {
            let (head, body) = (vec![1; head], vec![2; body]);
            server.send(&head, &body);
            client.send(&body, &head);
            pump(&mut client, &mut server, piece);
            assert_eq!(
                std::mem::take(&mut client.plain),
                [&head[..], &body].concat()
            );
            assert_eq!(
                std::mem::take(&mut server.plain),
                [&body[..], &head].concat()
            );
        }
        assert!(client.input.is_empty() && server.input.is_empty());
    }
}

/// Goal: a small head and body travel in one record, a large body adds one for the head. Method: the records
/// of what was sent.
#[test]
fn records_are_few() {
    let authority = Authority::new("ca");
    let contexts = two_certificates(&authority);
    let (mut server, mut client) = (
        server(&contexts),
        client(&plain_client(&authority), "a.example"),
    );
    pump(&mut client, &mut server, usize::MAX);
    for (head, body, records) in [(100, 128, 1), (100, 16_284, 1), (100, 16_384, 2), (1, 0, 1)] {
        server.send(&vec![1; head], &vec![2; body]);
        let out = std::mem::take(&mut server.out);
        let mut count = 0;
        let mut at = 0;
        while at < out.len() {
            at += 5 + usize::from(u16::from_be_bytes([out[at + 3], out[at + 4]]));
            count += 1;
        }
        assert_eq!(count, records, "{head} + {body}");
    }
}

/// Goal: the certificate fits the name that was asked for, an exact one before a wildcard, the first for the
/// rest (E15). Method: names, and the leaf that the client got.
#[test]
fn certificates_are_chosen_by_name() {
    let authority = Authority::new("ca");
    let contexts = two_certificates(&authority);
    let config = plain_client(&authority);
    for (name, expected) in [
        ("a.example", true),
        ("b.example", true),
        ("x.b.example", true),
        ("B.Example", true),
        ("x.y.b.example", false),
        ("c.example", false),
    ] {
        let (mut server, mut client) = (server(&contexts), client(&config, name));
        pump(&mut client, &mut server, usize::MAX);
        assert_eq!(client.progress.is_ok(), expected, "{name}");
        assert_eq!(
            take_server_name().unwrap().to_lowercase(),
            name.to_lowercase()
        );
    }
}

/// Goal: post-quantum key exchange is used where both sides have it (E15). Method: the group that was agreed on.
#[test]
fn post_quantum_is_preferred() {
    let authority = Authority::new("ca");
    let contexts = two_certificates(&authority);
    let (mut server, mut client) = (
        server(&contexts),
        client(&plain_client(&authority), "a.example"),
    );
    pump(&mut client, &mut server, usize::MAX);
    let group = server.session.state().negotiated_key_exchange_group();
    assert_eq!(group.unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
}

/// Goal: nothing that a peer sends makes a session panic or answer with anything but an alert. Method: each
/// byte of a hello flipped, each length of it, random bytes.
#[test]
fn garbage_is_answered_by_an_alert() {
    let authority = Authority::new("ca");
    let contexts = two_certificates(&authority);
    let hello = client(&plain_client(&authority), "a.example").out;
    let try_it = |bytes: &[u8]| {
        let mut server = server(&contexts);
        server.take(bytes);
        if server.progress.is_err() {
            let alert = matches!(server.out[..], [0x15, 3, _, 0, 2, 2, _]);
            // Some broken hellos are answered before the fault shows.
            let answered = server.out.first() == Some(&0x16);
            assert!(
                alert || answered || server.out.is_empty(),
                "{:x?}",
                server.out
            );
            assert!(
                server
                    .session
                    .encrypt(b"x", b"", &mut [], &mut Vec::new())
                    .is_err()
            );
        }
    };
    for at in 0..hello.len() {
        let mut broken = hello.clone();
        broken[at] ^= 0x5a;
        try_it(&broken);
        try_it(&hello[..at]);
    }
    let mut state = 1_u64;
    for len in 0..300 {
        let noise = (0..len).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.collect();
        try_it(&noise);
        try_it(&[&[0x16, 3, 1, 1, 0x2c][..], &noise].concat());
    }
}

/// Goal: a record that was tampered with ends the connection with an alert, and no byte of it is handed out.
/// Method: each byte of an encrypted record flipped.
#[test]
fn tampering_is_noticed() {
    let authority = Authority::new("ca");
    let contexts = two_certificates(&authority);
    let config = plain_client(&authority);
    let record_len = 5 + 6 + 1 + 16;
    for at in 0..record_len {
        let (mut server, mut client) = (server(&contexts), client(&config, "a.example"));
        pump(&mut client, &mut server, usize::MAX);
        client.send(b"secret", b"");
        let mut record = std::mem::take(&mut client.out);
        assert_eq!(record.len(), record_len);
        record[at] ^= 1;
        server.take(&record);
        // Type and version of the outer header say nothing (RFC 8446, 5.2): rustls takes any.
        if at < 3 && server.progress.is_ok() {
            assert_eq!(server.plain, b"secret");
            continue;
        }
        assert!(server.plain.is_empty(), "byte {at}");
        // A longer record is waited for.
        let is_longer = (3..5).contains(&at) && missing(&record) > 0;
        assert!(server.progress.is_err() || is_longer, "byte {at}");
    }
}

/// Goal: the farewell is told, once, and what follows it is ignored (RFC 8446, 6.1). Method: both sides close in
/// turn; one sends on.
#[test]
fn farewells() {
    let authority = Authority::new("ca");
    let contexts = two_certificates(&authority);
    let (mut server, mut client) = (
        server(&contexts),
        client(&plain_client(&authority), "a.example"),
    );
    pump(&mut client, &mut server, usize::MAX);
    client.session.close(&mut [], &mut client.out).unwrap();
    client.session.close(&mut [], &mut client.out).unwrap();
    assert_eq!(client.out.len(), 24);
    client.out.extend_from_slice(b"what follows");
    pump(&mut client, &mut server, usize::MAX);
    assert!(server.session.peer_has_closed() && server.input.is_empty());
    // The other direction stays open.
    server.send(b"answer", b"");
    server.session.close(&mut [], &mut server.out).unwrap();
    pump(&mut client, &mut server, usize::MAX);
    assert_eq!(client.plain, b"answer");
    assert!(client.session.peer_has_closed());
}

/// Goal: keys can be changed under way (RFC 8446, 4.6.3), and a message of the handshake that comes in pieces
/// does not stop us from sending. Method: a client that asks for new keys; one that sends half a message.
#[test]
fn key_updates() {
    let authority = Authority::new("ca");
    let contexts = two_certificates(&authority);
    let (mut server, mut client) = (
        server(&contexts),
        client(&plain_client(&authority), "a.example"),
    );
    pump(&mut client, &mut server, usize::MAX);
    for round in 0..20_u8 {
        client.session.refresh_keys(&mut client.out);
        client.send(&[round], b"");
        pump(&mut client, &mut server, usize::MAX);
        server.send(&[round, round], b"");
        pump(&mut client, &mut server, usize::MAX);
        assert_eq!(std::mem::take(&mut server.plain), [round]);
        assert_eq!(std::mem::take(&mut client.plain), [round, round]);
    }
}

/// Goal: what lacks for a whole record is known from its header. Method: beginnings of records.
#[test]
fn missing_bytes() {
    for (input, expected) in [
        (&[][..], 0),
        (&[23], 4),
        (&[23, 3, 3, 0], 1),
        (&[23, 3, 3, 0, 2], 2),
        (&[23, 3, 3, 0, 2, 9], 1),
        (&[23, 3, 3, 0, 2, 9, 9], 0),
        (&[23, 3, 3, 0, 0, 22], 4),
    ] {
        assert_eq!(missing(input), expected, "{input:?}");
    }
}

/// Goal: an idle TLS connection costs less than 8 KiB of user space, with certificates on both sides (E14). Method:
/// what is freed when the session of an established connection is dropped, and the sizes of the rest.
#[test]
fn idle_connections_are_small() {
    const OTHERS: usize = crate::ring::SLOT_BYTES + size_of::<Encrypted>() + 1024;
    let authority = Authority::new("ca");
    let yaml = LISTENER.replace(
        "[a, b]",
        "a, client_certificate: { mode: optional, trusted_ca: ca }",
    );
    let config = config(&(secrets_yaml(&["a", "ca"]) + &yaml));
    let secrets = secrets(&[
        ("a", authority.issue(&["a.example"]).material()),
        ("ca", authority.material()),
    ]);
    let contexts = contexts(&config, &secrets);
    let (chain, key) = authority.issue(&["spiffe://mesh/ns/web/sa/web"]).der();
    let shown = ClientConfig::builder().with_root_certificates(authority.roots());
    let shown = Arc::new(shown.with_client_auth_cert(chain, key).unwrap());
    for config in [plain_client(&authority), shown] {
        let (mut server, mut client) = (server(&contexts), client(&config, "a.example"));
        pump(&mut client, &mut server, usize::MAX);
        for session in [server.session, client.session] {
            let freed = allocation_counter::measure(|| drop(session));
            let held = usize::try_from(-freed.bytes_current).unwrap();
            assert!(held + OTHERS <= 8 << 10, "{held} + {OTHERS}");
        }
    }
}
