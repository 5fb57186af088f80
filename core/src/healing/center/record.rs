//! What a center knows and keeps: one record a node, one an endpoint, one an event. All of it is plain data
//! that survives a restart as JSON under a key of its own, in whatever store.
//!
//! Times are since the Unix epoch, as the leading center has them: they go from one center to the next.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::healing::report::{Body, Finding, Node, Subject};

/// A proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Who it is.
    pub node: Node,
    /// Its newest report that is stored.
    pub sequence: u64,
    /// Gaps in the sequence: reports that it had to drop before they were sent.
    pub lost: u64,
    /// When it was last heard of.
    pub heard: Duration,
    /// Whether it has a stream now.
    #[serde(skip)]
    pub connected: bool,
    /// Its own clock when it was last heard of.
    #[serde(skip)]
    pub clock: Duration,
}

/// Where an endpoint stands, by what was reported last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing was reported.
    #[default]
    Closed,
    /// Somebody suspects it, and nobody has taken it out.
    Suspect,
    /// Somebody has taken it out.
    Ejected,
    /// Somebody is trying it again.
    Probation,
    /// It is in again everywhere.
    Healthy,
}

impl State {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Suspect => "suspect",
            State::Ejected => "ejected",
            State::Probation => "probation",
            State::Healthy => "healthy",
        }
    }
}

/// How somebody came to speak against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// A detector fired, a guard held.
    Suspect,
    /// It was taken out.
    Ejected,
    /// Who fronts it says that it is overloaded.
    Overload,
    /// The probe that the center asked for failed.
    Probe,
}

/// What one node has against an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// How it knows.
    pub kind: ClaimKind,
    /// When it happened.
    pub at: Duration,
    /// How long it counts.
    pub until: Duration,
    /// The numbers, if there are any.
    pub finding: Option<Finding>,
    /// How full the node says that it is itself; 1 is full.
    pub watermark: Option<f64>,
}

/// What the center makes of the claims.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There is nothing to judge.
    #[default]
    None,
    /// Too few agree: others were asked to probe.
    Probing {
        /// For how long answers are waited for.
        until: Duration,
        /// Who was asked, and what he found: true is well.
        asked: Vec<Asked>,
    },
    /// Too few agree, and probes did not decide. The reporters' own loops go on.
    Unsettled,
    /// Enough agree, or a person says so.
    Sick {
        /// A person said so: nothing that is reported changes it.
        by_hand: bool,
    },
    /// Probes found it well, or a person says so; who had taken it out was told.
    Well,
    /// It is full, by its own word, and the others of its service are not: its callers were told to send it
    /// this part of what it would get.
    Overloaded {
        /// 0 to 1.
        weight: f64,
        /// When they were told last: a weight lasts no longer than its directive is valid.
        told: Duration,
    },
    /// Too many endpoints of the service at once: what they depend on is at fault. Nothing is done.
    Dependency,
    /// Too many endpoints of the service are full at once, or its only one: there are too few. Nothing is
    /// done.
    Capacity,
}

impl Verdict {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Verdict::None => "none",
            Verdict::Probing { .. } => "probing",
            Verdict::Unsettled => "unsettled",
            Verdict::Sick { .. } => "sick",
            Verdict::Well => "well",
            Verdict::Overloaded { .. } => "overloaded",
            Verdict::Dependency => "dependency",
            Verdict::Capacity => "capacity",
        }
    }
}

/// A node that was asked to probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Which one.
    pub node: Box<str>,
    /// By which directive.
    pub directive: u64,
    /// True if it found the endpoint well; nothing before the answer.
    pub well: Option<bool>,
}

/// What was done about a sick endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Treatment {
    /// Restarts so far.
    pub restarts: u32,
    /// It was taken off line.
    pub offline: bool,
    /// What is being done.
    pub running: Option<Running>,
    /// Nothing more is done before then.
    pub pause: Duration,
}

/// A remedy whose effect is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// By which directive.
    pub directive: u64,
    /// Who was asked.
    pub node: Box<str>,
    /// Of which application: so many at once, not more.
    pub application: Box<str>,
    /// `restart` or `offline`.
    pub action: Box<str>,
    /// The node says that it is done.
    pub done: bool,
    /// How long its effect is waited for.
    pub until: Duration,
}

