//! Reports: what an operation found or did.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::{Arc, OnceLock};

use bstr::{BString, ByteSlice};
use parking_lot::Mutex;

use crate::capi::boundary::{self, Handle, Poison, call_ref, call_ref_out, check_flags};
pub(super) use crate::capi::content::Content;
use crate::capi::error::platter_error;
use crate::capi::extent::{PLATTER_EXTENT_DIRTY, platter_extent};
use crate::capi::layer_keys::{self, layer_fields};
use crate::capi::report_fields::{
    Fields, bench_fields, bitmap_fields, check_fields, compare_fields, convert_fields,
    dirty_fields, entry_fields, export_fields, inspect_fields, measure_fields, snapshot_fields,
};
use crate::capi::text::{c_string, utf8};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::memory;
use crate::ops::bitmap::DirtyReport;
use crate::ops::compare::Comparison;
use crate::value::{Map, Value};

/// Kind of report: information about an image.
pub const PLATTER_REPORT_INFO: u32 = 1;
/// Kind of report: the consistency of an image.
pub const PLATTER_REPORT_CHECK: u32 = 2;
/// Kind of report: where the guest data is stored.
pub const PLATTER_REPORT_MAP: u32 = 3;
/// Kind of report: whether two images are the same.
pub const PLATTER_REPORT_COMPARE: u32 = 4;
/// Kind of report: what a conversion did.
pub const PLATTER_REPORT_CONVERT: u32 = 5;
/// Kind of report: what was created.
pub const PLATTER_REPORT_CREATE: u32 = 6;
/// Kind of report: the internal snapshots of an image.
pub const PLATTER_REPORT_SNAPSHOTS: u32 = 11;
/// Kind of report: how long requests took.
pub const PLATTER_REPORT_BENCH: u32 = 12;
/// Kind of report: the persistent dirty bitmaps of an image.
pub const PLATTER_REPORT_BITMAPS: u32 = 13;
/// Kind of report: the guest bytes that a bitmap marks as dirty.
pub const PLATTER_REPORT_DIRTY: u32 = 14;

/// Kind of report: how large a new image will be.
pub const PLATTER_REPORT_MEASURE: u32 = 7;
/// Kind of report: an image was changed.
pub const PLATTER_REPORT_DONE: u32 = 8;

/// Kind of report: whether a file from elsewhere may be used.
pub const PLATTER_REPORT_INSPECT: u32 = 15;

/// Kind of report: what a server exports.
pub const PLATTER_REPORT_EXPORTS: u32 = 16;

/// What an operation found or did. The caller of the function that created it owns it and frees it with
/// `platter_report_free()`; it is independent of its job or image, and stays valid when they are gone. It never
/// changes, so several threads may read it.
#[derive(Debug)]
pub struct platter_report {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    poison: Poison,
    content: Content,
    json: OnceLock<CString>,
    text: OnceLock<CString>,
    lent: Mutex<BTreeMap<BString, CString>>,
}

impl Handle for platter_report {
    fn poison(&self) -> &Poison {
        &self.inner.poison
    }
}

