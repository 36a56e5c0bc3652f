//! Zeroing and discarding: whole blocks by their state, parts of blocks by their bytes.

use std::ops::Range;

use crate::error::Result;
use crate::format::Below;
use crate::storage::ZeroFlags;

use super::disk::{BatEntry, State};
use super::state::Vhdx;
use super::write::Content;

impl Vhdx {
    /// See [`crate::format::FormatWrite::write_zeroes`].
    pub(super) fn zero_guest(
        &self,
        offset: u64,
        len: u64,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        self.prepare_write()?;
        let end = self.check_range(offset, len)?;
        let mut at = offset;
        while at < end {
            let part = self.in_one_block(at, end - at);
            let block = self.geometry().block(at);
            self.write_back_if_full()?;
            let _mine = self.inflight.reserve(block..block + 1);
            self.check_range(at, part)?;
            let _guard = self.limbo.enter();
            self.zero_block(at..at + part, flags, below)?;
            at += part;
        }
        Ok(())
    }

    /// Zeroes a range within one block, whose reservation the caller holds.
    pub(super) fn zero_block(
        &self,
        range: Range<u64>,
        flags: ZeroFlags,
        below: &dyn Below,
    ) -> Result<()> {
        let geometry = self.geometry();
        let block = geometry.block(range.start);
        let entry = self.block_entry(block)?;
        let state = self.state_of(block, entry)?;
        let whole = self.is_whole(&range);
        let frees = flags.contains(ZeroFlags::MAY_UNMAP) && !self.fixed;
        let len = range.end - range.start;
        match state {
            State::Undefined | State::Zero | State::Unmapped => Ok(()),
            State::NotPresent if !geometry.has_parent() => Ok(()),
            State::NotPresent if whole => self.set_entry(geometry.entry(block), BatEntry::ZERO),
            State::NotPresent if below.is_zero_below(range.start, len)? => Ok(()),
            State::NotPresent => self.write_block(range, Content::Zeroes),
            State::Present(_) | State::Partial(_) if whole && frees => {
                self.drop_block(block, entry)
            }
            State::Present(host) => {
                let host = host + geometry.in_block(range.start);
                self.storage.write_zeroes(host, len, flags)
            }
            State::Partial(host) => {
                let at = host + geometry.in_block(range.start);
                self.storage.write_zeroes(at, len, flags)?;
                match whole {
                    true => self.set_entry(geometry.entry(block), BatEntry::present(host)),
                    false => self.mark(block, &range, true),
                }
            }
        }
    }

    /// Turns a block into zeroes, and frees its place in the file.
    fn drop_block(&self, block: u64, old: BatEntry) -> Result<()> {
        self.set_entry(self.geometry().entry(block), BatEntry::ZERO)?;
        self.give_up(old);
        Ok(())
    }

    /// See [`crate::format::FormatWrite::discard`].
    pub(super) fn discard_guest(&self, offset: u64, len: u64) -> Result<()> {
        self.prepare_write()?;
        let end = self.check_range(offset, len)?;
        if self.fixed {
            // Its blocks stay allocated.
            return Ok(());
        }
        let mut at = offset;
        while at < end {
            let part = self.in_one_block(at, end - at);
            let range = at..at + part;
            if self.is_whole(&range) {
                self.write_back_if_full()?;
                let block = self.geometry().block(at);
                let _mine = self.inflight.reserve(block..block + 1);
                self.check_range(at, part)?;
                let entry = self.block_entry(block)?;
                if let State::Present(_) | State::Partial(_) = self.state_of(block, entry)? {
                    self.drop_block(block, entry)?;
                }
            }
            at += part;
        }
        Ok(())
    }
}
