//! State shared by all storages of one unit in this process: what is known about holes, which a write through any of
//! them changes, and the lock for modifying part of a block.

use std::sync::{Arc, Weak};

use bstr::BString;
use parking_lot::Mutex;

use crate::storage::status::StatusCache;

static UNITS: Mutex<Vec<Weak<Unit>>> = Mutex::new(Vec::new());

/// A unit that is in use.
#[derive(Debug)]
pub(super) struct Unit {
    place: BString,
    /// Which blocks are mapped.
    pub(super) status: StatusCache<bool>,
    /// Held while part of a block is modified.
    pub(super) partial: Mutex<()>,
}

impl Unit {
    /// The state of the unit at a place.
    pub(super) fn at(place: BString) -> Arc<Self> {
        let mut all = UNITS.lock();
        all.retain(|one| one.strong_count() > 0);
        let mut known = all.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|one| one.place == place) {
            return known;
        }
        let fresh = Arc::new(Self {
            place,
            status: StatusCache::default(),
            partial: Mutex::new(()),
        });
        all.push(Arc::downgrade(&fresh));
        fresh
    }
}
