//! Guest data: in place if the cluster has a place, otherwise in a new one that the tables name afterwards.

use std::io::IoSlice;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::extent::{ExtentKind, StorageSlot};
use crate::format::Below;
use crate::format::table_cache::Table;
use crate::memory::{self, IoBuf};
use crate::storage::data_cipher::DataCipher;
use crate::storage::{Step, ZeroFlags, steps};

use super::Qcow;
use super::disk::{ClusterPlace, word_of};

/// Size of the pieces in which zeroes that must be stored are written.
const ZERO_PIECE: u64 = 1 << 20;

/// Bytes around written data.
struct Around {
    bytes: IoBuf,
    is_zero: bool,
}

impl Qcow {
    /// The cipher, if the image is encrypted.
    fn cipher(&self) -> Result<Option<&DataCipher>> {
        match &self.cipher {
            None if self.encrypted => Err(Error::needs_secret("encrypt.key-secret")),
            cipher => Ok(cipher.as_ref()),
        }
    }

    /// Fills `buf` with the guest bytes at `guest`, which are at `host`.
    pub(super) fn read_data(&self, buf: &mut [u8], host: u64, guest: u64) -> Result<()> {
        steps::announce(&*self.storage, Step::ReadAio);
        match self.cipher()? {
            None => self.storage.read_at(buf, host),
            Some(cipher) => cipher.read(&*self.storage, buf, host, guest),
        }
    }

