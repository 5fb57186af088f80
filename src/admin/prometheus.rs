//! The Prometheus text format (version 0.0.4), and the table of metrics that the reference is generated
//! from: one list of families serves both, so that neither can have a metric that the other lacks.
//!
//! Cardinality is bounded by the configuration: shards, clusters, routes, reasons. Series by endpoint and by
//! peer application are off unless asked for.

mod calls;
mod census;
mod healing;
mod limits;
mod process;
mod rates;
mod secrets;
mod steering;
mod xds;

use std::fmt::{self, Write};

use tidegate_core::{
    reason::Reason,
    snapshot::{Protocol, Snapshot},
    stats::{
        BUCKETS, EndpointCounters, MetricInfo, MetricKind, Phase, RouteCounters, ShardCounters,
        bucket_upper_ns,
    },
};

use super::view;
use crate::status::Status;

/// Every so many buckets of a histogram one is exposed: at the powers of two. All of them would be eight
/// times the series for a resolution that rates over scrapes do not have.
const BUCKET_STEP: usize = 8;

/// One metric: its name, help and kind, and the labels of its series.
pub(crate) struct Family {
    /// With prefix and suffix.
    pub(crate) name: String,
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: &'static str,
    /// One sentence.
    pub(crate) help: String,
    /// Names of the labels.
    pub(crate) labels: &'static [&'static str],
    source: Source,
}

/// Where the samples of a family come from.
#[derive(Clone, Copy)]
enum Source {
    /// A plain number of a slab, by position, and its factor to the base unit.
    Shard(usize, f64),
    Cluster(usize, f64),
    Endpoint(usize, f64),
    Route(usize, f64),
    Refused,
    Phases,
    EndpointsAvailable,
    BuildInfo,
    Process(fn(&Status) -> f64),
    /// One label's values, and a number for each.
    Named(fn(&Status) -> Vec<(String, f64)>),
    Census(census::Number),
    CensusApplication(census::Number),
    /// The labels' values, and a number for each.
    Labelled(fn(&Status) -> Vec<Sample>),
    /// Durations of calls of gRPC.
    CallSeconds,
}

/// One sample: the values of the labels, and the number.
type Sample = (Vec<String>, f64);

/// Which of the many series are wanted; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// By endpoint.
    pub(crate) endpoints: bool,
    /// By peer application.
    pub(crate) applications: bool,
}

impl Details {
    fn hide(self, source: Source) -> bool {
        match source {
            Source::Endpoint(..) => !self.endpoints,
            Source::CensusApplication(_) => !self.applications,
            _ => false,
        }
    }
}

/// Every metric, in the order of exposition.
pub(crate) fn families() -> Vec<Family> {
    let mut families = process::families();
    families.extend(secrets::families());
    families.push(Family {
        name: "tidegate_refused_total".into(),
        kind: "counter",
        help: "Requests and connections refused or ended by us, by reason.".into(),
        labels: &["reason"],
        source: Source::Refused,
    });
    families.push(Family {
        name: "tidegate_request_phase_seconds".into(),
        kind: "histogram",
        help: "Durations of requests, split into phases: total, connect, first_byte, added.".into(),
        labels: &["phase"],
        source: Source::Phases,
    });
    families.extend(census::families());
    families.extend(slab(
        "shard",
        ShardCounters::METRICS,
        &["shard"],
        Source::Shard,
    ));
    families.extend(slab(
        "cluster",
        EndpointCounters::METRICS,
        &["cluster"],
        Source::Cluster,
    ));
    families.push(Family {
        name: "tidegate_cluster_endpoints".into(),
        kind: "gauge",
        help: "Endpoints of the cluster, by whether active health checks let them be chosen."
            .into(),
        labels: &["cluster", "available"],
        source: Source::EndpointsAvailable,
    });
    families.extend(healing::families());
    families.extend(limits::families());
    families.extend(rates::families());
    families.extend(calls::families());
    families.extend(steering::families());
    families.extend(xds::families());
    families.extend(slab(
        "route",
        RouteCounters::METRICS,
        &["listener", "route"],
        Source::Route,
    ));
    families.extend(slab(
        "endpoint",
        EndpointCounters::METRICS,
        &["cluster", "endpoint"],
        Source::Endpoint,
    ));
    families
}

