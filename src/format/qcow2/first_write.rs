//! What must happen once, before the first change of an image.

use std::sync::atomic::Ordering;

use crate::error::Result;

use super::state::Qcow2;

impl Qcow2 {
    /// Called by every operation that changes the image.
    pub(super) fn prepare_write(&self) -> Result<()> {
        self.check_writable()?;
        if self.is_prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut done = self.prepared.lock();
        if !*done {
            if self.lazy() {
                self.set_dirty()?;
            }
            self.begin_recording()?;
            *done = true;
            self.is_prepared.store(true, Ordering::Release);
        }
        Ok(())
    }
}
