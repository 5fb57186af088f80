//! HPACK, the header compression of HTTP/2 (RFC 7541).
//!
//! * `integer.rs`, `huffman.rs`: the primitive types (section 5, appendix B).
//! * `table.rs`: the static and the dynamic table (section 2.3, appendix A).
//! * `decode.rs`: [`Decoder`], a block of fields from bytes.
//! * `encode.rs`: [`Encoder`], and what it takes into its table.

mod decode;
mod encode;
mod huffman;
mod integer;
mod table;
#[cfg(test)]
mod tests;

use core::fmt;

pub use decode::Decoder;
pub use encode::Encoder;

/// One field of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLine<'a> {
    /// Its name; pseudo-header fields begin with a colon.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// No hop may keep it in a table (RFC 7541, 7.1.3): its value is worth guessing.
    pub never_indexed: bool,
}

impl<'a> FieldLine<'a> {
    /// A field that may be kept in tables.
    pub fn new(name: &'a [u8], value: &'a [u8]) -> FieldLine<'a> {
        FieldLine {
            name,
            value,
            never_indexed: false,
        }
    }
}

/// Why a block cannot be decoded. The tables of the two sides differ from here on, so the connection ends
/// (RFC 9113, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends inside a field.
    Truncated,
    /// An integer beyond what any limit could allow (RFC 7541, 5.1).
    IntegerTooLarge,
    /// A string that is no Huffman code: EOS in it, or wrong padding (RFC 7541, 5.2).
    HuffmanInvalid,
    /// An index that no entry has (RFC 7541, 2.3.3).
    IndexInvalid,
    /// A table size above what was announced (RFC 7541, 6.3).
    TableSizeTooLarge,
    /// A table size update behind the first field (RFC 7541, 4.2).
    TableSizeMisplaced,
    /// No table size update after the announced size fell below the one in use (RFC 7541, 4.2).
    TableSizeMissing,
}

impl HpackError {
    /// The rule in words, for a log line.
    pub fn detail(&self) -> &'static str {
        match self {
            HpackError::Truncated => "header block ends inside a field",
            HpackError::IntegerTooLarge => "integer too large in a header block",
            HpackError::HuffmanInvalid => "invalid Huffman code in a header block",
            HpackError::IndexInvalid => "invalid index in a header block",
            HpackError::TableSizeTooLarge => "table size above the announced one",
            HpackError::TableSizeMisplaced => "table size update behind a field",
            HpackError::TableSizeMissing => "no table size update where one is due",
        }
    }
}

impl fmt::Display for HpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl core::error::Error for HpackError {}
