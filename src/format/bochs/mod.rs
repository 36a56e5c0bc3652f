//! The disks of Bochs that grow: a header, a catalog, and for each extent a bitmap of its sectors and then
//! its data. Only read.
//!
//! See `docs/formats/bochs.md`.

mod disk;
mod inspect;

use std::sync::Arc;

use bstr::BString;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::{Extent, ExtentKind, StorageSlot};
use crate::format::decoded::DecodedUnits;
use crate::format::{
    ChildSpec, Features, FileRole, Format, FormatDriver, FormatFile, FormatInfo, IoGuard,
    OpenContext, Outline, ParentRef, Signature,
};
use crate::memory::IoBuf;
use crate::size::SECTOR;
use crate::storage::Storage;

use disk::{Catalog, HEADER_LEN, Header, is_growing};

/// The bochs format.
pub static DRIVER: FormatDriver = FormatDriver {
    name: "bochs",
    of_images: Features::empty(),
    signature: Some(Signature {
        rank: 100,
        fits: |file| is_growing(file.head),
        footer: None,
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
struct Bochs {
    storage: Arc<dyn Storage>,
    file_len: u64,
    header: Header,
    catalog: Catalog,
    /// By the offset in the file.
    bitmaps: DecodedUnits,
}

fn open(context: OpenContext<'_>) -> Result<Box<dyn Format>> {
    let storage = context.storage;
    let mut head = [0; HEADER_LEN];
    storage.read_at(&mut head, 0)?;
    let header = Header::from_bytes(&head)?;
    let file_len = storage.len()?;
    let catalog = Catalog::read(&*storage, file_len, &header, context.opener.policy())?;
    Ok(Box::new(Bochs {
        storage,
        file_len,
        header,
        catalog,
        bitmaps: DecodedUnits::default(),
    }))
}

impl Bochs {
    /// The bitmap at an offset of the file: a bit for each sector of an extent, from the lowest bit on.
    fn bitmap(&self, at: u64) -> Result<Arc<IoBuf>> {
        let len = self.header.bits();
        self.bitmaps.get_or_decode(at, len, |bytes| {
            self.check_within(at, len)?;
            self.storage.read_at(bytes.room(len as usize)?, at)
        })
    }

    fn check_within(&self, at: u64, len: u64) -> Result<()> {
        if at.saturating_add(len) <= self.file_len {
            return Ok(());
        }
        let name = self.storage.name();
        let error = Error::corrupt(format!(
            "'{name}' cannot be read: it ends before what its catalog says is at {at}"
        ));
        Err(error.with_offset(at).with_errno(libc::EIO))
    }

    /// The run of one kind at `offset`, within its extent.
    fn run(&self, offset: u64, end: u64) -> Result<Extent> {
        let extent = self.header.extent;
        let zero = |len| Extent {
            len,
            kind: ExtentKind::Zero { host_offset: None },
        };
        let start = offset - offset % extent;
        let end = end.min(start.saturating_add(extent));
        let Some(number) = self.catalog.get(offset / extent) else {
            return Ok(zero(end - offset));
        };
        let at = self.header.extent_at(number);
        let bitmap = self.bitmap(at)?;
        let is_held = |sector: u64| {
            let byte = bitmap.get((sector / 8) as usize).copied();
            byte.is_some_and(|byte| byte >> (sector % 8) & 1 == 1)
        };
        let first = (offset - start) / SECTOR;
        let held = is_held(first);
        let last = (end - start).div_ceil(SECTOR);
        let differs = (first + 1..last).find(|sector| is_held(*sector) != held);
        let stop = differs.map_or(end, |sector| start + sector * SECTOR);
        let len = stop - offset;
        if !held {
            return Ok(zero(len));
        }
        let host_offset = at + self.header.bitmap + (offset - start);
        self.check_within(host_offset, len)?;
        Ok(Extent {
            len,
            kind: ExtentKind::Data {
                slot: StorageSlot::MAIN,
                host_offset,
            },
        })
    }
}

impl Format for Bochs {
    fn driver(&self) -> &'static str {
        DRIVER.name
    }

    fn len(&self) -> u64 {
        self.header.len
    }

    fn cluster_size(&self) -> Option<u32> {
        None
    }

    fn request_alignment(&self) -> u32 {
        1
    }

    fn map(&self, offset: u64, len: u64) -> Result<Extent> {
        let end = offset.saturating_add(len);
        let mut run = self.run(offset, end)?;
        // A bitmap stands between the data of two extents: zeroes alone go on.
        while matches!(run.kind, ExtentKind::Zero { .. }) && run.len < len {
            match self.run(offset + run.len, end) {
                Ok(next) if next.kind == run.kind => run.len += next.len,
                // What is damaged is met when it is asked for itself.
                _ => break,
            }
        }
        Ok(run)
    }

    fn is_opaque(&self) -> bool {
        true
    }

    fn storage(&self, slot: StorageSlot) -> Result<&Arc<dyn Storage>> {
        match slot {
            StorageSlot::MAIN => Ok(&self.storage),
            _ => Err(Error::new(
                ErrorKind::Internal,
                "A bochs image has one file",
            )),
        }
    }

    fn visit_files<'a>(&'a self, visit: &mut dyn FnMut(FormatFile<'a>)) {
        visit(FormatFile::own(&self.storage));
    }

    fn closed_files(&self) -> Vec<(FileRole, BString)> {
        Vec::new()
    }

    fn read_encoded(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        Err(Error::new(
            ErrorKind::Internal,
            "Nothing is encoded in a bochs image",
        ))
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
