//! Flow control (RFC 9113, 5.2 and 6.9).
//!
//! Each direction of each stream has a window, and each direction of the connection one that all its
//! streams share. What is received is not given back to the peer when it arrives, but when the application
//! has consumed it: so a reader that is slow stops its own sender.

/// The window that a stream, and the connection, begins with (RFC 9113, 6.9.2).
pub const WINDOW_BYTES_INITIAL: u32 = 65_535;

/// The largest window there can be (RFC 9113, 6.9.1).
pub const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// The window is larger than it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// The peer has sent more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

/// What we may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendWindow {
    /// Negative if the peer shrank the window below what is on its way (RFC 9113, 6.9.2).
    bytes: i32,
}

impl SendWindow {
    pub(super) fn new(bytes: u32) -> SendWindow {
        debug_assert!(bytes <= WINDOW_BYTES_MAX);
        SendWindow {
            bytes: bytes as i32,
        }
    }

    /// How much may be sent now.
    pub(super) fn available(self) -> usize {
        usize::try_from(self.bytes).unwrap_or_default()
    }

    /// `bytes` were sent; at most what is available.
    pub(super) fn spend(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.available());
        self.bytes -= bytes as i32;
    }

    /// WINDOW_UPDATE.
    pub(super) fn widen(&mut self, increment: u32) -> Result<(), Overflow> {
        self.shift(i64::from(increment))
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE has changed by `difference`.
    pub(super) fn shift(&mut self, difference: i64) -> Result<(), Overflow> {
        self.bytes = i32::try_from(i64::from(self.bytes) + difference).map_err(|_| Overflow)?;
        Ok(())
    }
}

/// What the peer may send, and what it has sent.
///
/// Invariant: what may still be sent, what was received and not consumed, and what was consumed and not
/// given back add up to the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    size: u32,
    /// What may still be sent. Negative if we have shrunk the window.
    left: i32,
    unconsumed: u32,
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> ReceiveWindow {
        debug_assert!(size <= WINDOW_BYTES_MAX);
        ReceiveWindow {
            size,
            left: size as i32,
            unconsumed: 0,
        }
    }

    /// What was received and is not consumed.
    pub(super) fn unconsumed(&self) -> u32 {
        self.unconsumed
    }

    /// `bytes` have arrived.
    pub(super) fn receive(&mut self, bytes: u32) -> Result<(), Exceeded> {
        match i32::try_from(bytes) {
            Ok(received) if received <= self.left.max(0) => {
                self.left -= received;
                self.unconsumed += bytes;
                Ok(())
            }
            _ => Err(Exceeded),
        }
    }

    /// The application is done with `bytes` of what has arrived; what goes beyond that is not counted.
    pub(super) fn consume(&mut self, bytes: u32) {
        self.unconsumed = self.unconsumed.saturating_sub(bytes);
    }

    /// Gives consumed bytes back to the peer, once they are half of the window: the increment to send.
    /// Half, so that updates are rare and yet the peer need not stop for one.
    pub(super) fn give_back(&mut self) -> Option<u32> {
        let size = i64::from(self.size);
        let owed = size - i64::from(self.left) - i64::from(self.unconsumed);
        if owed <= 0 || owed < size / 2 {
            return None;
        }
        self.left += owed as i32;
        Some(owed as u32)
    }

    /// The peer has taken over that windows begin with `size`.
    pub(super) fn resize(&mut self, size: u32) {
        let difference = i64::from(size) - i64::from(self.size);
        self.size = size;
        self.left = (i64::from(self.left) + difference) as i32;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Goal: a window goes to its limit and not beyond (RFC 9113, 6.9.1). Method: at it, and one above.
    #[test]
    fn send_window_is_bounded() {
        let mut window = SendWindow::new(WINDOW_BYTES_MAX - 1);
        window.widen(1).unwrap();
        assert_eq!(window.available(), WINDOW_BYTES_MAX as usize);
        assert_eq!(window.widen(1), Err(Overflow));
        assert_eq!(SendWindow::new(1).widen(WINDOW_BYTES_MAX), Err(Overflow));
    }

    /// Goal: a window that shrank below zero must come back above it (RFC 9113, 6.9.2). Method: the RFC's
    /// own example, 60 KB sent and the window set to 16 KB.
    #[test]
    fn send_window_may_be_negative() {
        let mut window = SendWindow::new(64 << 10);
        window.spend(60 << 10);
        window.shift((16 << 10) - (64 << 10)).unwrap();
        assert_eq!(window.available(), 0);
        window.widen(44 << 10).unwrap();
        assert_eq!(window.available(), 0);
        window.widen(1).unwrap();
        assert_eq!(window.available(), 1);
    }

    /// Goal: the peer can send what it may and no byte more. Method: at the limit and above.
    #[test]
    fn receive_window_is_kept() {
        let mut window = ReceiveWindow::new(10);
        window.receive(10).unwrap();
        assert_eq!(window.receive(1), Err(Exceeded));
        assert_eq!(window.give_back(), None);
        window.consume(4);
        assert_eq!(window.give_back(), None);
        window.consume(1);
        assert_eq!(window.give_back(), Some(5));
        assert_eq!(window.receive(6), Err(Exceeded));
        window.receive(5).unwrap();
        window.resize(8);
        window.consume(10);
        assert_eq!(window.give_back(), Some(10));
        assert_eq!(window.receive(9), Err(Exceeded));
        window.receive(8).unwrap();
    }

    proptest! {
        /// Goal: a receive window never lets more be unconsumed than its size, and never starves a reader
        /// that consumes all. Method: random arrivals and reads against a model with plain counters.
        #[test]
        fn receive_window_agrees_with_a_model(
            size in 1u32..1000,
            steps in prop::collection::vec((any::<bool>(), 0u32..400), 0..100),
        ) {
            let mut window = ReceiveWindow::new(size);
            let (mut may_send, mut unconsumed) = (size, 0);
            for (arrives, bytes) in steps {
                if arrives {
                    let taken = window.receive(bytes);
                    prop_assert_eq!(taken.is_ok(), bytes <= may_send);
                    if taken.is_ok() {
                        may_send -= bytes;
                        unconsumed += bytes;
                    }
                } else {
                    let read = bytes.min(unconsumed);
                    window.consume(read);
                    unconsumed -= read;
                    may_send += window.give_back().unwrap_or_default();
                }
                prop_assert!(may_send + unconsumed <= size);
                prop_assert_eq!(window.unconsumed(), unconsumed);
                prop_assert!(unconsumed > 0 || may_send > size / 2 || may_send == size || arrives);
            }
        }
    }
}
