//! Structured logs on standard error, in words or as JSON.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::{self, LogFormat};

/// Changes the filter while the program runs.
#[derive(Clone, Debug)]
pub(super) struct LogFilter(reload::Handle<EnvFilter, tracing_subscriber::Registry>);

impl LogFilter {
    pub(super) fn set(&self, filter: &str) {
        if let Err(error) = self.0.reload(parse(filter)) {
            tracing::warn!(%error, "the log filter was not changed");
        }
    }
}

/// Starts logging. A second start, as in tests, changes nothing.
pub(super) fn start(options: &config::Log) -> LogFilter {
    let (filter, handle) = reload::Layer::new(parse(&options.filter));
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match options.format {
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
        LogFormat::Text => {
            use std::io::IsTerminal;
            let colour = std::io::stderr().is_terminal();
            let layer = fmt::layer().with_ansi(colour).with_target(false);
            registry.with(layer.with_writer(std::io::stderr)).try_init()
        }
    };
    LogFilter(handle)
}

fn parse(filter: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(filter)
}
