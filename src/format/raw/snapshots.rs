//! Snapshots of a raw image, if its storage supports them.

use std::sync::atomic::Ordering;

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::format::{Format, NewSnapshot, Snapshots};
use crate::job::JobControl;
use crate::storage::StorageSnapshots;

use super::{DRIVER, Raw, round_up};

impl Raw {
    fn kept(&self) -> Result<&dyn StorageSnapshots> {
        let kept = self.storage.snapshots();
        kept.ok_or_else(|| Error::unsupported("Block driver does not support snapshots"))
    }
}

impl Snapshots for Raw {
    fn create(&self, snapshot: &NewSnapshot, _control: &JobControl) -> Result<BString> {
        self.kept()?.create(snapshot.name.as_bstr())?;
        Ok(snapshot.name.clone())
    }

    fn apply(&self, id: &BStr, _control: &JobControl) -> Result<()> {
        self.kept()?.apply(id)?;
        self.len
            .store(round_up(self.storage.len()?)?, Ordering::Release);
        Ok(())
    }

    fn delete(&self, id: &BStr, _control: &JobControl) -> Result<()> {
        self.kept()?.delete(id)
    }

    fn view(&self, _id: &BStr) -> Result<Box<dyn Format>> {
        Err(Error::unsupported(format!(
            "Block format '{}' does not support temporarily loading internal snapshots",
            DRIVER.name
        )))
    }
}
