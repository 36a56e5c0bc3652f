//! Keeps writes to parts of a unit exclusive.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Writes of whole units run concurrently. A write to a part of a unit is exclusive: otherwise another one could change
/// the rest of the unit between the read and the write.
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
