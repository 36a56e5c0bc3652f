//! Header extensions (specification: "Header extensions", "String header extensions",
//! "Feature name table", "Bitmaps extension", "Full disk encryption header pointer").

use std::ops::Range;

use bstr::BStr;

use crate::bytes::{be32, be64};
use crate::error::{Error, Result};
use crate::memory;

use super::features::{Autoclear, Compatible, Incompatible};

/// The type that ends the list.
pub(in crate::format::qcow2) const END: u32 = 0;
/// The type of the backing file format.
pub(in crate::format::qcow2) const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;
const CRYPTO: u32 = 0x0537_be77;
/// The type of the data file name.
pub(in crate::format::qcow2) const DATA_FILE: u32 = 0x4441_5441;
/// The type of padding that keeps extensions away from the header; it has no meaning for any reader.
const PADDING: u32 = 0x5061_6464;

/// Number of copies of the extensions that exist at the same time: as parsed, in use, and for a change of the header,
/// with its serialized bytes.
const COPIES: u64 = 4;
/// Length of an entry of the feature name table.
const FEATURE_NAME_LEN: usize = 48;
/// Limit for the length of a format name: it must be shorter.
const BACKING_FORMAT_LIMIT: usize = 16;
/// Maximum number of bitmaps of an image.
pub const MAX_BITMAPS: u32 = 65535;
/// Maximum size of a bitmap directory: every entry with 1 KiB.
pub const MAX_BITMAP_DIRECTORY: u64 = MAX_BITMAPS as u64 * 1024;

/// One extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The format of the backing file.
    BackingFormat(Vec<u8>),
    /// Names of feature bits, for messages.
    FeatureNames(Vec<FeatureName>),
    /// Where the bitmap directory is.
    Bitmaps(BitmapsExtension),
    /// Where the encryption header is.
    Crypto(CryptoExtension),
    /// The name of the external data file.
    DataFile(Vec<u8>),
    /// This many bytes without a meaning.
    Padding(usize),
    /// An extension unknown to this program, kept as it is.
    Unknown {
        /// Its type.
        kind: u32,
        /// Its bytes.
        data: Vec<u8>,
    },
}

/// The word that a named feature bit belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// [`Incompatible`].
    Incompatible,
    /// [`Compatible`].
    Compatible,
    /// [`Autoclear`].
    Autoclear,
    /// A word unknown to this program.
    Other(u8),
}

/// A name for a feature bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureName {
    /// The word.
    pub kind: FeatureKind,
    /// The bit in it.
    pub bit: u8,
    /// At most 46 bytes.
    pub name: Vec<u8>,
}

/// The bitmaps extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitmapsExtension {
    /// Number of bitmaps.
    pub count: u32,
    /// Length of the bitmap directory in bytes.
    pub directory_size: u64,
    /// Its offset.
    pub directory_offset: u64,
}

