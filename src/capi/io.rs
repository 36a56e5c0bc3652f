//! Reading and writing open images.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_ref, call_ref_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::extent::{
    PLATTER_EXTENT_COMPRESSED, PLATTER_EXTENT_DATA, PLATTER_EXTENT_HOST_OFFSET,
    PLATTER_EXTENT_PRESENT, PLATTER_EXTENT_UNKNOWN, PLATTER_EXTENT_ZERO, PLATTER_ZERO_MAY_UNMAP,
    PLATTER_ZERO_NO_FALLBACK, platter_extent,
};
use crate::capi::image::platter_image;
use crate::error::{Error, Result};
use crate::image::{Image, WriteFlags};
use crate::ops::map::MapEntry;
use crate::storage::ZeroFlags;

/// Flag of writes: the data is durable when the call returns.
pub const PLATTER_WRITE_FUA: u32 = 1;
/// A buffer of a vectored call: the system's own `struct iovec`.
pub use libc::iovec;

/// Reads `len` guest bytes at `offset` into `buf`, never fewer: the range must lie within the image. `flags` must be 0.
///
/// Align buffers of 64 KiB and more to a page (`aligned_alloc(4096, len)`): large blocks from `malloc` start 16 bytes
/// past a page boundary, where some processors copy several times more slowly; and direct I/O can use only aligned
/// buffers as they are.
///
/// Statuses: INVALID, OS, CORRUPT. Threads: any, several at once. Since 0.1.
///
/// # Safety
/// `buf` is writable for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_read(
    image: Option<&platter_image>,
    buf: *mut c_void,
    len: usize,
    offset: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let buf = unsafe { target(buf, len, "buf")? };
        named(image, "read from", image.shared().read_at(buf, offset))
    })
}

/// Writes `len` bytes of `buf` at `offset`; the range must lie within the image. `flags` is 0 or `PLATTER_WRITE_FUA`.
/// Large buffers are best aligned as for `platter_image_read()`.
///
/// Statuses: READ_ONLY, INVALID, NO_SPACE, OS, CORRUPT. Threads: any, several at once. Since 0.1.
///
/// # Safety
/// `buf` is readable for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_write(
    image: Option<&platter_image>,
    buf: *const c_void,
    len: usize,
    offset: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, PLATTER_WRITE_FUA)?;
        // SAFETY: by the contract of this function.
        let buf = unsafe { source(buf, len, "buf")? };
        let write = |image: &Image| image.write_at(buf, offset);
        let done = image.shared().change(write_flags(flags), write);
        named(image, "write to", done)
    })
}

/// As `platter_image_read()`, into `iovcnt` buffers in turn.
///
/// Statuses and threads: as `platter_image_read()`. Since 0.1.
///
/// # Safety
/// `iov` has `iovcnt` entries, each writable for its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_readv(
    image: Option<&platter_image>,
    iov: *const iovec,
    iovcnt: u32,
    offset: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let iov = unsafe { vector(iov, iovcnt)? };
        check_vector(image.shared(), iov, offset)?;
        let mut at = offset;
        for piece in iov {
            // SAFETY: by the contract of this function.
            let buf = unsafe { target(piece.iov_base, piece.iov_len, "iov")? };
            named(image, "read from", image.shared().read_at(buf, at))?;
            at += buf.len() as u64;
        }
        Ok(())
    })
}

/// As `platter_image_write()`, from `iovcnt` buffers in turn. A failure may leave the first ones written.
///
/// Statuses and threads: as `platter_image_write()`. Since 0.1.
///
/// # Safety
/// `iov` has `iovcnt` entries, each readable for its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_writev(
    image: Option<&platter_image>,
    iov: *const iovec,
    iovcnt: u32,
    offset: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, PLATTER_WRITE_FUA)?;
        // SAFETY: by the contract of this function.
        let iov = unsafe { vector(iov, iovcnt)? };
        check_vector(image.shared(), iov, offset)?;
        let done = image.shared().change(write_flags(flags), |image| {
            let mut at = offset;
            for piece in iov {
                // SAFETY: by the contract of this function.
                let buf = unsafe { source(piece.iov_base, piece.iov_len, "iov")? };
                image.write_at(buf, at)?;
                at += buf.len() as u64;
            }
            Ok(())
        });
        named(image, "write to", done)
    })
}