/// An endpoint that something was reported of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Its service.
    pub service: Box<str>,
    /// Its unit; empty without one.
    pub unit: Box<str>,
    /// Endpoints of the service, as reporters count them.
    pub group: u32,
    /// By node: what each has against it.
    pub claims: BTreeMap<Box<str>, Claim>,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub state_since: Duration,
    /// What the center makes of it.
    pub verdict: Verdict,
    /// Since when.
    pub verdict_since: Duration,
    /// When the ejections were last declared wrong, without a person.
    pub cleared: Option<Duration>,
    /// What was done about it.
    pub treatment: Treatment,
    /// When something was last reported of it.
    pub heard: Duration,
}

impl EndpointRecord {
    /// One that nothing was reported of.
    pub(super) fn new(service: &str, unit: &str, now: Duration) -> EndpointRecord {
        EndpointRecord {
            service: service.into(),
            unit: unit.into(),
            group: 0,
            claims: BTreeMap::new(),
            state: State::Closed,
            state_since: now,
            verdict: Verdict::None,
            verdict_since: now,
            cleared: None,
            treatment: Treatment::default(),
            heard: now,
        }
    }

    /// What a control plane would publish as `health_status` of the endpoint in EDS.
    pub const fn health_status(&self) -> &'static str {
        match self.verdict {
            _ if self.treatment.offline => "DRAINING",
            Verdict::Sick { .. } => "UNHEALTHY",
            Verdict::Overloaded { .. } => "DEGRADED",
            _ => "HEALTHY",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Ascending, without gaps, over all centers.
    pub number: u64,
    /// When.
    pub at: Duration,
    /// A word: of a report, of a directive (`directive_restart`), or of a verdict (`verdict_sick`).
    pub what: Box<str>,
    /// The node it came from or went to; empty for the center's own.
    pub node: Box<str>,
    /// The endpoint it is about, if it is about one.
    pub endpoint: Option<SocketAddr>,
    /// The numbers.
    pub detail: Value,
}

/// A report in numbers, for the log of events.
pub(super) fn numbers(body: &Body) -> Value {
    match body {
        Body::Suspect {
            subject,
            finding,
            guard,
        } => with_finding(subject, finding, &[("guard", json!(guard))]),
        Body::Ejected {
            subject,
            finding,
            enforced,
            times,
            cool_down,
        } => {
            let more = [
                ("enforced", json!(enforced)),
                ("times", json!(times)),
                ("cool_down_s", json!(cool_down.as_secs_f64())),
            ];
            with_finding(subject, finding, &more)
        }
        Body::Probation(subject) | Body::Recovered(subject) => {
            json!({ "service": subject.service, "cluster": subject.cluster })
        }
        Body::Overload(overload) => json!({
            "watermark": overload.watermark,
            "dominant_signal": overload.dominant_signal,
            "shed_rate": overload.shed_rate,
            "top_interfaces": overload.top_interfaces,
        }),
        Body::DirectiveAck(ack) => json!({
            "id": ack.id.to_string(),
            "outcome": ack.outcome,
            "detail": ack.detail,
        }),
        Body::KeepAlive => Value::Null,
    }
}

fn with_finding(subject: &Subject, finding: &Finding, more: &[(&str, Value)]) -> Value {
    let errors = finding.errors.iter();
    let errors: Map<String, Value> = errors
        .map(|(class, count)| (class.to_string(), json!(count)))
        .collect();
    let common = [
        ("service", json!(subject.service)),
        ("cluster", json!(subject.cluster)),
        ("reason", json!(finding.reason)),
        ("window_s", json!(finding.window.as_secs_f64())),
        ("calls", json!(finding.calls)),
        ("errors", Value::Object(errors)),
        ("local_rate", json!(finding.local_rate)),
        ("peer_rate", json!(finding.peer_rate)),
        ("group", json!(finding.group)),
    ];
    let all = common.iter().chain(more);
    all.map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

/// One record to be stored or, without a value, removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `node/ID`, `endpoint/ADDRESS` or `event/NUMBER`.
    pub key: String,
    /// JSON.
    pub value: Option<String>,
}
