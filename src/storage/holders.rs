//! Which storages of this process hold which file. Byte locks belong to an open file description: duplicates of one
//! descriptor share them, so that what the kernel answers does not tell one storage from another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::error::Result;
use crate::memory;
use crate::storage::identity::Identity;
use crate::storage::modes::LockRequest;
use crate::sys::lock;

/// The files that are held.
static FILES: Mutex<BTreeMap<Identity, Weak<HeldFile>>> = Mutex::new(BTreeMap::new());

/// One file and its holders.
#[derive(Debug)]
pub(super) struct HeldFile {
    id: Identity,
    holders: Mutex<Vec<Holder>>,
}

/// A storage that holds locks of a file.
#[derive(Debug)]
pub(super) struct Holder {
    /// Tells it from the others.
    pub(super) storage: u64,
    /// What it holds; never empty.
    pub(super) request: LockRequest,
    /// The part that only it writes to; the whole file where it has not said so.
    part: Option<Range<u64>>,
    /// Its descriptor, open for as long as it is listed.
    fd: RawFd,
    /// The same number for the same open file description; None where it holds no byte locks.
    description: Option<u64>,
}

impl Holder {
    /// What it writes to, if it writes.
    pub(super) fn part(&self) -> Range<u64> {
        self.part.clone().unwrap_or(0..u64::MAX)
    }
}

impl HeldFile {
    /// That of a file.
    pub(super) fn of(id: Identity) -> Arc<Self> {
        let mut files = FILES.lock();
        if let Some(file) = files.get(&id).and_then(Weak::upgrade) {
            return file;
        }
        let file = Arc::new(Self {
            id: id.clone(),
            holders: Mutex::default(),
        });
        files.insert(id, Arc::downgrade(&file));
        file
    }

    /// No one else changes who holds the file in the meantime.
    pub(super) fn alone(&self) -> Holders<'_> {
        Holders(self.holders.lock())
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        let mut files = FILES.lock();
        // A new one may have taken its place already.
        if files
            .get(&self.id)
            .is_some_and(|file| file.strong_count() == 0)
        {
            files.remove(&self.id);
        }
    }
}

/// The holders of one file.
pub(super) struct Holders<'a>(MutexGuard<'a, Vec<Holder>>);

impl Holders<'_> {
    /// All but `storage`.
    pub(super) fn others(&self, storage: u64) -> impl Iterator<Item = &Holder> {
        self.0.iter().filter(move |one| one.storage != storage)
    }

    /// The locks that others hold through the open file description of `fd`.
    pub(super) fn sharing(&self, storage: u64, fd: BorrowedFd<'_>) -> LockRequest {
        let mut shared = LockRequest::default();
        let Some(own) = self.description(storage, fd) else {
            return shared;
        };
        for other in self.others(storage) {
            if other.description != Some(own) {
                continue;
            }
            shared.uses |= other.request.uses;
            shared.denies |= other.request.denies;
        }
        shared
    }

    /// Makes room for one more, so that [`Self::set`] takes no memory.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn make_room(&mut self) -> Result<()> {
        memory::reserve(&mut self.0, 1)
    }

    /// Lists what `storage` holds from now on, with byte locks or without; there is room for it.
    pub(super) fn set(
        &mut self,
        storage: u64,
        fd: BorrowedFd<'_>,
        request: LockRequest,
        with_bytes: bool,
    ) {
        if request == LockRequest::default() {
            self.0.retain(|one| one.storage != storage);
            return;
        }
        if let Some(own) = self.0.iter_mut().find(|one| one.storage == storage) {
            own.request = request;
            return;
        }
        let description = with_bytes.then(|| self.description(storage, fd).unwrap_or(storage));
        self.0.push(Holder {
            storage,
            request,
            part: None,
            fd: fd.as_raw_fd(),
            description,
        });
    }

    /// Notes what `storage` writes to alone, if it holds anything.
    pub(super) fn claim(&mut self, storage: u64, part: Range<u64>) {
        if let Some(own) = self.0.iter_mut().find(|one| one.storage == storage) {
            own.part = Some(part);
        }
    }

    /// The number of the description of `fd`; None where no holder has the same.
    fn description(&self, storage: u64, fd: BorrowedFd<'_>) -> Option<u64> {
        if let Some(own) = self.0.iter().find(|one| one.storage == storage) {
            return own.description;
        }
        self.0
            .iter()
            .find(|one| one.description.is_some() && lock::same_description(fd, one.fd))
            .and_then(|one| one.description)
    }
}
