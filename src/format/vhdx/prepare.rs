//! Updates of the header and the region table that precede other changes.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::error::Result;

use super::disk::{Header, REGION_TABLES};
use super::open::read_region_tables;
use super::state::Vhdx;

impl Vhdx {
    /// Makes another header current; see [`super::headers::Headers::change`].
    pub(super) fn change_header(&self, change: impl Fn(&mut Header)) -> Result<()> {
        let mut headers = self.headers.lock();
        let changed = headers.change(&*self.storage, self.durability, change);
        changed.inspect_err(|_| self.lost.store(true, Ordering::Release))
    }

    /// Makes both copies of the region table equal to the current one: after a crash, the other may refer to a place
    /// that has been given up and will be reused.
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

    /// Done once, before the first change of guest data: the header announces it to other programs.
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
