//! Resource limits of the process.

use std::mem::MaybeUninit;

use super::check;

/// Maximum length to which this process may grow a file (`RLIMIT_FSIZE`). A call beyond it fails with `EFBIG`, and
/// before that the thread receives SIGXFSZ, which kills a process that does not ignore it.
pub(crate) fn file_size() -> u64 {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the call fills the structure, which lives through it, if it succeeds.
    if check(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, limit.as_mut_ptr()) }).is_err() {
        return u64::MAX;
    }
    // SAFETY: filled by the call above. The value for "no limit" is the largest one.
    unsafe { limit.assume_init() }.rlim_cur
}
