//! What opening an image may do.

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capi::boundary::{
    self, Handle, Poison, UserData, call_mut, call_out, call_ref_out, check_flags, given,
    platter_free_fn, truth,
};
use crate::capi::driver::{PLATTER_DRIVER_FORMAT, PLATTER_DRIVER_PROTOCOL};
use crate::capi::driver_name;
use crate::capi::error::platter_error;
use crate::capi::status::kind_of;
use crate::capi::text::{c_string, os, utf8};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{
    HostRule, ImplicitAnswer, ImplicitFile, ImplicitFiles, ImplicitRole, OpenPolicy, Probing,
};
use crate::printable::printable_bytes;

/// What opening an image may do, and which resources it may use. Functions that use it copy it.
#[derive(Debug)]
pub struct platter_policy {
    poison: Poison,
    policy: OpenPolicy,
}

impl platter_policy {
    pub(super) fn policy(&self) -> &OpenPolicy {
        &self.policy
    }
}

impl Handle for platter_policy {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Preset: no file that an image names is opened, and formats are guessed for read-only opens only. For images that
/// others made, and the default of calls without a policy.
pub const PLATTER_POLICY_STRICT: u32 = 0;
/// Preset: files that an image names are opened, and formats are guessed. This is what the command-line tools allow.
pub const PLATTER_POLICY_PERMISSIVE: u32 = 1;

/// Probing: never guess the format.
pub const PLATTER_PROBING_NEVER: u32 = 0;
/// Probing: guess the format for read-only opens.
pub const PLATTER_PROBING_READ_ONLY: u32 = 1;
/// Probing: guess the format.
pub const PLATTER_PROBING_ALWAYS: u32 = 2;

/// Files that an image names: open none.
pub const PLATTER_IMPLICIT_DENY: u32 = 0;
/// Files that an image names: open any.
pub const PLATTER_IMPLICIT_ALLOW: u32 = 1;

/// Limit: number of images in a chain.
pub const PLATTER_LIMIT_CHAIN_DEPTH: u32 = 1;
/// Limit: virtual size in bytes.
pub const PLATTER_LIMIT_VIRTUAL_SIZE: u32 = 2;
/// Limit: size in bytes of a table that is loaded at once.
pub const PLATTER_LIMIT_TABLE_BYTES: u32 = 3;
/// Limit: memory in bytes for the metadata cache of one image.
pub const PLATTER_LIMIT_CACHE_BYTES: u32 = 4;
/// Limit: number of bytes that one compressed unit (cluster, grain, chunk) may decode to.
pub const PLATTER_LIMIT_DECOMPRESSED_BYTES: u32 = 5;
/// Limit: number of key derivation iterations that a key slot may require.
pub const PLATTER_LIMIT_KEY_ITERATIONS: u32 = 6;
/// Limit: memory in bytes for decompressing a file that is compressed as a whole.
pub const PLATTER_LIMIT_DECODER_BYTES: u32 = 7;
/// Limit: factor by which such a file may expand, applied from 1 GiB on.
pub const PLATTER_LIMIT_EXPANSION: u32 = 8;
/// Limit: size in bytes of the temporary file for the contents of such a file, not counting holes.
pub const PLATTER_LIMIT_SPOOL_BYTES: u32 = 9;

/// Default of `PLATTER_LIMIT_CHAIN_DEPTH`.
pub const PLATTER_LIMIT_CHAIN_DEPTH_DEFAULT: u64 = 200;
/// Default of `PLATTER_LIMIT_VIRTUAL_SIZE`.
pub const PLATTER_LIMIT_VIRTUAL_SIZE_DEFAULT: u64 = 9_223_372_036_854_775_807;
/// Default of `PLATTER_LIMIT_TABLE_BYTES`.
pub const PLATTER_LIMIT_TABLE_BYTES_DEFAULT: u64 = 33_554_432;
/// Default of `PLATTER_LIMIT_CACHE_BYTES`.
pub const PLATTER_LIMIT_CACHE_BYTES_DEFAULT: u64 = 16_777_216;
/// Default of `PLATTER_LIMIT_DECOMPRESSED_BYTES`.
pub const PLATTER_LIMIT_DECOMPRESSED_BYTES_DEFAULT: u64 = 67_108_864;
/// Default of `PLATTER_LIMIT_KEY_ITERATIONS`, except that `PLATTER_POLICY_PERMISSIVE` has no such limit.
pub const PLATTER_LIMIT_KEY_ITERATIONS_DEFAULT: u64 = 64_000_000;
/// Default of `PLATTER_LIMIT_DECODER_BYTES`.
pub const PLATTER_LIMIT_DECODER_BYTES_DEFAULT: u64 = 268_435_456;
/// Default of `PLATTER_LIMIT_EXPANSION`, except that `PLATTER_POLICY_PERMISSIVE` has no such limit.
pub const PLATTER_LIMIT_EXPANSION_DEFAULT: u64 = 100_000;
/// Default of `PLATTER_LIMIT_SPOOL_BYTES`.
pub const PLATTER_LIMIT_SPOOL_BYTES_DEFAULT: u64 = 68_719_476_736;

/// Role of a file that an image names: it holds the data that the overlay does not.
pub const PLATTER_ROLE_BACKING: u32 = 1;
/// Role of a file that an image names: it holds the guest data.
pub const PLATTER_ROLE_DATA_FILE: u32 = 2;
/// Role of a file that an image names: it holds a piece of the guest data.
pub const PLATTER_ROLE_EXTENT: u32 = 3;

/// Answer of `platter_implicit_fn`: refuse; the open fails with DENIED.
pub const PLATTER_ANSWER_DENY: c_int = 0;
/// Answer of `platter_implicit_fn`: open the file by its name.
pub const PLATTER_ANSWER_OPEN: c_int = 1;
/// Answer of `platter_implicit_fn`: use the descriptor stored in `*fd`, which the library then owns.
pub const PLATTER_ANSWER_FD: c_int = 2;

/// A file that an image names. The library owns it; it lives until the callback returns.
#[repr(C)]
#[derive(Debug)]
pub struct platter_implicit_file {
    /// Size of this struct in the library in use; later versions append members.
    pub size: usize,
    /// The name as recorded in the image.
    pub name: *const c_char,
    /// The image that names it.
    pub named_by: *const c_char,
    /// A `PLATTER_ROLE_*`.
    pub role: u32,
    /// 1 if it would be opened for writing, else 0.
    pub writable: u32,
}

/// Callback that decides about a file that an image names and that is to be opened or, alongside a new image, created:
/// returns a `PLATTER_ANSWER_*`, or a negative `PLATTER_STATUS_*` or `-errno` that says why the file is not available,
/// with which the open then fails; `-EPERM`, `-EACCES` and any other value refuse it as `PLATTER_ANSWER_DENY` does.
/// `*fd` is used only with `PLATTER_ANSWER_FD`: a descriptor for reading, and also for writing if `file` says so.
/// Called on the thread that opens, and on several at once if several open with this policy.
pub type platter_implicit_fn = Option<
    unsafe extern "C" fn(
        file: *const platter_implicit_file,
        fd: *mut c_int,
        user_data: *mut c_void,
    ) -> c_int,
>;

/// Creates a policy from a preset, a `PLATTER_POLICY_*`. The caller frees it with `platter_policy_free()`. `flags` must
/// be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_policy_new(
    out: Option<&mut MaybeUninit<*mut platter_policy>>,
    preset: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let policy = match preset {
            PLATTER_POLICY_STRICT => OpenPolicy::strict(),
            PLATTER_POLICY_PERMISSIVE => OpenPolicy::permissive(),
            _ => return Err(Error::invalid(format!("Unknown policy preset {preset}"))),
        };
        Ok(Box::into_raw(Box::new(platter_policy {
            poison: Poison::default(),
            policy,
        })))
    })
}

