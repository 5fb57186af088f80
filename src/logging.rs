//! The operational log: one line an event, to standard error. Its level can be changed while running.

use std::io;

use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// Changes the level of the running process.
#[derive(Clone)]
pub(crate) struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogLevel {
    /// The filter in use, as text.
    pub(crate) fn current(&self) -> String {
        self.handle
            .with_current(ToString::to_string)
            .unwrap_or_default()
    }

    /// Uses `filter` from now on: a level (`debug`), or `target=level` pairs separated by commas.
    pub(crate) fn set(&self, filter: &str) -> Result<(), String> {
        let filter: EnvFilter = parse(filter)?;
        self.handle.reload(filter).map_err(|e| e.to_string())
    }
}

/// Sends events to standard error from now on, at `TIDEGATE_LOG` or `info`.
pub(crate) fn start() -> LogLevel {
    let filter = std::env::var("TIDEGATE_LOG")
        .ok()
        .and_then(|text| parse(&text).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let events = fmt::layer()
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(crate::cli::colour_stderr());
    // Fails only if a subscriber is there already, which then does the work.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(events)
        .try_init();
    LogLevel { handle }
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Err("empty level: use error, warn, info, debug or trace".into());
    }
    // A mistyped level would be taken for the name of a target and silence everything else.
    let plain = !text.contains(['=', ',']);
    if plain && text.parse::<tracing::Level>().is_err() && text != "off" {
        return Err(format!(
            "unknown level `{text}`: use error, warn, info, debug, trace or off"
        ));
    }
    EnvFilter::try_new(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a mistyped level is an error, not silence. Method: table.
    #[test]
    fn levels_are_checked() {
        for good in ["info", "debug", "off", "info,tidegate=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "  ", "inof", "tidegate=loud"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
