//! The job that converts images.

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
    LOCATION_FLAGS, PLATTER_OPEN_DENY_WRITERS, PLATTER_OPEN_FORCE_SHARE, cache_mode, location,
    merged, platter_open_options, target,
};
use crate::capi::options::platter_options;
use crate::capi::policy::platter_policy;
use crate::capi::report::Content;
use crate::capi::secret::{self, platter_secrets};
use crate::capi::storages::{self, platter_storages};
use crate::capi::text::{duplicate_fd, optional_name, optional_utf8};
use crate::error::{Error, Result};
use crate::format::{profiles, registry};
use crate::location::Location;
use crate::ops::convert::{
    Conflict, ConvertRequest, check, check_parallel, check_sparse_size, convert,
};
use crate::storage::stream::Direction;

/// The description of a conversion: what to convert, and how. Functions that use it copy it.
#[derive(Debug)]
pub struct platter_convert {
    poison: Poison,
    request: ConvertRequest,
    has_target: bool,
    /// The target is a name as typed; how it is interpreted depends on whether it exists.
    target_is_name: bool,
}

impl Handle for platter_convert {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Flag of `platter_convert_job_new()`: compress the target's clusters.
pub const PLATTER_CONVERT_COMPRESS: u32 = 1;
/// Flag of `platter_convert_job_new()`: write into an existing image.
pub const PLATTER_CONVERT_TARGET_EXISTS: u32 = 2;
/// Flag of `platter_convert_job_new()`: the existing target reads as zeroes.
pub const PLATTER_CONVERT_TARGET_IS_ZERO: u32 = 4;
/// Flag of `platter_convert_job_new()`: clusters need not be in guest order.
pub const PLATTER_CONVERT_OUT_OF_ORDER: u32 = 8;
/// Flag of `platter_convert_job_new()`: offload copying to the host where possible; this is tried anyway.
pub const PLATTER_CONVERT_COPY_RANGE: u32 = 16;
/// Flag of `platter_convert_job_new()`: unreadable parts become zeroes, with a warning for each.
pub const PLATTER_CONVERT_SALVAGE: u32 = 32;
/// Flag of `platter_convert_job_new()`: copy the persistent dirty bitmaps of the only source; fails if the target
/// cannot have any, or if one is inconsistent.
pub const PLATTER_CONVERT_BITMAPS: u32 = 64;
/// Flag of `platter_convert_job_new()`, with `PLATTER_CONVERT_BITMAPS`: skip inconsistent bitmaps, with a warning for
/// each.
pub const PLATTER_CONVERT_SKIP_BROKEN_BITMAPS: u32 = 128;
/// Flag of `platter_convert_job_new()`: the target is the path of a directory, which must not exist. It is created, and
/// each layer of the only source becomes an image in it, named after the layer with the target's format as extension,
/// on top of the image of the layer below it. The options of the target apply to each. If the job fails or is
/// cancelled, the directory is removed.
pub const PLATTER_CONVERT_CHAIN: u32 = 256;
/// Flag of `platter_convert_job_new()`: overwrite nothing. If a file of the target exists already, the job fails with
/// EXISTS, whatever the file contains; a storage of the program must be empty. Not for an existing target or a stream.
pub const PLATTER_CONVERT_EXCLUSIVE: u32 = 512;

/// Creates the description of a conversion, with all defaults of `qemu-img convert`: into a raw image, target cache
/// mode `unsafe`. The caller frees it with `platter_convert_free()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_new(
    out: Option<&mut MaybeUninit<*mut platter_convert>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let mut request = ConvertRequest::new(Location::from_path(""), Location::from_path(""));
        request.source.images.clear();
        request.target.format = Some(registry::plain().name.to_owned());
        Ok(Box::into_raw(Box::new(platter_convert {
            poison: Poison::default(),
            request,
            has_target: false,
            target_is_name: false,
        })))
    })
}

/// Adds a source; several sources are concatenated in the order of the calls. `flags` are at most one
/// `PLATTER_LOCATION_*`.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `location` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_convert_add_source(
    convert: Option<&mut platter_convert>,
    location: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        convert.request.source.images.push(location);
        Ok(())
    })
}

