//! Individually compressed clusters: reading them, and writing new ones.

use std::cell::RefCell;
use std::sync::Arc;

use crate::codec::{Compression, Decoder, Encoder, Method};
use crate::error::{Error, ErrorKind, Result};
use crate::extent::ExtentKind;
use crate::format::{Compress, ZeroBelow};
use crate::memory::{self, IoBuf};
use crate::storage::{Step, steps};

use super::Qcow;
use super::disk::{ClusterPlace, word_of_packed};

thread_local! {
    /// The thread's decompression state, and a buffer for one compressed cluster.
    static DECODER: RefCell<(Decoder, IoBuf)> = RefCell::default();

    /// The thread's compression state, and a buffer for the compressed bytes.
    static ENCODER: RefCell<(Encoder, IoBuf)> = RefCell::default();
}

impl Qcow {
    /// Reads guest bytes that the mapping reported as encoded: compressed or encrypted.
    pub(super) fn read_coded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let _io = self.users.enter();
        self.check_range(offset, buf.len() as u64)?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let run = self.run(at, rest.len() as u64)?;
            let len = match run.kind {
                ExtentKind::Encoded { .. } => {
                    let within = at % self.geometry.cluster();
                    run.len.min(self.geometry.cluster() - within)
                }
                _ => run.len,
            };
            let (part, tail) = rest.split_at_mut(len as usize);
            match run.kind {
                ExtentKind::Data { host_offset, .. } => self.read_data(part, host_offset, at)?,
                ExtentKind::Encoded { .. } => match self.lookup(at)? {
                    ClusterPlace::Packed { host, len } => self.unpack((host, len), part, at)?,
                    _ => return Err(self.remapped(at)),
                },
                _ => return Err(self.remapped(at)),
            }
            (rest, at) = (tail, at + len);
        }
        Ok(())
    }

    fn remapped(&self, guest: u64) -> Error {
        let name = self.storage.name();
        Error::new(
            ErrorKind::Busy,
            format!("'{name}': guest offset {guest} was remapped meanwhile"),
        )
    }

    /// Decodes the cluster with that guest byte, if it is compressed; returns its end.
    pub(super) fn decode_cluster_ahead(&self, offset: u64) -> Result<u64> {
        let cluster = self.geometry.cluster();
        let start = offset - offset % cluster;
        if start < self.len
            && let ClusterPlace::Packed { host, len } = self.lookup(start)?
        {
            self.unit((host, len), start)?;
        }
        Ok(start.saturating_add(cluster))
    }

    /// Fills `buf`, which lies in one cluster, from that cluster's compressed bytes.
    pub(super) fn unpack(&self, (host, len): (u64, u64), buf: &mut [u8], guest: u64) -> Result<()> {
        let cluster = self.geometry.cluster();
        let within = (guest % cluster) as usize;
        if buf.len() as u64 != cluster {
            return copy_from(&self.unit((host, len), guest)?, within, buf);
        }
        match self.decoded.get_or_wait(host, len) {
            Some(unit) => copy_from(&unit, 0, buf),
            None => self.decode((host, len), buf, guest),
        }
    }

    /// A decoded cluster, which is cached, as data in the file never changes its place.
    fn unit(&self, (host, len): (u64, u64), guest: u64) -> Result<Arc<IoBuf>> {
        let cluster = self.geometry.cluster() as usize;
        self.decoded.get_or_decode(host, len, |bytes| {
            self.decode((host, len), bytes.room(cluster)?, guest)
        })
    }

    fn decode(&self, (host, len): (u64, u64), cluster: &mut [u8], guest: u64) -> Result<()> {
        // Taken out while in use: the underlying storage may itself be an image with compressed clusters.
        let mut tools = DECODER.take();
        let (decoder, input) = &mut tools;
        let mut read = || {
            steps::announce(&*self.storage, Step::ReadCompressed);
            self.storage.read_at(input.room(len as usize)?, host)?;
            decoder
                .decode(Method::Deflate, input, cluster)
                .map_err(|_| self.damaged(host, guest))
        };
        let result = read();
        DECODER.set(tools);
        result
    }

    fn damaged(&self, host: u64, guest: u64) -> Error {
        Error::corrupt(format!(
            "'{}': guest offset {guest} cannot be read: Compressed cluster does not decode as deflate",
            self.storage.name()
        ))
        .with_offset(host)
        .with_errno(libc::EIO)
    }

    /// Writes compressed bytes and makes the cluster's entry name them; returns false if the cluster has a place of its
    /// own, which nothing else could use then.
    fn store_packed(&self, bytes: &[u8], offset: u64) -> Result<bool> {
        let cluster = offset / self.geometry.cluster();
        let _mine = self.inflight.reserve(cluster..cluster + 1);
        let _io = self.users.enter();
        let (index, entry) = self.geometry.indices(offset);
        let table = self.table_to_change(index)?;
        // A damaged entry must not be replaced.
        if let ClusterPlace::Plain(_) = self.place(table.get(entry), offset)? {
            return Ok(false);
        }
        let len = bytes.len() as u64;
        let host = self.reserve_packed(len)?;
        let word = word_of_packed(host, len, self.geometry).ok_or_else(|| self.no_room())?;
        steps::announce(&*self.storage, Step::WriteCompressed);
        self.storage.write_at(bytes, host)?;
        self.set(&table, entry, word);
        Ok(true)
    }
}

impl Compress for Qcow {
    fn encode_unit(&self) -> u32 {
        self.geometry.cluster() as u32
    }

    fn write_compressed(&self, buf: &[u8], offset: u64) -> Result<()> {
        let cluster = self.geometry.cluster();
        let len = buf.len() as u64;
        self.begin_change()?;
        self.check_range(offset, len)?;
        let is_whole = len == cluster || offset + len == self.len;
        if !offset.is_multiple_of(cluster) || !is_whole || len > cluster {
            return Err(Error::partial_compressed_write());
        }
        self.write_back_if_full()?;
        let compression = Compression::of_units(Method::Deflate, self.compression_level, cluster)?;
        let (mut encoder, mut out) = ENCODER.take();
        let done =
            encode_cluster(&mut encoder, compression, buf, cluster, &mut out).and_then(|shrinks| {
                match shrinks {
                    true => self.store_packed(&out, offset),
                    false => Ok(false),
                }
            });
        ENCODER.set((encoder, out));
        match done? {
            true => Ok(()),
            // The write covers the cluster up to the end of the image, so nothing shows from below.
            false => self.write_guest(buf, offset, &ZeroBelow),
        }
    }
}

/// Compresses a cluster, padded with zeroes if the image ends within it; returns false if it does not shrink.
///
/// # Errors
/// If there is not enough memory.
pub(super) fn encode_cluster(
    encoder: &mut Encoder,
    compression: Compression,
    unit: &[u8],
    cluster: u64,
    out: &mut IoBuf,
) -> Result<bool> {
    let limit = cluster as usize;
    if unit.len() == limit {
        return encoder.encode(compression, unit, limit, out);
    }
    let mut padded = memory::copied(unit)?;
    padded.resize(limit)?;
    encoder.encode(compression, &padded, limit, out)
}

/// Copies the bytes from `within` a cluster on.
fn copy_from(cluster: &[u8], within: usize, buf: &mut [u8]) -> Result<()> {
    match cluster.get(within..within + buf.len()) {
        Some(bytes) => {
            buf.copy_from_slice(bytes);
            Ok(())
        }
        None => Err(Error::new(
            ErrorKind::Internal,
            "A read passes the end of a cluster",
        )),
    }
}
