//! What all storages of one file of a server share in this process: its length, which a write through any of
//! them changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bstr::BString;
use parking_lot::{Mutex, RwLock};

static FILES: Mutex<Vec<Weak<RemoteLen>>> = Mutex::new(Vec::new());

/// The length of a file of a server that is in use.
#[derive(Debug)]
pub(super) struct RemoteLen {
    place: BString,
    len: AtomicU64,
    /// How long the server has it, where it is made longer ahead of what is written; only changed with
    /// `growing` held alone.
    reserved: AtomicU64,
    /// Shared by writes that make the file longer, and held alone by what sets its length, which must not cut off
    /// what is being written beyond the end.
    pub(super) growing: RwLock<()>,
}

impl RemoteLen {
    /// That of the file at a place, which was found to be `len` bytes long.
    pub(super) fn at(place: BString, len: u64) -> Arc<Self> {
        let mut all = FILES.lock();
        all.retain(|one| one.strong_count() > 0);
        let mut known = all.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|one| one.place == place) {
            if known.reserved() <= known.get() {
                // Others may have made it longer; what is written here is never forgotten.
                known.len.fetch_max(len, Ordering::AcqRel);
            }
            return known;
        }
        let fresh = Arc::new(Self {
            place,
            len: AtomicU64::new(len),
            reserved: AtomicU64::new(len),
            growing: RwLock::new(()),
        });
        all.push(Arc::downgrade(&fresh));
        fresh
    }

    pub(super) fn get(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// A write has ended there.
    pub(super) fn reaches(&self, end: u64) {
        self.len.fetch_max(end, Ordering::AcqRel);
    }

    /// The length was set; only with `growing` held alone.
    pub(super) fn set(&self, len: u64) {
        self.len.store(len, Ordering::Release);
        self.reserved.store(len, Ordering::Release);
    }

    /// How long the server has it.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// The server has made it longer than it is shown; only with `growing` held alone.
    pub(super) fn reserve(&self, len: u64) {
        self.reserved.store(len, Ordering::Release);
    }
}
