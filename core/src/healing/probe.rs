//! Active health checks: thresholds over probe results. The probing itself is the coordinator's.

use crate::{config::model::HealthCheck, message::Availability};

/// What a series of probes says about one endpoint.
///
/// An endpoint is available until it was probed, so that a start does not wait for health checks; and
/// its first result decides at once, so that one that is down is out after one probe rather than after
/// `unhealthy_after`. From then on it takes as many results in a row as the thresholds say.
#[derive(Clone, Debug)]
pub struct Checker {
    healthy_after: u32,
    unhealthy_after: u32,
    verdict: Availability,
    /// Results in a row that speak against the verdict; `None` before the first result.
    against: Option<u32>,
}

impl Checker {
    /// The state of an endpoint that was not probed yet.
    pub fn new(check: &HealthCheck) -> Self {
        Checker {
            healthy_after: check.healthy_after,
            unhealthy_after: check.unhealthy_after,
            verdict: Availability::Available,
            against: None,
        }
    }

    /// Takes one result; returns the verdict if it changed.
    pub fn record(&mut self, succeeded: bool) -> Option<Availability> {
        let (speaks_for, needed) = match succeeded {
            true => (Availability::Available, self.healthy_after),
            false => (Availability::Unavailable, self.unhealthy_after),
        };
        let needed = match self.against {
            None => 1,
            Some(_) => needed,
        };
        if speaks_for == self.verdict {
            self.against = Some(0);
            return None;
        }
        let against = self.against.unwrap_or(0).saturating_add(1);
        if against < needed {
            self.against = Some(against);
            return None;
        }
        self.against = Some(0);
        self.verdict = speaks_for;
        Some(self.verdict)
    }

    /// The verdict in effect.
    pub fn verdict(&self) -> Availability {
        self.verdict
    }

    /// The thresholds changed; what was found stays.
    pub fn set_thresholds(&mut self, check: &HealthCheck) {
        self.healthy_after = check.healthy_after;
        self.unhealthy_after = check.unhealthy_after;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::model::Probe;

    /// The verdicts after each result of `results` (`+` and `-`), as `U`p and `D`own.
    fn verdicts(healthy_after: u32, unhealthy_after: u32, results: &str) -> String {
        let mut checker = Checker::new(&HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy_after,
            unhealthy_after,
        });
        let mut before = checker.verdict();
        let letters = results.chars().map(|result| {
            let changed = checker.record(result == '+');
            assert_eq!(changed.is_some(), checker.verdict() != before);
            before = checker.verdict();
            match before {
                Availability::Available => 'U',
                _ => 'D',
            }
        });
        letters.collect()
    }

    /// Goal: the first result decides, then thresholds count results in a row (H14). Method: a table.
    #[test]
    fn thresholds_count_in_a_row() {
        for (healthy, unhealthy, results, expected) in [
            (2, 3, "+--+---+-++", "UUUUUUDDDDU"),
            (2, 3, "-+++---", "DDUUUUD"),
            (1, 1, "-+-+", "DUDU"),
            (0, 0, "+-+-", "UDUD"),
            (3, 2, "++-+-+--", "UUUUUUUD"),
        ] {
            assert_eq!(verdicts(healthy, unhealthy, results), expected, "{results}");
        }
    }
}
