//! The job that maps an image.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::capi::error::platter_error;
use crate::capi::guard::{call_out, check_flags};
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::report::Content;
use crate::ops;

/// Length of `platter_map_job_new()`: to the end of the image.
pub const PLATTER_LENGTH_ALL: u64 = u64::MAX;

/// Makes a job that maps `length` guest bytes of `image` and its backing chain from `start`; a length
/// past the end is cut. The job keeps the image alive. `*out` belongs to the caller, who frees it
/// with `platter_job_free()`. `flags` must be 0.
///
/// Statuses: INVALID; of the job: OS, CORRUPT. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_map_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    start: u64,
    length: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let images = vec![shared_of(image, "image")?];
        let length = (length != PLATTER_LENGTH_ALL).then_some(length);
        Ok(NewJob::new().into_handle(
            "map",
            None,
            images,
            Box::new(move |job, images| {
                ops::map::map(&images[0], start, length, job).map(Content::Map)
            }),
        ))
    })
}
