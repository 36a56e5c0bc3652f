//! The header of a hosted sparse extent, and the footer of a stream, which has the same form.
//! Specification: VMware Virtual Disk Format 5.0, "Hosted Sparse Extents".

use crate::bytes::{array, le16, le32, le64, put};
use crate::error::{Error, ErrorKind, Result};
use crate::size::SECTOR;

/// The first bytes of a hosted sparse extent.
pub(in crate::format::vmdk) const MAGIC: [u8; 4] = *b"KDMV";

/// Length of the header.
pub(in crate::format::vmdk) const HEADER_LEN: usize = 512;

/// Stands for a grain directory that only the footer locates.
pub(in crate::format::vmdk) const GD_AT_END: u64 = u64::MAX;

/// Offset of the byte that marks an extent that was not closed.
pub(in crate::format::vmdk) const UNCLEAN_AT: u64 = 72;

/// Offset of the first sector and the length of the descriptor, 64 bits each.
pub(in crate::format::vmdk) const DESCRIPTOR_AT: u64 = 28;

/// The line ends that a transfer in text mode would have changed.
const LINE_ENDS: [u8; 4] = *b"\n \r\n";

/// Maximum grain size in sectors: 16 MiB. Products use 64 KiB; code that copies a grain holds it in memory.
const MAX_GRAIN: u64 = 0x8000;

/// The same for compressed grains: 2 MiB.
const MAX_COMPRESSED: u64 = 0x1000;

/// Maximum number of entries in a grain table; the specification has 512.
const MAX_TABLE: u32 = 1 << 16;

bitflags::bitflags! {
    /// Features that a hosted sparse extent uses.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::format::vmdk) struct Flags: u32 {
        /// The line ends in the header are to be checked.
        const LINE_ENDS = 1;
        /// There is a redundant grain directory.
        const REDUNDANT = 1 << 1;
        /// A grain table entry of 1 stands for zeroes.
        const ZEROED = 1 << 2;
        /// Grains are compressed.
        const COMPRESSED = 1 << 16;
        /// Markers precede grains and tables.
        const MARKERS = 1 << 17;
    }
}

impl Flags {
    /// The flags that must be understood.
    const MUST_KNOW: u32 = 0xffff_0000;
}

/// The header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::format::vmdk) struct SparseHeader {
    pub(in crate::format::vmdk) version: u32,
    pub(in crate::format::vmdk) flags: Flags,
    /// Guest size in sectors.
    pub(in crate::format::vmdk) capacity: u64,
    /// Sectors per grain.
    pub(in crate::format::vmdk) grain: u64,
    /// First sector of the embedded descriptor; 0 if there is none.
    pub(in crate::format::vmdk) descriptor: u64,
    /// Its length in sectors.
    pub(in crate::format::vmdk) descriptor_len: u64,
    /// Entries per grain table.
    pub(in crate::format::vmdk) table_entries: u32,
    /// First sector of the redundant grain directory.
    pub(in crate::format::vmdk) redundant: u64,
    /// First sector of the grain directory.
    pub(in crate::format::vmdk) directory: u64,
    /// A footer at the end of the file locates the directory, and has to stay there.
    pub(in crate::format::vmdk) has_footer: bool,
    /// Number of sectors before the first grain.
    pub(in crate::format::vmdk) overhead: u64,
    /// It was not closed properly.
    pub(in crate::format::vmdk) unclean: bool,
    /// 0 none, 1 deflate.
    pub(in crate::format::vmdk) compression: u16,
}