/// The full disk encryption header pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoExtension {
    /// Offset of the encryption header.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Extension {
    /// Number of bytes in front of an extension's data.
    pub const HEAD_LEN: usize = 8;

    /// All extensions of an area that starts after the header and ends at the backing file name or at the end of the
    /// cluster; `cluster` is the cluster size.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub fn parse_all(area: &[u8], cluster: u64) -> Result<Vec<Self>> {
        Self::parse(area, cluster, |_, error| Err(error))
    }

    /// As [`Extension::parse_all`], but without the bitmaps if they cannot be used; also returns the reason.
    ///
    /// # Errors
    /// As [`Extension::parse_all`], for other extensions.
    pub fn parse_usable(area: &[u8], cluster: u64) -> Result<(Vec<Self>, Option<Error>)> {
        let mut unusable = None;
        let found = Self::parse(area, cluster, |kind, error| match kind {
            BITMAPS => {
                unusable = Some(error);
                Ok(())
            }
            _ => Err(error),
        })?;
        Ok((found, unusable))
    }

    fn parse(
        area: &[u8],
        cluster: u64,
        mut bad: impl FnMut(u32, Error) -> Result<()>,
    ) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut at = 0usize;
        while at < area.len() {
            let too_large = || Error::corrupt("Header extension too large");
            let (Some(kind), Some(len)) = (be32(area, at), be32(area, at + 4)) else {
                return Err(too_large());
            };
            at += 8;
            let data = at
                .checked_add(len as usize)
                .and_then(|end| area.get(at..end))
                .ok_or_else(too_large)?;
            if kind == END {
                break;
            }
            match Self::from_bytes(kind, data, cluster) {
                Ok(extension) => memory::push(&mut found, extension)?,
                Err(error) => bad(kind, error)?,
            }
            at = at.saturating_add(data.len().next_multiple_of(8));
        }
        let records = found.len().saturating_mul(size_of::<Self>());
        memory::headroom(COPIES * (records as u64).saturating_add(at as u64))?;
        Ok(found)
    }

    /// Length of the list at the beginning of an area, including the mark that ends it.
    pub fn area_len(area: &[u8]) -> usize {
        let mut at = 0usize;
        while let (Some(kind), Some(len)) = (be32(area, at), be32(area, at.saturating_add(4))) {
            at = at.saturating_add(Self::HEAD_LEN);
            if kind == END {
                break;
            }
            at = at.saturating_add((len as usize).next_multiple_of(8));
        }
        at.min(area.len())
    }

    /// The range of the padding's data at the beginning of an area; empty if there is none.
    pub fn leading_padding(area: &[u8]) -> Range<usize> {
        match (be32(area, 0), be32(area, 4)) {
            (Some(PADDING), Some(len)) => {
                let end = Self::HEAD_LEN.saturating_add((len as usize).next_multiple_of(8));
                Self::HEAD_LEN..end.min(area.len())
            }
            _ => 0..0,
        }
    }

    /// Removes those that are not in effect: of each known type only the last extension is, as for QEMU, and padding
    /// never is. Those of other types are left as they are.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub fn take_superseded(all: &mut Vec<Self>) -> Result<Vec<Self>> {
        // In one pass: a hostile header has space for a quarter of a million of them.
        let last = [BACKING_FORMAT, FEATURE_NAMES, BITMAPS, CRYPTO, DATA_FILE]
            .map(|kind| (kind, all.iter().rposition(|other| other.kind() == kind)));
        let mut at = 0..;
        let is_superseded = |extension: &mut Self| {
            let at = at.next();
            matches!(extension, Self::Padding(_))
                || last
                    .iter()
                    .any(|(kind, last)| *kind == extension.kind() && *last != at)
        };
        let mut superseded = Vec::new();
        for extension in all.extract_if(.., is_superseded) {
            memory::push(&mut superseded, extension)?;
        }
        Ok(superseded)
    }

    /// Its type.
    fn kind(&self) -> u32 {
        match self {
            Self::BackingFormat(_) => BACKING_FORMAT,
            Self::FeatureNames(_) => FEATURE_NAMES,
            Self::Bitmaps(_) => BITMAPS,
            Self::Crypto(_) => CRYPTO,
            Self::DataFile(_) => DATA_FILE,
            Self::Padding(_) => PADDING,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// What it holds, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::BackingFormat(_) => "backing file format",
            Self::FeatureNames(_) => "feature names",
            Self::Bitmaps(_) => "bitmaps",
            Self::Crypto(_) => "encryption header",
            Self::DataFile(_) => "data file name",
            Self::Padding(_) => "padding",
            Self::Unknown { .. } => "unknown extension",
        }
    }

    /// The extension for the backing file's format, given its name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a name that is too long to be read again.
    pub fn backing_format(name: &BStr) -> Result<Self> {
        if name.len() >= BACKING_FORMAT_LIMIT {
            return Err(Error::invalid(format!(
                "The name of the backing file's format, '{name}', is too long: an image can record {} bytes",
                BACKING_FORMAT_LIMIT - 1
            )));
        }
        Ok(Self::BackingFormat(name.to_vec()))
    }

    /// One extension from its type and bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    fn from_bytes(kind: u32, data: &[u8], cluster: u64) -> Result<Self> {
        Ok(match kind {
            BACKING_FORMAT if data.len() >= BACKING_FORMAT_LIMIT => {
                return Err(Error::corrupt(format!(
                    "ERROR: ext_backing_format: len={} too large (>={BACKING_FORMAT_LIMIT})",
                    data.len()
                )));
            }
            BACKING_FORMAT => Self::BackingFormat(memory::to_vec(data)?),
            FEATURE_NAMES => Self::FeatureNames(
                data.chunks(FEATURE_NAME_LEN)
                    .filter_map(FeatureName::from_bytes)
                    .collect(),
            ),
            BITMAPS => Self::Bitmaps(BitmapsExtension::from_bytes(data, cluster)?),
            CRYPTO => Self::Crypto(CryptoExtension::from_bytes(data, cluster)?),
            DATA_FILE => Self::DataFile(memory::to_vec(data)?),
            PADDING => Self::Padding(data.len()),
            _ => Self::Unknown {
                kind,
                data: memory::to_vec(data)?,
            },
        })
    }

    /// Appends the extension with its type, length and padding.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let data = match self {
            Self::BackingFormat(name) | Self::DataFile(name) => name.clone(),
            Self::FeatureNames(names) => names.iter().flat_map(FeatureName::to_bytes).collect(),
            Self::Bitmaps(bitmaps) => bitmaps.to_bytes(),
            Self::Crypto(crypto) => crypto.to_bytes(),
            Self::Padding(len) => vec![0; *len],
            Self::Unknown { data, .. } => data.clone(),
        };
        out.extend_from_slice(&self.kind().to_be_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(&data);
        out.resize(out.len().next_multiple_of(8), 0);
    }

    /// Appends the mark that ends the list of extensions.
    pub fn write_end(out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; 8]);
    }

    /// The feature name table for the bits known to this program.
    pub fn known_feature_names() -> Self {
        let name = |kind, mask: u64, name: &str| FeatureName {
            kind,
            bit: mask.trailing_zeros() as u8,
            name: name.as_bytes().to_vec(),
        };
        use FeatureKind::{Autoclear as A, Compatible as C, Incompatible as I};
        Self::FeatureNames(vec![
            name(I, Incompatible::DIRTY.bits(), "dirty bit"),
            name(I, Incompatible::CORRUPT.bits(), "corrupt bit"),
            name(I, Incompatible::DATA_FILE.bits(), "external data file"),
            name(I, Incompatible::COMPRESSION.bits(), "compression type"),
            name(I, Incompatible::EXTENDED_L2.bits(), "extended L2 entries"),
            name(C, Compatible::LAZY_REFCOUNTS.bits(), "lazy refcounts"),
            name(A, Autoclear::BITMAPS.bits(), "bitmaps"),
            name(A, Autoclear::RAW_DATA_FILE.bits(), "raw external data"),
        ])
    }
}

