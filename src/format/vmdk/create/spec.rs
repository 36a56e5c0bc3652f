//! The options of a new image.

use bstr::{BStr, BString, ByteSlice};

use crate::codec::{Compression, Method};
use crate::error::{Error, Result};
use crate::format::driver::{file_preallocation, outlined_preallocation};
use crate::format::{CreateParams, Outline};
use crate::options::{COMPRESSION_LEVEL, OptionKind, OptionSpec, Values, option};
use crate::printable::printable;
use crate::size::SECTOR;
use crate::storage::Preallocation;

use super::super::NAME;
use super::super::disk::ExtentType;
use super::layout::SparseLayout;

/// Sectors per part of a disk that is split into parts of 2 GiB.
const PART: u64 = (2 << 30) / SECTOR;

/// Maximum number of parts, because slots are numbered.
const MAX_PARTS: u64 = 65_000;

/// Options of `create`.
pub(in super::super) const OPTIONS: &[OptionSpec] = &[
    option(
        "adapter_type",
        OptionKind::Str,
        "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
    ),
    option(
        "backing_file",
        OptionKind::Name,
        "File name of a base image",
    ),
    option("backing_fmt", OptionKind::Str, "Must be 'vmdk' if present"),
    option("compat6", OptionKind::Bool, "VMDK version 6 image"),
    option(
        COMPRESSION_LEVEL,
        OptionKind::Num,
        "How hard streamOptimized compresses: 1 to 12 (default 5)",
    ),
    option("hwversion", OptionKind::Str, "VMDK hardware version"),
    option("size", OptionKind::Size, "Virtual disk size"),
    option(
        "subformat",
        OptionKind::Str,
        "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | \
         twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
    ),
    option(
        "toolsversion",
        OptionKind::Str,
        "VMware guest tools version",
    ),
    option(
        "zeroed_grain",
        OptionKind::Bool,
        "Enable efficient zero writes using the zeroed-grain GTE feature",
    ),
];

/// Keys of the "Formatting" line.
pub(in super::super) const SUMMARY: &[(&str, Option<&str>)] = &[
    ("size", None),
    ("adapter_type", None),
    ("backing_file", None),
    ("backing_fmt", None),
    ("compat6", Some("off")),
    ("hwversion", Some("undefined")),
    ("toolsversion", None),
    ("subformat", None),
    ("zeroed_grain", None),
    (COMPRESSION_LEVEL, None),
];

/// How a disk is stored in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subformat {
    MonolithicSparse,
    MonolithicFlat,
    TwoGbSparse,
    TwoGbFlat,
    StreamOptimized,
    /// As in a datastore of ESX.
    Vmfs,
}

impl Subformat {
    const ALL: [Self; 6] = [
        Self::MonolithicSparse,
        Self::MonolithicFlat,
        Self::TwoGbSparse,
        Self::TwoGbFlat,
        Self::StreamOptimized,
        Self::Vmfs,
    ];

