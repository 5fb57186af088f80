//! `tidegate ctl eject` and `restore`: an endpoint out, or back in, and the way back.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Admin, encode};
use crate::exit::Failure;

/// What is to become of an endpoint.
pub(super) enum Change<'c> {
    /// Out, for so long.
    Eject(&'c str),
    /// Back in.
    Restore,
}

pub(super) fn run(
    admin: &Admin,
    cluster: &str,
    endpoint: SocketAddr,
    change: &Change<'_>,
    is_trial: bool,
) -> Result<(), Failure> {
    let before = state(&admin.view("/healing")?, cluster, endpoint);
    let target = target(cluster, endpoint, change) + &format!("&dry_run={}", u8::from(is_trial));
    admin.post(&target)?.expect_ok()?;
    let told = told(cluster, endpoint, change, before);
    super::super::print(&match (is_trial, told.split_once('\n')) {
        (true, Some((changed, _))) => format!("would be: {changed}\n"),
        _ => told,
    })
}

fn target(cluster: &str, endpoint: SocketAddr, change: &Change<'_>) -> String {
    let (cluster, endpoint) = (encode(cluster), encode(&endpoint.to_string()));
    match change {
        Change::Eject(time) => format!("/healing?cluster={cluster}&eject={endpoint}&for={time}"),
        Change::Restore => format!("/healing?cluster={cluster}&restore={endpoint}"),
    }
}

/// Where an endpoint stands, and for how many seconds yet.
fn state(healing: &Value, cluster: &str, endpoint: SocketAddr) -> Option<(String, f64)> {
    let clusters = healing["clusters"].as_array()?.iter();
    let found = clusters.filter(|one| one["name"] == cluster);
    let mut all = found.flat_map(|one| one["endpoints"].as_array().into_iter().flatten());
    let one = all.find(|one| one["address"] == endpoint.to_string())?;
    let left_s = one["left_s"].as_f64().unwrap_or_default();
    Some((one["state"].as_str()?.to_owned(), left_s))
}

/// What changes, and the way back.
fn told(
    cluster: &str,
    endpoint: SocketAddr,
    change: &Change<'_>,
    before: Option<(String, f64)>,
) -> String {
    let (was, left_s) = before.unwrap_or_else(|| ("unknown".into(), 0.0));
    let (is, undo) = match change {
        Change::Eject(time) => (format!("ejected for {time}"), "restore".to_owned()),
        Change::Restore => ("healthy".to_owned(), "eject".to_owned()),
    };
    let mut out = format!(
        "{cluster}, {endpoint}: {was} → {is}\nundo: tidegate ctl {undo} {cluster} {endpoint}"
    );
    if matches!(change, Change::Restore) {
        out += &format!(" --for {:.0}s", left_s.max(1.0));
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Goal: each change says what was and what is, and the command that undoes it. Method: an endpoint out and back in.
    #[test]
    fn changes_can_be_undone() {
        let endpoint = SocketAddr::from(([10, 0, 0, 7], 80));
        let healing = |state: &str, left_s| {
            let endpoint = json!({ "address": "10.0.0.7:80", "state": state, "left_s": left_s });
            json!({ "clusters": [{ "name": "pay", "endpoints": [endpoint] }] })
        };
        let healthy = state(&healing("healthy", Value::Null), "pay", endpoint);
        assert_eq!(
            told("pay", endpoint, &Change::Eject("10m"), healthy),
            "pay, 10.0.0.7:80: healthy → ejected for 10m\nundo: tidegate ctl restore pay 10.0.0.7:80\n"
        );
        let ejected = state(&healing("ejected", json!(59.6)), "pay", endpoint);
        assert_eq!(
            told("pay", endpoint, &Change::Restore, ejected),
            "pay, 10.0.0.7:80: ejected → healthy\nundo: tidegate ctl eject pay 10.0.0.7:80 --for 60s\n"
        );
        assert_eq!(state(&json!({}), "pay", endpoint), None);
    }

    /// Goal: no name breaks out of its place in the request. Method: one with everything that could.
    #[test]
    fn targets_are_encoded() {
        let endpoint = "[::1]:80".parse().unwrap_or(SocketAddr::from(([0; 4], 0)));
        assert_eq!(
            target("a&b", endpoint, &Change::Eject("1m")),
            "/healing?cluster=a%26b&eject=%5B%3A%3A1%5D%3A80&for=1m"
        );
        assert_eq!(
            target("a", endpoint, &Change::Restore),
            "/healing?cluster=a&restore=%5B%3A%3A1%5D%3A80"
        );
    }
}
