//! Secrets and other objects to which options refer by ID: passphrases, keys, limits, certificates.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

use bstr::BStr;

use crate::capi::boundary::{
    self, Handle, Poison, UserData, call_mut, call_out, check_flags, given, platter_free_fn,
};
use crate::capi::error::platter_error;
use crate::capi::text::{c_string, optional_name, utf8};
use crate::error::{Error, Result};
use crate::net::tls::Authorization;
use crate::object::Objects;
use crate::secret::Secret;
use crate::throttle::ThrottleLimits;

/// Secrets by ID. Functions that use them copy them; every copy is wiped when it is freed.
#[derive(Debug, Default)]
pub struct platter_secrets {
    poison: Poison,
    objects: Objects,
}

impl Handle for platter_secrets {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// The secrets of a parameter; none if it is NULL.
pub(super) fn copied(secrets: Option<&platter_secrets>) -> Result<Objects> {
    let Some(secrets) = secrets else {
        return Ok(Objects::default());
    };
    secrets.poison.check()?;
    Ok(secrets.objects.clone())
}

/// The bytes of a parameter.
///
/// # Safety
/// `data` is NULL or has `len` readable bytes that live for `'a`.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Result<&'a [u8]> {
    if data.is_null() {
        return Err(Error::invalid("Parameter 'data' is NULL"));
    }
    if len > isize::MAX as usize {
        return Err(Error::invalid("Parameter 'len' is too large"));
    }
    // SAFETY: by this function's contract; not NULL.
    Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}

/// Creates an empty set of secrets. The caller frees it with `platter_secrets_free()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_secrets_new(
    out: Option<&mut MaybeUninit<*mut platter_secrets>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        Ok(Box::into_raw(Box::new(platter_secrets::default())))
    })
}

/// Adds the secret `id`: the `len` bytes at `data`, verbatim. They are copied; the copy is wiped when it is freed, the
/// caller's bytes are left alone. `flags` must be 0.
///
/// Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `id` is NULL or NUL-terminated; `data` has `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secrets_add(
    secrets: Option<&mut platter_secrets>,
    id: *const c_char,
    data: *const c_void,
    len: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(secrets, "secrets", err, |secrets| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let id = unsafe { utf8(id, "id")? };
        // SAFETY: by the contract of this function.
        let bytes = unsafe { bytes(data, len)? };
        secrets.objects.add_secret(id, Secret::new(bytes))
    })
}

/// Adds the secret `id` as described by the properties of a secret object. `properties` is an array of alternating keys
/// and values, terminated by NULL: `data` or `file` (a path), `format` (`raw` or `base64`), and `keyid` with `iv` if
/// the bytes are encrypted with AES-256-CBC under another secret of this set. A file is read at once. Messages repeat
/// no value except the name of a file. `flags` must be 0.
///
/// Statuses: INVALID, EXISTS, LIMIT, NEEDS_SECRET, OS, NOT_FOUND. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secrets_define(
    secrets: Option<&mut platter_secrets>,
    id: *const c_char,
    properties: *const *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let add = Objects::define_secret;
    // SAFETY: by the contract of this function.
    unsafe { self::add(secrets, id, properties, flags, err, add) }
}

/// Adds an object given by an ID and properties, by means of `add`.
///
/// # Safety
/// `id` is NULL or NUL-terminated; `properties` is as [`pairs`] requires.
unsafe fn add(
    secrets: Option<&mut platter_secrets>,
    id: *const c_char,
    properties: *const *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
    add: impl FnOnce(&mut Objects, &str, &BTreeMap<&str, &BStr>) -> Result<()>,
) -> c_int {
    call_mut(secrets, "secrets", err, |secrets| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let id = unsafe { utf8(id, "id")? };
        // SAFETY: by the contract of this function.
        let properties = unsafe { pairs(properties)? };
        add(&mut secrets.objects, id, &properties)
    })
}

