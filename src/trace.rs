//! Trace events: each belongs to the module that emits it, and is off until a pattern switches it on. An
//! event that is off costs one relaxed load.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::log::{Level, log, wants_trace};

/// Not switched yet: the environment decides when the state is first read.
const UNDECIDED: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

/// One event: a static of the module that emits it.
#[derive(Debug)]
pub struct Event {
    name: &'static str,
    state: AtomicU8,
}

impl Event {
    /// An event with that name, which patterns and lines show: the module's name and what happens.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            state: AtomicU8::new(UNDECIDED),
        }
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the event is on.
    #[inline]
    pub fn is_on(&self) -> bool {
        match self.state.load(Ordering::Relaxed) {
            OFF => false,
            ON => true,
            _ => self.decide(),
        }
    }

    /// Switches the event on or off.
    pub fn switch(&self, on: bool) {
        let state = if on { ON } else { OFF };
        self.state.store(state, Ordering::Relaxed);
    }

    #[cold]
    fn decide(&self) -> bool {
        let state = if wants_trace() { ON } else { OFF };
        // A switch made in the meantime takes precedence.
        let _ = self
            .state
            .compare_exchange(UNDECIDED, state, Ordering::Relaxed, Ordering::Relaxed);
        self.state.load(Ordering::Relaxed) == ON
    }

    /// Logs the event at [`Level::Trace`] if it is on: its name, then what `fields` returns, `key=value` pairs
    /// separated by spaces.
    #[inline]
    pub fn emit(&self, fields: impl FnOnce() -> String) {
        if self.is_on() {
            log(Level::Trace, || format!("{} {}", self.name, fields()));
        }
    }

    /// Whether a pattern matches the name: `*` stands for any characters, `?` for one.
    pub fn matches(&self, pattern: &str) -> bool {
        matches(pattern.as_bytes(), self.name.as_bytes())
    }
}

/// Whether a pattern matches all of `name`. Takes time linear in the product of their lengths: the last star passed is
/// the only place to go back to.
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
    fn an_event_is_what_it_was_switched_to_last() {
        static EVENT: Event = Event::new("test_event");
        for on in [true, false, true] {
            EVENT.switch(on);
            assert_eq!(EVENT.is_on(), on);
        }
        assert!(EVENT.matches("test_*") && !EVENT.matches("test"));
        EVENT.switch(false);
        EVENT.emit(|| unreachable!("the event is off"));
    }
}
