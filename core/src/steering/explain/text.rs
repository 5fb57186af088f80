//! An explanation for people.

use std::fmt::{self, Display, Formatter, Write as _};

use super::{Explanation, Outcome, RouteVerdict, Verdict};
use crate::{
    config::model::{HostPattern, PathPattern, UpstreamProtocol, ValuePattern},
    steering::explain::outcome::{
        ClusterShare, EndpointShare, Forwarding, HedgePlan, RetryPlan, Sticky,
    },
};

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}{}", self.method, self.host, self.path)?;
        let bind = self.bind;
        writeln!(
            f,
            "listener  {} on {bind}, epoch {}",
            self.listener, self.epoch
        )?;
        match &self.host_pattern {
            Some(pattern) => writeln!(f, "host      claimed by {pattern}")?,
            None => writeln!(
                f,
                "host      claimed by no route; routes without host take part"
            )?,
        }
        match &self.matched_path {
            None => writeln!(f, "path      refused: it has a dot segment")?,
            Some(path) if *path != self.path => writeln!(f, "path      matched as {path}")?,
            Some(_) => {}
        }
        writeln!(f, "routes")?;
        let width = self.routes.iter().map(|r| r.name.chars().count()).max();
        for route in &self.routes {
            write_route(f, route, width.unwrap_or(0))?;
        }
        write_outcome(f, &self.outcome)?;
        if !self.consistent {
            writeln!(
                f,
                "These reasons do not lead to this outcome: please report it."
            )?;
        }
        Ok(())
    }
}

fn write_route(f: &mut Formatter<'_>, route: &RouteVerdict, width: usize) -> fmt::Result {
    let RouteVerdict {
        name,
        origin,
        verdict,
    } = route;
    match verdict {
        Verdict::Taken => write!(f, "  > {name:width$}  taken")?,
        Verdict::Later => write!(f, "    {name:width$}  matches, but comes later")?,
        Verdict::Unmatched { because, .. } => write!(f, "    {name:width$}  {because}")?,
    }
    match origin.as_str() {
        "" => writeln!(f),
        _ => writeln!(f, "  ({origin})"),
    }
}

fn write_outcome(f: &mut Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    match outcome {
        Outcome::Forward(forwarding) => write_forwarding(f, forwarding),
        Outcome::Redirect {
            status, location, ..
        } => writeln!(f, "answer    {status} to {location}"),
        Outcome::Respond {
            status,
            body_bytes,
            content_type,
            ..
        } => writeln!(
            f,
            "answer    {status} with {body_bytes} bytes of {content_type}"
        ),
        Outcome::Refuse { reason, status } => {
            writeln!(f, "answer    {status}: no route matches ({reason})")
        }
    }
}

fn write_forwarding(f: &mut Formatter<'_>, forwarding: &Forwarding) -> fmt::Result {
    if let Some(sticky) = &forwarding.sticky {
        write_sticky(f, sticky)?;
    }
    for cluster in &forwarding.clusters {
        write_cluster(f, cluster)?;
    }
    writeln!(f, "sent as   {}{}", forwarding.host, forwarding.path)?;
    for edit in &forwarding.request_headers {
        writeln!(f, "request   {edit}")?;
    }
    for edit in &forwarding.response_headers {
        writeln!(f, "answer    {edit}")?;
    }
    match forwarding.timeout_ms {
        Some(ms) => writeln!(f, "timeout   {ms} ms")?,
        None => writeln!(f, "timeout   none")?,
    }
    match &forwarding.retry {
        Some(retry) => write_retry(f, retry)?,
        None => writeln!(f, "retry     never")?,
    }
    forwarding
        .hedge
        .as_ref()
        .map_or(Ok(()), |hedge| write_hedge(f, hedge))
}

fn write_sticky(f: &mut Formatter<'_>, sticky: &Sticky) -> fmt::Result {
    write!(f, "sticky    by {}: ", sticky.on)?;
    match (&sticky.hash, sticky.point) {
        (Some(hash), Some(point)) => {
            writeln!(f, "hash {hash} falls at {}", percent(point))
        }
        _ => writeln!(f, "the request has none, so chance decides"),
    }
}

