//! The fixed part of the header (specification: "Header").

use crate::bytes::{be32, be32_padded, be64};
use crate::error::{Error, ErrorKind, Result};

use super::compression::CompressionType;
use super::features::{Autoclear, Compatible, Incompatible};
use super::geometry::{Geometry, MAX_L1_BYTES, MAX_REFTABLE_BYTES};

/// The first four bytes.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Length of a version 2 header.
pub const V2_LEN: u32 = 72;
/// Minimum length of a version 3 header.
pub const V3_MIN_LEN: u32 = 104;
/// Length of the version 3 header that this program writes.
pub const V3_LEN: u32 = 112;
/// Maximum number of internal snapshots.
pub const MAX_SNAPSHOTS: u32 = 65536;

/// Offset of the compression type.
const COMPRESSION_AT: usize = 104;

/// The encryption method of guest data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CryptMethod {
    /// Not encrypted.
    #[default]
    None,
    /// AES-128 in CBC mode, the legacy method.
    Aes,
    /// A LUKS header inside the image.
    Luks,
}

/// The header without its extensions. Values are as in the file; [`Header::validate`] checks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Offset of the backing file name; 0 if there is none.
    pub backing_offset: u64,
    /// Length of that name.
    pub backing_len: u32,
    /// log2 of the cluster size.
    pub cluster_bits: u32,
    /// Virtual size in bytes.
    pub size: u64,
    /// Encryption.
    pub crypt: CryptMethod,
    /// Number of entries of the active L1 table.
    pub l1_entries: u32,
    /// Its offset.
    pub l1_offset: u64,
    /// Offset of the refcount table.
    pub reftable_offset: u64,
    /// Number of clusters of the refcount table.
    pub reftable_clusters: u32,
    /// Number of internal snapshots.
    pub snapshots: u32,
    /// Offset of the snapshot table.
    pub snapshots_offset: u64,
    /// Incompatible features.
    pub incompatible: Incompatible,
    /// Compatible features.
    pub compatible: Compatible,
    /// Features that a writer clears if it does not know them.
    pub autoclear: Autoclear,
    /// log2 of the refcount width in bits.
    pub refcount_order: u32,
    /// Length of the header; its extensions start there.
    pub header_len: u32,
    /// Compression type of compressed clusters.
    pub compression: CompressionType,
    /// Bytes of the header beyond the known fields, kept as they are.
    pub rest: Vec<u8>,
}

impl Header {
    /// Checks that `head` begins like a qcow2 image, and returns the version that it claims.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`], or [`ErrorKind::Unsupported`] for another version.
    pub fn version_of(head: &[u8]) -> Result<u32> {
        if !head.starts_with(&MAGIC) {
            return Err(Error::new(
                ErrorKind::NotAnImage,
                "Image is not in qcow2 format",
            ));
        }
        let version = be32_padded(head, 4);
        if version == 2 || version == 3 {
            Ok(version)
        } else {
            Err(Error::unsupported(format!(
                "Unsupported qcow2 version {version}"
            )))
        }
    }

