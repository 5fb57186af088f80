//! The census: who speaks to a listener, and how much of it is encrypted (E1).
//!
//! A listener has one [`Census`] per shard. The shard writes it, the coordinator and the admin server read
//! it when they want to know ([`Report::of`]); there is no message, neither per request nor per name. A
//! peer application has a row from the first time that it is seen. The row is published by a `OnceLock`
//! whose only writer is the shard, so that nobody ever waits; from then on a request costs a few plain adds
//! on it. (A ring that carries new names up would need a place for the names that do not fit into it.)
//!
//! What an application is called is decided by the caller: the identity in its certificate, the listener's
//! `peer_header`, or its address. What peers can make grow is bounded: the names of a listener by
//! [`APPLICATIONS_MAX`], each of them by [`APPLICATION_BYTES_MAX`]; the rest is counted as `other`.
//!
//! Times are milliseconds since the Unix epoch, by whatever clock the caller has.

use std::{
    collections::BTreeMap,
    fmt,
    ops::AddAssign,
    sync::{Arc, OnceLock},
};

use super::rollout::LinkKind;
use crate::{
    stats::{Counter, PerShard},
    steering::hash_bytes,
};

/// Applications that are told apart, per listener and shard. A server has tens of client applications;
/// this many rows are 64 KiB.
pub const APPLICATIONS_MAX: usize = 256;

/// The longest name of an application. SPIFFE allows 2,048 bytes for an ID and recommends to stay far below;
/// those that are in use have about 60.
pub const APPLICATION_BYTES_MAX: usize = 255;

/// Twice as many as there can be names, so that a probe that finds nothing ends soon.
const SLOTS: usize = 2 * APPLICATIONS_MAX;

/// How applications that have no row of their own are called.
pub const OTHER: &str = "other";

/// What one shard knows of the peers of one listener. Only that shard may call what writes.
#[derive(Debug, Default)]
pub struct Census {
    /// By hash of the name, with linear probing; nothing is ever removed. Made when the first name comes.
    slots: OnceLock<Box<[OnceLock<Box<Row>>]>>,
    /// Names in `slots`.
    names: Counter,
    other: [Tally; KINDS],
    /// Every connection, whether or not it is known whose it is.
    arrivals: [Arrivals; KINDS],
}

/// An application's place in one [`Census`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Application(u16);

impl Application {
    /// Not known yet: the connection has sent nothing that says it.
    pub const UNKNOWN: Application = Application(u16::MAX);
    /// One of those without a row of its own.
    pub const OTHER: Application = Application(u16::MAX - 1);
}

impl Default for Application {
    fn default() -> Self {
        Application::UNKNOWN
    }
}

/// The bytes of one request and of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From the client.
    pub received: u64,
    /// To the client.
    pub sent: u64,
}

const KINDS: usize = 2;

fn slot_of<T>(kind: LinkKind, by_kind: &[T; KINDS]) -> &T {
    let [plaintext, tls] = by_kind;
    match kind {
        LinkKind::Plaintext => plaintext,
        LinkKind::Tls => tls,
    }
}

#[derive(Debug)]
struct Row {
    name: Arc<str>,
    by_kind: [Tally; KINDS],
}

/// What is counted of one application, in one kind of link.
#[derive(Debug, Default)]
struct Tally {
    requests: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    connections: Counter,
    connections_open: Counter,
    last_unix_ms: Counter,
}

#[derive(Debug, Default)]
struct Arrivals {
    connections: Counter,
    open: Counter,
    last_unix_ms: Counter,
}

/// What the shard writes.
impl Census {
    /// A connection began.
    pub fn opened(&self, kind: LinkKind, now_unix_ms: u64) {
        let arrivals = slot_of(kind, &self.arrivals);
        arrivals.connections.add(1);
        arrivals.open.add(1);
        arrivals.last_unix_ms.set(now_unix_ms);
    }

    /// The place of the application of this name: from now on, if it has none and there is room.
    pub fn application(&self, name: &str) -> Application {
        if name.is_empty() || name.len() > APPLICATION_BYTES_MAX || name == OTHER {
            return Application::OTHER;
        }
        let slots = self.slots.get_or_init(|| {
            let empty = std::iter::repeat_with(OnceLock::new);
            empty.take(SLOTS).collect()
        });
        // Not keyed: whoever finds names that collide makes a probe as long as the table, and no longer.
        let start = hash_bytes(0, name.as_bytes()) as usize;
        for step in 0..SLOTS {
            let place = start.wrapping_add(step) % SLOTS;
            let Some(slot) = slots.get(place) else {
                break;
            };
            match slot.get() {
                Some(row) if *row.name == *name => return Application(place as u16),
                Some(_) => {}
                None if self.names.get() >= APPLICATIONS_MAX as u64 => break,
                None => {
                    self.names.add(1);
                    let _ = slot.set(Box::new(Row {
                        name: name.into(),
                        by_kind: Default::default(),
                    }));
                    return Application(place as u16);
                }
            }
        }
        Application::OTHER
    }

