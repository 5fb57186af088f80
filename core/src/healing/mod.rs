//! Health of endpoints: which may be chosen, judged by probes and by the traffic itself.
//!
//! * [`probe`] turns the results of active checks into verdicts (H14).
//! * [`detector`] finds sick nodes in what their calls came to (H1, H2).
//! * [`ejection`] takes them out and lets them back, within guards (H3, H8–H11).

pub mod detector;
pub mod ejection;
pub mod probe;
