//! The job that checks an image.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::capi::error::platter_error;
use crate::capi::guard::{call_out, check_flags};
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::report::Content;
use crate::format::RepairMode;
use crate::ops;

/// Makes a job that checks the consistency of `image`, which was opened with
/// `PLATTER_OPEN_FOR_CHECK`. Each finding is a message, a `PLATTER_MESSAGE_NOTE`; the report has the
/// numbers. The job keeps the image alive. `*out` belongs to the caller, who frees it with
/// `platter_job_free()`. `flags` must be 0. A cancelled check has changed nothing.
///
/// Statuses: INVALID; of the job: UNSUPPORTED where the format has no check, OS, CORRUPT. Threads:
/// any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_check_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let images = vec![shared_of(image, "image")?];
        Ok(NewJob::new().into_handle(
            "check",
            None,
            images,
            Box::new(|job, images| {
                ops::check::check(&images[0], RepairMode::Report, job).map(Content::Check)
            }),
        ))
    })
}
