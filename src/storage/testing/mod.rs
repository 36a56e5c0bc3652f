//! Storages for tests: one that remembers what was written in which order, one that fails.

mod faulty;
mod logging;

pub use faulty::{Calls, Fault, FaultyStorage};
pub use logging::{Event, Log, LoggingStorage, Record};