    /// Parses the first bytes of the file: up to one cluster, including the whole header.
    ///
    /// Checks what is needed to continue with the extensions: lengths, cluster size, encryption method.
    ///
    /// # Errors
    /// [`ErrorKind::NotAnImage`], [`ErrorKind::Unsupported`], [`ErrorKind::Invalid`].
    pub fn from_bytes(head: &[u8]) -> Result<Self> {
        let version = Self::version_of(head)?;
        let short = || Error::new(ErrorKind::Corrupt, "qcow2 header too short").with_offset(0);
        let word = |at| be32(head, at).ok_or_else(short);
        let long = |at| be64(head, at).ok_or_else(short);
        let cluster_bits = be32_padded(head, 20);
        if !(Geometry::MIN_CLUSTER_BITS..=Geometry::MAX_CLUSTER_BITS).contains(&cluster_bits) {
            return Err(Error::invalid(format!(
                "Unsupported cluster size: 2^{cluster_bits}"
            )));
        }
        let crypt_method = word(32)?;
        let mut header = Self {
            version,
            backing_offset: long(8)?,
            backing_len: word(16)?,
            cluster_bits,
            size: long(24)?,
            crypt: CryptMethod::None,
            l1_entries: word(36)?,
            l1_offset: long(40)?,
            reftable_offset: long(48)?,
            reftable_clusters: word(56)?,
            snapshots: word(60)?,
            snapshots_offset: long(64)?,
            incompatible: Incompatible::empty(),
            compatible: Compatible::empty(),
            autoclear: Autoclear::empty(),
            refcount_order: 4,
            header_len: V2_LEN,
            compression: CompressionType::Zlib,
            rest: Vec::new(),
        };
        if version >= 3 {
            header.incompatible = Incompatible::from_bits_retain(long(72)?);
            header.compatible = Compatible::from_bits_retain(long(80)?);
            header.autoclear = Autoclear::from_bits_retain(long(88)?);
            header.refcount_order = word(96)?;
            header.header_len = word(100)?;
            if header.header_len < V3_MIN_LEN {
                return Err(short());
            }
            if u64::from(header.header_len) > 1 << cluster_bits {
                return Err(Error::corrupt("qcow2 header exceeds cluster size").with_offset(100));
            }
            let all = head.get(..header.header_len as usize).ok_or_else(short)?;
            if let Some(&kind) = all.get(COMPRESSION_AT) {
                header.compression = CompressionType::from_number(kind).ok_or_else(|| {
                    Error::unsupported(format!("qcow2: unknown compression type: {kind}"))
                })?;
            }
            header.rest = all.get(V3_LEN as usize..).unwrap_or_default().to_vec();
        }
        header.crypt = match crypt_method {
            0 => CryptMethod::None,
            1 => CryptMethod::Aes,
            2 => CryptMethod::Luks,
            n => {
                return Err(Error::unsupported(format!(
                    "Unsupported encryption method {n}"
                )));
            }
        };
        Ok(header)
    }

    /// The bytes of the header, `header_len` of them. `header_len` is updated to the length written.
    pub fn to_bytes(&mut self) -> Vec<u8> {
        self.header_len = if self.version < 3 {
            V2_LEN
        } else {
            V3_LEN + self.rest.len() as u32
        };
        let mut out = Vec::with_capacity(self.header_len as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.backing_offset.to_be_bytes());
        out.extend_from_slice(&self.backing_len.to_be_bytes());
        out.extend_from_slice(&self.cluster_bits.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        let crypt: u32 = match self.crypt {
            CryptMethod::None => 0,
            CryptMethod::Aes => 1,
            CryptMethod::Luks => 2,
        };
        out.extend_from_slice(&crypt.to_be_bytes());
        out.extend_from_slice(&self.l1_entries.to_be_bytes());
        out.extend_from_slice(&self.l1_offset.to_be_bytes());
        out.extend_from_slice(&self.reftable_offset.to_be_bytes());
        out.extend_from_slice(&self.reftable_clusters.to_be_bytes());
        out.extend_from_slice(&self.snapshots.to_be_bytes());
        out.extend_from_slice(&self.snapshots_offset.to_be_bytes());
        if self.version >= 3 {
            out.extend_from_slice(&self.incompatible.bits().to_be_bytes());
            out.extend_from_slice(&self.compatible.bits().to_be_bytes());
            out.extend_from_slice(&self.autoclear.bits().to_be_bytes());
            out.extend_from_slice(&self.refcount_order.to_be_bytes());
            out.extend_from_slice(&self.header_len.to_be_bytes());
            out.push(self.compression.number());
            out.extend_from_slice(&[0; 7]);
            out.extend_from_slice(&self.rest);
        }
        out
    }

    /// The sizes that follow from this header.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn geometry(&self) -> Result<Geometry> {
        Geometry::new(
            self.cluster_bits,
            self.incompatible.contains(Incompatible::EXTENDED_L2),
            self.refcount_order,
        )
    }

    /// Checks all fields of the header against each other, but not against the file's length.
    ///
    /// `for_check` allows what `check` reports itself: a missing refcount table and a bad snapshot table. Unknown
    /// incompatible features are refused by [`super::ImageHeader::read`], which knows their names.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], [`ErrorKind::Invalid`] or [`ErrorKind::Unsupported`].
    pub fn validate(&self, for_check: bool) -> Result<Geometry> {
        self.validate_parts(for_check, true)
    }

