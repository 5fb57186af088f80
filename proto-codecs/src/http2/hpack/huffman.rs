//! The code of strings (RFC 7541, 5.2 and appendix B).
//!
//! The code is canonical: sorted by length, then by symbol, each word is the one before it plus one,
//! shifted left where the length grows. So the 257 lengths say everything; the tables are made from them
//! while compiling.
//!
//! Decoding looks at the next eight bits: a table gives the symbol of every word that short, which is all
//! of what fields are made of but a few per cent. For a longer word the left-aligned bits are compared
//! with where the words of each length end:
//!
//! ```text
//! length = the first one with bits < words_end[length]
//! symbol = symbols[rank of the first word of that length + (bits >> (32 - length)) - that word]
//! ```

use super::HpackError;

/// How long `text` is as a code, in bytes.
#[inline]
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(word(byte).len)).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    // The lower `pending_len` bits of `pending` are not written yet: at most 31 before a word is added.
    let (mut pending, mut pending_len) = (0u64, 0u32);
    for &byte in text {
        let word = word(byte);
        pending = pending << word.len | u64::from(word.bits);
        pending_len += u32::from(word.len);
        if pending_len >= 32 {
            pending_len -= 32;
            out.extend_from_slice(&((pending >> pending_len) as u32).to_be_bytes());
        }
    }
    // Padding is the beginning of EOS: ones.
    let padding = pending_len.wrapping_neg() % 8;
    pending = pending << padding | ((1 << padding) - 1);
    pending_len += padding;
    while pending_len > 0 {
        pending_len -= 8;
        out.push((pending >> pending_len) as u8);
    }
}

/// Appends the text of `code`.
pub(super) fn decode(code: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    // No word is shorter than five bits.
    out.reserve(code.len() * 8 / 5 + 1);
    let mut bits = Bits::new(code);
    loop {
        bits.refill();
        // Refilled, there are enough bits for four short words.
        for _ in 0..4 {
            let (symbol, len) = short(bits.word());
            if len == 0 {
                break;
            }
            if len > bits.len {
                return bits.check_padding();
            }
            out.push(symbol);
            bits.skip(len);
        }
        bits.refill();
        let (symbol, len) = match short(bits.word()) {
            (_, 0) => long(bits.word())?,
            found => found,
        };
        if len > bits.len {
            return bits.check_padding();
        }
        out.push(symbol);
        bits.skip(len);
    }
}

/// The bits of a code, from the left.
struct Bits<'a> {
    /// The next bits, left-aligned; zeros behind the last.
    window: u64,
    /// How many bits of the window are there.
    len: u32,
    rest: &'a [u8],
}

