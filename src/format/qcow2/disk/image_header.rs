//! The header cluster as a whole: header, extensions, backing file name.

use std::borrow::Cow;
use std::ops::Range;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::memory;
use crate::storage::Storage;

use super::extension::{BitmapsExtension, CryptoExtension, Extension, FeatureKind};
use super::features::{Autoclear, Incompatible};
use super::header::{CryptMethod, Header};

/// Maximum length of a backing file name, in bytes.
const MAX_BACKING_NAME: u64 = 1023;

/// Everything that the first cluster holds (specification: "Header" and "Header extensions").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// The fixed part.
    pub header: Header,
    /// The extensions, in file order.
    pub extensions: Vec<Extension>,
    /// Extensions of the file that are not in effect: padding, or those followed by one of the same type. They are
    /// dropped when the header cluster is rewritten.
    pub superseded: Vec<Extension>,
    /// Why an extension of the file was left out, if a repair has to remove it.
    pub unusable: Option<String>,
    /// The backing file name; need not be valid UTF-8.
    pub backing_file: Option<Vec<u8>>,
}

impl ImageHeader {
    /// Reads the header cluster of an image and checks that its features are known.
    /// [`Header::validate`] is left to the caller.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`], [`ErrorKind::Unsupported`], [`ErrorKind::Corrupt`], or if I/O fails.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let (head, len) = Self::read_head(storage)?;
        Self::parse(&head, len, false)
    }

    /// As [`ImageHeader::read`], for a repair: leaves out the bitmaps if nothing can use them.
    ///
    /// # Errors
    /// As [`ImageHeader::read`].
    pub fn read_for_repair(storage: &dyn Storage) -> Result<Self> {
        let (head, len) = Self::read_head(storage)?;
        Self::parse(&head, len, true)
    }

    /// The first cluster, and the length of the file.
    fn read_head(storage: &dyn Storage) -> Result<(Vec<u8>, u64)> {
        let len = storage.len()?;
        let mut head = vec![0; len.min(4096) as usize];
        read(storage, &mut head)?;
        let bits = Header::version_of(&head)
            .ok()
            .and_then(|_| crate::bytes::be32(&head, 20))
            .filter(|bits| (9..=21).contains(bits));
        if let Some(bits) = bits {
            let want = len.min(1 << bits) as usize;
            if want > head.len() {
                memory::resize(&mut head, want, 0)?;
                read(storage, &mut head)?;
            }
        }
        Ok((head, len))
    }

    /// Parses the bytes of the first cluster (fewer only if the file is shorter); `file_len` is the length of the file.
    ///
    /// # Errors
    /// As [`ImageHeader::read`].
    pub fn from_bytes(head: &[u8], file_len: u64) -> Result<Self> {
        Self::parse(head, file_len, false)
    }

    fn parse(head: &[u8], file_len: u64, for_repair: bool) -> Result<Self> {
        let header = Header::from_bytes(head)?;
        let cluster = 1u64 << header.cluster_bits;
        if header.backing_offset > cluster {
            return Err(Error::corrupt("Invalid backing file offset").with_offset(8));
        }
        let area = Self::extension_area(&header, head, cluster, file_len)?;
        let (mut extensions, unusable) = if for_repair {
            let (found, unusable) = Extension::parse_usable(&area, cluster)?;
            (Ok(found), unusable.map(|error| error.to_string()))
        } else {
            (Extension::parse_all(&area, cluster), None)
        };
        let superseded = match &mut extensions {
            Ok(extensions) => Extension::take_superseded(extensions)?,
            Err(_) => Vec::new(),
        };
        check_features(&header, extensions.as_deref().unwrap_or_default())?;
        let extensions = extensions?;
        let image = Self {
            backing_file: backing_name(&header, head)?,
            header,
            extensions,
            superseded,
            unusable,
        };
        image.check_crypto()?;
        Ok(image)
    }

    /// The bytes that hold extensions.
    fn extension_area<'a>(
        header: &Header,
        head: &'a [u8],
        cluster: u64,
        file_len: u64,
    ) -> Result<Cow<'a, [u8]>> {
        let end = match header.backing_offset {
            0 => cluster,
            offset => offset,
        };
        let have = (head.len() as u64).min(end) as usize;
        let area = head
            .get(header.header_len as usize..have)
            .unwrap_or_default();
        if (head.len() as u64) < end && file_len < end {
            // A file that ends within its first cluster reads as zeroes from there: the end of the extensions.
            let mut area = memory::collect(area.iter().copied())?;
            let len = area.len().saturating_add(8);
            memory::resize(&mut area, len, 0)?;
            return Ok(Cow::Owned(area));
        }
        Ok(Cow::Borrowed(area))
    }

    /// The bytes at the beginning of the header cluster: header, extensions, backing file name. Sets `header_len` and
    /// the position of the name, and drops superseded extensions.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if they do not fit into one cluster.
    pub fn to_bytes(&mut self) -> Result<Vec<u8>> {
        self.superseded.clear();
        let (mut out, name) = self.serialize(None)?;
        out.extend_from_slice(&name);
        Ok(out)
    }

    /// The bytes of header and extensions, and those of the name, which is placed at `name_at` or directly behind them.
    ///
    /// # Errors
    /// As [`ImageHeader::to_bytes`].
    pub(super) fn serialize(&mut self, name_at: Option<usize>) -> Result<(Vec<u8>, Vec<u8>)> {
        self.unusable = None;
        self.header.backing_offset = 0;
        self.header.backing_len = 0;
        let mut out = self.header.to_bytes();
        for extension in self.superseded.iter().chain(&self.extensions) {
            extension.write_to(&mut out);
        }
        Extension::write_end(&mut out);
        let name = self.backing_file.clone().unwrap_or_default();
        let at = name_at.unwrap_or(out.len());
        if self.backing_file.is_some() {
            self.header.backing_offset = at as u64;
            self.header.backing_len = name.len() as u32;
            let fixed = self.header.to_bytes();
            for (to, from) in out.iter_mut().zip(&fixed) {
                *to = *from;
            }
        }
        let end = at.saturating_add(name.len()) as u64;
        if at < out.len() || end > 1 << self.header.cluster_bits {
            return Err(Error::new(
                ErrorKind::Limit,
                "The image header does not fit into one cluster; use a shorter backing file name \
                 or larger clusters",
            )
            .with_errno(libc::ENOSPC));
        }
        Ok((out, name))
    }

    /// Where the backing file name is in the file; empty if there is none.
    pub fn name_range(&self) -> Range<usize> {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let start = self.header.backing_offset;
        let end = start.saturating_add(u64::from(self.header.backing_len));
        place(start)..place(end)
    }

    /// The format recorded for the backing file; None if the name is empty.
    pub fn backing_format(&self) -> Option<BString> {
        let recorded = self.extensions.iter().find_map(|e| match e {
            Extension::BackingFormat(name) => Some(text_of(name)),
            _ => None,
        });
        recorded.filter(|name| !name.is_empty())
    }

    /// The external data file name, as recorded.
    pub fn data_file_name(&self) -> Option<BString> {
        self.extensions.iter().find_map(|e| match e {
            Extension::DataFile(name) => Some(text_of(name)),
            _ => None,
        })
    }

    /// Whether guest data is in an external data file.
    pub fn has_data_file(&self) -> bool {
        self.header.incompatible.contains(Incompatible::DATA_FILE)
    }

    /// The bitmaps extension, consistent or not.
    pub fn bitmaps(&self) -> Option<BitmapsExtension> {
        self.extensions.iter().find_map(|e| match e {
            Extension::Bitmaps(bitmaps) => Some(*bitmaps),
            _ => None,
        })
    }

    /// The bitmaps extension, if the autoclear bit says that it is consistent.
    pub fn consistent_bitmaps(&self) -> Option<BitmapsExtension> {
        self.bitmaps()
            .filter(|_| self.header.autoclear.contains(Autoclear::BITMAPS))
    }

    /// Where the encryption header is.
    pub fn crypto(&self) -> Option<CryptoExtension> {
        self.extensions.iter().find_map(|e| match e {
            Extension::Crypto(crypto) => Some(*crypto),
            _ => None,
        })
    }

    fn check_crypto(&self) -> Result<()> {
        match (self.header.crypt, self.crypto()) {
            (CryptMethod::Luks, None) => {
                Err(Error::corrupt("Missing CRYPTO header for crypt method 2"))
            }
            (CryptMethod::None | CryptMethod::Aes, Some(_)) => Err(Error::corrupt(
                "CRYPTO header extension only expected with LUKS encryption method",
            )),
            _ => Ok(()),
        }
    }
}

