//! Health of endpoints. `probe` turns the results of active checks into verdicts (H14).

pub mod probe;