/// The keys and values of a parameter.
///
/// # Safety
/// `properties` is NULL or an array of an even number of NUL-terminated strings that live for `'a`, followed by NULL.
unsafe fn pairs<'a>(properties: *const *const c_char) -> Result<BTreeMap<&'a str, &'a BStr>> {
    if properties.is_null() {
        return Err(Error::invalid("Parameter 'properties' is NULL"));
    }
    let mut map = BTreeMap::new();
    let mut at = properties;
    // SAFETY: by the contract of this function, `at` stays within the array up to its NULL.
    while unsafe { !(*at).is_null() } {
        // SAFETY: as above.
        let key = unsafe { utf8(*at, "properties")? };
        // SAFETY: the key is not the NULL at the end, so another element follows.
        at = unsafe { at.add(1) };
        // SAFETY: as above.
        let value = unsafe { optional_name(*at) };
        let value = value.ok_or_else(|| {
            Error::invalid(format!("Parameter 'properties' has no value for '{key}'"))
        })?;
        map.insert(key, value);
        // SAFETY: the value is not the NULL at the end either.
        at = unsafe { at.add(1) };
    }
    Ok(map)
}

/// Adds the throttle group `id`, to which the option `throttle-group` of the filter `throttle` refers: everything that
/// is opened with these secrets, or with a copy of them, shares it. `properties` is an array of alternating keys and
/// values, terminated by NULL: `limits.bps-total`, `limits.bps-read` and `limits.bps-write` in bytes per second,
/// `limits.iops-total`, `limits.iops-read` and `limits.iops-write` in requests per second; each with `-max` appended
/// for bursts, and with `-max-length` for their length in seconds; `limits.iops-size` is the number of bytes that count
/// as one request. `x-` may be used instead of `limits.`. Groups and secrets share one set of IDs. `flags` must be 0.
///
/// Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secrets_add_throttle_group(
    secrets: Option<&mut platter_secrets>,
    id: *const c_char,
    properties: *const *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let add = |objects: &mut Objects, id: &str, properties: &BTreeMap<&str, &BStr>| {
        objects.add_throttle_group(id, ThrottleLimits::parse(properties.clone())?)
    };
    // SAFETY: by the contract of this function.
    unsafe { self::add(secrets, id, properties, flags, err, add) }
}

/// Adds the TLS credentials `id`, which consist of certificates; an option such as `tls-creds` refers to them.
/// `properties` is an array of alternating keys and values, terminated by NULL. `endpoint` is `client` (the default) or
/// `server`. `dir` is a directory with `ca-cert.pem`, `ca-crl.pem` if there is one, and `server-cert.pem` with
/// `server-key.pem`, or `client-cert.pem` with `client-key.pem` if there are both. Instead of it, `ca-cert`, `ca-crl`,
/// `cert` and `key` are the same as PEM text. `passwordid` names the secret of this set that decrypts a key encrypted
/// with PKCS #8. `verify-peer` (`on`, the default, or `off`): a client trusts only a server whose certificate was
/// issued by the authority for the name requested, a server requires a certificate from its clients. `sanity-check`
/// (`on` or `off`): refuse at once what every peer would refuse. `priority` selects versions of TLS, as in
/// `NORMAL:-VERS-TLS1.3`. Everything is read at once and copied; the copies of keys are wiped when they are freed.
/// `flags` must be 0.
///
/// Statuses: INVALID, EXISTS, LIMIT, NEEDS_SECRET, WRONG_SECRET, NOT_FOUND, UNSUPPORTED, OS. Threads: one at a time.
/// Since 0.1.
///
/// # Safety
/// `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secrets_add_tls_x509(
    secrets: Option<&mut platter_secrets>,
    id: *const c_char,
    properties: *const *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let add = Objects::define_tls_x509;
    // SAFETY: by the contract of this function.
    unsafe { self::add(secrets, id, properties, flags, err, add) }
}

