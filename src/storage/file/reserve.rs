//! Reserves space for writes that are about to come.

use crate::storage::file::{FileStorage, Kind};
use crate::sys;
use crate::sys::falloc::Falloc;

/// Shorter writes are not worth another system call.
const WORTHWHILE: u64 = 256 << 10;

impl FileStorage {
    /// Reserves the range if that saves more than it costs: ext4 then does not have to reserve space page by
    /// page. A failure is ignored: the write itself will report the error.
    pub(super) fn reserve_for_write(&self, offset: u64, len: u64) {
        let known = self.kind != Kind::Regular || self.direct.is_some();
        if len < WORTHWHILE || known || self.spare.covers(offset, len) {
            return;
        }
        let gains = || sys::attr::is_ext4(self.fd());
        if *self.can.reserve.get_or_init(gains) {
            let _ = sys::falloc::fallocate(self.fd(), Falloc::AllocateKeepSize, offset, len);
        }
    }

    /// Makes the file longer, with space reserved, for direct I/O: file systems run writes that extend a file
    /// or fill a hole one after the other, but writes to reserved space in parallel.
    pub(super) fn reserve_for_growth(&self, end: u64) {
        if self.kind != Kind::Regular || self.direct.is_none() {
            return;
        }
        let _alone = self.growth.write();
        if let Ok(len) = self.raw_len()
            && len < end
        {
            let _ = sys::falloc::fallocate(self.fd(), Falloc::Allocate, len, end - len);
        }
        self.extents.invalidate();
    }
}
