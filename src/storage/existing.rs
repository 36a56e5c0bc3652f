//! Targets of protocols that cannot create: what exists is filled.

use std::sync::Arc;

use crate::error::Result;
use crate::storage::creation::{NewStorage, given, no_new_images};
use crate::storage::driver::{CreateContext, OpenContext, StorageDriver, StorageOpen};

/// Opens what is to be filled; it stays as it was until [`NewStorage::empty`].
///
/// # Errors
/// That the protocol cannot create, with the reason why the target cannot be opened as it is.
pub(super) fn claim(
    driver: &'static StorageDriver,
    context: &CreateContext<'_>,
) -> Result<Box<dyn NewStorage>> {
    let storage = (driver.open)(&OpenContext {
        target: context.target.clone(),
        options: &Default::default(),
        how: StorageOpen {
            writable: true,
            cache: context.cache,
            named_by_image: false,
        },
        objects: context.objects,
        policy: context.policy,
        control: context.control,
    });
    let storage: Arc<_> = storage.map_err(|error| no_new_images(driver.name, error))?;
    Ok(given(storage))
}
