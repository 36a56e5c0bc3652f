//! The job that maps an image.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use crate::capi::boundary::{UserData, call_out, check_flags, given, platter_free_fn};
use crate::capi::error::platter_error;
use crate::capi::extent::platter_extent;
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{Images, NewJob, platter_job};
use crate::capi::report::Content;
use crate::capi::text::c_string;
use crate::error::Error;
use crate::job::Job;
use crate::ops;

/// Length of a map: to the end of the image.
pub const PLATTER_LENGTH_ALL: u64 = 0xffff_ffff_ffff_ffff;

/// Creates a job that maps `length` guest bytes of `image` and its backing chain from `start`; a length past the end is
/// truncated. Its report has all runs, with adjacent runs of one kind merged; an image of a few kilobytes can have any
/// number of them, so the job fails if there are more than 1,048,576: map parts of such an image, or receive the runs
/// with `platter_map_each_job_new()`. The job keeps the image alive. `*out` belongs to the caller, who frees it with
/// `platter_job_free()`. `flags` must be 0. If other threads write to the image meanwhile, each run is as it was when
/// the job reached it. The job changes nothing, even if it is cancelled.
///
/// Statuses: INVALID; of the job: LIMIT, OS, CORRUPT. Threads: any. Since 0.1.
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

/// Receives a run of a map on the thread that runs the job. `filename` (UTF-8) is the file of the layer that determines
/// the contents, the one to which `host_offset` refers: the external data file if the layer has one; NULL if it is not
/// known. Both live until the callback returns. A non-zero result ends the job with CANCELLED. It must not free the
/// job.
pub type platter_extent_fn = Option<
    unsafe extern "C" fn(
        extent: *const platter_extent,
        filename: *const c_char,
        user_data: *mut c_void,
    ) -> c_int,
>;

/// As `platter_map_job_new()`, for any number of runs in little memory: each run is passed to `extent_fn` in guest
/// order as soon as its end is known, with adjacent runs of one kind merged. A map of nothing is one run of length 0.
/// The report of the job is a `PLATTER_REPORT_DONE`. If the job fails, the runs so far were right. `free_fn` (may be
/// NULL) is called once with `user_data`: when the job has ended or is freed, or at once if this call fails.
///
/// Statuses: INVALID; of the job: CANCELLED, OS, CORRUPT. Threads: any. Since 0.1.
///
/// # Safety
/// `extent_fn` and `user_data` are usable until `free_fn` is called, on the thread that runs the job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_map_each_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    start: u64,
    length: u64,
    extent_fn: platter_extent_fn,
    user_data: *mut c_void,
    free_fn: platter_free_fn,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let user_data = UserData::new(user_data, free_fn);
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let images = vec![shared_of(image, "image")?];
        let extent_fn = given(extent_fn, "extent_fn")?;
        let length = (length != PLATTER_LENGTH_ALL).then_some(length);
        let body = move |job: &mut Job, images: &Images| {
            // Moved in as a whole, so that `free_fn` is called when the work ends.
            let user_data = user_data;
            let image = &images[0];
            let files = ops::map::files(image)?.into_iter();
            let files: Vec<_> = files.map(|files| files.map(c_string)).collect();
            ops::map::visit(image, start, length, job, &mut |entry| {
                let files = files.get(entry.depth as usize);
                let name = files.map_or(ptr::null(), |files| files.of(entry.slot).as_ptr());
                let extent = platter_extent::from(*entry);
                // SAFETY: the caller keeps both usable until `user_data` is dropped.
                match unsafe { extent_fn(&extent, name, user_data.get()) } {
                    0 => Ok(()),
                    _ => Err(Error::cancelled()),
                }
            })?;
            Ok(Content::Done { virtual_size: None })
        };
        Ok(NewJob::new().into_handle("map", None, images, Box::new(body)))
    })
}
