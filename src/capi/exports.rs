//! The exports of a server.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::open::{LOCATION_FLAGS, location, merged, platter_open_options};
use crate::capi::report::{Content, Inner, platter_report};
use crate::ops;

/// Lists the exports of the server at `location`: `nbd://HOST`, `nbd+unix://?socket=PATH`, or with
/// `PLATTER_LOCATION_IMAGE_OPTS` `driver=nbd,host=HOST,tls-creds=ID`. It does not matter which export that names, and
/// none is opened. Of `options`, which may be NULL for the defaults, only the policy, the secrets and the control are
/// used; the control ends every wait for the server. `flags` is 0 or one `PLATTER_LOCATION_*`. `*out` belongs to the
/// caller, who frees it with `platter_report_free()`.
///
/// The report has an entry for each export, in the server's order: `name`, `description`, `size` in bytes, `read-only`,
/// `flags` (those of the protocol), `features` (the names of the known ones: `readonly`, `flush`, `fua`, `rotational`,
/// `trim`, `zeroes`, `df`, `multi`, `resize`, `cache`, `fast-zero`, `block-status-payload`), `min-block`, `opt-block`
/// and `max-block` in bytes, `transaction-bits` (32 or 64), `contexts` (the metadata contexts). What the server does
/// not report is omitted; if it refuses to describe an export, `error` says why. `features` and `contexts` are lists in
/// the JSON, and strings with one line per item here. The text is that of `qemu-nbd --list`.
///
/// Statuses: UNSUPPORTED where the protocol or the server has no such list, DENIED where the policy or the server
/// forbids it, LIMIT for more than 16,384 exports or 16 MiB of names, OS, CANCELLED, INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `location` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_export_list(
    out: Option<&mut MaybeUninit<*mut platter_report>>,
    location: *const c_char,
    options: Option<&platter_open_options>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, LOCATION_FLAGS)?;
        // SAFETY: by the contract of this function.
        let location = unsafe { self::location(location, "location", flags)? };
        let report = ops::exports::list(&location, &merged(options, flags)?)?;
        Ok(platter_report::new(Inner::new(Content::Exports(report))))
    })
}
