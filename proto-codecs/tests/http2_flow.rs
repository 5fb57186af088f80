//! Flow control against reference models (RFC 9113, 5.2 and 6.9): plain counters for each window, written
//! from the RFC, say what may be sent, what must be taken and who may go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod http2_common;

use std::collections::{BTreeMap, BTreeSet};

use http2_common::*;
use proptest::prelude::*;
use tidegate_codecs::{
    http2::{ConnectionError, Flood, MessageError, Options, SendError, StreamId},
    limits::Http2Limits,
};

const WINDOW_INITIAL: i64 = 65_535;
const WINDOW_MOST: i64 = (1 << 31) - 1;
const STREAMS: u32 = 4;

/// Budgets that no test of windows meets.
fn limits() -> Http2Limits {
    Http2Limits {
        settings_frames_max: u32::MAX,
        window_updates_max: u32::MAX,
        tiny_frames_max: u32::MAX,
        stream_errors_max: u32::MAX,
        empty_frames_max: u32::MAX,
        ..Http2Limits::default()
    }
}

/// A server under `limits` with requests on its first streams, whose bodies are to come or have ended.
fn server(limits: Http2Limits, flags: u8) -> Wire {
    let mut wire = Wire::server_with(limits);
    for number in 0..STREAMS {
        wire.feed(&headers(2 * number + 1, flags, &POST));
    }
    wire.consumes = false;
    wire
}

/// What a sender is told and does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Send so much of a body, perhaps to its end.
    Send(usize, usize, bool),
    UpdateStream(usize, u32),
    UpdateConnection(u32),
    InitialWindow(u32),
    FrameMost(u32),
    /// Ask who may go on.
    GoOn,
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = 0..STREAMS as usize;
    let amount = prop_oneof![0usize..100, 0usize..100_000];
    let increment = prop_oneof![1u32..100, 1u32..100_000, 0x7fff_0000u32..=0x7fff_ffff];
    let window = prop_oneof![0u32..10, 0u32..100_000, 0x7fff_0000u32..=0x7fff_ffff];
    prop_oneof![
        6 => (which.clone(), amount, prop::bool::weighted(0.05))
            .prop_map(|(which, amount, end)| Step::Send(which, amount, end)),
        3 => (which, increment.clone()).prop_map(|(which, by)| Step::UpdateStream(which, by)),
        2 => increment.prop_map(Step::UpdateConnection),
        1 => window.prop_map(Step::InitialWindow),
        1 => (16_384u32..100_000).prop_map(Step::FrameMost),
        3 => Just(Step::GoOn),
    ]
}

/// What RFC 9113 says that a sender knows.
struct Sender {
    connection: i64,
    initial: i64,
    frame_most: i64,
    /// Windows of streams that are not over.
    streams: BTreeMap<u32, i64>,
    /// Streams that were told to wait.
    waiting: BTreeSet<u32>,
}

impl Sender {
    fn may_send(&self, id: u32, available: usize) -> usize {
        let room = self.connection.min(self.streams[&id]).min(self.frame_most);
        (available as i64).min(room.max(0)) as usize
    }
}

/// Carries out one step on both, and says whether the connection lives on.
fn step(wire: &mut Wire, model: &mut Sender, ids: &[StreamId], step: Step) -> bool {
    match step {
        Step::Send(which, available, end) => send(wire, model, ids[which], available, end),
        Step::UpdateStream(which, by) => {
            let id = ids[which].number();
            wire.feed(&window_update(id, by));
            if let Some(window) = model.streams.get_mut(&id) {
                *window += i64::from(by);
                if *window > WINDOW_MOST {
                    model.streams.remove(&id);
                    let broken = Seen::Broken(id, MessageError::WindowOverflow);
                    assert_eq!(wire.seen.last(), Some(&broken));
                }
            }
        }
        Step::UpdateConnection(by) => {
            wire.feed(&window_update(0, by));
            model.connection += i64::from(by);
        }
        Step::InitialWindow(window) => {
            wire.feed(&settings(&[(4, window)]));
            let difference = i64::from(window) - model.initial;
            model.initial = window.into();
            model
                .streams
                .values_mut()
                .for_each(|window| *window += difference);
        }
        Step::FrameMost(most) => {
            wire.feed(&settings(&[(5, most)]));
            model.frame_most = most.into();
        }
        Step::GoOn => go_on(wire, model),
    }
    wire.connection.take_output(&mut wire.sent);
    let windows = model.streams.values().chain([&model.connection]);
    let overflows = windows.max().is_some_and(|window| *window > WINDOW_MOST);
    let expected = overflows.then_some(ConnectionError::WindowOverflow);
    assert_eq!(wire.error, expected);
    !overflows
}

