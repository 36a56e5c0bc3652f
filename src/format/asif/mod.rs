//! ASIF, the sparse images of macOS 26 and later: a directory of tables of chunks. Read-only.
//!
//! See `docs/formats/asif.md`.

mod disk;
mod inspect;

use std::sync::Arc;

use crate::bytes::{be64, le64};
use crate::error::{Error, Result};
use crate::format::read_only::{Contents, GuestRun, Held, ReadOnly, SizedStorage};
use crate::format::table_cache::{Cache, Key, Table};
use crate::format::{Format, FormatDriver, OpenContext, Signature};
use crate::memory::{self, IoBuf};
use crate::size::SECTOR;

use disk::{
    CHUNK, COVERED, Directory, Entry, GROUP, GROUP_LEN, HEADER_LEN, Header, MAGIC, STATES_LEN,
    State, chunk_of_bitmap,
};

/// The ASIF format.
pub static DRIVER: FormatDriver = FormatDriver {
    signature: Some(Signature {
        rank: 160,
        fits: |file| file.starts(MAGIC),
        footer: None,
    }),
    ..FormatDriver::read_only("asif", open, inspect::inspect)
};

/// The state of an open image.
#[derive(Debug)]
struct Asif {
    header: Header,
    directory: Directory,
    /// Groups of entries, and the states of the sectors of chunks.
    cache: Cache,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let source = SizedStorage::new(context.storage)?;
    let policy = context.opener.policy();
    let header = read_header(&source)?;
    let file = (&*source.storage, source.len);
    let contents = Asif {
        header,
        directory: Directory::read(file, &header, header.tables(), policy)?,
        cache: Cache::new(policy.max_cache_bytes),
    };
    Ok(Box::new(ReadOnly::new(&DRIVER, source, contents)))
}

fn read_header(source: &SizedStorage) -> Result<Header> {
    let mut head = [0; HEADER_LEN];
    source.storage.read_at(&mut head, 0)?;
    Header::from_bytes(&head)
}

/// Reads a piece of a table, located `within` a chunk.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if the file ends within that range, or if reading fails.
fn read_piece(source: &SizedStorage, (chunk, within): (u64, u64), len: u64) -> Result<IoBuf> {
    let start = chunk.checked_mul(CHUNK);
    let start = start.and_then(|start| start.checked_add(within));
    let fits = |start: &u64| {
        let end = start.checked_add(len);
        end.is_some_and(|end| end <= source.len)
    };
    let start = start.filter(fits).ok_or_else(|| {
        source.damaged(&format!(
            "it ends before chunk {chunk}, where a table is, does"
        ))
    })?;
    let mut bytes = memory::zeroed(len as usize)?;
    source.storage.read_at(&mut bytes, start)?;
    Ok(bytes)
}

/// Reads the entries of a group in the table in that chunk, along with the entry of its bitmap.
fn read_group(source: &SizedStorage, table: u64, group: u64) -> Result<Table> {
    let bytes = read_piece(source, (table, group * GROUP_LEN), GROUP_LEN)?;
    let words = bytes.chunks_exact(8);
    Table::new(words.map(|word| be64(word, 0).unwrap_or_default()))
}

/// Reads the states of the sectors of a chunk of the disk.
fn read_states(source: &SizedStorage, bitmap: u64, chunk: u64) -> Result<Table> {
    let bytes = read_piece(source, (bitmap, chunk % GROUP * STATES_LEN), STATES_LEN)?;
    let words = bytes.chunks_exact(8);
    Table::new(words.map(|word| le64(word, 0).unwrap_or_default()))
}

/// The error for anything unknown, which is refused by everything that meets it, maps included.
fn unknown(source: &SizedStorage, why: &str) -> Error {
    let error = Error::unsupported(format!("'{}': {why}", source.storage.name()));
    error.with_errno(libc::EIO)
}

impl Asif {
    fn cached(&self, key: Key, read: impl Fn() -> Result<Table>) -> Result<Arc<Table>> {
        loop {
            if let Some(table) = self.cache.get(key) {
                return Ok(table);
            }
            let epoch = self.cache.epoch();
            if let Some(table) = self.cache.keep(key, read()?, epoch)? {
                return Ok(table);
            }
        }
    }

