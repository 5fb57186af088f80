//! Messages of the protocol, and what they mean. What arrives is checked here, once: an address is an
//! address, a number is finite, a text or list is no longer than its limit.

use std::{net::SocketAddr, time::Duration};

use tidegate_core::healing::{
    center::Arrival,
    directive::{Action, Directive, Fronted},
    ejection::{Cause, Guard},
    report::{self, Body, Finding, Node, Outcome, Overload, Report, Subject},
};

use crate::pb::healing as pb;

/// Bytes of a name or an address.
pub(super) const NAME_MAX: usize = 256;
/// Bytes of a text for people.
pub(super) const TEXT_MAX: usize = 1024;
/// Error classes, and interfaces, of one report.
pub(super) const LIST_MAX: usize = 32;
/// Addresses of one application behind one proxy.
pub(super) const FRONTS_MAX: usize = 16;
/// Services that one proxy calls.
pub(super) const CALLS_MAX: usize = 128;

/// What is wrong with a message; a word for the peer.
pub(super) type Wrong = &'static str;

pub(super) fn node_to_pb(node: &Node) -> pb::Node {
    pb::Node {
        id: node.id.to_string(),
        incarnation: node.incarnation,
        application: node.application.to_string(),
        fronts: node.fronts.iter().map(SocketAddr::to_string).collect(),
        zone: node.zone.to_string(),
        calls: node.calls.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn node_from_pb(node: pb::Node) -> Result<Node, Wrong> {
    if node.fronts.len() > FRONTS_MAX || node.calls.len() > CALLS_MAX {
        return Err("too many addresses or services in Node");
    }
    let id = name(node.id)?;
    // The id becomes part of a key in the store, and of a page.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
    if id.is_empty() || !id.chars().all(plain) {
        return Err("Node.id is empty or has other characters than letters, digits and -_.:@");
    }
    Ok(Node {
        id,
        incarnation: node.incarnation,
        application: name(node.application)?,
        fronts: node
            .fronts
            .iter()
            .map(|text| address(text))
            .collect::<Result<_, _>>()?,
        zone: name(node.zone)?,
        calls: node.calls.into_iter().map(name).collect::<Result<_, _>>()?,
    })
}

/// A report that leaves now.
pub(super) fn report_to_pb(now: Duration, report: Report) -> pb::Report {
    pb::Report {
        sequence: report.sequence,
        sent_ms: millis(now),
        node: None,
        age_ms: millis(now.saturating_sub(report.at)),
        kind: Some(body_to_pb(report.body)),
    }
}

fn body_to_pb(body: Body) -> pb::report::Kind {
    use pb::report::Kind;
    match body {
        Body::Suspect {
            subject,
            finding,
            guard,
        } => Kind::Suspect(pb::Suspect {
            subject: Some(subject_to_pb(subject)),
            evidence: Some(finding_to_pb(finding)),
            guard: guard_to_pb(guard).into(),
        }),
        Body::Ejected {
            subject,
            finding,
            enforced,
            times,
            cool_down,
        } => Kind::Ejected(pb::Ejected {
            subject: Some(subject_to_pb(subject)),
            evidence: Some(finding_to_pb(finding)),
            enforced,
            ejection_number: times,
            cool_down_ms: millis(cool_down),
        }),
        Body::Probation(subject) => Kind::Probation(pb::Probation {
            subject: Some(subject_to_pb(subject)),
        }),
        Body::Recovered(subject) => Kind::Recovered(pb::Recovered {
            subject: Some(subject_to_pb(subject)),
        }),
        Body::Overload(overload) => Kind::Overload(pb::Overload {
            watermark: overload.watermark,
            dominant_signal: overload.dominant_signal.into(),
            shed_rate: overload.shed_rate,
            top_interfaces: overload
                .top_interfaces
                .into_iter()
                .map(|(name, share)| pb::Interface {
                    name: name.into(),
                    share,
                })
                .collect(),
        }),
        Body::DirectiveAck(ack) => Kind::DirectiveAck(pb::DirectiveAck {
            id: ack.id,
            outcome: outcome_to_pb(ack.outcome).into(),
            detail: ack.detail.into(),
        }),
        Body::KeepAlive => Kind::KeepAlive(pb::KeepAlive {}),
    }
}

/// What arrived at a center.
pub(super) fn arrival_from_pb(report: pb::Report) -> Result<Arrival, Wrong> {
    let body = body_from_pb(report.kind.ok_or("a Report without kind")?)?;
    if (report.sequence == 0) != (body == Body::KeepAlive) {
        return Err("sequence 0 is that of a keep-alive, and of nothing else");
    }
    Ok(Arrival {
        sequence: report.sequence,
        sent: Duration::from_millis(report.sent_ms),
        age: Duration::from_millis(report.age_ms),
        body,
    })
}

fn body_from_pb(kind: pb::report::Kind) -> Result<Body, Wrong> {
    use pb::report::Kind;
    Ok(match kind {
        Kind::Suspect(suspect) => Body::Suspect {
            guard: guard_from_pb(suspect.guard())?,
            subject: subject_from_pb(suspect.subject)?,
            finding: finding_from_pb(suspect.evidence)?,
        },
        Kind::Ejected(ejected) => Body::Ejected {
            subject: subject_from_pb(ejected.subject)?,
            finding: finding_from_pb(ejected.evidence)?,
            enforced: ejected.enforced,
            times: ejected.ejection_number,
            cool_down: Duration::from_millis(ejected.cool_down_ms),
        },
        Kind::Probation(probation) => Body::Probation(subject_from_pb(probation.subject)?),
        Kind::Recovered(recovered) => Body::Recovered(subject_from_pb(recovered.subject)?),
        Kind::Overload(overload) => Body::Overload(overload_from_pb(overload)?),
        Kind::DirectiveAck(ack) => Body::DirectiveAck(report::DirectiveAck {
            id: ack.id,
            outcome: outcome_from_pb(ack.outcome())?,
            detail: bounded(ack.detail, TEXT_MAX)?,
        }),
        Kind::KeepAlive(pb::KeepAlive {}) => Body::KeepAlive,
    })
}

fn subject_to_pb(subject: Subject) -> pb::Subject {
    pb::Subject {
        cluster: subject.cluster.into(),
        service: subject.service.into(),
        endpoint: subject.endpoint.to_string(),
        unit: subject.unit.into(),
    }
}

fn subject_from_pb(subject: Option<pb::Subject>) -> Result<Subject, Wrong> {
    let subject = subject.ok_or("a report without Subject")?;
    Ok(Subject {
        cluster: name(subject.cluster)?,
        service: name(subject.service)?,
        endpoint: address(&subject.endpoint)?,
        unit: name(subject.unit)?,
    })
}

fn finding_to_pb(finding: Finding) -> pb::Evidence {
    pb::Evidence {
        reason: cause_to_pb(finding.reason).into(),
        window_ms: millis(finding.window),
        calls: finding.calls,
        errors: finding
            .errors
            .into_iter()
            .map(|(class, count)| pb::ErrorCount {
                class: class.into(),
                count,
            })
            .collect(),
        local_rate: finding.local_rate,
        peer_rate: finding.peer_rate,
        group: finding.group,
    }
}

fn finding_from_pb(evidence: Option<pb::Evidence>) -> Result<Finding, Wrong> {
    let evidence = evidence.ok_or("a report without Evidence")?;
    if evidence.errors.len() > LIST_MAX {
        return Err("too many error classes");
    }
    let reason = cause_from_pb(evidence.reason())?;
    let errors = evidence.errors.into_iter();
    Ok(Finding {
        reason,
        window: Duration::from_millis(evidence.window_ms),
        calls: evidence.calls,
        errors: errors
            .map(|error| Ok((name(error.class)?, error.count)))
            .collect::<Result<_, Wrong>>()?,
        local_rate: part(evidence.local_rate)?,
        peer_rate: part(evidence.peer_rate)?,
        group: evidence.group,
    })
}

fn overload_from_pb(overload: pb::Overload) -> Result<Overload, Wrong> {
    if overload.top_interfaces.len() > LIST_MAX {
        return Err("too many interfaces");
    }
    if !overload.watermark.is_finite() {
        return Err("a watermark that is no number");
    }
    let interfaces = overload.top_interfaces.into_iter();
    Ok(Overload {
        watermark: overload.watermark,
        dominant_signal: name(overload.dominant_signal)?,
        shed_rate: part(overload.shed_rate)?,
        top_interfaces: interfaces
            .map(|interface| Ok((name(interface.name)?, part(interface.share)?)))
            .collect::<Result<_, Wrong>>()?,
    })
}

/// A directive; `acknowledged` goes with it.
pub(super) fn directive_to_pb(acknowledged: u64, directive: Directive) -> pb::Directive {
    use pb::directive::Action as Wire;
    let action = match directive.action {
        Action::Confirm { endpoint, extend } => Wire::Confirm(pb::Confirm {
            endpoint: endpoint.to_string(),
            extend_ms: millis(extend),
        }),
        Action::Clear { endpoint } => Wire::Clear(pb::Clear {
            endpoint: endpoint.to_string(),
        }),
        Action::Drain { deadline } => Wire::Drain(pb::Drain {
            deadline_ms: millis(deadline),
        }),
        Action::Restart(fronted) => Wire::Restart(pb::Restart {
            application: fronted.application.into(),
            endpoint: fronted.endpoint.to_string(),
        }),
        Action::Offline(fronted) => Wire::Offline(pb::Offline {
            application: fronted.application.into(),
            endpoint: fronted.endpoint.to_string(),
        }),
        Action::ProbeNow { endpoint } => Wire::ProbeNow(pb::ProbeNow {
            endpoint: endpoint.to_string(),
        }),
        Action::Prior { endpoint, weight } => Wire::Prior(pb::Prior {
            endpoint: endpoint.to_string(),
            weight,
        }),
    };
    pb::Directive {
        acknowledged,
        epoch: directive.epoch,
        id: directive.id,
        node: directive.node.into(),
        as_of_ms: millis(directive.as_of),
        ttl_ms: millis(directive.ttl),
        action: Some(action),
    }
}

/// The directive in a message; nothing if it only acknowledges.
pub(super) fn directive_from_pb(directive: pb::Directive) -> Result<Option<Directive>, Wrong> {
    use pb::directive::Action as Wire;
    let Some(action) = directive.action else {
        return Ok(None);
    };
    let fronted = |application: String, endpoint: &str| {
        Ok::<_, Wrong>(Fronted {
            application: name(application)?,
            endpoint: address(endpoint)?,
        })
    };
    let action = match action {
        Wire::Confirm(confirm) => Action::Confirm {
            endpoint: address(&confirm.endpoint)?,
            extend: Duration::from_millis(confirm.extend_ms),
        },
        Wire::Clear(clear) => Action::Clear {
            endpoint: address(&clear.endpoint)?,
        },
        Wire::Drain(drain) => Action::Drain {
            deadline: Duration::from_millis(drain.deadline_ms),
        },
        Wire::Restart(restart) => Action::Restart(fronted(restart.application, &restart.endpoint)?),
        Wire::Offline(offline) => Action::Offline(fronted(offline.application, &offline.endpoint)?),
        Wire::ProbeNow(probe) => Action::ProbeNow {
            endpoint: address(&probe.endpoint)?,
        },
        Wire::Prior(prior) => Action::Prior {
            endpoint: address(&prior.endpoint)?,
            weight: prior.weight,
        },
    };
    Ok(Some(Directive {
        id: directive.id,
        node: name(directive.node)?,
        epoch: directive.epoch,
        as_of: Duration::from_millis(directive.as_of_ms),
        ttl: Duration::from_millis(directive.ttl_ms),
        action,
    }))
}

fn cause_to_pb(cause: Cause) -> pb::Cause {
    match cause {
        Cause::Run => pb::Cause::Run,
        Cause::Rate => pb::Cause::Rate,
        Cause::Latency => pb::Cause::Latency,
        Cause::Probation => pb::Cause::Probation,
        Cause::Stall => pb::Cause::Stall,
        Cause::Hand => pb::Cause::Hand,
        Cause::Consecutive5xx => pb::Cause::Consecutive5xx,
        Cause::ConsecutiveGatewayFailure => pb::Cause::ConsecutiveGatewayFailure,
        Cause::ConsecutiveLocalOriginFailure => pb::Cause::ConsecutiveLocalOriginFailure,
        Cause::SuccessRate => pb::Cause::SuccessRate,
        Cause::SuccessRateLocalOrigin => pb::Cause::SuccessRateLocalOrigin,
        Cause::FailurePercentage => pb::Cause::FailurePercentage,
        Cause::FailurePercentageLocalOrigin => pb::Cause::FailurePercentageLocalOrigin,
    }
}

fn cause_from_pb(cause: pb::Cause) -> Result<Cause, Wrong> {
    match cause {
        pb::Cause::Run => Ok(Cause::Run),
        pb::Cause::Rate => Ok(Cause::Rate),
        pb::Cause::Latency => Ok(Cause::Latency),
        pb::Cause::Probation => Ok(Cause::Probation),
        pb::Cause::Stall => Ok(Cause::Stall),
        pb::Cause::Hand => Ok(Cause::Hand),
        pb::Cause::Consecutive5xx => Ok(Cause::Consecutive5xx),
        pb::Cause::ConsecutiveGatewayFailure => Ok(Cause::ConsecutiveGatewayFailure),
        pb::Cause::ConsecutiveLocalOriginFailure => Ok(Cause::ConsecutiveLocalOriginFailure),
        pb::Cause::SuccessRate => Ok(Cause::SuccessRate),
        pb::Cause::SuccessRateLocalOrigin => Ok(Cause::SuccessRateLocalOrigin),
        pb::Cause::FailurePercentage => Ok(Cause::FailurePercentage),
        pb::Cause::FailurePercentageLocalOrigin => Ok(Cause::FailurePercentageLocalOrigin),
        pb::Cause::Unspecified => Err("an unknown Cause"),
    }
}

fn guard_to_pb(guard: Guard) -> pb::Guard {
    match guard {
        Guard::LastNode => pb::Guard::LastNode,
        Guard::Percent => pb::Guard::Percent,
        Guard::Capacity => pb::Guard::Capacity,
        Guard::CommonMode => pb::Guard::CommonMode,
        Guard::Enforcing => pb::Guard::Enforcing,
    }
}

fn guard_from_pb(guard: pb::Guard) -> Result<Guard, Wrong> {
    match guard {
        pb::Guard::LastNode => Ok(Guard::LastNode),
        pb::Guard::Percent => Ok(Guard::Percent),
        pb::Guard::Capacity => Ok(Guard::Capacity),
        pb::Guard::CommonMode => Ok(Guard::CommonMode),
        pb::Guard::Enforcing => Ok(Guard::Enforcing),
        pb::Guard::Unspecified => Err("an unknown Guard"),
    }
}

fn outcome_to_pb(outcome: Outcome) -> pb::Outcome {
    match outcome {
        Outcome::Done => pb::Outcome::Done,
        Outcome::Failed => pb::Outcome::Failed,
        Outcome::Refused => pb::Outcome::Refused,
        Outcome::ProbeSucceeded => pb::Outcome::ProbeSucceeded,
        Outcome::ProbeFailed => pb::Outcome::ProbeFailed,
    }
}

fn outcome_from_pb(outcome: pb::Outcome) -> Result<Outcome, Wrong> {
    match outcome {
        pb::Outcome::Done => Ok(Outcome::Done),
        pb::Outcome::Failed => Ok(Outcome::Failed),
        pb::Outcome::Refused => Ok(Outcome::Refused),
        pb::Outcome::ProbeSucceeded => Ok(Outcome::ProbeSucceeded),
        pb::Outcome::ProbeFailed => Ok(Outcome::ProbeFailed),
        pb::Outcome::Unspecified => Err("an unknown Outcome"),
    }
}

/// Rounded down: a directive's `as_of` comes back no later than it was sent.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn name(text: String) -> Result<Box<str>, Wrong> {
    bounded(text, NAME_MAX)
}

fn bounded(text: String, bytes_max: usize) -> Result<Box<str>, Wrong> {
    if text.len() > bytes_max {
        return Err("a text that is too long");
    }
    Ok(text.into())
}

fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse()
        .map_err(|_| "an endpoint that is not ADDRESS:PORT")
}

