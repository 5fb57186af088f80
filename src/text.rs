//! Small pieces of text that several parts print: durations, times of day, escapes, sizes.

use std::{fmt, time::Duration};

/// A moment as RFC 3339 in UTC with milliseconds, from nanoseconds since the Unix epoch.
pub(crate) struct Rfc3339(pub(crate) u64);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0 / 1_000_000;
        let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        )
    }
}

/// Year, month and day of a count of days since 1970-01-01 in the Gregorian calendar.
/// The method is Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day is last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// A duration as a person reads it, three significant digits: `870ns`, `12.3µs`, `4.56ms`, `1.20s`.
pub(crate) struct Span(pub(crate) Duration);

impl Span {
    /// From nanoseconds.
    pub(crate) fn ns(ns: u64) -> Self {
        Span(Duration::from_nanos(ns))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos() as f64;
        let (value, unit) = match ns {
            ns if ns < 1e3 => return write!(f, "{ns}ns"),
            ns if ns < 1e6 => (ns / 1e3, "µs"),
            ns if ns < 1e9 => (ns / 1e6, "ms"),
            ns => (ns / 1e9, "s"),
        };
        let decimals = match value {
            v if v < 10.0 => 2,
            v if v < 100.0 => 1,
            _ => 0,
        };
        write!(f, "{value:.decimals$}{unit}")
    }
}

/// Text from a peer inside one quoted field of a line: control characters, quotes, backslashes and
/// anything that is not ASCII are escaped, so that nobody can forge a line or move a terminal's cursor.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_default())
    }
}

/// Parses a duration with its unit: `250ms`, `30s`, `2m`, `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(|| format!("`{text}` has no unit: write `{text}s` or `{text}ms`"))?;
    let (digits, unit) = text.split_at(split);
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("unknown unit `{unit}`: use ms, s, m or h")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(ms_per_unit))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration"))
}

/// 64-bit FNV-1a: names the content of a configuration, not more. Stable over versions and platforms,
/// which the standard library's hashers do not promise.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: the calendar is right around leap days and centuries. Method: dates computed elsewhere.
    #[test]
    fn dates_of_known_moments() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Rfc3339(seconds * 1_000_000_000).to_string(), expected);
        }
        assert_eq!(Rfc3339(1_234_567).to_string(), "1970-01-01T00:00:00.001Z");
    }

    /// Goal: three significant digits and the right unit. Method: a value in and at the edge of each.
    #[test]
    fn spans_read_well() {
        for (ns, expected) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00µs"),
            (12_340, "12.3µs"),
            (456_000, "456µs"),
            (4_560_000, "4.56ms"),
            (1_200_000_000, "1.20s"),
            (90_000_000_000, "90.0s"),
        ] {
            assert_eq!(Span::ns(ns).to_string(), expected);
        }
    }

    /// Goal: a peer cannot forge a log line. Method: what could end the field or the line is escaped.
    #[test]
    fn quoted_text_stays_in_its_field() {
        assert_eq!(
            Quoted("a\"b\\c\n\u{1b}[2J\u{e9}").to_string(),
            r#""a\"b\\c\n\u{1b}[2J\u{e9}""#
        );
    }

    /// Goal: durations need a unit and never wrap. Method: table of good and bad.
    #[test]
    fn durations_carry_units() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(parse_duration("1h").unwrap(), Duration::from_secs(3600));
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "5d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    /// Goal: the fingerprint is FNV-1a. Method: published test vectors.
    #[test]
    fn fingerprint_is_fnv1a() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
