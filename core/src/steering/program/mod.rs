//! The steering program: verbs that move requests, compiled into one table (S1 to S17).
//!
//! A rule belongs to an application, whose *places* (units and groups) are clusters. The route of a request
//! says its cluster as ever; if that is a place, it is the request's *home*, and the rules of its application
//! are asked. Of those that place requests the first that matches decides, also if the request falls outside
//! of its share and so stays at home; `cap` and `fail_to` act beside it.
//!
//! In reading order: [`share`] (how much, and who), `rule` (which requests, compiled), [`table`] (the whole,
//! and the decision), [`check`](mod@check) (what a program may not say), [`explain`] (why).
//! [`change`] is what is changed by hand, [`ramp`] what grows and stops by itself, [`resource`] the form of a
//! control plane.

pub mod change;
pub mod check;
pub mod explain;
pub mod ramp;
pub mod resource;
mod rule;
pub mod share;
pub mod table;
#[cfg(test)]
mod tests;

pub use check::{Fault, check};
pub use rule::{Action, CompiledRule};
pub use share::{Draw, own_fraction};
pub use table::{Asked, Decided, Decision, Place, Refused, Surroundings, Table};

/// The field by which a request says that it was moved already: `application/rule@epoch` (S12).
pub const HOP_FIELD: &str = "x-tidegate-hop";
/// The field of an answer that says what was decided, where that was asked for (S16).
pub const DECISION_FIELD: &str = "x-tidegate-steer";
