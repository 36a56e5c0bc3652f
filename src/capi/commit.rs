//! The job that commits an overlay.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use bstr::BStr;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, sole, taken_over};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::open::{LOCATION_FLAGS, location, merged, platter_open_options};
use crate::capi::text::optional_name;
use crate::image::OpenOptions;
use crate::location::Location;
use crate::ops::commit::{CommitRequest, commit, commit_image};

/// Flag of `platter_commit_job_new()`: leave the overlay as it is instead of emptying it.
pub const PLATTER_COMMIT_KEEP: u32 = 1;

/// Creates a job that copies the contents of the image at `location` and of the layers below it down into `base`, an
/// image of its backing chain; NULL is the one directly below. `base` is its name as the layer above records or sees
/// it, or any other name of the same file, relative to the current directory. A smaller base is grown first. Once all
/// this is durable, the image is emptied, unless a filter is above it, or `base` or `PLATTER_COMMIT_KEEP` is given. The
/// job opens the images for writing, as `options` (may be NULL for the defaults) specify, and closes them; the policy
/// must allow the chain. `flags` are bits of `PLATTER_COMMIT_*` and at most one `PLATTER_LOCATION_*`. A job that fails
/// or is cancelled leaves part of the data in the base; the image reads as before. `*out` belongs to the caller, who
/// frees it with `platter_job_free()`.
///
/// Statuses: INVALID; of the job: those of `platter_image_open()`, INVALID without a backing file,
/// NOT_FOUND where `base` is not in the chain, UNSUPPORTED, NO_SPACE, OS, CORRUPT. Threads: any. Since
/// 0.1.
///
/// # Safety
/// `location` and `base` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_commit_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    location: *const c_char,
    base: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_COMMIT_KEEP | LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        // SAFETY: by the contract of this function.
        let base = unsafe { optional_name(base) };
        let request = request(location, merged(options, 0)?, base, flags);
        Ok(NewJob::with_rate().into_owner("commit", move |job| commit(&request, job)))
    })
}

/// As `platter_commit_job_new()`, for an image that is open for writing, with its backing chain. If this call succeeds,
/// the job has taken over `image`: it must not be used any more, and the job closes it when the job ends, in whatever
/// way, or is freed. `options` specify how the base is opened once more, for writing: with the policy, the secrets and
/// the storages with which `image` was opened. `flags` are bits of `PLATTER_COMMIT_*`.
///
/// Statuses: as `platter_commit_job_new()`; BUSY where a job, a queue, an export, a storage or another image uses
/// `image`; of the job: READ_ONLY, INVALID where the backing chain was left closed. Threads: one, once. Since 0.1.
///
/// # Safety
/// `base` is NULL or NUL-terminated; the image is not used afterwards if this succeeds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_commit_image_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: *mut platter_image,
    base: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_COMMIT_KEEP)?;
        // SAFETY: by the contract of this function.
        let base = unsafe { optional_name(base) };
        let options = merged(options, 0)?;
        // SAFETY: by the contract of this function.
        let (image, control) = unsafe { taken_over(image)? };
        let request = request(image.location().clone(), options, base, flags);
        let new = NewJob::with_rate().heeding(&control);
        Ok(new.into_owner("commit", move |job| {
            commit_image(sole(image)?, &request, job)
        }))
    })
}

fn request(
    location: Location,
    options: OpenOptions,
    base: Option<&BStr>,
    flags: u32,
) -> CommitRequest {
    CommitRequest {
        location,
        options,
        base: base.map(BStr::to_owned),
        keep: flags & PLATTER_COMMIT_KEEP != 0,
    }
}
