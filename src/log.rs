//! The log: one sink for the process, off unless enabled by the program or `PLATTER_LOG`.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

/// The severity of a log line; a sink receives its own level and those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A request failed, and no caller receives the message.
    Error = 1,
    /// A warning of a job, or a client of a server that violates the protocol or is dropped.
    Warning = 2,
    /// An image was opened, or a job begins or ends.
    Info = 3,
    /// A call failed; its caller receives the message.
    Debug = 4,
    /// Trace events that are on; see [`crate::trace`].
    Trace = 5,
}

impl Level {
    /// The level with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "error" => Self::Error,
            "warning" | "warn" => Self::Warning,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }

    /// The name in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Receives log lines without newline, from any thread, possibly from several at once.
pub type Sink = Arc<dyn Fn(Level, &str) + Send + Sync>;

struct State {
    level: Option<Level>,
    sink: Sink,
}

/// Sends lines of `level` and above to `sink`; None reverts to what `PLATTER_LOG` says.
pub fn set_sink(sink: Option<(Level, Sink)>) {
    let next = match sink {
        Some((level, sink)) => State {
            level: Some(level),
            sink,
        },
        None => from_environment(),
    };
    let previous = std::mem::replace(&mut *state().write(), next);
    // Outside the lock: dropping the sink may release things that log.
    drop(previous);
}

/// Logs a line if its level is enabled; the text is only built then.
pub fn log(level: Level, line: impl FnOnce() -> String) {
    let sink = {
        let state = state().read();
        if state.level.is_none_or(|wanted| level > wanted) {
            return;
        }
        state.sink.clone()
    };
    sink(level, &line());
}

fn state() -> &'static RwLock<State> {
    static STATE: OnceLock<RwLock<State>> = OnceLock::new();
    STATE.get_or_init(|| RwLock::new(from_environment()))
}

/// Reads `PLATTER_LOG`, if that has not been done yet.
pub fn init() {
    environment();
}

/// The level that `PLATTER_LOG` names, read only once: the program may change its environment later.
fn environment() -> Option<Level> {
    static LEVEL: OnceLock<Option<Level>> = OnceLock::new();
    *LEVEL.get_or_init(|| Level::from_name(&std::env::var("PLATTER_LOG").ok()?))
}

/// Whether `PLATTER_LOG` asks for trace events.
pub(crate) fn wants_trace() -> bool {
    environment() == Some(Level::Trace)
}

/// `PLATTER_LOG=LEVEL` writes to standard error; anything else logs nothing.
fn from_environment() -> State {
    State {
        level: environment(),
        sink: Arc::new(|level, line| {
            // A log that cannot be written must not fail the work.
            let _ = writeln!(std::io::stderr(), "platter {}: {line}", level.name());
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[test]
    fn a_sink_takes_its_level_and_those_above() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let copy = lines.clone();
        set_sink(Some((
            Level::Warning,
            Arc::new(move |level, line| copy.lock().push((level, line.to_owned()))),
        )));
        log(Level::Error, || "marker one".into());
        log(Level::Info, || unreachable!("not wanted"));
        set_sink(None);
        let lines = lines.lock();
        assert!(lines.contains(&(Level::Error, "marker one".to_owned())));
    }
}
