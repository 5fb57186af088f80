//! How the links of one endpoint on one shard are replaced: make before break, one new link for each old
//! one, paced (E7, E12).
//!
//! * [`Target`]: what the links ought to be, and what a connection made for a request at hand is.
//! * [`plan`]: how many links to warm and to retire now.
//! * [`Pace`]: when the next warm-up may begin.

use std::time::Duration;

use super::rollout::LinkKind;
use crate::steering::destination::mix;

/// Warm-ups under way at once, at one endpoint from one shard: a handshake costs a server about as much
/// as twenty requests, and requests go on meanwhile.
pub const WARM_UPS_MAX: u32 = 2;
/// The pause after the first warm-up that failed; doubled with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest pause. An endpoint that comes to its senses is noticed within it.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What a link is made with. Two links that agree in it need no replacing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Make {
    /// How it carries its bytes.
    pub kind: LinkKind,
    /// The generation of the context that it is encrypted with: policy and secrets. 0 for plaintext.
    pub generation: u64,
}

/// What the links of an endpoint ought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    wanted: Make,
    /// What a connection that a request waits for is made as.
    dialled: Make,
    /// A connection as wanted was made.
    reached: bool,
    /// Since when this is wanted.
    since: Duration,
}

/// What the old kind of links is still good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// It serves, and is dialled, until a link of the new kind has been made.
    Serves,
    /// It is never dialled again: plaintext where TLS is required (E16), or TLS without a context.
    NotDialled,
}

impl Target {
    /// The first target of an endpoint, which has no links yet: there is nothing to switch from.
    pub fn new(wanted: Make, now: Duration) -> Target {
        Target {
            wanted,
            dialled: wanted,
            reached: false,
            since: now,
        }
    }

    /// Wants something else from `now` on; says whether it is something else at all, so that an unrelated
    /// change of an endpoint changes nothing here (E11).
    #[must_use]
    pub fn aim(&mut self, wanted: Make, old: Old, now: Duration) -> bool {
        if wanted == self.wanted {
            if old == Old::NotDialled {
                self.dialled = wanted;
            }
            return false;
        }
        self.wanted = wanted;
        self.reached = false;
        self.since = now;
        // An older context is not kept: with another one of the same kind there is nothing else to dial.
        if self.dialled.kind == wanted.kind || old == Old::NotDialled {
            self.dialled = wanted;
        }
        true
    }

    /// A connection of `make` was made. Says whether this completes a switch: from now on, connections
    /// for requests are made as wanted.
    #[must_use]
    pub fn made(&mut self, make: Make) -> bool {
        if make != self.wanted || self.reached {
            return false;
        }
        self.reached = true;
        self.dialled = make;
        true
    }

    /// What is wanted.
    pub fn wanted(&self) -> Make {
        self.wanted
    }

    /// What a connection that a request waits for is made as.
    pub fn dialled(&self) -> Make {
        self.dialled
    }

    /// Whether a connection as wanted has been made since it was wanted.
    pub fn is_reached(&self) -> bool {
        self.reached
    }

    /// Whether a link has to be made to find out that it can be: until then requests dial the old kind.
    pub fn is_to_be_proven(&self) -> bool {
        self.dialled != self.wanted
    }

    /// Whether links of `make` have outlived what policy allows, replaced or not: plaintext, longer than
    /// `drain_timeout` after TLS was `required`.
    pub fn is_overdue(
        &self,
        make: Make,
        required: bool,
        drain_timeout: Duration,
        now: Duration,
    ) -> bool {
        required
            && make.kind == LinkKind::Plaintext
            && self.wanted.kind == LinkKind::Tls
            && now.saturating_sub(self.since) >= drain_timeout
    }
}

