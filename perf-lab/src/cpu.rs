//! Which CPUs there are, and who runs on which.

use std::fmt;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A CPU by its kernel number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cpu(pub usize);

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The CPUs of a measurement.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Placement {
    /// The proxy's, for it alone.
    pub proxy: Cpu,
    /// The origin's and the generator's, and the lab's own.
    pub load: Cpu,
}

impl Placement {
    /// The first two CPUs that this process may use, unless told otherwise.
    pub fn choose(proxy: Option<usize>, load: Option<usize>) -> Result<Placement, Error> {
        let allowed = allowed()?;
        let first = proxy.map(Cpu).or(allowed.first().copied());
        let other = allowed.iter().copied().find(|cpu| Some(*cpu) != first);
        let (Some(proxy), Some(load)) = (first, load.map(Cpu).or(other)) else {
            return Err(Error::Host(
                "two CPUs are needed, one for the proxy and one for the load".to_owned(),
            ));
        };
        for cpu in [proxy, load] {
            if !allowed.contains(&cpu) {
                return Err(Error::Usage(format!(
                    "CPU {cpu} is not one of this process's CPUs"
                )));
            }
        }
        if proxy == load {
            return Err(Error::Usage(
                "the proxy and the load need different CPUs".to_owned(),
            ));
        }
        Ok(Placement { proxy, load })
    }
}

/// The CPUs this process may use, ascending.
pub fn allowed() -> Result<Vec<Cpu>, Error> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|errno| Error::io("asking for the CPU affinity")(errno.into()))?;
    Ok((0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .map(Cpu)
        .collect())
}

/// Binds the calling thread to one CPU. Threads and processes it starts inherit this, which is how
/// peers are placed: no window in which they run elsewhere.
pub fn pin_this_thread(cpu: Cpu) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(cpu.0)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| Error::io(format!("pinning a thread to CPU {cpu}"))(errno.into()))
}

/// Descriptors that a proxy wants for the rows with the most connections: HAProxy counts two for each
/// connection that it may ever have.
const DESCRIPTORS_WANTED: u64 = 100_000;

/// Raises the limit of descriptors as far as this process may, and returns it; peers inherit it.
pub fn raise_descriptor_limit() -> Result<u64, Error> {
    let refused = |errno: nix::Error| Error::io("raising RLIMIT_NOFILE")(errno.into());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused)?;
    let wanted = hard.max(DESCRIPTORS_WANTED);
    // Above the hard limit needs a privilege that not everyone has.
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(refused)?;
    Ok(hard)
}
