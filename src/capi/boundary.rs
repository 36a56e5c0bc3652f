//! The boundary to C: every exported function runs its body here, so that NULL handles, failures and panics reach C
//! only as a status.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use crate::capi::error_object::platter_error;
pub(super) use crate::capi::parameter::{given, truth};
use crate::capi::status::PLATTER_OK;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobControl, Working};
use crate::log::{Level, log};

/// Set on a handle when a panic has unwound through it: its state is unknown, so later calls are refused.
#[derive(Debug, Default)]
pub(super) struct Poison(AtomicBool);

impl Poison {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.is_set() {
            Err(Error::new(
                ErrorKind::Internal,
                "The object is unusable after an internal error in an earlier call",
            ))
        } else {
            Ok(())
        }
    }
}

/// An object behind a handle.
pub(super) trait Handle {
    fn poison(&self) -> &Poison;

    /// The control that ends calls with it, even while they wait for a server.
    fn heeds(&self) -> Option<&Arc<JobControl>> {
        None
    }

    /// Makes the call heed that control until the returned guard is dropped.
    fn working(&self) -> Option<Working> {
        let control = self.heeds().filter(|control| !control.is_idle());
        control.map(JobControl::work_here)
    }
}

/// The value of an out-parameter, and what it is on failure.
pub(super) trait OutValue: Sized {
    fn empty() -> Self;
}

impl<T> OutValue for *mut T {
    fn empty() -> Self {
        std::ptr::null_mut()
    }
}

impl<T> OutValue for *const T {
    fn empty() -> Self {
        std::ptr::null()
    }
}

macro_rules! zero_is_empty {
    ($($kind:ty),*) => {$(
        impl OutValue for $kind {
            fn empty() -> Self {
                Default::default()
            }
        }
    )*};
}

zero_is_empty!(c_int, u32, u64, usize, f64);

/// A `platter_error **` parameter.
pub(super) type ErrOut<'a> = Option<&'a mut MaybeUninit<*mut platter_error>>;
/// An out-parameter.
pub(super) type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

/// Runs a body without a handle.
pub(super) fn call(err: ErrOut<'_>, body: impl FnOnce() -> Result<()>) -> c_int {
    finish(err, caught(None, body))
}

/// Runs a body whose value is returned through `out`.
pub(super) fn call_out<T: OutValue>(
    out: Out<'_, T>,
    err: ErrOut<'_>,
    body: impl FnOnce() -> Result<T>,
) -> c_int {
    let result = place(out).and_then(|out| {
        *out = caught(None, body)?;
        Ok(())
    });
    finish(err, result)
}

/// Runs a body on a handle that several threads may share.
pub(super) fn call_ref<H: Handle>(
    handle: Option<&H>,
    name: &str,
    err: ErrOut<'_>,
    body: impl FnOnce(&H) -> Result<()>,
) -> c_int {
    let result = given(handle, name).and_then(|handle| {
        caught(Some(handle.poison()), || {
            let _working = handle.working();
            body(handle)
        })
    });
    finish(err, result)
}

/// As [`call_ref`], with a value that is returned through `out`.
pub(super) fn call_ref_out<T: OutValue, H: Handle>(
    out: Out<'_, T>,
    handle: Option<&H>,
    name: &str,
    err: ErrOut<'_>,
    body: impl FnOnce(&H) -> Result<T>,
) -> c_int {
    let result = place(out).and_then(|out| {
        let handle = given(handle, name)?;
        *out = caught(Some(handle.poison()), || {
            let _working = handle.working();
            body(handle)
        })?;
        Ok(())
    });
    finish(err, result)
}

/// Runs a body on a handle that only the calling thread uses.
pub(super) fn call_mut<H: Handle>(
    handle: Option<&mut H>,
    name: &str,
    err: ErrOut<'_>,
    body: impl FnOnce(&mut H) -> Result<()>,
) -> c_int {
    let result = given(handle, name).and_then(|handle| {
        handle.poison().check()?;
        let mut panicked = true;
        let result = caught(None, || {
            let result = body(handle);
            panicked = false;
            result
        });
        if panicked {
            handle.poison().set();
        }
        result
    });
    finish(err, result)
}

/// Runs a getter without a status; returns `fallback` if it panics.
pub(super) fn get<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    caught(None, || Ok(body())).unwrap_or(fallback)
}

