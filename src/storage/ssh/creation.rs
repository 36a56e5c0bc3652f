//! Files that an operation makes or empties.

use std::sync::Arc;
use std::time::Duration;

use bstr::ByteSlice;

use crate::error::Result;
use crate::options::Values;
use crate::storage::creation::NewStorage;
use crate::storage::driver::CreateContext;
use crate::storage::modes::Preallocation;
use crate::storage::traits::Storage;

use super::sftp::OpenFlags;
use super::storage::{Opened, SshStorage, dialer, settings_of};

/// How long the server is given to remove what was made, or to empty what was there, when the operation has failed.
const REMOVAL: Duration = Duration::from_secs(10);

/// Opens the file to be filled, as it is, or makes it.
pub(super) fn claim(context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let (settings, name) = settings_of(&context.target, &Values::default(), context.objects)?;
    let dial = dialer(&settings);
    let (path, control) = (settings.path.as_bstr(), context.control);
    let both = OpenFlags::READ | OpenFlags::WRITE;
    let fresh = both | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    let (made, opened) = match Opened::open(dial(control)?, path, fresh, control) {
        Ok(opened) => (true, opened),
        // It is there, or it cannot be made: opening it as it is tells.
        Err((first, Some(link))) => match Opened::open(link, path, both, control) {
            Ok(opened) => (false, opened),
            Err((error, _)) if error.os_errno() == Some(libc::ENOENT) => return Err(first),
            Err((error, _)) => return Err(error),
        },
        Err((error, None)) => return Err(error),
    };
    let how = (true, context.cache);
    let storage = SshStorage::new(name, &settings, dial, opened, how, control);
    let storage = Arc::new(storage);
    Ok(Box::new(NewFile {
        shown: storage.clone(),
        storage,
        made,
    }))
}

#[derive(Debug)]
struct NewFile {
    storage: Arc<SshStorage>,
    shown: Arc<dyn Storage>,
    made: bool,
}

impl NewStorage for NewFile {
    fn storage(&self) -> &Arc<dyn Storage> {
        &self.shown
    }

    fn check_room(&self, _len: u64) -> Result<()> {
        // The protocol does not tell how much room there is.
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

    fn empty_again(&self) -> Result<()> {
        self.storage.clear(REMOVAL)
    }
}
