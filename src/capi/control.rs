//! Cancelling a call that takes long, from elsewhere.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use crate::capi::boundary::{self, Handle, Poison, call_out, call_ref, check_flags, given};
use crate::capi::error::platter_error;
use crate::error::Result;
use crate::job::JobControl;

/// Cancels calls that take long, such as an open that derives a key, from another thread or a signal handler, or at a
/// deadline. Calls heed it if it was set on their options (`platter_open_options_set_control()`,
/// `platter_create_set_control()`) or on an image (`platter_image_set_control()`). A job needs none: it can be
/// cancelled by itself.
#[derive(Debug, Default)]
pub struct platter_control {
    poison: Poison,
    control: Arc<JobControl>,
}

impl Handle for platter_control {
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// What is set on options: the control itself, not a copy.
pub(super) fn shared(control: Option<&platter_control>) -> Result<Arc<JobControl>> {
    let control = given(control, "control")?;
    control.poison.check()?;
    Ok(control.control.clone())
}

/// Creates a control. The caller frees it with `platter_control_free()`; options and images on which it was set, and
/// what was created with those options, continue to heed it. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_control_new(
    out: Option<&mut MaybeUninit<*mut platter_control>>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        Ok(Box::into_raw(Box::new(platter_control::default())))
    })
}

/// Makes the calls that heed the control fail with CANCELLED, those in progress and all later ones. What they have done
/// by then is undone as after a failure. This only stores an atomic; a call that computes ends within milliseconds, one
/// that waits for a file or a callback when that returns. NULL does nothing.
///
/// Threads: any; safe in a signal handler. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_control_cancel(control: Option<&platter_control>) {
    if let Some(control) = control {
        control.control.cancel();
    }
}

/// Makes the calls that heed the control fail with CANCELLED (and `ETIMEDOUT` as the error's errno) once `milliseconds`
/// from now have passed; 0 removes the deadline, even if it has passed. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_control_set_deadline(
    control: Option<&platter_control>,
    milliseconds: u64,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let time = (milliseconds != 0).then(|| Duration::from_millis(milliseconds));
    call_ref(control, "control", err, |control| {
        check_flags(flags, 0)?;
        control.control.set_deadline(time);
        Ok(())
    })
}

/// Frees a control; it cancels nothing. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The control is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_control_free(control: *mut platter_control) {
    // SAFETY: the caller owns the control, which came from `platter_control_new`.
    unsafe { boundary::free(control) }
}