/// Frees a handle created by `Box::into_raw`; NULL does nothing.
///
/// # Safety
/// `handle` is NULL or came from `Box::into_raw` and is not used afterwards.
pub(super) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: by this function's contract.
        let object = unsafe { Box::from_raw(handle) };
        get((), || drop(object));
    }
}

/// Refuses bits of `flags` that are not in `known`.
pub(super) fn check_flags(flags: u32, known: u32) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Error::invalid(format!(
            "Parameter 'flags' has unknown bits {unknown:#x}"
        ))),
    }
}

fn place<T: OutValue>(out: Out<'_, T>) -> Result<&mut T> {
    given(out, "out").map(|out| out.write(T::empty()))
}

/// Runs `body`; a panic poisons the handle and becomes an error.
pub(super) fn caught<T>(poison: Option<&Poison>, body: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Some(poison) = poison {
        poison.check()?;
    }
    let result = unwound(|| {
        testing::maybe_panic();
        body()
    });
    result.unwrap_or_else(|error| {
        if let Some(poison) = poison {
            poison.set();
        }
        Err(error)
    })
}

/// Runs `body`; a panic becomes an error.
pub(super) fn unwound<T>(body: impl FnOnce() -> T) -> Result<T> {
    quiet_panics();
    let outer = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outer);
    result.map_err(|payload| {
        let reason = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic".to_owned());
        // Dropping a payload can panic in turn; leaking that one is the lesser evil.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        Error::new(ErrorKind::Internal, format!("Internal error: {reason}"))
    })
}

fn finish(err: ErrOut<'_>, result: Result<()>) -> c_int {
    match result {
        Ok(()) => {
            if let Some(err) = err {
                err.write(std::ptr::null_mut());
            }
            PLATTER_OK
        }
        Err(error) => {
            let told = unwound(|| {
                log(Level::Debug, || format!("a call fails: {error}"));
                platter_error::new(&error)
            });
            // If building the error object panics, that panic is reported instead.
            report(
                err,
                &told.unwrap_or_else(|error| platter_error::new(&error)),
            )
        }
    }
}

/// Passes a copy of `error` to the caller and returns its status.
pub(super) fn report(err: ErrOut<'_>, error: &platter_error) -> c_int {
    if let Some(err) = err {
        err.write(Box::into_raw(Box::new(error.clone())));
    }
    error.status()
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs once, in the first call. Keeps panics of this library off the caller's stderr; others go to the previous hook.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        crate::log::init();
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let worker = std::thread::current()
                .name()
                .is_some_and(|name| name.starts_with("platter"));
            if !worker && !INSIDE.get() {
                previous(info);
            }
        }));
    });
}

/// A caller's `user_data` with its `free_fn`, which runs exactly once: when this is dropped.
#[derive(Debug)]
pub(super) struct UserData {
    data: *mut c_void,
    free_fn: platter_free_fn,
}

/// Releases `user_data`; runs exactly once, even if the call that registers it fails.
pub type platter_free_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

// SAFETY: the header says that callbacks and their user data are used from the thread that runs the job or the I/O, and
// never from two at once unless that callback's documentation says so.
unsafe impl Send for UserData {}
// SAFETY: as above; a shared reference exposes only the pointer.
unsafe impl Sync for UserData {}

impl UserData {
    pub(super) fn new(data: *mut c_void, free_fn: platter_free_fn) -> Self {
        Self { data, free_fn }
    }

    pub(super) fn get(&self) -> *mut c_void {
        self.data
    }
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(free_fn) = self.free_fn {
            // SAFETY: the caller registered `free_fn` for this very pointer.
            unsafe { free_fn(self.data) }
        }
    }
}

/// Lets tests verify that a panic becomes a status. Only in builds with debug assertions, and in neither the header nor
/// the shared object.
#[cfg(debug_assertions)]
mod testing {
    use std::sync::atomic::{AtomicU32, Ordering};

    static COUNTDOWN: AtomicU32 = AtomicU32::new(0);

    /// cbindgen:ignore
    ///
    /// Makes the `nth` guarded body from now on panic (1 is the next one); 0 disables this.
    #[unsafe(no_mangle)]
    extern "C" fn platter_testing_panic_at(nth: u32) {
        COUNTDOWN.store(nth, Ordering::SeqCst);
    }

    pub(super) fn maybe_panic() {
        let step = COUNTDOWN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        assert!(step != Ok(1), "injected by a test");
    }
}

#[cfg(not(debug_assertions))]
mod testing {
    pub(super) fn maybe_panic() {}
}
