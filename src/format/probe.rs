//! Guesses the format of a file from its first bytes and its name.

use crate::driver_names::unknown_driver;
use crate::error::Result;
use crate::format::magic::{self, PROBE_BYTES};
use crate::format::{FormatDriver, Probe, raw, registry};
use crate::storage::Storage;

/// The driver for what `storage` holds: raw where no signature is found.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] where the signature is that of a format without a driver
/// here, or of reading the first sector.
pub fn probe(storage: &dyn Storage) -> Result<&'static FormatDriver> {
    let mut head = [0; PROBE_BYTES];
    storage.read_at(&mut head, 0)?;
    of_head(&Probe {
        head: &head,
        name: storage.name(),
    })
}

/// As [`probe`], from bytes that were read already.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] as for [`probe`].
pub fn of_head(probe: &Probe<'_>) -> Result<&'static FormatDriver> {
    let Some(name) = magic::recognise(probe) else {
        return Ok(&raw::DRIVER);
    };
    registry::by_name(name).ok_or_else(|| {
        unknown_driver(name).with_hint(format!(
            "The file looks like a {name} image, a format that is not supported; name the format 'raw' to take it for a plain disk."
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_without_driver_is_named_and_never_taken_for_raw() {
        let head = |head| {
            of_head(&Probe {
                head,
                name: "x".into(),
            })
        };
        assert_eq!(head(b"\x55\xaa").unwrap().name, "raw");
        let error = head(b"KDMV\x01\0\0\0").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "The driver 'vmdk' is not part of this build"
        );
    }
}