/// Sets a descriptor to read from instead of any source: a pipe, a socket or a file, which is read in order from its
/// current position, as raw bytes or as an image that can be read in order (streamOptimized VMDK). The descriptor is
/// duplicated; the caller keeps its own. `flags` must be 0.
///
/// Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_set_source_fd(
    convert: Option<&mut platter_convert>,
    fd: c_int,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        convert.request.source.fd = Some(duplicate_fd(fd, Direction::Read)?);
        Ok(())
    })
}

/// Sets a descriptor to write to instead of the target: raw bytes are written in order from its current position. The
/// descriptor is duplicated; the caller keeps its own. A broken pipe is an error of the job, not a signal. `flags` must
/// be 0.
///
/// Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_set_target_fd(
    convert: Option<&mut platter_convert>,
    fd: c_int,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        convert.request.target.fd = Some(duplicate_fd(fd, Direction::Write)?);
        convert.has_target = true;
        Ok(())
    })
}

/// Sets how every source is opened: format, cache mode, policy; a copy is kept. `options` may be NULL
/// for the defaults. `flags` is 0 or `PLATTER_OPEN_FORCE_SHARE`.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_set_source_options(
    convert: Option<&mut platter_convert>,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, PLATTER_OPEN_FORCE_SHARE)?;
        convert.request.source.options = merged(options, flags | PLATTER_OPEN_DENY_WRITERS)?;
        Ok(())
    })
}

/// Sets the internal snapshot of the source to convert, by ID or name, or as `snapshot.id=…` or `snapshot.name=…`; NULL
/// for the current state. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `snapshot` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_convert_set_snapshot(
    convert: Option<&mut platter_convert>,
    snapshot: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let snapshot = unsafe { optional_name(snapshot) };
        convert.request.source.snapshot = snapshot.map(BStr::to_owned);
        Ok(())
    })
}

/// Sets the target and its format. If the format is NULL, that of an existing target is guessed, which requires
/// `PLATTER_CONVERT_TARGET_EXISTS` and a policy that allows it. `flags` are at most one `PLATTER_LOCATION_*`, and
/// `PLATTER_NAME_UNCHECKED`.
///
/// Statuses: INVALID (also an unknown format), UNSUPPORTED (one that another build has). Threads: one at a time. Since
/// 0.1.
///
/// # Safety
/// `location` and `format` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_convert_set_target(
    convert: Option<&mut platter_convert>,
    location: *const c_char,
    format: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, LOCATION_FLAGS | PLATTER_NAME_UNCHECKED)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { target(location, "location", flags)? };
        // SAFETY: by the contract of this function.
        let made = |format| unsafe { driver_name::made(format, flags) };
        let format = (!format.is_null()).then(|| made(format)).transpose()?;
        convert.target_is_name = flags & LOCATION_FLAGS == 0;
        convert.request.target.location = location;
        convert.request.target.format = format;
        convert.has_target = true;
        Ok(())
    })
}

/// Makes the target an image that a product accepts: `profile` is the name of a profile from
/// `platter_profile_describe()`, which determines the format of the target, sets options that are not set, and rounds
/// the size up to the next one that the product accepts. A disk smaller than `size_least` is grown to that, with a
/// warning from the job; the job refuses one larger than `size_most` with INVALID. `platter_convert_job_new()` refuses
/// an option that was set to another value. NULL means no profile. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `profile` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_convert_set_profile(
    convert: Option<&mut platter_convert>,
    profile: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { optional_utf8(profile, "profile")? };
        convert.request.target.profile = name.map(profiles::by_name).transpose()?;
        Ok(())
    })
}

/// Sets the options of the new image; a copy is kept, which replaces those set before. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_set_target_options(
    convert: Option<&mut platter_convert>,
    options: Option<&platter_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        let options = given(options, "options")?;
        options.poison().check()?;
        convert.request.target.options = options.options().clone();
        Ok(())
    })
}

/// Sets the cache mode of the target, as `platter_open_options_set_cache()` does. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `mode` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_convert_set_target_cache(
    convert: Option<&mut platter_convert>,
    mode: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        convert.request.target.cache = unsafe { cache_mode(mode)? };
        Ok(())
    })
}

/// Sets the policy for opening the target and its backing file; a copy is kept. The policy of the sources is set by
/// `platter_convert_set_source_options()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_set_target_policy(
    convert: Option<&mut platter_convert>,
    policy: Option<&platter_policy>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        let policy = given(policy, "policy")?;
        policy.poison().check()?;
        convert.request.target.policy = policy.policy().clone();
        Ok(())
    })
}

