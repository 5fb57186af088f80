//! Limits that a service keeps for many proxies (L13).

use std::{sync::Arc, time::Duration};

use super::{HashOn, PolicyMode};

/// The service, which speaks Envoy's Rate Limit Service protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitService {
    /// Whether requests are refused.
    pub mode: PolicyMode,
    /// The cluster that it is reached by; it speaks HTTP/2.
    pub cluster: Arc<str>,
    /// Which of its configurations is asked for.
    pub domain: Arc<str>,
    /// For its answer, making a connection included.
    pub timeout: Duration,
    /// Whether a request goes on that it has no answer for.
    pub fail_open: bool,
}

impl RateLimitService {
    /// What becomes of a request that it has no answer for, in a word of the file.
    pub const fn on_failure_word(&self) -> &'static str {
        match self.fail_open {
            true => "allow",
            false => "refuse",
        }
    }
}

/// What the service is told of a request, to limit it by: entries in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor(pub Vec<DescriptorEntry>);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorEntry {
    /// The key, as the service's configuration has it.
    pub key: Arc<str>,
    /// Where the value is from.
    pub value: DescriptorValue,
}

/// Where the value of a [`DescriptorEntry`] is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorValue {
    /// It is always the same.
    Text(Arc<str>),
    /// The request. Where it does not have it, the whole descriptor is left out.
    Request(HashOn),
}
