//! The trace events of jobs.

use crate::trace::Event;

/// A job begins to run.
pub static BEGIN: Event = Event::new("job_begin");
/// A job has ended.
pub static END: Event = Event::new("job_end");

/// All of them.
pub static ALL: &[&Event] = &[&BEGIN, &END];
