//! What an application says of its own load, in its answers: the field `endpoint-load-metrics` of ORCA (Open
//! Request Cost Aggregation; xDS `xds.data.orca.v3.OrcaLoadReport`), as text or JSON:
//!
//! ```text
//! endpoint-load-metrics: TEXT cpu_utilization=0.3,application_utilization=0.8
//! endpoint-load-metrics: JSON {"application_utilization": 0.8, "request_cost": {"cpu_seconds": 0.0021}}
//! ```
//!
//! Of it, the utilization is taken as Envoy's balancing does: `application_utilization`, or else
//! `cpu_utilization`; 1 is full. The costs of a request have names of the application's own; `cpu_seconds` is taken
//! for the CPU time that the answer took. The binary form (`endpoint-load-metrics-bin`) is not read.

use serde::Deserialize;

/// The field that it stands in.
pub const FIELD: &str = "endpoint-load-metrics";

/// Bytes that are looked at: a report of every metric that ORCA names is shorter.
pub const REPORT_BYTES_MAX: usize = 1024;

/// The highest utilization that is believed: more is as bad, and would drown what others say.
const UTILIZATION_MAX: f64 = 10.0;

/// The most CPU time of one answer that is believed: an hour.
const CPU_S_MAX: f64 = 3_600.0;

/// What an answer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// How full the application is, in thousandths.
    pub permille: Option<u32>,
    /// CPU time that the answer took, in nanoseconds.
    pub cpu_ns: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Report {
    application_utilization: f64,
    cpu_utilization: f64,
    request_cost: Costs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Costs {
    cpu_seconds: f64,
}

/// What an answer's field reports. What cannot be read, is not there, or is no number that it may be, says nothing.
pub fn read(value: &[u8]) -> Said {
    report(value).map_or(Said::default(), |report| {
        // Zero is what a report without it says.
        let used = [report.application_utilization, report.cpu_utilization];
        let used = used.into_iter().find(|part| *part > 0.0);
        let cpu_s = Some(report.request_cost.cpu_seconds).filter(|cpu_s| *cpu_s > 0.0);
        let scaled = |value: Option<f64>, most: f64, by: f64| {
            let value = value.filter(|value| value.is_finite())?;
            Some((value.min(most) * by).round())
        };
        Said {
            permille: scaled(used, UTILIZATION_MAX, 1e3).map(|permille| permille as u32),
            cpu_ns: scaled(cpu_s, CPU_S_MAX, 1e9).map(|ns| ns as u64),
        }
    })
}

fn report(value: &[u8]) -> Option<Report> {
    let value = str::from_utf8(value).ok()?;
    if value.len() > REPORT_BYTES_MAX {
        return None;
    }
    match value.split_once(' ')? {
        ("TEXT", text) => text_report(text),
        ("JSON", json) => serde_json::from_str(json).ok(),
        _ => None,
    }
}

fn text_report(text: &str) -> Option<Report> {
    let mut report = Report::default();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=')?;
        let slot = match name.trim() {
            "application_utilization" => &mut report.application_utilization,
            "cpu_utilization" => &mut report.cpu_utilization,
            "request_cost.cpu_seconds" => &mut report.request_cost.cpu_seconds,
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
            assert_eq!(read(value.as_bytes()).permille, expected, "{value}");
        }
        let padded = |len| format!("TEXT cpu_utilization=0.{}", "5".repeat(len - 23));
        assert_eq!(padded(REPORT_BYTES_MAX).len(), REPORT_BYTES_MAX);
        let permille = |value: String| read(value.as_bytes()).permille;
        assert_eq!(permille(padded(REPORT_BYTES_MAX)), Some(556));
        assert_eq!(permille(padded(REPORT_BYTES_MAX + 1)), None);
    }

    /// Goal: what an answer took of the CPU, by its name among the costs of a request (L4). Method: table.
    #[test]
    fn costs_are_read() {
        for (value, expected) in [
            ("TEXT request_cost.cpu_seconds=0.0021", Some(2_100_000)),
            (
                "TEXT cpu_utilization=0.3,request_cost.cpu_seconds=1e9",
                Some(3_600_000_000_000),
            ),
            (
                "JSON {\"request_cost\": {\"cpu_seconds\": 0.5, \"rows\": 7}}",
                Some(500_000_000),
            ),
            ("TEXT request_cost.rows=7", None),
            ("TEXT request_cost.cpu_seconds=-1", None),
            ("TEXT request_cost.cpu_seconds=inf", None),
            ("JSON {\"request_cost\": 3}", None),
        ] {
            assert_eq!(read(value.as_bytes()).cpu_ns, expected, "{value}");
        }
    }

    proptest! {
        /// Goal: an endpoint cannot break anything by what it says. Method: any bytes behind either form's word.
        #[test]
        fn any_bytes_are_borne(form in "(TEXT|JSON|BIN) ", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let value = [form.as_bytes(), &bytes].concat();
            let said = read(&value);
            prop_assert!(said.permille.is_none_or(|part| part <= 10_000));
            prop_assert!(said.cpu_ns.is_none_or(|ns| ns <= 3_600_000_000_000));
        }
    }
}