/// Allows `format`; once a format has been named, all others are refused. `flags` must be 0.
///
/// Statuses: UNSUPPORTED (an unknown format), INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `format` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_policy_allow_format(
    policy: Option<&mut platter_policy>,
    format: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let format = unsafe { driver_name::allowed(format, "format", PLATTER_DRIVER_FORMAT)? };
        policy.policy.formats.push(format);
        Ok(())
    })
}

/// Allows `protocol`, by the name of its driver (`file`, `host_device`…); once one has been named, opening and creating
/// through any other fails with DENIED, no matter who names the file. What the caller has opened itself is not checked:
/// descriptors, including those that a callback of the policy returns, and callback storages. `flags` must be 0.
///
/// Statuses: UNSUPPORTED (an unknown protocol), INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `protocol` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_policy_allow_protocol(
    policy: Option<&mut platter_policy>,
    protocol: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let protocol =
            unsafe { driver_name::allowed(protocol, "protocol", PLATTER_DRIVER_PROTOCOL)? };
        policy.policy.protocols.push(protocol);
        Ok(())
    })
}

/// Allows names inside images to refer to the server `host`: a name, an IP address, or `*.DOMAIN` for everything below
/// a domain, followed by `:PORT` if only that port is meant (an IPv6 address is then in brackets). Once one has been
/// named, opening what an image names on any other server fails with DENIED, and so does following a redirect of such a
/// server to another one; local sockets have no host and are refused too. Hosts are compared as they are written. What
/// the caller names itself is not checked. This allows nothing that `platter_policy_set_implicit()` and
/// `platter_policy_set_implicit_protocols()` do not. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `host` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_policy_allow_host(
    policy: Option<&mut platter_policy>,
    host: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let host = unsafe { utf8(host, "host")? };
        policy.policy.implicit_hosts.push(HostRule::parse(host)?);
        Ok(())
    })
}