    /// The run at `offset`, in a chunk of the disk of which only some sectors are held.
    fn part(
        &self,
        source: &SizedStorage,
        bitmap: u64,
        (host, offset, end): (u64, u64, u64),
    ) -> Result<GuestRun> {
        let bitmap = match chunk_of_bitmap(bitmap) {
            Ok(Some(bitmap)) => bitmap,
            Ok(None) => {
                let why = format!("the bitmap of the group of offset {offset} is not there");
                return Ok(GuestRun {
                    held: Held::Lost(source.damaged(&why)),
                    end,
                });
            }
            Err(reason) => {
                let why =
                    format!("the entry of the bitmap of the group of offset {offset} {reason}");
                return Err(unknown(source, &why));
            }
        };
        let chunk = offset / CHUNK;
        // Groups use 0 as the first key.
        let key = ((chunk >> 32) as u32 + 1, chunk as u32);
        let states = self.cached(key, || read_states(source, bitmap, chunk))?;
        let state_at = |offset: u64| {
            let sector = offset % CHUNK / SECTOR;
            State::of(states.get(sector / 32), sector)
        };
        let state = state_at(offset);
        let mut run_end = (offset - offset % SECTOR).saturating_add(SECTOR);
        while run_end < end && state_at(run_end) == state {
            run_end += SECTOR;
        }
        let end = run_end.min(end);
        let held = match state {
            State::Hole => Held::Zero,
            State::Written => plain(source, (host, offset, end)),
            State::Unknown => {
                let why = format!("the state of the sector of offset {offset} is not known");
                return Err(unknown(source, &why));
            }
        };
        Ok(GuestRun { held, end })
    }
}

/// The guest bytes from `offset` to `end`, in a chunk that begins at `host` in the file.
fn plain(source: &SizedStorage, (host, offset, end): (u64, u64, u64)) -> Held {
    let start = host.checked_add(offset % CHUNK);
    let fits = |start: &u64| {
        let host_end = start.checked_add(end - offset);
        host_end.is_some_and(|host_end| host_end <= source.len)
    };
    match start.filter(fits) {
        Some(start) => Held::Plain(start),
        None => {
            let why = format!("it ends before the chunk of offset {offset} does");
            Held::Lost(source.damaged(&why))
        }
    }
}

impl Contents for Asif {
    fn len(&self) -> u64 {
        self.header.len
    }

    fn run(&self, source: &SizedStorage, offset: u64, stop: u64) -> Result<GuestRun> {
        let len = self.header.len;
        let (table, within) = (offset / COVERED, offset % COVERED);
        let Some(host) = self.directory.table(table) else {
            let end = (offset - within).saturating_add(COVERED).min(len);
            return Ok(GuestRun {
                held: Held::Zero,
                end,
            });
        };
        let group = within / (GROUP * CHUNK);
        let number = u32::try_from(offset / (GROUP * CHUNK)).unwrap_or(u32::MAX);
        let entries = self.cached((0, number), || read_group(source, host, group))?;
        let mut index = within / CHUNK % GROUP;
        let mut end = (offset - offset % CHUNK).saturating_add(CHUNK).min(len);
        let word = entries.get(index);
        let entry = Entry::of(word).map_err(|reason| {
            let why = format!("the entry {word:#018x} of the chunk of offset {offset} {reason}");
            unknown(source, &why)
        })?;
        // An overflow is past the end of any file.
        let host = |chunk: u64| chunk.saturating_mul(CHUNK);
        match entry {
            Entry::Hole => {
                while end < stop.min(len) && index + 1 < GROUP && entries.get(index + 1) == 0 {
                    index += 1;
                    end = end.saturating_add(CHUNK).min(len);
                }
                Ok(GuestRun {
                    held: Held::Zero,
                    end,
                })
            }
            Entry::Whole(chunk) => Ok(GuestRun {
                held: plain(source, (host(chunk), offset, end)),
                end,
            }),
            Entry::Partly(chunk) => {
                self.part(source, entries.get(GROUP), (host(chunk), offset, end))
            }
        }
    }
}