    /// Its name in the descriptor.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MonolithicSparse => "monolithicSparse",
            Self::MonolithicFlat => "monolithicFlat",
            Self::TwoGbSparse => "twoGbMaxExtentSparse",
            Self::TwoGbFlat => "twoGbMaxExtentFlat",
            Self::StreamOptimized => "streamOptimized",
            Self::Vmfs => "vmfs",
        }
    }

    fn of(values: &Values) -> Result<Self> {
        let Some(name) = values.str("subformat") else {
            return Ok(Self::MonolithicSparse);
        };
        let mut all = Self::ALL.into_iter();
        all.find(|known| known.name() == name)
            .ok_or_else(|| unknown(name))
    }

    /// Whether files hold the raw guest bytes.
    pub(super) fn is_flat(self) -> bool {
        matches!(self, Self::MonolithicFlat | Self::TwoGbFlat | Self::Vmfs)
    }

    /// Whether the descriptor is inside the only extent.
    pub(super) fn is_one_file(self) -> bool {
        matches!(self, Self::MonolithicSparse | Self::StreamOptimized)
    }

    /// Whether it is meant for VMware's products: hosts that import it, or a datastore.
    pub(super) fn is_of_vmware(self) -> bool {
        matches!(self, Self::StreamOptimized | Self::Vmfs)
    }

    /// The type of its extents in the descriptor.
    pub(super) fn extent_type(self) -> ExtentType {
        match self {
            Self::MonolithicFlat | Self::TwoGbFlat => ExtentType::Flat,
            Self::Vmfs => ExtentType::Vmfs,
            Self::MonolithicSparse | Self::TwoGbSparse | Self::StreamOptimized => {
                ExtentType::Sparse
            }
        }
    }

    /// What precedes the extension in the name of part `n`, counted from 1.
    fn suffix(self, n: u64) -> String {
        match self {
            Self::TwoGbSparse => format!("-s{n:03}"),
            Self::TwoGbFlat => format!("-f{n:03}"),
            _ => "-flat".to_owned(),
        }
    }
}

/// The specification of a new image.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// For the grains of a stream.
    pub(super) compression: Compression,
    pub(super) subformat: Subformat,
    /// Size of the disk in sectors.
    pub(super) sectors: u64,
    pub(super) adapter: String,
    pub(super) hardware: String,
    pub(super) tools: String,
    pub(super) zeroed: bool,
    pub(super) preallocation: Preallocation,
    pub(super) parent: Option<BString>,
    /// The name of the image's own file, and of the directory before it.
    pub(super) name: BString,
    pub(super) directory: BString,
}

impl Spec {
    /// Checks the options.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`], [`crate::ErrorKind::Unsupported`] or [`crate::ErrorKind::Limit`].
    pub(super) fn new(params: &CreateParams<'_>) -> Result<Self> {
        let values = params.values;
        let subformat = Subformat::of(values)?;
        let adapter = values.str("adapter_type").unwrap_or("ide");
        if !["ide", "buslogic", "lsilogic", "legacyESX"].contains(&adapter) {
            return Err(unknown(adapter));
        }
        let compat6 = values.bool("compat6").unwrap_or(false);
        let hardware = values
            .str("hwversion")
            .filter(|version| *version != "undefined");
        let hardware = match (compat6, hardware) {
            (true, Some(_)) => {
                return Err(Error::invalid(
                    "compat6 cannot be enabled with hwversion set",
                ));
            }
            (true, None) => "6",
            (false, version) => version.unwrap_or("4"),
        };
        let zeroed = values.bool("zeroed_grain").unwrap_or(false);
        if subformat.is_flat() && params.backing.is_some() {
            return Err(Error::invalid("Flat image can't have backing file"));
        }
        if subformat.is_flat() && zeroed {
            return Err(Error::invalid("Flat image can't enable zeroed grain"));
        }
        let of_vmdk = |format: &BString| *format == NAME;
        if params
            .backing
            .is_some_and(|backing| !backing.format.as_ref().is_some_and(of_vmdk))
        {
            return Err(Error::invalid("backing_file must be a vmdk image"));
        }
        let mut preallocation = file_preallocation(values)?;
        if preallocation != Preallocation::Off && subformat == Subformat::StreamOptimized {
            return Err(Error::unsupported(
                "Compressed grains have no place before they are written: nothing can be preallocated",
            ));
        }
        if params.backing.is_some() {
            // A grain that has a place hides that of the parent.
            preallocation = Preallocation::Off;
        }
        let level = values.num(COMPRESSION_LEVEL).map(u64::cast_signed);
        if level.is_some() && subformat != Subformat::StreamOptimized {
            return Err(Error::invalid(
                "Only the subformat streamOptimized compresses: no other has a compression level",
            ));
        }
        let (directory, name) = split_name(params.name);
        let spec = Self {
            subformat,
            compression: Compression::at_level(Method::Zlib, level)?,
            sectors: params.size / SECTOR,
            adapter: adapter.to_owned(),
            hardware: hardware.to_owned(),
            tools: values
                .str("toolsversion")
                .unwrap_or("2147483647")
                .to_owned(),
            zeroed,
            preallocation,
            parent: params.backing.map(|backing| backing.name.clone()),
            name,
            directory,
        };
        spec.check_size()?;
        Ok(spec)
    }

