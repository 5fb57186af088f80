//! Quantities as people write them in a scenario: `16KiB`, `50ms`, `0.5`.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// The largest body: what the origin keeps ready.
const BODY_BYTES_MAX: u64 = 64 << 20;
/// The longest time: a measurement is bounded.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Bytes of a body: a number, or a number with `KiB` or `MiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrText", into = "u64")]
pub struct Bytes(pub u64);

/// A length of time: a number of seconds, or a number with `us`, `ms` or `s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "NumberOrText")]
pub struct Time(pub Duration);

/// A part of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(pub f64);

impl Bytes {
    /// For a buffer.
    pub fn in_memory(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A scalar whose type YAML leaves open.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum NumberOrText {
    Number(f64),
    Text(String),
}

impl TryFrom<NumberOrText> for Bytes {
    type Error = String;

    fn try_from(value: NumberOrText) -> Result<Bytes, String> {
        let (number, unit) = split(value)?;
        let factor = match unit.as_str() {
            "" | "B" => 1.0,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            _ => return Err(format!("`{unit}` is not one of B, KiB, MiB")),
        };
        let bytes = number * factor;
        if bytes.fract() != 0.0 || bytes > BODY_BYTES_MAX as f64 {
            return Err("a body has a whole number of bytes, at most 64MiB".to_owned());
        }
        Ok(Bytes(bytes as u64))
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> u64 {
        bytes.0
    }
}

impl TryFrom<NumberOrText> for Time {
    type Error = String;

    fn try_from(value: NumberOrText) -> Result<Time, String> {
        let (number, unit) = split(value)?;
        let factor = match unit.as_str() {
            "" | "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            _ => return Err(format!("`{unit}` is not one of us, ms, s")),
        };
        let seconds = number * factor;
        if seconds > TIME_MAX.as_secs_f64() {
            return Err("a time is at most 600s".to_owned());
        }
        Ok(Time(Duration::from_secs_f64(seconds)))
    }
}

/// In seconds, which is what a number without a unit is read as.
impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(value: f64) -> Result<Share, String> {
        match (0.0..=1.0).contains(&value) {
            true => Ok(Share(value)),
            false => Err("a share is between 0 and 1".to_owned()),
        }
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.0
    }
}

/// A number that is not negative, and what follows it.
fn split(value: NumberOrText) -> Result<(f64, String), String> {
    let (number, unit) = match value {
        NumberOrText::Number(number) => (number, String::new()),
        NumberOrText::Text(text) => {
            let end = text
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(text.len());
            let (number, unit) = text.split_at(end);
            let number = number
                .parse()
                .map_err(|_| format!("`{text}` does not begin with a number"))?;
            (number, unit.trim().to_owned())
        }
    };
    match number >= 0.0 && number.is_finite() {
        true => Ok((number, unit)),
        false => Err("it may not be negative".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn bytes(text: &str) -> Result<Bytes, String> {
        Bytes::try_from(NumberOrText::Text(text.to_owned()))
    }

    fn time(text: &str) -> Result<Time, String> {
        Time::try_from(NumberOrText::Text(text.to_owned()))
    }

    /// Units, the largest that is allowed and one above it, and what is no quantity.
    #[test]
    fn quantities() {
        assert_eq!(bytes("128"), Ok(Bytes(128)));
        assert_eq!(bytes("16KiB"), Ok(Bytes(16_384)));
        assert_eq!(bytes("1.5 KiB"), Ok(Bytes(1_536)));
        assert_eq!(bytes("64MiB"), Ok(Bytes(BODY_BYTES_MAX)));
        for text in ["67108865", "16kb", "x", "-1", "0.5", ""] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(time("50ms"), Ok(Time(Duration::from_millis(50))));
        assert_eq!(time("8s"), Ok(Time(Duration::from_secs(8))));
        assert_eq!(time("250us"), Ok(Time(Duration::from_micros(250))));
        assert_eq!(time("600"), Ok(Time(TIME_MAX)));
        for text in ["601", "1h", "soon", "-1s"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(Share::try_from(1.0).is_ok());
        assert!(Share::try_from(1.01).is_err());
    }
}
