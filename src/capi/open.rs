//! How an image is opened, and where it is.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::Arc;

use crate::capi::boundary::{self, Handle, Poison, call_mut, call_out, check_flags, given, truth};
use crate::capi::control::{self, platter_control};
use crate::capi::driver_name::{self, PLATTER_NAME_UNCHECKED};
use crate::capi::error::platter_error;
pub(super) use crate::capi::location::{LOCATION_FLAGS, location, target};
use crate::capi::nodes::{self, platter_nodes};
use crate::capi::options::platter_options;
use crate::capi::policy::platter_policy;
use crate::capi::secret::{self, platter_secrets};
use crate::capi::storages::{self, platter_storages};
use crate::capi::text::{optional_name, optional_utf8, utf8};
use crate::codec::{Compression, Method};
use crate::error::{Error, Result};
use crate::filter::decompress::kind_named;
use crate::image::{DetectZeroes, OpenOptions};
use crate::options::Options;
use crate::storage::CacheMode;

/// Flag of calls that open: open for writing; without it the image is read-only.
pub const PLATTER_OPEN_WRITE: u32 = 1;
/// Flag of calls that open: take no locks that exclude others. Only for read-only opens.
pub const PLATTER_OPEN_FORCE_SHARE: u32 = 2;
/// Flag of calls that open: do not open the backing chain.
pub const PLATTER_OPEN_NO_BACKING: u32 = 4;
/// Flag of calls that open: only metadata is needed; the data file and the backing chain are not opened.
pub const PLATTER_OPEN_METADATA_ONLY: u32 = 8;
/// Flag of calls that open: open for a check, even if tables are damaged, where that is possible.
pub const PLATTER_OPEN_FOR_CHECK: u32 = 16;
/// Flag of calls that open: keep everything else from writing in the meantime, even if the format is raw.
pub const PLATTER_OPEN_DENY_WRITERS: u32 = 32;

pub(super) const OPEN_FLAGS: u32 = PLATTER_OPEN_WRITE
    | PLATTER_OPEN_FORCE_SHARE
    | PLATTER_OPEN_NO_BACKING
    | PLATTER_OPEN_METADATA_ONLY
    | PLATTER_OPEN_FOR_CHECK
    | PLATTER_OPEN_DENY_WRITERS;

/// How an image is opened: format, cache mode, policy, secrets. Functions that use it copy it.
#[derive(Debug, Default)]
pub struct platter_open_options {
    poison: Poison,
    options: OpenOptions,
}

impl Handle for platter_open_options {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// The options for opening: those of the object (or the defaults) combined with those of the flags.
pub(super) fn merged(options: Option<&platter_open_options>, flags: u32) -> Result<OpenOptions> {
    let mut merged = match options {
        Some(options) => {
            options.poison.check()?;
            options.options.clone()
        }
        None => OpenOptions::default(),
    };
    merged.writable = flags & PLATTER_OPEN_WRITE != 0;
    merged.force_share = flags & PLATTER_OPEN_FORCE_SHARE != 0;
    merged.backing = flags & (PLATTER_OPEN_NO_BACKING | PLATTER_OPEN_METADATA_ONLY) == 0;
    merged.metadata_only = flags & PLATTER_OPEN_METADATA_ONLY != 0;
    merged.for_check = flags & PLATTER_OPEN_FOR_CHECK != 0;
    merged.deny_writers = flags & PLATTER_OPEN_DENY_WRITERS != 0;
    Ok(merged)
}

/// A cache mode by its name.
///
/// # Safety
/// `mode` is NULL or NUL-terminated.
pub(super) unsafe fn cache_mode(mode: *const c_char) -> Result<CacheMode> {
    // SAFETY: by this function's contract.
    let mode = unsafe { utf8(mode, "mode")? };
    CacheMode::from_name(mode).ok_or_else(|| {
        Error::invalid(format!("Invalid cache option: {mode}"))
            .with_hint("Valid modes: none (or off), writeback, writethrough, directsync, unsafe")
    })
}

/// Creates options with the defaults: the format is guessed if the policy allows it, cache mode `writeback`, the strict
/// policy. The caller frees them with `platter_open_options_free()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_new(
    out: Option<&mut MaybeUninit<*mut platter_open_options>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        Ok(Box::into_raw(Box::new(platter_open_options::default())))
    })
}

