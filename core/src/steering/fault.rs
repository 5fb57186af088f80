//! Which requests are delayed or refused on purpose: Envoy's HTTP fault filter, by route. Chance is an argument.

use std::time::Duration;

use super::{RequestView, RouteScratch, condition::Conditions};
use crate::config::model::{AbortWith, Chance, Fault, RouteMatch};

/// What a request asks for, where the rule leaves it to requests; milliseconds, statuses, and how many of the rule's
/// denominator, if fewer than the rule says.
const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_PERCENTAGE: &str = "x-envoy-fault-delay-request-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_PERCENTAGE: &str = "x-envoy-fault-abort-request-percentage";

/// The longest delay that a request can ask for: nobody is to keep connections for as long as it likes.
pub const DELAY_MAX: Duration = Duration::from_secs(300);

/// The faults of a route, compiled.
#[derive(Debug)]
pub struct Faults {
    rule: Fault,
    conditions: Conditions,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// It is delayed.
    pub delay: Option<Duration>,
    /// It is refused then.
    pub abort: Option<Abort>,
}

/// What a request is refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// A status of HTTP.
    Http(u16),
    /// A status of gRPC.
    Grpc(u16),
}

impl Injected {
    /// Whether nothing is.
    pub fn is_none(&self) -> bool {
        *self == Injected::default()
    }
}

impl Faults {
    /// Compiles a rule.
    pub fn compile(rule: &Fault) -> Faults {
        let matches = RouteMatch {
            headers: rule.headers.clone(),
            ..RouteMatch::default()
        };
        Faults {
            conditions: Conditions::compile(&matches),
            rule: rule.clone(),
        }
    }

    /// Requests with a fault at once, per shard.
    pub fn active_max(&self) -> Option<u32> {
        self.rule.active_max
    }

    /// What becomes of a request; each fault has a random number of its own.
    pub fn decide<R: RequestView + ?Sized>(
        &self,
        request: &R,
        scratch: &mut RouteScratch,
        mut random: impl FnMut() -> u64,
    ) -> Injected {
        if self
            .conditions
            .failed(request, &mut scratch.searches)
            .is_some()
        {
            return Injected::default();
        }
        let delay = self.rule.delay.and_then(|delay| {
            let asked = || number(request, DELAY).map(Duration::from_millis);
            let chance = match delay.fixed {
                Some(_) => delay.chance,
                None => asked_chance(request, DELAY_PERCENTAGE, delay.chance),
            };
            let by = delay.fixed.or_else(asked)?.min(DELAY_MAX);
            (!by.is_zero() && chance.hits(random())).then_some(by)
        });
        let abort = self.rule.abort.and_then(|abort| {
            let chance = match abort.with {
                AbortWith::Header => asked_chance(request, ABORT_PERCENTAGE, abort.chance),
                _ => abort.chance,
            };
            let with = match abort.with {
                AbortWith::Http(status) => Abort::Http(status),
                AbortWith::Grpc(status) => Abort::Grpc(status),
                AbortWith::Header => asked_abort(request)?,
            };
            chance.hits(random()).then_some(with)
        });
        Injected { delay, abort }
    }
}

/// A status of HTTP goes before one of gRPC, as in Envoy.
fn asked_abort<R: RequestView + ?Sized>(request: &R) -> Option<Abort> {
    let http = number(request, ABORT).filter(|status| (200..600).contains(status));
    if let Some(status) = http {
        return Some(Abort::Http(status as u16));
    }
    let grpc = number(request, ABORT_GRPC)?;
    u16::try_from(grpc).ok().map(Abort::Grpc)
}

/// A request can ask for fewer than the rule says, and not for more.
fn asked_chance<R: RequestView + ?Sized>(request: &R, header: &str, chance: Chance) -> Chance {
    let asked = number(request, header).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Chance {
        numerator: asked.unwrap_or(u32::MAX).min(chance.numerator),
        ..chance
    }
}

