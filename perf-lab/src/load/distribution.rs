//! A latency histogram that can be kept in a file, added to another, and read again.
//!
//! In JSON it is the text that HdrHistogram's own logs hold (version 2, deflated, base64), so that any
//! of its tools can read it out of a result.

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2DeflateSerializer},
};
use serde::{Deserialize, Serialize, de};

use crate::clock::Nanos;

/// Values in nanoseconds, and how often each was seen. Empty by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution(Option<Histogram<u64>>);

/// The three distributions of a load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distributions {
    /// From due time to answer.
    pub from_due: Distribution,
    /// From send to answer.
    pub from_send: Distribution,
    /// From when the request could have been sent until it was.
    pub lag: Distribution,
}

impl Distribution {
    /// Of a histogram in nanoseconds.
    pub fn new(histogram: Histogram<u64>) -> Distribution {
        Distribution((!histogram.is_empty()).then_some(histogram))
    }

    /// The histogram, unless it is empty.
    pub fn histogram(&self) -> Option<&Histogram<u64>> {
        self.0.as_ref()
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// The value that the part `quantile` (0 to 1) of all values does not exceed.
    pub fn at(&self, quantile: f64) -> Option<Nanos> {
        let histogram = self.0.as_ref()?;
        Some(Nanos(histogram.value_at_quantile(quantile)))
    }

    /// Number of values above the one at `quantile`: what a percentile rests on.
    pub fn above(&self, quantile: f64) -> u64 {
        let count = self.count();
        count - ((count as f64 * quantile).ceil() as u64).min(count)
    }

    /// Takes the values of another in.
    pub fn add(&mut self, other: &Distribution) {
        match (&mut self.0, &other.0) {
            (_, None) => {}
            (Some(ours), Some(theirs)) => {
                // All distributions of the lab have the same bounds; one from elsewhere that does
                // not fit is left out rather than squeezed in.
                let _ = ours.add(theirs);
            }
            (ours @ None, Some(theirs)) => *ours = Some(theirs.clone()),
        }
    }

    /// As in an HdrHistogram log; empty for no values.
    pub fn encode(&self) -> String {
        let Some(histogram) = &self.0 else {
            return String::new();
        };
        let mut bytes = Vec::new();
        match V2DeflateSerializer::new().serialize(histogram, &mut bytes) {
            Ok(_) => STANDARD.encode(bytes),
            // It writes to memory and its counts fit: there is nothing that could fail.
            Err(_) => String::new(),
        }
    }

    /// The reverse.
    pub fn decode(text: &str) -> Option<Distribution> {
        if text.is_empty() {
            return Some(Distribution::default());
        }
        let bytes = STANDARD.decode(text).ok()?;
        let histogram = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .ok()?;
        Some(Distribution::new(histogram))
    }
}

impl Serialize for Distribution {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Distribution::decode(&text)
            .ok_or_else(|| de::Error::custom("not an HdrHistogram (version 2, deflated, base64)"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for value in values {
            histogram.record(value).unwrap();
        }
        Distribution::new(histogram)
    }

    /// What is kept as text comes back the same, nothing included; other text is refused.
    #[test]
    fn keeps_its_values() {
        for distribution in [of(1..=10_000), of([59_999_999_999]), of([])] {
            let text = serde_json::to_string(&distribution).unwrap();
            let back: Distribution = serde_json::from_str(&text).unwrap();
            assert_eq!(back, distribution);
        }
        assert_eq!(Distribution::decode("HISTFAAAAA"), None);
        assert_eq!(Distribution::decode("not base64"), None);
    }

    /// Two halves added make the whole, and the samples above a percentile are counted.
    #[test]
    fn adds_and_counts() {
        let mut sum = Distribution::default();
        assert_eq!((sum.count(), sum.at(0.5), sum.above(0.5)), (0, None, 0));
        sum.add(&of(1..=500));
        sum.add(&of(501..=1_000));
        sum.add(&Distribution::default());
        assert_eq!(sum, of(1..=1_000));
        assert_eq!(sum.at(0.99), Some(Nanos(990)));
        assert_eq!((sum.above(0.99), sum.above(1.0)), (10, 0));
    }
}
