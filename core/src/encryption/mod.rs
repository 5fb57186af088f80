//! Link encryption, the policy of it.
//!
//! In reading order:
//!
//! 1. [`rollout`]: which links ought to be encrypted.
//! 2. [`link`]: how a link is replaced: warmed, selected, drained (one machine for every reason).
//! 3. [`replacement`]: how many links to warm and to drain, and when.
//! 4. [`census`]: who still speaks plaintext.
//! 5. [`mode`]: when a listener may become strict.
//! 6. [`secret`]: certificates and keys, and the life of each; [`need`]: who waits for which.
//! 7. [`announcement`]: what a listener has proven, and may announce.
//! 8. [`change`]: a rollout set by hand.

pub mod announcement;
pub mod census;
pub mod change;
pub mod link;
pub mod mode;
pub mod need;
pub mod replacement;
pub mod rollout;
pub mod secret;

#[cfg(test)]
mod fixture;
