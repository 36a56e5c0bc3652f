//! The job that changes the options of an image.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::capi::boundary::{Handle, call_out, check_flags, given};
use crate::capi::error::platter_error;
use crate::capi::image::{platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::options::platter_options;
use crate::capi::report::Content;
use crate::capi::secret::{copied, platter_secrets};
use crate::ops::amend::{AmendRequest, amend};

/// Flag of `platter_amend_job_new()`: allow overwriting a key slot that is in use, and erasing the last one.
pub const PLATTER_AMEND_FORCE: u32 = 1;

/// Creates a job that changes the options of `image`, which is open for writing. `options` are those that
/// `platter_option_describe()` lists for `PLATTER_OPERATION_AMEND`; `secrets` (may be NULL for none) are those that the
/// options name by ID and the one that opened the image. Both are copied. `flags` is 0 or `PLATTER_AMEND_FORCE`.
/// Nothing else may use the image while the job runs. A job that fails or is cancelled leaves a valid image, each
/// option with its old or its new value. The job keeps the image alive. `*out` belongs to the caller, who frees it with
/// `platter_job_free()`.
///
/// Statuses: INVALID for an unknown option or a value of the wrong type, UNSUPPORTED where the format
/// changes no options; of the job: INVALID, UNSUPPORTED, READ_ONLY, NEEDS_SECRET, WRONG_SECRET, LIMIT,
/// NO_SPACE, OS, CORRUPT. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_amend_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    options: Option<&platter_options>,
    secrets: Option<&platter_secrets>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_AMEND_FORCE)?;
        let image = shared_of(image, "image")?;
        let options = given(options, "options")?;
        options.poison().check()?;
        let secrets = copied(secrets)?;
        let force = flags & PLATTER_AMEND_FORCE != 0;
        let request = AmendRequest::new(&image, options.options(), &secrets, force)?;
        Ok(NewJob::new().into_handle(
            "amend",
            None,
            vec![image],
            Box::new(move |job, images| {
                amend(&images[0], &request, job).map(|()| Content::Done {
                    virtual_size: Some(images[0].len()),
                })
            }),
        ))
    })
}
