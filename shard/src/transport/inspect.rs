//! Telling TLS from plaintext by the first bytes of a connection.

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A record with a hello of a client.
    Tls,
    /// Anything else.
    Plaintext,
    /// More bytes must tell.
    Undecided,
}

/// The payload of a record without protection (RFC 8446, 5.1).
const RECORD_MAX: usize = 1 << 14;
/// A hello may be cut into records as small as this, of which the first holds its type (RFC 8446, 5.1).
const RECORD_MIN: usize = 1;

/// Looks at the header of a whole record and the message in it, rather than at one byte: `0x16` (a
/// handshake), `0x03 0x00` to `0x03 0x04`, a length, and `0x01` (a hello of a client). So no protocol
/// that merely begins with `0x16` is taken for TLS. Plaintext is told by the first byte that differs.
pub(super) fn inspect(bytes: &[u8]) -> Opening {
    let fits: [fn(u8) -> bool; 3] = [|b| b == 0x16, |b| b == 0x03, |b| b <= 0x04];
    if bytes.iter().zip(fits).any(|(byte, fits)| !fits(*byte)) {
        return Opening::Plaintext;
    }
    let [_, _, _, high, low, rest @ ..] = bytes else {
        return Opening::Undecided;
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    match rest.first() {
        _ if !(RECORD_MIN..=RECORD_MAX).contains(&len) => Opening::Plaintext,
        None => Opening::Undecided,
        Some(0x01) => Opening::Tls,
        Some(_) => Opening::Plaintext,
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Goal: TLS and other protocols are told apart. Method: the openings of protocols, and headers at
    /// their limits and one beyond.
    #[test]
    fn openings() {
        for (bytes, expected) in [
            (&[0x16, 3, 1, 2, 0, 1][..], Opening::Tls),
            (&[0x16, 3, 0, 0, 4, 1], Opening::Tls),
            (&[0x16, 3, 4, 0x40, 0, 1], Opening::Tls),
            (&[0x16, 3, 5, 2, 0, 1], Opening::Plaintext),
            (&[0x16, 2, 1, 2, 0, 1], Opening::Plaintext),
            (&[0x16, 3, 1, 0, 1, 1], Opening::Tls),
            (&[0x16, 3, 1, 0, 0, 1], Opening::Plaintext),
            (&[0x16, 3, 1, 0x40, 1, 1], Opening::Plaintext),
            (&[0x16, 3, 1, 2, 0, 2], Opening::Plaintext),
            (&[0x15, 3, 1, 0, 2, 2], Opening::Plaintext),
            (b"GET / HTTP/1.1", Opening::Plaintext),
            (b"PRI * HTTP/2.0", Opening::Plaintext),
            // SSL 2.0, Bolt, Dubbo.
            (&[0x80, 0x2e, 1, 0, 2], Opening::Plaintext),
            (&[0x01, 0x01], Opening::Plaintext),
            (&[0xda, 0xbb], Opening::Plaintext),
        ] {
            assert_eq!(inspect(bytes), expected, "{bytes:x?}");
        }
    }

    /// Goal: bytes may arrive one by one. Method: every beginning of a hello is undecided, of nothing else.
    #[test]
    fn bytes_one_by_one() {
        let hello = [0x16, 3, 1, 2, 0, 1];
        for n in 0..hello.len() {
            assert_eq!(inspect(&hello[..n]), Opening::Undecided);
        }
    }
}
