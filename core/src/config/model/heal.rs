//! Self-healing of a cluster.

use std::time::Duration;

use crate::healing::ejection;

/// Whether a policy acts on what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyMode {
    /// It acts.
    #[default]
    Enforce,
    /// It computes, counts and reports, and changes nothing (L11).
    Shadow,
}

impl PolicyMode {
    /// The word in configuration and views.
    pub const fn word(self) -> &'static str {
        match self {
            PolicyMode::Enforce => "enforce",
            PolicyMode::Shadow => "shadow",
        }
    }
}

/// How sick endpoints are taken out, and let back in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heal {
    /// Whether they are.
    pub mode: PolicyMode,
    /// Guards and times.
    pub ejection: ejection::Settings,
    /// An endpoint that comes back gets its share little by little over this time.
    pub slow_start: Duration,
}

impl Heal {
    /// The section of the file that says so.
    pub const fn section(&self) -> &'static str {
        match self.ejection.outlier {
            Some(_) => "outlier_detection",
            None => "heal",
        }
    }
}
