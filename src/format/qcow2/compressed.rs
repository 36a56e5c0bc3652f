//! Writing compressed clusters: several are packed into a host cluster, one after the other, at byte granularity.

use std::cell::RefCell;

use crate::codec::{Compression, Encoder};
use crate::error::{Error, Result};
use crate::format::{Compress, ZeroBelow};
use crate::memory::{self, IoBuf};
use crate::storage::Step;

use super::allocator::Alloc;
use super::disk::{CompressedRef, L2Entry, SubclusterBitmap};
use super::map::Entry;
use super::state::Qcow2;

thread_local! {
    /// The thread's compression state, and a buffer for the compressed bytes.
    static ENCODER: RefCell<(Encoder, IoBuf)> = RefCell::default();
}

impl Compress for Qcow2 {
    fn encode_unit(&self) -> u32 {
        self.layout.cluster_size() as u32
    }

    fn write_compressed(&self, buf: &[u8], offset: u64) -> Result<()> {
        let written = self.write_unit(buf, offset);
        self.record(offset, buf.len() as u64);
        written
    }
}

impl Qcow2 {
    /// See [`Compress::write_compressed`].
    fn write_unit(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.prepare_write()?;
        let end = self.check_range(offset, buf.len() as u64)?;
        let cluster = self.layout.cluster_size();
        let whole = buf.len() as u64 == cluster || end == self.virtual_size();
        if self.layout.in_cluster(offset) != 0 || !whole || buf.len() as u64 > cluster {
            return Err(Error::partial_compressed_write());
        }
        if self.has_data_file || self.encrypted {
            return Err(Error::unsupported(format!(
                "'{}': this image cannot hold compressed clusters",
                self.storage.name()
            )));
        }
        self.write_back_if_full()?;
        let method = self.compression().method();
        let compression = Compression::of_units(method, self.compression_level, cluster)?;
        let done = ENCODER.with_borrow_mut(|(encoder, out)| {
            let padded;
            let unit = if buf.len() as u64 == cluster {
                buf
            } else {
                let mut bytes = memory::copied(buf)?;
                bytes.resize(cluster as usize)?;
                padded = bytes;
                &padded
            };
            if !encoder.encode(compression, unit, cluster as usize, out)? {
                return Ok(false);
            }
            self.store_compressed(out, offset)
        })?;
        if done {
            return Ok(());
        }
        // The data covers the cluster up to the end of the image: nothing from below shows through.
        self.write_guest(buf, offset, &ZeroBelow)
    }

    /// Writes compressed bytes and makes the cluster's entry refer to them. Returns false if the entry cannot, because
    /// the host offset is too large for it.
    fn store_compressed(&self, bytes: &[u8], offset: u64) -> Result<bool> {
        let cluster = offset >> self.layout.cluster_bits();
        let _mine = self.inflight.reserve(cluster..cluster + 1);
        // The image may have been shrunk in the meantime.
        self.check_range(offset, 1)?;
        let (slice, index) = self.l2_slice_for_write(offset)?;
        let len = bytes.len() as u64;
        let host = self.alloc_packed(&mut self.alloc.lock(), len)?;
        let word = L2Entry::compressed(host, len, &self.layout);
        let written = match word {
            Some(_) => self.check_data_place(host, len).and_then(|()| {
                self.announce(Step::WriteCompressed);
                self.storage.write_at(bytes, host)
            }),
            None => Ok(()),
        };
        // No entry refers to the new bytes yet.
        self.decoded.forget(host, len);
        let (Some(word), Ok(())) = (word, &written) else {
            self.drop_packed(host, len);
            return written.map(|()| false);
        };
        let old = slice.read(|words| Entry::load(words, &self.layout, index));
        let mut freed = Vec::new();
        let collected = self
            .checked_kind(old, offset)
            .and_then(|_| self.collect_references(old, false, &mut freed));
        if let Err(error) = collected {
            self.drop_packed(host, len);
            return Err(error);
        }
        self.announce(Step::L2UpdateCompressed);
        self.cache.modify(&slice, |words| {
            let bitmap = SubclusterBitmap::default();
            Entry { word, bitmap }.store(words, &self.layout, index);
        });
        self.give_up(freed);
        Ok(true)
    }

    /// Reserves `len` bytes, less than a cluster, behind other compressed data where there is space; each host cluster
    /// that they touch gets one more reference.
    fn alloc_packed(&self, alloc: &mut Alloc, len: u64) -> Result<u64> {
        let bits = self.layout.cluster_bits();
        self.announce(Step::ClusterAllocBytes);
        let fitting = alloc.partial.fitting(len);
        if let Some(at) = fitting.or_else(|| alloc.partial.newest()) {
            let cluster = at >> bits;
            let count = self.refcount(alloc, cluster)?;
            if !(1..self.counts().max_refcount()).contains(&count) {
                alloc.partial.forget(cluster);
            } else if fitting.is_some() || self.take_next(alloc, cluster + 1)? {
                self.set_refcounts(alloc, cluster, 1, count + 1)?;
                alloc.partial.take(at, len);
                return Ok(at);
            }
        }
        let at = self.alloc_run_in(alloc, 1)?.cluster << bits;
        alloc.partial.note(at + len);
        Ok(at)
    }

    /// Allocates this particular cluster if it is free and has a refcount block; returns whether it did.
    fn take_next(&self, alloc: &mut Alloc, cluster: u64) -> Result<bool> {
        let has_block = self.refcount_slice(alloc, cluster)?.is_some();
        if !has_block || self.refcount(alloc, cluster)? != 0 {
            return Ok(false);
        }
        let before = alloc.cursor;
        alloc.cursor = cluster;
        let run = self.alloc_run_in(alloc, 1)?;
        if before != cluster {
            alloc.cursor = before;
        }
        Ok(run.cluster == cluster)
    }

    /// Drops the references that [`Qcow2::alloc_packed`] added.
    fn drop_packed(&self, host: u64, len: u64) {
        let (first, last) = CompressedRef { offset: host, len }.clusters(&self.layout);
        let alloc = &mut *self.alloc.lock();
        for cluster in first..=last {
            alloc.partial.forget(cluster);
        }
        // A failure leaks the clusters; the caller reports its own error.
        let _ = self.drop_references(alloc, first..=last);
    }
}
