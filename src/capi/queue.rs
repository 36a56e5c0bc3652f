//! Queues of asynchronous requests.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::capi::boundary::{self, Poison, call_out, caught, check_flags, given};
use crate::capi::error::platter_error;
use crate::capi::extent::{PLATTER_ZERO_MAY_UNMAP, PLATTER_ZERO_NO_FALLBACK};
use crate::capi::image::{Shared, platter_image, shared_of};
use crate::capi::io::{PLATTER_WRITE_FUA, check_buffer, iovec, vector, zero_flags};
use crate::capi::status::{self, PLATTER_OK};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::log::{Level, log};
use crate::queue::{Buffer, Completion, Queue, QueueOptions, QueueTarget, Request};

/// Requests on an image that complete later, in any order. A queue belongs to one thread at a time; an image may have
/// many queues. A queue keeps its image alive.
///
/// A request whose bytes are in memory completes within the call that submits it: reads of cached data and of zeroes,
/// and writes to the page cache over bytes that are already allocated. The kernel (io_uring, if it may be used) or
/// threads of the library, which block all signals, do the rest. Overlapping requests are also done in any order: if
/// one must follow the other, wait for the first.
#[derive(Debug)]
pub struct platter_queue {
    poison: Poison,
    queue: Queue,
    image: Arc<Shared>,
}

impl QueueTarget for Shared {
    fn image(&self) -> &Image {
        self
    }

    fn panicked(&self) {
        self.poison().set();
    }
}

/// Flag of `platter_queue_new()`: no descriptor is needed, which makes each request a little cheaper.
pub const PLATTER_QUEUE_NO_FD: u32 = 1;
/// Flag of `platter_queue_new()`: use threads for what the calls cannot do at once, even if the kernel could do it.
pub const PLATTER_QUEUE_THREADS: u32 = 2;

/// Flag of a request: others follow at once, so this one is not passed to the kernel yet. It is passed on with the next
/// request without this flag, or in `platter_queue_reap()`.
pub const PLATTER_REQUEST_MORE: u32 = 0x100;

/// The result of a request. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct platter_completion {
    /// The `user_data` with which the request was submitted.
    pub user_data: *mut c_void,
    /// Bytes read, written, zeroed or discarded: all that were requested, or 0 after a failure.
    pub bytes: u64,
    /// `PLATTER_OK` or a `PLATTER_STATUS_*`.
    pub status: i32,
    /// The errno of the failure, as `platter_error_errno()`; 0 after success.
    pub os_errno: i32,
    /// 0.
    pub reserved: [u64; 2],
}

/// Creates a queue on `image`. `depth` is the number of requests that run at once and for which space is reserved, at
/// most 65536; 0 stands for 64. More may be submitted; they wait their turn. `flags` are bits of `PLATTER_QUEUE_*`.
/// `*out` belongs to the caller, who frees it with `platter_queue_free()`.
///
/// Statuses: INVALID, OS. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_queue_new(
    out: Option<&mut MaybeUninit<*mut platter_queue>>,
    image: Option<&platter_image>,
    depth: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, PLATTER_QUEUE_NO_FD | PLATTER_QUEUE_THREADS)?;
        let image = shared_of(image, "image")?;
        let defaults = QueueOptions::default();
        let options = QueueOptions {
            depth: if depth == 0 { defaults.depth } else { depth },
            event: flags & PLATTER_QUEUE_NO_FD == 0,
            ring: flags & PLATTER_QUEUE_THREADS == 0,
        };
        Ok(Box::into_raw(Box::new(platter_queue {
            poison: Poison::default(),
            queue: Queue::new(image.clone(), options)?,
            image,
        })))
    })
}

/// Returns an eventfd (non-blocking, close-on-exec) that is readable while completions wait to be reaped, and
/// occasionally a moment longer. `platter_queue_reap()` resets it: do not read or write it. It belongs to the queue and
/// is closed with it. `flags` must be 0.
///
/// Statuses: INVALID, UNSUPPORTED with `PLATTER_QUEUE_NO_FD`; `*out` is -1 then. Threads: one at a
/// time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_queue_fd(
    out: Option<&mut MaybeUninit<c_int>>,
    queue: Option<&mut platter_queue>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // 0 would be a valid descriptor, which a caller might close.
    let mut fd = MaybeUninit::new(-1);
    let place = out.is_some().then_some(&mut fd);
    let status = call_out(place, err, || {
        check_flags(flags, 0)?;
        let event = given(queue, "queue")?.queue.event();
        let event = event.ok_or_else(|| Error::unsupported("The queue was made without an fd"))?;
        Ok(event.as_raw_fd())
    });
    if let Some(out) = out {
        // SAFETY: initialised above, and left so by the call.
        let fd = unsafe { fd.assume_init() };
        out.write(if status == PLATTER_OK { fd } else { -1 });
    }
    status
}

