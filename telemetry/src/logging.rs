//! Structured logs: one constant sentence, values as fields.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Where log lines go and how they look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people, on standard error.
    #[default]
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// Fields of the systemd journal.
    Journald,
}

/// A name that is no log format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no log format: text, json or journald")]
pub struct InvalidLogFormat(pub String);

impl FromStr for LogFormat {
    type Err = InvalidLogFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "journald" => Ok(Self::Journald),
            other => Err(InvalidLogFormat(other.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Journald => "journald",
        })
    }
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level or filter cannot be read.
    #[error("`{filter}` is no log level or filter: {reason}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no journal.
    #[error("the systemd journal cannot be reached: {0}")]
    Journald(#[source] io::Error),
    /// Logging was started before.
    #[error("logging was started twice")]
    Twice,
}

/// Starts logging for the process. `filter` is a level (`info`) or a list of directives (`info,vm_agent=debug`).
///
/// # Errors
/// [`LoggingError`] when the filter cannot be read, the journal is missing, or logging runs already.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let directives = EnvFilter::try_new(filter)
        .map_err(|error| LoggingError::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    let registry = tracing_subscriber::registry().with(directives);
    let started = match format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal();
            registry
                .with(tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours))
                .try_init()
        }
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr))
            .try_init(),
        LogFormat::Journald => {
            registry.with(tracing_journald::layer().map_err(LoggingError::Journald)?).try_init()
        }
    };
    started.map_err(|_twice| LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_they_are_shown() {
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Journald] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("xml"));
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let error = init(LogFormat::Text, "info,=loud=").unwrap_err();
        assert!(error.to_string().contains("=loud="), "{error}");
    }
}
