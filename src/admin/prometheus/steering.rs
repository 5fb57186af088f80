//! Metrics of the steering program, by rule and by place.

use tidegate_core::{snapshot::Snapshot, stats::RuleCounters};

use super::{Family, Sample};
use crate::{admin::steering, status::Status};

/// None where there is no program.
pub(super) fn families() -> Vec<Family> {
    let by_rule = RuleCounters::METRICS.iter().zip(READS);
    let by_rule = by_rule.map(|(info, read)| {
        let name = format!("tidegate_steering_rule_{}_total", info.name);
        Family::labelled(&name, "counter", info.help, &["application", "rule"], read)
    });
    let mut families: Vec<Family> = by_rule.collect();
    families.extend([
        Family::labelled(
            "tidegate_steering_flow_total",
            "counter",
            "Requests by the place that their route leads to, and the place that they went to.",
            &["application", "from", "to"],
            flows,
        ),
        Family::labelled(
            "tidegate_steering_turned_away_total",
            "counter",
            "Requests refused, as their route leads to an exclusive group and no rule sends them there.",
            &["application", "place"],
            turned_away,
        ),
        Family::labelled(
            "tidegate_steering_problems",
            "gauge",
            "Rules that have expired, or whose target has no endpoint that may be chosen: see `/steering`.",
            &[],
            |status| vec![(Vec::new(), steering::problems(&status.live()).len() as f64)],
        ),
    ]);
    families
}

type Read = fn(&Status) -> Vec<Sample>;

/// How each counter of a rule is read, in the order of [`RuleCounters::METRICS`].
const READS: [Read; RuleCounters::METRICS.len()] = [
    |status| rules(status, |c| c.moved.get()),
    |status| rules(status, |c| c.stayed.get()),
    |status| rules(status, |c| c.fell_back.get()),
    |status| rules(status, |c| c.refused.get()),
    |status| rules(status, |c| c.capped.get()),
    |status| rules(status, |c| c.completed.get()),
    |status| rules(status, |c| c.failed.get()),
];

fn rules(status: &Status, read: fn(&RuleCounters) -> u64) -> Vec<Sample> {
    with_table(status, |snapshot, samples| {
        let Some(program) = &snapshot.config.steering else {
            return;
        };
        for rule in &program.rules {
            let found = snapshot
                .steering
                .as_ref()
                .and_then(|s| s.table.rule(&rule.id));
            let labels = vec![rule.matches.application.to_string(), rule.id.to_string()];
            samples.extend(found.map(|rule| (labels, rule.counters.sum(read) as f64)));
        }
    })
}

fn flows(status: &Status) -> Vec<Sample> {
    with_table(status, |snapshot, samples| {
        let Some(steering) = &snapshot.steering else {
            return;
        };
        for from in steering.table.places() {
            for (to, count) in steering::flows(&steering.table, from) {
                let labels = [&from.application, &from.name, &to.name];
                samples.push((labels.map(ToString::to_string).to_vec(), count as f64));
            }
        }
    })
}

fn turned_away(status: &Status) -> Vec<Sample> {
    with_table(status, |snapshot, samples| {
        let Some(steering) = &snapshot.steering else {
            return;
        };
        for place in steering.table.places() {
            let count = place.counters.sum(|c| c.turned_away.get());
            if count > 0 {
                let labels = vec![place.application.to_string(), place.name.to_string()];
                samples.push((labels, count as f64));
            }
        }
    })
}

fn with_table(status: &Status, read: impl Fn(&Snapshot, &mut Vec<Sample>)) -> Vec<Sample> {
    let mut samples = Vec::new();
    if let Some(snapshot) = status.snapshot() {
        read(&snapshot, &mut samples);
    }
    samples
}
