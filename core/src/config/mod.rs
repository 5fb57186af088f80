//! The configuration: `model` is what it means; the file format is parsed and validated beside it.

pub mod model;
