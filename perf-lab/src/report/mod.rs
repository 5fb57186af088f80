//! What a run comes to, for people: on a terminal ([`text`]), as a page ([`html`]), as a table for a
//! README ([`markdown`]) and as HdrHistogram files ([`hdr`]), together a directory ([`files`]). All read a
//! [`crate::run::RunResult`], fresh or out of a `result.json`, and say the same, since what there is to
//! say is found out in [`summary`].

pub mod experiment;
mod figures;
pub mod files;
pub mod hdr;
pub mod html;
pub mod markdown;
mod plot;
#[cfg(test)]
pub(crate) mod sample;
pub mod summary;
pub mod text;
