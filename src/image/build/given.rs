//! Passes a storage of the caller to code that finds its file by name.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::image::OpenOptions;
use crate::location::Location;
use crate::storage::{NamedStorages, Storage, StorageOpen};

/// A storage under its own name, which takes precedence over the named storages of the caller.
#[derive(Debug)]
struct Given {
    name: OsString,
    storage: Arc<dyn Storage>,
    others: Option<Arc<dyn NamedStorages>>,
}

impl NamedStorages for Given {
    fn find(&self, name: &Path, how: &StorageOpen) -> Option<Result<Arc<dyn Storage>>> {
        if name == Path::new(&self.name) {
            return Some(Ok(self.storage.clone()));
        }
        self.others.as_ref()?.find(name, how)
    }
}

/// Options with which `location`, whose name is that of the storage, refers to it.
pub(super) fn with_storage(
    location: &Location,
    storage: Arc<dyn Storage>,
    options: &OpenOptions,
) -> OpenOptions {
    let given = Given {
        name: location.text().to_owned(),
        storage,
        others: options.storages.clone(),
    };
    OpenOptions {
        storages: Some(Arc::new(given)),
        ..options.clone()
    }
}
