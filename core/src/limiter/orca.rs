//! What an application says of its own load, in its answers: the field `endpoint-load-metrics` of ORCA (Open
//! Request Cost Aggregation; xDS `xds.data.orca.v3.OrcaLoadReport`), as text or JSON:
//!
//! ```text
//! endpoint-load-metrics: TEXT cpu_utilization=0.3,application_utilization=0.8
//! endpoint-load-metrics: JSON {"application_utilization": 0.8}
//! ```
//!
//! Of it, the utilization is taken as Envoy's balancing does: `application_utilization`, or else
//! `cpu_utilization`; 1 is full. The binary form (`endpoint-load-metrics-bin`) is not read.

use serde::Deserialize;

/// The field that it stands in.
pub const FIELD: &str = "endpoint-load-metrics";

/// Bytes that are looked at: a report of every metric that ORCA names is shorter.
pub const REPORT_BYTES_MAX: usize = 1024;

/// The highest utilization that is believed: more is as bad, and would drown what others say.
const UTILIZATION_MAX: f64 = 10.0;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Report {
    application_utilization: f64,
    cpu_utilization: f64,
}

/// The utilization that an answer's field reports, in thousandths. What cannot be read, is not there, or is no
/// number that a utilization may be, says nothing.
pub fn utilization(value: &[u8]) -> Option<u32> {
    let value = str::from_utf8(value).ok()?;
    if value.len() > REPORT_BYTES_MAX {
        return None;
    }
    let report = match value.split_once(' ')? {
        ("TEXT", text) => text_report(text)?,
        ("JSON", json) => serde_json::from_str(json).ok()?,
        _ => return None,
    };
    // Zero is what a report without it says.
    let said = [report.application_utilization, report.cpu_utilization];
    let said = said.into_iter().find(|part| *part > 0.0)?;
    said.is_finite()
        .then(|| (said.min(UTILIZATION_MAX) * 1000.0).round() as u32)
}

fn text_report(text: &str) -> Option<Report> {
    let mut report = Report::default();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=')?;
        let slot = match name.trim() {
            "application_utilization" => &mut report.application_utilization,
            "cpu_utilization" => &mut report.cpu_utilization,
            _ => continue,
        };
        *slot = value.trim().parse().ok()?;
    }
    Some(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Goal: the utilization of either form, the application's before the CPU's; nothing of what is broken (L1).
    /// Method: table.
    #[test]
    fn reports_are_read() {
        for (value, expected) in [
            ("TEXT cpu_utilization=0.3", Some(300)),
            (
                "TEXT cpu_utilization=0.3,application_utilization=0.85",
                Some(850),
            ),
            (
                "TEXT rps_fractional=80, cpu_utilization = 1.5 ,named_metrics.a=7",
                Some(1_500),
            ),
            (
                "JSON {\"cpu_utilization\": 0.25, \"named_metrics\": {\"a\": 1}}",
                Some(250),
            ),
            ("JSON {\"application_utilization\": 400}", Some(10_000)),
            ("JSON {\"cpu_utilization\": \"0.25\"}", None),
            ("JSON {", None),
            ("TEXT cpu_utilization=NaN", None),
            ("TEXT cpu_utilization=-1", None),
            ("TEXT cpu_utilization=0", None),
            ("TEXT cpu_utilization", None),
            ("TEXT mem_utilization=0.9", None),
            ("BIN AAAA", None),
            ("cpu_utilization=0.3", None),
            ("", None),
        ] {
            assert_eq!(utilization(value.as_bytes()), expected, "{value}");
        }
        let padded = |len| format!("TEXT cpu_utilization=0.{}", "5".repeat(len - 23));
        assert_eq!(padded(REPORT_BYTES_MAX).len(), REPORT_BYTES_MAX);
        assert_eq!(utilization(padded(REPORT_BYTES_MAX).as_bytes()), Some(556));
        assert_eq!(utilization(padded(REPORT_BYTES_MAX + 1).as_bytes()), None);
    }

    proptest! {
        /// Goal: an endpoint cannot break anything by what it says. Method: any bytes behind either form's word.
        #[test]
        fn any_bytes_are_borne(form in "(TEXT|JSON|BIN) ", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let value = [form.as_bytes(), &bytes].concat();
            prop_assert!(utilization(&value).is_none_or(|part| part <= 10_000));
        }
    }
}
