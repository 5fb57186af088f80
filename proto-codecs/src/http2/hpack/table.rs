//! The static and the dynamic table (RFC 7541, 2.3, 4 and appendix A).

use std::collections::VecDeque;

/// What an entry counts beyond its text (RFC 7541, 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Entries of the static table; the dynamic one's indexes begin behind it.
pub(super) const STATIC_LEN: usize = STATIC.len();

/// The entry of the static table at `index`, which counts from 1.
#[inline]
pub(super) fn static_entry(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = STATIC.get(index.checked_sub(1)?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// An index where a field, or only its name, was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Field(usize),
    Name(usize),
}

/// Looks a field up in the static table; `name_hash` is the [`hash`] of its name.
#[inline]
pub(super) fn find_static(name_hash: u64, name: &[u8], value: &[u8]) -> Option<Found> {
    let mut slot = static_slot(name_hash);
    loop {
        let index = usize::from(*STATIC_SLOTS.get(slot)?);
        let (known, _) = static_entry(index)?;
        if known == name {
            return Some(find_static_value(index, name, value));
        }
        slot = (slot + 1) % STATIC_SLOTS.len();
    }
}

/// Entries of one name stand together, from `first` on.
#[inline]
fn find_static_value(first: usize, name: &[u8], value: &[u8]) -> Found {
    let mut index = first;
    while let Some((known, known_value)) = static_entry(index)
        && known == name
    {
        if known_value == value {
            return Found::Field(index);
        }
        index += 1;
    }
    Found::Name(first)
}

/// A hash for looking fields up, eight bytes at a time; `seed` joins what was hashed before. It guards
/// against nothing: a collision costs a comparison.
#[inline]
pub(super) const fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed;
    let mut rest = bytes;
    while let Some((chunk, tail)) = rest.split_first_chunk::<8>() {
        state = mix(state ^ u64::from_le_bytes(*chunk));
        rest = tail;
    }
    let mut last = bytes.len() as u64;
    while let Some((&byte, tail)) = rest.split_first() {
        last = last << 8 | byte as u64;
        rest = tail;
    }
    mix(state ^ last)
}

#[inline]
const fn mix(word: u64) -> u64 {
    // The fraction of the golden ratio: odd, and without a pattern.
    let product = word as u128 * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

/// Entries that were sent before on this connection, newest first by index.
///
/// Texts lie one behind the other in one buffer, oldest first: what is evicted leaves room at the front,
/// which is closed when it has grown to the size of the table. No entry is allocated by itself.
#[derive(Debug)]
pub(super) struct DynamicTable {
    text: Vec<u8>,
    entries: VecDeque<Entry>,
    /// As RFC 7541, 4.1, counts it. Invariant: at most `size_max`.
    size: usize,
    size_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    name_len: u32,
    value_len: u32,
}

impl Entry {
    fn size(self) -> usize {
        self.name_len as usize + self.value_len as usize + ENTRY_OVERHEAD
    }
}

impl DynamicTable {
    /// An empty table; nothing is allocated before the first entry.
    pub(super) fn new(size_max: usize) -> DynamicTable {
        DynamicTable {
            text: Vec::new(),
            entries: VecDeque::new(),
            size: 0,
            size_max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    /// The entry at `position`, of which 0 is the newest.
    #[inline]
    pub(super) fn get(&self, position: usize) -> Option<(&[u8], &[u8])> {
        let at = self.entries.len().checked_sub(position + 1)?;
        let entry = self.entries.get(at)?;
        let text = self.text.get(entry.start as usize..)?;
        let (name, rest) = text.split_at_checked(entry.name_len as usize)?;
        Some((name, rest.get(..entry.value_len as usize)?))
    }

    /// Adds an entry, for which old ones make room. One that is larger than the table empties it
    /// (RFC 7541, 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(self.size_max.saturating_sub(size));
        if size > self.size_max {
            return;
        }
        self.close_gap();
        self.entries.push_back(Entry {
            start: self.text.len() as u32,
            name_len: name.len() as u32,
            value_len: value.len() as u32,
        });
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.size += size;
    }

    /// Changes the size that the table may have (RFC 7541, 4.3).
    pub(super) fn set_size_max(&mut self, size_max: usize) {
        self.evict(size_max);
        self.size_max = size_max;
    }

    fn evict(&mut self, size_max: usize) {
        while self.size > size_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
        }
    }

    /// Moves the entries to the front if as much as a whole table lies unused there.
    fn close_gap(&mut self) {
        let Some(oldest) = self.entries.front() else {
            self.text.clear();
            return;
        };
        let gap = oldest.start;
        if gap as usize >= self.size_max {
            self.text.drain(..gap as usize);
            for entry in &mut self.entries {
                entry.start -= gap;
            }
        }
    }
}

/// RFC 7541, appendix A.
#[rustfmt::skip]
static STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// An open-addressed index of the static names: the first entry of each, 0 where there is none. Four times
/// as many slots as names, so that most names, known or not, are decided at their first slot.
static STATIC_SLOTS: [u8; 256] = make_static_slots();

const fn static_slot(name_hash: u64) -> usize {
    (name_hash >> 56) as usize
}

#[allow(clippy::indexing_slicing)] // Evaluated while compiling.
const fn make_static_slots() -> [u8; 256] {
    let mut slots = [0u8; 256];
    let mut index = 1;
    while index <= STATIC.len() {
        let name = STATIC[index - 1].0.as_bytes();
        let is_first = index == 1 || !same(name, STATIC[index - 2].0.as_bytes());
        if is_first {
            let mut slot = static_slot(hash(0, name));
            while slots[slot] != 0 {
                slot = (slot + 1) % slots.len();
            }
            slots[slot] = index as u8;
        }
        index += 1;
    }
    slots
}

#[allow(clippy::indexing_slicing)] // Evaluated while compiling.
const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}
