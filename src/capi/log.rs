//! The log callback and trace events.

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::{Arc, OnceLock};

use crate::capi::boundary::{UserData, call, call_out, check_flags, get, platter_free_fn, truth};
use crate::capi::error::platter_error;
use crate::capi::text::{c_line, c_string, utf8};
use crate::error::Error;
use crate::log::Level;

/// Log level: failed requests of queues and of a server's clients, whose message no caller receives.
pub const PLATTER_LOG_ERROR: u32 = 1;
/// Log level: also warnings of jobs, and clients of a server that violate the protocol or are dropped.
pub const PLATTER_LOG_WARNING: u32 = 2;
/// Log level: also images that are opened, and jobs that begin and end.
pub const PLATTER_LOG_INFO: u32 = 3;
/// Log level: also calls that fail, with the message that the caller receives.
pub const PLATTER_LOG_DEBUG: u32 = 4;

/// Log level: also trace events that `platter_trace_switch()` has switched on.
pub const PLATTER_LOG_TRACE: u32 = 5;

/// Receives a line of the log, without newline; `level` is a `PLATTER_LOG_*`. Called from any thread, possibly from
/// several at once; it must not call `platter_log_set()`.
pub type platter_log_fn =
    Option<unsafe extern "C" fn(level: u32, line: *const c_char, user_data: *mut c_void)>;

/// Sends log lines of `level` and more severe ones to `log_fn`, for the whole process. NULL for `log_fn` restores the
/// default: silence, or standard error at the level that the environment variable `PLATTER_LOG` names (`error`,
/// `warning`, `info`, `debug` or `trace`, which switches all trace events on).
///
/// `free_fn` (may be NULL) is called once with `user_data`: when another function is set and the last call of this one
/// has returned, or at once if this call fails. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `log_fn` and `user_data` are usable from every thread until `free_fn` is called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_log_set(
    log_fn: platter_log_fn,
    user_data: *mut c_void,
    free_fn: platter_free_fn,
    level: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    let user_data = UserData::new(user_data, free_fn);
    call(err, || {
        check_flags(flags, 0)?;
        let Some(log_fn) = log_fn else {
            crate::log::set_sink(None);
            return Ok(());
        };
        let level = match level {
            PLATTER_LOG_ERROR => Level::Error,
            PLATTER_LOG_WARNING => Level::Warning,
            PLATTER_LOG_INFO => Level::Info,
            PLATTER_LOG_DEBUG => Level::Debug,
            PLATTER_LOG_TRACE => Level::Trace,
            _ => return Err(Error::invalid(format!("Unknown log level {level}"))),
        };
        crate::log::set_sink(Some((
            level,
            Arc::new(move |level, line| {
                let line = c_line(line);
                // SAFETY: the caller keeps both usable until `user_data` is dropped.
                unsafe { log_fn(level as u32, line.as_ptr(), user_data.get()) }
            }),
        )));
        Ok(())
    })
}

/// Switches the trace events whose names match `pattern` on (`on` is 1) or off (0), for the whole process; all are off
/// initially, and one that is off costs next to nothing. `*` matches any characters, `?` exactly one. `*out` is the
/// number of events that match, which may be 0. Events are sent as lines `NAME KEY=VALUE ...` to the function of
/// `platter_log_set()` if that receives `PLATTER_LOG_TRACE`. Names and keys may change with every release. `flags` must
/// be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `pattern` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_trace_switch(
    out: Option<&mut MaybeUninit<usize>>,
    pattern: *const c_char,
    on: u32,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let pattern = unsafe { utf8(pattern, "pattern")? };
        Ok(crate::ops::trace::switch(pattern, truth(on, "on")?))
    })
}

/// Returns the name of trace event `index`, counted from 0; NULL past the last one. Lives as long as the library.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_trace_event(index: usize) -> *const c_char {
    static NAMES: OnceLock<Vec<CString>> = OnceLock::new();
    get(std::ptr::null(), || {
        let names = NAMES.get_or_init(|| {
            let events = crate::ops::trace::events();
            events.map(|event| c_string(event.name())).collect()
        });
        names
            .get(index)
            .map_or(std::ptr::null(), |name| name.as_ptr())
    })
}
