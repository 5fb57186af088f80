//! PROXY protocol headers, both versions, in and out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;

use proptest::prelude::*;
use tidegate_codecs::proxy_protocol::{
    Header, Parsed,
    ProxyError::{self, *},
    V1_BYTES_MAX, V1_UNKNOWN, V2_BYTES_MAX, V2_LOCAL, V2_SIGNATURE, parse, write_v1, write_v2,
};

fn complete(len: usize, addresses: Option<(&str, &str)>) -> Result<Parsed, ProxyError> {
    Ok(Parsed::Complete(Header {
        len,
        source: addresses.map(|(source, _)| source.parse().unwrap()),
        destination: addresses.map(|(_, destination)| destination.parse().unwrap()),
    }))
}

/// The first outcome that is not partial when bytes come one by one.
fn bytewise(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    (0..=bytes.len())
        .map(|len| parse(&bytes[..len]))
        .find(|outcome| *outcome != Ok(Parsed::Partial))
        .unwrap_or(Ok(Parsed::Partial))
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = (block.len() as u16).to_be_bytes();
    [V2_SIGNATURE.as_slice(), &[command, family], &len, block].concat()
}

/// Goal: version 1 is read to the letter (section 2.1), whole and byte by byte. Method: a table.
#[test]
fn version_1() {
    for (line, addresses) in [
        (
            "PROXY TCP4 1.2.3.4 5.6.7.8 111 65535\r\n",
            Some(("1.2.3.4:111", "5.6.7.8:65535")),
        ),
        (
            "PROXY TCP6 2001:db8::1 ::1 0 80\r\n",
            Some(("[2001:db8::1]:0", "[::1]:80")),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN what ever 1 2\r\n", None),
    ] {
        let with_tail = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(
            parse(with_tail.as_bytes()),
            complete(line.len(), addresses),
            "{line:?}"
        );
        assert_eq!(
            bytewise(with_tail.as_bytes()),
            complete(line.len(), addresses),
            "{line:?}"
        );
    }
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 5.6.7.8 1 2\r\n",
        "PROXY TCP6 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(LineInvalid), "{line:?}");
        assert_eq!(bytewise(line.as_bytes()), Err(LineInvalid), "{line:?}");
    }
    assert_eq!(parse(V1_UNKNOWN), complete(V1_UNKNOWN.len(), None));
}

/// Goal: version 2 is read to the letter (section 2.2), whole and byte by byte. Method: a table.
#[test]
fn version_2() {
    let inet = [1, 2, 3, 4, 5, 6, 7, 8, 0, 111, 0, 80];
    let inet_addresses = Some(("1.2.3.4:111", "5.6.7.8:80"));
    let with_tlv = [inet.as_slice(), &[0x04, 0, 2, 0, 0], &[0x20, 0, 0]].concat();
    let short_tlv = [inet.as_slice(), &[0x04, 0, 3, 0, 0]].concat();
    let half_tlv = [inet.as_slice(), &[0x04, 0]].concat();
    let mut inet6 = [0u8; 36];
    (inet6[15], inet6[31], inet6[33], inet6[35]) = (1, 2, 3, 4);
    for (header, expected) in [
        (v2(0x21, 0x11, &inet), Ok(inet_addresses)),
        (v2(0x21, 0x12, &inet), Ok(inet_addresses)),
        (v2(0x21, 0x11, &with_tlv), Ok(inet_addresses)),
        (v2(0x21, 0x21, &inet6), Ok(Some(("[::1]:3", "[::2]:4")))),
        (v2(0x21, 0x31, &[0; 216]), Ok(None)),
        (v2(0x21, 0x00, &[]), Ok(None)),
        (v2(0x21, 0x00, &[1, 2, 3]), Ok(None)),
        (v2(0x20, 0x00, &[]), Ok(None)),
        (v2(0x20, 0x11, &inet), Ok(None)),
        (V2_LOCAL.to_vec(), Ok(None)),
        (v2(0x22, 0x11, &inet), Err(CommandUnknown)),
        (v2(0x11, 0x11, &inet), Err(CommandUnknown)),
        (v2(0x21, 0x13, &inet), Err(FamilyUnknown)),
        (v2(0x21, 0x41, &inet), Err(FamilyUnknown)),
        (v2(0x21, 0x11, &inet[..11]), Err(Truncated)),
        (v2(0x21, 0x21, &inet6[..35]), Err(Truncated)),
        (v2(0x21, 0x31, &[0; 215]), Err(Truncated)),
        (v2(0x21, 0x11, &short_tlv), Err(Truncated)),
        (v2(0x21, 0x11, &half_tlv), Err(Truncated)),
    ] {
        let expected = expected.and_then(|addresses| complete(header.len(), addresses));
        let with_tail = [header.as_slice(), b"\x16\x03\x01"].concat();
        assert_eq!(parse(&with_tail), expected, "{}", header.escape_ascii());
        assert_eq!(bytewise(&with_tail), expected, "{}", header.escape_ascii());
    }
}

