//! Information about images.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_out, call_ref_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::image::platter_image;
use crate::capi::open::{
    LOCATION_FLAGS, PLATTER_OPEN_FORCE_SHARE, PLATTER_OPEN_METADATA_ONLY, location, merged,
    platter_open_options,
};
use crate::capi::report::{Content, Inner, platter_report};
use crate::ops;

/// Flag of `platter_image_describe()`: report the whole backing chain.
pub const PLATTER_INFO_CHAIN: u32 = 0x100;

/// Reports what the image at `location` is. Only its metadata is read: no data file is opened, and
/// backing files only with `PLATTER_INFO_CHAIN`. `options` may be NULL for the defaults. `flags` are
/// bits of `PLATTER_OPEN_FORCE_SHARE`, `PLATTER_INFO_CHAIN` and at most one `PLATTER_LOCATION_*`.
/// `*out` belongs to the caller, who frees it with `platter_report_free()`.
///
/// Statuses: as `platter_image_open()`. Threads: any. Since 0.1.
///
/// # Safety
/// `location` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_describe(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    location: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(
            flags,
            PLATTER_OPEN_FORCE_SHARE | PLATTER_INFO_CHAIN | LOCATION_FLAGS,
        )?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        let options = merged(options, flags | PLATTER_OPEN_METADATA_ONLY)?;
        let report = ops::info::info(&location, &options, flags & PLATTER_INFO_CHAIN != 0)?;
        Ok(platter_report::new(Inner::new(Content::Info(report))))
    })
}

/// Reports what an open image is, as `platter_image_describe()` does: the image as it is open, wherever it was opened
/// from, and with `PLATTER_INFO_CHAIN` also the images below it that are open with it. If the image is open for
/// writing, what it has cached is written out first. `flags` is 0 or `PLATTER_INFO_CHAIN`. `*out` belongs to the
/// caller, who frees it with `platter_report_free()`.
///
/// Statuses: OS, NO_SPACE, CORRUPT, CANCELLED, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_info(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, image, "image", err, |image| {
        check_flags(flags, PLATTER_INFO_CHAIN)?;
        let chain = flags & PLATTER_INFO_CHAIN != 0;
        let report = ops::info::info_of_open(image.shared(), image.control(), chain)?;
        Ok(platter_report::new(Inner::new(Content::Info(report))))
    })
}
