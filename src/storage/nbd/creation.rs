//! Exports as targets: none is made, one that is there is filled.

use std::sync::Arc;

use crate::error::Result;
use crate::job::JobControl;
use crate::policy::OpenPolicy;
use crate::storage::creation::{NewStorage, cannot_grow, no_new_images};
use crate::storage::driver::{CreateContext, OpenContext, StorageOpen};
use crate::storage::modes::ZeroFlags;
use crate::storage::traits::Storage;

/// Opens the export to be filled; it is as it was until [`NewStorage::empty`].
pub(super) fn claim(context: &CreateContext<'_>) -> Result<Box<dyn NewStorage>> {
    let (policy, control): (&OpenPolicy, &Arc<JobControl>) = (context.policy, context.control);
    let storage = super::storage::open(&OpenContext {
        target: context.target.clone(),
        options: &Default::default(),
        how: StorageOpen {
            writable: true,
            cache: context.cache,
            named_by_image: false,
        },
        objects: context.objects,
        policy,
        control,
    });
    let storage = storage.map_err(|error| no_new_images(super::DRIVER.name, error))?;
    Ok(Box::new(NewExport(storage)))
}

#[derive(Debug)]
struct NewExport(Arc<dyn Storage>);

impl NewStorage for NewExport {
    fn storage(&self) -> &Arc<dyn Storage> {
        &self.0
    }

    fn check_room(&self, len: u64) -> Result<()> {
        match self.0.len()? < len {
            true => Err(cannot_grow(&self.0.limits())),
            false => Ok(()),
        }
    }

    fn empty(&self) -> Result<Option<String>> {
        // What was there must not be taken for the new image.
        let len = self.0.len()?.min(512);
        self.0.write_zeroes(0, len, ZeroFlags::empty())?;
        Ok(None)
    }

    fn remove(&self) -> Result<bool> {
        Ok(false)
    }
}