    /// Whether the application is called this. `other` has no name.
    pub fn is_called(&self, application: Application, name: &str) -> bool {
        self.row(application).is_some_and(|row| *row.name == *name)
    }

    /// An open connection turned out to be this application's.
    pub fn belongs(&self, kind: LinkKind, application: Application, now_unix_ms: u64) {
        let tally = self.tally(kind, application);
        tally.connections.add(1);
        tally.connections_open.add(1);
        tally.last_unix_ms.raise(now_unix_ms);
    }

    /// A request, or a whole relayed connection, of this application is over.
    pub fn served(&self, kind: LinkKind, application: Application, bytes: Bytes, now_unix_ms: u64) {
        let tally = self.tally(kind, application);
        tally.requests.add(1);
        tally.received_bytes.add(bytes.received);
        tally.sent_bytes.add(bytes.sent);
        tally.last_unix_ms.raise(now_unix_ms);
    }

    /// A connection has ended; `application` is the one that it was said to belong to, if any.
    pub fn closed(&self, kind: LinkKind, application: Application, now_unix_ms: u64) {
        let arrivals = slot_of(kind, &self.arrivals);
        arrivals.open.sub(1);
        // Whoever has only just gone is likely to come back.
        arrivals.last_unix_ms.raise(now_unix_ms);
        if application != Application::UNKNOWN {
            self.tally(kind, application).connections_open.sub(1);
        }
    }

    fn tally(&self, kind: LinkKind, application: Application) -> &Tally {
        let by_kind = self
            .row(application)
            .map_or(&self.other, |row| &row.by_kind);
        slot_of(kind, by_kind)
    }

    fn row(&self, application: Application) -> Option<&Row> {
        let slot = self.slots.get()?.get(usize::from(application.0))?;
        slot.get().map(|row| &**row)
    }
}

/// The census of a listener at one moment, over all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Everybody together.
    pub total: Counts,
    /// By name.
    pub applications: BTreeMap<Arc<str>, Counts>,
    /// Those without a row of their own.
    pub other: Counts,
}

/// Encrypted and not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Encrypted.
    pub tls: Count,
    /// Not.
    pub plaintext: Count,
}

/// What is known of one application, or of all of them, in one kind of link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests and relayed connections that are over.
    pub requests: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
    /// Connections so far.
    pub connections: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// When it was last seen; 0 for never.
    pub last_unix_ms: u64,
}

/// How much of something is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// That much.
    pub encrypted: u64,
    /// Of so much.
    pub total: u64,
}

impl Report {
    /// Sums the shards up. Shards go on counting meanwhile, so that numbers of one report may differ by
    /// what is under way.
    pub fn of(census: &PerShard<Census>) -> Report {
        let mut report = Report::default();
        for shard in census.iter() {
            shard.add_to(&mut report);
        }
        report
    }

    /// Open plaintext connections of which nobody knows yet whose they are.
    pub fn plaintext_unknown_open(&self) -> u64 {
        let known: u64 = self
            .applications
            .values()
            .map(|counts| counts.plaintext.connections_open)
            .sum();
        self.total
            .plaintext
            .connections_open
            .saturating_sub(known + self.other.plaintext.connections_open)
    }

    /// Applications that were seen in plaintext at or after `since_unix_ms`, or are connected in it now,
    /// those with the most recent traffic first; `other` is one of them.
    pub fn plaintext_peers(&self, since_unix_ms: u64) -> Vec<(Arc<str>, Count)> {
        let named = self.applications.iter().map(|(n, c)| (Arc::clone(n), c));
        let other = std::iter::once((Arc::from(OTHER), &self.other));
        let mut peers: Vec<_> = named
            .chain(other)
            .map(|(name, counts)| (name, counts.plaintext))
            .filter(|(_, count)| count.is_seen_since(since_unix_ms))
            .collect();
        // Stable: names break ties.
        peers.sort_by_key(|(_, count)| std::cmp::Reverse(count.last_unix_ms));
        peers
    }
}

impl Count {
    /// Connected now, or seen at or after this time.
    pub fn is_seen_since(&self, since_unix_ms: u64) -> bool {
        self.connections_open > 0 || (self.last_unix_ms > 0 && self.last_unix_ms >= since_unix_ms)
    }

    /// In both directions.
    pub fn bytes(&self) -> u64 {
        self.received_bytes + self.sent_bytes
    }
}

impl Counts {
    /// The share of requests that came encrypted.
    pub fn requests(&self) -> Share {
        self.share(|count| count.requests)
    }

