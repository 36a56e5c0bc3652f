//! Storage that the program supplies: a table of callbacks.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use crate::capi::guard::UserData;
use crate::capi::status::{PLATTER_STATUS_UNSUPPORTED, kind_of};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::StorageExtent;
use crate::storage::{
    CopyOutcome, Durability, Limits, LockRequest, Preallocation, Storage, ZeroFlags,
};

/// Storage of the program, on which an image lies. Unused and reserved members are NULL.
///
/// Each callback returns 0, or a negative `PLATTER_STATUS_*` or `-errno`. They are called from any
/// thread that uses the image, from several at once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct platter_storage_ops {
    /// Fills all of `buf` from `offset`; bytes past the end read as zeroes. Required.
    pub read: Option<
        unsafe extern "C" fn(
            buf: *mut c_void,
            len: usize,
            offset: u64,
            user_data: *mut c_void,
        ) -> c_int,
    >,
    /// Stores the current length in bytes. Required.
    pub length: Option<unsafe extern "C" fn(length: *mut u64, user_data: *mut c_void) -> c_int>,
    /// Writes all of `buf` at `offset`, growing the storage where it ends past the end. NULL makes
    /// the storage read-only.
    pub write: Option<
        unsafe extern "C" fn(
            buf: *const c_void,
            len: usize,
            offset: u64,
            user_data: *mut c_void,
        ) -> c_int,
    >,
    /// Makes all completed writes durable. Required where `write` is given.
    pub flush: Option<unsafe extern "C" fn(user_data: *mut c_void) -> c_int>,
    /// Sets the length; a longer storage reads as zeroes in its new part. NULL where it is fixed.
    pub set_length: Option<unsafe extern "C" fn(length: u64, user_data: *mut c_void) -> c_int>,
    /// Makes a range read as zeroes; it may return `PLATTER_STATUS_UNSUPPORTED`, and then has changed
    /// nothing. NULL has zero bytes written.
    pub write_zeroes:
        Option<unsafe extern "C" fn(offset: u64, len: u64, user_data: *mut c_void) -> c_int>,
    /// Gives a range back; what it reads as afterwards is not defined. NULL where that is not possible.
    pub discard:
        Option<unsafe extern "C" fn(offset: u64, len: u64, user_data: *mut c_void) -> c_int>,
    /// NULL.
    pub reserved: [*mut c_void; 9],
}

/// A [`Storage`] over the callbacks.
pub(super) struct CallbackStorage {
    ops: platter_storage_ops,
    user_data: UserData,
    name: String,
}

impl fmt::Debug for CallbackStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackStorage")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

// SAFETY: the header demands callbacks that may be called from any thread, several at once.
unsafe impl Send for CallbackStorage {}
// SAFETY: as above.
unsafe impl Sync for CallbackStorage {}

/// Zeroes are written in pieces of this size where the program has no `write_zeroes`.
const ZERO_CHUNK: usize = 64 << 10;

impl CallbackStorage {
    pub(super) fn new(ops: platter_storage_ops, user_data: UserData, name: String) -> Result<Self> {
        if ops.read.is_none() || ops.length.is_none() {
            return Err(Error::invalid("Storage callbacks lack 'read' or 'length'"));
        }
        if ops.write.is_some() && ops.flush.is_none() {
            return Err(Error::invalid(
                "Storage callbacks have 'write' but lack 'flush'",
            ));
        }
        if ops.reserved.iter().any(|member| !member.is_null()) {
            return Err(Error::invalid(
                "Storage callbacks have reserved members set",
            ));
        }
        Ok(Self {
            ops,
            user_data,
            name,
        })
    }

    fn failed(&self, operation: &str, code: c_int) -> Error {
        let error = match kind_of(code) {
            Some(kind) => Error::new(kind, "the callback failed"),
            // Numbers that are neither a status nor -errno are a defect of the program.
            None if (-4095..0).contains(&code) => Error::os(-code),
            None => Error::new(ErrorKind::Os, format!("the callback returned {code}")),
        };
        error.context(format!("Could not {operation} '{}'", self.name))
    }

    fn done(&self, operation: &str, code: c_int) -> Result<()> {
        if code == 0 {
            Ok(())
        } else {
            Err(self.failed(operation, code))
        }
    }

    fn refuse_writes(&self) -> Error {
        Error::new(
            ErrorKind::ReadOnly,
            format!("'{}' has no 'write' callback", self.name),
        )
    }
}

impl Storage for CallbackStorage {
    fn name(&self) -> &str {
        &self.name
    }

