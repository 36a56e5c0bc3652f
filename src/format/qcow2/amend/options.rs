//! The options of `amend`, and the changes that they request.

use bstr::{BStr, BString, ByteSlice};

use crate::error::{Error, Result};
use crate::format::crypt;
use crate::format::qcow2::disk::RefcountWidth;
use crate::format::qcow2::spec::plain_name;
use crate::options::{OptionKind, OptionSpec, Values, option};

const KEYSLOTS: [OptionSpec; 5] = crypt::keyslot_options([
    "encrypt.iter-time",
    "encrypt.keyslot",
    "encrypt.new-secret",
    "encrypt.old-secret",
    "encrypt.state",
]);

/// Options of `amend`, sorted by name.
pub const OPTIONS: &[OptionSpec] = &[
    option(
        "backing_file",
        OptionKind::Name,
        "File name of a base image",
    ),
    option(
        "backing_fmt",
        OptionKind::Str,
        "Image format of the base image",
    ),
    option(
        "compat",
        OptionKind::Str,
        "Compatibility level (v2 [0.10] or v3 [1.1])",
    )
    .one_of(&["0.10", "1.1", "v2", "v3"]),
    option(
        "data_file",
        OptionKind::Name,
        "File name of an external data file",
    ),
    option(
        "data_file_raw",
        OptionKind::Bool,
        "The external data file must stay valid as a raw image",
    ),
    KEYSLOTS[0],
    KEYSLOTS[1],
    KEYSLOTS[2],
    KEYSLOTS[3],
    KEYSLOTS[4],
    option(
        "lazy_refcounts",
        OptionKind::Bool,
        "Postpone refcount updates",
    ),
    option(
        "refcount_bits",
        OptionKind::Num,
        "Width of a reference count entry in bits",
    ),
    option("size", OptionKind::Size, "Virtual disk size"),
];

/// The requested state of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Amended {
    /// 2 or 3.
    pub(super) version: u32,
    /// The width of refcounts.
    pub(super) width: RefcountWidth,
    /// Refcounts may be written late.
    pub(super) lazy: bool,
    /// The new virtual size, if it changes.
    pub(super) size: Option<u64>,
    /// The new name of the data file, if it changes; an empty one removes the name.
    pub(super) data_file: Option<BString>,
    /// The data file no longer has to be valid as a raw image.
    pub(super) drop_raw: bool,
}

/// The relevant state of the image as it is.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub(super) version: u32,
    pub(super) width: RefcountWidth,
    pub(super) lazy: bool,
    pub(super) has_data_file: bool,
    pub(super) raw_data_file: bool,
    pub(super) backing_file: Option<BString>,
    pub(super) backing_format: Option<BString>,
}

impl Amended {
    /// Applies the options to the state of the image.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for invalid values, or values that contradict each other or the image.
    pub(super) fn new(values: &Values, now: &Present) -> Result<Self> {
        let version = match values.str("compat") {
            None => now.version,
            Some("0.10" | "v2") => 2,
            Some("1.1" | "v3") => 3,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "Unknown compatibility level {other}"
                )));
            }
        };
        let data_file = values.name("data_file").map(plain_name).transpose()?;
        if data_file.is_some() && !now.has_data_file {
            return Err(Error::invalid(
                "data-file can only be set for images that use an external data file",
            ));
        }
        let raw = values.bool("data_file_raw");
        if raw == Some(true) && !now.raw_data_file {
            return Err(Error::invalid(
                "data-file-raw cannot be set on existing images",
            ));
        }
        let width = new_width(values.num("refcount_bits"), version, now)?;
        let names = [
            values.name("backing_file"),
            values.str("backing_fmt").map(BStr::new),
        ];
        // Values that the image already has are no change.
        let has = [&now.backing_file, &now.backing_format]
            .map(|name| name.as_ref().map(|name| name.as_bstr()));
        if names != [None, None] && (names != has || names.contains(&None)) {
            return Err(Error::invalid("Cannot amend the backing file")
                .with_hint("A rebase changes the backing file"));
        }
        let lazy = values.bool("lazy_refcounts");
        if lazy == Some(true) && version < 3 {
            return Err(Error::invalid(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use \
                 compat=1.1 or greater)",
            ));
        }
        Ok(Self {
            version,
            width,
            lazy: lazy.unwrap_or(now.lazy && version >= 3),
            size: values.num("size"),
            data_file,
            drop_raw: raw == Some(false) && now.raw_data_file,
        })
    }
}

/// The requested refcount width.
fn new_width(bits: Option<u64>, version: u32, now: &Present) -> Result<RefcountWidth> {
    let Some(bits) = bits else {
        if version < 3 && now.width.bits() != 16 {
            return Err(Error::invalid("compat=0.10 requires refcount_bits=16"));
        }
        return Ok(now.width);
    };
    let width = RefcountWidth::from_bits(bits).ok_or_else(|| {
        Error::invalid("Refcount width must be a power of two and may not exceed 64 bits")
    })?;
    if version < 3 && bits != 16 {
        return Err(Error::invalid(
            "Refcount widths other than 16 bits require compatibility level 1.1 or above (use \
             compat=1.1 or greater)",
        ));
    }
    Ok(width)
}
