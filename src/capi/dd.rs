//! The job that copies a part of an image or of a stream.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use bstr::BStr;

use crate::capi::boundary::{
    self, Handle, Poison, call_mut, call_out, call_ref_out, check_flags, given,
};
use crate::capi::driver_name::{self, PLATTER_NAME_UNCHECKED};
use crate::capi::error::platter_error;
use crate::capi::job::{NewJob, platter_job};
use crate::capi::open::{
    LOCATION_FLAGS, PLATTER_OPEN_FORCE_SHARE, cache_mode, location, merged, platter_open_options,
    target,
};
use crate::capi::policy::platter_policy;
use crate::capi::report::Content;
use crate::capi::secret::{self, platter_secrets};
use crate::capi::storages::{self, platter_storages};
use crate::capi::text::{duplicate_fd, optional_name};
use crate::error::{Error, Result};
use crate::format::registry;
use crate::location::Location;
use crate::ops::dd::{DdEnd, DdRequest, check_block_size, dd};
use crate::size::check_image_size;
use crate::storage::stream::Direction;

/// The description of a copy: what to copy, and how. Functions that use it copy it.
#[derive(Debug)]
pub struct platter_dd {
    poison: Poison,
    request: DdRequest,
    has_input: bool,
    has_output: bool,
    /// The output is a name as typed; how it is interpreted depends on whether it exists.
    output_is_name: bool,
}

impl Handle for platter_dd {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Number of a copy: block size in bytes, 1 to 2147483647. The default is 512.
pub const PLATTER_DD_BLOCK_SIZE: u32 = 1;
/// Number of a copy: maximum number of blocks to copy. The default is all.
pub const PLATTER_DD_COUNT: u32 = 2;
/// Number of a copy: number of blocks to skip at the beginning of the input. The default is 0.
pub const PLATTER_DD_SKIP: u32 = 3;
/// Number of a copy: size of the input in bytes; no more is read, and it is an error if a stream ends earlier. By
/// default, the input is read up to its end.
pub const PLATTER_DD_INPUT_SIZE: u32 = 4;
/// Number of a copy: size of the output in bytes; what the input does not fill reads as zeroes, and a longer input is
/// an error. The default is the size of what is copied.
pub const PLATTER_DD_OUTPUT_SIZE: u32 = 5;

/// Flag of `platter_dd_job_new()`: write into an existing image.
pub const PLATTER_DD_OUTPUT_EXISTS: u32 = 1;
/// Flag of `platter_dd_job_new()`: overwrite nothing. If a file of the output exists already, the job fails with
/// EXISTS, whatever the file contains; a storage of the program must be empty. Not for an existing output or a stream.
pub const PLATTER_DD_EXCLUSIVE: u32 = 2;

/// Creates the description of a copy, with all defaults of `qemu-img dd`: into a raw image, in blocks of 512 bytes. The
/// caller frees it with `platter_dd_free()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_new(
    out: Option<&mut MaybeUninit<*mut platter_dd>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let nowhere = || DdEnd::Location(Location::from_path(""));
        Ok(Box::into_raw(Box::new(platter_dd {
            poison: Poison::default(),
            request: DdRequest::new(nowhere(), nowhere()),
            has_input: false,
            has_output: false,
            output_is_name: false,
        })))
    })
}

/// Sets the input: an image, or the path of a pipe or character device, which is read in order, as raw bytes or as an
/// image that can be read in order (streamOptimized VMDK). `flags` are at most one `PLATTER_LOCATION_*`.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `location` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_dd_set_input(
    dd: Option<&mut platter_dd>,
    location: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        dd.request.input = DdEnd::Location(location);
        dd.has_input = true;
        Ok(())
    })
}

/// Sets a descriptor as the input: it is read in order from its current position, as described for
/// `platter_dd_set_input()`. It is duplicated; the caller keeps its own. `flags` must be 0.
///
/// Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_set_input_fd(
    dd: Option<&mut platter_dd>,
    fd: c_int,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, 0)?;
        dd.request.input = DdEnd::Fd(duplicate_fd(fd, Direction::Read)?);
        dd.has_input = true;
        Ok(())
    })
}

/// Sets how the input is opened: format, cache mode, policy, secrets; a copy is kept. `options` may be
/// NULL for the defaults. `flags` is 0 or `PLATTER_OPEN_FORCE_SHARE`.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_set_input_options(
    dd: Option<&mut platter_dd>,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, PLATTER_OPEN_FORCE_SHARE)?;
        dd.request.input_options = merged(options, flags)?;
        Ok(())
    })
}

/// Sets the internal snapshot of the input to copy, by ID or name, or as `snapshot.id=…` or `snapshot.name=…`; NULL for
/// the current state. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `snapshot` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_dd_set_snapshot(
    dd: Option<&mut platter_dd>,
    snapshot: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let snapshot = unsafe { optional_name(snapshot) };
        dd.request.snapshot = snapshot.map(BStr::to_owned);
        Ok(())
    })
}

/// Sets the output and its format: a new image, or the path of a pipe or character device, which takes
/// raw bytes in order. `flags` are at most one `PLATTER_LOCATION_*`, and `PLATTER_NAME_UNCHECKED`.
///
/// Statuses: INVALID (also an unknown format), UNSUPPORTED (one that another build has). Threads: one at a time. Since
/// 0.1.
///
/// # Safety
/// `location` and `format` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_dd_set_output(
    dd: Option<&mut platter_dd>,
    location: *const c_char,
    format: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, LOCATION_FLAGS | PLATTER_NAME_UNCHECKED)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { target(location, "location", flags)? };
        // SAFETY: by the contract of this function.
        let format = unsafe { driver_name::made(format, flags)? };
        dd.output_is_name = flags & LOCATION_FLAGS == 0;
        dd.request.output = DdEnd::Location(location);
        dd.request.output_format = format;
        dd.has_output = true;
        Ok(())
    })
}