    /// The share of bytes.
    pub fn bytes(&self) -> Share {
        self.share(Count::bytes)
    }

    /// The share of the connections that are open now.
    pub fn connections_open(&self) -> Share {
        self.share(|count| count.connections_open)
    }

    /// The share of connections since the beginning.
    pub fn connections(&self) -> Share {
        self.share(|count| count.connections)
    }

    fn share(&self, of: impl Fn(&Count) -> u64) -> Share {
        let encrypted = of(&self.tls);
        Share {
            encrypted,
            total: encrypted + of(&self.plaintext),
        }
    }
}

impl Share {
    /// In hundredths of a percent, rounded down: 10,000 means all of it, to the last byte. `None` of
    /// nothing.
    pub fn basis_points(&self) -> Option<u32> {
        let points = u128::from(self.encrypted) * 10_000 / u128::from(self.total).max(1);
        (self.total > 0).then_some(points as u32)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.basis_points() {
            Some(10_000) => f.write_str("100 %"),
            Some(points) => write!(f, "{}.{:02} %", points / 100, points % 100),
            None => f.write_str("–"),
        }
    }
}

impl Census {
    fn add_to(&self, report: &mut Report) {
        let rows = self.slots.get().map_or(&[][..], |slots| slots);
        for row in rows.iter().filter_map(OnceLock::get) {
            let counts = read(&row.by_kind);
            let entry = report.applications.entry(Arc::clone(&row.name));
            *entry.or_default() += counts;
            report.total += counts;
        }
        let other = read(&self.other);
        report.other += other;
        report.total += other;
        // Connections are those that came, whether or not anybody knows whose they are. That includes the
        // ones that belong to an application, so these replace the sum of the rows.
        let [plaintext, tls] = &self.arrivals;
        for (total, arrivals, rows) in [
            (&mut report.total.plaintext, plaintext, LinkKind::Plaintext),
            (&mut report.total.tls, tls, LinkKind::Tls),
        ] {
            let (connections, open) = self.attributed(rows);
            total.connections += arrivals.connections.get().saturating_sub(connections);
            total.connections_open += arrivals.open.get().saturating_sub(open);
            total.last_unix_ms = total.last_unix_ms.max(arrivals.last_unix_ms.get());
        }
    }

    /// Connections, and open ones, that belong to somebody.
    fn attributed(&self, kind: LinkKind) -> (u64, u64) {
        let rows = self.slots.get().map_or(&[][..], |slots| slots);
        let named = rows
            .iter()
            .filter_map(OnceLock::get)
            .map(|row| &row.by_kind);
        named
            .chain([&self.other])
            .map(|by_kind| slot_of(kind, by_kind))
            .fold((0, 0), |(connections, open), tally| {
                (
                    connections + tally.connections.get(),
                    open + tally.connections_open.get(),
                )
            })
    }
}

fn read(by_kind: &[Tally; KINDS]) -> Counts {
    let [plaintext, tls] = by_kind;
    Counts {
        tls: tls.read(),
        plaintext: plaintext.read(),
    }
}

