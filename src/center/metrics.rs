//! The center's metrics in the Prometheus text format. A test compares them with the pages of docs/.

use std::fmt::Write;

use tidegate_core::healing::center::Center;

use super::{
    Standing,
    control::{self, Control},
};

/// One metric: name, kind, help, and its value.
pub(super) struct Metric<T> {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
    pub(super) value: fn(&T) -> u64,
}

const fn metric(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Center) -> u64,
) -> Metric<Center> {
    Metric {
        name,
        kind,
        help,
        value,
    }
}

/// Every metric of healing but `tidegate_center_leading`, in the order of exposition. They are shown by the leader.
pub(super) const METRICS: &[Metric<Center>] = &[
    metric(
        "tidegate_center_epoch",
        "gauge",
        "Fencing epoch of this center.",
        Center::epoch,
    ),
    metric(
        "tidegate_center_nodes_connected",
        "gauge",
        "Proxies with a stream.",
        |center| center.nodes().filter(|record| record.connected).count() as u64,
    ),
    metric(
        "tidegate_center_nodes_known",
        "gauge",
        "Proxies heard of lately.",
        |center| center.nodes().count() as u64,
    ),
    metric(
        "tidegate_center_endpoints_known",
        "gauge",
        "Endpoints something was reported of lately.",
        |center| center.endpoints().count() as u64,
    ),
    metric(
        "tidegate_center_endpoints_sick",
        "gauge",
        "Endpoints with the verdict sick.",
        |center| center.sick() as u64,
    ),
    metric(
        "tidegate_center_reports_total",
        "counter",
        "Reports stored.",
        |center| center.counts().reports,
    ),
    metric(
        "tidegate_center_reports_repeated_total",
        "counter",
        "Reports that were stored before.",
        |center| center.counts().repeated,
    ),
    metric(
        "tidegate_center_reports_lost_total",
        "counter",
        "Reports that proxies dropped before they were sent.",
        |center| center.counts().lost,
    ),
    metric(
        "tidegate_center_reports_ignored_total",
        "counter",
        "Reports there was no room for.",
        |center| center.counts().ignored,
    ),
    metric(
        "tidegate_center_directives_total",
        "counter",
        "Directives sent.",
        |center| center.counts().directives,
    ),
    metric(
        "tidegate_center_restarts_total",
        "counter",
        "Restarts among the directives.",
        |center| center.counts().restarts,
    ),
    metric(
        "tidegate_center_verdicts_sick_total",
        "counter",
        "Verdicts of sick.",
        |center| center.counts().sick,
    ),
    metric(
        "tidegate_center_verdicts_well_total",
        "counter",
        "Verdicts of well.",
        |center| center.counts().well,
    ),
    metric(
        "tidegate_center_verdicts_common_mode_total",
        "counter",
        "Verdicts of dependency and of capacity.",
        |center| center.counts().common_mode,
    ),
];

/// The name and help of the one metric that every center has.
pub(super) const LEADING: (&str, &str) = (
    "tidegate_center_leading",
    "1 if this center leads, 0 if another does.",
);

/// The exposition.
pub(super) fn render(standing: &Standing, control: Option<&Control>) -> String {
    let mut text = String::new();
    let center = match standing {
        Standing::Leading(center) => Some(center),
        Standing::Following(_) => None,
    };
    let (name, help) = LEADING;
    write_one(&mut text, name, "gauge", help, u64::from(center.is_some()));
    for metric in METRICS {
        if let Some(center) = center {
            write_one(
                &mut text,
                metric.name,
                metric.kind,
                metric.help,
                (metric.value)(center),
            );
        }
    }
    for metric in control::admin::METRICS {
        if let Some(control) = control {
            let value = control.metric(metric);
            write_one(&mut text, metric.name, metric.kind, metric.help, value);
        }
    }
    text
}

fn write_one(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the pages for operators name every metric, as it is. Method: their rows.
    #[test]
    fn page_names_every_metric() {
        let page = include_str!("../../docs/control-plane.md");
        for metric in control::admin::METRICS {
            let (name, kind, help) = (metric.name, metric.kind, metric.help);
            let row = format!("| `{name}` | {kind} | {help} |");
            assert!(page.contains(&row), "{row}");
        }
        let page = include_str!("../../docs/center.md");
        let (name, help) = LEADING;
        let rows = METRICS
            .iter()
            .map(|metric| (metric.name, metric.kind, metric.help));
        for (name, kind, help) in rows.chain([(name, "gauge", help)]) {
            let row = format!("| `{name}` | {kind} | {help} |");
            assert!(page.contains(&row), "{row}");
        }
    }
}