    fn check_size(&self) -> Result<()> {
        let too_large = || Error::size_too_large_for(NAME).with_errno(libc::EFBIG);
        if self.parts().len() as u64 > MAX_PARTS {
            return Err(too_large());
        }
        if self.subformat.is_flat() {
            return Ok(());
        }
        for sectors in self.parts() {
            let layout = self.layout(sectors).ok_or_else(too_large)?;
            let all = layout.overhead.checked_add(sectors);
            let all = all.filter(|all| *all <= u64::from(u32::MAX));
            if self.preallocation != Preallocation::Off && all.is_none() {
                return Err(too_large());
            }
        }
        Ok(())
    }

    /// The layout of a sparse part of this many sectors.
    pub(super) fn layout(&self, sectors: u64) -> Option<SparseLayout> {
        SparseLayout::new(
            sectors,
            self.subformat.is_one_file(),
            self.subformat != Subformat::StreamOptimized,
        )
    }

    /// The number of sectors of each part.
    pub(super) fn parts(&self) -> Vec<u64> {
        match self.subformat {
            Subformat::TwoGbSparse | Subformat::TwoGbFlat => {
                let count = self.sectors.div_ceil(PART).clamp(1, MAX_PARTS + 1);
                (0..count)
                    .map(|n| self.sectors.saturating_sub(n * PART).min(PART))
                    .collect()
            }
            _ => vec![self.sectors],
        }
    }

    /// The name of part `n` in the descriptor.
    pub(super) fn part_name(&self, n: usize) -> BString {
        if self.subformat.is_one_file() {
            return self.name.clone();
        }
        let suffix = self.subformat.suffix(n as u64 + 1);
        let (stem, extension) = match self.name.rfind_byte(b'.') {
            Some(dot) => self.name.split_at(dot),
            None => (&self.name[..], &[][..]),
        };
        let mut name = BString::from(stem);
        name.extend_from_slice(suffix.as_bytes());
        name.extend_from_slice(extension);
        name
    }

    /// Cylinders, heads and sectors, depending on the adapter.
    pub(super) fn geometry(&self) -> (u64, u32, u32) {
        let heads: u32 = if self.adapter == "ide" { 16 } else { 255 };
        (self.sectors / (63 * u64::from(heads)), heads, 63)
    }
}

fn unknown(value: &str) -> Error {
    Error::invalid_value(printable(value))
}

/// The directory, including its slash, and the name in it.
fn split_name(path: Option<&BStr>) -> (BString, BString) {
    let Some(path) = path else {
        return (BString::default(), "disk.vmdk".into());
    };
    let at = path.rfind_byte(b'/').map_or(0, |slash| slash + 1);
    let (directory, name) = path.split_at(at);
    (directory.into(), name.into())
}

/// See [`crate::format::FormatDriver::outline`].
pub(in super::super) fn outline(values: &Values) -> Outline {
    let subformat = Subformat::of(values);
    let stream = subformat
        .as_ref()
        .is_ok_and(|kind| *kind == Subformat::StreamOptimized);
    Outline {
        never_compressed: subformat.is_ok_and(Subformat::is_flat),
        preallocation: match values.name("backing_file") {
            Some(_) => Preallocation::Off,
            None => outlined_preallocation(values),
        },
        always_compressed: stream,
        in_order: stream,
        records_parent: true,
        ..Outline::default()
    }
}