fn part(number: f64) -> Result<f64, Wrong> {
    match (0.0..=1.0).contains(&number) {
        true => Ok(number),
        false => Err("a rate or share outside of 0 to 1"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn endpoint() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 80))
    }

    fn subject() -> Subject {
        Subject {
            cluster: "c".into(),
            service: "s".into(),
            endpoint: endpoint(),
            unit: "u".into(),
        }
    }

    fn finding() -> Finding {
        Finding {
            reason: Cause::Latency,
            window: Duration::from_secs(10),
            calls: 7,
            errors: vec![("reset".into(), 3)],
            local_rate: 0.5,
            peer_rate: 0.25,
            group: 4,
        }
    }

    /// Goal: nothing is lost between the types and the messages. Method: each kind of report and of
    /// directive there and back.
    #[test]
    fn everything_survives_the_wire() {
        let ack = |outcome| {
            Body::DirectiveAck(report::DirectiveAck {
                id: 9,
                outcome,
                detail: "d".into(),
            })
        };
        for body in [
            Body::Suspect {
                subject: subject(),
                finding: finding(),
                guard: Guard::CommonMode,
            },
            Body::Ejected {
                subject: subject(),
                finding: finding(),
                enforced: true,
                times: 2,
                cool_down: Duration::from_millis(1500),
            },
            Body::Probation(subject()),
            Body::Recovered(subject()),
            Body::Overload(Overload {
                watermark: 1.25,
                dominant_signal: "cpu".into(),
                shed_rate: 0.1,
                top_interfaces: vec![("pay".into(), 0.5)],
            }),
            ack(Outcome::ProbeFailed),
        ] {
            let report = Report {
                sequence: 3,
                at: Duration::from_secs(1),
                body: body.clone(),
            };
            let wire = report_to_pb(Duration::from_secs(3), report);
            let arrival = arrival_from_pb(wire).unwrap();
            assert_eq!(arrival.body, body);
            assert_eq!((arrival.sequence, arrival.age), (3, Duration::from_secs(2)));
        }
        let fronted = Fronted {
            application: "pay".into(),
            endpoint: endpoint(),
        };
        let time = Duration::from_secs(5);
        for action in [
            Action::Confirm {
                endpoint: endpoint(),
                extend: time,
            },
            Action::Clear {
                endpoint: endpoint(),
            },
            Action::Drain { deadline: time },
            Action::Restart(fronted.clone()),
            Action::Offline(fronted),
            Action::ProbeNow {
                endpoint: endpoint(),
            },
            Action::Prior {
                endpoint: endpoint(),
                weight: 0.5,
            },
        ] {
            let directive = Directive {
                id: 1,
                node: "n".into(),
                epoch: 2,
                as_of: time,
                ttl: time,
                action,
            };
            let wire = directive_to_pb(8, directive.clone());
            assert_eq!(wire.acknowledged, 8);
            assert_eq!(directive_from_pb(wire), Ok(Some(directive)));
        }
    }

    /// Goal: no cause or guard is taken for another. Method: all of them there and back.
    #[test]
    fn words_survive_the_wire() {
        for cause in Cause::ALL {
            assert_eq!(cause_from_pb(cause_to_pb(cause)), Ok(cause));
        }
        for guard in Guard::ALL {
            assert_eq!(guard_from_pb(guard_to_pb(guard)), Ok(guard));
        }
    }

    /// Goal: what is out of range is refused. Method: a table of spoiled reports, each fine before.
    #[test]
    fn wrong_reports_are_refused() {
        let good = || {
            let body = Body::Ejected {
                subject: subject(),
                finding: finding(),
                enforced: true,
                times: 1,
                cool_down: Duration::ZERO,
            };
            report_to_pb(
                Duration::ZERO,
                Report {
                    sequence: 1,
                    at: Duration::ZERO,
                    body,
                },
            )
        };
        let spoiled = |spoil: fn(&mut pb::Subject, &mut pb::Evidence)| {
            let mut report = good();
            if let Some(pb::report::Kind::Ejected(ejected)) = &mut report.kind {
                spoil(
                    ejected.subject.as_mut().unwrap(),
                    ejected.evidence.as_mut().unwrap(),
                );
            }
            report
        };
        let spoil: [fn(&mut pb::Subject, &mut pb::Evidence); 6] = [
            |subject, _| subject.endpoint = "pay:80".into(),
            |subject, _| subject.service = "x".repeat(NAME_MAX + 1),
            |_, evidence| evidence.local_rate = f64::NAN,
            |_, evidence| evidence.peer_rate = 1.01,
            |_, evidence| evidence.reason = 99,
            |_, evidence| evidence.errors = vec![pb::ErrorCount::default(); LIST_MAX + 1],
        ];
        for (k, spoil) in spoil.into_iter().enumerate() {
            assert!(arrival_from_pb(spoiled(spoil)).is_err(), "{k}");
        }
        let at_limits: fn(&mut pb::Subject, &mut pb::Evidence) = |subject, evidence| {
            subject.service = "x".repeat(NAME_MAX);
            evidence.errors = vec![pb::ErrorCount::default(); LIST_MAX];
        };
        assert!(arrival_from_pb(spoiled(at_limits)).is_ok());
        let unnumbered = pb::Report {
            sequence: 0,
            ..good()
        };
        assert!(arrival_from_pb(unnumbered).is_err());
        assert!(
            arrival_from_pb(pb::Report {
                kind: None,
                ..good()
            })
            .is_err()
        );
    }

    /// Goal: a node's id can be part of a key. Method: table.
    #[test]
    fn ids_are_plain() {
        let node = |id: String, fronts, calls| {
            node_from_pb(pb::Node {
                id,
                fronts: vec!["10.0.0.1:80".into(); fronts],
                calls: vec!["s".into(); calls],
                ..pb::Node::default()
            })
        };
        assert!(node("gw-1.hz_a:2@x".into(), FRONTS_MAX, CALLS_MAX).is_ok());
        for (id, fronts, calls) in [
            ("", 0, 0),
            ("a/b", 0, 0),
            ("a b", 0, 0),
            ("a", FRONTS_MAX + 1, 0),
            ("a", 0, CALLS_MAX + 1),
        ] {
            assert!(node(id.into(), fronts, calls).is_err(), "{id}");
        }
    }
}
