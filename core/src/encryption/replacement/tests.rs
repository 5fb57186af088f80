//! Replacing the links of an endpoint, simulated: random requests, failing handshakes, a virtual clock.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::encryption::link::{Event, Link, State, step};

const MS: Duration = Duration::from_millis(1);
const PLAINTEXT: Make = Make {
    kind: LinkKind::Plaintext,
    generation: 0,
};

fn tls(generation: u64) -> Make {
    Make {
        kind: LinkKind::Tls,
        generation,
    }
}

/// Goal: a request dials the old kind until the new one has been seen to work, and nothing else changes the
/// target. Method: a switch, an unrelated change, the first success, a rotation, and back.
#[test]
fn the_first_success_switches() {
    let mut target = Target::new(PLAINTEXT, Duration::ZERO);
    assert!(!target.aim(PLAINTEXT, Old::Serves, MS), "E11");
    assert!(target.aim(tls(1), Old::Serves, MS));
    assert_eq!(target.dialled(), PLAINTEXT);
    assert!(target.is_to_be_proven());
    assert!(!target.made(PLAINTEXT));
    assert!(target.made(tls(1)));
    assert!(!target.made(tls(1)), "a switch completes once");
    assert_eq!(target.dialled(), tls(1));
    // A rotation: there is no older context to dial with.
    assert!(target.aim(tls(2), Old::Serves, MS));
    assert_eq!(target.dialled(), tls(2));
    assert!(!target.is_to_be_proven() && !target.is_reached());
    assert!(target.made(tls(2)));
    assert!(target.aim(PLAINTEXT, Old::Serves, MS));
    assert_eq!(target.dialled(), tls(2));
    // Its context is taken away before plaintext was proven.
    assert!(!target.aim(PLAINTEXT, Old::NotDialled, MS));
    assert_eq!(target.dialled(), PLAINTEXT);
}

/// Goal: `required` never dials plaintext, and old plaintext links serve no longer than `drain_timeout`
/// (E16). Method: a switch by policy, to the millisecond.
#[test]
fn required_is_never_dialled_in_plaintext() {
    let mut target = Target::new(PLAINTEXT, Duration::ZERO);
    assert!(target.aim(tls(1), Old::NotDialled, 10 * MS));
    assert_eq!(target.dialled(), tls(1));
    let overdue = |make, required, now| target.is_overdue(make, required, 30 * MS, now);
    assert!(!overdue(PLAINTEXT, true, 39 * MS));
    assert!(overdue(PLAINTEXT, true, 40 * MS));
    assert!(!overdue(PLAINTEXT, false, 40 * MS));
    assert!(!overdue(tls(0), true, 40 * MS));
}

/// Goal: one old link goes for each new one, the idle first; never more warm-ups than the limit or the
/// room. Method: a table, with the limit met and passed by one.
#[test]
fn plans() {
    let idle = |old_idle, warming| Standing {
        old_idle,
        warming,
        room: 100,
        ..Standing::default()
    };
    assert_eq!(plan(&idle(0, 0)), Plan::default());
    assert_eq!(plan(&idle(1, 0)).warm, 1);
    assert_eq!(plan(&idle(9, 0)).warm, WARM_UPS_MAX);
    assert_eq!(plan(&idle(9, WARM_UPS_MAX)).warm, 0);
    assert_eq!(plan(&idle(9, WARM_UPS_MAX + 1)).warm, 0);
    assert_eq!(plan(&idle(1, 1)).warm, 0, "one for each");
    assert_eq!(
        plan(&Standing {
            room: 1,
            ..idle(9, 0)
        })
        .warm,
        1
    );
    assert_eq!(
        plan(&Standing {
            room: 0,
            ..idle(9, 0)
        })
        .warm,
        0
    );
    let mixed = plan(&Standing {
        old_busy: 2,
        warmed: 2,
        ..idle(1, 0)
    });
    assert_eq!((mixed.close_idle, mixed.drain_busy, mixed.warm), (1, 1, 1));
    let first = Standing {
        to_be_proven: true,
        ..idle(0, 0)
    };
    assert_eq!(plan(&first).warm, 1, "somebody has to try");
    let relays = Standing {
        old_lasting: 3,
        ..idle(0, 0)
    };
    assert!(!plan(&relays).drain_lasting);
    assert!(
        plan(&Standing {
            reached: true,
            ..relays
        })
        .drain_lasting
    );
}

/// Goal: a link's age is bounded by the nearer of both limits, and what was made together is spread. Method:
/// each limit alone and both, over many draws.
#[test]
fn ages() {
    let hour = Duration::from_secs(3600);
    for random in 0..1000 {
        assert_eq!(age_max(None, None, random), None);
        let near = |limit: Duration, age: Option<Duration>| {
            let age = age.unwrap();
            assert!(age <= limit && age >= limit.mul_f64(0.9), "{age:?}");
        };
        near(hour, age_max(Some(hour), None, random));
        near(hour * 2, age_max(None, Some(hour * 3), random));
        near(hour, age_max(Some(hour), Some(hour * 3), random));
        near(hour * 2, age_max(Some(hour * 5), Some(hour * 3), random));
        near(AGE_MIN, age_max(None, Some(Duration::ZERO), random));
    }
    let ages: std::collections::BTreeSet<_> =
        (0..100).map(|r| age_max(Some(hour), None, r)).collect();
    assert!(ages.len() > 90);
}