/// Sets the format; if NULL, it is guessed if the policy allows that. `flags` are 0 or `PLATTER_NAME_UNCHECKED`.
///
/// Statuses: UNSUPPORTED (an unknown format), INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `format` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_open_options_set_format(
    options: Option<&mut platter_open_options>,
    format: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, PLATTER_NAME_UNCHECKED)?;
        // SAFETY: by the contract of this function.
        options.options.format = unsafe { driver_name::opened(format, flags)? };
        Ok(())
    })
}

/// Sets an option of the image, by the key that it has in a `driver=…` string: `encrypt.key-secret`, `lazy-refcounts`,
/// `file.locking`, `backing.driver`. Options can thus be combined with a path, a descriptor or a storage, and nothing
/// is escaped. The value is taken verbatim, `on` or `off` for a boolean; an empty `backing` means no backing file at
/// all. A later value replaces an earlier one; NULL removes it. Opening refuses keys that the image does not have, that
/// the location has too, or that begin with `file.` if the file is already open. `platter_option_describe()` lists the
/// keys with `PLATTER_OPERATION_OPEN`. If several images are opened with these options, they apply to each of them, but
/// to no image that one of them names. `flags` must be 0.
///
/// Statuses: INVALID (an empty key, a key that is part of another one), UNSUPPORTED (an unknown driver). Threads: one
/// at a time. Since 0.1.
///
/// # Safety
/// `key` and `value` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_open_options_set_option(
    options: Option<&mut platter_open_options>,
    key: *const c_char,
    value: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let (key, value) = unsafe { (utf8(key, "key")?, optional_name(value)) };
        if key.split('.').any(str::is_empty) {
            return Err(Error::invalid("Parameter 'key' has an empty part"));
        }
        let mut changed = options.options.driver_options.clone();
        match value {
            Some(value) => changed.set(key, value),
            None => drop(changed.take(key)),
        }
        driver_name::check_options(&changed)?;
        options.options.set_driver_options(changed)
    })
}

/// Sets all options of the image at once, as `platter_open_options_set_option()` does for one: those of a bag, in which
/// numbers and booleans are set by functions of their own. A copy is kept, which replaces those set before; NULL stands
/// for none. `flags` must be 0.
///
/// Statuses: INVALID (a key that is part of another one), UNSUPPORTED (an unknown driver). Threads: one at a time.
/// Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_set_options(
    options: Option<&mut platter_open_options>,
    bag: Option<&platter_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        let Some(bag) = bag else {
            return options.options.set_driver_options(Options::new());
        };
        bag.poison().check()?;
        driver_name::check_options(bag.options())?;
        options.options.set_driver_options(bag.options().clone())
    })
}

/// Sets the cache mode: `none` (or `off`), `writeback`, `writethrough`, `directsync`, `unsafe`.
/// `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `mode` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_open_options_set_cache(
    options: Option<&mut platter_open_options>,
    mode: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        options.options.cache = unsafe { cache_mode(mode)? };
        Ok(())
    })
}

/// Sets the policy; a copy is kept. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_set_policy(
    options: Option<&mut platter_open_options>,
    policy: Option<&platter_policy>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        let policy = given(policy, "policy")?;
        policy.poison().check()?;
        options.options.policy = policy.policy().clone();
        Ok(())
    })
}

/// Sets the secrets to which options such as `key-secret` in a location refer by ID; a copy is kept, which replaces
/// those set before. NULL stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_set_secrets(
    options: Option<&mut platter_open_options>,
    secrets: Option<&platter_secrets>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        options.options.objects = secret::copied(secrets)?;
        Ok(())
    })
}

