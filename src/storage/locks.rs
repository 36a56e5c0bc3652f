//! The advisory locks by which QEMU's tools keep out of each other's way: byte 100 + n is held for
//! a permission in use, byte 200 + n for one that others must not use. Storages of this process keep out
//! of each other's way by the same rules, however they got their descriptors.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bstr::BStr;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::holders::{HeldFile, Holder, Holders};
use crate::storage::identity::Identity;
use crate::storage::modes::{LockRequest, Permissions};
use crate::sys::{attr, lock};

const USES: u64 = 100;
const DENIES: u64 = 200;
/// Lock byte number, bit, and name in messages.
const TABLE: [(u64, Permissions, &str); 3] = [
    (0, Permissions::CONSISTENT_READ, "consistent read"),
    (1, Permissions::WRITE, "write"),
    (3, Permissions::RESIZE, "resize"),
];

/// What is locked of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing.
    Nothing,
    /// Other storages of this process are kept out, and the locks of other processes are respected; those see
    /// nothing of this: the file system has no locks, or the descriptor cannot take them.
    Process,
    /// Other processes are kept out as well.
    Host,
}

/// The locks that one storage holds.
#[derive(Debug)]
pub(super) struct Locks {
    reach: Reach,
    /// Tells storages apart.
    storage: u64,
    /// The file among those of this process; None of a character device.
    file: Option<Arc<HeldFile>>,
    held: Mutex<LockRequest>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Locks {
    pub(super) fn new(stat: &attr::Stat, reach: Reach) -> Self {
        Self {
            reach,
            storage: NEXT.fetch_add(1, Ordering::Relaxed),
            file: Identity::of(stat)
                .filter(|_| reach != Reach::Nothing)
                .map(HeldFile::of),
            held: Mutex::default(),
        }
    }

    /// What is locked of the file.
    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// What is held.
    pub(super) fn held(&self) -> LockRequest {
        *self.held.lock()
    }

    /// Takes what `wanted` has and is not held, tests for conflicts, then drops what it has not.
    /// On a conflict the locks are as before.
    pub(super) fn change(
        &self,
        fd: BorrowedFd<'_>,
        name: &BStr,
        wanted: LockRequest,
    ) -> Result<()> {
        let mut held = self.held.lock();
        if self.reach == Reach::Nothing || *held == wanted {
            return Ok(());
        }
        let mut holders = self.file.as_ref().map(|file| file.alone());
        if let Some(holders) = &mut holders
            && wanted != LockRequest::default()
        {
            // An image may have any number of files.
            holders.make_room()?;
        }
        self.keep_apart(holders.as_ref(), wanted)
            .and_then(|()| self.change_bytes(fd, holders.as_ref(), *held, wanted))
            .map_err(|error| match error.kind() {
                ErrorKind::Locked => {
                    error.with_hint(format!("Is another process using the image [{name}]?"))
                }
                // Nothing is in the way.
                _ => error,
            })?;
        if let Some(holders) = &mut holders {
            holders.set(self.storage, fd, wanted, self.reach == Reach::Host);
        }
        *held = wanted;
        Ok(())
    }

    /// Says which part of the file this storage writes; no other of the process does.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] where another one writes to some of it.
    pub(super) fn claim(&self, part: Range<u64>) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut holders = file.alone();
        let writes = |one: &Holder| one.request.uses.contains(Permissions::WRITE);
        let others = holders.others(self.storage).filter(|one| writes(one));
        for other in others {
            let theirs = other.part();
            if part.start < theirs.end && theirs.start < part.end {
                return Err(locked(
                    "The file is open for writing in this process already".to_owned(),
                )
                .with_hint(
                    "One handle serves any number of threads; parts of a file are opened beside each other by 'offset' and 'size'",
                ));
            }
        }
        holders.claim(self.storage, part);
        Ok(())
    }

    fn keep_apart(&self, holders: Option<&Holders<'_>>, wanted: LockRequest) -> Result<()> {
        let others = holders.map(|holders| holders.others(self.storage).map(|one| one.request));
        match others {
            Some(others) => check(others, wanted),
            None => Ok(()),
        }
    }

    fn change_bytes(
        &self,
        fd: BorrowedFd<'_>,
        holders: Option<&Holders<'_>>,
        held: LockRequest,
        wanted: LockRequest,
    ) -> Result<()> {
        if self.reach == Reach::Process {
            // Where even that is refused there are no locks at all.
            return match test(fd, wanted) {
                Err(error) if error.kind() == ErrorKind::Locked => Err(error),
                _ => Ok(()),
            };
        }
        // What another storage holds through the same open file description is not ours to drop.
        let shared = match holders {
            Some(holders) => holders.sharing(self.storage, fd),
            None => LockRequest::default(),
        };
        let result = take(fd, union(held, shared), wanted).and_then(|()| test(fd, wanted));
        match result {
            Ok(()) => release(fd, held, union(wanted, shared)),
            Err(_) => release(fd, wanted, union(held, shared)),
        }
        result
    }
}

/// Refuses what others deny, and the denial of what others use.
///
/// # Errors
/// [`ErrorKind::Locked`].
pub(super) fn check(others: impl Iterator<Item = LockRequest>, wanted: LockRequest) -> Result<()> {
    let held = others.fold(LockRequest::default(), union);
    let first = |set: Permissions| set.iter().next();
    if let Some(permission) = first(wanted.uses & held.denies) {
        return Err(locked(wanted_text(name_of(permission))));
    }
    match first(wanted.denies & held.uses) {
        Some(permission) => Err(locked(denied_text(name_of(permission)))),
        None => Ok(()),
    }
}

fn union(a: LockRequest, b: LockRequest) -> LockRequest {
    LockRequest {
        uses: a.uses | b.uses,
        denies: a.denies | b.denies,
    }
}

fn name_of(permission: Permissions) -> &'static str {
    TABLE
        .iter()
        .find(|(_, bit, _)| *bit == permission)
        .map_or("", |(_, _, name)| name)
}

fn wanted_text(name: &str) -> String {
    format!("Failed to get \"{name}\" lock")
}

fn denied_text(name: &str) -> String {
    format!("Failed to get shared \"{name}\" lock")
}

fn locked(text: String) -> Error {
    Error::new(ErrorKind::Locked, text)
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
            Some(libc::EAGAIN | libc::EACCES) => locked(format!("Failed to lock byte {byte}")),
            _ => Error::io(&error).context(format!("Failed to lock byte {byte}")),
        })?;
    }
    Ok(())
}

fn test(fd: BorrowedFd<'_>, wanted: LockRequest) -> Result<()> {
    let conflict = |byte, what: String| match lock::held_by_other(fd, byte) {
        Ok(false) => Ok(()),
        Ok(true) => Err(locked(what)),
        Err(error) => Err(Error::io(&error).context(what)),
    };
    for (n, bit, name) in TABLE {
        if wanted.uses.contains(bit) {
            conflict(DENIES + n, wanted_text(name))?;
        }
    }
    for (n, bit, name) in TABLE {
        if wanted.denies.contains(bit) {
            conflict(USES + n, denied_text(name))?;
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
