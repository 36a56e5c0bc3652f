//! Guest cluster ranges whose mapping is being changed: overlapping changes take turns.

use std::ops::Range;

use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Ranges in the order in which they were requested.
    ranges: Vec<(u64, Range<u64>)>,
}

/// The table of one image.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    state: Mutex<State>,
    released: Condvar,
}

/// A range that only its holder may remap, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    table: &'a InFlight,
    id: u64,
}

impl InFlight {
    /// Waits until no earlier reservation overlaps `clusters`, then reserves them.
    ///
    /// A thread must hold no other reservation; this rules out deadlocks.
    pub(crate) fn reserve(&self, clusters: Range<u64>) -> Reservation<'_> {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        state.ranges.push((id, clusters.clone()));
        while state
            .ranges
            .iter()
            .take_while(|(other, _)| *other != id)
            .any(|(_, range)| range.start < clusters.end && clusters.start < range.end)
        {
            self.released.wait(&mut state);
        }
        Reservation { table: self, id }
    }

    /// Whether nothing is reserved.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().ranges.is_empty()
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.table.state.lock();
        state.ranges.retain(|(id, _)| *id != self.id);
        let others = !state.ranges.is_empty();
        drop(state);
        if others {
            self.table.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn disjoint_ranges_do_not_wait() {
        let table = InFlight::default();
        let _a = table.reserve(0..4);
        let _b = table.reserve(4..8);
    }

    #[test]
    fn overlapping_ranges_never_hold_at_once() {
        let table = InFlight::default();
        let holders = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (table, holders) = (&table, &holders);
                scope.spawn(move || {
                    for _ in 0..500 {
                        let _held = table.reserve(n..n + 4);
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        holders.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(table.state.lock().ranges.is_empty());
    }
}
