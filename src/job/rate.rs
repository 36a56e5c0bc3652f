//! A limit on bytes per second that may change while others wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The limit. A caller that takes bytes waits until all that was taken before is paid for, at the rate
/// that is in force while it waits; a time in which nothing is taken earns nothing.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Whether there is a limit, so that work without one takes no lock.
    limited: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes per second; 0 is no limit.
    rate: u64,
    /// Bytes taken since the beginning.
    taken: u64,
    /// How many of them are paid for.
    paid: f64,
    /// Up to when the time was counted.
    counted: Option<Instant>,
}

impl State {
    /// Counts the time since the last look at the rate in force.
    fn pay(&mut self, now: Instant) {
        let taken = self.taken as f64;
        let since = self.counted.replace(now).unwrap_or(now);
        let earned = now.saturating_duration_since(since).as_secs_f64() * self.rate as f64;
        self.paid = if self.rate == 0 {
            taken
        } else {
            (self.paid + earned).min(taken)
        };
    }

    /// How long it takes until everything before `turn` is paid for.
    fn time_until(&self, turn: u64) -> Option<Duration> {
        let owed = turn as f64 - self.paid;
        // Less than a byte is the error of the arithmetic.
        (self.rate > 0 && owed >= 1.0)
            .then(|| Duration::try_from_secs_f64(owed / self.rate as f64).unwrap_or(Duration::MAX))
    }
}

impl Rate {
    /// Another limit, for those who wait too; 0 lifts it.
    pub(super) fn set(&self, bytes_per_second: u64) {
        let mut state = self.state.lock();
        state.pay(Instant::now());
        state.rate = bytes_per_second;
        // Without a limit there is no debt.
        state.pay(Instant::now());
        self.limited.store(bytes_per_second > 0, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Takes bytes; None where there is nothing to wait for, else what to wait for.
    pub(super) fn take(&self, bytes: u64) -> Option<u64> {
        if !self.limited.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state.lock();
        state.pay(Instant::now());
        let turn = state.taken;
        state.taken = turn.saturating_add(bytes);
        state.time_until(turn).map(|_| turn)
    }

    /// Waits for a turn, at most for `longest`; whether it has come.
    pub(super) fn wait(&self, turn: u64, longest: Duration) -> bool {
        let mut state = self.state.lock();
        state.pay(Instant::now());
        let Some(left) = state.time_until(turn) else {
            return true;
        };
        self.changed.wait_for(&mut state, left.min(longest));
        state.pay(Instant::now());
        state.time_until(turn).is_none()
    }

    /// Lets those who wait look at what else has changed.
    pub(super) fn wake(&self) {
        // Under the lock, so that no thread is between looking and waiting.
        let _state = self.state.lock();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_paid_at_the_rate_in_force() {
        let start = Instant::now();
        let mut state = State {
            rate: 100,
            ..State::default()
        };
        state.pay(start);
        state.taken = 1000;
        assert_eq!(state.time_until(1000), Some(Duration::from_secs(10)));
        state.pay(start + Duration::from_secs(2));
        assert_eq!(state.time_until(1000), Some(Duration::from_secs(8)));
        state.rate = 400;
        assert_eq!(state.time_until(1000), Some(Duration::from_secs(2)));
        state.pay(start + Duration::from_secs(60));
        assert_eq!(state.time_until(1000), None);
        // Idle time earned nothing.
        state.taken = 1400;
        assert_eq!(state.time_until(1400), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_lifted_limit_forgets_the_debt() {
        let rate = Rate::default();
        rate.set(1);
        assert_eq!(rate.take(1 << 30), None);
        let turn = rate.take(1).unwrap();
        assert!(!rate.wait(turn, Duration::ZERO));
        rate.set(0);
        assert!(rate.wait(turn, Duration::ZERO));
        rate.set(1 << 20);
        assert_eq!(rate.take(1), None);
    }
}
