//! Metrics of the process: its build and life, what the coordinator counts, what the kernel says of it.

use std::fs;

use super::{Family, Source, loaded};
use crate::{
    admin::view,
    status::{State, Status},
    upgrade::Outcome,
};

/// Those without labels, but for the version.
pub(super) fn families() -> Vec<Family> {
    let family = |name: &str, kind, help: &str, value: fn(&Status) -> f64| Family {
        name: name.into(),
        kind,
        help: help.into(),
        labels: &[],
        source: Source::Process(value),
    };
    vec![
        Family {
            name: "tidegate_build_info".into(),
            kind: "gauge",
            help: "Always 1; the version is in the label.".into(),
            labels: &["version"],
            source: Source::BuildInfo,
        },
        family(
            "tidegate_ready",
            "gauge",
            "1 while requests are taken.",
            |s| f64::from(u8::from(s.state() == State::Ready)),
        ),
        family(
            "tidegate_config_epoch",
            "gauge",
            "The newest configuration epoch given to the shards.",
            |s| s.snapshot().map_or(0.0, |snapshot| snapshot.epoch.0 as f64),
        ),
        family(
            "tidegate_config_installed_timestamp_seconds",
            "gauge",
            "When the configuration in use was installed.",
            |s| s.live().source.installed_unix_s as f64,
        ),
        family(
            "tidegate_config_applied_seconds",
            "gauge",
            "From telling the shards of the configuration in use until every one of them used it.",
            |s| s.process.applied_s(),
        ),
        family(
            "tidegate_config_applied_seconds_max",
            "gauge",
            "The same, the longest since the start.",
            |s| s.process.applied_max_s(),
        ),
        family(
            "tidegate_config_reloads_total",
            "counter",
            "Configurations installed after the first.",
            |s| loaded(&s.process.reloads),
        ),
        family(
            "tidegate_config_reloads_failed_total",
            "counter",
            "Configurations refused; the one before stayed in use.",
            |s| loaded(&s.process.reloads_failed),
        ),
        family(
            "tidegate_generation",
            "gauge",
            "How many processes took over from each other without a gap, this one included.",
            |s| f64::from(s.live().ancestry.generation),
        ),
        Family {
            name: "tidegate_upgrades_total".into(),
            kind: "counter",
            help: "Hot upgrades by result, those of the processes before included.".into(),
            labels: &["result"],
            source: Source::Named(|s| {
                let count = |outcome: Outcome| loaded(s.process.upgrades(outcome));
                Outcome::ALL
                    .map(|outcome| (outcome.word().to_owned(), count(outcome)))
                    .to_vec()
            }),
        },
        family(
            "tidegate_dns_failures_total",
            "counter",
            "Look-ups of cluster names that failed; the last good addresses stayed in use.",
            |s| loaded(&s.process.dns_failures),
        ),
        family(
            "tidegate_health_check_failures_total",
            "counter",
            "Active health checks that failed.",
            |s| loaded(&s.process.health_failures),
        ),
        family(
            "tidegate_link_requests_lost_total",
            "counter",
            "Requests lost by replacing a link, over all shards: must stay 0.",
            |s| {
                let lost = s
                    .shards()
                    .map(|(_, _, shard)| shard.link_requests_lost.get());
                lost.sum::<u64>() as f64
            },
        ),
        family(
            "process_start_time_seconds",
            "gauge",
            "When the process began.",
            |s| s.started_unix_s as f64,
        ),
        family(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            |_| resident_bytes(),
        ),
        family(
            "process_cpu_seconds_total",
            "counter",
            "CPU time used, user and system.",
            |_| cpu_seconds(),
        ),
        family(
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            |_| fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count() as f64),
        ),
    ]
}

fn resident_bytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    view::kib_field(&status, "VmRSS").unwrap_or(0) as f64 * 1024.0
}

fn cpu_seconds() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}
