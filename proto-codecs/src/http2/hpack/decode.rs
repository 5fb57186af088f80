//! A block of fields, from bytes.

use core::ops::Range;

use super::{
    FieldLine, HpackError, huffman, integer,
    table::{DynamicTable, STATIC_LEN, static_entry},
};

/// Decodes the blocks of one connection's direction, in their order.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// What the encoder may set the table to: as announced to it, once it has acknowledged that.
    size_limit: usize,
    /// The limit fell below the size in use: the next block must begin with an update.
    is_update_due: bool,
    /// Strings of the field at hand that are not in the block as they are.
    scratch: Vec<u8>,
}

/// The size that tables begin with (RFC 9113, 6.5.2).
pub(super) const TABLE_BYTES_INITIAL: usize = 4096;

/// A scratch that a long string made larger than this is freed behind the block.
const SCRATCH_BYTES_KEPT: usize = 4096;

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            table: DynamicTable::new(TABLE_BYTES_INITIAL),
            size_limit: TABLE_BYTES_INITIAL,
            is_update_due: false,
            scratch: Vec::new(),
        }
    }
}

impl Decoder {
    /// The encoder has acknowledged that its table may have this size.
    pub fn set_size_limit(&mut self, size_limit: usize) {
        self.is_update_due |= size_limit < self.table.size_max();
        self.size_limit = size_limit;
    }

    /// Decodes one whole block and hands its fields on, in order. Limits on what they add up to are the
    /// receiver's: all fields must be decoded, wanted or not, to keep the tables alike.
    ///
    /// # Errors
    ///
    /// After an error the connection must end.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut take: impl FnMut(FieldLine<'_>),
    ) -> Result<(), HpackError> {
        let mut rest = self.update_sizes(block)?;
        while let Some(first) = rest.first() {
            rest = match first {
                0x80.. => self.indexed(rest, &mut take)?,
                0x40.. => self.literal(rest, 6, Indexing::Incremental, &mut take)?,
                0x20.. => return Err(HpackError::TableSizeMisplaced),
                0x10.. => self.literal(rest, 4, Indexing::Never, &mut take)?,
                _ => self.literal(rest, 4, Indexing::Without, &mut take)?,
            };
        }
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// RFC 7541, 4.2 and 6.3: updates stand before the first field.
    fn update_sizes<'b>(&mut self, block: &'b [u8]) -> Result<&'b [u8], HpackError> {
        let mut rest = block;
        while let Some(0x20..0x40) = rest.first() {
            let (size, tail) = integer::decode(rest, 5)?;
            if size > self.size_limit {
                return Err(HpackError::TableSizeTooLarge);
            }
            self.table.set_size_max(size);
            self.is_update_due = false;
            rest = tail;
        }
        if self.is_update_due {
            return Err(HpackError::TableSizeMissing);
        }
        Ok(rest)
    }

    #[inline]
    fn indexed<'b>(
        &self,
        input: &'b [u8],
        take: &mut impl FnMut(FieldLine<'_>),
    ) -> Result<&'b [u8], HpackError> {
        let (index, rest) = integer::decode(input, 7)?;
        let (name, value) = self.entry(index)?;
        take(FieldLine::new(name, value));
        Ok(rest)
    }

    fn literal<'b>(
        &mut self,
        input: &'b [u8],
        prefix_bits: u32,
        indexing: Indexing,
        take: &mut impl FnMut(FieldLine<'_>),
    ) -> Result<&'b [u8], HpackError> {
        self.scratch.clear();
        let (index, rest) = integer::decode(input, prefix_bits)?;
        let (name, rest) = match index {
            0 => self.string(rest)?,
            _ => (self.name(index)?, rest),
        };
        let (value, rest) = self.string(rest)?;
        let (name, value) = (name.of(&self.scratch), value.of(&self.scratch));
        take(FieldLine {
            name,
            value,
            never_indexed: indexing == Indexing::Never,
        });
        if indexing == Indexing::Incremental {
            self.table.insert(name, value);
        }
        Ok(rest)
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        match index.checked_sub(STATIC_LEN + 1) {
            Some(position) => self.table.get(position),
            None => static_entry(index),
        }
        .ok_or(HpackError::IndexInvalid)
    }

    /// The name of an entry. One of the dynamic table is copied, since the entry may have to make room for
    /// the very field that refers to it (RFC 7541, 4.4).
    fn name<'b>(&mut self, index: usize) -> Result<Text<'b>, HpackError> {
        if let Some((name, _)) = static_entry(index) {
            return Ok(Text::Borrowed(name));
        }
        let position = index
            .checked_sub(STATIC_LEN + 1)
            .ok_or(HpackError::IndexInvalid)?;
        let (name, _) = self.table.get(position).ok_or(HpackError::IndexInvalid)?;
        let start = self.scratch.len();
        self.scratch.extend_from_slice(name);
        Ok(Text::Scratch(start..self.scratch.len()))
    }

    /// RFC 7541, 5.2.
    fn string<'b>(&mut self, input: &'b [u8]) -> Result<(Text<'b>, &'b [u8]), HpackError> {
        let is_huffman = input.first().is_some_and(|first| first & 0x80 != 0);
        let (len, rest) = integer::decode(input, 7)?;
        let (string, rest) = rest.split_at_checked(len).ok_or(HpackError::Truncated)?;
        if !is_huffman {
            return Ok((Text::Borrowed(string), rest));
        }
        let start = self.scratch.len();
        huffman::decode(string, &mut self.scratch)?;
        Ok((Text::Scratch(start..self.scratch.len()), rest))
    }
}

/// What a literal field asks of the tables (RFC 7541, 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Indexing {
    Incremental,
    Without,
    Never,
}

/// Where a string is.
enum Text<'a> {
    /// In the block or the static table.
    Borrowed(&'a [u8]),
    Scratch(Range<usize>),
}

impl<'a> Text<'a> {
    fn of(self, scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Text::Borrowed(text) => text,
            Text::Scratch(range) => scratch.get(range).unwrap_or_default(),
        }
    }
}
