//! Whether a cluster answers. One that has let a request wait for all its time is not asked again at once, so that an
//! operation on it, and the closing of its images, take that time once.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind};

/// How long a cluster that has not answered is left alone.
const REST: Duration = Duration::from_secs(60);

/// What has been heard of a cluster by one image.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Answers,
    Since(Instant),
    /// A change is still under way, and may be made behind one that comes later.
    ForGood,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Read,
    Change,
}

/// Whether a wait has ended for want of an answer: not by a deadline of the work, which has the same errno.
pub(super) fn is_no_answer(error: &Error) -> bool {
    error.kind() != ErrorKind::Cancelled && error.errno() == libc::ETIMEDOUT
}

impl Silence {
    /// Whether it is of no use to ask.
    pub(super) fn lasts(&self) -> bool {
        match *self.0.lock() {
            State::Answers => false,
            State::Since(since) => since.elapsed() < REST,
            State::ForGood => true,
        }
    }

    /// It has answered.
    pub(super) fn heard(&self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Since(_)) {
            *state = State::Answers;
        }
    }

    /// The library has given a request up.
    pub(super) fn gave_up(&self) {
        let mut state = self.0.lock();
        if !matches!(*state, State::ForGood) {
            *state = State::Since(Instant::now());
        }
    }

    /// A request is not waited for any longer, which the library still works on.
    pub(super) fn left(&self, asked: Asked) {
        match asked {
            Asked::Read => self.gave_up(),
            Asked::Change => *self.0.lock() = State::ForGood,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_asked_again_when_it_has_answered_or_rested() {
        let silence = Silence::default();
        assert!(!silence.lasts());
        silence.left(Asked::Read);
        assert!(silence.lasts());
        silence.heard();
        assert!(!silence.lasts());
        silence.gave_up();
        assert!(silence.lasts());
        let before = Instant::now().checked_sub(REST).expect("a time before");
        *silence.0.lock() = State::Since(before);
        assert!(!silence.lasts());
    }

    #[test]
    fn a_deadline_of_the_work_says_nothing_of_the_cluster() {
        let deadline = Error::new(ErrorKind::Cancelled, "x").with_errno(libc::ETIMEDOUT);
        assert!(!is_no_answer(&deadline));
        assert!(is_no_answer(&Error::os(libc::ETIMEDOUT)));
    }

    #[test]
    fn nothing_is_asked_behind_a_change_that_is_still_under_way() {
        let silence = Silence::default();
        silence.left(Asked::Change);
        silence.heard();
        silence.gave_up();
        assert!(matches!(*silence.0.lock(), State::ForGood));
        assert!(silence.lasts());
    }
}
