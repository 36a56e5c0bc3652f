//! Whether a storage answers promptly or makes requests wait.

use std::time::Duration;

/// Requests that take longer on average spend more time waiting for their storage than using a processor.
const PROMPT: Duration = Duration::from_millis(2);

/// Maximum that one request counts: a thread that was not scheduled for a while is not a slow storage.
const MOST: Duration = PROMPT.saturating_mul(4);

/// The average covers about this many requests.
const WEIGHT: u32 = 16;

/// How long recent requests of one kind took.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    average: Duration,
}

impl Lateness {
    /// Records how long a request took; returns whether they are late on average.
    pub fn note(&mut self, time: Duration) -> bool {
        self.average = (self.average * (WEIGHT - 1) + time.min(MOST)) / WEIGHT;
        self.average > PROMPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    fn late_at(times: impl IntoIterator<Item = Duration>) -> Option<usize> {
        let mut lateness = Lateness::default();
        times.into_iter().position(|time| lateness.note(time))
    }

    #[test]
    fn a_slow_storage_is_noticed_soon() {
        let slow = Duration::from_millis(6);
        assert_eq!(late_at([slow; 20]), Some(6));
        // Half of them are answered from a cache.
        let halves = [SHORT, Duration::from_millis(50)].repeat(10);
        assert!(late_at(halves).is_some_and(|n| n < 10));
    }

    #[test]
    fn one_that_answers_at_once_is_not_slow_for_single_requests() {
        assert_eq!(late_at([SHORT; 100]), None);
        let mut times = [SHORT; 100];
        for time in times.iter_mut().step_by(10) {
            *time = Duration::from_secs(1);
        }
        assert_eq!(late_at(times), None);
    }
}
