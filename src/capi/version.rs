//! The version of the library.

use std::ffi::{CStr, c_char};

/// The major version.
pub const PLATTER_VERSION_MAJOR: u32 = 0;
/// The minor version.
pub const PLATTER_VERSION_MINOR: u32 = 1;
/// The patch version.
pub const PLATTER_VERSION_PATCH: u32 = 0;
/// The version of this header as one number: major × 1000000 + minor × 1000 + patch.
pub const PLATTER_VERSION_NUMBER: u32 = 1000;

/// Returns the version of the library in use, in the form of `PLATTER_VERSION_NUMBER`.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_version_number() -> u32 {
    PLATTER_VERSION_NUMBER
}

/// Returns the version of the library in use, as text: `"0.1.0"`. Lives for ever.
///
/// Threads: any. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn platter_version_string() -> *const c_char {
    const TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    CStr::from_bytes_with_nul(TEXT.as_bytes())
        .unwrap_or(c"")
        .as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_those_of_the_package() {
        let parts = [
            PLATTER_VERSION_MAJOR,
            PLATTER_VERSION_MINOR,
            PLATTER_VERSION_PATCH,
        ];
        let text = parts.map(|part| part.to_string()).join(".");
        assert_eq!(text, env!("CARGO_PKG_VERSION"));
        assert_eq!(
            PLATTER_VERSION_NUMBER,
            parts[0] * 1_000_000 + parts[1] * 1000 + parts[2]
        );
    }
}
