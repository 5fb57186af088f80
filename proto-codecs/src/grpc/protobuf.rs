//! As much of protobuf's wire format as the messages here need (protobuf.dev, "Encoding").
//!
//! By hand: the crates that compile protos are kept out of the data path.

use super::Malformed;

/// A field's value, as far as its wire type tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of eight or four bytes.
    Fixed,
}

/// The fields of a message with their numbers, in order. It ends with the first that is malformed.
pub(super) fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Value<'_>), Malformed>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
        let read = take_field(bytes);
        rest = read.map(|(_, _, rest)| rest);
        Some(
            read.map(|(number, value, _)| (number, value))
                .ok_or(Malformed),
        )
    })
}

fn take_field(bytes: &[u8]) -> Option<(u64, Value<'_>, &[u8])> {
    let (tag, bytes) = take_varint(bytes)?;
    let (value, rest) = match tag & 7 {
        0 => take_varint(bytes).map(|(number, rest)| (Value::Number(number), rest))?,
        1 => (Value::Fixed, bytes.get(8..)?),
        2 => {
            let (length, bytes) = take_varint(bytes)?;
            let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            (Value::Bytes(value), rest)
        }
        5 => (Value::Fixed, bytes.get(4..)?),
        // Groups, which proto3 does not have, and what is not defined.
        _ => return None,
    };
    Some((tag >> 3, value, rest))
}

/// Seven bits a byte, the lowest first; at most ten bytes.
fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}
