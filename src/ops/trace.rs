//! The trace events of all modules, and switching them by pattern.

use crate::filter;
use crate::format::registry;
use crate::image;
use crate::job;
use crate::ops::convert;
use crate::trace::Event;

/// All events of this build.
pub fn events() -> impl Iterator<Item = &'static Event> {
    let formats = registry::drivers().iter().map(|driver| driver.events);
    let filters = filter::registry::drivers().iter();
    let filters = filters.map(|driver| driver.events);
    [image::events::ALL, job::events::ALL, convert::EVENTS]
        .into_iter()
        .chain(formats)
        .chain(filters)
        .flatten()
        .copied()
}

/// Switches the events whose names match `pattern` on or off; returns how many match. `*` stands for
/// any characters, `?` for one.
pub fn switch(pattern: &str, on: bool) -> usize {
    events()
        .filter(|event| event.matches(pattern))
        .map(|event| event.switch(on))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_patterns_are_counted() {
        let mut names: Vec<_> = events().map(Event::name).collect();
        assert!(names.contains(&"job_end") && names.contains(&"qcow2_flush"));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(switch("no_such_event", true), 0);
        assert_eq!(switch("*", false), count);
    }
}