impl SparseHeader {
    /// Parses the header, without validating its numbers.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`], or [`ErrorKind::Corrupt`] if a transfer has changed it.
    pub(in crate::format::vmdk) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let fields = || {
            Some(Self {
                version: le32(bytes, 4)?,
                flags: Flags::from_bits_retain(le32(bytes, 8)?),
                capacity: le64(bytes, 12)?,
                grain: le64(bytes, 20)?,
                descriptor: le64(bytes, 28)?,
                descriptor_len: le64(bytes, 36)?,
                table_entries: le32(bytes, 44)?,
                redundant: le64(bytes, 48)?,
                directory: le64(bytes, 56)?,
                has_footer: le64(bytes, 56)? == GD_AT_END,
                overhead: le64(bytes, 64)?,
                unclean: *bytes.get(72)? != 0,
                compression: le16(bytes, 77)?,
            })
        };
        let header = fields().filter(|_| bytes.starts_with(&MAGIC));
        let header = header.ok_or_else(not_vmdk)?;
        if header.flags.contains(Flags::LINE_ENDS) && array(bytes, 73) != Some(LINE_ENDS) {
            return Err(Error::corrupt(
                "The file was changed by a transfer as text: its line ends are not those that were written",
            )
            .with_offset(73));
        }
        Ok(header)
    }

    /// The on-disk representation.
    pub(in crate::format::vmdk) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        for (at, field) in [
            (0, &MAGIC[..]),
            (4, &self.version.to_le_bytes()),
            (8, &self.flags.bits().to_le_bytes()),
            (12, &self.capacity.to_le_bytes()),
            (20, &self.grain.to_le_bytes()),
            (28, &self.descriptor.to_le_bytes()),
            (36, &self.descriptor_len.to_le_bytes()),
            (44, &self.table_entries.to_le_bytes()),
            (48, &self.redundant.to_le_bytes()),
            (56, &self.directory.to_le_bytes()),
            (64, &self.overhead.to_le_bytes()),
            (UNCLEAN_AT as usize, &[u8::from(self.unclean)]),
            (73, &LINE_ENDS),
            (77, &self.compression.to_le_bytes()),
        ] {
            // Every field lies in the header.
            let _ = put(&mut bytes, at, field);
        }
        bytes
    }

    /// Rejects unknown versions and features, and impossible numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] or [`ErrorKind::Corrupt`].
    pub(in crate::format::vmdk) fn validate(&self) -> Result<()> {
        if !(1..=3).contains(&self.version) {
            return Err(Error::unsupported(format!(
                "Unsupported VMDK version {}",
                self.version
            )));
        }
        let unknown = self.flags.bits() & Flags::MUST_KNOW & !Flags::all().bits();
        if unknown != 0 {
            return Err(Error::unsupported(format!(
                "The extent uses features that are not known: flags {unknown:#x}"
            )));
        }
        let compressed = self.flags.contains(Flags::COMPRESSED);
        if compressed != self.flags.contains(Flags::MARKERS) {
            return Err(Error::unsupported(
                "Compressed grains without markers, or markers without compressed grains",
            ));
        }
        if compressed && self.compression != 1 {
            return Err(Error::unsupported(format!(
                "Unsupported compression {}",
                self.compression
            )));
        }
        let corrupt = |what: String, at| Err(Error::corrupt(what).with_offset(at));
        let most = if compressed {
            MAX_COMPRESSED
        } else {
            MAX_GRAIN
        };
        if self.grain == 0 || self.table_entries == 0 {
            return corrupt("L1 entry size is invalid".to_owned(), 20);
        }
        if self.table_entries > MAX_TABLE {
            return corrupt("L2 table size too big".to_owned(), 44);
        }
        if !self.grain.is_power_of_two() || self.grain > most {
            return corrupt(
                format!(
                    "Invalid granularity of {} sectors, image may be corrupt",
                    self.grain
                ),
                20,
            );
        }
        if self.capacity > i64::MAX as u64 / SECTOR {
            return corrupt(format!("A capacity of {} sectors", self.capacity), 12);
        }
        Ok(())
    }

    /// Size of a grain in bytes.
    pub(in crate::format::vmdk) fn grain_bytes(&self) -> u64 {
        self.grain.saturating_mul(SECTOR)
    }

    /// Number of entries of the grain directory. The header must be valid.
    pub(in crate::format::vmdk) fn directory_entries(&self) -> u64 {
        let span = self.grain.saturating_mul(u64::from(self.table_entries));
        self.capacity.div_ceil(span.max(1))
    }

    /// Rejects grain directories that overlap the header or the descriptor: writing an entry would destroy the image.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`].
    pub(in crate::format::vmdk) fn check_directories(&self) -> Result<()> {
        let place = |sector: u64, bytes: u64| {
            let start = sector.saturating_mul(SECTOR);
            start..start.saturating_add(bytes)
        };
        let others = [
            (place(0, SECTOR), "header"),
            (
                place(self.descriptor, self.descriptor_len.saturating_mul(SECTOR)),
                "descriptor",
            ),
        ];
        let redundant = self.has_redundant().then_some(self.redundant);
        for sector in [Some(self.directory), redundant].into_iter().flatten() {
            let directory = place(sector, self.directory_entries().saturating_mul(4));
            let mut others = others.iter();
            let meets = others
                .find(|(other, _)| directory.start < other.end && other.start < directory.end);
            if let Some((_, what)) = meets {
                let text = format!("a grain directory stands in the place of the {what}");
                return Err(Error::corrupt(text).with_offset(directory.start));
            }
        }
        Ok(())
    }

    /// Whether a grain table entry of 1 stands for zeroes.
    pub(in crate::format::vmdk) fn has_zeroed_grains(&self) -> bool {
        self.version >= 2 && self.flags.contains(Flags::ZEROED)
    }

    /// Whether there is a redundant grain directory. One that overlaps the primary one does not count: writing an entry
    /// of it would destroy a valid entry.
    pub(in crate::format::vmdk) fn has_redundant(&self) -> bool {
        let apart = self
            .redundant
            .abs_diff(self.directory)
            .saturating_mul(SECTOR);
        let is_apart = apart >= self.directory_entries().saturating_mul(4);
        self.names_redundant() && is_apart
    }

    /// Sector where programs that look for a redundant directory find one; 0 if there is none.
    pub(in crate::format::vmdk) fn redundant_place(&self) -> u64 {
        match (self.names_redundant(), self.has_redundant()) {
            (true, true) => self.redundant,
            (true, false) => self.directory,
            (false, _) => 0,
        }
    }

    fn names_redundant(&self) -> bool {
        self.flags.contains(Flags::REDUNDANT) && self.redundant != 0
    }
}

