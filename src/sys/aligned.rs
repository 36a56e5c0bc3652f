//! Buffers aligned as direct I/O requires, and such that the kernel copies to them at full speed.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::pool::{self, Region};

/// The alignment of every buffer that is at least this long.
const PAGE: usize = 4096;

/// A byte buffer, initially zeroed, whose address is a multiple of its alignment.
pub(crate) struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

/// Where the memory is returned to.
enum Owner {
    Heap(Layout),
    Pool,
}

// SAFETY: the buffer is the only owner of its memory, like a Vec<u8>.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared reference only allows reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// At least `len` zero bytes, aligned to `align`, a power of two, and to a page if `len` is at least one. Fails
    /// with `ENOMEM` if there is no memory.
    pub(crate) fn zeroed(len: usize, align: usize) -> io::Result<Self> {
        let align = align.max(1).next_power_of_two();
        if len >= pool::SMALLEST && align <= PAGE {
            let region = pool::take(len)?;
            return Ok(Self {
                start: region.start,
                len: region.len,
                owner: Owner::Pool,
            });
        }
        let lack = || io::Error::from_raw_os_error(libc::ENOMEM);
        let align = if len >= PAGE { align.max(PAGE) } else { align };
        let layout = Layout::from_size_align(len.max(align), align).map_err(|_| lack())?;
        // SAFETY: the size of the layout is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or_else(lack)?;
        Ok(Self {
            start,
            len: layout.size(),
            owner: Owner::Heap(layout),
        })
    }

    /// Whether `pointer` is a multiple of `align`.
    pub(crate) fn is_aligned(pointer: *const u8, align: u32) -> bool {
        (pointer as usize).is_multiple_of(align.max(1) as usize)
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `len` initialised bytes owned by self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        match self.owner {
            // SAFETY: allocated with this layout by `zeroed` and freed once.
            Owner::Heap(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            Owner::Pool => pool::give(Region {
                start: self.start,
                len: self.len,
            }),
        }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} at {:p})", self.len, self.start)
    }
}
