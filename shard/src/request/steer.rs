//! Where a request goes: to the cluster of its route, or elsewhere, as the steering program says.
//!
//! The one place where that is decided. What the program says is `core`'s; here it is told about the request,
//! obeyed, counted, and passed on as a hop mark, so that the next proxy does not move the request again (S12).

use std::{rc::Rc, sync::Arc, time::Duration};

use tidegate_core::{
    config::model::Labels,
    id::ClusterId,
    limiter::bucket::{Rate, Taken},
    message::{RateLimitRecord, SteerRecord},
    reason::Reason,
    snapshot::{Forward, Steering},
    steering::program::{
        Asked, CompiledRule, DECISION_FIELD, Decided, HOP_FIELD, Refused, Surroundings, Table,
    },
};

use super::exchange::{Exchange, Refusal, View};
use crate::{
    local::{Local, Plane},
    upstream::Destination,
};

/// What the steering program has decided about a request.
pub(crate) struct Steered<'a> {
    table: &'a Table,
    decided: Decided<'a>,
}

/// A shard, as the program asks about it.
struct Around<'a> {
    plane: &'a Plane,
    local: &'a Local,
    now_ns: u64,
}

impl Surroundings for Around<'_> {
    fn is_usable(&self, cluster: ClusterId) -> bool {
        let found = self.plane.cluster(cluster);
        found.is_some_and(|(_, cluster)| cluster.is_usable())
    }

    fn take_token(&self, rule: &CompiledRule) -> Option<Duration> {
        let buckets = rule.buckets.as_ref()?;
        match buckets.take(self.local.id, 0, self.now_ns) {
            Taken::Admit => None,
            Taken::Limited { retry_after } => Some(retry_after),
        }
    }
}

/// For a program that decides nothing: no token is taken.
struct DryRun<'a>(Around<'a>);

impl Surroundings for DryRun<'_> {
    fn is_usable(&self, cluster: ClusterId) -> bool {
        self.0.is_usable(cluster)
    }

    fn take_token(&self, _: &CompiledRule) -> Option<Duration> {
        None
    }
}

