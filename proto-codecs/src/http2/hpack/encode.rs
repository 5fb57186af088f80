//! A block of fields, to bytes.

use super::{
    FieldLine,
    decode::TABLE_BYTES_INITIAL,
    huffman, integer,
    table::{DynamicTable, Found, STATIC_LEN, find_static, hash},
};

/// Encodes the blocks of one connection's direction, in their order.
///
/// What goes into the table is chosen for a proxy, whose connection carries the fields of many clients:
/// credentials never, so that nobody can guess at them by watching sizes (RFC 7541, 7.1); values that
/// rarely come again not either, since they would only push out those that do.
#[derive(Debug)]
pub struct Encoder {
    table: DynamicTable,
    /// Of the names of the table's entries.
    name_hashes: Hashes,
    /// Of their names and values together.
    field_hashes: Hashes,
    /// The most that we are ready to keep, whatever the decoder offers.
    size_cap: usize,
    /// The smallest size since the last block, if the size was changed since: it must be told first
    /// (RFC 7541, 4.2).
    size_told_least: Option<usize>,
    /// A name in lower case.
    name: Vec<u8>,
}

impl Encoder {
    /// An encoder whose table never takes more than `size_cap` (as RFC 7541, 4.1, counts).
    pub fn new(size_cap: usize) -> Encoder {
        let mut encoder = Encoder {
            table: DynamicTable::new(TABLE_BYTES_INITIAL),
            name_hashes: Hashes::default(),
            field_hashes: Hashes::default(),
            size_cap,
            size_told_least: None,
            name: Vec::new(),
        };
        encoder.set_size_limit(TABLE_BYTES_INITIAL);
        encoder
    }

    /// The decoder offers a table of this size.
    pub fn set_size_limit(&mut self, size_limit: usize) {
        let size = size_limit.min(self.size_cap);
        if size == self.table.size_max() {
            return;
        }
        self.table.set_size_max(size);
        self.forget_evicted();
        let least = self.size_told_least.map_or(size, |least| least.min(size));
        self.size_told_least = Some(least);
    }

    /// Begins a block: to be called before its first field.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(least) = self.size_told_least.take() else {
            return;
        };
        integer::encode(least, 5, 0x20, out);
        if least != self.table.size_max() {
            integer::encode(self.table.size_max(), 5, 0x20, out);
        }
    }

    /// Appends one field. Its name is written in lower case (RFC 9113, 8.2.1).
    pub fn encode(&mut self, line: FieldLine<'_>, out: &mut Vec<u8>) {
        if !line.name.iter().any(u8::is_ascii_uppercase) {
            self.encode_lowercase(line, out);
            return;
        }
        let mut name = core::mem::take(&mut self.name);
        name.clear();
        name.extend_from_slice(line.name);
        name.make_ascii_lowercase();
        self.encode_lowercase(
            FieldLine {
                name: &name,
                ..line
            },
            out,
        );
        self.name = name;
    }

    fn encode_lowercase(&mut self, line: FieldLine<'_>, out: &mut Vec<u8>) {
        let FieldLine { name, value, .. } = line;
        let name_hash = hash(0, name);
        let in_static = find_static(name_hash, name, value);
        if let Some(Found::Field(index)) = in_static
            && !line.never_indexed
        {
            integer::encode(index, 7, 0x80, out);
            return;
        }
        let treatment = self.treatment(line);
        let mut field_hash = 0;
        if treatment == Treatment::Index {
            field_hash = hash(name_hash, value) as u32;
            if let Some(index) = self.find_field(field_hash, name, value) {
                integer::encode(index, 7, 0x80, out);
                return;
            }
        }
        let name_index = match in_static {
            Some(Found::Name(index) | Found::Field(index)) => index,
            None => self.find_name(name_hash as u32, name).unwrap_or(0),
        };
        match treatment {
            Treatment::Index => integer::encode(name_index, 6, 0x40, out),
            Treatment::Pass => integer::encode(name_index, 4, 0x00, out),
            Treatment::Never => integer::encode(name_index, 4, 0x10, out),
        }
        if name_index == 0 {
            push_string(name, out);
        }
        push_string(value, out);
        if treatment == Treatment::Index {
            self.table.insert(name, value);
            self.name_hashes.push(name_hash as u32);
            self.field_hashes.push(field_hash);
            self.forget_evicted();
        }
    }

    fn treatment(&self, line: FieldLine<'_>) -> Treatment {
        if line.never_indexed || is_credential(line.name) {
            return Treatment::Never;
        }
        let is_large = line.name.len() + line.value.len() > self.table.size_max() / 4;
        if is_large || rarely_repeats(line.name, line.value) {
            return Treatment::Pass;
        }
        Treatment::Index
    }

    /// The index of a field in the dynamic table.
    fn find_field(&self, field_hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        self.field_hashes
            .positions(field_hash)
            .find(|position| self.table.get(*position) == Some((name, value)))
            .map(|position| STATIC_LEN + 1 + position)
    }

    /// The index of a name in the dynamic table.
    fn find_name(&self, name_hash: u32, name: &[u8]) -> Option<usize> {
        self.name_hashes
            .positions(name_hash)
            .find(|position| {
                self.table
                    .get(*position)
                    .is_some_and(|found| found.0 == name)
            })
            .map(|position| STATIC_LEN + 1 + position)
    }

    fn forget_evicted(&mut self) {
        self.name_hashes.keep(self.table.len());
        self.field_hashes.keep(self.table.len());
    }
}

