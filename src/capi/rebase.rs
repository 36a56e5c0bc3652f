//! The job that gives an overlay another backing file.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use bstr::{BStr, BString};

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::driver_name::{self, PLATTER_NAME_UNCHECKED};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, sole, taken_over};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::open::{LOCATION_FLAGS, cache_mode, location, merged, platter_open_options};
use crate::capi::text::optional_name;
use crate::error::Result;
use crate::image::OpenOptions;
use crate::location::Location;
use crate::ops::rebase::{RebaseRequest, rebase, rebase_image};
use crate::storage::CacheMode;

/// Flag of `platter_rebase_job_new()`: change only the name. No backing file is opened, and the guest may see different
/// data.
pub const PLATTER_REBASE_NAME_ONLY: u32 = 1;
/// Flag of `platter_rebase_job_new()`: compress the data that is copied.
pub const PLATTER_REBASE_COMPRESS: u32 = 2;
/// Flag of `platter_rebase_job_new()`: open the new backing file without locks that exclude others.
pub const PLATTER_REBASE_SHARE_BACKING: u32 = 4;

const FLAGS: u32 = PLATTER_REBASE_NAME_ONLY
    | PLATTER_REBASE_COMPRESS
    | PLATTER_REBASE_SHARE_BACKING
    | PLATTER_NAME_UNCHECKED;

/// Creates a job that gives the image at `location` the backing file `backing`, which is the name to record in the
/// image; NULL or an empty name means none. What the guest sees stays the same: data that the new chain does not
/// provide is first copied into the image. `backing_format` is recorded and must be given with a name; `backing_cache`
/// (may be NULL: `writeback`) is the cache mode of the new backing file. The job opens the images, for writing, as
/// `options` (may be NULL for the defaults) specify, and closes them; the policy must allow the chains. `flags` are
/// bits of `PLATTER_REBASE_*`, `PLATTER_NAME_UNCHECKED` and at most one `PLATTER_LOCATION_*`. A job that fails or is
/// cancelled leaves the image on its current backing file, with part of the data copied. `*out` belongs to the caller,
/// who frees it with `platter_job_free()`.
///
/// Statuses: UNSUPPORTED (an unknown format), INVALID; of the job: those of `platter_image_open()`, UNSUPPORTED where
/// the format has no backing files, NO_SPACE, LIMIT, OS, CORRUPT. Threads: any. Since 0.1.
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
        check_flags(flags, FLAGS | LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        let options = merged(options, 0)?;
        // SAFETY: by the contract of this function.
        let backing = unsafe { NewBacking::new(backing, backing_format, backing_cache, flags)? };
        let request = backing.request(location, options, flags);
        Ok(NewJob::with_rate().into_owner("rebase", move |job| rebase(&request, job)))
    })
}

/// As `platter_rebase_job_new()`, for an image that is open for writing, with its backing chain unless
/// `PLATTER_REBASE_NAME_ONLY` is given. If this call succeeds, the job has taken over `image`: it must not be used any
/// more, and the job closes it when it ends, however that happens, or is freed. `options` specify how the new backing
/// file is opened: with which policy, secrets and storages. `flags` are bits of `PLATTER_REBASE_*` and
/// `PLATTER_NAME_UNCHECKED`.
///
/// Statuses: as `platter_rebase_job_new()`; BUSY where a job, a queue, an export, a storage or another image uses
/// `image`; of the job: READ_ONLY, INVALID where the backing chain was left closed. Threads: one, once. Since 0.1.
///
/// # Safety
/// The strings are NULL or NUL-terminated; the image is not used afterwards if this succeeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_rebase_image_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: *mut platter_image,
    backing: *const c_char,
    backing_format: *const c_char,
    backing_cache: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, FLAGS)?;
        let options = merged(options, 0)?;
        // SAFETY: by the contract of this function.
        let backing = unsafe { NewBacking::new(backing, backing_format, backing_cache, flags)? };
        // SAFETY: by the contract of this function.
        let (image, control) = unsafe { taken_over(image)? };
        let request = backing.request(image.location().clone(), options, flags);
        let new = NewJob::with_rate().heeding(&control);
        Ok(new.into_owner("rebase", move |job| {
            rebase_image(sole(image)?, &request, job)
        }))
    })
}

/// The backing file to give to an image.
struct NewBacking {
    name: Option<BString>,
    format: Option<String>,
    cache: CacheMode,
}

impl NewBacking {
    /// # Safety
    /// The strings are NULL or NUL-terminated.
    unsafe fn new(
        name: *const c_char,
        format: *const c_char,
        cache: *const c_char,
        flags: u32,
    ) -> Result<Self> {
        // SAFETY: by this function's contract.
        let name = unsafe { optional_name(name) };
        // SAFETY: by this function's contract.
        let format = unsafe { driver_name::recorded(format, "backing_format", flags)? };
        let cache = if cache.is_null() {
            CacheMode::Writeback
        } else {
            // SAFETY: by this function's contract.
            unsafe { cache_mode(cache)? }
        };
        Ok(Self {
            name: name.filter(|name| !name.is_empty()).map(BStr::to_owned),
            format,
            cache,
        })
    }

    fn request(self, location: Location, options: OpenOptions, flags: u32) -> RebaseRequest {
        RebaseRequest {
            location,
            options,
            backing: self.name,
            backing_format: self.format,
            backing_cache: self.cache,
            share_backing: flags & PLATTER_REBASE_SHARE_BACKING != 0,
            name_only: flags & PLATTER_REBASE_NAME_ONLY != 0,
            compress: flags & PLATTER_REBASE_COMPRESS != 0,
        }
    }
}
