//! Trace events: a fixed table of names, each off until a pattern switches it on. An event that is off
//! costs one relaxed load.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::log::{Level, log};

/// One event. Its name in patterns and lines is that of [`Event::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Event {
    /// A layer of an image was opened.
    ImageOpen,
    /// The use of a layer ended.
    ImageClose,
    /// The lock bytes of a file were taken.
    ImageLock,
    /// A job begins to run.
    JobBegin,
    /// A job has ended.
    JobEnd,
    /// A conversion writes a range of the guest.
    ConvertRange,
    /// A run of host clusters was allocated.
    Qcow2Allocate,
    /// Metadata is written out, and made durable as far as was asked.
    Qcow2Flush,
    /// A barrier between writes of metadata.
    Qcow2Barrier,
    /// A slice of an L2 table was loaded into the cache.
    Qcow2L2Load,
    /// A slice of a refcount block was loaded into the cache.
    Qcow2RefcountLoad,
}

const NAMES: [&str; 11] = [
    "image_open",
    "image_close",
    "image_lock",
    "job_begin",
    "job_end",
    "convert_range",
    "qcow2_allocate",
    "qcow2_flush",
    "qcow2_barrier",
    "qcow2_l2_load",
    "qcow2_refcount_load",
];

static ENABLED: [AtomicBool; NAMES.len()] = [const { AtomicBool::new(false) }; NAMES.len()];

impl Event {
    /// The name.
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Whether the event is on.
    pub fn is_on(self) -> bool {
        ENABLED[self as usize].load(Ordering::Relaxed)
    }
}

/// The names of all events.
pub fn events() -> &'static [&'static str] {
    &NAMES
}

/// Switches the events whose names match `pattern` on or off; returns how many match. `*` stands for
/// any characters, `?` for one.
pub fn switch(pattern: &str, on: bool) -> usize {
    let mut count = 0;
    for (name, enabled) in NAMES.iter().zip(&ENABLED) {
        if matches(pattern.as_bytes(), name.as_bytes()) {
            enabled.store(on, Ordering::Relaxed);
            count += 1;
        }
    }
    count
}

/// Logs the event at [`Level::Trace`] where it is on: its name, then what `fields` makes,
/// `key=value` pairs with blanks between them.
#[inline]
pub fn emit(event: Event, fields: impl FnOnce() -> String) {
    if event.is_on() {
        log(Level::Trace, || format!("{} {}", event.name(), fields()));
    }
}

/// Whether a pattern stands for all of `name`. Linear in their product: a star that was passed is the
/// only place to come back to.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    p = at + 1;
                    n = taken + 1;
                    star = Some((at, n));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*_*d", "qcow2_l2_load", true),
            ("qcow2_??_load", "qcow2_l2_load", true),
            ("qcow2", "qcow2_flush", false),
            ("a*b*a*b*c", "abababababababab", false),
            ("***", "x", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                fits,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn names_are_distinct_and_belong_to_their_events() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
        assert_eq!(Event::Qcow2RefcountLoad as usize + 1, NAMES.len());
        assert_eq!(Event::JobEnd.name(), "job_end");
        assert_eq!(Event::Qcow2Flush.name(), "qcow2_flush");
    }
}
