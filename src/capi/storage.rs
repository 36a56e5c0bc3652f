//! Storage that the program supplies: a table of callbacks.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use bstr::ByteSlice;

use crate::capi::boundary::UserData;
use crate::capi::extent::{
    PLATTER_EXTENT_DATA, PLATTER_EXTENT_ZERO, PLATTER_ZERO_MAY_UNMAP, PLATTER_ZERO_NO_FALLBACK,
};
use crate::capi::status::kind_of;
use crate::capi::text::optional_name;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::storage::{StorageCallbacks, ZeroFlags};

/// A storage of the program, which holds an image. Members that are not needed, and `reserved`, are NULL.
///
/// Each callback returns 0, or a negative `PLATTER_STATUS_*` or `-errno`. They are called on any thread that uses the
/// image, and on several at once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct platter_storage_ops {
    /// Fills all of `buf` from `offset` on; the range is within the size. Required.
    pub read: Option<
        unsafe extern "C" fn(
            buf: *mut c_void,
            len: usize,
            offset: u64,
            user_data: *mut c_void,
        ) -> c_int,
    >,
    /// Stores the size in bytes. Called once, when the image is opened. Required.
    pub size: Option<unsafe extern "C" fn(size: *mut u64, user_data: *mut c_void) -> c_int>,
    /// Writes all of `buf` at `offset`; the range extends past the end, which then moves, only if `set_size` is given.
    /// NULL makes the storage read-only.
    pub write: Option<
        unsafe extern "C" fn(
            buf: *const c_void,
            len: usize,
            offset: u64,
            user_data: *mut c_void,
        ) -> c_int,
    >,
    /// Makes all completed writes durable. Required if `write` is given. Once it has failed, every later flush of the
    /// image fails without another call, as what was lost stays lost.
    pub flush: Option<unsafe extern "C" fn(user_data: *mut c_void) -> c_int>,
    /// Sets the size in bytes; if the storage grows, the new part reads as zeroes. NULL if the size is fixed.
    pub set_size: Option<unsafe extern "C" fn(size: u64, user_data: *mut c_void) -> c_int>,
    /// Makes a range read as zeroes; `flags` are bits of `PLATTER_ZERO_*`. If it returns `PLATTER_STATUS_UNSUPPORTED`,
    /// it has changed nothing. If NULL, zero bytes are written.
    pub write_zeroes: Option<
        unsafe extern "C" fn(offset: u64, len: u64, flags: u32, user_data: *mut c_void) -> c_int,
    >,
    /// Deallocates a range; what it reads as afterwards is undefined. NULL if that is not possible.
    pub discard:
        Option<unsafe extern "C" fn(offset: u64, len: u64, user_data: *mut c_void) -> c_int>,
    /// Describes the first run at `offset`, at most `len` bytes: stores its length, which is not 0, and bits of
    /// `PLATTER_EXTENT_DATA` (it occupies space) and `PLATTER_EXTENT_ZERO` (it reads as zeroes). NULL if everything is
    /// data.
    pub extent: Option<
        unsafe extern "C" fn(
            offset: u64,
            len: u64,
            run: *mut u64,
            flags: *mut u32,
            user_data: *mut c_void,
        ) -> c_int,
    >,
    /// Says why a callback failed, in the program's own words: called with what the callback returned, on the same
    /// thread and before any other callback on it. Returns one line of UTF-8, which is read before the next callback on
    /// the thread, or NULL for none. NULL if nothing more is known than the code.
    pub message: Option<unsafe extern "C" fn(code: c_int, user_data: *mut c_void) -> *const c_char>,
    /// NULL.
    pub reserved: [*mut c_void; 7],
}

/// What the callbacks of a table share: the data of the program, and the callback that explains failures.
struct Calls {
    data: UserData,
    message: Option<MessageFn>,
}

type MessageFn = unsafe extern "C" fn(code: c_int, user_data: *mut c_void) -> *const c_char;

impl Calls {
    fn data(&self) -> *mut c_void {
        self.data.get()
    }

