//! Durations, sizes and shares, as people write them: always with a unit, exact or refused.

use std::time::Duration;

/// Why a text is not the quantity that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuantityError {
    /// A bare number.
    NoUnit,
    /// Anything else.
    Malformed,
}

/// Nanoseconds per unit of a duration, largest first.
const DURATION_UNITS: &[(&str, u64)] = &[
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// Bytes per unit of a size, largest first.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Basis points per unit of a share.
const SHARE_UNITS: &[(&str, u64)] = &[("%", 100)];

/// `800ms`, `1.5s`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, QuantityError> {
    scaled(text, DURATION_UNITS).map(Duration::from_nanos)
}

/// A duration as the file says it, for those who take one elsewhere.
///
/// # Errors
///
/// How it ought to be written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .map_err(|_| format!("`{text}` is no duration: write `800ms`, `1.5s`, `10m`, `1h`"))
}

/// `64KiB`, `1.5MiB`, `0B`.
pub(super) fn size(text: &str) -> Result<u64, QuantityError> {
    scaled(text, SIZE_UNITS)
}

/// `20%`, `0.5%`, as basis points.
pub(super) fn share(text: &str) -> Result<u32, QuantityError> {
    let points = scaled(text, SHARE_UNITS)?;
    u32::try_from(points).map_err(|_| QuantityError::Malformed)
}

/// The largest unit that leaves a whole number: `90s`, not `1.5m`.
pub(super) fn format_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    format_scaled(nanos, DURATION_UNITS)
}

/// The largest unit that leaves a whole number: `64KiB`.
pub(super) fn format_size(bytes: u64) -> String {
    format_scaled(bytes, SIZE_UNITS)
}

/// Basis points with as many decimals as needed: `33.34%`.
pub(super) fn format_share(points: u32) -> String {
    let (whole, rest) = (points / 100, points % 100);
    let decimals = format!("{rest:02}");
    match decimals.trim_end_matches('0') {
        "" => format!("{whole}%"),
        decimals => format!("{whole}.{decimals}%"),
    }
}

/// A decimal number with one of `units`, in the smallest unit, exactly.
fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, QuantityError> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or("");
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(decimals) || digits.ends_with('.') {
        return Err(QuantityError::Malformed);
    }
    if unit.is_empty() {
        return Err(QuantityError::NoUnit);
    }
    // `800 ms` is what people write by hand.
    let unit = unit.trim_start_matches(' ');
    let found = units.iter().find(|(name, _)| *name == unit);
    let (_, scale) = found.ok_or(QuantityError::Malformed)?;
    exact(whole, decimals, *scale).ok_or(QuantityError::Malformed)
}

/// `whole.decimals * scale`, if that is a whole number that fits.
fn exact(whole: &str, decimals: &str, scale: u64) -> Option<u64> {
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let decimals = decimals.trim_end_matches('0');
    if decimals.is_empty() {
        return Some(whole);
    }
    // 18 digits after the point are more than any unit resolves.
    let power = u32::try_from(decimals.len())
        .ok()
        .filter(|power| *power <= 18)?;
    let parts = u128::from(decimals.parse::<u64>().ok()?) * u128::from(scale);
    let divisor = 10u128.pow(power);
    let fraction = u64::try_from(parts / divisor).ok()?;
    (parts % divisor == 0).then(|| whole.checked_add(fraction))?
}

fn format_scaled(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, scale): &&(&str, u64)| value >= *scale && value.is_multiple_of(*scale);
    match units.iter().find(fits) {
        Some((unit, scale)) => format!("{}{unit}", value / scale),
        // Zero, and what no unit divides (less than a microsecond never comes from a file).
        None => match units.last() {
            Some((unit, scale)) if *scale == 1 => format!("{value}{unit}"),
            _ => format!("{}s", value / 1_000_000_000),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Every spelling means what a person would say, and everything else is refused with its reason.
    #[test]
    fn quantities_are_exact_or_refused() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("800ms", Ok(ms(800))),
            ("1.5s", Ok(ms(1500))),
            ("1 s", Ok(ms(1000))),
            ("0s", Ok(ms(0))),
            ("50us", Ok(Duration::from_micros(50))),
            ("2h", Ok(ms(7_200_000))),
            ("30", Err(QuantityError::NoUnit)),
            ("1.5", Err(QuantityError::NoUnit)),
            ("", Err(QuantityError::Malformed)),
            ("s", Err(QuantityError::Malformed)),
            ("-1s", Err(QuantityError::Malformed)),
            ("+1s", Err(QuantityError::Malformed)),
            ("1e3s", Err(QuantityError::Malformed)),
            ("1.s", Err(QuantityError::Malformed)),
            (".5s", Err(QuantityError::Malformed)),
            ("1S", Err(QuantityError::Malformed)),
            ("1sec", Err(QuantityError::Malformed)),
            ("0.0000000001s", Err(QuantityError::Malformed)),
            ("99999999999999999999s", Err(QuantityError::Malformed)),
            ("9999999999999h", Err(QuantityError::Malformed)),
            (
                "1.0000000000000000000000001s",
                Err(QuantityError::Malformed),
            ),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
        assert_eq!(size("1.5KiB"), Ok(1536));
        assert_eq!(size("0B"), Ok(0));
        assert_eq!(size("1KB"), Err(QuantityError::Malformed));
        assert_eq!(size("64"), Err(QuantityError::NoUnit));
        assert_eq!(share("0.5%"), Ok(50));
        assert_eq!(share("33.34%"), Ok(3334));
        assert_eq!(share("0.001%"), Err(QuantityError::Malformed));
        assert_eq!(share("20"), Err(QuantityError::NoUnit));
    }

    /// What is printed reads back as the same value.
    #[test]
    fn formatting_reads_back() {
        for micros in [
            0,
            1,
            50,
            1000,
            1500,
            800_000,
            1_000_000,
            90_000_000,
            3_600_000_000,
        ] {
            let value = Duration::from_micros(micros);
            assert_eq!(duration(&format_duration(value)), Ok(value), "{micros}");
        }
        for bytes in [0, 1, 1023, 1024, 65536, 1 << 20, 3 << 30] {
            assert_eq!(size(&format_size(bytes)), Ok(bytes));
        }
        for points in [0, 1, 10, 50, 100, 3334, 9999, 10000] {
            assert_eq!(share(&format_share(points)), Ok(points));
        }
        assert_eq!(format_duration(Duration::from_millis(90_000)), "90s");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_share(3330), "33.3%");
    }
}
