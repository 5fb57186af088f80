//! Calls of gRPC by method, counted as a shard counts everything: by one writer, without a lock.
//!
//! ```text
//! rows = places, four for each three methods; a method lies at hash(path), or behind it
//! count(path): look from there on until it is found, or a free place is, which it takes if it may
//! ```
//!
//! Names come from clients, so there is room for a number of them, and the rest are counted together. A row is made
//! once and stays; readers see it whole, or not yet.

use std::sync::OnceLock;

use super::Counter;
use crate::{sketch, steering::hash_bytes};

/// Methods of a route that have a row of their own, on each shard: as many as several services have. 0.6 KiB
/// each, once it is called.
pub const METHODS_MAX: usize = 192;
/// Places for rows: some stay free, so that what is not there is soon found missing.
const PLACES: usize = METHODS_MAX / 3 * 4;
/// A longer name is nobody's.
pub const METHOD_BYTES_MAX: usize = 256;
/// Statuses that gRPC has.
pub const GRPC_STATUSES: usize = 17;

/// What one shard counts for the methods of one route. Kept over snapshots while the names stay.
#[derive(Debug)]
pub struct Methods {
    rows: Box<[OnceLock<Box<Row>>]>,
    len: Counter,
    other: MethodCounters,
}

#[derive(Debug)]
struct Row {
    path: Box<str>,
    counters: MethodCounters,
}

/// What is counted of a method.
#[derive(Debug)]
pub struct MethodCounters {
    /// Calls by the status that they came to.
    pub calls: [Counter; GRPC_STATUSES],
    /// Messages of clients.
    pub request_messages: Counter,
    /// Messages to clients.
    pub response_messages: Counter,
    /// From the request's last head byte to the last of the answer: see [`sketch`].
    pub latency: [Counter; sketch::BUCKETS],
    /// The same, added up.
    pub latency_ns: Counter,
}

/// A call that is over.
#[derive(Clone, Copy, Debug)]
pub struct FinishedCall {
    /// Below [`GRPC_STATUSES`].
    pub status: usize,
    /// Messages that came from the client.
    pub request_messages: u64,
    /// Messages that went to the client.
    pub response_messages: u64,
    /// From the request's last head byte to the last of the answer.
    pub latency_ns: u64,
    /// The service knows its method, so that it may have a row.
    pub is_known: bool,
}

impl Default for Methods {
    fn default() -> Self {
        Methods {
            rows: (0..PLACES).map(|_| OnceLock::new()).collect(),
            len: Counter::default(),
            other: MethodCounters::default(),
        }
    }
}

impl Methods {
    /// Counts a call of `path`. Only the owning thread may call it.
    pub fn record(&self, path: &[u8], call: FinishedCall) {
        let counters = self.find_or_add(path, call.is_known);
        counters.unwrap_or(&self.other).record(call);
    }

    /// Those that have a row, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MethodCounters)> {
        let rows = self.rows.iter().filter_map(OnceLock::get);
        rows.map(|row| (&*row.path, &row.counters))
    }

    /// What all others came to together.
    pub fn other(&self) -> &MethodCounters {
        &self.other
    }

    fn find_or_add(&self, path: &[u8], may_add: bool) -> Option<&MethodCounters> {
        // Not keyed: whoever makes rows lie behind each other has to be answered for each, and there are few.
        let start = hash_bytes(0, path) as usize % PLACES;
        let (ahead, behind) = self.rows.split_at_checked(start)?;
        for place in behind.iter().chain(ahead) {
            match place.get() {
                Some(row) if row.path.as_bytes() == path => return Some(&row.counters),
                Some(_) => {}
                None if may_add => return self.add(place, path),
                None => return None,
            }
        }
        None
    }

    fn add<'a>(&self, place: &'a OnceLock<Box<Row>>, path: &[u8]) -> Option<&'a MethodCounters> {
        if self.len.get() >= METHODS_MAX as u64 || path.len() > METHOD_BYTES_MAX {
            return None;
        }
        let path = std::str::from_utf8(path).ok()?.into();
        self.len.add(1);
        let counters = MethodCounters::default();
        Some(
            &place
                .get_or_init(|| Box::new(Row { path, counters }))
                .counters,
        )
    }
}