/// Sets a descriptor as the output: raw bytes are written to it in order from its current position. It is duplicated;
/// the caller keeps its own. A broken pipe is an error of the job, not a signal. `flags` must be 0.
///
/// Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_set_output_fd(
    dd: Option<&mut platter_dd>,
    fd: c_int,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, 0)?;
        dd.request.output = DdEnd::Fd(duplicate_fd(fd, Direction::Write)?);
        dd.request.output_format = registry::plain().name.to_owned();
        dd.has_output = true;
        Ok(())
    })
}

/// Sets the cache mode of the output, as `platter_open_options_set_cache()` does; `writeback` if not set. `flags` must
/// be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `mode` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_dd_set_output_cache(
    dd: Option<&mut platter_dd>,
    mode: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        dd.request.output_cache = unsafe { cache_mode(mode)? };
        Ok(())
    })
}

/// Sets the policy for opening an existing output; a copy is kept. The policy of the input is set by
/// `platter_dd_set_input_options()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_set_output_policy(
    dd: Option<&mut platter_dd>,
    policy: Option<&platter_policy>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, 0)?;
        let policy = given(policy, "policy")?;
        policy.poison().check()?;
        dd.request.policy = policy.policy().clone();
        Ok(())
    })
}

/// Sets the secrets to which options of the output refer by ID; a copy is kept, which replaces those set before. NULL
/// stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_set_secrets(
    dd: Option<&mut platter_dd>,
    secrets: Option<&platter_secrets>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, 0)?;
        dd.request.objects = secret::copied(secrets)?;
        Ok(())
    })
}

/// Sets storages that are used instead of files with the same names, for the output and for what it names. Those of the
/// input are set by `platter_dd_set_input_options()`. A copy of the set is kept, which replaces the previous one. NULL
/// stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_set_output_storages(
    dd: Option<&mut platter_dd>,
    storages: Option<&platter_storages>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, 0)?;
        dd.request.storages = storages::copied(storages)?;
        Ok(())
    })
}

/// Sets a numeric parameter of the copy, one of `PLATTER_DD_*`. `flags` must be 0.
///
/// Statuses: INVALID, also for a value out of range. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_set_number(
    dd: Option<&mut platter_dd>,
    which: u32,
    value: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(dd, "dd", err, |dd| {
        check_flags(flags, 0)?;
        let request = &mut dd.request;
        match which {
            PLATTER_DD_BLOCK_SIZE => {
                check_block_size(value)?;
                request.block_size = value;
            }
            PLATTER_DD_COUNT => request.count = Some(value),
            PLATTER_DD_SKIP => request.skip = value,
            PLATTER_DD_INPUT_SIZE => request.input_size = Some(check_image_size(value)?),
            PLATTER_DD_OUTPUT_SIZE => request.output_size = Some(check_image_size(value)?),
            _ => return Err(Error::invalid(format!("Unknown number {which} of a copy"))),
        }
        Ok(())
    })
}

/// Creates the job that copies. `flags` are bits of `PLATTER_DD_*` flags. Nothing is touched before the job runs. Its
/// report is of the kind `PLATTER_REPORT_CONVERT`. `*out` belongs to the caller, who frees it with
/// `platter_job_free()`. An output that the job created is removed if the job fails or is cancelled; an existing output
/// then contains part of the data, and what was read from a stream is gone from it.
///
/// Statuses: INVALID; of the job: INVALID for a skip past the end and for an input that is the output
/// as well, and every one of opening, creating, reading and writing. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_dd_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    dd: Option<&platter_dd>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, dd, "dd", err, |params| {
        let request = request(params, flags)?;
        Ok(NewJob::with_rate().into_handle(
            "dd",
            None,
            Vec::new(),
            Box::new(move |job, _| dd_job(&request, job)),
        ))
    })
}

fn request(params: &platter_dd, flags: u32) -> Result<DdRequest> {
    check_flags(flags, PLATTER_DD_OUTPUT_EXISTS | PLATTER_DD_EXCLUSIVE)?;
    if !params.has_input {
        return Err(Error::invalid("The copy has no input"));
    }
    if !params.has_output {
        return Err(Error::invalid("The copy has no output"));
    }
    let mut request = params.request.clone();
    request.output_exists = flags & PLATTER_DD_OUTPUT_EXISTS != 0;
    request.output_exclusive = flags & PLATTER_DD_EXCLUSIVE != 0;
    if request.output_exclusive && (request.output_exists || matches!(request.output, DdEnd::Fd(_)))
    {
        return Err(Error::invalid(
            "What is written to exists already and cannot be new",
        ));
    }
    if let DdEnd::Location(output) = &request.output
        && request.output_exists
        && params.output_is_name
    {
        request.output = DdEnd::Location(Location::parse(output.text())?);
    }
    Ok(request)
}

fn dd_job(request: &DdRequest, job: &mut crate::job::Job) -> Result<Content> {
    dd(request, job).map(Content::Convert)
}

/// Frees the description of a copy. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The description is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_dd_free(dd: *mut platter_dd) {
    // SAFETY: the caller owns it; it came from `platter_dd_new`.
    unsafe { boundary::free(dd) }
}
