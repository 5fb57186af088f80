#![allow(clippy::indexing_slicing)]

use super::*;
use crate::{healing::counter::Tally, id::ShardId, stats::PerShard};

use Fault::{Connect, Gateway, Overloaded, Reset, Status};

fn split() -> Outlier {
    Outlier {
        split_external_local_origin_errors: true,
        enforcing_consecutive_gateway_failure: 100,
        ..Outlier::default()
    }
}

fn unsplit() -> Outlier {
    Outlier {
        split_external_local_origin_errors: false,
        ..split()
    }
}

/// Goal: each kind of row is made longer and ended by what Envoy says, and a refusal for overload is neither
/// (H13). Method: calls in an order, by what they came to; the rows that are long enough with the last one.
#[test]
fn rows_are_made_of_what_counts() {
    let (both, local) = ([1, 1, 0], [0, 0, 1]);
    let calls = |four: Option<Fault>, last: &[Option<Fault>]| [[four; 4].as_slice(), last].concat();
    for (settings, calls, expected) in [
        (unsplit(), calls(Some(Status), &[Some(Status)]), [1, 0, 0]),
        (unsplit(), calls(Some(Gateway), &[Some(Gateway)]), both),
        (unsplit(), calls(Some(Gateway), &[Some(Status)]), [1, 0, 0]),
        (unsplit(), calls(Some(Connect), &[Some(Reset)]), both),
        (unsplit(), calls(Some(Connect), &[Some(Status)]), [1, 0, 0]),
        (
            unsplit(),
            calls(Some(Status), &[None, Some(Status)]),
            [0; 3],
        ),
        (unsplit(), calls(Some(Status), &[Some(Overloaded)]), [0; 3]),
        (
            unsplit(),
            calls(Some(Status), &[Some(Overloaded), Some(Status)]),
            [1, 0, 0],
        ),
        (
            split(),
            calls(Some(Gateway), &[Some(Connect), Some(Gateway)]),
            both,
        ),
        (split(), calls(Some(Connect), &[Some(Reset)]), local),
        (
            split(),
            calls(Some(Connect), &[Some(Status), Some(Reset)]),
            [0; 3],
        ),
        (split(), calls(Some(Connect), &[None, Some(Reset)]), [0; 3]),
        (split(), calls(Some(Status), &[Some(Status)]), [1, 0, 0]),
    ] {
        let counters = EndpointCounters::default();
        let rows = settings.rows();
        let full: Vec<bool> = calls
            .iter()
            .map(|call| rows.count(*call, &counters))
            .collect();
        let found = counters.rows().map(|row| row.full.get());
        assert_eq!(found, expected, "{calls:?}");
        let at = full.iter().enumerate().filter(|(_, is_full)| **is_full);
        let at: Vec<usize> = at.map(|(k, _)| k).collect();
        let last: Vec<usize> = (found != [0; 3])
            .then(|| calls.len() - 1)
            .into_iter()
            .collect();
        assert_eq!(at, last, "{calls:?}");
    }
}

/// What is found of an endpoint on two shards whose calls come in these ticks: by shard.
fn found(settings: &Outlier, ticks: &[[&[Option<Fault>]; 2]]) -> Vec<Option<Cause>> {
    let counters: PerShard<EndpointCounters> = PerShard::new(2);
    let mut tally = Tally::new(&counters);
    let mut watch = Watch::default();
    let rows = settings.rows();
    let mut tick = |shards: &[&[Option<Fault>]; 2]| {
        for (shard, calls) in (0u16..).zip(shards) {
            let Some(counters) = counters.get(ShardId(shard)) else {
                continue;
            };
            for call in *calls {
                rows.count(*call, counters);
                match call {
                    Some(fault) => counters.fail(*fault),
                    None => {
                        counters.succeed(1);
                        0
                    }
                };
            }
        }
        watch.step(&tally.step(&counters), settings)
    };
    ticks.iter().map(&mut tick).collect()
}

/// Goal: a row is found where it is: within a tick, over ticks, over shards; one over shards is ended by a success
/// on any of them, and one of a shard by its own. Method: calls of two shards, tick by tick.
#[test]
fn rows_are_put_together() {
    let bad = [Some(Status); 6];
    let within = [bad[0], bad[1], bad[2], bad[3], bad[4], None];
    let five = Some(Cause::Consecutive5xx);
    let of = |n: usize| &bad[..n];
    let only = Outlier::default();
    assert_eq!(found(&only, &[[&within, &[]]]), [five]);
    assert_eq!(found(&only, &[[of(2), of(2)], [of(1), &[]]]), [None, five]);
    assert_eq!(
        found(&only, &[[of(4), &[]], [&[None], &[]], [of(4), &[]]]),
        [None; 3]
    );
    assert_eq!(
        found(&only, &[[of(2), of(2)], [&[], &[None]], [of(1), &[]]]),
        [None; 3]
    );
    // The next row begins after it.
    assert_eq!(
        found(&only, &[[of(5), &[]], [of(4), &[]], [of(1), &[]]]),
        [five, None, five]
    );
    let unenforced = Outlier {
        enforcing_consecutive_5xx: 0,
        ..Outlier::default()
    };
    assert_eq!(found(&unenforced, &[[&within, &[]]]), [None]);
}

