//! Files that an operation makes or empties.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::options::Values;
use crate::storage::creation::NewStorage;
use crate::storage::driver::CreateContext;
use crate::storage::modes::Preallocation;
use crate::storage::traits::Storage;

use super::client::{How, open};
use super::storage::{NfsStorage, settings_of};

/// How long the server is given to remove what was made, when the operation has failed.
const REMOVAL: Duration = Duration::from_secs(10);

/// Opens the file to be filled, as it is, or makes it.
pub(super) fn claim(context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let (settings, name) = settings_of(&context.target, &Values::default())?;
    let control = context.control;
    let (made, opened) = match open(&settings, How::Create, control) {
        Ok(opened) => (true, opened),
        // It is there, or it cannot be made: opening it as it is tells.
        Err(first) => match open(&settings, How::Write, control) {
            Ok(opened) => (false, opened),
            Err(error) if error.os_errno() == Some(libc::ENOENT) => return Err(first),
            Err(error) => return Err(error),
        },
    };
    let storage = NfsStorage::new(name, settings, opened, (true, context.cache), control);
    let storage = Arc::new(storage);
    Ok(Box::new(NewFile {
        shown: storage.clone(),
        storage,
        made,
    }))
}

#[derive(Debug)]
struct NewFile {
    storage: Arc<NfsStorage>,
    shown: Arc<dyn Storage>,
    made: bool,
}

impl NewStorage for NewFile {
    fn storage(&self) -> &Arc<dyn Storage> {
        &self.shown
    }

    fn check_room(&self, _len: u64) -> Result<()> {
        // What the server tells of its room is not what a file may take of it.
        Ok(())
    }

    fn empty(&self) -> Result<Option<String>> {
        if self.storage.len()? > 0 {
            self.storage.set_len(0, Preallocation::Off)?;
        }
        Ok(None)
    }

    fn is_made(&self) -> bool {
        self.made
    }

    fn remove(&self) -> Result<bool> {
        if self.made {
            self.storage.remove(REMOVAL)?;
        }
        Ok(self.made)
    }
}
