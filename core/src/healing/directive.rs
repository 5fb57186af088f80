//! What the center may ask of a proxy (H5), and what a proxy must not believe.
//!
//! A [`Gate`] lets a directive through once, if it is for this node, comes from the newest leader it has
//! heard of, is young enough, and asks to restart or take off line nothing but the application that the
//! node fronts.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::report::Node;

/// The longest time to live. Older decisions rest on evidence that has gone.
pub const TTL_MAX: Duration = Duration::from_secs(600);

/// The longest extension of a cool-down by one directive: a center that errs, or that is lost afterwards,
/// keeps a node out for no longer.
pub const EXTEND_MAX: Duration = Duration::from_secs(3600);

/// Directives remembered, so that none is obeyed twice. Within [`TTL_MAX`] a center sends a node a handful;
/// more is a fault of its own.
pub const REMEMBERED_MAX: usize = 1024;

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The ejection is right: it lasts so much longer.
    Confirm {
        /// Of this endpoint.
        endpoint: SocketAddr,
        /// At most [`EXTEND_MAX`].
        extend: Duration,
    },
    /// The ejection is wrong: back, by probation.
    Clear {
        /// This endpoint.
        endpoint: SocketAddr,
    },
    /// The proxy itself drains.
    Drain {
        /// Within this time.
        deadline: Duration,
    },
    /// Restart the application that the proxy fronts.
    Restart(Fronted),
    /// Take it off line.
    Offline(Fronted),
    /// Probe an endpoint once.
    ProbeNow {
        /// This one.
        endpoint: SocketAddr,
    },
    /// Send an endpoint this part of what it would get, until another is told or the directive expires.
    Prior {
        /// This one.
        endpoint: SocketAddr,
        /// 0 to 1.
        weight: f64,
    },
}

impl Action {
    /// The word for it in logs, in hooks and on pages.
    pub const fn word(&self) -> &'static str {
        match self {
            Action::Confirm { .. } => "confirm",
            Action::Clear { .. } => "clear",
            Action::Drain { .. } => "drain",
            Action::Restart(_) => "restart",
            Action::Offline(_) => "offline",
            Action::ProbeNow { .. } => "probe_now",
            Action::Prior { .. } => "prior",
        }
    }
}

/// The application that a proxy fronts, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fronted {
    /// Its name.
    pub application: Box<str>,
    /// One of the addresses at which others reach it.
    pub endpoint: SocketAddr,
}

/// An action, with what says whether it is to be obeyed.
#[derive(Clone, Debug, PartialEq)]
pub struct Directive {
    /// Unique over all centers.
    pub id: u64,
    /// For which node.
    pub node: Box<str>,
    /// The fencing epoch of who sent it: grows whenever another center leads.
    pub epoch: u64,
    /// When the center last heard of the node, on the node's clock.
    pub as_of: Duration,
    /// How long after that it is valid.
    pub ttl: Duration,
    /// What to do.
    pub action: Action,
}

/// Why a directive is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is for another node.
    Misaddressed,
    /// It comes from a center that does not lead.
    Stale,
    /// It is too old.
    Expired,
    /// It was obeyed before.
    Repeated,
    /// It is about an application or an endpoint that this node does not front.
    Foreign,
    /// A number in it is out of range, or it rests on a report that was never sent.
    OutOfRange,
    /// Too many are remembered.
    TooMany,
}

impl Refusal {
    /// The word that the center gets to read.
    pub const fn word(self) -> &'static str {
        match self {
            Refusal::Misaddressed => "misaddressed",
            Refusal::Stale => "stale",
            Refusal::Expired => "expired",
            Refusal::Repeated => "repeated",
            Refusal::Foreign => "foreign",
            Refusal::OutOfRange => "out_of_range",
            Refusal::TooMany => "too_many",
        }
    }
}

/// Judges directives for one node.
#[derive(Clone, Debug)]
pub struct Gate {
    node: Node,
    /// The highest fencing epoch heard of.
    epoch: u64,
    /// Ids of directives that were let through, with the time at which each expires.
    passed: BTreeMap<u64, Duration>,
}

impl Gate {
    /// The gate of a node that has heard of no center.
    pub fn new(node: Node) -> Gate {
        Gate {
            node,
            epoch: 0,
            passed: BTreeMap::new(),
        }
    }

    /// A center says that it leads: false if a newer one is known, and then it is to be left.
    pub fn hear(&mut self, epoch: u64) -> bool {
        let leads = epoch >= self.epoch && epoch > 0;
        self.epoch = self.epoch.max(epoch);
        leads
    }

    /// Whether to obey; until when, if so.
    pub fn judge(&mut self, now: Duration, directive: &Directive) -> Result<Duration, Refusal> {
        if directive.node != self.node.id {
            return Err(Refusal::Misaddressed);
        }
        // A higher one than the stream's own was not spoken by who leads either.
        if directive.epoch != self.epoch || directive.epoch == 0 {
            return Err(Refusal::Stale);
        }
        if directive.ttl > TTL_MAX || directive.as_of > now {
            return Err(Refusal::OutOfRange);
        }
        let expires = directive.as_of + directive.ttl;
        if now > expires {
            return Err(Refusal::Expired);
        }
        self.passed.retain(|_, expires| *expires >= now);
        if self.passed.contains_key(&directive.id) {
            return Err(Refusal::Repeated);
        }
        self.judge_action(&directive.action)?;
        if self.passed.len() >= REMEMBERED_MAX {
            return Err(Refusal::TooMany);
        }
        self.passed.insert(directive.id, expires);
        Ok(expires)
    }

