//! What a peer may send, per protocol. The defaults carry their reasons.

use core::time::Duration;

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

/// Limits on an HTTP/2 connection, each for one connection and direction.
///
/// From [`Http2Limits::resets_max`] to [`Http2Limits::tiny_frames_max`] they hold for each
/// [`Http2Limits::budget_span`]; above them the connection ends with ENHANCE_YOUR_CALM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Streams that the peer may have open at once (SETTINGS_MAX_CONCURRENT_STREAMS), and that we open.
    /// Above: REFUSED_STREAM.
    pub concurrent_streams_max: u32,
    /// Bytes of a header list: of each field its name, its value and 32 (RFC 9113, 6.5.2). Above: 431.
    pub header_list_bytes_max: usize,
    /// Fields of a head, each crumb of a cookie counted (RFC 9113, 8.2.3). Above: 431.
    pub fields_max: usize,
    /// Bytes that the heads and trailers of all open streams may hold together, for each stream that may be
    /// open: those beyond [`Http2Limits::HEAD_RATIO`] times what they were sent as. One head may use them all.
    /// Above: REFUSED_STREAM.
    pub expanded_bytes_per_stream: usize,
    /// Encoded bytes of a header block. Above, its frames would have to be kept: ENHANCE_YOUR_CALM.
    pub block_bytes_max: usize,
    /// CONTINUATION frames of a header block. Above: ENHANCE_YOUR_CALM.
    pub continuations_max: u32,
    /// Payload bytes of a frame (SETTINGS_MAX_FRAME_SIZE), at least 2^14. Above: FRAME_SIZE_ERROR.
    pub frame_bytes_max: u32,
    /// Bytes of the table that the peer encodes with (SETTINGS_HEADER_TABLE_SIZE).
    pub decoder_table_bytes_max: u32,
    /// Bytes of the table that we encode with, whatever the peer offers.
    pub encoder_table_bytes_max: u32,
    /// DATA bytes of a stream that are not consumed (SETTINGS_INITIAL_WINDOW_SIZE), up to 2^31-1.
    pub stream_window_bytes: u32,
    /// DATA bytes of all streams together that are not consumed, 65,535 to 2^31-1. A stalled stream holds
    /// at most its own window of it: if this is as large as all their windows, it never holds another.
    pub connection_window_bytes: u32,
    /// Streams that a client may reset (rapid reset); one is taken off for each stream that ends well.
    pub resets_max: u32,
    /// Streams that a peer may have us reset by breaking rules (MadeYouReset).
    pub stream_errors_max: u32,
    /// SETTINGS frames.
    pub settings_frames_max: u32,
    /// PING frames; one is taken off for each DATA frame that we send.
    pub pings_max: u32,
    /// DATA frames without data that end nothing, and interim heads.
    pub empty_frames_max: u32,
    /// PRIORITY frames, frames of unknown types, and heads on streams that are gone or refused.
    pub idle_frames_max: u32,
    /// WINDOW_UPDATE frames; ten are taken off for each DATA frame that we send, two for each stream.
    pub window_updates_max: u32,
    /// DATA frames of fewer than [`Http2Limits::TINY_FRAME_BYTES`] that a peer's windows force us to send.
    pub tiny_frames_max: u32,
    /// Settings in one frame.
    pub settings_per_frame_max: usize,
    /// Bytes of answers that frames demand (SETTINGS, PING, resets) and the peer has not taken.
    pub unread_bytes_max: usize,
    /// How long a budget lasts before it begins anew.
    pub budget_span: Duration,
}

impl Http2Limits {
    /// Less payload than this costs more than it carries: a frame's header, a record's and a segment's.
    pub const TINY_FRAME_BYTES: usize = 64;

    /// How much more a head may be than what it was sent as, in bytes as its list counts them, before it is
    /// [expanded](Http2Limits::expanded_bytes_per_stream). Memory that has grown is half empty at worst, so
    /// that a peer holds no more than twice as much of it.
    pub const HEAD_RATIO: usize = 4;

    /// What [`Http2Limits::expanded_bytes_per_stream`] makes for the whole connection: the largest head once, and
    /// ordinary ones beside it.
    pub fn expanded_bytes_max(&self) -> usize {
        let streams = self.concurrent_streams_max as usize;
        self.header_list_bytes_max + streams * self.expanded_bytes_per_stream
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        Http2Limits {
            // RFC 9113, 6.5.2, advises no less; browsers and gRPC expect it.
            concurrent_streams_max: 100,
            // As for HTTP/1 heads.
            header_list_bytes_max: 64 << 10,
            fields_max: 128,
            // A browser with 8 KiB of cookies, all of them indexes. A bomb makes 64 KiB of 20 bytes.
            expanded_bytes_per_stream: 12 << 10,
            // What fits the list fits here, since no field is encoded in more bytes than it counts.
            block_bytes_max: 64 << 10,
            // Four frames carry the largest block; twice as many for senders that cut at other sizes.
            continuations_max: 8,
            // Larger frames gain little and hold up the streams behind them.
            frame_bytes_max: 1 << 14,
            decoder_table_bytes_max: 4 << 10,
            encoder_table_bytes_max: 4 << 10,
            // 64 KiB in a round trip of a millisecond is half a gigabit a second and stream.
            stream_window_bytes: 65_535,
            // As large as the windows of all streams.
            connection_window_bytes: 100 * 65_535,
            // Clients that hedge cancel some per cent of what they ask: twenty a second, beyond those.
            resets_max: 200,
            // No honest peer breaks rules; a refused burst before it knows our settings is not counted.
            stream_errors_max: 100,
            // One at the beginning, a few more when windows are tuned.
            settings_frames_max: 50,
            // Keep-alive is one in seconds; measuring round trips is one for some DATA.
            pings_max: 200,
            // Some libraries flush with an empty frame.
            empty_frames_max: 200,
            // Firefox builds a tree of six at the start, older browsers re-prioritise while loading.
            idle_frames_max: 1000,
            // Two for each DATA frame are usual.
            window_updates_max: 1000,
            // A peer that tests us, not one that reads.
            tiny_frames_max: 200,
            // Nine are defined; nghttp2 stops at 32.
            settings_per_frame_max: 32,
            // 3,800 acknowledgements of PING.
            unread_bytes_max: 64 << 10,
            budget_span: Duration::from_secs(10),
        }
    }
}
