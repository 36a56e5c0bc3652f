//! The advisory locks by which QEMU's tools keep out of each other's way: byte 100 + n is held for
//! a permission in use, byte 200 + n for one that others must not use.

use std::os::fd::BorrowedFd;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::traits::{LockRequest, Permissions};
use crate::sys::lock;

const USES: u64 = 100;
const DENIES: u64 = 200;
/// Lock byte number, bit, and name in messages.
const TABLE: [(u64, Permissions, &str); 3] = [
    (0, Permissions::CONSISTENT_READ, "consistent read"),
    (1, Permissions::WRITE, "write"),
    (3, Permissions::RESIZE, "resize"),
];

/// The locks that one open file holds.
#[derive(Debug)]
pub(super) struct Locks {
    enabled: bool,
    held: Mutex<LockRequest>,
}

impl Locks {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            held: Mutex::new(LockRequest::default()),
        }
    }

    /// Takes what `wanted` has and is not held, tests for conflicts, then drops what it has not.
    /// On a conflict the locks are as before.
    pub(super) fn change(&self, fd: BorrowedFd<'_>, name: &str, wanted: LockRequest) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let mut held = self.held.lock();
        let result = take(fd, *held, wanted).and_then(|()| test(fd, wanted));
        match result {
            Ok(()) => {
                release(fd, *held, wanted);
                *held = wanted;
                Ok(())
            }
            Err(error) => {
                release(fd, wanted, *held);
                Err(error.with_hint(format!("Is another process using the image [{name}]?")))
            }
        }
    }
}

/// The bytes of `request`, ascending.
fn bytes(request: LockRequest) -> impl Iterator<Item = u64> {
    let sides = [(USES, request.uses), (DENIES, request.denies)];
    sides.into_iter().flat_map(|(base, set)| {
        TABLE
            .iter()
            .filter(move |(_, bit, _)| set.contains(*bit))
            .map(move |(n, _, _)| base + n)
    })
}

fn take(fd: BorrowedFd<'_>, held: LockRequest, wanted: LockRequest) -> Result<()> {
    let has: Vec<u64> = bytes(held).collect();
    for byte in bytes(wanted).filter(|byte| !has.contains(byte)) {
        lock::hold(fd, byte).map_err(|error| match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => {
                Error::new(ErrorKind::Locked, format!("Failed to lock byte {byte}"))
            }
            _ => Error::io(&error).context(format!("Failed to lock byte {byte}")),
        })?;
    }
    Ok(())
}

fn test(fd: BorrowedFd<'_>, wanted: LockRequest) -> Result<()> {
    let conflict = |byte, what: String| match lock::held_by_other(fd, byte) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::new(ErrorKind::Locked, what)),
        Err(error) => Err(Error::io(&error).context(what)),
    };
    for (n, bit, name) in TABLE {
        if wanted.uses.contains(bit) {
            conflict(DENIES + n, format!("Failed to get \"{name}\" lock"))?;
        }
    }
    for (n, bit, name) in TABLE {
        if wanted.denies.contains(bit) {
            conflict(USES + n, format!("Failed to get shared \"{name}\" lock"))?;
        }
    }
    Ok(())
}

/// Drops what `from` has and `to` has not.
fn release(fd: BorrowedFd<'_>, from: LockRequest, to: LockRequest) {
    let keep: Vec<u64> = bytes(to).collect();
    for byte in bytes(from).filter(|byte| !keep.contains(byte)) {
        // Dropping a lock fails only where taking it would have.
        let _ = lock::release(fd, byte);
    }
}
