//! Files on servers that an operation creates or empties.

use std::sync::Arc;
use std::time::Duration;

use bstr::BString;

use crate::error::Result;
use crate::storage::creation::NewStorage;
use crate::storage::driver::CreateContext;
use crate::storage::modes::Preallocation;
use crate::storage::traits::Storage;

use super::protocol::Protocol;
use super::storage::RemoteFile;

/// Time allowed for the server to remove a new file, or to empty an existing one, when the operation has failed.
const REMOVAL: Duration = Duration::from_secs(10);
/// The same where the operation was cancelled: someone is waiting for it to return.
const QUICK_REMOVAL: Duration = Duration::from_secs(1);

/// Creates the file to be filled, or opens an existing one as it is.
///
/// # Errors
/// Errors of the connection or the server.
pub(in crate::storage) fn claim<P: Protocol>(
    context: &CreateContext<'_>,
    name: BString,
    protocol: P,
) -> Result<Box<dyn NewStorage>> {
    let control = context.control;
    let (made, opened) = protocol.make_or_open(control)?;
    let how = (true, context.cache);
    let storage = Arc::new(RemoteFile::new(name, protocol, opened, how, control));
    Ok(Box::new(NewFile {
        shown: storage.clone(),
        storage,
        made,
    }))
}

#[derive(Debug)]
struct NewFile<P: Protocol> {
    storage: Arc<RemoteFile<P>>,
    shown: Arc<dyn Storage>,
    made: bool,
}

impl<P: Protocol> NewFile<P> {
    fn time(&self) -> Duration {
        match self.storage.is_cancelled() {
            true => QUICK_REMOVAL,
            false => REMOVAL,
        }
    }
}

impl<P: Protocol> NewStorage for NewFile<P> {
    fn storage(&self) -> &Arc<dyn Storage> {
        &self.shown
    }

    fn check_room(&self, _len: u64) -> Result<()> {
        // The free space that servers report, if they do, is not what a file may use of it.
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
            self.storage.remove(self.time())?;
        }
        Ok(self.made)
    }

    fn empty_again(&self) -> Result<()> {
        self.storage.clear(self.time())
    }
}
