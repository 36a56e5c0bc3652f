//! What the header tells others before something changes.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::error::Result;

use super::disk::Header;
use super::state::Vhdx;

impl Vhdx {
    /// Makes another header count; see [`super::headers::Headers::change`].
    pub(super) fn change_header(&self, change: impl Fn(&mut Header)) -> Result<()> {
        let mut headers = self.headers.lock();
        let changed = headers.change(&*self.storage, self.durability, change);
        changed.inspect_err(|_| self.lost.store(true, Ordering::Release))
    }

    /// What must be done once, before the first change of the guest's data: the header tells others of it.
    pub(super) fn prepare_write(&self) -> Result<()> {
        self.check_writable()?;
        if self.is_prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut done = self.prepared.lock();
        if !*done {
            let (file, data) = (Uuid::new_v4(), Uuid::new_v4());
            self.change_header(|header| {
                header.file_write = file;
                header.data_write = data;
            })?;
            self.storage.sync(self.durability)?;
            *done = true;
            self.is_prepared.store(true, Ordering::Release);
        }
        Ok(())
    }
}