/// Adds the TLS credentials `id`, which consist of keys known to both ends. `properties` is an array of alternating
/// keys and values, terminated by NULL. `endpoint` is `client` (the default) or `server`. `dir` is a directory with
/// `keys.psk`; instead of it, `keys` is the text of that file: lines of a name, a colon, and the key in hexadecimal
/// digits. `username` says whose key a client has, by default `qemu`. `priority` selects versions of TLS. Requires
/// libssl.so.3, which this call loads. Everything is read at once and copied; the copies of keys are wiped when they
/// are freed. `flags` must be 0.
///
/// Statuses: INVALID, EXISTS, LIMIT, NOT_FOUND, UNSUPPORTED (also where that library is missing), OS. Threads: one at
/// a time. Since 0.1.
///
/// # Safety
/// `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secrets_add_tls_psk(
    secrets: Option<&mut platter_secrets>,
    id: *const c_char,
    properties: *const *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let add = Objects::define_tls_psk;
    // SAFETY: by the contract of this function.
    unsafe { self::add(secrets, id, properties, flags, err, add) }
}

/// Adds the rules `id`, which determine which clients are admitted with TLS, by the name that they have proved to have:
/// the distinguished name of their certificate, such as `C=DE,O=Example,CN=client`, or the name of their key.
/// `properties` is an array of alternating keys and values, terminated by NULL: `identity`, the only name that is
/// admitted; or `policy` (`deny`, the default, or `allow`) with rules from `rules.0` on, of which the first that
/// matches decides: `rules.N.match`, `rules.N.policy` and `rules.N.format`, which is `exact`, the default, or `glob`.
/// `flags` must be 0.
///
/// Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secrets_add_authorization(
    secrets: Option<&mut platter_secrets>,
    id: *const c_char,
    properties: *const *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let add = |objects: &mut Objects, id: &str, properties: &BTreeMap<&str, &BStr>| {
        objects.add_authorization(id, Authorization::parse(properties)?)
    };
    // SAFETY: by the contract of this function.
    unsafe { self::add(secrets, id, properties, flags, err, add) }
}

/// Receives the secret that a callback is asked for. It lives until the callback returns.
#[derive(Debug, Default)]
pub struct platter_secret_answer {
    poison: Poison,
    secret: Option<Secret>,
}

impl Handle for platter_secret_answer {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Callback that is asked for the secret `id` and sets it with `platter_secret_answer_set()`; if it does not, there is
/// no such secret. Called on the thread that opens or creates, and on several at once if several do so.
pub type platter_secret_fn = Option<
    unsafe extern "C" fn(
        answer: *mut platter_secret_answer,
        id: *const c_char,
        user_data: *mut c_void,
    ),
>;

/// Sets the callback that is asked for a secret that was not added, each time it is needed; replaces the one set
/// before. `free_fn` (may be NULL) is called once with `user_data`: when nothing uses the callback any more, or at once
/// if this call fails. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `secret_fn` and `user_data` are usable until `free_fn` is called, from every thread that opens or
/// creates with the secrets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secrets_set_callback(
    secrets: Option<&mut platter_secrets>,
    secret_fn: platter_secret_fn,
    user_data: *mut c_void,
    free_fn: platter_free_fn,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let user_data = UserData::new(user_data, free_fn);
    call_mut(secrets, "secrets", err, |secrets| {
        check_flags(flags, 0)?;
        let ask = given(secret_fn, "secret_fn")?;
        secrets.objects.set_ask_secret(Arc::new(move |id| {
            let id = c_string(id);
            let mut answer = platter_secret_answer::default();
            // SAFETY: the caller keeps both usable until `user_data` is dropped.
            unsafe { ask(&mut answer, id.as_ptr(), user_data.get()) };
            Ok(answer.secret)
        }));
        Ok(())
    })
}

/// Sets the secret that a callback was asked for: the `len` bytes at `data`, which are copied; the copy is wiped when
/// it is freed. A later call replaces an earlier one. `flags` must be 0.
///
/// Statuses: INVALID. Threads: the callback's. Since 0.1.
///
/// # Safety
/// `data` has `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secret_answer_set(
    answer: Option<&mut platter_secret_answer>,
    data: *const c_void,
    len: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(answer, "answer", err, |answer| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        answer.secret = Some(Secret::new(unsafe { bytes(data, len)? }));
        Ok(())
    })
}

/// Frees secrets. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The secrets are not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_secrets_free(secrets: *mut platter_secrets) {
    // SAFETY: the caller owns them; they came from `platter_secrets_new`.
    unsafe { boundary::free(secrets) }
}
