//! The header, and the tables that follow from it ("File header – version 1" of libqcow's documentation).

use std::ops::Range;

use crate::bytes::{be32, be64, put};
use crate::error::{Error, ErrorKind, Result};
use crate::size::SECTOR;

/// The first bytes of a file, including the version.
pub(in crate::format::qcow) const MAGIC: &[u8; 8] = b"QFI\xfb\0\0\0\x01";

/// Length of the header in bytes.
pub(in crate::format::qcow) const HEADER_LEN: usize = 48;

/// Maximum length of the name of a backing file that QEMU's tools read.
pub(in crate::format::qcow) const MAX_NAME: usize = 1023;

/// Maximum number of lower tables: the upper one is smaller than 2 GiB, as in QEMU's tools.
pub(in crate::format::qcow) const fn most_tables() -> u64 {
    (i32::MAX as u64) / 8
}

/// How guest data is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::qcow) enum Crypt {
    None,
    /// AES-128-CBC with the passphrase.
    Aes,
}

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::format::qcow) struct Header {
    /// Offset of the name of the backing file; 0 if there is none.
    pub(in crate::format::qcow) name_offset: u64,
    pub(in crate::format::qcow) name_len: u32,
    /// When the backing file was last changed; QEMU's tools write 0.
    pub(in crate::format::qcow) mtime: u32,
    /// The virtual size; a partial sector at its end does not count.
    pub(in crate::format::qcow) size: u64,
    pub(in crate::format::qcow) cluster_bits: u8,
    /// Entries per lower table: `1 << l2_bits`.
    pub(in crate::format::qcow) l2_bits: u8,
    pub(in crate::format::qcow) crypt: Crypt,
    /// Offset of the upper table.
    pub(in crate::format::qcow) l1_offset: u64,
}

impl Header {
    /// Decodes the header; what a short file lacks counts as zeroes.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`] if it is none, [`crate::ErrorKind::Unsupported`] for another version,
    /// [`crate::ErrorKind::Corrupt`] for numbers that mean nothing; in QEMU's words.
    pub(in crate::format::qcow) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut head = [0; HEADER_LEN];
        for (to, from) in head.iter_mut().zip(bytes) {
            *to = *from;
        }
        let number = |at| be32(&head, at).unwrap_or(0);
        let long = |at| be64(&head, at).unwrap_or(0);
        if !head.starts_with(MAGIC.first_chunk::<4>().unwrap_or(&[0; 4])) {
            return Err(Error::new(
                ErrorKind::NotAnImage,
                "Image not in qcow format",
            ));
        }
        match number(4) {
            1 => {}
            version @ (2 | 3) => {
                return Err(Error::unsupported(format!(
                    "qcow (v1) does not support qcow version {version}"
                ))
                .with_hint("Try the 'qcow2' driver instead."));
            }
            version => {
                return Err(Error::unsupported(format!(
                    "qcow (v1) does not support qcow version {version}"
                )));
            }
        }
        let [cluster_bits, l2_bits] = [32, 33].map(|at: usize| head.get(at).copied().unwrap_or(0));
        let crypt = match number(36) {
            0 => Crypt::None,
            1 => Crypt::Aes,
            _ => {
                return Err(Error::unsupported(
                    "invalid encryption method in qcow header",
                ));
            }
        };
        let header = Self {
            name_offset: long(8),
            name_len: number(16),
            mtime: number(20),
            size: long(24),
            cluster_bits,
            l2_bits,
            crypt,
            l1_offset: long(40),
        };
        header.check()?;
        Ok(header)
    }

    /// Checks that the fields are consistent with each other.
    fn check(&self) -> Result<()> {
        let bad = |text: &str| Err(Error::corrupt(text));
        if self.size <= 1 {
            return bad("Image size is too small (must be at least 2 bytes)");
        }
        if !(9..=16).contains(&self.cluster_bits) {
            return bad("Cluster size must be between 512 and 64k");
        }
        if !(6..=13).contains(&self.l2_bits) {
            return bad("L2 table size must be between 512 and 64k");
        }
        if self.size > i64::MAX as u64 || self.geometry().tables(self.size) > most_tables() {
            return bad("Image too large");
        }
        if self.name_offset != 0 && self.name_len as usize > MAX_NAME {
            return bad("Backing file name too long");
        }
        if self.l1_offset < HEADER_LEN as u64 {
            return bad("The L1 table stands in the place of the header");
        }
        let end = match self.l1_end() {
            Some(end) if end <= i64::MAX as u64 => end,
            _ => return bad("The L1 table lies outside of any file"),
        };
        if let Some(name) = self.name_place() {
            // It would change when those are next written.
            let is_apart = name.end <= self.l1_offset || end <= name.start;
            if name.start < HEADER_LEN as u64 || !is_apart {
                return bad("The backing file name stands in the place of other metadata");
            }
        }
        Ok(())
    }

    /// The range of the name of the backing file, if there is one.
    pub(in crate::format::qcow) fn name_place(&self) -> Option<Range<u64>> {
        if self.name_offset == 0 || self.name_len == 0 {
            return None;
        }
        let end = self.name_offset.saturating_add(u64::from(self.name_len));
        Some(self.name_offset..end)
    }

    /// The layout of clusters and tables.
    pub(in crate::format::qcow) fn geometry(&self) -> Geometry {
        Geometry {
            cluster_bits: u32::from(self.cluster_bits),
            l2_bits: u32::from(self.l2_bits),
        }
    }

    /// The virtual size that the guest sees.
    pub(in crate::format::qcow) fn guest_size(&self) -> u64 {
        self.size - self.size % SECTOR
    }

    /// Number of lower tables.
    pub(in crate::format::qcow) fn tables(&self) -> u64 {
        self.geometry().tables(self.size)
    }

    /// The end of the upper table.
    pub(in crate::format::qcow) fn l1_end(&self) -> Option<u64> {
        self.l1_offset.checked_add(self.tables() * 8)
    }

    /// The bytes of the header.
    pub(in crate::format::qcow) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let crypt: u32 = match self.crypt {
            Crypt::None => 0,
            Crypt::Aes => 1,
        };
        // The fields lie within the header.
        let _ = put(&mut bytes, 0, MAGIC);
        for (at, value) in [(16, self.name_len), (20, self.mtime), (36, crypt)] {
            let _ = put(&mut bytes, at, &value.to_be_bytes());
        }
        for (at, value) in [(8, self.name_offset), (24, self.size), (40, self.l1_offset)] {
            let _ = put(&mut bytes, at, &value.to_be_bytes());
        }
        let _ = put(&mut bytes, 32, &[self.cluster_bits, self.l2_bits]);
        bytes
    }
}