fn send(wire: &mut Wire, model: &mut Sender, id: StreamId, available: usize, end: bool) {
    let number = id.number();
    wire.connection.take_output(&mut wire.sent);
    wire.sent.clear();
    let granted = wire.connection.send_data(id, available, end, 0);
    if !model.streams.contains_key(&number) {
        assert!(matches!(
            granted,
            Err(SendError::StreamGone | SendError::OutOfOrder)
        ));
        return;
    }
    let expected = model.may_send(number, available);
    assert_eq!(granted, Ok(expected), "stream {number}");
    let ends = end && expected == available;
    wire.connection.take_output(&mut wire.sent);
    if expected > 0 || ends {
        // The header alone: the payload would follow it.
        let mut whole = core::mem::take(&mut wire.sent);
        whole.resize(whole.len() + expected, 0);
        let flags = if ends { END_STREAM } else { 0 };
        assert_eq!(whole, frame(DATA, flags, number, &vec![0; expected]));
    } else {
        assert_eq!(wire.sent, []);
        if available > 0 {
            model.waiting.insert(number);
        }
    }
    model.connection -= expected as i64;
    *model.streams.get_mut(&number).unwrap() -= expected as i64;
    if ends {
        model.streams.remove(&number);
    }
}

/// Whoever waits and has room by both windows must be named; nobody who is gone may be.
fn go_on(wire: &mut Wire, model: &mut Sender) {
    let mut named = BTreeSet::new();
    while let Some(id) = wire.connection.next_writable() {
        assert!(named.insert(id.number()), "named twice");
    }
    let waiting = core::mem::take(&mut model.waiting);
    let (must, rest): (BTreeSet<u32>, BTreeSet<u32>) = waiting
        .into_iter()
        .filter(|id| model.streams.contains_key(id))
        .partition(|id| model.connection > 0 && model.streams[id] > 0);
    assert!(named.is_superset(&must), "{named:?} of {must:?}");
    assert!(named.iter().all(|id| model.streams.contains_key(id)));
    model.waiting = rest.difference(&named).copied().collect();
}

/// Failures shrink to a few steps, which say more than a seed.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Goal: what is granted is exactly what the windows allow, and no stream waits that could go on. Method:
    /// random sends, updates and settings, beside the model of a sender.
    #[test]
    fn a_sender_keeps_to_the_windows(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut wire = server(limits(), END_STREAM);
        let ids = wire.streams.clone();
        for id in &ids {
            wire.connection.send_response(*id, 200, [], false).unwrap();
        }
        let mut model = Sender {
            connection: WINDOW_INITIAL,
            initial: WINDOW_INITIAL,
            frame_most: 16_384,
            streams: ids.iter().map(|id| (id.number(), WINDOW_INITIAL)).collect(),
            waiting: BTreeSet::new(),
        };
        for at in steps {
            if !step(&mut wire, &mut model, &ids, at) {
                break;
            }
        }
    }
}

/// What a client knows of the windows that it sends into, by the frames that it was sent.
struct Receiver {
    connection: i64,
    streams: BTreeMap<u32, i64>,
    unconsumed: BTreeMap<u32, usize>,
}

impl Receiver {
    /// Takes updates over.
    fn hear(&mut self, sent: &[Sent]) {
        for update in sent.iter().filter(|sent| sent.kind == WINDOW_UPDATE) {
            let by = u32::from_be_bytes(update.payload[..].try_into().unwrap());
            assert!(by > 0);
            let window = match update.stream {
                0 => &mut self.connection,
                id => self
                    .streams
                    .get_mut(&id)
                    .expect("an update of a stream that is there"),
            };
            *window += i64::from(by);
        }
    }
}

/// Windows of a stream and of the connection: of which the latter is the smaller for many streams, and of which
/// paddings alone fill the former.
const WINDOWS: [(u32, u32); 2] = [(70_000, 150_000), (6_000, 65_535)];