impl<'a> Exchange<'a> {
    /// The cluster that this request is sent to.
    pub(super) fn steer(
        &mut self,
        plane: &'a Rc<Plane>,
        forward: &Forward,
    ) -> Result<Destination<'a>, Refusal> {
        let local = &self.client.local;
        let hash = self.hash(forward);
        let drawn = hash.unwrap_or_else(|| local.random());
        let target = forward.split.target(drawn).ok_or(Reason::NoEndpoint)?;
        let home = target.cluster;
        let to = match &plane.snapshot.steering {
            None => home,
            Some(steering) => {
                self.distrusts_mark = self.has_foreign_mark(&steering.table);
                self.follow_program(plane, steering, home)?
            }
        };
        let (settings, cluster) = plane.cluster(to).ok_or(Reason::NoEndpoint)?;
        self.cluster = Some(settings);
        // What its route asks for is there where the route leads; elsewhere it asks for nothing.
        let within = match to == home {
            true => target.within,
            false => settings.subsets.find(&Labels::new()),
        };
        self.choice.is_fallback = within.is_fallback;
        let subset = within.subset.ok_or(Reason::NoSubset)?;
        Ok(Destination {
            local,
            settings,
            cluster,
            subset,
            hash,
            preface: None,
        })
    }

    /// What the program of this snapshot says, and no other (S14).
    fn follow_program(
        &mut self,
        plane: &'a Plane,
        steering: &'a Steering,
        home: ClusterId,
    ) -> Result<ClusterId, Refusal> {
        let table = &steering.table;
        let Some(place) = table.place(home) else {
            return Ok(home);
        };
        let local = &self.client.local;
        let now_ns = local.unix_ns(local.driver.now_ns());
        let is_moved = self.was_moved(&place.application);
        let view = View {
            head: &self.scratch.request,
            bytes: &self.scratch.bytes,
        };
        let asked = Asked {
            request: &view,
            client: self.client.peer().map(|peer| peer.ip()),
            random: local.random(),
            now_unix_s: now_ns / 1_000_000_000,
            is_moved,
        };
        let around = Around {
            plane,
            local,
            now_ns,
        };
        if let Some(next) = &steering.dry_run {
            let dry = DryRun(Around { ..around });
            let decided = local.with_route_scratch(|s| next.decide(home, &asked, s, &dry));
            decided.iter().for_each(|d| next.count(local.id, home, d));
        }
        let decided = local.with_route_scratch(|s| table.decide(home, &asked, s, &around));
        let Some(decided) = decided else {
            return Ok(home);
        };
        table.count(local.id, home, &decided);
        self.steered = Some(Steered { table, decided });
        match decided {
            Ok(decision) => Ok(decision.to.cluster),
            Err(refused) => Err(self.refuse_steered(&refused)),
        }
    }

    fn refuse_steered(&mut self, refused: &Refused<'_>) -> Refusal {
        if let Refused::Capped(rule, _, retry_after) = refused {
            let rate = rule.buckets.as_ref().map(|buckets| buckets.rate());
            self.over_rate = Some(over_cap(rate, *retry_after));
        }
        refused.reason().into()
    }

    /// Whether it carries a hop mark that no peer who is trusted has set.
    fn has_foreign_mark(&self, table: &Table) -> bool {
        let (head, bytes) = self.head();
        if head.field(bytes, HOP_FIELD).is_none() {
            return false;
        }
        let peer = self.client.peer().map(|peer| peer.ip());
        let is_foreign = !peer.is_some_and(|peer| table.trusts(peer));
        let counters = self.client.local.counters();
        counters.steer_marks_untrusted.add(u64::from(is_foreign));
        is_foreign
    }

    /// Whether a peer that is trusted has moved it already, for the same application (S12).
    fn was_moved(&self, application: &str) -> bool {
        let (head, bytes) = self.head();
        let mark = head
            .field(bytes, HOP_FIELD)
            .filter(|_| !self.distrusts_mark);
        let rest = mark.and_then(|mark| mark.strip_prefix(application.as_bytes()));
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// What is told to the next hop: the mark, if the request is moved here.
    pub(super) fn hop_mark(&self) -> Option<(&'static str, &'a str)> {
        let decision = self.steered.as_ref()?.decided.ok()?;
        let rule = decision.rule.filter(|_| decision.is_moved())?;
        Some((HOP_FIELD, &rule.mark))
    }

    /// Whether a mark that came with the request goes no further: nobody who is trusted has set it, or another
    /// takes its place.
    pub(super) fn drops_hop_mark(&self) -> bool {
        let (head, bytes) = self.head();
        let is_replaced = self.hop_mark().is_some();
        (self.distrusts_mark || is_replaced) && head.field(bytes, HOP_FIELD).is_some()
    }

    /// What an answer says of the decision, where that was asked for (S16).
    pub(super) fn decision_field(&self) -> Option<(&'static str, String)> {
        let steered = self.steered.as_ref()?;
        if !steered.table.response_header {
            return None;
        }
        let decision = steered.decided.ok()?;
        // Fields are ASCII.
        Some((DECISION_FIELD, decision.to_string().replace('→', ">")))
    }

    /// What the access log says of the decision; nothing if no rule was involved.
    pub(crate) fn steer_record(&self) -> Option<Box<SteerRecord>> {
        let steered = self.steered.as_ref()?;
        let (rule, from, to, fell_back) = match &steered.decided {
            Ok(decision) => {
                let rule = decision.rule?;
                (rule, decision.from, decision.to, decision.fell_back)
            }
            Err(Refused::NoTarget(rule, from, to)) => (*rule, *from, *to, false),
            Err(Refused::Capped(rule, from, _)) => (*rule, *from, *from, false),
            Err(Refused::NotNamed(_)) => return None,
        };
        Some(Box::new(SteerRecord {
            rule: rule.id.clone(),
            rule_epoch: rule.epoch,
            from: from.name.clone(),
            to: to.name.clone(),
            fell_back,
            epoch: steered.table.epoch,
        }))
    }

    /// Counts what came of a request that a rule has moved.
    pub(super) fn judge_steered(&self, failed: bool) {
        let decided = self.steered.as_ref().map(|steered| steered.decided);
        let Some(Ok(decision)) = decided else { return };
        let Some(rule) = decision.rule.filter(|_| decision.is_moved()) else {
            return;
        };
        let shard = self.client.local.id;
        if let Some(counters) = rule.counters.get(shard) {
            counters.completed.add(1);
            counters.failed.add(u64::from(failed));
        }
        let latency = rule.latency.as_ref().and_then(|all| all.get(shard));
        if let Some(latency) = latency {
            latency.record(self.times.total_ns());
        }
    }
}

fn over_cap(rate: Option<Rate>, retry_after: Duration) -> Box<RateLimitRecord> {
    Box::new(RateLimitRecord {
        rate,
        by: "rule",
        retry_after: Some(retry_after),
    })
}

/// The names of fields that are left out of what the endpoint is told: the route's, and the mark.
pub(super) fn with_hop_mark(remove: &[Arc<str>]) -> Vec<Arc<str>> {
    let mark = Arc::from(HOP_FIELD);
    remove.iter().cloned().chain([mark]).collect()
}
