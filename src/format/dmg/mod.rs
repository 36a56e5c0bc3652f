//! DMG, the disk images of macOS (UDIF): chunks, each compressed by itself, tables of them, a trailer. Only
//! read.
//!
//! See `docs/formats/dmg.md`.

mod disk;
mod inspect;
mod open;
mod runs;

use crate::error::Result;
use crate::format::read_only::{Contents, EncodedUnit, Held, Piece, ReadOnly, Source};
use crate::format::{Format, FormatDriver, OpenContext, Signature};

use disk::{Chunk, Coding, MAGIC};
use runs::Runs;

/// The DMG format.
pub static DRIVER: FormatDriver = FormatDriver {
    signature: Some(Signature {
        rank: 110,
        fits: |file| file.name.len() > 4 && file.name.ends_with(b".dmg"),
        footer: Some(MAGIC),
    }),
    ..FormatDriver::read_only("dmg", open, inspect::inspect)
};

/// What is known of an image.
#[derive(Debug)]
struct Dmg {
    len: u64,
    runs: Runs,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let source = Source::new(context.storage)?;
    let trailer = open::read_trailer(&*source.storage, source.len)?;
    let runs = open::read_runs(&*source.storage, &trailer, context.opener.policy())?;
    let unknown = runs.chunks().iter().find_map(|chunk| match chunk.coding {
        Coding::Unknown(kind) => Some(kind),
        _ => None,
    });
    if let Some(kind) = unknown {
        (context.warn)(format!(
            "Image contains chunks of unknown type {kind:x}, accessing them will result in I/O errors"
        ));
    }
    let contents = Dmg {
        len: trailer.len,
        runs,
    };
    Ok(Box::new(ReadOnly::new(&DRIVER, source, contents)))
}

impl Contents for Dmg {
    fn len(&self) -> u64 {
        self.len
    }

    /// Within its chunk.
    fn piece(&self, source: &Source, offset: u64, _: u64) -> Result<Piece> {
        let lost = |why: &str| Held::Lost(source.damaged(&format!("{why} (offset {offset})")));
        let (run, chunk) = match self.runs.at(offset) {
            Ok(found) => found,
            Err(end) => {
                let held = lost("no table of the image has it");
                return Ok(Piece { held, end });
            }
        };
        let mut end = run.end;
        let held = match chunk.coding {
            Coding::Zero => Held::Zero,
            Coding::Raw => match raw(source, chunk, offset, &mut end) {
                Some(held) => held,
                None => lost("its chunk lies behind the end of the file"),
            },
            Coding::Packed(packing) => Held::Unit(EncodedUnit {
                guest: chunk.guest,
                len: chunk.len,
                host: chunk.host,
                encoded: chunk.held,
                packing,
            }),
            Coding::Unknown(kind) => lost(&format!("its chunk is of the unknown type {kind:x}")),
        };
        Ok(Piece { held, end })
    }
}

/// A piece of a chunk that is kept as it is, and may be shorter than it says; None where it is not in
/// the file.
fn raw(source: &Source, chunk: &Chunk, offset: u64, end: &mut u64) -> Option<Held> {
    let within = offset - chunk.guest;
    if within >= chunk.held {
        return Some(Held::Zero);
    }
    *end = (*end).min(chunk.guest.saturating_add(chunk.held));
    let host_end = chunk.host.checked_add(*end - chunk.guest)?;
    (host_end <= source.len).then(|| Held::Plain(chunk.host + within))
}