/// Sets when the format may be guessed: a `PLATTER_PROBING_*`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_policy_set_probing(
    policy: Option<&mut platter_policy>,
    probing: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        policy.policy.probing = match probing {
            PLATTER_PROBING_NEVER => Probing::Never,
            PLATTER_PROBING_READ_ONLY => Probing::ReadOnly,
            PLATTER_PROBING_ALWAYS => Probing::Always,
            _ => return Err(Error::invalid(format!("Unknown probing mode {probing}"))),
        };
        Ok(())
    })
}

/// Sets whether files that an image names (backing file, data file, extents) may be opened: a `PLATTER_IMPLICIT_*`.
/// Replaces any directories and callback set before. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_policy_set_implicit(
    policy: Option<&mut platter_policy>,
    mode: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        policy.policy.implicit_files = match mode {
            PLATTER_IMPLICIT_DENY => ImplicitFiles::Deny,
            PLATTER_IMPLICIT_ALLOW => ImplicitFiles::Allow,
            _ => {
                return Err(Error::invalid(format!(
                    "Unknown mode {mode} for implicit files"
                )));
            }
        };
        Ok(())
    })
}

/// Refuses anything but a directory, below which no file could be.
fn check_directory(directory: &Path) -> Result<()> {
    let name = printable_bytes(directory.as_os_str().as_bytes());
    let metadata = fs::metadata(directory);
    let metadata =
        metadata.map_err(|error| Error::io(&error).context(format!("Could not use '{name}'")))?;
    match metadata.is_dir() {
        true => Ok(()),
        false => Err(Error::invalid(format!("'{name}' is no directory"))),
    }
}

/// Allows files that an image names if their real path is below `directory`, or below one of earlier calls; all others
/// are refused. `flags` must be 0.
///
/// Statuses: NOT_FOUND, OS, INVALID (it is no directory). Threads: one at a time. Since 0.1.
///
/// # Safety
/// `directory` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_policy_add_directory(
    policy: Option<&mut platter_policy>,
    directory: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let directory: &OsStr = unsafe { os(directory, "directory")? };
        let directory = PathBuf::from(directory);
        check_directory(&directory)?;
        match &mut policy.policy.implicit_files {
            ImplicitFiles::Below(directories) => directories.push(directory),
            other => *other = ImplicitFiles::Below(vec![directory]),
        }
        Ok(())
    })
}

/// Calls `implicit_fn` for each file that an image names. `free_fn` (may be NULL) is called once with `user_data`: when
/// nothing uses the callback any more, or at once if this call fails. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `implicit_fn` and `user_data` are usable until `free_fn` is called, from every thread that opens
/// with the policy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_policy_set_callback(
    policy: Option<&mut platter_policy>,
    implicit_fn: platter_implicit_fn,
    user_data: *mut c_void,
    free_fn: platter_free_fn,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let user_data = UserData::new(user_data, free_fn);
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        let ask = given(implicit_fn, "implicit_fn")?;
        policy.policy.implicit_files = ImplicitFiles::Ask(Arc::new(move |file| {
            let name = c_string(file.name.to_vec());
            let named_by = c_string(file.named_by.to_vec());
            let mut fd = -1;
            let shown = shown(file, &name, &named_by);
            // SAFETY: the caller keeps both usable until `user_data` is dropped.
            let answer = unsafe { ask(&shown, &mut fd, user_data.get()) };
            answered(answer, fd, file)
        }));
        Ok(())
    })
}

fn shown(file: &ImplicitFile<'_>, name: &CString, named_by: &CString) -> platter_implicit_file {
    platter_implicit_file {
        size: size_of::<platter_implicit_file>(),
        name: name.as_ptr(),
        named_by: named_by.as_ptr(),
        role: match file.role {
            ImplicitRole::Backing | ImplicitRole::ParentLocator => PLATTER_ROLE_BACKING,
            ImplicitRole::DataFile => PLATTER_ROLE_DATA_FILE,
            ImplicitRole::Extent => PLATTER_ROLE_EXTENT,
        },
        writable: u32::from(file.writable),
    }
}

