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
/// Flag of `platter_check_job_new()`: repair everything that can be repaired.
pub const PLATTER_CHECK_REPAIR_ALL: u32 = 2;
/// Flag of `platter_check_job_new()`: changes to the image wait until the job has ended.
pub const PLATTER_CHECK_HOLD_CHANGES: u32 = 4;

/// Creates a job that checks the consistency of `image`, which was opened with `PLATTER_OPEN_FOR_CHECK`. Each finding
/// is a message, a `PLATTER_MESSAGE_NOTE`; the report has the numbers. The job keeps the image alive. `*out` belongs to
/// the caller, who frees it with `platter_job_free()`. `flags` is a combination of `PLATTER_CHECK_HOLD_CHANGES` and one
/// of `PLATTER_CHECK_REPAIR_LEAKS` and `PLATTER_CHECK_REPAIR_ALL`, or 0; a repair requires an image that was also
/// opened with `PLATTER_OPEN_WRITE`, and is followed by a second check, whose results the report shows. A check that is
/// cancelled changes nothing from then on.
///
/// The findings of a check are about one state of the image. Other threads may continue to write to it through the same
/// handle: the job waits for changes in progress, and if a later one changes metadata before the job has ended (a write
/// that allocates, a discard, a snapshot…), it ends with BUSY, has no report, and reports nothing from then on. Earlier
/// messages are true of the state that it began with. Check again at a quieter time, or set
/// `PLATTER_CHECK_HOLD_CHANGES`: writes and all other changes to the image then wait, each in its call, until the job
/// has ended; reads do not. A repair always makes them wait. A change within a callback of such a job, on the thread
/// that runs it, is refused with BUSY. Writes of other processes are kept out by locks, unless the image was opened
/// with `PLATTER_OPEN_FORCE_SHARE`: then they go unnoticed, and the findings may be about no actual state at all.
///
/// If `PLATTER_CHECK_REPAIR_LEAKS` finds damage that makes leaked clusters look like used ones, or used ones like
/// leaked ones, the job ends with CORRUPT and has changed nothing; `platter_job_failure_report()` then returns the
/// report. `PLATTER_CHECK_REPAIR_ALL` repairs both.
///
/// Statuses: INVALID; of the job: BUSY where the image was changed meanwhile, UNSUPPORTED where the format has no
/// check, CORRUPT where damage keeps it from being carried out, OS. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_check_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        let repairs = PLATTER_CHECK_REPAIR_LEAKS | PLATTER_CHECK_REPAIR_ALL;
        check_flags(flags, repairs | PLATTER_CHECK_HOLD_CHANGES)?;
        let repair = match flags & repairs {
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
                let check = match flags & PLATTER_CHECK_HOLD_CHANGES {
                    0 => ops::check::check,
                    _ => ops::check::check_held,
                };
                check(&images[0], repair, job).map(Content::Check)
            }),
        ))
    })
}
