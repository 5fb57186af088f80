//! Limits on connections in HTTP/2.

use std::time::Duration;

/// What a client may do on a connection in HTTP/2. From `resets` on the numbers hold for
/// [`Http2Limits::BUDGET_SPAN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Streams at once.
    pub streams: u32,
    /// Bytes of a request body that are taken ahead of the endpoint.
    pub stream_window: u32,
    /// The same for all streams of a connection together.
    pub connection_window: u32,
    /// Streams that the client resets.
    pub resets: u32,
    /// Streams that are reset since the client breaks rules.
    pub stream_errors: u32,
    /// SETTINGS frames.
    pub settings: u32,
    /// PING frames.
    pub pings: u32,
    /// Frames without content.
    pub empty_frames: u32,
    /// Frames without effect.
    pub idle_frames: u32,
    /// WINDOW_UPDATE frames.
    pub window_updates: u32,
    /// Frames that the client's windows make tiny.
    pub tiny_frames: u32,
}

impl Http2Limits {
    /// How long a budget lasts before it begins anew.
    pub const BUDGET_SPAN: Duration = Duration::from_secs(10);
}

impl Default for Http2Limits {
    fn default() -> Self {
        Http2Limits {
            streams: 100,
            stream_window: 64 << 10,
            connection_window: 100 * (64 << 10),
            resets: 200,
            stream_errors: 100,
            settings: 50,
            pings: 200,
            empty_frames: 200,
            idle_frames: 1000,
            window_updates: 1000,
            tiny_frames: 200,
        }
    }
}
