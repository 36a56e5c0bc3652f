//! Reading guest bytes through this layer's own mapping: compressed clusters, and what a partly
//! written new cluster keeps of its old contents.

use std::cell::RefCell;
use std::io::IoSliceMut;

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
    /// The thread's decompression state, and room for one compressed and one plain cluster.
    static DECODER: RefCell<(Decoder, IoBuf, IoBuf)> = RefCell::default();
}

impl Qcow2 {
    /// The L2 entry of a guest cluster; empty where there is no table.
    pub(super) fn entry(&self, guest: u64) -> Result<Entry> {
        let Some(table) = self.l2_table(guest)? else {
            return Ok(Entry::default());
        };
        let (slice, index) = self.l2_slice(table.offset(), guest)?;
        Ok(slice.read(|words| Entry::load(words, &self.layout, index)))
    }

    /// Reads guest bytes that the mapping called encoded: compressed or encrypted. A part that was
    /// remapped since is read from where it is now, if this layer still holds it.
    pub(super) fn read_coded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let _guard = self.limbo.enter();
        self.check_range(offset, buf.len() as u64)?;
        if self.encrypted {
            return self.read_layer(buf, offset, None);
        }
        self.decode(buf, offset, None)
    }

    /// As [`Self::read_coded`] from tables and bytes in memory; false where that does not do.
    pub(super) fn read_coded_now(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        let _guard = self.limbo.enter();
        self.check_range(offset, buf.len() as u64)?;
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let Some(extent) = self.map_now(at, rest.len() as u64)? else {
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
                    self.read_data_now(part, host_offset, at)?
                }
                ExtentKind::Encoded { .. } => match self.compressed_now(at)? {
                    Some(bytes) => self.decompress(bytes, part, within, at, |input| {
                        let bufs = &mut [IoSliceMut::new(input)];
                        self.storage.try_read(bufs, bytes.offset)
                    })?,
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

    /// Where the bytes of a compressed guest cluster are, if tables in memory say that it is one.
    fn compressed_now(&self, guest: u64) -> Result<Option<CompressedRef>> {
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

    /// Reads what was mapped as compressed, cluster by cluster.
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
                    self.decompress(bytes, part, within, at, |input| {
                        self.announce(Step::ReadCompressed);
                        self.storage.read_at(input, bytes.offset).map(|()| true)
                    })?;
                }
                _ => self.read_layer(part, at, below)?,
            }
            at += len as u64;
            rest = tail;
        }
        Ok(())
    }

    /// Decompresses a cluster and copies out what starts `within` it; false where `load`, which reads
    /// the compressed bytes, says so.
    fn decompress(
        &self,
        at: CompressedRef,
        buf: &mut [u8],
        within: u64,
        guest: u64,
        load: impl FnOnce(&mut [u8]) -> Result<bool>,
    ) -> Result<bool> {
        let whole = buf.len() as u64 == self.layout.cluster_size();
        if !whole && let Some(unit) = self.decoded.get(at.offset, at.len) {
            copy_from(&unit, within, buf);
            return Ok(true);
        }
        // Taken out while it is in use: the storage below may be an image with compressed clusters.
        let mut tools = DECODER.take();
        let loaded = tools.1.room(at.len as usize).and_then(load);
        let result = match loaded {
            Ok(true) => self
                .decode_cluster(&mut tools, at, buf, within, guest)
                .map(|()| true),
            other => other,
        };
        DECODER.set(tools);
        result
    }

    fn decode_cluster(
        &self,
        (decoder, input, output): &mut (Decoder, IoBuf, IoBuf),
        at: CompressedRef,
        buf: &mut [u8],
        within: u64,
        guest: u64,
    ) -> Result<()> {
        let cluster = self.layout.cluster_size() as usize;
        let compression = self.compression();
        let method = compression.method();
        let decoded = if buf.len() == cluster {
            decoder.decode(method, input, buf)
        } else {
            output.room(cluster)?;
            decoder.decode(method, input, output).map(|()| {
                copy_from(output, within, buf);
                // The guard that the caller holds keeps the place from being used for other bytes.
                let unit = std::mem::take(output);
                *output = self
                    .decoded
                    .keep(at.offset, at.len, unit)
                    .unwrap_or_default();
            })
        };
        decoded
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

    /// Fills `buf` with what the guest reads at `offset`. What is not in this layer comes from
    /// `below`; without that, [`ErrorKind::Busy`] asks for another look at the mapping. The part past the end of the image is zero.
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

/// Copies what stands `within` a cluster.
fn copy_from(cluster: &[u8], within: u64, buf: &mut [u8]) {
    let from = cluster.get(within as usize..).unwrap_or_default();
    let len = buf.len().min(from.len());
    buf[..len].copy_from_slice(&from[..len]);
}