    /// As [`Header::validate`], for a check that may also repair: allows a bad refcount table location, too.
    ///
    /// # Errors
    /// As [`Header::validate`].
    pub fn validate_for_repair(&self) -> Result<Geometry> {
        self.validate_parts(true, false)
    }

    fn validate_parts(&self, for_check: bool, reftable: bool) -> Result<Geometry> {
        let geometry = self.geometry()?;
        self.validate_compression()?;
        let cluster = geometry.cluster_size();
        if reftable {
            self.validate_reftable()?;
        }
        if self.reftable_clusters == 0 && !for_check {
            return Err(
                Error::corrupt("Image does not contain a reference count table").with_offset(56),
            );
        }
        if !for_check {
            self.validate_snapshot_table()?;
        }
        let l1_bytes = u64::from(self.l1_entries) * 8;
        if l1_bytes > MAX_L1_BYTES {
            return Err(Error::corrupt("Active L1 table too large").with_offset(36));
        }
        let needed = geometry.l1_entries(self.size);
        if self.size > i64::MAX as u64 || needed > i32::MAX as u64 {
            return Err(Error::new(ErrorKind::Limit, "Image is too big").with_offset(24));
        }
        if u64::from(self.l1_entries) < needed {
            return Err(Error::corrupt("L1 table is too small").with_offset(36));
        }
        if self.l1_entries > 0 && !table_fits(self.l1_offset, l1_bytes, cluster) {
            return Err(Error::corrupt("Active L1 table offset invalid").with_offset(40));
        }
        Ok(geometry)
    }

    /// Checks the location and size of the refcount table.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`].
    pub fn validate_reftable(&self) -> Result<()> {
        let cluster = 1u64 << self.cluster_bits;
        let bytes = u64::from(self.reftable_clusters) * cluster;
        if bytes > MAX_REFTABLE_BYTES {
            return Err(Error::corrupt("Reference count table too large").with_offset(56));
        }
        if !table_fits(self.reftable_offset, bytes, cluster) {
            return Err(Error::corrupt("Reference count table offset invalid").with_offset(48));
        }
        Ok(())
    }

    /// Checks the location of the snapshot table and the number of snapshots.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`].
    pub fn validate_snapshot_table(&self) -> Result<()> {
        if self.snapshots > MAX_SNAPSHOTS {
            return Err(Error::corrupt("Snapshot table too large")
                .with_offset(60)
                .with_errno(libc::EFBIG));
        }
        // The peer checks the offset even if there are no snapshots.
        if !table_fits(self.snapshots_offset, 0, 1 << self.cluster_bits) {
            return Err(Error::corrupt("Snapshot table offset invalid")
                .with_offset(64)
                .with_errno(libc::EINVAL));
        }
        Ok(())
    }

    fn validate_compression(&self) -> Result<()> {
        let bit = self.incompatible.contains(Incompatible::COMPRESSION);
        match (bit, self.compression == CompressionType::Zlib) {
            (true, true) => Err(Error::corrupt(
                "qcow2: Compression type incompatible feature bit must not be set",
            )
            .with_offset(72)),
            (false, false) => Err(Error::corrupt(
                "qcow2: Compression type incompatible feature bit must be set",
            )
            .with_offset(72)),
            _ => Ok(()),
        }
    }
}

