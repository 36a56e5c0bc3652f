//! DMG, the disk images of macOS (UDIF): individually compressed chunks, tables of them, a trailer. Read-only.
//!
//! See `docs/formats/dmg.md`.

mod check;
mod disk;
mod inspect;
mod open;
mod runs;

use crc32fast::Hasher;

use crate::codec::Packing;
use crate::error::Result;
use crate::format::encrcdsa;
use crate::format::read_only::{
    Contents, EncodedUnit, GuestRun, Held, ReadOnly, SizedStorage, Verify,
};
use crate::format::sparseimage;
use crate::format::{Features, Format, FormatDriver, OpenContext, Signature};
use crate::size::SECTOR;

use disk::{Checksum, Chunk, Coding, MAGIC, Table, Tables, Trailer};
use runs::Runs;

/// The DMG format.
pub static DRIVER: FormatDriver = FormatDriver {
    of_images: Features::CHECK,
    signature: Some(Signature {
        rank: 110,
        fits: |file| {
            file.starts(encrcdsa::HEADER_MAGIC)
                || file.name.len() > 4 && file.name.ends_with(b".dmg")
        },
        footer: Some(MAGIC),
    }),
    open_options: encrcdsa::OPEN_OPTIONS,
    secret_option: Some(encrcdsa::KEY_SECRET),
    strong_options: &[encrcdsa::KEY_SECRET],
    ..FormatDriver::read_only("dmg", open, inspect::inspect)
};

/// The state of an open image.
#[derive(Debug)]
struct Dmg {
    len: u64,
    /// Offset and length of the data fork.
    data: (u64, u64),
    data_sum: Checksum,
    master: Checksum,
    /// What `master` should be, if all tables have checksums.
    master_found: Option<u32>,
    tables: Vec<Table>,
    runs: Runs,
}

impl Dmg {
    fn new(trailer: &Trailer, tables: Tables) -> Result<Self> {
        let Tables { list, chunks } = tables;
        Ok(Self {
            len: trailer.len,
            data: trailer.data,
            data_sum: trailer.data_sum,
            master: trailer.master,
            master_found: master(&list),
            tables: list,
            runs: Runs::new(chunks)?,
        })
    }
}

/// The checksum of the checksums of the tables.
fn master(tables: &[Table]) -> Option<u32> {
    let mut all = Hasher::new();
    for table in tables {
        match table.sum {
            Checksum::Crc32(sum) => all.update(&sum.to_be_bytes()),
            Checksum::None | Checksum::Other(_) => return None,
        }
    }
    Some(all.finalize())
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let file = context.storage.clone();
    let Some(plain) = encrcdsa::open(&context)? else {
        let source = SizedStorage::new(file)?;
        let trailer = open::read_trailer(&*source.storage, source.len)?;
        return Ok(Box::new(with_trailer(&context, source, &trailer)?));
    };
    let source = SizedStorage::new(plain)?;
    match open::find_trailer(&*source.storage, source.len)? {
        Some(trailer) => {
            let image = with_trailer(&context, source, &trailer)?;
            Ok(Box::new(image.encrypted_in(file)))
        }
        None if sparseimage::is_one(&source)? => {
            let bands = sparseimage::Bands::read(&source, context.opener.policy())?;
            let image = ReadOnly::new(&DRIVER, source, bands);
            Ok(Box::new(image.encrypted_in(file)))
        }
        None => {
            let disk = Whole(source.len.next_multiple_of(SECTOR));
            let image = ReadOnly::new(&DRIVER, source, disk);
            Ok(Box::new(image.encrypted_in(file)))
        }
    }
}

/// Builds the image from its trailer.
fn with_trailer(
    context: &OpenContext<'_>,
    source: SizedStorage,
    trailer: &Trailer,
) -> Result<ReadOnly<Dmg>> {
    let tables = open::read_tables(&*source.storage, trailer, context.opener.policy())?;
    let contents = Dmg::new(trailer, tables)?;
    let mut unknown = contents.runs.chunks().iter();
    let unknown = unknown.find_map(|chunk| match chunk.coding {
        Coding::Unknown(kind) => Some(kind),
        _ => None,
    });
    if let Some(kind) = unknown {
        (context.warn)(format!(
            "Image contains chunks of unknown type {kind:x}, accessing them will result in I/O errors"
        ));
    }
    Ok(ReadOnly::new(&DRIVER, source, contents))
}

/// An encrypted raw disk, given by its length.
#[derive(Debug)]
struct Whole(u64);

impl Contents for Whole {
    fn len(&self) -> u64 {
        self.0
    }

    fn run(&self, _: &SizedStorage, offset: u64, _: u64) -> Result<GuestRun> {
        Ok(GuestRun {
            held: Held::Plain(offset),
            end: self.0,
        })
    }
}

impl Contents for Dmg {
    fn len(&self) -> u64 {
        self.len
    }

    /// The run stays within its chunk.
    fn run(&self, source: &SizedStorage, offset: u64, _: u64) -> Result<GuestRun> {
        let lost = |why: &str| Held::Lost(source.damaged(&format!("{why} (offset {offset})")));
        let (run, chunk) = match self.runs.at(offset) {
            Ok(found) => found,
            Err(end) => {
                let held = lost("no table of the image has it");
                return Ok(GuestRun { held, end });
            }
        };
        let mut end = run.end;
        let held = match chunk.coding {
            Coding::Zero | Coding::Free => Held::Zero,
            Coding::Raw => match raw(source, chunk, offset, &mut end) {
                Some(held) => held,
                None => lost("its chunk lies behind the end of the file"),
            },
            Coding::Packed(packing) => Held::Unit(unit(chunk, packing)),
            Coding::Unknown(kind) => lost(&format!("its chunk is of the unknown type {kind:x}")),
        };
        Ok(GuestRun { held, end })
    }

    fn verifier(&self) -> Option<&dyn Verify> {
        Some(self)
    }
}

fn unit(chunk: &Chunk, packing: Packing) -> EncodedUnit {
    EncodedUnit {
        guest: chunk.guest,
        len: chunk.len,
        host: chunk.host,
        encoded: chunk.held,
        packing,
    }
}

/// A piece of an uncompressed chunk, which may be shorter than it says; None if it is not in the file.
fn raw(source: &SizedStorage, chunk: &Chunk, offset: u64, end: &mut u64) -> Option<Held> {
    let within = offset - chunk.guest;
    if within >= chunk.held {
        return Some(Held::Zero);
    }
    *end = (*end).min(chunk.guest.saturating_add(chunk.held));
    let host_end = chunk.host.checked_add(*end - chunk.guest)?;
    (host_end <= source.len).then(|| Held::Plain(chunk.host + within))
}
