//! Adaptive limiting of an application.

use std::sync::Arc;

use super::PolicyMode;
use crate::limiter::Policy;

/// The rule of one application. The default is complete (L2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdaptiveLimit {
    /// Whether requests are refused.
    pub mode: PolicyMode,
    /// What is measured.
    pub scope: Scope,
    /// What counts as full, and how limits begin.
    pub policy: Policy,
    /// A header whose value is a priority; stronger than the route's.
    pub priority_header: Option<Arc<str>>,
    /// A header that says who calls; the client's address without one.
    pub caller_header: Option<Arc<str>>,
}

/// Whose resources are measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The whole machine.
    #[default]
    Host,
    /// The control group that this process is in.
    Own,
    /// A control group, by its path below the mount point, `/system.slice/app.service`.
    Cgroup(Arc<str>),
    /// The control group that a process is in.
    Pid(u32),
}
