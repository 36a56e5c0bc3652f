//! A stream that is written in order, through a pipe: each grain table follows its grains; the directory, and a footer
//! that refers to it, follow everything else.

use bstr::BString;
use parking_lot::Mutex;

use crate::codec::{Compression, Encoder};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{InOrder, TakeBytes};
use crate::memory::{self, IoBuf};
use crate::size::SECTOR;

use super::super::disk::SparseHeader;
use super::super::disk::marker::{Special, special};
use super::super::disk::sparse_header::GD_AT_END;
use super::super::encode::encode_grain;
use super::bulk::too_large;
use super::layout::SparseLayout;

/// The first sector of the first grain.
const OVERHEAD: u64 = SparseLayout::GRAIN;

/// A stream that is being written.
#[derive(Debug)]
pub(super) struct StreamInOrder {
    header: SparseHeader,
    descriptor: BString,
    compression: Compression,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Position of the next byte, in sectors.
    next: u64,
    directory: Vec<u32>,
    /// Number of the table that is being filled.
    table: u64,
    words: Vec<u32>,
    touched: bool,
}

impl StreamInOrder {
    /// Takes the header for the same layout in a file.
    ///
    /// # Errors
    /// If memory cannot be allocated.
    pub(super) fn new(
        header: SparseHeader,
        descriptor: BString,
        compression: Compression,
    ) -> Result<Self> {
        let state = State::new(header.directory_entries())?;
        Ok(Self {
            header: SparseHeader {
                redundant: 0,
                directory: GD_AT_END,
                has_footer: true,
                overhead: OVERHEAD,
                ..header
            },
            descriptor,
            compression,
            state: Mutex::new(state),
        })
    }
}

impl State {
    fn new(tables: u64) -> Result<Self> {
        Ok(Self {
            next: OVERHEAD,
            directory: memory::filled(tables as usize, 0)?,
            table: 0,
            words: memory::filled(SparseLayout::ENTRIES as usize, 0)?,
            touched: false,
        })
    }

    fn give(&mut self, bytes: &[u8], take: &mut TakeBytes<'_>) -> Result<()> {
        take(bytes)?;
        self.next += bytes.len() as u64 / SECTOR;
        u32::try_from(self.next).map(drop).map_err(|_| too_large())
    }

    /// Writes the table that is being filled, if it refers to any grain.
    fn give_table(&mut self, take: &mut TakeBytes<'_>) -> Result<()> {
        if !self.touched {
            return Ok(());
        }
        self.give(&special(Special::Table, SparseLayout::TABLE), take)?;
        let place = self.next as u32;
        if let Some(entry) = self.directory.get_mut(self.table as usize) {
            *entry = place;
        }
        let bytes = sectors_of(&self.words)?;
        self.give(&bytes, take)?;
        self.words.fill(0);
        self.touched = false;
        Ok(())
    }
}

/// The words as bytes, in whole sectors.
fn sectors_of(words: &[u32]) -> Result<IoBuf> {
    let mut bytes = memory::zeroed((words.len() * 4).next_multiple_of(SECTOR as usize))?;
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}

impl InOrder for StreamInOrder {
    fn unit(&self) -> u32 {
        (SparseLayout::GRAIN * SECTOR) as u32
    }

    fn encode(
        &self,
        scratch: &mut Encoder,
        guest_offset: u64,
        unit: &[u8],
        out: &mut IoBuf,
    ) -> Result<()> {
        encode_grain(scratch, self.compression, guest_offset, unit, out)
    }

    fn begin(&self, take: &mut TakeBytes<'_>) -> Result<()> {
        *self.state.lock() = State::new(self.header.directory_entries())?;
        let mut bytes = memory::copied(&self.header.to_bytes())?;
        bytes.extend_from_slice(&self.descriptor)?;
        bytes.resize((OVERHEAD * SECTOR) as usize)?;
        take(&bytes)
    }

    fn push(&self, guest_offset: u64, encoded: &[u8], take: &mut TakeBytes<'_>) -> Result<()> {
        let state = &mut *self.state.lock();
        let grain = guest_offset / u64::from(self.unit());
        let table = grain / SparseLayout::ENTRIES;
        if table < state.table || !encoded.len().is_multiple_of(SECTOR as usize) {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("The grain at {guest_offset} of a stream is out of order"),
            ));
        }
        if table > state.table {
            state.give_table(take)?;
            state.table = table;
        }
        let place = u32::try_from(state.next).map_err(|_| too_large())?;
        if let Some(word) = state
            .words
            .get_mut((grain % SparseLayout::ENTRIES) as usize)
        {
            *word = place;
            state.touched = true;
        }
        state.give(encoded, take)
    }

    fn end(&self, take: &mut TakeBytes<'_>) -> Result<()> {
        let state = &mut *self.state.lock();
        state.give_table(take)?;
        let directory = sectors_of(&state.directory)?;
        let marker = special(Special::Directory, directory.len() as u64 / SECTOR);
        state.give(&marker, take)?;
        let footer = SparseHeader {
            directory: state.next,
            ..self.header.clone()
        };
        state.give(&directory, take)?;
        state.give(&special(Special::Footer, 1), take)?;
        state.give(&footer.to_bytes(), take)?;
        state.give(&special(Special::EndOfStream, 0), take)
    }
}
