//! The PROXY protocol, versions 1 and 2: a header with which a balancer tells who the client is.
//!
//! Follows "The PROXY protocol, Versions 1 & 2" (HAProxy project, 2020/03/05). A header is believed as it
//! stands: whether its sender may be believed is the listener's business.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{self, FromStr},
};

use memchr::memmem;

/// How a version 1 header begins.
pub const V1_PREFIX: &[u8] = b"PROXY ";

/// How a version 2 header begins.
pub const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The most bytes of a version 1 header, its line end included (section 2.1).
pub const V1_BYTES_MAX: usize = 107;

/// The most bytes of a version 2 header that are accepted. The format reaches 64 KiB; what balancers send
/// (addresses, a TLS client's name, an endpoint id) stays far below one receive buffer, and nobody should
/// make us hold more before anything is known of them.
pub const V2_BYTES_MAX: usize = 4096;

/// A version 1 header that tells nothing, for connections of the proxy's own.
pub const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// A version 2 header that tells nothing (LOCAL), for connections of the proxy's own.
pub const V2_LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// How far a header got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The header is there.
    Complete(Header),
}

/// What a header told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the header; the protocol begins behind them.
    pub len: usize,
    /// The client. `None` if the sender does not know (UNKNOWN, UNSPEC), speaks for itself (LOCAL), or
    /// was connected over a Unix socket: the connection's own addresses stand.
    pub source: Option<SocketAddr>,
    /// Where the client connected to; `None` as above.
    pub destination: Option<SocketAddr>,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The bytes begin neither version.
    Missing,
    /// Version 1: no line end within [`V1_BYTES_MAX`] bytes.
    LineTooLong,
    /// Version 1: not `PROXY TCP4|TCP6 source destination port port`, nor `PROXY UNKNOWN`.
    LineInvalid,
    /// Version 2: another version than 2, or an unknown command.
    CommandUnknown,
    /// Version 2: an unknown address family or transport.
    FamilyUnknown,
    /// Version 2: more than [`V2_BYTES_MAX`] bytes.
    TooLong,
    /// Version 2: too short for its addresses, or a TLV that reaches beyond the end.
    Truncated,
    /// Version 2: the CRC-32C does not match.
    ChecksumWrong,
}

impl ProxyError {
    /// The rule in words, for a log line.
    pub fn detail(&self) -> &'static str {
        match self {
            ProxyError::Missing => "no PROXY protocol header",
            ProxyError::LineTooLong => "PROXY line too long",
            ProxyError::LineInvalid => "invalid PROXY line",
            ProxyError::CommandUnknown => "unknown PROXY version or command",
            ProxyError::FamilyUnknown => "unknown PROXY address family or transport",
            ProxyError::TooLong => "PROXY header too long",
            ProxyError::Truncated => "PROXY header shorter than its contents",
            ProxyError::ChecksumWrong => "PROXY header checksum wrong",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl core::error::Error for ProxyError {}

/// Parses the header at the beginning of `bytes`. Stateless: on [`Parsed::Partial`], call again with the
/// same bytes and more behind them.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    if bytes.starts_with(&V2_SIGNATURE) {
        parse_v2(bytes)
    } else if bytes.starts_with(V1_PREFIX) {
        parse_v1(bytes)
    } else if V2_SIGNATURE.starts_with(bytes) || V1_PREFIX.starts_with(bytes) {
        Ok(Parsed::Partial)
    } else {
        Err(ProxyError::Missing)
    }
}

/// Appends a version 1 header. Addresses of two families are both written as IPv6 (RFC 4291, 2.5.5.2).
pub fn write_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    use std::io::Write as _;

    // Writing to a Vec cannot fail.
    let _ = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            write!(
                out,
                "PROXY TCP4 {from} {to} {} {}\r\n",
                source.port(),
                destination.port()
            )
        }
        (from, to) => {
            let (from, to) = (mapped(from), mapped(to));
            write!(
                out,
                "PROXY TCP6 {from} {to} {} {}\r\n",
                source.port(),
                destination.port()
            )
        }
    };
}

