//! The error of an allocation that failed, and the memory that it takes to tell of it.

use parking_lot::Mutex;

use crate::error::Error;

/// Memory with which to tell that there is none: many small parts may have used up the last of it.
static RESERVE: Mutex<Vec<u8>> = Mutex::new(Vec::new());
const RESERVE_BYTES: usize = 32 << 10;

/// Keeps a little memory for the error that tells of a lack of it; before anything that can take much.
pub(crate) fn keep_reserve() {
    if let Some(mut reserve) = RESERVE.try_lock()
        && reserve.capacity() == 0
    {
        // Without it that error may end the process, as any small allocation may.
        let _ = reserve.try_reserve_exact(RESERVE_BYTES);
    }
}

/// The error of an allocation that failed.
pub(crate) fn lack() -> Error {
    *RESERVE.lock() = Vec::new();
    Error::os(libc::ENOMEM)
}