    fn judge_action(&self, action: &Action) -> Result<(), Refusal> {
        let in_range = match action {
            Action::Restart(fronted) | Action::Offline(fronted) => {
                let ours = fronted.application == self.node.application
                    && self.node.fronts.contains(&fronted.endpoint);
                return if ours { Ok(()) } else { Err(Refusal::Foreign) };
            }
            Action::Confirm { extend, .. } => *extend <= EXTEND_MAX,
            Action::Prior { weight, .. } => (0.0..=1.0).contains(weight),
            Action::Clear { .. } | Action::Drain { .. } | Action::ProbeNow { .. } => true,
        };
        if in_range {
            Ok(())
        } else {
            Err(Refusal::OutOfRange)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const TTL: Duration = Duration::from_secs(30);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn gate() -> Gate {
        let mut gate = Gate::new(Node {
            id: "a".into(),
            application: "pay".into(),
            fronts: vec![address(80)],
            ..Node::default()
        });
        assert!(gate.hear(5));
        gate
    }

    fn directive(id: u64, action: Action) -> Directive {
        Directive {
            id,
            node: "a".into(),
            epoch: 5,
            as_of: NOW,
            ttl: TTL,
            action,
        }
    }

    fn restart(application: &str, port: u16) -> Action {
        Action::Restart(Fronted {
            application: application.into(),
            endpoint: address(port),
        })
    }

    /// Goal: a directive is obeyed once, by whom it is for, and only while it is fresh (H5). Method: a
    /// table of what is wrong with one; each passes without it.
    #[test]
    fn gate_refuses_what_is_not_right() {
        let good = directive(1, restart("pay", 80));
        type Spoil = fn(&mut Directive);
        let wrong: [(Refusal, Spoil); 6] = [
            (Refusal::Misaddressed, |d| d.node = "b".into()),
            (Refusal::Stale, |d| d.epoch = 4),
            (Refusal::Stale, |d| d.epoch = 6),
            (Refusal::OutOfRange, |d| {
                d.ttl = TTL_MAX + Duration::from_nanos(1)
            }),
            (Refusal::OutOfRange, |d| {
                d.as_of = NOW + Duration::from_nanos(1)
            }),
            (Refusal::Expired, |d| {
                d.as_of = NOW - TTL - Duration::from_nanos(1)
            }),
        ];
        for (refusal, spoil) in wrong {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(gate().judge(NOW, &bad), Err(refusal), "{bad:?}");
        }
        let mut gate = gate();
        assert_eq!(gate.judge(NOW, &good), Ok(NOW + TTL));
        assert_eq!(gate.judge(NOW, &good), Err(Refusal::Repeated));
        assert_eq!(gate.judge(NOW + TTL, &good), Err(Refusal::Repeated));
        let late = NOW + TTL + Duration::from_nanos(1);
        assert_eq!(gate.judge(late, &good), Err(Refusal::Expired));
    }

    /// Goal: the limits of numbers hold, at them and one above. Method: table.
    #[test]
    fn numbers_have_limits() {
        let endpoint = address(81);
        let confirm = |extend| Action::Confirm { endpoint, extend };
        let prior = |weight| Action::Prior { endpoint, weight };
        for (action, passes) in [
            (confirm(EXTEND_MAX), true),
            (confirm(EXTEND_MAX + Duration::from_nanos(1)), false),
            (prior(0.0), true),
            (prior(1.0), true),
            (prior(1.001), false),
            (prior(-0.001), false),
            (prior(f64::NAN), false),
        ] {
            let judged = gate().judge(NOW, &directive(1, action.clone()));
            assert_eq!(judged.is_ok(), passes, "{action:?}");
        }
    }

    /// Goal: nobody is made to restart what he does not front, nor a peer (H5). Method: another
    /// application, and another address.
    #[test]
    fn only_the_fronted_application() {
        for (action, passes) in [
            (restart("pay", 80), true),
            (restart("pay", 81), false),
            (restart("shop", 80), false),
        ] {
            let judged = gate().judge(NOW, &directive(1, action.clone()));
            let expected = if passes {
                Ok(NOW + TTL)
            } else {
                Err(Refusal::Foreign)
            };
            assert_eq!(judged, expected, "{action:?}");
        }
    }

    /// Goal: once a newer center was heard of, the older one is fenced off. Method: two epochs.
    #[test]
    fn older_center_is_fenced() {
        let mut gate = gate();
        assert!(gate.hear(6));
        assert!(!gate.hear(5));
        let old = directive(1, restart("pay", 80));
        assert_eq!(gate.judge(NOW, &old), Err(Refusal::Stale));
    }

    /// Goal: what is remembered is bounded. Method: as many directives as the limit, one more, and one
    /// after the others expired.
    #[test]
    fn memory_is_bounded() {
        let mut gate = gate();
        let clear = |id| {
            let endpoint = address(81);
            directive(id, Action::Clear { endpoint })
        };
        let limit = REMEMBERED_MAX as u64;
        assert!((1..=limit).all(|id| gate.judge(NOW, &clear(id)).is_ok()));
        assert_eq!(gate.judge(NOW, &clear(limit + 1)), Err(Refusal::TooMany));
        let later = NOW + TTL * 2;
        let fresh = Directive {
            as_of: later,
            ..clear(limit + 1)
        };
        assert!(gate.judge(later, &fresh).is_ok());
    }
}
