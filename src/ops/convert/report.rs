//! What a conversion did.

use std::sync::atomic::{AtomicU64, Ordering};

use super::checksum::Sha256Sum;

/// What a conversion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConvertReport {
    /// Guest bytes of the target.
    pub virtual_size: u64,
    /// Guest bytes written as data.
    pub data_bytes: u64,
    /// Guest bytes copied inside the host, by sharing blocks or by the kernel.
    pub offloaded_bytes: u64,
    /// Guest bytes that stay sparse or are marked as zeroes.
    pub zero_bytes: u64,
    /// Guest bytes that the target's backing file holds already.
    pub backed_bytes: u64,
    /// Number of compressed units.
    pub compressed_units: u64,
    /// Bytes of the compressed units.
    pub compressed_bytes: u64,
    /// The digest of the guest's bytes, if requested.
    pub checksum: Option<Sha256Sum>,
    /// The digest of the compressed file or stream, if it was read from its first byte to its last.
    pub container_checksum: Option<Sha256Sum>,
}

impl ConvertReport {
    /// Adds the results of a further conversion, whose target is on top of the previous one.
    pub(super) fn add(&mut self, other: &Self) {
        self.virtual_size = other.virtual_size;
        self.checksum = other.checksum;
        self.container_checksum = other.container_checksum;
        self.data_bytes += other.data_bytes;
        self.offloaded_bytes += other.offloaded_bytes;
        self.zero_bytes += other.zero_bytes;
        self.backed_bytes += other.backed_bytes;
        self.compressed_units += other.compressed_units;
        self.compressed_bytes += other.compressed_bytes;
    }
}

/// The report while the workers fill it in.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub data: AtomicU64,
    pub offloaded: AtomicU64,
    pub zero: AtomicU64,
    pub backed: AtomicU64,
    pub units: AtomicU64,
    pub encoded: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn report(&self, virtual_size: u64) -> ConvertReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConvertReport {
            virtual_size,
            data_bytes: read(&self.data),
            offloaded_bytes: read(&self.offloaded),
            zero_bytes: read(&self.zero),
            backed_bytes: read(&self.backed),
            compressed_units: read(&self.units),
            compressed_bytes: read(&self.encoded),
            checksum: None,
            container_checksum: None,
        }
    }
}