impl<'a> Bits<'a> {
    fn new(rest: &'a [u8]) -> Bits<'a> {
        Bits {
            window: 0,
            len: 0,
            rest,
        }
    }

    /// Fills the window to 32 bits or more, unless the code ends.
    #[inline]
    fn refill(&mut self) {
        if self.len >= 32 {
            return;
        }
        if let Some((chunk, tail)) = self.rest.split_first_chunk::<4>() {
            self.push(u64::from(u32::from_be_bytes(*chunk)), 32);
            self.rest = tail;
            return;
        }
        while let Some((&byte, tail)) = self.rest.split_first() {
            self.push(u64::from(byte), 8);
            self.rest = tail;
        }
    }

    #[inline]
    fn push(&mut self, bits: u64, len: u32) {
        self.window |= bits << (64 - len - self.len);
        self.len += len;
    }

    /// The next 32 bits.
    #[inline]
    fn word(&self) -> u32 {
        (self.window >> 32) as u32
    }

    #[inline]
    fn skip(&mut self, len: u32) {
        self.window <<= len;
        self.len -= len;
    }

    /// What is left is no word: it must be fewer than eight ones (RFC 7541, 5.2).
    fn check_padding(&self) -> Result<(), HpackError> {
        if self.len < 8 && self.window.leading_ones() >= self.len {
            Ok(())
        } else {
            Err(HpackError::HuffmanInvalid)
        }
    }
}

/// The symbol of a word of eight bits or less at the left of `bits`, and its length; length zero if the
/// word is longer.
#[inline]
fn short(bits: u32) -> (u8, u32) {
    #[allow(clippy::indexing_slicing)] // A table of 256 entries, indexed by eight bits.
    let [symbol, len] = SHORT[(bits >> 24) as usize];
    (symbol, u32::from(len))
}

/// The symbol of the word at the left of `bits`, and its length. EOS is an error (RFC 7541, 5.2).
fn long(bits: u32) -> Result<(u8, u32), HpackError> {
    LENGTH_GROUPS
        .iter()
        .find(|group| u64::from(bits) < group.words_end)
        .and_then(|group| {
            let rank = (bits >> (32 - group.len)).wrapping_sub(group.first_word);
            let symbol = SYMBOLS.get(group.first_rank as usize + rank as usize)?;
            Some((u8::try_from(*symbol).ok()?, group.len))
        })
        .ok_or(HpackError::HuffmanInvalid)
}

/// A word of the code, right-aligned.
#[derive(Clone, Copy)]
struct Word {
    bits: u32,
    len: u8,
}

#[inline]
fn word(byte: u8) -> Word {
    #[allow(clippy::indexing_slicing)] // A table of 256 entries, indexed by a byte.
    WORDS[byte as usize]
}

/// The words of one length.
#[derive(Clone, Copy)]
struct LengthGroup {
    len: u32,
    first_word: u32,
    /// Where the first word stands in [`SYMBOLS`].
    first_rank: u32,
    /// One past the last word, left-aligned to 32 bits.
    words_end: u64,
}

const EOS: usize = 256;
const LEN_MAX: usize = 30;

/// Lengths of the words of the 256 bytes and EOS, in bits (RFC 7541, appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; EOS + 1] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

struct Tables {
    words: [Word; 256],
    symbols: [u16; EOS + 1],
    short: [[u8; 2]; 256],
    groups: [LengthGroup; LEN_MAX + 1],
}

static WORDS: [Word; 256] = TABLES.words;
/// All symbols, in the order of their words.
static SYMBOLS: [u16; EOS + 1] = TABLES.symbols;
/// For each byte that begins with a whole word: its symbol and length.
static SHORT: [[u8; 2]; 256] = TABLES.short;
/// By length; a length that no word has ends where the one before does, and so is never chosen.
static LENGTH_GROUPS: [LengthGroup; LEN_MAX + 1] = TABLES.groups;

const TABLES: Tables = make_tables();

#[allow(clippy::indexing_slicing)] // Evaluated while compiling.
const fn make_tables() -> Tables {
    const NO_WORD: Word = Word { bits: 0, len: 0 };
    const NO_GROUP: LengthGroup = LengthGroup {
        len: 0,
        first_word: 0,
        first_rank: 0,
        words_end: 0,
    };
    let mut tables = Tables {
        words: [NO_WORD; 256],
        symbols: [0; EOS + 1],
        short: [[0; 2]; 256],
        groups: [NO_GROUP; LEN_MAX + 1],
    };
    let (mut next_word, mut rank) = (0u64, 0);
    let mut len = 1;
    while len <= LEN_MAX {
        next_word <<= 1;
        let first = (next_word as u32, rank as u32);
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol] as usize == len {
                tables.symbols[rank] = symbol as u16;
                if symbol < EOS {
                    tables.words[symbol] = Word {
                        bits: next_word as u32,
                        len: len as u8,
                    };
                }
                if len <= 8 {
                    let mut at = (next_word as usize) << (8 - len);
                    let end = (next_word as usize + 1) << (8 - len);
                    while at < end {
                        tables.short[at] = [symbol as u8, len as u8];
                        at += 1;
                    }
                }
                next_word += 1;
                rank += 1;
            }
            symbol += 1;
        }
        tables.groups[len] = LengthGroup {
            len: len as u32,
            first_word: first.0,
            first_rank: first.1,
            words_end: next_word << (32 - len),
        };
        len += 1;
    }
    tables
}
