//! The job that computes how large a new image will be.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use crate::capi::boundary::{Handle, call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::options::platter_options;
use crate::capi::report::Content;
use crate::capi::text::utf8;
use crate::ops::create::TargetFormat;
use crate::ops::measure::{MeasureSource, measure};

/// Creates a job that computes how many bytes a new image in `format` will take: one with the guest contents of `image`
/// and its backing chain, or, if `image` is NULL, an empty one of `size` guest bytes. `options` (may be NULL) are those
/// of creation. Nothing is created, no data is read, and nothing is changed, even if the job is cancelled. The job
/// keeps the image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` must be 0. If
/// other threads write to the image meanwhile, each part of it counts as it was when the job reached it.
///
/// Statuses: INVALID, also for an unknown format, UNSUPPORTED for one that cannot be made; of the job:
/// INVALID for bad options, UNSUPPORTED where the format cannot be measured, OS, CORRUPT. Threads: any. Since 0.1.
///
/// # Safety
/// `format` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_measure_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    size: u64,
    format: *const c_char,
    options: Option<&platter_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let format = unsafe { utf8(format, "format")? };
        let format = TargetFormat::creatable(format)?;
        let options = match options {
            Some(options) => {
                options.poison().check()?;
                options.options().clone()
            }
            None => Default::default(),
        };
        let images = match image {
            Some(image) => vec![shared_of(Some(image), "image")?],
            None => Vec::new(),
        };
        Ok(NewJob::new().into_handle(
            "measure",
            None,
            images,
            Box::new(move |job, images| {
                let source = match images.first() {
                    Some(image) => MeasureSource::Image(image),
                    None => MeasureSource::Size(size),
                };
                measure(source, format, &options, job).map(Content::Measure)
            }),
        ))
    })
}
