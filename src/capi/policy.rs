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

/// What opening an image may do, and how much it may take. What uses it copies it.
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

/// Preset: no file that an image names is opened, formats are guessed for read-only opens alone. For
/// images that others made, and what calls use that get no policy.
pub const PLATTER_POLICY_STRICT: u32 = 0;
/// Preset: files that an image names are opened, formats are guessed. What the command-line tools
/// allow.
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

/// Limit: images in a chain.
pub const PLATTER_LIMIT_CHAIN_DEPTH: u32 = 1;
/// Limit: bytes of virtual size.
pub const PLATTER_LIMIT_VIRTUAL_SIZE: u32 = 2;
/// Limit: bytes of a table that is loaded at once.
pub const PLATTER_LIMIT_TABLE_BYTES: u32 = 3;
/// Limit: bytes of metadata cache of one image.
pub const PLATTER_LIMIT_CACHE_BYTES: u32 = 4;
/// Limit: bytes that one compressed unit (cluster, grain, chunk) may decode to.
pub const PLATTER_LIMIT_DECOMPRESSED_BYTES: u32 = 5;
/// Limit: iterations of key derivation that a key slot may ask for.
pub const PLATTER_LIMIT_KEY_ITERATIONS: u32 = 6;
/// Limit: the most memory for decompressing a file that is compressed as a whole, in bytes.
pub const PLATTER_LIMIT_DECODER_BYTES: u32 = 7;
/// Limit: how many times as long as itself such a file may become, from 1 GiB on.
pub const PLATTER_LIMIT_EXPANSION: u32 = 8;
/// Limit: the most bytes of the temporary file for what such a file holds, holes not counted.
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
/// Default of `PLATTER_LIMIT_KEY_ITERATIONS`, which has none in `PLATTER_POLICY_PERMISSIVE`.
pub const PLATTER_LIMIT_KEY_ITERATIONS_DEFAULT: u64 = 64_000_000;
/// Default of `PLATTER_LIMIT_DECODER_BYTES`.
pub const PLATTER_LIMIT_DECODER_BYTES_DEFAULT: u64 = 268_435_456;
/// Default of `PLATTER_LIMIT_EXPANSION`, which has none in `PLATTER_POLICY_PERMISSIVE`.
pub const PLATTER_LIMIT_EXPANSION_DEFAULT: u64 = 100_000;
/// Default of `PLATTER_LIMIT_SPOOL_BYTES`.
pub const PLATTER_LIMIT_SPOOL_BYTES_DEFAULT: u64 = 68_719_476_736;

/// Role of a file that an image names: it holds what the overlay does not.
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
    /// The name as it stands in the image.
    pub name: *const c_char,
    /// The image that names it.
    pub named_by: *const c_char,
    /// A `PLATTER_ROLE_*`.
    pub role: u32,
    /// 1 where it would be opened for writing, else 0.
    pub writable: u32,
}

/// Decides about a file that an image names, to be opened or, beside a new image, made: returns a
/// `PLATTER_ANSWER_*`, or, as a negative `PLATTER_STATUS_*` or `-errno`, why it cannot be had, with which the open then
/// fails; `-EPERM`, `-EACCES` and anything else refuse as `PLATTER_ANSWER_DENY` does. `*fd` is looked at with
/// `PLATTER_ANSWER_FD` alone: a descriptor for reading, and for writing too where `file` says so.
/// Called on the thread that opens, from several at once where several open with this policy.
pub type platter_implicit_fn = Option<
    unsafe extern "C" fn(
        file: *const platter_implicit_file,
        fd: *mut c_int,
        user_data: *mut c_void,
    ) -> c_int,
>;

/// Makes a policy from a preset, a `PLATTER_POLICY_*`. The caller frees it with
/// `platter_policy_free()`. `flags` must be 0.
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

/// Allows `format`; once one is named, every other is refused. `flags` must be 0.
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

/// Allows `protocol`, by its driver's name (`file`, `host_device`…); once one is named, opening and
/// creating through every other fails with DENIED, no matter who names the file. What the caller has open
/// itself is not asked about: descriptors, also those that a callback of the policy returns, and
/// callback storages. `flags` must be 0.
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

/// Allows names inside images to lead to the server `host`: a name, a number, or `*.DOMAIN` for all below a domain,
/// with `:PORT` behind where only that port is meant (a number of IP version 6 then stands in brackets). Once one is
/// named, opening what an image names on any other server fails with DENIED, and so does following such a server that
/// sends on to another one; sockets of this machine have no host and are refused too. Hosts are compared as they are
/// written. What the caller names itself is not asked about. It allows nothing that
/// `platter_policy_set_implicit()` and `platter_policy_set_implicit_protocols()` do not. `flags` must be 0.
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

/// Sets when the format may be guessed, a `PLATTER_PROBING_*`. `flags` must be 0.
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

/// Sets whether files that an image names (backing file, data file, extents) may be opened: a
/// `PLATTER_IMPLICIT_*`. Replaces directories and a callback set before. `flags` must be 0.
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

/// Refuses what is no directory, below which nothing could lie.
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

/// Allows files that an image names where their real path lies below `directory`, and below those of
/// earlier calls; every other is refused. `flags` must be 0.
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

/// Asks `implicit_fn` for each file that an image names. `free_fn` (may be NULL) is called once with
/// `user_data`: when nothing uses the callback any more, or at once when this call fails. `flags`
/// must be 0.
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
            // SAFETY: the callback gave this descriptor away with its answer.
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

/// Why a callback refuses, where it is not the policy that does.
fn refusal(code: c_int) -> Option<Error> {
    match kind_of(code) {
        Some(ErrorKind::Denied) => None,
        Some(kind) => Some(Error::new(kind, "The policy's callback refused it")),
        None if matches!(-code, libc::EPERM | libc::EACCES) => None,
        None if (-4095..0).contains(&code) => Some(Error::os(-code)),
        None => None,
    }
}

/// Sets whether (1) or not (0) the name of a backing file inside an image may be `json:{…}` or `protocol:…` rather
/// than a plain file name; names of data files and extents are always plain. Whatever the policy, what
/// such a name leads to must be a regular file or a block device, none of procfs or its like, and not
/// reached through what a process has open (`/dev/fd/N`): else opening fails with INVALID. `flags`
/// must be 0.
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

/// Sets whether (1) or not (0) the format is guessed also from the end of a file at whose beginning nothing is found: a VHD
/// of fixed size has a footer only. Off in both presets: a guest that may write to the end of its plain disk
/// can make it look like such an image. While it is on, what looks like a plain disk is not opened for writing
/// unless its format is named (DENIED). `flags` must be 0.
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

/// Sets a ceiling, a `PLATTER_LIMIT_*`; what exceeds it fails with LIMIT. `flags` must be 0.
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

/// A ceiling, a `PLATTER_LIMIT_*`, as it is set; of a policy that is new, the default of its preset. What has none is
/// UINT64_MAX, of `PLATTER_LIMIT_CHAIN_DEPTH` UINT32_MAX. `flags` must be 0.
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