    fn driver(&self) -> &'static str {
        "callbacks"
    }

    fn read_only(&self) -> bool {
        self.ops.write.is_none()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let Some(read) = self.ops.read else {
            return Err(Error::invalid("Storage callbacks lack 'read'"));
        };
        // SAFETY: `buf` is writable for its length; the callback belongs to `user_data`.
        let code = unsafe {
            read(
                buf.as_mut_ptr().cast(),
                buf.len(),
                offset,
                self.user_data.get(),
            )
        };
        self.done("read", code)
    }

    fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], mut offset: u64) -> Result<()> {
        for buf in bufs {
            self.read_at(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let write = self.ops.write.ok_or_else(|| self.refuse_writes())?;
        // SAFETY: `buf` is readable for its length; the callback belongs to `user_data`.
        let code = unsafe { write(buf.as_ptr().cast(), buf.len(), offset, self.user_data.get()) };
        self.done("write", code)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> Result<()> {
        for buf in bufs {
            self.write_at(buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        let Some(length) = self.ops.length else {
            return Err(Error::invalid("Storage callbacks lack 'length'"));
        };
        let mut bytes = 0;
        // SAFETY: `bytes` is writable; the callback belongs to `user_data`.
        let code = unsafe { length(&mut bytes, self.user_data.get()) };
        self.done("get the length of", code)?;
        Ok(bytes)
    }

    fn set_len(&self, len: u64, preallocation: Preallocation) -> Result<()> {
        if preallocation != Preallocation::Off {
            return Err(Error::unsupported(format!(
                "'{}' does not preallocate",
                self.name
            )));
        }
        let Some(set_length) = self.ops.set_length else {
            if self.len()? == len {
                return Ok(());
            }
            return Err(Error::unsupported(format!(
                "The length of '{}' is fixed",
                self.name
            )));
        };
        // SAFETY: the callback belongs to `user_data`.
        let code = unsafe { set_length(len, self.user_data.get()) };
        self.done("resize", code)
    }

    fn write_zeroes(&self, mut offset: u64, mut len: u64, flags: ZeroFlags) -> Result<()> {
        if self.read_only() {
            return Err(self.refuse_writes());
        }
        if let Some(write_zeroes) = self.ops.write_zeroes {
            // SAFETY: the callback belongs to `user_data`.
            let code = unsafe { write_zeroes(offset, len, self.user_data.get()) };
            if code != PLATTER_STATUS_UNSUPPORTED {
                return self.done("write zeroes to", code);
            }
        }
        if flags.contains(ZeroFlags::NO_FALLBACK) {
            return Err(Error::unsupported(format!(
                "'{}' cannot write zeroes efficiently",
                self.name
            )));
        }
        let zeroes = [0; ZERO_CHUNK];
        while len > 0 {
            let step = len.min(ZERO_CHUNK as u64);
            self.write_at(&zeroes[..step as usize], offset)?;
            offset += step;
            len -= step;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let Some(discard) = self.ops.discard else {
            return Err(Error::unsupported(format!(
                "'{}' has no 'discard' callback",
                self.name
            )));
        };
        // SAFETY: the callback belongs to `user_data`.
        let code = unsafe { discard(offset, len, self.user_data.get()) };
        self.done("discard from", code)
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        match self.ops.flush {
            Some(flush) if durability == Durability::Synced => {
                // SAFETY: the callback belongs to `user_data`.
                let code = unsafe { flush(self.user_data.get()) };
                self.done("flush", code)
            }
            _ => Ok(()),
        }
    }

    fn extent(&self, offset: u64, len: u64) -> Result<StorageExtent> {
        let end = self.len()?;
        Ok(if offset >= end {
            StorageExtent {
                len,
                zero: true,
                allocated: false,
            }
        } else {
            StorageExtent {
                len: len.min(end - offset),
                zero: false,
                allocated: true,
            }
        })
    }

    fn copy_range(
        &self,
        _offset: u64,
        _target: &dyn Storage,
        _target_offset: u64,
        _len: u64,
    ) -> Result<CopyOutcome> {
        Ok(CopyOutcome::NotPossible)
    }

    fn reflink_range(
        &self,
        _offset: u64,
        _target: &dyn Storage,
        _target_offset: u64,
        _len: u64,
    ) -> Result<CopyOutcome> {
        Ok(CopyOutcome::NotPossible)
    }

    fn drop_cache(&self, _offset: u64, _len: u64) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn allocated_size(&self) -> Option<u64> {
        None
    }

    fn specific_info(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn lock(&self, _request: LockRequest) -> Result<()> {
        // Nobody else can reach storage that lives in the program.
        Ok(())
    }
}

/// The name of callback storage for messages.
///
/// # Safety
/// `name` is NULL or NUL-terminated.
pub(super) unsafe fn name_of(name: *const c_char) -> Result<String> {
    // SAFETY: by this function's contract.
    let name = unsafe { crate::capi::text::optional_utf8(name, "name")? };
    Ok(name.unwrap_or("callbacks").to_owned())
}
