//! The persistent dirty bitmaps of an image.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_ref, call_ref_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, shared_of};
use crate::capi::report::{Content, Inner, platter_report};
use crate::capi::text::name;
use crate::error::Result;
use crate::ops::bitmap::{self, Change};

/// Reports the persistent dirty bitmaps of an open image, in the order of its directory; none for a format without
/// them. A bitmap that this image records into is consistent here, although it stays marked as in use on disk until the
/// image is closed. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags` must be 0.
///
/// Statuses: CORRUPT, OS, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_bitmap_list(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, image, "image", err, |image| {
        check_flags(flags, 0)?;
        let shared = shared_of(Some(image), "image")?;
        let report = bitmap::list(&shared)?;
        Ok(platter_report::new(Inner::new(Content::Bitmaps(report))))
    })
}

/// Reports which of the `length` guest bytes from `offset` on the bitmap `name` marks as dirty: what has changed since
/// it was added or cleared, rounded out to its granularity, including what was written through this open image. A range
/// past the end of the image is truncated. Each entry of the report is a run, as returned by `platter_report_extent()`
/// or by the keys `start` and `length`; the call fails if there are more than 1,048,576, so query a large image in
/// parts. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags` must be 0.
///
/// Statuses: NOT_FOUND, LIMIT, CORRUPT where the bitmap is inconsistent or damaged, OS, INVALID, CANCELLED by
/// the control of the image. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_bitmap_dirty(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    image: Option<&platter_image>,
    name: *const c_char,
    offset: u64,
    length: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, image, "image", err, |image| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { self::name(name, "name")? };
        let shared = shared_of(Some(image), "image")?;
        let range = offset..offset.saturating_add(length);
        let report = bitmap::dirty_under(image.control(), &shared, name, range)?;
        Ok(platter_report::new(Inner::new(Content::Dirty(report))))
    })
}

/// Applies a change to a bitmap.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
unsafe fn change(
    image: Option<&platter_image>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
    change: Change<'_>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { self::name(name, "name")? };
        let shared = shared_of(Some(image), "image")?;
        bitmap::change_under(image.control(), &shared, name, &change)
    })
}

/// Adds an empty bitmap to `image`, which must be writable; it records every write from now on, including those of
/// later users. `granularity` is the number of guest bytes per bit, a power of 2 from 512 to 2 GiB, or 0 for the
/// format's default. The change is on disk when the call returns. `flags` must be 0.
///
/// Statuses: EXISTS, INVALID, LIMIT where it would be too large, UNSUPPORTED, READ_ONLY, NO_SPACE,
/// OS, CORRUPT; CANCELLED by the control of the image. Nothing has changed then. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_bitmap_add(
    image: Option<&platter_image>,
    name: *const c_char,
    granularity: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let granularity = (granularity != 0).then_some(granularity);
    // SAFETY: by the contract of this function.
    unsafe { change(image, name, flags, err, Change::Add(granularity)) }
}

/// Removes a bitmap, even an inconsistent one, from `image`, which must be writable. `flags` must be 0.
///
/// Statuses: NOT_FOUND, INVALID, READ_ONLY, NO_SPACE, OS, CORRUPT; CANCELLED by the control of the image.
/// Nothing has changed then. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_bitmap_remove(
    image: Option<&platter_image>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // SAFETY: by the contract of this function.
    unsafe { change(image, name, flags, err, Change::Remove) }
}

/// Clears all bits of a bitmap of `image`, which must be writable. A concurrent write is recorded if it completes
/// later. `flags` must be 0.
///
/// Statuses: as `platter_bitmap_remove()`; CORRUPT also where the bitmap is inconsistent. Threads: any.
/// Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_bitmap_clear(
    image: Option<&platter_image>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // SAFETY: by the contract of this function.
    unsafe { change(image, name, flags, err, Change::Clear) }
}

/// Enables a bitmap of `image`, which must be writable, to record what is written from now on. `flags` must be 0.
///
/// Statuses: as `platter_bitmap_clear()`. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_bitmap_enable(
    image: Option<&platter_image>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // SAFETY: by the contract of this function.
    unsafe { change(image, name, flags, err, Change::Enable) }
}

/// Disables a bitmap of `image`, which must be writable, so that it records no more; what it has recorded stays.
/// `flags` must be 0.
///
/// Statuses: as `platter_bitmap_clear()`. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_bitmap_disable(
    image: Option<&platter_image>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // SAFETY: by the contract of this function.
    unsafe { change(image, name, flags, err, Change::Disable) }
}

/// Adds the dirty bits of the bitmap `source` of the image `from` (NULL: of `image` itself) to the bitmap
/// `name` of `image`, which must be writable. The granularities may differ: bits are rounded out. Both
/// images must have the same virtual size. `flags` must be 0.
///
/// Statuses: as `platter_bitmap_clear()`; INVALID where the sizes differ. Threads: any. Since 0.1.
///
/// # Safety
/// `name` and `source` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_bitmap_merge(
    image: Option<&platter_image>,
    name: *const c_char,
    from: Option<&platter_image>,
    source: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| -> Result<()> {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let (name, source) = unsafe { (self::name(name, "name")?, self::name(source, "source")?) };
        let shared = shared_of(Some(image), "image")?;
        let from = from.map(|from| shared_of(Some(from), "from")).transpose()?;
        let other = from.as_ref().map(|from| &***from);
        let merge = Change::Merge(other, source);
        bitmap::change_under(image.control(), &shared, name, &merge)
    })
}
