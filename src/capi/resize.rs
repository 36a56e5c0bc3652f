//! The job that changes the virtual size of an image.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::report::Content;
use crate::capi::text::optional_utf8;
use crate::error::Error;
use crate::ops::resize::{NewSize, ResizeRequest, preallocation_from_name, resize};
use crate::storage::Preallocation;

/// Flag of `platter_resize_job_new()`: the size is added to the current one.
pub const PLATTER_RESIZE_MORE: u32 = 1;
/// Flag of `platter_resize_job_new()`: the size is subtracted from the current one.
pub const PLATTER_RESIZE_LESS: u32 = 2;
/// Flag of `platter_resize_job_new()`: allow the image to shrink, which deletes what is beyond its new end.
pub const PLATTER_RESIZE_SHRINK: u32 = 4;

/// Creates a job that changes the virtual size of `image`, which is open for writing, to `size` bytes, rounded
/// up to 512. `preallocation` (may be NULL: `off`) is `off`, `metadata`, `falloc` or `full` and determines how space
/// for the grown part is reserved. `flags` are bits of `PLATTER_RESIZE_*`. Nothing else may use the image while the job
/// runs. A job that is cancelled, or past its deadline, leaves the size as it was; but while a shrink frees what was
/// beyond the new end, it leaves the new size, and the next resize frees the rest. The report has the new size as
/// `virtual-size`. The job keeps the image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`.
///
/// Statuses: INVALID, also for a size out of range; of the job: INVALID for a sum out of range and for a size that is
/// smaller without `PLATTER_RESIZE_SHRINK`, UNSUPPORTED, READ_ONLY, LOCKED, LIMIT, NO_SPACE, OS, CORRUPT. Threads: any.
/// Since 0.1.
///
/// # Safety
/// `preallocation` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_resize_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    size: u64,
    preallocation: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(
            flags,
            PLATTER_RESIZE_MORE | PLATTER_RESIZE_LESS | PLATTER_RESIZE_SHRINK,
        )?;
        let images = vec![shared_of(image, "image")?];
        // SAFETY: by the contract of this function.
        let preallocation = unsafe { optional_utf8(preallocation, "preallocation")? };
        let size = match flags & (PLATTER_RESIZE_MORE | PLATTER_RESIZE_LESS) {
            0 => NewSize::Exactly(size),
            PLATTER_RESIZE_MORE => NewSize::More(size),
            PLATTER_RESIZE_LESS => NewSize::Less(size),
            _ => {
                return Err(Error::invalid(
                    "Parameter 'flags' asks for a larger and a smaller size",
                ));
            }
        };
        size.check()?;
        let request = ResizeRequest {
            size,
            preallocation: preallocation.map_or(Ok(Preallocation::Off), preallocation_from_name)?,
            shrink: flags & PLATTER_RESIZE_SHRINK != 0,
        };
        Ok(NewJob::new().into_handle(
            "resize",
            None,
            images,
            Box::new(move |job, images| {
                resize(&images[0], &request, job).map(|virtual_size| Content::Done {
                    virtual_size: Some(virtual_size),
                })
            }),
        ))
    })
}
