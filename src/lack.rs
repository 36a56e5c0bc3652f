//! The error for a failed allocation, and the memory needed to report it.

use parking_lot::Mutex;

use crate::error::Error;

/// Memory for reporting that there is none: many small allocations may have used up the last of it.
static RESERVE: Mutex<Vec<u8>> = Mutex::new(Vec::new());
const RESERVE_BYTES: usize = 32 << 10;

/// Reserves a little memory for reporting a lack of it; called before anything that can take a lot.
pub(crate) fn keep_reserve() {
    if let Some(mut reserve) = RESERVE.try_lock()
        && reserve.capacity() == 0
    {
        // Without it, reporting that error may end the process, as any small allocation may.
        let _ = reserve.try_reserve_exact(RESERVE_BYTES);
    }
}

/// The error for a failed allocation.
pub(crate) fn lack() -> Error {
    *RESERVE.lock() = Vec::new();
    Error::os(libc::ENOMEM)
}
