//! Whether this host can run shards, found by trying, and what to do about it if not.

use std::{fs, io, sync::Arc};

use nix::sys::{
    eventfd::EventFd,
    resource::{Resource, getrlimit},
};
use tidegate_core::config::model::{Limits, Ring};

use crate::ring::{self, Driver};

/// The least kernel: `DEFER_TASKRUN` and provided-buffer rings are whole from here on.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// What the kernel offers, found by trying.
#[derive(Clone, Debug)]
pub struct KernelFeatures {
    /// `6.18.4`
    pub kernel: String,
    /// Feature and whether it is there, e.g. `("send_zc", true)`.
    pub features: Vec<(&'static str, bool)>,
}

/// Why this host cannot run shards, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUnfit {
    /// What was refused.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Tries what a shard needs of the kernel, once, on a throw-away ring of these sizes.
///
/// # Errors
///
/// [`HostUnfit`] names the cause, not only the symptom: an old kernel, the sysctl, seccomp, memlock.
pub fn probe(sizes: &Ring) -> Result<KernelFeatures, HostUnfit> {
    let kernel = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let attempt = Driver::try_out(sizes).and_then(|()| ring::features());
    attempt
        .map(|features| KernelFeatures {
            kernel: kernel.clone(),
            features,
        })
        .map_err(|error| explain(&error, &kernel, &read_host()))
}

impl Driver {
    /// Sets a whole driver up on a thread of its own, and takes it down.
    fn try_out(sizes: &Ring) -> io::Result<()> {
        let sizes = *sizes;
        let attempt = std::thread::spawn(move || {
            let wake = Arc::new(EventFd::new()?.into());
            Driver::new(&sizes, &Limits::default(), wake).and_then(|driver| driver.turn())
        });
        attempt
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the trial ended early")))
    }
}

/// What the kernel says of io_uring by other means.
struct Host {
    /// `kernel.io_uring_disabled`, if there is such a setting.
    disabled: Option<String>,
    memlock_bytes: Option<u64>,
}

/// Runs before there is a shard that could be blocked.
#[allow(clippy::disallowed_methods)]
fn read_host() -> Host {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    Host {
        disabled: disabled.map(|text| text.trim().to_owned()),
        memlock_bytes: getrlimit(Resource::RLIMIT_MEMLOCK)
            .ok()
            .map(|(soft, _)| soft),
    }
}

fn explain(error: &io::Error, kernel: &str, host: &Host) -> HostUnfit {
    let unfit = |problem: String, remedy: &str| HostUnfit {
        problem,
        remedy: remedy.to_owned(),
    };
    if version(kernel).is_some_and(|version| version < KERNEL_MIN) {
        let (major, minor) = KERNEL_MIN;
        return unfit(
            format!("the kernel is {kernel}, and {major}.{minor} is the least that serves"),
            "install a newer kernel",
        );
    }
    match (error.raw_os_error(), host.disabled.as_deref()) {
        (Some(libc::EPERM), Some("2")) => unfit(
            "io_uring is switched off: kernel.io_uring_disabled is 2".into(),
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        (Some(libc::EPERM), Some("1")) => unfit(
            "io_uring is kept for a group: kernel.io_uring_disabled is 1".into(),
            "add the service's user to the group of kernel.io_uring_group, or set \
             kernel.io_uring_disabled=0",
        ),
        (Some(libc::EPERM | libc::ENOSYS | libc::EACCES), _) => unfit(
            format!("io_uring is refused ({error}), though no sysctl forbids it"),
            "it is most likely a seccomp filter (a container's default profile): allow \
             io_uring_setup, io_uring_enter and io_uring_register",
        ),
        (Some(libc::ENOMEM), _) => unfit(
            format!(
                "the ring's memory is refused; memlock is limited to {} KiB",
                host.memlock_bytes.unwrap_or(0) / 1024
            ),
            "raise the limit: LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited",
        ),
        (Some(libc::EMFILE | libc::ENFILE), _) => unfit(
            "no file descriptor is left for the ring".into(),
            "raise the limit: LimitNOFILE=1048576 in the unit, or ulimit -n",
        ),
        _ => unfit(
            format!("io_uring does not come up: {error}"),
            "is the kernel at least 6.1, and are the sizes under shards.ring powers of two?",
        ),
    }
}

/// Major and minor of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the remedy fits the cause. Method: what the kernel says in each case.
    #[test]
    fn names_cause_and_remedy() {
        let cases = [
            (libc::EINVAL, "5.15.0-1", None, "newer kernel"),
            (libc::EPERM, "6.12.1", Some("2"), "io_uring_disabled=0"),
            (libc::EPERM, "6.12.1", Some("1"), "io_uring_group"),
            (libc::EPERM, "6.12.1", Some("0"), "seccomp"),
            (libc::ENOSYS, "6.12.1", None, "seccomp"),
            (libc::ENOMEM, "6.12.1", Some("0"), "MEMLOCK"),
            (libc::EMFILE, "6.12.1", Some("0"), "NOFILE"),
            (libc::EINVAL, "6.12.1", Some("0"), "powers of two"),
        ];
        for (errno, kernel, disabled, remedy) in cases {
            let host = Host {
                disabled: disabled.map(str::to_owned),
                memlock_bytes: Some(65536),
            };
            let unfit = explain(&io::Error::from_raw_os_error(errno), kernel, &host);
            assert!(unfit.remedy.contains(remedy), "{errno}: {unfit:?}");
        }
    }

    /// Goal: a host that runs the tests is found fit. Method: the probe itself.
    #[test]
    fn finds_this_host_fit() {
        assert!(probe(&Ring::default()).is_ok_and(|found| !found.features.is_empty()));
    }
}
