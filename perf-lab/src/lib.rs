//! The perf lab: proxies under the same load on the same machine, and what they cost.
//!
//! In reading order:
//! - [`scenario`]: what is measured, one file each; [`run`]: in which order, and [`report`]: what comes
//!   of it, by [`statistics`] and with a [`verdict`]; [`knee`] and [`capacity`]: what a peer bears at an
//!   objective; [`compare`]: the sides of a comparison; [`calibration`]: the machine's own noise;
//!   [`trend`]: a ledger over time.
//! - [`measure`]: one measurement of one peer, from its start to its stop, of one proxy or a `chain`
//!   of two; `validity`: whether it counts.
//! - [`peer`]: the proxies as plug-ins: definition, rendering of their configuration, their process.
//! - [`worker`]: the loaded thread, with the [`origin`] and the [`load`] generator over [`poll`];
//!   [`control`] is how it is led through the phases, [`response`] how answers are read, [`http2`] how
//!   both ends speak HTTP/2.
//! - [`faults`]: what becomes of requests when an endpoint falls sick; [`overload`]: when the application
//!   is asked for more than it can do; [`clients`]: whose requests these are.
//! - [`cost`]: what a process tree has consumed, [`perf`]: how often it called the kernel; [`machine`]: where all this happened; [`cpu`],
//!   [`clock`], [`error`]: small things.
//! - [`cli`]: the command line.
//!
//! Not here: what lies above HTTP/2.

#![forbid(unsafe_code)]

pub mod calibration;
pub mod callgrind;
pub mod capacity;
mod chain;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod compare;
pub mod control;
pub mod cost;
pub mod cpu;
pub mod date;
pub mod error;
pub mod faults;
pub mod gate;
pub mod http2;
pub mod knee;
pub mod ledger;
pub mod load;
pub mod machine;
pub mod measure;
pub mod origin;
pub mod overload;
pub mod peer;
pub mod perf;
pub mod poll;
pub mod relay;
pub mod report;
pub mod response;
pub mod run;
pub mod scenario;
pub mod statistics;
pub mod stream;
pub mod trend;
mod validity;
pub mod verdict;
pub mod worker;
