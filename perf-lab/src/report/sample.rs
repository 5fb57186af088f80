//! Made-up measurements for tests; the real ones are in `result.json` files.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::{
    capacity::{Capacity, Outcome, Point},
    cost::{Cost, Switches},
    load::{
        distribution::{Distribution, Distributions},
        generator::LoadOutcome,
        latency::{LatencySummary, Percentiles},
        series::Moment,
    },
    machine::Machine,
    measure::Measurement,
    run::{RowResult, RunResult},
    scenario::{Scenario, shipped},
};

pub(crate) fn measured(peer: &str, round: usize, cpu_us: f64, void: bool) -> Measurement {
    Measurement {
        peer: peer.to_owned(),
        round,
        rate: None,
        seconds: 1.0,
        completed: 1_000,
        cost: Some(Cost {
            cpu_us: cpu_us * 1_000.0,
            user_share: 0.25,
            switches: Switches::default(),
            rss_kib: 2048,
            core_busy: 0.0,
            core_steal: 0.0,
        }),
        rss_ready_kib: Some(1024),
        kib_per_connection: Some(0.5),
        counts: None,
        base_cpu_us: None,
        configuration: BTreeMap::new(),
        load: LoadOutcome::default(),
        generator_busy: 0.0,
        void: if void {
            vec!["test".to_owned()]
        } else {
            vec![]
        },
        caveats: Vec::new(),
    }
}

pub(crate) fn row(name: &str, ours: [f64; 3]) -> RowResult {
    let mut measurements = Vec::new();
    for (round, our) in ours.into_iter().enumerate() {
        measurements.push(measured("direct", round, 1.0, false));
        measurements.push(measured("tidegate", round, our, false));
        measurements.push(measured("haproxy", round, 20.0, false));
        measurements.push(measured("nginx", round, 18.0, false));
        // Void, so its low number must not make it the best.
        measurements.push(measured("envoy", round, 2.0, true));
    }
    RowResult {
        row: Scenario::clone(&shipped::named(name).unwrap()),
        measurements,
        left_out: BTreeMap::new(),
        configurations: BTreeMap::new(),
        capacities: BTreeMap::new(),
        calls: BTreeMap::new(),
        instructions: BTreeMap::new(),
    }
}

/// An open loop of three rounds at 10,000/s: the direct connection, ours and another.
pub(crate) fn open_row() -> RowResult {
    let mut row = row("many-connections", [14.0, 14.1, 13.9]);
    row.measurements
        .retain(|measurement| measurement.peer != "envoy");
    for measurement in &mut row.measurements {
        let p50_us = match measurement.peer.as_str() {
            "direct" => 60.0,
            "tidegate" => 100.0,
            _ => 140.0,
        };
        measurement.rate = Some(10_000.0);
        measurement.load = loaded(p50_us, measurement.round);
    }
    let point = |rate: f64| Point {
        rate,
        requests_per_s: rate,
        p50_us: 100.0 / (1.0 - rate / 40_000.0),
        p99_us: 300.0 / (1.0 - rate / 40_000.0),
        outcome: match rate < 35_000.0 {
            true => Outcome::Kept,
            false => Outcome::Exceeded,
        },
    };
    let capacity = Capacity {
        objective: "p99=5ms".parse().unwrap(),
        requests_per_s: Some(34_000.0),
        is_lower_bound: true,
        points: [5_000.0, 10_000.0, 20_000.0, 34_000.0, 36_000.0]
            .map(point)
            .to_vec(),
    };
    row.capacities.insert("tidegate".to_owned(), capacity);
    row
}

fn loaded(p50_us: f64, round: usize) -> LoadOutcome {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let mut random = fastrand::Rng::with_seed(round as u64);
    for _ in 0..30_000 {
        // Half of it fixed and half exponential, as a service time and a queue are.
        let wait = -p50_us * 720.0 * (1.0 - random.f64()).ln();
        histogram.record((p50_us * 500.0 + wait) as u64).unwrap();
    }
    let distribution = Distribution::new(histogram);
    let at = |quantile| distribution.at(quantile).unwrap().as_micros();
    let percentiles = Percentiles {
        count: distribution.count(),
        p50_us,
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: at(1.0),
    };
    let moment = |i: usize| Moment {
        at_s: i as f64 / 10.0,
        count: 1_000,
        p50_us: p50_us * (1.0 + 0.05 * random.f64()),
        p99_us: p50_us * (3.0 + random.f64()),
        max_us: p50_us * 9.0,
        bands: vec![(80, 900), (84, 90), (92, 10)],
    };
    LoadOutcome {
        latency: LatencySummary {
            from_due: percentiles,
            from_send: percentiles,
            lag: Percentiles::default(),
            unfinished: 0,
        },
        series: (0..30).map(moment).collect(),
        distributions: Distributions {
            from_due: distribution.clone(),
            from_send: distribution,
            lag: Distribution::default(),
        },
        ..LoadOutcome::default()
    }
}

/// A run with a closed and an open loop.
pub(crate) fn run() -> RunResult {
    let mut closed = row("h1-128", [14.0, 14.1, 13.9]);
    let file = BTreeMap::from([(
        "haproxy.cfg".to_owned(),
        "global\n  nbthread 1 # <\n".to_owned(),
    )]);
    closed.configurations.insert("haproxy".to_owned(), file);
    RunResult {
        format: 2,
        date: "2026-01-02T03:04:05Z".to_owned(),
        command: "tidegate-lab run h1-128 many-connections".to_owned(),
        subject: "tidegate".to_owned(),
        machine: Machine {
            cpu: "Some CPU".to_owned(),
            kernel: "6.1.0".to_owned(),
            cpus: 2,
            caveats: vec!["a virtual machine".to_owned()],
            ..Machine::default()
        },
        peers: BTreeMap::from([("haproxy".to_owned(), "HAProxy <2.6>".to_owned())]),
        seconds: 3.0,
        rounds: 3,
        smallest: 0.03,
        noise: BTreeMap::new(),
        rows: vec![closed, open_row()],
    }
}
