//! Uses of host clusters that are counted.

use crate::sync::{Arc, AtomicUsize, Ordering};

/// A registered use of host clusters; see [`crate::format::Format::begin_io`].
#[derive(Debug)]
pub struct IoGuard<'a>(Option<&'a AtomicUsize>);

impl<'a> IoGuard<'a> {
    /// For formats whose mappings never move.
    pub const UNGUARDED: IoGuard<'static> = IoGuard(None);

    /// Counts one user up until dropped. The caller has incremented `users` already.
    pub fn counted(users: &'a AtomicUsize) -> Self {
        Self(Some(users))
    }
}

impl Drop for IoGuard<'_> {
    fn drop(&mut self) {
        if let Some(users) = self.0 {
            users.fetch_sub(1, Ordering::Release);
        }
    }
}

/// As [`IoGuard`], with a share of the counter instead of a borrow.
#[derive(Debug)]
pub struct LongIoGuard(Option<(Arc<[AtomicUsize; 2]>, usize)>);

impl LongIoGuard {
    /// For formats whose mappings never move.
    pub const UNGUARDED: Self = Self(None);

    /// Counts one user of one of the two counters up until dropped. The caller has incremented
    /// it already.
    pub fn counted(users: Arc<[AtomicUsize; 2]>, which: usize) -> Self {
        Self(Some((users, which & 1)))
    }
}

impl Drop for LongIoGuard {
    fn drop(&mut self) {
        if let Some((users, which)) = &self.0 {
            users[*which].fetch_sub(1, Ordering::Release);
        }
    }
}
