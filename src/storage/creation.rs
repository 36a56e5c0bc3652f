//! Storages that an operation makes or empties: claimed first, changed later, and taken back where
//! the operation does not succeed.

use std::fmt::Debug;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::job::JobControl;
use crate::storage::modes::{Preallocation, ZeroFlags};
use crate::storage::traits::{Limits, Storage};

/// What a protocol has open for an operation that is to fill it. Opening it has changed nothing,
/// except that it exists now.
pub trait NewStorage: Debug + Send {
    /// The storage; as it was before, until it is emptied.
    fn storage(&self) -> &Arc<dyn Storage>;

    /// Whether the storage can become `len` bytes long, as far as that can be found out without
    /// changing it.
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`] where its length is fixed and too small; with the errno EFBIG where the
    /// file system has no files so large, or the process may not write them.
    fn check_room(&self, len: u64) -> Result<()>;

    /// Empties the storage; of a device only the first sector, so that what is there is not taken for
    /// an image. Returns a warning where something that was asked for could not be had and the
    /// storage is good without it.
    ///
    /// # Errors
    /// Of the storage.
    fn empty(&self) -> Result<Option<String>>;

    /// Ends its use: what was put off is done now.
    ///
    /// # Errors
    /// Of what was put off.
    fn finish(&self) -> Result<()> {
        self.storage().finish()
    }

    /// Whether the storage was made for this operation.
    fn is_made(&self) -> bool;

    /// Whether the storage is one that the caller keeps.
    fn is_given(&self) -> bool {
        false
    }

    /// Removes the storage if it was made for this operation; false where it was there before.
    ///
    /// # Errors
    /// Of the protocol.
    fn remove(&self) -> Result<bool>;

    /// Empties again what was emptied and then not filled to its end. As [`NewStorage::remove`] it works also where
    /// the operation was cancelled or is late.
    ///
    /// # Errors
    /// Of the storage.
    fn empty_again(&self) -> Result<()> {
        self.storage().set_len(0, Preallocation::Off)
    }
}

/// The right of one operation to fill a storage. Dropped before [`Creation::keep`] it undoes what
/// the operation did: what was made is removed, what was there and was emptied stays, empty, and
/// what was not emptied yet stays as it was.
#[derive(Debug)]
pub struct Creation {
    new: Box<dyn NewStorage>,
    state: State,
    /// Where to report what is left of it.
    control: Option<Arc<JobControl>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Claimed,
    Emptied,
    Kept,
}

impl Creation {
    /// Over what a protocol has open.
    pub fn new(new: Box<dyn NewStorage>) -> Self {
        Self {
            new,
            state: State::Claimed,
            control: None,
        }
    }

    /// Reports what could not be undone to that control.
    #[must_use]
    pub(super) fn under(mut self, control: &Arc<JobControl>) -> Self {
        self.control = Some(control.clone());
        self
    }

    /// Over a storage that the caller has, and that is never removed.
    pub fn given(storage: Arc<dyn Storage>) -> Self {
        Self::new(Box::new(Given(storage, true)))
    }

    /// The storage.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        self.new.storage()
    }

    /// See [`NewStorage::check_room`].
    ///
    /// # Errors
    /// As [`NewStorage::check_room`].
    pub fn check_room(&self, len: u64) -> Result<()> {
        self.new.check_room(len)
    }

    /// See [`NewStorage::empty`]: the first change of the storage.
    ///
    /// # Errors
    /// As [`NewStorage::empty`].
    pub fn empty(&mut self) -> Result<Option<String>> {
        self.state = State::Emptied;
        self.new.empty()
    }

    /// Makes sure that nothing is overwritten.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] where the storage was there before; one that the caller keeps may be, as long as it
    /// is empty.
    pub fn check_is_new(&self) -> Result<()> {
        if self.new.is_made() || self.new.is_given() && self.storage().is_empty()? {
            return Ok(());
        }
        let name = self.storage().name();
        Err(Error::new(
            ErrorKind::Exists,
            format!("'{name}' exists already"),
        ))
    }

    /// See [`NewStorage::finish`]: the last change of the storage.
    ///
    /// # Errors
    /// As [`NewStorage::finish`].
    pub fn finish(&self) -> Result<()> {
        self.new.finish()
    }

    /// The operation has succeeded: the storage stays.
    pub fn keep(mut self) {
        self.state = State::Kept;
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        if self.state == State::Kept {
            return;
        }
        // The error that ends the operation is the one to report; this adds what is left behind.
        let tell = |what: &str, error: &Error| {
            // What somebody else has removed is not left behind.
            if let Some(control) = self
                .control
                .as_ref()
                .filter(|_| error.errno() != libc::ENOENT)
            {
                let name = self.new.storage().name();
                control.leaves(format!("'{name}' is left {what}: {error}"));
            }
        };
        let is_emptied = self.state == State::Emptied;
        match self.new.remove() {
            Ok(true) => {}
            Ok(false) => {
                if is_emptied && let Err(error) = self.new.empty_again() {
                    tell("with a part of what was written", &error);
                }
            }
            Err(error) => {
                tell("behind", &error);
                // A server that does not answer empties nothing either.
                let answers =
                    error.kind() != ErrorKind::Cancelled && error.errno() != libc::ETIMEDOUT;
                if is_emptied && answers {
                    let _ = self.new.empty_again();
                }
            }
        }
    }
}

/// The refusal of an image that is longer than a storage of fixed length.
pub(crate) fn cannot_grow(limits: &Limits) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        format!("Cannot grow {}", limits.fixed_kind),
    )
}

/// The error for a target that does not exist, of a protocol that cannot make one.
pub(crate) fn no_new_images(driver: &str, error: Error) -> Error {
    error.context(format!(
        "Protocol driver '{driver}' does not support creating new images, so an existing image must be selected as the target; however, opening the given target as an existing image failed"
    ))
}

/// A storage that was there before, and that is never removed.
pub(super) fn given(storage: Arc<dyn Storage>) -> Box<dyn NewStorage> {
    Box::new(Given(storage, false))
}

/// What was there before, and whether the caller keeps it.
#[derive(Debug)]
struct Given(Arc<dyn Storage>, bool);

impl NewStorage for Given {
    fn storage(&self) -> &Arc<dyn Storage> {
        &self.0
    }

    fn check_room(&self, len: u64) -> Result<()> {
        let limits = self.0.limits();
        if limits.fixed_len && self.0.len()? < len {
            return Err(cannot_grow(&limits));
        }
        Ok(())
    }

    fn empty(&self) -> Result<Option<String>> {
        let storage = &self.0;
        if storage.limits().fixed_len {
            storage.write_zeroes(0, storage.len()?.min(512), ZeroFlags::empty())?;
        } else {
            storage.set_len(0, Preallocation::Off)?;
        }
        Ok(None)
    }

    fn finish(&self) -> Result<()> {
        // The caller goes on with it.
        Ok(())
    }

    fn is_made(&self) -> bool {
        false
    }

    fn is_given(&self) -> bool {
        self.1
    }

    fn remove(&self) -> Result<bool> {
        Ok(false)
    }
}
