//! One rule, compiled: which requests it is about, and what it does with them.

use std::sync::Arc;

use super::{
    super::{
        RequestView, RouteScratch, Split,
        condition::{Conditions, Failed},
        destination::{Sticky, cookie, hash_bytes, sticky_hash, sticky_key},
    },
    share::{Draw, own_fraction, threshold},
    table::Asked,
};
use crate::{
    config::model::{
        HashOn, RouteMatch, ValuePattern,
        steering::{self, Fallback, Marks, Verb},
    },
    id::ClusterId,
    limiter::bucket::Buckets,
    stats::{Histogram, PerShard, RuleCounters},
};

/// A rule of the table.
#[derive(Debug)]
pub struct CompiledRule {
    /// Its id.
    pub id: Arc<str>,
    /// Its own version.
    pub epoch: u64,
    /// What tells the next hop that it has moved a request: `application/rule@epoch` (S12).
    pub mark: Arc<str>,
    /// The key of the file: what it does.
    pub word: &'static str,
    /// What it does.
    pub action: Action,
    /// What happens if the place that it chose has no endpoint.
    pub(super) fallback: Option<To>,
    /// From this second on it matches nothing.
    pub expires_unix_s: Option<u64>,
    conditions: Conditions,
    cookies: Box<[(Arc<str>, Arc<str>)]>,
    users: Option<(u8, u8, HashOn)>,
    percent: Option<Draw>,
    sticky: Option<HashOn>,
    request_id: Arc<str>,
    /// What came of it, carried over from the snapshot before while the id stays.
    pub counters: Arc<PerShard<RuleCounters>>,
    /// Of `cap`: the buckets, carried over while id and epoch stay.
    pub buckets: Option<Arc<Buckets>>,
    /// How long what it moved took, head to end of the answer; where a ramp asks for it.
    pub latency: Option<Arc<PerShard<Histogram>>>,
}

/// What a rule does, by cluster.
#[derive(Debug)]
pub enum Action {
    /// Chooses a place for a share of what matches; the rest stays at home.
    Place(Draw, Targets),
    /// Refuses what is over its rate.
    Cap,
    /// Where to if the place of a request has no endpoint.
    FailTo(Box<[ClusterId]>),
}

/// Where a rule sends what it takes.
#[derive(Debug)]
pub enum Targets {
    /// To one place.
    One(ClusterId),
    /// To several.
    Split(Split),
    /// By home. A home without a row keeps all.
    Matrix(Box<[(ClusterId, Split)]>),
}

/// Where to if a place has no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Home,
    Refuse,
    Cluster(ClusterId),
}