/// Makes `len` guest bytes from `offset` read as zeroes. `flags` are bits of `PLATTER_WRITE_FUA`,
/// `PLATTER_ZERO_MAY_UNMAP` and `PLATTER_ZERO_NO_FALLBACK`.
///
/// Statuses: as `platter_image_write()`, UNSUPPORTED; CANCELLED by the control of the image, when a part may
/// read as zeroes. Threads: any, several at once. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_write_zeroes(
    image: Option<&platter_image>,
    offset: u64,
    len: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(
            flags,
            PLATTER_WRITE_FUA | PLATTER_ZERO_MAY_UNMAP | PLATTER_ZERO_NO_FALLBACK,
        )?;
        let control = image.control();
        let zero =
            |image: &Image| image.write_zeroes_under(control, offset, len, zero_flags(flags));
        let done = image.shared().change(write_flags(flags), zero);
        named(image, "write zeroes to", done)
    })
}

/// Discards `len` guest bytes from `offset`, which gives their space back. Whole clusters then read as zeroes, or as
/// the format defines; partial clusters at the ends are left alone. `flags` must be 0.
///
/// Statuses: as `platter_image_write()`; CANCELLED by the control of the image, when a part may be given
/// back. Threads: any, several at once. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_discard(
    image: Option<&platter_image>,
    offset: u64,
    len: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, 0)?;
        let control = image.control();
        let done = image.shared().discard_under(control, offset, len);
        named(image, "discard in", done)
    })
}

/// Prefetches `len` guest bytes from `offset`, so that reading them soon takes less time: into the page cache, into the
/// memory of an NBD server that offers it (`NBD_CMD_CACHE`), and through the whole chain. Where neither is available,
/// they are read and discarded, which leaves in memory what reading caches there; a `copy-on-read` filter copies them.
/// Data may still be on its way when the call returns. Nothing changes but the time that reading takes. `flags`
/// must be 0.
///
/// Statuses: INVALID where the range does not lie in the image, OS, CORRUPT, CANCELLED by the control of
/// the image. Threads: any, several at once. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_prefetch(
    image: Option<&platter_image>,
    offset: u64,
    len: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, 0)?;
        let control = image.control();
        let done = image.shared().prefetch(offset, len, control);
        named(image, "prefetch from", done)
    })
}

/// Makes all completed writes durable, as the cache mode specifies. `flags` must be 0.
///
/// Statuses: OS, NO_SPACE, INVALID; data may be lost then. CANCELLED where the control of the image had ended its
/// calls before. Threads: any, several at once. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_flush(
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, 0)?;
        image.control().check()?;
        named(image, "flush", image.shared().flush())
    })
}

/// Returns the longest run of guest bytes of one kind that starts at `offset` and has at most `len` bytes, looked up
/// through the backing chain: the same as a map reports for these bytes. `len` must not be 0, and the range must lie
/// within the image. A run without `PLATTER_EXTENT_ZERO` may still hold zeroes; one with it reads as zeroes. See
/// `PLATTER_EXTENT_UNKNOWN` for images opened without their backing file. `flags` must be 0.
///
/// Statuses: INVALID, OS, CORRUPT, CANCELLED by the control of the image. Threads: any, several at once.
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_extent(
    out: Option<&mut MaybeUninit<platter_extent>>,
    image: Option<&platter_image>,
    offset: u64,
    len: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, image, "image", err, |image| {
        check_flags(flags, 0)?;
        if len == 0 {
            return Err(Error::invalid("Parameter 'len' is 0"));
        }
        let control = image.control();
        let status = image.shared().status_under(control, offset, len);
        let status = named(image, "look up what lies in", status)?;
        Ok(MapEntry::new(offset, &status).into())
    })
}

