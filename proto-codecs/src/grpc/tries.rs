//! What calls say of their time, and of being tried again.

use core::time::Duration;

/// The field that says how long a client waits.
pub const TIMEOUT: &str = "grpc-timeout";
/// The field that says how many tries there were before this one.
pub const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
/// The field by which a server says when to try again, beside the status.
pub const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Digits that a time-out may have.
const DIGITS_MAX: usize = 8;

/// When a server wants to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// After this.
    After(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// Parses the field. What is no number of milliseconds, or below zero, says never.
    pub fn parse(value: &[u8]) -> Pushback {
        let text = core::str::from_utf8(value).ok();
        let millis = text.and_then(|text| text.parse::<u32>().ok());
        let after = millis.map(|millis| Duration::from_millis(millis.into()));
        after.map_or(Pushback::Never, Pushback::After)
    }
}

/// Parses a time-out: `1*8DIGIT` and a unit; `None` for anything else.
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits
        .iter()
        .fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Writes a time-out, in the finest unit that has room for it, rounded down.
pub fn format_timeout(timeout: Duration) -> String {
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (timeout.as_secs().into(), 'S'),
        ((timeout.as_secs() / 60).into(), 'M'),
    ];
    let end = 10_u128.pow(DIGITS_MAX as u32);
    let finest = units.into_iter().find(|(count, _)| *count < end);
    let hours = u128::from(timeout.as_secs() / 3600).min(end - 1);
    let (count, unit) = finest.unwrap_or((hours, 'H'));
    format!("{count}{unit}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Goal: a client's time-out is understood as gRPC writes it. Method: each unit, and what is none.
    #[test]
    fn timeouts() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("100m", Some(Duration::from_millis(100))),
            ("7u", Some(Duration::from_micros(7))),
            ("8n", Some(Duration::from_nanos(8))),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        /// Goal: what is written is read as what it was, or as a little less. Method: times of all sizes.
        #[test]
        fn timeouts_are_read_back(nanos in any::<u64>(), shift in 0u32..64) {
            let timeout = Duration::from_nanos(nanos >> shift);
            let text = format_timeout(timeout);
            let read = parse_timeout(text.as_bytes());
            let Some(read) = read else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert!(read <= timeout && timeout - read <= timeout / 10_000, "{}", text);
        }
    }

    /// Goal: a time longer than any unit has digits for is still a time. Method: the longest there is.
    #[test]
    fn the_longest_timeout() {
        assert_eq!(format_timeout(Duration::MAX), "99999999H");
    }

    /// Goal: a server that does not want to be tried again is heard. Method: numbers, and what is none.
    #[test]
    fn pushbacks() {
        let after = |millis| Pushback::After(Duration::from_millis(millis));
        for (text, expected) in [
            ("0", after(0)),
            ("250", after(250)),
            ("-1", Pushback::Never),
            ("", Pushback::Never),
            ("soon", Pushback::Never),
            ("4294967295", after(4_294_967_295)),
            ("4294967296", Pushback::Never),
        ] {
            assert_eq!(Pushback::parse(text.as_bytes()), expected, "{text}");
        }
    }
}