/// The error for a file that is not a VMDK.
pub(in crate::format::vmdk) fn not_vmdk() -> Error {
    Error::new(ErrorKind::NotAnImage, "Image not in VMDK format")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SparseHeader {
        SparseHeader {
            version: 1,
            flags: Flags::LINE_ENDS | Flags::REDUNDANT,
            capacity: 10_240_000,
            grain: 128,
            descriptor: 1,
            descriptor_len: 20,
            table_entries: 512,
            redundant: 21,
            directory: 651,
            has_footer: false,
            overhead: 1408,
            unclean: false,
            compression: 0,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let header = header();
        assert_eq!(
            SparseHeader::from_bytes(&header.to_bytes()).unwrap(),
            header
        );
        header.validate().unwrap();
        assert_eq!(header.directory_entries(), 157);
    }

    #[test]
    fn what_is_odd_is_refused() {
        let mut bytes = header().to_bytes();
        bytes[75] = b'\n';
        assert_eq!(
            SparseHeader::from_bytes(&bytes).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(
            SparseHeader::from_bytes(&bytes[..70]).unwrap_err().kind(),
            ErrorKind::NotAnImage
        );
        for change in [
            |h: &mut SparseHeader| h.version = 4,
            |h: &mut SparseHeader| h.grain = 0,
            |h: &mut SparseHeader| h.grain = 3,
            |h: &mut SparseHeader| h.grain = 1 << 40,
            |h: &mut SparseHeader| h.table_entries = 0,
            |h: &mut SparseHeader| h.capacity = u64::MAX,
            |h: &mut SparseHeader| h.flags |= Flags::COMPRESSED,
            |h: &mut SparseHeader| h.flags |= Flags::from_bits_retain(1 << 18),
        ] {
            let mut header = header();
            change(&mut header);
            header.validate().unwrap_err();
        }
    }
}