/// The layout of clusters and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::qcow) struct Geometry {
    pub(in crate::format::qcow) cluster_bits: u32,
    pub(in crate::format::qcow) l2_bits: u32,
}

impl Geometry {
    /// Size of a cluster in bytes.
    pub(in crate::format::qcow) fn cluster(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries per lower table.
    pub(in crate::format::qcow) fn per_table(self) -> u64 {
        1 << self.l2_bits
    }

    /// Length of a lower table in bytes.
    pub(in crate::format::qcow) fn table_len(self) -> u64 {
        self.per_table() * 8
    }

    /// Guest bytes covered by a lower table.
    pub(in crate::format::qcow) fn covered(self) -> u64 {
        self.cluster() << self.l2_bits
    }

    /// Number of lower tables of a disk of that size.
    pub(in crate::format::qcow) fn tables(self, size: u64) -> u64 {
        size.div_ceil(self.covered())
    }

    /// The table of a guest offset, and the entry in it.
    pub(in crate::format::qcow) fn indices(self, guest: u64) -> (u32, u64) {
        let table = u32::try_from(guest / self.covered()).unwrap_or(u32::MAX);
        (table, (guest >> self.cluster_bits) % self.per_table())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            name_offset: 48,
            name_len: 4,
            mtime: 7,
            size: 10 << 20,
            cluster_bits: 9,
            l2_bits: 12,
            crypt: Crypt::Aes,
            l1_offset: 56,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = header();
        assert_eq!(Header::from_bytes(&header.to_bytes()).unwrap(), header);
        assert_eq!(header.tables(), 5);
        assert_eq!(header.l1_end(), Some(96));
        assert_eq!(header.geometry().indices((2 << 20) + 513), (1, 1));
    }

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        type Damage = fn(&mut [u8]);
        let cases: [(&str, Damage); 12] = [
            ("Image not in qcow format", |bytes| bytes[0] = 0),
            ("qcow (v1) does not support qcow version 2", |bytes| {
                bytes[7] = 2
            }),
            ("Cluster size must be between 512 and 64k", |bytes| {
                bytes[32] = 8
            }),
            ("L2 table size must be between 512 and 64k", |bytes| {
                bytes[33] = 14
            }),
            ("invalid encryption method in qcow header", |bytes| {
                bytes[39] = 2
            }),
            (
                "Image size is too small (must be at least 2 bytes)",
                |bytes| {
                    bytes[24..32].copy_from_slice(&1_u64.to_be_bytes());
                },
            ),
            ("Image too large", |bytes| bytes[24] = 0x80),
            ("Image too large", |bytes| bytes[25] = 0x80),
            ("Backing file name too long", |bytes| bytes[18] = 4),
            ("The L1 table stands in the place of the header", |bytes| {
                bytes[47] = 47
            }),
            (
                "The backing file name stands in the place of other metadata",
                |bytes| bytes[15] = 47,
            ),
            (
                "The backing file name stands in the place of other metadata",
                |bytes| bytes[15] = 95,
            ),
        ];
        for (text, damage) in cases {
            let mut bytes = header().to_bytes();
            damage(&mut bytes);
            let error = Header::from_bytes(&bytes).unwrap_err();
            assert_eq!(error.message(), text);
        }
    }
}
