//! What a peer may send, per protocol. The defaults carry their reasons.

/// Limits on HTTP/1.1 messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http1Limits {
    /// Bytes of a head, from its first byte to the end of its empty line. Above: 431.
    pub head_bytes_max: usize,
    /// Fields of a head. Above: 431. Values over [`Http1Limits::FIELDS_CAP`] count as that.
    pub fields_max: usize,
    /// Bytes of a request target. Above: 414.
    pub target_bytes_max: usize,
    /// Bytes of a chunk's size line, extensions included, line end not.
    pub chunk_line_bytes_max: usize,
    /// Bytes of a trailer section, its closing empty line included.
    pub trailer_bytes_max: usize,
}

impl Http1Limits {
    /// The most fields that any configuration can allow: a head is parsed into a table on the stack, and
    /// this many entries (8 KiB of it) are far beyond what browsers and meshes send (20 to 60).
    pub const FIELDS_CAP: usize = 256;
}

impl Default for Http1Limits {
    fn default() -> Self {
        Http1Limits {
            // Large cookies and tokens reach 16 to 32 KiB in practice; Envoy's default is 60 KiB.
            head_bytes_max: 64 << 10,
            // Envoy and HAProxy stop at 100 or 101; a little room for meshes that add their own.
            fields_max: 128,
            // RFC 9112, section 3, asks for at least 8000.
            target_bytes_max: 8 << 10,
            // 16 digits of size; extensions are all but unused, and only cost the recipient.
            chunk_line_bytes_max: 256,
            // Trailers carry a status or a digest: what fits a head buffer twice is generous.
            trailer_bytes_max: 8 << 10,
        }
    }
}