fn answered(answer: c_int, fd: c_int, file: &ImplicitFile<'_>) -> Result<ImplicitAnswer> {
    match answer {
        PLATTER_ANSWER_OPEN => Ok(ImplicitAnswer::Open),
        PLATTER_ANSWER_FD if fd >= 0 => {
            // SAFETY: the callback passed ownership of this descriptor with its answer.
            Ok(ImplicitAnswer::Fd(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        PLATTER_ANSWER_FD => {
            let error = Error::invalid("The policy's callback returned no descriptor");
            Err(error.could_not_open(file.name))
        }
        code => match refusal(code) {
            Some(error) => Err(error.could_not_open(file.name)),
            None => Ok(ImplicitAnswer::Deny),
        },
    }
}

/// Why a callback refuses, unless it refuses as a matter of policy.
fn refusal(code: c_int) -> Option<Error> {
    match kind_of(code) {
        Some(ErrorKind::Denied) => None,
        Some(kind) => Some(Error::new(kind, "The policy's callback refused it")),
        None if matches!(-code, libc::EPERM | libc::EACCES) => None,
        None if (-4095..0).contains(&code) => Some(Error::os(-code)),
        None => None,
    }
}

/// Sets whether (1) or not (0) the name of a backing file inside an image may be `json:{…}` or `protocol:…` rather than
/// a plain file name; names of data files and extents are always plain. Whatever the policy, the target of such a name
/// must be a regular file or a block device, must not be part of procfs or the like, and must not be reached through
/// the open descriptors of a process (`/dev/fd/N`); otherwise opening fails with INVALID. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_policy_set_implicit_protocols(
    policy: Option<&mut platter_policy>,
    allowed: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        policy.policy.implicit_protocols = truth(allowed, "allowed")?;
        Ok(())
    })
}

/// Sets whether (1) or not (0) the format is also guessed from the end of a file if nothing is found at its beginning:
/// a fixed-size VHD has only a footer. Off in both presets: a guest that can write to the end of its raw disk can make
/// it look like such an image. While it is on, what looks like a raw disk is not opened for writing unless its format
/// is named (DENIED). `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_policy_set_probe_footers(
    policy: Option<&mut platter_policy>,
    on: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        policy.policy.probe_footers = truth(on, "on")?;
        Ok(())
    })
}

/// Sets a limit, a `PLATTER_LIMIT_*`; what exceeds it fails with LIMIT. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_policy_set_limit(
    policy: Option<&mut platter_policy>,
    limit: u32,
    value: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        let policy = &mut policy.policy;
        match limit {
            PLATTER_LIMIT_CHAIN_DEPTH => {
                policy.max_chain_depth = u32::try_from(value).unwrap_or(u32::MAX);
            }
            PLATTER_LIMIT_VIRTUAL_SIZE => policy.max_virtual_size = value,
            PLATTER_LIMIT_TABLE_BYTES => policy.max_table_bytes = value,
            PLATTER_LIMIT_CACHE_BYTES => policy.max_cache_bytes = value,
            PLATTER_LIMIT_DECOMPRESSED_BYTES => policy.max_decompressed_bytes = value,
            PLATTER_LIMIT_DECODER_BYTES => policy.max_decoder_bytes = value,
            PLATTER_LIMIT_EXPANSION => policy.max_expansion = value,
            PLATTER_LIMIT_SPOOL_BYTES => policy.max_spool_bytes = value,
            PLATTER_LIMIT_KEY_ITERATIONS => policy.max_key_iterations = value,
            _ => return Err(Error::invalid(format!("Unknown limit {limit}"))),
        }
        Ok(())
    })
}

/// Returns a limit, a `PLATTER_LIMIT_*`, as it is set; for a new policy, the default of its preset. No limit is
/// UINT64_MAX, or UINT32_MAX for `PLATTER_LIMIT_CHAIN_DEPTH`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_policy_get_limit(
    out: Option<&mut MaybeUninit<u64>>,
    policy: Option<&platter_policy>,
    limit: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, policy, "policy", err, |policy| {
        check_flags(flags, 0)?;
        let policy = &policy.policy;
        Ok(match limit {
            PLATTER_LIMIT_CHAIN_DEPTH => policy.max_chain_depth.into(),
            PLATTER_LIMIT_VIRTUAL_SIZE => policy.max_virtual_size,
            PLATTER_LIMIT_TABLE_BYTES => policy.max_table_bytes,
            PLATTER_LIMIT_CACHE_BYTES => policy.max_cache_bytes,
            PLATTER_LIMIT_DECOMPRESSED_BYTES => policy.max_decompressed_bytes,
            PLATTER_LIMIT_DECODER_BYTES => policy.max_decoder_bytes,
            PLATTER_LIMIT_EXPANSION => policy.max_expansion,
            PLATTER_LIMIT_SPOOL_BYTES => policy.max_spool_bytes,
            PLATTER_LIMIT_KEY_ITERATIONS => policy.max_key_iterations,
            _ => return Err(Error::invalid(format!("Unknown limit {limit}"))),
        })
    })
}

/// Frees a policy. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The policy is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_policy_free(policy: *mut platter_policy) {
    // SAFETY: the caller owns the policy, which came from `platter_policy_new`.
    unsafe { boundary::free(policy) }
}