/// Sets the secrets to which options of the target refer by ID; a copy is kept, which replaces those set before. NULL
/// stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_set_secrets(
    convert: Option<&mut platter_convert>,
    secrets: Option<&platter_secrets>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        convert.request.target.objects = secret::copied(secrets)?;
        Ok(())
    })
}

/// Sets storages that are used instead of files with the same names, for the target and for what it names. Those of the
/// sources are set by `platter_convert_set_source_options()`. A copy of the set is kept, which replaces the previous
/// one. NULL stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_set_storages(
    convert: Option<&mut platter_convert>,
    storages: Option<&platter_storages>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        convert.request.target.storages = storages::copied(storages)?;
        Ok(())
    })
}

/// Sets the target's backing file and its format; data that it already contains is not copied. Either may be NULL for
/// none, or if the options give it. What the backing file itself names is opened if
/// `platter_convert_set_target_policy()` allows it. `flags` are 0 or `PLATTER_NAME_UNCHECKED`.
///
/// Statuses: UNSUPPORTED (an unknown format), INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `file` and `format` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_convert_set_backing(
    convert: Option<&mut platter_convert>,
    file: *const c_char,
    format: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, PLATTER_NAME_UNCHECKED)?;
        // SAFETY: by the contract of this function.
        let (file, format) = unsafe {
            (
                optional_name(file),
                driver_name::recorded(format, "format", flags)?,
            )
        };
        convert.request.target.backing_file = file.map(BStr::to_owned);
        convert.request.target.backing_format = format;
        Ok(())
    })
}

/// Requests a checksum of the guest data, computed while it is copied, over the whole virtual disk, zeroes included:
/// `algorithm` is `sha256`, or NULL for none. The report has it as the string `sha256`, and the checksum of a
/// compressed file or stream (see `platter_open_options_set_decompress()`) as `container-sha256`, also if the location
/// describes it (`driver=decompress`) or it is a backing file that is copied. For that checksum, a file that is
/// decompressed in parts or into a temporary file is read once more; for several files, it covers all their bytes
/// together. For the checksums alone, set `/dev/null` as the target with `platter_convert_set_target_fd()`. `flags`
/// must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `algorithm` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_convert_set_checksum(
    convert: Option<&mut platter_convert>,
    algorithm: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let algorithm = unsafe { optional_utf8(algorithm, "algorithm")? };
        convert.request.tuning.checksum = match algorithm {
            None => false,
            Some("sha256") => true,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "Unknown checksum '{other}'; there is sha256"
                )));
            }
        };
        Ok(())
    })
}

/// Number of a conversion: the minimum length in bytes of runs of zeroes that stay sparse; a multiple of 512 up to 16
/// MiB, 0 allocates everything. The default is 4096.
pub const PLATTER_CONVERT_SPARSE_SIZE: u32 = 1;
/// Number of a conversion: how many pieces of work run in parallel, 1 to 16. The default depends on the machine.
pub const PLATTER_CONVERT_PARALLEL: u32 = 2;

/// Sets a numeric parameter of the conversion, `PLATTER_CONVERT_SPARSE_SIZE` or `PLATTER_CONVERT_PARALLEL`. `flags`
/// must be 0.
///
/// Statuses: INVALID, also for a value out of range. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_set_number(
    convert: Option<&mut platter_convert>,
    which: u32,
    value: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(convert, "convert", err, |convert| {
        check_flags(flags, 0)?;
        let tuning = &mut convert.request.tuning;
        match which {
            PLATTER_CONVERT_SPARSE_SIZE => tuning.sparse_size = Some(check_sparse_size(value)?),
            PLATTER_CONVERT_PARALLEL => tuning.parallel = Some(check_parallel(value)?),
            _ => {
                return Err(Error::invalid(format!(
                    "Unknown number {which} of a conversion"
                )));
            }
        }
        Ok(())
    })
}

