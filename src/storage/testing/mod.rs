//! Storages for tests: one that remembers what was written in which order, one that fails, one
//! whose reads wait for each other.

mod faulty;
mod gathering;
mod logging;

pub use faulty::{Calls, Fault, FaultyStorage};
pub use gathering::GatheringStorage;
pub use logging::{Event, Log, LoggingStorage, Record};