/// Hashes of the entries of a table, oldest first. Apart from the entries and in one piece, so that a search
/// looks at [`Hashes::AT_ONCE`] of them with a few instructions.
#[derive(Debug, Default)]
struct Hashes {
    values: Vec<u32>,
    /// How many of the values, the oldest, are of entries that are gone.
    gone: usize,
}

impl Hashes {
    /// Four vectors of the smallest width that there is. More would make small tables dear.
    const AT_ONCE: usize = 16;

    fn push(&mut self, hash: u32) {
        if self.gone > self.values.len() / 2 {
            self.values.drain(..self.gone);
            self.gone = 0;
        }
        self.values.push(hash);
    }

    /// Only the newest `len` are of entries that are there.
    fn keep(&mut self, len: usize) {
        debug_assert!(len <= self.values.len());
        self.gone = self.values.len() - len;
    }

    /// Where a hash stands, newest first.
    fn positions(&self, wanted: u32) -> impl Iterator<Item = usize> {
        let there = self.values.get(self.gone..).unwrap_or_default();
        let (rest, chunks) = there.as_rchunks::<{ Hashes::AT_ONCE }>();
        let newest_first = chunks.iter().rev().enumerate();
        newest_first
            // Without a way out of it, the compiler makes vector instructions of this.
            .filter(move |(_, chunk)| {
                chunk
                    .iter()
                    .fold(false, |any, hash| any | (*hash == wanted))
            })
            .flat_map(move |(at, chunk)| positions_in(chunk, at * Hashes::AT_ONCE, wanted))
            .chain(positions_in(rest, chunks.len() * Hashes::AT_ONCE, wanted))
    }
}

/// Where a hash stands in a few of them, counted from the newest, which is at `first`.
fn positions_in(hashes: &[u32], first: usize, wanted: u32) -> impl Iterator<Item = usize> {
    let newest_first = hashes.iter().rev().enumerate();
    newest_first
        .filter(move |(_, hash)| **hash == wanted)
        .map(move |(at, _)| first + at)
}

/// How a field is written that is in no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// It goes into the table.
    Index,
    /// It goes by.
    Pass,
    /// It goes by, and further hops must not keep it either.
    Never,
}

/// Fields that let somebody in.
fn is_credential(name: &[u8]) -> bool {
    matches!(
        name,
        b"authorization" | b"cookie" | b"proxy-authorization" | b"set-cookie"
    )
}

/// Whether this value is unlikely to come again soon on this connection: a guess by name, as other proxies
/// make it, with what is new in every request of a mesh. A path without query does come again: gRPC knows
/// no other, and an index costs less than its Huffman code.
fn rarely_repeats(name: &[u8], value: &[u8]) -> bool {
    match name {
        b":path" => value.len() > 128 || value.contains(&b'?'),
        b"age" | b"content-length" | b"content-range" | b"etag" | b"grpc-message"
        | b"grpc-timeout" | b"if-match" | b"if-modified-since" | b"if-none-match" | b"if-range"
        | b"last-modified" | b"location" | b"range" | b"traceparent" | b"tracestate"
        | b"x-request-id" => true,
        _ => false,
    }
}

/// RFC 7541, 5.2: as a Huffman code if that is shorter.
fn push_string(text: &[u8], out: &mut Vec<u8>) {
    let code_len = huffman::encoded_len(text);
    if code_len < text.len() {
        integer::encode(code_len, 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len(), 7, 0x00, out);
        out.extend_from_slice(text);
    }
}