fn slab(
    prefix: &str,
    metrics: &[MetricInfo],
    labels: &'static [&'static str],
    source: fn(usize, f64) -> Source,
) -> Vec<Family> {
    let family = |(position, info): (usize, &MetricInfo)| {
        let (base, factor) = match info.name.strip_suffix("_ns") {
            Some(base) => (format!("{base}_seconds"), 1e-9),
            None => (info.name.to_owned(), 1.0),
        };
        let (kind, suffix) = match info.kind {
            MetricKind::Counter => ("counter", "_total"),
            MetricKind::Gauge => ("gauge", ""),
        };
        Family {
            name: format!("tidegate_{prefix}_{base}{suffix}"),
            kind,
            help: info.help.to_owned(),
            labels,
            source: source(position, factor),
        }
    };
    metrics.iter().enumerate().map(family).collect()
}

/// All samples of this moment.
pub(crate) fn render(status: &Status, details: Details) -> String {
    let mut out = String::with_capacity(32 << 10);
    let snapshot = status.snapshot();
    let samples = Samples::read(status, snapshot.as_deref());
    for family in families() {
        if details.hide(family.source) {
            continue;
        }
        let Family {
            name, kind, help, ..
        } = &family;
        // Writing to a String does not fail.
        let _ = writeln!(out, "# HELP {name} {}", Help(help));
        let _ = writeln!(out, "# TYPE {name} {kind}");
        let _ = samples.write(&mut out, &family, status, snapshot.as_deref());
    }
    out
}

/// The slabs, read once: each family then takes its column.
struct Samples {
    shards: Vec<Vec<u64>>,
    clusters: Vec<(String, Vec<u64>)>,
    endpoints: Vec<(String, String, Vec<u64>)>,
    routes: Vec<(String, String, Vec<u64>)>,
    listeners: census::Listeners,
}

impl Samples {
    fn read(status: &Status, snapshot: Option<&Snapshot>) -> Samples {
        let mut samples = Samples {
            shards: status.counters.iter().map(ShardCounters::values).collect(),
            clusters: Vec::new(),
            endpoints: Vec::new(),
            routes: Vec::new(),
            listeners: census::Listeners::read(snapshot),
        };
        let Some(snapshot) = snapshot else {
            return samples;
        };
        let live = status.live();
        for cluster in &snapshot.clusters {
            let name = cluster.name.to_string();
            for endpoint in &cluster.endpoints {
                let values = view::sum_endpoint(&endpoint.counters);
                let address = endpoint.address.to_string();
                samples.endpoints.push((name.clone(), address, values));
            }
            let mut totals = view::sum_cluster(cluster);
            for (total, left) in totals
                .iter_mut()
                .zip(live.retired.get(&cluster.name).into_iter().flatten())
            {
                *total += left;
            }
            samples.clusters.push((name, totals));
        }
        for listener in &snapshot.listeners {
            let Protocol::Http(http) = &listener.protocol else {
                continue;
            };
            for route in &http.routes {
                let values = view::sum_route(&route.counters);
                let (listener, route) = (listener.name.to_string(), route.name.to_string());
                samples.routes.push((listener, route, values));
            }
        }
        samples
    }