impl platter_report {
    pub(super) fn new(inner: Arc<Inner>) -> *mut Self {
        Box::into_raw(Box::new(Self { inner }))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Inner {
    pub(super) fn new(content: Content) -> Arc<Self> {
        Arc::new(Self {
            poison: Poison::default(),
            content,
            json: OnceLock::new(),
            text: OnceLock::new(),
            lent: Mutex::default(),
        })
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    fn borrow_text(&self, text: BString) -> *const c_char {
        self.lent
            .lock()
            .entry(text)
            .or_insert_with_key(|text| c_string(text.to_vec()))
            .as_ptr()
    }

    /// # Errors
    /// If there is not enough memory.
    pub(super) fn json(&self) -> Result<&CString> {
        if let Some(made) = self.json.get() {
            return Ok(made);
        }
        let json = match &self.content {
            Content::Info(report) => report.json(),
            Content::Map(report) => report.json(),
            Content::Snapshots(report) => report.json(),
            Content::Inspect(report) => report.json(),
            Content::Bitmaps(report) => report.json(),
            Content::Dirty(report) => report.json(),
            Content::Exports(report) => report.json(),
            Content::Check(report) => Ok(report.json()),
            Content::Measure(report) => Ok(report.json()),
            Content::Compare(_)
            | Content::Convert(_)
            | Content::Bench(_)
            | Content::Create { .. }
            | Content::Done { .. } => {
                let object: Map<_, _> = self
                    .fields(0)
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect();
                Ok(crate::ops::render::json::pretty(&Value::Object(object)))
            }
        };
        let json = whole(json.map(String::into_bytes))?;
        Ok(self.json.get_or_init(|| json))
    }

    /// # Errors
    /// If there is not enough memory.
    pub(super) fn text(&self) -> Result<&CString> {
        if let Some(made) = self.text.get() {
            return Ok(made);
        }
        let text = match &self.content {
            Content::Info(report) => report.text().map(Vec::from),
            Content::Map(report) => report.text().map(Vec::from),
            Content::Snapshots(report) => report.text().map(Vec::from),
            Content::Inspect(report) => report.text().map(Vec::from),
            Content::Bitmaps(report) => report.text().map(Vec::from),
            Content::Dirty(report) => report.text().map(Vec::from),
            Content::Exports(report) => report.text().map(Vec::from),
            Content::Check(report) => Ok(report.text().into()),
            Content::Measure(report) => Ok(report.text().into()),
            Content::Compare(report) => Ok(report.text().into()),
            Content::Bench(report) => Ok(report.text().into()),
            Content::Convert(_) | Content::Done { .. } => Ok(Vec::new()),
            Content::Create { summary } => Ok([&summary[..], b"\n"].concat()),
        };
        let text = whole(text)?;
        Ok(self.text.get_or_init(|| text))
    }

    /// The error that ends the text, if it is incomplete.
    fn text_end(&self) -> Result<()> {
        match &self.content {
            Content::Map(report) => report.text_end(),
            _ => Ok(()),
        }
    }

    fn count(&self) -> usize {
        match &self.content {
            Content::Info(report) => report.layers.len(),
            Content::Map(report) => report.entries.len(),
            Content::Snapshots(report) => report.snapshots.len(),
            Content::Inspect(report) => {
                1 + report.requirements.len() + report.references.len() + report.objections().len()
            }
            Content::Bitmaps(report) => report.bitmaps.len(),
            Content::Dirty(report) => report.ranges.len(),
            Content::Exports(report) => report.exports.len(),
            _ => 1,
        }
    }

    /// The members of entry `index`, by their JSON keys.
    fn fields(&self, index: usize) -> Vec<(&'static str, Value)> {
        match &self.content {
            Content::Info(report) => report.layers.get(index).map(layer_fields),
            Content::Map(report) => report.entries.get(index).map(entry_fields),
            Content::Snapshots(report) => report.snapshots.get(index).map(snapshot_fields),
            // Its members depend on the kind of entry; see `field`.
            Content::Inspect(_) | Content::Exports(_) => None,
            Content::Bitmaps(report) => report.bitmaps.get(index).map(bitmap_fields),
            Content::Dirty(report) => report.ranges.get(index).map(dirty_fields),
            _ if index > 0 => None,
            Content::Check(report) => Some(check_fields(report)),
            Content::Compare(report) => Some(compare_fields(report)),
            Content::Convert(report) => Some(convert_fields(report)),
            Content::Measure(report) => Some(measure_fields(report)),
            Content::Bench(report) => Some(bench_fields(report)),
            Content::Create { summary } => Some(vec![("summary", summary.as_bstr().into())]),
            Content::Done { virtual_size } => Some(
                Fields::new()
                    .maybe("virtual-size", *virtual_size)
                    .into_inner(),
            ),
        }
        .unwrap_or_default()
    }

    fn field(&self, index: usize, key: &str) -> Result<Value> {
        if index >= self.count() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("The report has no entry {index}"),
            ));
        }
        let value = match &self.content {
            Content::Info(report) => report
                .layers
                .get(index)
                .and_then(|layer| layer_keys::find(layer, key)),
            Content::Inspect(report) => inspect_fields(report, index).shift_remove(key),
            Content::Exports(report) => export_fields(report, index).shift_remove(key),
            _ => self
                .fields(index)
                .into_iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value),
        };
        value.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("The report has no '{key}'")))
    }
}