impl From<MapEntry> for platter_extent {
    fn from(entry: MapEntry) -> Self {
        let flags = [
            (entry.data, PLATTER_EXTENT_DATA),
            (entry.zero, PLATTER_EXTENT_ZERO),
            (entry.present, PLATTER_EXTENT_PRESENT),
            (entry.compressed, PLATTER_EXTENT_COMPRESSED),
            (entry.unknown, PLATTER_EXTENT_UNKNOWN),
            (entry.offset.is_some(), PLATTER_EXTENT_HOST_OFFSET),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag);
        Self {
            offset: entry.start,
            length: entry.length,
            host_offset: entry.offset.unwrap_or(0),
            depth: entry.depth,
            flags: flags.sum(),
            reserved: [0; 4],
        }
    }
}

/// Adds the name of the file to a message that is only the operating system's.
fn named<T>(image: &platter_image, what: &str, done: Result<T>) -> Result<T> {
    done.map_err(|error| {
        let name = error.file().unwrap_or(image.shared().filename());
        let message = format!("Could not {what} '{name}'");
        error.context_if_bare(|| message)
    })
}

/// The flags for zeroing among those of a call.
pub(super) fn zero_flags(flags: u32) -> ZeroFlags {
    let mut zero = ZeroFlags::empty();
    zero.set(ZeroFlags::MAY_UNMAP, flags & PLATTER_ZERO_MAY_UNMAP != 0);
    zero.set(
        ZeroFlags::NO_FALLBACK,
        flags & PLATTER_ZERO_NO_FALLBACK != 0,
    );
    zero
}

/// The flags for writing among those of a call.
fn write_flags(flags: u32) -> WriteFlags {
    let mut write = WriteFlags::empty();
    write.set(WriteFlags::FUA, flags & PLATTER_WRITE_FUA != 0);
    write
}

/// Checks the whole range first, so that an invalid one changes nothing.
fn check_vector(image: &Image, iov: &[iovec], offset: u64) -> Result<()> {
    let end = iov.iter().try_fold(offset, |end, piece| {
        if piece.iov_base.is_null() && piece.iov_len != 0 {
            return None;
        }
        end.checked_add(piece.iov_len as u64)
    });
    match end {
        Some(end) if end <= image.len() => Ok(()),
        Some(_) => Err(Error::invalid("The range ends past the end of the image")),
        None => Err(Error::invalid(
            "Parameter 'iov' has a NULL buffer or is too long",
        )),
    }
}

/// The `iovcnt` entries at `iov`.
pub(super) unsafe fn vector<'a>(iov: *const iovec, iovcnt: u32) -> Result<&'a [iovec]> {
    if iovcnt == 0 {
        return Ok(&[]);
    }
    if iov.is_null() {
        return Err(Error::invalid("Parameter 'iov' is NULL"));
    }
    // SAFETY: by the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(iov, iovcnt as usize) })
}

unsafe fn target<'a>(buf: *mut c_void, len: usize, name: &str) -> Result<&'a mut [u8]> {
    check_buffer(buf, len, name)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: by the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts_mut(buf.cast(), len) })
}

unsafe fn source<'a>(buf: *const c_void, len: usize, name: &str) -> Result<&'a [u8]> {
    check_buffer(buf, len, name)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: by the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(buf.cast(), len) })
}

/// Refuses a buffer that cannot be a slice.
pub(super) fn check_buffer(buf: *const c_void, len: usize, name: &str) -> Result<()> {
    if buf.is_null() && len != 0 {
        return Err(Error::invalid(format!("Parameter '{name}' is NULL")));
    }
    if len > isize::MAX as usize {
        return Err(Error::invalid(format!("Parameter '{name}' is too long")));
    }
    Ok(())
}