fn sweep(settings: &Outlier, nodes: &[(u64, u64, u64)]) -> Vec<Option<Cause>> {
    let mut watches: Vec<Watch> = nodes
        .iter()
        .map(|(succeeded, status, hard)| {
            let calls = Calls {
                succeeded: *succeeded,
                failed: status + hard,
                failed_hard: *hard,
                ..Calls::default()
            };
            let mut watch = Watch::default();
            watch.add(&calls, settings);
            watch
        })
        .collect();
    let mut sweep = Sweep::default();
    let almost = settings.interval - Duration::from_millis(1);
    assert_eq!(sweep.step(almost, settings, watches.iter_mut()), []);
    let found = sweep.step(Duration::from_millis(1), settings, watches.iter_mut());
    let again = sweep.step(settings.interval, settings, watches.iter_mut());
    assert!(again.iter().all(Option::is_none), "an interval counts once");
    found
}

/// Goal: success rates are held against the mean of those with enough requests, and that only if they are
/// enough nodes; at the numbers of a calculation by hand. Method: four at 100 %, and one below. With one of
/// five at `100 - d` the mean is `100 - d/5` and the deviation `2d/5`: at 1.9 of them the bound is
/// `100 - 0.96 d`, at 2.0 it is the rate itself.
#[test]
fn success_rates_are_compared_with_the_mean() {
    let well = (100, 0, 0);
    let nodes = |last| [well, well, well, well, last];
    let low = Some(Cause::SuccessRate);
    let only_last = |cause| vec![None, None, None, None, cause];
    let usual = Outlier::default();
    assert_eq!(sweep(&usual, &nodes((90, 10, 0))), only_last(low));
    assert_eq!(sweep(&usual, &nodes((90, 0, 10))), only_last(low));
    let strict = Outlier {
        success_rate_stdev_factor: 2001,
        ..Outlier::default()
    };
    assert_eq!(sweep(&strict, &nodes((90, 10, 0))), only_last(None));
    assert_eq!(
        sweep(&usual, &nodes((89, 10, 0))),
        only_last(None),
        "99 requests"
    );
    assert_eq!(
        sweep(&usual, &nodes((90, 10, 0))[1..]),
        [None; 4],
        "four nodes"
    );
    let local = Some(Cause::SuccessRateLocalOrigin);
    assert_eq!(sweep(&split(), &nodes((90, 0, 10))), only_last(local));
    assert_eq!(sweep(&split(), &nodes((90, 10, 0))), only_last(low));
}

/// Goal: failures in percent are held against the threshold alone. Method: at it and below it, with enough
/// requests and one less, in four and five nodes; off by default.
#[test]
fn failures_are_counted_in_percent() {
    let settings = |is_split| Outlier {
        enforcing_success_rate: 0,
        enforcing_local_origin_success_rate: 0,
        enforcing_failure_percentage: 100,
        enforcing_failure_percentage_local_origin: 100,
        split_external_local_origin_errors: is_split,
        ..Outlier::default()
    };
    let sick = Some(Cause::FailurePercentage);
    let all = |node| [node; 5];
    assert_eq!(sweep(&settings(false), &all((15, 85, 0))), [sick; 5]);
    assert_eq!(sweep(&settings(false), &all((15, 0, 85))), [sick; 5]);
    assert_eq!(sweep(&settings(false), &all((16, 84, 0))), [None; 5]);
    assert_eq!(sweep(&settings(false), &all((0, 50, 0))), [sick; 5]);
    assert_eq!(sweep(&settings(false), &all((0, 49, 0))), [None; 5]);
    assert_eq!(sweep(&settings(false), &all((15, 85, 0))[1..]), [None; 4]);
    let local = Some(Cause::FailurePercentageLocalOrigin);
    assert_eq!(sweep(&settings(true), &all((10, 5, 85))), [local; 5]);
    let usual = Outlier {
        enforcing_success_rate: 0,
        ..Outlier::default()
    };
    assert_eq!(sweep(&usual, &all((0, 100, 0))), [None; 5]);
}
