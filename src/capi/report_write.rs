//! Reports delivered in pieces: a long one is never in memory as a whole.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;

use crate::capi::boundary::{call_ref, check_flags, given};
use crate::capi::error::platter_error;
use crate::capi::report::{Content, Inner, platter_report};
use crate::error::{Error, Result};
use crate::memory;

/// Flag of `platter_report_write()`: the JSON instead of the text.
pub const PLATTER_REPORT_WRITE_JSON: u32 = 1;

/// Receives `length` bytes of a report, which live until the callback returns and end anywhere, even within a
/// character. A non-zero result ends the call with CANCELLED. It must not free the report.
pub type platter_report_write_fn = Option<
    unsafe extern "C" fn(bytes: *const c_char, length: usize, user_data: *mut c_void) -> c_int,
>;

/// Passes a report to `write_fn` piece by piece, in order and on the calling thread: the same bytes as those of
/// `platter_report_text()`, or of `platter_report_json()` with the flag `PLATTER_REPORT_WRITE_JSON`, in little memory
/// however long they are. `platter_report_text_end()` says how the text ends. `flags` is 0 or that flag.
///
/// Statuses: CANCELLED, OS where there is no memory, INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `write_fn` and `user_data` are usable until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_report_write(
    report: Option<&platter_report>,
    write_fn: platter_report_write_fn,
    user_data: *mut c_void,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(report, "report", err, |report| {
        check_flags(flags, PLATTER_REPORT_WRITE_JSON)?;
        let write_fn = given(write_fn, "write_fn")?;
        let mut pieces = Pieces::new(|bytes: &[u8]| {
            // SAFETY: by the contract of this function.
            unsafe { write_fn(bytes.as_ptr().cast(), bytes.len(), user_data) == 0 }
        })?;
        let written = match flags & PLATTER_REPORT_WRITE_JSON {
            0 => write_text(report.inner(), &mut pieces)?,
            _ => write_json(report.inner(), &mut pieces)?,
        };
        match written && pieces.flush().is_ok() {
            true => Ok(()),
            false => Err(Error::cancelled()),
        }
    })
}

/// Returns false if the receiver wants no more.
fn write_text<F: FnMut(&[u8]) -> bool>(report: &Inner, out: &mut Pieces<F>) -> Result<bool> {
    let written = match report.content() {
        Content::Info(report) => report.write_text(out),
        Content::Snapshots(report) => report.write_text(out),
        Content::Bitmaps(report) => report.write_text(out),
        Content::Dirty(report) => report.write_text(out),
        Content::Exports(report) => report.write_text(out),
        Content::Map(report) => report.write_text(out),
        Content::Inspect(report) => return Ok(report.write_text(out).is_ok()),
        _ => out.write_all(report.text()?.as_bytes()),
    };
    Ok(written.is_ok())
}

/// As [`write_text`].
fn write_json<F: FnMut(&[u8]) -> bool>(report: &Inner, out: &mut Pieces<F>) -> Result<bool> {
    let written = match report.content() {
        Content::Info(report) => report.write_json(out),
        Content::Snapshots(report) => report.write_json(out),
        Content::Bitmaps(report) => report.write_json(out),
        Content::Dirty(report) => report.write_json(out),
        Content::Exports(report) => report.write_json(out),
        Content::Map(report) => report.write_json(out),
        Content::Inspect(report) => report.write_json(out),
        _ => return Ok(out.write_all(report.json()?.as_bytes()).is_ok()),
    };
    Ok(written.is_ok() && out.write_all(b"\n").is_ok())
}

/// Number of bytes to collect before they are passed on.
const PIECE: usize = 64 << 10;

/// Collects what is written and passes it to a receiver, which says whether it wants more.
struct Pieces<F> {
    gathered: Vec<u8>,
    receive: F,
}

impl<F: FnMut(&[u8]) -> bool> Pieces<F> {
    fn new(receive: F) -> Result<Self> {
        let mut gathered = Vec::new();
        memory::reserve(&mut gathered, PIECE)?;
        Ok(Self { gathered, receive })
    }
}

impl<F: FnMut(&[u8]) -> bool> io::Write for Pieces<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.len() == PIECE {
            self.flush()?;
        }
        let room = PIECE - self.gathered.len();
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.gathered.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let wanted = self.gathered.is_empty() || (self.receive)(&self.gathered);
        self.gathered.clear();
        match wanted {
            true => Ok(()),
            false => Err(io::Error::other("The receiver has had enough")),
        }
    }
}

impl<F: FnMut(&[u8]) -> bool> fmt::Write for Pieces<F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