    /// Converts the return value of a callback.
    fn result(&self, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let error = match kind_of(code) {
            Some(kind) => Error::new(kind, "The storage callback failed"),
            // Numbers that are neither a status nor -errno are a bug in the program.
            None if (-4095..0).contains(&code) => Error::os(-code),
            None => Error::new(
                ErrorKind::Os,
                format!("The storage callback returned {code}"),
            ),
        };
        Err(match self.told(code) {
            Some(text) => error.with_message(text),
            None => error,
        })
    }

    /// What the program says about a failure.
    fn told(&self, code: c_int) -> Option<String> {
        let message = self.message?;
        // SAFETY: the caller keeps both usable until `data` is dropped.
        let text = unsafe { optional_name(message(code, self.data())) }?;
        Some(text.to_str_lossy().into_owned())
    }
}

/// The callbacks as the core uses them. The user data lives until the last of them is dropped.
pub(super) fn callbacks(ops: platter_storage_ops, user_data: UserData) -> Result<StorageCallbacks> {
    let (Some(read), Some(size)) = (ops.read, ops.size) else {
        return Err(Error::invalid("Storage callbacks lack 'read' or 'size'"));
    };
    if ops.reserved.iter().any(|member| !member.is_null()) {
        return Err(Error::invalid(
            "Storage callbacks have 'reserved' members set",
        ));
    }
    let calls = Arc::new(Calls {
        data: user_data,
        message: ops.message,
    });
    let (c1, c2) = (calls.clone(), calls.clone());
    Ok(StorageCallbacks {
        read: Box::new(move |buf, offset| {
            // SAFETY: `buf` is writable for its length; the caller keeps `user_data` usable.
            c1.result(unsafe { read(buf.as_mut_ptr().cast(), buf.len(), offset, c1.data()) })
        }),
        size: Box::new(move || {
            let mut bytes = 0;
            // SAFETY: `bytes` is writable; the caller keeps `user_data` usable.
            c2.result(unsafe { size(&mut bytes, c2.data()) })?;
            Ok(bytes)
        }),
        write: ops.write.map(|write| {
            let calls = calls.clone();
            Box::new(move |buf: &[u8], offset| {
                // SAFETY: `buf` is readable for its length; the caller keeps `user_data` usable.
                calls.result(unsafe { write(buf.as_ptr().cast(), buf.len(), offset, calls.data()) })
            }) as _
        }),
        flush: ops.flush.map(|flush| {
            let calls = calls.clone();
            // SAFETY: the caller keeps `user_data` usable.
            Box::new(move || calls.result(unsafe { flush(calls.data()) })) as _
        }),
        set_size: ops.set_size.map(|set_size| {
            let calls = calls.clone();
            // SAFETY: the caller keeps `user_data` usable.
            Box::new(move |bytes| calls.result(unsafe { set_size(bytes, calls.data()) })) as _
        }),
        zero: ops.write_zeroes.map(|zero| {
            let calls = calls.clone();
            Box::new(move |offset, len, flags: ZeroFlags| {
                let bits = if flags.contains(ZeroFlags::MAY_UNMAP) {
                    PLATTER_ZERO_MAY_UNMAP
                } else {
                    0
                } | if flags.contains(ZeroFlags::NO_FALLBACK) {
                    PLATTER_ZERO_NO_FALLBACK
                } else {
                    0
                };
                // SAFETY: the caller keeps `user_data` usable.
                calls.result(unsafe { zero(offset, len, bits, calls.data()) })
            }) as _
        }),
        discard: ops.discard.map(|discard| {
            let calls = calls.clone();
            // SAFETY: the caller keeps `user_data` usable.
            Box::new(move |offset, len| calls.result(unsafe { discard(offset, len, calls.data()) }))
                as _
        }),
        extent: ops.extent.map(|extent| {
            let calls = calls.clone();
            Box::new(move |offset, len| {
                let (mut run, mut flags) = (0, 0);
                // SAFETY: both places are writable; the caller keeps `user_data` usable.
                calls.result(unsafe { extent(offset, len, &mut run, &mut flags, calls.data()) })?;
                Ok(StorageExtent {
                    len: run,
                    zero: flags & PLATTER_EXTENT_ZERO != 0,
                    allocated: flags & PLATTER_EXTENT_DATA != 0,
                })
            }) as _
        }),
        close: None,
    })
}