/// Submits a read of `len` guest bytes at `offset` into `buf`, which belongs to the library until the completion is
/// reaped. `flags` is 0 or `PLATTER_REQUEST_MORE`. Every failure is reported as a completion; a NULL queue does
/// nothing. Large buffers are best aligned as for `platter_image_read()`.
///
/// Statuses of the completion: as `platter_image_read()`. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `buf` is writable for `len` bytes, and nothing else uses it, until the completion is reaped or the
/// queue freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_queue_read(
    queue: Option<&mut platter_queue>,
    buf: *mut c_void,
    len: usize,
    offset: u64,
    user_data: *mut c_void,
    flags: u32,
) {
    submit(queue, user_data, flags, 0, || {
        // SAFETY: by the contract of this function.
        let buffer = unsafe { caller_buffer(buf, len)? };
        Ok(Request::Read { buffer, offset })
    });
}

/// Submits a write of `len` bytes of `buf` at `offset`. `buf` belongs to the library until the
/// completion is reaped. `flags` are bits of `PLATTER_WRITE_FUA` and `PLATTER_REQUEST_MORE`. Failures
/// and NULL: as `platter_queue_read()`. Large buffers are best aligned as for `platter_image_read()`.
///
/// Statuses of the completion: as `platter_image_write()`. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `buf` is readable for `len` bytes, and nothing writes to it, until the completion is reaped or the
/// queue freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_queue_write(
    queue: Option<&mut platter_queue>,
    buf: *const c_void,
    len: usize,
    offset: u64,
    user_data: *mut c_void,
    flags: u32,
) {
    submit(queue, user_data, flags, PLATTER_WRITE_FUA, || {
        // SAFETY: by the contract of this function; a write does not change the buffer.
        let buffer = unsafe { caller_buffer(buf.cast_mut(), len)? };
        Ok(Request::Write {
            buffer,
            offset,
            durable: flags & PLATTER_WRITE_FUA != 0,
        })
    });
}

/// As `platter_queue_read()`, into `iovcnt` buffers in turn. `iov` itself is copied.
///
/// Statuses of the completion: as `platter_image_readv()`. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `iov` has `iovcnt` entries; each is as `buf` of `platter_queue_read()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_queue_readv(
    queue: Option<&mut platter_queue>,
    iov: *const iovec,
    iovcnt: u32,
    offset: u64,
    user_data: *mut c_void,
    flags: u32,
) {
    submit(queue, user_data, flags, 0, || {
        // SAFETY: by the contract of this function.
        let buffer = unsafe { caller_vector(iov, iovcnt)? };
        Ok(Request::Read { buffer, offset })
    });
}

/// As `platter_queue_write()`, from `iovcnt` buffers in turn. `iov` itself is copied. A failure may leave part of the
/// data written.
///
/// Statuses of the completion: as `platter_image_writev()`. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `iov` has `iovcnt` entries; each is as `buf` of `platter_queue_write()`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_queue_writev(
    queue: Option<&mut platter_queue>,
    iov: *const iovec,
    iovcnt: u32,
    offset: u64,
    user_data: *mut c_void,
    flags: u32,
) {
    submit(queue, user_data, flags, PLATTER_WRITE_FUA, || {
        // SAFETY: by the contract of this function.
        let buffer = unsafe { caller_vector(iov, iovcnt)? };
        Ok(Request::Write {
            buffer,
            offset,
            durable: flags & PLATTER_WRITE_FUA != 0,
        })
    });
}

/// Submits a request to make `len` guest bytes from `offset` read as zeroes. `flags` are bits of
/// `PLATTER_WRITE_FUA`, `PLATTER_ZERO_MAY_UNMAP`, `PLATTER_ZERO_NO_FALLBACK` and
/// `PLATTER_REQUEST_MORE`. Failures and NULL: as `platter_queue_read()`.
///
/// Statuses of the completion: as `platter_image_write_zeroes()`. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_queue_write_zeroes(
    queue: Option<&mut platter_queue>,
    offset: u64,
    len: u64,
    user_data: *mut c_void,
    flags: u32,
) {
    let known = PLATTER_WRITE_FUA | PLATTER_ZERO_MAY_UNMAP | PLATTER_ZERO_NO_FALLBACK;
    submit(queue, user_data, flags, known, || {
        Ok(Request::WriteZeroes {
            offset,
            len,
            flags: zero_flags(flags),
            durable: flags & PLATTER_WRITE_FUA != 0,
        })
    });
}

/// Submits a request to discard `len` guest bytes from `offset`, which gives their space back to the host. `flags` are
/// bits of `PLATTER_WRITE_FUA` and `PLATTER_REQUEST_MORE`. Failures and NULL: as `platter_queue_read()`.
///
/// Statuses of the completion: as `platter_image_discard()`. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_queue_discard(
    queue: Option<&mut platter_queue>,
    offset: u64,
    len: u64,
    user_data: *mut c_void,
    flags: u32,
) {
    submit(queue, user_data, flags, PLATTER_WRITE_FUA, || {
        Ok(Request::Discard {
            offset,
            len,
            durable: flags & PLATTER_WRITE_FUA != 0,
        })
    });
}