    fn write(
        &self,
        out: &mut String,
        family: &Family,
        status: &Status,
        snapshot: Option<&Snapshot>,
    ) -> fmt::Result {
        match family.source {
            Source::Named(read) => {
                for (name, value) in read(status) {
                    family.sample(out, &[&name], value)?;
                }
            }
            Source::Shard(column, factor) => {
                for (shard, values) in self.shards.iter().enumerate() {
                    let shard = shard.to_string();
                    family.sample(out, &[&shard], number(values, column, factor))?;
                }
            }
            Source::Cluster(column, factor) => {
                for (cluster, values) in &self.clusters {
                    family.sample(out, &[cluster], number(values, column, factor))?;
                }
            }
            Source::Endpoint(column, factor) => {
                for (cluster, endpoint, values) in &self.endpoints {
                    family.sample(out, &[cluster, endpoint], number(values, column, factor))?;
                }
            }
            Source::Route(column, factor) => {
                for (listener, route, values) in &self.routes {
                    family.sample(out, &[listener, route], number(values, column, factor))?;
                }
            }
            Source::Census(number) => {
                family.samples(out, self.listeners.by_listener(number))?;
            }
            Source::CensusApplication(number) => {
                family.samples(out, self.listeners.by_application(number))?;
            }
            Source::Labelled(read) => family.samples(out, read(status))?,
            Source::CallSeconds => calls::write_seconds(out, &family.name, status)?,
            Source::Refused => {
                for reason in Reason::ALL {
                    let count = status
                        .counters
                        .sum(|shard| shard.refused.get(*reason as usize).map_or(0, |c| c.get()));
                    family.sample(out, &[reason.word()], count as f64)?;
                }
            }
            Source::Phases => {
                for phase in Phase::ALL {
                    histogram(out, &family.name, phase, status)?;
                }
            }
            Source::EndpointsAvailable => endpoints_available(out, family, status, snapshot)?,
            Source::BuildInfo => family.sample(out, &[env!("CARGO_PKG_VERSION")], 1.0)?,
            Source::Process(value) => family.sample(out, &[], value(status))?,
        }
        Ok(())
    }
}

impl Family {
    /// One whose samples say what their labels are.
    fn labelled(
        name: &str,
        kind: &'static str,
        help: &str,
        labels: &'static [&'static str],
        read: fn(&Status) -> Vec<Sample>,
    ) -> Family {
        Family {
            name: name.into(),
            kind,
            help: help.into(),
            labels,
            source: Source::Labelled(read),
        }
    }

    fn samples(&self, out: &mut String, samples: Vec<Sample>) -> fmt::Result {
        for (labels, value) in samples {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            self.sample(out, &labels, value)?;
        }
        Ok(())
    }

    /// One line: the labels of the family with these values, and the sample.
    fn sample(&self, out: &mut String, labels: &[&str], value: f64) -> fmt::Result {
        debug_assert_eq!(labels.len(), self.labels.len());
        out.push_str(&self.name);
        for (i, (label, text)) in self.labels.iter().zip(labels).enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            write!(out, "{open}{label}=\"{}\"", Label(text))?;
        }
        if !labels.is_empty() {
            out.push('}');
        }
        writeln!(out, " {value}")
    }
}

/// Cumulative buckets at powers of two, then sum and count.
fn histogram(out: &mut String, name: &str, phase: Phase, status: &Status) -> fmt::Result {
    let counts = status.phase(phase);
    let label = phase.name();
    let mut below = 0;
    for (i, count) in counts.buckets.iter().enumerate() {
        below += count;
        if i % BUCKET_STEP == 0 && i < BUCKETS - 1 {
            let upper = bucket_upper_ns(i) as f64 / 1e9;
            writeln!(
                out,
                "{name}_bucket{{phase=\"{label}\",le=\"{upper}\"}} {below}"
            )?;
        }
    }
    writeln!(
        out,
        "{name}_bucket{{phase=\"{label}\",le=\"+Inf\"}} {below}"
    )?;
    let sum = counts.sum_ns as f64 / 1e9;
    writeln!(out, "{name}_sum{{phase=\"{label}\"}} {sum}")?;
    // The sum of the buckets just written, never a second reading: they must agree.
    writeln!(out, "{name}_count{{phase=\"{label}\"}} {below}")
}

fn endpoints_available(
    out: &mut String,
    family: &Family,
    status: &Status,
    snapshot: Option<&Snapshot>,
) -> fmt::Result {
    let live = status.live();
    for cluster in snapshot.map_or(&[][..], |snapshot| &snapshot.clusters) {
        let all = cluster.endpoints.len();
        let available = cluster
            .endpoints
            .iter()
            .filter(|endpoint| view::is_available(&live, cluster, endpoint.address))
            .count();
        for (word, count) in [("true", available), ("false", all - available)] {
            family.sample(out, &[&cluster.name, word], count as f64)?;
        }
    }
    Ok(())
}