/// Why a rule does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mismatch<'a> {
    /// Its time is over.
    Expired,
    /// A header is missing or says something else.
    Header(&'a str),
    /// A cookie is missing or says something else.
    Cookie(&'a str),
    /// The user is none of the range.
    User(Option<u8>),
    /// The request falls outside of `percent`, at this point of 2^32.
    Percent(u64),
}

impl CompiledRule {
    /// Compiles a rule that was checked. `cluster` finds places of its application by name.
    pub(super) fn compile(
        rule: &steering::Rule,
        marks: &Marks,
        cluster: &dyn Fn(&str) -> Option<ClusterId>,
        counters: Arc<PerShard<RuleCounters>>,
        buckets: Option<Arc<Buckets>>,
    ) -> Option<CompiledRule> {
        let wanted = &rule.matches;
        let mut headers = wanted.headers.clone();
        let colour = wanted.colour.clone().map(ValuePattern::Exact);
        headers.extend(colour.map(|colour| (marks.colour.clone(), colour)));
        headers.extend(wanted.stress.map(|stress| {
            let pattern = if stress {
                ValuePattern::Present
            } else {
                ValuePattern::Absent
            };
            (marks.stress.clone(), pattern)
        }));
        let conditions = RouteMatch {
            headers,
            ..RouteMatch::default()
        };
        let fallback = match &rule.fallback {
            None => None,
            Some(Fallback::Home) => Some(To::Home),
            Some(Fallback::Refuse) => Some(To::Refuse),
            Some(Fallback::Place(place)) => Some(To::Cluster(cluster(place)?)),
        };
        let percent = wanted.percent.map(|points| {
            // Set apart from the share of the verb, or a half of a half would be all of it.
            Draw::new(&format!("{}/match", rule.id), threshold(points))
        });
        Some(CompiledRule {
            id: rule.id.clone(),
            epoch: rule.epoch,
            mark: format!("{}/{}@{}", wanted.application, rule.id, rule.epoch).into(),
            word: rule.verb.word(),
            action: action(rule, cluster)?,
            fallback,
            expires_unix_s: rule.expires_unix_s,
            conditions: Conditions::compile(&conditions),
            cookies: wanted.cookies.iter().cloned().collect(),
            users: wanted
                .users
                .map(|(low, high)| (low, high, marks.user.clone())),
            percent,
            sticky: rule.sticky.clone(),
            request_id: marks.request_id.clone(),
            counters,
            buckets,
            latency: None,
        })
    }

    /// The first part that does not hold; `None` if it matches.
    #[inline]
    pub(super) fn mismatch<R: RequestView + ?Sized>(
        &self,
        asked: &Asked<'_, R>,
        scratch: &mut RouteScratch,
    ) -> Option<Mismatch<'_>> {
        if self
            .expires_unix_s
            .is_some_and(|end| end <= asked.now_unix_s)
        {
            return Some(Mismatch::Expired);
        }
        match self.conditions.failed(asked.request, &mut scratch.searches) {
            None => {}
            Some(Failed::Header(_, name) | Failed::Query(_, name)) => {
                return Some(Mismatch::Header(name));
            }
            Some(Failed::Method) => return Some(Mismatch::Header("method")),
        }
        for (name, value) in &self.cookies {
            let cookies = asked.request.header("cookie");
            let found = cookies.and_then(|cookies| cookie(cookies, name));
            if found != Some(value.as_bytes()) {
                return Some(Mismatch::Cookie(name));
            }
        }
        if let Some((low, high, on)) = &self.users {
            let number = match sticky_key(on, asked.request) {
                Sticky::Bytes(user) => user.and_then(user_number),
                Sticky::ClientIp => None,
            };
            if !number.is_some_and(|number| (*low..=*high).contains(&number)) {
                return Some(Mismatch::User(number));
            }
        }
        let percent = self.percent.filter(|draw| !draw.takes(self.key(asked)))?;
        Some(Mismatch::Percent(percent.point(self.key(asked))))
    }

    /// What the shares of this rule go by: its sticky key, else the request's id, else chance.
    #[inline]
    pub(super) fn key<R: RequestView + ?Sized>(&self, asked: &Asked<'_, R>) -> u64 {
        self.known_key(asked).unwrap_or(asked.random)
    }

    /// The same; `None` where chance decides.
    pub(super) fn known_key<R: RequestView + ?Sized>(&self, asked: &Asked<'_, R>) -> Option<u64> {
        let sticky = self.sticky.as_ref();
        let sticky = sticky.and_then(|on| sticky_hash(on, asked.request, asked.client));
        sticky.or_else(|| Some(hash_bytes(0, asked.request.header(&self.request_id)?)))
    }

    /// Whether a part of what matches is left to the next rule, and which.
    pub(super) const fn percent(&self) -> Option<Draw> {
        self.percent
    }

    /// Where it sends a request of `home`; `None` for one outside of its share.
    #[inline]
    pub(super) fn target<R: RequestView + ?Sized>(
        &self,
        draw: &Draw,
        targets: &Targets,
        home: ClusterId,
        asked: &Asked<'_, R>,
    ) -> Option<ClusterId> {
        let key = self.key(asked);
        if !draw.takes(key) {
            return None;
        }
        match targets {
            Targets::One(cluster) => Some(*cluster),
            Targets::Split(split) => split.pick(key),
            Targets::Matrix(rows) => {
                let (_, split) = rows.iter().find(|(from, _)| *from == home)?;
                split.pick(key)
            }
        }
    }

    /// Every cluster that it names as a target.
    pub fn targets(&self) -> Vec<ClusterId> {
        let mut all = match &self.action {
            Action::Place(_, Targets::One(cluster)) => vec![*cluster],
            Action::Place(_, Targets::Split(split)) => split.clusters().collect(),
            Action::Place(_, Targets::Matrix(rows)) => rows
                .iter()
                .flat_map(|(_, split)| split.clusters())
                .collect(),
            Action::FailTo(clusters) => clusters.to_vec(),
            Action::Cap => Vec::new(),
        };
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn action(rule: &steering::Rule, cluster: &dyn Fn(&str) -> Option<ClusterId>) -> Option<Action> {
    let id = &*rule.id;
    let reached = threshold(rule.reached.unwrap_or(super::share::WHOLE));
    let draw = |share: u64| Draw::new(id, share.min(reached));
    // Drawn apart from who is moved at all, so that those who are go the same way as their number grows.
    let split = |row: &[(Arc<str>, u32)]| {
        let shares: Option<Vec<_>> = row
            .iter()
            .map(|(to, share)| Some((cluster(to)?, *share)))
            .collect();
        Some(Split::new(&format!("{id}/to"), shares?))
    };
    Some(match &rule.verb {
        Verb::SetUnit(to) | Verb::SetGroup(to) => Action::Place(
            draw(threshold(super::share::WHOLE)),
            Targets::One(cluster(to)?),
        ),
        Verb::Shift { to, share } => {
            Action::Place(draw(threshold(*share)), Targets::One(cluster(to)?))
        }
        Verb::Divert { to, share } => {
            Action::Place(draw(own_fraction(*share)), Targets::One(cluster(to)?))
        }
        Verb::Split(row) => Action::Place(
            draw(threshold(super::share::WHOLE)),
            Targets::Split(split(row)?),
        ),
        Verb::Matrix(rows) => {
            let rows: Option<Box<[_]>> = rows
                .iter()
                .map(|(from, row)| Some((cluster(from)?, split(row)?)))
                .collect();
            Action::Place(draw(threshold(super::share::WHOLE)), Targets::Matrix(rows?))
        }
        Verb::Cap(_) => Action::Cap,
        Verb::FailTo(places) => {
            let clusters: Option<Box<[_]>> = places.iter().map(|place| cluster(place)).collect();
            Action::FailTo(clusters?)
        }
    })
}

/// The number that a user's id ends with, its last two digits: `user-4711` is 11, `7` is 7.
fn user_number(user: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| byte - b'0');
    match user {
        [.., tens, ones] => Some(digit(tens).unwrap_or(0) * 10 + digit(ones)?),
        [ones] => digit(ones),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a user is in one range, by the digits that users are dealt out by. Method: table.
    #[test]
    fn users_have_numbers() {
        for (user, number) in [
            ("4711", Some(11)),
            ("2088000000000500", Some(0)),
            ("u7", Some(7)),
            ("7", Some(7)),
            ("x", None),
            ("12x", None),
            ("", None),
        ] {
            assert_eq!(user_number(user.as_bytes()), number, "{user}");
        }
    }
}
