//! Memory shared with a device.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, fence};

/// Zeroed pages without any reference to them: they may change at any time.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages belong to this value, and are accessed only by copying.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; two concurrent copies read or leave a mix of bytes, as with the device.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Allocates this many bytes, in whole pages.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: new pages, at an address chosen by the kernel.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = Self {
            start: NonNull::new(start.cast())
                .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?,
            len,
        };
        // Copy-on-write for a child process must not take pages away from the device.
        // SAFETY: the pages of this mapping.
        super::check(unsafe { libc::madvise(start, len, libc::MADV_DONTFORK) })?;
        Ok(memory)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Its address in this process.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// The address of a range, which must be inside.
    fn place(&self, at: usize, len: usize) -> io::Result<NonNull<u8>> {
        match at.checked_add(len) {
            // SAFETY: `at` is inside the mapping, or at its end if nothing is copied.
            Some(end) if end <= self.len => Ok(unsafe { self.start.add(at) }),
            _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        }
    }

    /// Copies data out; it is as new as any notice of it that was read before.
    pub(crate) fn read(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        let place = self.place(at, into.len())?;
        fence(Ordering::Acquire);
        // SAFETY: `place` has that many bytes, and nothing in this process refers to them.
        unsafe { ptr::copy_nonoverlapping(place.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies data in; it becomes visible before anything that this thread writes afterwards.
    pub(crate) fn write(&self, at: usize, from: &[u8]) -> io::Result<()> {
        let place = self.place(at, from.len())?;
        // SAFETY: as in `read`.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), place.as_ptr(), from.len()) };
        fence(Ordering::Release);
        Ok(())
    }

    /// Reads the current word at an offset that is a multiple of four, in one access.
    pub(crate) fn word(&self, at: usize) -> io::Result<u32> {
        let place = self.place(at, 4)?;
        if !at.is_multiple_of(4) {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        // SAFETY: four bytes of the mapping, aligned because it begins at a page.
        let word = unsafe { place.cast::<u32>().as_ptr().read_volatile() };
        fence(Ordering::Acquire);
        Ok(u32::from_le(word))
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping from `new`. The kernel keeps what a device has access to until that access ends.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_is_refused() {
        let memory = SharedMemory::new(8192).unwrap();
        memory.write(8190, &[1, 2]).unwrap();
        let mut two = [0; 2];
        memory.read(8190, &mut two).unwrap();
        assert_eq!((two, memory.word(8188).unwrap()), ([1, 2], 0x0201_0000));
        memory.read(8192, &mut []).unwrap();
        memory.read(8191, &mut two).unwrap_err();
        memory.write(usize::MAX, &two).unwrap_err();
        memory.word(8190).unwrap_err();
        memory.word(8192).unwrap_err();
    }
}