fn number<R: RequestView + ?Sized>(request: &R, header: &str) -> Option<u64> {
    let text = std::str::from_utf8(request.header(header)?).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{FaultAbort, FaultDelay, ValuePattern};

    struct Asking<'a>(&'a [(&'a str, &'a str)]);

    impl RequestView for Asking<'_> {
        fn method(&self) -> &[u8] {
            b"GET"
        }

        fn host(&self) -> &[u8] {
            b"h"
        }

        fn path(&self) -> &[u8] {
            b"/"
        }

        fn query(&self) -> Option<&[u8]> {
            None
        }

        fn header(&self, name: &str) -> Option<&[u8]> {
            let mut fields = self.0.iter();
            let found = fields.find(|(field, _)| *field == name);
            found.map(|(_, value)| value.as_bytes())
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn decided(rule: &Fault, asks: &[(&str, &str)], random: u64) -> Injected {
        let faults = Faults::compile(rule);
        faults.decide(&Asking(asks), &mut RouteScratch::default(), || random)
    }

    fn rule(fixed: Option<Duration>, with: AbortWith, chance: Chance) -> Fault {
        Fault {
            delay: Some(FaultDelay { fixed, chance }),
            abort: Some(FaultAbort { with, chance }),
            ..Fault::default()
        }
    }

    /// Goal: faults hit as many as they are to. Method: draws over the whole range, at shares small and large.
    #[test]
    fn chances_are_exact() {
        for (numerator, denominator) in [(0, 100), (1, 100), (250, 10_000), (1, 1), (7, 1_000_000)]
        {
            let chance = Chance {
                numerator,
                denominator,
            };
            let draws = 4_000_000u64;
            let hits = (0..draws)
                .filter(|i| chance.hits(u64::MAX / draws * i))
                .count() as u64;
            let expected = draws * u64::from(numerator) / u64::from(denominator);
            assert!(
                hits.abs_diff(expected) <= 1,
                "{numerator}/{denominator}: {hits}"
            );
        }
    }

    /// Goal: delay and refusal are those of the rule, each by chance. Method: both ends of the range.
    #[test]
    fn faults_are_those_of_the_rule() {
        let half = Chance::of_share(5_000);
        for (with, abort) in [
            (AbortWith::Http(503), Abort::Http(503)),
            (AbortWith::Grpc(14), Abort::Grpc(14)),
        ] {
            let rule = rule(Some(SECOND), with, half);
            let both = Injected {
                delay: Some(SECOND),
                abort: Some(abort),
            };
            assert_eq!(decided(&rule, &[], 0), both);
            assert!(decided(&rule, &[], u64::MAX).is_none());
        }
    }

    /// Goal: requests say what they want where the rule leaves it to them, and no more than that. Method: a table of
    /// headers.
    #[test]
    fn requests_ask_for_faults() {
        let always = Chance {
            numerator: 100,
            denominator: 100,
        };
        let by_header = rule(None, AbortWith::Header, always);
        let middle = u64::MAX / 2 + 1;
        for (asks, delay, abort) in [
            (&[][..], None, None),
            (&[(DELAY, "250")], Some(Duration::from_millis(250)), None),
            (&[(DELAY, "soon")], None, None),
            (&[(DELAY, "0")], None, None),
            (&[(DELAY, "999999999")], Some(DELAY_MAX), None),
            (&[(DELAY, "250"), (DELAY_PERCENTAGE, "50")], None, None),
            (
                &[(DELAY, "250"), (DELAY_PERCENTAGE, "51")],
                Some(Duration::from_millis(250)),
                None,
            ),
            (&[(ABORT, "418")], None, Some(Abort::Http(418))),
            (&[(ABORT, "100")], None, None),
            (&[(ABORT_GRPC, "7")], None, Some(Abort::Grpc(7))),
            (
                &[(ABORT, "503"), (ABORT_GRPC, "7")],
                None,
                Some(Abort::Http(503)),
            ),
            (&[(ABORT, "503"), (ABORT_PERCENTAGE, "0")], None, None),
        ] {
            assert_eq!(
                decided(&by_header, asks, middle),
                Injected { delay, abort },
                "{asks:?}"
            );
        }
        // Who does not leave it to requests does not listen to them.
        let fixed = rule(Some(SECOND), AbortWith::Http(503), always);
        let asks = [
            (DELAY, "9"),
            (ABORT, "418"),
            (ABORT_PERCENTAGE, "0"),
            (DELAY_PERCENTAGE, "0"),
        ];
        assert_eq!(decided(&fixed, &asks, 0), decided(&fixed, &[], 0));
        let none = Chance {
            numerator: 0,
            ..always
        };
        let more = [(ABORT, "503"), (ABORT_PERCENTAGE, "100")];
        assert!(decided(&rule(None, AbortWith::Header, none), &more, 0).is_none());
    }

    /// Goal: only requests that meet the conditions get faults. Method: one that does and one that does not.
    #[test]
    fn conditions_choose_requests() {
        let mut rule = rule(Some(SECOND), AbortWith::Http(503), Chance::ALWAYS);
        rule.headers = vec![("x-chaos".into(), ValuePattern::Exact("1".into()))];
        assert!(!decided(&rule, &[("x-chaos", "1")], 0).is_none());
        assert!(decided(&rule, &[("x-chaos", "2")], 0).is_none());
        assert!(decided(&rule, &[], 0).is_none());
    }
}
