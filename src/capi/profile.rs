//! What products require of the images that they accept.

use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use crate::capi::boundary::{call_out, check_flags};
use crate::capi::error::platter_error;
use crate::capi::text::c_string;
use crate::error::{Error, ErrorKind};
use crate::format::profiles::profiles;

/// A product, and what it requires of its images. The library owns it; it lives for ever.
#[repr(C)]
#[derive(Debug)]
pub struct platter_profile_info {
    /// Size of this struct in the library in use; later versions append members.
    pub size: usize,
    /// The name: `azure`.
    pub name: *const c_char,
    /// The name of the product, for display.
    pub product: *const c_char,
    /// The format of its images.
    pub format: *const c_char,
    /// The creation options that they need, as `key=value,…`; may be empty.
    pub options: *const c_char,
    /// What else users have to know, one sentence each, joined by newlines; may be empty.
    pub notes: *const c_char,
    /// Virtual sizes are multiples of this many bytes.
    pub size_multiple: u64,
    /// The smallest virtual size in bytes.
    pub size_least: u64,
    /// The largest virtual size in bytes.
    pub size_most: u64,
    /// The package that contains the image, `ova`; empty if the file is the image itself.
    pub package: *const c_char,
}

/// One profile with its strings.
struct Entry {
    info: platter_profile_info,
    _strings: [CString; 6],
}

// SAFETY: the pointers refer to strings that the entry owns and that never change.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let entry = |profile: &&crate::format::Profile| {
            let options = profile
                .options
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            let strings = [
                c_string(profile.name),
                c_string(profile.product),
                c_string(profile.driver.name),
                c_string(options.collect::<Vec<_>>().join(",")),
                c_string(profile.notes.join("\n")),
                c_string(profile.package.map_or("", |package| package.name)),
            ];
            let [name, product, format, options, notes, package] =
                [0, 1, 2, 3, 4, 5].map(|n: usize| strings[n].as_ptr());
            Entry {
                info: platter_profile_info {
                    size: size_of::<platter_profile_info>(),
                    name,
                    product,
                    format,
                    options,
                    notes,
                    size_multiple: profile.sizes.multiple,
                    size_least: profile.sizes.least,
                    size_most: profile.sizes.most,
                    package,
                },
                _strings: strings,
            }
        };
        profiles().iter().map(entry).collect()
    })
}

/// Returns the profile at `index`, counted from 0 and sorted by name: a product with the format, the options and the
/// sizes of the images that it accepts, for `platter_convert_set_profile()` and `platter_inspect_for_profile()`. `*out`
/// lives for ever. `flags` must be 0.
///
/// Statuses: NOT_FOUND past the last one, INVALID. Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_profile_describe(
    out: Option<&mut MaybeUninit<*const platter_profile_info>>,
    index: usize,
    flags: u32,
    err: Option<&mut MaybeUninit<*mut platter_error>>,
) -> c_int {
    call_out(out, err, || {
        check_flags(flags, 0)?;
        let entry = entries().get(index);
        entry
            .map(|entry| &raw const entry.info)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("No profile at {index}")))
    })
}
