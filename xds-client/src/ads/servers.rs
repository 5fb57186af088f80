//! Which control plane is tried next: the first that works, in the order in which they are written.

/// Attempts at a server that fail in a row before the next one is tried: a server that restarts is not left for it.
pub const FAILURES_MAX: u32 = 3;

/// Where the client stands in the list of its servers. A server that fails is followed by the next one, the last by
/// the first; the way back up goes through [`Self::preferred`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Servers {
    count: usize,
    current: usize,
    /// In a row, at the current one.
    failures: u32,
}

impl Servers {
    pub(super) fn new(count: usize) -> Servers {
        Servers {
            count,
            current: 0,
            failures: 0,
        }
    }

    /// The one to try.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Those that go before the current one.
    pub(super) fn preferred(&self) -> std::ops::Range<usize> {
        0..self.current
    }

    /// The current one has answered, whatever became of its stream.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
    }

    /// The current one could not be reached, or has said nothing.
    pub(super) fn failed(&mut self) {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            self.switch((self.current + 1) % self.count.max(1));
        }
    }

    /// Goes to another one.
    pub(super) fn switch(&mut self, to: usize) {
        (self.current, self.failures) = (to, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a server is left after so many failures in a row, not before, and the list is a ring. Method: the limit
    /// and one below, with an answer between.
    #[test]
    fn servers_follow_each_other() {
        let mut servers = Servers::new(2);
        let fail = |servers: &mut Servers, times: u32| (0..times).for_each(|_| servers.failed());
        fail(&mut servers, FAILURES_MAX - 1);
        servers.answered();
        fail(&mut servers, FAILURES_MAX - 1);
        assert_eq!((servers.current(), servers.preferred()), (0, 0..0));
        servers.failed();
        assert_eq!((servers.current(), servers.preferred()), (1, 0..1));
        fail(&mut servers, FAILURES_MAX);
        assert_eq!(servers.current(), 0);
        servers.switch(1);
        fail(&mut servers, FAILURES_MAX - 1);
        assert_eq!(servers.current(), 1);
        let mut alone = Servers::new(1);
        fail(&mut alone, 2 * FAILURES_MAX);
        assert_eq!(alone.current(), 0);
    }
}
