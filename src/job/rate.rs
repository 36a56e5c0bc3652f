//! A limit on bytes per second that may change while others wait for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The limit. A caller that takes bytes waits until everything taken before is paid for, at the rate in force while it
/// waits; idle time earns nothing.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// The requested rate, in bytes per second; 0 means no limit.
    wanted: AtomicU64,
    /// How often a limit has been lifted.
    lifted: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The rate in force, in bytes per second; 0 means no limit.
    rate: u64,
    /// How often a limit had been lifted when that rate took effect.
    lifted: u64,
    /// Total number of bytes taken.
    taken: u64,
    /// How many of these bytes are paid for.
    paid: f64,
    /// The time up to which has been counted.
    counted: Option<Instant>,
}

impl State {
    /// Counts the time since the last call at the rate in force.
    fn pay(&mut self, now: Instant) {
        let taken = self.taken as f64;
        let since = self.counted.replace(now).unwrap_or(now);
        let earned = now.saturating_duration_since(since).as_secs_f64() * self.rate as f64;
        self.paid = (self.paid + earned).min(taken);
    }

    /// Puts a new rate in force.
    fn change(&mut self, rate: u64, lifted: u64) {
        self.rate = rate;
        if std::mem::replace(&mut self.lifted, lifted) != lifted {
            // Without a limit there is no debt.
            self.paid = self.taken as f64;
        }
    }

    /// Time until everything before `turn` is paid for; None if it is.
    fn time_until(&self, turn: u64) -> Option<Duration> {
        let owed = turn as f64 - self.paid;
        // Less than a byte is rounding error.
        (self.rate > 0 && owed >= 1.0)
            .then(|| Duration::try_from_secs_f64(owed / self.rate as f64).unwrap_or(Duration::MAX))
    }
}

impl Rate {
    /// Sets a new limit, in force from the next access on; 0 lifts it. Only stores atomics: safe from a signal handler.
    pub(super) fn set(&self, bytes_per_second: u64) {
        self.wanted.store(bytes_per_second, Ordering::SeqCst);
        if bytes_per_second == 0 {
            self.lifted.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Accesses the state after bringing it up to date.
    fn look<T>(&self, see: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        state.pay(Instant::now());
        let rate = self.wanted.load(Ordering::SeqCst);
        state.change(rate, self.lifted.load(Ordering::SeqCst));
        see(&mut state)
    }

    /// Takes bytes; returns the turn to wait for, or None if there is nothing to wait for.
    pub(super) fn take(&self, bytes: u64) -> Option<u64> {
        if self.wanted.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.look(|state| {
            let turn = state.taken;
            state.taken = turn.saturating_add(bytes);
            state.time_until(turn).map(|_| turn)
        })
    }

    /// Time until a turn comes, as things stand; None if it has come.
    pub(super) fn time_until(&self, turn: u64) -> Option<Duration> {
        self.look(|state| state.time_until(turn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Rate {
        pub(in crate::job) fn while_locked(&self, act: impl FnOnce()) {
            let _held = self.state.lock();
            act();
        }
    }

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
        assert!(rate.time_until(turn).is_some());
        rate.set(0);
        assert!(rate.time_until(turn).is_none());
        rate.set(1);
        assert_eq!(rate.take(1 << 30), None);
        // Also if nothing was called in between.
        rate.set(0);
        rate.set(1);
        assert_eq!(rate.take(1), None);
    }
}
