//! The job that creates an image.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::Arc;

use bstr::BStr;

use crate::capi::boundary::{
    self, Handle, Poison, call_mut, call_out, call_ref_out, check_flags, given,
};
use crate::capi::control::{self, platter_control};
use crate::capi::driver_name::{self, PLATTER_NAME_UNCHECKED};
use crate::capi::error::platter_error;
use crate::capi::job::{NewJob, platter_job};
use crate::capi::open::{LOCATION_FLAGS, target};
use crate::capi::options::platter_options;
use crate::capi::policy::platter_policy;
use crate::capi::report::Content;
use crate::capi::secret::{self, platter_secrets};
use crate::capi::storages::{self, platter_storages};
use crate::capi::text::{c_line, optional_name};
use crate::job::JobControl;
use crate::ops::create::{CreatePlan, CreateRequest};
use crate::options::Options;
use crate::policy::OpenPolicy;
use crate::size::check_image_size;

/// The description of a new image. Functions that use it copy it.
#[derive(Debug)]
pub struct platter_create {
    poison: Poison,
    request: CreateRequest,
    control: Option<Arc<JobControl>>,
}

impl Handle for platter_create {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Creates the description of a new image at `location` in `format`. The caller frees it with `platter_create_free()`.
/// `flags` are at most one `PLATTER_LOCATION_*`, and `PLATTER_NAME_UNCHECKED`.
///
/// Statuses: INVALID (also an unknown format), UNSUPPORTED (one that another build has). Threads: any. Since 0.1.
///
/// # Safety
/// `location` and `format` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_create_new(
    out: Option<&mut MaybeUninit<*mut platter_create>>,
    location: *const c_char,
    format: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, LOCATION_FLAGS | PLATTER_NAME_UNCHECKED)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { target(location, "location", flags)? };
        // SAFETY: by the contract of this function.
        let format = unsafe { driver_name::made(format, flags)? };
        Ok(Box::into_raw(Box::new(platter_create {
            poison: Poison::default(),
            control: None,
            request: CreateRequest {
                location,
                format,
                size: None,
                options: Options::new(),
                backing_file: None,
                backing_format: None,
                backing_unsafe: false,
                exclusive: false,
                objects: Default::default(),
                policy: OpenPolicy::default(),
                storages: None,
            },
        })))
    })
}

/// Sets the virtual size in bytes; it is rounded up to a multiple of 512. Without this call, the size is the option
/// `size`, or that of the backing file. `flags` must be 0.
///
/// Statuses: INVALID, also for a size over 2^63 - 1. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_create_set_size(
    create: Option<&mut platter_create>,
    size: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(create, "create", err, |create| {
        check_flags(flags, 0)?;
        create.request.size = Some(check_image_size(size)?);
        Ok(())
    })
}

/// Sets the options; a copy is kept, which replaces those set before. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_create_set_options(
    create: Option<&mut platter_create>,
    options: Option<&platter_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(create, "create", err, |create| {
        check_flags(flags, 0)?;
        let options = given(options, "options")?;
        options.poison().check()?;
        create.request.options = options.options().clone();
        Ok(())
    })
}

/// Flag of `platter_create_set_backing()`: the backing file need not exist, and is not opened.
pub const PLATTER_BACKING_UNSAFE: u32 = 1;

/// Sets the backing file (bytes) and its format as they are to be recorded in the image; either may be NULL for none,
/// or if the options give it. A relative name is relative to the image. What the backing file itself names is opened if
/// `platter_create_set_policy()` allows it. `flags` are bits of `PLATTER_BACKING_UNSAFE` and `PLATTER_NAME_UNCHECKED`.
///
/// Statuses: UNSUPPORTED (an unknown format), INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `file` and `format` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_create_set_backing(
    create: Option<&mut platter_create>,
    file: *const c_char,
    format: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(create, "create", err, |create| {
        check_flags(flags, PLATTER_BACKING_UNSAFE | PLATTER_NAME_UNCHECKED)?;
        // SAFETY: by the contract of this function.
        let (file, format) = unsafe {
            (
                optional_name(file),
                driver_name::recorded(format, "format", flags)?,
            )
        };
        create.request.backing_file = file.map(BStr::to_owned);
        create.request.backing_format = format;
        create.request.backing_unsafe = flags & PLATTER_BACKING_UNSAFE != 0;
        Ok(())
    })
}

/// Sets the policy for opening the backing file; a copy is kept. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_create_set_policy(
    create: Option<&mut platter_create>,
    policy: Option<&platter_policy>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(create, "create", err, |create| {
        check_flags(flags, 0)?;
        let policy = given(policy, "policy")?;
        policy.poison().check()?;
        create.request.policy = policy.policy().clone();
        Ok(())
    })
}

/// Sets the secrets to which options such as `key-secret` refer by ID; a copy is kept, which replaces those set before.
/// NULL stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_create_set_secrets(
    create: Option<&mut platter_create>,
    secrets: Option<&platter_secrets>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(create, "create", err, |create| {
        check_flags(flags, 0)?;
        create.request.objects = secret::copied(secrets)?;
        Ok(())
    })
}

/// Sets storages that are used instead of files with the same names, for the new image, its data file and its backing
/// file. A copy of the set is kept, which replaces the previous one. NULL stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_create_set_storages(
    create: Option<&mut platter_create>,
    storages: Option<&platter_storages>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(create, "create", err, |create| {
        check_flags(flags, 0)?;
        create.request.storages = storages::copied(storages)?;
        Ok(())
    })
}

/// Sets a control that cancels the creation, in addition to the job itself; it also cancels `platter_create_job_new()`,
/// which opens the backing file. NULL stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_create_set_control(
    create: Option<&mut platter_create>,
    control: Option<&platter_control>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(create, "create", err, |create| {
        check_flags(flags, 0)?;
        create.control = match control {
            Some(_) => Some(control::shared(control)?),
            None => None,
        };
        Ok(())
    })
}

/// Flag of `platter_create_job_new()`: overwrite nothing. If a file of the new image exists already, the job fails with
/// EXISTS, whatever the file contains; a storage of the program must be empty.
pub const PLATTER_CREATE_EXCLUSIVE: u32 = 1;

/// Creates the job that creates the image. Everything that can be checked without touching the target is checked here,
/// and the backing file is opened to get its size; `platter_job_summary()` then returns the line that announces the
/// creation. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` is 0 or
/// `PLATTER_CREATE_EXCLUSIVE`. A job that fails or is cancelled leaves no new file.
///
/// Statuses: INVALID, UNSUPPORTED, LIMIT, and of opening the backing file; of the job: OS, NO_SPACE,
/// LOCKED, READ_ONLY, EXISTS. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_create_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    create: Option<&platter_create>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, create, "create", err, |create| {
        check_flags(flags, PLATTER_CREATE_EXCLUSIVE)?;
        let mut request = create.request.clone();
        request.exclusive = flags & PLATTER_CREATE_EXCLUSIVE != 0;
        let mut new = NewJob::new();
        if let Some(control) = &create.control {
            new.job.control().heed(control);
        }
        let plan = CreatePlan::new(request, &mut new.job)?;
        let summary = plan.summary().to_owned();
        let line = c_line(&summary);
        Ok(new.into_handle(
            "create",
            Some(line),
            Vec::new(),
            Box::new(move |job, _| plan.run(job).map(|()| Content::Create { summary })),
        ))
    })
}

/// Frees the description of a new image. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The description is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_create_free(create: *mut platter_create) {
    // SAFETY: the caller owns it; it came from `platter_create_new`.
    unsafe { boundary::free(create) }
}
