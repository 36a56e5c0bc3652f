//! What the header tells others before something changes.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::error::Result;

use super::disk::{Header, REGION_TABLES};
use super::open::read_region_tables;
use super::state::Vhdx;

impl Vhdx {
    /// Makes another header count; see [`super::headers::Headers::change`].
    pub(super) fn change_header(&self, change: impl Fn(&mut Header)) -> Result<()> {
        let mut headers = self.headers.lock();
        let changed = headers.change(&*self.storage, self.durability, change);
        changed.inspect_err(|_| self.lost.store(true, Ordering::Release))
    }

    /// Both copies of the region table become the one that counts: a crash may have left one which tells of a place that
    /// was given up, and will be given to others.
    pub(super) fn make_region_tables_equal(&self) -> Result<()> {
        let (counts, other) = match read_region_tables(&*self.storage)? {
            [Some(first), second] if second.as_deref() != Some(&*first) => {
                (first, REGION_TABLES[1])
            }
            [None, Some(second)] => (second, REGION_TABLES[0]),
            _ => return Ok(()),
        };
        self.storage.write_at(&counts, other)?;
        self.sync(self.durability)
    }

    /// What must be done once, before the first change of the guest's data: the header tells others of it.
    pub(super) fn prepare_write(&self) -> Result<()> {
        self.check_writable()?;
        if self.is_prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut done = self.prepared.lock();
        if !*done {
            self.make_region_tables_equal()?;
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
