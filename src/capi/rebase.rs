//! The job that gives an overlay another backing file.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use bstr::BStr;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::job::{NewJob, platter_job};
use crate::capi::open::{LOCATION_FLAGS, cache_mode, location, merged, platter_open_options};
use crate::capi::report::Content;
use crate::capi::text::{optional_name, optional_utf8};
use crate::ops::rebase::{RebaseRequest, rebase};
use crate::storage::CacheMode;

/// Flag of `platter_rebase_job_new()`: change the name alone. No backing file is opened, and the guest
/// may see other data.
pub const PLATTER_REBASE_NAME_ONLY: u32 = 1;
/// Flag of `platter_rebase_job_new()`: write what is copied compressed.
pub const PLATTER_REBASE_COMPRESS: u32 = 2;
/// Flag of `platter_rebase_job_new()`: open the new backing file without locks that exclude others.
pub const PLATTER_REBASE_SHARE_BACKING: u32 = 4;

/// Makes a job that gives the image at `location` the backing file `backing`, as the name is to stand in
/// the image; NULL or an empty name is none. What the guest sees stays the same: data that the new
/// chain does not show is copied into the image first. `backing_format` is recorded and must be given
/// with a name; `backing_cache` (may be NULL: `writeback`) is the cache mode of the new backing file.
/// The job opens the images, for writing, as `options` (may be NULL for the defaults) say, and closes
/// them; the policy must allow the chains. `flags` are bits of `PLATTER_REBASE_*` and at most one
/// `PLATTER_LOCATION_*`. A job that fails or is cancelled leaves the image on its present backing file,
/// with part of the data copied. `*out` belongs to the caller, who frees it with
/// `platter_job_free()`.
///
/// Statuses: INVALID; of the job: those of `platter_image_open()`, UNSUPPORTED where the format has no
/// backing files, NO_SPACE, LIMIT, OS, CORRUPT. Threads: any. Since 0.1.
///
/// # Safety
/// The strings are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_rebase_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    location: *const c_char,
    backing: *const c_char,
    backing_format: *const c_char,
    backing_cache: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(
            flags,
            PLATTER_REBASE_NAME_ONLY
                | PLATTER_REBASE_COMPRESS
                | PLATTER_REBASE_SHARE_BACKING
                | LOCATION_FLAGS,
        )?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        // SAFETY: by the contract of this function.
        let backing = unsafe { optional_name(backing) };
        // SAFETY: by the contract of this function.
        let backing_format = unsafe { optional_utf8(backing_format, "backing_format")? };
        let backing_cache = if backing_cache.is_null() {
            CacheMode::Writeback
        } else {
            // SAFETY: by the contract of this function.
            unsafe { cache_mode(backing_cache)? }
        };
        let request = RebaseRequest {
            location,
            options: merged(options, 0)?,
            backing: backing.filter(|name| !name.is_empty()).map(BStr::to_owned),
            backing_format: backing_format.map(str::to_owned),
            backing_cache,
            share_backing: flags & PLATTER_REBASE_SHARE_BACKING != 0,
            name_only: flags & PLATTER_REBASE_NAME_ONLY != 0,
            compress: flags & PLATTER_REBASE_COMPRESS != 0,
        };
        Ok(NewJob::with_rate().into_handle(
            "rebase",
            None,
            Vec::new(),
            Box::new(move |job, _| {
                rebase(&request, job).map(|()| Content::Done { virtual_size: None })
            }),
        ))
    })
}
