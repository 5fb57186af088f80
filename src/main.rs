//! The process: command line, coordinator thread, admin server, access log, demo.
//!
//! In reading order:
//!
//! 1. `cli`: one file a verb; each ends in an [`exit::Failure`] or in success.
//! 2. `source`: a configuration file, read and validated, or the problems in it.
//! 3. `service`: what happens once, from the configuration to the first request.
//! 4. `coordinator`: the loop that follows: `signals`, reloads, `secrets`, when to be strict (`encryption`), DNS
//!    (`resolver`), `health`, what a control plane brings (`xds`), drain.
//! 5. `fleet`: the shards as the coordinator sees them.
//! 6. `upgrade`: a new process takes over, without a gap.
//! 7. `status`: what the coordinator shares with the admin server, all of it read-mostly.
//! 8. `admin`, `access_log`, `key_log`: off the data path, each on its own thread.
//! 9. `center`: the healing center, a service of its own.
//! 10. `apps`, `demo`: small applications and gentle load for a first run.
#![forbid(unsafe_code)]

mod access_log;
mod admin;
mod apps;
mod center;
mod chance;
mod cli;
mod coordinator;
mod demo;
mod encryption;
mod exit;
mod fleet;
mod healing;
mod health;
mod key_log;
mod limits;
mod logging;
mod monitor;
mod resolver;
mod secrets;
mod service;
mod signals;
mod source;
mod status;
mod text;
mod token;
mod upgrade;
mod watch;
mod xds;

fn main() -> std::process::ExitCode {
    exit::install_panic_hook();
    cli::main()
}