/// Goal: pauses grow to their limit and are never the same for all. Method: failures in a row, a success.
#[test]
fn backing_off() {
    let mut pace = Pace::begin(Duration::ZERO, 100 * MS, 7);
    assert!(pace.not_before() < 100 * MS);
    let mut expected = BACKOFF_FIRST;
    for random in 0..40 {
        pace.failed(Duration::ZERO, random);
        let pause = pace.not_before();
        assert!(pause >= expected / 2 && pause <= expected, "{pause:?}");
        expected = (expected * 2).min(BACKOFF_MAX);
    }
    pace.succeeded();
    pace.failed(Duration::ZERO, 1);
    assert!(pace.not_before() <= BACKOFF_FIRST);
}

/// A link of the simulation.
struct Simulated {
    link: Link,
    make: Make,
    /// When what is on it is answered, or the warm-up has ended.
    until: Duration,
}

/// xorshift64.
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Goal: under load and with failing handshakes, every old link is replaced, within the pace, and there are
/// never fewer links to select than before (E7, E12). Method: 100 seeds of a pool with random requests,
/// stepped by the millisecond.
#[test]
fn simulated_switches() {
    for seed in 1..=100u64 {
        simulate(seed * 0x9e37_79b9);
    }
}

fn simulate(mut seed: u64) {
    let size = 1 + (draw(&mut seed) % 24) as usize;
    let failing = draw(&mut seed) % 3;
    let mut target = Target::new(PLAINTEXT, Duration::ZERO);
    let made = || Simulated {
        link: Link::MADE,
        make: PLAINTEXT,
        until: Duration::ZERO,
    };
    let mut links: Vec<Simulated> = (0..size).map(|_| made()).collect();
    assert!(target.aim(tls(1), Old::Serves, Duration::ZERO));
    let mut pace = Pace::begin(Duration::ZERO, 1000 * MS, draw(&mut seed));
    let (mut handshakes, mut retired) = (0, 0);
    for tick in 0..600_000u32 {
        let now = tick * MS;
        let mut warmed = 0;
        for s in links.iter_mut().filter(|s| s.until <= now) {
            if s.link.state == State::Warming {
                let fails = draw(&mut seed) % 4 < failing;
                let event = if fails {
                    Event::WarmUpFailed
                } else {
                    Event::Warmed
                };
                s.link = step(s.link, event).0;
                handshakes += 1;
                if fails {
                    pace.failed(now, draw(&mut seed));
                } else {
                    pace.succeeded();
                    let _ = target.made(s.make);
                    warmed += 1;
                }
            } else if s.link.in_flight > 0 {
                s.link = step(s.link, Event::Answered).0;
            }
        }
        links.retain(|s| !s.link.is_closed());
        select(&mut links, target.wanted(), now, &mut seed);
        let todo = plan(&standing(&links, &target, warmed));
        let (mut idle, mut busy) = (todo.close_idle, todo.drain_busy);
        for s in links
            .iter_mut()
            .filter(|s| s.link.is_selectable() && s.make == PLAINTEXT)
        {
            let left = if s.link.in_flight == 0 {
                &mut idle
            } else {
                &mut busy
            };
            if *left > 0 {
                *left -= 1;
                retired += 1;
                s.link = step(s.link, Event::Retire).0;
            }
        }
        links.retain(|s| !s.link.is_closed());
        if todo.warm > 0 && pace.not_before() <= now {
            pace.began(now, todo.missing, draw(&mut seed));
            links.push(Simulated {
                link: Link::WARMING,
                make: target.wanted(),
                until: now + (1 + draw(&mut seed) as u32 % 5) * MS,
            });
        }
        let warming = links.iter().filter(|s| s.link.state == State::Warming);
        assert!(warming.count() as u32 <= WARM_UPS_MAX);
        let selectable = links.iter().filter(|s| s.link.is_selectable());
        assert_eq!(selectable.count(), size, "one for each, at every moment");
        if retired == size && links.len() == size {
            assert!(links.iter().all(|s| s.make == tls(1)));
            assert!(failing > 0 || handshakes == size, "no handshake too many");
            assert!(failing > 0 || now <= 2000 * MS, "{now:?} for {size}");
            return;
        }
    }
    panic!("the switch did not end: {retired} of {size}");
}

/// A request now and then, on a link as wanted if there is one.
fn select(links: &mut [Simulated], wanted: Make, now: Duration, seed: &mut u64) {
    if draw(seed).is_multiple_of(2) {
        return;
    }
    let free = |s: &&mut Simulated| s.link.is_selectable() && s.link.in_flight == 0;
    let chosen = links
        .iter_mut()
        .filter(free)
        .max_by_key(|s| s.make == wanted);
    if let Some(s) = chosen {
        s.link = step(s.link, Event::Selected).0;
        s.until = now + (draw(seed) as u32 % 20) * MS;
    }
}

fn standing(links: &[Simulated], target: &Target, warmed: u32) -> Standing {
    let count = |f: &dyn Fn(&Simulated) -> bool| links.iter().filter(|s| f(s)).count() as u32;
    let old = |s: &Simulated| s.link.is_selectable() && s.make != target.wanted();
    Standing {
        old_idle: count(&|s| old(s) && s.link.in_flight == 0),
        old_busy: count(&|s| old(s) && s.link.in_flight > 0),
        old_lasting: 0,
        warming: count(&|s| s.link.state == State::Warming),
        warmed,
        to_be_proven: target.is_to_be_proven(),
        reached: target.is_reached(),
        room: 2,
    }
}