/// Appends a version 2 header, without TLVs. Addresses of two families are both written as IPv6.
pub fn write_v2(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&V2_SIGNATURE);
    out.push(V2_VERSION | V2_PROXY);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.push(V2_INET | V2_STREAM);
            out.extend_from_slice(&(V2_INET_BYTES as u16).to_be_bytes());
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.push(V2_INET6 | V2_STREAM);
            out.extend_from_slice(&(V2_INET6_BYTES as u16).to_be_bytes());
            out.extend_from_slice(&mapped(from).octets());
            out.extend_from_slice(&mapped(to).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let window = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(line_len) = memmem::find(window, b"\r\n") else {
        return if window.len() == V1_BYTES_MAX {
            Err(ProxyError::LineTooLong)
        } else {
            Ok(Parsed::Partial)
        };
    };
    let len = line_len + 2;
    let rest = window
        .get(V1_PREFIX.len()..line_len)
        .ok_or(ProxyError::LineInvalid)?;
    // Section 2.1: whatever follows UNKNOWN is ignored.
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Ok(Parsed::Complete(Header {
            len,
            source: None,
            destination: None,
        }));
    }
    let (source, destination) = parse_v1_addresses(rest).ok_or(ProxyError::LineInvalid)?;
    Ok(Parsed::Complete(Header {
        len,
        source: Some(source),
        destination: Some(destination),
    }))
}

/// `TCP4 source destination port port`, with single spaces.
fn parse_v1_addresses(rest: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = str::from_utf8(rest).ok()?.split(' ');
    let family = words.next()?;
    let parse_ip = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => Ipv4Addr::from_str(text).ok().map(IpAddr::V4),
            "TCP6" => Ipv6Addr::from_str(text).ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let source = parse_ip(words.next()?)?;
    let destination = parse_ip(words.next()?)?;
    let source_port = parse_v1_port(words.next()?)?;
    let destination_port = parse_v1_port(words.next()?)?;
    if words.next().is_some() {
        return None;
    }
    Some((
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    ))
}

/// Section 2.1: decimal, without leading zeros.
fn parse_v1_port(text: &str) -> Option<u16> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    canonical.then(|| text.parse().ok())?
}

const V2_FIXED_BYTES: usize = 16;
const V2_VERSION: u8 = 0x20;
const V2_LOCAL_COMMAND: u8 = 0;
const V2_PROXY: u8 = 1;
const V2_INET: u8 = 0x10;
const V2_INET6: u8 = 0x20;
const V2_UNIX: u8 = 0x30;
const V2_STREAM: u8 = 1;
const V2_DATAGRAM: u8 = 2;
const V2_INET_BYTES: usize = 12;
const V2_INET6_BYTES: usize = 36;
const V2_UNIX_BYTES: usize = 216;

fn parse_v2(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    // As soon as a byte is there it is judged, so that nonsense is not waited for.
    let Some(&command) = bytes.get(12) else {
        return Ok(Parsed::Partial);
    };
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyError::CommandUnknown);
    }
    let Some(&family) = bytes.get(13) else {
        return Ok(Parsed::Partial);
    };
    let Some(&[high, low]) = bytes.get(14..16) else {
        return Ok(Parsed::Partial);
    };
    let len = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if len > V2_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let Some(header) = bytes.get(..len) else {
        return Ok(Parsed::Partial);
    };
    let block = header.get(V2_FIXED_BYTES..).unwrap_or_default();
    if command & 0x0f == V2_LOCAL_COMMAND {
        // Section 2.2: the block is discarded, family and all.
        return Ok(Parsed::Complete(Header {
            len,
            source: None,
            destination: None,
        }));
    }
    let (source, destination, tlvs_at) = parse_v2_addresses(family, block)?;
    check_tlvs(header, V2_FIXED_BYTES + tlvs_at)?;
    Ok(Parsed::Complete(Header {
        len,
        source,
        destination,
    }))
}

