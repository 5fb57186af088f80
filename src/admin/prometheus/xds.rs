//! Metrics of the control plane.

use tidegate_xds::{graph::State, resources::TypeStatus};

use super::{Family, Sample};
use crate::{status::Status, xds::Shown};

/// With a control plane; none without one.
pub(super) fn families() -> Vec<Family> {
    let family = Family::labelled;
    vec![
        family(
            "tidegate_xds_connected",
            "gauge",
            "1 while there is a stream to a control plane; not there without `xds`.",
            &[],
            |status| {
                one(status, |shown| {
                    f64::from(shown.client.borrow().server.is_some())
                })
            },
        ),
        family(
            "tidegate_xds_streams_total",
            "counter",
            "Streams made to control planes.",
            &[],
            |status| one(status, |shown| shown.client.borrow().streams as f64),
        ),
        family(
            "tidegate_xds_files",
            "gauge",
            "Files that bring resources.",
            &[],
            |status| one(status, |shown| shown.client.borrow().files.len() as f64),
        ),
        family(
            "tidegate_xds_file_reads_total",
            "counter",
            "Times that such a file was read.",
            &[],
            |status| one(status, |shown| shown.client.borrow().file_reads.0 as f64),
        ),
        family(
            "tidegate_xds_file_errors_total",
            "counter",
            "Times that such a file could not be read, or was refused, wholly or in part; /xds says why.",
            &[],
            |status| one(status, |shown| shown.client.borrow().file_reads.1 as f64),
        ),
        family(
            "tidegate_xds_responses_total",
            "counter",
            "Responses of control planes and contents of files, by type of their resources.",
            &["type"],
            |status| by_type(status, |one| one.responses),
        ),
        family(
            "tidegate_xds_updates_total",
            "counter",
            "Resources accepted, by type.",
            &["type"],
            |status| by_type(status, |one| one.accepted),
        ),
        family(
            "tidegate_xds_rejected_total",
            "counter",
            "Resources refused, by type; /xds says why.",
            &["type"],
            |status| by_type(status, |one| one.rejected),
        ),
        family(
            "tidegate_xds_resources",
            "gauge",
            "Resources by type and state: active, warming (waiting for what they refer to), missing.",
            &["type", "state"],
            by_state,
        ),
        family(
            "tidegate_xds_applied_total",
            "counter",
            "Changes of a control plane in use on all shards.",
            &[],
            |status| one(status, |shown| shown.applied.parts as f64),
        ),
        family(
            "tidegate_xds_apply_seconds_total",
            "counter",
            "From the receipt of a response to its use on all shards, all changes together.",
            &[],
            |status| one(status, |shown| shown.applied.total.as_secs_f64()),
        ),
        family(
            "tidegate_xds_apply_seconds",
            "gauge",
            "The same for the last change.",
            &[],
            |status| one(status, |shown| shown.applied.last.as_secs_f64()),
        ),
        family(
            "tidegate_xds_unusable",
            "gauge",
            "Resources that were accepted and cannot be used: their name or address is taken.",
            &[],
            |status| one(status, |shown| shown.applied.refused.len() as f64),
        ),
    ]
}

fn one(status: &Status, value: impl Fn(&Shown) -> f64) -> Vec<Sample> {
    let live = status.live();
    live.xds
        .iter()
        .map(|shown| (Vec::new(), value(shown)))
        .collect()
}

fn by_type(status: &Status, value: impl Fn(&TypeStatus) -> u64) -> Vec<Sample> {
    each(status, |one| {
        let labels = vec![one.resource_type.word().to_owned()];
        vec![(labels, value(one) as f64)]
    })
}

fn by_state(status: &Status) -> Vec<Sample> {
    each(status, |one| {
        let states = [State::Active, State::Warming, State::Missing];
        let sample = |state: State| {
            let labels = vec![one.resource_type.word().to_owned(), state.word().to_owned()];
            let count = one
                .resources
                .iter()
                .filter(|one| one.state == Some(state))
                .count();
            (labels, count as f64)
        };
        states.map(sample).into()
    })
}

fn each(status: &Status, samples: impl Fn(&TypeStatus) -> Vec<Sample>) -> Vec<Sample> {
    let live = status.live();
    let shown = live.xds.iter();
    shown
        .flat_map(|shown| {
            shown
                .client
                .borrow()
                .types
                .iter()
                .flat_map(&samples)
                .collect::<Vec<_>>()
        })
        .collect()
}