fn read(storage: &dyn Storage, head: &mut [u8]) -> Result<()> {
    storage
        .read_at(head, 0)
        .context(|| "Could not read qcow2 header".to_owned())
}

/// Text ends at a NUL, as for any program that reads it as a C string.
fn text_of(bytes: &[u8]) -> BString {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default().into()
}

fn backing_name(header: &Header, head: &[u8]) -> Result<Option<Vec<u8>>> {
    if header.backing_offset == 0 {
        return Ok(None);
    }
    let cluster = 1u64 << header.cluster_bits;
    let len = u64::from(header.backing_len);
    if len > MAX_BACKING_NAME.min(cluster.saturating_sub(header.backing_offset)) {
        return Err(Error::corrupt("Backing file name too long").with_offset(16));
    }
    let start = header.backing_offset as usize;
    let mut name = head
        .get(start..)
        .map(|rest| rest.get(..len as usize).unwrap_or(rest).to_vec())
        .unwrap_or_default();
    // The name ends at a NUL, as for any program that reads it as a C string.
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    name.truncate(end);
    Ok((!name.is_empty()).then_some(name))
}

/// Refuses incompatible bits unknown to this program, by name if the image has one.
fn check_features(header: &Header, extensions: &[Extension]) -> Result<()> {
    let mut unknown = (header.incompatible - Incompatible::KNOWN).bits();
    if unknown == 0 {
        return Ok(());
    }
    let names = extensions.iter().find_map(|e| match e {
        Extension::FeatureNames(names) => Some(names),
        _ => None,
    });
    let mut list = Vec::new();
    for name in names.into_iter().flatten() {
        let mask = 1u64.checked_shl(u32::from(name.bit)).unwrap_or(0);
        if name.kind == FeatureKind::Incompatible && unknown & mask != 0 {
            list.push(String::from_utf8_lossy(&name.name).into_owned());
            unknown &= !mask;
        }
    }
    if unknown != 0 {
        list.push(format!("Unknown incompatible feature: {unknown:x}"));
    }
    Err(
        Error::unsupported(format!("Unsupported qcow2 feature(s): {}", list.join(", ")))
            .with_offset(72),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> ImageHeader {
        let mut bytes = vec![0u8; 112];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        bytes[23] = 16;
        bytes[99] = 4;
        bytes[103] = 112;
        ImageHeader::from_bytes(&bytes, 112).unwrap()
    }

    #[test]
    fn name_and_extensions_round_trip() {
        let mut image = sample();
        image.backing_file = Some(b"base \xff.qcow2".to_vec());
        image.extensions = vec![
            Extension::BackingFormat(b"qcow2".to_vec()),
            Extension::Unknown {
                kind: 77,
                data: vec![1, 2, 3],
            },
            Extension::known_feature_names(),
        ];
        let mut bytes = image.to_bytes().unwrap();
        bytes.resize(65536, 0);
        let back = ImageHeader::from_bytes(&bytes, 65536).unwrap();
        assert_eq!(back, image);
        assert_eq!(back.backing_format(), Some("qcow2".into()));
    }

    #[test]
    fn a_long_name_does_not_fit_into_a_small_cluster() {
        let mut image = sample();
        image.header.cluster_bits = 9;
        image.backing_file = Some(vec![b'x'; 400]);
        assert_eq!(image.to_bytes().unwrap_err().kind(), ErrorKind::Limit);
    }

    #[test]
    fn unknown_features_are_named() {
        let mut image = sample();
        image.header.incompatible = Incompatible::from_bits_retain(0x61);
        image.extensions = vec![Extension::FeatureNames(vec![super::super::FeatureName {
            kind: FeatureKind::Incompatible,
            bit: 5,
            name: b"my feature".to_vec(),
        }])];
        let mut bytes = image.to_bytes().unwrap();
        bytes.resize(65536, 0);
        assert_eq!(
            ImageHeader::from_bytes(&bytes, 65536)
                .unwrap_err()
                .to_string(),
            "Unsupported qcow2 feature(s): my feature, Unknown incompatible feature: 40"
        );
    }

    #[test]
    fn backing_names_out_of_range_are_refused() {
        let mut image = sample();
        image.backing_file = Some(b"base".to_vec());
        let mut good = image.to_bytes().unwrap();
        good.resize(65536, 0);
        for (offset, len, text) in [
            (0x300u64, 1024u32, "Backing file name too long"),
            (65530, 10, "Backing file name too long"),
            (0x70000, 5, "Invalid backing file offset"),
            (1 << 63, 5, "Invalid backing file offset"),
        ] {
            let mut bad = good.clone();
            bad[8..16].copy_from_slice(&offset.to_be_bytes());
            bad[16..20].copy_from_slice(&len.to_be_bytes());
            let error = ImageHeader::from_bytes(&bad, 65536).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..700), file_len: u64) {
            if bytes.len() >= 112 {
                bytes[..24].copy_from_slice(&sample().to_bytes().unwrap()[..24]);
                let backing = u64::from(bytes[15]).to_be_bytes();
                bytes[8..16].copy_from_slice(&backing);
                bytes[72..80].fill(0);
                bytes[96..112].copy_from_slice(&sample().to_bytes().unwrap()[96..112]);
            }
            let _ = ImageHeader::from_bytes(&bytes, file_len);
        }
    }
}
