//! Whether an image from an untrusted source may be used.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

use bstr::BStr;

use crate::capi::boundary::{UserData, call_out, check_flags, given, platter_free_fn};
use crate::capi::error::platter_error;
use crate::capi::image::borrowed_file;
use crate::capi::open::{
    LOCATION_FLAGS, PLATTER_OPEN_FORCE_SHARE, location, merged, platter_open_options,
};
use crate::capi::report::{Content, Inner, platter_report};
use crate::capi::storage::{callbacks, platter_storage_ops};
use crate::capi::text::{optional_name, utf8};
use crate::format::profiles;
use crate::ops;
use crate::storage::CallbackStorage;

/// Inspects the file at `location`: what it is, every file that it names, and a verdict per guard on whether it may be
/// used. Opens only that one file, reads a bounded part of it and follows no name, whatever the policy allows; damage
/// is a verdict, not a failure.
///
/// Of `options`, which may be NULL for the defaults, only the format, the cache mode, the formats that the policy
/// allows and its limits are used. Name the format: then there is a verdict on whether the contents are of that format.
/// `flags` are bits of `PLATTER_OPEN_FORCE_SHARE` and at most one `PLATTER_LOCATION_*`. `*out` belongs to the caller,
/// who frees it with `platter_report_free()`.
///
/// The report's entry 0 is the file: `filename`, `format`, `signatures` (joined by `,`), `format-named`, `encrypted`,
/// `passed`, `file-size`, `virtual-size`, `cluster-size`, `snapshot-count`, `guard-count`, `reference-count`. It is
/// followed by the guards: `id`, `verdict` (`pass`, `fail`, `unknown` or `not-applicable`), `reason`; and these by the
/// names: `role` (`backing-file`, `data-file`, `extent` or `parent-locator`), `name`, `name-bytes` (in hexadecimal, if
/// the name is not UTF-8), `format`, `protocol`, `offset`, `plain`, `absolute`, `parent`, `json`.
/// `platter_report_exit_code()` is 0 if every guard passes or does not apply, otherwise 2.
///
/// Statuses: NOT_FOUND, OS, LOCKED, LIMIT, INVALID; UNSUPPORTED for an unknown format. Threads: any.
/// Since 0.1.
///
/// # Safety
/// `location` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_inspect(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    location: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_OPEN_FORCE_SHARE | LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        let report = ops::inspect::inspect(&location, &merged(options, flags)?)?;
        Ok(platter_report::new(Inner::new(Content::Inspect(report))))
    })
}

/// As `platter_inspect()`, and also whether a product would accept the file: that of `profile`, one of
/// `platter_profile_describe()`. If `options` name no format, the file must be in that of the profile. If the product
/// takes packages, what is reported of the image applies to the first one in the file, which is read to its end.
///
/// In addition to what `platter_inspect()` reports, entry 0 of the report has `profile` and `objection-count`, and
/// after the names there is an entry for each thing that the product would refuse: `reason`, `remedy`. Any of them
/// makes the exit code 2.
///
/// Statuses: as `platter_inspect()`; INVALID for an unknown profile. Threads: any. Since 0.1.
///
/// # Safety
/// `location` and `profile` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_inspect_for_profile(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    location: *const c_char,
    profile: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_OPEN_FORCE_SHARE | LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        // SAFETY: by the contract of this function.
        let profile = profiles::by_name(unsafe { utf8(profile, "profile")? })?;
        let options = merged(options, flags)?;
        let report = ops::inspect::inspect_for(&location, &options, profile)?;
        Ok(platter_report::new(Inner::new(Content::Inspect(report))))
    })
}

/// As `platter_inspect()`, for an open file: what is inspected is what the caller uses afterwards,
/// whatever happens to its name. The descriptor is duplicated; `name` (may be NULL) stands for the file
/// in messages and in the report. `flags` are bits of `PLATTER_OPEN_FORCE_SHARE`.
///
/// Statuses: as `platter_inspect()`. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_inspect_fd(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    fd: c_int,
    name: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_OPEN_FORCE_SHARE)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { optional_name(name) };
        let options = merged(options, flags)?;
        let storage = borrowed_file(fd, name, &options)?;
        let report = ops::inspect::inspect_storage(Arc::new(storage), &options)?;
        Ok(platter_report::new(Inner::new(Content::Inspect(report))))
    })
}

/// As `platter_inspect()`, for storage that the program supplies; only `size` and `read` are called. `ops` is copied;
/// `name` (may be NULL) stands for the storage in messages and in the report. `free_fn` (may be NULL) is called once
/// with `user_data` before this returns. `flags` must be 0.
///
/// Statuses: as `platter_inspect()`, and those of the callbacks. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated; the callbacks and `user_data` are usable until `free_fn` is called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_inspect_storage(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    ops: Option<&platter_storage_ops>,
    name: *const c_char,
    user_data: *mut c_void,
    free_fn: platter_free_fn,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let user_data = UserData::new(user_data, free_fn);
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let table = given(ops, "ops")?;
        // SAFETY: by the contract of this function.
        let name = unsafe { optional_name(name) }.unwrap_or(BStr::new("callbacks"));
        let options = merged(options, flags)?;
        let storage = CallbackStorage::new(name, callbacks(*table, user_data)?, options.cache)?;
        let report = ops::inspect::inspect_storage(Arc::new(storage), &options)?;
        Ok(platter_report::new(Inner::new(Content::Inspect(report))))
    })
}
