//! Bags of options: keys and values.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;

use bstr::{BStr, BString};
use parking_lot::Mutex;

use crate::capi::boundary::{
    self, Handle, Poison, call_mut, call_out, call_ref_out, check_flags, truth,
};
use crate::capi::error::platter_error;
use crate::capi::text::{c_string, name, utf8};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;

/// A bag of options: the keys and values of `-o`. Whatever uses it copies it and checks it: an unknown key or an
/// invalid value is refused there.
#[derive(Debug, Default)]
pub struct platter_options {
    poison: Poison,
    options: Options,
    /// Strings lent to the caller; dropped when the bag changes or is freed.
    lent: Mutex<BTreeMap<BString, CString>>,
}

impl platter_options {
    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    fn borrow_text(&self, text: &BStr) -> *const c_char {
        self.lent
            .lock()
            .entry(text.to_owned())
            .or_insert_with(|| c_string(text.to_vec()))
            .as_ptr()
    }

    fn change(&mut self) -> &mut Options {
        self.lent.get_mut().clear();
        &mut self.options
    }

    fn set(&mut self, key: &str, value: &BStr) -> Result<()> {
        if key.is_empty() {
            return Err(Error::invalid("Parameter 'key' is empty"));
        }
        self.change().set(key, value);
        Ok(())
    }
}

impl Handle for platter_options {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Creates an empty bag. The caller frees it with `platter_options_free()`. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_options_new(
    out: Option<&mut MaybeUninit<*mut platter_options>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        Ok(Box::into_raw(Box::new(platter_options::default())))
    })
}

/// Adds the entries of a `key=value,key=value` list: `,,` is a literal comma, a bare `key` means `on`, `nokey` means
/// `off`, and a later entry replaces an earlier one. `flags` must be 0.
///
/// Statuses: INVALID (an empty list, a leading or trailing comma). Threads: one at a time.
/// Since 0.1.
///
/// # Safety
/// `list` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_options_parse(
    options: Option<&mut platter_options>,
    list: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let list = unsafe { name(list, "list")? };
        options.change().parse_into(list)
    })
}

/// Sets `key` to `value`, replacing an earlier value. `flags` must be 0.
///
/// Statuses: INVALID (an empty key). Threads: one at a time. Since 0.1.
///
/// # Safety
/// `key` and `value` are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_options_set(
    options: Option<&mut platter_options>,
    key: *const c_char,
    value: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let (key, value) = unsafe { (utf8(key, "key")?, name(value, "value")?) };
        options.set(key, value)
    })
}

/// Sets `key` to a number or a number of bytes. `flags` must be 0.
///
/// Statuses: INVALID (an empty key). Threads: one at a time. Since 0.1.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_options_set_u64(
    options: Option<&mut platter_options>,
    key: *const c_char,
    value: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let key = unsafe { utf8(key, "key")? };
        options.set(key, value.to_string().as_str().into())
    })
}

/// Sets `key` to `on` if `value` is 1, and to `off` if it is 0. `flags` must be 0.
///
/// Statuses: INVALID (an empty key). Threads: one at a time. Since 0.1.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_options_set_bool(
    options: Option<&mut platter_options>,
    key: *const c_char,
    value: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let key = unsafe { utf8(key, "key")? };
        let word = if truth(value, "value")? { "on" } else { "off" };
        options.set(key, word.into())
    })
}

/// Removes `key` if it is set. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_options_unset(
    options: Option<&mut platter_options>,
    key: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(options, "options", err, |options| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let key = unsafe { utf8(key, "key")? };
        options.change().take(key);
        Ok(())
    })
}

/// Returns the value of `key` as it was given; NULL if it is not set, and for NULL. Lives until the bag changes or is
/// freed.
///
/// Threads: any. Since 0.1.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_options_get(
    options: Option<&platter_options>,
    key: *const c_char,
) -> *const c_char {
    boundary::get(std::ptr::null(), || {
        // SAFETY: by the contract of this function.
        let key = unsafe { utf8(key, "key") }.ok();
        options
            .zip(key)
            .and_then(|(bag, key)| bag.options.get(key).map(|value| bag.borrow_text(value)))
            .unwrap_or(std::ptr::null())
    })
}

/// Returns the key of the entry at `index`, in the order in which they were set; `*out` lives until the bag changes or
/// is freed. `platter_options_get()` returns its value. `flags` must be 0.
///
/// Statuses: NOT_FOUND past the last entry, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_options_key(
    out: Option<&mut MaybeUninit<*const c_char>>,
    options: Option<&platter_options>,
    index: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, options, "options", err, |bag| {
        check_flags(flags, 0)?;
        let entry = bag.options.iter().nth(index);
        entry
            .map(|(key, _)| bag.borrow_text(key.into()))
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("No option at {index}")))
    })
}

/// Frees a bag. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The bag is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_options_free(options: *mut platter_options) {
    // SAFETY: the caller owns the bag, which came from `platter_options_new`.
    unsafe { boundary::free(options) }
}