    /// Writes the guest bytes at `guest`, consecutive in `bufs`, to `host`.
    fn write_data(&self, bufs: &[IoSlice<'_>], host: u64, guest: u64) -> Result<()> {
        steps::announce(&*self.storage, Step::WriteAio);
        match (self.cipher()?, bufs) {
            (Some(cipher), bufs) => cipher.write(&*self.storage, bufs, host, guest),
            (None, [one]) => self.storage.write_at(one, host),
            (None, many) => self.storage.write_vectored_at(many, host),
        }
    }

    /// See [`crate::format::FormatWrite::write`].
    pub(super) fn write_guest(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<()> {
        self.begin_change()?;
        self.check_range(offset, buf.len() as u64)?;
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let done = match self.write_in_place(rest, at)? {
                0 => {
                    self.write_back_if_full()?;
                    self.write_new(rest, at, below)?
                }
                done => done,
            };
            rest = rest.get(done as usize..).unwrap_or_default();
            at += done;
        }
        Ok(())
    }

    /// Overwrites clusters that have a place; returns how many bytes, from the start of `buf`.
    fn write_in_place(&self, buf: &[u8], offset: u64) -> Result<u64> {
        let _io = self.users.enter();
        let run = self.run(offset, buf.len() as u64)?;
        let ExtentKind::Data { host_offset, .. } = run.kind else {
            return Ok(0);
        };
        self.check_place(host_offset, run.len)?;
        let part = buf.get(..run.len as usize).unwrap_or(buf);
        self.write_data(&[IoSlice::new(part)], host_offset, offset)?;
        Ok(run.len)
    }

    /// Where a write to the whole range would overwrite bytes in place, if that is known now.
    pub(super) fn try_place(&self, offset: u64, len: u64) -> Option<(StorageSlot, u64)> {
        if self.read_only || self.encrypted {
            return None;
        }
        let run = self.try_run(offset, len).ok()??;
        match run.kind {
            ExtentKind::Data { slot, host_offset }
                if run.len == len && !self.is_metadata(&(host_offset..host_offset + len)) =>
            {
                Some((slot, host_offset))
            }
            _ => None,
        }
    }

    /// The clusters of a range that are in the same table as its first one.
    fn clusters(&self, range: &Range<u64>) -> Range<u64> {
        let cluster = self.geometry.cluster();
        let first = range.start / cluster;
        let per_table = self.geometry.per_table();
        let table_end = (first / per_table + 1) * per_table;
        first..range.end.div_ceil(cluster).min(table_end)
    }

    /// The places of the first clusters of a range, up to the first cluster that can be overwritten in place.
    fn without_place(&self, table: &Table, clusters: Range<u64>) -> Result<Vec<ClusterPlace>> {
        let mut found = Vec::new();
        for number in clusters {
            let guest = number * self.geometry.cluster();
            let (_, entry) = self.geometry.indices(guest);
            let place = self.place(table.get(entry), guest)?;
            if matches!(place, ClusterPlace::Plain(_)) {
                break;
            }
            memory::push(&mut found, place)?;
        }
        Ok(found)
    }

    /// Writes the beginning of `buf` to clusters without a place; returns 0 if another write has allocated them in the
    /// meantime.
    fn write_new(&self, buf: &[u8], offset: u64, below: &dyn Below) -> Result<u64> {
        let cluster = self.geometry.cluster();
        let clusters = self.clusters(&(offset..offset + buf.len() as u64));
        let _mine = self.inflight.reserve(clusters.clone());
        let _io = self.users.enter();
        let (index, first) = self.geometry.indices(offset);
        let table = self.table_to_change(index)?;
        let held = self.without_place(&table, clusters.clone())?;
        let (Some(before), Some(behind)) = (held.first(), held.last()) else {
            return Ok(0);
        };
        let count = held.len() as u64;
        let start = clusters.start * cluster;
        let whole = (start + count * cluster).min(self.len);
        let end = whole.min(offset + buf.len() as u64);
        let data = buf.get(..(end - offset) as usize).unwrap_or(buf);
        let head = self.around(*before, start..offset, below)?;
        let tail = self.around(*behind, end..whole, below)?;
        let host = self.reserve(count * cluster)?;
        // New space in a file may already read as zeroes.
        let fresh = self.is_fresh();
        let needed = |around: &Around| !(fresh && around.is_zero);
        let (head, tail) = (head.filter(needed), tail.filter(needed));
        let mut bufs = Vec::with_capacity(3);
        let mut from = offset;
        if let Some(head) = &head {
            bufs.push(IoSlice::new(&head.bytes));
            from = start;
        }
        bufs.push(IoSlice::new(data));
        bufs.extend(tail.as_ref().map(|tail| IoSlice::new(&tail.bytes)));
        self.write_data(&bufs, host + (from - start), from)?;
        for n in 0..count {
            let word = word_of(host + n * cluster).ok_or_else(|| self.no_room())?;
            self.set(&table, first + n, word);
        }
        Ok(end - offset)
    }

    /// The contents around written data, in the cluster that was at `old` before.
    fn around(
        &self,
        old: ClusterPlace,
        range: Range<u64>,
        below: &dyn Below,
    ) -> Result<Option<Around>> {
        let len = range.end.saturating_sub(range.start);
        if len == 0 {
            return Ok(None);
        }
        let mut bytes = memory::zeroed(len as usize)?;
        let mut is_zero = false;
        match old {
            ClusterPlace::Packed { host, len } => {
                self.unpack((host, len), &mut bytes, range.start)?
            }
            ClusterPlace::Plain(_) | ClusterPlace::Absent => {
                is_zero = !self.is_overlay() || below.is_zero_below(range.start, len)?;
                if !is_zero {
                    steps::announce(&*self.storage, Step::CowRead);
                    below.read_below(&mut bytes, range.start)?;
                }
            }
        }
        Ok(Some(Around { bytes, is_zero }))
    }

    /// See [`crate::format::FormatWrite::write_zeroes`].
    pub(super) fn zero_guest(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.begin_change()?;
        self.check_range(offset, len)?;
        let end = offset + len;
        let mut at = offset;
        while at < end {
            at += self.zero_run(at..end, flags, below)?;
        }
        Ok(())
    }

    /// Zeroes the beginning of a range; returns how much was zeroed.
    fn zero_run(&self, range: Range<u64>, flags: ZeroFlags, below: &dyn Below) -> Result<u64> {
        let at = range.start;
        let len = {
            let _io = self.users.enter();
            let run = self.run(at, range.end - at)?;
            match run.kind {
                ExtentKind::Data { host_offset, .. } if !self.encrypted => {
                    self.check_place(host_offset, run.len)?;
                    self.storage.write_zeroes(host_offset, run.len, flags)?;
                    return Ok(run.len);
                }
                ExtentKind::Unallocated { .. }
                    if !self.is_overlay() || below.is_zero_below(at, run.len)? =>
                {
                    return Ok(run.len);
                }
                _ => run.len,
            }
        };
        if !self.is_overlay() && self.drop_packed(at..at + len)? {
            return Ok(self.geometry.cluster().min(len));
        }
        if flags.contains(ZeroFlags::NO_FALLBACK) {
            return Err(Error::unsupported("The range cannot be zeroed fast"));
        }
        let len = len.min(ZERO_PIECE);
        self.write_guest(&memory::zeroed(len as usize)?, at, below)?;
        Ok(len)
    }

    /// Drops the compressed cluster at the beginning of a range that covers it; returns false if there is none.
    fn drop_packed(&self, range: Range<u64>) -> Result<bool> {
        let cluster = self.geometry.cluster();
        let end = (range.start + cluster).min(self.len);
        if !range.start.is_multiple_of(cluster) || range.end < end {
            return Ok(false);
        }
        let number = range.start / cluster;
        let _mine = self.inflight.reserve(number..number + 1);
        let (index, entry) = self.geometry.indices(range.start);
        let Some(table) = self.table(index)? else {
            return Ok(false);
        };
        let place = self.place(table.get(entry), range.start)?;
        let is_packed = matches!(place, ClusterPlace::Packed { .. });
        if is_packed {
            self.set(&table, entry, 0);
        }
        Ok(is_packed)
    }

    /// See [`crate::format::FormatWrite::discard`]: clusters keep their places, but the space is returned to the host
    /// if it can punch holes that read as zeroes.
    pub(super) fn discard_guest(&self, offset: u64, len: u64) -> Result<()> {
        self.begin_change()?;
        self.check_range(offset, len)?;
        // A hole decrypts to noise.
        if self.encrypted {
            return Ok(());
        }
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let _io = self.users.enter();
            let run = self.run(at, end - at)?;
            if let ExtentKind::Data { host_offset, .. } = run.kind {
                self.check_place(host_offset, run.len)?;
                let flags = ZeroFlags::MAY_UNMAP | ZeroFlags::NO_FALLBACK;
                self.storage.write_zeroes(host_offset, run.len, flags)?;
            }
            at += run.len;
        }
        Ok(())
    }
}