type Addresses = (Option<SocketAddr>, Option<SocketAddr>, usize);

/// The addresses, and how many bytes of the block they take up.
fn parse_v2_addresses(family: u8, block: &[u8]) -> Result<Addresses, ProxyError> {
    if !matches!(family & 0x0f, 0 | V2_STREAM | V2_DATAGRAM) {
        return Err(ProxyError::FamilyUnknown);
    }
    match family & 0xf0 {
        // Without a family or a transport the receiver ignores the addresses (section 2.2); how long they
        // are is unknown, so the TLVs cannot be found either.
        0 => Ok((None, None, block.len())),
        V2_INET => {
            let block: &[u8; V2_INET_BYTES] = block.first_chunk().ok_or(ProxyError::Truncated)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
            let source = IpAddr::from([a, b, c, d]);
            let destination = IpAddr::from([e, f, g, h]);
            Ok(with_ports(source, destination, ports, V2_INET_BYTES))
        }
        V2_INET6 => {
            let (source, rest) = block
                .split_first_chunk::<16>()
                .ok_or(ProxyError::Truncated)?;
            let (destination, rest) = rest
                .split_first_chunk::<16>()
                .ok_or(ProxyError::Truncated)?;
            let ports = *rest.first_chunk::<4>().ok_or(ProxyError::Truncated)?;
            let (source, destination) = (IpAddr::from(*source), IpAddr::from(*destination));
            Ok(with_ports(source, destination, ports, V2_INET6_BYTES))
        }
        V2_UNIX if block.len() >= V2_UNIX_BYTES => Ok((None, None, V2_UNIX_BYTES)),
        V2_UNIX => Err(ProxyError::Truncated),
        _ => Err(ProxyError::FamilyUnknown),
    }
}

fn with_ports(source: IpAddr, destination: IpAddr, ports: [u8; 4], len: usize) -> Addresses {
    let [a, b, c, d] = ports;
    (
        Some(SocketAddr::new(source, u16::from_be_bytes([a, b]))),
        Some(SocketAddr::new(destination, u16::from_be_bytes([c, d]))),
        len,
    )
}

/// PP2_TYPE_CRC32C (section 2.2.3).
const TLV_CHECKSUM: u8 = 3;

/// Walks the TLVs from offset `at` of the header; all but the checksum are skipped.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), ProxyError> {
    let mut is_checked = false;
    while let Some(tlv) = header.get(at..)
        && !tlv.is_empty()
    {
        let (&[kind, high, low], rest) = tlv.split_first_chunk().ok_or(ProxyError::Truncated)?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(..len).ok_or(ProxyError::Truncated)?;
        if kind == TLV_CHECKSUM {
            let claimed: [u8; 4] = value.try_into().map_err(|_| ProxyError::ChecksumWrong)?;
            // A second one would be computed over the first; it also bounds the work to one pass.
            if core::mem::replace(&mut is_checked, true) {
                return Err(ProxyError::ChecksumWrong);
            }
            if crc32c_without(header, at + 3) != u32::from_be_bytes(claimed) {
                return Err(ProxyError::ChecksumWrong);
            }
        }
        at += 3 + len;
    }
    Ok(())
}

/// CRC-32C (RFC 4960, appendix B) of the header, with the four bytes at `hole` taken as zero.
///
/// Bit by bit: it runs once per connection, over some hundred bytes at most.
fn crc32c_without(header: &[u8], hole: usize) -> u32 {
    const POLYNOMIAL_REVERSED: u32 = 0x82f6_3b78;
    let mut crc = u32::MAX;
    for (at, &byte) in header.iter().enumerate() {
        let is_hole = (hole..hole + 4).contains(&at);
        crc ^= if is_hole { 0 } else { u32::from(byte) };
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= POLYNOMIAL_REVERSED;
            }
        }
    }
    !crc
}