fn number(values: &[u64], column: usize, factor: f64) -> f64 {
    values.get(column).copied().unwrap_or(0) as f64 * factor
}

fn loaded(counter: &std::sync::atomic::AtomicU64) -> f64 {
    counter.load(std::sync::atomic::Ordering::Relaxed) as f64
}

/// A label's value: backslash, quote and line feed escaped.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0, true)
    }
}

/// A help text: backslash and line feed escaped.
struct Help<'a>(&'a str);

impl fmt::Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0, false)
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str, quotes: bool) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '"' if quotes => f.write_str("\\\"")?,
            c => f.write_char(c)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::collections::BTreeSet;

    const EVERYTHING: Details = Details {
        endpoints: true,
        applications: true,
    };

    /// Reads the text format strictly; returns every sample as series and value.
    fn parse(text: &str) -> Vec<(String, f64)> {
        let mut samples = Vec::new();
        let mut typed = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(typed.insert(name.to_owned()), "typed twice: {line}");
                current = name.to_owned();
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let name = series.split('{').next().unwrap();
            assert!(
                name.starts_with(&current),
                "{name} outside of its family {current}"
            );
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            samples.push((series.to_owned(), value.parse().unwrap()));
        }
        samples
    }

    /// Goal: the output is valid and has each series once. Method: a strict reader over a status with
    /// numbers in it.
    #[test]
    fn output_is_valid() {
        let status = Status::new(vec![Some(0), Some(1)]);
        for shard in status.counters.iter() {
            shard.requests.add(3);
            shard.loop_busy_ns.add(1_500_000_000);
            shard.refuse(Reason::NoRoute);
            shard.phase(Phase::Total, 300);
            shard.phase(Phase::Total, 5_000_000);
        }
        let samples = parse(&render(&status, EVERYTHING));
        let names: BTreeSet<_> = samples.iter().map(|(series, _)| series).collect();
        assert_eq!(names.len(), samples.len(), "no series twice");
        let value = |series: &str| {
            let found = samples.iter().find(|(name, _)| name == series);
            found.unwrap_or_else(|| panic!("{series}")).1
        };
        assert_eq!(value("tidegate_shard_requests_total{shard=\"1\"}"), 3.0);
        assert_eq!(
            value("tidegate_shard_loop_busy_seconds_total{shard=\"0\"}"),
            1.5
        );
        assert_eq!(value("tidegate_refused_total{reason=\"no_route\"}"), 2.0);
        assert_eq!(
            value("tidegate_request_phase_seconds_count{phase=\"total\"}"),
            4.0
        );
        let inf = "tidegate_request_phase_seconds_bucket{phase=\"total\",le=\"+Inf\"}";
        assert_eq!(value(inf), 4.0);
    }

    /// Goal: buckets are cumulative and end in the count. Method: over every bucket of one phase.
    #[test]
    fn buckets_never_fall() {
        let status = Status::new(vec![None]);
        for shard in status.counters.iter() {
            (0..40).for_each(|exp| shard.phase(Phase::Added, 1 << exp));
        }
        let samples = parse(&render(&status, Details::default()));
        let buckets: Vec<f64> = samples
            .iter()
            .filter(|(series, _)| series.contains("_bucket{phase=\"added\""))
            .map(|(_, value)| *value)
            .collect();
        assert!(buckets.is_sorted());
        assert_eq!(buckets.last(), Some(&40.0));
    }

    /// Goal: names from a configuration cannot break the format. Method: the three special characters.
    #[test]
    fn labels_are_escaped() {
        assert_eq!(Label("a\"b\\c\nd").to_string(), r#"a\"b\\c\nd"#);
        assert_eq!(Help("a\"b\\c\nd").to_string(), r#"a"b\\c\nd"#);
    }
}
