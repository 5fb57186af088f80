//! Whether a host is fit to run Tidegate, read from `/proc` and `/sys`, changing nothing.
//!
//! In reading order: [`host`] reads the few files that matter below a root (so that a test can hand over
//! any host), [`check`] judges what was read and says what to do about it. Planning, applying and
//! undoing changes are not written yet.
#![forbid(unsafe_code)]

pub mod check;
pub mod host;
