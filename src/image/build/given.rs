//! A storage of the caller, for what finds its file by a name.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::image::OpenOptions;
use crate::location::Location;
use crate::storage::{NamedStorages, Storage, StorageOpen};

/// A storage under its own name, before those that the caller keeps by names.
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

/// Options with which `location`, whose name is that of the storage, leads to it.
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