/// The text of a report, with room for the terminating NUL.
fn whole(text: Result<Vec<u8>>) -> Result<CString> {
    let made = text.and_then(|mut text| {
        memory::reserve(&mut text, 1)?;
        Ok(c_string(text))
    });
    made.context(|| "Could not make the report".to_owned())
}

/// Returns the kind of report, a `PLATTER_REPORT_*`; 0 for NULL.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_report_kind(report: Option<&platter_report>) -> u32 {
    boundary::get(0, || {
        report.map_or(0, |report| match report.inner.content {
            Content::Info(_) => PLATTER_REPORT_INFO,
            Content::Check(_) => PLATTER_REPORT_CHECK,
            Content::Map(_) => PLATTER_REPORT_MAP,
            Content::Compare(_) => PLATTER_REPORT_COMPARE,
            Content::Convert(_) => PLATTER_REPORT_CONVERT,
            Content::Create { .. } => PLATTER_REPORT_CREATE,
            Content::Measure(_) => PLATTER_REPORT_MEASURE,
            Content::Snapshots(_) => PLATTER_REPORT_SNAPSHOTS,
            Content::Inspect(_) => PLATTER_REPORT_INSPECT,
            Content::Bench(_) => PLATTER_REPORT_BENCH,
            Content::Bitmaps(_) => PLATTER_REPORT_BITMAPS,
            Content::Dirty(_) => PLATTER_REPORT_DIRTY,
            Content::Exports(_) => PLATTER_REPORT_EXPORTS,
            Content::Done { .. } => PLATTER_REPORT_DONE,
        })
    })
}

/// Returns the report as JSON, with its final newline: for info, check, map and measure what `qemu-img --output=json`
/// prints, key for key; for snapshots the list in info; for an inspection one object; for exports a list. It is UTF-8:
/// in names, anything else is replaced. `*out` lives as long as the report. Names in an image can make it several
/// hundred MiB long: `platter_report_write()` needs little memory. `flags` must be 0.
///
/// Statuses: OS where there is no memory for it, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_report_json(
    out: Option<&mut MaybeUninit<*const c_char>>,
    report: Option<&platter_report>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        Ok(report.inner.json()?.as_ptr())
    })
}

/// Returns the report as text for people, with newlines: what `qemu-img` prints without `--output`, and for exports
/// what `qemu-nbd --list` prints; `""` for a conversion. Names appear in it byte for byte, except that what would
/// control a terminal is escaped, as `\u{1b}`. The JSON is UTF-8: it replaces anything else. `*out` lives as long as
/// the report. If this form cannot show everything, this still returns what it can show; see
/// `platter_report_text_end()`. `flags` must be 0.
///
/// Statuses: OS where there is no memory for it, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_report_text(
    out: Option<&mut MaybeUninit<*const c_char>>,
    report: Option<&platter_report>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        Ok(report.inner.text()?.as_ptr())
    })
}

/// Returns how the text of `platter_report_text()` ends: 0 if it is complete, else the error that ends it: a map with
/// extents that are not plain bytes on the host. `flags` must be 0.
///
/// Statuses: UNSUPPORTED, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_report_text_end(
    report: Option<&platter_report>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref(report, "report", err, |report| {
        check_flags(flags, 0)?;
        report.inner.text_end()
    })
}

