//! Health of endpoints: which may be chosen, judged by probes and by the traffic itself.
//!
//! * [`counter`]: what an endpoint's calls came to, from the shards' counters (H2).
//! * [`probe`] turns the results of active checks into verdicts (H14).
//! * [`detector`] finds sick nodes in what their calls came to (H1, H2).
//! * [`ejection`] takes them out and lets them back, within guards (H3, H8–H11).
//! * [`outlier`] finds them by Envoy's fields instead; [`event`] has the words for either.
//! * [`ward`]: the four of them for one cluster, tick by tick.
//! * [`prior`]: which part of its load an endpoint is to get.
//! * [`report`] queues what the center is told, [`directive`] judges what it asks for (H4, H5, H12).
//! * [`center`] is the center's own policy: many reports, one verdict, and what is done about it.

pub mod center;
pub mod counter;
pub mod detector;
pub mod directive;
pub mod ejection;
pub mod event;
pub mod outlier;
pub mod prior;
pub mod probe;
pub mod report;
pub mod ward;
