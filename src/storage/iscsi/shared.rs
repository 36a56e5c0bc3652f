//! What all storages of one unit in this process share: what is known of holes, which a write through any of
//! them changes, and the right to change a part of a block.

use std::sync::{Arc, Weak};

use bstr::BString;
use parking_lot::Mutex;

use crate::storage::status::StatusCache;

static UNITS: Mutex<Vec<Weak<Unit>>> = Mutex::new(Vec::new());

/// A unit that is in use.
#[derive(Debug)]
pub(super) struct Unit {
    place: BString,
    /// Which blocks are there.
    pub(super) status: StatusCache<bool>,
    /// Held while a part of a block is changed.
    pub(super) partial: Mutex<()>,
}

impl Unit {
    /// The unit at a place.
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
