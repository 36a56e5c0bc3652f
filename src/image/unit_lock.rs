//! Keeps writes to parts of a unit apart from all others.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Writes of whole units run side by side. One of a part of a unit runs alone: another could change the
/// rest of the unit between its reading and its writing.
#[derive(Debug, Default)]
pub(super) struct UnitLock(RwLock<()>);

impl UnitLock {
    /// For a write of whole units.
    pub(super) fn whole(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read()
    }

    /// For a write of parts of units.
    pub(super) fn parts(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write()
    }
}