/// Submits a flush: it makes durable what had completed (reaped or not) when this was called, but not what is still in
/// flight. `flags` is 0 or `PLATTER_REQUEST_MORE`. Failures and NULL: as `platter_queue_read()`.
///
/// Statuses of the completion: as `platter_image_flush()`. Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_queue_flush(
    queue: Option<&mut platter_queue>,
    user_data: *mut c_void,
    flags: u32,
) {
    submit(queue, user_data, flags, 0, || Ok(Request::Flush));
}

/// Stores up to `max` completions in `completions` and their number in `*out`. Waits until there are `min` of them, or
/// all that are outstanding if there are fewer, for no longer than `timeout_ms` milliseconds: 0 does not wait, a
/// negative timeout waits for ever. Reaching the timeout is not a failure. Signals do not end the wait. `flags`
/// must be 0.
///
/// Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
///
/// # Safety
/// `completions` is writable for `max` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_queue_reap(
    out: Option<&mut MaybeUninit<usize>>,
    queue: Option<&mut platter_queue>,
    completions: *mut platter_completion,
    max: usize,
    min: usize,
    timeout_ms: i64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    // Bypasses the poison: completions are still available.
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let queue = &mut given(queue, "queue")?.queue;
        if completions.is_null() && max != 0 {
            return Err(Error::invalid("Parameter 'completions' is NULL"));
        }
        if min > max {
            return Err(Error::invalid("Parameter 'min' is larger than 'max'"));
        }
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let ready = queue.wait(min, timeout)?;
        let mut taken = 0;
        while taken < max.min(ready)
            && let Some(completion) = queue.pop()
        {
            // SAFETY: by the contract of this function, `taken` is below `max`.
            unsafe { completions.add(taken).write(shown(completion)) };
            taken += 1;
        }
        Ok(taken)
    })
}

/// Returns the number of requests that were submitted and not yet reaped; 0 for NULL.
///
/// Threads: one at a time. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_queue_outstanding(queue: Option<&mut platter_queue>) -> usize {
    boundary::get(0, || queue.map_or(0, |queue| queue.queue.outstanding()))
}

/// Frees a queue. Requests that have not begun are not carried out; this waits for those that have, so that the library
/// no longer uses any buffer when it returns. No more completions are delivered. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The queue is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_queue_free(queue: *mut platter_queue) {
    // SAFETY: the caller owns the queue, which came from `platter_queue_new`.
    unsafe { boundary::free(queue) }
}

/// Submits the request that `request` builds; any failure becomes a completion.
fn submit(
    queue: Option<&mut platter_queue>,
    user_data: *mut c_void,
    flags: u32,
    known: u32,
    request: impl FnOnce() -> Result<Request>,
) {
    let Some(platter_queue {
        poison,
        queue,
        image,
    }) = queue
    else {
        return;
    };
    let token = user_data as usize as u64;
    let submitted = caught(Some(poison), || {
        image.poison().check()?;
        check_flags(flags, known | PLATTER_REQUEST_MORE)?;
        queue.submit(token, request()?, flags & PLATTER_REQUEST_MORE != 0);
        Ok(())
    });
    if poison.is_set() {
        image.poison().set();
    }
    if let Err(error) = submitted {
        boundary::get((), || queue.fail(token, error));
    }
}

unsafe fn caller_buffer(buf: *mut c_void, len: usize) -> Result<Buffer> {
    check_buffer(buf, len, "buf")?;
    let piece = iovec {
        iov_base: buf,
        iov_len: len,
    };
    // SAFETY: by the caller's contract.
    Ok(unsafe { Buffer::of_caller(&[piece]) })
}

unsafe fn caller_vector(iov: *const iovec, iovcnt: u32) -> Result<Buffer> {
    // SAFETY: by the caller's contract.
    let iov = unsafe { vector(iov, iovcnt)? };
    let mut total = 0u64;
    for piece in iov {
        check_buffer(piece.iov_base, piece.iov_len, "iov")?;
        total = total
            .checked_add(piece.iov_len as u64)
            .ok_or_else(|| Error::invalid("Parameter 'iov' is too long"))?;
    }
    // SAFETY: by the caller's contract, and as just checked.
    Ok(unsafe { Buffer::of_caller(iov) })
}

/// A completion as C sees it.
fn shown(completion: Completion) -> platter_completion {
    let (bytes, status, os_errno) = match completion.result {
        Ok(bytes) => (bytes, PLATTER_OK, 0),
        Err(error) => {
            // A completion cannot hold the message.
            log(Level::Error, || format!("a request fails: {error}"));
            (0, status::of_kind(error.kind()), error.errno())
        }
    };
    platter_completion {
        user_data: completion.token as usize as *mut c_void,
        bytes,
        status,
        os_errno,
        reserved: [0; 2],
    }
}