proptest! {
    #![proptest_config(config())]

    /// Goal: DATA is taken exactly as far as the client was told, no more than the windows is ever held, and
    /// who reads everything is sent more. Method: random DATA, padding and reads, beside a client that counts.
    #[test]
    fn a_receiver_keeps_the_windows(
        windows in prop::sample::select(&WINDOWS),
        steps in prop::collection::vec(
            (0..STREAMS, prop_oneof![0usize..9, 0usize..16_000], 0u8..=255, any::<bool>(), any::<bool>()),
            1..160,
        ),
    ) {
        let (stream_window, connection_window) = windows;
        let limits = Http2Limits {
            stream_window_bytes: stream_window,
            connection_window_bytes: connection_window,
            ..limits()
        };
        let mut wire = server(limits, 0);
        let ids = wire.streams.clone();
        let mut model = Receiver {
            connection: connection_window.into(),
            streams: ids.iter().map(|id| (id.number(), stream_window.into())).collect(),
            unconsumed: ids.iter().map(|id| (id.number(), 0)).collect(),
        };
        for (which, bytes, padding, is_padded, reads) in steps {
            let bytes = bytes % stream_window as usize;
            let id = ids[which as usize];
            let number = id.number();
            if reads {
                let held = model.unconsumed.get_mut(&number).unwrap();
                let read = bytes.min(*held);
                *held -= read;
                wire.connection.consume(id, read);
            } else if model.streams.contains_key(&number) {
                let payload = match is_padded {
                    true => [&[padding][..], &vec![0; bytes + usize::from(padding)]].concat(),
                    false => vec![0; bytes],
                };
                let len = payload.len() as i64;
                let flags = if is_padded { PADDED } else { 0 };
                wire.feed(&frame(DATA, flags, number, &payload));
                if len > model.connection {
                    prop_assert_eq!(wire.error, Some(ConnectionError::WindowExceeded));
                    return Ok(());
                }
                model.connection -= len;
                if len > model.streams[&number] {
                    let broken = Seen::Broken(number, MessageError::WindowExceeded);
                    prop_assert_eq!(wire.seen.last(), Some(&broken));
                    model.streams.remove(&number);
                    model.unconsumed.insert(number, 0);
                } else {
                    *model.streams.get_mut(&number).unwrap() -= len;
                    *model.unconsumed.get_mut(&number).unwrap() += bytes;
                }
            }
            prop_assert_eq!(wire.error, None);
            model.hear(&wire.take_frames());
            let held: usize = model.unconsumed.values().sum();
            prop_assert!(model.connection + held as i64 <= connection_window.into());
            if held == 0 {
                prop_assert!(model.connection > i64::from(connection_window / 2));
            }
            for (id, window) in &model.streams {
                let held = model.unconsumed[id];
                prop_assert!(window + held as i64 <= stream_window.into());
                prop_assert!(held > 0 || *window > i64::from(stream_window / 2));
            }
        }
    }
}

/// Goal: only frames that a window makes tiny are counted as such. Method: windows that let exactly
/// [`Http2Limits::TINY_FRAME_BYTES`] through, one byte less, and small bodies.
#[test]
fn tiny_is_told_from_small() {
    let tiny = Http2Limits::TINY_FRAME_BYTES;
    for (window, available, expected) in [
        (tiny, 1000, None),
        (
            tiny - 1,
            1000,
            Some(ConnectionError::Flood(Flood::TinyWindows)),
        ),
        (1000, 1, None),
    ] {
        let limits = Http2Limits {
            tiny_frames_max: 0,
            ..limits()
        };
        let mut wire = server(limits, END_STREAM);
        let id = wire.streams[0];
        wire.feed(&settings(&[(4, window as u32)]));
        wire.connection.send_response(id, 200, [], false).unwrap();
        let sent = wire.connection.send_data(id, available, true, 0);
        assert_eq!(sent.err(), expected.map(SendError::Connection), "{window}");
    }
}

/// Goal: each new stream pays for two updates, as clients send them for small requests. Method: many streams
/// with two each, above a budget of three; with three each.
#[test]
fn streams_pay_for_updates() {
    for (each, expected) in [
        (2, None),
        (3, Some(ConnectionError::Flood(Flood::WindowUpdates))),
    ] {
        let mut wire = Wire::server(&Options {
            limits: Http2Limits {
                window_updates_max: 3,
                ..limits()
            },
            ..Options::default()
        });
        for number in 0..20 {
            wire.feed(&headers(2 * number + 1, END_STREAM, &GET));
            (0..each).for_each(|_| wire.feed(&window_update(0, 1)));
        }
        assert_eq!(wire.error, expected, "{each}");
    }
}
