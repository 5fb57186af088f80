//! Secrets of connections, for whoever captures packets: lines as NSS has them
//! (draft-ietf-tls-keylogfile, 2). Who has them reads everything, so nothing is written unless the operator has
//! asked for it by a flag; rustls looks at no environment variable unless it is told to.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use zeroize::Zeroizing;

/// Lines that may wait for their writer. A handshake has at most five, so these are two hundred handshakes:
/// what a core makes in 80 ms. What does not fit is dropped and counted.
const LINES_MAX: usize = 1024;

/// Bytes of a line: a label, a random of 32 bytes and a secret of at most 48, in hexadecimal.
const LINE_BYTES: usize = 256;

/// A line with its line feed; wiped when it was written.
pub type KeyLogLine = Zeroizing<String>;

/// Where connections leave their secrets. Shards share it, which costs them a cache line a handshake; nothing
/// else of theirs knows it, and no connection waits for it.
#[derive(Clone, Debug)]
pub struct KeyLog {
    lines: SyncSender<KeyLogLine>,
    dropped: Arc<AtomicU64>,
}

impl KeyLog {
    /// With the end that lines come out of.
    #[must_use]
    pub fn new() -> (KeyLog, Receiver<KeyLogLine>) {
        let (lines, written) = sync_channel(LINES_MAX);
        let dropped = Arc::default();
        (KeyLog { lines, dropped }, written)
    }

    /// Lines that were lost, since their writer was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        // Made in one piece: a growing string leaves copies of what it held behind.
        let mut line = Zeroizing::new(String::with_capacity(LINE_BYTES));
        line.push_str(label);
        for bytes in [client_random, secret] {
            line.push(' ');
            for byte in bytes {
                // Writing to a String does not fail.
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push('\n');
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustls::KeyLog as _;

    /// Goal: lines are as Wireshark reads them, and fit into what is set aside for one. Method: the longest.
    #[test]
    fn lines_are_those_of_nss() {
        let (log, lines) = KeyLog::new();
        log.log("CLIENT_HANDSHAKE_TRAFFIC_SECRET", &[0xab; 32], &[1; 48]);
        let line = lines.try_recv().unwrap();
        let (random, secret) = ("ab".repeat(32), "01".repeat(48));
        let expected = format!("CLIENT_HANDSHAKE_TRAFFIC_SECRET {random} {secret}\n");
        assert_eq!(*line, expected);
        assert!(line.len() <= LINE_BYTES && line.capacity() == LINE_BYTES);
    }

    /// Goal: a writer that is behind holds up nobody, and what is lost is counted. Method: as many lines as may
    /// wait, and one above.
    #[test]
    fn lines_are_bounded() {
        let (log, lines) = KeyLog::new();
        for _ in 0..LINES_MAX {
            log.log("CLIENT_RANDOM", &[], &[]);
        }
        assert_eq!(log.dropped(), 0);
        log.log("CLIENT_RANDOM", &[], &[]);
        assert_eq!(log.dropped(), 1);
        assert_eq!(lines.try_iter().count(), LINES_MAX);
    }
}
