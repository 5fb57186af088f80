//! Settings (RFC 9113, 6.5).

use super::{error::ConnectionError, flow::WINDOW_BYTES_INITIAL};

pub(super) const HEADER_TABLE_SIZE: u16 = 0x1;
pub(super) const ENABLE_PUSH: u16 = 0x2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
pub(super) const MAX_FRAME_SIZE: u16 = 0x5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441, 3.
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
/// RFC 9218, 2.1.
pub(super) const NO_RFC7540_PRIORITIES: u16 = 0x9;

/// Bytes of one setting in a frame.
pub(super) const SETTING_BYTES: usize = 6;

/// The least that SETTINGS_MAX_FRAME_SIZE can be, and what it is at first (RFC 9113, 6.5.2).
pub const FRAME_BYTES_LEAST: u32 = 1 << 14;
/// The most that it can be.
pub const FRAME_BYTES_MOST: u32 = (1 << 24) - 1;

/// What the peer has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Bytes that our encoder's table may have.
    pub table_bytes_max: u32,
    /// Streams that we may have open; `None` before the peer limits them.
    pub concurrent_streams_max: Option<u32>,
    /// The window that its streams begin with.
    pub stream_window_bytes: u32,
    /// Bytes of a frame's payload that it takes.
    pub frame_bytes_max: u32,
    /// Bytes of a header list that it takes, as RFC 9113, 6.5.2, counts them; advice only.
    pub header_list_bytes_max: Option<u32>,
    /// It takes extended CONNECT (RFC 8441).
    pub extended_connect: bool,
}

impl Default for PeerSettings {
    fn default() -> PeerSettings {
        PeerSettings {
            table_bytes_max: 4096,
            concurrent_streams_max: None,
            stream_window_bytes: WINDOW_BYTES_INITIAL,
            frame_bytes_max: FRAME_BYTES_LEAST,
            header_list_bytes_max: None,
            extended_connect: false,
        }
    }
}

impl PeerSettings {
    /// Takes one setting over; unknown ones are ignored (RFC 9113, 6.5.2).
    pub(super) fn set(
        &mut self,
        id: u16,
        value: u32,
        may_enable_push: bool,
    ) -> Result<(), ConnectionError> {
        let invalid = Err(ConnectionError::SettingInvalid);
        match (id, value) {
            (HEADER_TABLE_SIZE, _) => self.table_bytes_max = value,
            (ENABLE_PUSH, 0) => {}
            // RFC 9113, 6.5.2: a server cannot ask for it, and we never push.
            (ENABLE_PUSH, 1) if may_enable_push => {}
            (ENABLE_PUSH, _) => return invalid,
            (MAX_CONCURRENT_STREAMS, _) => self.concurrent_streams_max = Some(value),
            (INITIAL_WINDOW_SIZE, 0x8000_0000..) => return Err(ConnectionError::WindowOverflow),
            (INITIAL_WINDOW_SIZE, _) => self.stream_window_bytes = value,
            (MAX_FRAME_SIZE, FRAME_BYTES_LEAST..=FRAME_BYTES_MOST) => self.frame_bytes_max = value,
            (MAX_FRAME_SIZE, _) => return invalid,
            (MAX_HEADER_LIST_SIZE, _) => self.header_list_bytes_max = Some(value),
            (ENABLE_CONNECT_PROTOCOL, 1) => self.extended_connect = true,
            // RFC 8441, 3: what was offered cannot be taken back.
            (ENABLE_CONNECT_PROTOCOL, 0) if !self.extended_connect => {}
            (ENABLE_CONNECT_PROTOCOL, _) => return invalid,
            (NO_RFC7540_PRIORITIES, 2..) => return invalid,
            _ => {}
        }
        Ok(())
    }
}