impl Tally {
    fn read(&self) -> Count {
        Count {
            requests: self.requests.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            connections: self.connections.get(),
            connections_open: self.connections_open.get(),
            last_unix_ms: self.last_unix_ms.get(),
        }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, more: Count) {
        self.requests += more.requests;
        self.received_bytes += more.received_bytes;
        self.sent_bytes += more.sent_bytes;
        self.connections += more.connections;
        self.connections_open += more.connections_open;
        self.last_unix_ms = self.last_unix_ms.max(more.last_unix_ms);
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.tls += more.tls;
        self.plaintext += more.plaintext;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use LinkKind::{Plaintext, Tls};

    const NOW: u64 = 1_700_000_000_000;

    fn bytes(received: u64, sent: u64) -> Bytes {
        Bytes { received, sent }
    }

    /// A connection of `name` with one request, left open.
    fn request(census: &Census, kind: LinkKind, name: &str, now: u64) -> Application {
        census.opened(kind, now);
        let application = census.application(name);
        census.belongs(kind, application, now);
        census.served(kind, application, bytes(10, 20), now);
        application
    }

    /// Goal: what is counted is reported, by application and in total, over shards (E1). Method: two shards
    /// count for the same and for different applications.
    #[test]
    fn shards_are_summed_up() {
        let shards = PerShard::<Census>::new(2);
        let all: Vec<&Census> = shards.iter().collect();
        request(all[0], Tls, "pay", NOW);
        request(all[1], Tls, "pay", NOW + 5);
        request(all[1], Plaintext, "old", NOW + 1);
        let report = Report::of(&shards);
        assert_eq!(report.applications["pay"].tls.requests, 2);
        assert_eq!(report.applications["pay"].tls.last_unix_ms, NOW + 5);
        assert_eq!(report.applications["old"].plaintext.bytes(), 30);
        assert_eq!(report.total.tls.connections, 2);
        assert_eq!(report.total.plaintext.connections_open, 1);
        assert_eq!(
            report.total.requests(),
            Share {
                encrypted: 2,
                total: 3
            }
        );
        assert_eq!(report.total.bytes().to_string(), "66.66 %");
        assert_eq!(report.other, Counts::default());
    }

    /// Goal: a connection that has said nothing is seen, and is counted once when it says who it is.
    /// Method: its life, step by step.
    #[test]
    fn silent_connections_are_seen() {
        let shards = PerShard::<Census>::new(1);
        let census = shards.iter().next().unwrap();
        let open = || {
            let report = Report::of(&shards);
            let total = report.total.plaintext;
            (
                total.connections,
                total.connections_open,
                report.plaintext_unknown_open(),
            )
        };
        census.opened(Plaintext, NOW);
        assert_eq!(open(), (1, 1, 1));
        let application = census.application("a");
        census.belongs(Plaintext, application, NOW);
        assert_eq!(open(), (1, 1, 0));
        census.closed(Plaintext, application, NOW + 9);
        assert_eq!(open(), (1, 0, 0));
        census.opened(Plaintext, NOW + 10);
        census.closed(Plaintext, Application::UNKNOWN, NOW + 20);
        assert_eq!(open(), (2, 0, 0));
        assert_eq!(Report::of(&shards).total.plaintext.last_unix_ms, NOW + 20);
    }

    /// Goal: names are bounded, in number and in length, and nothing is lost. Method: at each limit, and one
    /// above.
    #[test]
    fn names_are_bounded() {
        let shards = PerShard::<Census>::new(1);
        let census = shards.iter().next().unwrap();
        for i in 0..APPLICATIONS_MAX {
            let application = request(census, Tls, &format!("app-{i}"), NOW);
            assert_ne!(application, Application::OTHER, "{i}");
        }
        assert_eq!(request(census, Tls, "one-more", NOW), Application::OTHER);
        let known = census.application("app-7");
        assert!(census.is_called(known, "app-7"));
        assert!(!census.is_called(Application::OTHER, "one-more"));
        let report = Report::of(&shards);
        assert_eq!(report.applications.len(), APPLICATIONS_MAX);
        assert_eq!(report.other.tls.requests, 1);
        assert_eq!(report.total.tls.requests, APPLICATIONS_MAX as u64 + 1);

        let census = Census::default();
        let longest = "x".repeat(APPLICATION_BYTES_MAX);
        assert_ne!(census.application(&longest), Application::OTHER);
        assert_eq!(
            census.application(&format!("{longest}x")),
            Application::OTHER
        );
        assert_eq!(census.application(""), Application::OTHER);
    }

    /// Goal: names that collide stay apart, at the end of the table too. Method: names picked for their
    /// hash, all with the last place.
    #[test]
    fn colliding_names_stay_apart() {
        let census = Census::default();
        let names: Vec<String> = (0..200_000)
            .map(|i| i.to_string())
            .filter(|name| hash_bytes(0, name.as_bytes()) as usize % SLOTS == SLOTS - 1)
            .take(50)
            .collect();
        assert_eq!(names.len(), 50);
        let places: Vec<_> = names.iter().map(|n| census.application(n)).collect();
        for (name, place) in names.iter().zip(&places) {
            assert_eq!(census.application(name), *place);
            assert!(census.is_called(*place, name));
        }
    }

    /// Goal: "100 %" means all of it. Method: table with one byte less, and nothing at all.
    #[test]
    fn shares_are_rounded_down() {
        for (encrypted, total, text) in [
            (0, 0, "–"),
            (0, 5, "0.00 %"),
            (5, 5, "100 %"),
            (999_999_999, 1_000_000_000, "99.99 %"),
            (u64::MAX - 1, u64::MAX, "99.99 %"),
            (1, 3, "33.33 %"),
        ] {
            assert_eq!(Share { encrypted, total }.to_string(), text);
        }
    }

    /// Goal: whoever still speaks plaintext is named, the latest first. Method: one connected, one recent,
    /// one long gone, one encrypted.
    #[test]
    fn plaintext_peers_are_named() {
        let shards = PerShard::<Census>::new(1);
        let census = shards.iter().next().unwrap();
        request(census, Plaintext, "connected", NOW - 100);
        for (name, at) in [("recent", NOW - 9), ("gone", NOW - 100)] {
            let application = request(census, Plaintext, name, at);
            census.closed(Plaintext, application, at);
        }
        request(census, Tls, "good", NOW);
        let peers = Report::of(&shards).plaintext_peers(NOW - 10);
        let names: Vec<&str> = peers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["recent", "connected"]);
    }
}
