//! Open images.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bstr::BStr;

use crate::capi::boundary::{
    Handle, Poison, UserData, call, call_mut, call_out, call_ref, call_ref_out, caught,
    check_flags, get, given, platter_free_fn,
};
use crate::capi::control::{self, platter_control};
use crate::capi::driver::features;
use crate::capi::error::platter_error;
use crate::capi::open::{LOCATION_FLAGS, OPEN_FLAGS, location, merged, platter_open_options};
use crate::capi::storage::{callbacks, platter_storage_ops};
use crate::capi::storages::platter_storages;
use crate::capi::text::{c_lines, c_string, name, optional_name};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, ImageStorage, OpenOptions};
use crate::job::JobControl;
use crate::log::{Level, log};
use crate::storage::{CallbackStorage, FileOpen, FileStorage, file};

/// An open image. Functions that take it as `const` may be called from several threads at once. Jobs
/// and queues that use it keep it alive.
#[derive(Debug)]
pub struct platter_image {
    shared: Arc<Shared>,
    /// Cancels calls with this handle.
    control: Arc<JobControl>,
}

/// What an image handle and the jobs and queues on it share.
#[derive(Debug)]
pub(super) struct Shared {
    poison: Poison,
    image: ManuallyDrop<Arc<Image>>,
    taken: bool,
    filename: CString,
    format: CString,
    warnings: Vec<CString>,
}

impl Shared {
    pub(super) fn poison(&self) -> &Poison {
        &self.poison
    }

    /// Takes the image out for its last use.
    fn into_image(mut self) -> Arc<Image> {
        self.taken = true;
        // SAFETY: `taken` keeps `drop` from touching the image again.
        unsafe { ManuallyDrop::take(&mut self.image) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        // SAFETY: not taken, and this is the end of `self`.
        let image = unsafe { ManuallyDrop::take(&mut self.image) };
        if self.poison.is_set() {
            // Its state is unknown after a panic: writing it out could damage the image.
            image.abandon_shared();
        }
    }
}

impl Deref for Shared {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.image
    }
}

/// An image that stays open as long as a storage exposes it.
struct HeldImage(Arc<Shared>);

impl Deref for HeldImage {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.0
    }
}

impl fmt::Debug for HeldImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldImage").field(&self.filename()).finish()
    }
}

impl Handle for platter_image {
    fn poison(&self) -> &Poison {
        &self.shared.poison
    }

    fn heeds(&self) -> Option<&Arc<JobControl>> {
        Some(&self.control)
    }
}

impl platter_image {
    fn new(image: Image) -> *mut Self {
        let warnings = image.warnings().iter().map(|text| c_lines(text)).collect();
        Box::into_raw(Box::new(Self {
            shared: Arc::new(Shared {
                poison: Poison::default(),
                filename: c_string(image.location().text().as_bytes()),
                format: c_string(image.driver().name),
                image: ManuallyDrop::new(image.into_shared()),
                taken: false,
                warnings,
            }),
            control: Arc::default(),
        }))
    }

    /// For jobs and I/O on the image.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// For calls that can take long.
    pub(super) fn control(&self) -> &JobControl {
        &self.control
    }
}

/// Opens the image at `location`. `options` may be NULL for the defaults. `flags` are bits of `PLATTER_OPEN_*` and at
/// most one `PLATTER_LOCATION_*`. `*out` belongs to the caller, who closes it with `platter_image_close()`.
///
/// Statuses: NOT_FOUND, OS, NOT_AN_IMAGE, CORRUPT, UNSUPPORTED, LOCKED, DENIED, LIMIT, INVALID.
/// Threads: any. Since 0.1.
///
/// # Safety
/// `location` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_open(
    out: Option<&mut MaybeUninit<*mut platter_image>>,
    location: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, OPEN_FLAGS | LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        let image = Image::open(&location, &merged(options, flags)?)?;
        Ok(opened(image))
    })
}

/// Opens the image in an open file. The descriptor is duplicated: the caller keeps its own, but both share the file's
/// byte locks (images that this process opens exclude each other as if opened by name, even through one descriptor)
/// and, with the cache modes `none` and `directsync`, the flag `O_DIRECT`. `name` (may be NULL) represents the file in
/// messages and reports, and names inside the image are relative to it. `options` and `flags` are as for
/// `platter_image_open()`, without `PLATTER_LOCATION_*`. `*out` belongs to the caller, who closes it with
/// `platter_image_close()`.
///
/// Statuses: as `platter_image_open()`. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_open_fd(
    out: Option<&mut MaybeUninit<*mut platter_image>>,
    fd: c_int,
    name: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, OPEN_FLAGS)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { optional_name(name) };
        let options = merged(options, flags)?;
        let storage = borrowed_file(fd, name, &options)?;
        Image::open_storage(Arc::new(storage), &options).map(opened)
    })
}

