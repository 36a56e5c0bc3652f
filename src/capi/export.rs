//! Exports: images, or windows of them, that servers offer.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::Arc;

use crate::capi::boundary::{self, Handle, Poison, call_mut, call_out, check_flags, given};
use crate::capi::error::platter_error;
use crate::capi::image::{Shared, platter_image, shared_of};
use crate::capi::text::{name, optional_name};
use crate::error::Result;
use crate::serve::{Export, ExportOptions};

/// Flag of `platter_export_new()`: clients may write. The image must be open for writing.
pub const PLATTER_EXPORT_WRITE: u32 = 1;

/// Flag of `platter_export_new()`: clients may query which layer of the chain holds what (`qemu:allocation-depth`).
pub const PLATTER_EXPORT_ALLOCATION_DEPTH: u32 = 2;

/// Length of a window for `platter_export_set_window()`: up to the end of the image.
pub const PLATTER_EXPORT_REST: u64 = 0xffff_ffff_ffff_ffff;

/// An image, or a window of it, as a server offers it. Whatever uses it copies it; it keeps its image alive.
#[derive(Debug)]
pub struct platter_export {
    poison: Poison,
    image: Arc<Shared>,
    options: ExportOptions,
}

impl Handle for platter_export {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Describes an export of `image`: all of it, under the empty name, which clients get that request no name. `flags` are
/// bits of `PLATTER_EXPORT_*`. `*out` belongs to the caller, who frees it with `platter_export_free()`.
///
/// Statuses: INVALID, READ_ONLY. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_export_new(
    out: Option<&mut MaybeUninit<*mut platter_export>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(
            flags,
            PLATTER_EXPORT_WRITE | PLATTER_EXPORT_ALLOCATION_DEPTH,
        )?;
        let image = shared_of(image, "image")?;
        let options = ExportOptions {
            writable: flags & PLATTER_EXPORT_WRITE != 0,
            allocation_depth: flags & PLATTER_EXPORT_ALLOCATION_DEPTH != 0,
            ..ExportOptions::default()
        };
        checked(platter_export {
            poison: Poison::default(),
            image,
            options,
        })
    })
}

/// Returns the handle of the export if a server would accept it.
fn checked(export: platter_export) -> Result<*mut platter_export> {
    Export::new(export.image.clone(), export.options.clone())?;
    Ok(Box::into_raw(Box::new(export)))
}

/// Changes a description, unless no server would accept the result.
fn change(
    export: Option<&mut platter_export>,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
    flags: u32,
    change: impl FnOnce(&mut ExportOptions) -> Result<()>,
) -> c_int {
    call_mut(export, "export", err, |export| {
        check_flags(flags, 0)?;
        let mut options = export.options.clone();
        change(&mut options)?;
        Export::new(export.image.clone(), options.clone())?;
        export.options = options;
        Ok(())
    })
}

/// Sets the name that clients request: UTF-8, up to 4096 bytes. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_export_set_name(
    export: Option<&mut platter_export>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    change(export, err, flags, |options| {
        // SAFETY: by the contract of this function.
        options.name = unsafe { self::name(name, "name")? }.to_owned();
        Ok(())
    })
}

/// Sets the description that a list of exports shows: UTF-8, up to 4096 bytes; NULL for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `description` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_export_set_description(
    export: Option<&mut platter_export>,
    description: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    change(export, err, flags, |options| {
        // SAFETY: by the contract of this function.
        let text = unsafe { optional_name(description) };
        options.description = text.unwrap_or_default().to_owned();
        Ok(())
    })
}

/// Offers `len` bytes of the image from `offset` on instead of all of it; `PLATTER_EXPORT_REST` extends to its end.
/// `flags` must be 0.
///
/// Statuses: INVALID where the window does not lie in the image. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_export_set_window(
    export: Option<&mut platter_export>,
    offset: u64,
    len: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    change(export, err, flags, |options| {
        options.offset = offset;
        options.len = (len != PLATTER_EXPORT_REST).then_some(len);
        Ok(())
    })
}

/// Lets clients read a persistent dirty bitmap of the image, or of the first layer of its chain that has one with that
/// name (`qemu:dirty-bitmap:NAME`). May be called for several bitmaps. `flags` must be 0.
///
/// Statuses: NOT_FOUND, CORRUPT where it is inconsistent, INVALID, OS. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_export_add_bitmap(
    export: Option<&mut platter_export>,
    name: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    change(export, err, flags, |options| {
        // SAFETY: by the contract of this function.
        let name = unsafe { self::name(name, "name")? }.to_owned();
        if !options.bitmaps.contains(&name) {
            options.bitmaps.push(name);
        }
        Ok(())
    })
}

/// Returns the size of the export in bytes; 0 for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_export_size(export: Option<&platter_export>) -> u64 {
    boundary::get(0, || {
        let export = export.map(|export| Export::new(export.image.clone(), export.options.clone()));
        export.and_then(Result::ok).map_or(0, |export| export.len())
    })
}

/// Frees a description; servers that use it continue. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The description is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_export_free(export: *mut platter_export) {
    // SAFETY: the caller owns it, and it came from `platter_export_new`.
    unsafe { boundary::free(export) }
}

/// The export of a description, unless a panic has unwound through it or its image.
pub(super) fn usable(export: Option<&platter_export>) -> Result<Export> {
    let export = given(export, "export")?;
    export.poison.check()?;
    export.image.poison().check()?;
    Export::new(export.image.clone(), export.options.clone())
}