/// Returns the exit code with which `qemu-img` ends after such a report: for check 0 (consistent), 1 (parts could not
/// be checked), 2 (corruptions) or 3 (only leaks); for compare 0 (identical) or 1; for an inspection 0 (every guard
/// passes) or 2; otherwise 0. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_report_exit_code(
    out: Option<&mut MaybeUninit<c_int>>,
    report: Option<&platter_report>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        Ok(match &report.inner.content {
            Content::Check(report) => report.exit_code(),
            Content::Inspect(report) => report.exit_code(),
            Content::Compare(report) => c_int::from(report.result != Comparison::Identical),
            _ => 0,
        })
    })
}

/// Returns the number of entries: layers of an info report (the image, then its backing chain), runs of a map,
/// snapshots, bitmaps, dirty runs, exports, or the file, the guards and the names of an inspection; 1 for every other
/// report. `flags` must be 0.
///
/// Statuses: INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_report_count(
    out: Option<&mut MaybeUninit<usize>>,
    report: Option<&platter_report>,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        Ok(report.inner.count())
    })
}

/// Returns a number of entry `index`, by its JSON key: `virtual-size`, `actual-size`, `leaks`.
///
/// A header file cannot list all keys of all formats, but has a `PLATTER_KEY_*` for each that stands alone. Nested
/// values in the JSON of info are named by parts separated by dots, and items of lists by numbers:
/// `format-specific.data.refcount-bits`, `snapshots.0.date-sec`, `children.0.info.actual-size`; the number of a list is
/// that of its items: `format-specific.data.bitmaps`.
///
/// Keys of info: `virtual-size`, `actual-size`, `cluster-size`, `snapshot-count`, `bitmap-count`, `child-count`,
/// `content-count`. Check: `check-errors`, `corruptions`, `leaks`, `corruptions-fixed`, `leaks-fixed`,
/// `image-end-offset`, `total-clusters`, `allocated-clusters`, `fragmented-clusters`, `compressed-clusters`. Map:
/// `start`, `length`, `depth`, `offset`. Snapshots: `vm-state-size`, `date-sec`, `date-nsec`, `vm-clock-sec`,
/// `vm-clock-nsec`, `icount`, `virtual-size`. Bitmaps: `granularity`. Dirty bytes: `start`, `length`. Measure:
/// `required`, `fully-allocated`, `bitmaps` if there are any. Compare: `offset`. Convert: `virtual-size`, `data-bytes`,
/// `offloaded-bytes`, `zero-bytes`, `backed-bytes`, `compressed-units`, `compressed-bytes`. Resize: `virtual-size`.
/// Bench: `requests`, `flushes`, `bytes`. For an inspection see `platter_inspect()`, for exports
/// `platter_export_list()`. `flags` must be 0.
///
/// Statuses: NOT_FOUND where this report has no such key or entry, INVALID. Threads: any. Since 0.1.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_report_u64(
    out: Option<&mut MaybeUninit<u64>>,
    report: Option<&platter_report>,
    index: usize,
    key: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let key = unsafe { utf8(key, "key")? };
        let value = report.inner.field(index, key)?;
        let items = value.as_array().map(|items| items.len() as u64);
        let number = items.or_else(|| value.as_u64());
        number.ok_or_else(|| wrong_type(key, "a number"))
    })
}

/// Returns a number of entry `index` that may be fractional, by its JSON key; whole numbers too. Keys of bench:
/// `seconds`, `requests-per-second`. `flags` must be 0.
///
/// Statuses: as `platter_report_u64()`. Threads: any. Since 0.1.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_report_double(
    out: Option<&mut MaybeUninit<f64>>,
    report: Option<&platter_report>,
    index: usize,
    key: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let key = unsafe { utf8(key, "key")? };
        let value = report.inner.field(index, key)?;
        value.as_f64().ok_or_else(|| wrong_type(key, "a number"))
    })
}