fn write_cluster(f: &mut Formatter<'_>, cluster: &ClusterShare) -> fmt::Result {
    let ClusterShare {
        cluster: name,
        share,
        from,
        to,
        balance,
        protocol,
        ..
    } = cluster;
    write!(f, "cluster   {name} {}", percent(*share))?;
    if *share < 1.0 {
        write!(f, " [{from}, {to})")?;
    }
    match cluster.chosen {
        Some(true) if *share < 1.0 => write!(f, ", chosen")?,
        Some(false) => return writeln!(f, ", not chosen"),
        _ => {}
    }
    write!(f, ", {balance}")?;
    if *protocol != UpstreamProtocol::Http1.word() {
        write!(f, ", {protocol}")?;
    }
    writeln!(f)?;
    if cluster.endpoints.is_empty() {
        writeln!(f, "          no endpoints (no_endpoint, 503)")?;
    }
    if cluster.panic {
        writeln!(f, "          none is available: all are used")?;
    }
    for endpoint in &cluster.endpoints {
        write_endpoint(f, endpoint, cluster.endpoint == Some(endpoint.address))?;
    }
    match &cluster.steering {
        Some(steering) => write!(f, "{steering}"),
        None => Ok(()),
    }
}

fn write_endpoint(f: &mut Formatter<'_>, endpoint: &EndpointShare, led_to: bool) -> fmt::Result {
    let EndpointShare {
        address, weight, ..
    } = endpoint;
    let mark = if led_to { '>' } else { ' ' };
    let share = percent(endpoint.share);
    write!(f, "        {mark} {address} weight {weight}, {share}")?;
    match endpoint.available {
        true => writeln!(f),
        false => writeln!(f, ", unavailable"),
    }
}

fn write_retry(f: &mut Formatter<'_>, retry: &RetryPlan) -> fmt::Result {
    let RetryPlan {
        times, backoff_ms, ..
    } = retry;
    let on = retry.on.join(", ");
    let budget = percent(retry.budget);
    write!(f, "retry     at most {times}, on {on}; budget {budget}")?;
    if let Some(ms) = retry.per_try_timeout_ms {
        write!(f, "; {ms} ms per try")?;
    }
    match backoff_ms {
        0 => writeln!(f, "; at once"),
        _ => writeln!(f, "; after {backoff_ms} ms and more"),
    }
}

fn write_hedge(f: &mut Formatter<'_>, hedge: &HedgePlan) -> fmt::Result {
    let HedgePlan {
        delay_ms, times, ..
    } = hedge;
    let of = match hedge.unsafe_methods {
        true => "of any method",
        false => "of safe methods",
    };
    let budget = percent(hedge.budget);
    writeln!(
        f,
        "hedge     at most {times}, {of}, each {delay_ms} ms behind the try before; budget {budget}"
    )
}

/// `90 %`, `33.33 %`.
fn percent(part: f64) -> String {
    let mut text = format!("{:.2}", part * 100.0);
    if let Some(whole) = text.strip_suffix(".00") {
        text.truncate(whole.len());
    }
    text.push_str(" %");
    text
}

/// The pattern, as the configuration writes it.
pub(super) fn host_pattern(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
        HostPattern::Prefix(prefix) => format!("{prefix}*"),
        HostPattern::Any => "*".to_owned(),
    }
}

/// The pattern, as the configuration writes it.
pub(super) fn path_pattern(pattern: &PathPattern) -> String {
    match pattern {
        PathPattern::Any => "any".to_owned(),
        PathPattern::Exact(path) | PathPattern::Template(path) => path.to_string(),
        PathPattern::Prefix(prefix) => format!("{prefix}/**"),
        PathPattern::Regex(pattern) => format!("~{pattern}"),
    }
}

/// What the pattern asks for, in words.
pub(super) fn value_pattern(pattern: &ValuePattern) -> String {
    match pattern {
        ValuePattern::Present => "present".to_owned(),
        ValuePattern::Absent => "absent".to_owned(),
        ValuePattern::Exact(text) => format!("`{text}`"),
        ValuePattern::Prefix(text) => format!("`{text}…`"),
        ValuePattern::Suffix(text) => format!("`…{text}`"),
        ValuePattern::Contains(text) => format!("`…{text}…`"),
        ValuePattern::Regex(text) => format!("~{text}"),
    }
}

/// A value as it was found.
pub(super) fn found(value: Option<&[u8]>) -> String {
    match value {
        Some(value) => format!("`{}`", String::from_utf8_lossy(value)),
        None => "absent".to_owned(),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn any_of(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    let mut text = String::new();
    for (i, word) in words.iter().enumerate() {
        let separator = match words.len() - i {
            _ if i == 0 => "",
            1 => " or ",
            _ => ", ",
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{word}");
    }
    text
}