impl FeatureName {
    /// None if even the type and the bit are missing.
    fn from_bytes(entry: &[u8]) -> Option<Self> {
        let (&[kind, bit], name) = entry.split_first_chunk::<2>()?;
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        Some(Self {
            kind: match kind {
                0 => FeatureKind::Incompatible,
                1 => FeatureKind::Compatible,
                2 => FeatureKind::Autoclear,
                n => FeatureKind::Other(n),
            },
            bit,
            name: name.to_vec(),
        })
    }

    fn to_bytes(&self) -> [u8; FEATURE_NAME_LEN] {
        let mut entry = [0; FEATURE_NAME_LEN];
        entry[0] = match self.kind {
            FeatureKind::Incompatible => 0,
            FeatureKind::Compatible => 1,
            FeatureKind::Autoclear => 2,
            FeatureKind::Other(n) => n,
        };
        entry[1] = self.bit;
        for (to, from) in entry[2..].iter_mut().zip(&self.name) {
            *to = *from;
        }
        entry
    }
}

impl BitmapsExtension {
    fn from_bytes(data: &[u8], cluster: u64) -> Result<Self> {
        let (Some(count), Some(reserved), Some(directory_size), Some(directory_offset), 24) = (
            be32(data, 0),
            be32(data, 4),
            be64(data, 8),
            be64(data, 16),
            data.len(),
        ) else {
            return Err(Error::corrupt("bitmaps_ext: Invalid extension length"));
        };
        if reserved != 0 {
            return Err(Error::corrupt("bitmaps_ext: Reserved field is not zero"));
        }
        if count > MAX_BITMAPS {
            return Err(Error::corrupt(format!(
                "bitmaps_ext: Image has {count} bitmaps, exceeding the QEMU supported maximum of \
                 {MAX_BITMAPS}"
            )));
        }
        if count == 0 {
            return Err(Error::corrupt("found bitmaps extension with zero bitmaps"));
        }
        if !directory_offset.is_multiple_of(cluster) {
            return Err(Error::corrupt(
                "bitmaps_ext: invalid bitmap directory offset",
            ));
        }
        if directory_size > MAX_BITMAP_DIRECTORY {
            return Err(Error::corrupt(format!(
                "bitmaps_ext: bitmap directory size ({directory_size}) exceeds the maximum \
                 supported size ({MAX_BITMAP_DIRECTORY})"
            )));
        }
        Ok(Self {
            count,
            directory_size,
            directory_offset,
        })
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.directory_size.to_be_bytes());
        out.extend_from_slice(&self.directory_offset.to_be_bytes());
        out
    }
}

