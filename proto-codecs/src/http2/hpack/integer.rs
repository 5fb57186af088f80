//! Integers with a prefix (RFC 7541, 5.1).

use super::HpackError;

/// Bytes behind the prefix that are read: 28 bits, beyond every length and index that is ever allowed, and
/// few enough that nothing overflows 32 bits.
const CONTINUATION_BYTES_MAX: u32 = 4;

/// Reads the integer whose prefix is the lower `prefix_bits` of the first byte; returns it with what
/// follows.
#[inline]
pub(super) fn decode(input: &[u8], prefix_bits: u32) -> Result<(usize, &[u8]), HpackError> {
    let (&first, mut rest) = input.split_first().ok_or(HpackError::Truncated)?;
    let mask = (1u32 << prefix_bits) - 1;
    let mut value = u32::from(first) & mask;
    if value < mask {
        return Ok((value as usize, rest));
    }
    for at in 0..CONTINUATION_BYTES_MAX {
        let (&byte, tail) = rest.split_first().ok_or(HpackError::Truncated)?;
        rest = tail;
        value += u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value as usize, rest));
        }
    }
    Err(HpackError::IntegerTooLarge)
}

/// Appends `value` with a prefix of `prefix_bits`; `flags` are the bits of the first byte above it.
#[inline]
pub(super) fn encode(value: usize, prefix_bits: u32, flags: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}