/// Whether a table starts at a cluster and ends below 2^63.
fn table_fits(offset: u64, bytes: u64, cluster: u64) -> bool {
    offset.is_multiple_of(cluster)
        && offset
            .checked_add(bytes)
            .is_some_and(|end| end <= i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Header {
        Header {
            version: 3,
            backing_offset: 0,
            backing_len: 0,
            cluster_bits: 16,
            size: 64 << 20,
            crypt: CryptMethod::None,
            l1_entries: 1,
            l1_offset: 0x30000,
            reftable_offset: 0x10000,
            reftable_clusters: 1,
            snapshots: 0,
            snapshots_offset: 0,
            incompatible: Incompatible::empty(),
            compatible: Compatible::LAZY_REFCOUNTS,
            autoclear: Autoclear::empty(),
            refcount_order: 4,
            header_len: V3_LEN,
            compression: CompressionType::Zlib,
            rest: Vec::new(),
        }
    }

    #[test]
    fn round_trips_of_both_versions() {
        let mut v3 = sample();
        v3.rest = vec![1, 2, 3, 4, 5, 6, 7, 8];
        v3.incompatible = Incompatible::COMPRESSION | Incompatible::from_bits_retain(1 << 40);
        v3.compression = CompressionType::Zstd;
        let bytes = v3.to_bytes();
        assert_eq!(bytes.len(), 120);
        assert_eq!(Header::from_bytes(&bytes).unwrap(), v3);

        let mut v2 = sample();
        v2.version = 2;
        v2.compatible = Compatible::empty();
        let bytes = v2.to_bytes();
        assert_eq!(bytes.len(), 72);
        assert_eq!(Header::from_bytes(&bytes).unwrap(), v2);
    }

    #[test]
    fn damage_has_one_line_each() {
        type Damage = (fn(&mut Header), &'static str);
        let cases: [Damage; 12] = [
            (|h| h.l1_entries = 0, "L1 table is too small"),
            (|h| h.size = 1 << 50, "L1 table is too small"),
            (|h| h.size = 1 << 60, "Image is too big"),
            (|h| h.size = u64::MAX, "Image is too big"),
            (
                |h| h.l1_entries = (4 << 20) + 1,
                "Active L1 table too large",
            ),
            (|h| h.l1_offset = 512, "Active L1 table offset invalid"),
            (|h| h.l1_offset = 1 << 63, "Active L1 table offset invalid"),
            (
                |h| h.reftable_offset = 0x7fff_ffff_ffff_0000,
                "Reference count table offset invalid",
            ),
            (
                |h| h.reftable_clusters = 129,
                "Reference count table too large",
            ),
            (
                |h| h.reftable_clusters = 0,
                "Image does not contain a reference count table",
            ),
            (|h| h.snapshots = 65537, "Snapshot table too large"),
            (
                |h| (h.snapshots, h.snapshots_offset) = (1, 1),
                "Snapshot table offset invalid",
            ),
        ];
        for (damage, text) in cases {
            let mut header = sample();
            damage(&mut header);
            assert_eq!(header.validate(false).unwrap_err().to_string(), text);
        }
        let mut header = sample();
        (header.reftable_clusters, header.snapshots) = (0, 65537);
        assert!(header.validate(true).is_ok());
    }

    #[test]
    fn lengths_and_kinds_are_checked_while_parsing() {
        let good = sample().to_bytes();
        for (at, bytes, text) in [
            (0, &[0u8][..], "Image is not in qcow2 format"),
            (4, &[0, 0, 0, 4], "Unsupported qcow2 version 4"),
            (20, &[0, 0, 0, 8], "Unsupported cluster size: 2^8"),
            (32, &[0, 0, 0, 3], "Unsupported encryption method 3"),
            (100, &[0, 0, 0, 103], "qcow2 header too short"),
            (100, &[0, 1, 0, 1], "qcow2 header exceeds cluster size"),
            (104, &[5], "qcow2: unknown compression type: 5"),
        ] {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(Header::from_bytes(&bad).unwrap_err().to_string(), text);
        }
        for (len, text) in [
            (3, "Image is not in qcow2 format"),
            (4, "Unsupported qcow2 version 0"),
            (7, "Unsupported qcow2 version 0"),
            (8, "Unsupported cluster size: 2^0"),
            (23, "Unsupported cluster size: 2^0"),
        ] {
            assert_eq!(
                Header::from_bytes(&good[..len]).unwrap_err().to_string(),
                text
            );
        }
        for len in [24, 71, 72, 103, 111] {
            assert_eq!(
                Header::from_bytes(&good[..len]).unwrap_err().to_string(),
                "qcow2 header too short"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), good: bool, for_check: bool) {
            if good && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
                if let Some(field) = bytes.get_mut(20..24) {
                    field.copy_from_slice(&[0, 0, 0, 16]);
                }
                if let Some(field) = bytes.get_mut(96..104) {
                    field.copy_from_slice(&[0, 0, 0, 4, 0, 0, 0, 104]);
                }
            }
            if let Ok(header) = Header::from_bytes(&bytes) {
                let _ = header.validate(for_check);
            }
        }
    }
}
