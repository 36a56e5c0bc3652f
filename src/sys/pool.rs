//! Memory for large buffers: page-aligned, directly from the kernel, and retained for reuse.
//!
//! The kernel copies to and from such memory several times faster than at an odd address, it is suitable for direct I/O
//! as it is, and reusing a buffer costs no page faults. Retained memory contains only zeroes: nothing that passed
//! through a buffer is left behind.

use std::io;
use std::ptr::NonNull;

use parking_lot::Mutex;

/// Buffers of at least this size are allocated here.
pub(super) const SMALLEST: usize = 64 << 10;
/// Size of a huge page; regions of a multiple of it are aligned to it.
const HUGE: usize = 2 << 20;
/// Maximum amount retained; anything beyond it is returned to the kernel.
const KEPT: usize = 16 << 20;

/// Regions that are not in use, roughly in the order in which they were returned.
static FREE: Mutex<Free> = Mutex::new(Free {
    regions: Vec::new(),
    bytes: 0,
});

struct Free {
    regions: Vec<Region>,
    bytes: usize,
}

/// A region mapped from the kernel. Dropping it does not free it: [`give`] does.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) start: NonNull<u8>,
    pub(super) len: usize,
}

// SAFETY: the region is owned by the value, like the memory of a Vec<u8>.
unsafe impl Send for Region {}
// SAFETY: a shared reference gives no access to the memory.
unsafe impl Sync for Region {}

/// The length of the region for this many bytes: there are few different ones, so that they can be reused.
fn rounded(len: usize) -> Option<usize> {
    if len <= HUGE {
        Some(len.max(SMALLEST).next_power_of_two())
    } else {
        len.checked_next_multiple_of(HUGE)
    }
}

/// A region of at least `len` zero bytes. Fails with `ENOMEM` if there is no memory.
pub(super) fn take(len: usize) -> io::Result<Region> {
    let lack = || io::Error::from_raw_os_error(libc::ENOMEM);
    let len = rounded(len).ok_or_else(lack)?;
    let kept = {
        let mut free = FREE.lock();
        let at = free.regions.iter().rposition(|region| region.len == len);
        at.map(|at| {
            free.bytes -= len;
            free.regions.swap_remove(at)
        })
    };
    match kept {
        Some(region) => Ok(region),
        None => map(len).ok_or_else(lack),
    }
}

/// Returns a region to the pool, or to the kernel.
pub(super) fn give(region: Region) {
    if region.len <= KEPT {
        let room = {
            let free = FREE.lock();
            free.bytes + region.len <= KEPT
        };
        if room {
            // SAFETY: the caller owns all of the region.
            unsafe { region.start.as_ptr().write_bytes(0, region.len) };
            let mut free = FREE.lock();
            if free.bytes + region.len <= KEPT && free.regions.try_reserve(1).is_ok() {
                free.bytes += region.len;
                free.regions.push(region);
                return;
            }
        }
    }
    // SAFETY: the region was mapped with this length and is no longer used.
    unsafe { libc::munmap(region.start.as_ptr().cast(), region.len) };
}

/// Maps fresh memory; if large, it is aligned to huge pages and may consist of them.
fn map(len: usize) -> Option<Region> {
    let large = len >= HUGE;
    let whole = if large { len.checked_add(HUGE)? } else { len };
    // SAFETY: a private anonymous mapping at an address chosen by the kernel; it replaces nothing.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            whole,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    let mut start = NonNull::new(start.cast::<u8>())?;
    if large {
        let before = start.as_ptr().align_offset(HUGE).min(HUGE);
        // SAFETY: `before` bytes and `len` more are within the mapping; its two ends, of whole pages, are not used. A
        // mapping that stays longer than wanted does no harm, nor does mere advice.
        unsafe {
            start = start.add(before);
            if before > 0 {
                libc::munmap(start.as_ptr().sub(before).cast(), before);
            }
            if before < HUGE {
                libc::munmap(start.as_ptr().add(len).cast(), HUGE - before);
            }
            libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE);
        }
    }
    Some(Region { start, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(region: &mut Region) -> &mut [u8] {
        // SAFETY: only this test uses the region.
        unsafe { std::slice::from_raw_parts_mut(region.start.as_ptr(), region.len) }
    }

    #[test]
    fn regions_are_aligned_zero_and_used_again() {
        for (len, want, align) in [
            (1, 64 << 10, 4096),
            (100_000, 128 << 10, 4096),
            (2 << 20, 2 << 20, 2 << 20),
            ((2 << 20) + 1, 4 << 20, 2 << 20),
        ] {
            let mut region = take(len).unwrap();
            assert_eq!(region.len, want);
            assert_eq!(region.start.as_ptr() as usize % align, 0);
            assert!(bytes(&mut region).iter().all(|byte| *byte == 0));
            bytes(&mut region).fill(7);
            give(region);
            let mut region = take(len).unwrap();
            assert!(bytes(&mut region).iter().all(|byte| *byte == 0));
            give(region);
        }
        assert!(FREE.lock().bytes <= KEPT);
        assert_eq!(
            take(usize::MAX / 2).unwrap_err().raw_os_error(),
            Some(libc::ENOMEM)
        );
        assert!(take(usize::MAX).is_err());
    }
}