/// The file behind a descriptor of the caller, which is duplicated.
pub(super) fn borrowed_file(
    fd: c_int,
    name: Option<&BStr>,
    options: &OpenOptions,
) -> Result<FileStorage> {
    if fd < 0 {
        return Err(Error::invalid("Parameter 'fd' is negative"));
    }
    let name = name.map_or_else(|| format!("/dev/fd/{fd}").into(), BStr::to_owned);
    let fd = file::duplicate(fd)?;
    let how = FileOpen {
        writable: options.writable,
        cache: options.cache,
        ..FileOpen::default()
    };
    file::open_fd(fd, name, &how)
}

/// Opens the image in a storage of the program. `ops` is copied; `name` (may be NULL) represents the storage in
/// messages and reports. `free_fn` (may be NULL) is called once with `user_data`: when the image is closed and its last
/// job or queue has been freed, or at once if this call fails. `options` and `flags` are as for `platter_image_open()`,
/// without `PLATTER_LOCATION_*`. `*out` belongs to the caller, who closes it with `platter_image_close()`.
///
/// Statuses: as `platter_image_open()`, and those of the callbacks. Threads: any. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated; the callbacks and `user_data` are usable from every thread
/// until `free_fn` is called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_open_storage(
    out: Option<&mut MaybeUninit<*mut platter_image>>,
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
        check_flags(flags, OPEN_FLAGS)?;
        let ops = given(ops, "ops")?;
        // SAFETY: by the contract of this function.
        let name = unsafe { optional_name(name) }.unwrap_or(BStr::new("callbacks"));
        let options = merged(options, flags)?;
        let storage = CallbackStorage::new(name, callbacks(*ops, user_data)?, options.cache)?;
        Image::open_storage(Arc::new(storage), &options).map(opened)
    })
}

fn opened(image: Image) -> *mut platter_image {
    log(Level::Info, || {
        format!(
            "opened '{}' as {}",
            image.location().display(),
            image.driver().name
        )
    });
    platter_image::new(image)
}

/// Sets the control that from now on cancels calls with this handle that can take long: those on bitmaps, zeroing,
/// discarding, `platter_image_extent()`, `platter_image_flush()` and `platter_image_close()`. They then fail with
/// CANCELLED; the description of each says what state that leaves. Calls with a buffer of the program are cancelled
/// only while they wait for a server. A sync that the kernel has started cannot be cancelled: if the program must not
/// wait for it, use `platter_queue_flush()`. Jobs and queues on the image have their own means of cancellation. The
/// control may be freed; NULL stands for none. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_set_control(
    image: Option<&platter_image>,
    control: Option<&platter_control>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(image, "image", err, |image| {
        check_flags(flags, 0)?;
        let control = match control {
            Some(_) => Some(control::shared(control)?),
            None => None,
        };
        image.control.heed_only(control.as_ref());
        Ok(())
    })
}

/// Closes an image: writes out cached metadata, makes completed writes durable as the cache mode requires, and releases
/// locks. The handle is gone in any case, even if this reports a failure; data may be lost then. If jobs, queues or
/// images based on it still use the image, it is flushed now, and released with the last of them. If the control of the
/// image cancels the call, it passes what was written to the file without a sync, and leaves the rest to the next open
/// of the image, as after a crash: bitmaps that were recording are inconsistent. NULL does nothing. `flags` must be 0;
/// unknown bits are reported after the image is closed.
///
/// Statuses: OS, NO_SPACE, CANCELLED, INVALID. Threads: one, once. Since 0.1.
///
/// # Safety
/// The image is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_image_close(
    image: *mut platter_image,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let handle = if image.is_null() {
        None
    } else {
        // SAFETY: the caller owns the image, which came from `platter_image::new`.
        Some(unsafe { Box::from_raw(image) })
    };
    call(err, || {
        let Some(handle) = handle else {
            return check_flags(flags, 0);
        };
        let _working = handle.working();
        let poisoned = handle.shared.poison.check();
        let closed = match Arc::try_unwrap(handle.shared) {
            Ok(shared) => poisoned.and_then(|()| close(shared.into_image(), &handle.control)),
            Err(shared) => poisoned
                .and_then(|()| handle.control.check())
                .and_then(|()| caught(Some(&shared.poison), || shared.flush())),
        };
        closed.and_then(|()| check_flags(flags, 0))
    })
}

/// Adds the guest data of an open image as a storage: whatever opens the name reads and writes the disk in the image,
/// and takes it for a raw one unless it specifies another format. The image stays open as long as the set or what
/// copied it uses it, as with a job. Users of the name exclude each other as those of one file do; how the caller uses
/// the image at the same time is up to the caller. `flags` must be 0.
///
/// Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_storages_add_image(
    storages: Option<&mut platter_storages>,
    name: *const c_char,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_mut(storages, "storages", err, |storages| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let name = unsafe { self::name(name, "name")? };
        let image = given(image, "image")?;
        image.poison().check()?;
        let held = HeldImage(image.shared.clone());
        storages.add_shared(name, Arc::new(ImageStorage::over(held)))
    })
}

