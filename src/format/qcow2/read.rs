//! Reading guest bytes through this layer's own mapping: compressed clusters, and the old contents that a partly
//! written new cluster keeps.

use std::cell::RefCell;
use std::io::IoSliceMut;
use std::sync::Arc;

use crate::codec::Decoder;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::extent::ExtentKind;
use crate::format::Below;
use crate::memory::IoBuf;
use crate::storage::Step;

use super::disk::{CompressedRef, L2Kind};
use super::map::Entry;
use super::state::Qcow2;

thread_local! {
    /// The thread's decompression state, and a buffer for one compressed cluster.
    static DECODER: RefCell<(Decoder, IoBuf)> = RefCell::default();
}

impl Qcow2 {
    /// The L2 entry of a guest cluster; empty if there is no table.
    pub(super) fn entry(&self, guest: u64) -> Result<Entry> {
        let Some(table) = self.l2_table(guest)? else {
            return Ok(Entry::default());
        };
        let (slice, index) = self.l2_slice(table.offset(), guest)?;
        Ok(slice.read(|words| Entry::load(words, &self.layout, index)))
    }

    /// Reads guest bytes that the mapping reported as encoded: compressed or encrypted. A part that has been remapped
    /// since is read from its new location, if this layer still holds it.
    pub(super) fn read_coded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let _guard = self.limbo.enter();
        self.check_range(offset, buf.len() as u64)?;
        if self.encrypted {
            return self.read_layer(buf, offset, None);
        }
        self.decode(buf, offset, None)
    }

    /// As [`Self::read_coded`], from tables and bytes in memory; false if that is not possible. Without `may_decode`,
    /// only cached decoded data is used.
    pub(super) fn try_read_coded(
        &self,
        buf: &mut [u8],
        offset: u64,
        may_decode: bool,
    ) -> Result<bool> {
        if self.encrypted && !may_decode {
            return Ok(false);
        }
        let _guard = self.limbo.enter();
        self.check_range(offset, buf.len() as u64)?;
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let Some(extent) = self.try_map(at, rest.len() as u64)? else {
                return Ok(false);
            };
            let within = self.layout.in_cluster(at);
            let len = match extent.kind {
                ExtentKind::Encoded { .. } => extent.len.min(self.layout.cluster_size() - within),
                _ => extent.len,
            };
            let (part, tail) = rest.split_at_mut(len as usize);
            let read = match extent.kind {
                ExtentKind::Data { host_offset, .. } => {
                    self.try_read_data(part, host_offset, at)?
                }
                ExtentKind::Encoded { .. } => match self.try_compressed(at)? {
                    Some(bytes) => self.try_decompress(bytes, part, (within, at), may_decode)?,
                    None => false,
                },
                _ => false,
            };
            if !read {
                return Ok(false);
            }
            at += len;
            rest = tail;
        }
        Ok(true)
    }

    /// Decodes the cluster that contains the guest offset, if it is compressed; returns the cluster's end.
    pub(super) fn decode_cluster_ahead(&self, offset: u64) -> Result<u64> {
        let _guard = self.limbo.enter();
        self.check_range(offset, 1)?;
        let start = offset - self.layout.in_cluster(offset);
        let kind = self.checked_kind(self.entry(start)?, start)?;
        if let L2Kind::Compressed(bytes) = kind {
            self.unit(bytes, start)?;
        }
        Ok(start.saturating_add(self.layout.cluster_size()))
    }

    /// Where the bytes of a compressed guest cluster are, if tables in memory show that it is compressed.
    fn try_compressed(&self, guest: u64) -> Result<Option<CompressedRef>> {
        let Some(table) = self.l2_table(guest)? else {
            return Ok(None);
        };
        let Some((slice, index)) = self.l2_slice_now(table.offset(), guest) else {
            return Ok(None);
        };
        let entry = slice.read(|words| Entry::load(words, &self.layout, index));
        Ok(match self.checked_kind(entry, guest)? {
            L2Kind::Compressed(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// Reads a range mapped as compressed, cluster by cluster.
    fn decode(&self, buf: &mut [u8], offset: u64, below: Option<&dyn Below>) -> Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = self.layout.in_cluster(at);
            let len = (rest.len() as u64).min(self.layout.cluster_size() - within) as usize;
            let (part, tail) = rest.split_at_mut(len);
            let entry = self.entry(at)?;
            match self.checked_kind(entry, at)? {
                L2Kind::Compressed(bytes) => {
                    self.decompress(bytes, part, within, at)?;
                }
                _ => self.read_layer(part, at, below)?,
            }
            at += len as u64;
            rest = tail;
        }
        Ok(())
    }

    /// Fills `buf`, which starts at offset `within` of the cluster, from the cluster's compressed bytes.
    fn decompress(&self, at: CompressedRef, buf: &mut [u8], within: u64, guest: u64) -> Result<()> {
        let load = |input: &mut [u8]| {
            self.announce(Step::ReadCompressed);
            self.storage.read_at(input, at.offset).map(|()| true)
        };
        if buf.len() as u64 == self.layout.cluster_size() {
            return match self.decoded.get_or_wait(at.offset, at.len) {
                Some(unit) => {
                    copy_from(&unit, 0, buf);
                    Ok(())
                }
                None => self.decode_cluster(at, buf, guest, load).map(drop),
            };
        }
        let unit = self.unit(at, guest)?;
        copy_from(&unit, within, buf);
        Ok(())
    }

    /// A decoded cluster, which is cached. The guard that the caller holds keeps its host bytes from being reused.
    fn unit(&self, at: CompressedRef, guest: u64) -> Result<Arc<IoBuf>> {
        let cluster = self.layout.cluster_size() as usize;
        self.decoded.get_or_decode(at.offset, at.len, |bytes| {
            let load = |input: &mut [u8]| {
                self.announce(Step::ReadCompressed);
                self.storage.read_at(input, at.offset).map(|()| true)
            };
            self.decode_cluster(at, bytes.room(cluster)?, guest, load)
                .map(drop)
        })
    }

    /// As [`Self::decompress`], from bytes in memory; false if they are not there, or if the cluster would have to be
    /// decoded without `may_decode`.
    fn try_decompress(
        &self,
        at: CompressedRef,
        buf: &mut [u8],
        (within, guest): (u64, u64),
        may_decode: bool,
    ) -> Result<bool> {
        if !may_decode {
            let kept = self.decoded.get(at.offset, at.len);
            return Ok(kept.is_some_and(|unit| {
                copy_from(&unit, within, buf);
                true
            }));
        }
        let load = |input: &mut [u8]| {
            let bufs = &mut [IoSliceMut::new(input)];
            self.storage.try_read(bufs, at.offset)
        };
        let cluster = self.layout.cluster_size() as usize;
        if buf.len() == cluster && self.decoded.get(at.offset, at.len).is_none() {
            return self.decode_cluster(at, buf, guest, load);
        }
        let unit = self.decoded.try_get_or_decode(at.offset, at.len, |bytes| {
            self.decode_cluster(at, bytes.room(cluster)?, guest, load)
        })?;
        Ok(unit.is_some_and(|unit| {
            copy_from(&unit, within, buf);
            true
        }))
    }

    /// Decodes a cluster; false if `load`, which reads the compressed bytes, returns false.
    fn decode_cluster(
        &self,
        at: CompressedRef,
        cluster: &mut [u8],
        guest: u64,
        load: impl FnOnce(&mut [u8]) -> Result<bool>,
    ) -> Result<bool> {
        // Taken out while it is in use: the storage below may be an image with compressed clusters.
        let mut tools = DECODER.take();
        let (decoder, input) = &mut tools;
        let result = input
            .room(at.len as usize)
            .and_then(load)
            .and_then(|loaded| match loaded {
                true => self.decode_loaded(decoder, input, at, cluster, guest),
                false => Ok(false),
            });
        DECODER.set(tools);
        result
    }

    fn decode_loaded(
        &self,
        decoder: &mut Decoder,
        input: &[u8],
        at: CompressedRef,
        cluster: &mut [u8],
        guest: u64,
    ) -> Result<bool> {
        let compression = self.compression();
        decoder
            .decode(compression.method(), input, cluster)
            .map(|()| true)
            .map_err(|_| {
                let name = compression.name();
                Error::corrupt(format!("Compressed cluster does not decode as {name}"))
                    .with_offset(at.offset)
                    .with_errno(libc::EIO)
            })
            .context(|| {
                format!(
                    "'{}': guest offset {guest} cannot be read",
                    self.storage.name()
                )
            })
    }

    /// Fills `buf` with what the guest reads at `offset`. What is not in this layer comes from `below`; without that,
    /// [`ErrorKind::Busy`] requests another lookup of the mapping. Past the end of the image, zeroes are returned.
    pub(super) fn read_layer(
        &self,
        buf: &mut [u8],
        offset: u64,
        below: Option<&dyn Below>,
    ) -> Result<()> {
        let inside = self.virtual_size().saturating_sub(offset);
        let (mut rest, past) = buf.split_at_mut(inside.min(buf.len() as u64) as usize);
        past.fill(0);
        let mut at = offset;
        while !rest.is_empty() {
            let extent = self.map_run(at, rest.len() as u64)?;
            let (part, tail) = rest.split_at_mut(extent.len as usize);
            match extent.kind {
                ExtentKind::Data { host_offset, .. } => {
                    self.read_data(part, host_offset, at)?;
                }
                ExtentKind::Zero { .. } => part.fill(0),
                ExtentKind::Unallocated { .. } => match below {
                    Some(below) => {
                        self.announce(Step::ReadBackingAio);
                        below.read_below(part, at)?;
                    }
                    None => {
                        return Err(Error::new(
                            ErrorKind::Busy,
                            format!(
                                "'{}': guest offset {at} was remapped meanwhile",
                                self.storage.name()
                            ),
                        ));
                    }
                },
                ExtentKind::Encoded { .. } => self.decode(part, at, below)?,
            }
            at += extent.len;
            rest = tail;
        }
        Ok(())
    }

    /// Whether the guest range is known to read as zeroes, without reading data.
    pub(super) fn reads_zero(&self, offset: u64, len: u64, below: &dyn Below) -> Result<bool> {
        let end = offset.saturating_add(len).min(self.virtual_size());
        let mut at = offset;
        while at < end {
            let extent = self.map_run(at, end - at)?;
            let zero = match extent.kind {
                ExtentKind::Zero { .. } => true,
                ExtentKind::Unallocated { .. } => below.is_zero_below(at, extent.len)?,
                ExtentKind::Data { .. } | ExtentKind::Encoded { .. } => false,
            };
            if !zero {
                return Ok(false);
            }
            at += extent.len;
        }
        Ok(true)
    }
}

/// Copies the bytes from offset `within` of a cluster.
fn copy_from(cluster: &[u8], within: u64, buf: &mut [u8]) {
    let from = cluster.get(within as usize..).unwrap_or_default();
    let len = buf.len().min(from.len());
    buf[..len].copy_from_slice(&from[..len]);
}