/// Conflict of a conversion: none, everything is compatible.
pub const PLATTER_CONVERT_CONFLICT_NONE: u32 = 0;
/// Conflict of a conversion: `PLATTER_CONVERT_SKIP_BROKEN_BITMAPS` without `PLATTER_CONVERT_BITMAPS`.
pub const PLATTER_CONVERT_CONFLICT_SKIP_WITHOUT_BITMAPS: u32 = 3;
/// Conflict of a conversion: `PLATTER_CONVERT_COPY_RANGE` with `PLATTER_CONVERT_COMPRESS`.
pub const PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_COMPRESS: u32 = 4;
/// Conflict of a conversion: `PLATTER_CONVERT_COPY_RANGE` with `PLATTER_CONVERT_SPARSE_SIZE`.
pub const PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SPARSE_SIZE: u32 = 5;
/// Conflict of a conversion: `PLATTER_CONVERT_COPY_RANGE` with `PLATTER_CONVERT_SALVAGE`.
pub const PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SALVAGE: u32 = 6;
/// Conflict of a conversion: creation options with `PLATTER_CONVERT_TARGET_EXISTS`.
pub const PLATTER_CONVERT_CONFLICT_OPTIONS_OF_EXISTING: u32 = 7;
/// Conflict of a conversion: `PLATTER_CONVERT_TARGET_IS_ZERO` without `PLATTER_CONVERT_TARGET_EXISTS`.
pub const PLATTER_CONVERT_CONFLICT_ZERO_OF_NEW: u32 = 8;
/// Conflict of a conversion: a backing file with several sources.
pub const PLATTER_CONVERT_CONFLICT_BACKING_OF_SEVERAL: u32 = 9;
/// Conflict of a conversion: a snapshot with several sources.
pub const PLATTER_CONVERT_CONFLICT_SNAPSHOT_OF_SEVERAL: u32 = 10;
/// Conflict of a conversion: `PLATTER_CONVERT_BITMAPS` with several sources.
pub const PLATTER_CONVERT_CONFLICT_BITMAPS_OF_SEVERAL: u32 = 11;
/// Conflict of a conversion: a profile with `PLATTER_CONVERT_TARGET_EXISTS` or a descriptor for the target.
pub const PLATTER_CONVERT_CONFLICT_PROFILE_OF_EXISTING: u32 = 13;
/// Conflict of a conversion: `PLATTER_CONVERT_CHAIN` with several sources, a descriptor, a snapshot, a
/// backing file or `PLATTER_CONVERT_TARGET_EXISTS`.
pub const PLATTER_CONVERT_CONFLICT_CHAIN: u32 = 12;

fn number(conflict: Conflict) -> u32 {
    match conflict {
        Conflict::SkipWithoutBitmaps => PLATTER_CONVERT_CONFLICT_SKIP_WITHOUT_BITMAPS,
        Conflict::CopyRangeAndCompress => PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_COMPRESS,
        Conflict::CopyRangeAndSparseSize => PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SPARSE_SIZE,
        Conflict::CopyRangeAndSalvage => PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SALVAGE,
        Conflict::OptionsOfExisting => PLATTER_CONVERT_CONFLICT_OPTIONS_OF_EXISTING,
        Conflict::ZeroOfNew => PLATTER_CONVERT_CONFLICT_ZERO_OF_NEW,
        Conflict::BackingOfSeveral => PLATTER_CONVERT_CONFLICT_BACKING_OF_SEVERAL,
        Conflict::SnapshotOfSeveral => PLATTER_CONVERT_CONFLICT_SNAPSHOT_OF_SEVERAL,
        Conflict::BitmapsOfSeveral => PLATTER_CONVERT_CONFLICT_BITMAPS_OF_SEVERAL,
        Conflict::ProfileOfExisting => PLATTER_CONVERT_CONFLICT_PROFILE_OF_EXISTING,
        Conflict::WholeChain => PLATTER_CONVERT_CONFLICT_CHAIN,
    }
}

/// Checks whether what has been set so far and `flags`, bits of `PLATTER_CONVERT_*`, are compatible. `*out` is
/// `PLATTER_CONVERT_CONFLICT_NONE`, or the first conflict, a `PLATTER_CONVERT_CONFLICT_*`, for which
/// `platter_convert_job_new()` would refuse the job. Neither sources nor a target need to be set yet; no file is
/// touched.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_check(
    out: Option<&mut MaybeUninit<u32>>,
    convert: Option<&platter_convert>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, convert, "convert", err, |params| {
        let found = Conflict::find(&with_flags(params, flags)?);
        Ok(found.map_or(PLATTER_CONVERT_CONFLICT_NONE, number))
    })
}

