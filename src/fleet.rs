//! The shards, as the coordinator sees them: started together, told the same, waited for together.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{sched, unistd::Pid};
use tidegate_core::{
    config::model::{self, Ring},
    id::ShardId,
    message::{AccessRecord, Directive},
    stats::{PerShard, ShardCounters},
};
use tidegate_shard::{InboxFull, Shard, ShardSettings};

use crate::{
    chance,
    exit::{Exit, Failure},
};

/// All shards of the process.
pub(crate) struct Fleet {
    members: Vec<Member>,
    counters: Arc<PerShard<ShardCounters>>,
}

struct Member {
    id: ShardId,
    shard: Shard,
    /// Directives that the shard's inbox had no room for, oldest first. Grows at the pace of reloads and
    /// of health transitions, and only while a shard does not turn.
    pending: VecDeque<Directive<OwnedFd>>,
}

impl Fleet {
    /// Starts one shard per entry of `cpus`. `access_logs` holds one producer a shard, or nothing.
    pub(crate) fn start(
        cpus: &[Option<usize>],
        ring: Ring,
        counters: Arc<PerShard<ShardCounters>>,
        mut access_logs: Vec<rtrb::Producer<AccessRecord>>,
    ) -> Result<Fleet, Failure> {
        let mut members = Vec::with_capacity(cpus.len());
        access_logs.reverse();
        let hash_key = chance::random();
        for (id, cpu) in (0u16..).map(ShardId).zip(cpus) {
            let settings = ShardSettings {
                id,
                cpu: *cpu,
                ring,
                seed: chance::random(),
                hash_key,
            };
            let shard =
                Shard::spawn(settings, counters.clone(), access_logs.pop()).map_err(|e| {
                    Failure::new(
                        Exit::HostUnfit,
                        format!("shard {id} did not start: {e}"),
                        "run `tidegate version` to see what the kernel offers; \
                     lower `shards.count` or `shards.ring` if memory is short",
                    )
                })?;
            members.push(Member {
                id,
                shard,
                pending: VecDeque::new(),
            });
        }
        Ok(Fleet { members, counters })
    }

    /// How many shards there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Tells every shard what `directive` makes for it. What does not fit is sent by [`Self::flush`].
    pub(crate) fn tell(&mut self, mut directive: impl FnMut(ShardId) -> Directive<OwnedFd>) {
        for member in &mut self.members {
            member.pending.push_back(directive(member.id));
        }
        self.flush();
    }

    /// Sends what could not be sent before. To be called at each tick.
    pub(crate) fn flush(&mut self) {
        for member in &mut self.members {
            while let Some(directive) = member.pending.pop_front() {
                if let Err(InboxFull(directive)) = member.shard.send(directive) {
                    member.pending.push_front(directive);
                    break;
                }
            }
        }
    }

    /// Whether every shard drains and has no connection left.
    pub(crate) fn drained(&self) -> bool {
        self.counters
            .iter()
            .all(|shard| shard.draining.get() == 1 && shard.connections_open.get() == 0)
    }

    /// Whether a shard has a listening socket open.
    pub(crate) fn is_listening(&self) -> bool {
        let open = |shard: &ShardCounters| shard.sockets_listening.get();
        self.counters.sum(open) > 0
    }

    /// Client connections open now, over all shards.
    pub(crate) fn connections_open(&self) -> u64 {
        self.counters.sum(|shard| shard.connections_open.get())
    }

    /// A shard whose thread has ended, if there is one. Outside of [`Self::stop`] that is a bug.
    pub(crate) fn ended(&self) -> Option<ShardId> {
        self.members
            .iter()
            .find(|member| member.shard.is_finished())
            .map(|member| member.id)
    }

    /// Stops all shards and waits for their threads, at most `patience`.
    pub(crate) async fn stop(mut self, patience: Duration) {
        self.tell(|_| Directive::Stop);
        let deadline = Instant::now() + patience;
        while !self.members.iter().all(|member| member.shard.is_finished()) {
            if Instant::now() >= deadline {
                tracing::error!("a shard did not stop within {patience:?}; leaving it behind");
                return;
            }
            self.flush();
            tokio::time::sleep(POLL).await;
        }
        for member in self.members {
            if let Err(e) = member.shard.join() {
                tracing::error!("shard {} ended with an error: {e}", member.id);
            }
        }
    }
}

/// How often an acknowledgement or an end is looked for. Both take a turn of a shard: microseconds.
pub(crate) const POLL: Duration = Duration::from_millis(1);

/// The CPUs that get a shard: those of `shards.cpus`, or every CPU of the process's cpuset.
pub(crate) fn place(shards: &model::Shards) -> Result<Vec<Option<usize>>, Failure> {
    let allowed = sched::sched_getaffinity(Pid::from_raw(0)).map_err(|e| {
        Failure::new(
            Exit::HostUnfit,
            format!("cannot read the process's CPU set: {e}"),
            "allow sched_getaffinity in the seccomp profile",
        )
    })?;
    let allowed: Vec<usize> = (0..sched::CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    choose(&allowed, shards)
}

fn choose(allowed: &[usize], shards: &model::Shards) -> Result<Vec<Option<usize>>, Failure> {
    if let Some(missing) = shards.cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        return Err(Failure::new(
            Exit::HostUnfit,
            format!("`shards.cpus` names CPU {missing}, which this process may not use"),
            format!(
                "use CPUs of {allowed:?}, or widen the cpuset (CPUAffinity=, AllowedCPUs=, taskset)"
            ),
        ));
    }
    let cpus = if shards.cpus.is_empty() {
        allowed
    } else {
        &shards.cpus
    };
    let count = shards.count.unwrap_or(cpus.len()).min(cpus.len());
    Ok(cpus.iter().take(count).map(|cpu| Some(*cpu)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shards(cpus: &[usize], count: Option<usize>) -> model::Shards {
        model::Shards {
            cpus: cpus.to_vec(),
            count,
            ring: Ring::default(),
        }
    }

    /// Goal: shards get the CPUs that were asked for and allowed, no others. Method: table.
    #[test]
    fn cpus_are_chosen() {
        let allowed = [0, 2, 3];
        let placed = |s| choose(&allowed, &s).unwrap();
        assert_eq!(placed(shards(&[], None)), [Some(0), Some(2), Some(3)]);
        assert_eq!(placed(shards(&[], Some(2))), [Some(0), Some(2)]);
        assert_eq!(placed(shards(&[], Some(9))).len(), 3);
        assert_eq!(placed(shards(&[2, 3], None)), [Some(2), Some(3)]);
        assert_eq!(placed(shards(&[2, 3], Some(1))), [Some(2)]);
        let refused = choose(&allowed, &shards(&[1], None)).unwrap_err();
        assert_eq!(refused.exit, Exit::HostUnfit);
        assert!(refused.problem.contains("CPU 1"));
    }
}