impl Default for MethodCounters {
    fn default() -> Self {
        MethodCounters {
            calls: std::array::from_fn(|_| Counter::default()),
            request_messages: Counter::default(),
            response_messages: Counter::default(),
            latency: std::array::from_fn(|_| Counter::default()),
            latency_ns: Counter::default(),
        }
    }
}

impl MethodCounters {
    fn record(&self, call: FinishedCall) {
        if let Some(calls) = self.calls.get(call.status) {
            calls.add(1);
        }
        self.request_messages.add(call.request_messages);
        self.response_messages.add(call.response_messages);
        if let Some(bucket) = self.latency.get(sketch::bucket(call.latency_ns)) {
            bucket.add(1);
        }
        self.latency_ns.add(call.latency_ns);
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CALL: FinishedCall = FinishedCall {
        status: 0,
        request_messages: 2,
        response_messages: 3,
        latency_ns: 1_000_000,
        is_known: true,
    };

    fn rows(methods: &Methods) -> BTreeSet<&str> {
        methods.iter().map(|(path, _)| path).collect()
    }

    /// Goal: a method's calls add up in its row, and those of unknown methods are counted together. Method: two known
    /// methods, one unknown; then a call of a known one that did not get to the service.
    #[test]
    fn calls_are_counted_by_method() {
        let methods = Methods::default();
        let unknown = FinishedCall {
            is_known: false,
            ..CALL
        };
        methods.record(b"/a.B/C", CALL);
        methods.record(
            b"/a.B/C",
            FinishedCall {
                status: 14,
                ..unknown
            },
        );
        methods.record(b"/a.B/D", CALL);
        methods.record(
            b"/a.B/E",
            FinishedCall {
                status: 12,
                ..unknown
            },
        );
        methods.record(b"/a.B/F", FinishedCall { status: 17, ..CALL });
        assert_eq!(rows(&methods), ["/a.B/C", "/a.B/D", "/a.B/F"].into());
        let (_, row) = methods.iter().find(|(path, _)| *path == "/a.B/C").unwrap();
        let calls = |row: &MethodCounters| row.calls.iter().map(Counter::get).collect::<Vec<_>>();
        assert_eq!(
            (
                calls(row)[0],
                calls(row)[14],
                calls(row).iter().sum::<u64>()
            ),
            (1, 1, 2)
        );
        assert_eq!(
            (row.request_messages.get(), row.response_messages.get()),
            (4, 6)
        );
        assert_eq!(row.latency_ns.get(), 2_000_000);
        assert_eq!(row.latency.iter().map(Counter::get).sum::<u64>(), 2);
        assert_eq!(calls(methods.other())[12], 1);
    }

    /// Goal: clients cannot make it grow. Method: as many methods as there is room for, and one more; names at their
    /// longest, above it, and of bytes that are no text.
    #[test]
    fn rows_are_bounded() {
        let methods = Methods::default();
        for i in 0..=METHODS_MAX {
            methods.record(format!("/a.B/{i}").as_bytes(), CALL);
        }
        assert_eq!(rows(&methods).len(), METHODS_MAX);
        assert_eq!(methods.other().calls[0].get(), 1);
        methods.record(b"/a.B/0", CALL);
        assert_eq!(
            methods.other().calls[0].get(),
            1,
            "those that are there go on"
        );

        let methods = Methods::default();
        methods.record(&[b'a'; METHOD_BYTES_MAX], CALL);
        methods.record(&[b'a'; METHOD_BYTES_MAX + 1], CALL);
        methods.record(b"/\xff/x", CALL);
        assert_eq!(rows(&methods).len(), 1);
        assert_eq!(methods.other().calls[0].get(), 2);
    }
}
