//! Storages that the caller gives to several images, which keep out of each other's way as users of one file do.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{ErrorKind, Result};
use crate::storage::forward::forward;
use crate::storage::locks;
use crate::storage::modes::LockRequest;
use crate::storage::{Identity, Storage};

/// Who uses the same bytes.
#[derive(Debug)]
pub struct Users {
    identity: Identity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The users that hold anything, by their numbers.
    held: Vec<(u64, LockRequest)>,
}

impl Users {
    /// Of bytes that are not those of another.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            identity: Identity::own(),
            state: Mutex::default(),
        })
    }

    /// Tells the bytes from others.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// The storage of one user, who holds its locks for as long as it lives.
#[derive(Debug)]
pub struct SharedStorage {
    inner: Arc<dyn Storage>,
    users: Arc<Users>,
    user: u64,
}

impl SharedStorage {
    /// A storage that shows the bytes of `users`.
    pub fn new(inner: Arc<dyn Storage>, users: &Arc<Users>) -> Self {
        let mut state = users.state.lock();
        state.next += 1;
        Self {
            inner,
            users: users.clone(),
            user: state.next,
        }
    }
}

impl Storage for SharedStorage {
    forward!(
        inner: name, driver, read_only, read_at, read_vectored_at, read_many_at, try_read, write_at,
        write_vectored_at, len, set_len, write_zeroes, discard, sync, extent, compressor, prefetcher,
        limits, allocated_size, step_watcher, host
    );

    fn identity(&self) -> Option<Identity> {
        Some(self.users.identity.clone())
    }

    fn lock(&self, request: LockRequest) -> Result<()> {
        let mut state = self.users.state.lock();
        let others = state.held.iter().filter(|(user, _)| *user != self.user);
        locks::check(others.map(|(_, held)| *held), request).map_err(|error| {
            match error.kind() {
                ErrorKind::Locked => {
                    error.with_hint(format!("Is another image using [{}]?", self.name()))
                }
                _ => error,
            }
        })?;
        state.held.retain(|(user, _)| *user != self.user);
        if request != LockRequest::default() {
            state.held.push((self.user, request));
        }
        Ok(())
    }
}

impl Drop for SharedStorage {
    fn drop(&mut self) {
        // Dropping a lock does not fail.
        let _ = self.lock(LockRequest::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Permissions};

    #[test]
    fn one_writes_while_nobody_else_does_and_the_locks_go_with_it() {
        let users = Users::new();
        let shared = || SharedStorage::new(Arc::new(MemoryStorage::new("m")), &users);
        let writer = LockRequest {
            uses: Permissions::WRITE | Permissions::CONSISTENT_READ,
            denies: Permissions::WRITE,
        };
        let reader = LockRequest {
            uses: Permissions::CONSISTENT_READ,
            denies: Permissions::WRITE,
        };
        let (first, second) = (shared(), shared());
        assert_eq!(first.identity(), second.identity());
        first.lock(writer).unwrap();
        assert_eq!(second.lock(writer).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(second.lock(reader).unwrap_err().kind(), ErrorKind::Locked);
        // What was refused left no lock.
        first.lock(writer).unwrap();
        drop(first);
        second.lock(reader).unwrap();
        shared().lock(reader).unwrap();
        assert_eq!(shared().lock(writer).unwrap_err().kind(), ErrorKind::Locked);
    }
}
