//! The job that compares two images.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::report::Content;
use crate::ops;

/// Flag of `platter_compare_job_new()`: allocation and size must match too.
pub const PLATTER_COMPARE_STRICT: u32 = 1;

/// Creates a job that compares the guest bytes of two images; the excess of a longer one must be zeroes. The job keeps
/// the images alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` is 0 or
/// `PLATTER_COMPARE_STRICT`. Images that differ are a report, not an error. The job changes nothing, even if it is
/// cancelled.
///
/// Statuses: INVALID; of the job: OS, CORRUPT. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_compare_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    a: Option<&platter_image>,
    b: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_COMPARE_STRICT)?;
        let images = vec![shared_of(a, "a")?, shared_of(b, "b")?];
        let strict = flags & PLATTER_COMPARE_STRICT != 0;
        Ok(NewJob::with_rate().into_handle(
            "compare",
            None,
            images,
            Box::new(move |job, images| {
                ops::compare::compare(&images[0], &images[1], strict, job).map(Content::Compare)
            }),
        ))
    })
}
