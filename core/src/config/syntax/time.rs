//! Moments: `2026-12-31T23:59:59Z` (RFC 3339, in UTC).

use super::{Fault, Parsed, codes};

const DAY_S: i64 = 86_400;

/// A moment, in seconds since the Unix epoch.
pub(in super::super) fn instant(text: &str) -> Parsed<u64> {
    parse_instant(text).ok_or_else(|| {
        let help = "write `2026-12-31T23:59:59Z`: year, month, day, time, in UTC";
        Fault::new(codes::TEXT, "no moment", help)
    })
}

/// `2026-12-31T23:59:59Z` in seconds since the Unix epoch; `None` for anything else.
pub fn parse_instant(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let separators = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'Z'),
    ];
    let fits = separators
        .iter()
        .all(|(at, byte)| bytes.get(*at) == Some(byte));
    if bytes.len() != 20 || !fits {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse::<i64>().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days(year, month, day);
    // What does not come back as it was is no date: the 31st of February.
    (date(days) == (year, month, day)).then_some(())?;
    u64::try_from(days * DAY_S + hour * 3_600 + minute * 60 + second).ok()
}

/// The way back.
pub fn format_instant(unix_s: u64) -> String {
    // Beyond the year 9999 there are five digits, which nobody means.
    let unix_s = i64::try_from(unix_s)
        .unwrap_or(i64::MAX)
        .min(253_402_300_799);
    let (days, rest) = (unix_s / DAY_S, unix_s % DAY_S);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Days since the Unix epoch, in the Gregorian calendar. Years are counted from March, so that the leap day is
/// the last of one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    // From the 1st of March of the year 0; the Unix epoch is 719,468 days later.
    365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468
}

/// Year, month and day, found by the year that holds the day.
fn date(of: i64) -> (i64, i64, i64) {
    let mut year = 1970 + of / 366;
    while days(year + 1, 1, 1) <= of {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days(year, month + 1, 1) <= of {
        month += 1;
    }
    (year, month, of - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: moments are read and written exactly. Method: known ones, both ways, and what is none.
    #[test]
    fn moments_round_trip() {
        for (text, unix_s) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2024-12-31T23:59:59Z", 1_735_689_599),
            ("2026-11-30T12:00:00Z", 1_796_040_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse_instant(text), Some(unix_s), "{text}");
            assert_eq!(format_instant(unix_s), text);
        }
        for bad in [
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:00",
            "2023-01-01 00:00:00Z",
            "2023-01-01T00:00:00+01:00",
            "1969-12-31T23:59:59Z",
            "+023-01-01T00:00:00Z",
            "",
        ] {
            assert_eq!(parse_instant(bad), None, "{bad}");
        }
    }
}
