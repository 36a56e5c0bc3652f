//! An entry of a lower table ("Cluster block reference – version 1" of libqcow's documentation).

use std::ops::Range;

use super::header::Geometry;

/// The cluster is compressed.
const COMPRESSED: u64 = 1 << 63;

/// Where the bytes of a cluster are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format::qcow) enum ClusterPlace {
    /// Nowhere in this file.
    Absent,
    /// Uncompressed, at that offset in the file.
    Plain(u64),
    /// Compressed, in `len` bytes at `host`.
    Packed { host: u64, len: u64 },
}

impl ClusterPlace {
    /// The range of bytes in the file, in an image with clusters of that length.
    pub(in crate::format::qcow) fn range(self, cluster: u64) -> Option<Range<u64>> {
        let (host, len) = match self {
            Self::Absent => return None,
            Self::Plain(host) => (host, cluster),
            Self::Packed { host, len } => (host, len),
        };
        Some(host..host.saturating_add(len))
    }
}

/// The meaning of an entry, whether or not the file has such a place.
pub(in crate::format::qcow) fn place_of(word: u64, geometry: Geometry) -> ClusterPlace {
    if word == 0 {
        return ClusterPlace::Absent;
    }
    if word & COMPRESSED == 0 {
        return ClusterPlace::Plain(word);
    }
    let bits = 63 - geometry.cluster_bits;
    let place = word & !COMPRESSED;
    ClusterPlace::Packed {
        host: place & ((1 << bits) - 1),
        len: place >> bits,
    }
}

/// The entry of an uncompressed cluster at `host`; None if no entry can express that.
pub(in crate::format::qcow) fn word_of(host: u64) -> Option<u64> {
    (host < COMPRESSED && host != 0).then_some(host)
}

/// The entry of a compressed cluster, in `len` bytes at `host`; None if no entry can express that.
pub(in crate::format::qcow) fn word_of_packed(
    host: u64,
    len: u64,
    geometry: Geometry,
) -> Option<u64> {
    let bits = 63 - geometry.cluster_bits;
    let fits = host < 1 << bits && (1..geometry.cluster()).contains(&len);
    fits.then_some(COMPRESSED | len << bits | host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_say_where_clusters_are() {
        let geometry = Geometry {
            cluster_bits: 12,
            l2_bits: 9,
        };
        assert_eq!(place_of(0, geometry), ClusterPlace::Absent);
        assert_eq!(place_of(0x2000, geometry), ClusterPlace::Plain(0x2000));
        // As written by QEMU's tools: 22 bytes at 0x2000.
        let word = 0x80b0_0000_0000_2000;
        let place = ClusterPlace::Packed {
            host: 0x2000,
            len: 22,
        };
        assert_eq!(place_of(word, geometry), place);
        assert_eq!(word_of_packed(0x2000, 22, geometry), Some(word));
        assert_eq!(word_of_packed(0x2000, 4096, geometry), None);
        assert_eq!(word_of_packed(1 << 51, 22, geometry), None);
        assert_eq!(word_of(0x2000), Some(0x2000));
        assert_eq!(word_of(1 << 63), None);
    }
}
