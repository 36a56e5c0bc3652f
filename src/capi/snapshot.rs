//! The internal snapshots of an image.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use bstr::{BStr, ByteSlice};

use crate::capi::boundary::{call_mut, call_out, call_ref_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::image::{change_alone, platter_image, shared_of};
use crate::capi::job::{NewJob, platter_job};
use crate::capi::report::{Content, Inner, platter_report};
use crate::capi::text::name;
use crate::error::Result;
use crate::image::Image;
use crate::job::Job;
use crate::ops::snapshot;

/// Shows an internal snapshot instead of the current contents, read-only, until the image is closed. `snapshot` is an
/// ID, or else a name, or `snapshot.id=…,snapshot.name=…`. On failure, the image still shows what it showed before.
/// `flags` must be 0.
///
/// Statuses: NOT_FOUND, UNSUPPORTED, BUSY while a job uses the image, CORRUPT, OS, INVALID. Threads: one
/// at a time, and no other call on the image meanwhile. Since 0.1.
///
/// # Safety
/// `snapshot` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_snapshot_show(
    image: Option<&mut platter_image>,
    snapshot: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(image, "image", err, |image| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let wanted = unsafe { self::name(snapshot, "snapshot")? };
        change_alone(image, |image| snapshot::show(image, wanted))
    })
}

/// Reports the internal snapshots of an open image, in the order of its table; none for a format
/// without them. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags`
/// must be 0.
///
/// Statuses: CORRUPT, OS, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_snapshot_list(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, image, "image", err, |image| {
        check_flags(flags, 0)?;
        let shared = shared_of(Some(image), "image")?;
        let report = snapshot::list(&shared)?;
        Ok(platter_report::new(Inner::new(Content::Snapshots(report))))
    })
}

/// What a job does to the image.
type Change = fn(&Image, &BStr, &mut Job) -> Result<()>;

/// A job that makes a change; its report lists the snapshots afterwards.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
unsafe fn job(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    (parameter, name): (&'static str, *const c_char),
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
    change: Change,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { self::name(name, parameter)? }.to_owned();
        let images = vec![shared_of(image, "image")?];
        Ok(NewJob::new().into_handle(
            "snapshot",
            None,
            images,
            Box::new(move |job, images| {
                change(&images[0], name.as_bstr(), job)?;
                snapshot::list(&images[0]).map(Content::Snapshots)
            }),
        ))
    })
}

/// Creates a job that records the current contents of `image`, which must be writable, as an internal snapshot. `name`
/// may be empty or already in use; the new ID is the highest one plus 1. The report of the job lists the snapshots, the
/// new one last. If it is cancelled or its deadline passes, the job leaves the image as it was. The job keeps the image
/// alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` must be 0.
///
/// Statuses: INVALID; of the job: UNSUPPORTED, READ_ONLY, NO_SPACE, OS, CORRUPT; LIMIT where there are
/// too many snapshots. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_snapshot_create_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let change: Change = |image, name, job| snapshot::create(image, name, job).map(drop);
    // SAFETY: by the contract of this function.
    unsafe { job(out, image, ("name", name), flags, err, change) }
}

/// Creates a job that reverts `image`, which must be writable, to the contents and the virtual size of the internal
/// snapshot with that ID, or else with that name. Its report lists the snapshots. If it is cancelled or its deadline
/// passes, the job leaves the image as it was, or with the snapshot's contents; in that case the next open for writing
/// recounts its references. The job keeps the image alive. `*out` belongs to the caller, who frees it with
/// `platter_job_free()`. `flags` must be 0.
///
/// Statuses: INVALID; of the job: NOT_FOUND, UNSUPPORTED, READ_ONLY, NO_SPACE, OS, CORRUPT. Threads:
/// any. Since 0.1.
///
/// # Safety
/// `snapshot` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_snapshot_apply_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    snapshot: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // SAFETY: by the contract of this function.
    unsafe {
        job(
            out,
            image,
            ("snapshot", snapshot),
            flags,
            err,
            |image, name, job| snapshot::apply(image, name, job),
        )
    }
}

/// Creates a job that deletes the first internal snapshot with that name from `image`, which must be writable. Its
/// report lists the snapshots that remain. If it is cancelled or its deadline passes, the job leaves the image as it
/// was, or without the snapshot; in that case the next open for writing recounts its references. The job keeps the
/// image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` must be 0.
///
/// Statuses: as `platter_snapshot_apply_job_new()`. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_snapshot_delete_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    image: Option<&platter_image>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // SAFETY: by the contract of this function.
    unsafe {
        job(
            out,
            image,
            ("name", name),
            flags,
            err,
            |image, name, job| snapshot::delete(image, name, job),
        )
    }
}