/// Returns the virtual size in bytes. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_size(
    out: Option<&mut MaybeUninit<u64>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, image, "image", err, |image| {
        check_flags(flags, 0)?;
        Ok(image.shared.len())
    })
}

/// Returns the allocation unit in bytes. `flags` must be 0.
///
/// Statuses: NOT_FOUND where the format has none, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_cluster_size(
    out: Option<&mut MaybeUninit<u32>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, image, "image", err, |image| {
        check_flags(flags, 0)?;
        image.shared.format().cluster_size().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("Format '{}' has no clusters", image.shared.driver().name),
            )
        })
    })
}

/// Returns the name of the format; NULL for NULL. The string lives as long as the image.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_format(image: Option<&platter_image>) -> *const c_char {
    get(std::ptr::null(), || {
        image.map_or(std::ptr::null(), |image| image.shared.format.as_ptr())
    })
}

/// Returns what this image can do, as bits of `PLATTER_FEATURE_*`: the features of its format that this image has too
/// (an image of an older version may have no bitmaps, one with a data file no compressed clusters), whether or not it
/// is open for writing. CREATE, MEASURE and ENCRYPT apply to formats only: see `platter_driver_find()`. `flags` must be
/// 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_features(
    out: Option<&mut MaybeUninit<u32>>,
    image: Option<&platter_image>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, image, "image", err, |image| {
        check_flags(flags, 0)?;
        Ok(features(image.shared.format().features()))
    })
}

/// Returns where the image was opened from, as it was given, byte for byte; a plain path that begins like a protocol is
/// prefixed with `./`. The string lives as long as the image; NULL for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_filename(image: Option<&platter_image>) -> *const c_char {
    get(std::ptr::null(), || {
        image.map_or(std::ptr::null(), |image| image.shared.filename.as_ptr())
    })
}

/// Returns whether writes are refused: 1 if they are, and for NULL; else 0.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_is_read_only(image: Option<&platter_image>) -> u32 {
    get(1, || {
        u32::from(image.is_none_or(|image| !image.shared.writable()))
    })
}

/// Returns what the user should know although the image could be opened: UTF-8, several lines if there is more to say,
/// without the final newline. `index` counts from 0; NULL past the last one, and for NULL. The string lives as long as
/// the image.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_image_warning(
    image: Option<&platter_image>,
    index: usize,
) -> *const c_char {
    get(std::ptr::null(), || {
        let line = image.and_then(|image| image.shared.warnings.get(index));
        line.map_or(std::ptr::null(), |line| line.as_ptr())
    })
}

/// Closes the image of a handle.
fn close(image: Arc<Image>, control: &JobControl) -> Result<()> {
    match Arc::try_unwrap(image) {
        Ok(image) => image.close_under(control),
        // Others are based on it.
        Err(image) => image.flush(),
    }
}

/// Changes the image of a handle that nothing else uses.
pub(super) fn change_alone<T>(
    image: &mut platter_image,
    change: impl FnOnce(&mut Image) -> Result<T>,
) -> Result<T> {
    let shared = Arc::get_mut(&mut image.shared);
    let shared = shared.ok_or_else(|| busy("The image is in use by a job"))?;
    let changed = shared.image.change_shared(change);
    changed.ok_or_else(|| busy("Another image stands on the image"))?
}

/// Takes over the image of a handle that nothing else uses; the handle is gone if this succeeds.
///
/// # Safety
/// `image` is NULL or came from `platter_image::new`, and is not used afterwards if this succeeds.
pub(super) unsafe fn taken_over(
    image: *mut platter_image,
) -> Result<(Arc<Image>, Arc<JobControl>)> {
    // SAFETY: by this function's contract.
    let handle = given(unsafe { image.as_ref() }, "image")?;
    handle.shared.poison.check()?;
    if Arc::strong_count(&handle.shared) > 1 {
        return Err(busy("The image is in use by a job"));
    }
    if Arc::strong_count(&handle.shared.image) > 1 {
        return Err(busy("Another image stands on the image"));
    }
    // SAFETY: as above.
    let handle = unsafe { Box::from_raw(image) };
    let shared = Arc::try_unwrap(handle.shared);
    let shared = shared.map_err(|_| Error::new(ErrorKind::Internal, "The image was in use"))?;
    Ok((shared.into_image(), handle.control))
}

/// The image that was taken over, for its last use.
pub(super) fn sole(image: Arc<Image>) -> Result<Image> {
    Arc::into_inner(image).ok_or_else(|| busy("Another image stands on the image"))
}

fn busy(message: &str) -> Error {
    Error::new(ErrorKind::Busy, message)
}

/// The shared part of an image parameter of a job.
pub(super) fn shared_of(image: Option<&platter_image>, name: &str) -> Result<Arc<Shared>> {
    let image = given(image, name)?;
    image.shared.poison.check()?;
    Ok(image.shared.clone())
}
