//! Waiting for a number in memory to change, and waking the waiters: futex(2). Signal handlers may use only the latter.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Waits while `word` is `expected`, for at most `longest`; returns early if interrupted.
pub(crate) fn wait(word: &AtomicU32, expected: u32, longest: Duration) {
    let longest = libc::timespec {
        tv_sec: longest.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: longest.subsec_nanos().into(),
    };
    // SAFETY: the word and the time outlive the call, which only reads them.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            &raw const longest,
        )
    };
}

/// Wakes all waiters of `word`. Leaves `errno` alone, since it cannot fail.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: the word is that of an atomic, and the call does not touch it.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            libc::c_int::MAX,
        )
    };
}
