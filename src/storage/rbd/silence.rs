//! Tracks whether a cluster responds. After a request has timed out, the cluster is not contacted again for a while, so
//! that an operation on it, including closing its images, incurs the timeout only once.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind};

/// How long a cluster that has not responded is left alone.
const REST: Duration = Duration::from_secs(60);

/// What one image knows about whether its cluster responds.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Answers,
    Since(Instant),
    /// A change is still in flight, and could be applied after a later one.
    ForGood,
}

/// The kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Read,
    Change,
}

/// Whether a wait timed out for lack of a response, as opposed to the job's own deadline, which has the same errno.
pub(super) fn is_no_answer(error: &Error) -> bool {
    error.kind() != ErrorKind::Cancelled && error.errno() == libc::ETIMEDOUT
}

impl Silence {
    /// Whether requests are pointless for now.
    pub(super) fn lasts(&self) -> bool {
        match *self.0.lock() {
            State::Answers => false,
            State::Since(since) => since.elapsed() < REST,
            State::ForGood => true,
        }
    }

    /// Records that the cluster has responded.
    pub(super) fn heard(&self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Since(_)) {
            *state = State::Answers;
        }
    }

    /// Records that the library has given up on a request.
    pub(super) fn gave_up(&self) {
        let mut state = self.0.lock();
        if !matches!(*state, State::ForGood) {
            *state = State::Since(Instant::now());
        }
    }

    /// Records that the caller has stopped waiting for a request that the library is still processing.
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