impl CryptoExtension {
    fn from_bytes(data: &[u8], cluster: u64) -> Result<Self> {
        let (Some(offset), Some(len), 16) = (be64(data, 0), be64(data, 8), data.len()) else {
            return Err(Error::corrupt(format!(
                "CRYPTO header extension size {}, but expected size 16",
                data.len()
            )));
        };
        if !offset.is_multiple_of(cluster) {
            return Err(Error::corrupt(format!(
                "Encryption header offset '{offset}' is not a multiple of cluster size '{cluster}'"
            )));
        }
        Ok(Self { offset, len })
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Vec<Extension>> {
        Extension::parse_all(bytes, 65536)
    }

    #[test]
    fn all_kinds_round_trip_in_order() {
        let all = vec![
            Extension::Unknown {
                kind: 0x1234_5678,
                data: vec![9; 5],
            },
            Extension::BackingFormat(b"qcow2".to_vec()),
            Extension::known_feature_names(),
            Extension::Bitmaps(BitmapsExtension {
                count: 2,
                directory_size: 96,
                directory_offset: 0x50000,
            }),
            Extension::Crypto(CryptoExtension {
                offset: 0x60000,
                len: 77,
            }),
            Extension::DataFile(b"data.raw".to_vec()),
        ];
        let mut bytes = Vec::new();
        for extension in &all {
            extension.write_to(&mut bytes);
        }
        assert_eq!(parse(&bytes).unwrap(), all);
        Extension::write_end(&mut bytes);
        bytes.extend_from_slice(&[7; 40]);
        assert_eq!(parse(&bytes).unwrap(), all);
    }

    #[test]
    fn of_a_known_type_the_last_counts_and_others_stay() {
        let format = |name: &[u8]| Extension::BackingFormat(name.to_vec());
        let other = |data: u8| Extension::Unknown {
            kind: 9,
            data: vec![data],
        };
        let data_file = Extension::DataFile(b"d".to_vec());
        let mut all = vec![
            format(b"raw"),
            other(1),
            format(b"qed"),
            data_file.clone(),
            format(b"qcow2"),
            other(2),
        ];
        let superseded = Extension::take_superseded(&mut all).unwrap();
        assert_eq!(superseded, [format(b"raw"), format(b"qed")]);
        assert_eq!(all, [other(1), data_file, format(b"qcow2"), other(2)]);
    }

    #[test]
    fn damage_has_one_line_each() {
        let text = |kind: u32, data: &[u8]| {
            let mut bytes = Vec::new();
            Extension::Unknown {
                kind,
                data: data.to_vec(),
            }
            .write_to(&mut bytes);
            parse(&bytes).unwrap_err().to_string()
        };
        assert_eq!(
            text(BACKING_FORMAT, &[b'r'; 16]),
            "ERROR: ext_backing_format: len=16 too large (>=16)"
        );
        assert_eq!(
            text(BITMAPS, &[0; 4]),
            "bitmaps_ext: Invalid extension length"
        );
        assert_eq!(
            text(BITMAPS, &[0; 24]),
            "found bitmaps extension with zero bitmaps"
        );
        assert_eq!(
            text(CRYPTO, &[0; 1]),
            "CRYPTO header extension size 1, but expected size 16"
        );
        assert_eq!(
            parse(&[1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff])
                .unwrap_err()
                .to_string(),
            "Header extension too large"
        );
        assert_eq!(
            parse(&[1, 2, 3]).unwrap_err().to_string(),
            "Header extension too large"
        );
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0usize..7) {
            let kinds = [END, BACKING_FORMAT, FEATURE_NAMES, BITMAPS, CRYPTO, DATA_FILE, 1];
            if bytes.len() >= 8 {
                let len = (bytes.len() - 8) as u32;
                bytes[..4].copy_from_slice(&kinds[kind].to_be_bytes());
                bytes[4..8].copy_from_slice(&len.to_be_bytes());
            }
            let _ = parse(&bytes);
        }
    }
}