/// The links of one endpoint, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Old links that could be selected, and wait for a request.
    pub old_idle: u32,
    /// Old links that could be selected again, with a request on them.
    pub old_busy: u32,
    /// Old links that were never given back: relays and upgraded connections, or first requests. Whether
    /// they ever will be is not known, so nothing takes their place.
    pub old_lasting: u32,
    /// Warm-ups under way.
    pub warming: u32,
    /// Links that were warmed and have not taken an old one's place.
    pub warmed: u32,
    /// A first link has to show that the new kind works.
    pub to_be_proven: bool,
    /// A link as wanted was made.
    pub reached: bool,
    /// Connections that the endpoint's cluster may still have.
    pub room: u32,
}

/// What to do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Idle old links to close.
    pub close_idle: u32,
    /// Busy old links to drain.
    pub drain_busy: u32,
    /// Drain the old links that were never given back.
    pub drain_lasting: bool,
    /// Warm-ups that are wanted in all, those under way not counted.
    pub missing: u32,
    /// Of those, how many may begin now.
    pub warm: u32,
}

/// How many links to retire and to warm: an old one goes only when a new one has come.
#[must_use]
pub fn plan(standing: &Standing) -> Plan {
    let old = standing.old_idle + standing.old_busy;
    let retire = standing.warmed.min(old);
    let close_idle = retire.min(standing.old_idle);
    let left = (old - retire).max(u32::from(standing.to_be_proven));
    let missing = left.saturating_sub(standing.warming);
    Plan {
        close_idle,
        drain_busy: retire - close_idle,
        drain_lasting: standing.reached && standing.old_lasting > 0,
        missing,
        warm: missing
            .min(WARM_UPS_MAX.saturating_sub(standing.warming))
            .min(standing.room),
    }
}

/// When warm-ups at one endpoint may begin: spread over a window, so that a fleet that is told at one
/// moment does not shake hands at one moment; after failures, ever later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The window in which warm-ups are spread.
    until: Duration,
    not_before: Duration,
    /// Failures in a row.
    failures: u32,
}

impl Pace {
    /// The pace of a replacement that begins `now`: the first warm-up comes at a random time within
    /// `window`. `random` is any number.
    pub fn begin(now: Duration, window: Duration, random: u64) -> Pace {
        Pace {
            until: now.saturating_add(window),
            not_before: now.saturating_add(window.mul_f64(unit(random))),
            failures: 0,
        }
    }

    /// When the next warm-up may begin.
    pub fn not_before(&self) -> Duration {
        self.not_before
    }

    /// A warm-up begins; `missing` others are wanted. They are spread over what is left of the window.
    pub fn began(&mut self, now: Duration, missing: u32, random: u64) {
        let left = self.until.saturating_sub(now);
        let gap = left / missing.max(1);
        self.not_before = now.saturating_add(gap.mul_f64(unit(random)));
    }

    /// A warm-up succeeded.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A warm-up failed: exponential, with jitter of half the pause, so that those who failed together
    /// do not come back together.
    pub fn failed(&mut self, now: Duration, random: u64) {
        let pause = BACKOFF_FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.saturating_add(pause.mul_f64(0.5 + unit(random) / 2.0));
    }
}

/// The shortest life of a link (a guess): near the end of a certificate, 2/3 of what is left would
/// mean one handshake after the other.
pub const AGE_MIN: Duration = Duration::from_secs(10);

/// How old a link may grow: `max_connection_age`, and 2/3 of what is left of its peer's certificate when it
/// is made, less up to a tenth by `random`, so that what was made together is not replaced together (E17).
/// `None` is without limit.
pub fn age_max(
    configured: Option<Duration>,
    certificate_left: Option<Duration>,
    random: u64,
) -> Option<Duration> {
    let by_certificate = certificate_left.map(|left| (left / 3 * 2).max(AGE_MIN));
    let age = configured.into_iter().chain(by_certificate).min()?;
    Some(age.mul_f64(1.0 - unit(random) / 10.0))
}

/// A number in 0..1 of any 64 bits.
fn unit(random: u64) -> f64 {
    // The 53 bits of an f64's mantissa; mixed, so that a counter will do as randomness.
    (mix(random) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