/// Returns a boolean of entry `index`, by its JSON key: 1 or 0. Keys of info: `encrypted`, `dirty-flag`. Map:
/// `present`, `zero`, `data`, `compressed`, `unknown` (not in the JSON, see `PLATTER_EXTENT_UNKNOWN`). Bitmaps:
/// `enabled`, `inconsistent`. Compare: `identical`, `size-mismatch`. `flags` must be 0.
///
/// Statuses: as `platter_report_u64()`. Threads: any. Since 0.1.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_report_bool(
    out: Option<&mut MaybeUninit<u32>>,
    report: Option<&platter_report>,
    index: usize,
    key: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let key = unsafe { utf8(key, "key")? };
        let value = report.inner.field(index, key)?;
        let truth = value.as_bool().ok_or_else(|| wrong_type(key, "a truth"))?;
        Ok(u32::from(truth))
    })
}

/// Returns a string of entry `index`, by its JSON key. Names are returned byte for byte, whereas the JSON replaces what
/// is not UTF-8, except that NUL bytes become U+FFFD. `*out` lives as long as the report. Keys of info: `filename`,
/// `format`, `backing-filename`, `full-backing-filename`, `backing-filename-format`. None of them contains passwords,
/// even if the name in the image has one. Check: `filename`, `format`. Snapshots: `id`, `name`. Bitmaps: `name`.
/// Compare: `reason` (a `PLATTER_REASON_*`). Create: `summary`. `flags` must be 0.
///
/// Statuses: as `platter_report_u64()`. Threads: any. Since 0.1.
///
/// # Safety
/// `key` is NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_report_string(
    out: Option<&mut MaybeUninit<*const c_char>>,
    report: Option<&platter_report>,
    index: usize,
    key: *const c_char,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        // SAFETY: by the contract of this function.
        let key = unsafe { utf8(key, "key")? };
        match report.inner.field(index, key)? {
            Value::String(text) => Ok(report.inner.borrow_text(text)),
            _ => Err(wrong_type(key, "a text")),
        }
    })
}

/// Returns what the user should know in addition to an info report, about all its layers: UTF-8, several lines if there
/// is more to say, without the final newline. `index` counts from 0; NULL past the last one, for other reports and for
/// NULL. The string lives as long as the report.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_report_warning(
    report: Option<&platter_report>,
    index: usize,
) -> *const c_char {
    boundary::get(std::ptr::null(), || {
        let Some(Content::Info(info)) = report.map(|report| &report.inner.content) else {
            return std::ptr::null();
        };
        match (report, info.warnings.get(index)) {
            (Some(report), Some(text)) => report.inner.borrow_text(text.as_str().into()),
            _ => std::ptr::null(),
        }
    })
}

fn wrong_type(key: &str, kind: &str) -> Error {
    Error::invalid(format!("'{key}' of the report is not {kind}"))
}

fn no_run(index: usize) -> Error {
    Error::new(ErrorKind::NotFound, format!("The map has no run {index}"))
}

fn dirty_extent(dirty: &DirtyReport, index: usize) -> Result<platter_extent> {
    let (offset, length) = dirty.ranges.get(index).ok_or_else(|| no_run(index))?;
    Ok(platter_extent {
        offset: *offset,
        length: *length,
        host_offset: 0,
        depth: 0,
        flags: PLATTER_EXTENT_DIRTY,
        reserved: [0; 4],
    })
}

/// Returns the run at `index` of a map report, or of a report of dirty bytes. `flags` must be 0.
///
/// Statuses: NOT_FOUND past the last one, INVALID for another report. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_report_extent(
    out: Option<&mut MaybeUninit<platter_extent>>,
    report: Option<&platter_report>,
    index: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_ref_out(out, report, "report", err, |report| {
        check_flags(flags, 0)?;
        let map = match &report.inner.content {
            Content::Map(map) => map,
            Content::Dirty(dirty) => return dirty_extent(dirty, index),
            _ => return Err(Error::invalid("The report is not a map")),
        };
        let entry = map.entries.get(index).ok_or_else(|| no_run(index))?;
        Ok((*entry).into())
    })
}

/// Frees a report. NULL does nothing.
///
/// Threads: one, once. Since 0.1.
///
/// # Safety
/// The report is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn platter_report_free(report: *mut platter_report) {
    // SAFETY: the caller owns the report, which came from `platter_report::new`.
    unsafe { boundary::free(report) }
}