/// Returns one line for the user that says what is wrong, as the error of `platter_convert_job_new()` does; NULL for
/// none and for an unknown number. The string lives forever.
///
/// Threads: any; safe in a signal handler. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_conflict_text(conflict: u32) -> *const c_char {
    let found = Conflict::ALL
        .into_iter()
        .find(|known| number(*known) == conflict);
    found.map_or(std::ptr::null(), |known| known.message().as_ptr())
}

/// Creates the job that converts. `flags` are bits of `PLATTER_CONVERT_*`. Nothing is touched before the job runs;
/// `platter_job_set_rate()` sets the rate limit. `*out` belongs to the caller, who frees it with `platter_job_free()`.
/// A target that the job created is removed if the job fails or is cancelled; an existing target then contains part of
/// the data.
///
/// Statuses: INVALID; of the job: every one of opening, creating, reading and writing. Threads: any.
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_convert_job_new(
    out: Option<&mut MaybeUninit<*mut platter_job>>,
    convert: Option<&platter_convert>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, convert, "convert", err, |params| {
        let request = request(params, flags)?;
        Ok(NewJob::with_rate().into_handle(
            "convert",
            None,
            Vec::new(),
            Box::new(move |job, _| convert_job(&request, job)),
        ))
    })
}

/// The request as set so far.
fn with_flags(params: &platter_convert, flags: u32) -> Result<ConvertRequest> {
    check_flags(
        flags,
        PLATTER_CONVERT_COMPRESS
            | PLATTER_CONVERT_TARGET_EXISTS
            | PLATTER_CONVERT_TARGET_IS_ZERO
            | PLATTER_CONVERT_OUT_OF_ORDER
            | PLATTER_CONVERT_COPY_RANGE
            | PLATTER_CONVERT_SALVAGE
            | PLATTER_CONVERT_BITMAPS
            | PLATTER_CONVERT_SKIP_BROKEN_BITMAPS
            | PLATTER_CONVERT_CHAIN
            | PLATTER_CONVERT_EXCLUSIVE,
    )?;
    let mut request = params.request.clone();
    request.target.compress = flags & PLATTER_CONVERT_COMPRESS != 0;
    request.target.exists = flags & PLATTER_CONVERT_TARGET_EXISTS != 0;
    request.target.is_zero = flags & PLATTER_CONVERT_TARGET_IS_ZERO != 0;
    request.target.exclusive = flags & PLATTER_CONVERT_EXCLUSIVE != 0;
    request.target.whole_chain = flags & PLATTER_CONVERT_CHAIN != 0;
    request.tuning.out_of_order = flags & PLATTER_CONVERT_OUT_OF_ORDER != 0;
    request.tuning.copy_range = flags & PLATTER_CONVERT_COPY_RANGE != 0;
    request.source.salvage = flags & PLATTER_CONVERT_SALVAGE != 0;
    request.source.bitmaps = flags & PLATTER_CONVERT_BITMAPS != 0;
    request.source.skip_broken_bitmaps = flags & PLATTER_CONVERT_SKIP_BROKEN_BITMAPS != 0;
    Ok(request)
}

fn request(params: &platter_convert, flags: u32) -> Result<ConvertRequest> {
    let mut request = with_flags(params, flags)?;
    if request.source.images.is_empty() && request.source.fd.is_none() {
        return Err(Error::invalid("The conversion has no source"));
    }
    if !params.has_target {
        return Err(Error::invalid("The conversion has no target"));
    }
    if request.target.exists && params.target_is_name {
        request.target.location = Location::parse(request.target.location.text())?;
    }
    if request.target.format.is_none() && request.target.profile.is_none() && !request.target.exists
    {
        return Err(Error::invalid("A new target needs a format"));
    }
    if request.target.exclusive && (request.target.exists || request.target.fd.is_some()) {
        return Err(Error::invalid(
            "What is written to exists already and cannot be new",
        ));
    }
    check(&request)?;
    Ok(request)
}

fn convert_job(request: &ConvertRequest, job: &mut crate::job::Job) -> Result<Content> {
    convert(request, job).map(Content::Convert)
}

/// Frees the description of a conversion. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The description is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_convert_free(convert: *mut platter_convert) {
    // SAFETY: the caller owns it; it came from `platter_convert_new`.
    unsafe { boundary::free(convert) }
}
