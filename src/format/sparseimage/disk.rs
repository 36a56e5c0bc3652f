//! The nodes of a sparse image: a header, and further nodes if there are more bands than fit in it.

use crate::bytes::{be32, be64};
use crate::error::{Error, ErrorKind, Result};
use crate::size::SECTOR;

/// Bytes per node; the bands that it lists follow it.
pub(super) const NODE_LEN: u64 = 4096;

/// The magic at the beginning of each node.
pub(super) const MAGIC: &[u8; 4] = b"sprs";

/// Offsets of the band numbers in the header, and in a further node.
const HEADER_BANDS: usize = 64;
const NODE_BANDS: usize = 56;

/// The only known version.
const VERSION: u32 = 3;

/// The description of the disk in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Guest bytes per band.
    pub(super) band: u64,
    /// The virtual size in bytes.
    pub(super) len: u64,
}

/// A node, and the bands after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    /// The offset of the next node; 0 if there is none.
    pub(super) next: u64,
    bands: &'a [u8],
}

impl Header {
    /// Parses the first node.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`], [`ErrorKind::Unsupported`] or [`ErrorKind::Corrupt`].
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let word = |at| be32(bytes, at).unwrap_or_default();
        if !bytes.starts_with(MAGIC) {
            return Err(Error::new(
                ErrorKind::NotAnImage,
                "Image not in sparseimage format",
            ));
        }
        if word(4) != VERSION {
            return Err(Error::unsupported(format!(
                "The sparse image is of version {}, which is not known",
                word(4)
            )));
        }
        let (per_band, low) = (word(8), word(16));
        // The later field has the full number, if it is set.
        let sectors = match be64(bytes, 28).unwrap_or_default() {
            0 => u64::from(low),
            sectors if sectors as u32 == low => sectors,
            sectors => {
                let why = format!("The disk has {sectors} sectors, and {low} by another field");
                return Err(Error::corrupt(why).with_offset(28));
            }
        };
        let len = sectors.checked_mul(SECTOR);
        match len.filter(|len| *len <= i64::MAX as u64) {
            Some(len) if per_band > 0 => Ok(Self {
                band: u64::from(per_band) * SECTOR,
                len,
            }),
            Some(_) => Err(Error::corrupt("The bands of the image have no sectors").with_offset(8)),
            None => Err(Error::corrupt("The disk is too large").with_offset(28)),
        }
    }

    /// Guest bytes of one band; the last one may be shorter.
    pub(super) fn band_len(&self, band: u64) -> u64 {
        let start = band.saturating_mul(self.band);
        self.band.min(self.len.saturating_sub(start))
    }

    /// Number of bands of the disk.
    pub(super) fn bands(&self) -> u64 {
        self.len.div_ceil(self.band)
    }
}

impl<'a> Node<'a> {
    /// Parses a node; `number` is its index, that of the header being 0.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`].
    pub(super) fn from_bytes(bytes: &'a [u8], number: u32) -> Result<Self> {
        let (next, bands) = match number {
            0 => (20, HEADER_BANDS),
            _ => (12, NODE_BANDS),
        };
        if !bytes.starts_with(MAGIC) || number > 0 && be32(bytes, 4) != Some(number) {
            return Err(Error::corrupt(format!(
                "Node {number} of the image is damaged"
            )));
        }
        Ok(Self {
            next: be64(bytes, next).unwrap_or_default(),
            bands: bytes.get(bands..).unwrap_or_default(),
        })
    }

    /// The index of each slot after the node that contains a band, with the number of that band on the disk.
    pub(super) fn held(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let words = self.bands.chunks_exact(4);
        let numbers = words.map(|word| be32(word, 0).unwrap_or_default());
        let places = (0_u64..).zip(numbers);
        places.filter_map(|(place, number)| Some((place, u64::from(number).checked_sub(1)?)))
    }
}