/// Goal: a checksum that is there must match (section 2.2.3). Method: the CRC-32C check value of
/// RFC 3720, B.4, is the reference for the algorithm; here a header with a good and a bad sum, and two.
#[test]
fn checksum() {
    let with_sum = |sum: [u8; 4]| {
        let block = [
            &[1, 2, 3, 4, 5, 6, 7, 8, 0, 111, 0, 80, 0x03, 0, 4],
            sum.as_slice(),
        ]
        .concat();
        v2(0x21, 0x11, &block)
    };
    let sum = crc32c_by_long_division(&with_sum([0; 4]));
    let good = with_sum(sum.to_be_bytes());
    assert_eq!(
        parse(&good),
        complete(good.len(), Some(("1.2.3.4:111", "5.6.7.8:80")))
    );
    let bad = with_sum((sum ^ 1).to_be_bytes());
    assert_eq!(parse(&bad), Err(ChecksumWrong));
    let mut twice = good.clone();
    twice.extend_from_slice(&[0x03, 0, 4, 0, 0, 0, 0]);
    twice[15] += 7;
    assert_eq!(parse(&twice), Err(ChecksumWrong));
    // All zeros, 32 bytes (RFC 3720, B.4, in the byte order of this function).
    assert_eq!(crc32c_by_long_division(&[0; 32]), 0x8a91_36aa);
}

/// The slow twin: polynomial division over the bits, most significant first, on reflected bytes.
fn crc32c_by_long_division(bytes: &[u8]) -> u32 {
    let mut remainder = u32::MAX;
    for byte in bytes {
        remainder ^= u32::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            let carry = remainder >> 31 == 1;
            remainder = (remainder << 1) ^ if carry { 0x1edc_6f41 } else { 0 };
        }
    }
    !remainder.reverse_bits()
}

/// Goal: what is no header is refused at its first wrong byte. Method: other protocols.
#[test]
fn missing() {
    for bytes in [b"G".as_slice(), b"PROXX", b"\r\n\r\nG", b"\x16", b"PR1"] {
        assert_eq!(parse(bytes), Err(Missing), "{}", bytes.escape_ascii());
    }
    assert_eq!(parse(b""), Ok(Parsed::Partial));
}

/// Goal: the limits hold. Method: a header at the limit, and one above.
#[test]
fn limits() {
    let line = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
    assert_eq!(
        parse(line(V1_BYTES_MAX).as_bytes()),
        complete(V1_BYTES_MAX, None)
    );
    assert_eq!(parse(line(V1_BYTES_MAX + 1).as_bytes()), Err(LineTooLong));
    assert_eq!(
        bytewise(line(V1_BYTES_MAX + 1).as_bytes()),
        Err(LineTooLong)
    );
    let at = v2(0x20, 0, &vec![0; V2_BYTES_MAX - 16]);
    assert_eq!(parse(&at), complete(V2_BYTES_MAX, None));
    let above = v2(0x20, 0, &vec![0; V2_BYTES_MAX - 15]);
    assert_eq!(parse(&above[..16]), Err(TooLong));
}

proptest! {
    /// Goal: what is written is read back. Method: random addresses, of one family or of two.
    #[test]
    fn round_trip(source: SocketAddr, destination: SocketAddr) {
        for write in [write_v1, write_v2] {
            let mut out = Vec::new();
            write(source, destination, &mut out);
            let Ok(Parsed::Complete(header)) = parse(&out) else {
                panic!("{}", out.escape_ascii());
            };
            prop_assert_eq!(header.len, out.len());
            for (read, written) in [(header.source, source), (header.destination, destination)] {
                let read = read.unwrap();
                prop_assert_eq!(read.ip().to_canonical(), written.ip().to_canonical());
                prop_assert_eq!(read.port(), written.port());
                prop_assert!(source.is_ipv4() != destination.is_ipv4() || read.ip() == written.ip());
            }
        }
    }
}
