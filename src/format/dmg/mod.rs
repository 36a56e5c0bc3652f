//! DMG, the disk images of macOS (UDIF): chunks, each compressed by itself, tables of them, a trailer. Only
//! read.
//!
//! See `docs/formats/dmg.md`.

mod disk;
mod inspect;
mod open;
mod runs;

use std::sync::Arc;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::unit_reader::{EncodedUnit, UnitReader};
use crate::format::{
    ChildSpec, Features, FileRole, Format, FormatDriver, FormatFile, FormatInfo, IoGuard,
    OpenContext, Outline, ParentRef, Signature,
};
use crate::storage::Storage;

use disk::{Chunk, Coding, MAGIC};
use runs::{Run, Runs};

/// The DMG format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "dmg",
    of_images: Features::empty(),
    signature: Some(Signature {
        rank: 110,
        fits: |file| file.name.len() > 4 && file.name.ends_with(b".dmg"),
        footer: Some(MAGIC),
    }),
    has_metadata: true,
    is_transparent: false,
    is_stream: false,
    children: &[ChildSpec::FILE],
    open,
    inspect: inspect::inspect,
    create: None,
    outline: |_| Outline::default(),
    measure: None,
    create_options: &[],
    summary: &[],
    amend_options: &[],
    open_options: &[],
    secret_option: None,
    strong_options: &[],
    events: &[],
};

/// An open image.
#[derive(Debug)]
struct Dmg {
    storage: Arc<dyn Storage>,
    file_len: u64,
    len: u64,
    runs: Runs,
    units: UnitReader,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let storage = context.storage;
    let file_len = storage.len()?;
    let trailer = open::read_trailer(&*storage, file_len)?;
    let runs = open::read_runs(&*storage, &trailer, context.opener.policy())?;
    let unknown = runs.chunks().iter().find_map(|chunk| match chunk.coding {
        Coding::Unknown(kind) => Some(kind),
        _ => None,
    });
    if let Some(kind) = unknown {
        (context.warn)(format!(
            "Image contains chunks of unknown type {kind:x}, accessing them will result in I/O errors"
        ));
    }
    Ok(Box::new(Dmg {
        storage,
        file_len,
        len: trailer.len,
        runs,
        units: UnitReader::default(),
    }))
}

const ENCODED: ExtentKind = ExtentKind::Encoded { compressed: true };
const ZERO: ExtentKind = ExtentKind::Zero { host_offset: None };

impl Dmg {
    /// The run of one kind at `offset`, and where it ends, within its chunk.
    fn run(&self, offset: u64) -> (ExtentKind, u64) {
        let (run, chunk) = match self.runs.at(offset) {
            Ok(found) => found,
            // Refused when it is read.
            Err(next) => return (ENCODED, next),
        };
        match chunk.coding {
            Coding::Zero => (ZERO, run.end),
            Coding::Raw => self.raw(run, chunk, offset),
            Coding::Packed(_) | Coding::Unknown(_) => (ENCODED, run.end),
        }
    }

    /// As [`Dmg::run`] for a chunk that is kept as it is, and may be shorter than it says.
    fn raw(&self, run: Run, chunk: &Chunk, offset: u64) -> (ExtentKind, u64) {
        let within = offset - chunk.guest;
        if within >= chunk.held {
            return (ZERO, run.end);
        }
        let end = run.end.min(chunk.guest.saturating_add(chunk.held));
        let host_end = chunk.host.checked_add(end - chunk.guest);
        if host_end.is_none_or(|end| end > self.file_len) {
            return (ENCODED, end);
        }
        let kind = ExtentKind::Data {
            slot: StorageSlot::MAIN,
            host_offset: chunk.host + within,
        };
        (kind, end)
    }

    fn refuse(&self, offset: u64, why: &str) -> Error {
        let name = self.storage.name();
        Error::corrupt(format!("'{name}' cannot be read: {why} (offset {offset})"))
            .with_errno(libc::EIO)
    }

    /// Reads guest bytes within a chunk.
    fn read_chunk(&self, chunk: &Chunk, buf: &mut [u8], offset: u64) -> Result<()> {
        let packing = match chunk.coding {
            Coding::Packed(packing) => packing,
            Coding::Unknown(kind) => {
                let why = format!("its chunk is of the unknown type {kind:x}");
                return Err(self.refuse(offset, &why));
            }
            Coding::Zero | Coding::Raw => {
                return Err(self.refuse(offset, "its chunk lies behind the end of the file"));
            }
        };
        let unit = EncodedUnit {
            guest: chunk.guest,
            len: chunk.len,
            host: chunk.host,
            encoded: chunk.held,
            packing,
        };
        let file = (&*self.storage, self.file_len);
        self.units.read(file, &unit, buf, offset)
    }
}

impl Format for Dmg {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn cluster_size(&self) -> Option<u32> {
        None
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let stop = offset.saturating_add(len);
        let (kind, end) = self.run(offset);
        let mut end = end.min(stop);
        while end < stop {
            let (next, next_end) = self.run(end);
            if next != kind.advanced(end - offset) {
                break;
            }
            end = next_end.min(stop);
        }
        Ok(Extent {
            len: end - offset,
            kind,
        })
    }

    fn is_opaque(&self) -> bool {
        true
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        match slot {
            StorageSlot::MAIN => Ok(&self.storage),
            _ => Err(Error::new(ErrorKind::Internal, "A dmg image has one file")),
        }
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let (run, chunk) = self
                .runs
                .at(at)
                .map_err(|_| self.refuse(at, "no table of the image has it"))?;
            let len = (run.end - at).min(rest.len() as u64) as usize;
            let (part, tail) = rest.split_at_mut(len);
            self.read_chunk(chunk, part, at)?;
            (rest, at) = (tail, at + len as u64);
        }
        Ok(())
    }

    fn begin_io(&self) -> IoGuard<'_> {
        IoGuard::UNGUARDED
    }

    fn info(&self) -> Result<FormatInfo> {
        Ok(FormatInfo::default())
    }

    fn parent(&self) -> Option<ParentRef> {
        None
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}