/// Sets the set of named nodes for images that are opened one after the other: node names are registered in the set,
/// and can refer to nodes of images that were opened with it before. The set itself is used, not a copy. NULL, the
/// default, stands for a separate set for each image, or for each job that opens several. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_set_nodes(
    options: Option<&mut platter_open_options>,
    nodes: Option<&platter_nodes>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        options.options.nodes = nodes::shared(nodes)?;
        Ok(())
    })
}

/// Sets storages that are used instead of files with the same names, for the image and for whatever it names, as far as
/// the policy allows. A copy of the set is kept, which replaces the previous one. NULL stands for none. `flags` must be
/// 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_set_storages(
    options: Option<&mut platter_open_options>,
    storages: Option<&platter_storages>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        options.options.storages = storages::copied(storages)?;
        Ok(())
    })
}

/// Sets the compression level for compressed writes to the image: 1 to 12 for zlib, 22 and less, including negative
/// levels, for zstd. A level that no compression method has is refused at once, one that the compression method of the
/// image does not have when the image is opened; formats without compression accept any. Without this call, the level
/// is the format's default. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_set_compression_level(
    options: Option<&mut platter_open_options>,
    level: i32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // Zstd has every level that any other method has.
        Compression::at_level(Method::Zstd, Some(i64::from(level)))?;
        options.options.compression_level = Some(i64::from(level));
        Ok(())
    })
}

/// Opens the contents of a compressed file: the file at the location is compressed, by `kind` (`xz`, `gzip`, `bzip2`,
/// `zstd`, `lz4`), or with `auto` by the method that its beginning shows. NULL, the default, takes files as they are.
/// What is opened this way is read-only; a conversion of a raw disk reads it in one pass. Everything else decompresses
/// parts of the file as they are read, if the file tells which part holds what, and caches the most recent ones within
/// `PLATTER_LIMIT_DECODER_BYTES`; otherwise it decompresses the file into a temporary file without a name, in the
/// directory given by TMPDIR (by default `/var/tmp`), for which the policy has `PLATTER_LIMIT_SPOOL_BYTES`. `flags` are
/// 0 or `PLATTER_NAME_UNCHECKED`.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `kind` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_open_options_set_decompress(
    options: Option<&mut platter_open_options>,
    kind: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, PLATTER_NAME_UNCHECKED)?;
        // SAFETY: by the contract of this function.
        let kind = unsafe { optional_utf8(kind, "kind")? };
        if let (Some(kind), false) = (kind, flags & PLATTER_NAME_UNCHECKED != 0) {
            kind_named(kind)?;
        }
        options.options.decompress = kind.map(str::to_owned);
        Ok(())
    })
}

/// Sets whether discards reach the host: 0 leaves the space allocated, 1 releases it, whatever the location says.
/// `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_set_discard(
    options: Option<&mut platter_open_options>,
    discard: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        options.options.discard = Some(truth(discard, "discard")?);
        Ok(())
    })
}

/// Sets whether writes are scanned for zeroes, which then take no space as far as the format supports that: `off`,
/// `on`, or `unmap`, which allows them to become holes; NULL for what the location says. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `mode` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_open_options_set_detect_zeroes(
    options: Option<&mut platter_open_options>,
    mode: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let mode = unsafe { optional_utf8(mode, "mode")? };
        options.options.detect_zeroes = mode.map(DetectZeroes::from_name).transpose()?;
        Ok(())
    })
}

/// Sets the control that cancels an open that takes long: deriving a key, reading large tables, or repairing an image
/// that was not closed. The open then fails with CANCELLED and leaves the image as it was. A job that is given these
/// options is cancelled by the control too. NULL stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_open_options_set_control(
    options: Option<&mut platter_open_options>,
    control: Option<&platter_control>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        options.options.control = match control {
            Some(_) => control::shared(control)?,
            None => Arc::default(),
        };
        Ok(())
    })
}

/// Frees options. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The options are not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_open_options_free(options: *mut platter_open_options) {
    // SAFETY: the caller owns the options, which came from `platter_open_options_new`.
    unsafe { boundary::free(options) }
}
