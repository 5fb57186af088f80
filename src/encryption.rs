//! The ratchet of `strict`, between the census of the running shards and a configuration that is about to be
//! used. What it decides is in [`tidegate_core::encryption::mode`].

use tidegate_core::{
    config::model::Config,
    encryption::{
        census::Report,
        mode::{self, Verdict},
    },
};

use crate::status::{Status, Strict};

/// Whether listeners that become strict by `new` may. What is taken although plaintext is still seen is
/// logged.
///
/// # Errors
///
/// One line for each listener that may not: who still speaks plaintext.
pub(crate) fn review(status: &Status, new: &Config, strict: Strict) -> Result<(), Vec<String>> {
    // At start-up there is no census, and no connection that could be cut off.
    let Some(snapshot) = status.snapshot() else {
        return Ok(());
    };
    let census = |bind| {
        let listener = snapshot.listener_by_bind(bind);
        listener.map_or_else(Report::default, |l| Report::of(&l.census))
    };
    let force = strict == Strict::Forced;
    let now_unix_ms = status.now_unix_ms();
    let mut refused = Vec::new();
    for verdict in mode::review(&snapshot.config, new, census, force, now_unix_ms) {
        match verdict {
            Verdict::Accepted { listener } => tracing::info!(
                "listener `{listener}` becomes strict: nobody was seen in plaintext for its census_window"
            ),
            Verdict::Forced(still) => tracing::warn!(
                "strict is forced, and cuts off whoever speaks plaintext: {still}"
            ),
            Verdict::Refused(still) => refused.push(format!(
                "strict is refused: {still}; wait for them, or cut them off by `tidegate ctl reload \
                 --force-strict` or `force: true`"
            )),
        }
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(refused),
    }
}
