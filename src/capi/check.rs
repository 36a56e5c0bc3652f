//! The job that checks an image.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::report::Content;
use crate::format::RepairMode;
use crate::ops;

/// Flag of `platter_check_job_new()`: repair leaked clusters.
pub const PLATTER_CHECK_REPAIR_LEAKS: u32 = 1;
/// Flag of `platter_check_job_new()`: repair all that can be repaired.
pub const PLATTER_CHECK_REPAIR_ALL: u32 = 2;

/// Makes a job that checks the consistency of `image`, which was opened with
/// `PLATTER_OPEN_FOR_CHECK`. Each finding is a message, a `PLATTER_MESSAGE_NOTE`; the report has the
/// numbers. The job keeps the image alive. `*out` belongs to the caller, who frees it with
/// `platter_job_free()`. `flags` is 0, `PLATTER_CHECK_REPAIR_LEAKS` or
/// `PLATTER_CHECK_REPAIR_ALL`; a repair needs an image that was opened with `PLATTER_OPEN_WRITE` too, and
/// is followed by a second check, which the report shows. A check that is cancelled changes nothing
/// from then on.
///
/// Where `PLATTER_CHECK_REPAIR_LEAKS` finds damage that makes leaked clusters look like used ones, or
/// used ones like leaked ones, the job ends with CORRUPT and has changed nothing;
/// `platter_job_failure_report()` then gives the report. `PLATTER_CHECK_REPAIR_ALL` repairs both.
///
/// Statuses: INVALID; of the job: UNSUPPORTED where the format has no check, CORRUPT where damage
/// keeps it from being carried out, OS. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_check_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_CHECK_REPAIR_LEAKS | PLATTER_CHECK_REPAIR_ALL)?;
        let repair = match flags {
            0 => RepairMode::Report,
            PLATTER_CHECK_REPAIR_LEAKS => RepairMode::Leaks,
            _ => RepairMode::All,
        };
        let images = vec![shared_of(image, "image")?];
        Ok(NewJob::new().into_handle(
            "check",
            None,
            images,
            Box::new(move |job, images| {
                ops::check::check(&images[0], repair, job).map(Content::Check)
            }),
        ))
    })
}
