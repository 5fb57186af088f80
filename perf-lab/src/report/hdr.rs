//! Latencies as HdrHistogram's own tools read them: a `.hgrm` percentile table for its plotter, and an
//! interval log (version 1.3, histograms V2 deflated in base64) with one line a measurement.

use std::fmt::Write as _;

use crate::{clock::Nanos, load::distribution::Distribution, run::RunResult};

/// A file by its name.
#[derive(Clone, Debug, PartialEq)]
pub struct HdrFile {
    /// Without a directory.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Steps for each halving of the distance to 100 %, as HdrHistogram's tools take by default.
const STEPS_PER_HALVING: u32 = 5;

/// Two files for each scenario and peer with latencies.
pub fn files(result: &RunResult) -> Vec<HdrFile> {
    let mut files = Vec::new();
    for row in &result.rows {
        for peer in row.peers() {
            let measurements: Vec<_> = row.valid(peer).collect();
            let mut pooled = Distribution::default();
            for measurement in &measurements {
                pooled.add(&measurement.load.distributions.from_due);
            }
            if pooled.count() == 0 {
                continue;
            }
            let name = format!("{}-{peer}", row.row.name).replace(['/', ' '], "_");
            files.push(HdrFile {
                name: format!("{name}.hgrm"),
                text: percentile_table(&pooled),
            });
            let mut log = String::from(
                "#[Histogram log format version 1.3]\n\
                 #[Values in nanoseconds, interval maxima in milliseconds]\n\
                 \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
            );
            let mut start = 0.0;
            for measurement in measurements {
                let all = &measurement.load.distributions;
                for (tag, distribution) in [
                    ("from_due", &all.from_due),
                    ("from_send", &all.from_send),
                    ("lag", &all.lag),
                ] {
                    if let Some(max) = distribution.at(1.0) {
                        let _ = writeln!(
                            log,
                            "Tag={tag},{start:.3},{:.3},{:.3},{}",
                            measurement.seconds,
                            max.as_micros() / 1e3,
                            distribution.encode()
                        );
                    }
                }
                start += measurement.seconds;
            }
            files.push(HdrFile {
                name: format!("{name}.hlog"),
                text: log,
            });
        }
    }
    files
}

/// The table that HdrHistogram's `outputPercentileDistribution` prints, in milliseconds.
fn percentile_table(distribution: &Distribution) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let Some(histogram) = distribution.histogram() else {
        return text;
    };
    let millis = |ns: f64| ns / 1e6;
    for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
        let quantile = step.quantile_iterated_to();
        let value = millis(step.value_iterated_to() as f64);
        let count = histogram.count_between(0, step.value_iterated_to());
        let _ = write!(text, "{value:>12.6} {quantile:>14.12} {count:>10}");
        // The last one is infinitely far out.
        let _ = match quantile < 1.0 {
            true => writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text),
        };
    }
    let max = Nanos(histogram.max()).as_micros() / 1e3;
    let _ = write!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n\
         #[Max     = {max:>12.3}, Total count    = {:>12}]\n",
        millis(histogram.mean()),
        millis(histogram.stdev()),
        histogram.len()
    );
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::report::sample;

    /// What is written is read by HdrHistogram's own reader: one interval a round and kind, in order,
    /// with the histogram that was recorded.
    #[test]
    fn logs_read_back() {
        let result = sample::run();
        let files = files(&result);
        let log = files
            .iter()
            .find(|file| file.name == "many-connections-tidegate.hlog")
            .unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(log.text.as_bytes())
            .map(Result::unwrap)
            .collect();
        let intervals: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        assert_eq!(intervals.len(), 6, "{}", log.text);
        let first = intervals.first().unwrap();
        let back = Distribution::decode(first.encoded_histogram()).unwrap();
        let recorded = result
            .rows
            .get(1)
            .unwrap()
            .valid("tidegate")
            .next()
            .unwrap();
        assert_eq!(back, recorded.load.distributions.from_due);
        assert_eq!(intervals.last().unwrap().start_timestamp().as_secs(), 2);
    }

    /// The percentile table ascends to 100 %, and its last count is the number of requests.
    #[test]
    fn percentile_tables_ascend() {
        let files = files(&sample::run());
        let table = files
            .iter()
            .find(|file| file.name.ends_with(".hgrm"))
            .unwrap();
        let lines: Vec<Vec<f64>> = table
            .text
            .lines()
            .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()))
            .map(|line| {
                line.split_whitespace()
                    .map(|cell| cell.parse().unwrap())
                    .collect()
            })
            .collect();
        assert!(lines.len() > 20);
        let ascends = |column: usize| {
            lines
                .windows(2)
                .all(|pair| pair[0][column] <= pair[1][column])
        };
        assert!(ascends(0) && ascends(1) && ascends(2));
        let last = lines.last().unwrap();
        assert!(
            (last[1] - 1.0).abs() < 1e-9 && (last[2] - 90_000.0).abs() < 1.0,
            "{last:?}"
        );
    }
}
